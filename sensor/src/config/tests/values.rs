//! What accepted files mean.

use std::time::Duration;

use sensor_ebpf::wire::method;

use super::{SERVICE, config, warnings};
use crate::config::load;
use crate::config::model::{
    AccountSource, ClientHeader, Combination, Doubt, Estimate, Findings, IssueSource, Issuer, LedgerStore, Listen,
    Observed, Pieces, Place, PresentSource, PushSubject, Segment,
};
use crate::observation::{IssuerId, Outcome, RouteClass};

pub(super) const FULL: &str = include_str!("full.toml");
pub(super) const SHIPPED: &str = include_str!("../../../../authsensor.toml");

#[test]
fn every_key_reaches_the_model() {
    let config = config(FULL);
    assert_eq!(config.interfaces, ["eth0", "bond0.7"]);
    let networks: Vec<String> = config.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"]);
    assert_eq!(config.client_header, ClientHeader::Forwarded);
    assert!(config.services[0].proxy_protocol);
    assert_eq!(config.findings, Findings::File("findings.ndjson".into()));
    assert_eq!(config.metrics_listen, "[::1]:9999".parse().unwrap());
    let ledger = &config.ledger;
    assert_eq!((ledger.max_issuances, ledger.max_seen, ledger.clock_leeway.as_secs()), (100, 200, 5));
    assert_eq!(
        (ledger.max_accounts, ledger.sync_interval.as_millis(), &ledger.store),
        (300, 250, &LedgerStore::Memory)
    );
    let bounds = &config.bounds;
    assert_eq!((bounds.flows, bounds.split_heads), (1024, 32));
    assert_eq!((bounds.event_ring_bytes, bounds.byte_ring_bytes), (1 << 20, 1 << 16));
    assert_eq!((bounds.poll_interval.as_millis(), bounds.unanswered_after.as_secs()), (20, 120));
    assert_eq!((bounds.pending_requests, bounds.tee_bytes, bounds.tee_bodies), (7, 2048, 8));
    assert_eq!((bounds.kids, bounds.claims_cache, bounds.rule_groups, bounds.group_values), (9, 10, 11, 12));
    assert_eq!((bounds.quiet_groups, bounds.journal_bytes, bounds.open_findings), (13, 14 << 20, 16));
    let doubt =
        Doubt { preexisting: 0.11, unverifiable: 0.12, ambiguous: 0.13, conflict: 0.14, malformed: 1.0, least: 7 };
    let estimate = Estimate { walks: 100, misses: 200, members: 300, known_clients: 4_000, doubt };
    assert_eq!(config.estimate, estimate);
}

#[test]
fn the_service_reaches_the_model() {
    let config = config(FULL);
    let service = &config.services[0];
    let listen = |address: Option<&str>, port| Listen { address: address.map(|a| a.parse().unwrap()), port };
    let some = |address| listen(Some(address), 0);
    let want = [
        listen(None, 80),
        listen(None, 81),
        Listen { port: 82, ..some("192.0.2.7") },
        Listen { port: 83, ..some("2001:db8::7") },
        listen(None, 84),
        listen(None, 85),
        Listen { port: 86, ..some("192.0.2.7") },
    ];
    assert_eq!(service.listen, want);
    let credentials = &service.credentials;
    assert!(credentials.authorization);
    assert_eq!(credentials.cookies, ["SESSION", "__Host-remember", "__Host-remember.0", "__Host-remember.1"]);
    assert_eq!(credentials.pieces, [Pieces { cookies: vec![1, 2, 3] }]);
    assert_eq!(service.canaries.0, ["1000017", "decoy"]);
    assert_eq!(credentials.headers, ["x-auth-token"]);
    assert_eq!(credentials.query, ["access_token"]);
    assert_eq!(credentials.response_headers, ["x-new-token", "x-other-token"]);
}

