//! The journal: what rules and estimators have to know again after a restart.
//!
//! Observations that a rule or an estimator counts flow in and are appended to segment files; at start they flow out
//! again, oldest first, so that windows and open findings stand where they stood. It is written with each batch, so a
//! killed process loses nothing that it had judged, and synced once a second, so a dead machine loses at most that second.
//! Its size is bounded: segments older than the longest window are removed, and beyond the bound the oldest, which is
//! counted. No raw credential and no account identifier reaches it: an observation has none.

mod entry;
mod recorder;
mod rename;
mod segment;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use entry::Entry;
pub use recorder::{Recorder, RecorderCounts};
pub use rename::{Name, Names, Resolve};
use rename::{Renamer, named};
use segment::{Reader, Writer};

use crate::observation::{Estimate, Instant, Observation};

/// A segment is closed when it is this long, bytes, or an eighth of what may be kept: that much is lost at once when room
/// runs out.
const SEGMENT_BYTES: u64 = 32 << 20;
/// Between two syncs, nanoseconds.
const SYNC_NS: u64 = 1_000_000_000;
/// How a segment file is called.
const SUFFIX: &str = "journal";

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// A file or the directory refuses.
    #[error("the journal {path}: {source}. Correct the directory's permissions, or make room on its disk.")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not a journal of this version.
    #[error("{path} is no journal that this version can read. Move it away; windows then start empty.")]
    Format {
        /// The file.
        path: PathBuf,
    },
}

impl JournalError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all segments.
    pub bytes: u64,
    /// Age of the oldest entry: the longest window of any rule.
    pub age: Duration,
}

/// What happened to the journal, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalCounts {
    /// Entries written.
    pub written: u64,
    /// Entries read at start.
    pub replayed: u64,
    /// Entries read at start that name a service, route or issuer which the configuration no longer has.
    pub unknown: u64,
    /// Bytes of torn ends that were cut off: what a killed process or a dead machine was writing.
    pub torn_bytes: u64,
    /// Segments removed for want of room, not for age.
    pub evicted: u64,
    /// Bytes on disk.
    pub bytes: u64,
}

#[derive(Debug)]
struct Closed {
    path: PathBuf,
    bytes: u64,
    /// Wall-clock time of its last entry, ns.
    last_unix_ns: u64,
}

/// The journal of one data plane.
#[derive(Debug)]
pub struct Journal {
    directory: PathBuf,
    limits: Limits,
    closed: VecDeque<Closed>,
    writer: Writer,
    next: u64,
    synced_ns: u64,
    counts: JournalCounts,
}

impl Journal {
    /// Opens the journal in `directory` (made if it is not there) and hands every kept entry to `again`, oldest first,
    /// with names resolved against what the program has now. Entries that are too old at `now` are left out.
    pub fn open<R: Resolve>(
        directory: &Path,
        limits: Limits,
        now: Instant,
        names: &mut R,
        mut again: impl FnMut(Entry, &R),
    ) -> Result<Self, JournalError> {
        make(directory)?;
        let mut counts = JournalCounts::default();
        let mut closed = VecDeque::new();
        let mut next = 0;
        let oldest = now.unix_ns.saturating_sub(nanos(limits.age));
        for (number, path) in segments(directory)? {
            next = number + 1;
            let (last_unix_ns, bytes) = replay(&path, oldest, names, &mut counts, &mut again)?;
            closed.push_back(Closed { path, bytes, last_unix_ns });
        }
        let writer = Writer::create(&directory.join(format!("{next:012}.{SUFFIX}")))?;
        let mut journal =
            Self { directory: directory.to_owned(), limits, closed, writer, next: next + 1, synced_ns: 0, counts };
        journal.prune(now);
        Ok(journal)
    }

    /// Appends an observation that something counts.
    pub fn observation(&mut self, observation: &Observation, names: &dyn Names) {
        named(observation, &mut |name| self.writer.name(name, names));
        self.writer.observation(observation);
        self.counts.written += 1;
    }

