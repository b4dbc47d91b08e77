//! An issuer's sight that falls: credentials are presented whose issuance nobody saw.
//!
//! **In**: what the ledger measured over the last day ([`Sight`]), and the day before ([`Compared`]). **Out**: a fall below
//! what the operator confirmed, which is never learned as normal. It is told when the share is lower than confirmed by half
//! a percentage point and by five standard deviations of a binomial share (or of one with a hundredth unseen, if less was
//! confirmed), and when it is the issuances seen that fell.
//!
//! **What fell.** Credentials without a login lower the share, too, and whoever forges them decides how many there are. Of
//! them other rules speak, and name their accounts. Here is told what the sensor no longer sees: against the same
//! hours of the day before, so many fewer newly used credentials whose issuance was seen that they make at least half
//! of the unseen ones, five standard deviations of such a count, and a hundredth of what was seen then: days differ by more
//! than chance, and of millions of logins five deviations are less than one rainy evening.
//!
//! **What it does not see.** A part of the logins so small that a day differs from the one before by as much; a fall within
//! the first day. Then the rules over unissued credentials are the first to speak.

use super::time::Tenths;
use super::told::Told;
use crate::config::model::Config;
use crate::ledger::{Compared, Sight};
use crate::observation::{IssuerId, ServiceId};

/// Newly used credentials of a day that a share is made of.
const LEAST: u64 = 100;
/// Least fall that counts, and least deviations.
const FALL: f64 = 0.005;
const DEVIATIONS: f64 = 5.0;
/// Part of the day before that has to be missing.
const MISSING: u64 = 100;

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
    pub fn take(&mut self, of: (ServiceId, IssuerId), sight: Sight, compared: Compared, now: Tenths) -> Option<Fall> {
        let (service, issuer) = of;
        let known = self.issuers.get_mut(usize::from(service.0))?.get_mut(usize::from(issuer.0))?;
        let (Some(confirmed), told) = known else { return None };
        let credentials = sight.seen + sight.unseen;
        let observed = sight.share().filter(|_| credentials >= LEAST)?;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let deviation = ((*confirmed * (1.0 - *confirmed)).max(0.009_9) / credentials as f64).sqrt();
        let deviations = (*confirmed - observed) / deviation;
        if *confirmed - observed < FALL || deviations < DEVIATIONS || !fell(compared) {
            told.end();
            return None;
        }
        #[expect(clippy::cast_possible_truncation, reason = "a score")]
        let since = told.tell(now, deviations as f32)?;
        Some(Fall { since, observed, confirmed: *confirmed, deviations, credentials })
    }
}

/// True when issuances are no longer seen, rather than credentials without one new.
fn fell(Compared { seen, unseen, before }: Compared) -> bool {
    let missing = before.saturating_sub(seen);
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let by_chance = DEVIATIONS * ((seen + before) as f64).sqrt();
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let more = missing as f64 > by_chance;
    more && missing >= unseen / 2 && missing >= before / MISSING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::testing::config;

    const ISSUER: (ServiceId, IssuerId) = (ServiceId(0), IssuerId(0));

    /// The day before, a hundred thousand were seen.
    fn take(sights: &mut Sights, seen: u64, unseen: u64) -> Option<Fall> {
        let compared = Compared { seen, unseen, before: 105_000 };
        sights.take(ISSUER, Sight { seen, unseen, preexisting: 0 }, compared, 7)
    }

    #[test]
    fn credentials_without_a_login_are_no_fall_of_sight() {
        let mut sights = Sights::new(&config());
        let forged = Sight { seen: 100_000, unseen: 60_000, preexisting: 0 };
        let attack = Compared { seen: 100_000, unseen: 60_000, before: 100_300 };
        assert_eq!(sights.take(ISSUER, forged, attack, 7), None);
        // Two days of twenty million logins are not alike by chance alone.
        let large = Sight { seen: 19_940_000, unseen: 130_000, preexisting: 0 };
        let like_days = Compared { seen: 19_940_000, unseen: 130_000, before: 20_010_000 };
        assert_eq!(sights.take(ISSUER, large, like_days, 7), None);
        let first_day = Compared::default();
        assert_eq!(sights.take(ISSUER, forged, first_day, 7), None);
        let moved = Compared { seen: 60_000, unseen: 60_000, before: 100_300 };
        assert!(sights.take(ISSUER, forged, moved, 7).is_some());
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
        assert_eq!(sights.take((ServiceId(4), IssuerId(0)), Sight::default(), Compared::default(), 0), None);
    }
}
