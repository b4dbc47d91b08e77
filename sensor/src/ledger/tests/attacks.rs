//! What an attacker of the ledger tries.

use super::*;
use Provenance::{Issued as Was, Preexisting, Unissued, Unverifiable};

use crate::observation::claim_anomaly;

const SPENT: u16 = claim_anomaly::GAP_SPENT | claim_anomaly::HORIZON_SPENT;

#[test]
fn refresh_laundering() {
    let mut ledger = ledger();
    let forged = gate(5000);
    let presented = Presented { place: place::BODY, ..jwt("forged refresh token", &forged) };
    let parent = ledger.judge(&presented, at(WARM)).provenance;
    assert_eq!(parent, Unissued);
    // Down ten generations, each exchanging what it got.
    let mut name = "forged refresh token".to_owned();
    for generation in 0..10 {
        let s = WARM + generation * 10;
        let parent = ledger.of_jwt(&name, 5000, s);
        name = format!("child {generation}");
        assert_eq!(ledger.issue(refresh(&name, s + 1, parent)), Issued::Inherited(Unissued));
        assert_eq!(ledger.of_jwt(&name, i64::try_from(s).unwrap(), s + 2), Unissued);
    }
}

#[test]
fn refresh_laundering_by_forcing_the_child_out() {
    let mut ledger = with(|config| config.ledger.max_issuances = 10);
    ledger.issue(refresh("child", WARM, Unissued));
    for n in 0..100 {
        ledger.issue(login(&n.to_string(), WARM + 1 + n));
    }
    assert_eq!(ledger.of_jwt("child", 5000, WARM + 200), Unissued);
    assert_eq!(ledger.issue(login("child", WARM + 201)), Issued::Echo);
}

#[test]
fn an_unissued_child_stays_known_as_used_when_it_leaves_the_store() {
    let mut ledger = with(|config| config.ledger.max_issuances = 10);
    ledger.issue(refresh("child", WARM, Unissued));
    assert_eq!(ledger.of("child", WARM + 1), Unissued);
    for n in 0..100 {
        ledger.issue(login(&n.to_string(), WARM + 2 + n));
    }
    assert_eq!(ledger.issue(login("child", WARM + 201)), Issued::Echo);
    assert_eq!(ledger.of("child", WARM + 202), Unissued);
}

#[test]
fn echo_laundering() {
    let mut ledger = ledger();
    assert_eq!(ledger.of_jwt("forged", 5000, WARM), Unissued);
    assert_eq!(ledger.issue(login("forged", WARM + 1)), Issued::Echo);
    assert_eq!(ledger.issue(refresh("forged", WARM + 2, Was)), Issued::Echo, "beside his own refresh token");
    assert_eq!(ledger.of_jwt("forged", 5000, WARM + 3), Unissued);
    assert_eq!(ledger.stats().echoes, 2);
    // At the same instant, as in a capture with coarse time stamps.
    assert_eq!(ledger.of_jwt("again", 5000, WARM + 5), Unissued);
    assert_eq!(ledger.issue(login("again", WARM + 5)), Issued::Echo);
}

#[test]
fn echo_laundering_at_another_service() {
    let mut ledger = with(|config| config.services.push(config.services[0].clone()));
    assert_eq!(ledger.of_jwt("forged", 5000, WARM), Unissued);
    ledger.issue(Issuance { service: ServiceId(1), ..login("forged", WARM + 1) });
    assert_eq!(ledger.of_jwt("forged", 5000, WARM + 3), Unissued, "a service's ledger is its own");
}

#[test]
fn logout_spam_takes_no_room_and_logout_hides_nothing() {
    let mut ledger = with(|config| config.ledger.max_issuances = 10);
    ledger.issue(login("member", 10));
    for n in 0..1000 {
        ledger.revoke(SERVICE, fingerprint(&format!("forged {n}")), at(20));
    }
    let stats = ledger.stats();
    assert_eq!((stats.issuances, stats.evictions, stats.revoked, stats.revoked_unknown), (1, 0, 0, 1000));
    ledger.revoke(SERVICE, fingerprint("member"), at(30));
    assert_eq!(ledger.of("member", 40), Was);
    assert_eq!(ledger.of_jwt("forged 1", 5000, WARM), Unissued);
}

