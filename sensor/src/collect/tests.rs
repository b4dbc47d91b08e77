//! Pairing, order, classification and attribution, over records built by hand.

use std::net::IpAddr;

use sensor_ebpf::wire::{NO_SERVICE, anomaly, capture, place};

use super::testing::*;
use crate::observation::{Fingerprint, Outcome, Provenance, RouteClass};

type R = RecordBuilder;

/// A read of account 7 with the session cookie `token`.
fn read(flow: u64, txn: u32, at: u64, token: &str) -> R {
    R::request(flow, txn, at, "GET /users/7/addresses HTTP/1.1").cookie(token)
}

fn login(flow: u64, at: u64) -> R {
    R::request(flow, 0, at, "POST /login HTTP/1.1")
}

#[test]
fn pairs_by_transaction_number() {
    // Three pipelined requests; the second response is lost, the third comes before the first.
    let (kept, collector) = run([
        R::request(1, 0, 0, "GET /a HTTP/1.1"),
        R::request(1, 1, 1, "GET /b HTTP/1.1"),
        R::request(1, 2, 2, "GET /c HTTP/1.1"),
        R::response(1, 2, 12, 404),
        R::response(1, 0, 10, 200),
    ]);
    let got: Vec<_> = kept.json().iter().map(|line| (line["uri"].clone(), line["status"].clone())).collect();
    assert_eq!(got, [("/a".into(), 200.into()), ("/c".into(), 404.into()), ("/b".into(), serde_json::Value::Null)]);
    assert_eq!(kept.observations[2].outcome, Outcome::Unanswered);
    assert_eq!(collector.counts().unanswered, 1);
}

#[test]
fn response_before_its_request_on_the_rings() {
    let (kept, _) = run([R::response(1, 0, 10, 200), R::request(1, 0, 0, "GET /a HTTP/1.1")]);
    assert_eq!(kept.observations[0].status, Some(200));
    assert!(kept.unmatched.is_empty());
}

#[test]
fn early_responses_wait_for_their_request() {
    let early = |flow, at| R::response(flow, 0, at, 431).anomalies(anomaly::EARLY);
    let (kept, collector) = run([early(1, 0), R::request(1, 0, 5, "GET /a HTTP/1.1"), early(2, 6), R::close(2, 7)]);
    assert_eq!((kept.observations[0].status, kept.observations.len()), (Some(431), 1));
    assert_eq!((kept.unmatched.len(), collector.counts().unmatched_responses), (1, 1));
    let (kept, _) = run((0..200).map(|n| early(n, n)));
    assert_eq!(kept.unmatched.len(), 200, "none is dropped silently");
}

#[test]
fn unmatched_responses_are_printed_not_observed() {
    let (kept, collector) = run([R::response(1, 5, 10, 200)]);
    assert!(kept.observations.is_empty());
    let line: serde_json::Value = serde_json::from_str(&kept.unmatched[0]).unwrap();
    assert_eq!((&line["method"], &line["status"], &line["src"]), (&().into(), &200.into(), &"198.51.100.7".into()));
    assert_eq!(collector.counts().unmatched_responses, 1);
}

#[test]
fn nothing_is_applied_before_the_watermark() {
    let mut collector = collector();
    let mut kept = Kept::default();
    collector.record(&R::request(1, 0, 10, "GET /a HTTP/1.1").build());
    collector.record(&R::response(1, 0, 20, 200).build());
    collector.advance(BASE + 20 * MS, &mut kept);
    assert!(kept.observations.is_empty(), "the response is not below the watermark");
    assert_eq!(collector.counts().pending, 1);
    collector.advance(BASE + 20 * MS + 1, &mut kept);
    assert_eq!(kept.observations.len(), 1);
    check_identities(&collector, &kept);
}

#[test]
fn a_late_delivered_issuance_counts_for_later_uses() {
    // The use comes first on its ring, but the login response is stamped earlier.
    let (kept, _) = run([
        read(2, 0, 30, "s1"),
        R::response(2, 0, 40, 200),
        R::response(1, 0, 20, 302).set_cookie("s1"),
        login(1, 10),
    ]);
    assert_eq!(kept.observations[1].provenance, Provenance::Issued);
}

#[test]
fn an_issuance_never_helps_an_earlier_use() {
    // The use is stamped before the login response; its own response comes after.
    let (kept, collector) = run([
        login(1, 10),
        R::response(1, 0, 20, 302).set_cookie("s1"),
        read(2, 0, 15, "s1"),
        R::response(2, 0, 40, 200),
    ]);
    assert_ne!(kept.observations[1].provenance, Provenance::Issued);
    assert_eq!(collector.counts().issuances.echo, 1, "seen in a request before");
}

