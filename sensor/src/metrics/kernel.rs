//! The kernel's totals as metrics: every [`Counter`] has exactly one home.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus::core::AtomicU64 as U64;
use prometheus::{IntCounter, IntGauge, Registry};
use sensor_ebpf::reason::Counter;

use super::catalogue::{self, Family};

/// A counter that is set from absolute totals.
pub(super) struct Total {
    counter: IntCounter,
    last: AtomicU64,
}

impl Total {
    pub(super) fn new(counter: IntCounter) -> Self {
        Self { counter, last: AtomicU64::new(0) }
    }

    /// Adds what came since the last call. A total that fell began anew from 0.
    pub(super) fn set(&self, total: u64) {
        let last = self.last.swap(total, Ordering::Relaxed);
        self.counter.inc_by(total.checked_sub(last).unwrap_or(total));
    }
}

/// The counters of a family with one label, in the order of its values.
pub(super) struct Totals(Vec<Total>);

impl Totals {
    /// Registers `family` and makes a counter for each of `labels`.
    pub(super) fn new<'a>(
        registry: &Registry,
        family: &Family,
        labels: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, prometheus::Error> {
        let family = family.counters::<U64>(registry)?;
        let total = |label| Ok(Total::new(family.get_metric_with_label_values(&[label])?));
        labels.into_iter().map(total).collect::<Result<_, _>>().map(Self)
    }

    /// Sets them all, in order.
    pub(super) fn set(&self, totals: impl IntoIterator<Item = u64>) {
        for (counter, total) in self.0.iter().zip(totals) {
            counter.set(total);
        }
    }

    /// Sets the one at `place`, if there is one.
    pub(super) fn set_one(&self, place: usize, total: u64) {
        if let Some(counter) = self.0.get(place) {
            counter.set(total);
        }
    }
}

/// The family that `counter` belongs to. Its label value, where the family has one, is [`Counter::label`].
pub(super) fn home(counter: Counter) -> &'static Family {
    match counter {
        Counter::PacketsSeen => &catalogue::PACKETS_SEEN,
        Counter::PacketNotIp
        | Counter::PacketNotTcp
        | Counter::PacketFragment
        | Counter::PacketMalformed
        | Counter::PacketNoService
        | Counter::PacketEmpty
        | Counter::PacketNoFlow
        | Counter::PacketSyn
        | Counter::PacketData
        | Counter::PacketDuplicate
        | Counter::PacketHole
        | Counter::PacketBusy
        | Counter::PacketFlowTableFull
        | Counter::PacketSlow
        | Counter::PacketPassed => &catalogue::PACKETS,
        Counter::BytesNew => &catalogue::BYTES_NEW,
        Counter::BytesParsed | Counter::BytesSkipped | Counter::BytesHandedOver | Counter::BytesGap => {
            &catalogue::BYTES
        }
        Counter::HeadsCompleted => &catalogue::HEADS_COMPLETED,
        Counter::HeadsRequest => &catalogue::HEADS_REQUEST,
        Counter::RecordsEmitted | Counter::LostEventRing => &catalogue::HEADS,
        Counter::LostEnd | Counter::LostByteRing | Counter::LostSegment | Counter::LostFragment => {
            &catalogue::LOST_RECORDS
        }
        Counter::LostByteRingBytes => &catalogue::LOST_TEE_BYTES,
        Counter::FlowsCreated => &catalogue::FLOWS_CREATED,
        Counter::FlowsDeleted => &catalogue::FLOWS_DELETED,
        Counter::FlowsPickedUp => &catalogue::FLOWS_PICKED_UP,
        Counter::FlowsUpgraded | Counter::PassedTls | Counter::PassedH2 => &catalogue::FLOWS_PASSED,
        Counter::HalvesHandedOver => &catalogue::HALVES_HANDED_OVER,
        Counter::FlowsResumed => &catalogue::FLOWS_RESUMED,
        Counter::SegmentsCompared => &catalogue::SEGMENTS_COMPARED,
        Counter::Desynchronised => &catalogue::DESYNCHRONISED,
        Counter::Resynchronised => &catalogue::RESYNCHRONISED,
        Counter::HeadSlotLost
        | Counter::HeadTooLong
        | Counter::Unsolicited
        | Counter::Ambiguous
        | Counter::PairingOverflow
        | Counter::ProxyMissing
        | Counter::ProxyMalformed
        | Counter::StepBudget => &catalogue::STREAM_FAULTS,
        Counter::FragmentsReassembled
        | Counter::FragmentsConflicting
        | Counter::FragmentsDropped
        | Counter::FragmentsUnclaimed => &catalogue::FRAGMENTS,
        Counter::AnomalyLineCut
        | Counter::AnomalyValueCut
        | Counter::AnomalyFold
        | Counter::AnomalyMoreCredentials
        | Counter::AnomalyManyAuthorizations
        | Counter::AnomalyBadLength
        | Counter::AnomalyLengthAndCoding
        | Counter::AnomalyOddCoding
        | Counter::AnomalyOddHeader
        | Counter::AnomalyOddChunk
        | Counter::AnomalyOddLine
        | Counter::AnomalyBadLine
        | Counter::AnomalyOddHost
        | Counter::AnomalyEarly => &catalogue::HTTP_ANOMALIES,
    }
}

/// All totals, in [`Counter`] order.
pub(super) struct Kernel {
    totals: Vec<Total>,
    live: IntGauge,
    flows_max: u64,
}

impl Kernel {
    pub(super) fn new(registry: &Registry, flows_max: u64) -> Result<Self, prometheus::Error> {
        let mut families: Vec<(&str, prometheus::IntCounterVec)> = Vec::new();
        let mut totals = Vec::with_capacity(Counter::COUNT);
        for &counter in Counter::ALL {
            let home = home(counter);
            if !families.iter().any(|(name, _)| *name == home.name) {
                families.push((home.name, home.counters::<U64>(registry)?));
            }
            let label = [counter.label()];
            let labels = label.get(..home.labels.len()).unwrap_or(&label);
            for (_, family) in families.iter().filter(|(name, _)| *name == home.name) {
                totals.push(Total::new(family.get_metric_with_label_values(labels)?));
            }
        }
        Ok(Self { totals, live: catalogue::FLOWS_LIVE.gauge(registry)?, flows_max })
    }

    pub(super) fn set(&self, totals: &[u64]) {
        for (total, now) in self.totals.iter().zip(totals) {
            total.set(*now);
        }
        let of = |counter: Counter| totals.get(counter as usize).copied().unwrap_or_default();
        // From the totals as they stand, not since the start: tables made anew are empty.
        let live = of(Counter::FlowsCreated).saturating_sub(of(Counter::FlowsDeleted)).min(self.flows_max);
        self.live.set(i64::try_from(live).unwrap_or(i64::MAX));
    }
}
