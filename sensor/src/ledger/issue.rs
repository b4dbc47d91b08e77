//! Issuances: what logins hand out and bind, what refreshes and renewals pass on, what logouts end.
//!
//! What [`crate::collect`] read out of an exchange flows in, as an [`Issuance`]; entries of the store flow out. Provenance
//! changes only for the better, and only by a login; what has to go for want of room becomes doubt.

use super::store::{Amendment, Entry, Issue, Key};
use super::unknown::{Sighted, Use};
use super::{Ledger, Presented, RETENTION_MAX, forget, nanos};
use crate::observation::{AccountHash, Fingerprint, Instant, Provenance, ServiceId};

/// A credential handed out (or bound) by a successful login, refresh or renewal.
#[derive(Clone, Copy, Debug)]
pub struct Issuance {
    /// The service.
    pub service: ServiceId,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// Where it stood: one of `sensor_ebpf::wire::place`.
    pub place: u8,
    /// Which of the configured names of that place.
    pub index: u8,
    /// When the segment that completes it was seen.
    pub at: Instant,
    /// Whose it is, if the response says so.
    pub account: Option<AccountHash>,
    /// End of its life, monotonic ns, if it says so itself ([`Ledger::end_of`]); else the longest that any credential
    /// handed out at its place can have.
    pub expires: Option<u64>,
    /// `None`: a login. `Some`: a refresh or renewal of a credential with that provenance.
    pub inherits: Option<Provenance>,
    /// The credential was presented to a login and becomes issued without a new one.
    pub binds: bool,
}

/// What became of an issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// The credential is issued from now on.
    Added,
    /// It had been presented before: an echo, which issues nothing.
    Echo,
    /// It is in the ledger with the provenance of the credential it was exchanged for.
    Inherited(Provenance),
    /// It was in the ledger already; its provenance stays, its life may be longer.
    Known,
    /// It could not be kept (`max_issuances` is 0); it counts as evicted.
    Full,
}

impl Ledger {
    /// Records that a credential was handed out, or bound.
    pub fn issue(&mut self, issuance: Issuance) -> Issued {
        self.tidy(issuance.at);
        let key = Key { service: issuance.service, fingerprint: issuance.fingerprint };
        let expires = issuance.expires.unwrap_or_else(|| {
            let lifetime = self.issuers.lifetime(issuance.service, issuance.place, issuance.index);
            issuance.at.monotonic_ns.saturating_add(lifetime).saturating_add(self.horizon.leeway.monotonic)
        });
        let issued = match self.store.find(&key, issuance.at.monotonic_ns) {
            Some(entry) => self.issue_known(&key, &entry, &issuance, expires),
            None => self.issue_new(key, &issuance, expires),
        };
        match issued {
            Issued::Added => self.counts.added += 1,
            Issued::Echo => self.counts.echoes += 1,
            Issued::Inherited(_) => self.counts.inherited += 1,
            Issued::Known => self.counts.known += 1,
            Issued::Full => {}
        }
        issued
    }

    /// When a credential that is being handed out ends by its own claims, monotonic ns; `None` if it has none, or no
    /// declared issuer. Where issuers of hours and of years share a place, the place's longest lifetime would fill the
    /// ledger with what is long over.
    pub fn end_of(&mut self, handed: &Presented<'_>, at: Instant) -> Option<u64> {
        let facts = self.claims.facts(handed);
        let issuer = self.issuers.ending(handed.service, None, &facts)?;
        Some(issuer.end(&facts, at, self.horizon.leeway))
    }

    /// A credential in the store. Provenance changes only for the better, and only by a login: one that hands out a
    /// credential nobody has presented yet, or one that binds it.
    fn issue_known(&mut self, key: &Key, entry: &Entry, issuance: &Issuance, expires: u64) -> Issued {
        let login = issuance.inherits.is_none();
        let mut amendment = Amendment::default();
        let issued = if entry.provenance == Provenance::Issued {
            Issued::Known
        } else if !login {
            return Issued::Known;
        } else if entry.used && !issuance.binds {
            return Issued::Echo;
        } else {
            amendment.issued = true;
            Issued::Added
        };
        // What an unissued parent was exchanged for lengthens nobody's life.
        if matches!(issuance.inherits, None | Some(Provenance::Issued)) {
            amendment.revived = login;
            amendment.account = issuance.account;
            amendment.expires = (login || !entry.ended).then_some(expires);
        }
        self.store.amend(key, &amendment, issuance.at);
        issued
    }

