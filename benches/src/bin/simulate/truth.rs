//! What really happened, and what the findings are worth against it.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::time::Instant;

use sensor_ebpf::siphash::{Key, hash128};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::feed::Failed;
use crate::token::decimal;

/// The attack's doings.
#[derive(Debug)]
pub struct Truth {
    key: Key,
    /// Hashes of the accounts that the attack went for.
    accounts: HashSet<u128>,
    /// Its addresses.
    clients: HashSet<Ipv4Addr>,
    /// When each of the accounts whose data was returned was first read.
    exposed: Vec<u64>,
    exposed_ids: HashSet<u64>,
    /// Requests of the attack.
    pub requests: u64,
    /// When it began, nanoseconds; `None`: there is none.
    pub began_ns: Option<u64>,
    findings: Vec<Finding>,
    text: Vec<u8>,
}

/// One finding, as it opened.
#[derive(Debug)]
struct Finding {
    rule: String,
    level: String,
    opened_ms: u64,
    accounts: u64,
    share: f64,
    exposed: usize,
    requests: u64,
}

/// What a line says happened to its finding.
#[derive(Deserialize)]
struct Said {
    activity_id: Option<u64>,
}

/// What a simulation came to: one line of JSON.
#[derive(Debug, Serialize)]
pub struct Report<'a> {
    pub scenario: String,
    pub seed: u64,
    pub observations: u64,
    pub days: f64,
    pub findings: Vec<Opened<'a>>,
    pub detected_by: Option<&'a str>,
    pub seconds_to_detect: Option<f64>,
    pub accounts_exposed_at_detection: Option<usize>,
    pub attack_requests_at_detection: Option<u64>,
    pub false_findings_by_level: Levels,
    pub false_findings_per_day: f64,
    pub peak_rss_mib: f64,
    pub observations_per_second: f64,
}

/// A finding of the report. `opened`: seconds since 1970.
#[derive(Debug, Serialize)]
#[expect(clippy::struct_field_names, reason = "the keys of the report")]
pub struct Opened<'a> {
    pub rule: &'a str,
    pub level: &'a str,
    pub opened: f64,
    pub accounts: u64,
    pub attack_share: f64,
}

/// Findings that are not the attack's, or opened before it.
#[derive(Debug, Serialize)]
pub struct Levels {
    pub critical: usize,
    pub high: usize,
    pub medium: usize,
    pub low: usize,
    pub informational: usize,
}

/// Of this share of a finding's accounts the attack must be, for the attack to be detected.
const SHARE: f64 = 0.8;

impl Truth {
    /// Accounts are hashed under `key`, as the sensor's are.
    pub fn new(key: Key) -> Self {
        Self {
            key,
            accounts: HashSet::new(),
            clients: HashSet::new(),
            exposed: Vec::new(),
            exposed_ids: HashSet::new(),
            requests: 0,
            began_ns: None,
            findings: Vec::new(),
            text: Vec::new(),
        }
    }

    /// The attack sent a request for account `id` from `client`; its data was returned, or not.
    pub fn attacked(&mut self, at_ns: u64, id: u64, client: u32, returned: bool) {
        self.requests += 1;
        if returned && self.exposed_ids.insert(id) {
            self.exposed.push(at_ns);
        }
        self.text.clear();
        decimal(id, &mut self.text);
        self.accounts.insert(u128::from_be_bytes(hash128(self.key, &self.text)));
        self.clients.insert(Ipv4Addr::from(client));
    }

    /// Accounts whose data was returned to the attack.
    #[cfg(test)]
    pub fn exposed(&self) -> usize {
        self.exposed.len()
    }

