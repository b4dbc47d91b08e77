//! Doubt about what the server read: conflicting versions of a request, bytes that no acknowledgement covers.

use sensor_ebpf::wire::{anomaly, capture, kind, place, scheme};

use super::testing::*;
use crate::observation::{Outcome, Provenance, RouteClass};

type R = RecordBuilder;

const READ: &str = "GET /users/7/addresses HTTP/1.1";

fn login(flow: u64, at: u64, token: &str) -> [R; 2] {
    [R::request(flow, 0, at, "POST /login HTTP/1.1"), R::response(flow, 0, at + 1, 302).set_cookie(token)]
}

/// A login that issues `s1`, then `records`; the observations behind the login's.
fn after_login(records: impl IntoIterator<Item = R>) -> (Kept, super::Collector) {
    let (mut kept, collector) = run(login(1, 0, "s1").into_iter().chain(records));
    kept.observations.remove(0);
    kept.lines.remove(0);
    (kept, collector)
}

#[test]
fn both_versions_are_judged_and_the_worse_one_counts() {
    // Once the forged credential comes second, once first: it makes no difference.
    for (first, second) in [("s1", "forged"), ("forged", "s1")] {
        let (kept, collector) = after_login([
            R::request(2, 0, 10, READ).cookie(first),
            R::version(2, 0, 11, READ).cookie(second),
            R::response(2, 0, 12, 200),
        ]);
        let [one] = kept.observations[..] else { panic!("one request") };
        assert_eq!(one.provenance, Provenance::Unissued);
        assert_eq!(one.fingerprint.unwrap().0, fingerprint("forged"));
        assert!(one.conflict() && !one.ambiguous());
        let line = &kept.json()[0];
        assert_eq!(line["credentials"].as_array().unwrap().len(), 2);
        assert_eq!(line["anomalies"], serde_json::json!(["conflict"]));
        assert_eq!((collector.counts().versions, collector.counts().versions_late), (1, 0));
    }
}

#[test]
fn good_versions_stay_good() {
    let (kept, _) = after_login([
        R::request(2, 0, 10, READ).cookie("s1"),
        R::version(2, 0, 11, "GET /users/8/addresses HTTP/1.1").cookie("s1"),
        R::response(2, 0, 12, 200),
    ]);
    assert_eq!(kept.observations[0].provenance, Provenance::Issued);
    assert_eq!(kept.json()[0]["credentials"].as_array().unwrap().len(), 1, "the same credential once");
}

#[test]
fn a_forged_token_does_not_pass_for_the_same_value_of_another_scheme() {
    for (first, second) in [(scheme::DIGEST, scheme::BEARER), (scheme::BEARER, scheme::DIGEST)] {
        let authorized = |record: R, word| record.credential(place::AUTHORIZATION, 0, "forged").scheme(word);
        let (kept, _) = after_login([
            authorized(R::request(2, 0, 10, READ), first),
            authorized(R::version(2, 0, 11, READ), second),
            R::response(2, 0, 12, 200),
        ]);
        assert_eq!(kept.observations[0].provenance, Provenance::Unissued);
        assert!(kept.observations[0].conflict());
    }
}

#[test]
fn the_more_sensitive_class_is_told() {
    let (home, read) = (R::request(2, 0, 10, "GET / HTTP/1.1").cookie("s1"), R::request(3, 0, 10, READ).cookie("s1"));
    let (kept, _) = after_login([
        home,
        R::version(2, 0, 11, READ).cookie("s1"),
        R::response(2, 0, 12, 200),
        read,
        R::version(3, 0, 11, "GET / HTTP/1.1"),
        R::response(3, 0, 12, 200),
    ]);
    for (observation, line) in kept.observations.iter().zip(kept.json()) {
        assert_eq!((observation.class, observation.outcome), (RouteClass::AccountRead, Outcome::Read));
        assert_eq!(observation.account, Some(account("7")));
        assert_eq!(line["uri"], "/users/7/addresses");
    }
    assert_eq!(kept.observations.len(), 2);
}