#[test]
fn issuing_routes_reach_the_model() {
    let config = config(FULL);
    let [login, refresh, logout, ..] = config.services[0].routes.as_slice() else { panic!() };
    assert_eq!((login.name.as_str(), login.class), ("sign in", RouteClass::Login));
    assert_eq!(login.methods.iter().map(|m| m.id).collect::<Vec<_>>(), [method::POST, method::PUT]);
    let rule = login.issuance.as_ref().unwrap();
    let want = [IssueSource::SetCookie(0), IssueSource::Json("/data/0/a~1b".into()), IssueSource::Header(0)];
    assert_eq!(rule.issues, want);
    assert_eq!(rule.binds, [Place::Cookie(1)]);
    assert_eq!(rule.account_pointer.as_deref(), Some("/member"));
    assert_eq!(rule.tries, [PresentSource::Json("/user".into()), PresentSource::Form("user".into())]);
    assert!(rule.reads_request() && !rule.presents_in_body());
    assert_eq!(rule.success.status, [200..=200, 302..=303]);
    assert_eq!(rule.success.location.as_deref(), Some("/home"));
    assert_eq!(rule.success.location_not.as_deref(), Some("/home/error"));
    assert_eq!(rule.success.sets_cookie, Some(0));
    assert_eq!(rule.success.json, Some(("/ok".into(), true.into())));
    assert_eq!(login.outcomes[0].status, rule.success.status);
    assert!(login.account.is_empty());

    assert_eq!(refresh.name, "POST /token");
    let rule = refresh.issuance.as_ref().unwrap();
    assert_eq!(rule.issues, [IssueSource::Json("/access_token".into()), IssueSource::Header(1)]);
    let json = PresentSource::Json("/refresh_token".into());
    let form = PresentSource::Form("refresh_token".into());
    assert_eq!(rule.presents, [json, form, PresentSource::Place(Place::Cookie(0))]);
    assert!(logout.issuance.as_ref().unwrap().issues.is_empty());
}

#[test]
fn reading_routes_reach_the_model() {
    let config = config(FULL);
    let [_, _, _, orders, member] = config.services[0].routes.as_slice() else { panic!() };
    assert_eq!(orders.template, "/members/{member}/orders/{order}");
    assert_eq!(orders.segments[3], Segment::Parameter("order".into()));
    let places = [Place::Authorization, Place::Cookie(0), Place::Header(0), Place::Query(0)];
    assert_eq!(orders.authenticates_with, places);
    let claim = AccountSource::Claim("sub".into());
    let rest = [claim, AccountSource::Issuance, AccountSource::Fingerprint];
    assert_eq!(orders.account[..2], [AccountSource::Path(1), AccountSource::Query("id".into())]);
    assert_eq!(orders.account[2..], rest);
    let outcomes: Vec<Outcome> = orders.outcomes.iter().map(|rule| rule.outcome).collect();
    assert_eq!(outcomes, [Outcome::Miss, Outcome::Read, Outcome::Denied]);
    assert_eq!(orders.outcomes[0].content_type.as_deref(), Some("text/html"));
    assert_eq!(orders.outcomes[1].min_length, Some(1024));
    assert_eq!(orders.outcomes[2].location.as_deref(), Some("/login"));

    assert_eq!(member.name, "GET|PURGE /members/{member}");
    assert_eq!(member.methods[1].id, method::OTHER);
    assert_eq!(member.account[0], AccountSource::Path(1));
    assert_eq!((&member.object, &orders.object), (&None, &Some(AccountSource::Query("item".into()))));
    assert_eq!(member.account[1..], rest);
    let defaults: Vec<_> = member.outcomes.iter().map(|rule| (rule.outcome, rule.status.clone())).collect();
    let want = [
        (Outcome::Read, vec![200..=299]),
        (Outcome::Miss, vec![404..=404, 410..=410]),
        (Outcome::Denied, vec![401..=401, 403..=403]),
    ];
    assert_eq!(defaults, want);
    assert!(member.issuance.is_none());
}

