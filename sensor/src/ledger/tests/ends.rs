//! When lives end, and what goes when there is no room: credentials of hours beside keys of years.

use super::*;
use crate::observation::Provenance::{Issued as Was, Unissued, Unverifiable};
use crate::observation::claim_anomaly;

/// An issuer of keys that live for a year stands beside the others.
fn beside_a_year() -> Ledger {
    beside_a_year_with_room_for(usize::MAX)
}

fn beside_a_year_with_room_for(issuances: usize) -> Ledger {
    with(|config| {
        config.ledger.max_issuances = config.ledger.max_issuances.min(issuances);
        let keys = Issuer { max_lifetime: Duration::from_hours(365 * 24), ..issuer("partner", true) };
        config.services[0].issuers.push(keys);
    })
}

/// Claims of a token of `gate` that ends `s` seconds after the start.
fn until(s: u64) -> Vec<u8> {
    let payload = format!(r#"{{"iss":"https://gate.example","exp":{}}}"#, START.unsigned_abs() + s);
    text(r#"{"alg":"RS256","kid":"k1"}"#, &payload)
}

/// Issuances left after `hours`.
fn left(ledger: &mut Ledger, hours: u64) -> usize {
    for half_hour in 0..hours * 2 {
        ledger.of("x", 1800 * half_hour);
    }
    ledger.stats().issuances
}

#[test]
fn what_a_token_says_when_it_is_handed_out_ends_it() {
    let mut ledger = beside_a_year();
    let claims = until(HOUR);
    let expires = ledger.end_of(&jwt("said", &claims), at(0));
    assert_eq!(expires, Some(at(HOUR + LEEWAY).monotonic_ns));
    assert_eq!(ledger.end_of(&jwt("said longer", &until(50 * HOUR)), at(0)), Some(at(WARM).monotonic_ns));
    ledger.issue(Issuance { expires, ..login("said", 0) });
    ledger.issue(login("silent", 0));
    assert_eq!(left(&mut ledger, 24), 2, "a tombstone");
    assert_eq!(left(&mut ledger, 29), 1);
}

#[test]
fn what_a_token_says_when_it_is_presented_ends_it() {
    let mut ledger = beside_a_year();
    let claims = until(HOUR);
    for name in ["presented", "not presented", "not read", "session"] {
        ledger.issue(login(name, 0));
    }
    assert_eq!(ledger.judge(&jwt("presented", &claims), at(60)).provenance, Was);
    ledger.judge(&Presented { claims: None, ..jwt("not read", &claims) }, at(60));
    ledger.judge(&cookie("session"), at(60));
    assert_eq!(left(&mut ledger, 24), 4);
    assert_eq!(left(&mut ledger, 30), 2, "whose token cannot be read may live for a year");
    assert_eq!(ledger.of("not read", 400), Was);
}

/// Access tokens of hours stand in `Authorization`, refresh tokens of a month anywhere, and both name one issuer.
#[test]
fn a_token_ends_by_the_longest_of_its_name_wherever_it_stands() {
    let mut ledger = with(|config| {
        config.services[0].issuers[0].places = vec![Place::Authorization];
        let month = Duration::from_hours(30 * 24);
        let refresh = Issuer { iss: Some("https://gate.example".to_owned()), ..issuer("refresh", true) };
        config.services[0].issuers.push(Issuer { max_lifetime: month, ..refresh });
    });
    let claims = until(30 * 24 * HOUR);
    let expires = ledger.end_of(&jwt("refresh", &claims), at(0));
    ledger.issue(Issuance { expires, ..login("refresh", 0) });
    for place in [place::BODY, place::AUTHORIZATION] {
        assert_eq!(ledger.judge(&Presented { place, ..jwt("refresh", &claims) }, at(60)).provenance, Was);
    }
    assert_eq!(left(&mut ledger, 5 * 24), 1);
}

#[test]
fn use_after_the_end_keeps_a_tombstone() {
    let mut ledger = beside_a_year();
    let claims = until(HOUR);
    ledger.issue(login("a", 0));
    for hour in 0..100 {
        let verdict = ledger.judge(&jwt("a", &claims), at(hour * HOUR));
        assert_eq!((verdict.provenance, verdict.validity == Validity::Expired), (Was, hour > 1), "{hour}");
    }
    assert!(ledger.stats().used_after_end > 90);
}

#[test]
fn without_room_the_dead_go_first_and_sessions_last() {
    let mut ledger = beside_a_year_with_room_for(30);
    let mut hand_out = |kind: &str, hours: u64, s: u64| {
        for n in 0..10 {
            let expires = Some(at(s + hours * HOUR).monotonic_ns);
            ledger.issue(Issuance { expires, ..login(&format!("{kind} {n}"), s) });
        }
    };
    hand_out("over", 1, 0);
    hand_out("refresh", 30 * 24, 0);
    hand_out("session", 12, 10 * HOUR);
    let (mut refresh, mut over) = (0, 0);
    for more in 0..20u64 {
        let s = 10 * HOUR + 1 + more;
        let expires = Some(at(s + 12 * HOUR).monotonic_ns);
        assert_eq!(ledger.issue(Issuance { expires, ..login(&format!("more {more}"), s) }), Issued::Added);
        let kept = |ledger: &mut Ledger, kind: &str| {
            let key = |n| Key { service: SERVICE, fingerprint: fingerprint(&format!("{kind} {n}")) };
            (0..10).filter(|n| ledger.store.find(&key(*n), at(s).monotonic_ns).is_some()).count()
        };
        (over, refresh) = (kept(&mut ledger, "over"), kept(&mut ledger, "refresh"));
        assert_eq!(kept(&mut ledger, "session"), 10);
        assert!(over == 0 || refresh == 10, "tombstones go before what lives: {over}, {refresh}");
    }
    assert_eq!((over, refresh), (0, 0));
    // Nothing that was issued is called a forgery for it.
    assert_eq!(ledger.of("refresh 3", 10 * HOUR + 60), Unverifiable);
    assert_eq!(ledger.of("over 3", 10 * HOUR + 60), Unverifiable);
}

/// An application that was not opened for days shows its old token once, is refused, and refreshes it.
#[test]
fn an_old_token_is_no_fall_of_sight() {
    let mut ledger = beside_a_year();
    let sight = |ledger: &Ledger| ledger.stats().issuers[0].sight.unseen;
    let old = until(HOUR);
    let day = 400 * 24 * HOUR;
    // Whether it was issued is no longer known: nobody is accused.
    let verdict = ledger.judge(&jwt("old", &old), at(day));
    assert_eq!((verdict.provenance, verdict.anomalies), (Unverifiable, claim_anomaly::FORGOTTEN));
    // One that ended lately would still be there.
    let late = until(day - HOUR);
    assert_eq!(ledger.judge(&jwt("late", &late), at(day)).provenance, Unissued);
    assert_eq!(sight(&ledger), 0);
    assert_eq!(ledger.of_jwt("forged", i64::try_from(day).unwrap() - 10, day), Unissued);
    assert_eq!(sight(&ledger), 1);
}
