//! Configuration: TOML in, [`model::Config`] out.
pub mod model;
