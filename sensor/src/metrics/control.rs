//! What the control plane copies in from time to time: state of collector, ledger, rules, BPF programs and bounds.

use std::fmt;
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use prometheus::core::AtomicU64 as U64;
use prometheus::{Counter, CounterVec, Gauge, Histogram, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::RuleInfoLite;
use super::catalogue;
use super::issuers::Issuers;
use super::kernel::{Total, Totals};
use crate::collect::DecodingCounts;
use crate::config::model::Config;
use crate::finding::model::Level;
use crate::ledger::{FolderStats, Sight};

/// BPF programs whose metrics are there from the start.
pub const PROGRAMS: &[&str] = &["ingress", "egress"];

/// Upper bounds of the detection latency histogram, seconds: from one poll of the rings to a minute's backlog.
const LATENCY_BUCKETS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// State of the collector. Counts are absolute, since the start, and must be of one moment: the identity
/// `records = observations + pending + lost` is checked on what is exported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectorView {
    /// Request records taken from the rings.
    pub records: u64,
    /// Of these, turned into observations.
    pub observations: u64,
    /// Of these, still waiting for a response or for their turn.
    pub pending: u64,
    /// Of these, lost because a bounded queue or table was full.
    pub lost_full: u64,
    /// Of these, lost because the record did not decode.
    pub lost_malformed: u64,
    /// Credentials that match no declared issuer.
    pub credentials_unmatched: u64,
    /// Credentials of schemes without a stable token.
    pub no_stable_token: u64,
    /// Compressed bodies by what became of them.
    pub decoding: DecodingCounts,
    /// Other versions of a request that were judged with it.
    pub versions_judged: u64,
    /// Requests that only another version has.
    pub versions_more: u64,
    /// Other versions of a request that came too late.
    pub versions_late: u64,
    /// Connections of which another reading was seen, and that were forgotten.
    pub shaken_forgotten: u64,
    /// Requests behind a PROXY protocol header of a peer that is not trusted.
    pub proxies_refused: u64,
    /// Bytes of the event ring that were not read yet.
    pub event_ring_unread: u64,
    /// Bytes of the byte ring that were not read yet.
    pub byte_ring_unread: u64,
}

/// State of the ledger. Counts are absolute, since the start, unless said otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LedgerView<'a> {
    /// Issuances held now.
    pub issuances: u64,
    /// Evicted after their end, before their tombstone's time was over.
    pub evicted_over: u64,
    /// Evicted before their end.
    pub evicted_running: u64,
    /// Probability that a credential nobody issued passes for an evicted one.
    pub eviction_doubt: f64,
    /// Issuances of a login that were entered.
    pub added: u64,
    /// Issuances of a refresh or renewal that were entered with their parent's provenance.
    pub inherited: u64,
    /// Credentials in a login's response that had been seen in a request before.
    pub echo: u64,
    /// Issuances that were known already.
    pub known: u64,
    /// Issuances refused because the ledger was full.
    pub full: u64,
    /// Issuances known to have happened whose credential was not seen.
    pub lost: u64,
    /// Uses of a pushed credential that may be another issuer's than its source named.
    pub told_by_another: u64,
    /// State per issuer.
    pub issuers: &'a [IssuerView],
    /// Its folder, if it has one.
    pub folder: Option<FolderStats>,
}

/// State of one issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct IssuerView {
    /// Index of the service in the configuration.
    pub service: u16,
    /// Index of the issuer within the service.
    pub issuer: u16,
    /// Since when the ledger is complete for it, seconds since 1970; 0 until known.
    pub horizon_unix_s: f64,
    /// Share of its newly used credentials whose issuance was seen, if any was used.
    pub sight: Option<f64>,
    /// Newly used credentials of the last day.
    pub used: Sight,
    /// Distinct credentials so far that may be older than the horizon.
    pub preexisting: u64,
    /// Most of them, if there is a budget.
    pub preexisting_budget: Option<u64>,
    /// Those beyond.
    pub preexisting_exceeded: u64,
}

