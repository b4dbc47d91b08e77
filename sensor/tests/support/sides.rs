//! The same packets through both parsers: the real object by `BPF_PROG_TEST_RUN`, and the host's.
//!
//! Only the fast path: what it hands over nobody takes. Packets come from another device than the loopback one, on which
//! seen bytes are not compared.
//!
//! Of the records, two fields differ by nature and are made comparable: `time_ns` is zeroed, and a flow's `created_ns`
//! becomes the number of the flow in order of appearance, also in a hand-over's copy of the flow. Of a hand-over, what
//! the scratch area held before is left out. All else must be equal, byte for byte, and so must the totals.

use std::fs;
use std::mem::offset_of;

use aya::programs::{TestRun as _, TestRunOptions};
use nix::sched::{CloneFlags, unshare};
use sensor::capture::host::HostEngine;
use sensor::capture::kernel::Kernel;
use sensor::capture::ring::Ring;
use sensor::capture::tables::Tables;
use sensor::config::model::{Bounds, Config};
use sensor_ebpf::flow::Flow;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{Credential, FlowId, HandoverRecord, HeadRecord, RecordHead, kind};
use sensor_ebpf::work::Captured;

use super::net::{CLIENT_END, SERVER_END, run};
use super::packets::Segment;

/// `TC_ACT_UNSPEC`.
pub const NEXT: u32 = u32::MAX;
/// The fingerprint key of these tests.
pub const KEY: Key = Key { k0: 0x0706_0504_0302_0100, k1: 0x0f0e_0d0c_0b0a_0908 };
/// Totals by counter.
pub type Totals = [u64; Counter::COUNT];

/// The configuration of `text`, with its rules left out.
pub fn config(text: &str) -> Config {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("authsensor.toml");
    fs::write(&path, format!("rules = []\n{text}")).unwrap();
    let report = sensor::config::examine(&path);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
    report.config.unwrap()
}

/// A record of a ring.
#[derive(Clone, PartialEq, Eq)]
pub struct Record(pub Vec<u8>);

impl std::fmt::Debug for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kind {} way {} [{}]", self.kind(), self.0[5], self.0.escape_ascii())
    }
}

impl Record {
    pub fn kind(&self) -> u8 {
        self.0[4]
    }
    /// A head as its structure.
    pub fn head(&self) -> HeadRecord {
        assert!(matches!(self.kind(), kind::REQUEST | kind::RESPONSE | kind::VERSION), "{self:?}");
        // SAFETY: the structure is all integers; the length is checked by the slice.
        unsafe { self.0[..size_of::<HeadRecord>()].as_ptr().cast::<HeadRecord>().read_unaligned() }
    }
    pub fn credentials(&self) -> Vec<Credential> {
        let each = size_of::<Credential>();
        let list = &self.0[size_of::<HeadRecord>()..][..usize::from(self.head().credentials) * each];
        // SAFETY: as above.
        list.chunks_exact(each).map(|bytes| unsafe { bytes.as_ptr().cast::<Credential>().read_unaligned() }).collect()
    }
    /// The capture of index `which` (`wire::capture`).
    pub fn capture(&self, which: usize) -> &[u8] {
        let span = self.head().captures[which];
        let area = size_of::<HeadRecord>() + self.credentials().len() * size_of::<Credential>();
        &self.0[area..][usize::from(span.at)..][..usize::from(span.len)]
    }
    /// Transaction number.
    pub fn transaction(&self) -> u32 {
        u32::from_le_bytes(self.0[32..36].try_into().unwrap())
    }
    /// Behind the fixed part of a TEE record.
    pub fn teed(&self) -> &[u8] {
        assert_eq!(self.kind(), kind::TEE);
        &self.0[56..]
    }
    /// Of an END or `TEE_END` record: body bytes, and whether it was complete.
    pub fn end(&self) -> (u64, bool) {
        assert!(matches!(self.kind(), kind::END | kind::TEE_END), "{self:?}");
        (u64::from_le_bytes(self.0[48..56].try_into().unwrap()), self.0[56] == 1)
    }
}

/// Records of both rings, made comparable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    pub events: Vec<Record>,
    pub bytes: Vec<Record>,
}

