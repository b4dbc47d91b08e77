//! Who a drift is made of: the members of a group each of which is too quiet alone.
//!
//! **In**: account reads and logins; which services' or routes' reads are out of season. **Out**: while they are, the
//! clients and keys that it came with.
//!
//! **Method.** The second stage of V. Javed and M. Paxson (ACM CCS 2013): once the aggregate has changed, its participants
//! are those without a past. Clients are remembered by the day in Bloom filters (B. H. Bloom 1970; three bits of one word
//! each), for a week, because an office that comes back on Monday is nobody new. While reads are out of season, the filters
//! rest, and of clients that none of the days before knows, those are counted that read accounts without having logged in,
//! or others' accounts all the same, on a route that is out of season (on any, when the reads for each login are); reads of
//! the own account with an issued credential are not. A
//! client is told when it read at least two accounts, the widest first. A key is told when it is new or four times as much
//! used as by its mean. Ten minutes after the alarm, and each hour while it lasts.
//!
//! **What it does not see.** Members that were there the days before. In the first day of a run nobody has a past, and
//! nobody is told.
//!
//! **State.** Eight filters of `known_clients` bits (at 16 million, two million clients a day fill a third; one in
//! thirty newcomers is then taken for known by each); a table of `members` clients, of which the widest stay; 256 keys.

use serde::{Deserialize, Serialize};

use std::net::IpAddr;

use super::table::{Hasher, Kept, Table, TableStats};
use super::time::{Fading, Tenths, seconds};
use crate::ahead;
use crate::observation::{AccountHash, Interned, Measure, Observation, Outcome, Provenance, Relation, RouteClass};

/// A filter is for a day; the last seven full ones are the past.
const DAY: Tenths = 864_000;
const DAYS: usize = 8;
/// First report after the alarm, and those that follow.
const FIRST: Tenths = 6_000;
const AGAIN: Tenths = 36_000;
/// Clients told at once, keys followed, accounts told of each client.
const TOLD: usize = 32;
const KIDS: usize = 256;
const SAMPLE: usize = 4;
/// Accounts that a client must have read.
const ACCOUNTS: u32 = 2;
/// A key is told from this many reads an hour, and times its mean.
const KID_LEAST: f32 = 20.0;
const KID_TIMES: f32 = 4.0;
const KID_HALF_S: f32 = 86_400.0;

/// Clients by the day, and those looked at now.
#[derive(Debug)]
pub(super) struct Members {
    hasher: Hasher,
    days: [Filter; DAYS],
    /// When the newest filter was begun, and how many are complete.
    begun: Option<Tenths>,
    complete: u8,
    full_days: u64,
    table: Table<Client>,
    kids: Vec<Kid>,
    /// Services under alarm: since when, and when to report next.
    alarms: Vec<Option<Alarm>>,
    /// Whose reads are out of season.
    out: Out,
    watching: bool,
}

/// Whose reads are out of season, by number of service and route.
#[derive(Debug)]
struct Out {
    services: Vec<Reads>,
    routes: Vec<bool>,
}

/// Which reads of a service are out of season.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Reads {
    None,
    OfRoutes,
    All,
}

impl Out {
    fn new(services: usize, routes: usize) -> Self {
        Self { services: vec![Reads::None; services], routes: vec![false; routes] }
    }

    fn set(&mut self, alarms: impl Iterator<Item = (usize, Measure, Option<usize>)>) {
        self.services.fill(Reads::None);
        self.routes.fill(false);
        for (service, _, route) in alarms {
            if let Some(reads) = self.services.get_mut(service) {
                *reads = (*reads).max(if route.is_some() { Reads::OfRoutes } else { Reads::All });
            }
            if let Some(out) = route.and_then(|route| self.routes.get_mut(route)) {
                *out = true;
            }
        }
    }

    fn of(&self, service: usize) -> Reads {
        self.services.get(service).copied().unwrap_or(Reads::None)
    }