#[test]
fn login_flood_never_makes_an_evicted_credential_unissued() {
    let mut ledger = with(|config| config.ledger.max_issuances = 1000);
    let issued = 6000;
    for n in 0..issued {
        assert_eq!(ledger.issue(login(&n.to_string(), 10 + n)), Issued::Added);
    }
    let at = WARM;
    // A forger does what he can to use the doubt up first.
    let forged: u32 = (0..2000).map(|n| u32::from(ledger.of(&format!("forged {n}"), at) == Unissued)).sum();
    let kept = (0..issued).filter(|n| ledger.of(&n.to_string(), at + 1) == Was).count();
    assert_eq!(kept, 1000);
    assert!((0..issued).all(|n| ledger.of(&n.to_string(), at + 2) != Unissued));
    assert_eq!(ledger.of(&(issued - 1).to_string(), at + 2), Was, "the newest is not among the evicted");
    let stats = ledger.stats();
    assert_eq!((stats.issuances, stats.evictions), (1000, issued - 1000));
    let share = 1.0 - f64::from(forged) / 2000.0;
    assert!((share - stats.eviction_false_positives).abs() < 0.05, "{share} {}", stats.eviction_false_positives);
    assert!(share < 0.5, "most forged ones are still told: {share}");
}

#[test]
fn an_evicted_credential_that_is_handed_out_again_keeps_its_doubt() {
    let mut ledger = with(|config| config.ledger.max_issuances = 1);
    ledger.issue(login("a", 10));
    ledger.issue(login("b", 11));
    assert_eq!(ledger.of("a", WARM), Unverifiable);
    assert_eq!(ledger.issue(login("a", WARM + 23 * HOUR)), Issued::Echo);
    assert_eq!(ledger.of("a", WARM + 30 * HOUR), Unverifiable);
}

#[test]
fn seen_flood_is_bounded_counted_and_does_not_drive_out_what_is_in_use() {
    let mut ledger = with(|config| config.ledger.max_seen = 100);
    assert_eq!(ledger.of_jwt("forged", 5000, WARM), Unissued);
    for n in 0..5000 {
        ledger.of(&format!("noise {n}"), WARM + 1);
        if n % 40 == 0 {
            assert_eq!(ledger.of_jwt("forged", 5000, WARM + 1), Unissued);
        }
    }
    let stats = ledger.stats();
    assert_eq!((stats.seen, stats.seen_evictions), (100, 4901));
    assert_eq!(ledger.issue(login("forged", WARM + 2)), Issued::Echo);
    // Members' issued credentials take no room in it and are not touched.
    ledger.issue(login("member", WARM + 3));
    assert_eq!(ledger.of("member", WARM + 4), Was);
    assert_eq!(ledger.stats().seen, 100);
}

#[test]
fn iat_forged_into_a_gap_runs_into_the_budget() {
    let mut ledger = ledger();
    ledger.gap(SERVICE, at(1000), at(1010), 5);
    let excused = (0..1000).filter(|n| ledger.of_jwt(&n.to_string(), 1005, 2000) == Unverifiable).count();
    assert_eq!(excused, 5);
}

#[test]
fn padding_the_claims_does_not_leave_the_issuer() {
    let mut ledger = ledger();
    let whole = gate(5000);
    let cut = &whole[..40];
    for (flags, claims) in [
        (flag::THREE_PARTS | flag::CLAIMS | flag::CLAIMS_CUT, Some(cut)),
        (flag::THREE_PARTS | flag::CLAIMS_CUT, None),
        (flag::EMPTY_SIGNATURE, None),
    ] {
        let presented = Presented { flags, claims, ..jwt(&format!("{flags}"), &[]) };
        let verdict = ledger.judge(&presented, at(WARM));
        assert_eq!((verdict.issuer, verdict.provenance), (Some(IssuerId(0)), Unissued), "{flags}");
        assert!(verdict.self_contained);
    }
    // Cut once, whole the next time: the cut one must not stick.
    let cut =
        Presented { flags: flag::THREE_PARTS | flag::CLAIMS | flag::CLAIMS_CUT, claims: Some(cut), ..jwt("x", &[]) };
    ledger.judge(&cut, at(1));
    assert!(ledger.claim_account(&jwt("x", &whole), "sub").is_some());
}

#[test]
fn iat_forged_before_the_horizon_runs_into_the_budget() {
    let mut ledger = with(|config| {
        config.services[0].issuers[0].preexisting = Some(100);
        config.ledger.max_seen = 5000;
    });
    let members = |n: u64| format!("member {n}");
    // Members whose tokens are older than the ledger use up four fifths of it.
    for n in 0..80 {
        assert_eq!(ledger.of_jwt(&members(n), -1000, 10), Preexisting);
    }
    let judged: Vec<_> = (0..1000).map(|n| ledger.judge(&jwt(&format!("forged {n}"), &gate(-1000)), at(20))).collect();
    let believed = judged.iter().filter(|verdict| verdict.provenance == Preexisting).count();
    assert!((17..=23).contains(&believed), "{believed} of 20");
    let beyond = judged.iter().filter(|verdict| verdict.anomalies & claim_anomaly::HORIZON_SPENT != 0);
    assert_eq!(beyond.clone().count(), 1000 - believed);
    assert!(beyond.clone().all(|verdict| verdict.provenance == Unverifiable), "never issued, and not accused either");
    // Who was believed stays so, whatever comes; who was not, stays that; and each is counted once.
    for _ in 0..3 {
        assert!((0..80).all(|n| ledger.of_jwt(&members(n), -1000, 30) == Preexisting));
        for n in 0..1000 {
            ledger.of_jwt(&format!("forged {n}"), -1000, 30);
        }
    }
    let issuer = ledger.stats().issuers[0];
    assert_eq!((issuer.population_exceeded, issuer.population_budget), (1000 - believed as u64, Some(100)));
    assert!((1050..=1110).contains(&issuer.population), "{}", issuer.population);
    assert_eq!(ledger.of_jwt("forged 1", -1000, WARM), Unissued, "and in the end it shows");
    assert_eq!(ledger.stats().issuers[1].population, 0, "another issuer's budget is its own");
}

