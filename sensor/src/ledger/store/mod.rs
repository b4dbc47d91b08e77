//! The set of issuances: credential → provenance, end of life, account.
//!
//! Owns the tag table (what is there, in memory), the cache of recent credentials with their accounts, and expiry.
//! Issuances flow in from [`super::Ledger::issue`], questions from [`super::Ledger::judge`]; neither ever waits for a
//! disk. An entry outlives its credential: after expiry or logout it stays as a **tombstone** for a retention time,
//! renewed as long as the credential is still being presented, because a credential that was issued stays issued and
//! must never turn into a false `unissued`.
//!
//! Nothing is let go by its tag: what is over goes by its expiry bucket, and what shares a tag shares a bucket. Sweeping
//! takes one region of the table at a time, in step with the clock.

mod disk;
mod folder;
mod journal;
mod note;
mod persist;
pub mod record;
mod tags;

use std::num::NonZeroU16;

use self::journal::Journal;
use self::note::{Buckets, Note};
use self::persist::Written;
use self::record::Change;
use self::tags::Tags;
use super::table::ClockMap;
use crate::config::model::{PUSHED_ISSUERS, Service};
use crate::observation::{AccountHash, Fingerprint, Instant, IssuerId, Provenance, ServiceId};

pub use self::disk::{Disk, Saved, SavedGap, SavedService, SavedUse, Write};
pub use self::folder::{Folder, StoreError};
pub use self::persist::Loaded;
pub use self::tags::Id;

/// Ticks that sweeping may stay behind before it catches up at once (after the machine slept).
const BEHIND_MAX: u64 = 32;

const DAY: u64 = 24 * 3_600_000_000_000;

/// A credential of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub service: ServiceId,
    pub fingerprint: Fingerprint,
}

impl Key {
    /// Two independent 64-bit halves of the fingerprint.
    pub fn halves(&self) -> (u64, u64) {
        let wide = u128::from_le_bytes(self.fingerprint.0);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves are taken on purpose")]
        (wide as u64, (wide >> 64) as u64)
    }
}

/// What is known of an issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Issued, or what was inherited.
    pub provenance: Provenance,
    /// Presented at least once since it was issued.
    pub used: bool,
    /// Logged out, or past its end.
    pub ended: bool,
    /// Its issuer, if whoever recorded the issuance said so.
    pub issuer: Option<IssuerId>,
    /// What the login said, if that is at hand.
    pub account: Option<AccountHash>,
    /// When it may be let go at the earliest, monotonic ns.
    pub keep_until: u64,
}

/// What a store says of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It is in the ledger (live or as a tombstone).
    Known(Entry),
    /// It is not.
    Unknown,
    /// A store outside this process has not answered in time. The embedded store answers at once.
    NotYetKnown,
}

/// An issuance to be recorded.
#[derive(Clone, Copy, Debug)]
pub struct Issue {
    /// Issued, or what is inherited.
    pub provenance: Provenance,
    /// What the login said.
    pub account: Option<AccountHash>,
    /// Its issuer, if known.
    pub issuer: Option<IssuerId>,
    /// End of its life, monotonic ns.
    pub expires: u64,
    /// It was presented before.
    pub used: bool,
}

/// A change to a recorded issuance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Amendment {
    /// It becomes issued.
    pub issued: bool,
    /// It is no longer ended.
    pub revived: bool,
    /// Whose it is.
    pub account: Option<AccountHash>,
    /// Its life ends then, if that is later, monotonic ns.
    pub expires: Option<u64>,
}

/// What is at hand of a recent credential, so that the table, whose memory is far, is asked for others only. Whatever
/// changes or removes a note in the table does so here.
#[derive(Clone, Copy, Debug)]
struct Recent {
    account: AccountHash,
    /// Its note in the table, if that is known here.
    note: Option<NonZeroU16>,
}

