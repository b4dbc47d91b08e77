//! authsensor as a library: everything the daemon, replay and the benches share.
//!
//! Data flows one way: [`capture`] (live or from files) → [`collect`] (pairing, routes, outcomes) → [`ledger`]
//! (provenance) → [`estimate`] (what no single observation shows) → [`detect`] (rules) → [`finding`] (reports), with [`metrics`] beside it; [`pipeline`] puts them in a row.

mod ahead;
pub mod anomaly;
pub mod capture;
pub mod cli;
pub mod collect;
pub mod config;
pub mod detect;
pub mod diagnostic;
pub mod estimate;
pub mod finding;
pub mod journal;
pub mod ledger;
pub mod metrics;
pub mod object;
pub mod observation;
pub mod pipeline;
pub mod push;
pub mod slow;
mod suggest;
pub mod trace;
