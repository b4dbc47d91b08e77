//! The fields that rules may name: their words, their values as keys, their values as text.
//!
//! An observation, or an estimator's event, flows in as a [`Subject`]; a field's value becomes a 16-byte [`Key`] without
//! allocation. Groups, distinct counts and sketches work on keys only; text is made from a key when a finding is written.

use std::net::{IpAddr, Ipv6Addr};

use sensor_ebpf::wire::place;

use super::Labels;
use crate::anomaly;
use crate::observation::{
    ClaimName, Estimate, EstimateKind, Interned, IssuerId, Measure, Observation, Outcome, Provenance, Relation,
    RouteClass, RouteId, ServiceId, Validity, claim_anomaly,
};

/// A field's value, big-endian.
pub(super) type Key = [u8; 16];

/// What a rule looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    /// The observation; of an event, only what the event names is filled.
    pub o: &'a Observation,
    /// The event that it stands for.
    pub e: Option<&'a Estimate>,
}

/// What a base rule is about (`category` of its `logsource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Requests with their answers.
    Observation,
    /// Events of estimators.
    Estimate,
}

impl Source {
    /// All, in order.
    pub const ALL: [Self; 2] = [Self::Observation, Self::Estimate];

    /// The word in `logsource`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Observation => "observation",
            Self::Estimate => "estimate",
        }
    }

    /// What one of it is called in messages.
    pub const fn things(self) -> &'static str {
        match self {
            Self::Observation => "observations",
            Self::Estimate => "estimates",
        }
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident = $label:literal $sources:ident,)*) => {
        /// A field of an observation or an estimate.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(super) enum Field { $($(#[$doc])* $name,)* }

        impl Field {
            /// All fields, in the order of `docs/rules.md`.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The word used in rules and findings.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }

            /// The field that `label` names.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$name),)* _ => None }
            }

            /// True when `source` has it.
            pub const fn is_of(self, source: Source) -> bool {
                match self { $(Self::$name => of::$sources(source),)* }
            }
        }
    };
}

/// Which sources have a field.
mod of {
    use super::Source;

    pub const fn both(_: Source) -> bool {
        true
    }

    pub const fn read(source: Source) -> bool {
        matches!(source, Source::Observation)
    }

    pub const fn event(source: Source) -> bool {
        matches!(source, Source::Estimate)
    }
}