    fn is_route(&self, route: usize) -> bool {
        self.routes.get(route).is_some_and(|out| *out)
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Alarm {
    since: Tenths,
    next: Tenths,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Filter(Vec<u64>);

impl Filter {
    fn bits(hash: u64) -> u64 {
        1 << (hash & 63) | 1 << (hash >> 6 & 63) | 1 << (hash >> 12 & 63)
    }

    fn place(&self, hash: u64) -> usize {
        usize::try_from(hash >> 18).unwrap_or(0) & (self.0.len() - 1)
    }

    fn has(&self, hash: u64) -> bool {
        let bits = Self::bits(hash);
        self.0.get(self.place(hash)).is_some_and(|word| *word & bits == bits)
    }

    /// More than a third of the bits are set: it takes more than one newcomer in thirty for known.
    fn is_full(&self) -> bool {
        let set = self.0.iter().fold(0, |set, word| set + u64::from(word.count_ones()));
        set > self.0.len() as u64 * 64 / 3
    }

    fn add(&mut self, hash: u64) {
        let place = self.place(hash);
        if let Some(word) = self.0.get_mut(place) {
            *word |= Self::bits(hash);
        }
    }
}

/// A client without a past.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Client {
    address: IpAddr,
    service: u16,
    logged_in: bool,
    reads: u32,
    /// A bit of 64 for each account, by hash; and of these, accounts of others than the credential's own.
    accounts: u64,
    foreign: u64,
    sample: [AccountHash; SAMPLE],
    sampled: u8,
    at: Tenths,
    kid: Option<Interned>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
            service: 0,
            logged_in: false,
            reads: 0,
            accounts: 0,
            foreign: 0,
            sample: [AccountHash([0; 16]); SAMPLE],
            sampled: 0,
            at: 0,
            kid: None,
        }
    }
}

impl Client {
    /// The accounts that count. A login explains reads that may be of the own account, and none of others'.
    fn told(&self) -> u32 {
        if self.logged_in { self.foreign } else { self.accounts }.count_ones()
    }
}

impl Kept for Client {
    /// The accounts it read; the oldest goes first among equals.
    fn worth(&self, now: Tenths) -> f32 {
        f32::from(u8::try_from(self.accounts.count_ones()).unwrap_or(u8::MAX).max(1)) - seconds(self.at, now) / 86_400.0
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Kid {
    service: u16,
    first: Option<Tenths>,
    mean: Fading,
    /// Reads since the alarm.
    reads: u32,
}

/// Who is looked for now.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct MembersProgress {
    clients: Vec<(u64, Client)>,
    kids: Vec<Kid>,
    alarms: Vec<Option<Alarm>>,
    watching: bool,
}

/// The clients of the days.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Past {
    days: [Filter; DAYS],
    begun: Option<Tenths>,
    complete: u8,
}

/// A member: a client or a key.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Member {
    pub service: usize,
    pub since: Tenths,
    pub client: Option<IpAddr>,
    pub kid: Option<Interned>,
    /// Reads since the alarm, and those expected.
    pub reads: u32,
    pub expected: f32,
    /// Accounts of a client (exact up to a dozen, at most 64).
    pub distinct: u32,
    pub accounts: Vec<AccountHash>,
}

impl Members {
    /// With `bits` for the clients of each day, and room for `members` of a drift.
    pub fn new(bits: usize, members: usize, services: usize, routes: usize, hasher: Hasher) -> Self {
        let words = (bits / 64).max(1).next_power_of_two();
        Self {
            hasher,
            days: std::array::from_fn(|_| Filter(vec![0; words])),
            begun: None,
            complete: 0,
            full_days: 0,
            table: Table::new(members),
            kids: vec![Kid::default(); KIDS],
            alarms: vec![None; services],
            out: Out::new(services, routes),
            watching: false,
        }
    }

