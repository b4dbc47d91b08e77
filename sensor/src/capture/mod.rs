//! Where packets come from: capture files ([`mod@file`]).

pub mod file;
