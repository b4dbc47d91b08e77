//! The fields of an observation that rules may name: their words, their values as keys, their values as text.
//!
//! A value becomes a 16-byte [`Key`] without allocation; groups, distinct counts and sketches work on keys only. Text
//! is made from a key when a finding is written.

use std::net::{IpAddr, Ipv6Addr};

use sensor_ebpf::wire::place;

use super::Labels;
use crate::anomaly;
use crate::observation::{
    Interned, IssuerId, Observation, Outcome, Provenance, RouteClass, RouteId, ServiceId, Validity,
};

/// A field's value, big-endian.
pub(super) type Key = [u8; 16];

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// A field of an observation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Field { $($(#[$doc])* $name,)* }

        impl Field {
            /// The words of all fields, in the order of `docs/rules.md`.
            pub const LABELS: &'static [&'static str] = &[$($label,)*];

            /// The word used in rules and findings.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The field that `label` names.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$name),)* _ => None }
            }
        }
    };
}

fields! {
    /// The service's name; absent for a flow of no declared service.
    Service = "service",
    /// The route's name; absent when none matched.
    Route = "route",
    /// [`RouteClass`].
    Class = "class",
    /// [`Outcome`].
    Outcome = "outcome",
    /// Status code; absent without a response.
    Status = "status",
    /// [`Provenance`].
    Provenance = "provenance",
    /// [`Validity`].
    Validity = "validity",
    /// The issuer's name; absent when the credential matches no declared one.
    Issuer = "issuer",
    /// The `kid` of the credential; absent when it has none.
    Kid = "kid",
    /// Where the credential stood; one of [`PLACES`].
    Place = "place",
    /// True for a JWT and the like.
    SelfContained = "self_contained",
    /// Whose data was read (a keyed hash); absent when unknown.
    Account = "account",
    /// Who reads: an address.
    Client = "client",
    /// Names of [`crate::anomaly`]; absent when nothing was odd. As a key, the set of them.
    Anomaly = "anomaly",
    /// True when two versions of the request were seen.
    Conflict = "conflict",
    /// True when the server may not have seen the request as it was read.
    Ambiguous = "ambiguous",
}

/// Words of the credential places that a request can have, by their number.
pub(super) const PLACES: &[(&str, u8)] = &[
    ("none", 0),
    ("authorization", place::AUTHORIZATION),
    ("cookie", place::COOKIE),
    ("header", place::HEADER),
    ("query", place::QUERY),
];

/// What a group value is called that is absent.
pub(super) const NONE: &str = "none";
/// What stands for everything beyond a bound.
pub(super) const OVERFLOW: &str = "overflow";

fn number(value: impl Into<u128>) -> Key {
    value.into().to_be_bytes()
}

/// 32 hex digits.
pub(super) fn hex(bytes: &Key) -> String {
    format!("{:032x}", u128::from_be_bytes(*bytes))
}

/// An id that only counts within its service.
fn scoped(service: ServiceId, id: u16) -> Key {
    number(u32::from(service.0) << 16 | u32::from(id))
}

/// An address as a key: IPv4 and its IPv4-mapped IPv6 form are one client.
fn address(client: IpAddr) -> Key {
    match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

impl Field {
    /// True when an observation may be without it (`field: null` in a rule).
    pub fn nullable(self) -> bool {
        matches!(
            self,
            Self::Service | Self::Route | Self::Status | Self::Issuer | Self::Kid | Self::Account | Self::Anomaly
        )
    }

    /// The value in `o`, if it has one.
    pub fn key(self, o: &Observation) -> Option<Key> {
        Some(match self {
            Self::Service if o.service == ServiceId::NONE => return None,
            Self::Service => number(o.service.0),
            Self::Route => scoped(o.service, o.route?.0),
            Self::Class => number(o.class as u8),
            Self::Outcome => number(o.outcome as u8),
            Self::Status => number(o.status?),
            Self::Provenance => number(o.provenance as u8),
            Self::Validity => number(o.validity as u8),
            Self::Issuer => scoped(o.service, o.issuer?.0),
            Self::Kid => number(o.kid?.0),
            Self::Place => number(o.place),
            Self::SelfContained => number(u8::from(o.self_contained)),
            Self::Account => o.account?.0,
            Self::Client => address(o.client),
            Self::Anomaly if o.anomalies == 0 => return None,
            Self::Anomaly => number(o.anomalies),
            Self::Conflict => number(u8::from(o.conflict())),
            Self::Ambiguous => number(u8::from(o.ambiguous())),
        })
    }

    /// The value as people read it.
    pub fn text(self, key: Option<Key>, labels: &dyn Labels) -> String {
        let Some(key) = key else { return NONE.to_owned() };
        let number = u128::from_be_bytes(key);
        #[expect(clippy::cast_possible_truncation, reason = "keys of these fields were made from narrower numbers")]
        let (service, low, wide) = (ServiceId((number >> 16) as u16), number as u16, number as u32);
        match self {
            Self::Service => labels.service(ServiceId(low)).to_owned(),
            Self::Route => labels.route(service, RouteId(low)).to_owned(),
            Self::Issuer => labels.issuer(service, IssuerId(low)).to_owned(),
            Self::Kid if wide == Interned::OVERFLOW.0 => OVERFLOW.to_owned(),
            Self::Kid => labels.kid(Interned(wide)).to_owned(),
            Self::Class => word(RouteClass::ALL, low, RouteClass::label),
            Self::Outcome => word(Outcome::ALL, low, Outcome::label),
            Self::Provenance => word(Provenance::ALL, low, Provenance::label),
            Self::Validity => word(Validity::ALL, low, Validity::label),
            Self::Status => low.to_string(),
            Self::Place => PLACES
                .iter()
                .find(|(_, number)| u16::from(*number) == low)
                .map_or_else(|| low.to_string(), |(word, _)| (*word).to_owned()),
            Self::SelfContained | Self::Conflict | Self::Ambiguous => (low != 0).to_string(),
            Self::Anomaly => anomaly::names(wide).collect::<Vec<_>>().join(","),
            Self::Account => hex(&key),
            Self::Client => IpAddr::V6(Ipv6Addr::from(key)).to_canonical().to_string(),
        }
    }
}

fn word<T: Copy>(all: &[T], index: u16, label: fn(T) -> &'static str) -> String {
    all.get(usize::from(index)).map_or_else(|| index.to_string(), |value| label(*value).to_owned())
}
