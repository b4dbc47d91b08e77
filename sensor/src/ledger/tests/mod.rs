//! The ledger's rules, one test each; attacks, claims and the model are beside this file.

mod attacks;
mod claims;
mod ends;
mod model;
mod register;
mod restart;
mod rules;
mod told;

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sensor_ebpf::siphash::{Key as SipKey, hash128};
use sensor_ebpf::wire::{credential_flag as flag, place, scheme};

use super::*;
use crate::config::model::{
    AccountSource, Bounds, Canaries, Confirmation, Credentials, Findings, IssuanceRule, Issuer, Keys, Kid,
    Ledger as LedgerConfig, LedgerStore, Observed, Place, Route, Service,
};
use crate::observation::{self, IssuerId, RouteClass};

const SERVICE: ServiceId = ServiceId(0);
/// Wall clock, seconds since 1970, when the test ledger starts; its monotonic clock then stands at 1000 s.
const START: i64 = 1_800_000_000;
const LEEWAY: u64 = 120;
const HOUR: u64 = 3600;
/// Lifetime of every issuer's credentials unless a test changes it.
const LIFETIME: u64 = 2 * HOUR;
/// Seconds after the start by which every issuer has been watched for its longest lifetime.
const WARM: u64 = LIFETIME + LEEWAY;

/// `s` seconds after the start.
fn at(s: u64) -> Instant {
    Instant { monotonic_ns: (1000 + s) * 1_000_000_000, unix_ns: (START.unsigned_abs() + s) * 1_000_000_000 }
}

fn fingerprint(name: &str) -> Fingerprint {
    Fingerprint(hash128(SipKey { k0: 7, k1: 11 }, name.as_bytes()))
}

fn issuer(name: &str, jwt: bool) -> Issuer {
    Issuer {
        name: name.to_owned(),
        iss: jwt.then(|| format!("https://{name}.example")),
        kids: Vec::new(),
        combinations: Vec::new(),
        expires: false,
        expiry_grace: Duration::ZERO,
        subject: jwt.then(|| "sub".to_owned()),
        places: Vec::new(),
        jwt,
        observed: Observed::All,
        confirmed: Some(Confirmation {
            sight: 1.0,
            by: "ops".to_owned(),
            on: "2026-01-01".to_owned(),
            ..Confirmation::default()
        }),
        max_lifetime: Duration::from_secs(LIFETIME),
        preexisting: None,
        renews: Vec::new(),
        renew_grace: Duration::from_mins(1),
    }
}

/// One service with an accountable JWT issuer `gate` and an accountable opaque issuer `session`.
fn config() -> Config {
    let route = Route {
        name: "GET /me".to_owned(),
        methods: Vec::new(),
        segments: Vec::new(),
        template: "/me".to_owned(),
        class: RouteClass::AccountRead,
        authenticates_with: Vec::new(),
        outcomes: Vec::new(),
        account: vec![AccountSource::Claim("sub".to_owned())],
        object: None,
        issuance: None,
    };
    Config {
        path: "test".into(),
        hash: String::new(),
        interfaces: Vec::new(),
        trusted_proxies: Vec::new(),
        client_header: crate::config::model::ClientHeader::default(),
        tunnels: false,
        services: vec![Service {
            name: "shop".to_owned(),
            listen: Vec::new(),
            proxy_protocol: false,
            credentials: Credentials { authorization: true, cookies: vec!["sid".into()], ..Credentials::default() },
            routes: vec![route],
            issuers: vec![issuer("gate", true), issuer("session", false)],
            canaries: Canaries::default(),
        }],
        keys: Keys::default(),
        ledger: LedgerConfig {
            store: LedgerStore::Memory,
            sync_interval: Duration::from_millis(100),
            max_issuances: 1000,
            clock_leeway: Duration::from_secs(LEEWAY),
            max_seen: 1000,
            max_accounts: 1000,
        },
        approvals: std::path::PathBuf::new(),
        rules: Vec::new(),
        findings: Findings::Stdout,
        push: None,
        metrics_listen: ([127, 0, 0, 1], 0).into(),
        estimate: crate::config::model::Estimate::default(),
        bounds: Bounds {
            flows: 1,
            split_heads: 1,
            event_ring_bytes: 4096,
            byte_ring_bytes: 4096,
            poll_interval: Duration::from_millis(1),
            pending_requests: 1,
            unanswered_after: Duration::from_secs(1),
            tee_bytes: 1,
            tee_bodies: 1,
            head_bytes: 65_536,
            slow_path_bytes: 1 << 20,
            slow_half_bytes: 1 << 16,
            slow_flows: 64,
            hole_timeout: Duration::from_secs(5),
            fragments: 16,
            decoded_bytes: 1 << 16,
            kids: 4,
            claims_cache: 100,
            rule_groups: 1,
            quiet_groups: 1,
            group_values: 1,
            journal_bytes: 1 << 20,
            open_findings: 4096,
        },
    }
}

fn with(change: impl FnOnce(&mut Config)) -> Ledger {
    let mut config = config();
    change(&mut config);
    Ledger::new(&config, SipKey { k0: 1, k1: 2 }, at(0))
}

fn ledger() -> Ledger {
    with(|_| ())
}

/// `header.payload` as it comes from the kernel.
fn text(header: &str, payload: &str) -> Vec<u8> {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload)).into_bytes()
}

/// Claims of a token of issuer `gate`, issued `s` seconds after the start of the ledger.
fn gate(s: i64) -> Vec<u8> {
    text(
        r#"{"alg":"RS256","kid":"k1"}"#,
        &format!(r#"{{"iss":"https://gate.example","sub":"17","iat":{},"exp":{}}}"#, START + s, START + s + 86_400),
    )
}

fn jwt<'a>(name: &str, claims: &'a [u8]) -> Presented<'a> {
    Presented {
        service: SERVICE,
        place: place::AUTHORIZATION,
        index: 0,
        scheme: scheme::BEARER,
        fingerprint: fingerprint(name),
        flags: flag::THREE_PARTS | flag::CLAIMS,
        claims: Some(claims),
        spends: true,
    }
}

fn cookie(name: &str) -> Presented<'static> {
    Presented {
        service: SERVICE,
        place: place::COOKIE,
        index: 0,
        scheme: 0,
        fingerprint: fingerprint(name),
        flags: 0,
        claims: None,
        spends: true,
    }
}

fn login(name: &str, s: u64) -> Issuance {
    Issuance {
        service: SERVICE,
        fingerprint: fingerprint(name),
        place: place::BODY,
        index: 0,
        at: at(s),
        account: None,
        expires: None,
        inherits: None,
        binds: false,
    }
}

fn refresh(name: &str, s: u64, parent: Provenance) -> Issuance {
    Issuance { inherits: Some(parent), ..login(name, s) }
}

fn binding(name: &str, s: u64) -> Issuance {
    Issuance { place: place::COOKIE, binds: true, ..login(name, s) }
}

impl Ledger {
    /// Provenance of an opaque session cookie.
    fn of(&mut self, name: &str, s: u64) -> Provenance {
        self.judge(&cookie(name), at(s)).provenance
    }

    /// Provenance of a token of issuer `gate`.
    fn of_jwt(&mut self, name: &str, iat: i64, s: u64) -> Provenance {
        self.judge(&jwt(name, &gate(iat)), at(s)).provenance
    }
}
