//! What rules and estimators know, kept in a folder and taken up again at start.
//!
//! Windows and open findings come back from the [`Journal`]. What is under way in the estimators (walks, miss tests, silences,
//! the running hour) comes back from a sealed snapshot that is replaced as a whole: every five seconds while it is small, less
//! often as it grows, so that it never writes more than [`RATE`]. What a kill costs is what they learned since. For
//! another configuration than it was written for, that snapshot says nothing; a second one, by name, then still has seasons and
//! the like.

use std::fs;
use std::io;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};

use super::names::Names;
use super::seal::Seal;
use super::{Pipeline, PipelineError};
use crate::estimate::{Estimators, PARTS, Part, State};
use crate::journal::{Entry, Journal, Limits, Name, Names as _, Recorder, Resolve as _};
use crate::ledger::Ledger;
use crate::observation::Instant;

/// Folder of the journal, and file of the snapshot, within the folder of the state.
const JOURNAL: &str = "journal";
const ESTIMATORS: &str = "estimators";
/// Between two snapshots, nanoseconds.
const SNAPSHOT_NS: u64 = 30_000_000_000;
/// Least time between two snapshots of what is under way, nanoseconds; and bytes a second that they may take: 5.5 GB a day.
const PROGRESS_NS: u64 = 5_000_000_000;
const RATE: u64 = 64 << 10;
/// Least time between two of the clients of the days, nanoseconds.
const PAST_NS: u64 = 600_000_000_000;
/// First byte of a snapshot: its version.
const VERSION: u8 = 1;

/// A pipeline's folder.
pub(super) struct Kept {
    pub recorder: Recorder,
    estimators: PathBuf,
    due_ns: u64,
    /// Of [`PARTS`]: when each is due.
    parts_due_ns: [u64; PARTS.len()],
    taken_up_ns: Option<u64>,
}

/// What a part is called, as a file and in its seal.
fn label(part: Part) -> &'static str {
    match part {
        Part::Past => "past",
        Part::Progress => "progress",
    }
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

    /// Hands over what is under way, if it is due (or `now` is the end).
    pub fn progress<L: Deref<Target = Ledger>>(
        &mut self,
        estimators: &mut Estimators,
        names: &Names<'_, L>,
        seal: &Seal,
        now: Instant,
        end: bool,
    ) {
        for (part, due_ns) in PARTS.into_iter().zip(&mut self.parts_due_ns) {
            if !end && now.monotonic_ns < *due_ns {
                continue;
            }
            let least = if part == Part::Past { PAST_NS } else { PROGRESS_NS };
            // Numbers in the state stand for these.
            let kids: Vec<&str> = (0..).map_while(|kid| names.text(Name::Kid(kid))).collect();
            let written = postcard::to_allocvec(&kids).ok().and_then(|kids| estimators.part(part, now, kids));
            let sealed = written.and_then(|written| seal.seal(label(part), written));
            let bytes = sealed.as_ref().map_or(0, |sealed| sealed.len() as u64);
            *due_ns = now.monotonic_ns.saturating_add(least.max(bytes.saturating_mul(1_000_000_000) / RATE));
            if let Some(sealed) = sealed {
                self.recorder.file(self.estimators.with_file_name(label(part)), sealed);
            }
        }
    }
}

impl Pipeline {
    /// Keeps what rules and estimators know in `directory`, and takes up what an earlier run left there; findings that
    /// are still open are reported again. At `now`, before the first record.
    pub fn keep_state(&mut self, directory: &Path, now: Instant) -> Result<(), PipelineError> {
        let estimators = directory.join(ESTIMATORS);
        let taken_up_ns = self.take_up(directory, now);
        if taken_up_ns.is_none()
            && let Some(state) = snapshot(&estimators)
        {
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
        let parts_due_ns = [PAST_NS, PROGRESS_NS].map(|least| now.monotonic_ns.saturating_add(least));
        self.kept = Some(Kept { recorder: Recorder::start(journal)?, estimators, due_ns, parts_due_ns, taken_up_ns });
        self.report(now)
    }

    /// When what was under way in an earlier run was last written down, ns since 1970, if it was taken up.
    pub fn taken_up_from(&self) -> Option<u64> {
        self.kept.as_ref().and_then(|kept| kept.taken_up_ns)
    }

    /// Takes up what was under way, if this configuration can go on with it; gives when it was written.
    fn take_up(&mut self, directory: &Path, now: Instant) -> Option<u64> {
        let mut read = |part| {
            let sealed = fs::read(directory.join(label(part))).ok()?;
            let opened = self.seal.open(label(part), sealed);
            let mut names = Names { config: &self.config, ledger: self.collector.ledger() };
            let body = opened.as_deref().and_then(|bytes| behind_kids(bytes, &mut names)).map(<[u8]>::to_vec);
            if body.is_none() {
                tracing::warn!(
                    "{} in {} is of another key, version or configuration",
                    label(part),
                    directory.display()
                );
            }
            body
        };
        let [past, progress] = PARTS.map(&mut read);
        let taken_up = self.estimators.resume(&progress?, past.as_deref(), now);
        if taken_up.is_none() {
            tracing::warn!(
                "{} in {} is of other services, routes, issuers or bounds of [estimate]: walks begin anew",
                label(Part::Progress),
                directory.display()
            );
        }
        taken_up
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

/// What stands behind the list of `kid`s, if they have the numbers now that they had then: state is laid out by them.
fn behind_kids<'b, L: DerefMut<Target = Ledger>>(bytes: &'b [u8], names: &mut Names<'_, L>) -> Option<&'b [u8]> {
    let (kids, body) = postcard::take_from_bytes::<Vec<String>>(bytes).ok()?;
    let same = (0..).zip(&kids).all(|(number, kid)| names.number(Name::Kid(0), kid) == Some(number));
    same.then_some(body)
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
