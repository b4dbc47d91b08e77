//! An issuer's sight that falls: credentials are presented whose issuance nobody saw.
//!
//! **In**: what the ledger measured over the last day ([`Sight`]). **Out**: a fall below what the operator confirmed, which
//! is never learned as normal. It is told when the share is lower than confirmed by half a percentage point and by five
//! standard deviations of a binomial share (or of one with a hundredth unseen, if less was confirmed).

use super::time::Tenths;
use super::told::Told;
use crate::config::model::Config;
use crate::ledger::Sight;
use crate::observation::{IssuerId, ServiceId};

/// Newly used credentials of a day that a share is made of.
const LEAST: u64 = 100;
/// Least fall that counts, and least deviations.
const FALL: f64 = 0.005;
const DEVIATIONS: f64 = 5.0;

/// What was confirmed, by service and issuer.
#[derive(Debug)]
pub(super) struct Sights {
    issuers: Vec<Vec<(Option<f64>, Told)>>,
}

/// A fall.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Fall {
    pub since: Tenths,
    /// Shares.
    pub observed: f64,
    pub confirmed: f64,
    /// How many standard deviations lie between them.
    pub deviations: f64,
    /// Newly used credentials of the last day.
    pub credentials: u64,
}

impl Sights {
    /// Of the issuers that count.
    pub fn new(config: &Config) -> Self {
        let issuers = config.services.iter().map(|service| {
            let confirmed = service.issuers.iter().map(|issuer| {
                let sight = issuer.confirmed.as_ref().filter(|_| issuer.accountable()).map(|confirmed| confirmed.sight);
                (sight, Told::default())
            });
            confirmed.collect()
        });
        Self { issuers: issuers.collect() }
    }

    /// What was told, by service and issuer.
    pub fn progress(&self) -> Vec<Vec<Told>> {
        self.issuers.iter().map(|issuers| issuers.iter().map(|(_, told)| *told).collect()).collect()
    }

    /// Takes up what was told, of the same services and issuers.
    pub fn resume(&mut self, progress: &[Vec<Told>]) {
        for ((_, told), known) in self.issuers.iter_mut().flatten().zip(progress.iter().flatten()) {
            *told = *known;
        }
    }

    /// Takes the latest measurement of an issuer.
    pub fn take(&mut self, service: ServiceId, issuer: IssuerId, sight: Sight, now: Tenths) -> Option<Fall> {
        let known = self.issuers.get_mut(usize::from(service.0))?.get_mut(usize::from(issuer.0))?;
        let (Some(confirmed), told) = known else { return None };
        let credentials = sight.seen + sight.unseen;
        let observed = sight.share().filter(|_| credentials >= LEAST)?;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let deviation = ((*confirmed * (1.0 - *confirmed)).max(0.009_9) / credentials as f64).sqrt();
        let deviations = (*confirmed - observed) / deviation;
        if *confirmed - observed < FALL || deviations < DEVIATIONS {
            told.end();
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a score")]
        let since = told.tell(now, deviations as f32)?;
        Some(Fall { since, observed, confirmed: *confirmed, deviations, credentials })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::testing::config;

    fn take(sights: &mut Sights, seen: u64, unseen: u64) -> Option<Fall> {
        sights.take(ServiceId(0), IssuerId(0), Sight { seen, unseen, preexisting: 0 }, 7)
    }

    #[test]
    fn a_fall_is_told_once() {
        let mut sights = Sights::new(&config());
        assert_eq!(take(&mut sights, 99_900, 100), None, "as confirmed");
        assert_eq!(take(&mut sights, 99_600, 400), None, "less than half a point");
        assert_eq!(take(&mut sights, 97, 3), None, "three of a hundred may be chance");
        let fall = take(&mut sights, 98_000, 2_000).unwrap();
        assert!((fall.observed - 0.98).abs() < 1e-9 && fall.deviations > 50.0, "{fall:?}");
        assert_eq!(take(&mut sights, 98_000, 2_000), None, "told");
        assert!(take(&mut sights, 95_000, 5_000).is_some(), "doubled");
        assert_eq!(take(&mut sights, 99_900, 100), None);
        assert!(take(&mut sights, 98_000, 2_000).is_some(), "again");
    }

    #[test]
    fn what_nobody_confirmed_cannot_fall() {
        let mut config = config();
        config.services[0].issuers[0].confirmed = None;
        let mut sights = Sights::new(&config);
        assert_eq!(take(&mut sights, 100, 10_000), None);
        assert_eq!(sights.take(ServiceId(4), IssuerId(0), Sight::default(), 0), None);
    }
}