/// One pass of sweeping over all regions.
#[derive(Clone, Copy, Debug)]
struct Pass {
    started: u64,
    next: usize,
    /// What is filed under earlier ticks goes.
    until: u64,
}

/// The embedded store.
#[derive(Debug)]
pub struct Store {
    tags: Tags,
    buckets: Buckets,
    recent: ClockMap<Recent, Id>,
    /// By service.
    services: Vec<Written>,
    /// To the disk, if there is one.
    journal: Option<Journal>,
    pass: Option<Pass>,
    /// Sweeping has nothing to do before then, monotonic ns.
    sweep_at: u64,
    /// How long a tombstone is kept after its credential's end or last use, ns.
    retention: u64,
}

/// Bounds of a store.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Most issuances.
    pub issuances: usize,
    /// Most accounts of recent issuances.
    pub accounts: usize,
    /// Longest life of an issuance, ns.
    pub lifetime: u64,
    /// How long it is kept after that, ns.
    pub retention: u64,
}

impl Store {
    /// An empty store for `services`, at monotonic time `now`, without a disk.
    pub fn new(bounds: Bounds, services: &[Service], now: u64) -> Self {
        Self {
            tags: Tags::new(bounds.issuances),
            buckets: Buckets::new(bounds.lifetime.saturating_add(bounds.retention), now),
            recent: ClockMap::roomy(bounds.accounts),
            services: services.iter().map(Written::new).collect(),
            journal: None,
            pass: None,
            sweep_at: 0,
            retention: bounds.retention,
        }
    }

    pub fn len(&self) -> usize {
        self.tags.len()
    }

    /// How many are kept beyond monotonic time `until` for sure; others may be tombstones whose time is over by then, which
    /// a start does not take up.
    pub fn lasting(&self, until: u64) -> usize {
        self.tags.count(|bits| self.buckets.since(Note::unpack(bits)) > until)
    }

    /// How long a tombstone is kept after its credential's end or last use, ns.
    pub fn retention(&self) -> u64 {
        self.retention
    }

    /// Does a little of what makes looks faster; for whoever has nothing more urgent to do.
    pub fn settle(&mut self) {
        self.tags.settle();
    }

    /// What `key` is known by in memory. The same fingerprint of two services is two credentials.
    pub fn id(&self, key: &Key) -> Id {
        self.tags.id(self.disk_key(key).bits())
    }

    /// Asks for the memory in which a look for `key` begins.
    pub fn fetch(&self, key: &Key) {
        let id = self.id(key);
        self.tags.fetch(id);
        self.recent.fetch(&id);
    }

    /// Asks for the memory of what that finds; worth it once that memory has come.
    pub fn fetch_entry(&self, key: &Key) {
        let id = self.id(key);
        if !self.recent.fetch_entry(&id) {
            self.tags.fetch_tag(id);
        }
    }

    /// What is recorded of a credential.
    pub fn find(&self, key: &Key, now: u64) -> Option<Entry> {
        let id = self.id(key);
        let note = Note::unpack(self.tags.get(id)?);
        Some(self.entry(note, self.recent.peek(&id).map(|recent| recent.account).filter(|_| note.account), now))
    }

