//! Everything behind capture, in one piece: records in, findings, metrics and transactions out.
//!
//! Owns the collector (with its ledger), the detectors and the findings sink; run by the data plane thread live, and by
//! `replay` over files, with the same results. Records flow in through [`Pipeline::record`]; time moves on through
//! [`Pipeline::advance`].

mod names;
mod seal;
mod state;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::place;

use names::Names;
use seal::Seal;
use state::Kept;

use crate::collect::routes::RouteStats;
use crate::collect::transaction::Transaction;
use crate::collect::{Clock, Collector, CollectorCounts, Exchange, Keys, Sink};
use crate::config::model::Config;
use crate::detect::{Detectors, RuleSet};
use crate::estimate::Estimators;
use crate::finding::confidence::{Confidence, Coverage};
use crate::finding::model::{Activity, Finding};
use crate::finding::parents::Parents;
use crate::finding::sink::{NdjsonSink, SinkError};
use crate::journal::JournalError;
use crate::ledger::{Issued, Ledger, LedgerStats, Told};
use crate::metrics::{Bound, CollectorView, IssuerView, LedgerView, Metrics};
use crate::observation::{Estimate, Instant, Observation, ServiceId};
use crate::push::Pushed;

/// Estimators are told what issuers' sight is this often.
const SIGHT_PERIOD_NS: u64 = 60_000_000_000;

