//! The tables of `docs/detection.md`: `run` simulates what is not simulated yet, `write` renders the results.
//!
//! Scenario files flow in; each becomes jobs ([`jobs`]) that child processes do ([`run`]), a result a file ([`mod@line`]),
//! from which the document's tables are rendered ([`render`], [`rivals`]). Nothing of them is written by hand.

#![expect(clippy::print_stdout, reason = "progress is told")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "figures for people; sizes of scenarios are bounded where they are simulated"
)]

mod jobs;
mod line;
mod render;
mod rivals;
mod run;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use jobs::{Job, Sizes};
use line::Line;

/// What goes wrong.
pub type Failed = Box<dyn std::error::Error>;

/// Makes the tables of docs/detection.md
#[derive(Parser)]
#[command(name = "tables")]
struct Args {
    #[command(subcommand)]
    command: Command,
    /// Where results are kept
    #[arg(long, global = true, value_name = "DIR")]
    results: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Simulates whatever has no result yet
    Run {
        /// Simulations at a time
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        jobs: u16,
        /// Only these: `scenario/via-*`, `quiet/*`, `curve/*/300/1e-6`
        #[arg(long, value_name = "GLOB", default_value = "*")]
        only: String,
        /// Simulate again what has a result: after a change of the program
        #[arg(long)]
        again: bool,
        /// Say what would be simulated, and do nothing
        #[arg(long)]
        list: bool,
        /// Members of a scenario with an attack, at most
        #[arg(long, default_value_t = 1_000_000)]
        members: u64,
        /// Members where there are members alone, at most
        #[arg(long, default_value_t = 200_000)]
        quiet_members: u64,
        /// Members of the runs behind the exposure curves
        #[arg(long, default_value_t = 400_000)]
        curve_members: u64,
        /// Seeds of the fourteen days
        #[arg(long, default_value_t = 20)]
        seeds: u64,
        /// Seeds of the other scenarios without an attack
        #[arg(long, default_value_t = 3)]
        twin_seeds: u64,
    },
    /// Writes the tables
    Write {
        /// The document
        #[arg(long, value_name = "FILE")]
        document: Option<PathBuf>,
        /// Take also results of other rules or other scenarios than those that stand here now
        #[arg(long)]
        old: bool,
    },
}

fn main() -> ExitCode {
    match go(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tables: {error}");
            ExitCode::from(2)
        }
    }
}

/// A path of this crate.
fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn go(args: &Args) -> Result<(), Failed> {
    let folder = match &args.results {
        Some(folder) => folder.clone(),
        // target/PROFILE/tables
        None => std::env::current_exe()?.parent().and_then(Path::parent).ok_or("no target folder")?.join("tables"),
    };
    let scenarios = jobs::scenarios(&own("scenarios"))?;
    match &args.command {
        Command::Run { jobs, only, again, list, members, quiet_members, curve_members, seeds, twin_seeds } => {
            let sizes = Sizes {
                members: *members,
                quiet_members: *quiet_members,
                curve_members: *curve_members,
                seeds: *seeds,
                twin_seeds: *twin_seeds,
            };
            let mut all = jobs::jobs(&scenarios, &sizes, jobs::rules(&own("scenarios"))?);
            all.retain(|job| jobs::fits(only, &job.name));
            if all.is_empty() {
                return Err(format!("nothing is called {only}. `tables run --list` names all").into());
            }
            if !again {
                all.retain(|job| !run::done(&folder, job));
            }
            if *list {
                for Job { name, inputs } in &all {
                    println!("{name} members {}", inputs.members);
                }
                return Ok(());
            }
            run::all(&folder, &all, usize::from(*jobs))
        }
        Command::Write { document, old } => {
            let rules = jobs::rules(&own("scenarios"))?;
            let mut results = run::results(&folder)?;
            results.retain(|name, kept| {
                let current = kept.inputs.is_of(name, &scenarios, rules);
                if !current {
                    eprintln!("tables: {name}: the result of other rules, or of another scenario");
                }
                current || *old
            });
            let results: Results =
                results.into_iter().map(|(name, kept)| (name, (kept.inputs.members, kept.line))).collect();
            println!("{} results in {}", results.len(), folder.display());
            let made = render::tables(&scenarios, &results)?;
            let path = document.clone().unwrap_or_else(|| own("../docs/detection.md"));
            let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            let text = render::placed(&text, &made).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok(fs::write(path, text)?)
        }
    }
}

/// Results by the names of their jobs: members simulated, and the line.
pub type Results = BTreeMap<String, (u64, Line)>;
