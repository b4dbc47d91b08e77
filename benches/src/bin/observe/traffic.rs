//! Members on their visits, as the ledger, the estimators and the rules get to see them.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use benches::behind::{Random, own_read};
use sensor::collect::{Answer, Exchange, Keys, Shown};
use sensor::ledger::{Expected, Issuance, Ledger, Presented, Verdict};
use sensor::observation::{AccountHash, Fingerprint, Instant, Observation, Relation, RouteId, ServiceId};
use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::{Credential, credential_flag, method, place, scheme};

use crate::Args;

/// When the traffic begins, nanoseconds since 1970 (2025-04-13).
pub const START_NS: u64 = 1_744_502_400_000_000_000;
const SECOND: u64 = 1_000_000_000;
/// Reads that come from another network than the visit's own: one in so many.
const ROAMS: u64 = 50;
/// Members of whom one has an address of a carrier, and members behind one such address.
const CARRIER: u64 = 5;
const BEHIND: u64 = 5_000;
/// The pages of an account, by route of the configuration.
const PAGES: [(u16, &str); 3] = [(6, ""), (7, "/addresses"), (8, "/orders")];

/// A member with the token of the visit.
#[derive(Clone, Default)]
struct Visit {
    member: u64,
    fingerprint: [u8; 16],
    claims: Vec<u8>,
}

/// The traffic.
pub struct Traffic {
    keys: Keys,
    random: Random,
    visits: Vec<Visit>,
    members: u64,
    reads: u64,
    rate: u64,
    /// Tokens handed out so far.
    tokens: u64,
    /// Requests so far.
    requests: u64,
}

/// One request of a turn.
pub struct Request {
    at: Instant,
    member: u64,
    client: u32,
    page: (u16, &'static str),
    line: Vec<u8>,
    credential: Credential,
    claims: Vec<u8>,
    account: AccountHash,
    /// What a login handed out right before it.
    issued: Option<Issuance>,
}

/// A request as the pipeline takes it.
pub struct Whole<'a> {
    request: &'a Request,
    shown: [Shown<'a>; 1],
}

/// What comes at once.
pub struct Turn(Vec<Request>);

impl Traffic {
    pub fn new(args: &Args, keys: Keys) -> Self {
        Self {
            keys,
            random: Random(args.seed),
            visits: vec![Visit::default(); args.present.max(1)],
            members: args.members,
            reads: args.reads,
            rate: args.rate,
            tokens: 1 << 40,
            requests: 0,
        }
    }

    fn issuance(&self, fingerprint: [u8; 16], member: u64, at: Instant) -> Issuance {
        Issuance {
            service: ServiceId(0),
            fingerprint: Fingerprint(fingerprint),
            place: place::BODY,
            index: 0,
            at,
            account: Some(self.account(member)),
            expires: None,
            inherits: None,
            binds: false,
        }
    }

    fn account(&self, member: u64) -> AccountHash {
        AccountHash(hash128(self.keys.account, member.to_string().as_bytes()))
    }

    /// Issuances from before the start.
    pub fn earlier(&self, numbers: Range<u64>) -> Vec<Issuance> {
        let at = Instant { monotonic_ns: START_NS - 3600 * SECOND, unix_ns: START_NS - 3600 * SECOND };
        let issuance = |number: u64| {
            let fingerprint = hash128(self.keys.fingerprint, &number.to_le_bytes());
            Issuance { account: None, ..self.issuance(fingerprint, 0, at) }
        };
        numbers.map(issuance).collect()
    }

    /// The next requests.
    pub fn turn(&mut self, count: usize) -> Turn {
        Turn((0..count).map(|_| self.request()).collect())
    }

