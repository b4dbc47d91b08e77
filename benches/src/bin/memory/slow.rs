//! Both paths in user space: the same connections, but the second part of every cut head comes first, so that a tenth of
//! them is handed over to the slow path and waits there.

use std::error::Error;

use sensor::capture::offline::Offline;
use sensor::capture::tables::Tables;
use sensor::cli::start::fixed_keys;
use sensor::config::model::Config;
use sensor_ebpf::reason::Counter;

use super::Row;
use super::host::{parser_bound, resident};
use super::load::{Load, is_cut};

/// What an allocator may waste of what the slow path holds: its bytes are counted as the pieces that were asked for.
const SLACK: u64 = 2;

type Failure = Box<dyn Error>;

/// The parser and the slow path.
pub fn measure(config: &Config, connections: u32) -> Result<Vec<Row>, Failure> {
    let before = resident()?.0;
    let tables = Tables::new(config, fixed_keys(config).fingerprint)?;
    let bounds = &config.bounds;
    let (flows, slots) = (bounds.flows as usize, bounds.split_heads as usize);
    let mut both = Offline::new(tables, false, flows, slots, bounds.into());
    let load = Load::new()?;
    let (mut at_ns, mut heads, mut held) = (1, 0u64, 0);
    let mut frame = |both: &mut Offline, frame: &[u8]| -> Result<(), Failure> {
        at_ns += 1000;
        both.ethernet(at_ns, frame, u32::try_from(frame.len())?);
        both.drain(|_| heads += 1);
        held = held.max(both.slow().held);
        Ok(())
    };
    for number in 0..connections {
        let [syn, first] = load.opening(number);
        frame(&mut both, &syn)?;
        frame(&mut both, &if is_cut(number) { load.rest(number) } else { first })?;
    }
    let waiting = both.slow();
    for number in (0..connections).filter(|number| is_cut(*number)) {
        let [_, first] = load.opening(number);
        frame(&mut both, &first)?;
    }
    both.finish(|_| {});
    let totals = both.totals();
    let count = |counter: Counter| totals.get(counter as usize).copied().unwrap_or(0);
    let whole = (0..connections).filter(|number| !is_cut(*number)).count() as u64;
    let completed = count(Counter::HeadsCompleted).saturating_sub(whole);
    let evicted = both.slow();
    Ok(vec![
        Row("connections opened", count(Counter::FlowsCreated), None),
        Row("halves handed over", count(Counter::HalvesHandedOver), None),
        Row("  followed by the slow path then", waiting.flows, Some(bounds.slow_flows as u64)),
        Row("  gone because a bound was reached, counted", evicted.evicted, None),
        Row("    of clients with more than their share", evicted.evicted_share, None),
        Row("    whose state had gone before", evicted.evicted_found, None),
        Row("  bytes held for them at most", held, Some(bounds.slow_path_bytes as u64)),
        Row("heads completed", count(Counter::HeadsCompleted), None),
        Row("  of those cut", completed, None),
        Row("  cut, followed then, and not completed", waiting.flows.saturating_sub(completed), Some(0)),
        Row("peak of resident memory, bytes", resident()?.1 - before, Some(bound(config))),
    ])
}

/// What the bounds allow.
fn bound(config: &Config) -> u64 {
    parser_bound(config) + SLACK * config.bounds.slow_path_bytes as u64
}