#[test]
fn issuers_reach_the_model() {
    let config = config(FULL);
    let [tokens, sessions] = config.services[0].issuers.as_slice() else { panic!() };
    assert!(tokens.jwt && tokens.accountable());
    assert_eq!(tokens.iss.as_deref(), Some("https://issuer.example"));
    let kids: Vec<_> = tokens.kids.iter().map(|kid| (kid.kid.as_str(), kid.retired_unix)).collect();
    assert_eq!(kids, [("a", None), ("b", Some(1_735_689_600)), ("c", Some(1_735_689_600)), ("d", None)]);
    let key = &tokens.kids[3];
    assert_eq!(key.owner.as_deref(), Some("payments"));
    assert_eq!((key.created_unix, key.owner_left_unix), (Some(1_704_067_200), Some(1_748_736_000)));
    let some = |text: &str| Some(text.to_owned());
    let first = Combination {
        kid: some("a"),
        iss: some("https://issuer.example"),
        aud: some("app web"),
        scope: some("orders profile"),
    };
    assert_eq!(tokens.combinations, [first, Combination { kid: some("b"), ..Combination::default() }]);
    assert_eq!((tokens.expires, tokens.expiry_grace.as_secs()), (true, 900));
    assert_eq!(tokens.subject.as_deref(), Some("member"));
    assert_eq!((tokens.preexisting, tokens.horizon_budget()), (Some(7000), Some(7000)));
    assert_eq!(sessions.horizon_budget(), None);
    let confirmed = tokens.confirmed.as_ref().unwrap();
    assert_eq!(confirmed.preexisting, Some(5000));
    assert_eq!((confirmed.by.as_str(), confirmed.on.as_str()), ("kim", "2026-01-31"));
    assert!((confirmed.sight - 0.995).abs() < f64::EPSILON);
    assert_eq!(tokens.max_lifetime, Duration::from_hours(12));
    assert!(!sessions.jwt && !sessions.accountable());
    assert_eq!(sessions.observed, Observed::None);
    assert_eq!(sessions.places, [Place::Cookie(0)]);
    assert_eq!((sessions.renews.as_slice(), sessions.renew_grace.as_secs()), ([0].as_slice(), 90));
}

#[test]
fn defaults_are_as_documented() {
    let config = config(SERVICE);
    assert_eq!(config.findings, Findings::Stdout);
    assert_eq!(config.metrics_listen, "127.0.0.1:9464".parse().unwrap());
    assert!(config.services[0].credentials.authorization);
    let (bounds, ledger) = (&config.bounds, &config.ledger);
    assert_eq!((bounds.flows, bounds.split_heads), (262_144, 4096));
    assert_eq!((bounds.event_ring_bytes, bounds.byte_ring_bytes), (16 << 20, 4 << 20));
    assert_eq!((bounds.poll_interval.as_millis(), bounds.unanswered_after.as_secs()), (10, 30));
    assert_eq!((bounds.pending_requests, bounds.tee_bytes, bounds.tee_bodies), (65_536, 64 << 10, 4096));
    let tables = (bounds.kids, bounds.claims_cache, bounds.rule_groups, bounds.group_values);
    assert_eq!(tables, (4096, 65_536, 65_536, 65_536));
    assert_eq!((bounds.quiet_groups, bounds.journal_bytes, bounds.open_findings), (262_144, 1 << 30, 4096));
    assert_eq!((ledger.max_issuances, ledger.max_seen), (60_000_000, 1_000_000));
    assert_eq!(
        (ledger.max_accounts, ledger.sync_interval.as_millis(), &ledger.store),
        (262_144, 500, &LedgerStore::Memory)
    );
    assert_eq!(ledger.clock_leeway, Duration::from_mins(2));
    assert!(config.keys.fingerprint.is_none() && config.keys.account.is_none());
}

