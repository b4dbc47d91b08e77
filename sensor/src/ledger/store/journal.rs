//! Between the data plane and the disk: a thread that owns the disk store, and bounded queues to and from it.
//!
//! Writes flow in, in order and in batches; questions for accounts flow in, their answers flow out later. Nothing here
//! waits for the disk but [`Journal::close`]. A queue that is full loses what comes, which is counted: the caller takes
//! lost issuances for a gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};

use super::disk::{Disk, Saved, Write};
use super::record::DiskKey;
use super::tags::Id;
use crate::observation::AccountHash;

/// Writes handed over at once.
const BATCH: usize = 256;
/// Batches that wait for the disk: about 2 MiB.
const BATCHES: usize = 128;
/// Issuances that may wait for a place among those. Nothing else does: what anybody can cause by presenting forged
/// credentials must not push an issuance out.
const PENDING: usize = 4096;
/// Questions that wait.
const QUESTIONS: usize = 1024;
/// Questions remembered, so that a busy credential asks once.
const ASKED: usize = 4096;
/// How long closing waits for the disk.
const CLOSING: Duration = Duration::from_secs(30);

/// What the disk side counts.
#[derive(Debug, Default)]
pub struct DiskCounts {
    /// Writes that the disk refused.
    pub failed: AtomicU64,
    /// When everything before was durable, ns since 1970.
    pub durable_unix_ns: AtomicU64,
    /// Bytes on disk.
    pub bytes: AtomicU64,
}

/// The data plane's end.
#[derive(Debug)]
pub struct Journal {
    /// `None` once it is closed.
    batches: Option<Sender<Vec<Write>>>,
    spare: Receiver<Vec<Write>>,
    pending: Vec<Write>,
    questions: Sender<(Id, DiskKey)>,
    barriers: Sender<Sender<()>>,
    answers: Receiver<(Id, AccountHash)>,
    asked: Vec<u64>,
    thread: Option<JoinHandle<()>>,
    /// What the disk side counts.
    pub disk: Arc<DiskCounts>,
    /// Questions asked.
    pub asks: u64,
    /// Questions that found the queue full.
    pub asks_lost: u64,
    /// Writes that found the queue full.
    pub lost: u64,
}

impl Journal {
    /// Starts the thread, which makes what is written durable every `interval`.
    pub fn start(disk: Disk, interval: Duration) -> std::io::Result<Self> {
        let (batches, to_write) = bounded(BATCHES);
        let (emptied, spare) = bounded(BATCHES);
        let (questions, to_answer) = bounded(QUESTIONS);
        let (answered, answers) = bounded(QUESTIONS);
        let (barriers, to_settle) = bounded(1);
        let counts = Arc::new(DiskCounts::default());
        let side = Side {
            disk,
            to_write,
            emptied,
            to_answer,
            to_settle,
            answered,
            interval,
            counts: Arc::clone(&counts),
            torn: false,
        };
        let thread = std::thread::Builder::new().name("ledger".into()).spawn(move || side.run())?;
        Ok(Self {
            batches: Some(batches),
            spare,
            pending: Vec::with_capacity(BATCH),
            questions,
            barriers,
            answers,
            asked: vec![0; ASKED],
            thread: Some(thread),
            disk: counts,
            asks: 0,
            asks_lost: 0,
            lost: 0,
        })
    }

    /// Hands one write over; false when it was lost.
    pub fn write(&mut self, write: Write) -> bool {
        if self.pending.len() >= BATCH {
            self.flush();
        }
        let needed = match &write {
            Write::Record(..) | Write::State(_) => true,
            Write::Change(_, change) => change.betters(),
            _ => false,
        };
        let room = if needed { PENDING } else { BATCH };
        if self.pending.len() >= room {
            self.lost += 1;
            return false;
        }
        self.pending.push(write);
        true
    }

