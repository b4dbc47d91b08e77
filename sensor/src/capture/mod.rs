//! Where packets come from, and how they become records: capture files ([`mod@file`]) through the parser on the host
//! ([`host`]), or this machine's interfaces through the same parser in the kernel ([`kernel`], read by [`ring`]).
//! [`tables`] compiles the configuration into what that parser looks up; [`fragments`] puts IP datagrams together.

pub mod file;
mod flows;
pub mod fragments;
#[cfg(test)]
mod fragments_tests;
pub mod host;
pub mod kernel;
pub mod offline;
pub mod ring;
pub mod tables;
