//! The list of exported families: name, type, labels, unit, meaning. `docs/metrics.md` is checked against it.

use prometheus::core::{Atomic, GenericCounter, GenericCounterVec, GenericGaugeVec};
use prometheus::{HistogramOpts, HistogramVec, Opts, Registry};

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound, sum and count.
    Histogram,
}

/// One family of metrics.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    /// Name, with the unit and `_total` where it counts.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// What one is.
    pub unit: &'static str,
    /// Meaning: the HELP text and the entry of the documentation.
    pub help: &'static str,
}

impl Family {
    /// Registers the family as counters.
    pub(super) fn counters<P: Atomic + 'static>(
        &self,
        registry: &Registry,
    ) -> Result<GenericCounterVec<P>, prometheus::Error> {
        let family = GenericCounterVec::new(Opts::new(self.name, self.help), self.labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Registers the family, which has no labels, as one counter.
    pub(super) fn counter<P: Atomic + 'static>(
        &self,
        registry: &Registry,
    ) -> Result<GenericCounter<P>, prometheus::Error> {
        self.counters(registry)?.get_metric_with_label_values(&[] as &[&str])
    }

    /// Registers the family as gauges.
    pub(super) fn gauges<P: Atomic + 'static>(
        &self,
        registry: &Registry,
    ) -> Result<GenericGaugeVec<P>, prometheus::Error> {
        let family = GenericGaugeVec::new(Opts::new(self.name, self.help), self.labels)?;
        registry.register(Box::new(family.clone()))?;
        Ok(family)
    }

    /// Registers the family, which has no labels, as one gauge.
    pub(super) fn gauge<P: Atomic + 'static>(
        &self,
        registry: &Registry,
    ) -> Result<prometheus::core::GenericGauge<P>, prometheus::Error> {
        self.gauges(registry)?.get_metric_with_label_values(&[] as &[&str])
    }

    /// Registers the family, which has no labels, as one histogram with these upper bounds.
    pub(super) fn histogram(
        &self,
        registry: &Registry,
        buckets: &[f64],
    ) -> Result<prometheus::Histogram, prometheus::Error> {
        let options = HistogramOpts::new(self.name, self.help).buckets(buckets.to_vec());
        let family = HistogramVec::new(options, self.labels)?;
        registry.register(Box::new(family.clone()))?;
        family.get_metric_with_label_values(&[] as &[&str])
    }
}

macro_rules! families {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] in $unit:literal, $help:literal;)*) => {
        $(
            #[doc = $help]
            #[allow(clippy::doc_markdown, reason = "it is the HELP text too, which is not Markdown")]
            pub const $constant: Family =
                Family { name: $name, kind: Kind::$kind, labels: &[$($label),*], unit: $unit, help: $help };
        )*

        /// Every family that is exported.
        pub const ALL: &[Family] = &[$($constant),*];
    };
}