    /// Asks for the memory that `o` will need: a filter is too large to stay at hand.
    #[inline]
    pub fn expect(&self, o: &Observation) {
        if !self.watching {
            let [today, ..] = &self.days;
            ahead::fetch(&today.0, today.place(self.hasher.address(o.client)));
        }
    }

    /// Takes one observation of the route numbered `route`.
    #[inline]
    pub fn observe(&mut self, o: &Observation, route: usize, now: Tenths) {
        let login = o.class == RouteClass::Login && (o.issued > 0 || o.outcome == Outcome::Read);
        if !login && (o.class != RouteClass::AccountRead || o.outcome != Outcome::Read) {
            return;
        }
        let client = self.hasher.address(o.client);
        if !login {
            self.key(o, now);
        }
        if self.watching {
            self.watch(o, (client, route), login, now);
        } else {
            let [today, ..] = &mut self.days;
            today.add(client);
        }
    }

    fn key(&mut self, o: &Observation, now: Tenths) {
        let kid = o.kid.and_then(|kid| self.kids.get_mut(usize::try_from(kid.0).ok()?));
        let Some(kid) = kid else { return };
        kid.service = o.service.0;
        kid.first.get_or_insert(now);
        if self.watching {
            kid.reads = kid.reads.saturating_add(1);
        } else {
            kid.mean.add(1.0, now, KID_HALF_S);
        }
    }

    fn watch(&mut self, o: &Observation, (client, route): (u64, usize), login: bool, now: Tenths) {
        let counts = match self.out.of(usize::from(o.service.0)) {
            Reads::None => false,
            Reads::OfRoutes => login || self.out.is_route(route),
            Reads::All => true,
        };
        let own = o.provenance == Provenance::Issued && o.relation == Relation::Own;
        if !counts || own {
            return;
        }
        let [_, before @ ..] = &self.days;
        if before.iter().any(|day| day.has(client)) {
            return;
        }
        let tag = self.hasher.hash(client, u64::from(o.service.0));
        if self.table.find(tag).is_none() {
            let new = Client { address: o.client, service: o.service.0, at: now, ..Client::default() };
            self.table.insert(tag, new, now);
        }
        let hash = o.account.map(|account| {
            let (low, high) = account.0.split_at(8);
            let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            self.hasher.hash(word(low), word(high))
        });
        let Some(member) = self.table.find(tag) else { return };
        (member.at, member.kid) = (now, o.kid);
        if login {
            member.logged_in = true;
            return;
        }
        member.reads = member.reads.saturating_add(1);
        let (Some(account), Some(hash)) = (o.account, hash) else { return };
        let bit = 1 << (hash >> 58);
        if o.relation == Relation::Foreign {
            member.foreign |= bit;
        }
        if member.accounts & bit == 0 {
            member.accounts |= bit;
            if let Some(place) = member.sample.get_mut(usize::from(member.sampled)) {
                *place = account;
                member.sampled += 1;
            }
        }
    }

    /// Moves time on; `alarms` tells whose reads are out of season: a service's, or only those of one of its routes.
    pub fn tick(
        &mut self,
        now: Tenths,
        alarms: impl Iterator<Item = (usize, Measure, Option<usize>)>,
        mut tell: impl FnMut(Member),
    ) {
        self.out.set(alarms);
        for (service, alarm) in self.alarms.iter_mut().enumerate() {
            let new = Alarm { since: now, next: now.saturating_add(FIRST) };
            *alarm = (self.out.of(service) > Reads::None).then(|| alarm.unwrap_or(new));
        }
        let watching = self.alarms.iter().any(Option::is_some);
        if watching != self.watching {
            self.watching = watching;
            self.table.clear();
            self.kids.iter_mut().for_each(|kid| kid.reads = 0);
        }
        self.turn(now);
        for service in 0..self.alarms.len() {
            let Some(Some(alarm)) = self.alarms.get_mut(service) else { continue };
            if now < alarm.next {
                continue;
            }
            alarm.next = now.saturating_add(AGAIN);
            let since = alarm.since;
            self.report(service, since, now, &mut tell);
        }
    }

