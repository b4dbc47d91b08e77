//! Judging a credential that is not in the store: what may excuse it, and what that costs.
//!
//! Owns the memory of presented credentials that no issuance is known of. Every kind of doubt has a budget of distinct
//! credentials: a gap that of the issuances lost in it, the horizon that of the credentials that were alive before it.
//! Budgets are spent only where doubt matters ([`Presented::spends`](super::Presented)): a visitor's session cookie on
//! a product page uses up nothing that a member needs.

use super::evicted::Evicted;
use super::gaps::{Excuse, Gaps};
use super::issuers::Issuer;
use super::population::Population;
use super::sight::Window;
use super::sources::Sources;
use super::stats::LedgerStats;
use super::store::{Id, SavedUse, Store};
use super::table::{ClockMap, Key};
use super::verdict::Horizon;
use crate::observation::{Instant, Provenance, claim_anomaly};

/// A presented credential that is not in the store.
#[derive(Clone, Copy, Debug)]
pub struct Use {
    /// When it was first presented, monotonic ns.
    pub first: u64,
    /// How it was counted in its issuer's sight.
    pub sighted: Sighted,
    /// Whether it was taken for older than the horizon.
    admission: Admission,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Admission {
    /// Nobody asked yet.
    Open,
    /// Yes, within the budget.
    Given,
    /// No: the budget was spent.
    Refused,
}

/// How a presented credential was counted in its issuer's sight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sighted {
    /// Not yet.
    Not,
    /// As one whose issuance was not seen.
    Unseen,
    /// As another.
    Otherwise,
}

impl Use {
    /// First presented at monotonic time `first`.
    pub fn new(first: u64, sighted: Sighted) -> Self {
        Self { first, sighted, admission: Admission::Open }
    }

    /// As it is written down; `given` if a gap excuses it from now on.
    pub fn saved(self, id: Id, given: bool, at: Instant) -> SavedUse {
        let sighted = match self.sighted {
            Sighted::Not => 0,
            Sighted::Unseen => 1,
            Sighted::Otherwise => 2,
        };
        let admission = match self.admission {
            Admission::Open => 0,
            Admission::Given => 1,
            Admission::Refused => 2,
        };
        let first_unix_ns = at.moved_to(self.first).unix_ns;
        SavedUse { bits: id.0, first_unix_ns, state: sighted | admission << 2 | u8::from(given) << 4 }
    }

    /// A use that was written down, and whether a gap excuses it. `now` is this moment.
    pub fn restored(saved: SavedUse, now: Instant) -> (Self, bool) {
        let sighted = match saved.state & 3 {
            0 => Sighted::Not,
            1 => Sighted::Unseen,
            _ => Sighted::Otherwise,
        };
        let admission = match saved.state >> 2 & 3 {
            0 => Admission::Open,
            1 => Admission::Given,
            _ => Admission::Refused,
        };
        let first = now.back_to(saved.first_unix_ns).monotonic_ns;
        (Self { first, sighted, admission }, saved.state & 1 << 4 != 0)
    }
}

/// What is asked of a credential that is not in the store.
pub struct Question<'a> {
    pub key: Key,
    pub id: Id,
    pub issuer: Option<&'a Issuer>,
    /// `iat`, if it says so.
    pub iat: Option<i64>,
    /// It is past its `exp`.
    pub expired: bool,
    /// It has been for longer than issuances are remembered.
    pub forgotten: bool,
    pub at: Instant,
    /// Doubt that it needs is spent.
    pub spends: bool,
}

/// The parts of the ledger that decide.
pub struct Unknown<'a> {
    pub store: &'a mut Store,
    pub evicted: &'a Evicted,
    pub seen: &'a mut ClockMap<Use, Id>,
    pub gaps: &'a mut Gaps,
    pub sources: &'a mut Sources,
    pub windows: &'a mut [Window],
    pub populations: &'a mut [Population],
    pub counts: &'a mut LedgerStats,
    pub horizon: &'a Horizon,
}