#[test]
fn equal_times_keep_their_order() {
    let (kept, _) =
        run([login(1, 0), R::response(1, 0, 0, 302).set_cookie("s1"), read(2, 0, 0, "s1"), R::response(2, 0, 0, 200)]);
    assert_eq!(kept.observations[1].provenance, Provenance::Issued);
}

#[test]
fn batches_do_not_matter() {
    let records: Vec<_> = (0..40)
        .flat_map(|n| {
            [
                R::request(n % 5, u32::try_from(n).unwrap(), n * 1000, "GET /x HTTP/1.1"),
                R::response(n % 5, u32::try_from(n * 3 % 40).unwrap(), n * 1000 + 500, 200),
            ]
        })
        .collect();
    let (whole, _) = run(records.clone());
    let mut collector = collector();
    let mut kept = Kept::default();
    for record in records {
        let bytes = record.build();
        collector.record(&bytes);
        let time = u64::from_le_bytes(bytes[8..16].try_into().unwrap());
        collector.advance(time.saturating_sub(700 * MS), &mut kept);
    }
    collector.finish(&mut kept);
    assert_eq!(whole.lines, kept.lines);
    assert_eq!(collector.counts().late, 0);
}

#[test]
fn close_and_timeout_leave_requests_unanswered() {
    let mut collector = collector();
    let mut kept = Kept::default();
    collector.record(&R::request(1, 0, 0, "GET /a HTTP/1.1").build());
    collector.record(&R::request(1, 1, 1, "GET /b HTTP/1.1").build());
    collector.record(&R::request(2, 0, 2, "GET /c HTTP/1.1").build());
    collector.record(&R::close(1, 5).build());
    collector.advance(BASE + 10 * MS, &mut kept);
    let uris: Vec<_> = kept.json().iter().map(|line| line["uri"].clone()).collect();
    assert_eq!(uris, ["/a", "/b"]);
    collector.advance(BASE + 30_002 * MS - 1, &mut kept);
    assert_eq!(kept.observations.len(), 2);
    collector.advance(BASE + 30_002 * MS, &mut kept);
    assert_eq!(kept.observations.len(), 3);
    assert!(kept.observations.iter().all(|one| one.outcome == Outcome::Unanswered && one.status.is_none()));
    check_identities(&collector, &kept);
}

#[test]
fn evasive_targets_are_account_reads() {
    for target in ["/%75sers/7/addresses", "//users/7/addresses", "/./users/7/addresses", "/users/7/addresses;x"] {
        let (kept, _) = run([R::request(1, 0, 0, &format!("GET {target} HTTP/1.1")), R::response(1, 0, 1, 200)]);
        let one = &kept.observations[0];
        assert_eq!((one.class, one.outcome), (RouteClass::AccountRead, Outcome::Read), "{target}");
        assert_eq!(one.account, Some(account("7")), "{target}");
        assert_eq!(kept.json()[0]["uri"], target, "as on the wire");
    }
}

#[test]
fn a_cut_line_takes_the_kernels_route() {
    let line = format!("GET /users/{}", "7".repeat(900));
    let cut = R::request(1, 0, 0, &line).anomalies(anomaly::LINE_CUT);
    let (kept, _) = run([cut.clone().route("/users/{id}/addresses")]);
    assert_eq!(kept.observations[0].class, RouteClass::AccountRead);
    assert_eq!(kept.observations[0].account, None, "what is not seen is not guessed");
    // With the query begun, the path is whole and the line decides.
    let line = format!("GET /users/7/addresses?{}", "a".repeat(900));
    let (kept, _) = run([R::request(1, 0, 0, &line).anomalies(anomaly::LINE_CUT)]);
    assert_eq!(kept.observations[0].account, Some(account("7")));
}

