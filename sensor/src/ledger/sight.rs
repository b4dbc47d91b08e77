//! How much of an issuer's issuing the sensor sees: the figure that an operator confirms before `observed = all`
//! takes effect, and that is watched ever after.
//!
//! Each credential counts once, when it is first presented: `seen` if its issuance is in the ledger, `unseen` if not,
//! `preexisting` (in neither) if it may be older than the horizon. What a known gap excuses counts as none of them.
//!
//! Forged tokens count as unseen too, so a fall of the share is a coverage question or an attack. Which of them shows in
//! what was seen: where logins are no longer seen, fewer credentials are used for the first time whose issuance was seen
//! than at the same hours of the day before; an attack leaves these as they were ([`Compared`]).

use crate::observation::Instant;

/// Window: this many buckets of this many nanoseconds, and as many again of the day before.
const WINDOW: u64 = 24;
const BUCKETS: usize = 48;
const BUCKET_NS: u64 = 3_600_000_000_000;

/// Newly used credentials in the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sight {
    /// Their issuance is in the ledger.
    pub seen: u64,
    /// It is not.
    pub unseen: u64,
    /// It may be older than the horizon.
    pub preexisting: u64,
}

impl Sight {
    /// Share of newly used credentials whose issuance was seen, 0–1; `None` while there were none.
    #[expect(clippy::cast_precision_loss, reason = "a share for people")]
    pub fn share(&self) -> Option<f64> {
        let all = self.seen + self.unseen;
        (all > 0).then(|| self.seen as f64 / all as f64)
    }
}

/// The whole hours of the last day that there was a day before, against that.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Newly used credentials whose issuance was seen.
    pub seen: u64,
    /// Those whose issuance was not.
    pub unseen: u64,
    /// As many as `seen` at the same hours a day earlier.
    pub before: u64,
}

/// The window of one issuer.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    buckets: [Sight; BUCKETS],
    last: u64,
    /// The first bucket that was counted in, and one.
    first: u64,
}

impl Default for Window {
    fn default() -> Self {
        Self { buckets: [Sight::default(); BUCKETS], last: 0, first: 0 }
    }
}

impl Window {
    /// The counts of the bucket that `at` falls into, to be raised.
    pub fn count(&mut self, at: Instant, raise: impl FnOnce(&mut Sight)) {
        let bucket = at.monotonic_ns / BUCKET_NS;
        for old in (self.last.saturating_add(1)..=bucket).rev().take(BUCKETS) {
            if let Some(old) = self.buckets.get_mut(place(old)) {
                *old = Sight::default();
            }
        }
        self.last = self.last.max(bucket);
        if self.first == 0 {
            self.first = self.last + 1;
        }
        // An observation that comes late counts in the newest bucket.
        if let Some(counts) = self.buckets.get_mut(place(self.last)) {
            raise(counts);
        }
    }

    /// A credential that was counted as unseen turns out to have been issued after its first use: it was bound.
    pub fn correct(&mut self, at: Instant) {
        self.count(at, |sight| sight.seen += 1);
        let newest_first = (0..WINDOW).filter_map(|back| self.last.checked_sub(back)).map(place);
        for bucket in newest_first {
            if let Some(counts) = self.buckets.get_mut(bucket).filter(|counts| counts.unseen > 0) {
                counts.unseen -= 1;
                return;
            }
        }
    }

    /// Sum over the window, as of the last count.
    pub fn sum(&self) -> Sight {
        let window = (0..WINDOW).filter_map(|back| self.buckets.get(place(self.last.checked_sub(back)?)));
        window.fold(Sight::default(), |sum, bucket| Sight {
            seen: sum.seen + bucket.seen,
            unseen: sum.unseen + bucket.unseen,
            preexisting: sum.preexisting + bucket.preexisting,
        })
    }

    /// The whole hours of the last day against those of the day before, as far as it was watched.
    pub fn compared(&self) -> Compared {
        let mut compared = Compared::default();
        for back in 1..WINDOW {
            let Some(hour) = self.last.checked_sub(back) else { break };
            // The first hour was not watched as a whole.
            let Some(earlier) = hour.checked_sub(WINDOW).filter(|earlier| *earlier >= self.first) else { break };
            let (now, before) = (self.buckets.get(place(hour)), self.buckets.get(place(earlier)));
            if let (Some(now), Some(before)) = (now, before) {
                compared.seen += now.seen;
                compared.unseen += now.unseen;
                compared.before += before.seen;
            }
        }
        compared
    }
}

fn place(bucket: u64) -> usize {
    usize::try_from(bucket % BUCKETS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_slides() {
        let mut window = Window::default();
        let hour = |n: u64| Instant { monotonic_ns: n * BUCKET_NS, unix_ns: 0 };
        assert_eq!(window.sum().share(), None);
        for n in 0..48 {
            window.count(hour(n), |sight| sight.seen += 1);
            window.count(hour(n), |sight| if n < 24 { sight.unseen += 1 } else { sight.seen += 1 });
        }
        assert_eq!(window.sum(), Sight { seen: 48, unseen: 0, preexisting: 0 });
        assert_eq!(window.sum().share(), Some(1.0));
        window.count(hour(5), |sight| sight.unseen += 1);
        assert_eq!(window.sum().unseen, 1);
        assert_eq!(window.compared(), Compared { seen: 44, unseen: 0, before: 22 });
        window.count(hour(1000), |sight| sight.preexisting += 1);
        assert_eq!(window.sum(), Sight { seen: 0, unseen: 0, preexisting: 1 });
    }
}