#[test]
fn a_token_without_iat_spends_the_horizon_too() {
    let mut ledger = with(|config| config.services[0].issuers[0].preexisting = Some(5));
    let bare = text(r#"{"alg":"RS256"}"#, r#"{"iss":"https://gate.example"}"#);
    let spent = (0..100).filter(|n| ledger.judge(&jwt(&n.to_string(), &bare), at(20)).provenance == Unverifiable);
    assert!(spent.count() >= 94);
    // One that says it was issued within the watched time is judged on that.
    assert_eq!(ledger.of_jwt("copied iat", 500, 600), Unissued);
}

#[test]
fn what_needs_no_doubt_spends_none() {
    let mut ledger = with(|config| config.services[0].issuers[0].preexisting = Some(5));
    ledger.gap(SERVICE, at(1000), at(1010), 1);
    let visits = |ledger: &mut Ledger, name: &str, iat| {
        ledger.judge(&Presented { spends: false, ..jwt(name, &gate(iat)) }, at(2000)).provenance
    };
    for n in 0..1000 {
        assert_eq!(visits(&mut ledger, &format!("old {n}"), -1000), Preexisting);
        assert_eq!(visits(&mut ledger, &format!("gap {n}"), 1005), Unverifiable);
    }
    assert_eq!(ledger.stats().issuers[0].population, 0);
    assert_eq!(ledger.of_jwt("member", -1000, 2001), Preexisting);
    assert_eq!(ledger.of_jwt("lost", 1005, 2001), Unverifiable);
    let verdict = ledger.judge(&jwt("lost too", &gate(1005)), at(2001));
    assert_eq!((verdict.provenance, verdict.anomalies & SPENT), (Unissued, claim_anomaly::GAP_SPENT));
    assert_eq!(visits(&mut ledger, "lost", 1005), Unverifiable, "who was excused stays so");
}

/// Cookies that roll: on a page that spends no doubt a forged one is renewed, and what it is renewed to is known.
#[test]
fn a_renewal_pays_for_the_doubt_that_it_passes_on() {
    let mut ledger = with(|config| config.services[0].issuers[0].preexisting = Some(2));
    ledger.gap(SERVICE, at(1000), at(1010), 2);
    for (iat, doubt) in [(1005, Unverifiable), (-1000, Preexisting)] {
        let names: Vec<_> = (0..5).map(|n| format!("{iat} {n}")).collect();
        let visits = names.iter().map(|name| {
            let claims = gate(iat);
            let visit = Presented { spends: false, ..jwt(name, &claims) };
            (name, ledger.judge(&visit, at(2000)))
        });
        let visits: Vec<_> = visits.collect();
        assert!(visits.iter().all(|(_, verdict)| verdict.provenance == doubt));
        let renewed =
            |(name, verdict): &(&String, Verdict)| ledger.charge(SERVICE, fingerprint(name), verdict, at(2001));
        let passed_on: Vec<_> = visits.iter().map(renewed).collect();
        assert_eq!(passed_on[..2], [doubt; 2]);
        assert!(passed_on[2..].iter().all(|one| *one > doubt), "{passed_on:?}");
    }
    assert_eq!(ledger.stats().gap_excused, 2);
}

#[test]
fn a_flood_makes_nobody_pay_for_a_gap_twice() {
    let mut ledger = with(|config| config.ledger.max_seen = 50);
    ledger.gap(SERVICE, at(1000), at(1010), 1);
    assert_eq!(ledger.of_jwt("lost", 1005, 2000), Unverifiable);
    for n in 0..5000 {
        ledger.of_jwt(&format!("noise {n}"), 5000, 5001);
    }
    assert_eq!(ledger.of_jwt("lost", 1005, 6000), Unverifiable);
    assert_eq!(ledger.stats().gap_excused, 1);
}

/// A forged bearer beside a cookie that the attacker's own login issued: each is judged, and the worse one counts.
#[test]
fn a_decoy_cookie_changes_nothing_about_the_forged_token() {
    let mut ledger = ledger();
    ledger.issue(Issuance { place: place::SET_COOKIE, ..login("own session", WARM) });
    assert_eq!(ledger.of("own session", WARM + 1), Was);
    assert_eq!(ledger.of_jwt("forged", 5000, WARM + 1), Unissued);
}

#[test]
fn logging_out_a_forged_token_hides_nothing() {
    let mut ledger = ledger();
    assert_eq!(ledger.of_jwt("forged", 5000, WARM), Unissued);
    ledger.revoke(SERVICE, fingerprint("forged"), at(WARM + 1));
    assert_eq!(ledger.of_jwt("forged", 5000, WARM + 2), Unissued);
    // Nor does a bind that no login made.
    let weak = Issuance { inherits: Some(Unissued), ..binding("forged", WARM + 3) };
    assert_eq!(ledger.issue(weak), Issued::Echo);
    assert_eq!(ledger.of_jwt("forged", 5000, WARM + 4), Unissued);
}

/// A deploy moves the login: members' new tokens are unknown, and no login is seen any more. What was never issued while
/// logins go on stays unissued, however much of it there is.
#[test]
fn a_silent_login_excuses_its_members_and_forged_tokens_do_not_make_it_silent() {
    let mut ledger = ledger();
    let mut now = WARM;
    let login = |ledger: &mut Ledger, now: u64| ledger.spoke(SERVICE, 0, 1, at(now));
    let unknown = |ledger: &mut Ledger, name: &str, now: u64| {
        let claims = gate(i64::try_from(now).unwrap());
        ledger.judge(&Presented { spends: true, ..jwt(name, &claims) }, at(now))
    };
    while now < WARM + 25 * HOUR {
        now += 2;
        login(&mut ledger, now);
    }
    for n in 0..500 {
        now += 2;
        login(&mut ledger, now);
        let verdict = unknown(&mut ledger, &format!("forged {n}"), now);
        assert_eq!(verdict.provenance, Unissued, "{n}");
    }
    let mut unissued = 0;
    for n in 0..500 {
        now += 2;
        let verdict = unknown(&mut ledger, &format!("member {n}"), now);
        unissued += u32::from(verdict.provenance == Unissued);
        assert_eq!(verdict.anomalies & claim_anomaly::EXCUSED == 0, verdict.provenance == Unissued, "{verdict:?}");
    }
    assert!(unissued < 10, "fewer than a rule asks for: {unissued}");
    // Who uses the silence gets no more than its budget.
    let forged: u32 =
        (0..5000).map(|n| u32::from(unknown(&mut ledger, &format!("late {n}"), now).provenance == Unissued)).sum();
    assert!(forged > 4_000, "{forged}");
    assert_eq!(unknown(&mut ledger, "member 400", now).provenance, Unverifiable, "who was excused stays so");
}

/// Records that were lost may all have been logins' answers, but logins do not suddenly come a thousand times as often.
#[test]
fn lost_records_excuse_no_more_than_logins_can_have_been() {
    let mut ledger = ledger();
    for s in 0..2 * HOUR {
        ledger.spoke(SERVICE, 0, 1, at(s));
    }
    ledger.lost(SERVICE, at(2 * HOUR), at(2 * HOUR + 300), 60_000);
    let budget = ledger.stats().gap_left;
    assert!((600..1_000).contains(&budget), "300 logins, three deviations, twice: {budget}");
    ledger.lost(SERVICE, at(2 * HOUR + 2000), at(2 * HOUR + 2300), 7);
    assert_eq!(ledger.stats().gap_left, budget + 7, "what is known to be less is less");
}

/// A refresh token that a silent login handed out is exchanged: the child is as doubtful, and as paid for.
#[test]
fn what_an_excused_credential_is_exchanged_for_is_excused() {
    let mut ledger = ledger();
    let (now, claims) = (at(WARM + 10), gate(i64::try_from(WARM).unwrap()));
    let inherits = Some(Unverifiable);
    for name in ["paid", "not paid"] {
        let (place, fingerprint) = (place::BODY, fingerprint(name));
        let issuance = Issuance { fingerprint, place, at: now, inherits, ..login(name, WARM) };
        ledger.issue(issuance);
    }
    ledger.pass_excuse(SERVICE, fingerprint("paid"));
    for (name, excused) in [("paid", claim_anomaly::EXCUSED), ("not paid", 0)] {
        let verdict = ledger.judge(&jwt(name, &claims), now);
        assert_eq!((verdict.provenance, verdict.anomalies & claim_anomaly::EXCUSED), (Unverifiable, excused), "{name}");
    }
}
