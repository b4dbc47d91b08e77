//! What estimators must know again after a restart: bounded by the configuration, and by names, so that a changed
//! configuration takes up what it still has.

use serde::{Deserialize, Serialize};

use super::doubt::DoubtState;
use super::season::Season;
use super::walk::FrontierState;

/// State of all estimators at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// When it was taken, nanoseconds since 1970.
    pub taken_unix_ns: u64,
    /// By service.
    pub services: Vec<ServiceState>,
    /// By route.
    pub routes: Vec<RouteState>,
}

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServiceState {
    /// Its name.
    pub service: String,
    /// Highest account identifiers.
    pub accounts: FrontierState,
    /// Doubt by issuer, the last for credentials that match none.
    pub doubts: Vec<DoubtState>,
    /// Reads for each login, logins, share of failed logins.
    pub seasons: Vec<Season>,
}

/// What is known of a route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteState {
    /// Its service's name.
    pub service: String,
    /// Its name.
    pub route: String,
    /// Highest object identifiers.
    pub objects: FrontierState,
    /// Misses and reads of witnesses that make up what is usual.
    pub misses: (f32, f32),
    /// Its volume, of an account route.
    pub volume: Option<Season>,
}