#[test]
fn a_version_of_nothing_known_is_counted() {
    let (kept, collector) = run([
        R::version(9, 0, 1, READ).cookie("forged"),
        R::request(2, 0, 10, READ).cookie("s1"),
        R::response(2, 0, 11, 200),
        R::version(2, 0, 12, READ).cookie("forged"),
    ]);
    assert_eq!((collector.counts().versions, collector.counts().versions_late), (2, 2));
    assert!(!kept.observations[0].conflict(), "already told");
    assert_eq!(collector.counts().requests, 1, "a version is no request");
}

#[test]
fn many_versions_are_bounded_and_that_is_said() {
    let versions = (0..50).map(|n| R::version(2, 0, 11 + n, READ).cookie(&format!("forged{n}")));
    let (kept, collector) = after_login(
        [R::request(2, 0, 10, READ).cookie("s1")].into_iter().chain(versions).chain([R::response(2, 0, 99, 200)]),
    );
    let line = &kept.json()[0];
    assert_eq!(line["credentials"].as_array().unwrap().len(), 32);
    assert_eq!(line["anomalies"], serde_json::json!(["more_credentials", "conflict"]));
    assert_eq!(collector.counts().versions, 50);
}

#[test]
fn a_query_credential_of_the_other_version_does_not_move_the_uri() {
    let line = "GET /users/7/addresses?token= HTTP/1.1";
    let at = u16::try_from(line.find(" HTTP").unwrap()).unwrap();
    let (kept, _) = after_login([
        R::request(2, 0, 10, line).query(0, "aaa", at),
        R::version(2, 0, 11, line).query(0, "bbb", at),
        R::response(2, 0, 12, 200),
    ]);
    let uri = kept.json()[0]["uri"].as_str().unwrap().to_owned();
    let count = uri.matches(|c: char| c.is_ascii_hexdigit()).count();
    assert!(uri.starts_with("/users/7/addresses?token=") && count < 2 * 32, "{uri}");
}

#[test]
fn ambiguous_bytes_prove_nothing() {
    for (token, on_request) in [("forged", true), ("forged", false), ("s1", true), ("s1", false)] {
        let bits = |wanted: bool| if wanted { anomaly::AMBIGUOUS } else { 0 };
        let (kept, _) = after_login([
            R::request(2, 0, 10, READ).cookie(token).anomalies(bits(on_request)),
            R::response(2, 0, 12, 200).anomalies(bits(!on_request)),
        ]);
        assert_eq!(kept.observations[0].provenance, Provenance::Unverifiable, "{token}");
        assert!(kept.observations[0].ambiguous());
        assert_eq!(kept.json()[0]["anomalies"], serde_json::json!(["ambiguous"]));
    }
    // A forged version that nobody confirmed does not raise the verdict of the whole.
    let (kept, _) = after_login([
        R::request(2, 0, 10, READ).cookie("s1"),
        R::version(2, 0, 11, READ).cookie("forged").anomalies(anomaly::AMBIGUOUS),
        R::response(2, 0, 12, 200),
    ]);
    assert_eq!(kept.observations[0].provenance, Provenance::Unverifiable);
}

#[test]
fn a_login_that_the_server_may_not_have_read_issues_nothing_good() {
    for doubt in [anomaly::AMBIGUOUS, anomaly::CONFLICT] {
        let (kept, _) = run([
            R::request(1, 0, 0, "POST /login HTTP/1.1"),
            R::response(1, 0, 1, 302).set_cookie("s1").anomalies(doubt),
            R::request(2, 0, 10, READ).cookie("s1"),
            R::response(2, 0, 12, 200),
        ]);
        assert_eq!(kept.observations[1].provenance, Provenance::Unverifiable);
    }
    // A read that hides a login: what the login would have handed out is a gap, and no later use is raised.
    let (kept, collector) = run([
        R::request(1, 0, 0, "POST /login HTTP/1.1"),
        R::version(1, 0, 1, READ),
        R::response(1, 0, 2, 302).set_cookie("s1"),
        R::request(2, 0, 10, READ).cookie("s1"),
        R::response(2, 0, 12, 200),
    ]);
    assert_eq!(kept.observations[0].class, RouteClass::AccountRead);
    assert_eq!(kept.observations[1].provenance, Provenance::Unverifiable);
    assert_eq!(collector.counts().issuances.lost, 1);
}