impl Unknown<'_> {
    /// Provenance, and bits of [`claim_anomaly`] when a budget is spent.
    pub fn judge(mut self, asked: &Question<'_>) -> (Provenance, u16) {
        let now = asked.at.monotonic_ns;
        let mut used = match self.seen.get_mut(&asked.id) {
            Some(known) => {
                known.first = known.first.min(now);
                *known
            }
            None => Use::new(now, Sighted::Not),
        };
        let excused = self.gaps.excused;
        let (judged, changed) = self.excuse(asked, &mut used);
        let mut forgotten = None;
        let mut fresh = false;
        if let Some(known) = self.seen.get_mut(&asked.id) {
            if changed {
                *known = used;
            }
        } else {
            forgotten = self.seen.insert(asked.id, used);
            fresh = true;
        }
        // A restart must neither forget that it was presented nor make anything pay twice.
        let given = self.gaps.excused > excused;
        if fresh || changed || given {
            self.store.write_use(used.saved(asked.id, given, asked.at), forgotten);
        }
        judged
    }

    fn excuse(&mut self, asked: &Question<'_>, used: &mut Use) -> ((Provenance, u16), bool) {
        const DOUBT: (Provenance, u16) = (Provenance::Unverifiable, 0);
        let Some(issuer) = asked.issuer else { return (DOUBT, false) };
        // Its tombstone would have gone by now: an application shows it once more, or a browser beside a newer one.
        if asked.forgotten {
            return ((Provenance::Unverifiable, claim_anomaly::FORGOTTEN), false);
        }
        if self.evicted.contains(asked.id, asked.at.monotonic_ns) {
            self.counts.eviction_excused += 1;
            return (DOUBT, false);
        }
        if self.horizon.may_precede(asked.key.service, asked.iat, issuer.lifetime, asked.at) {
            let sighted = self.sight(asked, issuer, used, true);
            let (admitted, changed) = self.admit(asked, issuer, used);
            if !issuer.accountable {
                return (DOUBT, sighted | changed);
            }
            if admitted {
                self.counts.preexisting += 1;
                return ((Provenance::Preexisting, 0), sighted | changed);
            }
            return ((Provenance::Unverifiable, claim_anomaly::HORIZON_SPENT), sighted | changed);
        }
        if !issuer.accountable {
            return (DOUBT, self.sight(asked, issuer, used, false));
        }
        let key = &asked.key;
        match self.gaps.excuse(key.service, asked.id, asked.iat, asked.at, issuer.lifetime, asked.spends) {
            // A loss that is known is no fall of sight.
            Excuse::Given => {
                self.gaps.excuses += 1;
                let fresh = used.sighted == Sighted::Not;
                if fresh {
                    used.sighted = Sighted::Otherwise;
                }
                ((Provenance::Unverifiable, claim_anomaly::EXCUSED), fresh)
            }
            beyond => {
                let sighted = self.sight(asked, issuer, used, false);
                if self.sources.excuses(key.service, asked.iat, used.first, asked.at, asked.spends) {
                    if asked.spends {
                        self.gaps.give(asked.id);
                    }
                    return ((Provenance::Unverifiable, claim_anomaly::EXCUSED), sighted);
                }
                let spent = if beyond == Excuse::Spent { claim_anomaly::GAP_SPENT } else { 0 };
                ((Provenance::Unissued, spent), sighted)
            }
        }
    }

    /// Counts a credential once in its issuer's sight; not one that is over, which an application presents after days
    /// to learn that it has to refresh it, and which the ledger need not remember. Where logins bind sessions that
    /// visitors have before, only those that are to authenticate something count as unseen.
    fn sight(&mut self, asked: &Question<'_>, issuer: &Issuer, used: &mut Use, preexisting: bool) -> bool {
        if used.sighted != Sighted::Not || asked.expired || (issuer.bound && !asked.spends) {
            return false;
        }
        used.sighted = if preexisting { Sighted::Otherwise } else { Sighted::Unseen };
        if let Some(window) = self.windows.get_mut(issuer.row) {
            window.count(asked.at, |sight| if preexisting { sight.preexisting += 1 } else { sight.unseen += 1 });
        }
        true
    }

    /// Whether a credential that may be older than the horizon is taken for that, and whether that is new.
    fn admit(&mut self, asked: &Question<'_>, issuer: &Issuer, used: &mut Use) -> (bool, bool) {
        let Some(population) = self.populations.get_mut(issuer.row) else { return (false, false) };
        if used.admission != Admission::Open {
            return (used.admission == Admission::Given, false);
        }
        if !asked.spends {
            return (population.has_room(), false);
        }
        population.count(&asked.key);
        let admitted = population.within();
        population.exceeded += u64::from(!admitted);
        used.admission = if admitted { Admission::Given } else { Admission::Refused };
        (admitted, true)
    }
}
