//! Claims as fields, and what is odd about them.

use super::*;
use crate::config::model::Combination;
use crate::observation::claim_anomaly as odd;

fn kid(kid: &str) -> Kid {
    Kid { kid: kid.to_owned(), ..Kid::default() }
}

fn after_start(s: i64) -> u64 {
    (START + s).unsigned_abs()
}

/// Verdict on a token of `gate` with these header and payload members, used `s` seconds after the start.
fn judge(ledger: &mut Ledger, header: &str, payload: &str, s: u64) -> Verdict {
    let comma = if payload.is_empty() { "" } else { "," };
    let claims =
        text(&format!(r#"{{"alg":"RS256"{header}}}"#), &format!(r#"{{"iss":"https://gate.example"{comma}{payload}}}"#));
    ledger.judge(&jwt(&format!("{header}{payload}"), &claims), at(s))
}

fn names(bits: u16) -> Vec<&'static str> {
    odd::names(bits).collect()
}

#[test]
fn claims_reach_the_verdict() {
    let mut ledger = ledger();
    let payload = format!(
        r#""sub":17,"jti":"a-1","aud":["web","app","web"],"scp":"profile orders","iat":{},"exp":{},"nbf":{}"#,
        START + 10,
        START + 3610,
        START + 11
    );
    for s in [100, 200] {
        let verdict = judge(&mut ledger, r#","kid":"k1""#, &payload, s);
        let claims = verdict.claims;
        let show = |kind, name: Option<Interned>| ledger.name(kind, name.unwrap()).to_owned();
        assert_eq!(show(ClaimName::Kid, verdict.kid), "k1");
        assert_eq!(show(ClaimName::Alg, claims.alg), "RS256");
        assert_eq!(show(ClaimName::Iss, claims.iss), "https://gate.example");
        assert_eq!(show(ClaimName::Aud, claims.aud), "app web");
        assert_eq!(show(ClaimName::Scope, claims.scope), "orders profile");
        assert_eq!((claims.sub, claims.jti), (Some(ledger.hash_account(b"17")), Some(ledger.hash_account(b"a-1"))));
        assert_eq!((claims.iat, claims.exp, claims.nbf), (Some(START + 10), Some(START + 3610), Some(START + 11)));
        let s = i64::try_from(s).unwrap();
        assert_eq!((claims.age_s, claims.lifetime_s, claims.key_retired_s), (Some(s - 10), Some(3600), None));
        assert_eq!((verdict.subject, verdict.anomalies), (claims.sub, 0));
    }
    assert_eq!(ledger.stats().claims_decoded, 1, "decoded once, derived at each use");
    assert_eq!(ledger.judge(&cookie("c"), at(1)).claims, observation::Claims::NONE);
}

#[test]
fn words_in_either_notation_are_one_name() {
    let mut ledger = ledger();
    let mut scope = |payload: &str| judge(&mut ledger, "", payload, 10).claims.scope;
    let want = scope(r#""scope":"a b""#);
    assert!(want.is_some());
    for payload in [r#""scope":" b  a b""#, r#""scp":["b","a"]"#, r#""scope":7,"scp":["a","b",5,["c"],{"d":1}]"#] {
        assert_eq!(scope(payload), want, "{payload}");
    }
    for payload in [r#""scope":"""#, r#""scope":[]"#, r#""scope":{"a":"b"}"#, r#""scope":null"#] {
        assert_eq!(scope(payload), None, "{payload}");
    }
    let many = (0..1000).map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(",");
    assert!(scope(&format!(r#""scope":[{many}]"#)).is_some(), "bounded, not refused");
}

#[test]
fn names_of_claims_are_bounded_and_registered_ones_always_told_apart() {
    let mut ledger = with(|config| {
        let registered = Combination { aud: Some("registered".into()), ..Combination::default() };
        config.services[0].issuers[0].combinations = vec![registered];
    });
    for n in 0..50 {
        judge(&mut ledger, "", &format!(r#""aud":"a{n}","scope":"s{n}","jti":"{n}""#), 10);
    }
    let verdict = judge(&mut ledger, "", r#""aud":"registered","scope":"beyond""#, 10);
    assert_eq!(ledger.name(ClaimName::Aud, verdict.claims.aud.unwrap()), "registered");
    assert_eq!(verdict.claims.scope, Some(Interned::OVERFLOW));
    assert_eq!(ledger.name(ClaimName::Scope, Interned::OVERFLOW), "(other)");
    assert_eq!(names(verdict.anomalies), [""; 0]);
    assert_eq!(names(judge(&mut ledger, "", r#""aud":"else""#, 10).anomalies), ["combination"]);
}

#[test]
fn dates_against_the_clock() {
    let mut ledger = ledger();
    let mut check = |claim: &str, s: i64, want: &[&str]| {
        let verdict = judge(&mut ledger, "", &format!(r#""{claim}":{}"#, START + 1000 + s), 1000);
        assert_eq!(names(verdict.anomalies), want, "{claim} {s}");
        if claim == "iat" {
            assert_eq!(verdict.claims.age_s, Some(-s));
        }
    };
    check("iat", 120, &[]);
    check("iat", 121, &["iat_future"]);
    check("nbf", 120, &[]);
    check("nbf", 121, &["nbf_future"]);
    // Without `iat`, what is left of its life.
    let lifetime = i64::try_from(LIFETIME).unwrap();
    check("exp", lifetime + 120, &[]);
    check("exp", lifetime + 121, &["overlong"]);
}

#[test]
fn lifetimes_against_the_longest() {
    let mut ledger = ledger();
    let lifetime = i64::try_from(LIFETIME).unwrap();
    let mut check = |iat: i64, life: i64, want: &[&str]| {
        let payload = format!(r#""iat":{},"exp":{}"#, START + iat, START + iat + life);
        assert_eq!(names(judge(&mut ledger, "", &payload, 1000).anomalies), want, "{iat} {life}");
    };
    check(0, lifetime, &[]);
    check(0, lifetime + 120, &[]);
    check(0, lifetime + 121, &["overlong"]);
    // Long ago, so that little of it is left.
    check(-10 * lifetime, 11 * lifetime, &["overlong"]);
    let forever = format!(r#""iat":{},"exp":1e300"#, i64::MIN);
    assert_eq!(names(judge(&mut ledger, "", &forever, 1000).anomalies), ["overlong"]);

    assert_eq!(judge(&mut ledger, "", "", 1000).anomalies, 0, "no `exp`, and none promised");
    let mut ledger = with(|config| config.services[0].issuers[0].expires = true);
    assert_eq!(names(judge(&mut ledger, "", "", 1000).anomalies), ["overlong"]);
    let cut =
        Presented { flags: flag::THREE_PARTS | flag::CLAIMS | flag::CLAIMS_CUT, ..jwt("cut", b"eyJhbGciOiJIUyJ9.eyJ") };
    assert_eq!(ledger.judge(&cut, at(1000)).anomalies, 0, "what was not read may be there");
}

#[test]
fn keys_against_the_register() {
    let mut ledger = with(|config| {
        config.services[0].issuers[0].kids = vec![
            kid("good"),
            Kid { created_unix: Some(after_start(500)), ..kid("young") },
            Kid { retired_unix: Some(after_start(700)), ..kid("old") },
            Kid { owner_left_unix: Some(after_start(800)), owner: Some("kim".into()), ..kid("orphan") },
        ];
    });
    let mut check = |kid: &str, iat: i64, s: u64, want: &[&str], retired: Option<i64>| {
        let payload = format!(r#""iat":{},"jti":{s}"#, START + iat);
        let verdict = judge(&mut ledger, &format!(r#","kid":"{kid}""#), &payload, s);
        assert_eq!(
            (names(verdict.anomalies), verdict.claims.key_retired_s),
            (want.to_vec(), retired),
            "{kid} {iat} {s}"
        );
    };
    check("good", 0, 900, &[], None);
    check("young", 380, 900, &[], None);
    check("young", 379, 900, &["iat_before_key"], None);
    check("old", 100, 699, &[], None);
    check("old", 100, 700, &["key_retired"], Some(0));
    check("old", 100, 760, &["key_retired"], Some(60));
    check("orphan", 100, 799, &[], None);
    check("orphan", 100, 800, &["key_owner_left"], None);
    check("strange", 100, 800, &["key_unknown"], None);
    let none = judge(&mut ledger, "", "", 900);
    assert_eq!(names(none.anomalies), ["key_unknown"], "no `kid` where keys are registered");
}

/// A key of one issuer signs for another: Storm-0558.
#[test]
fn a_key_of_another_issuer() {
    let mut ledger = with(|config| {
        let mut consumer = issuer("consumer", true);
        consumer.kids = vec![kid("consumer-key")];
        config.services[0].issuers[0].kids = vec![kid("gate-key")];
        config.services[0].issuers.push(consumer);
    });
    let mut check = |kid: &str| names(judge(&mut ledger, &format!(r#","kid":"{kid}""#), "", 10).anomalies);
    assert_eq!(check("consumer-key"), ["key_unknown", "combination"]);
    assert_eq!(check("no-key"), ["key_unknown"]);
    assert_eq!(check("gate-key"), [""; 0]);
}

#[test]
fn combinations_as_registered() {
    let mut ledger = with(|config| {
        let some = |text: &str| Some(text.to_owned());
        config.services[0].issuers[0].combinations = vec![
            Combination { kid: some("a"), aud: some("app web"), ..Combination::default() },
            Combination { kid: some("b"), scope: some("read"), ..Combination::default() },
        ];
    });
    let mut fits = |kid: &str, payload: &str| {
        names(judge(&mut ledger, &format!(r#","kid":"{kid}""#), payload, 10).anomalies).is_empty()
    };
    assert!(fits("a", r#""aud":["web","app"]"#));
    assert!(fits("a", r#""aud":["web","app"],"scope":"anything""#));
    assert!(!fits("a", r#""aud":"web""#));
    assert!(!fits("a", ""));
    assert!(fits("b", r#""scope":"read","aud":"x""#));
    assert!(!fits("b", r#""scope":"read write""#));
    assert!(!fits("c", r#""scope":"read","aud":["app","web"]"#));
}

#[test]
fn whose_a_token_is() {
    let mut ledger = with(|config| {
        config.services[0].issuers[0].subject = Some("member".into());
        let mut device = issuer("device", true);
        device.subject = None;
        config.services[0].issuers.push(device);
    });
    let mut subject = |iss: &str| {
        let payload = format!(r#"{{"iss":"https://{iss}.example","sub":"uuid","member":17}}"#);
        ledger.judge(&jwt(iss, &text(r#"{"alg":"RS256"}"#, &payload)), at(10)).subject
    };
    assert_eq!(
        [subject("gate"), subject("device"), subject("elsewhere")].map(|one| one.is_some()),
        [true, false, true]
    );
    assert_eq!(subject("gate"), Some(ledger.hash_account(b"17")));
}

#[test]
fn an_expired_token_within_the_grace_of_its_service() {
    let mut ledger = with(|config| config.services[0].issuers[0].expiry_grace = Duration::from_mins(1));
    let mut validity = |s| judge(&mut ledger, "", &format!(r#""exp":{}"#, START + 1000 - s), 1000).validity;
    assert_eq!(validity(180), Validity::Ok);
    assert_eq!(validity(181), Validity::Expired);
}

/// Claims too long to be captured leave the `kid` to tell the issuer by: one that lists it comes before one that takes any.
#[test]
fn a_padded_token_stays_with_the_issuer_of_its_key() {
    let mut ledger = with(|config| {
        config.services[0].issuers[0].kids = vec![kid("k1")];
        let partner = Issuer { observed: Observed::Part, ..issuer("partner", true) };
        config.services[0].issuers.insert(0, partner);
    });
    let whole = gate(5000);
    let cut = &whole[..whole.iter().position(|byte| *byte == b'.').unwrap() + 3];
    let flags = flag::THREE_PARTS | flag::CLAIMS | flag::CLAIMS_CUT;
    let verdict = ledger.judge(&Presented { flags, claims: Some(cut), ..jwt("padded", &[]) }, at(WARM));
    assert_eq!((verdict.issuer, verdict.provenance), (Some(IssuerId(1)), Provenance::Unissued));
}
