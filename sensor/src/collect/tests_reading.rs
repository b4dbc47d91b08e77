//! Whose data is read, what else a target names, who tries to log in, decoys.

use sensor_ebpf::wire::{direction::REQUEST, direction::RESPONSE, place};

use super::Collector;
use super::testing::*;
use crate::config::model::{AccountSource, Canaries, Config, PresentSource, Segment};
use crate::observation::{Observation, Outcome, Relation, RouteClass, claim_anomaly};

type R = RecordBuilder;

/// The tests' configuration with `/users/{id}/orders/{order}`, whose account may also stand in the query.
fn orders() -> Config {
    let mut config = config();
    let mut route = config.services[0].routes[usize::from(route_index("/users/{id}/addresses"))].clone();
    route.template = "/users/{id}/orders/{order}".to_owned();
    route.segments[2] = Segment::Literal("orders".to_owned());
    route.segments.push(Segment::Parameter("order".to_owned()));
    route.object = Some(AccountSource::Path(3));
    config.services[0].routes.push(route);
    config
}

/// The observation of one request, answered with 200.
fn observe(config: Config, request: R) -> Observation {
    let (kept, _) = run_with(config, [request, R::response(1, 0, 1, 200)]);
    kept.observations[0]
}

fn get(target: &str) -> R {
    R::request(1, 0, 0, &format!("GET {target} HTTP/1.1"))
}

#[test]
fn own_and_foreign() {
    let relation = |request: R| observe(config(), request).relation;
    assert_eq!(relation(get("/users/17/addresses").bearer(&jwt("17"))), Relation::Own);
    assert_eq!(relation(get("/users/%31%37/addresses").bearer(&jwt("17"))), Relation::Own);
    assert_eq!(relation(get("/users/18/addresses").bearer(&jwt("17"))), Relation::Foreign);
    assert_eq!(relation(get("/mine?user=18").bearer(&jwt("17"))), Relation::Foreign);
    assert_eq!(relation(get("/mine").bearer(&jwt("17"))), Relation::Own, "the token says whose");
    assert_eq!(relation(get("/mine").cookie("s1")), Relation::Unknown, "nobody says whose");
    assert_eq!(relation(get("/users/18/addresses").cookie("s1")), Relation::Unknown);
    assert_eq!(relation(get("/users/18/addresses")), Relation::Unknown);
}