families! {
    PACKETS_SEEN: Counter "authsensor_packets_seen_total" [] in "packets",
        "Packets that entered a program.";
    PACKETS: Counter "authsensor_packets_total" ["disposition"] in "packets",
        "Packets by what became of them; the sum is authsensor_packets_seen_total.";
    BYTES_NEW: Counter "authsensor_stream_bytes_new_total" [] in "bytes",
        "New stream bytes of service flows.";
    BYTES: Counter "authsensor_stream_bytes_total" ["disposition"] in "bytes",
        "Stream bytes by what became of them; the sum is authsensor_stream_bytes_new_total.";
    HEADS_COMPLETED: Counter "authsensor_heads_completed_total" [] in "heads",
        "Request and response heads completed (without 1xx responses).";
    HEADS_REQUEST: Counter "authsensor_request_heads_total" [] in "heads",
        "Request heads completed, a part of authsensor_heads_completed_total.";
    HEADS: Counter "authsensor_heads_total" ["result"] in "heads",
        "Completed heads by what became of their record; the sum is authsensor_heads_completed_total.";
    LOST_RECORDS: Counter "authsensor_lost_records_total" ["reason"] in "records",
        "Records other than heads that were lost because their ring was full.";
    LOST_TEE_BYTES: Counter "authsensor_lost_tee_bytes_total" [] in "bytes",
        "Body bytes in lost tee records.";
    FLOWS_CREATED: Counter "authsensor_flows_created_total" [] in "flows",
        "Connections of services that were entered in the flow table.";
    FLOWS_DELETED: Counter "authsensor_flows_deleted_total" [] in "flows",
        "Connections removed from the flow table on close or reset.";
    FLOWS_PICKED_UP: Counter "authsensor_flows_picked_up_total" [] in "flows",
        "Connections entered mid-stream, a part of authsensor_flows_created_total.";
    FLOWS_PASSED: Counter "authsensor_flows_passed_total" ["reason"] in "flows",
        "Connections that cannot be read, or no longer: TLS, HTTP/2, upgrade or CONNECT. Coverage is lost there.";
    FLOWS_LIVE: Gauge "authsensor_flows_live_estimate" [] in "flows",
        "Connections in the flow table: created less deleted, at most the table's size; what exceeds it was evicted.";
    DESYNCHRONISED: Counter "authsensor_halves_desynchronised_total" [] in "halves",
        "Directions of connections that lost their place in the stream.";
    RESYNCHRONISED: Counter "authsensor_halves_resynchronised_total" [] in "halves",
        "Directions of connections that found their place again.";
    HALVES_HANDED_OVER: Counter "authsensor_halves_handed_over_total" [] in "halves",
        "Halves of connections that the kernel handed over to the slow path.";
    FLOWS_RESUMED: Counter "authsensor_flows_resumed_total" [] in "flows",
        "Connections that the kernel took back from the slow path.";
    SEGMENTS_COMPARED: Counter "authsensor_segments_compared_total" [] in "segments",
        "Segments of seen bytes, of a request without an answer, that were compared with the first.";
    SLOW_BYTES: Counter "authsensor_slow_path_bytes_total" ["disposition"] in "bytes",
        "Bytes of handed-over connections by what the slow path did with them.";
    SLOW_EVENTS: Counter "authsensor_slow_path_events_total" ["event"] in "events",
        "What happened on the slow path.";
    SLOW_FLOWS: Gauge "authsensor_slow_path_flows" [] in "flows",
        "Connections that the slow path follows now.";
    SLOW_HELD: Gauge "authsensor_slow_path_held_bytes" [] in "bytes",
        "Memory that the slow path uses for them now.";
    STREAM_FAULTS: Counter "authsensor_stream_faults_total" ["reason"] in "events",
        "Things that cost a head, a pairing or a segment.";
    FRAGMENTS: Counter "authsensor_fragments_total" ["reason"] in "datagrams",
        "Fragmented IP datagrams, by what became of them.";
    HTTP_ANOMALIES: Counter "authsensor_http_anomalies_total" ["reason"] in "messages",
        "HTTP messages of a form that servers read differently, or of which something is missing; one may be several.";

    OBSERVATIONS: Counter "authsensor_observations_total" ["service", "class", "provenance", "outcome"] in "requests",
        "Requests with their answer, judged.";
    ANOMALIES: Counter "authsensor_anomalies_total" ["anomaly"] in "requests",
        "Observations whose request or response was odd, by what was; one that was odd in several ways counts for each.";
    ACCOUNT_READS: Counter "authsensor_account_reads_total" ["service", "login"] in "requests",
        "Answered reads of personal data by whether the login behind their credential was seen.";
    ACCOUNTS_WITHOUT_LOGIN: Gauge "authsensor_accounts_read_without_login" ["service"] in "accounts",
        "Distinct accounts read with a credential that no login issued, since the start (HyperLogLog, error 0.8 %).";

    COLLECTOR_RECORDS: Counter "authsensor_collector_records_total" [] in "requests",
        "Request records taken from the rings; equals observations, pending and lost together.";
    COLLECTOR_OBSERVATIONS: Counter "authsensor_collector_observations_total" [] in "requests",
        "Request records that became observations.";
    COLLECTOR_PENDING: Gauge "authsensor_collector_pending" [] in "requests",
        "Requests that wait for their response.";
    COLLECTOR_LOST: Counter "authsensor_collector_lost_total" ["reason"] in "requests",
        "Request records that the collector lost.";
    UNMATCHED: Counter "authsensor_credentials_unmatched_total" [] in "credentials",
        "Credentials that match no declared issuer and so cannot be verified.";
    UNSTABLE: Counter "authsensor_credentials_without_stable_token_total" [] in "credentials",
        "Credentials of schemes that prove a secret anew in every request (Digest, NTLM, Negotiate): nothing to look up.";
    CODED_BODIES: Counter "authsensor_coded_bodies_total" ["result"] in "bodies",
        "Compressed login and refresh bodies by what became of them; all but those decoded leave a gap.";
    VERSIONS: Counter "authsensor_request_versions_total" ["result"] in "versions",
        "Retransmissions that said something else than the request that was read, by whether they were judged with it.";
    SHAKEN_FORGOTTEN: Counter "authsensor_contradicted_flows_forgotten_total" [] in "flows",
        "Connections whose requests were read in two versions, forgotten because there were too many: what they issue then is not doubted.";
    PROXY_REFUSED: Counter "authsensor_proxy_addresses_refused_total" [] in "requests",
        "Requests of connections whose PROXY protocol header came from a peer that is no trusted proxy: not believed.";
    RING_UNREAD: Gauge "authsensor_ring_unread_bytes" ["ring"] in "bytes",
        "Bytes in a ring that were not read yet, at the last reading.";
    RING_SIZE: Gauge "authsensor_ring_size_bytes" ["ring"] in "bytes",
        "Size of a ring.";

    LEDGER_ISSUANCES: Gauge "authsensor_ledger_issuances" [] in "issuances",
        "Issuances in the ledger.";
    LEDGER_CAPACITY: Gauge "authsensor_ledger_capacity" [] in "issuances",
        "Most issuances that the ledger holds.";
    LEDGER_EVICTED: Counter "authsensor_ledger_evicted_total" ["life"] in "issuances",
        "Issuances that had to go because the ledger was full, by whether their life was over.";
    LEDGER_EVICTION_DOUBT: Gauge "authsensor_ledger_eviction_doubt_ratio" [] in "probability, 0 to 1",
        "Probability that a credential nobody issued passes for one that had to go, and is doubted instead of reported.";
    LEDGER_HORIZON: Gauge "authsensor_ledger_horizon_timestamp_seconds" ["service", "issuer"] in "seconds since 1970",
        "Since when the ledger is complete for an issuer; 0 until it is known.";
    LEDGER_FOLDER_BYTES: Gauge "authsensor_ledger_folder_bytes" [] in "bytes",
        "Size of the ledger's folder; 0 for a ledger in memory.";
    LEDGER_DURABLE: Gauge "authsensor_ledger_durable_timestamp_seconds" [] in "seconds since 1970",
        "Up to when the ledger's folder is complete and durable: what a crash now could not lose. 0 for one in memory.";
    LEDGER_FOLDER: Counter "authsensor_ledger_folder_events_total" ["event"] in "events",
        "What happened between the ledger and its folder.";
    ISSUER_SIGHT: Gauge "authsensor_issuer_sight_ratio" ["service", "issuer"] in "share, 0 to 1",
        "Share of an issuer's newly used credentials whose issuance was seen; NaN until one was used.";
    ISSUER_CREDENTIALS: Gauge "authsensor_issuer_credentials" ["service", "issuer", "class"] in "credentials",
        "An issuer's newly used credentials of the last day: `seen` (their issuance was), `unseen`, `preexisting`.";
    ISSUER_PREEXISTING: Gauge "authsensor_issuer_preexisting" ["service", "issuer"] in "credentials",
        "Distinct credentials of an issuer so far that may be older than the ledger's horizon, within 2 %.";
    ISSUER_PREEXISTING_BUDGET: Gauge "authsensor_issuer_preexisting_budget" ["service", "issuer"] in "credentials",
        "Most of them; NaN without a budget.";
    ISSUER_PREEXISTING_EXCEEDED: Counter "authsensor_issuer_preexisting_exceeded_total" ["service", "issuer"] in "credentials",
        "Distinct credentials that may be older than the horizon, beyond the budget.";
    DETECTABLE: Gauge "authsensor_detectable_accounts" ["service", "issuer", "horizon", "window"] in "accounts",
        "Fewest accounts read with forged tokens of an issuer within a time that are sure to make a rule of level high or critical fire; +Inf: no number is.";
    ISSUANCES: Counter "authsensor_issuances_total" ["result"] in "issuances",
        "Issuances by what the ledger made of them.";

    PUSHED: Counter "authsensor_pushed_issuances_total" ["source", "result"] in "issuances",
        "Issuances that sources pushed, by what the ledger made of them.";
    PUSH_REQUESTS: Counter "authsensor_push_requests_total" ["source", "result"] in "requests",
        "Requests to the push endpoint by what became of them; only those accepted hand anything over.";
    PUSH_CONNECTIONS: Counter "authsensor_push_connections_total" ["result"] in "connections",
        "Connections to the push endpoint by what became of them.";
    PUSH_RELOADS: Counter "authsensor_push_certificate_reloads_total" ["result"] in "loads",
        "The push endpoint's certificate, key and CA read anew while running (a file changed, or SIGHUP), by whether new connections get them.";
    TOLD_BY_ANOTHER: Counter "authsensor_pushed_for_another_total" [] in "uses",
        "Uses of a pushed credential that is, or may be, of another issuer than its source named: not taken for issued.";

    JOURNAL_BYTES: Gauge "authsensor_journal_bytes" [] in "bytes",
        "Size on disk of the journal of what rules have counted; 0 where the ledger is in memory and there is none.";
    JOURNAL_EVENTS: Counter "authsensor_journal_events_total" ["event"] in "events",
        "What happened to the journal: a restart remembers only what was written.";
    RULE_INFO: Gauge "authsensor_rule_info" ["id", "title", "level", "version"] in "1",
        "A rule that is loaded.";
    RULE_RELOADS: Counter "authsensor_rule_reloads_total" ["result"] in "loads",
        "Rules read anew while running (a file changed, or SIGHUP), by whether they are in force: of refused ones, none is.";
    FINDINGS: Counter "authsensor_findings_total" ["rule", "level"] in "findings",
        "Findings opened.";
    DETECTION_LATENCY: Histogram "authsensor_detection_latency_seconds" [] in "seconds",
        "From the kernel's time of the request that completed a finding to the finding.";

    BUILD_INFO: Gauge "authsensor_build_info" ["version", "bpf_object"] in "1",
        "Version of the sensor and hash of the BPF object that is loaded (none: none is).";
    CONFIG_INFO: Gauge "authsensor_config_info" ["hash"] in "1",
        "Hash of the configuration file that is in force.";
    BPF_SECONDS: Counter "authsensor_bpf_run_seconds_total" ["program"] in "seconds",
        "CPU time of a BPF program (0 unless the kernel's bpf_stats are on).";
    BPF_RUNS: Counter "authsensor_bpf_runs_total" ["program"] in "runs",
        "Runs of a BPF program (0 unless the kernel's bpf_stats are on).";
    BOUND_LIMIT: Gauge "authsensor_bound_limit" ["bound"] in "as the config key",
        "A bound as configured.";
    BOUND_REACHED: Counter "authsensor_bound_reached_total" ["bound"] in "events",
        "How often a bound was reached: something was evicted, cut or refused.";

    PROCESS_CPU: Counter "process_cpu_seconds_total" [] in "seconds",
        "User and system CPU time of the sensor.";
    PROCESS_START: Gauge "process_start_time_seconds" [] in "seconds since 1970",
        "When the sensor started.";
    PROCESS_RESIDENT: Gauge "process_resident_memory_bytes" [] in "bytes",
        "Resident memory of the sensor.";
    PROCESS_VIRTUAL: Gauge "process_virtual_memory_bytes" [] in "bytes",
        "Virtual memory of the sensor.";
    PROCESS_THREADS: Gauge "process_threads" [] in "threads",
        "Threads of the sensor.";
    PROCESS_OPEN_FDS: Gauge "process_open_fds" [] in "file descriptors",
        "Open file descriptors of the sensor.";
    PROCESS_MAX_FDS: Gauge "process_max_fds" [] in "file descriptors",
        "Most file descriptors that the sensor may open.";
}