#[test]
fn outcome_predicates() {
    let json = |record: R| record.capture(capture::CONTENT_TYPE, b"Application/JSON; charset=utf-8");
    let get = |n| R::request(n, 0, 0, "GET /users/7 HTTP/1.1");
    for (response, end, want) in [
        (json(R::response(1, 0, 1, 200)), None, Outcome::Read),
        (json(R::response(1, 0, 1, 200)).length(99), None, Outcome::Other),
        (R::response(1, 0, 1, 200).capture(capture::CONTENT_TYPE, b"text/html"), None, Outcome::Other),
        (R::response(1, 0, 1, 404), None, Outcome::Miss),
        (R::response(1, 0, 1, 302).capture(capture::LOCATION, b"/login?next=x"), None, Outcome::Denied),
        (R::response(1, 0, 1, 302).capture(capture::LOCATION, b"/elsewhere"), None, Outcome::Other),
        (json(R::response(1, 0, 1, 200)).chunked(), Some(100), Outcome::Read),
        (json(R::response(1, 0, 1, 200)).chunked(), Some(99), Outcome::Other),
        (json(R::response(1, 0, 1, 200)).chunked(), None, Outcome::Other),
    ] {
        let end = end.map(|bytes| R::end(1, 0, 50, bytes));
        let (kept, _) = run([get(1), response].into_iter().chain(end));
        assert_eq!((kept.observations[0].outcome, kept.observations.len()), (want, 1));
    }
}

#[test]
fn waits_only_where_the_length_decides() {
    let mut collector = collector();
    let mut kept = Kept::default();
    collector.record(&R::request(1, 0, 0, "GET /users/7 HTTP/1.1").build());
    collector.record(&R::response(1, 0, 1, 404).chunked().build());
    collector.record(&R::request(2, 0, 0, "GET /users/7 HTTP/1.1").build());
    collector.record(&R::response(2, 0, 1, 200).capture(capture::CONTENT_TYPE, b"application/json").chunked().build());
    collector.advance(BASE + 5 * MS, &mut kept);
    assert_eq!(kept.observations.len(), 1, "a 404 needs no length");
    assert_eq!(collector.counts().pending, 1);
}

#[test]
fn client_behind_a_trusted_proxy() {
    let forwarded = |peer: &str| {
        R::request(1, 0, 0, "GET / HTTP/1.1").client(peer).capture(capture::X_FORWARDED_FOR, b"203.0.113.5, 10.9.9.9")
    };
    let (kept, _) = run([forwarded("10.0.0.1")]);
    assert_eq!(kept.observations[0].client, IpAddr::from([203, 0, 113, 5]));
    assert_eq!(kept.json()[0]["src"], "10.0.0.1");
    let (kept, _) = run([forwarded("198.51.100.1")]);
    assert_eq!(kept.observations[0].client, IpAddr::from([198, 51, 100, 1]));
}

#[test]
fn account_sources_in_order() {
    let token = jwt("42");
    for (request, want) in [
        (R::request(1, 0, 0, "GET /users/a%40b/addresses HTTP/1.1"), Some(account("a@b"))),
        (R::request(1, 0, 0, "GET /mine?x=1&user=a%2Bb+c HTTP/1.1"), Some(account("a+b c"))),
        (R::request(1, 0, 0, "GET /mine HTTP/1.1").bearer(&token), Some(account("42"))),
        (
            R::request(1, 0, 0, "GET /mine HTTP/1.1").cookie("opaque"),
            Some(crate::observation::AccountHash(fingerprint("opaque"))),
        ),
        (R::request(1, 0, 0, "GET /mine?user= HTTP/1.1"), None),
        (R::request(1, 0, 0, "GET /users/me HTTP/1.1"), None),
    ] {
        let (kept, _) = run([request]);
        assert_eq!(kept.observations[0].account, want);
    }
}

#[test]
fn the_worst_credential_speaks() {
    let issue = [login(1, 0), R::response(1, 0, 1, 302).set_cookie("good")];
    let decoy = R::request(2, 0, 10, "GET /mine HTTP/1.1").cookie("good").bearer(&jwt("42"));
    let (kept, _) = run(issue.clone().into_iter().chain([decoy]));
    let one = &kept.observations[1];
    assert_ne!(one.provenance, Provenance::Issued);
    assert_eq!((one.fingerprint.unwrap().0, one.place), (fingerprint(&jwt("42")), place::AUTHORIZATION));
    assert!(one.self_contained);
    let line = &kept.json()[1];
    assert_eq!(line["credentials"][0]["kind"], "cookie:sid");
    assert_eq!(line["credentials"][0]["provenance"], "issued");
    assert_eq!(line["credentials"][1]["kind"], "bearer");

    // A credential that the route does not authenticate with is listed, but does not speak.
    let stray = R::request(2, 0, 10, "GET /mine HTTP/1.1").cookie("good").credential(place::HEADER, 0, "stray");
    let (kept, _) = run(issue.into_iter().chain([stray]));
    assert_eq!(kept.observations[1].provenance, Provenance::Issued);
    assert_eq!(kept.json()[1]["credentials"][1]["kind"], "header:x-token");
}

