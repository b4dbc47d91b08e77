//! The sensor's own process, as every Prometheus client reports it. Read from /proc at scrape time; what cannot be
//! read keeps its last value.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage};
use nix::sys::time::TimeVal;
use prometheus::core::GenericGauge;
use prometheus::core::{AtomicF64 as F64, AtomicU64 as U64};
use prometheus::{Counter, Registry};

use super::catalogue;
use super::control::raise;

pub(super) struct Process {
    cpu: Counter,
    resident: GenericGauge<U64>,
    virtual_size: GenericGauge<U64>,
    threads: GenericGauge<U64>,
    open_fds: GenericGauge<U64>,
    max_fds: GenericGauge<U64>,
}

impl Process {
    /// Registers the families. The start time is that of this call: metrics are made when the process starts.
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        catalogue::PROCESS_START.gauge::<F64>(registry)?.set(started.as_secs_f64());
        Ok(Self {
            cpu: catalogue::PROCESS_CPU.counter(registry)?,
            resident: catalogue::PROCESS_RESIDENT.gauge(registry)?,
            virtual_size: catalogue::PROCESS_VIRTUAL.gauge(registry)?,
            threads: catalogue::PROCESS_THREADS.gauge(registry)?,
            open_fds: catalogue::PROCESS_OPEN_FDS.gauge(registry)?,
            max_fds: catalogue::PROCESS_MAX_FDS.gauge(registry)?,
        })
    }

    pub(super) fn refresh(&self) {
        if let Ok(usage) = getrusage(UsageWho::RUSAGE_SELF) {
            raise(&self.cpu, seconds(usage.user_time()) + seconds(usage.system_time()));
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            let set = |gauge: &GenericGauge<U64>, key: &str, unit: u64| {
                if let Some(value) = field(&status, key) {
                    gauge.set(value * unit);
                }
            };
            set(&self.resident, "VmRSS:", 1024);
            set(&self.virtual_size, "VmSize:", 1024);
            set(&self.threads, "Threads:", 1);
        }
        if let Ok(entries) = fs::read_dir("/proc/self/fd") {
            // The descriptor of the listing itself is among the entries.
            self.open_fds.set((entries.count() as u64).saturating_sub(1));
        }
        if let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) {
            self.max_fds.set(soft);
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "CPU seconds stay far below 2^52")]
fn seconds(time: TimeVal) -> f64 {
    time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6
}

/// The number behind `key` in a status file.
fn field(status: &str, key: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_fields_are_read() {
        let status = "Name:\tx\nVmSize:\t   12345 kB\nThreads:\t3\n";
        assert_eq!((field(status, "VmSize:"), field(status, "Threads:")), (Some(12345), Some(3)));
        assert_eq!(field(status, "VmRSS:"), None);
    }

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        let process = Process::new(&Registry::new()).unwrap();
        process.refresh();
        assert!(process.resident.get() > 100_000 && process.threads.get() >= 1);
        assert!(process.cpu.get() > 0.0 && process.open_fds.get() >= 3 && process.max_fds.get() > 3);
    }
}
