//! What the built-in estimators say: fields added to an observation, and events of their own.
//!
//! Made by [`crate::estimate`], read by rules like any other field. Estimators measure; levels, thresholds and groups are
//! the rules'.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{AccountHash, Instant, Interned, IssuerId, RouteClass, RouteId, ServiceId};

/// What estimators add to an observation that belongs to what they follow; 0: it belongs to nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Estimates {
    /// Distinct identifiers that this client has walked, in order or evenly stepped, up to this one.
    pub walk_client: u32,
    /// The same over the client's network (/24, /48).
    pub walk_network: u32,
    /// The same over all clients of the route.
    pub walk_route: u32,
    /// How much likelier the client's misses are those of someone who guesses than a member's: log₁₀ of the ratio, in
    /// hundredths (Wald's sequential test, domain "TRW"). Negative: a member.
    pub miss_client: i32,
    /// The same over the client's network.
    pub miss_network: i32,
    /// The same over the issuer's `kid`, counting only credentials that no login issued.
    pub miss_kid: i32,
}

vocabulary! {
    /// What an estimator event is about.
    EstimateKind {
        /// A rate left its own season.
        Drift = "drift",
        /// A member of a group that, as a whole, left its season: too quiet to stand out alone.
        Member = "drift_member",
        /// Misses rose over all clients: a server fault, not a search.
        ServerFault = "server_fault",
        /// A budget of doubt is spent.
        Doubt = "doubt",
        /// Reads go on and an issuance source is silent.
        Silence = "silence",
        /// An issuer's measured sight fell.
        Sight = "sight",
    }
}

vocabulary! {
    /// What an estimator measured.
    Measure {
        /// Account reads for each successful login.
        ReadsPerLogin = "reads_per_login",
        /// Requests of one route.
        RouteVolume = "route_volume",
        /// Logins tried.
        Logins = "logins",
        /// Share of failed logins.
        LoginFailures = "login_failures",
        /// Share of misses.
        Misses = "misses",
        /// Issuances of one source.
        Issuances = "issuances",
        /// Newly used credentials whose issuance was seen, as a share.
        Sight = "sight",
        /// Newly used credentials that may be older than the horizon.
        Preexisting = "preexisting",
        /// Newly used credentials of which nothing can be known.
        Unverifiable = "unverifiable",
        /// Requests that the server may have read differently.
        Ambiguous = "ambiguous",
        /// Requests of which two versions were seen.
        Conflict = "conflict",
        /// Credentials shaped like a JWT that do not decode.
        Malformed = "malformed",
    }
}

/// An event of an estimator. Rare, so it owns what it says.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Estimate {
    /// When it was decided.
    pub at: Instant,
    /// Since when what it says has been going on.
    pub since: Instant,
    /// What it is about.
    pub kind: EstimateKind,
    /// What was measured.
    pub measure: Measure,
    /// The service.
    pub service: ServiceId,
    /// The route, if it is about one.
    pub route: Option<RouteId>,
    /// The route's class, if it is about one.
    pub class: Option<RouteClass>,
    /// The issuer, if it is about one.
    pub issuer: Option<IssuerId>,
    /// The `kid`, if it is about one.
    pub kid: Option<Interned>,
    /// The client, if it is about one.
    pub client: Option<IpAddr>,
    /// What was measured: a count, or a share or ratio in thousandths.
    pub observed: u64,
    /// What the season, the budget or the model let expect, in the same unit.
    pub expected: u64,
    /// How far beyond expectation: in hundredths of the measure's own deviation (drift), or of the budget (doubt).
    pub score: u64,
    /// Requests behind it.
    pub requests: u64,
    /// Accounts behind it, a sample.
    pub accounts: Vec<AccountHash>,
    /// Clients behind it, a sample.
    pub clients: Vec<IpAddr>,
}

impl Estimate {
    /// An event that says nothing yet but what it is about.
    pub fn new(at: Instant, kind: EstimateKind, measure: Measure, service: ServiceId) -> Self {
        Self {
            at,
            since: at,
            kind,
            measure,
            service,
            route: None,
            class: None,
            issuer: None,
            kid: None,
            client: None,
            observed: 0,
            expected: 0,
            score: 0,
            requests: 0,
            accounts: Vec::new(),
            clients: Vec::new(),
        }
    }
}
