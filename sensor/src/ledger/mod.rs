//! The ledger: which credentials came out of a login, since when we know, and how well.
//!
//! Owned by the data plane's thread. Issuances, logouts and losses flow in from [`crate::collect`], in the order of
//! their kernel times; a presented credential flows in and its [`Verdict`] flows out. In steady state a judgement
//! allocates nothing. Everything is bounded, every bound that is reached is counted ([`LedgerStats`]), and doubt of
//! any kind lowers a verdict to `unverifiable`, never raises one to `unissued`.
//!
//! Decisions that the rest of the program relies on:
//!
//! - A credential that was issued stays `issued` after logout and expiry (tombstones, see `store`); that it was used
//!   after its end is counted, not blamed on its provenance.
//! - Digest, NTLM and Negotiate prove a secret anew in every request. Such a credential is `unverifiable` and leaves no
//!   trace: not among the seen ones, nor among those without an issuer. A JWT does not hide behind such a scheme word.
//! - A credential in the store has the stored provenance whatever issuer it matches, or none. One that is not in the
//!   store and matches no declared issuer is `unverifiable`.
//! - Whoever forges an `iat` before the horizon, or leaves it out, is believed until the ledger has watched for the
//!   issuer's longest lifetime, but no more distinct credentials than the issuer's budget: those beyond it are
//!   `unverifiable`, marked `horizon_budget_spent` and counted. Without a budget (none stated, none confirmed) they are
//!   only counted. An `iat` forged into a gap spends that gap's budget; beyond it the credential is `unissued`.
//! - Memory of presented credentials is bounded: an attacker who floods it can make an echo look like an issuance.
//!   It costs him `max_seen` requests with fresh credentials between two uses of the forged one, and shows in
//!   [`LedgerStats::seen_evictions`].

mod archive;
mod claims;
mod evicted;
mod facts;
mod gaps;
mod issue;
mod issuers;
mod json;
mod names;
mod persist;
mod population;
mod presented;
mod pushed;
mod rates;
mod register;
mod sight;
mod sources;
mod stats;
mod store;
mod table;
#[cfg(test)]
mod tests;
mod unknown;
mod verdict;

use std::time::Duration;

use sensor_ebpf::siphash::{self, hash128};

use self::claims::Claims;
use self::evicted::Evicted;
use self::gaps::Gaps;
use self::issuers::{Issuers, Subject};
use self::persist::Marks;
use self::population::Population;
use self::sight::Window;
use self::sources::Sources;
use self::stats::UnmatchedList;
use self::store::{Answer, Entry, Id, Key, SavedUse, Store};
use self::table::ClockMap;
use self::unknown::{Question, Sighted, Unknown, Use};
use self::verdict::{Horizon, Leeway};
use crate::config::model::Config;
use crate::observation::{
    AccountHash, ClaimName, Fingerprint, Instant, Interned, Provenance, ServiceId, Validity, claim_anomaly,
};

pub use self::archive::{Archive, Archived, Imported, Standing};
pub use self::issue::{Issuance, Issued};
pub use self::names::joined;
pub use self::presented::{Expected, Presented, Verdict};
pub use self::pushed::Told;
pub use self::sight::{Compared, Sight};
pub use self::stats::{FolderStats, IssuerStats, LedgerStats, Unmatched};
pub use self::store::{Loaded, StoreError};

/// Longest time that a tombstone is kept after its credential's end or last use.
const RETENTION_MAX: Duration = Duration::from_hours(24);

/// The set of issuances, the horizon, and the gaps. Single-threaded. (No `Debug`: it holds the account key.)
pub struct Ledger {
    store: Store,
    evicted: Evicted,
    seen: ClockMap<Use, Id>,
    gaps: Gaps,
    sources: Sources,
    claims: Claims,
    issuers: Issuers,
    windows: Vec<Window>,
    populations: Vec<Population>,
    unmatched: UnmatchedList,
    horizon: Horizon,
    account_key: siphash::Key,
    marks: Marks,
    /// What left the store and is still to be written down as presented.
    left: Vec<Remembered>,
    /// Its counts are kept here; its sizes are filled in by [`Ledger::stats`].
    counts: LedgerStats,
}

