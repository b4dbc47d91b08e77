//! Findings and how they are reported.
//!
//! [`model::Finding`]s flow in from [`crate::detect`]; [`parents`] puts those about the same thing under one, [`confidence`]
//! says how sure they are and [`action`] what to do first; [`ocsf`] gives them their public form, [`sink`] writes them.

pub mod action;
mod attack;
pub mod confidence;
pub mod model;
pub mod ocsf;
pub mod parents;
pub mod sink;
