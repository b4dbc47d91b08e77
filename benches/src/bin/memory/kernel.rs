//! The maps of the shipped object, filled by `BPF_PROG_TEST_RUN`.

use std::error::Error;
use std::fs;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Pod;
use aya::maps::{HashMap, Map, MapData, MapType};
use aya::programs::{TestRun as _, TestRunOptions};
use sensor::capture::kernel::Kernel;
use sensor::capture::ring::Ring;
use sensor::capture::tables::Tables;
use sensor::config::model::Config;
use sensor_ebpf::flow::{Flow, FlowKey, SlotKey};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::work::Captured;

use super::Row;
use super::load::{Load, SERVICE, is_cut};

/// Bytes of the kernel's own for each entry of a map (element header, hash bucket; fewer than these).
const ENTRY: u64 = 128;
/// Bytes of the kernel's own for each map.
const MAP: u64 = 1 << 20;
/// Connections between two readings of the rings.
const BATCH: u32 = 4096;

type Failure = Box<dyn Error>;

struct Maps {
    kernel: Kernel,
    rings: (Ring, Ring),
}

/// Opens the connections, completes the heads that were cut, and opens half as many connections again as fit.
pub fn measure(config: &Config, connections: u32) -> Result<Vec<Row>, Failure> {
    let load = Load::new()?;
    let mut maps = Maps::new(config)?;
    let (held, allowed) = maps.memory()?;
    let (flows, slots) = (u64::from(config.bounds.flows), u64::from(config.bounds.split_heads));
    let mut rows = vec![Row("memory of all maps, empty, bytes", held, Some(allowed))];
    let [flow_bytes, slot_bytes] = [maps.map_memory("FLOWS")?, maps.map_memory("SLOTS")?];
    rows.push(Row("  of FLOWS", flow_bytes.0, Some(flow_bytes.1)));
    rows.push(Row("  of SLOTS", slot_bytes.0, Some(slot_bytes.1)));

    for number in 0..connections {
        maps.run_all(&load.opening(number), number)?;
    }
    rows.extend(maps.flows("connections opened", flows)?);
    let live_slots = maps.live::<{ size_of::<SlotKey>() }, { size_of::<Captured>() }>("SLOTS")?;
    rows.push(Row("  heads held that are cut", live_slots, Some(slots)));

    for number in (0..connections).filter(|number| is_cut(*number)) {
        maps.run_all(&[load.rest(number)], number)?;
    }
    let totals = maps.kernel.totals()?;
    let of = |counter: Counter| totals.get(counter as usize).copied().unwrap_or(0);
    rows.push(Row("heads completed", of(Counter::HeadsCompleted), None));
    rows.push(Row("  of those cut: captures lost, counted", of(Counter::HeadSlotLost), None));
    rows.push(Row("  records lost", of(Counter::LostEventRing), Some(0)));

    let beyond = config.bounds.flows.saturating_add(config.bounds.flows / 2);
    for number in connections..beyond.max(connections) {
        maps.run_all(&load.opening(number), number)?;
    }
    rows.extend(maps.flows("half as many again as fit: connections opened", flows)?);
    let live_slots = maps.live::<{ size_of::<SlotKey>() }, { size_of::<Captured>() }>("SLOTS")?;
    rows.push(Row("  heads held that are cut", live_slots, Some(slots)));
    rows.push(Row("memory of all maps, full, bytes", maps.memory()?.0, Some(held)));
    Ok(rows)
}

impl Maps {
    fn new(config: &Config) -> Result<Self, Failure> {
        let mut kernel = Kernel::load(sensor::object::embedded()?, &config.bounds)?;
        kernel.stop_stats();
        kernel.configure(&Tables::new(config, Key::from_bytes(b"a key for benches"[..16].try_into()?))?)?;
        kernel.set_local_addresses(&[SERVICE])?;
        let rings = kernel.rings(&config.bounds)?;
        Ok(Self { kernel, rings })
    }

