//! Traffic as text: one HTTP transaction a line, in and out, and its way into the pipeline.
//!
//! Lines flow in through [`TraceReader`], which says file, line and key of whatever it does not understand; [`Converter`]
//! makes of a line an [`Exchange`], what the parser would have reported of that request and its response, and
//! [`Encoder`] the records that the kernel would have sent. Everything behind that is the pipeline itself. Whoever makes
//! traffic (the simulator of the benches) fills an [`Exchange`] directly, or writes lines with [`write_line`].
//!
//! A trace carries raw credentials, as the traffic does. They are fingerprinted in [`Converter`]; what held them is wiped.

mod convert;
mod credential;
mod exchange;
mod line;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use convert::{Converter, Misfit};
pub use credential::{claims_of, fingerprinted};
pub use exchange::Encoder;
pub use line::{Body, Credentials, Line, Pairs, Text};
pub use reader::{TraceError, TraceReader};
pub use writer::write_line;
