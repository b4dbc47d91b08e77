//! Findings and how they are reported.
//!
//! [`model::Finding`]s flow in from [`crate::detect`]; [`ocsf`] gives them their public form, [`sink`] writes them.

mod attack;
pub mod model;
pub mod ocsf;
pub mod sink;
