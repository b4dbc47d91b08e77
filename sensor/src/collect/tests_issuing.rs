//! Logins, refreshes, renewals, binds and logouts.

use sensor_ebpf::wire::{capture, direction::REQUEST, direction::RESPONSE, kind, place};

use super::decompress::tests::{brotli, gzip};
use super::testing::*;
use super::{Collector, DecodingCounts, IssuanceCounts};
use crate::observation::{Outcome, Provenance};

type R = RecordBuilder;

/// A use of `token` as session cookie at `at`; its observation is the last but one, or last, of the run.
fn uses(token: &str, at: u64) -> R {
    R::request(900 + at, 0, at, "GET /mine HTTP/1.1").cookie(token)
}

/// Provenance of the use that ends a run of `records`.
fn provenance_after(records: Vec<R>, token: &str) -> (Provenance, Kept, Collector) {
    let (kept, collector) = run(records.into_iter().chain([uses(token, 5000)]));
    let last = kept.observations.iter().find(|one| one.at == CLOCK.instant(BASE + 5000 * MS)).unwrap();
    (last.provenance, kept, collector)
}

/// A login with a teed JSON response.
fn json_login(flow: u64, at: u64, body: &str) -> Vec<R> {
    let len = body.len() as u64;
    let (one, two) = body.as_bytes().split_at(body.len() / 2);
    vec![
        R::request(flow, 0, at, "POST /api/login HTTP/1.1"),
        R::response(flow, 0, at + 1, 200).teed().length(len),
        R::tee(flow, 0, at + 2, RESPONSE, 0, one),
        R::tee(flow, 0, at + 3, RESPONSE, one.len() as u64, two),
        R::tee_end(flow, 0, at + 4, RESPONSE, len),
    ]
}

