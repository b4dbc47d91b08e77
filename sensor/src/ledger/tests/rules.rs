use super::*;
use Provenance::{Issued as Was, Preexisting, Unissued, Unverifiable};

#[test]
fn a_login_issues_and_the_rest_is_unissued_once_warm() {
    let mut ledger = ledger();
    let account = ledger.hash_account(b"17");
    assert_eq!(ledger.issue(Issuance { account: Some(account), ..login("a", 10) }), Issued::Added);
    let verdict = ledger.judge(&cookie("a"), at(20));
    assert_eq!((verdict.provenance, verdict.account), (Was, Some(account)));
    assert_eq!((verdict.issuer, verdict.self_contained), (Some(IssuerId(1)), false));
    assert_eq!(ledger.of("b", 20), Preexisting);
    assert_eq!(ledger.of("b", WARM), Unissued);
    assert_eq!(ledger.of("a", WARM), Was);
    assert_eq!(ledger.stats().preexisting, 1);
}

#[test]
fn iat_beyond_the_horizon_proves_it_at_once() {
    let mut ledger = ledger();
    assert_eq!(ledger.of_jwt("old", -1000, 500), Preexisting);
    assert_eq!(ledger.of_jwt("edge", 120, 500), Preexisting);
    assert_eq!(ledger.of_jwt("new", 121, 500), Unissued);
    assert_eq!(ledger.of_jwt("future", 1_000_000, 500), Unissued);
    assert_eq!(ledger.of_jwt("old", -1000, WARM - 1), Preexisting);
    assert_eq!(ledger.of_jwt("old", -1000, WARM), Unissued);
    let verdict = ledger.judge(&jwt("new", &gate(121)), at(500));
    assert!(verdict.self_contained);
    assert_eq!(verdict.issuer, Some(IssuerId(0)));
    assert_eq!(ledger.kid(verdict.kid.unwrap()), "k1");
}

#[test]
fn an_issuer_that_is_not_accountable_accuses_nobody() {
    for change in [
        (|issuer: &mut Issuer| issuer.observed = Observed::Part) as fn(&mut Issuer),
        |issuer| issuer.observed = Observed::None,
        |issuer| issuer.confirmed = None,
    ] {
        let mut ledger = with(|config| config.services[0].issuers.iter_mut().for_each(change));
        ledger.issue(login("a", 1));
        ledger.issue(login("t", 1));
        assert_eq!(ledger.of("a", WARM), Was);
        assert_eq!(ledger.of("b", WARM), Unverifiable);
        assert_eq!(ledger.of_jwt("t", 1, WARM), Was);
        assert_eq!(ledger.of_jwt("u", 5000, WARM), Unverifiable);
        assert!(ledger.stats().issuers.iter().all(|issuer| !issuer.accountable));
    }
}

#[test]
fn no_declared_issuer_is_doubt_and_is_listed() {
    let mut ledger = ledger();
    let foreign = text(r#"{"alg":"ES256","kid":"\u001b[2Jx"}"#, r#"{"iss":"https://else\nwhere","iat":1800009000}"#);
    for _ in 0..3 {
        let verdict = ledger.judge(&jwt("f", &foreign), at(WARM));
        assert_eq!((verdict.provenance, verdict.issuer), (Unverifiable, None));
    }
    let without = text(r#"{"alg":"ES256"}"#, "{}");
    assert_eq!(ledger.judge(&jwt("g", &without), at(WARM)).provenance, Unverifiable);
    let list: Vec<_> = ledger.unmatched().collect();
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].iss, list[0].kid, list[0].count), (None, None, 1));
    assert_eq!((list[1].iss, list[1].kid, list[1].count), (Some("https://else?where"), Some("?[2Jx"), 3));
    // What a login was seen to hand out is issued, whoever's it is.
    ledger.issue(login("h", 5));
    assert_eq!(ledger.judge(&jwt("h", &foreign), at(WARM)).provenance, Was);
    // A service that is not declared.
    let nowhere = Presented { service: ServiceId::NONE, ..cookie("x") };
    assert_eq!(ledger.judge(&nowhere, at(WARM)).provenance, Unverifiable);
}