/// The parts of a ledger that judge what is not in the store; a macro because it borrows single fields.
macro_rules! unknown {
    ($ledger:expr) => {
        Unknown {
            store: &mut $ledger.store,
            evicted: &$ledger.evicted,
            seen: &mut $ledger.seen,
            gaps: &mut $ledger.gaps,
            sources: &mut $ledger.sources,
            windows: &mut $ledger.windows,
            populations: &mut $ledger.populations,
            counts: &mut $ledger.counts,
            horizon: &$ledger.horizon,
        }
    };
}

impl Ledger {
    /// An empty ledger that watches from `started` on. Accounts are hashed under `account_key`.
    pub fn new(config: &Config, account_key: siphash::Key, started: Instant) -> Self {
        let mut claims = Claims::new(config, account_key);
        let issuers = Issuers::new(config, &mut claims);
        let leeway = Leeway::from(config.ledger.clock_leeway);
        let lifetime = issuers.longest_lifetime().saturating_add(leeway.monotonic);
        let capacity = config.ledger.max_issuances;
        let bounds = store::Bounds {
            issuances: capacity,
            accounts: config.ledger.max_accounts,
            lifetime,
            retention: lifetime.min(nanos(RETENTION_MAX)),
        };
        let declared = config.services.iter().flat_map(|service| &service.issuers);
        Self {
            store: Store::new(bounds, &config.services, started.monotonic_ns),
            evicted: Evicted::new(capacity),
            seen: ClockMap::new(config.ledger.max_seen),
            gaps: Gaps::new(issuers.services(), leeway, config.ledger.max_seen),
            sources: Sources::new(issuers.services(), leeway),
            windows: vec![Window::default(); issuers.iter().count()],
            populations: declared.map(|issuer| Population::new(issuer.horizon_budget())).collect(),
            claims,
            issuers,
            unmatched: UnmatchedList::default(),
            horizon: Horizon { started, leeway, before: vec![0; config.services.len()] },
            account_key,
            marks: Marks::default(),
            left: Vec::new(),
            counts: LedgerStats { capacity, ..LedgerStats::default() },
        }
    }

    /// Asks for the memory in which judging a credential begins, so that waiting for it overlaps with other work.
    pub fn expect(&self, expected: Expected) {
        let Expected { service, fingerprint, flags } = expected;
        self.claims.fetch(fingerprint, flags);
        self.store.fetch(&Key { service, fingerprint });
    }

    /// Asks for the memory of what that finds; worth it a little later, and before the credential is judged.
    pub fn expect_soon(&self, expected: Expected) {
        let Expected { service, fingerprint, flags } = expected;
        self.claims.fetch_facts(fingerprint, flags);
        self.store.fetch_entry(&Key { service, fingerprint });
    }

    /// Judges a presented credential, and remembers the use.
    pub fn judge(&mut self, presented: &Presented<'_>, at: Instant) -> Verdict {
        self.tidy(at);
        let facts = self.claims.facts(presented);
        if issuers::unstable(presented, &facts) {
            self.counts.no_stable_token += 1;
            return Verdict::UNSTABLE;
        }
        let key = Key { service: presented.service, fingerprint: presented.fingerprint };
        let (issuer, jwt) = self.issuers.find(presented, &facts);
        if issuer.is_none() {
            self.unmatched.count(presented, &facts);
        }
        let ending = self.issuers.ending(presented.service, issuer, &facts);
        let end = ending.map(|issuer| issuer.end(&facts, at, self.horizon.leeway));
        let answer = self.store.presented(&key, !jwt, end, at);
        let id = self.store.id(&key);
        let answer = pushed::of_its_issuer(answer, &self.issuers, issuer, presented, &facts, &mut self.counts);
        let (claims, mut anomalies) = register::examine(&facts, issuer, &self.issuers, at, self.horizon.leeway);
        let validity = verdict::validity(&facts, jwt, issuer, at, self.horizon.leeway);
        let expired = validity == Validity::Expired;
        let provenance = verdict::provenance(&answer, || {
            let retention = self.store.retention();
            let forgotten =
                ending.is_some_and(|issuer| issuer.ended_before(&facts, at, self.horizon.leeway, retention));
            let question =
                Question { key, id, issuer, iat: claims.iat, expired, forgotten, at, spends: presented.spends };
            let (provenance, spent) = unknown!(self).judge(&question);
            anomalies |= spent;
            provenance
        });
        let mut account = None;
        if let Answer::Known(entry) = &answer {
            account = entry.account;
            if provenance == Provenance::Unverifiable && self.gaps.is_excused(id) {
                anomalies |= claim_anomaly::EXCUSED;
            }
            self.counts.used_after_end += u64::from(entry.ended);
            if let Some(window) = issuer.filter(|_| !entry.used).and_then(|issuer| self.windows.get_mut(issuer.row)) {
                window.count(at, |sight| sight.seen += 1);
            }
        }
        let subject = match issuer.map_or(Subject::Sub, |issuer| issuer.subject) {
            Subject::Nobody => None,
            Subject::Sub => claims.sub,
            Subject::Claim(place) => self.claims.nth_account(presented, place),
        };
        Verdict {
            provenance,
            validity,
            issuer: issuer.map(|issuer| issuer.id),
            kid: facts.kid,
            self_contained: jwt,
            account,
            subject,
            claims,
            anomalies,
            stable: true,
        }
    }