fields! {
    /// The service's name; absent for a flow of no declared service.
    Service = "service" both,
    /// The route's name; absent when none matched.
    Route = "route" both,
    /// [`RouteClass`].
    Class = "class" both,
    /// [`Outcome`].
    Outcome = "outcome" read,
    /// Status code; absent without a response.
    Status = "status" read,
    /// [`Provenance`].
    Provenance = "provenance" read,
    /// [`Validity`].
    Validity = "validity" read,
    /// The issuer's name; absent when the credential matches no declared one.
    Issuer = "issuer" both,
    /// The `kid` of the credential; absent when it has none.
    Kid = "kid" both,
    /// Where the credential stood; one of [`PLACES`].
    Place = "place" read,
    /// True for a JWT and the like.
    SelfContained = "self_contained" read,
    /// The credential, as its fingerprint; absent without one.
    Fingerprint = "fingerprint" read,
    /// Whose data was read (a keyed hash); absent when unknown.
    Account = "account" read,
    /// Whose the credential is, seen from the account.
    Relation = "relation" read,
    /// The object that the path names (a keyed hash).
    Object = "object" read,
    /// True for an account that nobody ever logs into.
    Canary = "canary" read,
    /// Who reads: an address.
    Client = "client" both,
    /// The /24 or /48 around it.
    Network = "network" both,
    /// Credentials that the exchange issued.
    Issued = "issued" read,
    /// `iss` of the credential.
    Iss = "iss" read,
    /// `aud` of the credential.
    Aud = "aud" read,
    /// `scope` of the credential.
    Scope = "scope" read,
    /// `alg` of the credential.
    Alg = "alg" read,
    /// `sub` of the credential (a keyed hash).
    Sub = "sub" read,
    /// `jti` of the credential (a keyed hash).
    Jti = "jti" read,
    /// `iat`, seconds since 1970.
    Iat = "iat" read,
    /// `exp`, seconds since 1970.
    Exp = "exp" read,
    /// `nbf`, seconds since 1970.
    Nbf = "nbf" read,
    /// Time of use minus `iat`, seconds.
    Age = "age" read,
    /// `exp` minus `iat`, seconds.
    Lifetime = "lifetime" read,
    /// Time of use minus the retirement of the key, seconds.
    KeyRetired = "key_retired" read,
    /// Names of [`claim_anomaly`]; absent when nothing was odd. As a key, the set of them.
    ClaimAnomaly = "claim_anomaly" read,
    /// Names of [`crate::anomaly`]; absent when nothing was odd. As a key, the set of them.
    Anomaly = "anomaly" read,
    /// True when two versions of the request were seen.
    Conflict = "conflict" read,
    /// True when the server may not have seen the request as it was read.
    Ambiguous = "ambiguous" read,
    /// Identifiers that this client has walked.
    WalkClient = "walk_client" read,
    /// Identifiers that its network has walked.
    WalkNetwork = "walk_network" read,
    /// Identifiers that all clients of the route have walked.
    WalkRoute = "walk_route" read,
    /// log₁₀ likelihood ratio of guessing, of this client, in hundredths.
    MissClient = "miss_client" read,
    /// The same of its network.
    MissNetwork = "miss_network" read,
    /// The same of the issuer's `kid`.
    MissKid = "miss_kid" read,
    /// [`EstimateKind`].
    Kind = "kind" event,
    /// [`Measure`].
    Measure = "measure" event,
    /// What was measured.
    Observed = "observed" event,
    /// What was to be expected.
    Expected = "expected" event,
    /// How far beyond expectation, in hundredths.
    Score = "score" event,
    /// Requests behind the event.
    Requests = "requests" event,
}

/// What kind of values a field has, and so which modifiers and texts it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One of a few words.
    Words,
    /// Any of a set of names.
    Bits,
    /// A name of the configuration.
    Declared,
    /// Text that a credential brought.
    Text(ClaimName),
    /// Keyed hash: comparable only to itself.
    Hash,
    /// An address.
    Address,
    /// A network.
    Network,
    /// A status code.
    Status,
    /// A whole number.
    Number,
    /// Seconds.
    Seconds,
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
/// Bits of an IPv4 network.
const V4_BITS: u32 = 24;
/// Bits of an IPv6 network.
const V6_BITS: u32 = 48;

fn number(value: impl Into<u128>) -> Key {
    value.into().to_be_bytes()
}

