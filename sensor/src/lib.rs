//! authsensor as a library: everything the daemon, replay and the benches share.
//!
//! Data flows one way: [`capture`] (live or from files) → [`collect`] (pairing, routes, outcomes) → [`ledger`]
//! (provenance) → [`detect`] (rules) → [`finding`] (reports), with [`metrics`] beside it.

pub mod capture;
pub mod config;
pub mod finding;
pub mod metrics;
pub mod observation;