    /// Lines that the sensor wrote by now.
    pub fn told(&mut self, lines: &[u8]) -> Result<(), Failed> {
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            // Of thousands of findings most lines are updates: only what opens is read as a whole.
            if serde_json::from_slice::<Said>(line)?.activity_id == Some(1) {
                self.opened(&serde_json::from_slice(line)?);
            }
        }
        Ok(())
    }

    /// The attack's share of the accounts of a finding (of its clients, where it names no accounts), and how many accounts
    /// it names.
    fn share(&self, finding: &Value) -> (f64, u64) {
        let sample = |list: &str, path: &str| -> Vec<&str> {
            let list = finding.get(list).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            list.iter().filter_map(|one| one.pointer(path)?.as_str()).collect()
        };
        let mut accounts = sample("resources", "/uid");
        accounts.retain(|uid| uid.len() == 32);
        let clients = sample("evidences", "/src_endpoint/ip");
        // A finding that names no account is judged by its clients.
        let (sample, hits) = if accounts.is_empty() {
            let is_hit = |client: &&&str| client.parse().is_ok_and(|client: Ipv4Addr| self.clients.contains(&client));
            (&clients, clients.iter().filter(is_hit).count())
        } else {
            let is_hit = |uid: &&&str| u128::from_str_radix(uid, 16).is_ok_and(|hash| self.accounts.contains(&hash));
            (&accounts, accounts.iter().filter(is_hit).count())
        };
        (hits as f64 / sample.len().max(1) as f64, accounts.len() as u64)
    }

    /// True for a finding, as it opened, that is the attack's.
    pub fn is_attack(&self, finding: &Value) -> bool {
        let opened_ns = finding.get("time").and_then(Value::as_u64).unwrap_or(0).saturating_mul(1_000_000);
        self.share(finding).0 >= SHARE && self.began_ns.is_some_and(|began| opened_ns / 1_000_000 >= began / 1_000_000)
    }

    fn opened(&mut self, finding: &Value) {
        let text = |path: &str| finding.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (share, named) = self.share(finding);
        let by_account = text("/evidences/0/data/counted_field") == "account";
        let counted = finding.pointer("/evidences/0/data/distinct").and_then(Value::as_u64).filter(|_| by_account);
        let level = text("/severity").to_lowercase();
        let opened_ms = finding.get("time").and_then(Value::as_u64).unwrap_or(0);
        let rule = text("/finding_info/title").to_owned();
        self.findings.push(Finding {
            rule,
            level,
            opened_ms,
            accounts: counted.unwrap_or(named),
            share,
            exposed: self.exposed.len(),
            requests: self.requests,
        });
    }

    /// The report. `observations` were made, in a simulation of `days`, since `started`.
    pub fn report(&self, scenario: &str, seed: u64, observations: u64, days: f64, started: Instant) -> Report<'_> {
        let began_ms = self.began_ns.map(|ns| ns / 1_000_000);
        let hit =
            |finding: &&Finding| finding.share >= SHARE && began_ms.is_some_and(|began| finding.opened_ms >= began);
        let detected = self.findings.iter().filter(hit).find(|one| matches!(&*one.level, "high" | "critical"));
        let wrong: Vec<&Finding> = self.findings.iter().filter(|one| !hit(one)).collect();
        let level = |level: &str| wrong.iter().filter(|one| one.level == level).count();
        let shown = self.findings.iter().map(|one| Opened {
            rule: &one.rule,
            level: &one.level,
            opened: one.opened_ms as f64 / 1000.0,
            accounts: one.accounts,
            attack_share: (one.share * 1000.0).round() / 1000.0,
        });
        Report {
            scenario: scenario.to_owned(),
            seed,
            observations,
            days,
            findings: shown.collect(),
            detected_by: detected.map(|one| one.rule.as_str()),
            seconds_to_detect: detected.zip(began_ms).map(|(one, began)| (one.opened_ms - began) as f64 / 1000.0),
            accounts_exposed_at_detection: detected.map(|one| one.exposed),
            attack_requests_at_detection: detected.map(|one| one.requests),
            false_findings_by_level: Levels {
                critical: level("critical"),
                high: level("high"),
                medium: level("medium"),
                low: level("low"),
                informational: level("informational"),
            },
            false_findings_per_day: (wrong.len() as f64 / days * 1000.0).round() / 1000.0,
            peak_rss_mib: peak_rss_mib(),
            observations_per_second: (observations as f64 / started.elapsed().as_secs_f64()).round(),
        }
    }
}

/// The most memory that this process had, MiB.
fn peak_rss_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: f64 = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0);
    (kib / 102.4).round() / 10.0
}
