//! The store in the ledger's folder: full fingerprints, accounts, and where the ledger stood.
//!
//! An LSM tree: fingerprints are random keys, which come in sorted runs here and would cost a B-tree a page each. Its
//! memory is bounded (caches, write buffers: see the constants), filters and indexes are read by the piece. What is
//! long over is left out when runs are merged, so nothing walks the disk. Used by one thread at a time.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use fjall::compaction::filter::{CompactionFilter, CompactionFilterResult, Context, Factory, ItemAccessor, Verdict};
use fjall::config::{BlockSizePolicy, PartitioningPolicy, PinningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use serde::{Deserialize, Serialize};

use super::folder::{Folder, StoreError};
use super::record::{Change, DiskKey, Record};
use crate::ledger::rates::Busiest;
use crate::ledger::sources::Source;

/// Blocks of the tree kept in memory, bytes.
const CACHE: u64 = 4 << 20;
/// Write buffer of each of the three trees, bytes of keys and values. In memory they are four times as much, and two may
/// stand beside each other while one is written out.
const WRITE_BUFFER: u64 = 2 << 20;
/// Log of what is only in write buffers, bytes: the least that the store takes.
const LOG: u64 = 64 << 20;
/// Open files.
const FILES: usize = 128;
/// Seconds that a record is kept after its end: as long as any tombstone.
const RETENTION: u32 = 24 * 3600;
/// Where the ledger's state stands.
const STATE: &str = "state";

/// A gap, as it is written down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedGap {
    /// First moment, ns since 1970.
    pub from_unix_ns: u64,
    /// Last moment, ns since 1970.
    pub to_unix_ns: u64,
    /// Credentials that it can still excuse.
    pub left: u64,
}

/// Where a service's ledger stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedService {
    /// Its name.
    pub name: String,
    /// Since when its issuances have been watched, ns since 1970.
    pub horizon_unix_ns: u64,
    /// The most issuances that it saw of late.
    pub busiest: Busiest,
    /// Its gaps.
    pub gaps: Vec<SavedGap>,
    /// Its sources of issuances, by the names of their routes.
    #[serde(default)]
    pub sources: Vec<(String, Source)>,
}

/// Where the ledger stands: everything before it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// When, ns since 1970.
    pub at_unix_ns: u64,
    /// The ledger was closed in order then.
    pub closed: bool,
    /// By service.
    pub services: Vec<SavedService>,
}

/// A first use of a credential that is not in the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedUse {
    /// By what it is known.
    pub bits: u64,
    /// When it was first presented, ns since 1970.
    pub first_unix_ns: u64,
    /// What the ledger made of it.
    pub state: u8,
}

/// Service and issuer, by [`name`](super::record::name).
pub type Names = (u32, u32);

/// Something to be written.
#[derive(Clone, Debug)]
pub enum Write {
    /// An issuance; what stands there is replaced.
    Record(DiskKey, Record),
    /// A change to one.
    Change(DiskKey, Change),
    /// A first use.
    Use(SavedUse),
    /// One that is forgotten.
    Forget(u64),
    /// How many credentials of an issuer were taken for older than the horizon.
    Population(Names, Vec<u8>),
    /// Everything before is complete up to there.
    State(Box<Saved>),
}

/// The store.
pub struct Disk {
    folder: Folder,
    database: Database,
    issuances: Keyspace,
    uses: Keyspace,
    state: Keyspace,
    /// Seconds since 1970, for what is over.
    now: Arc<AtomicU32>,
    /// Issuances of the batch at hand, so that what changes one of them finds it.
    batch: HashMap<DiskKey, Record, ahash::RandomState>,
}

