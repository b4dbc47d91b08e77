//! The HTTP state machine: both ends of a connection say anything in turn, cut anywhere, with bytes sent again.
//!
//! What must hold: the identities of the totals, and that cuts and repetitions change nothing.

use crate::rig::{Side, check_invariance, play, tables};
use crate::script;

/// Plays `data` as a [`script`] that the client begins.
pub fn target(data: &[u8]) {
    let events = script::read(Side::Client, data);
    let uncut = play(tables(0), &events, false);
    let cut = play(tables(0), &events, true);
    check_invariance(&uncut, &cut);
}
