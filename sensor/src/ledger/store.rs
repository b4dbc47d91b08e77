//! The set of issuances: credential → provenance, account, end of life.
//!
//! Owns the embedded store and its expiry. Issuances flow in from [`super::Ledger::issue`], questions from
//! [`super::Ledger::judge`]. An entry outlives its credential: after expiry or logout it stays as a **tombstone** for
//! a retention time, renewed as long as the credential is still being presented, because a credential that was issued
//! stays issued and must never turn into a false `unissued`. About 100 bytes an entry, plus 4 for the bucket.
//!
//! Expiry runs on a wheel of time buckets, a few steps at each call, so that nothing ever walks the whole store.

use super::table::{Key, Table};
use crate::observation::{AccountHash, IssuerId, Provenance};

/// Buckets of the wheel.
const WHEEL: u64 = 512;
/// Wheel steps (an entry looked at, or an empty bucket passed) for each call to [`Store::sweep`].
const SWEEP_STEPS: usize = 16;
/// Entries that an eviction re-files before it takes the next one.
const EVICTION_LOOKS: usize = 32;

/// One issuance.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// End of life, monotonic ns: issued + longest lifetime, or logout.
    pub expires: u64,
    /// Until when the entry is kept at least, monotonic ns.
    keep_until: u64,
    /// What the login said.
    pub account: Option<AccountHash>,
    /// Its issuer, if whoever recorded the issuance said so.
    pub issuer: Option<IssuerId>,
    /// Issued, or what was inherited.
    pub provenance: Provenance,
    /// Logged out.
    pub revoked: bool,
    /// Presented at least once since it was issued.
    pub used: bool,
    /// Presented since it was last filed.
    touched: bool,
    /// Next entry in the same wheel bucket (slot + 1).
    later: u32,
}

/// What a store says of a credential.
#[derive(Clone, Copy, Debug)]
pub enum Answer {
    /// It is in the ledger (live or as a tombstone).
    Known(Entry),
    /// It is not.
    Unknown,
    /// A store outside this process has not answered in time. The embedded store answers at once.
    NotYetKnown,
}

/// The embedded store.
#[derive(Debug)]
pub struct Store {
    table: Table<Entry>,
    wheel: Vec<u32>,
    /// Width of a bucket, ns.
    grain: u64,
    /// Earliest bucket that may hold entries.
    cursor: u64,
    /// How long a tombstone is kept after its credential's end or last use, ns.
    retention: u64,
}

impl Store {
    /// A store of at most `capacity` entries that live for at most `lifetime` and are kept for `retention` after that
    /// (ns), starting at monotonic time `now`.
    pub fn new(capacity: usize, lifetime: u64, retention: u64, now: u64) -> Self {
        let grain = lifetime.saturating_add(retention) / (WHEEL - 2) + 1;
        Self {
            table: Table::new(capacity),
            wheel: vec![0; usize::try_from(WHEEL).unwrap_or(1)],
            grain,
            cursor: now / grain,
            retention,
        }
    }

    pub fn len(&self) -> usize {
        self.table.len()
    }

    pub fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// Looks up a credential that is being presented; the answer shows the entry as it was before this use.
    pub fn presented(&mut self, key: &Key) -> Answer {
        let Some(entry) = self.find_mut(key) else { return Answer::Unknown };
        let before = *entry;
        entry.used = true;
        entry.touched = true;
        Answer::Known(before)
    }

    /// The entry of a credential, to be changed in place.
    pub fn find_mut(&mut self, key: &Key) -> Option<&mut Entry> {
        self.table.get_mut(self.table.find(key)?)
    }

    /// Adds an issuance of a credential that is not in the store; false when full (call [`Store::evict`] first).
    pub fn insert(
        &mut self,
        key: Key,
        provenance: Provenance,
        account: Option<AccountHash>,
        expires: u64,
        used: bool,
    ) -> bool {
        let keep_until = expires.saturating_add(self.retention);
        let entry = Entry {
            expires,
            keep_until,
            account,
            issuer: None,
            provenance,
            revoked: false,
            used,
            touched: false,
            later: 0,
        };
        let Some(slot) = self.table.insert(key, entry) else { return false };
        self.file(slot, self.cursor);
        true
    }

    /// Moves the end of life of an entry to `expires` if that is later.
    pub fn extend(&mut self, key: &Key, expires: u64) {
        let retention = self.retention;
        if let Some(entry) = self.find_mut(key) {
            // It stays in its bucket; the wheel files it again when it comes round.
            entry.expires = entry.expires.max(expires);
            entry.keep_until = entry.keep_until.max(expires.saturating_add(retention));
        }
    }

    /// Lets go of entries whose time is over at monotonic time `now`, a few at a time, handing each to `gone`.
    pub fn sweep(&mut self, now: u64, mut gone: impl FnMut(Key, Entry)) {
        if self.table.len() == 0 {
            self.cursor = self.cursor.max(now / self.grain);
            return;
        }
        for _ in 0..SWEEP_STEPS {
            if self.cursor >= now / self.grain {
                return;
            }
            let Some(slot) = self.pop(self.cursor) else {
                self.cursor += 1;
                continue;
            };
            let (cursor, grain, retention) = (self.cursor, self.grain, self.retention);
            let Some(entry) = self.table.get_mut(slot) else { continue };
            if entry.touched && entry.keep_until / grain <= cursor {
                entry.touched = false;
                entry.keep_until = now.saturating_add(retention);
            }
            if entry.keep_until / grain > cursor {
                self.file(slot, cursor + 1);
            } else if let Some((key, entry)) = self.table.remove(slot) {
                gone(key, entry);
            }
        }
    }

