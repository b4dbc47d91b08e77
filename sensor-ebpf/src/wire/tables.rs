//! What stands in the maps that the daemon and the kernel programs share: services, names, routes, where a flow may be
//! taken back, totals.
//!
//! Owns the byte layout of their keys and values, and their bounds. Configuration flows from the daemon into the kernel,
//! totals the other way; on the host the same values stand in tables in memory.

use super::{FlowId, NO_ROUTE, method};
use crate::reason::Counter;

/// Longest header, cookie or parameter name that can be configured, in bytes.
pub const NAME_MAX: usize = 32;
/// Cookies that can be named per service.
pub const COOKIES_MAX: usize = 4;
/// Request headers that can be named as credential places per service.
pub const HEADERS_MAX: usize = 2;
/// Response headers that can be named as issuing places per service.
pub const RESPONSE_HEADERS_MAX: usize = 2;
/// Query parameters that can be named as credential places per service.
pub const QUERY_MAX: usize = 2;
/// Services that one sensor can watch.
pub const SERVICES_MAX: usize = 64;

/// Where the kernel may take a flow back: both halves stand between messages and nothing is outstanding. Value of the
/// `RESUME` map, whose key is the connection's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResumeEntry {
    /// The flow.
    pub flow: FlowId,
    /// Bytes of the request half.
    pub request_consumed: u64,
    /// Bytes of the response half.
    pub response_consumed: u64,
    /// Sequence number of the request half's next byte.
    pub request_sequence: u32,
    /// Sequence number of the response half's next byte.
    pub response_sequence: u32,
    /// Requests so far: the next transaction number.
    pub requested: u32,
    /// Hand-over epoch of the request half in which this holds.
    pub epoch: u32,
    /// 1 when the flow left HTTP: the kernel passes it over from now on, wherever it stands.
    pub passed: u32,
    /// Of those, the answered ones: all, unless the flow left HTTP.
    pub answered: u32,
}

/// A configured name, lower-cased for headers, as words so that comparing it is four loads.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// The name's bytes, little-endian words, zero-padded.
    pub words: [u64; NAME_MAX / 8],
    /// Bytes; 0 for an unused entry.
    pub len: u32,
    /// Always 0.
    pub reserved: u32,
}

impl Name {
    /// Makes the comparable form of `name`, or `None` if it is empty or longer than [`NAME_MAX`].
    pub fn new(name: &[u8], fold_case: bool) -> Option<Self> {
        if name.is_empty() || name.len() > NAME_MAX {
            return None;
        }
        let mut bytes = [0u8; NAME_MAX];
        for (to, from) in bytes.iter_mut().zip(name) {
            *to = if fold_case { from.to_ascii_lowercase() } else { *from };
        }
        let mut words = [0u64; NAME_MAX / 8];
        for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = chunk.iter().rev().fold(0, |acc, byte| acc << 8 | u64::from(*byte));
        }
        Some(Self { words, len: u32::try_from(name.len()).ok()?, reserved: 0 })
    }
}

/// Bits of [`ServiceConfig::flags`].
pub mod service_flag {
    /// `Authorization` is a credential place of the service.
    pub const AUTHORIZATION: u32 = 1;
    /// Some query parameter is a credential place.
    pub const QUERY: u32 = 2;
    /// Some cookie is a credential place.
    pub const COOKIES: u32 = 4;
    /// Some other request header is a credential place.
    pub const HEADERS: u32 = 8;
    /// Some response header issues credentials.
    pub const RESPONSE_HEADERS: u32 = 16;
    /// Connections begin with a PROXY protocol header.
    pub const PROXY: u32 = 32;
}

/// One service as the kernel sees it: value of the `SERVICES` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceConfig {
    /// Bits of [`service_flag`].
    pub flags: u32,
    /// Start state of the service's route automaton.
    pub route_root: u32,
    /// Named cookies.
    pub cookies: [Name; COOKIES_MAX],
    /// Named request headers.
    pub headers: [Name; HEADERS_MAX],
    /// Named response headers.
    pub response_headers: [Name; RESPONSE_HEADERS_MAX],
    /// Named query parameters.
    pub query: [Name; QUERY_MAX],
}

/// What holds for all services: the one value of the `SETTINGS` array.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Longest head, bytes.
    pub head_bytes: u32,
    /// 1 when traffic inside tunnels is looked into.
    pub tunnels: u32,
}

/// Key of the service table.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenKey {
    /// Address (IPv4 mapped), or all zero for "any address of this host".
    pub address: [u8; 16],
    /// Port, host order.
    pub port: u16,
    /// Always 0.
    pub reserved: [u8; 6],
}

/// Key of the route automaton's transitions.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct EdgeKey {
    /// State before the segment.
    pub state: u32,
    /// Always 0.
    pub reserved: u32,
    /// Hash of the segment ([`crate::route::segment_hash`]).
    pub segment: u64,
}

/// One state of the route automaton.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteState {
    /// State after any segment that has no edge of its own; 0 is the dead state.
    pub wildcard: u32,
    /// Route reached when the path ends here, by method, or [`NO_ROUTE`].
    pub accept: [u16; method::COUNT],
    /// Always 0.
    pub reserved: u16,
}

impl Default for RouteState {
    fn default() -> Self {
        Self { wildcard: 0, accept: [NO_ROUTE; method::COUNT], reserved: 0 }
    }
}

/// Bits of [`RouteConfig::flags`].
pub mod route_flag {
    /// The body of the response is teed (it may issue credentials).
    pub const TEE_RESPONSE: u8 = 1;
    /// The body of the request is teed (it presents a refresh token, or names the account).
    pub const TEE_REQUEST: u8 = 2;
    /// The length of the response body decides the outcome: an END record is wanted.
    pub const WANT_END: u8 = 4;
}

/// Routes that one service can have; the `ROUTES` array is indexed by `service * ROUTES_MAX + route`.
pub const ROUTES_MAX: usize = 256;

/// One route as the kernel sees it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RouteConfig {
    /// Class, as `sensor::observation::RouteClass` numbers it.
    pub class: u8,
    /// Bits of [`route_flag`].
    pub flags: u8,
    /// Always 0.
    pub reserved: [u8; 6],
}

/// Totals of one CPU: value of the `TOTALS` per-CPU array. Index is [`Counter`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Totals {
    /// One count each.
    pub counts: [u64; Counter::COUNT],
}

/// How the bench's program makes a stream of one packet; no part of the shipped object.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BenchStream {
    /// Payload bytes of the runs so far: added to the packet's sequence number.
    pub advance: u32,
    /// When not 0: the payload comes in two segments, the first of this many bytes.
    pub cut: u32,
    /// One of [`bench_mode`].
    pub mode: u32,
    /// Runs so far.
    pub runs: u32,
}

/// Values of [`BenchStream::mode`].
pub mod bench_mode {
    /// The flow is left as it is.
    pub const PLAIN: u32 = 0;
    /// Every request counts as answered at once.
    pub const ANSWERED: u32 = 1;
    /// There is always one request to answer.
    pub const ASKED: u32 = 2;
    /// Every run has another client port and, every 65,536 runs, another address.
    pub const FRESH: u32 = 3;
}

const _: () = {
    assert!(size_of::<ResumeEntry>() == 56);
    assert!(size_of::<Name>() == 40);
    assert!(size_of::<ServiceConfig>() == 8 + 40 * (COOKIES_MAX + HEADERS_MAX + RESPONSE_HEADERS_MAX + QUERY_MAX));
    assert!(size_of::<Settings>() == 8);
    assert!(size_of::<EdgeKey>() == 16);
    assert!(size_of::<RouteState>() == 24);
};