impl Records {
    fn add(&mut self, record: &[u8], flows: &mut Vec<[u8; 12]>) {
        // The host puts fragments together itself.
        if record[4] == kind::FRAGMENT {
            return;
        }
        let mut record = record.to_vec();
        record[8..16].fill(0);
        let flow: [u8; 12] = record[16..28].try_into().unwrap();
        let number = flows.iter().position(|known| *known == flow).unwrap_or_else(|| {
            flows.push(flow);
            flows.len() - 1
        });
        let number = (number as u64).to_le_bytes();
        record[16..24].copy_from_slice(&number);
        if record[4] == kind::HANDOVER {
            let created = offset_of!(HandoverRecord, flow) + offset_of!(Flow, id) + offset_of!(FlowId, created_ns);
            record[created..created + 8].copy_from_slice(&number);
            comparable_captures(&mut record[size_of::<HandoverRecord>()..]);
        }
        if matches!(record[4], kind::HANDOVER | kind::SEGMENT) {
            // A half is handed over, not a transaction.
            let txn = offset_of!(RecordHead, txn);
            record[txn..txn + 4].fill(0);
        }
        let list = if on_byte_ring(&record) { &mut self.bytes } else { &mut self.events };
        list.push(Record(record));
    }
    /// The kinds of the events.
    pub fn kinds(&self) -> Vec<u8> {
        self.events.iter().map(Record::kind).collect()
    }
    /// True if `secret` stands in any record.
    pub fn hold(&self, secret: &str) -> bool {
        let secret = secret.as_bytes();
        self.events.iter().chain(&self.bytes).any(|record| record.0.windows(secret.len()).any(|part| part == secret))
    }
}

/// True if the record stands on the ring of bytes.
fn on_byte_ring(record: &[u8]) -> bool {
    matches!(
        record[4],
        kind::TEE | kind::TEE_END | kind::HANDOVER | kind::SEGMENT | kind::RESUMED | kind::FRAGMENT | kind::AGAIN
    )
}

/// Zeroes of a hand-over's captures (if it has any) what is not of its head: the record's common head, which is written
/// when the record is made, and the room behind what was captured.
fn comparable_captures(captured: &mut [u8]) {
    if captured.is_empty() {
        return;
    }
    captured[..size_of::<RecordHead>()].fill(0);
    let len = offset_of!(Captured, len);
    let used = u32::from_le_bytes(captured[len..len + 4].try_into().unwrap()) as usize;
    captured[offset_of!(Captured, bytes) + used..].fill(0);
}

/// What a run of packets changed.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub records: Records,
    /// By counter: how much it grew.
    pub counts: Totals,
}

impl Outcome {
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }
    /// The three identities, over what this run changed.
    pub fn assert_identities(&self) {
        assert_identities(&self.counts);
    }
}

/// Packets, stream bytes and heads each add up.
pub fn assert_identities(counts: &Totals) {
    let sum = |list: &[Counter]| list.iter().map(|counter| counts[*counter as usize]).sum::<u64>();
    assert_eq!(counts[Counter::PacketsSeen as usize], sum(Counter::PACKET_DISPOSITIONS), "packets");
    assert_eq!(counts[Counter::BytesNew as usize], sum(Counter::BYTE_DISPOSITIONS), "bytes");
    assert_eq!(counts[Counter::HeadsCompleted as usize], sum(Counter::HEAD_DISPOSITIONS), "heads");
}

/// Both parsers with the same tables.
pub struct Sides {
    pub kernel: Kernel,
    rings: (Ring, Ring),
    host: HostEngine,
    at_ns: u64,
    /// The device that packets come from, in the thread's namespace.
    device: u32,
}