    /// Looks up a credential that is being presented, and whose life is over at monotonic time `end` at the latest; the
    /// answer shows the entry as it was before this use. An account that is on disk only is asked for if it is `wanted`,
    /// and will be at hand for a later use.
    pub fn presented(&mut self, key: &Key, wanted: bool, end: Option<u64>, at: Instant) -> Answer {
        let id = self.id(key);
        let now = at.monotonic_ns;
        let (buckets, retention) = (self.buckets, self.retention);
        let mut change = Change::default();
        let mut after = 0;
        let mut present = |bits| {
            let note = Note::unpack(bits);
            let left = buckets.over(note);
            let ended = ended(note, left, retention, now);
            let end = end.map_or(u64::MAX, |end| end.max(now));
            let mut filed = note;
            if left <= now.saturating_add(retention) {
                // Still presented after its end: the tombstone stays.
                change.expires = persist::unix_seconds(now, at);
                filed = buckets.file(note, buckets.at(now.saturating_add(retention)));
            } else if left.saturating_sub(buckets.tick()) > end.saturating_add(retention) {
                filed = buckets.filed_by(note, buckets.at(end.saturating_add(retention)));
                if filed != note {
                    change.ends = persist::unix_seconds(end, at);
                }
            }
            change.used = !note.used;
            change.ended = ended && !note.ended;
            after = Note { used: true, ended, ..filed }.pack();
            after
        };
        let Self { tags, recent, .. } = self;
        let recent = recent.get_mut(&id);
        let before = match recent.as_deref().and_then(|recent| recent.note) {
            Some(bits) => {
                debug_assert_eq!(tags.get(id), Some(bits.get()));
                if present(bits.get()) != bits.get() {
                    tags.change(id, |_| after);
                }
                Some(bits.get())
            }
            None => tags.change(id, present),
        };
        let Some(before) = before.map(Note::unpack) else { return Answer::Unknown };
        let account = recent.map(|recent| {
            recent.note = NonZeroU16::new(after);
            recent.account
        });
        let account = account.filter(|_| before.account);
        self.write_change(key, change, at);
        if wanted && before.account && account.is_none() {
            self.ask(id, key);
        }
        Answer::Known(self.entry(before, account, now))
    }

    /// Records an issuance of a credential that is not in the store; false when full (call [`Store::evict`] first).
    pub fn insert(&mut self, key: &Key, issue: &Issue, at: Instant) -> bool {
        let id = self.id(key);
        let note = Note::new(issue.provenance, issue.issuer);
        let note = Note { used: issue.used, account: issue.account.is_some(), ..note };
        let note = self.buckets.file(note, self.buckets.at(issue.expires.saturating_add(self.retention)));
        if !self.tags.insert(id, note.pack()) {
            return false;
        }
        self.keep_account(id, issue.account, NonZeroU16::new(note.pack()));
        self.write_issue(key, issue, at);
        true
    }

    /// Changes what is recorded of a credential.
    pub fn amend(&mut self, key: &Key, amendment: &Amendment, at: Instant) {
        let id = self.id(key);
        let (buckets, retention) = (self.buckets, self.retention);
        self.tags.change(id, |bits| {
            let mut note = Note::unpack(bits);
            if amendment.issued {
                note.provenance = Provenance::Issued;
            }
            note.ended &= !amendment.revived;
            note.account |= amendment.account.is_some();
            let until = amendment.expires.map_or(0, |expires| buckets.at(expires.saturating_add(retention)));
            if until > buckets.of(note) { buckets.file(note, until).pack() } else { note.pack() }
        });
        self.keep_account(id, amendment.account, None);
        let change = Change {
            issued: amendment.issued,
            revived: amendment.revived,
            expires: amendment.expires.map_or(0, |expires| persist::unix_seconds(expires, at)),
            account: amendment.account,
            ..Change::default()
        };
        self.write_change(key, change, at);
    }

    /// Records that a credential's life is over; what was recorded, if anything was.
    pub fn end(&mut self, key: &Key, at: Instant) -> Option<Entry> {
        let id = self.id(key);
        let before = self.tags.change(id, |bits| Note { ended: true, ..Note::unpack(bits) }.pack())?;
        self.keep_account(id, None, None);
        self.write_change(key, Change { ended: true, ..Change::default() }, at);
        Some(self.entry(Note::unpack(before), None, at.monotonic_ns))
    }

    /// Has an account at hand, if there is one, and the note of its credential as it is now.
    fn keep_account(&mut self, id: Id, account: Option<AccountHash>, note: Option<NonZeroU16>) {
        if let Some(kept) = self.recent.get_mut(&id) {
            *kept = Recent { account: account.unwrap_or(kept.account), note };
        } else if let Some(account) = account {
            self.recent.insert(id, Recent { account, note });
        }
    }

