//! Prometheus metrics: what operators and reviewers read to know that the sensor sees.
//!
//! Owns the registry and every exported family ([`catalogue`], documented in `docs/metrics.md`). Observations flow in
//! one by one from the data plane ([`Metrics::observe`]: array arithmetic and atomic adds, nothing else); everything
//! else is copied in from time to time as absolute totals (`kernel`, `collector`, `ledger`, `bpf`, `bound`). Text
//! flows out over HTTP ([`serve`]). All label values are bounded by the configuration and present at 0 from the
//! start; no account, client or credential is ever one.

pub mod catalogue;
mod control;
mod detectable;
mod distinct;
mod issuers;
mod journal;
mod kernel;
mod observations;
mod process;
mod push;
mod server;
mod slow;
#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus::{Registry, TextEncoder};

use crate::config::model::Config;
use crate::detect::Detectable;
use crate::finding::model::Level;
use crate::journal::RecorderCounts;
use crate::ledger::Issued;
use crate::observation::Observation;
use crate::slow::SlowCounts;
pub use control::{Bound, CollectorView, IssuerView, LedgerView, PROGRAMS, Reload};
use control::{Bounds, Bpf, Collecting, Info, Issuing, Rules};
use detectable::Smallest;
use journal::Journal;
use kernel::Kernel;
use observations::Observations;
use process::Process;
use push::Push;
pub use push::{PushConnection, PushReload, PushRequest};
pub use server::{BindError, bind, serve};
use slow::Slow;

/// Why metrics could not be registered: only a mistake in the catalogue, or a label that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("metrics cannot be set up: {0}")]
pub struct MetricsError(#[from] prometheus::Error);

/// What metrics say of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfoLite {
    /// Id (UUID) as in the rule file.
    pub id: String,
    /// Title.
    pub title: String,
    /// Severity.
    pub level: Level,
    /// Version (date, or hash of the file).
    pub version: String,
}

/// All metrics of one sensor.
pub struct Metrics {
    registry: Registry,
    kernel: Kernel,
    observations: Observations,
    collecting: Collecting,
    issuing: Issuing,
    push: Push,
    rules: Rules,
    smallest: Smallest,
    journal: Journal,
    info: Info,
    bpf: Bpf,
    slow: Slow,
    bounds: Bounds,
    process: Process,
    /// One rendering at a time: values that are computed at scrape time are refreshed first.
    rendering: Mutex<()>,
}

impl Metrics {
    /// Registers every family with all its label values at 0.
    pub fn new(config: &Config, rules: &[RuleInfoLite]) -> Result<Self, MetricsError> {
        let registry = Registry::new();
        Ok(Self {
            kernel: Kernel::new(&registry, u64::from(config.bounds.flows))?,
            observations: Observations::new(&registry, config)?,
            collecting: Collecting::new(&registry, config)?,
            issuing: Issuing::new(&registry, config)?,
            push: Push::new(&registry, config)?,
            rules: Rules::new(&registry, rules)?,
            smallest: Smallest::new(&registry, config)?,
            journal: Journal::new(&registry)?,
            info: Info::new(&registry, config)?,
            bpf: Bpf::new(&registry)?,
            slow: Slow::new(&registry)?,
            bounds: Bounds::new(&registry, config)?,
            process: Process::new(&registry)?,
            rendering: Mutex::new(()),
            registry,
        })
    }

    /// Counts one observation. Data plane: no allocation, no lock, no label lookup.
    pub fn observe(&self, observation: &Observation) {
        self.observations.observe(observation);
    }

    /// Takes over the kernel's totals: absolute counts in the order of [`sensor_ebpf::reason::Counter`]. A total that
    /// fell means that the maps were made anew; it then counts from 0. One caller at a time.
    pub fn kernel(&self, totals: &[u64]) {
        self.kernel.set(totals);
    }

    /// Takes over the slow path's state: the totals of its parser, and what it counted. One caller at a time.
    pub fn slow(&self, totals: &[u64], counts: &SlowCounts) {
        self.slow.set(totals, counts);
    }

    /// Takes over the ledger's state. One caller at a time.
    pub fn ledger(&self, view: &LedgerView<'_>) {
        self.issuing.set(view);
        self.push.told_by_another(view.told_by_another);
    }

    /// Counts an issuance that the configuration's source number `source` pushed. Data plane: one atomic add.
    pub fn pushed(&self, source: u16, issued: Issued) {
        self.push.issued(source, issued);
    }

    /// Counts a request to the push endpoint, by source.
    pub fn push_request(&self, source: Option<u16>, result: PushRequest) {
        self.push.request(source, result);
    }

    /// Counts a connection to the push endpoint.
    pub fn push_connection(&self, result: PushConnection) {
        self.push.connection(result);
    }

    /// Counts a reading of the push endpoint's certificate, key and CA while it runs.
    pub fn push_reloaded(&self, result: PushReload) {
        self.push.reloaded(result);
    }

    /// Takes over the collector's state. One caller at a time.
    pub fn collector(&self, view: &CollectorView) {
        self.collecting.set(view);
    }

    /// Takes over the absolute run time and run count of a BPF program. Names beyond [`PROGRAMS`]
    /// are added when they first come, up to 32 in all.
    pub fn bpf(&self, program: &str, run_ns: u64, runs: u64) {
        self.bpf.set(program, run_ns, runs);
    }

    /// Takes over how often `bound` was reached since the start. One caller at a time.
    pub fn bound(&self, bound: Bound, reached: u64) {
        self.bounds.set(bound, reached);
    }

    /// Names the BPF object that was loaded by the hash of its bytes.
    pub fn object(&self, hash: &str) {
        self.info.object(hash);
    }

    /// Counts a newly opened finding of the rule `rule_id`; `latency` runs from the kernel's time of the request that
    /// completed it.
    pub fn finding(&self, rule_id: &str, latency: Duration) {
        self.rules.finding(rule_id, latency);
    }

    /// Names the rules that are loaded from now on.
    pub fn rules(&self, rules: &[RuleInfoLite]) {
        if let Err(error) = self.rules.replace(rules) {
            tracing::error!("the metrics cannot name the rules: {error}");
        }
    }

    /// Says which attacks are the smallest that the rules loaded are sure to find. Nothing else moves these figures.
    pub fn detectable(&self, smallest: &[Detectable]) {
        self.smallest.set(smallest);
    }

    /// Takes over the journal's counts. One caller at a time.
    pub fn journal(&self, counts: &RecorderCounts) {
        self.journal.set(counts);
        self.bounds.set(Bound::JournalBytes, counts.evicted);
    }

    /// Counts a reading of the rules while running.
    pub fn reloaded(&self, result: Reload) {
        self.rules.reloaded(result);
    }

    /// Everything in the Prometheus text format 0.0.4.
    pub fn render(&self) -> Result<String, MetricsError> {
        let _one_at_a_time = self.rendering.lock().unwrap_or_else(PoisonError::into_inner);
        self.observations.refresh();
        self.process.refresh();
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}