impl Sides {
    /// Loads the embedded object; moves the thread to a network namespace of its own. `local` are the addresses of this host (the host side takes every address for local).
    pub fn new(config: &Config, bounds: &Bounds, local: &[std::net::IpAddr]) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run(&["ip", "link", "add", CLIENT_END, "type", "veth", "peer", "name", SERVER_END]);
        let device = nix::net::if_::if_nametoindex(CLIENT_END).unwrap();
        let tables = Tables::new(config, KEY).unwrap();
        let mut kernel = Kernel::load(sensor::object::embedded().unwrap(), bounds).unwrap();
        kernel.configure(&tables).unwrap();
        kernel.set_local_addresses(local).unwrap();
        let rings = kernel.rings(bounds).unwrap();
        let host = HostEngine::new(tables, false, bounds.flows as usize, bounds.split_heads as usize);
        Self { kernel, rings, host, at_ns: 1, device }
    }

    /// Runs the program once over `frame`, which it must pass on, unchanged.
    pub fn run_program(&mut self, frame: &[u8]) {
        // `struct __sk_buff` up to `ifindex`.
        let mut context = [0; 44];
        context[40..].copy_from_slice(&self.device.to_ne_bytes());
        let mut out = vec![0xee; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.kernel.program("authsensor_ingress").unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, NEXT, "the packet goes on to the next program");
        assert_eq!(&out[..result.data_size_out as usize], frame, "the packet is as it was");
    }

    /// Reads both rings of the kernel.
    pub fn drain_kernel(&mut self) -> Records {
        let (mut records, mut flows) = (Records::default(), Vec::new());
        for ring in [&mut self.rings.0, &mut self.rings.1] {
            ring.read(ring.produced(), |record| records.add(record, &mut flows));
        }
        records
    }

    /// Gives `frame` to the host's parser.
    pub fn run_host(&mut self, frame: &[u8]) {
        self.at_ns += 1;
        self.host.ethernet(self.at_ns, frame, u32::try_from(frame.len()).unwrap());
    }

    pub fn drain_host(&mut self) -> Records {
        let mut all: Vec<Vec<u8>> = Vec::new();
        self.host.drain(|record| all.push(record.to_vec()));
        // Flows are numbered in the order in which the kernel's are: events first.
        all.sort_by_key(|record| on_byte_ring(record));
        let (mut records, mut flows) = (Records::default(), Vec::new());
        for record in all {
            records.add(&record, &mut flows);
        }
        records
    }

    pub fn host_totals(&self) -> Totals {
        *self.host.totals()
    }

    /// Both parsers over `frames`; what they made must be equal, and the identities must hold.
    pub fn run_frames(&mut self, frames: &[Vec<u8>]) -> Outcome {
        let (kernel_before, host_before) = (self.kernel.totals().unwrap(), self.host_totals());
        for frame in frames {
            self.run_program(frame);
            self.run_host(frame);
        }
        let records = self.drain_kernel();
        let counts = grown(&kernel_before, &self.kernel.totals().unwrap());
        let host = grown(&host_before, &self.host_totals());
        for counter in Counter::ALL {
            let index = *counter as usize;
            // The host puts fragments together itself.
            if matches!(
                counter,
                Counter::FragmentsReassembled | Counter::FragmentsConflicting | Counter::FragmentsDropped
            ) {
                continue;
            }
            assert_eq!(counts[index], host[index], "kernel and host count {} alike", counter.label());
        }
        assert_eq!(records, self.drain_host(), "kernel and host make the same records");
        let outcome = Outcome { records, counts };
        outcome.assert_identities();
        outcome
    }

    /// [`Self::run_frames`] for segments.
    pub fn run(&mut self, segments: &[Segment]) -> Outcome {
        let frames: Vec<Vec<u8>> = segments.iter().map(Segment::frame).collect();
        self.run_frames(&frames)
    }

    /// One frame; its disposition must be `disposition`.
    pub fn expect_frame(&mut self, frame: &[u8], disposition: Counter) -> Outcome {
        let outcome = self.run_frames(&[frame.to_vec()]);
        for counter in Counter::PACKET_DISPOSITIONS {
            assert_eq!(outcome.count(*counter), u64::from(*counter == disposition), "{}", counter.label());
        }
        outcome
    }

    /// One segment; its disposition must be `disposition`.
    pub fn expect(&mut self, segment: &Segment, disposition: Counter) -> Outcome {
        self.expect_frame(&segment.frame(), disposition)
    }
}

/// `after` less `before`.
pub fn grown(before: &Totals, after: &Totals) -> Totals {
    std::array::from_fn(|index| after[index] - before[index])
}
