//! The journal of what rules have counted: its size, and what a restart would not remember.

use prometheus::core::AtomicU64 as U64;
use prometheus::{IntGauge, Registry};

use super::catalogue;
use super::control::signed;
use super::kernel::Total;
use crate::journal::RecorderCounts;

/// Values of the `event` label of the journal.
pub(super) const JOURNAL_EVENTS: [&str; 3] = ["written", "write_lost", "write_failed"];

/// Its metrics.
pub(super) struct Journal {
    bytes: IntGauge,
    events: Vec<Total>,
}

impl Journal {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let events = catalogue::JOURNAL_EVENTS.counters::<U64>(registry)?;
        let events = JOURNAL_EVENTS.map(|event| Ok(Total::new(events.get_metric_with_label_values(&[event])?)));
        Ok(Self {
            bytes: catalogue::JOURNAL_BYTES.gauge(registry)?,
            events: events.into_iter().collect::<Result<_, prometheus::Error>>()?,
        })
    }

    pub(super) fn set(&self, counts: &RecorderCounts) {
        self.bytes.set(signed(counts.bytes));
        for (total, count) in self.events.iter().zip([counts.written, counts.lost, counts.failures]) {
            total.set(count);
        }
    }
}