    /// Appends an estimator's event.
    pub fn estimate(&mut self, estimate: &Estimate, names: &dyn Names) {
        rename::named_by_estimate(estimate, &mut |name| self.writer.name(name, names));
        self.writer.estimate(estimate);
        self.counts.written += 1;
    }

    /// Hands what was appended to the system, and from time to time to the disk. Called after each batch.
    pub fn flush(&mut self, now: Instant) -> Result<(), JournalError> {
        self.writer.flush()?;
        if now.monotonic_ns.saturating_sub(self.synced_ns) >= SYNC_NS {
            self.synced_ns = now.monotonic_ns;
            self.writer.sync()?;
            self.prune(now);
        }
        if self.writer.bytes() >= SEGMENT_BYTES.min(self.limits.bytes / 8) {
            self.roll(now)?;
        }
        Ok(())
    }

    fn roll(&mut self, now: Instant) -> Result<(), JournalError> {
        let fresh = Writer::create(&self.directory.join(format!("{:012}.{SUFFIX}", self.next)))?;
        self.next += 1;
        let full = std::mem::replace(&mut self.writer, fresh);
        let (path, bytes) = full.close()?;
        self.closed.push_back(Closed { path, bytes, last_unix_ns: now.unix_ns });
        self.prune(now);
        Ok(())
    }

    /// Removes what is too old, and what there is no room for.
    fn prune(&mut self, now: Instant) {
        let oldest = now.unix_ns.saturating_sub(nanos(self.limits.age));
        let mut bytes = self.writer.bytes() + self.closed.iter().map(|segment| segment.bytes).sum::<u64>();
        while let Some(first) = self.closed.front() {
            let old = first.last_unix_ns < oldest;
            if !old && bytes <= self.limits.bytes {
                break;
            }
            // One that cannot be removed now is tried again at the next start.
            if let Err(error) = fs::remove_file(&first.path) {
                tracing::warn!("cannot remove the journal segment {}: {error}", first.path.display());
            }
            bytes = bytes.saturating_sub(first.bytes);
            self.counts.evicted += u64::from(!old);
            self.closed.pop_front();
        }
        self.counts.bytes = bytes;
    }

    /// What was counted so far.
    pub fn counts(&self) -> JournalCounts {
        JournalCounts { bytes: self.counts.bytes.max(self.writer.bytes()), ..self.counts }
    }
}

/// Makes a directory that only its owner may enter.
fn make(directory: &Path) -> Result<(), JournalError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(JournalError::io(directory))
}

/// The segments of a directory by number.
fn segments(directory: &Path) -> Result<Vec<(u64, PathBuf)>, JournalError> {
    let mut found = Vec::new();
    for file in fs::read_dir(directory).map_err(JournalError::io(directory))? {
        let path = file.map_err(JournalError::io(directory))?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse().ok());
        if let Some(number) = number.filter(|_| path.extension().is_some_and(|extension| extension == SUFFIX)) {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Reads one segment; gives the time of its last entry and its length without a torn end.
fn replay<R: Resolve>(
    path: &Path,
    oldest_unix_ns: u64,
    names: &mut R,
    counts: &mut JournalCounts,
    again: &mut impl FnMut(Entry, &R),
) -> Result<(u64, u64), JournalError> {
    let mut reader = Reader::open(path)?;
    let mut renamer = Renamer::default();
    let mut last = 0;
    while let Some(entry) = reader.next()? {
        let entry = match entry {
            Entry::Name(name, text) => {
                renamer.learn(name, &text, names);
                continue;
            }
            other => other,
        };
        let at = entry.at_unix_ns();
        last = last.max(at);
        if at < oldest_unix_ns {
            continue;
        }
        match renamer.renamed(entry) {
            Some(entry) => {
                counts.replayed += 1;
                again(entry, names);
            }
            None => counts.unknown += 1,
        }
    }
    let (whole, torn) = reader.ends();
    counts.torn_bytes += torn;
    Ok((last, whole))
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