#[test]
fn the_object_is_the_last_parameter_that_is_no_account() {
    let object = |route: &str| {
        let head = format!("{SERVICE}[[service.route]]\nmethods = \"GET\"\n");
        config(&format!("{head}{route}")).services[0].routes[0].object.clone()
    };
    let orders = "path = \"/m/{member}/orders/{order}/items/{item}\"\n";
    assert_eq!(
        object(&format!("class=\"account_read\"\n{orders}account=\"path:member\"")),
        Some(AccountSource::Path(5))
    );
    assert_eq!(object(&format!("class=\"account_read\"\n{orders}account=\"path:item\"")), Some(AccountSource::Path(3)));
    assert_eq!(object(&format!("class=\"account_read\"\n{orders}")), Some(AccountSource::Path(5)));
    assert_eq!(object(&format!("class=\"other\"\n{orders}")), None);
    assert_eq!(object(&format!("class=\"other\"\n{orders}object=\"path:order\"")), Some(AccountSource::Path(3)));
}

#[test]
fn a_rolling_service_renews_all_its_cookies() {
    let config = config(&format!(
        "{SERVICE}rolling = true\n[service.credentials]\ncookies = [\"A\", {{ name = \"B\", chunks = \".1\" }}]\n\
         [[service.issuer]]\nname = \"any\"\nkind = \"opaque\"\nmax_lifetime = \"1h\"\n\
         [[service.issuer]]\nname = \"b\"\nkind = \"jwt\"\nplaces = \"cookie:B\"\nmax_lifetime = \"1h\"\n\
         [[service.issuer]]\nname = \"bearer\"\nkind = \"jwt\"\nplaces = \"authorization\"\nmax_lifetime = \"1h\"\n"
    ));
    let renews: Vec<&[u8]> = config.services[0].issuers.iter().map(|issuer| issuer.renews.as_slice()).collect();
    assert_eq!(renews, [&[0, 1][..], &[1], &[]]);
}

#[test]
fn a_refresh_route_reads_by_its_success() {
    let config = config(&format!(
        "{SERVICE}[[service.route]]\nclass=\"refresh\"\nmethods=\"POST\"\npath=\"/t\"\nissues=\"json:/t\"\n"
    ));
    assert_eq!(config.services[0].routes[0].outcomes[0].status, [200..=299, 302..=303]);
}

#[test]
fn the_shipped_file_loads() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("rules/detection")).unwrap();
    let path = folder.path().join("authsensor.toml");
    std::fs::write(&path, SHIPPED).unwrap();
    let config = load(&path).unwrap();
    assert_eq!(config.rules, [folder.path().join("rules/detection")]);
    let service = &config.services[0];
    assert_eq!(
        service.listen.iter().map(|listen| (listen.address, listen.port)).collect::<Vec<_>>(),
        [(None, 80), (None, 8080)]
    );
    let reads = service.routes.iter().filter(|route| route.class == RouteClass::AccountRead).count();
    assert_eq!((service.routes.len(), reads), (10, 5));
    assert!(service.issuers.iter().all(|issuer| issuer.observed == Observed::All && !issuer.accountable()));
}