#[test]
fn lost_captures_are_doubt() {
    let issue = [login(1, 0), R::response(1, 0, 1, 302).set_cookie("good")];
    for lost in [anomaly::CAPTURES_LOST, anomaly::MORE_CREDENTIALS] {
        let (kept, _) = run(issue.clone().into_iter().chain([read(2, 0, 10, "good").anomalies(lost)]));
        assert_eq!(kept.observations[1].provenance, Provenance::Unverifiable);
    }
    let (kept, _) = run([R::request(2, 0, 10, "GET /mine HTTP/1.1")]);
    assert_eq!(kept.observations[0].provenance, Provenance::None);
}

#[test]
fn without_a_service_nothing_is_known() {
    let (kept, collector) = run([
        R::request(1, 0, 0, "GET /users/7/addresses HTTP/1.1").service(NO_SERVICE).bearer("t"),
        R::response(1, 0, 1, 200).service(NO_SERVICE).set_cookie("x"),
    ]);
    let one = &kept.observations[0];
    assert_eq!((one.provenance, one.class, one.outcome), (Provenance::Unverifiable, RouteClass::Other, Outcome::Read));
    assert_eq!(collector.counts().issuances, super::IssuanceCounts::default());
    assert_eq!(kept.json()[0]["service"], serde_json::Value::Null);
}

#[test]
fn transaction_lines() {
    let request =
        R::request(1, 0, 1500, "GET /mine?token=&a=\"b\"&key= HTTP/1.1").query(0, "secret", 16).query(1, "other", 27);
    let (kept, _) = run([request, R::response(1, 0, 1600, 200)]);
    let line = &kept.json()[0];
    let first = Fingerprint(fingerprint("secret"));
    let second = Fingerprint(fingerprint("other"));
    assert_eq!(line["uri"], format!("/mine?token={first}&a=\"b\"&key={second}"));
    assert_eq!(line["credentials"][0]["kind"], "query:token");
    assert_eq!(line["version"], "1.1");
    assert_eq!(line["host"], "shop.example");
    assert_eq!(line["route"], "GET /mine");
    assert!(kept.lines[0].starts_with("{\"ts\":1760200001.500000000,"), "{}", kept.lines[0]);
    let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    let mut want = [
        "ts",
        "src",
        "sport",
        "dst",
        "dport",
        "service",
        "method",
        "host",
        "uri",
        "version",
        "status",
        "credentials",
        "provenance",
        "route",
        "anomalies",
        "class",
        "outcome",
        "account",
        "client",
    ];
    want.sort_unstable();
    assert_eq!(keys, want);
}

#[test]
fn bytes_that_are_not_text_do_not_break_lines() {
    let raw = b"G\x01T /\xff\xe9\"\\\x7f HTTP/1.1";
    let (kept, _) = run([R::request(1, 0, 0, "").capture(capture::LINE, raw), R::request(2, 0, 1, "GET /é HTTP/1.1")]);
    let lines = kept.json();
    assert_eq!(lines[0]["uri"], "/\u{ff}\u{e9}\"\\\u{7f}");
    assert_eq!(lines[0]["method"], "G\u{1}T");
    assert_eq!(lines[1]["uri"], "/é");
}

#[test]
fn observed_routes_are_put_together() {
    let mut collector = collector();
    let mut stats = super::routes::RouteStats::new(std::sync::Arc::new(config()), 3);
    let targets = ["/users/1/addresses", "/Users/2/addresses", "/shop/9/x", "/shop/10/x", "/shop/11/x/", "/a", "/b"];
    for (n, target) in (0..).zip(targets) {
        collector.record(&R::request(n, 0, n, &format!("GET {target} HTTP/1.1")).build());
        collector.record(&R::response(n, 0, n, if n == 2 { 404 } else { 200 }).build());
    }
    collector.finish(&mut stats);
    let rows: Vec<_> = stats.rows().iter().map(|row| (row.path.clone(), row.total(), row.statuses.clone())).collect();
    assert_eq!(
        rows,
        [
            ("/a".to_owned(), 1, vec![(200, 1)]),
            ("/shop/{id}/x".to_owned(), 3, vec![(404, 1), (200, 2)]),
            ("/users/{id}/addresses".to_owned(), 2, vec![(200, 2)]),
        ]
    );
    assert_eq!(stats.overflow(), 1);
    assert_eq!(stats.rows()[1].outcomes[Outcome::Miss as usize], 1);
}
