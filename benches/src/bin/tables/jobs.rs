//! What is to be simulated: each scenario once, members alone with many seeds, and the grid of the exposure curves.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::Failed;

/// When a simulation starts, seconds since 1970 (`docs/simulate.md`).
const START_S: f64 = 1_744_502_400.0;
/// Members alone for fourteen days.
pub const LONG: &str = "members-14-days";

/// New accounts a second: a thousandth of the pace of 2025, a hundredth, a tenth, and that pace.
pub const RATES: [f64; 4] = [0.0019, 0.019, 0.19, 1.9];
/// Addresses: those of the rehearsal, some, and those of 2025.
pub const ADDRESSES: [u64; 3] = [3, 300, 2313];
/// Shares of issuances that the sensor misses for no known reason.
pub const MISS_RATES: [&str; 3] = ["1e-6", "1e-5", "1e-4"];
/// Days of a run of the grid, and when its attack begins.
pub const CURVE_DAYS: f64 = 1.25;
pub const CURVE_START: f64 = 0.25;

/// How large and how many.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Members of a scenario with an attack, at most.
    pub members: u64,
    /// Members where there are members alone, at most.
    pub quiet_members: u64,
    /// Members in the grid.
    pub curve_members: u64,
    /// Seeds of [`LONG`].
    pub seeds: u64,
    /// Seeds of the other scenarios without an attack.
    pub twin_seeds: u64,
}

/// A scenario file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The first sentence of its comment.
    pub what: String,
    /// Its content, but for the comments.
    pub text: String,
    /// Members who exist.
    pub members: u64,
    /// When the attack begins, seconds since 1970; `None`: there is none.
    pub began: Option<f64>,
}

/// All that a result follows from, but for the program.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Inputs {
    /// The scenario's text.
    pub scenario: String,
    pub members: u64,
    pub seed: u64,
    pub baselines: bool,
    /// Of rules and configuration, so that a result of other rules is not taken for one of these.
    pub rules: u64,
}

impl Inputs {
    /// Whether these are inputs of the job called `name`, with `scenarios` and `rules` as they are now, of any size.
    pub fn is_of(&self, name: &str, scenarios: &[Scenario], rules: u64) -> bool {
        let parts: Vec<&str> = name.split('/').collect();
        let text = match parts.as_slice() {
            ["scenario", name] | ["quiet", name, _] => {
                scenarios.iter().find(|scenario| scenario.name == *name).map(|scenario| scenario.text.clone())
            }
            ["curve", rate, addresses, miss] => {
                let (rate, addresses) = (rate.parse().ok(), addresses.parse().ok());
                rate.zip(addresses).map(|(rate, addresses)| curve(rate, addresses, miss))
            }
            _ => None,
        };
        self.rules == rules && text.is_some_and(|text| text == self.scenario)
    }
}

/// One run.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// `scenario/NAME`, `quiet/NAME/SEED`, `curve/RATE/ADDRESSES/MISS`.
    pub name: String,
    pub inputs: Inputs,
}

impl Scenario {
    /// Reads `text`, the content of the file at `path`.
    ///
    /// # Errors
    /// It does not begin with a comment, or is not TOML.
    pub fn read(path: &Path, text: &str) -> Result<Self, Failed> {
        let place = path.display();
        let comment =
            text.lines().map_while(|line| line.strip_prefix('#')).map(str::trim).collect::<Vec<_>>().join(" ");
        if comment.is_empty() {
            return Err(format!("{place}:1: no comment. Begin the file with a sentence that says what it shows").into());
        }
        let tree: toml::Table = toml::from_str(text).map_err(|error| format!("{place}: {error}"))?;
        let number = |value: Option<&toml::Value>| {
            value.and_then(|value| value.as_float().or_else(|| value.as_integer().map(|whole| whole as f64)))
        };
        let attack = tree.get("attack").and_then(toml::Value::as_table);
        let kind = attack.and_then(|attack| attack.get("kind")).and_then(toml::Value::as_str).unwrap_or("none");
        let start = number(attack.and_then(|attack| attack.get("start_day"))).unwrap_or(1.0);
        Ok(Self {
            name: path.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            what: first_sentence(&comment),
            text: bare(text),
            members: number(tree.get("members")).map_or(1_000_000, |members| members as u64),
            began: (kind != "none").then_some(START_S + start * 86_400.0),
        })
    }
}

