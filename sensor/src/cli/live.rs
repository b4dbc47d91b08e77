//! The data plane: one thread that reads the rings and runs the pipeline.
//!
//! Records flow in from the kernel; observations, findings and metrics come of them. The thread ends when it is told to,
//! or with the first error, and detaches from the interfaces either way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sensor_ebpf::reason::Counter;

use super::interface::local_addresses;
use super::reload::Mailbox;
use super::start::CliError;
use crate::capture::kernel::{Kernel, KernelResume};
use crate::capture::ring::Ring;
use crate::collect::Clock;
use crate::metrics::Metrics;
use crate::observation::Instant;
use crate::pipeline::Pipeline;
use crate::push;
use crate::slow::SlowPath;

/// Between two updates of the metrics.
const PUBLISH_NS: u64 = 200_000_000;
/// Between two looks at the host's addresses.
const ADDRESSES_NS: u64 = 5_000_000_000;

/// Nanoseconds of a clock.
fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).ok().and_then(|time| u64::try_from(Duration::from(time).as_nanos()).ok()).unwrap_or(0)
}

/// The kernel's monotonic time (`bpf_ktime_get_ns`), nanoseconds.
pub fn monotonic() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// This moment, and how the monotonic clock stands to the wall clock: taken once, so that a step of the wall clock moves
/// nothing while the program runs.
pub fn started() -> (Instant, Clock) {
    let (monotonic, unix) = (monotonic(), nanoseconds(ClockId::CLOCK_REALTIME));
    let offset = i64::try_from(unix).unwrap_or(0) - i64::try_from(monotonic).unwrap_or(0);
    let clock = Clock { unix_offset_ns: offset };
    (clock.instant(monotonic), clock)
}

/// Everything the data plane owns.
pub struct DataPlane {
    /// The loaded object.
    pub kernel: Kernel,
    /// Event ring.
    pub events: Ring,
    /// Byte ring.
    pub bytes: Ring,
    /// What puts segments in order.
    pub slow: SlowPath,
    /// Gives flows back to the kernel.
    pub resume: KernelResume,
    /// What is behind capture.
    pub pipeline: Pipeline,
    /// The metrics.
    pub metrics: Option<Arc<Metrics>>,
    /// Issuances that sources pushed.
    pub pushed: Option<push::Receiver>,
    /// How often the rings are read.
    pub poll_interval: Duration,
    /// Losses of the kernel that were made gaps.
    pub lost: u64,
    /// When they were last looked at, monotonic nanoseconds.
    pub looked: u64,
    /// Where changed rules come from.
    pub rules: Arc<Mailbox>,
}

impl DataPlane {
    /// Runs until `stop` is set.
    pub fn run(&mut self, stop: &AtomicBool) -> Result<(), CliError> {
        let mut published = 0;
        let mut addresses = monotonic();
        loop {
            let stopping = stop.load(Ordering::Acquire);
            if let Some(rules) = self.rules.take() {
                self.pipeline.replace_rules(&rules);
            }
            let now = self.turn()?;
            if stopping || now.saturating_sub(published) >= PUBLISH_NS {
                published = now;
                self.publish()?;
            }
            if now.saturating_sub(addresses) >= ADDRESSES_NS {
                addresses = now;
                // New addresses count from now on; those that went away do no harm.
                self.kernel.set_local_addresses(&local_addresses()?)?;
            }
            if stopping {
                let pipeline = &mut self.pipeline;
                self.slow.finish(now, &mut self.resume, &mut |record| pipeline.record(record));
                self.pipeline.finish()?;
                self.pipeline.close();
                return self.publish();
            }
            std::thread::sleep(self.poll_interval);
        }
    }

    /// One reading of the rings.
    ///
    /// The order is the watermark's (DESIGN §4): the time first, then the positions. A record stamped before the time was
    /// reserved before it, so it lies below its ring's position. The byte ring's position is read before the event
    /// ring's: what it holds below has its request in the event ring below.
    fn turn(&mut self) -> Result<u64, CliError> {
        let now = monotonic();
        let bytes_to = self.bytes.produced();
        let events_to = self.events.produced();
        self.note_losses(now)?;
        let pipeline = &mut self.pipeline;
        // After the time was read: what was accepted before it counts for every use before it.
        if let Some(pushed) = &self.pushed {
            pushed.drain(|pushed| {
                pipeline.issued(pushed, now);
            });
        }
        let (slow, resume) = (&mut self.slow, &mut self.resume);
        self.events.read(events_to, |record| pipeline.record(record));
        self.bytes.read(bytes_to, |record| slow.record(record, resume, &mut |record| pipeline.record(record)));
        slow.tick(now, resume, &mut |record| pipeline.record(record));
        pipeline.advance(now)?;
        Ok(now)
    }

    /// What the kernel could not hand over since the last turn may have held issuances: a gap of that many, so that no
    /// credential is called unissued for it.
    fn note_losses(&mut self, now: u64) -> Result<(), CliError> {
        const LOSSES: [Counter; 5] = [
            Counter::LostEventRing,
            Counter::LostByteRing,
            Counter::LostEnd,
            Counter::LostSegment,
            Counter::LostFragment,
        ];
        let totals = self.kernel.totals()?;
        let lost: u64 = LOSSES.iter().filter_map(|counter| totals.get(*counter as usize)).sum();
        if lost > self.lost {
            // Counted until now, which may be long after the turn began if others had the processor.
            self.pipeline.lost(self.looked, monotonic(), lost - self.lost);
            self.lost = lost;
        }
        self.looked = now;
        Ok(())
    }

    fn publish(&mut self) -> Result<(), CliError> {
        self.pipeline.publish((self.events.unread(), self.bytes.unread()));
        for kind in self.pipeline.new_unmatched() {
            tracing::warn!("credentials that match no declared issuer, so they are unverifiable: {kind}");
        }
        if let Some(metrics) = &self.metrics {
            metrics.kernel(&self.slow.with_fast(&self.kernel.totals()?));
            metrics.slow(self.slow.totals(), &self.slow.counts());
            for (program, run_ns, runs) in self.kernel.run_stats() {
                metrics.bpf(program, run_ns, runs);
            }
        }
        Ok(())
    }
}
