//! What the reports of each detector are worth against what the attack really did, as the benchmark counts for the rules.
//!
//! Requests flow in, each with the word whether it is the attack's; one [`Row`] a detector flows out. *Detected* means: a
//! report after the attack began, at least 80 % of whose accounts are the attack's (one that names no account is judged by
//! its address). Every other report is false.

#![expect(clippy::cast_precision_loss, reason = "figures for people")]

use std::collections::HashSet;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Baseline, Fired, Request, SECOND};

/// Of this share of a report's accounts the attack must be.
const SHARE: f64 = 0.8;

/// What a detector came to.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The traffic's name.
    pub scenario: String,
    /// The detector.
    pub baseline: String,
    /// Requests that it was shown.
    pub observations: u64,
    /// Days from the first request to the last.
    pub days: f64,
    /// Requests of the attack in all.
    pub attack_requests: u64,
    /// Its accounts whose data was returned, in all.
    pub accounts_exposed: usize,
    /// Reports, right and false.
    pub findings: u64,
    /// Its name again if it detected the attack, as the benchmark's line has the rule.
    pub detected_by: Option<String>,
    /// From the attack's beginning to the first right report.
    pub seconds_to_detect: Option<f64>,
    /// Accounts of the attack whose data had been returned by then.
    pub accounts_exposed_at_detection: Option<usize>,
    /// Requests of the attack by then.
    pub attack_requests_at_detection: Option<u64>,
    /// Reports that were not of the attack.
    pub false_findings: u64,
    /// Those a day; nothing if no time passed.
    pub false_findings_per_day: Option<f64>,
    /// Addresses or sessions that were forgotten because the bound was reached.
    pub forgotten: u64,
}

/// Watches the detectors.
pub struct Judge {
    baselines: Vec<(Box<dyn Baseline>, Tally)>,
    /// What the attack did so far.
    attack: Attack,
    observations: u64,
    first_ns: Option<u64>,
    last_ns: u64,
}

#[derive(Debug, Default)]
struct Attack {
    began_ns: Option<u64>,
    requests: u64,
    clients: HashSet<IpAddr>,
    accounts: HashSet<u64>,
    exposed: HashSet<u64>,
}

#[derive(Debug, Default)]
struct Tally {
    findings: u64,
    wrong: u64,
    /// Time, accounts exposed and requests of the attack at the first right report.
    detected: Option<(u64, usize, u64)>,
}

impl Attack {
    fn did(&mut self, request: &Request) {
        self.began_ns.get_or_insert(request.at_ns);
        self.requests += 1;
        self.clients.insert(request.client);
        if let Some(account) = request.account {
            self.accounts.insert(account);
            if request.returned {
                self.exposed.insert(account);
            }
        }
    }

    /// Whether `fired` is of this attack.
    fn explains(&self, fired: &Fired) -> bool {
        if self.began_ns.is_none_or(|began_ns| fired.at_ns < began_ns) {
            return false;
        }
        if fired.accounts.is_empty() {
            return self.clients.contains(&fired.client);
        }
        let of_attack = fired.accounts.iter().filter(|account| self.accounts.contains(account)).count();
        of_attack as f64 >= SHARE * fired.accounts.len() as f64
    }
}

impl Judge {
    /// Watches `baselines`.
    pub fn new(baselines: Vec<Box<dyn Baseline>>) -> Self {
        let baselines = baselines.into_iter().map(|baseline| (baseline, Tally::default())).collect();
        Self { baselines, attack: Attack::default(), observations: 0, first_ns: None, last_ns: 0 }
    }

    /// The attack begins at `at_ns`, nanoseconds since 1970, although its first request may come later; without this it
    /// begins with that request.
    pub fn begins(&mut self, at_ns: u64) {
        self.attack.began_ns.get_or_insert(at_ns);
    }

    /// Shows the next request to every detector; `attack`: it is the attack's.
    pub fn see(&mut self, request: &Request, attack: bool) {
        self.observations += 1;
        self.first_ns.get_or_insert(request.at_ns);
        self.last_ns = self.last_ns.max(request.at_ns);
        if attack {
            self.attack.did(request);
        }
        for (baseline, tally) in &mut self.baselines {
            let Some(fired) = baseline.see(request) else { continue };
            tally.findings += 1;
            if self.attack.explains(&fired) {
                let now = (fired.at_ns, self.attack.exposed.len(), self.attack.requests);
                tally.detected.get_or_insert(now);
            } else {
                tally.wrong += 1;
            }
        }
    }

