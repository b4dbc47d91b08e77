//! Records built by hand, a configuration and a sink for the tests.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use sensor_ebpf::siphash::{self, hash128};
use sensor_ebpf::wire::{
    Credential, NO_LENGTH, NO_ROUTE, capture, credential_flag, direction, framing, head_flag, kind, place, scheme,
    version,
};

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
    let part = |text: &str| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}.c2ln", part(r#"{"alg":"RS256","kid":"k1"}"#), part(&format!(r#"{{"sub":"{subject}"}}"#)))
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

/// Builds one record.
#[derive(Clone)]
pub struct RecordBuilder {
    kind: u8,
    direction: u8,
    flow: u64,
    txn: u32,
    time_ns: u64,
    service: u16,
    route: u16,
    status: u16,
    content_length: u64,
    anomalies: u32,
    framing: u8,
    flags: u8,
    client: [u8; 16],
    proxied: [u8; 16],
    credentials: Vec<Credential>,
    captures: [Vec<u8>; capture::COUNT],
    claims: Vec<(usize, Vec<u8>)>,
    offset: u64,
    body: Vec<u8>,
    body_bytes: u64,
}

impl RecordBuilder {
    pub fn new(kind: u8, flow: u64, txn: u32) -> Self {
        Self {
            kind,
            direction: u8::from(!matches!(kind, kind::REQUEST | kind::VERSION)),
            flow,
            txn,
            time_ns: BASE,
            service: 0,
            route: NO_ROUTE,
            status: 0,
            content_length: NO_LENGTH,
            anomalies: 0,
            framing: framing::NONE,
            flags: 0,
            client: mapped("198.51.100.7"),
            proxied: [0; 16],
            credentials: Vec::new(),
            captures: Default::default(),
            claims: Vec::new(),
            offset: 0,
            body: Vec::new(),
            body_bytes: 0,
        }
    }

    /// A request at `at` milliseconds after [`BASE`].
    pub fn request(flow: u64, txn: u32, at: u64, line: &str) -> Self {
        Self::new(kind::REQUEST, flow, txn)
            .at(at)
            .capture(capture::LINE, line.as_bytes())
            .capture(capture::HOST, b"shop.example")
    }

    /// Another version of a request.
    pub fn version(flow: u64, txn: u32, at: u64, line: &str) -> Self {
        Self { kind: kind::VERSION, ..Self::request(flow, txn, at, line) }
    }

    /// Of a version: the first reading has no such request.
    pub fn more(self) -> Self {
        Self { flags: self.flags | head_flag::MORE, ..self }
    }

    /// A response with a body of 500 bytes.
    pub fn response(flow: u64, txn: u32, at: u64, status: u16) -> Self {
        Self { status, content_length: 500, framing: framing::LENGTH, ..Self::new(kind::RESPONSE, flow, txn).at(at) }
    }

    /// A chunk of a teed body.
    pub fn tee(flow: u64, txn: u32, at: u64, direction: u8, offset: u64, body: &[u8]) -> Self {
        Self { direction, offset, body: body.to_owned(), ..Self::new(kind::TEE, flow, txn).at(at) }
    }

    pub fn tee_end(flow: u64, txn: u32, at: u64, direction: u8, body_bytes: u64) -> Self {
        Self { direction, body_bytes, ..Self::new(kind::TEE_END, flow, txn).at(at) }
    }

    pub fn end(flow: u64, txn: u32, at: u64, body_bytes: u64) -> Self {
        Self { body_bytes, direction: direction::RESPONSE, ..Self::new(kind::END, flow, txn).at(at) }
    }

    pub fn close(flow: u64, at: u64) -> Self {
        Self::new(kind::CLOSE, flow, 0).at(at)
    }

    pub fn at(self, ms: u64) -> Self {
        Self { time_ns: BASE + ms * MS, ..self }
    }

    pub fn client(self, address: &str) -> Self {
        Self { client: mapped(address), ..self }
    }

    /// What a PROXY protocol header named.
    pub fn proxied(self, address: &str) -> Self {
        Self { proxied: mapped(address), ..self }
    }

    pub fn anomalies(self, anomalies: u32) -> Self {
        Self { anomalies, ..self }
    }

    pub fn service(self, service: u16) -> Self {
        Self { service, ..self }
    }

    pub fn route(self, template: &str) -> Self {
        Self { route: route_index(template), ..self }
    }

    pub fn teed(self) -> Self {
        Self { flags: self.flags | head_flag::TEE, ..self }
    }

    /// A chunked body, the length of which an END record gives.
    pub fn chunked(self) -> Self {
        Self {
            framing: framing::CHUNKED,
            content_length: NO_LENGTH,
            flags: self.flags | head_flag::END_FOLLOWS,
            ..self
        }
    }

    pub fn length(self, content_length: u64) -> Self {
        Self { content_length, framing: framing::LENGTH, ..self }
    }