fn signed(value: i64) -> Key {
    i128::from(value).to_be_bytes()
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
pub(super) fn address(client: IpAddr) -> Key {
    match client {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The network around an address: its first 24 (IPv4) or 48 bits.
pub(super) fn network(client: IpAddr) -> Key {
    let key = address(client);
    let mapped = Ipv6Addr::from(key).to_ipv4_mapped().is_some();
    let kept = if mapped { 96 + V4_BITS } else { V6_BITS };
    (u128::from_be_bytes(key) & !(u128::MAX >> kept)).to_be_bytes()
}

impl Field {
    /// True when a subject of `source` may be without it (`field: null`, `field|exists` in a rule).
    pub fn nullable(self, source: Source) -> bool {
        match self.shape() {
            Shape::Declared | Shape::Text(_) | Shape::Hash | Shape::Bits | Shape::Status | Shape::Seconds => true,
            Shape::Number => matches!(self, Self::Iat | Self::Exp | Self::Nbf),
            Shape::Address | Shape::Network => source == Source::Estimate,
            Shape::Words => self == Self::Class && source == Source::Estimate,
        }
    }

    /// What its values are like.
    pub const fn shape(self) -> Shape {
        match self {
            Self::Service | Self::Route | Self::Issuer => Shape::Declared,
            Self::Class
            | Self::Outcome
            | Self::Provenance
            | Self::Validity
            | Self::Place
            | Self::SelfContained
            | Self::Relation
            | Self::Canary
            | Self::Conflict
            | Self::Ambiguous
            | Self::Kind
            | Self::Measure => Shape::Words,
            Self::Anomaly | Self::ClaimAnomaly => Shape::Bits,
            Self::Kid => Shape::Text(ClaimName::Kid),
            Self::Iss => Shape::Text(ClaimName::Iss),
            Self::Aud => Shape::Text(ClaimName::Aud),
            Self::Scope => Shape::Text(ClaimName::Scope),
            Self::Alg => Shape::Text(ClaimName::Alg),
            Self::Fingerprint | Self::Account | Self::Object | Self::Sub | Self::Jti => Shape::Hash,
            Self::Client => Shape::Address,
            Self::Network => Shape::Network,
            Self::Status => Shape::Status,
            Self::Age | Self::Lifetime | Self::KeyRetired => Shape::Seconds,
            Self::Issued
            | Self::Iat
            | Self::Exp
            | Self::Nbf
            | Self::WalkClient
            | Self::WalkNetwork
            | Self::WalkRoute
            | Self::MissClient
            | Self::MissNetwork
            | Self::MissKid
            | Self::Observed
            | Self::Expected
            | Self::Score
            | Self::Requests => Shape::Number,
        }
    }

    /// True when the field has very many values in ordinary traffic, so that groups by it must be small.
    pub const fn is_many(self) -> bool {
        matches!(self.shape(), Shape::Hash | Shape::Address | Shape::Network)
    }

    /// The interned name in the subject, of fields of [`Shape::Text`].
    pub fn interned(self, s: Subject<'_>) -> Option<Interned> {
        match self {
            Self::Kid => s.o.kid,
            Self::Iss => s.o.claims.iss,
            Self::Aud => s.o.claims.aud,
            Self::Scope => s.o.claims.scope,
            Self::Alg => s.o.claims.alg,
            _ => None,
        }
    }

    /// The number in the subject, of fields that are numbers.
    pub fn number(self, s: Subject<'_>) -> Option<i64> {
        let event = |value: fn(&Estimate) -> u64| s.e.map(|e| i64::try_from(value(e)).unwrap_or(i64::MAX));
        Some(match self {
            Self::Status => s.o.status?.into(),
            Self::Issued => s.o.issued.into(),
            Self::Iat => s.o.claims.iat?,
            Self::Exp => s.o.claims.exp?,
            Self::Nbf => s.o.claims.nbf?,
            Self::Age => s.o.claims.age_s?,
            Self::Lifetime => s.o.claims.lifetime_s?,
            Self::KeyRetired => s.o.claims.key_retired_s?,
            Self::WalkClient => s.o.estimates.walk_client.into(),
            Self::WalkNetwork => s.o.estimates.walk_network.into(),
            Self::WalkRoute => s.o.estimates.walk_route.into(),
            Self::MissClient => s.o.estimates.miss_client.into(),
            Self::MissNetwork => s.o.estimates.miss_network.into(),
            Self::MissKid => s.o.estimates.miss_kid.into(),
            Self::Observed => event(|e| e.observed)?,
            Self::Expected => event(|e| e.expected)?,
            Self::Score => event(|e| e.score)?,
            Self::Requests => event(|e| e.requests)?,
            _ => return None,
        })
    }

    /// The client in the subject: of an event, only the one that it names.
    pub fn address(s: Subject<'_>) -> Option<IpAddr> {
        s.e.map_or(Some(s.o.client), |e| e.client)
    }

    /// The index of the word in the subject, of fields of [`Shape::Words`].
    pub fn word(self, s: Subject<'_>) -> Option<u8> {
        Some(match self {
            Self::Class => s.e.map_or(Some(s.o.class), |e| e.class)? as u8,
            Self::Outcome => s.o.outcome as u8,
            Self::Provenance => s.o.provenance as u8,
            Self::Validity => s.o.validity as u8,
            Self::Place => s.o.place,
            Self::SelfContained => u8::from(s.o.self_contained),
            Self::Relation => s.o.relation as u8,
            Self::Canary => u8::from(s.o.canary),
            Self::Conflict => u8::from(s.o.conflict()),
            Self::Ambiguous => u8::from(s.o.ambiguous()),
            Self::Kind => s.e?.kind as u8,
            Self::Measure => s.e?.measure as u8,
            _ => return None,
        })
    }

    /// The value in the subject, if it has one.
    #[inline]
    pub fn key(self, s: Subject<'_>) -> Option<Key> {
        let o = s.o;
        Some(match self {
            Self::Service if o.service == ServiceId::NONE => return None,
            Self::Service => number(o.service.0),
            Self::Route => scoped(o.service, o.route?.0),
            Self::Issuer => scoped(o.service, o.issuer?.0),
            Self::Fingerprint => o.fingerprint?.0,
            Self::Account => o.account?.0,
            Self::Object => o.object?.0,
            Self::Sub => o.claims.sub?.0,
            Self::Jti => o.claims.jti?.0,
            Self::Client => address(Self::address(s)?),
            Self::Network => network(Self::address(s)?),
            Self::Anomaly if o.anomalies == 0 => return None,
            Self::Anomaly => number(o.anomalies),
            Self::ClaimAnomaly if o.claim_anomalies == 0 => return None,
            Self::ClaimAnomaly => number(o.claim_anomalies),
            _ => match self.shape() {
                Shape::Text(_) => number(self.interned(s)?.0),
                Shape::Words => number(self.word(s)?),
                _ => signed(self.number(s)?),
            },
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
            Self::Class => word(RouteClass::ALL, low, RouteClass::label),
            Self::Outcome => word(Outcome::ALL, low, Outcome::label),
            Self::Provenance => word(Provenance::ALL, low, Provenance::label),
            Self::Validity => word(Validity::ALL, low, Validity::label),
            Self::Relation => word(Relation::ALL, low, Relation::label),
            Self::Kind => word(EstimateKind::ALL, low, EstimateKind::label),
            Self::Measure => word(Measure::ALL, low, Measure::label),
            Self::Place => PLACES
                .iter()
                .find(|(_, number)| u16::from(*number) == low)
                .map_or_else(|| low.to_string(), |(word, _)| (*word).to_owned()),
            Self::Anomaly => anomaly::names(wide).collect::<Vec<_>>().join(","),
            Self::ClaimAnomaly => claim_anomaly::names(low).collect::<Vec<_>>().join(","),
            _ => match self.shape() {
                Shape::Text(_) if wide == Interned::OVERFLOW.0 => OVERFLOW.to_owned(),
                Shape::Text(of) => labels.name(of, Interned(wide)).to_owned(),
                Shape::Hash => hex(&key),
                Shape::Address => IpAddr::V6(Ipv6Addr::from(key)).to_canonical().to_string(),
                Shape::Network => network_text(key),
                Shape::Words => (low != 0).to_string(),
                _ => i128::from_be_bytes(key).to_string(),
            },
        }
    }
}

/// A network in CIDR notation.
fn network_text(key: Key) -> String {
    let first = IpAddr::V6(Ipv6Addr::from(key)).to_canonical();
    format!("{first}/{}", if first.is_ipv4() { V4_BITS } else { V6_BITS })
}

fn word<T: Copy>(all: &[T], index: u16, label: fn(T) -> &'static str) -> String {
    all.get(usize::from(index)).map_or_else(|| index.to_string(), |value| label(*value).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_the_24_or_48_bits_around_a_client() {
        for (client, text) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.78", "192.0.2.0/24"),
            ("2001:db8:1:2::3", "2001:db8:1::/48"),
            ("2001:db8:1:ffff::", "2001:db8:1::/48"),
        ] {
            assert_eq!(network_text(network(client.parse().unwrap())), text, "{client}");
        }
    }

    #[test]
    fn every_field_belongs_to_a_source_and_has_its_own_word() {
        for field in Field::ALL {
            assert!(Source::ALL.iter().any(|source| field.is_of(*source)), "{}", field.label());
            assert_eq!(Field::from_label(field.label()), Some(*field));
        }
    }
}
