//! The slow path: what it follows, holds, and did.

use prometheus::core::AtomicU64 as U64;
use prometheus::{IntGauge, Registry};
use sensor_ebpf::reason::Counter;

use super::catalogue;
use super::kernel::Total;
use crate::slow::SlowCounts;

/// Values of the `disposition` label, and what they come from.
const BYTES: [(&str, Counter); 3] =
    [("parsed", Counter::BytesParsed), ("skipped", Counter::BytesSkipped), ("gap", Counter::BytesGap)];
/// Values of the `event` label, in the order of [`events`].
pub(super) const EVENTS: [&str; 9] = [
    "evicted",
    "evicted_resting",
    "evicted_found",
    "evicted_share",
    "hole",
    "out_of_window",
    "conflict",
    "unjudged",
    "version",
];

fn events(counts: &SlowCounts) -> [u64; EVENTS.len()] {
    let for_other_reasons = counts.evicted_resting + counts.evicted_found + counts.evicted_share;
    [
        counts.evicted.saturating_sub(for_other_reasons),
        counts.evicted_resting,
        counts.evicted_found,
        counts.evicted_share,
        counts.holes,
        counts.out_of_window,
        counts.conflicts,
        counts.unjudged,
        counts.versions,
    ]
}

/// Its metrics.
pub(super) struct Slow {
    bytes: Vec<Total>,
    events: Vec<Total>,
    flows: IntGauge,
    held: IntGauge,
}

impl Slow {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let bytes = catalogue::SLOW_BYTES.counters::<U64>(registry)?;
        let bytes = BYTES.map(|(label, _)| Ok(Total::new(bytes.get_metric_with_label_values(&[label])?)));
        let events = catalogue::SLOW_EVENTS.counters::<U64>(registry)?;
        let events = EVENTS.map(|event| Ok(Total::new(events.get_metric_with_label_values(&[event])?)));
        Ok(Self {
            bytes: bytes.into_iter().collect::<Result<_, prometheus::Error>>()?,
            events: events.into_iter().collect::<Result<_, prometheus::Error>>()?,
            flows: catalogue::SLOW_FLOWS.gauge(registry)?,
            held: catalogue::SLOW_HELD.gauge(registry)?,
        })
    }

    pub(super) fn set(&self, totals: &[u64], counts: &SlowCounts) {
        for (metric, (_, counter)) in self.bytes.iter().zip(BYTES) {
            metric.set(totals.get(counter as usize).copied().unwrap_or_default());
        }
        for (metric, event) in self.events.iter().zip(events(counts)) {
            metric.set(event);
        }
        self.flows.set(i64::try_from(counts.flows).unwrap_or(i64::MAX));
        self.held.set(i64::try_from(counts.held).unwrap_or(i64::MAX));
    }
}
