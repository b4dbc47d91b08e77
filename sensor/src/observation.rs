//! The unit that flows through everything behind capture: one HTTP request with its paired response, judged.
//!
//! Owns the small vocabulary types (class, outcome, provenance, validity, fingerprint, account hash) that collector,
//! ledger, detectors, findings and metrics share. Made by [`crate::collect`], read by [`crate::detect`]. All of it is
//! `Copy`: an observation is passed by reference and costs no allocation.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use sensor_ebpf::wire::anomaly;
use serde::{Deserialize, Serialize};

macro_rules! vocabulary {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$meta])*
        #[repr(u8)]
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
        )]
        pub enum $name { $($(#[$doc])* $variant,)* }

        impl $name {
            /// All values, in order; the discriminant is the index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word used in config, rules, metrics and findings.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            /// The value that `label` names.
            pub fn from_label(label: &str) -> Option<Self> {
                match label { $($label => Some(Self::$variant),)* _ => None }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(self.label()) }
        }
    };
}

mod claims;
mod estimate;

pub use claims::{ClaimName, Claims, claim_anomaly};
pub use estimate::{Estimate, EstimateKind, Estimates, Measure};

vocabulary! {
    /// What a route is for.
    RouteClass {
        /// Anything else.
        Other = "other",
        /// Hands out credentials to someone who proved who they are.
        Login = "login",
        /// Exchanges a credential for a new one.
        Refresh = "refresh",
        /// Ends a credential.
        Logout = "logout",
        /// Returns personal data of an account.
        AccountRead = "account_read",
    }
}

vocabulary! {
    /// What the response meant, by the route's predicate; a 200 with a login page is not a read.
    Outcome {
        /// The data was returned (for a login: it succeeded).
        Read = "read",
        /// There was no such account or object.
        Miss = "miss",
        /// Access was refused.
        Denied = "denied",
        /// The response was seen and fits none of the predicates.
        Other = "other",
        /// No response was seen in the configured time.
        Unanswered = "unanswered",
    }
}

vocabulary! {
    /// Whose data a read returned, seen from the credential.
    Relation {
        /// Account or subject is not known.
        Unknown = "unknown",
        /// The account is the credential's subject (its `sub`, or what its login said).
        Own = "own",
        /// It is another.
        Foreign = "foreign",
    }
}

vocabulary! {
    /// Whether a login handed the credential out. Ordered from best to worst for "the worst among several".
    Provenance {
        /// The request carried no credential.
        None = "none",
        /// Seen coming out of a login (or import, or peer).
        Issued = "issued",
        /// Older than the ledger's horizon.
        Preexisting = "preexisting",
        /// Cannot be known: gap, issuer not wholly observed, late answer.
        Unverifiable = "unverifiable",
        /// No login ever issued it.
        Unissued = "unissued",
    }
}

vocabulary! {
    /// What the credential says of itself, a second axis beside provenance.
    Validity {
        /// Nothing against it (opaque credentials always).
        Ok = "ok",
        /// Past its `exp`.
        Expired = "expired",
        /// Its `kid` is registered as retired.
        RetiredKey = "retired_key",
        /// Its `kid` is not registered with the issuer.
        UnknownKey = "unknown_key",
        /// `alg: none`, or an empty signature.
        AlgNone = "alg_none",
        /// Shaped like a JWT, but header or payload do not decode.
        Malformed = "malformed",
    }
}

/// Keyed SipHash-2-4-128 of a credential: the only form in which one is kept, sent, logged or shown.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Fingerprint(pub [u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// Keyed hash of an account identifier (SipHash-2-4-128 under the account key).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AccountHash(pub [u8; 16]);

impl fmt::Display for AccountHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AccountHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccountHash({self})")
    }
}

/// Index of a service in the configuration; [`ServiceId::NONE`] when `--all-tcp` made the flow a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ServiceId(pub u16);

impl ServiceId {
    /// No declared service.
    pub const NONE: Self = Self(u16::MAX);
}

/// Index of a route within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RouteId(pub u16);

/// Index of an issuer within its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct IssuerId(pub u16);

/// Interned string of bounded number (`kid`); [`Interned::OVERFLOW`] once the table is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Interned(pub u32);

impl Interned {
    /// The table was full: one shared value for everything beyond.
    pub const OVERFLOW: Self = Self(u32::MAX);
}

/// When something happened.
///
/// Both fields have one value wherever an instant is made of traffic: [`Clock::instant`](crate::collect::Clock::instant)
/// gives it to both (live, replay, and simulations, which give records a wall-clock time), a replay's start is the first
/// packet's time, a pushed issuance stands on the clock of what was seen, and what is derived of an instant (a bound of a
/// window, a time restored from disk) moves both. They differ in what means no time (a slice of a rule in which nothing was
/// seen, a journal's last batch), and in tests, which so tell the two uses apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Instant {
    /// Time that never goes back while the program runs, nanoseconds: the kernel's monotonic clock plus what it lay behind
    /// the wall clock at start (capture time in replay). For order, windows and lifetimes, and on the same scale from one
    /// start to the next, so that what was written down still counts.
    pub monotonic_ns: u64,
    /// Wall clock as it stood at start, nanoseconds since 1970 UTC (capture time in replay): for what people read, and for
    /// what is compared with other clocks (claims, `until` of an exception, the age of what was written down).
    pub unix_ns: u64,
}

