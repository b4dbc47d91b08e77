//! `authsensor probe`: does this kernel take the BPF object? Loads everything, attaches nothing.

use std::io::Write as _;

use super::start::CliError;
use crate::capture::kernel::Kernel;
use crate::config;
use crate::object;

/// Runs the command: a line for each program, with the number of instructions that the verifier looked at.
pub fn run() -> Result<(), CliError> {
    let object = object::embedded()?;
    let mut bounds = config::defaults().ok_or(CliError::NothingToReplay)?.bounds;
    // Small tables: a guest of a few hundred megabytes is enough.
    bounds.flows = 1024;
    bounds.split_heads = 16;
    bounds.event_ring_bytes = 1 << 20;
    bounds.byte_ring_bytes = 1 << 20;
    let mut kernel = Kernel::load(object, &bounds)?;
    let mut out = std::io::stdout();
    for (name, instructions) in kernel.verified()? {
        let _ = writeln!(out, "loaded: {name} verified_insns={instructions}");
    }
    Ok(())
}