    fn entry(&self, note: Note, account: Option<AccountHash>, now: u64) -> Entry {
        let keep_until = self.buckets.over(note);
        let ended = ended(note, keep_until, self.retention, now);
        let Note { provenance, used, issuer, .. } = note;
        Entry { provenance, used, ended, issuer, account, keep_until }
    }

    /// Lets go of entries whose time is over at monotonic time `now`, a region at a time, handing each to `gone`.
    pub fn sweep(&mut self, now: u64, mut gone: impl FnMut(Id, Entry)) {
        // Asked at each credential, so the answer is kept.
        if now < self.sweep_at {
            return;
        }
        let tick = self.buckets.at(now);
        if self.pass.is_none() {
            if tick <= self.buckets.floor() {
                self.sweep_at = self.buckets.begins(self.buckets.floor().saturating_add(1));
                return;
            }
            self.pass = Some(Pass { started: now, next: 0, until: tick });
        }
        if self.tags.len() == 0 {
            self.buckets.pass(tick);
            self.pass = None;
            return;
        }
        while let Some(pass) = self.pass {
            let behind = tick > self.buckets.floor().saturating_add(BEHIND_MAX);
            let regions = self.tags.regions();
            let step = self.buckets.tick() / regions as u64;
            let due = now.saturating_sub(pass.started).checked_div(step).unwrap_or(u64::MAX);
            if !behind && (pass.next as u64) > due {
                self.sweep_at = pass.started.saturating_add(step.saturating_mul(pass.next as u64));
                return;
            }
            self.sweep_region(pass, now, &mut gone);
            let next = pass.next + 1;
            self.pass = Some(Pass { next, ..pass });
            if next >= regions {
                self.buckets.pass(pass.until);
                let again = tick > self.buckets.floor().saturating_add(BEHIND_MAX);
                self.pass = again.then_some(Pass { started: now, next: 0, until: tick });
            }
        }
    }

    fn sweep_region(&mut self, pass: Pass, now: u64, gone: &mut impl FnMut(Id, Entry)) {
        let Self { tags, recent, buckets, retention, .. } = self;
        let keep = |bits| buckets.of(Note::unpack(bits)) >= pass.until;
        tags.sweep(pass.next, keep, |id, bits| {
            recent.remove(&id);
            let note = Note::unpack(bits);
            let ended = ended(note, buckets.over(note), *retention, now);
            let Note { provenance, used, issuer, .. } = note;
            gone(id, Entry { provenance, used, ended, issuer, account: None, keep_until: now });
        });
    }

    /// Makes room for `key` by letting go of the entry near it that will be missed least: a tombstone, the oldest first.
    /// Without one, what ends first among all that lives for more than a day; what ends within the day is a session in
    /// use more often than not, and goes last.
    pub fn evict(&mut self, key: &Key, now: u64) -> Option<(Id, Entry)> {
        let (buckets, retention) = (self.buckets, self.retention);
        let tomorrow = buckets.at(now.saturating_add(DAY).saturating_add(retention));
        let order = |bits| {
            let note = Note::unpack(bits);
            let until = buckets.of(note);
            let class = if ended(note, buckets.over(note), retention, now) {
                0
            } else if until > tomorrow {
                1
            } else {
                2
            };
            (class, until)
        };
        let (id, bits) = self.tags.evict(self.id(key), order)?;
        self.recent.remove(&id);
        Some((id, self.entry(Note::unpack(bits), None, now)))
    }
}

// Else whoever pushes for an issuer beyond could push for any.
const _: () = assert!(PUSHED_ISSUERS <= Note::ISSUER_MAX, "issuers that are pushed for have to be noted");

/// True when a noted credential's life is over: by a logout, or for sure, by the last moment of its bucket (`over`).
fn ended(note: Note, over: u64, retention: u64, now: u64) -> bool {
    note.ended || over.saturating_sub(retention) <= now
}

#[cfg(test)]
mod tests;
