//! The two axes of a verdict, as pure functions of what is known.

use std::time::Duration;

use super::facts::{Facts, Form};
use super::issuers::{Issuer, Registered};
use super::store::Answer;
use crate::observation::{Instant, Provenance, ServiceId, Validity};

/// Provenance from the store's answer; `unknown` decides for a credential that is not in the ledger.
pub fn provenance(answer: &Answer, unknown: impl FnOnce() -> Provenance) -> Provenance {
    match answer {
        Answer::Known(entry) => entry.provenance,
        Answer::Unknown => unknown(),
        Answer::NotYetKnown => Provenance::Unverifiable,
    }
}

/// What is known of time when an unknown credential is judged.
#[derive(Clone, Debug)]
pub struct Horizon {
    /// Since when this process has watched.
    pub started: Instant,
    /// How far clocks may be off.
    pub leeway: Leeway,
    /// By service: for how long its issuances had been watched before that, ns. (Times without sight are gaps.)
    pub before: Vec<u64>,
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
    /// When the ledger has watched `service` for longer than `lifetime` ns: from then on (monotonic ns) every living
    /// credential was issued within the horizon.
    pub fn warm_from(&self, service: ServiceId, lifetime: u64) -> u64 {
        let watched = self.started.monotonic_ns.saturating_add(lifetime).saturating_add(self.leeway.monotonic);
        watched.saturating_sub(self.watched_before(service))
    }

    /// Since when `service` has been watched, ns since 1970.
    pub fn since_unix_ns(&self, service: ServiceId) -> u64 {
        self.started.unix_ns.saturating_sub(self.watched_before(service))
    }

    fn watched_before(&self, service: ServiceId) -> u64 {
        self.before.get(usize::from(service.0)).copied().unwrap_or(0)
    }

    /// True when a credential of `service` presented at `at`, issued at `iat` if it says so, may be older than the
    /// horizon. An `iat` in the future lies within the horizon like any other.
    pub fn may_precede(&self, service: ServiceId, iat: Option<i64>, lifetime: u64, at: Instant) -> bool {
        let since = super::unix_seconds(self.since_unix_ns(service));
        let watched = iat.is_some_and(|iat| iat > since.saturating_add(self.leeway.unix));
        !watched && at.monotonic_ns < self.warm_from(service, lifetime)
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
        let mut horizon = Horizon { started: at(100), leeway: Duration::from_secs(10).into(), before: vec![0] };
        let service = ServiceId(0);
        let hour = 3_600_000_000_000;
        assert!(horizon.may_precede(service, Some(5110), hour, at(200)));
        assert!(!horizon.may_precede(service, Some(5111), hour, at(200)));
        assert!(!horizon.may_precede(service, Some(i64::MAX), hour, at(200)));
        assert!(horizon.may_precede(service, Some(i64::MIN), hour, at(200)));
        assert!(horizon.may_precede(service, None, hour, at(3709)));
        assert!(!horizon.may_precede(service, None, hour, at(3710)));
        assert!(!horizon.may_precede(service, Some(0), hour, at(3710)));
        // Watched for half an hour by an earlier run.
        horizon.before[0] = hour / 2;
        assert!(horizon.may_precede(service, Some(3310), hour, at(200)));
        assert!(!horizon.may_precede(service, Some(3311), hour, at(200)));
        assert!(horizon.may_precede(service, None, hour, at(1909)));
        assert!(!horizon.may_precede(service, None, hour, at(1910)));
        assert!(horizon.may_precede(ServiceId(1), None, hour, at(3709)), "a service that is new");
    }
}