    fn request(&mut self) -> Request {
        self.requests += 1;
        let ns = START_NS + self.requests * SECOND / self.rate.max(1);
        let at = Instant { monotonic_ns: ns, unix_ns: ns };
        let seat = usize::try_from(self.random.below(self.visits.len() as u64)).unwrap_or(0);
        let new = self.random.below(self.reads) == 0 || self.visits.get(seat).is_none_or(|visit| visit.member == 0);
        let mut issued = None;
        if new {
            let member = 1 + self.random.below(self.members);
            self.tokens += 1;
            let claims = claims(member, self.tokens, ns / SECOND);
            let fingerprint = hash128(self.keys.fingerprint, &claims);
            issued = Some(self.issuance(fingerprint, member, at));
            if let Some(visit) = self.visits.get_mut(seat) {
                *visit = Visit { member, fingerprint, claims };
            }
        }
        let visit = self.visits.get(seat).cloned().unwrap_or_default();
        let mut client = 0x0b00_0000 + u32::try_from(visit.member).unwrap_or(0);
        if visit.member.is_multiple_of(CARRIER) {
            client = 0x6440_0000 + u32::try_from(visit.member / CARRIER / BEHIND).unwrap_or(0);
        }
        if self.random.below(ROAMS) == 0 {
            client ^= 0x0100_0000;
        }
        let which = usize::try_from(self.random.below(PAGES.len() as u64)).unwrap_or(0);
        let page = PAGES.get(which).copied().unwrap_or_default();
        Request {
            at,
            member: visit.member,
            client,
            page,
            line: format!("GET /members/{}{} HTTP/1.1", visit.member, page.1).into_bytes(),
            credential: Credential {
                fingerprint: visit.fingerprint,
                len: u32::try_from(visit.claims.len() + 44).unwrap_or(0),
                place: place::AUTHORIZATION,
                scheme: scheme::BEARER,
                dots: 2,
                flags: credential_flag::THREE_PARTS | credential_flag::CLAIMS,
                ..Credential::default()
            },
            claims: visit.claims,
            account: self.account(visit.member),
            issued,
        }
    }
}

/// Header and payload of a token.
fn claims(member: u64, number: u64, now_s: u64) -> Vec<u8> {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","kid":"2025-04","typ":"JWT"}"#);
    let payload = format!(
        r#"{{"iss":"https://auth.storefront.example","aud":"storefront","scope":"member","sub":"{member}","iat":{now_s},"exp":{},"jti":"{number:016x}"}}"#,
        now_s + 3600
    );
    format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload)).into_bytes()
}

impl Request {
    fn presented(&self) -> Presented<'_> {
        Presented {
            service: ServiceId(0),
            place: self.credential.place,
            index: 0,
            scheme: self.credential.scheme,
            fingerprint: Fingerprint(self.credential.fingerprint),
            flags: self.credential.flags,
            claims: Some(&self.claims),
            spends: true,
        }
    }

    fn expected(&self) -> Expected {
        let (service, flags) = (ServiceId(0), self.credential.flags);
        Expected { service, fingerprint: Fingerprint(self.credential.fingerprint), flags }
    }
}

impl Turn {
    /// When the turn is over.
    pub fn now(&self) -> Instant {
        self.0.last().map_or(Instant { monotonic_ns: 0, unix_ns: 0 }, |request| request.at)
    }

    /// What the logins of new visits hand out.
    pub fn issued(&self) -> impl Iterator<Item = Issuance> {
        self.0.iter().filter_map(|request| request.issued)
    }

    /// What the ledger does: issuances of new visits, and a verdict on each token.
    pub fn judge(&self, ledger: &mut Ledger, window: usize) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(self.0.len());
        for some in self.0.chunks(window) {
            for request in some {
                ledger.expect(request.expected());
            }
            for request in some {
                ledger.expect_soon(request.expected());
            }
            for request in some {
                if let Some(issuance) = request.issued {
                    ledger.issue(issuance);
                }
                verdicts.push(ledger.judge(&request.presented(), request.at));
            }
        }
        verdicts
    }

    /// What the collector makes of requests and verdicts.
    pub fn observations(&self, verdicts: &[Verdict]) -> Vec<Observation> {
        let observation = |(request, verdict): (&Request, &Verdict)| {
            let client = IpAddr::V4(Ipv4Addr::from(request.client));
            Observation {
                provenance: verdict.provenance,
                validity: verdict.validity,
                fingerprint: Some(Fingerprint(request.credential.fingerprint)),
                issuer: verdict.issuer,
                kid: verdict.kid,
                place: request.credential.place,
                self_contained: verdict.self_contained,
                claims: verdict.claims,
                claim_anomalies: verdict.anomalies,
                relation: if verdict.subject == Some(request.account) { Relation::Own } else { Relation::Foreign },
                target_id: Some(request.member),
                ..own_read(request.at, RouteId(request.page.0), request.account, client)
            }
        };
        self.0.iter().zip(verdicts).map(observation).collect()
    }

    /// As the pipeline takes it.
    pub fn exchanges(&self) -> Vec<Whole<'_>> {
        let whole = |request| Whole { request, shown: [Shown::default()] };
        let mut all: Vec<Whole<'_>> = self.0.iter().map(whole).collect();
        for one in &mut all {
            one.shown = [Shown { credential: one.request.credential, claims: &one.request.claims }];
        }
        all
    }
}

impl Whole<'_> {
    /// The exchange.
    pub fn exchange(&self) -> Exchange<'_> {
        let mut client = [0; 16];
        let mapped = Ipv4Addr::from(self.request.client).to_ipv6_mapped().octets();
        client.copy_from_slice(&mapped);
        let at_ns = self.request.at.monotonic_ns;
        Exchange {
            at_ns,
            service: 0,
            client,
            method: method::GET,
            line: &self.request.line,
            host: b"shop.example",
            shown: &self.shown,
            answer: Some(Answer { at_ns, status: 200, bytes: Some(1834), ..Answer::default() }),
            ..Exchange::default()
        }
    }
}