    pub fn capture(mut self, which: usize, bytes: &[u8]) -> Self {
        self.captures[which] = bytes.to_owned();
        self
    }

    /// Of the latest credential.
    pub fn scheme(mut self, scheme: u8) -> Self {
        self.credentials.last_mut().unwrap().scheme = scheme;
        self
    }

    pub fn credential(mut self, place: u8, index: u8, text: &str) -> Self {
        let mut credential = Credential {
            fingerprint: fingerprint(text),
            len: u32::try_from(text.len()).unwrap(),
            place,
            index,
            scheme: if place == place::AUTHORIZATION { scheme::BEARER } else { scheme::BARE },
            ..Credential::default()
        };
        if let [header, payload, _] = text.split('.').collect::<Vec<_>>()[..] {
            credential.flags = credential_flag::THREE_PARTS | credential_flag::CLAIMS;
            credential.dots = 2;
            self.claims.push((self.credentials.len(), format!("{header}.{payload}").into_bytes()));
        }
        self.credentials.push(credential);
        self
    }

    /// Of the latest credential.
    pub fn credential_flags(mut self, flags: u16) -> Self {
        self.credentials.last_mut().unwrap().flags |= flags;
        self
    }

    pub fn bearer(self, text: &str) -> Self {
        self.credential(place::AUTHORIZATION, 0, text)
    }

    pub fn cookie(self, text: &str) -> Self {
        self.credential(place::COOKIE, 0, text)
    }

    pub fn set_cookie(self, text: &str) -> Self {
        self.credential(place::SET_COOKIE, 0, text)
    }

    /// A query credential whose value was cut out at `cut_at` of the line.
    pub fn query(mut self, index: u8, text: &str, cut_at: u16) -> Self {
        self = self.credential(place::QUERY, index, text);
        self.credentials.last_mut().unwrap().cut_at = cut_at;
        self
    }

    pub fn build(mut self) -> Vec<u8> {
        let mut area = Vec::new();
        let mut spans = Vec::new();
        for bytes in &self.captures {
            spans.push(put(&mut area, bytes));
        }
        for (index, bytes) in &self.claims {
            let (at, len) = put(&mut area, bytes);
            self.credentials[*index].claims = sensor_ebpf::wire::Span { at, len };
        }
        let mut out = vec![0; 4];
        out.extend([self.kind, self.direction]);
        out.extend(self.service.to_le_bytes());
        out.extend(self.time_ns.to_le_bytes());
        out.extend(self.flow.to_le_bytes());
        out.extend([0; 8]);
        out.extend(self.txn.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.offset.to_le_bytes());
        match self.kind {
            kind::REQUEST | kind::VERSION | kind::RESPONSE => self.put_head(&mut out, &spans, &area),
            kind::END | kind::TEE_END => {
                out.extend(self.body_bytes.to_le_bytes());
                out.extend(1u64.to_le_bytes());
            }
            kind::TEE => {
                out.extend(u32::try_from(self.body.len()).unwrap().to_le_bytes());
                out.extend([0; 4]);
                out.extend(&self.body);
            }
            _ => {}
        }
        let size = u32::try_from(out.len()).unwrap();
        out[..4].copy_from_slice(&size.to_le_bytes());
        out
    }

    fn put_head(&self, out: &mut Vec<u8>, spans: &[(u16, u16)], area: &[u8]) {
        out.extend(self.client);
        out.extend(mapped("192.0.2.1"));
        out.extend(40_000u16.to_le_bytes());
        out.extend(8080u16.to_le_bytes());
        out.extend(self.route.to_le_bytes());
        out.extend(self.status.to_le_bytes());
        out.extend(self.content_length.to_le_bytes());
        out.extend([0; 8]);
        out.extend([0; 4]);
        out.extend(self.anomalies.to_le_bytes());
        out.extend([0, version::HTTP_11, self.framing, self.flags]);
        out.extend(u16::try_from(self.credentials.len()).unwrap().to_le_bytes());
        out.extend(u16::try_from(area.len()).unwrap().to_le_bytes());
        for (at, len) in spans {
            out.extend(at.to_le_bytes());
            out.extend(len.to_le_bytes());
        }
        out.extend(self.proxied);
        out.extend(4711u16.to_le_bytes());
        out.extend([0; 6]);
        for one in &self.credentials {
            out.extend(one.fingerprint);
            out.extend(one.len.to_le_bytes());
            out.extend(one.claims.at.to_le_bytes());
            out.extend(one.claims.len.to_le_bytes());
            out.extend([one.place, one.index, one.scheme, one.dots]);
            out.extend(one.cut_at.to_le_bytes());
            out.extend(one.flags.to_le_bytes());
        }
        out.extend(area);
    }
}

fn put(area: &mut Vec<u8>, bytes: &[u8]) -> (u16, u16) {
    let at = u16::try_from(area.len()).unwrap();
    area.extend(bytes);
    (at, u16::try_from(bytes.len()).unwrap())
}

fn mapped(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
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
