//! Fast path and slow path together: the real object by `BPF_PROG_TEST_RUN` with the daemon's slow path behind it, and
//! the host's two paths. The same packets go through both, and the same must come out.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard};

use aya::programs::{TestRun as _, TestRunOptions};
use nix::sched::{CloneFlags, setns, unshare};
use nix::time::{ClockId, clock_gettime};
use sensor::capture::kernel::{Kernel, KernelResume};
use sensor::capture::offline::Offline;
use sensor::capture::ring::Ring;
use sensor::capture::tables::Tables;
use sensor::config::model::Bounds;
use sensor::slow::{Limits, SlowCounts, SlowPath};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{RecordHead, kind};

use super::net::{CLIENT_END, SERVER_END, run};
use super::packets::Segment;
use super::sides::{NEXT, Record, Totals, assert_identities, grown};

/// The largest payload that one test run takes.
const PAYLOAD_MAX: usize = 3000;

/// `segments`, those that are too large for a test run in several.
pub fn fitting(segments: &[Segment]) -> Vec<Segment> {
    let mut out = Vec::new();
    for segment in segments {
        let mut rest = segment.clone();
        while rest.payload.len() > PAYLOAD_MAX {
            let mut first = rest.clone();
            rest.payload = first.payload.split_off(PAYLOAD_MAX);
            rest.sequence = first.sequence.wrapping_add(u32::try_from(PAYLOAD_MAX).unwrap());
            first.flags &= !super::packets::FIN;
            out.push(first);
        }
        out.push(rest);
    }
    out
}

/// The loaded object: loading it takes seconds, so tests take turns at one.
pub struct Object {
    kernel: Kernel,
    rings: (Ring, Ring),
    resume: KernelResume,
    /// The namespace of `device`.
    namespace: File,
    /// The device that packets come from: on the loopback device seen bytes are not compared.
    device: u32,
}

impl Object {
    /// Loads it, with a network namespace of its own.
    pub fn load(tables: &Tables, bounds: &Bounds, local: &[IpAddr]) -> Self {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        run(&["ip", "link", "add", CLIENT_END, "type", "veth", "peer", "name", SERVER_END]);
        let device = nix::net::if_::if_nametoindex(CLIENT_END).unwrap();
        let namespace = File::open("/proc/thread-self/ns/net").unwrap();
        let mut kernel = Kernel::load(sensor::object::embedded().unwrap(), bounds).unwrap();
        kernel.configure(tables).unwrap();
        kernel.set_local_addresses(local).unwrap();
        let rings = kernel.rings(bounds).unwrap();
        let resume = kernel.resumer().unwrap();
        Self { kernel, rings, resume, namespace, device }
    }

    /// For one test alone.
    pub fn alone(self) -> MutexGuard<'static, Self> {
        let object: &'static Mutex<Self> = Box::leak(Box::new(Mutex::new(self)));
        object.lock().unwrap()
    }
}

/// The object and the slow path, joined as the daemon joins them.
pub struct Live {
    object: MutexGuard<'static, Object>,
    before: Totals,
    pub slow: SlowPath,
}

impl Live {
    /// A new slow path behind the object, whose rings are empty and whose totals begin at 0.
    pub fn new(mut object: MutexGuard<'static, Object>, tables: &Tables, limits: Limits) -> Self {
        setns(&object.namespace, CloneFlags::CLONE_NEWNET).unwrap();
        let rings = &mut object.rings;
        for ring in [&mut rings.0, &mut rings.1] {
            ring.read(ring.produced(), |_| {});
        }
        let before = object.kernel.totals().unwrap();
        Self { object, before, slow: SlowPath::new(tables, limits) }
    }

    /// One packet, which must go on as it was.
    pub fn packet(&mut self, frame: &[u8]) {
        // `struct __sk_buff` up to `ifindex`.
        let mut context = [0; 44];
        context[40..].copy_from_slice(&self.object.device.to_ne_bytes());
        let mut out = vec![0xee; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ctx_in: Some(&context),
            ..TestRunOptions::default()
        };
        let result = self.object.kernel.program("authsensor_ingress").unwrap().test_run(options).unwrap();
        assert_eq!(result.return_value, NEXT, "the packet goes on to the next program");
        assert_eq!(&out[..result.data_size_out as usize], frame, "the packet is as it was");
    }

    /// One reading of the rings, in the daemon's order.
    pub fn turn(&mut self, mut take: impl FnMut(&[u8])) {
        let now = monotonic();
        let Object { rings: (events, bytes), resume, .. } = &mut *self.object;
        let (bytes_to, events_to) = (bytes.produced(), events.produced());
        events.read(events_to, &mut take);
        let slow = &mut self.slow;
        bytes.read(bytes_to, |record| slow.record(record, resume, &mut take));
        slow.tick(now, resume, &mut take);
    }

    /// As [`Self::turn`], and nothing that is missing is waited for any longer.
    pub fn settle(&mut self, mut take: impl FnMut(&[u8])) {
        self.turn(&mut take);
        self.slow.settle(monotonic(), &mut self.object.resume, &mut take);
    }

    /// Totals of both paths.
    pub fn totals(&self) -> Totals {
        self.slow.with_fast(&grown(&self.before, &self.object.kernel.totals().unwrap()))
    }
}

fn monotonic() -> u64 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(std::time::Duration::from(time).as_nanos()).unwrap()
}

/// Records of a run, made comparable: without times, flows numbered by when they began, and each flow's in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub events: Vec<Record>,
    pub bytes: Vec<Record>,
    pub versions: Vec<Record>,
}

