//! What the subcommands of `authsensor` do, without the parsing of their arguments.
pub mod check;