impl Disk {
    /// Opens the store in `folder`.
    pub fn open(folder: Folder) -> Result<Self, StoreError> {
        // The store makes its path absolute, and panics where the process's working directory is gone.
        std::env::current_dir().map_err(|error| StoreError::Io(folder.path().to_owned(), error))?;
        let now = Arc::new(AtomicU32::new(0));
        let shared = Arc::clone(&now);
        let filters = Arc::new(move |keyspace: &str| {
            (keyspace == "issuances").then(|| Arc::new(Over(Arc::clone(&shared))) as Arc<dyn Factory>)
        });
        let opened = (|| {
            let database = Database::builder(folder.store())
                .cache_size(CACHE)
                .max_journaling_size(LOG)
                .max_cached_files(Some(FILES))
                .worker_threads(1)
                .manual_journal_persist(true)
                .with_compaction_filter_factories(filters)
                .open()?;
            let issuances = database.keyspace("issuances", options)?;
            let uses = database.keyspace("uses", options)?;
            let state = database.keyspace("state", options)?;
            Ok((database, issuances, uses, state))
        })();
        match opened {
            Ok((database, issuances, uses, state)) => {
                Ok(Self { folder, database, issuances, uses, state, now, batch: HashMap::default() })
            }
            Err(error) => Err(StoreError::Store(folder.path().to_owned(), error)),
        }
    }

    /// The ledger's folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    fn failed(&self, error: fjall::Error) -> StoreError {
        StoreError::Store(self.folder.path().to_owned(), error)
    }

    /// Where the ledger stood when it was last written; `None` for a new one.
    pub fn saved(&self) -> Result<Option<Saved>, StoreError> {
        let Some(bytes) = self.state.get(STATE).map_err(|error| self.failed(error))? else { return Ok(None) };
        let saved = serde_json::from_slice(&bytes);
        saved.map(Some).map_err(|error| StoreError::State(self.folder.path().to_owned(), error))
    }

    /// What was written of the credentials of an issuer that were taken for older than the horizon.
    pub fn population(&self, names: Names) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.state.get(population_key(names)).map_err(|error| self.failed(error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// All issuances, in the order of their keys. What cannot be read as one is left out: nobody could have written it.
    pub fn records(&self) -> impl Iterator<Item = Result<(DiskKey, Record), StoreError>> {
        self.issuances.iter().filter_map(|item| {
            let (key, value) = match item.into_inner() {
                Ok(pair) => pair,
                Err(error) => return Some(Err(self.failed(error))),
            };
            key.as_ref().try_into().ok().map(DiskKey).zip(Record::decode(&value)).map(Ok)
        })
    }

    /// All first uses.
    pub fn uses(&self) -> impl Iterator<Item = Result<SavedUse, StoreError>> {
        self.uses.iter().filter_map(|item| {
            let (key, value) = match item.into_inner() {
                Ok(pair) => pair,
                Err(error) => return Some(Err(self.failed(error))),
            };
            let bits = u64::from_be_bytes(key.as_ref().try_into().ok()?);
            let (first, state) = value.split_first_chunk()?;
            let first_unix_ns = u64::from_be_bytes(*first);
            Some(Ok(SavedUse { bits, first_unix_ns, state: *state.first()? }))
        })
    }

    /// The record at `key`.
    pub fn get(&self, key: &DiskKey) -> Result<Option<Record>, StoreError> {
        if let Some(record) = self.batch.get(key) {
            return Ok(Some(*record));
        }
        let value = self.issuances.get(key.0).map_err(|error| self.failed(error))?;
        Ok(value.and_then(|value| Record::decode(&value)))
    }

    /// Writes a batch, all or nothing. It is durable after the next [`Disk::sync`].
    pub fn write(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let mut batch = self.database.batch();
        for write in writes {
            match write {
                Write::Record(key, record) => {
                    self.batch.insert(*key, *record);
                }
                Write::Change(key, change) => {
                    // What is not there was never issued: its tag is another's.
                    if let Some(mut record) = self.get(key)? {
                        record.amend(change);
                        self.batch.insert(*key, record);
                    }
                }
                Write::Use(used) => {
                    let mut value = [0; 9];
                    for (to, from) in value.iter_mut().zip(used.first_unix_ns.to_be_bytes()) {
                        *to = from;
                    }
                    value[8] = used.state;
                    batch.insert(&self.uses, used.bits.to_be_bytes(), value);
                }
                Write::Forget(bits) => batch.remove(&self.uses, bits.to_be_bytes()),
                Write::Population(names, registers) => {
                    batch.insert(&self.state, population_key(*names), registers.as_slice());
                }
                Write::State(saved) => {
                    let bytes = serde_json::to_vec(saved);
                    let bytes = bytes.map_err(|error| StoreError::State(self.folder.path().to_owned(), error))?;
                    batch.insert(&self.state, STATE, bytes);
                    let seconds = u32::try_from(saved.at_unix_ns / 1_000_000_000).unwrap_or(u32::MAX);
                    self.now.fetch_max(seconds, Ordering::Relaxed);
                }
            }
        }
        for (key, record) in self.batch.drain() {
            let (bytes, len) = record.encode();
            batch.insert(&self.issuances, key.0, bytes.get(..len).unwrap_or_default());
        }
        batch.commit().map_err(|error| self.failed(error))
    }

    /// Makes durable what was written.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncData).map_err(|error| self.failed(error))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.database.disk_space().unwrap_or(0)
    }

    /// Writes issuances in ascending order straight into sorted runs: for filling an empty store fast.
    pub fn fill(&self, records: impl Iterator<Item = (DiskKey, Record)>) -> Result<(), StoreError> {
        let fill = || {
            let mut ingestion = self.issuances.start_ingestion()?;
            for (key, record) in records {
                let (bytes, len) = record.encode();
                ingestion.write(key.0, bytes.get(..len).unwrap_or_default())?;
            }
            ingestion.finish()
        };
        fill().map_err(|error| self.failed(error))
    }
}

