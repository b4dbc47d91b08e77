//! What the journal holds, one entry after another.

use serde::{Deserialize, Serialize};

use super::rename::Name;
use crate::observation::{Estimate, Observation};

/// One entry.
#[derive(Debug, Serialize, Deserialize)]
pub enum Entry {
    /// What a number in the entries behind stands for. Never handed out by a journal.
    Name(Name, String),
    /// An observation that something counts.
    Observation(Observation),
    /// An estimator's event.
    Estimate(Estimate),
}

/// The same, borrowed for writing.
#[derive(Debug, Serialize)]
pub(super) enum EntryRef<'a> {
    Name(Name, &'a str),
    Observation(&'a Observation),
    Estimate(&'a Estimate),
}

impl Entry {
    /// Wall-clock time, nanoseconds since 1970; 0 for a name.
    pub(super) fn at_unix_ns(&self) -> u64 {
        match self {
            Self::Name(..) => 0,
            Self::Observation(observation) => observation.at.unix_ns,
            Self::Estimate(estimate) => estimate.at.unix_ns,
        }
    }
}
