//! What the lab concludes: the sensor's counts beside nginx's and the clients', and a list of checks.

use super::canary::{Hits, Image};
use super::gateway::Entry;
use super::metrics::Metrics;
use super::sensor::{SERVICE, Sighting};
use super::tally::{Counts, Outcome};

const OBSERVATIONS: &str = "authsensor_observations_total";
const REQUEST_HEADS: &str = "authsensor_request_heads_total";
const ANOMALIES: &str = "authsensor_anomalies_total";
const HEADS: &str = "authsensor_heads_completed_total";
/// Families that belong to the story.
const SHOWN: [&str; 6] = [
    "authsensor_account_reads_total",
    "authsensor_accounts_read_without_login",
    "authsensor_findings_total",
    "authsensor_detection_latency_seconds_sum",
    "authsensor_detection_latency_seconds_count",
    "authsensor_issuances_total",
];

/// Checks of one phase, each held or not.
#[derive(Debug, Default)]
pub struct Verdict {
    failed: Vec<String>,
}

impl Verdict {
    /// Notes and prints a check.
    pub fn check(&mut self, held: bool, text: impl Into<String>) {
        let text = text.into();
        println!("  {} {text}", if held { "ok  " } else { "FAIL" });
        if !held {
            self.failed.push(text);
        }
    }

    /// What did not hold.
    pub fn failed(&self) -> &[String] {
        &self.failed
    }
}

/// The access log in the lab's terms.
pub fn counts_of(entries: &[Entry]) -> Counts {
    let mut counts = Counts::default();
    for entry in entries {
        counts.add(&entry.method, &entry.uri, entry.status, &entry.content_type);
    }
    counts
}

/// True once the sensor has judged as many requests as nginx has logged.
pub fn settled(metrics: &Metrics, requests: u64) -> bool {
    metrics.count(OBSERVATIONS, &[]) == Some(requests)
}

fn reads(metrics: &Metrics, labels: &[(&str, &str)]) -> Option<u64> {
    let mut all = vec![("service", SERVICE), ("class", "account_read")];
    all.extend_from_slice(labels);
    metrics.count(OBSERVATIONS, &all)
}

/// Must show 3: the sensor's counts equal nginx's, exactly; and the lab's clients agree with both.
pub fn compare(verdict: &mut Verdict, clients: &Counts, nginx: &Counts, metrics: &Metrics) {
    println!("\n  {:<34}{:>10}{:>10}{:>10}", "", "nginx", "sensor", "clients");
    let row = |name: &str, nginx: u64, sensor: Option<u64>, clients: u64| {
        let shown = sensor.map_or_else(|| "missing".to_owned(), |count| count.to_string());
        let held = sensor == Some(nginx) && clients == nginx;
        println!("  {name:<34}{nginx:>10}{shown:>10}{clients:>10}{}", if held { "" } else { "   DIFFERENT" });
        held
    };
    let mut held = row("requests judged", nginx.requests, metrics.count(OBSERVATIONS, &[]), clients.requests);
    held &= row("request heads (kernel)", nginx.requests, metrics.count(REQUEST_HEADS, &[]), clients.requests);
    let both = nginx.requests * 2;
    held &= row("request + response heads (kernel)", both, metrics.count(HEADS, &[]), clients.requests * 2);
    for outcome in Outcome::ALL {
        let statuses: Vec<String> =
            nginx.reads.keys().filter(|(of, _)| *of == outcome).map(|(_, s)| s.to_string()).collect();
        let name = format!("account reads: {} ({})", outcome.label(), statuses.join(", "));
        let sensor = reads(metrics, &[("outcome", outcome.label())]);
        held &= row(&name, nginx.outcome(outcome), sensor, clients.outcome(outcome));
    }
    println!();
    verdict.check(held, "the sensor's counts equal nginx's access log");
    verdict.check(clients.reads == nginx.reads, "the clients' counts by status equal nginx's access log");
}

/// Every read by a member is known to come from a login, every forged one is not.
pub fn provenance(verdict: &mut Verdict, nginx: &Counts, forged: u64, metrics: &Metrics) {
    let of = |provenance| reads(metrics, &[("outcome", "read"), ("provenance", provenance)]);
    let members = nginx.outcome(Outcome::Read) - forged;
    let shown = |count: Option<u64>| count.map_or_else(|| "missing".to_owned(), |count| count.to_string());
    let (issued, unissued) = (of("issued"), of("unissued"));
    verdict.check(
        issued == Some(members),
        format!("members' reads judged `issued`: {} of {members}{}", shown(issued), others(metrics)),
    );
    verdict.check(
        unissued == Some(forged),
        format!("reads with forged tokens judged `unissued`: {} of {forged}", shown(unissued)),
    );
}

/// What reads were judged that are neither `issued` nor `unissued`, and what may have kept them from it; empty when there
/// are none.
fn others(metrics: &Metrics) -> String {
    let doubts = ["none", "preexisting", "unverifiable"].into_iter().filter_map(|provenance| {
        let count = reads(metrics, &[("outcome", "read"), ("provenance", provenance)])?;
        (count > 0).then(|| format!("{provenance} {count}"))
    });
    let doubts: Vec<String> = doubts.collect();
    if doubts.is_empty() {
        return String::new();
    }
    let causes = metrics.lines(&[ANOMALIES, "authsensor_slow_path_events_total", "authsensor_lost_records_total"]);
    format!(" ({}; {})", doubts.join(", "), causes.join(", "))
}

/// Must show 4: no credential in anything that the sensor wrote or holds.
pub fn canaries(verdict: &mut Verdict, patterns: usize, image: Image, control: bool, hits: &Hits) {
    let megabytes = |bytes: u64| bytes / 1_000_000;
    verdict.check(control, "a secret planted in the daemon's environment is found in its memory: the search works");
    verdict.check(
        hits.is_empty(),
        format!(
            "{patterns} raw credentials searched for in log, findings, metrics and {} MB of memory ({} MB of BPF maps left \
             out, {} KB unreadable): {} found",
            megabytes(image.searched),
            megabytes(image.rings),
            image.unread / 1000,
            hits.values().map(std::collections::BTreeSet::len).sum::<usize>()
        ),
    );
    for ((place, kind), found) in hits {
        println!("         {kind}: {} in {place}", found.len());
    }
}

/// Prints a finding as its reader would want it.
pub fn print_finding(sighting: &Sighting) {
    let pretty = serde_json::to_string_pretty(&sighting.event).unwrap_or_default();
    println!("  {}", sighting.message());
    for line in pretty.lines() {
        println!("    {line}");
    }
}

/// Prints the metrics that belong to the story.
pub fn print_metrics(metrics: &Metrics) {
    let unissued = |line: &&str| line.contains("provenance=\"unissued\"");
    let observations = metrics.lines(&[OBSERVATIONS]).into_iter().filter(unissued).collect::<Vec<_>>();
    for line in observations.into_iter().chain(metrics.lines(&SHOWN)) {
        println!("    {line}");
    }
}
