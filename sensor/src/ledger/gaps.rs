//! Gaps: times in which issuances are known to have been lost, each with how many.
//!
//! A gap excuses as many distinct credentials as issuances were lost in it and no more, so that whoever floods logins
//! to make doubt, or forges `iat` into a gap, runs into the budget.

use super::store::Id;
use super::table::ClockMap;
use super::verdict::Leeway;
use crate::observation::{Instant, ServiceId};

/// Gaps kept apart for each service; beyond it the two oldest become one (which only adds doubt).
const GAPS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Gap {
    from_unix: i64,
    to_unix: i64,
    to_monotonic: u64,
    left: u64,
}

/// The gaps of all services.
#[derive(Debug)]
pub struct Gaps {
    services: Vec<Vec<Gap>>,
    leeway: Leeway,
    /// Issuances reported lost.
    pub lost: u64,
    /// Distinct credentials excused.
    pub excused: u64,
    /// Judgements that excused one.
    pub excuses: u64,
    /// Credentials judged `unissued` although a gap covers them: its budget is spent.
    pub refused: u64,
    /// Who was excused; apart from all others that are presented, so that no flood of these makes one pay twice.
    given: ClockMap<(), Id>,
}

/// What gaps say of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excuse {
    /// No gap covers it.
    None,
    /// One does, and its budget is spent.
    Spent,
    /// Its issuance may have been lost.
    Given,
}

impl Gaps {
    /// None yet; at most `remembered` excused credentials are remembered.
    pub fn new(services: usize, leeway: Leeway, remembered: usize) -> Self {
        let given = ClockMap::new(remembered);
        Self { services: vec![Vec::new(); services], leeway, lost: 0, excused: 0, excuses: 0, refused: 0, given }
    }

    /// Records that `lost` issuances of `service` were lost between `from` and `to`. Gaps older than `keep` ns before
    /// `to` are dropped.
    pub fn add(&mut self, service: ServiceId, from: Instant, to: Instant, lost: u64, keep: u64) {
        if lost > 0 && self.keep(service, from, to, lost, keep) {
            self.lost = self.lost.saturating_add(lost);
        }
    }

    /// False if there is no such service.
    fn keep(&mut self, service: ServiceId, from: Instant, to: Instant, left: u64, keep: u64) -> bool {
        let Some(gaps) = self.services.get_mut(usize::from(service.0)) else { return false };
        gaps.retain(|gap| gap.to_monotonic.saturating_add(keep) >= to.monotonic_ns);
        let (from_unix, to_unix) = (super::seconds(from), super::seconds(to));
        let added = Gap { from_unix, to_unix, to_monotonic: to.monotonic_ns, left };
        // A steady trickle of losses is one gap.
        match gaps.last_mut() {
            Some(newest) if from_unix <= newest.to_unix.saturating_add(self.leeway.unix) => newest.join(&added),
            _ => gaps.push(added),
        }
        if gaps.len() > GAPS_MAX {
            let oldest = gaps.remove(0);
            if let Some(next) = gaps.first_mut() {
                next.join(&oldest);
            }
        }
        true
    }

    /// The gaps of `service`: first and last moment, ns since 1970, and what is left of the budget.
    pub fn of(&self, service: ServiceId) -> impl Iterator<Item = (u64, u64, u64)> {
        let gaps = self.services.get(usize::from(service.0)).into_iter().flatten();
        let nanos = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
        gaps.map(move |gap| (nanos(gap.from_unix), nanos(gap.to_unix), gap.left))
    }

    /// Takes over a gap of an earlier run; one whose budget is spent, too, so that what claims to come from it still shows
    /// as beyond it.
    pub fn restore(&mut self, service: ServiceId, from: Instant, to: Instant, left: u64) {
        self.keep(service, from, to, left, u64::MAX);
    }

    /// Takes over that an earlier run excused `id`.
    pub fn restore_given(&mut self, id: Id) {
        self.pass_on(id);
    }

    /// Whether a gap may have lost the issuance of a credential presented at `at`, issued at `iat` if it says so, of an
    /// issuer whose credentials live for at most `lifetime` ns. With `spends` a new one takes one from the gap's budget.
    pub fn excuse(
        &mut self,
        service: ServiceId,
        id: Id,
        iat: Option<i64>,
        at: Instant,
        lifetime: u64,
        spends: bool,
    ) -> Excuse {
        let leeway = self.leeway;
        let Some(gaps) = self.services.get_mut(usize::from(service.0)) else { return Excuse::None };
        if self.given.len() > 0 && self.given.get_mut(&id).is_some() {
            return Excuse::Given;
        }
        if gaps.is_empty() {
            return Excuse::None;
        }
        let covers = |gap: &Gap| match iat {
            Some(iat) => {
                iat >= gap.from_unix.saturating_sub(leeway.unix) && iat <= gap.to_unix.saturating_add(leeway.unix)
            }
            None => gap.to_monotonic.saturating_add(lifetime).saturating_add(leeway.monotonic) >= at.monotonic_ns,
        };
        let Some(gap) = gaps.iter_mut().find(|gap| gap.left > 0 && covers(gap)) else {
            let spent = gaps.iter().any(covers);
            self.refused += u64::from(spent && spends);
            return if spent { Excuse::Spent } else { Excuse::None };
        };
        if spends {
            gap.left -= 1;
            self.excused += 1;
            self.given.insert(id, ());
        }
        Excuse::Given
    }

