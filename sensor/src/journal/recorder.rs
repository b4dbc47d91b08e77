//! The data plane's end of the journal: it hands entries over in batches and never waits for a disk.
//!
//! A thread owns the [`Journal`] and writes what comes. When it falls behind, batches wait, bounded; beyond the bound they
//! are dropped and counted, and a disk that refuses is said once in the log and counted ever after: detection goes on
//! either way, only what a restart would remember is less.

use std::collections::{HashMap, HashSet};
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use super::rename::{self, Name, Names};
use super::{Journal, JournalError};
use crate::observation::{Estimate, Instant, Observation};

/// Batches that may wait for the thread.
const BATCHES: usize = 64;
/// Entries that may wait in the batch that is being filled.
const WAITING: usize = 65_536;

#[expect(clippy::large_enum_variant, reason = "observations are nearly all there is; boxing them would allocate each")]
enum Item {
    Name(Name, Box<str>),
    Observation(Observation),
    Estimate(Box<Estimate>),
    File(PathBuf, Vec<u8>),
}

struct Batch {
    items: Vec<Item>,
    now: Instant,
    /// Told once all of it is written.
    done: Option<SyncSender<()>>,
}

/// What the thread has counted, for metrics.
#[derive(Debug, Default)]
struct Shared {
    written: AtomicU64,
    bytes: AtomicU64,
    evicted: AtomicU64,
    failures: AtomicU64,
}

/// Counts of a running journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecorderCounts {
    /// Entries written.
    pub written: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// Segments removed for want of room.
    pub evicted: u64,
    /// Writes that the disk refused.
    pub failures: u64,
    /// Entries dropped because the thread fell behind.
    pub lost: u64,
}

/// Takes entries without waiting.
pub struct Recorder {
    batch: Vec<Item>,
    told: HashSet<Name>,
    sender: Option<SyncSender<Batch>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
    lost: u64,
}

impl Recorder {
    /// Starts the thread that owns `journal`.
    pub fn start(journal: Journal) -> Result<Self, JournalError> {
        let (sender, batches) = sync_channel(BATCHES);
        let shared = Arc::new(Shared::default());
        let told = Arc::clone(&shared);
        let directory = journal.directory.clone();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(journal, &batches, &told))
            .map_err(JournalError::io(&directory))?;
        let (batch, thread) = (Vec::new(), Some(thread));
        Ok(Self { batch, told: HashSet::new(), sender: Some(sender), thread, shared, lost: 0 })
    }

    /// An observation that something counts.
    pub fn observation(&mut self, observation: &Observation, names: &dyn Names) {
        rename::named(observation, &mut |name| self.name(name, names));
        self.item(Item::Observation(*observation));
    }

    /// An estimator's event.
    pub fn estimate(&mut self, estimate: &Estimate, names: &dyn Names) {
        rename::named_by_estimate(estimate, &mut |name| self.name(name, names));
        self.item(Item::Estimate(Box::new(estimate.clone())));
    }

    /// A file to be replaced as a whole by `bytes`.
    pub fn file(&mut self, path: PathBuf, bytes: Vec<u8>) {
        self.item(Item::File(path, bytes));
    }

    fn name(&mut self, name: Name, names: &dyn Names) {
        if self.told.insert(name)
            && let Some(text) = names.text(name)
        {
            // Never dropped: entries behind it would lose their names. There are few.
            self.batch.push(Item::Name(name, text.into()));
        }
    }

    fn item(&mut self, item: Item) {
        if self.batch.len() < WAITING {
            self.batch.push(item);
        } else {
            self.lost += 1;
        }
    }

    /// Hands over what has come, if the thread has room for it.
    pub fn flush(&mut self, now: Instant) {
        let Some(sender) = self.sender.as_ref() else { return };
        let items = std::mem::take(&mut self.batch);
        if let Err(TrySendError::Full(batch) | TrySendError::Disconnected(batch)) =
            sender.try_send(Batch { items, now, done: None })
        {
            self.batch = batch.items;
        }
    }

    /// Hands over what has come and waits until it is written: for whoever drives the clock faster than a disk follows.
    pub fn settle(&mut self, now: Instant) {
        let Some(sender) = self.sender.as_ref() else { return };
        let (done, settled) = sync_channel(1);
        // A thread that is gone can write nothing any more.
        if sender.send(Batch { items: std::mem::take(&mut self.batch), now, done: Some(done) }).is_ok() {
            let _ = settled.recv();
        }
    }

    /// What was counted so far.
    pub fn counts(&self) -> RecorderCounts {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        RecorderCounts {
            written: of(&self.shared.written),
            bytes: of(&self.shared.bytes),
            evicted: of(&self.shared.evicted),
            failures: of(&self.shared.failures),
            lost: self.lost,
        }
    }
}

impl Drop for Recorder {
    /// Waits until everything is written.
    fn drop(&mut self) {
        if let Some(sender) = self.sender.take() {
            let now = Instant { monotonic_ns: u64::MAX, unix_ns: 0 };
            // The thread may be gone; then nothing can be written any more.
            let _ = sender.send(Batch { items: std::mem::take(&mut self.batch), now, done: None });
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Texts(HashMap<Name, Box<str>>);

impl Names for Texts {
    fn text(&self, name: Name) -> Option<&str> {
        self.0.get(&name).map(|text| &**text)
    }
}

fn write(mut journal: Journal, batches: &Receiver<Batch>, shared: &Shared) {
    let mut texts = Texts(HashMap::new());
    while let Ok(Batch { items, now, done }) = batches.recv() {
        let mut replaced = Ok(());
        for item in items {
            match item {
                Item::File(path, bytes) => replaced = replaced.and(replace(&path, &bytes)),
                Item::Name(name, text) => drop(texts.0.insert(name, text)),
                Item::Observation(observation) => journal.observation(&observation, &texts),
                Item::Estimate(estimate) => journal.estimate(&estimate, &texts),
            }
        }
        if let Err(error) = replaced.and(journal.flush(now))
            && shared.failures.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::error!("{error} Windows and findings will not survive a restart until then.");
        }
        let counts = journal.counts();
        shared.written.store(counts.written, Ordering::Relaxed);
        shared.bytes.store(counts.bytes, Ordering::Relaxed);
        shared.evicted.store(counts.evicted, Ordering::Relaxed);
        if let Some(done) = done {
            // Whoever asked may have gone.
            let _ = done.send(());
        }
    }
}

/// Replaces a file so that either the old or the new one is there, whatever happens.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), JournalError> {
    let fresh = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(JournalError::io(path))
}