    fn issue_new(&mut self, key: Key, issuance: &Issuance, expires: u64) -> Issued {
        let id = self.store.id(&key);
        let used = self.seen.peek(&id).copied();
        let first_use = used.map(|used| used.first);
        let binds = issuance.binds && issuance.inherits.is_none();
        // A use that was judged before an earlier issuance came in does not make that issuance an echo.
        if !binds && first_use.is_some_and(|first| first <= issuance.at.monotonic_ns) {
            // It may be an evicted issuance handed out again: its doubt lasts as long as its new life.
            self.evicted.prolong(id, kept_until(expires), issuance.at.monotonic_ns);
            return Issued::Echo;
        }
        let provenance = match issuance.inherits {
            None | Some(Provenance::Issued) => Provenance::Issued,
            // Exchanged for something that the sensor did not see.
            Some(Provenance::None) => Provenance::Unverifiable,
            // It may be an evicted issuance handed out again: a forged parent does not make it a forgery.
            Some(Provenance::Unissued) if self.evicted.contains(id, issuance.at.monotonic_ns) => {
                Provenance::Unverifiable
            }
            Some(inherited) => inherited,
        };
        let issue = Issue { provenance, account: issuance.account, issuer: None, expires, used: first_use.is_some() };
        if !self.keep(&key, &issue, issuance.at) {
            return Issued::Full;
        }
        if let Some(used) = used.filter(|_| binds) {
            self.sight_of_bound(issuance, used);
        }
        if issuance.inherits.is_some() { Issued::Inherited(provenance) } else { Issued::Added }
    }

    /// A bound credential was presented before it was issued: its issuance was seen all the same.
    fn sight_of_bound(&mut self, issuance: &Issuance, used: Use) {
        let issuer = self.issuers.standing_at(issuance.service, issuance.place, issuance.index);
        let Some(window) = issuer.and_then(|issuer| self.windows.get_mut(issuer.row)) else { return };
        match used.sighted {
            Sighted::Not => window.count(issuance.at, |sight| sight.seen += 1),
            Sighted::Unseen => window.correct(issuance.at),
            Sighted::Otherwise => {}
        }
    }

    /// Records an issuance that the store does not have, in another's place if there is no other; false if there is none
    /// at all: then it is as if it had been evicted at once.
    pub(super) fn keep(&mut self, key: &Key, issue: &Issue, now: Instant) -> bool {
        if self.store.insert(key, issue, now) || self.evict_for(key, issue, now) {
            return true;
        }
        self.counts.evictions += 1;
        if issue.provenance != Provenance::Unissued {
            self.evicted.insert(self.store.id(key), kept_until(issue.expires), now.monotonic_ns);
        }
        false
    }

    /// Makes room for an issuance and records it.
    pub(super) fn evict_for(&mut self, key: &Key, issue: &Issue, now: Instant) -> bool {
        let Some((id, entry)) = self.store.evict(key, now.monotonic_ns) else { return false };
        self.counts.evictions += 1;
        self.counts.tombstone_evictions += u64::from(entry.ended);
        if let Some((used, forgotten)) = forget(&mut self.evicted, &mut self.seen, id, &entry, now) {
            self.store.write_use(used, forgotten);
        }
        self.store.insert(key, issue, now)
    }

    /// Records a logout. The credential was issued and stays so; using it later is counted.
    pub fn revoke(&mut self, service: ServiceId, fingerprint: Fingerprint, at: Instant) {
        self.tidy(at);
        // A logout with a credential that the ledger does not know leaves no trace: logout spam takes no room.
        if self.store.end(&Key { service, fingerprint }, at).is_some() {
            self.counts.revoked += 1;
        } else {
            self.counts.revoked_unknown += 1;
        }
    }
}

/// Until when an issuance that ends at `expires` is remembered, monotonic ns.
pub(super) fn kept_until(expires: u64) -> u64 {
    expires.saturating_add(nanos(RETENTION_MAX))
}