fn population_key((service, issuer): Names) -> String {
    format!("population {service:08x} {issuer:08x}")
}

/// Filters and indexes in pieces, none pinned: at sixty million records they would take a hundred megabytes. Look-ups
/// nearly always find what they look for, so the last level has no filter.
fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(WRITE_BUFFER)
        .data_block_size_policy(BlockSizePolicy::all(8 << 10))
        .filter_block_partitioning_policy(PartitioningPolicy::all(true))
        .index_block_partitioning_policy(PartitioningPolicy::all(true))
        .filter_block_pinning_policy(PinningPolicy::all(false))
        .index_block_pinning_policy(PinningPolicy::all(false))
        .expect_point_read_hits(true)
}

/// Leaves out what has been over for longer than any tombstone is kept.
struct Over(Arc<AtomicU32>);

struct OverAt(u32);

impl Factory for Over {
    fn name(&self) -> &'static str {
        "over"
    }

    fn make_filter(&self, _context: &Context) -> Box<dyn CompactionFilter> {
        Box::new(OverAt(self.0.load(Ordering::Relaxed)))
    }
}

impl CompactionFilter for OverAt {
    fn filter_item(&mut self, item: ItemAccessor<'_>, _context: &Context) -> CompactionFilterResult {
        let record = Record::decode(&item.value()?);
        let over = record.is_some_and(|record| record.expires.saturating_add(RETENTION) < self.0);
        Ok(if over { Verdict::Remove } else { Verdict::Keep })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Keys;
    use crate::observation::Provenance;
    use sensor_ebpf::siphash::Key;

    fn keys() -> Keys {
        Keys { fingerprint: Key { k0: 1, k1: 2 }, account: Key { k0: 3, k1: 4 } }
    }

    fn open(path: &Path) -> Disk {
        Disk::open(Folder::take(path, &keys(), true).unwrap()).unwrap()
    }

    fn key(n: u32) -> DiskKey {
        DiskKey(sensor_ebpf::siphash::hash128(Key { k0: 5, k1: 6 }, &n.to_be_bytes()))
    }

    fn record(expires: u32) -> Record {
        Record {
            service: 1,
            issuer: 0,
            provenance: Provenance::Issued,
            used: false,
            ended: false,
            expires,
            account: None,
        }
    }

    #[test]
    fn a_batch_sees_itself_and_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let mut disk = open(&path);
        let used = Change { used: true, ..Change::default() };
        disk.write(&[Write::Record(key(1), record(9)), Write::Change(key(1), used), Write::Change(key(2), used)])
            .unwrap();
        assert_eq!(disk.get(&key(1)).unwrap(), Some(Record { used: true, ..record(9) }));
        assert_eq!(disk.get(&key(2)).unwrap(), None, "never issued");
        disk.write(&[Write::Change(key(1), Change { ended: true, expires: 20, ..Change::default() })]).unwrap();
        let used = SavedUse { bits: 7 << 40, first_unix_ns: 5, state: 5 };
        disk.write(&[Write::Use(used), Write::Use(SavedUse { bits: 1, ..used }), Write::Forget(1)]).unwrap();
        let saved = Saved { at_unix_ns: 1, services: vec![SavedService::default()], closed: true };
        disk.write(&[Write::State(Box::new(saved.clone()))]).unwrap();
        disk.sync().unwrap();
        drop(disk);
        let disk = open(&path);
        assert_eq!(disk.get(&key(1)).unwrap(), Some(Record { used: true, ended: true, ..record(20) }));
        assert_eq!(disk.uses().map(Result::unwrap).collect::<Vec<_>>(), [used]);
        assert_eq!(disk.saved().unwrap(), Some(saved));
        assert_eq!(disk.records().count(), 1);
    }

