//! What the command line's subcommands do. Each takes checked arguments and ends with an exit code; an error is one
//! readable paragraph on standard error and [`check::UNUSABLE`].

pub mod check;
pub mod interface;
pub mod issuer;
pub mod live;
pub mod observe;
pub mod probe;
pub mod reload;
pub mod replay;
pub mod routes;
pub mod run;
pub mod start;