    /// What a self-contained credential passes on that was judged as `verdict` without spending doubt: now it spends what
    /// it needs, and what does not suffice is said as of any other that is presented.
    pub fn charge(
        &mut self,
        service: ServiceId,
        fingerprint: Fingerprint,
        verdict: &Verdict,
        at: Instant,
    ) -> Provenance {
        let key = Key { service, fingerprint };
        let doubted = matches!(verdict.provenance, Provenance::Preexisting | Provenance::Unverifiable);
        if !doubted || self.store.find(&key, at.monotonic_ns).is_some() {
            return verdict.provenance;
        }
        let expired = verdict.validity == Validity::Expired;
        let forgotten = verdict.is_forgotten();
        let id = self.store.id(&key);
        let issuer = verdict.issuer.and_then(|issuer| self.issuers.get(service, issuer));
        let question = Question { key, id, issuer, iat: verdict.claims.iat, expired, forgotten, at, spends: true };
        unknown!(self).judge(&question).0
    }

    /// Keyed hash of the value of a top-level claim of a JWT: a non-empty string, or an integer in decimal. `None` for
    /// anything else. Cached for claims that some route's `account` names.
    pub fn claim_account(&mut self, presented: &Presented<'_>, claim: &str) -> Option<AccountHash> {
        self.claims.account(presented, claim)
    }

    /// Records that `lost` issuances of `service` between `from` and `to` were not seen.
    pub fn gap(&mut self, service: ServiceId, from: Instant, to: Instant, lost: u64) {
        let keep = self.issuers.longest_lifetime().saturating_add(self.horizon.leeway.monotonic);
        self.gaps.add(service, from, to, lost, keep.saturating_add(nanos(RETENTION_MAX)));
    }

    /// A credential was exchanged for one that a gap or a silent source excuses: what it inherits has been paid for.
    pub fn pass_excuse(&mut self, service: ServiceId, fingerprint: Fingerprint) {
        let id = self.store.id(&Key { service, fingerprint });
        self.gaps.pass_on(id);
    }

    /// Records were lost between `from` and `to` that held `at_most` issuances of `service`: a gap of so many, or of twice
    /// what its sources handed out in their busiest time before, if that is less. (Twice, because records are lost in a rush.)
    pub fn lost(&mut self, service: ServiceId, from: Instant, to: Instant, at_most: u64) {
        let length = Duration::from_nanos(to.monotonic_ns.saturating_sub(from.monotonic_ns));
        let most = self.sources.most(service, from, length).map_or(at_most, |most| most.saturating_mul(2).max(1));
        self.gap(service, from, to, at_most.min(most));
    }

    /// An exchange of the issuing route numbered `route` handed `credentials` out, as a login or for what a login issued.
    pub fn spoke(&mut self, service: ServiceId, route: usize, credentials: u64, at: Instant) {
        if let Some(over) = self.sources.spoke(service, route, credentials, at) {
            self.gap(service, over.from, over.to, over.left);
        }
    }

    /// Keyed hash of an account identifier, given as its text: `17` in a path, as a number and as a string in claims
    /// all agree.
    pub fn hash_account(&self, id: &[u8]) -> AccountHash {
        AccountHash(hash128(self.account_key, id))
    }

    /// A `kid` in printable form, cut to 64 characters.
    pub fn kid(&self, kid: Interned) -> &str {
        self.name(ClaimName::Kid, kid)
    }

    /// An interned name as it came, for the journal; `None` for one that was not told apart.
    pub fn whole_name(&self, of: ClaimName, id: Interned) -> Option<&str> {
        self.claims.whole(of, id)
    }