#[test]
fn the_unmatched_list_is_bounded() {
    let mut ledger = with(|config| config.bounds.kids = 10_000);
    for n in 0..1000 {
        let claims = text(r#"{"alg":"RS256"}"#, &format!(r#"{{"iss":"{n}"}}"#));
        ledger.judge(&jwt(&n.to_string(), &claims), at(10));
    }
    assert_eq!(ledger.unmatched().count(), 256);
    assert_eq!((ledger.stats().unmatched, ledger.stats().unmatched_overflow), (1000, 744));
}

#[test]
fn issuers_match_by_place_kind_iss_and_kid() {
    let mut ledger = with(|config| {
        let mut first = issuer("gate", true);
        first.kids = vec![Kid { kid: "k0".into(), ..Kid::default() }];
        first.places = vec![Place::Authorization];
        let mut second = first.clone();
        second.kids = vec![Kid { kid: "k1".into(), ..Kid::default() }];
        let mut third = issuer("session", false);
        third.places = vec![Place::Cookie(0)];
        let mut plain = issuer("plain", true);
        plain.iss = None;
        config.services[0].issuers = vec![first, second, third, plain];
    });
    let id = |ledger: &mut Ledger, presented: Presented<'_>| {
        let verdict = ledger.judge(&presented, at(10));
        (verdict.issuer.map(|issuer| issuer.0), verdict.validity)
    };
    let gate = gate(5);
    assert_eq!(id(&mut ledger, jwt("a", &gate)), (Some(1), Validity::Ok), "the one that knows the kid");
    let other_kid = text(r#"{"alg":"RS256","kid":"k9"}"#, r#"{"iss":"https://gate.example"}"#);
    assert_eq!(id(&mut ledger, jwt("b", &other_kid)), (Some(0), Validity::UnknownKey));
    let no_kid = text(r#"{"alg":"RS256"}"#, r#"{"iss":"https://gate.example"}"#);
    assert_eq!(id(&mut ledger, jwt("c", &no_kid)), (Some(0), Validity::UnknownKey));
    let in_cookie = Presented { place: place::COOKIE, ..jwt("a", &gate) };
    assert_eq!(id(&mut ledger, in_cookie), (None, Validity::Ok), "not its place");
    let in_body = Presented { place: place::BODY, ..jwt("a", &gate) };
    assert_eq!(id(&mut ledger, in_body), (Some(1), Validity::Ok), "a body has no place to name");
    assert_eq!(id(&mut ledger, cookie("d")), (Some(2), Validity::Ok));
    assert_eq!(id(&mut ledger, Presented { index: 1, ..cookie("d") }).0, None);
    assert_eq!(id(&mut ledger, Presented { place: place::BODY, ..cookie("d") }).0, None);
    let no_iss = text(r#"{"alg":"RS256"}"#, "{}");
    assert_eq!(id(&mut ledger, jwt("e", &no_iss)).0, Some(3));
}

#[test]
fn a_dotted_cookie_that_is_no_jwt_belongs_to_the_opaque_issuer() {
    let mut ledger = ledger();
    let signed = Presented { place: place::COOKIE, ..jwt("a", b"eyJ1c2VyIjoxfQ.ZqYx4A") };
    let verdict = ledger.judge(&signed, at(10));
    assert_eq!((verdict.issuer, verdict.validity, verdict.self_contained), (Some(IssuerId(1)), Validity::Ok, false));
    let mut ledger = with(|config| drop(config.services[0].issuers.pop()));
    let verdict = ledger.judge(&signed, at(10));
    assert_eq!((verdict.issuer, verdict.validity), (Some(IssuerId(0)), Validity::Malformed));
}

#[test]
fn schemes_without_a_stable_token_belong_to_nobody() {
    let mut ledger = ledger();
    for word in [scheme::BASIC, scheme::DIGEST, scheme::NTLM, scheme::NEGOTIATE] {
        let basic = Presented { place: place::AUTHORIZATION, scheme: word, ..cookie("a") };
        assert_eq!(ledger.judge(&basic, at(WARM)).provenance, Unverifiable);
    }
    let gate = gate(5000);
    let disguised = Presented { scheme: scheme::NEGOTIATE, ..jwt("t", &gate) };
    assert_eq!(ledger.judge(&disguised, at(WARM)).provenance, Unissued, "a JWT is one under any word");
}

#[test]
fn a_refresh_passes_on_what_it_was_given() {
    let mut ledger = ledger();
    for parent in [Was, Preexisting, Unverifiable, Unissued] {
        let name = parent.label();
        assert_eq!(ledger.issue(refresh(name, 10, parent)), Issued::Inherited(parent));
        assert_eq!(ledger.of(name, 20), parent);
        assert_eq!(ledger.of(name, WARM), parent);
    }
    assert_eq!(ledger.issue(refresh("blind", 10, Provenance::None)), Issued::Inherited(Unverifiable));
    assert_eq!(ledger.stats().inherited, 5);
}

#[test]
fn only_a_login_of_an_unused_credential_improves_it() {
    let mut ledger = ledger();
    ledger.issue(refresh("used", 10, Unissued));
    ledger.of("used", 11);
    assert_eq!(ledger.issue(refresh("used", 12, Was)), Issued::Known);
    assert_eq!(ledger.issue(login("used", 13)), Issued::Echo);
    assert_eq!(ledger.of("used", 14), Unissued);
    assert_eq!(ledger.issue(binding("used", 15)), Issued::Added);
    assert_eq!(ledger.of("used", 16), Was);

    ledger.issue(refresh("unused", 10, Unissued));
    assert_eq!(ledger.issue(refresh("unused", 12, Was)), Issued::Known);
    assert_eq!(ledger.issue(login("unused", 13)), Issued::Added);
    assert_eq!(ledger.of("unused", 14), Was);
    assert_eq!(ledger.issue(refresh("unused", 15, Unissued)), Issued::Known);
    assert_eq!(ledger.of("unused", 16), Was, "and nothing takes it away");
}

#[test]
fn binding_makes_a_presented_credential_issued() {
    let mut ledger = ledger();
    assert_eq!(ledger.of("sid", 10), Preexisting);
    assert_eq!(ledger.issue(binding("sid", 11)), Issued::Added);
    assert_eq!(ledger.of("sid", WARM), Was);
    assert_eq!(ledger.of("other", 10), Preexisting);
    let weak = Issuance { inherits: Some(Unissued), ..binding("other", 11) };
    assert_eq!(ledger.issue(weak), Issued::Echo, "binding is a login's");
}

#[test]
fn a_use_that_overtook_its_login_makes_no_echo() {
    let mut ledger = ledger();
    assert_eq!(ledger.of("a", 20), Preexisting);
    assert_eq!(ledger.issue(login("a", 19)), Issued::Added);
    assert_eq!(ledger.of("a", WARM), Was);
    assert_eq!(ledger.of("b", 20), Preexisting);
    assert_eq!(ledger.of("b", 18), Preexisting, "uses out of order: the earliest counts");
    assert_eq!(ledger.issue(login("b", 19)), Issued::Echo);
}

#[test]
fn an_issued_credential_stays_issued_after_its_end() {
    let mut ledger = ledger();
    ledger.issue(login("out", 10));
    ledger.issue(login("old", 10));
    ledger.revoke(SERVICE, fingerprint("out"), at(20));
    assert_eq!(ledger.of("out", 30), Was);
    assert_eq!(ledger.stats().used_after_end, 1);
    for s in (0..20 * HOUR).step_by(100) {
        assert_eq!(ledger.of("old", s.max(11)), Was, "in use, {s} s");
        assert_eq!(ledger.of("out", s.max(11)), Was);
    }
    assert!(ledger.stats().used_after_end > 100);
}

#[test]
fn what_is_long_over_and_unused_leaves_the_store() {
    let mut ledger = ledger();
    for n in 0..500 {
        ledger.issue(login(&n.to_string(), 10));
    }
    for s in 0..2000 {
        ledger.of("x", 100 * s);
    }
    assert_eq!(ledger.stats().issuances, 0);
    assert_eq!(ledger.stats().evictions, 0);
}

#[test]
fn only_logins_and_sound_refreshes_lengthen_a_life() {
    let lives = |again: fn(&mut Ledger)| {
        let mut ledger = ledger();
        ledger.issue(login("a", 10));
        again(&mut ledger);
        ledger.of("a", WARM + 1000);
        ledger.stats().used_after_end == 0
    };
    assert!(!lives(|_| ()));
    assert!(lives(|ledger| assert_eq!(ledger.issue(login("a", 5000)), Issued::Known)));
    assert!(lives(|ledger| assert_eq!(ledger.issue(refresh("a", 5000, Was)), Issued::Known)));
    assert!(!lives(|ledger| assert_eq!(ledger.issue(refresh("a", 5000, Unissued)), Issued::Known)));
    assert!(!lives(|ledger| {
        ledger.of("a", 4000);
    }));
    assert!(!lives(|ledger| {
        ledger.revoke(SERVICE, fingerprint("a"), at(4000));
        ledger.issue(refresh("a", 5000, Was));
    }));
    assert!(lives(|ledger| {
        ledger.revoke(SERVICE, fingerprint("a"), at(4000));
        ledger.issue(login("a", 5000));
    }));
}

#[test]
fn a_gap_excuses_its_count_of_distinct_credentials() {
    let mut ledger = ledger();
    ledger.gap(SERVICE, at(1000), at(1100), 2);
    for _ in 0..3 {
        assert_eq!(ledger.of_jwt("a", 1050, 2000), Unverifiable);
        assert_eq!(ledger.of_jwt("b", 1000, 2000), Unverifiable);
        assert_eq!(ledger.of_jwt("c", 1050, 2000), Unissued, "the budget is spent");
    }
    let stats = ledger.stats();
    assert_eq!((stats.gaps, stats.gap_lost, stats.gap_left, stats.gap_excused), (1, 2, 0, 2));

    ledger.gap(SERVICE, at(1000), at(1100), 1);
    assert_eq!(ledger.of_jwt("d", 1221, 2000), Unissued, "outside the gap and its leeway");
    assert_eq!(ledger.of("opaque", WARM), Unverifiable);
    assert_eq!(ledger.of("opaque too", WARM), Unissued);
}

#[test]
fn a_gap_is_not_spent_on_what_nobody_would_blame() {
    let mut ledger = with(|config| config.services[0].issuers[1].confirmed = None);
    ledger.gap(SERVICE, at(1000), at(1100), 1);
    assert_eq!(ledger.of("opaque", WARM), Unverifiable);
    assert_eq!(ledger.of_jwt("old", -50, 2000), Preexisting);
    assert_eq!(ledger.stats().gap_left, 1);
}

#[test]
fn sight_counts_each_credential_once() {
    let mut ledger = with(|config| config.services[0].issuers[1].confirmed = None);
    assert_eq!(ledger.stats().issuers[1].sight.share(), None);
    for n in 0..8 {
        ledger.issue(login(&n.to_string(), 10));
    }
    for s in 0..3 {
        for n in 0..10 {
            ledger.of(&n.to_string(), WARM + s);
        }
    }
    let stats = ledger.stats();
    assert_eq!(stats.issuers[1].sight, Sight { seen: 8, unseen: 2, preexisting: 0 });
    assert_eq!(stats.issuers[1].sight.share(), Some(0.8));
    assert_eq!(stats.issuers[0].sight, Sight::default());
    ledger.of_jwt("t", -10, 50);
    assert_eq!(ledger.stats().issuers[0].sight, Sight { seen: 0, unseen: 0, preexisting: 1 });
}

#[test]
fn the_horizon_is_stated() {
    let issuer = ledger().stats().issuers[0];
    assert_eq!(issuer.horizon_unix, START);
    assert_eq!(issuer.complete_unix, START + i64::try_from(WARM).unwrap());
    assert!(issuer.accountable);
}

#[test]
fn a_store_without_room_doubts_instead_of_accusing() {
    let mut ledger = with(|config| config.ledger.max_issuances = 0);
    assert_eq!(ledger.issue(login("a", 10)), Issued::Full);
    assert_eq!(ledger.of("a", WARM), Unverifiable);
    assert_eq!(ledger.of("b", WARM), Unissued);
    assert_eq!(ledger.stats().evictions, 1);
}

/// A visitor's session that a login binds was issued, although it was presented before.
#[test]
fn sight_of_sessions_that_logins_bind() {
    let bound = |bind: bool| {
        let mut ledger = with(|config| {
            let rule = IssuanceRule { binds: vec![Place::Cookie(0)], ..IssuanceRule::default() };
            let mut login = config.services[0].routes[0].clone();
            (login.class, login.issuance) = (RouteClass::Login, Some(rule));
            config.services[0].routes.push(login);
        });
        for n in 0..10 {
            let name = n.to_string();
            // Product pages, then (some of them) an account page that sends them to the login, then the login.
            for spends in [false, false, n < 4] {
                ledger.judge(&Presented { spends, ..cookie(&name) }, at(WARM));
            }
            if bind {
                assert_eq!(ledger.issue(binding(&name, WARM + 1)), Issued::Added);
            }
            ledger.judge(&cookie(&name), at(WARM + 2));
        }
        ledger.stats().issuers[1].sight
    };
    assert_eq!(bound(true), Sight { seen: 10, unseen: 0, preexisting: 0 });
    assert_eq!(bound(false), Sight { seen: 0, unseen: 10, preexisting: 0 });
}
