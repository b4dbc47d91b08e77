//! The maps. Sizes marked "set at load" are bounds from the configuration.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray, RingBuf};
use sensor_ebpf::flow::{Flow, FlowKey, HeadPiece, HeadPieceKey, SlotKey};
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{
    EdgeKey, ListenKey, ROUTES_MAX, ResumeEntry, RouteConfig, RouteState, SERVICES_MAX, ServiceConfig, Settings, Totals,
};
use sensor_ebpf::work::{Captured, Work};

/// One bit a port: some service may listen there. Written by user space, read on every packet.
#[repr(C)]
pub struct Ports {
    /// Bit `port & 63` of word `port >> 6`.
    pub words: [u64; 1024],
}

/// Watched ports. One entry.
#[map]
pub static PORTS: Array<Ports> = Array::with_max_entries(1, 0);

/// Address and port to service index; and every such address with port 0, for packets that show no port. Written by user
/// space. 16 listen addresses a service.
#[map]
pub static LISTENS: HashMap<ListenKey, u32> = HashMap::with_max_entries(2048, 0);

/// This host's addresses, for services that listen on every address. Written by user space, again when they change.
#[map]
pub static LOCALS: HashMap<[u64; 2], u32> = HashMap::with_max_entries(4096, 0);

/// Services by index. Written by user space.
#[map]
pub static SERVICES: Array<ServiceConfig> = Array::with_max_entries(SERVICES_MAX as u32, 0);

/// What holds for all services. One entry, written by user space.
#[map]
pub static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);

/// Edges of the route automata. Written by user space.
#[map]
pub static EDGES: HashMap<EdgeKey, u32> = HashMap::with_max_entries(65536, 0);

/// States of the route automata; 0 is dead. Written by user space.
#[map]
pub static STATES: Array<RouteState> = Array::with_max_entries(65536, 0);

/// Routes by `service * ROUTES_MAX + route`. Written by user space.
#[map]
pub static ROUTES: Array<RouteConfig> = Array::with_max_entries((SERVICES_MAX * ROUTES_MAX) as u32, 0);

/// The fingerprint key. One entry, written by user space.
#[map]
pub static KEY: Array<Key> = Array::with_max_entries(1, 0);

/// Totals, per CPU. One entry, read by user space.
#[map]
pub static TOTALS: PerCpuArray<Totals> = PerCpuArray::with_max_entries(1, 0);

/// Flows. Size set at load; least recently used out first: evicted = created − deleted − live.
#[map]
pub static FLOWS: LruHashMap<FlowKey, Flow> = LruHashMap::with_max_entries(262_144, 0);

/// Captures of heads split over segments. Size set at load; least recently used out first, counted when missed.
#[map]
pub static SLOTS: LruHashMap<SlotKey, Captured> = LruHashMap::with_max_entries(4096, 0);

/// Segments of heads split over segments, to be known again. Size set at load; least recently used out first: one that is
/// sent again then is compared, and the request is in doubt.
#[map]
pub static PIECES: LruHashMap<HeadPieceKey, HeadPiece> = LruHashMap::with_max_entries(4096, 0);

/// Where the slow path left flows. Size set at load; least recently used out first: such a flow stays with the slow path
/// until it idles again.
#[map]
pub static RESUME: LruHashMap<FlowKey, ResumeEntry> = LruHashMap::with_max_entries(16384, 0);

/// Scratch. One entry a CPU: programs on these hooks run with bottom halves off, so one at a time a CPU.
#[map]
pub static WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(1, 0);

/// Scratch for a flow about to be inserted.
#[map]
pub static BLANK: PerCpuArray<Flow> = PerCpuArray::with_max_entries(1, 0);

/// Scratch for headers outside the linear part of a packet: 256 bytes, and eight so that any masked offset can be read.
#[map]
pub static HEADERS: PerCpuArray<[u8; 264]> = PerCpuArray::with_max_entries(1, 0);

/// Heads, ends and closes to user space. Size set at load; full: `event_ring_full`.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(16 << 20, 0);

/// Teed body bytes to user space. Size set at load; full: `byte_ring_full`.
#[map]
pub static BYTES: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
