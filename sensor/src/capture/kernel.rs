//! The parser in the kernel: loads the BPF object, fills its maps, attaches it, reads its totals.
//!
//! Configuration flows in as [`Tables`] and bounds; records flow out through the [`Ring`]s. Dropping a [`Kernel`]
//! detaches everything it attached.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::programs::links::LinkOrder;
use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{ProgramError, SchedClassifier, TcAttachType};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use sensor_ebpf::flow::FlowKey;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{
    ListenKey, NO_SERVICE, ROUTES_MAX, ResumeEntry, RouteConfig, RouteState, ServiceConfig, Settings,
};

use super::ring::Ring;
use super::tables::{Tables, mapped};
use crate::config::model::Bounds;
use crate::slow::Resume;

/// Entry programs and the names under which metrics show them.
pub const PROGRAMS: [(&str, &str, TcAttachType); 2] =
    [("authsensor_ingress", "ingress", TcAttachType::Ingress), ("authsensor_egress", "egress", TcAttachType::Egress)];
/// Priority and handle of the clsact filters: fixed, so that those of a killed run are found and replaced.
const PRIORITY: u16 = 1;
const HANDLE: TcHandle = TcHandle::new(0, 0xa5);
/// The first kernel with TCX.
const TCX_SINCE: KernelVersion = KernelVersion::new(6, 6, 0);

/// Why the kernel side could not be set up; each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel refused for want of privileges.
    #[error(
        "the kernel refused {0} for want of privileges: run as root, or give the process CAP_BPF, CAP_NET_ADMIN and \
         CAP_PERFMON (systemd: AmbientCapabilities=)"
    )]
    Privileges(&'static str),
    /// The object was refused.
    #[error("the kernel refused the BPF object: {0}")]
    Object(String),
    /// The verifier refused a program.
    #[error("the kernel's verifier refused {program}: {error}\nthe end of its log:\n{log}")]
    Verifier {
        /// The program.
        program: &'static str,
        /// What the kernel said.
        error: String,
        /// The last lines of the verifier's log.
        log: String,
    },
    /// A map could not be written or read.
    #[error("BPF map {0}: {1}")]
    Map(&'static str, String),
    /// The interface does not exist or takes no programs.
    #[error("cannot watch the interface {interface}: {error}. `ip link` lists the interfaces of this machine")]
    Attach {
        /// Its name.
        interface: String,
        /// What the kernel said.
        error: String,
    },
    /// A ring could not be mapped.
    #[error("cannot map the {0} ring: {1}")]
    Ring(&'static str, io::Error),
}

/// The loaded object.
pub struct Kernel {
    ebpf: Ebpf,
    /// Keeps the kernel's run time statistics on.
    stats: Option<OwnedFd>,
    /// The object is of another version of authsensor: it may lack maps.
    foreign: bool,
}

/// The bytes of a plain structure, for aya's maps.
fn bytes<T: Copy, const N: usize>(value: &T) -> [u8; N] {
    const { assert!(size_of::<T>() == N) };
    // SAFETY: the wire structures are integers without padding, of exactly `N` bytes.
    unsafe { *std::ptr::from_ref(value).cast::<[u8; N]>() }
}

fn refused(what: &'static str, error: &(dyn std::error::Error + 'static)) -> Option<KernelError> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>()
            && matches!(io.raw_os_error(), Some(libc::EPERM | libc::EACCES))
        {
            return Some(KernelError::Privileges(what));
        }
        cause = error.source();
    }
    None
}

/// All causes of an error in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let more = next.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = next.source();
    }
    text
}

impl Kernel {
    /// Loads `object` with maps of the given bounds, and verifies its programs.
    pub fn load(object: &[u8], bounds: &Bounds) -> Result<Self, KernelError> {
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("FLOWS", bounds.flows)
            .map_max_entries("SLOTS", bounds.split_heads)
            .map_max_entries("RESUME", u32::try_from(bounds.slow_flows).unwrap_or(u32::MAX))
            .map_max_entries("EVENTS", bounds.event_ring_bytes)
            .map_max_entries("BYTES", bounds.byte_ring_bytes)
            .verifier_log_level(VerifierLogLevel::STATS);
        let mut ebpf = loader.load(object).map_err(|error| {
            refused("to create BPF maps", &error).unwrap_or_else(|| KernelError::Object(chain(&error)))
        })?;
        for (name, _, _) in PROGRAMS {
            let program = classifier(&mut ebpf, name)?;
            program.load().map_err(|error| verifier_error(name, &error))?;
        }
        let stats = aya::sys::enable_stats(aya::sys::Stats::RunTime).ok();
        Ok(Self { ebpf, stats, foreign: false })
    }

    /// As [`Self::load`], for the object of another version of authsensor, with which a bench compares this one: what is
    /// configured in maps that it does not have is left out.
    pub fn load_foreign(object: &[u8], bounds: &Bounds) -> Result<Self, KernelError> {
        Ok(Self { foreign: true, ..Self::load(object, bounds)? })
    }

