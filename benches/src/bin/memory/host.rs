//! The parser, the collector and the ledger in user space: the peak of the process against what the bounds allow.

use std::error::Error;
use std::fs;
use std::sync::Arc;

use sensor::capture::host::HostEngine;
use sensor::capture::tables::Tables;
use sensor::cli::start::fixed_keys;
use sensor::collect::{Clock, Collector, Sink, Transaction};
use sensor::config::model::Config;
use sensor::ledger::Ledger;
use sensor::observation::{Instant, Observation};
use sensor_ebpf::flow::{Flow, FlowKey};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::work::Captured;

use super::Row;
use super::load::{Load, is_cut};

/// Bytes that an entry of a table may take beside what is in it: its place in a hash table that is seven eighths full at
/// best and half full after it grew, its place in the order of eviction, the allocator's part.
const ENTRY: u64 = 192;
/// Bytes that a pending request, with its target, credentials and addresses, may take.
const PENDING: u64 = 4096;
/// Bytes of a credential's first use in the ledger. (Nothing is issued here.)
const FIRST_USE: u64 = 192;
/// Bytes of decoded claims.
const CLAIMS: u64 = 1024;
/// Bytes that the process may take beside its tables.
const PROCESS: u64 = 16 << 20;
/// Frames between two applications of what they brought.
const BATCH: u64 = 64;

type Failure = Box<dyn Error>;

/// The parser alone.
pub fn engine(config: &Arc<Config>, connections: u32) -> Result<Vec<Row>, Failure> {
    let before = resident()?.0;
    let mut host = Host::new(config, None)?;
    let mut rows = host.through(config, connections)?;
    rows.push(Row("peak of resident memory, bytes", resident()?.1 - before, Some(parser_bound(config))));
    Ok(rows)
}

/// Parser, collector, ledger.
pub fn collector(config: &Arc<Config>, connections: u32) -> Result<Vec<Row>, Failure> {
    let before = resident()?.0;
    let keys = fixed_keys(config);
    let started = Instant { monotonic_ns: 0, unix_ns: 0 };
    let ledger = Ledger::new(config, keys.account, started);
    let collector = Collector::new(Arc::clone(config), keys, Clock::default(), ledger);
    let mut host = Host::new(config, Some(collector))?;
    let mut rows = host.through(config, connections)?;
    let Some(collector) = &mut host.collector else { return Ok(rows) };
    let counts = *collector.counts();
    let stats = collector.ledger().stats();
    let gone = counts.requests.checked_sub(counts.observations + counts.pending);
    rows.extend([
        Row("requests taken in", counts.requests, None),
        Row("  waiting for their response", counts.pending, Some(config.bounds.pending_requests as u64)),
        Row("  given up early because the table was full, counted", counts.evicted, None),
        Row("  neither observed nor waiting", gone.ok_or("more observations than requests")?, Some(0)),
        Row("  observations that reached nobody", counts.observations - host.observed.0, Some(0)),
        Row("  records that found no room", counts.requests_lost + counts.others_lost, Some(0)),
        Row("claims evicted, counted", stats.claims_evictions, None),
        Row("first uses evicted, counted", stats.seen_evictions, None),
        Row("peak of resident memory, bytes", resident()?.1 - before, Some(collector_bound(config))),
    ]);
    Ok(rows)
}

/// What the parser's bounds allow.
pub fn parser_bound(config: &Config) -> u64 {
    let flow = (size_of::<FlowKey>() * 2 + size_of::<Flow>()) as u64 + ENTRY;
    let slot = size_of::<Captured>() as u64 + ENTRY;
    u64::from(config.bounds.flows) * flow + u64::from(config.bounds.split_heads) * slot + PROCESS
}