    /// Hands over what is pending, if there is room.
    pub fn flush(&mut self) {
        let Some(batches) = self.batches.as_ref().filter(|_| !self.pending.is_empty()) else { return };
        let mut next = self.spare.try_recv().unwrap_or_else(|_| Vec::with_capacity(BATCH));
        if self.pending.len() > BATCH {
            next.extend(self.pending.drain(BATCH..));
        }
        let batch = std::mem::replace(&mut self.pending, next);
        if let Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) = batches.try_send(batch) {
            batch.append(&mut self.pending);
            self.pending = batch;
        }
    }

    /// Waits until all that was handed over is durable.
    pub fn settle(&mut self) {
        let Some(batches) = self.batches.as_ref() else { return };
        let (done, settled) = bounded(1);
        // A thread that is gone has told why.
        if batches.send(std::mem::take(&mut self.pending)).is_ok() && self.barriers.send(done).is_ok() {
            let _ = settled.recv();
        }
    }

    /// Asks for an account; the answer comes out of [`Journal::answer`], or never.
    pub fn ask(&mut self, id: Id, key: DiskKey) {
        let place = usize::try_from(id.0 >> 40).unwrap_or(0) % ASKED;
        let Some(asked) = self.asked.get_mut(place).filter(|asked| **asked != id.0) else { return };
        if self.questions.try_send((id, key)).is_ok() {
            *asked = id.0;
            self.asks += 1;
        } else {
            self.asks_lost += 1;
        }
    }

    /// The next answer that came.
    pub fn answer(&mut self) -> Option<(Id, AccountHash)> {
        let (id, account) = self.answers.try_recv().ok()?;
        // It may be forgotten again, and then be asked for.
        if let Some(asked) = self.asked.get_mut(usize::try_from(id.0 >> 40).unwrap_or(0) % ASKED) {
            *asked = 0;
        }
        Some((id, account))
    }

    /// Writes what is left and `saved`, waits until it is durable, and ends the thread.
    pub fn close(mut self, saved: Saved) {
        self.pending.push(Write::State(Box::new(saved)));
        let last = std::mem::take(&mut self.pending);
        if let Some(batches) = self.batches.as_ref() {
            // A disk that takes nothing for so long: the next start finds a gap.
            let _ = batches.send_timeout(last, CLOSING);
        }
    }
}

/// Without [`Journal::close`] it ends as if it had been killed, but for what was handed over already.
impl Drop for Journal {
    fn drop(&mut self) {
        self.batches = None;
        if let Some(thread) = self.thread.take() {
            // The thread has told what went wrong.
            let _ = thread.join();
        }
    }
}

/// The disk's end.
struct Side {
    disk: Disk,
    to_write: Receiver<Vec<Write>>,
    emptied: Sender<Vec<Write>>,
    to_answer: Receiver<(Id, DiskKey)>,
    to_settle: Receiver<Sender<()>>,
    answered: Sender<(Id, AccountHash)>,
    interval: Duration,
    counts: Arc<DiskCounts>,
    /// A batch failed: from then on nothing says that the folder is complete, so that the next start finds a gap.
    torn: bool,
}

impl Side {
    fn run(mut self) {
        let mut synced = Instant::now();
        // Where the newest state stands that was written and is not durable.
        let mut written: Option<u64> = None;
        let mut dirty = false;
        loop {
            let wait = self.interval.saturating_sub(synced.elapsed());
            select! {
                recv(self.to_write) -> batch => {
                    let Ok(batch) = batch else { break };
                    dirty = true;
                    self.write(batch, &mut written);
                }
                recv(self.to_answer) -> question => {
                    if let Ok((id, key)) = question { self.answer(id, key); }
                }
                recv(self.to_settle) -> done => {
                    let Ok(done) = done else { break };
                    while let Ok(batch) = self.to_write.try_recv() {
                        self.write(batch, &mut written);
                    }
                    self.sync(written.take());
                    dirty = false;
                    let _ = done.send(());
                }
                default(wait) => {}
            }
            if synced.elapsed() >= self.interval {
                if dirty {
                    self.sync(written.take());
                    dirty = false;
                }
                synced = Instant::now();
            }
        }
        self.sync(written);
    }

    fn write(&mut self, mut batch: Vec<Write>, written: &mut Option<u64>) {
        if self.torn {
            batch.retain(|write| !matches!(write, Write::State(_)));
        }
        match self.disk.write(&batch) {
            Ok(()) => {
                let states = batch.iter().filter_map(|write| match write {
                    Write::State(saved) => Some(saved.at_unix_ns),
                    _ => None,
                });
                *written = states.max().or(*written);
            }
            Err(error) => {
                self.torn = true;
                if self.counts.failed.fetch_add(batch.len() as u64, Ordering::Relaxed) == 0 {
                    tracing::error!("{error}; the ledger goes on in memory, and a restart will find a gap");
                }
            }
        }
        batch.clear();
        // Beyond what a queue's worth of batches needs, it is let go.
        let _ = self.emptied.try_send(batch);
    }

    fn answer(&self, id: Id, key: DiskKey) {
        match self.disk.get(&key) {
            Ok(Some(record)) => {
                if let Some(account) = record.account {
                    // Nobody takes answers: the next question comes again.
                    let _ = self.answered.try_send((id, account));
                }
            }
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }

    fn sync(&self, state: Option<u64>) {
        match self.disk.sync() {
            Ok(()) => {
                self.counts.bytes.store(self.disk.bytes(), Ordering::Relaxed);
                if let Some(state) = state {
                    self.counts.durable_unix_ns.store(state, Ordering::Relaxed);
                }
            }
            Err(error) => {
                if self.counts.failed.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::error!("{error}; the ledger goes on in memory, and a restart will find a gap");
                }
            }
        }
    }
}
