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
use super::stats::LedgerStats;
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
}

/// What is asked of a credential that is not in the store.
pub struct Question<'a> {
    pub key: Key,
    pub issuer: Option<&'a Issuer>,
    /// `iat`, if it says so.
    pub iat: Option<i64>,
    pub at: Instant,
    /// Doubt that it needs is spent.
    pub spends: bool,
}

/// The parts of the ledger that decide.
pub struct Unknown<'a> {
    pub evicted: &'a Evicted,
    pub seen: &'a mut ClockMap<Use>,
    pub gaps: &'a mut Gaps,
    pub windows: &'a mut [Window],
    pub populations: &'a mut [Population],
    pub counts: &'a mut LedgerStats,
    pub horizon: &'a Horizon,
}

impl Unknown<'_> {
    /// Provenance, and bits of [`claim_anomaly`] when a budget is spent.
    pub fn judge(mut self, asked: &Question<'_>) -> (Provenance, u16) {
        let now = asked.at.monotonic_ns;
        let mut used = match self.seen.get_mut(&asked.key) {
            Some(known) => {
                known.first = known.first.min(now);
                *known
            }
            None => Use::new(now, Sighted::Not),
        };
        let (judged, changed) = self.excuse(asked, &mut used);
        if let Some(known) = self.seen.get_mut(&asked.key) {
            if changed {
                *known = used;
            }
        } else {
            self.seen.insert(asked.key, used);
        }
        judged
    }

    fn excuse(&mut self, asked: &Question<'_>, used: &mut Use) -> ((Provenance, u16), bool) {
        const DOUBT: (Provenance, u16) = (Provenance::Unverifiable, 0);
        let Some(issuer) = asked.issuer else { return (DOUBT, false) };
        if self.evicted.contains(&asked.key, asked.at.monotonic_ns) {
            self.counts.eviction_excused += 1;
            return (DOUBT, false);
        }
        let preexisting = self.horizon.may_precede(asked.iat, issuer.lifetime, asked.at);
        let sighted = self.sight(asked, issuer, used, preexisting);
        if preexisting {
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
            return (DOUBT, sighted);
        }
        let judged = match self.gaps.excuse(&asked.key, asked.iat, asked.at, issuer.lifetime, asked.spends) {
            Excuse::Given => DOUBT,
            Excuse::Spent => (Provenance::Unissued, claim_anomaly::GAP_SPENT),
            Excuse::None => (Provenance::Unissued, 0),
        };
        (judged, sighted)
    }

    /// Counts a credential once in its issuer's sight. Where logins bind sessions that visitors have before, only those
    /// that are to authenticate something count as unseen.
    fn sight(&mut self, asked: &Question<'_>, issuer: &Issuer, used: &mut Use, preexisting: bool) -> bool {
        if used.sighted != Sighted::Not || (issuer.bound && !asked.spends) {
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