/// What goes wrong behind capture.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// A finding could not be written.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// Transactions could not be written.
    #[error("cannot write transactions: {0}")]
    Transactions(#[from] std::io::Error),
    /// What an earlier run left cannot be used.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Where transactions are printed, one JSON object a line.
pub type TransactionWriter = Box<dyn Write + Send>;

/// The pipeline behind capture.
pub struct Pipeline {
    config: Arc<Config>,
    collector: Collector,
    estimators: Estimators,
    detectors: Detectors,
    findings: NdjsonSink,
    metrics: Option<Arc<Metrics>>,
    clock: Clock,
    /// Up to when everything was applied.
    now: Instant,
    tap: Tap,
    estimates: Vec<Estimate>,
    /// When estimators are to be told again what issuers' sight is.
    sight_due_ns: u64,
    fired: Vec<Finding>,
    parents: Parents,
    kept: Option<Kept>,
    seal: Seal,
    /// Findings opened so far.
    opened: u64,
    /// Kinds of unmatched credentials that were told; bounded by the ledger's own list.
    told: BTreeSet<String>,
}

/// What the collector's output passes through: observations are kept until the batch is complete, because naming their
/// `kid` needs the ledger, which the collector holds meanwhile.
struct Tap {
    batch: Vec<Observation>,
    transactions: Option<TransactionWriter>,
    routes: Option<RouteStats>,
    line: String,
    failed: Option<std::io::Error>,
}

impl Tap {
    fn print(&mut self, transaction: &Transaction<'_>) {
        let Some(writer) = self.transactions.as_mut() else { return };
        self.line.clear();
        transaction.write_json_line(&mut self.line);
        if !self.line.ends_with('\n') {
            self.line.push('\n');
        }
        if let Err(error) = writer.write_all(self.line.as_bytes()) {
            self.failed.get_or_insert(error);
        }
    }
}

impl Sink for Tap {
    fn observation(&mut self, observation: &Observation, transaction: &Transaction<'_>) {
        self.batch.push(*observation);
        if let Some(routes) = self.routes.as_mut() {
            routes.count(observation, transaction);
        }
        self.print(transaction);
    }

    fn unmatched(&mut self, transaction: &Transaction<'_>) {
        self.print(transaction);
    }
}

impl Pipeline {
    /// Ready for records stamped from `started` on, with an empty ledger in memory.
    pub fn new(
        config: Arc<Config>,
        rules: &RuleSet,
        keys: Keys,
        clock: Clock,
        started: Instant,
        findings: NdjsonSink,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        let ledger = Ledger::new(&config, keys.account, started);
        Self::with_ledger(config, rules, keys, clock, ledger, findings, metrics)
    }

    /// Ready for records stamped from the ledger's start on.
    pub fn with_ledger(
        config: Arc<Config>,
        rules: &RuleSet,
        keys: Keys,
        clock: Clock,
        ledger: Ledger,
        findings: NdjsonSink,
        metrics: Option<Arc<Metrics>>,
    ) -> Self {
        let collector = Collector::new(Arc::clone(&config), keys, clock, ledger);
        let detectors = Detectors::new(&rules.rules, &config.bounds, seed(&keys));
        let estimators = Estimators::new(&config);
        let parents = Parents::new(config.bounds.open_findings);
        let tap = Tap { batch: Vec::new(), transactions: None, routes: None, line: String::new(), failed: None };
        Self {
            config,
            collector,
            estimators,
            detectors,
            findings,
            metrics,
            clock,
            now: Instant { monotonic_ns: 0, unix_ns: 0 },
            tap,
            estimates: Vec::new(),
            sight_due_ns: 0,
            fired: Vec::new(),
            parents,
            kept: None,
            seal: Seal::new(&keys),
            opened: 0,
            told: BTreeSet::new(),
        }
    }

    /// Prints every transaction to `writer`.
    pub fn print_transactions(&mut self, writer: TransactionWriter) {
        self.tap.transactions = Some(writer);
    }

    /// Keeps statistics of observed routes, at most `rows` of them.
    pub fn observe_routes(&mut self, rows: usize) {
        self.tap.routes = Some(RouteStats::new(Arc::clone(&self.config), rows));
    }

    /// The statistics of observed routes.
    pub fn routes(&self) -> Option<&RouteStats> {
        self.tap.routes.as_ref()
    }

    /// Runs `rules` from now on; those that did not change go on with what they have counted.
    pub fn replace_rules(&mut self, rules: &RuleSet) {
        self.detectors.replace(&rules.rules);
    }

    /// Takes one record.
    pub fn record(&mut self, record: &[u8]) {
        self.collector.record(record);
    }

    /// Takes an exchange that is at hand as a whole, in the order of times; observations are looked at with the next
    /// [`Pipeline::advance`]. False, and nothing done, when it must be given as records.
    pub fn whole(&mut self, exchange: &Exchange<'_>) -> bool {
        self.collector.whole(exchange, &mut self.tap)
    }

    /// Every record stamped before `watermark_ns` was given: applies them in time order.
    pub fn advance(&mut self, watermark_ns: u64) -> Result<(), PipelineError> {
        self.collector.advance(watermark_ns, &mut self.tap);
        self.detect()?;
        // Windows close by the same clock that observations carry.
        let now = self.clock.instant(watermark_ns);
        self.collector.ledger().tick(now);
        self.now = now;
        self.estimators.tick(now, &mut self.estimates);
        if watermark_ns >= self.sight_due_ns {
            self.sight_due_ns = watermark_ns.saturating_add(SIGHT_PERIOD_NS);
            for issuer in &self.collector.ledger().stats().issuers {
                self.estimators.sight(issuer, now, &mut self.estimates);
            }
        }
        let names = Names { config: &self.config, ledger: self.collector.ledger() };
        for estimate in self.estimates.drain(..) {
            self.detectors.estimate(&estimate, &names, &mut self.fired);
            if let Some(kept) = self.kept.as_mut() {
                kept.recorder.estimate(&estimate, &names);
            }
        }
        self.detectors.tick(now, &names, &mut self.fired);
        if let Some(kept) = self.kept.as_mut() {
            kept.flush(&mut self.estimators, now, false);
            kept.progress(&mut self.estimators, &names, &self.seal, now, false);
        }
        self.report(now)
    }

    /// The kernel lost `records` between two times: each may have been a login's answer, on any service.
    pub fn lost(&mut self, from_ns: u64, to_ns: u64, records: u64) {
        self.collector.settle(&mut self.tap);
        let (from, to) = (self.clock.instant(from_ns), self.clock.instant(to_ns));
        for (index, service) in (0u16..).zip(&self.config.services) {
            let issued = service.routes.iter().filter_map(|route| route.issuance.as_ref());
            let most = issued.map(|rule| rule.issues.len() as u64).max().unwrap_or(0);
            if most > 0 {
                self.collector.ledger().lost(ServiceId(index), from, to, records.saturating_mul(most));
            }
        }
    }

    /// An issuance that a source pushed, taken over at monotonic time `now_ns`. What is judged from now on knows of it;
    /// what was judged stays.
    pub fn issued(&mut self, pushed: &Pushed, now_ns: u64) -> Issued {
        self.collector.settle(&mut self.tap);
        let told = Told {
            service: pushed.service,
            issuer: pushed.issuer,
            fingerprint: pushed.fingerprint,
            at: self.clock.instant(pushed.issued_ns),
            expires: pushed.expires_ns.map(|expires| self.clock.instant(expires).monotonic_ns),
            account: pushed.account,
            parent: pushed.parent,
        };
        let issued = self.collector.ledger().told(&told, self.clock.instant(now_ns));
        if let Some(metrics) = &self.metrics {
            metrics.pushed(pushed.source, issued);
        }
        issued
    }

    /// The capture is over: what is pending stays unanswered.
    pub fn finish(&mut self) -> Result<(), PipelineError> {
        self.collector.finish(&mut self.tap);
        self.detect()?;
        self.report(Instant { monotonic_ns: 0, unix_ns: 0 })?;
        if let Some(kept) = self.kept.as_mut() {
            let names = Names { config: &self.config, ledger: self.collector.ledger() };
            kept.progress(&mut self.estimators, &names, &self.seal, self.now, true);
            kept.flush(&mut self.estimators, self.now, true);
        }
        if let Some(writer) = self.tap.transactions.as_mut() {
            writer.flush()?;
        }
        Ok(())
    }

    fn detect(&mut self) -> Result<(), PipelineError> {
        if let Some(error) = self.tap.failed.take() {
            return Err(error.into());
        }
        let names = Names { config: &self.config, ledger: self.collector.ledger() };
        self.estimators.annotate_all(&mut self.tap.batch);
        if let Some(metrics) = &self.metrics {
            self.tap.batch.iter().for_each(|observation| metrics.observe(observation));
        }
        let kept = &mut self.kept;
        self.detectors.observe_all(&self.tap.batch, &names, &mut self.fired, |observation| {
            if let Some(kept) = kept.as_mut() {
                kept.recorder.observation(observation, &names);
            }
        });
        self.tap.batch.clear();
        Ok(())
    }

    fn report(&mut self, now: Instant) -> Result<(), PipelineError> {
        if self.fired.is_empty() {
            return Ok(());
        }
        let ledger = self.collector.ledger().stats();
        for mut finding in self.fired.drain(..) {
            let coverage = coverage(&self.config, &finding, &ledger);
            let Finding { distinct, observations, exact, .. } = finding;
            finding.confidence = Confidence::of(&coverage, distinct, observations, finding.scope.doubtful, exact);
            self.parents.place(&mut finding);
            self.findings.write(&finding)?;
            if finding.activity == Activity::Open {
                self.opened += 1;
                let latency = Duration::from_nanos(now.monotonic_ns.saturating_sub(finding.last.monotonic_ns));
                if let Some(metrics) = &self.metrics {
                    metrics.finding(&finding.rule_id, latency);
                }
            }
        }
        Ok(())
    }

    /// Closes the ledger's folder, if it has one, as of the last [`Pipeline::advance`]: nothing was lost up to there.
    pub fn close(&mut self) {
        self.collector.ledger().close(self.now);
    }

    /// What the collector counted so far.
    pub fn counts(&self) -> &CollectorCounts {
        self.collector.counts()
    }

    /// True when the records that wait for their time take half of the room there is for them.
    pub fn is_half_full(&self) -> bool {
        self.collector.is_half_full()
    }

    /// Findings opened so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// The ledger's statistics, and its list of credentials that match no declared issuer.
    pub fn ledger(&mut self) -> &mut Ledger {
        self.collector.settle(&mut self.tap);
        self.collector.ledger()
    }

    /// Kinds of credentials that match no declared issuer and were not told before, one line each: service, place, `iss`,
    /// `kid`.
    pub fn new_unmatched(&mut self) -> Vec<String> {
        let config = &self.config;
        let told = &mut self.told;
        self.collector
            .ledger()
            .unmatched()
            .map(|kind| {
                let service = config.services.get(usize::from(kind.service.0));
                let places = service.map(|service| &service.credentials);
                let name = |names: Option<&Vec<String>>| {
                    names.and_then(|names| names.get(usize::from(kind.index))).cloned().unwrap_or_default()
                };
                let at = match kind.place {
                    place::AUTHORIZATION => "Authorization".to_owned(),
                    place::COOKIE | place::SET_COOKIE => format!("cookie {}", name(places.map(|p| &p.cookies))),
                    place::HEADER => format!("header {}", name(places.map(|p| &p.headers))),
                    place::QUERY => format!("query parameter {}", name(places.map(|p| &p.query))),
                    place::RESPONSE_HEADER => {
                        format!("response header {}", name(places.map(|p| &p.response_headers)))
                    }
                    _ => "message body".to_owned(),
                };
                let service = service.map_or("no service", |service| &service.name);
                let claims = match (kind.iss, kind.kid) {
                    (None, None) => "no iss, no kid".to_owned(),
                    (iss, kid) => format!("iss {}, kid {}", iss.unwrap_or("none"), kid.unwrap_or("none")),
                };
                format!("{service}: {at}, {claims}")
            })
            .filter(|line| told.insert(line.clone()))
            .collect()
    }

    /// Brings the metrics of collector and ledger up to date, and transactions to where they are printed; `unread` bytes
    /// stand in the event and byte rings. A failure to print is told by the next [`Pipeline::advance`].
    pub fn publish(&mut self, unread: (u64, u64)) {
        if let Some(Err(error)) = self.tap.transactions.as_mut().map(Write::flush) {
            self.tap.failed.get_or_insert(error);
        }
        let Some(metrics) = self.metrics.clone() else { return };
        let stats = self.collector.ledger().stats();
        let counts = *self.collector.counts();
        metrics.collector(&CollectorView {
            records: counts.requests + counts.requests_lost + counts.malformed,
            observations: counts.observations,
            pending: counts.pending,
            lost_full: counts.requests_lost,
            lost_malformed: counts.malformed,
            credentials_unmatched: stats.unmatched,
            no_stable_token: stats.no_stable_token,
            decoding: counts.decoding,
            versions_judged: counts.versions.saturating_sub(counts.versions_late + counts.versions_more),
            versions_more: counts.versions_more,
            versions_late: counts.versions_late,
            shaken_forgotten: counts.shaken_forgotten,
            proxies_refused: counts.proxies_refused,
            event_ring_unread: unread.0,
            byte_ring_unread: unread.1,
        });
        let issuers = issuer_views(&stats);
        metrics.ledger(&LedgerView {
            issuances: stats.issuances as u64,
            evicted_over: stats.tombstone_evictions,
            evicted_running: stats.evictions.saturating_sub(stats.tombstone_evictions),
            eviction_doubt: stats.eviction_false_positives,
            added: counts.issuances.added,
            inherited: counts.issuances.inherited,
            echo: counts.issuances.echo,
            known: counts.issuances.known,
            full: counts.issuances.full,
            lost: counts.issuances.lost,
            told_by_another: stats.told_by_another,
            issuers: &issuers,
            folder: stats.folder,
        });
        metrics.bound(Bound::PendingRequests, counts.evicted);
        metrics.bound(Bound::DecodedBytes, counts.decoding.too_long);
        metrics.bound(Bound::TeeBytes, counts.tee_truncated);
        metrics.bound(Bound::TeeBodies, counts.tee_evicted);
        metrics.bound(Bound::Kids, stats.kids_overflow);
        metrics.bound(Bound::ClaimsCache, stats.claims_evictions);
        metrics.bound(Bound::MaxSeen, stats.seen_evictions);
        let (mut groups, mut quiet, mut values) = (0, 0, 0);
        for (_, stats) in self.detectors.stats() {
            groups += stats.evicted + stats.overflowed;
            quiet += stats.evicted_quiet;
            values += stats.estimated;
        }
        metrics.bound(Bound::RuleGroups, groups);
        metrics.bound(Bound::QuietGroups, quiet);
        metrics.bound(Bound::GroupValues, values);
        let tables = self.estimators.stats();
        metrics.bound(Bound::Walks, tables.walks.lost() + tables.readers.lost());
        metrics.bound(Bound::Misses, tables.misses.lost());
        metrics.bound(Bound::Members, tables.members.lost());
        metrics.bound(Bound::KnownClients, tables.full_days);
        metrics.bound(Bound::OpenFindings, self.parents.dropped);
        if let Some(kept) = &self.kept {
            metrics.journal(&kept.recorder.counts());
        }
    }
}

/// What is known of the sight behind a finding: that of the issuer which its group names.
fn coverage(config: &Config, finding: &Finding, stats: &LedgerStats) -> Coverage {
    let named = |field: &str| finding.group.iter().find(|(name, _)| name == field).map(|(_, value)| value.as_str());
    let issuer = named("issuer").and_then(|issuer| {
        stats.issuers.iter().find(|known| {
            let service = config.services.get(usize::from(known.service.0));
            let fits = service.filter(|service| named("service").is_none_or(|name| name == service.name));
            let name = fits.and_then(|service| service.issuers.get(usize::from(known.issuer.0)));
            name.is_some_and(|known| known.name == issuer)
        })
    });
    let last_unix = i64::try_from(finding.last.unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
    Coverage {
        sight: issuer.and_then(|issuer| issuer.sight.share()),
        warming: issuer.is_some_and(|issuer| last_unix < issuer.complete_unix),
        gap_left: if issuer.is_some() { stats.gap_left } else { 0 },
    }
}

/// What places groups in tables: secret, and the same in each replay with the same keys.
fn seed(keys: &Keys) -> [u64; 2] {
    let drawn = u128::from_le_bytes(hash128(keys.account, b"authsensor groups"));
    #[expect(clippy::cast_possible_truncation, reason = "the two halves")]
    let halves = [drawn as u64, (drawn >> 64) as u64];
    halves
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit a double's 53 bits")]
fn issuer_views(stats: &LedgerStats) -> Vec<IssuerView> {
    stats
        .issuers
        .iter()
        .map(|issuer| IssuerView {
            service: issuer.service.0,
            issuer: issuer.issuer.0,
            horizon_unix_s: issuer.horizon_unix as f64,
            sight: issuer.sight.share(),
            used: issuer.sight,
            preexisting: issuer.population,
            preexisting_budget: issuer.population_budget,
            preexisting_exceeded: issuer.population_exceeded,
        })
        .collect()
}
