//! The store's dealings with the disk: what it writes, what it asks, and how it comes back after a restart.

use std::time::Duration;

use super::disk::{Disk, Names, Saved, SavedGap, SavedUse, Write};
use super::folder::StoreError;
use super::journal::Journal;
use super::note::Note;
use super::record::{self, Change, DiskKey, Record};
use super::{Entry, Id, Issue, Key, Store};
use crate::config::model::Service;
use crate::ledger::rates::Rates;
use crate::observation::{Instant, IssuerId, Provenance, ServiceId};

const SECOND: u64 = 1_000_000_000;

/// What is known of a service here.
#[derive(Debug)]
pub struct Written {
    /// See [`record::salt`].
    pub salt: u64,
    /// See [`record::name`].
    name: u32,
    /// Those of its issuers.
    issuers: Vec<u32>,
    /// Issuances of late.
    pub rates: Rates,
    /// Issuances that did not reach the disk: a gap, once this process is gone.
    pub unwritten: Option<SavedGap>,
}

impl Written {
    pub fn new(service: &Service) -> Self {
        Self {
            salt: record::salt(&service.name),
            name: record::name(&service.name),
            issuers: service.issuers.iter().map(|issuer| record::name(&issuer.name)).collect(),
            rates: Rates::default(),
            unwritten: None,
        }
    }

    fn issuer(&self, name: u32) -> Option<IssuerId> {
        let place = self.issuers.iter().position(|issuer| *issuer == name)?;
        u16::try_from(place).ok().map(IssuerId)
    }
}

/// What a start found on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Issuances that were taken over.
    pub issuances: u64,
    /// Those of services that the configuration no longer has.
    pub foreign: u64,
    /// Those over.
    pub over: u64,
    /// Those for which there was no room.
    pub evicted: u64,
}

impl Store {
    pub(super) fn disk_key(&self, key: &Key) -> DiskKey {
        DiskKey::new(key.fingerprint, self.services.get(usize::from(key.service.0)).map_or(0, |service| service.salt))
    }