macro_rules! bounds {
    ($($(#[$doc:meta])* $variant:ident = $label:literal, |$config:ident| $limit:expr;)*) => {
        /// A bound of user space that can be reached ([`super::Metrics::bound`]). The kernel's own show in its
        /// counters, the ledger's size in `authsensor_ledger_evicted_total`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Bound { $($(#[$doc])* $variant,)* }

        impl Bound {
            /// All bounds.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Label value: the configuration key.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }

            fn limit(self, config: &Config) -> u64 {
                match self { $(Self::$variant => { let $config = config; $limit as u64 })* }
            }
        }
    };
}

bounds! {
    /// `bounds.pending_requests`
    PendingRequests = "pending_requests", |config| config.bounds.pending_requests;
    /// `bounds.tee_bytes`
    TeeBytes = "tee_bytes", |config| config.bounds.tee_bytes;
    /// `bounds.tee_bodies`
    TeeBodies = "tee_bodies", |config| config.bounds.tee_bodies;
    /// `bounds.decoded_bytes`
    DecodedBytes = "decoded_bytes", |config| config.bounds.decoded_bytes;
    /// `bounds.kids`
    Kids = "kids", |config| config.bounds.kids;
    /// `bounds.claims_cache`
    ClaimsCache = "claims_cache", |config| config.bounds.claims_cache;
    /// `bounds.rule_groups`
    RuleGroups = "rule_groups", |config| config.bounds.rule_groups;
    /// `bounds.quiet_groups`
    QuietGroups = "quiet_groups", |config| config.bounds.quiet_groups;
    /// `bounds.group_values`: groups that came to have more, whose values are estimated from then on.
    GroupValues = "group_values", |config| config.bounds.group_values;
    /// `estimate.walks`: walks and readers that had to go or were turned away; newcomers do so in normal service.
    Walks = "walks", |config| config.estimate.walks;
    /// `estimate.misses`
    Misses = "misses", |config| config.estimate.misses;
    /// `estimate.members`
    Members = "members", |config| config.estimate.members;
    /// `estimate.known_clients`: days in which more than a third of these bits were set.
    KnownClients = "known_clients", |config| config.estimate.known_clients;
    /// `bounds.journal_bytes`: files of the journal that went for want of room.
    JournalBytes = "journal_bytes", |config| config.bounds.journal_bytes;
    /// `bounds.open_findings`: open findings that are no longer compared.
    OpenFindings = "open_findings", |config| config.bounds.open_findings;
    /// `ledger.max_seen`
    MaxSeen = "max_seen", |config| config.ledger.max_seen;
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// Limits as configured, and how often they were reached.
pub(super) struct Bounds {
    reached: Totals,
}

impl Bounds {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let limits = catalogue::BOUND_LIMIT.gauges::<U64>(registry)?;
        for bound in Bound::ALL {
            limits.get_metric_with_label_values(&[bound.label()])?.set(bound.limit(config));
        }
        let kernel = [("flows", config.bounds.flows), ("split_heads", config.bounds.split_heads)];
        for (label, limit) in kernel {
            limits.get_metric_with_label_values(&[label])?.set(limit.into());
        }
        let labels = Bound::ALL.iter().map(|bound| bound.label());
        Ok(Self { reached: Totals::new(registry, &catalogue::BOUND_REACHED, labels)? })
    }

    pub(super) fn set(&self, bound: Bound, reached: u64) {
        self.reached.set_one(bound as usize, reached);
    }
}

/// Collector and rings.
pub(super) struct Collecting {
    records: Total,
    observations: Total,
    pending: IntGauge,
    lost: Totals,
    unmatched: Total,
    unstable: Total,
    coded: Totals,
    versions: Totals,
    shaken_forgotten: Total,
    proxies_refused: Total,
    event_ring: IntGauge,
    byte_ring: IntGauge,
}

/// Values of the `result` label of compressed bodies, in the order of [`DecodingCounts`]'s fields.
pub(super) const DECODING_RESULTS: [&str; 6] =
    ["decoded", "unknown_coding", "truncated", "corrupt", "too_long", "window"];

impl Collecting {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let unread = catalogue::RING_UNREAD.gauges(registry)?;
        let size: IntGaugeVec = catalogue::RING_SIZE.gauges(registry)?;
        for (ring, bytes) in [("event", config.bounds.event_ring_bytes), ("byte", config.bounds.byte_ring_bytes)] {
            size.get_metric_with_label_values(&[ring])?.set(bytes.into());
        }
        Ok(Self {
            records: Total::new(catalogue::COLLECTOR_RECORDS.counter(registry)?),
            observations: Total::new(catalogue::COLLECTOR_OBSERVATIONS.counter(registry)?),
            pending: catalogue::COLLECTOR_PENDING.gauge(registry)?,
            lost: Totals::new(registry, &catalogue::COLLECTOR_LOST, ["full", "malformed"])?,
            unmatched: Total::new(catalogue::UNMATCHED.counter(registry)?),
            unstable: Total::new(catalogue::UNSTABLE.counter(registry)?),
            coded: Totals::new(registry, &catalogue::CODED_BODIES, DECODING_RESULTS)?,
            versions: Totals::new(registry, &catalogue::VERSIONS, ["judged", "more", "late"])?,
            shaken_forgotten: Total::new(catalogue::SHAKEN_FORGOTTEN.counter(registry)?),
            proxies_refused: Total::new(catalogue::PROXY_REFUSED.counter(registry)?),
            event_ring: unread.get_metric_with_label_values(&["event"])?,
            byte_ring: unread.get_metric_with_label_values(&["byte"])?,
        })
    }

    pub(super) fn set(&self, view: &CollectorView) {
        self.records.set(view.records);
        self.observations.set(view.observations);
        self.pending.set(signed(view.pending));
        self.lost.set([view.lost_full, view.lost_malformed]);
        self.unmatched.set(view.credentials_unmatched);
        self.unstable.set(view.no_stable_token);
        let DecodingCounts { decoded, unknown_coding, truncated, corrupt, too_long, window } = view.decoding;
        self.coded.set([decoded, unknown_coding, truncated, corrupt, too_long, window]);
        self.versions.set([view.versions_judged, view.versions_more, view.versions_late]);
        self.shaken_forgotten.set(view.shaken_forgotten);
        self.proxies_refused.set(view.proxies_refused);
        self.event_ring.set(signed(view.event_ring_unread));
        self.byte_ring.set(signed(view.byte_ring_unread));
    }
}

/// Ledger and issuers.
pub(super) struct Issuing {
    issuances: IntGauge,
    evicted: Totals,
    eviction_doubt: Gauge,
    results: Totals,
    folder_bytes: IntGauge,
    durable: IntGauge,
    folder: Totals,
    issuers: Issuers,
}

/// Values of the `result` label of issuances, in the order of [`LedgerView`]'s fields.
pub(super) const ISSUANCE_RESULTS: [&str; 6] = ["added", "inherited", "echo", "known", "full", "lost"];

/// Values of the `life` label of evicted issuances.
pub(super) const LIVES: [&str; 2] = ["over", "running"];

/// Values of the `event` label of the ledger's folder.
pub(super) const FOLDER_EVENTS: [&str; 4] = ["write_lost", "write_failed", "asked", "ask_lost"];

impl Issuing {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let capacity: IntGauge = catalogue::LEDGER_CAPACITY.gauge(registry)?;
        capacity.set(signed(config.ledger.max_issuances as u64));
        Ok(Self {
            issuances: catalogue::LEDGER_ISSUANCES.gauge(registry)?,
            evicted: Totals::new(registry, &catalogue::LEDGER_EVICTED, LIVES)?,
            eviction_doubt: catalogue::LEDGER_EVICTION_DOUBT.gauge(registry)?,
            results: Totals::new(registry, &catalogue::ISSUANCES, ISSUANCE_RESULTS)?,
            folder_bytes: catalogue::LEDGER_FOLDER_BYTES.gauge(registry)?,
            durable: catalogue::LEDGER_DURABLE.gauge(registry)?,
            folder: Totals::new(registry, &catalogue::LEDGER_FOLDER, FOLDER_EVENTS)?,
            issuers: Issuers::new(registry, config)?,
        })
    }

    pub(super) fn set(&self, view: &LedgerView<'_>) {
        self.issuances.set(signed(view.issuances));
        self.evicted.set([view.evicted_over, view.evicted_running]);
        self.eviction_doubt.set(view.eviction_doubt);
        self.results.set([view.added, view.inherited, view.echo, view.known, view.full, view.lost]);
        let folder = view.folder.unwrap_or_default();
        self.folder_bytes.set(signed(folder.bytes));
        self.durable.set(folder.durable_unix);
        self.folder.set([folder.writes_lost, folder.writes_failed, folder.asked, folder.asks_lost]);
        for issuer in view.issuers {
            self.issuers.set(issuer);
        }
    }
}

