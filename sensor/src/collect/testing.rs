//! A configuration, a sink and runs for the tests of the collector, and of whoever stands behind it; records built by hand
//! are in [`record`].

mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use sensor_ebpf::siphash::{self, hash128};

pub use self::record::RecordBuilder;
use super::{Clock, Collector, Keys, Sink, Transaction};
use crate::config::model::{self, *};
use crate::ledger::Ledger;
use crate::observation::{AccountHash, Observation, Outcome, RouteClass};

pub const KEYS: Keys = Keys { fingerprint: siphash::Key { k0: 1, k1: 2 }, account: siphash::Key { k0: 3, k1: 4 } };
/// Time of the first record of a test: long after the ledger's start, so that its horizon has passed.
pub const BASE: u64 = 200_000_000_000_000;
pub const MS: u64 = 1_000_000;
pub const CLOCK: Clock = Clock { unix_offset_ns: 1_760_000_000_000_000_000 };

pub fn fingerprint(text: &str) -> [u8; 16] {
    hash128(KEYS.fingerprint, text.as_bytes())
}

pub fn account(text: &str) -> AccountHash {
    AccountHash(hash128(KEYS.account, text.as_bytes()))
}

/// `header.payload.signature` of a JWT for `subject`.
pub fn jwt(subject: &str) -> String {
    token(&format!(r#"{{"sub":"{subject}"}}"#))
}

/// The same with these claims.
pub fn token(payload: &str) -> String {
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", part(r#"{"alg":"RS256","kid":"k1"}"#), part(payload))
}

fn route(method: &str, template: &str, class: RouteClass) -> Route {
    let segments = template.split('/').skip(1).map(|text| match text.strip_prefix('{') {
        Some(name) => Segment::Parameter(name.trim_end_matches('}').to_owned()),
        None => Segment::Literal(text.to_owned()),
    });
    let rule = |outcome, low, high| OutcomeRule {
        outcome,
        status: vec![low..=high],
        min_length: None,
        content_type: None,
        location: None,
    };
    Route {
        name: format!("{method} {template}"),
        methods: vec![Method::new(method)],
        segments: segments.collect(),
        template: template.to_owned(),
        class,
        authenticates_with: Vec::new(),
        outcomes: vec![rule(Outcome::Read, 200, 299), rule(Outcome::Miss, 404, 404), rule(Outcome::Denied, 401, 403)],
        account: Vec::new(),
        object: None,
        issuance: None,
    }
}

fn issuing(method: &str, template: &str, class: RouteClass, issuance: IssuanceRule) -> Route {
    Route { issuance: Some(issuance), ..route(method, template, class) }
}

fn routes() -> Vec<Route> {
    let all = vec![
        AccountSource::Path(1),
        AccountSource::Query("user".to_owned()),
        AccountSource::Claim("sub".to_owned()),
        AccountSource::Issuance,
        AccountSource::Fingerprint,
    ];
    let cookie = || vec![IssueSource::SetCookie(0)];
    let mut addresses = route("GET", "/users/{id}/addresses", RouteClass::AccountRead);
    addresses.account.clone_from(&all);
    let mut profile = route("GET", "/users/{id}", RouteClass::AccountRead);
    profile.account.clone_from(&all);
    profile.outcomes[0].min_length = Some(100);
    profile.outcomes[0].content_type = Some("application/json".to_owned());
    profile.outcomes.insert(
        0,
        OutcomeRule {
            outcome: Outcome::Denied,
            status: vec![302..=302],
            min_length: None,
            content_type: None,
            location: Some("/login".to_owned()),
        },
    );
    let mut mine = route("GET", "/mine", RouteClass::AccountRead);
    mine.account.clone_from(&all);
    mine.account.remove(0);
    mine.authenticates_with = vec![Place::Authorization, Place::Cookie(0), Place::Query(0)];
    vec![
        issuing(
            "POST",
            "/login",
            RouteClass::Login,
            IssuanceRule {
                success: Success {
                    location_not: Some("/login".to_owned()),
                    sets_cookie: Some(0),
                    ..Success::default()
                },
                issues: cookie(),
                ..IssuanceRule::default()
            },
        ),
        issuing(
            "POST",
            "/api/login",
            RouteClass::Login,
            IssuanceRule {
                success: Success { json: Some(("/ok".to_owned(), true.into())), ..Success::default() },
                issues: vec![IssueSource::Json("/data/token".to_owned()), IssueSource::SetCookie(0)],
                account_pointer: Some("/data/user".to_owned()),
                ..IssuanceRule::default()
            },
        ),
        issuing(
            "POST",
            "/header/login",
            RouteClass::Login,
            IssuanceRule { issues: vec![IssueSource::Header(0)], ..IssuanceRule::default() },
        ),
        issuing(
            "POST",
            "/refresh",
            RouteClass::Refresh,
            IssuanceRule {
                issues: vec![IssueSource::Json("/token".to_owned())],
                presents: vec![PresentSource::Json("/refresh_token".to_owned())],
                ..IssuanceRule::default()
            },
        ),
        issuing(
            "POST",
            "/cookie/refresh",
            RouteClass::Refresh,
            IssuanceRule { issues: cookie(), ..IssuanceRule::default() },
        ),
        issuing(
            "POST",
            "/form/refresh",
            RouteClass::Refresh,
            IssuanceRule {
                issues: cookie(),
                presents: vec![PresentSource::Form("refresh_token".to_owned())],
                ..IssuanceRule::default()
            },
        ),
        issuing(
            "POST",
            "/bind",
            RouteClass::Login,
            IssuanceRule { binds: vec![Place::Cookie(0)], ..IssuanceRule::default() },
        ),
        issuing("POST", "/logout", RouteClass::Logout, IssuanceRule::default()),
        addresses,
        route("GET", "/users/me", RouteClass::Other),
        profile,
        mine,
    ]
}

fn issuer(name: &str, jwt: bool) -> Issuer {
    Issuer {
        name: name.to_owned(),
        iss: None,
        kids: Vec::new(),
        combinations: Vec::new(),
        expires: false,
        expiry_grace: Duration::ZERO,
        subject: jwt.then(|| "sub".to_owned()),
        places: Vec::new(),
        jwt,
        observed: Observed::All,
        confirmed: Some(Confirmation {
            sight: 0.99,
            by: "ops".to_owned(),
            on: "2026-01-01".to_owned(),
            ..Confirmation::default()
        }),
        max_lifetime: Duration::from_hours(1),
        preexisting: None,
        renews: if jwt { Vec::new() } else { vec![1] },
        renew_grace: Duration::from_mins(1),
    }
}

/// A storefront with every kind of route.
pub fn config() -> Config {
    Config {
        path: PathBuf::new(),
        hash: String::new(),
        interfaces: Vec::new(),
        trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        client_header: ClientHeader::default(),
        tunnels: false,
        services: vec![Service {
            name: "shop".to_owned(),
            listen: vec![Listen { address: None, port: 8080 }],
            proxy_protocol: false,
            credentials: Credentials {
                authorization: true,
                cookies: vec!["sid".to_owned(), "roll".to_owned()],
                headers: vec!["x-token".to_owned()],
                query: vec!["token".to_owned(), "key".to_owned()],
                response_headers: vec!["x-issued".to_owned()],
                pieces: Vec::new(),
            },
            routes: routes(),
            issuers: vec![issuer("session", false), issuer("tokens", true)],
            canaries: Canaries::default(),
        }],
        keys: model::Keys::default(),
        ledger: model::Ledger {
            store: LedgerStore::Memory,
            sync_interval: Duration::from_millis(500),
            max_accounts: 1000,
            max_issuances: 1000,
            clock_leeway: Duration::from_mins(2),
            max_seen: 1000,
        },
        approvals: PathBuf::new(),
        rules: Vec::new(),
        findings: Findings::Stdout,
        push: None,
        metrics_listen: "127.0.0.1:9464".parse().unwrap(),
        estimate: Estimate::default(),
        bounds: Bounds {
            flows: 1024,
            split_heads: 16,
            event_ring_bytes: 1 << 20,
            byte_ring_bytes: 1 << 20,
            poll_interval: Duration::from_millis(10),
            pending_requests: 1000,
            unanswered_after: Duration::from_secs(30),
            tee_bytes: 4096,
            tee_bodies: 16,
            head_bytes: 65_536,
            slow_path_bytes: 1 << 20,
            slow_half_bytes: 1 << 16,
            slow_flows: 64,
            hole_timeout: Duration::from_secs(5),
            fragments: 16,
            decoded_bytes: 1 << 16,
            kids: 16,
            claims_cache: 16,
            rule_groups: 16,
            quiet_groups: 16,
            group_values: 16,
            journal_bytes: 1 << 20,
            open_findings: 4096,
        },
    }
}

pub fn collector() -> Collector {
    collector_with(config())
}

pub fn collector_with(config: Config) -> Collector {
    let started = CLOCK.instant(0);
    let ledger = Ledger::new(&config, KEYS.account, started);
    Collector::new(Arc::new(config), KEYS, CLOCK, ledger)
}

/// Index of the route with `template`.
pub fn route_index(template: &str) -> u16 {
    let at = routes().iter().position(|route| route.template == template);
    u16::try_from(at.unwrap()).unwrap()
}

/// Keeps what the collector makes.
#[derive(Debug, Default)]
pub struct Kept {
    pub observations: Vec<Observation>,
    pub lines: Vec<String>,
    pub unmatched: Vec<String>,
}

impl Sink for Kept {
    fn observation(&mut self, observation: &Observation, transaction: &Transaction<'_>) {
        self.observations.push(*observation);
        self.lines.push(transaction.to_json_line());
    }

    fn unmatched(&mut self, transaction: &Transaction<'_>) {
        self.unmatched.push(transaction.to_json_line());
    }
}

impl Kept {
    /// The transactions as JSON values.
    pub fn json(&self) -> Vec<serde_json::Value> {
        self.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Feeds `records` in the given order to a fresh collector and ends the capture.
pub fn run(records: impl IntoIterator<Item = RecordBuilder>) -> (Kept, Collector) {
    run_with(config(), records)
}

/// The same with another configuration.
pub fn run_with(config: Config, records: impl IntoIterator<Item = RecordBuilder>) -> (Kept, Collector) {
    let mut collector = collector_with(config);
    let mut kept = Kept::default();
    for record in records {
        collector.record(&record.build());
    }
    collector.finish(&mut kept);
    check_identities(&collector, &kept);
    (kept, collector)
}

/// The identities of the collector's counts.
pub fn check_identities(collector: &Collector, kept: &Kept) {
    let counts = collector.counts();
    assert_eq!(counts.requests, counts.observations + counts.pending);
    assert_eq!(counts.observations + counts.versions_more, kept.observations.len() as u64);
}