    /// Remembers that `id` was excused by something else, for good.
    pub fn give(&mut self, id: Id) {
        self.excused += 1;
        self.given.insert(id, ());
    }

    /// Takes over for `id` what excused the credential that it was exchanged for.
    pub fn pass_on(&mut self, id: Id) {
        if self.given.get_mut(&id).is_none() {
            self.given.insert(id, ());
        }
    }

    /// Whether `id` was excused.
    pub fn is_excused(&mut self, id: Id) -> bool {
        self.given.get_mut(&id).is_some()
    }

    /// Gaps kept, and what is left of their budgets.
    pub fn left(&self) -> (usize, u64) {
        let gaps = self.services.iter().flatten();
        (gaps.clone().count(), gaps.fold(0, |sum, gap| sum.saturating_add(gap.left)))
    }
}

impl Gap {
    fn join(&mut self, other: &Self) {
        self.from_unix = self.from_unix.min(other.from_unix);
        self.to_unix = self.to_unix.max(other.to_unix);
        self.to_monotonic = self.to_monotonic.max(other.to_monotonic);
        self.left = self.left.saturating_add(other.left);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SERVICE: ServiceId = ServiceId(0);

    fn at(s: u64) -> Instant {
        Instant { monotonic_ns: s * 1_000_000_000, unix_ns: (1_000_000 + s) * 1_000_000_000 }
    }

    fn id(n: u8) -> Id {
        Id(u64::from_be_bytes([n; 8]))
    }

    fn gaps(leeway: u64) -> Gaps {
        Gaps::new(1, Duration::from_secs(leeway).into(), 100)
    }

    #[test]
    fn covers_its_time_and_its_count() {
        let mut gaps = gaps(10);
        gaps.add(SERVICE, at(100), at(110), 2, u64::MAX);
        let mut excuse = |n, iat| gaps.excuse(SERVICE, id(n), Some(iat), at(200), 1000, true);
        assert_eq!(excuse(1, 1_000_089), Excuse::None);
        assert_eq!(excuse(2, 1_000_121), Excuse::None);
        assert_eq!(excuse(3, 1_000_090), Excuse::Given);
        assert_eq!(excuse(4, 1_000_120), Excuse::Given);
        assert_eq!(excuse(5, 1_000_105), Excuse::Spent);
        assert_eq!(excuse(3, 1_000_090), Excuse::Given, "the same one again");
        assert_eq!((gaps.excused, gaps.lost, gaps.refused), (2, 2, 1));
    }

    #[test]
    fn a_gap_that_is_spent_is_known_after_a_restart() {
        let mut gaps = gaps(10);
        gaps.restore(SERVICE, at(100), at(110), 0);
        assert_eq!(gaps.excuse(SERVICE, id(1), Some(1_000_105), at(200), 1000, true), Excuse::Spent);
        assert_eq!((gaps.lost, gaps.left()), (0, (1, 0)));
    }

    #[test]
    fn what_spends_nothing_leaves_the_budget() {
        let mut gaps = gaps(10);
        gaps.add(SERVICE, at(100), at(110), 1, u64::MAX);
        for n in 0..50 {
            assert_eq!(gaps.excuse(SERVICE, id(n), None, at(120), u64::MAX, false), Excuse::Given);
        }
        assert_eq!(gaps.excuse(SERVICE, id(60), None, at(120), u64::MAX, true), Excuse::Given);
        assert_eq!(gaps.excuse(SERVICE, id(61), None, at(120), u64::MAX, false), Excuse::Spent);
        assert_eq!((gaps.excused, gaps.refused), (1, 0));
    }

    #[test]
    fn opaque_credentials_outlive_a_gap_by_their_lifetime() {
        let mut gaps = gaps(10);
        gaps.add(SERVICE, at(100), at(110), 9, u64::MAX);
        assert_eq!(gaps.excuse(SERVICE, id(1), None, at(220), 100_000_000_000, true), Excuse::Given);
        assert_eq!(gaps.excuse(SERVICE, id(2), None, at(221), 100_000_000_000, true), Excuse::None);
    }

    #[test]
    fn merging_keeps_the_sum_and_the_bound() {
        let mut gaps = gaps(0);
        for n in 0..1000 {
            gaps.add(SERVICE, at(n * 10), at(n * 10 + 1), 1, u64::MAX);
        }
        assert_eq!(gaps.left(), (GAPS_MAX, 1000));
        let oldest = gaps.excuse(SERVICE, id(1), Some(1_000_000), at(0), 0, true);
        assert_eq!(oldest, Excuse::Given, "the oldest is still covered");
        gaps.add(ServiceId(9), at(0), at(1), 1, 0);
        gaps.add(SERVICE, at(1), at(2), 0, 0);
        assert_eq!(gaps.lost, 1000, "no such service, nothing lost");
    }
}
