//! Findings and how they are reported.
pub mod model;