    /// Takes over what is on `disk`, handing what finds no room to `evicted`; then writes to it. Of an issuer that is no
    /// longer declared it cannot be told whether a credential is its: that is doubt.
    pub fn load(
        &mut self,
        disk: Disk,
        interval: Duration,
        now: Instant,
        mut evicted: impl FnMut(Id, Entry),
    ) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        for found in disk.records() {
            let (key, record) = found?;
            let Some(service) = self.services.iter().find(|service| service.name == record.service) else {
                loaded.foreign += 1;
                continue;
            };
            let left = u64::from(record.expires) * SECOND + self.retention;
            let Some(left) = left.checked_sub(now.unix_ns) else {
                loaded.over += 1;
                continue;
            };
            let keep_until = now.monotonic_ns.saturating_add(left);
            let id = self.tags.id(key.bits());
            let issuer = service.issuer(record.issuer);
            let told = Note::new(record.provenance, issuer);
            let orphaned = record.issuer != 0 && told.issuer.is_none();
            let provenance = if orphaned { record.provenance.max(Provenance::Unverifiable) } else { record.provenance };
            let (used, ended) = (record.used, record.ended);
            let note = Note { provenance, used, ended, account: record.account.is_some(), ..told };
            let tick = self.buckets.at(keep_until);
            // Two credentials may share a tag; the later one speaks for both.
            let (buckets, filed) = (self.buckets, self.buckets.file(note, tick));
            let there = self.tags.change(id, |bits| {
                let there = Note::unpack(bits);
                if buckets.of(there) < tick { filed.pack() } else { bits }
            });
            if there.is_some() || self.tags.insert(id, filed.pack()) {
                loaded.issuances += 1;
            } else {
                loaded.evicted += 1;
                evicted(id, Entry { provenance, used, ended, issuer, account: None, keep_until });
            }
        }
        let path = disk.path().to_owned();
        self.journal = Some(Journal::start(disk, interval).map_err(|error| StoreError::Io(path, error))?);
        Ok(loaded)
    }

    /// Writes an issuance.
    pub(super) fn write_issue(&mut self, key: &Key, issue: &Issue, at: Instant) {
        let disk_key = self.disk_key(key);
        let Some(service) = self.services.get_mut(usize::from(key.service.0)) else { return };
        service.rates.count(at.monotonic_ns);
        let Some(journal) = self.journal.as_mut() else { return };
        let issuer = issue.issuer.and_then(|issuer| service.issuers.get(usize::from(issuer.0)));
        let record = Record {
            service: service.name,
            issuer: issuer.copied().unwrap_or(0),
            provenance: issue.provenance,
            used: issue.used,
            ended: false,
            expires: unix_seconds(issue.expires, at),
            account: issue.account,
        };
        if !journal.write(Write::Record(disk_key, record)) {
            self.unwritten(key, at);
        }
    }

    /// Writes a change to one. Losing one that makes it issued, or lets it live for longer, loses as much as an issuance.
    pub(super) fn write_change(&mut self, key: &Key, change: Change, at: Instant) {
        let disk_key = self.disk_key(key);
        let Some(journal) = self.journal.as_mut().filter(|_| change != Change::default()) else { return };
        if !journal.write(Write::Change(disk_key, change)) && change.betters() {
            self.unwritten(key, at);
        }
    }

    /// What did not reach the disk is a gap after a restart.
    fn unwritten(&mut self, key: &Key, at: Instant) {
        let Some(service) = self.services.get_mut(usize::from(key.service.0)) else { return };
        let gap = service.unwritten.get_or_insert(SavedGap { from_unix_ns: at.unix_ns, ..SavedGap::default() });
        gap.to_unix_ns = gap.to_unix_ns.max(at.unix_ns);
        gap.left += 1;
    }

    /// Writes what is known of a credential that is not in the store, and forgets `forgotten`.
    pub fn write_use(&mut self, used: SavedUse, forgotten: Option<Id>) {
        let Some(journal) = self.journal.as_mut() else { return };
        if let Some(forgotten) = forgotten {
            journal.write(Write::Forget(forgotten.0));
        }
        journal.write(Write::Use(used));
    }

    /// What an issuer is written as.
    pub fn names(&self, service: ServiceId, issuer: IssuerId) -> Option<Names> {
        let service = self.services.get(usize::from(service.0))?;
        Some((service.name, *service.issuers.get(usize::from(issuer.0))?))
    }

    /// Writes how many credentials of an issuer were taken for older than the horizon.
    pub fn write_population(&mut self, names: Names, registers: &[u8]) {
        if let Some(journal) = self.journal.as_mut() {
            journal.write(Write::Population(names, registers.to_vec()));
        }
    }

    /// The id of a use that was written down, by a table that may have had another size.
    pub fn restored_id(&self, bits: u64) -> Id {
        self.tags.id(bits)
    }

    /// Asks for the account of a credential.
    pub(super) fn ask(&mut self, id: Id, key: &Key) {
        let disk_key = self.disk_key(key);
        if let Some(journal) = self.journal.as_mut() {
            journal.ask(id, disk_key);
        }
    }

    /// Takes the accounts that came from the disk.
    pub fn take_answers(&mut self) {
        while let Some((id, account)) = self.journal.as_mut().and_then(Journal::answer) {
            self.keep_account(id, Some(account), None);
        }
    }

    /// What is known of a service here.
    pub fn service(&mut self, service: ServiceId) -> Option<&mut Written> {
        self.services.get_mut(usize::from(service.0))
    }

    /// The data plane's end of the queues, if there is a disk.
    pub fn journal(&self) -> Option<&Journal> {
        self.journal.as_ref()
    }

    /// Hands over where the ledger stands, after all that was written.
    pub fn mark(&mut self, saved: Saved) {
        if let Some(journal) = self.journal.as_mut() {
            journal.write(Write::State(Box::new(saved)));
            journal.flush();
        }
    }

    /// Waits until all that was written is durable.
    pub fn sync(&mut self) {
        if let Some(journal) = self.journal.as_mut() {
            journal.settle();
        }
    }

    /// Writes what is left, and where the ledger stands, and lets go of the disk.
    pub fn close(&mut self, saved: Saved) {
        if let Some(journal) = self.journal.take() {
            journal.close(saved);
        }
    }
}

/// Seconds since 1970 of monotonic time `ns`, rounded up.
pub fn unix_seconds(ns: u64, at: Instant) -> u32 {
    let unix = if ns >= at.monotonic_ns {
        at.unix_ns.saturating_add(ns - at.monotonic_ns)
    } else {
        at.unix_ns.saturating_sub(at.monotonic_ns - ns)
    };
    u32::try_from(unix.div_ceil(SECOND)).unwrap_or(u32::MAX)
}