    /// Begins a new day; not while members are looked for, who would get a past by waiting.
    fn turn(&mut self, now: Tenths) {
        let begun = *self.begun.get_or_insert(now);
        if self.watching || now.saturating_sub(begun) < DAY {
            return;
        }
        self.begun = Some(now);
        self.complete = self.complete.saturating_add(1);
        let [ended, ..] = &self.days;
        self.full_days += u64::from(ended.is_full());
        self.days.rotate_right(1);
        let [Filter(today), ..] = &mut self.days;
        today.fill(0);
    }

    fn report(&mut self, service: usize, since: Tenths, now: Tenths, tell: &mut impl FnMut(Member)) {
        if self.complete == 0 {
            return;
        }
        let of_service = |client: &&Client| usize::from(client.service) == service;
        let wide = |client: &&Client| client.told() >= ACCOUNTS;
        let mut clients: Vec<Client> = self.table.iter().filter(of_service).filter(wide).copied().collect();
        clients.sort_by_key(|client| (std::cmp::Reverse(client.told()), client.address));
        for client in clients.into_iter().take(TOLD) {
            tell(Member {
                service,
                since,
                client: Some(client.address),
                kid: client.kid,
                reads: client.reads,
                expected: 0.0,
                distinct: client.told(),
                accounts: client.sample.into_iter().take(usize::from(client.sampled)).collect(),
            });
        }
        let hours = seconds(since, now).max(600.0) / 3_600.0;
        for (number, kid) in (0u32..).zip(&self.kids) {
            let Some(first) = kid.first.filter(|_| usize::from(kid.service) == service) else { continue };
            let expected = if first >= since { 0.0 } else { kid.mean.at(since, KID_HALF_S) / (24.0 * Fading::WINDOW) };
            #[expect(clippy::cast_precision_loss, reason = "an estimate")]
            let rate = kid.reads as f32 / hours;
            if rate < KID_LEAST.max(KID_TIMES * expected) {
                continue;
            }
            tell(Member {
                service,
                since,
                client: None,
                kid: Some(Interned(number)),
                reads: kid.reads,
                expected: expected * hours,
                distinct: 0,
                accounts: Vec::new(),
            });
        }
    }

    /// What members of a drift are looked for among, and who was found so far.
    pub fn progress(&self) -> MembersProgress {
        MembersProgress {
            clients: self.table.kept(|_| true),
            kids: self.kids.clone(),
            alarms: self.alarms.clone(),
            watching: self.watching,
        }
    }

    /// The clients of the days.
    pub fn past(&self) -> Past {
        Past { days: self.days.clone(), begun: self.begun, complete: self.complete }
    }

    /// Takes up who was looked for, of the same services, while `alarms` lasted. Without a [`Past`] nobody is told before
    /// there is one.
    pub fn resume(
        &mut self,
        progress: MembersProgress,
        past: Option<Past>,
        alarms: impl Iterator<Item = (usize, Measure, Option<usize>)>,
        now: Tenths,
    ) {
        self.out.set(alarms);
        self.table.resume(&progress.clients, now);
        if progress.kids.len() == self.kids.len() && progress.alarms.len() == self.alarms.len() {
            (self.kids, self.alarms, self.watching) = (progress.kids, progress.alarms, progress.watching);
        }
        let [Filter(today), ..] = &self.days;
        let size = today.len();
        if let Some(past) = past.filter(|past| past.days.iter().all(|Filter(words)| words.len() == size)) {
            (self.days, self.begun, self.complete) = (past.days, past.begun, past.complete);
        }
    }

    /// What became of clients for want of room.
    pub fn stats(&self) -> TableStats {
        self.table.stats
    }

    /// Days that had more clients than the filters are made for.
    pub fn full_days(&self) -> u64 {
        self.full_days
    }
}

#[cfg(test)]
#[path = "drift_tests.rs"]
mod tests;