    /// Gives the program each frame once; now and then the rings are emptied.
    fn run_all(&mut self, frames: &[Vec<u8>], number: u32) -> Result<(), Failure> {
        let program = self.kernel.program("authsensor_ingress")?;
        for frame in frames {
            program.test_run(TestRunOptions { data_in: Some(frame), repeat: 1, ..TestRunOptions::default() })?;
        }
        if number.is_multiple_of(BATCH) || number.is_multiple_of(BATCH - 6) {
            for ring in [&mut self.rings.0, &mut self.rings.1] {
                ring.read(ring.produced(), |_| {});
            }
        }
        Ok(())
    }

    /// Created, deleted, live, and what is missing between them: evicted.
    fn flows(&mut self, name: &'static str, bound: u64) -> Result<[Row; 3], Failure> {
        let totals = self.kernel.totals()?;
        let of = |counter: Counter| totals.get(counter as usize).copied().unwrap_or(0);
        let (created, deleted) = (of(Counter::FlowsCreated), of(Counter::FlowsDeleted));
        let live = self.live::<{ size_of::<FlowKey>() }, { size_of::<Flow>() }>("FLOWS")?;
        let evicted = created.checked_sub(deleted).and_then(|left| left.checked_sub(live));
        let evicted = evicted.ok_or("more flows are live than were created")?;
        let seen: u64 = Counter::PACKET_DISPOSITIONS.iter().map(|counter| of(*counter)).sum();
        if seen != of(Counter::PacketsSeen) {
            return Err("packets seen are not packets disposed of".into());
        }
        Ok([
            Row(name, created, None),
            Row("  live", live, Some(bound)),
            Row("  evicted (created - deleted - live)", evicted, None),
        ])
    }

    /// Entries of a map.
    fn live<const K: usize, const V: usize>(&self, name: &str) -> Result<u64, Failure>
    where
        [u8; K]: Pod,
        [u8; V]: Pod,
    {
        let map = self.kernel.loaded().map(name).ok_or("no such map")?;
        let table: HashMap<&MapData, [u8; K], [u8; V]> = HashMap::try_from(map)?;
        table.keys().try_fold(0, |count, key| key.map(|_| count + 1)).map_err(Failure::from)
    }

    /// Bytes of all maps: held, allowed.
    fn memory(&self) -> Result<(u64, u64), Failure> {
        let mut sum = (0, 0);
        for (_, map) in self.kernel.loaded().maps() {
            let (held, allowed) = memory(map)?;
            sum = (sum.0 + held, sum.1 + allowed);
        }
        Ok(sum)
    }

    fn map_memory(&self, name: &str) -> Result<(u64, u64), Failure> {
        memory(self.kernel.loaded().map(name).ok_or("no such map")?)
    }
}

/// What the kernel says that a map takes, and what its number of entries and their size allow.
fn memory(map: &Map) -> Result<(u64, u64), Failure> {
    let data = match map {
        Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data) | Map::RingBuf(data) => {
            data
        }
        other => return Err(format!("a map of an unknown kind: {other:?}").into()),
    };
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", data.fd().as_fd().as_raw_fd()))?;
    let held = text.lines().find_map(|line| line.strip_prefix("memlock:")).ok_or("fdinfo has no memlock")?;
    let info = data.info()?;
    let entries = u64::from(info.max_entries());
    let (key, value) =
        (u64::from(info.key_size()).next_multiple_of(8), u64::from(info.value_size()).next_multiple_of(8));
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| format!("{path}: {error}"))? as u64;
    let allowed = match info.map_type()? {
        // Its pages stand in a list.
        MapType::RingBuf => entries + entries / 128,
        MapType::PerCpuArray => entries * (value * cpus + ENTRY),
        _ => entries * (key + value + ENTRY),
    };
    Ok((held.trim().parse()?, allowed + MAP))
}
