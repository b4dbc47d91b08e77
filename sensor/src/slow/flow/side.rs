//! One side of a connection: its stream, what it acknowledged, and whether its end was told.
//!
//! The flow pushes its segments in and takes what is in order out; here is said what it waits for.

use crate::slow::stream::{Hole, Stream};

/// What one side of the connection sends.
#[derive(Default)]
pub(super) struct Side {
    /// Its bytes, once the half was handed over.
    pub(super) stream: Option<Stream>,
    /// What it acknowledged of the other side's bytes.
    pub(super) acknowledged: Option<u32>,
    /// Its end was told to the parser.
    pub(super) ended: bool,
}

impl Side {
    pub(super) fn hole(&self) -> Option<Hole> {
        self.stream.as_ref().and_then(Stream::hole)
    }

    pub(super) fn lacks_its_end(&self) -> bool {
        self.stream.as_ref().is_some_and(Stream::lacks_its_end)
    }

    pub(super) fn rests(&self) -> bool {
        self.stream.as_ref().is_some_and(|stream| stream.hole().is_none()) && !self.ended
    }
}