/// A login whose response names the member.
fn login(flow: u64, user: &str, token: &str) -> Vec<R> {
    let body = format!(r#"{{"ok":true,"data":{{"user":"{user}","token":"{token}"}}}}"#);
    let len = body.len() as u64;
    vec![
        R::request(flow, 0, 0, "POST /api/login HTTP/1.1"),
        R::response(flow, 0, 1, 200).teed().length(len),
        R::tee(flow, 0, 2, RESPONSE, 0, body.as_bytes()),
        R::tee_end(flow, 0, 3, RESPONSE, len),
    ]
}

#[test]
fn what_the_login_said_is_whose_it_is() {
    let read = |target: &str| {
        let use_of =
            vec![R::request(1, 0, 10, &format!("GET {target} HTTP/1.1")).cookie("s1"), R::response(1, 0, 11, 200)];
        run([login(50, "17", "s1"), use_of].concat()).0.observations.last().unwrap().relation
    };
    assert_eq!(read("/users/17/addresses"), Relation::Own);
    assert_eq!(read("/users/18/addresses"), Relation::Foreign);
    assert_eq!(read("/mine"), Relation::Own);
}

#[test]
fn objects_and_numbers() {
    let read = |target: &str| observe(orders(), get(target));
    let order = read("/users/17/orders/M000123");
    assert_eq!(
        (order.account, order.object, order.target_id),
        (Some(account("17")), Some(account("M000123")), Some(123))
    );
    let order = read("/users/17/orders/3f-uuid");
    assert_eq!(
        (order.object, order.target_id),
        (Some(account("3f-uuid")), Some(17)),
        "the account's, where it has none"
    );
    assert_eq!(read("/users/17/orders/%34%32").target_id, Some(42));
    let addresses = read("/users/99/addresses");
    assert_eq!((addresses.object, addresses.target_id), (None, Some(99)));
    assert_eq!(read("/users/me/addresses").target_id, None);
    assert_eq!(read("/mine?user=7").target_id, Some(7));
    assert_eq!(read("/mine").target_id, None, "a number that no target names");
}

#[test]
fn decoys() {
    let decoy = || {
        let mut config = orders();
        config.services[0].canaries = Canaries(vec!["1000017".to_owned(), "decoy".to_owned()]);
        config
    };
    let canary = |request: R| observe(decoy(), request).canary;
    assert!(canary(get("/users/1000017/addresses")));
    assert!(canary(get("/users/1000017/orders/5")));
    assert!(canary(get("/mine?user=decoy").bearer(&jwt("17"))));
    assert!(canary(get("/mine").bearer(&jwt("decoy"))), "a token forged for the decoy");
    assert!(!canary(get("/users/1000018/addresses")));
    assert!(!canary(get("/users/17/orders/1000017")), "an order, no account");
}

#[test]
fn subjects_of_two_credentials() {
    let differ = |request: R| {
        let observation = observe(config(), request);
        observation.claim_anomalies & claim_anomaly::SUBJECTS_DIFFER != 0
    };
    let two = |one: &str, other: &str| {
        get("/users/17/addresses").bearer(&jwt(one)).credential(place::COOKIE, 0, &format!("{}x", jwt(other)))
    };
    assert!(differ(two("17", "18")));
    assert!(!differ(two("17", "17")));
    assert!(!differ(get("/users/17/addresses").bearer(&jwt("17")).cookie("opaque")), "one of them is not known");
    // One that the route does not authenticate with is nobody's business.
    assert!(!differ(get("/mine").bearer(&jwt("17")).credential(place::HEADER, 0, &format!("{}x", jwt("18")))));
    // The login named whose the cookie is; the forged token beside it names another.
    let beside = |subject: &str| {
        let forged = R::request(1, 0, 10, "GET /users/17/addresses HTTP/1.1").cookie("s1").bearer(&jwt(subject));
        let (kept, _) = run([login(50, "17", "s1"), vec![forged, R::response(1, 0, 11, 200)]].concat());
        kept.observations.last().unwrap().claim_anomalies & claim_anomaly::SUBJECTS_DIFFER != 0
    };
    assert!(beside("18"), "decoy cookie");
    assert!(!beside("17"));
}

/// A login by form whose body names the account tried.
fn trying(body: &str) -> (Kept, Collector) {
    let mut config = config();
    let login = usize::from(route_index("/login"));
    config.services[0].routes[login].issuance.as_mut().unwrap().tries =
        vec![PresentSource::Json("/user/name".to_owned()), PresentSource::Form("user".to_owned())];
    let len = body.len() as u64;
    run_with(
        config,
        [
            R::request(1, 0, 0, "POST /login HTTP/1.1").teed(),
            R::tee(1, 0, 1, REQUEST, 0, body.as_bytes()),
            R::tee_end(1, 0, 2, REQUEST, len),
            R::response(1, 0, 3, 302).set_cookie("s1"),
        ],
    )
}

#[test]
fn who_tries_to_log_in() {
    for body in ["password=x&user=kim%40shop.example", r#"{"user":{"name":" kim@shop.example "}}"#] {
        let (kept, collector) = trying(body);
        let login = kept.observations[0];
        assert_eq!((login.class, login.outcome), (RouteClass::Login, Outcome::Read));
        assert_eq!((login.account, login.issued), (Some(account("kim@shop.example")), 1), "{body}");
        assert_eq!(collector.counts().issuances.added, 1, "an unread body makes no login doubtful");
    }
    for body in ["password=x", "", "user=", r#"{"user":7"#] {
        assert_eq!(trying(body).0.observations[0].account, None, "{body}");
    }
}

#[test]
fn a_failed_login_names_whom_it_tried() {
    let mut config = config();
    let login = usize::from(route_index("/login"));
    config.services[0].routes[login].issuance.as_mut().unwrap().tries = vec![PresentSource::Form("user".to_owned())];
    let records = [
        R::request(1, 0, 0, "POST /login HTTP/1.1").teed(),
        R::tee(1, 0, 1, REQUEST, 0, b"user=kim"),
        R::tee_end(1, 0, 2, REQUEST, 8),
        R::response(1, 0, 3, 401),
    ];
    let (kept, _) = run_with(config, records);
    let login = kept.observations[0];
    assert_eq!((login.outcome, login.account, login.issued), (Outcome::Denied, Some(account("kim")), 0));
}

#[test]
fn a_login_whose_response_names_the_member() {
    let (kept, _) = run(login(50, "17", "s1"));
    let observation = kept.observations[0];
    assert_eq!((observation.account, observation.issued), (Some(account("17")), 1));
    let again = run([login(50, "17", "s1"), login(51, "17", "s1")].concat());
    assert_eq!(again.0.observations[1].issued, 0, "known already");
}

#[test]
fn a_login_without_its_body_is_no_doubt() {
    let mut config = config();
    let login = usize::from(route_index("/login"));
    config.services[0].routes[login].issuance.as_mut().unwrap().tries = vec![PresentSource::Form("user".to_owned())];
    let records = [R::request(1, 0, 0, "POST /login HTTP/1.1"), R::response(1, 0, 3, 302).set_cookie("s1")];
    let (kept, collector) = run_with(config, records);
    assert_eq!((kept.observations[0].account, kept.observations[0].issued), (None, 1));
    assert_eq!((collector.counts().issuances.added, collector.counts().issuances.lost), (1, 0));
}

#[test]
fn claims_of_the_judged_credential() {
    let observation = observe(config(), get("/users/17/addresses").bearer(&jwt("17")));
    assert_eq!((observation.claims.sub, observation.claims.alg.is_some()), (Some(account("17")), true));
    let none = observe(config(), get("/users/17/addresses"));
    assert_eq!((none.claims, none.claim_anomalies), (crate::observation::Claims::NONE, 0));
}