/// What all bounds allow. The collector's queue holds four times what the rings do.
fn collector_bound(config: &Config) -> u64 {
    let bounds = &config.bounds;
    let queue = 4 * (u64::from(bounds.event_ring_bytes) + u64::from(bounds.byte_ring_bytes));
    let ledger = config.ledger.max_seen as u64 * FIRST_USE;
    let claims = bounds.claims_cache as u64 * CLAIMS;
    parser_bound(config) + queue + bounds.pending_requests as u64 * PENDING + ledger + claims
}

/// Counts what it is given.
struct Observed(u64);

impl Sink for Observed {
    fn observation(&mut self, _: &Observation, _: &Transaction<'_>) {
        self.0 += 1;
    }
}

struct Host {
    engine: HostEngine,
    collector: Option<Collector>,
    observed: Observed,
    at_ns: u64,
}

impl Host {
    fn new(config: &Config, collector: Option<Collector>) -> Result<Self, Failure> {
        let tables = Tables::new(config, fixed_keys(config).fingerprint)?;
        let engine = HostEngine::new(tables, false, config.bounds.flows as usize, config.bounds.split_heads as usize);
        Ok(Self { engine, collector, observed: Observed(0), at_ns: 1 })
    }

    fn frame(&mut self, frame: &[u8]) -> Result<(), Failure> {
        self.at_ns += 1000;
        self.engine.ethernet(self.at_ns, frame, u32::try_from(frame.len())?);
        let Some(collector) = &mut self.collector else {
            self.engine.drain(|_| {});
            return Ok(());
        };
        self.engine.drain(|record| collector.record(record));
        if (self.at_ns / 1000).is_multiple_of(BATCH) {
            collector.advance(self.at_ns, &mut self.observed);
        }
        Ok(())
    }

    /// The same connections as in the kernel's part.
    fn through(&mut self, config: &Config, connections: u32) -> Result<Vec<Row>, Failure> {
        let load = Load::new()?;
        let bound = u64::from(config.bounds.flows);
        for number in 0..connections {
            for frame in load.opening(number) {
                self.frame(&frame)?;
            }
        }
        let mut rows = Vec::from(self.flows("connections opened", bound)?);
        for number in (0..connections).filter(|number| is_cut(*number)) {
            self.frame(&load.rest(number))?;
        }
        rows.push(Row("heads completed", self.count(Counter::HeadsCompleted), None));
        rows.push(Row("  of those cut: captures lost, counted", self.count(Counter::HeadSlotLost), None));
        let beyond = config.bounds.flows.saturating_add(config.bounds.flows / 2);
        for number in connections..beyond.max(connections) {
            for frame in load.opening(number) {
                self.frame(&frame)?;
            }
        }
        rows.extend(self.flows("half as many again as fit: connections opened", bound)?);
        if let Some(collector) = &mut self.collector {
            collector.advance(self.at_ns + 1, &mut self.observed);
        }
        Ok(rows)
    }

    fn count(&self, counter: Counter) -> u64 {
        self.engine.totals().get(counter as usize).copied().unwrap_or(0)
    }

    fn flows(&self, name: &'static str, bound: u64) -> Result<[Row; 3], Failure> {
        let (created, live) = (self.count(Counter::FlowsCreated), self.engine.flows() as u64);
        let evicted = created.checked_sub(self.count(Counter::FlowsDeleted) + live);
        let evicted = evicted.ok_or("more flows are live than were created")?;
        Ok([
            Row(name, created, None),
            Row("  live", live, Some(bound)),
            Row("  evicted (created - deleted - live)", evicted, None),
        ])
    }
}

/// Resident memory of this process, bytes: now, at its peak.
pub fn resident() -> Result<(u64, u64), Failure> {
    let text = fs::read_to_string("/proc/self/status")?;
    let kibibytes = |name: &str| -> Option<u64> {
        text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?.parse().ok()
    };
    let both = kibibytes("VmRSS:").zip(kibibytes("VmHWM:")).ok_or("/proc/self/status does not say")?;
    Ok((both.0 << 10, both.1 << 10))
}
