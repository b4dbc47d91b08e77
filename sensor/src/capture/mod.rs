//! Where packets come from: capture files ([`file`]).

pub mod file;