    /// Instructions that the verifier looked at, by program.
    pub fn verified(&mut self) -> Result<Vec<(&'static str, u32)>, KernelError> {
        PROGRAMS
            .iter()
            .map(|(name, _, _)| {
                let info = classifier(&mut self.ebpf, name)?.info();
                Ok((*name, info.ok().and_then(|info| info.verified_instruction_count()).unwrap_or(0)))
            })
            .collect()
    }

    /// A loaded program, for `BPF_PROG_TEST_RUN`.
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, KernelError> {
        classifier(&mut self.ebpf, name)
    }

    /// The loaded object, to be read.
    pub fn loaded(&self) -> &Ebpf {
        &self.ebpf
    }

    /// The loaded object.
    pub fn ebpf(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Turns the run time statistics off again, whose two clock reads a packet a bench would see.
    pub fn stop_stats(&mut self) {
        self.stats = None;
    }

    /// Writes the configuration.
    pub fn configure(&mut self, tables: &Tables) -> Result<(), KernelError> {
        let mut ports = [0u8; 8192];
        for port in &tables.ports {
            if let Some(byte) = ports.get_mut(usize::from(*port) / 8) {
                *byte |= 1 << (port % 8);
            }
        }
        self.array("PORTS", 0, ports)?;
        self.array("KEY", 0, bytes::<_, 16>(&tables.key))?;
        self.array("SETTINGS", 0, bytes::<_, { size_of::<Settings>() }>(&tables.settings))?;
        for (index, service) in tables.services.iter().enumerate() {
            self.array("SERVICES", index, bytes::<ServiceConfig, { size_of::<ServiceConfig>() }>(service))?;
        }
        for (index, state) in tables.states.iter().enumerate() {
            self.array("STATES", index, bytes::<RouteState, { size_of::<RouteState>() }>(state))?;
        }
        for (place, route) in &tables.routes {
            debug_assert!((*place as usize) < tables.services.len() * ROUTES_MAX);
            self.array("ROUTES", *place as usize, bytes::<RouteConfig, 8>(route))?;
        }
        for (key, service) in &tables.listens {
            self.entry("LISTENS", bytes::<_, 24>(key), u32::from(*service))?;
            // What shows no port (an IP fragment) is looked up by its address.
            let anywhere = ListenKey { port: 0, ..*key };
            self.entry("LISTENS", bytes::<_, 24>(&anywhere), u32::from(NO_SERVICE))?;
        }
        for (key, next) in &tables.edges {
            self.entry("EDGES", bytes::<_, 16>(key), *next)?;
        }
        Ok(())
    }

    /// Says which addresses are this host's.
    pub fn set_local_addresses(&mut self, addresses: &[IpAddr]) -> Result<(), KernelError> {
        for address in addresses {
            self.entry("LOCALS", mapped(*address), 1)?;
        }
        Ok(())
    }

    /// Whether a map is missing and may be.
    fn lacks(&self, name: &str) -> bool {
        self.foreign && self.ebpf.map(name).is_none()
    }

    fn array<V: Pod>(&mut self, name: &'static str, index: usize, value: V) -> Result<(), KernelError> {
        if self.lacks(name) {
            return Ok(());
        }
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut array = Array::<_, V>::try_from(map).map_err(|error| map_error(name, &error))?;
        let index = u32::try_from(index).map_err(|_| KernelError::Map(name, "index out of range".into()))?;
        array.set(index, value, 0).map_err(|error| map_error(name, &error))
    }

    fn entry<K: Pod>(&mut self, name: &'static str, key: K, value: u32) -> Result<(), KernelError> {
        if self.lacks(name) {
            return Ok(());
        }
        let map = self.ebpf.map_mut(name).ok_or_else(|| missing(name))?;
        let mut table = HashMap::<_, K, u32>::try_from(map).map_err(|error| map_error(name, &error))?;
        table.insert(key, value, 0).map_err(|error| map_error(name, &error))
    }

    /// Attaches both programs to `interface`: TCX where the kernel has it (first on the way in, last on the way out),
    /// clsact otherwise.
    pub fn attach(&mut self, interface: &str) -> Result<(), KernelError> {
        if !has_tcx() {
            return self.attach_clsact(interface);
        }
        for (name, _, direction) in PROGRAMS {
            let order = if direction == TcAttachType::Ingress { LinkOrder::first() } else { LinkOrder::last() };
            classifier(&mut self.ebpf, name)?
                .attach_with_options(interface, direction, TcAttachOptions::TcxOrder(order))
                .map_err(|error| attach_error(interface, &error))?;
        }
        Ok(())
    }

    /// Attaches both programs to `interface` as filters of its clsact qdisc, in the place of those that a killed run
    /// left there. The qdisc stays when they go: another tool may use it by then.
    pub fn attach_clsact(&mut self, interface: &str) -> Result<(), KernelError> {
        for (name, _, direction) in PROGRAMS {
            // The qdisc may be there already: from us, killed, or from another tool.
            let _ = qdisc_add_clsact(interface);
            let _ = qdisc_detach_program(interface, direction, name);
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, ..NlOptions::default() };
            classifier(&mut self.ebpf, name)?
                .attach_with_options(interface, direction, TcAttachOptions::Netlink(options))
                .map_err(|error| attach_error(interface, &error))?;
        }
        Ok(())
    }