fn refresh(body: &str, token: &str) -> Vec<R> {
    let answer = format!(r#"{{"token":"{token}"}}"#);
    vec![
        R::request(50, 0, 1000, "POST /refresh HTTP/1.1").teed(),
        R::tee(50, 0, 1001, REQUEST, 0, body.as_bytes()),
        R::tee_end(50, 0, 1002, REQUEST, body.len() as u64),
        R::response(50, 0, 1003, 200).teed().length(answer.len() as u64),
        R::tee(50, 0, 1004, RESPONSE, 0, answer.as_bytes()),
        R::tee_end(50, 0, 1005, RESPONSE, answer.len() as u64),
    ]
}

fn cookie_login(token: &str) -> Vec<R> {
    vec![R::request(1, 0, 0, "POST /login HTTP/1.1"), R::response(1, 0, 1, 302).set_cookie(token)]
}

#[test]
fn login_by_cookie() {
    let (provenance, kept, collector) = provenance_after(cookie_login("s1"), "s1");
    assert_eq!(provenance, Provenance::Issued);
    assert_eq!(kept.observations[0].outcome, Outcome::Read, "of a login: it succeeded");
    assert_eq!(collector.counts().issuances, IssuanceCounts { added: 1, ..IssuanceCounts::default() });
}

#[test]
fn login_by_header() {
    let records = vec![
        R::request(1, 0, 0, "POST /header/login HTTP/1.1"),
        R::response(1, 0, 1, 200).credential(place::RESPONSE_HEADER, 0, "s1"),
    ];
    assert_eq!(provenance_after(records, "s1").0, Provenance::Issued);
}

#[test]
fn login_by_json() {
    let body = r#"{"ok": true, "data": {"user": 7, "token": "Bearer s\/\u0031"}}"#;
    let (provenance, kept, collector) = provenance_after(json_login(1, 0, body), "s/1");
    assert_eq!(provenance, Provenance::Issued);
    assert_eq!(kept.observations[0].outcome, Outcome::Read);
    let counts = collector.counts();
    assert_eq!((counts.issuances.added, counts.issuances.missing, counts.tee_unwanted), (1, 1, 0));
    // The login named the account; a later read without one in its target takes it.
    assert_eq!(kept.observations[1].account, Some(account("7")));
}

#[test]
fn json_decides_over_the_cookie() {
    let with_cookie = |body: &str| {
        let mut records = json_login(1, 0, body);
        records[1] = records[1].clone().set_cookie("s1");
        provenance_after(records, "s1")
    };
    assert_eq!(with_cookie(r#"{"ok":true,"data":{}}"#).0, Provenance::Issued);
    let (provenance, kept, collector) = with_cookie(r#"{"ok":false,"data":{"token":"x"}}"#);
    assert_ne!(provenance, Provenance::Issued);
    assert_eq!(kept.observations[0].outcome, Outcome::Denied, "a 200 that says no");
    assert_eq!(collector.counts().issuances, IssuanceCounts::default());
}

#[test]
fn failed_logins_issue_nothing() {
    for response in [
        R::response(1, 0, 1, 401).set_cookie("s1"),
        R::response(1, 0, 1, 302).set_cookie("s1").capture(capture::LOCATION, b"/login?error=1"),
        R::response(1, 0, 1, 200),
        R::response(1, 0, 1, 302).credential(place::SET_COOKIE, 1, "s1"),
    ] {
        let (provenance, kept, collector) =
            provenance_after(vec![R::request(1, 0, 0, "POST /login HTTP/1.1"), response], "s1");
        assert_ne!(provenance, Provenance::Issued);
        assert_ne!(kept.observations[0].outcome, Outcome::Read);
        assert_eq!(collector.counts().issuances.added, 0);
    }
}

#[test]
fn a_use_before_the_body_ends_is_not_helped() {
    let mut records = json_login(1, 0, r#"{"ok":true,"data":{"token":"s1"}}"#);
    records.push(uses("s1", 3));
    let (kept, collector) = run(records);
    assert!(kept.observations.iter().all(|one| one.provenance != Provenance::Issued));
    assert_eq!(collector.counts().issuances.echo, 1);
}

#[test]
fn unreadable_bodies_are_lost_issuances() {
    let body = r#"{"ok":true,"data":{"token":"s1"}}"#;
    let whole = || json_login(1, 0, body);
    let mut not_gzip = whole();
    not_gzip[1] = not_gzip[1].clone().capture(capture::CONTENT_ENCODING, b"gzip");
    let mut unknown = whole();
    unknown[1] = unknown[1].clone().capture(capture::CONTENT_ENCODING, b"x-rot13");
    let mut holed = whole();
    holed.remove(2);
    let mut endless = whole();
    endless.pop();
    let mut not_teed = whole();
    not_teed[1] = R::response(1, 0, 1, 200).length(33);
    let long = json_login(1, 0, &format!("{}{body}", " ".repeat(5000)));
    for (what, records) in [not_gzip, unknown, holed, endless, not_teed, long].into_iter().enumerate() {
        let (provenance, kept, collector) = provenance_after(records, "s1");
        assert_ne!(provenance, Provenance::Issued, "{what}");
        assert_eq!(collector.counts().issuances.lost, 2, "{what}: the token and the cookie");
        let login = kept.observations.iter().find(|one| one.at == CLOCK.instant(BASE)).unwrap();
        assert_eq!((login.outcome, login.status), (Outcome::Other, Some(200)), "{what}");
    }
}

#[test]
fn compressed_bodies_are_read() {
    let body = br#"{"ok":true,"data":{"token":"s1","user":7}}"#;
    for (coding, coded) in [("gzip", gzip(body)), ("Br", brotli(body)), ("gzip, br", brotli(&gzip(body)))] {
        let mut records = json_login(1, 0, "");
        let (one, two) = coded.split_at(coded.len() / 2);
        records[1] = R::response(1, 0, 1, 200)
            .teed()
            .length(coded.len() as u64)
            .capture(capture::CONTENT_ENCODING, coding.as_bytes());
        records[2] = R::tee(1, 0, 2, RESPONSE, 0, one);
        records[3] = R::tee(1, 0, 3, RESPONSE, one.len() as u64, two);
        records[4] = R::tee_end(1, 0, 4, RESPONSE, coded.len() as u64);
        let (provenance, _, collector) = provenance_after(records, "s1");
        assert_eq!(provenance, Provenance::Issued, "{coding}");
        assert_eq!(collector.counts().decoding, DecodingCounts { decoded: 1, ..DecodingCounts::default() });
    }
}

/// Sixteen kilobytes of zeros and more, in few bytes: beyond the bound of the tests' configuration.
#[test]
fn what_cannot_be_decoded_is_counted_by_reason() {
    let login = |coding: &[u8], coded: &[u8]| {
        let mut records = json_login(1, 0, "");
        records[1] =
            R::response(1, 0, 1, 200).teed().length(coded.len() as u64).capture(capture::CONTENT_ENCODING, coding);
        records[2] = R::tee(1, 0, 2, RESPONSE, 0, coded);
        records[3] = R::tee(1, 0, 3, RESPONSE, coded.len() as u64, b"");
        records[4] = R::tee_end(1, 0, 4, RESPONSE, coded.len() as u64);
        let counts = *run(records).1.counts();
        assert_eq!(counts.issuances.lost, 2, "the token and the cookie");
        counts.decoding
    };
    let none = DecodingCounts::default();
    let coded = gzip(br#"{"ok":true,"data":{"token":"s1"}}"#);
    let bomb = gzip(&vec![b' '; 70_000]);
    assert_eq!(login(b"compress", &coded), DecodingCounts { unknown_coding: 1, ..none });
    assert_eq!(login(b"gzip", &coded[..coded.len() - 9]), DecodingCounts { truncated: 1, ..none });
    assert_eq!(login(b"zstd", &coded), DecodingCounts { corrupt: 1, ..none });
    assert_eq!(login(b"gzip", &bomb), DecodingCounts { too_long: 1, ..none });
    assert_eq!(login(b"zstd", b"\x28\xb5\x2f\xfd\x04\x70"), DecodingCounts { window: 1, ..none });
}

#[test]
fn a_compressed_refresh_is_read() {
    let login = json_login(1, 0, r#"{"ok":true,"data":{"token":"parent"}}"#);
    let coded = gzip(br#"{"refresh_token":"parent"}"#);
    let mut records = refresh("", "child");
    records[0] = records[0].clone().capture(capture::CONTENT_ENCODING, b"gzip");
    records[1] = R::tee(50, 0, 1001, REQUEST, 0, &coded);
    records[2] = R::tee_end(50, 0, 1002, REQUEST, coded.len() as u64);
    assert_eq!(provenance_after([login.clone(), records.clone()].concat(), "child").0, Provenance::Issued);
    records[1] = R::tee(50, 0, 1001, REQUEST, 0, &coded[1..]);
    records[2] = R::tee_end(50, 0, 1002, REQUEST, coded.len() as u64 - 1);
    assert_eq!(provenance_after([login, records].concat(), "child").0, Provenance::Unverifiable);
}

#[test]
fn json_as_serializers_write_it() {
    for body in [
        "\u{feff}{\"ok\":true,\"data\":{\"token\":\"s1\"}}",
        r#"{"ok":false,"ok":true,"data":{"token":"x","token":"s1"}}"#,
        r#"{"\u006fk":true,"d\u0061ta":{"token":"\u0073\u0031"}}"#,
        "{\"ok\":true,\"data\":{\"token\":\" bearer s1\"}}\n{\"ok\":false}\n",
    ] {
        assert_eq!(provenance_after(json_login(1, 0, body), "s1").0, Provenance::Issued, "{body}");
    }
    let pair = provenance_after(json_login(1, 0, r#"{"ok":true,"data":{"token":"\ud83d\ude00"}}"#), "😀");
    assert_eq!(pair.0, Provenance::Issued);
    for cut in
        [r#"{"ok":true,"data":{"token":"s1"#, r#"{"ok":true,"data":{"token":"s1\"#, r#"{"ok":tr"#, "{\"ok\":true"]
    {
        let (provenance, _, _) = provenance_after(json_login(1, 0, cut), "s1");
        assert_ne!(provenance, Provenance::Issued, "{cut}");
    }
}

#[test]
fn refresh_inherits() {
    let login = json_login(1, 0, r#"{"ok":true,"data":{"token":"parent","user":"9"}}"#);
    let good = refresh(r#"{"refresh_token":"parent"}"#, "child");
    let (provenance, kept, collector) = provenance_after([login.clone(), good].concat(), "child");
    assert_eq!(provenance, Provenance::Issued);
    assert_eq!(collector.counts().issuances.inherited, 1);
    assert_eq!(
        kept.observations.last().unwrap().account,
        Some(account("9")),
        "the child belongs to the parent's account"
    );

    // A refresh token that no login issued launders nothing, whatever else the request carries.
    let mut forged = refresh(r#"{"refresh_token":"forged"}"#, "child");
    forged[0] = forged[0].clone().cookie("parent");
    let (provenance, kept, _) = provenance_after([login.clone(), forged].concat(), "child");
    assert_ne!(provenance, Provenance::Issued);
    assert_ne!(kept.observations[1].provenance, Provenance::Issued, "the refresh itself shows it");

    // What it presented is not known: neither is the child.
    let mut unread = refresh(r#"{"refresh_token":"parent"}"#, "child");
    unread.drain(1..3);
    assert_eq!(provenance_after([login, unread].concat(), "child").0, Provenance::Unverifiable);
}

#[test]
fn refresh_by_cookie_and_by_form() {
    let by_cookie = |parent: &str| {
        vec![
            R::request(50, 0, 1000, "POST /cookie/refresh HTTP/1.1").cookie(parent),
            R::response(50, 0, 1001, 200).set_cookie("child"),
        ]
    };
    assert_eq!(provenance_after([cookie_login("p"), by_cookie("p")].concat(), "child").0, Provenance::Issued);
    assert_ne!(provenance_after([cookie_login("p"), by_cookie("q")].concat(), "child").0, Provenance::Issued);

    let body = b"grant_type=refresh_token&refresh_token=p%2Bq";
    let by_form = vec![
        R::request(50, 0, 1000, "POST /form/refresh HTTP/1.1").teed(),
        R::tee(50, 0, 1001, REQUEST, 0, body),
        R::tee_end(50, 0, 1002, REQUEST, body.len() as u64),
        R::response(50, 0, 1003, 200).set_cookie("child"),
    ];
    assert_eq!(provenance_after([cookie_login("p+q"), by_form].concat(), "child").0, Provenance::Issued);
}

#[test]
fn renewals_inherit() {
    let rolling = |presented: &str| {
        vec![
            R::request(60, 0, 1000, "GET /users/me HTTP/1.1").credential(place::COOKIE, 1, presented),
            R::response(60, 0, 1001, 200).credential(place::SET_COOKIE, 1, "child"),
        ]
    };
    let (provenance, _, collector) = provenance_after([cookie_login("p"), rolling("p")].concat(), "child");
    assert_eq!(provenance, Provenance::Issued);
    assert_eq!(collector.counts().issuances.inherited, 1);
    assert_ne!(provenance_after([cookie_login("p"), rolling("q")].concat(), "child").0, Provenance::Issued);
    // A cookie that is no renewal of one presented issues nothing.
    let mut anonymous = rolling("p");
    anonymous[0] = R::request(60, 0, 1000, "GET /users/me HTTP/1.1");
    let (provenance, _, collector) = provenance_after([cookie_login("p"), anonymous].concat(), "child");
    assert_ne!(provenance, Provenance::Issued);
    assert_eq!(collector.counts().issuances.inherited, 0);
}

#[test]
fn binds_and_echoes() {
    let bind = |status| vec![R::request(1, 0, 0, "POST /bind HTTP/1.1").cookie("mine"), R::response(1, 0, 1, status)];
    assert_eq!(provenance_after(bind(200), "mine").0, Provenance::Issued);
    assert_ne!(provenance_after(bind(401), "mine").0, Provenance::Issued);

    // A forged token that the server sends back is an echo.
    let echo = [
        vec![uses("forged", 0), R::response(900, 0, 1, 200)],
        vec![R::request(1, 0, 10, "POST /login HTTP/1.1"), R::response(1, 0, 11, 302).set_cookie("forged")],
    ];
    let (provenance, _, collector) = provenance_after(echo.concat(), "forged");
    assert_ne!(provenance, Provenance::Issued);
    assert_eq!(collector.counts().issuances.echo, 1);
}

/// A forged token is not made good by showing it at a login of one's own, nor is a session that the login replaces.
#[test]
fn bind_laundering() {
    let bind = |cookie: &str, answer: R| vec![R::request(1, 0, 0, "POST /bind HTTP/1.1").cookie(cookie), answer];
    let forged = jwt("17");
    assert_eq!(provenance_after(bind(&forged, R::response(1, 0, 1, 200)), &forged).0, Provenance::Unissued);
    let replaced = bind("fixed", R::response(1, 0, 1, 200).set_cookie("fresh"));
    assert_eq!(provenance_after(replaced, "fixed").0, Provenance::Unissued);
    let again = bind("kept", R::response(1, 0, 1, 200).set_cookie("kept"));
    assert_eq!(provenance_after(again, "kept").0, Provenance::Issued);
}

/// The first step of a login hands out a session that is good for nothing before the second has succeeded.
#[test]
fn logins_in_two_steps() {
    let steps = |status| {
        vec![
            R::request(1, 0, 0, "POST /password HTTP/1.1"),
            R::response(1, 0, 1, 200).set_cookie("s1"),
            R::request(1, 1, 10, "GET /products HTTP/1.1").cookie("s1"),
            R::response(1, 1, 11, 200),
            R::request(1, 2, 20, "POST /bind HTTP/1.1").cookie("s1"),
            R::response(1, 2, 21, status),
        ]
    };
    let (provenance, kept, mut collector) = provenance_after(steps(200), "s1");
    assert_eq!((provenance, kept.observations[2].issued), (Provenance::Issued, 1));
    let sight = collector.ledger().stats().issuers[0].sight;
    assert_eq!((sight.seen, sight.unseen), (1, 0), "an issuance that was seen");
    assert_eq!(provenance_after(steps(401), "s1").0, Provenance::Unissued);
}

/// A forged bearer beside a session of the attacker's own: the worse one is what the observation tells.
#[test]
fn decoy_cookie() {
    let forged = jwt("18");
    let read = R::request(2, 0, 100, "GET /users/18/addresses HTTP/1.1").cookie("own").bearer(&forged);
    let (kept, _) = run([cookie_login("own"), vec![read, R::response(2, 0, 101, 200)]].concat());
    let last = kept.observations.last().unwrap();
    assert_eq!((last.provenance, last.self_contained), (Provenance::Unissued, true));
    assert_eq!(last.fingerprint.unwrap().0, fingerprint(&forged));
}

/// Cookies that change with every answer: a session is judged by where it began, however many there are in between.
#[test]
fn rolling_lineage() {
    let roll = |from: &str, steps: u32| {
        let mut records = Vec::new();
        let mut held = from.to_owned();
        for step in 0..steps {
            let at = 100 + u64::from(step) * 10;
            let next = format!("{from}.{step}");
            records.push(R::request(60, step, at, "GET /users/me HTTP/1.1").credential(place::COOKIE, 1, &held));
            records.push(R::response(60, step, at + 1, 200).credential(place::SET_COOKIE, 1, &next));
            held = next;
        }
        records
    };
    let provenance = |first: &str| {
        let (kept, _) = run([cookie_login("s"), roll(first, 100)].concat());
        kept.observations.last().unwrap().provenance
    };
    assert_eq!(provenance("s"), Provenance::Issued);
    assert_eq!(provenance("stolen from nowhere"), Provenance::Unissued);
}

#[test]
fn logout_revokes() {
    let logout =
        |status| vec![R::request(70, 0, 1000, "POST /logout HTTP/1.1").cookie("s1"), R::response(70, 0, 1001, status)];
    let (_, _, collector) = provenance_after([cookie_login("s1"), logout(204)].concat(), "s1");
    assert_eq!(collector.counts().issuances.revoked, 1);
    let (provenance, _, collector) = provenance_after([cookie_login("s1"), logout(500)].concat(), "s1");
    assert_eq!((provenance, collector.counts().issuances.revoked), (Provenance::Issued, 0));
}

#[test]
fn a_lost_login_request_still_issues_or_doubts() {
    let known = R::response(1, 0, 1, 302).route("/login").set_cookie("s1");
    assert_eq!(provenance_after(vec![known], "s1").0, Provenance::Issued);
    let body = R::response(1, 0, 1, 200).route("/api/login").teed().length(30);
    assert_eq!(provenance_after(vec![body], "s1").2.counts().issuances.lost, 2);
}

/// A login's answer in a hole that nothing fills: as many credentials are excused as logins may have been answered there.
#[test]
fn an_answer_that_is_lost_is_a_gap_of_its_own_size() {
    let lost = |flow, txn, at| RecordBuilder::new(kind::ANSWER_LOST, flow, txn).at(at);
    let read = |flow, at, token: &str| {
        [
            RecordBuilder::request(flow, 0, at, "GET /users/7/addresses HTTP/1.1").cookie(token),
            RecordBuilder::response(flow, 0, at + 1, 200),
        ]
    };
    let login = RecordBuilder::request(1, 0, 0, "POST /login HTTP/1.1");
    let page = RecordBuilder::request(1, 1, 1, "GET / HTTP/1.1");
    // Told twice, of a request without an issuance, and of one that is not known.
    let told = [lost(1, 0, 2), lost(1, 1, 2), lost(1, 0, 3), lost(9, 0, 3)];
    let (kept, collector) =
        run([login, page].into_iter().chain(told).chain(read(2, 10, "member")).chain(read(3, 20, "forged")));
    let seen: Vec<Provenance> = kept.observations.iter().map(|one| one.provenance).take(2).collect();
    assert_eq!(seen, [Provenance::Unverifiable, Provenance::Unissued]);
    assert_eq!(collector.counts().issuances.lost, 1);

    // Answered before: nothing was lost. And any answer may renew a cookie that its request presented.
    let (_, collector) = run([
        RecordBuilder::request(1, 0, 0, "POST /login HTTP/1.1"),
        RecordBuilder::response(1, 0, 1, 302).set_cookie("s1"),
        lost(1, 0, 2),
    ]);
    assert_eq!(collector.counts().issuances.lost, 0);
    let (_, collector) =
        run([RecordBuilder::request(1, 0, 0, "GET / HTTP/1.1").credential(place::COOKIE, 1, "r1"), lost(1, 0, 2)]);
    assert_eq!(collector.counts().issuances.lost, 1);
}

/// A body that never comes whole makes doubt only where something may have been handed out that a member holds.
#[test]
fn what_a_forged_token_was_exchanged_for_is_no_gap() {
    let lost = |parent: &str| {
        let login = json_login(1, 0, r#"{"ok":true,"data":{"token":"parent","user":"9"}}"#);
        let mut cut = refresh(&format!(r#"{{"refresh_token":"{parent}"}}"#), "child");
        cut.truncate(5);
        provenance_after([login, cut].concat(), "child").2.counts().issuances.lost
    };
    assert_eq!((lost("parent"), lost("forged")), (1, 0));
}

/// Browsers go on sending a token that is long over, and applications attach it to the refresh that replaces it.
#[test]
fn a_token_long_past_its_end_taints_nothing_beside_a_good_one() {
    let old = token(r#"{"sub":"9","exp":1}"#);
    let forged = token(r#"{"sub":"9","exp":99999999999}"#);
    let read = |beside: &str, cookie: &str| {
        let read = R::request(3, 0, 5000, "GET /mine HTTP/1.1").cookie(cookie).bearer(beside);
        let (kept, _) = run([cookie_login("s"), vec![read]].concat());
        kept.observations[1].provenance
    };
    assert_eq!(read(&old, "s"), Provenance::Issued);
    assert_eq!(read(&forged, "s"), Provenance::Unissued);
    assert_eq!(read(&old, "of nobody"), Provenance::Unissued, "it excuses nothing");
    let refreshed = |beside: &str| {
        let refresh = vec![
            R::request(50, 0, 1000, "POST /cookie/refresh HTTP/1.1").cookie("s").bearer(beside),
            R::response(50, 0, 1001, 200).set_cookie("child"),
        ];
        provenance_after([cookie_login("s"), refresh].concat(), "child").0
    };
    assert_eq!(refreshed(&old), Provenance::Issued);
    assert_eq!(refreshed(&forged), Provenance::Unissued);
}