    /// What each detector came to with the traffic called `scenario`.
    pub fn rows(&self, scenario: &str) -> Vec<Row> {
        let length_ns = self.last_ns.saturating_sub(self.first_ns.unwrap_or(self.last_ns));
        let days = seconds(length_ns) / 86_400.0;
        let row = |(baseline, tally): &(Box<dyn Baseline>, Tally)| Row {
            scenario: scenario.to_owned(),
            baseline: baseline.name().to_owned(),
            observations: self.observations,
            days: rounded(days),
            attack_requests: self.attack.requests,
            accounts_exposed: self.attack.exposed.len(),
            findings: tally.findings,
            detected_by: tally.detected.map(|_| baseline.name().to_owned()),
            seconds_to_detect: tally
                .detected
                .zip(self.attack.began_ns)
                .map(|((at_ns, ..), began_ns)| rounded(seconds(at_ns.saturating_sub(began_ns)))),
            accounts_exposed_at_detection: tally.detected.map(|(_, exposed, _)| exposed),
            attack_requests_at_detection: tally.detected.map(|(.., requests)| requests),
            false_findings: tally.wrong,
            false_findings_per_day: (length_ns > 0).then(|| rounded(tally.wrong as f64 / days)),
            forgotten: baseline.forgotten(),
        };
        self.baselines.iter().map(row).collect()
    }
}

fn seconds(ns: u64) -> f64 {
    ns as f64 / SECOND as f64
}

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::testing::{address, read};
    use super::super::wallarm::Bola;
    use super::*;

    fn judge() -> Judge {
        Judge::new(vec![Box::new(Bola::example(100))])
    }

    #[test]
    fn an_attack_from_one_address_is_detected_at_its_31st_account() {
        let mut judge = judge();
        for n in 0..1000 {
            judge.see(&read(address(1 + n), f64::from(n), n, n), false);
            if n >= 500 {
                judge.see(&read(address(0), f64::from(n) + 0.5, 1, 100_000 + 2 * n), true);
                judge.see(&read(address(0), f64::from(n) + 0.5, 1, 100_001 + 2 * n), true);
            }
        }
        let [row] = judge.rows("test").try_into().unwrap();
        // Two a second: the 31st comes in the 16th second, with 15 × 2 + 1 accounts.
        assert_eq!((row.seconds_to_detect, row.accounts_exposed_at_detection), (Some(15.0), Some(31)));
        assert_eq!((row.attack_requests_at_detection, row.findings, row.false_findings), (Some(31), 1, 0));
        assert_eq!(row.detected_by.as_deref(), Some("Wallarm BOLA 30 in 30 s"));
    }

    #[test]
    fn a_shared_address_that_fires_for_its_members_is_a_false_finding() {
        let mut judge = judge();
        for n in 0..62 {
            // Of every four accounts read from the address, one is the attack's.
            judge.see(&read(address(0), 1000.0 + f64::from(n), 1, n), n % 4 == 0);
        }
        for n in 0..62 {
            judge.see(&read(address(0), 2000.0 + f64::from(n) / 4.0, 1, n), n % 4 == 0);
        }
        judge.see(&read(address(9), 87_400.0, 1, 1), false);
        let [row] = judge.rows("test").try_into().unwrap();
        assert_eq!((row.findings, row.false_findings, row.detected_by), (1, 1, None));
        assert_eq!((row.days, row.false_findings_per_day), (1.0, Some(1.0)));
    }

    #[test]
    fn a_report_before_the_attack_is_false() {
        let mut judge = judge();
        for n in 0..31 {
            judge.see(&read(address(0), 1000.0, 1, n), false);
        }
        for n in 0..31 {
            judge.see(&read(address(0), 2000.0, 1, n), true);
        }
        let [row] = judge.rows("test").try_into().unwrap();
        assert_eq!((row.findings, row.false_findings, row.detected_by), (1, 1, None));
        assert_eq!((row.attack_requests, row.accounts_exposed), (31, 31));
    }
}
