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
mod life;
mod others;
mod outlet;
mod restart;
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
use life::{LifeFeed, Span};
use restart::Kills;
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
    #[arg(long, conflicts_with_all = ["emit_trace", "kill_at", "life"])]
    baselines: bool,
    /// Kill the sensor with SIGKILL on this day (with fractions; may be given several times), start it again, and compare
    /// what it says with a run that is left alone; exit code 1 when they differ by more than the gap
    #[arg(long, value_name = "DAYS")]
    kill_at: Vec<f64>,
    /// How long a killed sensor is down, simulated seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 4.0)]
    down: f64,
    /// Where the ledgers of killed sensors are kept, and stay (else in a temporary folder)
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// One life of a killed sensor: its folder, when it starts and when it kills itself, ns since 1970
    #[arg(long, hide = true)]
    life: Option<PathBuf>,
    #[arg(long, hide = true)]
    from_ns: Option<u64>,
    #[arg(long, hide = true)]
    die_ns: Option<u64>,
}

impl Args {
    /// What another process needs to simulate the same.
    fn simulated(&self, seed: u64, members: u64) -> Vec<String> {
        let mut list = vec![self.scenario.display().to_string()];
        list.extend(["--seed".to_owned(), seed.to_string(), "--members".to_owned(), members.to_string()]);
        for (flag, path) in [("--rules", &self.rules), ("--config", &self.config)] {
            list.extend(path.iter().flat_map(|path| [flag.to_owned(), path.display().to_string()]));
        }
        list
    }
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
        Ok(ok) => ExitCode::from(u8::from(!ok)),
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

fn run(args: &Args) -> Result<bool, Failed> {
    let text = fs::read_to_string(&args.scenario)
        .map_err(|error| format!("cannot read the scenario {}: {error}", args.scenario.display()))?;
    let mut plan = Plan::read(&args.scenario, &text)?;
    plan.members.seed = args.seed.unwrap_or(plan.members.seed);
    plan.members.members = args.members.unwrap_or(plan.members.members);
    let sensor = Sensor::read(&args.config.clone().unwrap_or_else(shipped), args.rules.as_deref())?;
    let sensor = sensor.operated_for(&plan.members);
    let mint = Mint::new(sensor.keys.fingerprint, plan.members.clock_skew_ms);
    let truth = Truth::new(sensor.keys.account);
    let findings = Findings::default();
    if let Some(path) = &args.emit_trace {
        Sim::new(&plan, TraceFeed::new(path)?, mint, truth, findings).run()?;
        return Ok(true);
    }
    let name = args.scenario.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    if let Some(folder) = &args.life {
        let span = Span { folder: folder.clone(), from_ns: args.from_ns, die_ns: args.die_ns };
        let words = live(&plan, &sensor, mint, truth, &span)?.out.feed.words;
        println!("{}", serde_json::to_string(&words)?);
        return Ok(true);
    }
    if !args.kill_at.is_empty() {
        let (folder, _made) = restart::folder(args.keep.as_deref())?;
        let whole = Span { folder: folder.join("whole"), from_ns: None, die_ns: None };
        let lived = live(&plan, &sensor, mint, truth, &whole)?;
        let arguments = args.simulated(plan.members.seed, plan.members.members);
        let kills = Kills { arguments, at: &args.kill_at, down_s: args.down, folder };
        let verdict = restart::run(&kills, &name, plan.members.seed, &lived.truth, &whole, &lived.out.feed.words)?;
        println!("{}", serde_json::to_string(&verdict)?);
        return Ok(verdict.ok);
    }
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
    Ok(true)
}

/// Simulates `plan` in front of a sensor that lives through `span`.
fn live<'p>(
    plan: &'p Plan,
    sensor: &Sensor,
    mint: Mint,
    truth: Truth,
    span: &Span,
) -> Result<Sim<'p, LifeFeed>, Failed> {
    fs::create_dir_all(&span.folder)?;
    let findings = Findings::copied(&span.findings())?;
    let feed = LifeFeed::new(sensor, span, &findings)?;
    let mut sim = Sim::new(plan, feed, mint, truth, findings);
    sim.run()?;
    Ok(sim)
}