    /// Removes the entry whose time is over first, to make room.
    pub fn evict(&mut self) -> Option<(Key, Entry)> {
        let mut looks = 0;
        for tick in self.cursor..self.cursor.saturating_add(WHEEL) {
            while let Some(slot) = self.pop(tick) {
                looks += 1;
                let later = self.table.get(slot).is_some_and(|entry| entry.keep_until / self.grain > tick);
                // The last bucket has no later one to file into.
                if later && looks < EVICTION_LOOKS && tick + 1 < self.cursor.saturating_add(WHEEL) {
                    self.file(slot, tick + 1);
                } else {
                    return self.table.remove(slot);
                }
            }
        }
        None
    }

    /// Files an entry by its time, not before bucket `earliest`. An entry beyond the wheel goes into the last bucket
    /// and is filed again when that comes round.
    fn file(&mut self, slot: u32, earliest: u64) {
        let last = self.cursor.saturating_add(WHEEL - 1);
        let grain = self.grain;
        let Some(entry) = self.table.get_mut(slot) else { return };
        let tick = (entry.keep_until / grain).max(earliest).min(last);
        if let Some(head) = bucket(&mut self.wheel, tick) {
            entry.later = *head;
            *head = slot + 1;
        }
    }

    fn pop(&mut self, tick: u64) -> Option<u32> {
        let head = bucket(&mut self.wheel, tick)?;
        let slot = head.checked_sub(1)?;
        *head = self.table.get(slot).map_or(0, |entry| entry.later);
        Some(slot)
    }
}

fn bucket(wheel: &mut [u32], tick: u64) -> Option<&mut u32> {
    wheel.get_mut(usize::try_from(tick % WHEEL).ok()?)
}

const _: () = assert!(size_of::<Option<Entry>>() + size_of::<Key>() + 8 <= 104, "the module's doc states the memory");

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use sensor_ebpf::siphash::{Key as SipKey, hash128};

    use super::*;
    use crate::observation::{Fingerprint, ServiceId};

    fn key(n: u64) -> Key {
        Key { service: ServiceId(0), fingerprint: Fingerprint(hash128(SipKey { k0: 1, k1: 2 }, &n.to_le_bytes())) }
    }

    fn add(store: &mut Store, n: u64, expires: u64) -> bool {
        store.insert(key(n), Provenance::Issued, None, expires, false)
    }

    #[test]
    fn a_tombstone_outlives_its_credential_and_use_renews_it() {
        let mut store = Store::new(100, 1000, 500, 0);
        add(&mut store, 1, 1000);
        add(&mut store, 2, 1000);
        let mut gone = Vec::new();
        for now in 0..5000 {
            store.sweep(now, |key, _| gone.push((now, key)));
            if now < 3000 {
                assert!(matches!(store.presented(&key(2)), Answer::Known(_)), "at {now}");
            }
        }
        assert_eq!(gone.len(), 2);
        assert!(gone[0].1 == key(1) && (1500..1520).contains(&gone[0].0), "{gone:?}");
        assert!(gone[1].1 == key(2) && (3500..4100).contains(&gone[1].0), "{gone:?}");
    }

    #[test]
    fn evicts_the_earliest_and_respects_extension() {
        let mut store = Store::new(3, 100_000, 0, 0);
        add(&mut store, 1, 10_000);
        add(&mut store, 2, 20_000);
        add(&mut store, 3, 30_000);
        assert!(!add(&mut store, 4, 40_000), "full");
        store.extend(&key(1), 90_000);
        assert_eq!(store.evict().unwrap().0, key(2));
        assert_eq!(store.evict().unwrap().0, key(3));
        assert_eq!(store.evict().unwrap().0, key(1));
        assert!(store.evict().is_none());
    }

    proptest! {
        /// Whatever the jumps of time: nothing is let go before its time, and in the end everything is.
        #[test]
        fn sweep_is_sound(steps in proptest::collection::vec((0u64..50, 0u64..3000, 1u64..1000), 1..300)) {
            let mut store = Store::new(1000, 1000, 100, 0);
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (n, jump, life) in steps {
                now += if jump > 2900 { jump * 4 } else { jump / 100 };
                let mut gone = Vec::new();
                store.sweep(now, |key, _| gone.push(key));
                for lost in gone {
                    let n = (0..50).find(|n| key(*n) == lost).unwrap();
                    let keep_until: u64 = model.remove(&n).unwrap();
                    prop_assert!(keep_until <= now);
                }
                if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(n) {
                    vacant.insert(now + life + 100);
                    prop_assert!(add(&mut store, n, now + life));
                }
                prop_assert_eq!(store.len(), model.len());
            }
            for _ in 0..6000 { now += 10; store.sweep(now, |_, _| ()); }
            prop_assert_eq!(store.len(), 0);
        }
    }
}
