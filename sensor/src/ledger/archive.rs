//! A ledger's folder without a running sensor: what import, export and statistics work on.
//!
//! Holds the folder's lock, so a daemon that has the ledger open keeps it to itself. Fingerprints and hashes flow in and
//! out; raw credentials never come here.

use std::path::Path;

use super::store::record::{self, Change, DiskKey, Record};
use super::store::{Disk, Folder, Saved, StoreError, Write};
use crate::collect::Keys;
use crate::config::model::Config;
use crate::observation::{AccountHash, Fingerprint, IssuerId, Provenance, ServiceId};

/// Issuances written at once.
const BATCH: usize = 4096;

/// One issuance, as it goes in and out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Archived {
    /// The service; [`ServiceId::NONE`] for one that the configuration no longer has.
    pub service: ServiceId,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// Its issuer, if it is known and the configuration still has it.
    pub issuer: Option<IssuerId>,
    /// Whose it is.
    pub account: Option<AccountHash>,
    /// End of its life, seconds since 1970.
    pub expires_unix: u32,
    /// Issued, or what it inherited.
    pub provenance: Provenance,
    /// It was presented.
    pub used: bool,
    /// It was logged out, or presented after its end.
    pub ended: bool,
}

/// What an import did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Issuances that are new.
    pub added: u64,
    /// Those that the ledger knew; the longer life and the better provenance stay.
    pub known: u64,
}

#[derive(Debug)]
struct Names {
    salt: u64,
    name: u32,
    issuers: Vec<u32>,
}

/// The folder.
pub struct Archive {
    disk: Disk,
    services: Vec<Names>,
}

impl Archive {
    /// Opens the ledger at `path`, or makes one if `make` says so.
    ///
    /// # Errors
    ///
    /// As [`Ledger::open`](super::Ledger::open).
    pub fn open(path: &Path, config: &Config, keys: &Keys, make: bool) -> Result<Self, StoreError> {
        let disk = Disk::open(Folder::take(path, keys, make)?)?;
        let names = config.services.iter().map(|service| Names {
            salt: record::salt(&service.name),
            name: record::name(&service.name),
            issuers: service.issuers.iter().map(|issuer| record::name(&issuer.name)).collect(),
        });
        Ok(Self { disk, services: names.collect() })
    }

    /// Writes all of `issuances`, which the configuration's services name, and makes them durable. If it is broken off,
    /// importing the same again completes it.
    pub fn import(&mut self, issuances: &[Archived]) -> Result<Imported, StoreError> {
        let mut imported = Imported::default();
        for some in issuances.chunks(BATCH) {
            let mut writes = Vec::with_capacity(some.len());
            for archived in some {
                let Some((key, record)) = self.to_disk(archived) else { continue };
                if self.disk.get(&key)?.is_some() {
                    imported.known += 1;
                    let issued = record.provenance == Provenance::Issued;
                    let Record { used, ended, expires, account, .. } = record;
                    let change = Change { issued, used, ended, expires, account, ..Change::default() };
                    writes.push(Write::Change(key, change));
                } else {
                    imported.added += 1;
                    writes.push(Write::Record(key, record));
                }
            }
            self.disk.write(&writes)?;
        }
        self.disk.sync()?;
        Ok(imported)
    }

    /// Fills an empty ledger with `issuances`, of which no two are the same: sorted in memory and written straight into
    /// the store's sorted runs.
    pub fn fill(&mut self, issuances: impl Iterator<Item = Archived>) -> Result<Imported, StoreError> {
        let mut records: Vec<(DiskKey, Record)> = issuances.filter_map(|archived| self.to_disk(&archived)).collect();
        records.sort_unstable_by_key(|(key, _)| *key);
        records.dedup_by_key(|(key, _)| *key);
        let added = records.len() as u64;
        self.disk.fill(records.into_iter())?;
        Ok(Imported { added, known: 0 })
    }

    /// All issuances, in the order of their keys.
    pub fn export(&self) -> impl Iterator<Item = Result<Archived, StoreError>> {
        self.disk.records().map(|found| {
            let (key, record) = found?;
            let place = self.services.iter().position(|service| service.name == record.service);
            let names = place.and_then(|place| self.services.get(place));
            let issuer = names.and_then(|names| names.issuers.iter().position(|issuer| *issuer == record.issuer));
            Ok(Archived {
                service: place.and_then(|place| u16::try_from(place).ok()).map_or(ServiceId::NONE, ServiceId),
                fingerprint: key.fingerprint(names.map_or(0, |names| names.salt)),
                issuer: issuer.and_then(|issuer| u16::try_from(issuer).ok()).map(IssuerId),
                account: record.account,
                expires_unix: record.expires,
                provenance: record.provenance,
                used: record.used,
                ended: record.ended,
            })
        })
    }

    /// Where the ledger stood when it was last written.
    pub fn standing(&self) -> Result<Option<Standing>, StoreError> {
        Ok(self.disk.saved()?.map(Standing::from))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.disk.bytes()
    }

    /// True when there is no issuance in it.
    pub fn is_empty(&self) -> bool {
        self.disk.records().next().is_none()
    }

    fn to_disk(&self, archived: &Archived) -> Option<(DiskKey, Record)> {
        let names = self.services.get(usize::from(archived.service.0))?;
        let issuer = archived.issuer.and_then(|issuer| names.issuers.get(usize::from(issuer.0)));
        let record = Record {
            service: names.name,
            issuer: issuer.copied().unwrap_or(0),
            provenance: archived.provenance,
            used: archived.used,
            ended: archived.ended,
            expires: archived.expires_unix,
            account: archived.account,
        };
        Some((DiskKey::new(archived.fingerprint, names.salt), record))
    }
}

/// Where a ledger stood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// When, seconds since 1970.
    pub at_unix: u64,
    /// It was closed in order then.
    pub closed: bool,
    /// By service: name, since when it is watched (seconds since 1970), gaps and what they can still excuse, and
    /// issuances in the busiest second of late.
    pub services: Vec<(String, u64, usize, u64, u64)>,
}

impl From<Saved> for Standing {
    fn from(saved: Saved) -> Self {
        const SECOND: u64 = 1_000_000_000;
        let services = saved.services.into_iter().map(|service| {
            let left = service.gaps.iter().fold(0u64, |sum, gap| sum.saturating_add(gap.left));
            let busiest = u64::from(service.busiest.second);
            (service.name, service.horizon_unix_ns / SECOND, service.gaps.len(), left, busiest)
        });
        Self { at_unix: saved.at_unix_ns / SECOND, closed: saved.closed, services: services.collect() }
    }
}