    /// The number of a name that an earlier run knew.
    pub fn intern(&mut self, of: ClaimName, name: &str) -> Interned {
        self.claims.intern(of, name)
    }

    /// The printable form of an interned name of the given table, cut to 64 characters.
    pub fn name(&self, of: ClaimName, id: Interned) -> &str {
        self.claims.show(of, id)
    }

    /// Counts, sizes and, by issuer, horizon and sight. For the control plane: it allocates.
    pub fn stats(&self) -> LedgerStats {
        let (gaps, gap_left) = self.gaps.left();
        let (claims_decoded, claims_evictions) = self.claims.counts();
        let (kids, kids_overflow) = self.claims.seen.kids.counts();
        let issuers = self.issuers.iter().map(|(service, issuer)| {
            let population = self.populations.get(issuer.row);
            let since = self.horizon.since_unix_ns(service);
            let watched = issuer.lifetime.saturating_add(self.horizon.leeway.monotonic);
            IssuerStats {
                service,
                issuer: issuer.id,
                accountable: issuer.accountable,
                horizon_unix: unix_seconds(since),
                complete_unix: unix_seconds(since.saturating_add(watched)),
                sight: self.windows.get(issuer.row).map(Window::sum).unwrap_or_default(),
                compared: self.windows.get(issuer.row).map(Window::compared).unwrap_or_default(),
                population: population.map_or(0, Population::distinct),
                population_budget: population.and_then(Population::budget),
                population_exceeded: population.map_or(0, |population| population.exceeded),
            }
        });
        LedgerStats {
            issuances: self.store.len(),
            eviction_false_positives: self.evicted.false_positives(),
            seen: self.seen.len(),
            seen_evictions: self.seen.evictions(),
            gaps,
            gap_lost: self.gaps.lost,
            gap_left,
            gap_excused: self.gaps.excused,
            gap_excuses: self.gaps.excuses,
            gap_refused: self.gaps.refused,
            unmatched: self.unmatched.total,
            unmatched_overflow: self.unmatched.overflow,
            claims_decoded,
            claims_evictions,
            kids,
            kids_overflow,
            issuers: issuers.collect(),
            folder: self.folder_stats(),
            ..self.counts.clone()
        }
    }

    /// Credentials that match no declared issuer, by kind: a bounded list in a stable order.
    pub fn unmatched(&self) -> impl Iterator<Item = Unmatched<'_>> {
        self.unmatched.iter(&self.claims)
    }

    /// Lets go of a few entries whose time is over.
    fn tidy(&mut self, at: Instant) {
        let Self { store, seen, left, .. } = self;
        store.take_answers();
        store.sweep(at.monotonic_ns, |id, entry| left.extend(remember(seen, id, &entry, at)));
        for (used, forgotten) in left.drain(..) {
            store.write_use(used, forgotten);
        }
        self.mark_when_due(at);
    }
}

/// An entry for which there is no room becomes doubt. What descends from a forged credential gains nothing by it.
fn forget(
    evicted: &mut Evicted,
    seen: &mut ClockMap<Use, Id>,
    id: Id,
    entry: &Entry,
    at: Instant,
) -> Option<Remembered> {
    if entry.provenance != Provenance::Unissued {
        evicted.insert(id, entry.keep_until, at.monotonic_ns);
    }
    remember(seen, id, entry, at)
}

/// A use that is remembered from now on, and whose is not any more.
type Remembered = (SavedUse, Option<Id>);

/// When an entry that never was issued leaves the store after use, its use must stay known: else it could come back
/// as an echo and count as issued.
fn remember(seen: &mut ClockMap<Use, Id>, id: Id, entry: &Entry, at: Instant) -> Option<Remembered> {
    if !entry.used || entry.provenance == Provenance::Issued || seen.peek(&id).is_some() {
        return None;
    }
    let used = Use::new(at.monotonic_ns, Sighted::Otherwise);
    let forgotten = seen.insert(id, used);
    Some((used.saved(id, false, at), forgotten))
}

const SECOND: u64 = 1_000_000_000;

/// Wall-clock seconds since 1970.
fn seconds(at: Instant) -> i64 {
    unix_seconds(at.unix_ns)
}

/// Whole seconds of nanoseconds since 1970.
fn unix_seconds(ns: u64) -> i64 {
    i64::try_from(ns / SECOND).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
