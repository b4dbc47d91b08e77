//! Issuances that an issuer tells of itself: late, twice, for others, and after an exchange that the sensor saw.

use super::*;
use Provenance::{Issued as Was, Unissued, Unverifiable};

const GATE: IssuerId = IssuerId(0);
const SESSION: IssuerId = IssuerId(1);

/// By issuer `issuer`, at `s` seconds by its clock.
fn told(name: &str, issuer: IssuerId, s: u64) -> Told {
    Told {
        service: SERVICE,
        issuer,
        fingerprint: fingerprint(name),
        at: at(s),
        expires: None,
        account: None,
        parent: None,
    }
}

/// Two token issuers, a session issuer between them.
fn ledger_of_two(change: impl FnOnce(&mut Config)) -> Ledger {
    with(|config| {
        config.services[0].issuers.push(issuer("other", true));
        change(config);
    })
}

fn other(s: i64) -> Vec<u8> {
    text(
        r#"{"alg":"RS256","kid":"o1"}"#,
        &format!(r#"{{"iss":"https://other.example","sub":"17","iat":{}}}"#, START + s),
    )
}

#[test]
fn what_is_told_is_issued_with_its_account_and_telling_it_twice_changes_nothing() {
    let mut ledger = ledger();
    let account = ledger.hash_account(b"17");
    let one = Told { account: Some(account), ..told("a", SESSION, 10) };
    assert_eq!(ledger.told(&one, at(11)), Issued::Added);
    assert_eq!(ledger.told(&one, at(12)), Issued::Known);
    let verdict = ledger.judge(&cookie("a"), at(20));
    assert_eq!((verdict.provenance, verdict.account), (Was, Some(account)));
    assert_eq!(ledger.told(&told("t", GATE, 10), at(11)), Issued::Added);
    assert_eq!(ledger.of_jwt("t", 10, 20), Was);
    let stats = ledger.stats();
    assert_eq!((stats.added, stats.known, stats.issuers[1].sight.seen), (2, 1, 1));
    // Known for good: it is still issued, and used after its end, when its life is over.
    assert_eq!(ledger.of("a", WARM + LIFETIME), Was);
    assert_eq!(ledger.stats().used_after_end, 1);
}

#[test]
fn a_stated_end_is_kept_but_no_later_than_the_longest_lifetime() {
    let mut ledger = ledger();
    let short = Told { expires: Some(at(100).monotonic_ns), ..told("short", SESSION, 10) };
    let long = Told { expires: Some(u64::MAX), ..told("long", SESSION, 10) };
    ledger.told(&short, at(10));
    ledger.told(&long, at(10));
    // The store's clock is coarse; an end is noticed late, never early.
    let mut after_end = |name: &str, s: u64| {
        let before = ledger.stats().used_after_end;
        assert_eq!(ledger.of(name, s), Was);
        ledger.stats().used_after_end - before
    };
    assert_eq!(["short", "long"].map(|name| after_end(name, 100 + LEEWAY)), [0, 0]);
    assert_eq!(["short", "long"].map(|name| after_end(name, LIFETIME / 2)), [1, 0]);
    assert_eq!(["short", "long"].map(|name| after_end(name, 2 * LIFETIME)), [1, 1]);
}

#[test]
fn a_late_one_makes_later_uses_issued_and_the_sight_whole() {
    let mut ledger = ledger();
    assert_eq!(ledger.of("a", WARM + 50), Unissued);
    assert_eq!(ledger.stats().issuers[1].sight, Sight { seen: 0, unseen: 1, preexisting: 0 });
    // Handed out before it was used, told after.
    assert_eq!(ledger.told(&told("a", SESSION, WARM + 49), at(WARM + 55)), Issued::Added);
    assert_eq!(ledger.of("a", WARM + 56), Was);
    assert_eq!(ledger.stats().issuers[1].sight, Sight { seen: 1, unseen: 0, preexisting: 0 });
    // The source's clock is ahead by no more than clocks may be off.
    assert_eq!(ledger.of("b", WARM + 100), Unissued);
    assert_eq!(ledger.told(&told("b", SESSION, WARM + 100 + LEEWAY), at(WARM + 300)), Issued::Added);
    assert_eq!(ledger.of("b", WARM + 301), Was);
}

#[test]
fn what_was_used_long_before_it_was_made_was_not_made_then() {
    let mut ledger = ledger();
    assert_eq!(ledger.of("forged", WARM), Unissued);
    let late = told("forged", SESSION, WARM + LEEWAY + 1);
    assert_eq!(ledger.told(&late, at(WARM + LEEWAY + 2)), Issued::Echo);
    assert_eq!(ledger.of("forged", WARM + LEEWAY + 3), Unissued);
    assert_eq!(ledger.stats().echoes, 1);
}

#[test]
fn what_the_sensor_saw_of_an_exchange_stands() {
    let mut ledger = ledger();
    ledger.issue(refresh("laundered", WARM, Unissued));
    ledger.issue(refresh("doubted", WARM, Unverifiable));
    for name in ["laundered", "doubted"] {
        assert_eq!(ledger.told(&told(name, SESSION, WARM), at(WARM + 1)), Issued::Known);
    }
    assert_eq!(ledger.of("laundered", WARM + 2), Unissued);
    assert_eq!(ledger.of("doubted", WARM + 2), Unverifiable);
}

#[test]
fn an_exchange_elsewhere_passes_on_what_is_known_of_the_parent() {
    let mut ledger = ledger();
    let child = |name, parent: &str| Told { parent: Some(fingerprint(parent)), ..told(name, SESSION, WARM) };
    ledger.told(&told("parent", SESSION, WARM), at(WARM));
    ledger.issue(refresh("laundered", WARM, Unissued));
    assert_eq!(ledger.told(&child("good", "parent"), at(WARM)), Issued::Inherited(Was));
    assert_eq!(ledger.told(&child("bad", "laundered"), at(WARM)), Issued::Inherited(Unissued));
    assert_eq!(ledger.told(&child("unknown", "forged"), at(WARM)), Issued::Inherited(Unverifiable));
    let judged = ["good", "bad", "unknown"].map(|name| ledger.of(name, WARM + 1));
    assert_eq!(judged, [Was, Unissued, Unverifiable]);
}

#[test]
fn an_issuer_speaks_for_its_own_credentials_only() {
    let mut ledger = ledger_of_two(|_| ());
    // A token whose claims name `other`, told of by `gate` and by the session issuer.
    ledger.told(&told("by gate", GATE, WARM), at(WARM));
    ledger.told(&told("by session", SESSION, WARM), at(WARM));
    ledger.told(&told("its own", IssuerId(2), WARM), at(WARM));
    let claims = other(WARM.cast_signed());
    let judged =
        ["by gate", "by session", "its own"].map(|name| ledger.judge(&jwt(name, &claims), at(WARM + 1)).provenance);
    assert_eq!(judged, [Unissued, Unissued, Was]);
    assert_eq!(ledger.stats().told_by_another, 2);
    // Of claims that cannot be read nothing is known, whoever told.
    ledger.told(&told("unread", IssuerId(2), WARM), at(WARM));
    let unread = Presented { claims: None, ..jwt("unread", &claims) };
    assert_eq!(ledger.judge(&unread, at(WARM + 2)).provenance, Unverifiable);
}

#[test]
fn keys_tell_issuers_of_one_name_apart_unless_nobody_registered_them() {
    let mut ledger = ledger_of_two(|config| {
        let issuers = &mut config.services[0].issuers;
        issuers[2].iss = issuers[0].iss.clone();
        let kid = |kid: &str| Kid { kid: kid.to_owned(), ..Kid::default() };
        issuers[0].kids = vec![kid("g1")];
        issuers[2].kids = vec![kid("k1")];
    });
    let signed = |kid: &str| {
        let header = format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#);
        text(&header, &format!(r#"{{"iss":"https://gate.example","iat":{}}}"#, START + WARM.cast_signed()))
    };
    let mut judged = |name: &str, kid: &str| {
        ledger.told(&told(name, GATE, WARM), at(WARM));
        ledger.judge(&jwt(name, &signed(kid)), at(WARM + 1)).provenance
    };
    assert_eq!(judged("own", "g1"), Was);
    assert_eq!(judged("another's", "k1"), Unissued);
    assert_eq!(judged("new", "g2"), Was);
}

#[test]
fn an_opaque_credential_is_told_apart_by_its_place() {
    let mut ledger = with(|config| {
        let service = &mut config.services[0];
        service.issuers[1].places = vec![Place::Cookie(0)];
        service.issuers.push(Issuer { places: vec![Place::Authorization], ..issuer("api", false) });
    });
    let bare = |name: &str| Presented { place: place::AUTHORIZATION, ..cookie(name) };
    let in_body = |name: &str| Presented { place: place::BODY, ..cookie(name) };
    ledger.told(&told("a", SESSION, WARM), at(WARM));
    assert_eq!(ledger.judge(&cookie("a"), at(WARM + 1)).provenance, Was);
    assert_eq!(ledger.judge(&in_body("a"), at(WARM + 1)).provenance, Was);
    assert_eq!(ledger.judge(&bare("a"), at(WARM + 1)).provenance, Unverifiable);
}

#[test]
fn a_full_ledger_takes_it_and_counts_what_went() {
    let mut ledger = with(|config| config.ledger.max_issuances = 4);
    for name in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(ledger.told(&told(name, SESSION, WARM), at(WARM)), Issued::Added);
    }
    let judged: Vec<_> = ["a", "b", "c", "d", "e", "f"].map(|name| ledger.of(name, WARM + 1)).to_vec();
    assert_eq!(judged.iter().filter(|judged| **judged == Was).count(), 4);
    assert_eq!(judged.iter().filter(|judged| **judged == Unverifiable).count(), 2);
    assert_eq!(ledger.stats().evictions, 2);
    let mut none = with(|config| config.ledger.max_issuances = 0);
    assert_eq!(none.told(&told("a", SESSION, WARM), at(WARM)), Issued::Full);
    assert_eq!(none.told(&Told { issuer: IssuerId(9), ..told("a", SESSION, WARM) }, at(WARM)), Issued::Full);
}
