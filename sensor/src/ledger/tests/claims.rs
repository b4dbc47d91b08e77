//! Claims: validity, accounts, and bytes chosen by an attacker.

use proptest::prelude::*;

use super::*;

fn validity(ledger: &mut Ledger, name: &str, header: &str, payload: &str) -> Validity {
    ledger.judge(&jwt(name, &text(header, payload)), at(100)).validity
}

#[test]
fn validity_worst_first() {
    let mut ledger = with(|config| {
        let kid = |kid: &str, retired: Option<i64>| Kid {
            kid: kid.to_owned(),
            retired_unix: retired.map(|s| (START + s).unsigned_abs()),
            ..Kid::default()
        };
        config.services[0].issuers[0].kids = vec![kid("good", None), kid("late", Some(101)), kid("gone", Some(100))];
    });
    let now = START + 100;
    let exp = |s: i64| format!(r#"{{"iss":"https://gate.example","exp":{}}}"#, now + s);
    let header = |alg: &str, kid: &str| format!(r#"{{"alg":"{alg}","kid":"{kid}"}}"#);
    let mut check = |header: &str, payload: &str, want| {
        assert_eq!(validity(&mut ledger, &format!("{header}{payload}"), header, payload), want, "{header} {payload}");
    };
    check(&header("RS256", "good"), &exp(10), Validity::Ok);
    check(&header("RS256", "good"), &exp(-120), Validity::Ok);
    check(&header("RS256", "good"), &exp(-121), Validity::Expired);
    check(&header("RS256", "late"), &exp(10), Validity::Ok);
    check(&header("RS256", "gone"), &exp(-500), Validity::RetiredKey);
    check(&header("RS256", "new"), &exp(-500), Validity::UnknownKey);
    check(r#"{"alg":"RS256"}"#, &exp(10), Validity::UnknownKey);
    check(r#"{"alg":"RS256","kid":7}"#, &exp(10), Validity::UnknownKey);
    check(&header("none", "new"), &exp(-500), Validity::AlgNone);
    check(&header("nOnE", "good"), &exp(10), Validity::AlgNone);
    check(&header("none", "good"), "[1]", Validity::Malformed);
    check(&header("RS256", "good"), r#"{"iss":"#, Validity::Malformed);
    check(&header("RS256", "good"), "{} {}", Validity::Malformed);

    let empty = Presented { flags: flag::EMPTY_SIGNATURE, claims: None, ..jwt("e", &[]) };
    assert_eq!(ledger.judge(&empty, at(100)).validity, Validity::AlgNone);
    let unread = Presented { flags: flag::THREE_PARTS, claims: None, ..jwt("u", &[]) };
    assert_eq!(ledger.judge(&unread, at(100)).validity, Validity::Ok);
    assert_eq!(ledger.judge(&cookie("c"), at(100)).validity, Validity::Ok);
}

#[test]
fn forged_and_expired_is_still_unissued() {
    let mut ledger = ledger();
    let claims = text(
        r#"{"alg":"RS256"}"#,
        &format!(r#"{{"iss":"https://gate.example","iat":{},"exp":{}}}"#, START + 500, START + 600),
    );
    let verdict = ledger.judge(&jwt("x", &claims), at(5000));
    assert_eq!((verdict.provenance, verdict.validity), (Provenance::Unissued, Validity::Expired));
}

#[test]
fn accounts_agree_in_every_spelling() {
    let mut ledger = ledger();
    let want = Some(ledger.hash_account(b"17"));
    let account = |ledger: &mut Ledger, payload: &str, claim: &str| {
        let claims = text(r#"{"alg":"RS256"}"#, payload);
        ledger.claim_account(&jwt(payload, &claims), claim)
    };
    for payload in [r#"{"sub":17}"#, r#"{"sub":"17"}"#, r#"{"sub":"x","sub":17}"#, r#"{"s\u0075b":"\u00317"}"#] {
        assert_eq!(account(&mut ledger, payload, "sub"), want, "{payload}");
    }
    assert_eq!(account(&mut ledger, r#"{"member":17,"sub":5}"#, "member"), want, "a claim that no route names");
    for payload in [r#"{"sub":17.5}"#, r#"{"sub":null}"#, r#"{"sub":[17]}"#, r#"{"sub":""}"#, "{}", r#"{"sub":17"#] {
        assert_eq!(account(&mut ledger, payload, "sub"), None, "{payload}");
    }
    let negative = account(&mut ledger, r#"{"sub":-3}"#, "sub");
    assert_eq!(negative, Some(ledger.hash_account(b"-3")));
    assert_eq!(ledger.claim_account(&cookie("c"), "sub"), None);
}

#[test]
fn claims_do_not_print() {
    let claims = gate(5);
    let shown = format!("{:?}", jwt("t", &claims));
    assert!(shown.contains(&fingerprint("t").to_string()), "{shown}");
    assert!(!shown.contains(&format!("{:?}", &claims[..8]).replace(['[', ']'], "")), "{shown}");
    assert!(!shown.contains(std::str::from_utf8(&claims[..8]).unwrap()), "{shown}");
}

#[test]
fn claims_are_decoded_once() {
    let mut ledger = ledger();
    let claims = gate(5);
    for s in 0..100 {
        ledger.judge(&jwt("t", &claims), at(s));
        assert!(ledger.claim_account(&jwt("t", &claims), "sub").is_some());
    }
    assert_eq!(ledger.stats().claims_decoded, 1);
    for n in 0..500 {
        ledger.judge(&jwt(&n.to_string(), &claims), at(1));
    }
    assert!(ledger.stats().claims_evictions >= 400);
}

#[test]
fn kids_are_bounded_and_declared_ones_always_told_apart() {
    let mut ledger = with(|config| {
        config.bounds.kids = 4;
        config.services[0].issuers[0].kids = vec![Kid { kid: "declared".into(), ..Kid::default() }];
    });
    let mut kid = |name: &str| {
        let claims = text(&format!(r#"{{"alg":"RS256","kid":"{name}"}}"#), r#"{"iss":"https://gate.example"}"#);
        let verdict = ledger.judge(&jwt(name, &claims), at(1));
        (ledger.kid(verdict.kid.unwrap()).to_owned(), verdict.validity)
    };
    let long = "z".repeat(100);
    assert_eq!(kid(&long).0, format!("{}…", "z".repeat(64)));
    for n in 0..3 {
        assert_eq!(kid(&n.to_string()).0, n.to_string());
    }
    assert_eq!(kid("beyond"), ("(other)".to_owned(), Validity::UnknownKey));
    assert_eq!(kid("declared"), ("declared".to_owned(), Validity::Ok));
    assert_eq!(ledger.stats().kids, 5);
}

#[test]
fn hostile_json_is_read_or_refused_but_never_fatal() {
    let mut ledger = ledger();
    let deep = format!(r#"{{"x":{}{},"sub":"a"}}"#, "[".repeat(2500), "]".repeat(2500));
    let huge = format!(r#"{{"sub":"{}"}}"#, "a".repeat(100_000));
    for (n, payload) in [
        deep.as_str(),
        huge.as_str(),
        r#"{"iat":1e400}"#,
        r#"{"iat":-1e300,"exp":1e300}"#,
        r#"{"iat":18446744073709551615,"exp":-9223372036854775808}"#,
        r#"{"iat":123456789012345678901234567890}"#,
        r#"{"iat":NaN}"#,
        r#"{"iat":-5.5,"exp":"soon"}"#,
        r#"{"iss":null,"iss":7,"iss":"\ud800"}"#,
        "\u{feff}{}",
        "",
        "null",
    ]
    .into_iter()
    .enumerate()
    {
        let claims = text(r#"{"alg":"RS256"}"#, payload);
        for s in [1, WARM * 2] {
            ledger.judge(&jwt(&n.to_string(), &claims), at(s));
        }
        ledger.claim_account(&jwt(&n.to_string(), &claims), "other");
    }
    // Depth alone does not make claims unreadable: a service may well accept them.
    let claims = text(r#"{"alg":"RS256"}"#, &deep);
    assert!(ledger.claim_account(&jwt("0", &claims), "sub").is_some());
}

#[test]
fn extreme_dates_are_judged() {
    let mut ledger = ledger();
    let mut judge = |iat: &str| {
        let claims = text(r#"{"alg":"RS256"}"#, &format!(r#"{{"iss":"https://gate.example","iat":{iat}}}"#));
        ledger.judge(&jwt(iat, &claims), at(500)).provenance
    };
    assert_eq!(judge("1e300"), Provenance::Unissued);
    assert_eq!(judge("18446744073709551615"), Provenance::Unissued);
    assert_eq!(judge("-1e300"), Provenance::Preexisting);
    assert_eq!(judge("\"1900000000\""), Provenance::Preexisting, "no date");
    assert_eq!(judge(&format!("{}.9", START + 120)), Provenance::Preexisting);
    assert_eq!(judge(&format!("{}.0", START + 121)), Provenance::Unissued);
}

#[test]
fn padding_is_tolerated() {
    let mut ledger = ledger();
    // {"alg":"HS"} and {"sub":17} with their padding.
    let claims = b"eyJhbGciOiJIUyJ9.eyJzdWIiOjE3fQ==";
    assert_eq!(ledger.claim_account(&jwt("a", claims), "sub"), Some(ledger.hash_account(b"17")));
}

proptest! {
    #[test]
    fn arbitrary_claims_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), flags in any::<u16>(), s in any::<u32>()) {
        let mut ledger = ledger();
        let presented = Presented { flags, ..jwt("a", &bytes) };
        ledger.judge(&presented, at(s.into()));
        ledger.claim_account(&presented, "sub");
        ledger.claim_account(&presented, "other");
    }

    #[test]
    fn arbitrary_json_never_panics(header in "\\PC{0,40}", payload in r#"\{("(iss|iat|exp|sub)":([0-9eE.+-]{1,30}|"\PC{0,10}"|\[[\[\]{},]{0,10}),?){0,5}\}?"#) {
        let mut ledger = ledger();
        for (n, header) in [header.as_str(), r#"{"alg":"RS256"}"#].into_iter().enumerate() {
            let claims = text(header, &payload);
            let presented = jwt(&n.to_string(), &claims);
            ledger.judge(&presented, at(10));
            ledger.claim_account(&presented, "other");
        }
    }
}
