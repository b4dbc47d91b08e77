//! `cargo xtask lab`: the attack of 2025 on one machine, with a real nginx, and the sensor watching.
//!
//! Owns the order of events: namespaces ([`world`]), origin and nginx ([`gateway`], [`origin`]), the daemon
//! ([`sensor`]), members ([`members`]) and attacker ([`attack`]); then what nginx logged, what the sensor counted and
//! what it holds in memory flow into the [`verdict`]. Three phases, each with a sensor that knows nothing yet: members
//! only, a rehearsal with 20 forged tokens, and the attack amid members' traffic.

mod attack;
mod canary;
mod client;
mod error;
mod gateway;
mod http;
mod interrupt;
mod members;
mod metrics;
mod origin;
mod phase;
mod process;
mod sensor;
mod store;
mod tally;
mod token;
mod verdict;
mod world;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use error::{LabError, Result};
pub use origin::OriginArgs;
use phase::{Forgery, Lab, Phase};
use token::Key;
use world::World;

/// Arguments of `cargo xtask lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {
    /// Play only this phase.
    #[arg(long, value_enum)]
    only: Option<Only>,
    /// The daemon to watch with; without it target/release/authsensor is built first.
    #[arg(long)]
    sensor: Option<PathBuf>,
    /// Seed of the members' scripts.
    #[arg(long, default_value_t = 2025)]
    seed: u64,
    /// Keep the temporary folder (configuration, logs, findings, metrics).
    #[arg(long)]
    keep: bool,
}

/// A phase by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Only {
    /// Members' traffic; nothing may be flagged.
    Members,
    /// 20 forged tokens from 3 addresses.
    Rehearsal,
    /// Hundreds of forged tokens from 300 addresses, amid members' traffic.
    Attack,
}

/// Plays the lab. `root` is the workspace; `build` builds the release daemon and returns its path.
///
/// Exit codes: 0 all held; 1 the sensor failed a check; 2 the lab could not be played; 130 interrupted.
pub fn run(args: &LabArgs, root: &Path, build: impl FnOnce() -> std::result::Result<PathBuf, String>) -> ExitCode {
    // Before the signals are taken over, so that Ctrl-C still ends a build.
    let sensor = match args.sensor.clone().map_or_else(build, Ok) {
        Ok(sensor) => sensor,
        Err(message) => {
            eprintln!("lab: {message}");
            return ExitCode::from(2);
        }
    };
    match play(args, root, sensor) {
        Ok(failed) if failed.is_empty() => {
            println!("\nThe lab held in every check.");
            ExitCode::SUCCESS
        }
        Ok(failed) => {
            println!("\nThe lab FAILED:");
            for text in failed {
                println!("  {text}");
            }
            ExitCode::FAILURE
        }
        Err(LabError::Interrupted) => ExitCode::from(130),
        Err(error) => {
            eprintln!("lab: {error}");
            ExitCode::from(2)
        }
    }
}

/// The hidden command that is the origin behind nginx.
pub fn run_origin(args: &OriginArgs) -> ExitCode {
    match origin::serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("origin: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns what failed.
fn play(args: &LabArgs, root: &Path, sensor: PathBuf) -> Result<Vec<String>> {
    if !nix::unistd::geteuid().is_root() {
        return Err(LabError::NotRoot);
    }
    if process::run("ip", &["-V"]).is_err() {
        return Err(LabError::Missing("ip", "iproute2"));
    }
    interrupt::install()?;
    let lab = Lab {
        world: World::build(args.keep)?,
        sensor: std::path::absolute(&sensor).unwrap_or(sensor),
        rules: root.join("rules/detection"),
        key: error::Doing::doing(Key::random(), "reading random bytes")?,
        seed: args.seed,
        began: Instant::now(),
    };
    lab.say("two network namespaces, a veth pair between them; nginx as the gateway, a storefront behind it");
    let mut failed = Vec::new();
    for (only, phase) in phases() {
        if args.only.is_none_or(|wanted| wanted == only) {
            let name = phase.name;
            failed.extend(lab.play(&phase)?.into_iter().map(|text| format!("{name}: {text}")));
        }
    }
    Ok(failed)
}

fn phases() -> [(Only, Phase); 3] {
    let members: Vec<u64> = store::existing().collect();
    let some = |from: usize, count: usize| members.iter().copied().skip(from).take(count).collect::<Vec<_>>();
    let quiet = Phase {
        name: "members",
        title: "members only: nothing may be flagged",
        before: some(0, 300),
        during: Vec::new(),
        pause: Duration::from_millis(60),
        forgery: None,
    };
    let rehearsal = Phase {
        name: "rehearsal",
        title: "the rehearsal: 20 forged tokens from 3 addresses",
        before: some(300, 60),
        during: some(360, 40),
        pause: Duration::from_millis(60),
        forgery: Some(Forgery { targets: some(0, 20), sources: 3, interval: Duration::from_millis(150), most: 20 }),
    };
    let attack = Phase {
        name: "attack",
        title: "the attack: a forged token per member number, from 300 addresses",
        before: some(100, 120),
        during: some(220, 300),
        // Slow enough that members are about until the attack ends.
        pause: Duration::from_millis(160),
        forgery: Some(Forgery {
            targets: (store::FIRST..store::FIRST + 540).collect(),
            sources: 300,
            interval: Duration::from_millis(28),
            most: 24,
        }),
    };
    [(Only::Members, quiet), (Only::Rehearsal, rehearsal), (Only::Attack, attack)]
}