/// The shipped file shows defaults as comments; taking the `#` away must give a file that is accepted too.
#[test]
fn the_shipped_file_loads_with_every_key_uncommented() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("rules/detection")).unwrap();
    write_key(&folder.path().join("canaries.txt"), "1000018\n", 0o600);
    for (key, digit) in [("fingerprint.key", "a"), ("account.key", "b")] {
        write_key(&folder.path().join(key), &digit.repeat(32), 0o600);
    }
    let is_key = |line: &str| {
        let rest = line.strip_prefix("# ").unwrap_or("");
        let word = rest.bytes().take_while(|byte| byte.is_ascii_lowercase() || *byte == b'_').count();
        (word > 0 && rest[word..].starts_with(" = ")) || (rest.starts_with('[') && rest.ends_with(']'))
    };
    let own = rcgen::generate_simple_self_signed(["push.example".to_owned()]).unwrap();
    for file in ["push.pem", "sources-ca.pem"] {
        write_key(&folder.path().join(file), &own.cert.pem(), 0o644);
    }
    write_key(&folder.path().join("push.key"), &own.signing_key.serialize_pem(), 0o600);
    let text: String = SHIPPED
        .lines()
        .map(|line| if is_key(line) { &line[2..] } else { line })
        .fold(String::new(), |text, line| text + line + "\n");
    let path = folder.path().join("authsensor.toml");
    std::fs::write(&path, text).unwrap();
    let config = load(&path).unwrap_or_else(|errors| panic!("{}", super::shown_all(&errors)));
    assert_eq!(config.keys.fingerprint, Some([0xaa; 16]));
    assert_eq!(config.keys.account, Some([0xbb; 16]));
    assert!(config.services[0].issuers.iter().all(Issuer::accountable));
    let push = config.push.as_ref().unwrap();
    assert_eq!((push.max_body, push.queue, push.max_delay), (1 << 20, 65_536, Duration::from_mins(2)));
    let [source] = &push.sources[..] else { panic!("{push:?}") };
    assert_eq!((source.service.0, &source.issuers[..], source.per_second), (0, &[IssuerId(0)][..], 1000));
    assert_eq!(
        (source.subject.clone(), source.kids.join(" ")),
        (PushSubject::Dns("sso.storefront.example".into()), "2026-01".into())
    );
    let debug = format!("{config:?}");
    assert!(debug.contains("fingerprint: \"set\"") && !debug.contains("170, 170"), "a key is printed");
}

pub(super) fn write_key(path: &std::path::Path, text: &str, mode: u32) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn the_hash_names_the_content() {
    let (one, two) = (config(SERVICE).hash, config(&format!("{SERVICE}\n")).hash);
    assert_eq!(one.len(), 32);
    assert_ne!(one, two);
    assert_eq!(one, config(SERVICE).hash);
}

#[test]
fn what_is_allowed_but_odd_is_noted() {
    let all = format!(
        "trusted_proxies = [\"0.0.0.0/0\"]\n[metrics]\nlisten = \"0.0.0.0:9464\"\n{SERVICE}\
         [[service.issuer]]\nname=\"i\"\nkind=\"jwt\"\nmax_lifetime=\"1h\"\nobserved=\"all\"\nrenew_grace=\"1s\"\n\
         [[service.issuer]]\nname=\"j\"\niss=\"j\"\nkind=\"jwt\"\nmax_lifetime=\"1h\"\nconfirmed={{sight=0.5,by=\"k\",on=2026-01-31}}\n\
         [[service.route]]\nclass=\"other\"\nmethods=\"GET\"\npath=\"/a/:id\"\n"
    );
    let notes = warnings(&all);
    let starts = [
        "1:1: no rules are named",
        "1:20: `0.0.0.0/0` trusts every client",
        "3:10: metrics are served to everyone",
        "4:1: the issuer `i` is `observed = \"all\"`, but this service has no login route",
        "11:10: `observed = \"all\"` has no effect without `confirmed`",
        "12:1: `renew_grace` has no effect",
        "18:1: `confirmed` has no effect",
        "18:18: with a sight of 0.5",
        "22:6: the segment `:id` is matched as literal text",
    ];
    assert_eq!(notes.len(), starts.len(), "{notes:#?}");
    for (note, start) in notes.iter().zip(starts) {
        assert!(note.starts_with(start), "{note}\n{start}");
    }
    assert!(warnings("").iter().any(|note| note.contains("no service is declared")));
    let blind = format!("{SERVICE}[service.credentials]\nauthorization=false\n");
    assert!(warnings(&blind).iter().any(|note| note.starts_with("4:1: this service has no credential place")));
    assert!(warnings(SERVICE).iter().any(|note| note.starts_with("1:1: this service declares no issuer")));
}
