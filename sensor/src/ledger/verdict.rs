//! The two axes of a verdict, as pure functions of what is known.

use std::time::Duration;

use super::claims::{Facts, Form};
use super::issuers::{Issuer, Registered};
use super::store::Answer;
use crate::observation::{Instant, Provenance, Validity};

/// Provenance from the store's answer; `unknown` decides for a credential that is not in the ledger.
pub fn provenance(answer: &Answer, unknown: impl FnOnce() -> Provenance) -> Provenance {
    match answer {
        Answer::Known(entry) => entry.provenance,
        Answer::Unknown => unknown(),
        Answer::NotYetKnown => Provenance::Unverifiable,
    }
}

/// What is known of time when an unknown credential is judged.
#[derive(Clone, Copy, Debug)]
pub struct Horizon {
    /// Since when the ledger has watched.
    pub started: Instant,
    /// How far clocks may be off.
    pub leeway: Leeway,
}

/// How far the clocks of issuers may be off, in the units of both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Leeway {
    /// Seconds of wall clock.
    pub unix: i64,
    /// Nanoseconds of monotonic time.
    pub monotonic: u64,
}

impl From<Duration> for Leeway {
    fn from(leeway: Duration) -> Self {
        Self { unix: i64::try_from(leeway.as_secs()).unwrap_or(i64::MAX), monotonic: super::nanos(leeway) }
    }
}

impl Horizon {
    /// When the ledger has watched for longer than `lifetime` ns: from then on (monotonic ns) every living credential
    /// was issued within the horizon.
    pub fn warm_from(&self, lifetime: u64) -> u64 {
        self.started.monotonic_ns.saturating_add(lifetime).saturating_add(self.leeway.monotonic)
    }

    /// True when a credential presented at `at`, issued at `iat` if it says so, may be older than the horizon. An
    /// `iat` in the future lies within the horizon like any other.
    pub fn may_precede(&self, iat: Option<i64>, lifetime: u64, at: Instant) -> bool {
        let watched = iat.is_some_and(|iat| iat > super::seconds(self.started).saturating_add(self.leeway.unix));
        !watched && at.monotonic_ns < self.warm_from(lifetime)
    }
}

/// Validity of a credential taken for a JWT (`jwt`) or for opaque. The worst that holds is reported, in this order:
/// `malformed`, `alg_none`, `unknown_key`, `retired_key`, `expired`, `ok`; what could not be read holds nothing
/// against it.
pub fn validity(facts: &Facts, jwt: bool, issuer: Option<&Issuer>, at: Instant, leeway: Leeway) -> Validity {
    if !jwt {
        return Validity::Ok;
    }
    if matches!(facts.form, Form::NoHeader | Form::Header { broken: true }) {
        return Validity::Malformed;
    }
    if facts.alg_none {
        return Validity::AlgNone;
    }
    let now = super::seconds(at);
    if matches!(facts.form, Form::Read | Form::Header { .. }) {
        match issuer.map_or(Registered::Any, |issuer| issuer.registered(facts.kid)) {
            Registered::Unknown => return Validity::UnknownKey,
            Registered::Known(key) if key.retired.is_some_and(|retired| now >= retired) => {
                return Validity::RetiredKey;
            }
            Registered::Any | Registered::Known(_) => {}
        }
    }
    let grace = issuer.map_or(0, |issuer| issuer.expiry.grace);
    match facts.claims.exp {
        // A service whose sessions slide accepts tokens for a while after their end.
        Some(exp) if now > exp.saturating_add(leeway.unix).saturating_add(grace) => Validity::Expired,
        _ => Validity::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_is_doubt() {
        let unknown = || Provenance::Unissued;
        assert_eq!(provenance(&Answer::NotYetKnown, unknown), Provenance::Unverifiable);
        assert_eq!(provenance(&Answer::Unknown, unknown), Provenance::Unissued);
    }

    #[test]
    fn horizon_edges() {
        let at = |s: u64| Instant { monotonic_ns: s * 1_000_000_000, unix_ns: (5000 + s) * 1_000_000_000 };
        let horizon = Horizon { started: at(100), leeway: Duration::from_secs(10).into() };
        let hour = 3_600_000_000_000;
        assert!(horizon.may_precede(Some(5110), hour, at(200)));
        assert!(!horizon.may_precede(Some(5111), hour, at(200)));
        assert!(!horizon.may_precede(Some(i64::MAX), hour, at(200)));
        assert!(horizon.may_precede(Some(i64::MIN), hour, at(200)));
        assert!(horizon.may_precede(None, hour, at(3709)));
        assert!(!horizon.may_precede(None, hour, at(3710)));
        assert!(!horizon.may_precede(Some(0), hour, at(3710)));
    }
}