    #[test]
    fn what_is_long_over_is_left_out_when_runs_are_merged() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = open(&folder.path().join("ledger"));
        let writes: Vec<Write> = (0..2000).map(|n| Write::Record(key(n), record(n % 2 * 1_000_000))).collect();
        disk.write(&writes).unwrap();
        let saved = Saved { at_unix_ns: 500_000 * 1_000_000_000, ..Saved::default() };
        disk.write(&[Write::State(Box::new(saved))]).unwrap();
        disk.issuances.rotate_memtable_and_wait().unwrap();
        disk.issuances.major_compact().unwrap();
        let left: Vec<u32> = disk.records().map(|record| record.unwrap().1.expires).collect();
        assert_eq!(left, vec![1_000_000; 1000]);
    }

    #[test]
    fn the_folder_refuses_what_does_not_fit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let refused = |keys: &Keys, make| Folder::take(&path, keys, make).err().map(|error| error.to_string());
        assert!(refused(&keys(), false).unwrap().starts_with("there is no ledger at "));
        let held = Folder::take(&path, &keys(), true).unwrap();
        assert!(refused(&keys(), true).unwrap().contains("in use by another authsensor"));
        drop(held);
        let other = Key { k0: 9, k1: 9 };
        let wrong = refused(&Keys { fingerprint: other, ..keys() }, true).unwrap();
        assert!(wrong.contains("another fingerprint key"), "{wrong}");
        let wrong = refused(&Keys { account: other, ..keys() }, true).unwrap();
        assert!(wrong.contains("another account key"), "{wrong}");
        std::fs::write(path.join("FORMAT"), "authsensor ledger 9\n").unwrap();
        assert!(refused(&keys(), true).unwrap().contains("has the format authsensor ledger 9"));
        std::fs::remove_file(path.join("FORMAT")).unwrap();
        assert_eq!(refused(&keys(), true), None, "empty but for its lock");
        std::fs::remove_file(path.join("FORMAT")).unwrap();
        std::fs::write(path.join("notes.txt"), "").unwrap();
        assert!(refused(&keys(), true).unwrap().contains("is not a ledger"));
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o750)).unwrap();
        assert!(refused(&keys(), true).unwrap().contains("mode 750"));
    }
}
