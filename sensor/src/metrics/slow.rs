//! The slow path: what it follows, holds, and did.

use prometheus::{IntGauge, Registry};
use sensor_ebpf::reason::Counter;

use super::catalogue;
use super::kernel::Totals;
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
    bytes: Totals,
    events: Totals,
    flows: IntGauge,
    held: IntGauge,
}

impl Slow {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes: Totals::new(registry, &catalogue::SLOW_BYTES, BYTES.map(|(label, _)| label))?,
            events: Totals::new(registry, &catalogue::SLOW_EVENTS, EVENTS)?,
            flows: catalogue::SLOW_FLOWS.gauge(registry)?,
            held: catalogue::SLOW_HELD.gauge(registry)?,
        })
    }

    pub(super) fn set(&self, totals: &[u64], counts: &SlowCounts) {
        self.bytes.set(BYTES.map(|(_, counter)| totals.get(counter as usize).copied().unwrap_or_default()));
        self.events.set(events(counts));
        self.flows.set(i64::try_from(counts.flows).unwrap_or(i64::MAX));
        self.held.set(i64::try_from(counts.held).unwrap_or(i64::MAX));
    }
}
