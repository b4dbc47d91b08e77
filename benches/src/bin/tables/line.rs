//! What `simulate` printed, as it stands in the results folder. A line of another shape is refused.

use benches::baseline::judge::Row;
use serde::{Deserialize, Serialize};

use crate::Failed;
use crate::jobs::Inputs;

/// Of this share of a finding's accounts the attack must be, for it to be the attack's (`docs/simulate.md`).
const SHARE: f64 = 0.8;
/// Levels, worst first.
pub const LEVELS: [&str; 5] = ["critical", "high", "medium", "low", "informational"];

/// The line.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    pub scenario: String,
    pub seed: u64,
    pub observations: u64,
    pub days: f64,
    pub findings: Vec<Opened>,
    pub detected_by: Option<String>,
    pub seconds_to_detect: Option<f64>,
    pub accounts_exposed_at_detection: Option<u64>,
    pub attack_requests_at_detection: Option<u64>,
    pub false_findings_by_level: Levels,
    pub false_findings_per_day: f64,
    pub peak_rss_mib: f64,
    pub observations_per_second: f64,
    #[serde(default)]
    pub baselines: Vec<Row>,
}

/// A finding, as it opened, seconds since 1970.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "the keys of the line")]
pub struct Opened {
    pub rule: String,
    pub level: String,
    pub opened: f64,
    pub accounts: u64,
    pub attack_share: f64,
}

/// False findings.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    pub critical: u64,
    pub high: u64,
    pub medium: u64,
    pub low: u64,
    pub informational: u64,
}

impl Levels {
    /// By [`LEVELS`].
    pub fn each(&self) -> [u64; 5] {
        [self.critical, self.high, self.medium, self.low, self.informational]
    }
}

/// A file of the results folder: what went in, what came out.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    pub inputs: Inputs,
    pub line: Line,
}

impl Line {
    /// Reads a line of `simulate`.
    ///
    /// # Errors
    /// It is of another shape.
    pub fn read(text: &str) -> Result<Self, Failed> {
        serde_json::from_str(text).map_err(|error| {
            format!("not a line of `simulate` as this program knows it ({error}): build both from the same sources")
                .into()
        })
    }

    /// True for a finding that is the attack's; `began`: when the attack began, if there is one.
    fn hits(finding: &Opened, began: Option<f64>) -> bool {
        finding.attack_share >= SHARE && began.is_some_and(|began| finding.opened >= began)
    }

    /// Findings that are not the attack's: rule, level, how many; worst level first.
    pub fn wrong(&self, began: Option<f64>) -> Vec<(&str, &str, usize)> {
        tally(self.findings.iter().filter(|one| !Self::hits(one, began)))
    }

    /// Findings that are the attack's, but of a level that does not count as its detection.
    pub fn lesser(&self, began: Option<f64>) -> Vec<(&str, &str, usize)> {
        let lesser = |one: &&Opened| Self::hits(one, began) && !matches!(&*one.level, "high" | "critical");
        tally(self.findings.iter().filter(lesser))
    }

    /// Says where the line contradicts itself.
    ///
    /// # Errors
    /// Its false findings are not those that it counts: then `began` is not when the attack began.
    pub fn check(&self, began: Option<f64>) -> Result<(), Failed> {
        let wrong = self.wrong(began);
        let count = |level: &str| wrong.iter().filter(|(_, one, _)| *one == level).map(|(.., n)| *n as u64).sum();
        let counted: [u64; 5] = LEVELS.map(count);
        if counted != self.false_findings_by_level.each() {
            let text = "the findings of the line give other numbers of false ones than it counts";
            return Err(format!("{}: {text}: {counted:?} and {:?}", self.scenario, self.false_findings_by_level).into());
        }
        Ok(())
    }
}

fn rank(level: &str) -> usize {
    LEVELS.iter().position(|known| *known == level).unwrap_or(LEVELS.len())
}

fn tally<'a>(findings: impl Iterator<Item = &'a Opened>) -> Vec<(&'a str, &'a str, usize)> {
    let mut list: Vec<(&str, &str, usize)> = Vec::new();
    for finding in findings {
        match list.iter_mut().find(|(rule, level, _)| *rule == finding.rule && *level == finding.level) {
            Some((.., count)) => *count += 1,
            None => list.push((&finding.rule, &finding.level, 1)),
        }
    }
    list.sort_by(|a, b| (rank(a.1), b.2, a.0).cmp(&(rank(b.1), a.2, b.0)));
    list
}