    /// What tells the kernel where it may take flows back.
    pub fn resumer(&mut self) -> Result<KernelResume, KernelError> {
        let map = self.ebpf.take_map("RESUME").ok_or_else(|| missing("RESUME"))?;
        let map = HashMap::try_from(map).map_err(|error| map_error("RESUME", &error))?;
        Ok(KernelResume { map })
    }

    /// Totals over all CPUs, by [`Counter`].
    pub fn totals(&self) -> Result<[u64; Counter::COUNT], KernelError> {
        let map = self.ebpf.map("TOTALS").ok_or_else(|| missing("TOTALS"))?;
        let totals =
            PerCpuArray::<_, [u64; Counter::COUNT]>::try_from(map).map_err(|error| map_error("TOTALS", &error))?;
        let per_cpu = totals.get(&0, 0).map_err(|error| map_error("TOTALS", &error))?;
        let mut sum = [0u64; Counter::COUNT];
        for counts in per_cpu.iter() {
            for (total, count) in sum.iter_mut().zip(counts) {
                *total += count;
            }
        }
        Ok(sum)
    }

    /// Run time (nanoseconds) and run count of each program, by its metric name; from the program's `fdinfo`.
    pub fn run_stats(&self) -> Vec<(&'static str, u64, u64)> {
        let stats = |name: &str| -> Option<(u64, u64)> {
            let program: &SchedClassifier = self.ebpf.program(name)?.try_into().ok()?;
            let fd = program.fd().ok()?.as_fd().as_raw_fd();
            let text = fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()?;
            let field = |name: &str| {
                text.lines().find_map(|line| line.strip_prefix(name)).and_then(|value| value.trim().parse().ok())
            };
            Some((field("run_time_ns:")?, field("run_cnt:")?))
        };
        PROGRAMS.iter().filter_map(|(name, label, _)| stats(name).map(|(time, count)| (*label, time, count))).collect()
    }

    /// Maps both rings: events, bytes.
    pub fn rings(&mut self, bounds: &Bounds) -> Result<(Ring, Ring), KernelError> {
        let ring = |name: &'static str, size: u32| {
            let Some(Map::RingBuf(data)) = self.ebpf.map(name) else { return Err(missing(name)) };
            let data: &MapData = data;
            Ring::map(data.fd(), size as usize).map_err(|error| KernelError::Ring(name, error))
        };
        Ok((ring("EVENTS", bounds.event_ring_bytes)?, ring("BYTES", bounds.byte_ring_bytes)?))
    }
}

/// The kernel's map of places at which it may take flows back.
pub struct KernelResume {
    map: HashMap<MapData, [u8; 40], [u8; 56]>,
}

impl Resume for KernelResume {
    fn put(&mut self, key: &FlowKey, entry: &ResumeEntry) {
        // Refused, the flow stays with the slow path.
        let _ = self.map.insert(bytes::<_, 40>(key), bytes::<_, 56>(entry), 0);
    }

    fn remove(&mut self, key: &FlowKey) {
        let _ = self.map.remove(&bytes::<_, 40>(key));
    }
}

/// Whether this kernel has TCX.
#[must_use]
pub fn has_tcx() -> bool {
    KernelVersion::current().is_ok_and(|version| version >= TCX_SINCE)
}

fn classifier<'a>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut SchedClassifier, KernelError> {
    let program = ebpf.program_mut(name).ok_or_else(|| KernelError::Object(format!("it has no program {name}")))?;
    program.try_into().map_err(|error: ProgramError| KernelError::Object(chain(&error)))
}

fn missing(name: &'static str) -> KernelError {
    KernelError::Map(name, "the object does not have it".into())
}

fn map_error(name: &'static str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    refused("to write a BPF map", error).unwrap_or_else(|| KernelError::Map(name, chain(error)))
}

fn attach_error(interface: &str, error: &(dyn std::error::Error + 'static)) -> KernelError {
    refused("to attach a program", error)
        .unwrap_or_else(|| KernelError::Attach { interface: interface.to_owned(), error: chain(error) })
}

/// The verifier's log ends with what it objects to.
fn verifier_error(program: &'static str, error: &ProgramError) -> KernelError {
    const LINES: usize = 40;
    if let ProgramError::LoadError { io_error, verifier_log } = error {
        if matches!(io_error.raw_os_error(), Some(libc::EPERM)) {
            return KernelError::Privileges("to load a program");
        }
        let log = verifier_log.to_string();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join("\n");
        return KernelError::Verifier { program, error: io_error.to_string(), log: tail };
    }
    refused("to load a program", error).unwrap_or_else(|| KernelError::Object(chain(error)))
}
