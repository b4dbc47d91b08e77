//! The checked configuration: what the rest of the program sees.
//!
//! Every value here has passed `authsensor check`; nothing behind this type validates again. Names and units follow
//! the TOML schema (`docs/configure.md`).

mod issuer;
mod push;
mod route;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

pub use self::issuer::{Combination, Confirmation, Issuer, Kid, Observed};
pub use self::push::{PUSHED_ISSUERS, Push, PushFiles, PushSource, PushSubject, PushTls};
pub use self::route::{
    AccountSource, IssuanceRule, IssueSource, Method, OutcomeRule, PresentSource, Route, Segment, Success,
};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it was read from.
    pub path: PathBuf,
    /// SHA-256-free stable hash of the file's bytes (hex SipHash), shown in the `rule_info`/`config_info` metrics.
    pub hash: String,
    /// Interfaces to watch; empty: the default-route interface.
    pub interfaces: Vec<String>,
    /// Networks whose forwarding header (and PROXY protocol) is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The forwarding header that these set.
    pub client_header: ClientHeader,
    /// Traffic inside VXLAN, GENEVE, GRE, IP-in-IP, GTP-U and Teredo is looked into.
    pub tunnels: bool,
    /// The services, in file order ([`crate::observation::ServiceId`] is the index).
    pub services: Vec<Service>,
    /// Key files.
    pub keys: Keys,
    /// The ledger.
    pub ledger: Ledger,
    /// The push endpoint, if there is one.
    pub push: Option<Push>,
    /// Where approvals of issuers stand.
    pub approvals: PathBuf,
    /// Where rules are.
    pub rules: Vec<PathBuf>,
    /// Where findings go.
    pub findings: Findings,
    /// The metrics endpoint.
    pub metrics_listen: SocketAddr,
    /// Every bound (DESIGN invariant 4).
    pub bounds: Bounds,
    /// What estimators keep, and the doubt that is budgeted.
    pub estimate: Estimate,
}

/// The header in which trusted proxies name the client. Any other one passes through them as the client wrote it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientHeader {
    /// `X-Forwarded-For`
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239)
    Forwarded,
    /// `X-Real-IP`
    XRealIp,
}

/// Keyed-hash key files, 32 hex digits each. Without a file a key is drawn at start and dies with the process.
#[derive(Clone, Default)]
pub struct Keys {
    /// Key of credential fingerprints.
    pub fingerprint: Option<[u8; 16]>,
    /// Key of account hashes.
    pub account: Option<[u8; 16]>,
}

impl std::fmt::Debug for Keys {
    /// Says which keys are set, never what they are.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |key: &Option<[u8; 16]>| if key.is_some() { "set" } else { "drawn at start" };
        f.debug_struct("Keys")
            .field("fingerprint", &word(&self.fingerprint))
            .field("account", &word(&self.account))
            .finish()
    }
}

/// One protected listener.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// Name: label in metrics, rules and findings.
    pub name: String,
    /// Addresses and ports; no address means every address of this host (replay: any address).
    pub listen: Vec<Listen>,
    /// Connections begin with a PROXY protocol header.
    pub proxy_protocol: bool,
    /// Where credentials stand.
    pub credentials: Credentials,
    /// Routes, in file order.
    pub routes: Vec<Route>,
    /// Issuers, in file order.
    pub issuers: Vec<Issuer>,
    /// Decoy accounts that nobody ever logs into.
    pub canaries: Canaries,
}

/// Account identifiers of decoys, as routes name them. They never leave the process but as keyed hashes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Canaries(pub Vec<String>);

/// Who is a decoy must not be told by what prints this.
impl std::fmt::Debug for Canaries {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Canaries({})", self.0.len())
    }
}

/// One listen address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen {
    /// Address, or every address.
    pub address: Option<IpAddr>,
    /// Port.
    pub port: u16,
}

/// Credential places of a service; indexes are those of `sensor_ebpf::wire::Credential::index`.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// `Authorization`, any scheme in any letter case, or none.
    pub authorization: bool,
    /// Cookie names (case-sensitive), at most `COOKIES_MAX`.
    pub cookies: Vec<String>,
    /// Request header names, lower case, at most `HEADERS_MAX`.
    pub headers: Vec<String>,
    /// Query parameter names (case-sensitive), at most `QUERY_MAX`.
    pub query: Vec<String>,
    /// Response headers that hand out credentials, lower case, at most `RESPONSE_HEADERS_MAX`
    /// (collected from the routes' `issues`).
    pub response_headers: Vec<String>,
    /// Credentials that come in several cookies.
    pub pieces: Vec<Pieces>,
}

/// A credential that is cut into several cookies, and stands in for all of them as the first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pieces {
    /// Indexes into [`Credentials::cookies`], in their order: the cookie as a whole, then its pieces.
    pub cookies: Vec<u8>,
}

