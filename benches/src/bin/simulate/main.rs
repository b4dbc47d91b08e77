//! A service of millions of members at its real rates and hours, an attack in it, and the sensor behind capture: when it
//! speaks, what was exposed by then, and what it said that was not so. One line of JSON.
//!
//! Everything follows from the scenario and its seed. The simulator knows nothing of the rules.

#![expect(clippy::print_stdout, reason = "the line is what this program is for")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::cast_possible_wrap,
    reason = "rates and times of a simulation: nothing here comes from outside but the scenario, whose numbers are bounded"
)]

mod attack;
mod feed;
mod others;
mod outlet;
mod rng;
mod scenario;
mod sim;
#[cfg(test)]
mod tests;
mod token;
mod truth;
mod visit;
mod watch;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use benches::baseline::judge::Row;
use clap::Parser;
use serde::Serialize;

use feed::{Failed, Findings, PipelineFeed, Sensor, TraceFeed};
use scenario::Plan;
use sim::Sim;
use token::Mint;
use truth::{Report, Truth};
use watch::Watch;

/// Simulates a service and an attack, and says what the sensor makes of it
#[derive(Parser)]
#[command(name = "simulate")]
struct Args {
    /// The scenario
    scenario: PathBuf,
    /// Write the traffic to this file, a transaction a line, instead of judging it
    #[arg(long, value_name = "FILE")]
    emit_trace: Option<PathBuf>,
    /// Another seed than the scenario's
    #[arg(long)]
    seed: Option<u64>,
    /// Another number of members than the scenario's; the rest of it stays as it is
    #[arg(long, value_name = "N")]
    members: Option<u64>,
    /// Other rules than the configuration's: a file or a folder
    #[arg(long, value_name = "DIR")]
    rules: Option<PathBuf>,
    /// Another configuration than scenarios/config/storefront.toml; its service must be the simulated one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show the traffic to the detectors that people use today, too
    #[arg(long)]
    baselines: bool,
}

/// What is printed.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    report: Report<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    baselines: Option<Vec<Row>>,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("simulate: {error}");
            ExitCode::from(2)
        }
    }
}

/// The configuration of the simulated service.
fn shipped() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios/config/storefront.toml")
}

fn run(args: &Args) -> Result<(), Failed> {
    let text = fs::read_to_string(&args.scenario)
        .map_err(|error| format!("cannot read the scenario {}: {error}", args.scenario.display()))?;
    let mut plan = Plan::read(&args.scenario, &text)?;
    plan.members.seed = args.seed.unwrap_or(plan.members.seed);
    plan.members.members = args.members.unwrap_or(plan.members.members);
    let sensor = Sensor::read(&args.config.clone().unwrap_or_else(shipped), args.rules.as_deref())?;
    let mint = Mint::new(sensor.keys.fingerprint, plan.members.clock_skew_ms);
    let truth = Truth::new(sensor.keys.account);
    let findings = Findings::default();
    if let Some(path) = &args.emit_trace {
        return Sim::new(&plan, TraceFeed::new(path)?, mint, truth, findings).run();
    }
    let name = args.scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let started = Instant::now();
    let feed = PipelineFeed::new(&sensor, &findings)?;
    let mut sim = Sim::new(&plan, feed, mint, truth, findings);
    if args.baselines {
        sim.out.feed.watch = Some(Watch::new(&sensor.config, sim.truth.began_ns));
    }
    sim.run()?;
    let observations = sim.out.feed.pipeline().counts().observations;
    let report = sim.truth.report(&name, plan.members.seed, observations, plan.members.days, started);
    let baselines = sim.out.feed.watch.as_ref().map(|watch| watch.rows(&name));
    println!("{}", serde_json::to_string(&Line { report, baselines })?);
    Ok(())
}
