//! The PROXY protocol at the start of a connection: any bytes, cut anywhere, in front of a request.
//!
//! What must hold: the identities of the totals, and that cuts change nothing, the client's address included.

use sensor_ebpf::wire::service_flag;

use crate::rig::{Side, check_invariance, play, tables};
use crate::script;

/// Plays `data` as a [`script`] to a service whose connections begin with a PROXY header.
pub fn target(data: &[u8]) {
    let events = script::read(Side::Client, data);
    let uncut = play(tables(service_flag::PROXY), &events, false);
    let cut = play(tables(service_flag::PROXY), &events, true);
    check_invariance(&uncut, &cut);
}
