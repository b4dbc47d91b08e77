//! The journal of what rules have counted: its size, and what a restart would not remember.

use prometheus::{IntGauge, Registry};

use super::catalogue;
use super::control::signed;
use super::kernel::Totals;
use crate::journal::RecorderCounts;

/// Values of the `event` label of the journal.
pub(super) const JOURNAL_EVENTS: [&str; 3] = ["written", "write_lost", "write_failed"];

/// Its metrics.
pub(super) struct Journal {
    bytes: IntGauge,
    events: Totals,
}

impl Journal {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            bytes: catalogue::JOURNAL_BYTES.gauge(registry)?,
            events: Totals::new(registry, &catalogue::JOURNAL_EVENTS, JOURNAL_EVENTS)?,
        })
    }

    pub(super) fn set(&self, counts: &RecorderCounts) {
        self.bytes.set(signed(counts.bytes));
        self.events.set([counts.written, counts.lost, counts.failures]);
    }
}