impl Instant {
    /// The moment `monotonic_ns`: as much earlier or later on the wall clock.
    #[must_use]
    pub const fn moved_to(self, monotonic_ns: u64) -> Self {
        let later = monotonic_ns.saturating_sub(self.monotonic_ns);
        let earlier = self.monotonic_ns.saturating_sub(monotonic_ns);
        Self { monotonic_ns, unix_ns: self.unix_ns.saturating_add(later).saturating_sub(earlier) }
    }

    /// The moment when the wall clock showed `unix_ns`, at the latest this one: clocks are set back.
    #[must_use]
    pub fn back_to(self, unix_ns: u64) -> Self {
        let ago = self.unix_ns.saturating_sub(unix_ns);
        Self { monotonic_ns: self.monotonic_ns.saturating_sub(ago), unix_ns: unix_ns.min(self.unix_ns) }
    }
}

/// One request with its response, judged.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Observation {
    /// When the request head was complete.
    pub at: Instant,
    /// The service.
    pub service: ServiceId,
    /// The route, if one matched.
    pub route: Option<RouteId>,
    /// The route's class (`Other` without a route).
    pub class: RouteClass,
    /// What the response meant.
    pub outcome: Outcome,
    /// Status code, if a response was seen.
    pub status: Option<u16>,
    /// The worst provenance among the credentials the route may authenticate with.
    pub provenance: Provenance,
    /// Validity of that credential.
    pub validity: Validity,
    /// Fingerprint of that credential.
    pub fingerprint: Option<Fingerprint>,
    /// Its issuer, if it matched a declared one.
    pub issuer: Option<IssuerId>,
    /// Its `kid`, if it is a JWT that has one.
    pub kid: Option<Interned>,
    /// Where it stood: one of `sensor_ebpf::wire::place`, 0 for none.
    pub place: u8,
    /// True for a self-contained credential (JWT), which can be forged with a signing key.
    pub self_contained: bool,
    /// Whose data was read.
    pub account: Option<AccountHash>,
    /// Who reads.
    pub client: IpAddr,
    /// What was odd about request or response: bits of `sensor_ebpf::wire::anomaly`, named in [`crate::anomaly`].
    pub anomalies: u32,
    /// What the judged credential says of itself.
    pub claims: Claims,
    /// What is odd about that: bits of [`claim_anomaly`].
    pub claim_anomalies: u16,
    /// Whether the account is the credential's own.
    pub relation: Relation,
    /// The id that the path names when it is not the account (an order), as a keyed hash.
    pub object: Option<AccountHash>,
    /// The number that the target names, of the object or else the account: in flight only, for walks; nothing keeps it.
    pub target_id: Option<u64>,
    /// The account is a decoy that nobody ever logs into.
    pub canary: bool,
    /// Credentials that this exchange issued.
    pub issued: u8,
    /// What the estimators make of it.
    pub estimates: Estimates,
}

impl Observation {
    /// An observation of `service` that says nothing yet but when it was made. Whoever makes one of traffic states every
    /// field instead, so that none is forgotten.
    pub fn blank(at: Instant, service: ServiceId) -> Self {
        Self {
            at,
            service,
            route: None,
            class: RouteClass::Other,
            outcome: Outcome::Other,
            status: None,
            provenance: Provenance::None,
            validity: Validity::Ok,
            fingerprint: None,
            issuer: None,
            kid: None,
            place: 0,
            self_contained: false,
            account: None,
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            anomalies: 0,
            claims: Claims::default(),
            claim_anomalies: 0,
            relation: Relation::Unknown,
            object: None,
            target_id: None,
            canary: false,
            issued: 0,
            estimates: Estimates::default(),
        }
    }

    /// True when two versions of the request's bytes were seen: what the server read is one of them. The observation
    /// has the worse provenance of the two, and the more sensitive class.
    pub fn conflict(&self) -> bool {
        self.anomalies & anomaly::CONFLICT != 0
    }

    /// True when the server's acknowledgement did not cover the request: it may have read something else. The
    /// provenance of such an observation is `unverifiable`.
    pub fn ambiguous(&self) -> bool {
        self.anomalies & anomaly::AMBIGUOUS != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_derived_of_an_instant_moves_both() {
        let at = Instant { monotonic_ns: 100, unix_ns: 1_000 };
        for (monotonic_ns, unix_ns) in [(130, 1_030), (100, 1_000), (40, 940)] {
            assert_eq!(at.moved_to(monotonic_ns), Instant { monotonic_ns, unix_ns });
        }
        for (monotonic_ns, unix_ns) in [(100, 1_000), (40, 940), (0, 200)] {
            assert_eq!(at.back_to(unix_ns), Instant { monotonic_ns, unix_ns });
        }
        assert_eq!(at.back_to(1_001), at, "not later");
    }
}