/// What came of reading the rules anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// They are in force.
    Loaded,
    /// They are the same as before.
    Unchanged,
    /// They have mistakes; those before stay in force.
    Refused,
}

impl Reload {
    const ALL: [Self; 3] = [Self::Loaded, Self::Unchanged, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Loaded => "loaded",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

/// Rules and findings.
pub(super) struct Rules {
    /// Looked at when a finding opens, which is rare.
    levels: RwLock<Vec<(String, Level)>>,
    info: IntGaugeVec,
    reloads: IntCounterVec,
    findings: IntCounterVec,
    latency: Histogram,
}

impl Rules {
    pub(super) fn new(registry: &Registry, rules: &[RuleInfoLite]) -> Result<Self, prometheus::Error> {
        let info: IntGaugeVec = catalogue::RULE_INFO.gauges(registry)?;
        let reloads: IntCounterVec = catalogue::RULE_RELOADS.counters(registry)?;
        for result in Reload::ALL {
            reloads.get_metric_with_label_values(&[result.label()])?;
        }
        let own = Self {
            levels: RwLock::default(),
            info,
            reloads,
            findings: catalogue::FINDINGS.counters(registry)?,
            latency: catalogue::DETECTION_LATENCY.histogram(registry, LATENCY_BUCKETS)?,
        };
        own.replace(rules)?;
        Ok(own)
    }

    /// Names `rules` as those that are loaded; counts of findings of others stay.
    pub(super) fn replace(&self, rules: &[RuleInfoLite]) -> Result<(), prometheus::Error> {
        self.info.reset();
        for rule in rules {
            let labels = [&rule.id, &rule.title, level_label(rule.level), &rule.version];
            self.info.get_metric_with_label_values(&labels)?.set(1);
            self.findings.get_metric_with_label_values(&[rule.id.as_str(), level_label(rule.level)])?;
        }
        *self.levels.write().unwrap_or_else(PoisonError::into_inner) =
            rules.iter().map(|rule| (rule.id.clone(), rule.level)).collect();
        Ok(())
    }

    pub(super) fn reloaded(&self, result: Reload) {
        if let Ok(counter) = self.reloads.get_metric_with_label_values(&[result.label()]) {
            counter.inc();
        }
    }

    pub(super) fn finding(&self, rule_id: &str, latency: Duration) {
        // A rule that was not announced is counted under one name: ids come from files, but only announced ones are
        // known to be few.
        let levels = self.levels.read().unwrap_or_else(PoisonError::into_inner);
        let known = levels.iter().find(|(id, _)| id == rule_id);
        let labels = known.map_or(["(other)", "(other)"], |(id, level)| [id, level_label(*level)]);
        if let Ok(counter) = self.findings.get_metric_with_label_values(&labels) {
            counter.inc();
        }
        self.latency.observe(latency.as_secs_f64());
    }
}

/// A level as Sigma writes it.
pub(super) const fn level_label(level: Level) -> &'static str {
    match level {
        Level::Informational => "informational",
        Level::Low => "low",
        Level::Medium => "medium",
        Level::High => "high",
        Level::Critical => "critical",
    }
}

/// What runs: version, object, configuration.
pub(super) struct Info {
    build: IntGaugeVec,
}

impl Info {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let hash: IntGaugeVec = catalogue::CONFIG_INFO.gauges(registry)?;
        hash.get_metric_with_label_values(&[&config.hash])?.set(1);
        let info = Self { build: catalogue::BUILD_INFO.gauges(registry)? };
        info.object("none");
        Ok(info)
    }