/// `text` without comments: what is said of a scenario may change while its results stand.
fn bare(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// Up to the first full stop that ends a sentence. A number before a stop does not: `1.86`, `no. 5`.
fn first_sentence(comment: &str) -> String {
    let end = comment.match_indices(". ").map(|(at, _)| at + 1).next();
    comment.get(..end.unwrap_or(comment.len())).unwrap_or(comment).to_owned()
}

/// The scenarios in `folder`, by name.
///
/// # Errors
/// One cannot be read.
pub fn scenarios(folder: &Path) -> Result<Vec<Scenario>, Failed> {
    files(folder, "toml")?
        .iter()
        .map(|path| {
            Scenario::read(path, &fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?)
        })
        .collect()
}

fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, Failed> {
    let list = fs::read_dir(folder).map_err(|error| format!("cannot read {}: {error}", folder.display()))?;
    let mut files = list.map(|entry| entry.map(|entry| entry.path())).collect::<Result<Vec<_>, _>>()?;
    files.retain(|path| path.extension().is_some_and(|found| found == extension));
    files.sort();
    Ok(files)
}

/// A number for the shipped rules and the configuration of the scenarios in `folder`.
///
/// # Errors
/// A file cannot be read.
pub fn rules(folder: &Path) -> Result<u64, Failed> {
    let mut hasher = DefaultHasher::new();
    let config = folder.join("config");
    let shipped = folder.join("../../rules/detection");
    for path in [files(&config, "toml")?, files(&config, "yml")?, files(&shipped, "yml")?].concat() {
        fs::read(path)?.hash(&mut hasher);
    }
    // What JSON numbers carry exactly everywhere.
    Ok(hasher.finish() >> 11)
}

/// Everything that the tables show.
pub fn jobs(scenarios: &[Scenario], sizes: &Sizes, rules: u64) -> Vec<Job> {
    let mut jobs = Vec::new();
    for scenario in scenarios {
        let inputs = |members: u64, seed: u64, baselines: bool| Inputs {
            scenario: scenario.text.clone(),
            members: members.min(scenario.members),
            seed,
            baselines,
            rules,
        };
        if scenario.began.is_some() {
            jobs.push(Job { name: format!("scenario/{}", scenario.name), inputs: inputs(sizes.members, 1, true) });
            continue;
        }
        let seeds = if scenario.name == LONG { sizes.seeds } else { sizes.twin_seeds };
        for seed in 1..=seeds {
            let name = format!("quiet/{}/{seed}", scenario.name);
            jobs.push(Job { name, inputs: inputs(sizes.quiet_members, seed, seed == 1) });
        }
    }
    for rate in RATES {
        for addresses in ADDRESSES {
            for miss in MISS_RATES {
                let inputs = Inputs {
                    scenario: curve(rate, addresses, miss),
                    members: sizes.curve_members,
                    seed: 1,
                    baselines: false,
                    rules,
                };
                jobs.push(Job { name: curve_name(rate, addresses, miss), inputs });
            }
        }
    }
    jobs
}

/// The name of a run of the grid.
pub fn curve_name(rate: f64, addresses: u64, miss: &str) -> String {
    format!("curve/{rate}/{addresses}/{miss}")
}

/// The scenario of a run of the grid: that of 2025 at another pace.
fn curve(rate: f64, addresses: u64, miss: &str) -> String {
    format!(
        "seed = 1\ndays = {CURVE_DAYS}\nunexplained_miss_rate = {miss}\n\n\
         [attack]\nkind = \"forged_tokens\"\nstart_day = {CURVE_START}\nspan_s = 18_057_600\naccounts = 33_673_817\n\
         views_per_account = 5.4\naddresses = {addresses}\nrequests_per_second = {:.5}\n",
        rate * 5.4
    )
}

/// Whether `name` fits `glob`, in which `*` is any text.
pub fn fits(glob: &str, name: &str) -> bool {
    match glob.split_once('*') {
        None => glob == name,
        Some((front, rest)) => name
            .strip_prefix(front)
            .is_some_and(|name| (0..=name.len()).filter_map(|at| name.get(at..)).any(|name| fits(rest, name))),
    }
}