#[test]
fn a_logout_that_the_server_may_not_have_read_ends_nothing() {
    for (doubt, revoked) in [(0, 1), (anomaly::AMBIGUOUS, 0)] {
        let (_, collector) = after_login([
            R::request(2, 0, 10, "POST /logout HTTP/1.1").cookie("s1"),
            R::response(2, 0, 11, 200).anomalies(doubt),
        ]);
        assert_eq!(collector.counts().issuances.revoked, revoked);
    }
}

#[test]
fn anomalies_of_request_and_response_stand_together() {
    let (kept, _) = run([
        R::request(1, 0, 0, READ).anomalies(anomaly::OBS_FOLD).capture(capture::CONTENT_TYPE, b"x"),
        R::response(1, 0, 1, 200).anomalies(anomaly::LENGTH_AND_CODING),
        R::response(7, 0, 2, 200).anomalies(anomaly::UNSOLICITED | anomaly::PICKED_UP).credential(
            place::SET_COOKIE,
            0,
            "x",
        ),
    ]);
    assert_eq!(kept.observations[0].anomalies, anomaly::OBS_FOLD | anomaly::LENGTH_AND_CODING);
    assert_eq!(kept.json()[0]["anomalies"], serde_json::json!(["obs_fold", "length_and_coding"]));
    assert!(kept.unmatched[0].ends_with(r#""anomalies":["picked_up","unsolicited"]}"#), "{}", kept.unmatched[0]);
}

/// The borders of all that follows may lie elsewhere: what seems to be the answer to a login may be that to an echo.
#[test]
fn behind_another_reading_nothing_is_issued_beyond_doubt() {
    for (version, provenance) in [("GET /x HTTP/1.1", Provenance::Unverifiable), ("GET / HTTP/1.1", Provenance::Issued)]
    {
        let (kept, _) = run([
            R::request(2, 0, 10, "GET / HTTP/1.1"),
            R::version(2, 0, 11, version),
            R::response(2, 0, 12, 200),
            R::request(2, 1, 13, "POST /login HTTP/1.1"),
            R::response(2, 1, 14, 302).set_cookie("forged"),
            R::request(3, 0, 20, READ).cookie("forged"),
            R::response(3, 0, 21, 200),
        ]);
        assert_eq!(kept.observations.last().unwrap().provenance, provenance, "{version}");
    }
}

/// What could not be read again takes nothing from what was: a forged token stays one, an issued one is in doubt.
#[test]
fn a_version_that_cannot_be_read_hides_no_forged_token() {
    for (token, provenance) in [("s1", Provenance::Unverifiable), ("forged", Provenance::Unissued)] {
        let (kept, _) = after_login([
            R::request(2, 0, 10, READ).cookie(token),
            R::new(kind::VERSION, 2, 0).at(11).anomalies(anomaly::CONFLICT),
            R::response(2, 0, 12, 200),
        ]);
        assert_eq!(kept.observations[0].provenance, provenance);
        assert!(kept.observations[0].conflict());
    }
}

/// The other reading has one request more: a pipelined one that the first takes for a body.
#[test]
fn a_request_that_only_the_other_version_has_is_an_observation_of_its_own() {
    let more = |line, token| R::version(2, 1, 11, line).more().cookie(token);
    let (kept, collector) = after_login([
        R::request(2, 0, 10, "POST /x HTTP/1.1").cookie("s1"),
        R::version(2, 0, 11, "GET / HTTP/1.1").cookie("s1"),
        more(READ, "forged"),
        // Told again with every further version: once is enough.
        more(READ, "forged"),
        R::response(2, 0, 12, 200),
        // What comes next has the same number, and an answer of its own.
        R::request(2, 1, 13, READ).cookie("s1"),
        R::response(2, 1, 14, 200),
    ]);
    let [first, next, more] = &kept.observations[..] else { panic!("{:?}", kept.observations) };
    assert_eq!((first.status, next.status, more.status), (Some(200), Some(200), None));
    assert_eq!((next.provenance, next.outcome, next.conflict()), (Provenance::Issued, Outcome::Read, false));
    assert_eq!((more.provenance, more.outcome, more.conflict()), (Provenance::Unissued, Outcome::Unanswered, true));
    assert_eq!((more.class, more.account), (RouteClass::AccountRead, Some(account("7"))));
    let counts = collector.counts();
    assert_eq!((counts.versions, counts.versions_more, counts.versions_late, counts.versions_same), (3, 1, 0, 1));
    assert_eq!((counts.requests, counts.observations, counts.unanswered), (3, 3, 0), "a version is no request");
}

#[test]
fn versions_of_such_a_request_are_merged_and_an_early_answer_is_not_its_own() {
    let (kept, collector) = after_login([
        R::request(2, 0, 10, "POST /x HTTP/1.1"),
        R::version(2, 1, 11, "GET / HTTP/1.1").more().cookie("s1"),
        R::version(2, 1, 12, READ).more().cookie("forged"),
        R::response(2, 1, 13, 200).anomalies(anomaly::EARLY).set_cookie("forged2"),
        R::close(2, 14),
    ]);
    let [_, one] = &kept.observations[..] else { panic!("{:?}", kept.observations) };
    assert_eq!((one.provenance, one.class, one.status), (Provenance::Unissued, RouteClass::AccountRead, None));
    assert_eq!((kept.json()[1]["credentials"].as_array().unwrap().len(), kept.unmatched.len()), (2, 1));
    assert_eq!((collector.counts().versions_more, collector.counts().issuances.added), (1, 1));
}

/// It never issues anything; what it may have issued is one gap, and no more credentials than that are excused.
#[test]
fn a_login_that_only_the_other_version_has_is_a_gap() {
    let read = |flow, token| [R::request(flow, 0, 20 + flow, READ).cookie(token), R::response(flow, 0, 30, 200)];
    let (kept, collector) = run([
        R::request(2, 0, 10, "POST /x HTTP/1.1"),
        R::version(2, 1, 11, "POST /login HTTP/1.1").more(),
        R::response(2, 0, 12, 302).set_cookie("a"),
    ]
    .into_iter()
    .chain(read(3, "a"))
    .chain(read(4, "b")));
    let seen = |flow: usize| kept.observations[flow].provenance;
    assert_eq!((seen(1), seen(2)), (Provenance::Unverifiable, Provenance::Unissued));
    assert_eq!((collector.counts().issuances.lost, collector.counts().issuances.added), (1, 0));
}

#[test]
fn such_requests_are_bounded_and_none_is_lost() {
    let mut config = config();
    config.bounds.pending_requests = 80;
    let mut collector = collector_with(config);
    let mut kept = Kept::default();
    for flow in 0..50 {
        collector.record(&R::version(flow, 1, flow, READ).more().cookie("forged").build());
    }
    collector.advance(BASE + 60 * MS, &mut kept);
    assert_eq!((kept.observations.len(), collector.counts().evicted), (40, 40));
    collector.finish(&mut kept);
    assert_eq!((kept.observations.len(), collector.counts().versions_more), (50, 50));
}

/// A network sends next to no request in two versions. Who does so on purpose gets no more doubt than that.
#[test]
fn versions_make_no_more_doubt_than_a_network_would() {
    let asides = |from: u64| (from..from + 50).map(|n| R::version(n, 1, n, "POST /login HTTP/1.1").more());
    let (_, collector) = run(asides(10));
    assert_eq!(collector.counts().issuances.lost, 10);
    let hour = 3_600_000;
    let (_, collector) = run(asides(10).chain([R::version(9, 1, 2 * hour, "POST /login HTTP/1.1").more()]));
    assert_eq!(collector.counts().issuances.lost, 11);
}
