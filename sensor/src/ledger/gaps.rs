//! Gaps: times in which issuances are known to have been lost, each with how many.
//!
//! A gap excuses as many distinct credentials as issuances were lost in it and no more, so that whoever floods logins
//! to make doubt, or forges `iat` into a gap, runs into the budget.

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
}

impl Gaps {
    pub fn new(services: usize, leeway: Leeway) -> Self {
        Self { services: vec![Vec::new(); services], leeway, lost: 0, excused: 0 }
    }

    /// Records that `lost` issuances of `service` were lost between `from` and `to`. Gaps older than `keep` ns before
    /// `to` are dropped.
    pub fn add(&mut self, service: ServiceId, from: Instant, to: Instant, lost: u64, keep: u64) {
        let Some(gaps) = self.services.get_mut(usize::from(service.0)) else { return };
        if lost == 0 {
            return;
        }
        self.lost = self.lost.saturating_add(lost);
        gaps.retain(|gap| gap.to_monotonic.saturating_add(keep) >= to.monotonic_ns);
        let (from_unix, to_unix) = (super::seconds(from), super::seconds(to));
        let added = Gap { from_unix, to_unix, to_monotonic: to.monotonic_ns, left: lost };
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
    }

    /// The gaps of `service`: first and last moment, ns since 1970, and what is left of the budget.
    pub fn of(&self, service: ServiceId) -> impl Iterator<Item = (u64, u64, u64)> {
        let gaps = self.services.get(usize::from(service.0)).into_iter().flatten();
        let nanos = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000_000_000);
        gaps.map(move |gap| (nanos(gap.from_unix), nanos(gap.to_unix), gap.left))
    }

    /// Takes over a gap of an earlier run.
    pub fn restore(&mut self, service: ServiceId, from: Instant, to: Instant, left: u64) {
        let lost = self.lost;
        self.add(service, from, to, left, u64::MAX);
        self.lost = lost;
    }

    /// True when a gap may have lost the issuance of a credential presented at `at`, issued at `iat` if it says so,
    /// of an issuer whose credentials live for at most `lifetime` ns. Takes one from the gap's budget.
    pub fn excuse(&mut self, service: ServiceId, iat: Option<i64>, at: Instant, lifetime: u64) -> bool {
        let leeway = self.leeway;
        let Some(gaps) = self.services.get_mut(usize::from(service.0)) else { return false };
        let covers = |gap: &&mut Gap| {
            gap.left > 0
                && match iat {
                    Some(iat) => {
                        iat >= gap.from_unix.saturating_sub(leeway.unix)
                            && iat <= gap.to_unix.saturating_add(leeway.unix)
                    }
                    None => {
                        gap.to_monotonic.saturating_add(lifetime).saturating_add(leeway.monotonic) >= at.monotonic_ns
                    }
                }
        };
        let Some(gap) = gaps.iter_mut().find(covers) else { return false };
        gap.left -= 1;
        self.excused += 1;
        true
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

    #[test]
    fn covers_its_time_and_its_count() {
        let mut gaps = Gaps::new(1, Duration::from_secs(10).into());
        gaps.add(SERVICE, at(100), at(110), 2, u64::MAX);
        let mut excuse = |iat| gaps.excuse(SERVICE, iat, at(200), 1000);
        assert!(!excuse(Some(1_000_089)));
        assert!(!excuse(Some(1_000_121)));
        assert!(excuse(Some(1_000_090)));
        assert!(excuse(Some(1_000_120)));
        assert!(!excuse(Some(1_000_105)), "budget");
        assert_eq!((gaps.excused, gaps.lost), (2, 2));
    }

    #[test]
    fn opaque_credentials_outlive_a_gap_by_their_lifetime() {
        let mut gaps = Gaps::new(1, Duration::from_secs(10).into());
        gaps.add(SERVICE, at(100), at(110), 9, u64::MAX);
        assert!(gaps.excuse(SERVICE, None, at(220), 100_000_000_000));
        assert!(!gaps.excuse(SERVICE, None, at(221), 100_000_000_000));
    }

    #[test]
    fn merging_keeps_the_sum_and_the_bound() {
        let mut gaps = Gaps::new(1, Duration::ZERO.into());
        for n in 0..1000 {
            gaps.add(SERVICE, at(n * 10), at(n * 10 + 1), 1, u64::MAX);
        }
        assert_eq!(gaps.left(), (GAPS_MAX, 1000));
        assert!(gaps.excuse(SERVICE, Some(1_000_000), at(0), 0), "the oldest is still covered");
        gaps.add(ServiceId(9), at(0), at(1), 1, 0);
        gaps.add(SERVICE, at(1), at(2), 0, 0);
        assert_eq!(gaps.lost, 1000, "no such service, nothing lost");
    }
}