    pub(super) fn object(&self, hash: &str) {
        self.build.reset();
        if let Ok(build) = self.build.get_metric_with_label_values(&[env!("CARGO_PKG_VERSION"), hash]) {
            build.set(1);
        }
    }
}

/// Programs that are told apart; further names are not exported.
const PROGRAMS_MAX: usize = 32;

/// Run time and count of BPF programs.
pub(super) struct Bpf {
    seconds: CounterVec,
    runs: IntCounterVec,
    programs: Mutex<Vec<Program>>,
}

struct Program {
    name: String,
    seconds: Counter,
    run_ns: u64,
    runs: Total,
}

impl Bpf {
    pub(super) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let bpf = Self {
            seconds: catalogue::BPF_SECONDS.counters(registry)?,
            runs: catalogue::BPF_RUNS.counters(registry)?,
            programs: Mutex::new(Vec::new()),
        };
        for program in PROGRAMS {
            bpf.set(program, 0, 0);
        }
        Ok(bpf)
    }

    pub(super) fn set(&self, name: &str, run_ns: u64, runs: u64) {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if !programs.iter().any(|program| program.name == name) && programs.len() < PROGRAMS_MAX {
            let seconds = self.seconds.get_metric_with_label_values(&[name]);
            let counter = self.runs.get_metric_with_label_values(&[name]);
            if let (Ok(seconds), Ok(counter)) = (seconds, counter) {
                programs.push(Program { name: name.to_owned(), seconds, run_ns: 0, runs: Total::new(counter) });
            }
        }
        if let Some(program) = programs.iter_mut().find(|program| program.name == name) {
            // A time that fell is that of a program loaded anew.
            let more = run_ns.checked_sub(program.run_ns).unwrap_or(run_ns);
            program.run_ns = run_ns;
            program.seconds.inc_by(Duration::from_nanos(more).as_secs_f64());
            program.runs.set(runs);
        }
    }
}

/// Sets a counter to an absolute value that only grows.
pub(super) fn raise(counter: &Counter, to: f64) {
    counter.inc_by((to - counter.get()).max(0.0));
}

/// A count as a gauge has it.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
