//! What rules and estimators know, kept in a folder and taken up again at start.
//!
//! Windows and open findings come back from the [`Journal`], seasons and the like from a snapshot that is replaced as a
//! whole. What is lost by a kill: walks and miss tests in progress start anew, and seasons what they learned since the last
//! snapshot.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::names::Names;
use super::{Pipeline, PipelineError};
use crate::estimate::{Estimators, State};
use crate::journal::{Entry, Journal, Limits, Recorder};
use crate::observation::Instant;

/// Folder of the journal, and file of the snapshot, within the folder of the state.
const JOURNAL: &str = "journal";
const ESTIMATORS: &str = "estimators";
/// Between two snapshots, nanoseconds.
const SNAPSHOT_NS: u64 = 30_000_000_000;
/// First byte of a snapshot: its version.
const VERSION: u8 = 1;

/// A pipeline's folder.
pub(super) struct Kept {
    pub recorder: Recorder,
    estimators: PathBuf,
    due_ns: u64,
}

impl Kept {
    /// Hands over what has come, and a snapshot when one is due (or `now` is the end).
    pub fn flush(&mut self, estimators: &mut Estimators, now: Instant, end: bool) {
        if end || now.monotonic_ns >= self.due_ns {
            self.due_ns = now.monotonic_ns.saturating_add(SNAPSHOT_NS);
            if let Ok(bytes) = postcard::to_extend(&estimators.snapshot(now), vec![VERSION]) {
                self.recorder.file(self.estimators.clone(), bytes);
            }
        }
        self.recorder.flush(now);
    }
}

impl Pipeline {
    /// Keeps what rules and estimators know in `directory`, and takes up what an earlier run left there; findings that
    /// are still open are reported again. At `now`, before the first record.
    pub fn keep_state(&mut self, directory: &Path, now: Instant) -> Result<(), PipelineError> {
        let estimators = directory.join(ESTIMATORS);
        if let Some(state) = snapshot(&estimators) {
            self.estimators.restore(&state, now);
        }
        let Self { config, collector, detectors, parents, fired, .. } = self;
        let mut names = Names { config, ledger: collector.ledger() };
        let limits = Limits { bytes: config.bounds.journal_bytes, age: detectors.longest() };
        let journal = Journal::open(&directory.join(JOURNAL), limits, now, &mut names, |entry, names| {
            match entry {
                Entry::Observation(observation) => drop(detectors.observe(&observation, names, fired)),
                Entry::Estimate(estimate) => detectors.estimate(&estimate, names, fired),
                Entry::Name(..) => {}
            }
            // They were written then.
            for mut finding in fired.drain(..) {
                parents.place(&mut finding);
            }
        })?;
        // What ended in the meantime, and what is still open.
        detectors.tick(now, &names, fired);
        detectors.open(&names, fired);
        let counts = journal.counts();
        tracing::info!(
            "{} observations of an earlier run counted again, {} of what is no more; {} bytes were torn",
            counts.replayed,
            counts.unknown,
            counts.torn_bytes
        );
        let due_ns = now.monotonic_ns.saturating_add(SNAPSHOT_NS);
        self.kept = Some(Kept { recorder: Recorder::start(journal)?, estimators, due_ns });
        self.report(now)
    }

    /// Waits until everything up to the last [`Pipeline::advance`] is written down: what a crash after this leaves is
    /// complete up to there. For simulations, whose clock runs faster than a disk; a daemon never waits.
    pub fn settle(&mut self) {
        if let Some(kept) = self.kept.as_mut() {
            kept.flush(&mut self.estimators, self.now, false);
            kept.recorder.settle(self.now);
        }
        self.collector.ledger().settle(self.now);
    }

    /// Reports each open finding as it stands now.
    pub fn report_open(&mut self) -> Result<(), PipelineError> {
        let names = Names { config: &self.config, ledger: self.collector.ledger() };
        self.detectors.open(&names, &mut self.fired);
        self.report(self.now)
    }
}

/// The snapshot at `path`; none when there is none that can be read: seasons then start anew.
fn snapshot(path: &Path) -> Option<State> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!("{}: {error}. Seasons start anew.", path.display());
            return None;
        }
    };
    let state = match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).ok(),
        _ => None,
    };
    if state.is_none() {
        tracing::warn!("{} is no snapshot that this version can read. Seasons start anew.", path.display());
    }
    state
}
