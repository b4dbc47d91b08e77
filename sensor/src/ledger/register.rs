//! What is odd about a token: its claims against the register of keys, combinations and lifetimes, and against the clock.
//!
//! Pure functions of facts, issuer and time; each gives what an observation carries.

use super::facts::{Facts, Form};
use super::issuers::{Issuer, Issuers, Registered};
use super::verdict::Leeway;
use crate::observation::{Claims, Instant, claim_anomaly as odd};

/// The claims of a credential at the time of its use, and bits of [`claim_anomaly`](crate::observation::claim_anomaly).
pub fn examine(
    facts: &Facts,
    issuer: Option<&Issuer>,
    issuers: &Issuers,
    at: Instant,
    leeway: Leeway,
) -> (Claims, u16) {
    let now = super::seconds(at);
    let mut claims = facts.claims;
    claims.age_s = claims.iat.map(|iat| now.saturating_sub(iat));
    claims.lifetime_s = claims.iat.zip(claims.exp).map(|(iat, exp)| exp.saturating_sub(iat));
    if matches!(facts.form, Form::Opaque | Form::NoHeader | Form::Unread) {
        return (claims, 0);
    }
    let mut bits = 0;
    let mut note = |holds: bool, bit: u16| bits |= if holds { bit } else { 0 };
    let late = |date: Option<i64>| date.is_some_and(|date| date > now.saturating_add(leeway.unix));
    note(late(claims.iat), odd::IAT_FUTURE);
    note(late(claims.nbf), odd::NBF_FUTURE);
    let Some(issuer) = issuer.filter(|issuer| issuer.jwt) else { return (claims, bits) };
    let longest = i64::try_from(issuer.lifetime / super::SECOND).unwrap_or(i64::MAX).saturating_add(leeway.unix);
    let length = claims.lifetime_s.or(claims.exp.map(|exp| exp.saturating_sub(now)));
    note(length.is_some_and(|length| length > longest), odd::OVERLONG);
    let read = facts.form == Form::Read;
    note(read && issuer.expiry.always && claims.exp.is_none(), odd::OVERLONG);
    note(read && !issuer.combines(facts), odd::COMBINATION);
    match issuer.registered(facts.kid) {
        Registered::Any => {}
        Registered::Unknown => {
            note(true, odd::KEY_UNKNOWN);
            note(read && issuers.registered_elsewhere(facts.kid, claims.iss), odd::COMBINATION);
        }
        Registered::Known(key) => {
            let past = |date: Option<i64>| date.is_some_and(|date| now >= date);
            let young = |iat: i64| key.created.is_some_and(|created| iat < created.saturating_sub(leeway.unix));
            note(past(key.retired), odd::KEY_RETIRED);
            note(past(key.owner_left), odd::KEY_OWNER_LEFT);
            note(claims.iat.is_some_and(young), odd::IAT_BEFORE_KEY);
            claims.key_retired_s = key.retired.filter(|retired| now >= *retired).map(|retired| now - retired);
        }
    }
    (claims, bits)
}