impl Told {
    pub fn new(records: &[Vec<u8>]) -> Self {
        const FLOW: usize = std::mem::offset_of!(RecordHead, flow);
        let began = |record: &[u8]| u64::from_le_bytes(record[FLOW..FLOW + 8].try_into().unwrap());
        let flows: BTreeSet<u64> = records.iter().map(|record| began(record)).collect();
        let mut numbered: Vec<(usize, Record)> = records
            .iter()
            .map(|record| {
                let number = flows.iter().position(|flow| *flow == began(record)).unwrap();
                let mut record = record.clone();
                record[8..16].fill(0);
                record[FLOW..FLOW + 8].copy_from_slice(&(number as u64).to_le_bytes());
                (number, Record(record))
            })
            .collect();
        numbered.sort_by_key(|(number, _)| *number);
        let mut told = Self::default();
        for (_, record) in numbered {
            match record.kind() {
                kind::TEE | kind::TEE_END => told.bytes.push(record),
                kind::VERSION => told.versions.push(record),
                _ => told.events.push(record),
            }
        }
        told
    }

    /// Kinds of the events, with their transactions.
    pub fn exchanges(&self) -> Vec<(u8, u32)> {
        self.events.iter().map(|record| (record.kind(), record.transaction())).collect()
    }

    /// The bytes that were teed, one behind the other.
    pub fn teed(&self) -> Vec<u8> {
        self.bytes.iter().filter(|record| record.kind() == kind::TEE).flat_map(Record::teed).copied().collect()
    }
}

/// What a run made.
#[derive(Clone, Debug)]
pub struct Made {
    pub told: Told,
    /// By counter: how much the totals of both paths grew.
    pub counts: Totals,
    /// By counter: how much those of the slow path alone grew.
    pub slow: Totals,
}

impl Made {
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }
    /// Heads that the slow path read.
    pub fn slow_heads(&self) -> u64 {
        self.slow[Counter::HeadsCompleted as usize]
    }
}

/// Live and host.
pub struct Both {
    pub live: Live,
    host: Offline,
    at_ns: u64,
}

impl Both {
    /// With the bounds of the object and its tables.
    pub fn new(object: MutexGuard<'static, Object>, tables: impl Fn() -> Tables, bounds: &Bounds) -> Self {
        let limits = Limits::from(bounds);
        let live = Live::new(object, &tables(), limits);
        let (flows, slots) = (bounds.flows as usize, bounds.split_heads as usize);
        Self { live, host: Offline::new(tables(), false, flows, slots, limits), at_ns: 1 }
    }

    fn totals(&self) -> [(Totals, Totals); 2] {
        let (live, host) = (&self.live, &self.host);
        [(live.totals(), *live.slow.totals()), (host.totals(), *host.slow_totals())]
    }

    /// The segments, records read behind every `every` of them and at the end.
    pub fn run_every(&mut self, segments: &[Segment], every: usize) -> Made {
        self.compared(|both, live, host| {
            for (number, segment) in fitting(segments).iter().enumerate() {
                let frame = segment.frame();
                both.live.packet(&frame);
                both.at_ns += 1;
                both.host.ethernet(both.at_ns, &frame, u32::try_from(frame.len()).unwrap());
                if (number + 1) % every == 0 {
                    both.live.turn(|record| live.push(record.to_vec()));
                    both.host.drain(|record| host.push(record.to_vec()));
                }
            }
            both.live.turn(|record| live.push(record.to_vec()));
            both.host.drain(|record| host.push(record.to_vec()));
        })
    }

    /// The segments, records read behind each.
    pub fn run(&mut self, segments: &[Segment]) -> Made {
        self.run_every(segments, 1)
    }

    /// Nothing that is missing is waited for any longer: then what was handed over is what the slow path has.
    pub fn rest(&mut self) -> Made {
        let made = self.compared(|both, live, host| {
            both.live.settle(|record| live.push(record.to_vec()));
            both.host.settle(|record| host.push(record.to_vec()));
        });
        let handed = self.live.totals()[Counter::BytesHandedOver as usize];
        let slow = self.live.slow.totals();
        let sum = [Counter::BytesParsed, Counter::BytesSkipped, Counter::BytesGap].map(|one| slow[one as usize]);
        assert_eq!(
            handed,
            sum.iter().sum::<u64>(),
            "handed over = parsed {} + skipped {} + gap {}",
            sum[0],
            sum[1],
            sum[2]
        );
        made
    }

    /// What the slow path counted.
    pub fn slow_counts(&self) -> SlowCounts {
        self.live.slow.counts()
    }

    fn compared(&mut self, work: impl FnOnce(&mut Self, &mut Vec<Vec<u8>>, &mut Vec<Vec<u8>>)) -> Made {
        let before = self.totals();
        let (mut live, mut host) = (Vec::new(), Vec::new());
        work(self, &mut live, &mut host);
        let after = self.totals();
        for (live, host) in [(after[0].0, after[1].0), (after[0].1, after[1].1)] {
            for counter in Counter::ALL {
                let index = *counter as usize;
                assert_eq!(live[index], host[index], "kernel and host count {} alike", counter.label());
            }
            assert_identities(&host);
        }
        assert_eq!(self.live.slow.counts(), self.host.slow(), "both slow paths count alike");
        let told = Told::new(&live);
        assert_eq!(told, Told::new(&host), "both make the same records");
        let [(all, slow), _] = after;
        Made { told, counts: grown(&before[0].0, &all), slow: grown(&before[0].1, &slow) }
    }
}