/// A credential place by name, as routes and issuers refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `authorization`
    Authorization,
    /// `cookie:NAME`, index into [`Credentials::cookies`].
    Cookie(u8),
    /// `header:NAME`, index into [`Credentials::headers`].
    Header(u8),
    /// `query:NAME`, index into [`Credentials::query`].
    Query(u8),
}

/// Where issuances are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerStore {
    /// In this process; they are gone with it.
    Memory,
    /// In a folder; they outlive the process.
    Folder(PathBuf),
}

/// The ledger's bounds and clock rules.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// Where issuances are kept.
    pub store: LedgerStore,
    /// How often what was written is made durable.
    pub sync_interval: Duration,
    /// Most issuances kept.
    pub max_issuances: usize,
    /// How far the clocks of issuers may be off (`iat`, `exp`).
    pub clock_leeway: Duration,
    /// Most recently used credentials remembered, to tell an echo from an issuance.
    pub max_seen: usize,
    /// Most accounts of recent issuances kept in memory, with the notes of their credentials.
    pub max_accounts: usize,
}

/// Where findings go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Findings {
    /// Standard output.
    Stdout,
    /// Appended to a file.
    File(PathBuf),
}

/// Every bound of the data plane.
#[derive(Clone, Debug)]
pub struct Bounds {
    /// Flows in the kernel's table.
    pub flows: u32,
    /// Heads split over segments that are held at once.
    pub split_heads: u32,
    /// Event ring, bytes (power of two).
    pub event_ring_bytes: u32,
    /// Byte ring, bytes (power of two).
    pub byte_ring_bytes: u32,
    /// How often the rings are read.
    pub poll_interval: Duration,
    /// Requests waiting for their response.
    pub pending_requests: usize,
    /// After which a request counts as unanswered.
    pub unanswered_after: Duration,
    /// Most bytes of a teed body that are kept.
    pub tee_bytes: usize,
    /// Teed bodies kept at once.
    pub tee_bodies: usize,
    /// Longest head that is followed, bytes.
    pub head_bytes: u32,
    /// Most bytes that the slow path holds of all flows.
    pub slow_path_bytes: usize,
    /// Most bytes that the slow path holds of one half of a flow, waiting for those before them.
    pub slow_half_bytes: usize,
    /// Flows that the slow path follows at once.
    pub slow_flows: usize,
    /// How long missing bytes are waited for.
    pub hole_timeout: Duration,
    /// Fragmented IP packets that are put together at once.
    pub fragments: usize,
    /// Most bytes that a compressed body may grow to.
    pub decoded_bytes: usize,
    /// Distinct `kid`s told apart.
    pub kids: usize,
    /// Decoded claims cached.
    pub claims_cache: usize,
    /// Groups of one rule kept at once.
    pub rule_groups: usize,
    /// Groups of one rule that have hardly anything in them yet.
    pub quiet_groups: usize,
    /// Distinct values counted exactly per group.
    pub group_values: usize,
    /// Bytes on disk of what rules must know again after a restart.
    pub journal_bytes: u64,
    /// Open findings that are compared with each other.
    pub open_findings: usize,
}

/// What estimators keep, and the doubt that is budgeted.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Walks over identifiers followed at once; half as many clients and networks.
    pub walks: usize,
    /// Clients, networks and keys whose misses are followed at once.
    pub misses: usize,
    /// Clients among whom the members of a drift are looked for.
    pub members: usize,
    /// Bits that remember the clients of a day, three days at once.
    pub known_clients: usize,
    /// Shares of account reads that may be doubtful.
    pub doubt: Doubt,
}

/// Budgets of doubt, each a share (0–1) of the account reads of an hour. They are declared, never learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Doubt {
    /// Credentials that may be older than the horizon, once the longest lifetime has been watched.
    pub preexisting: f64,
    /// Credentials of wholly observed issuers of which nothing can be known, and credentials of no declared issuer.
    pub unverifiable: f64,
    /// Requests that the server may have read differently.
    pub ambiguous: f64,
    /// Requests of which two versions were seen.
    pub conflict: f64,
    /// Credentials shaped like a JWT that do not decode.
    pub malformed: f64,
    /// Doubtful reads of an hour below which no budget counts as spent.
    pub least: u64,
}

impl Default for Estimate {
    fn default() -> Self {
        Self { walks: 262_144, misses: 65_536, members: 16_384, known_clients: 1 << 24, doubt: Doubt::default() }
    }
}

impl Default for Doubt {
    fn default() -> Self {
        Self { preexisting: 0.02, unverifiable: 0.02, ambiguous: 0.01, conflict: 0.000_5, malformed: 0.001, least: 50 }
    }
}
