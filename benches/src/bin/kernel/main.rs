//! What `cargo xtask bench kernel` starts: nanoseconds per packet class, by `BPF_PROG_TEST_RUN` and in situ.
//!
//! Takes the bench's object (`authsensor-bench`, made from the same sources as the shipped one), loads it with the
//! daemon's own loader and the example configuration, and prints a table, or one JSON object with `--json`. With
//! `--against` another revision's object is timed in the same run ([`paired`]).

#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

mod classes;
mod paired;
mod report;
mod run;
mod situ;
mod totals;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use sensor::capture::kernel::{Kernel, KernelError};
use sensor::capture::tables::Tables;
use sensor::config;
use sensor::config::model::Bounds;
use sensor_ebpf::siphash::Key;

use classes::LOCAL;
use run::{Figure, Runner};

#[derive(Parser)]
struct Args {
    /// The bench's BPF object
    #[arg(long)]
    object: PathBuf,
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Most runs of one call
    #[arg(long, value_name = "N")]
    repeat: Option<u32>,
    /// Calls of each class
    #[arg(long, value_name = "N", default_value_t = 15)]
    calls: u32,
    /// Only classes with this in their name
    #[arg(long, value_name = "TEXT", default_value = "")]
    class: String,
    /// Leave the part in situ out
    #[arg(long)]
    no_situ: bool,
    /// The object to compare with; what it counts stands, a label a line, in the file of the same name with `.counters`
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Fail when a limit is exceeded
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-kernel: {error}");
            ExitCode::from(2)
        }
    }
}

/// True if all is within limits, or nobody asked.
fn bench(args: &Args) -> Result<bool, Box<dyn Error>> {
    let runner = load(&args.object, Kernel::load)?;
    if let Some(against) = &args.against {
        return compare(args, runner, load(against, Kernel::load_foreign)?);
    }
    let mut runners = [runner];
    let mut figures = measure(&mut runners, args)?;
    let [mut runner] = runners;
    let disturbed = runner.disturbed();
    let (mut kernel, events, bytes) = runner.into_kernel();
    let verified = kernel.verified()?;
    let situ = if args.no_situ { Vec::new() } else { situ::measure(kernel, events, bytes)? };
    let figures = figures.pop().unwrap_or_default();
    let report = report::Report { figures: &figures, situ: &situ, verified: &verified, disturbed };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(!args.check || report.within_limits())
}

/// Both objects in one run.
fn compare(args: &Args, new: Runner, mut old: Runner) -> Result<bool, Box<dyn Error>> {
    let against = args.against.as_deref().unwrap_or_else(|| Path::new(""));
    let labels = std::fs::read_to_string(against.with_extension("counters")).ok();
    let checked = old.counts_as(labels.as_deref());
    let mut runners = [new, old];
    let figures = measure(&mut runners, args)?;
    let [mut new, mut old] = runners;
    let disturbed = new.disturbed();
    let pairs = paired::pairs(figures);
    let verified = [new.verified()?, old.verified()?];
    let report = paired::Report { pairs: &pairs, verified: &verified, disturbed, checked };
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.table());
    }
    Ok(!args.check || report.no_worse())
}

/// Times every class on one CPU, so that no figure has a migration in it. In situ the threads may go where they like.
fn measure(runners: &mut [Runner], args: &Args) -> Result<Vec<Vec<Figure>>, Box<dyn Error>> {
    let everywhere = nix::sched::sched_getaffinity(Pid::from_raw(0))?;
    let mut last = CpuSet::new();
    last.set((0..CpuSet::count()).rev().find(|cpu| everywhere.is_set(*cpu).unwrap_or(false)).unwrap_or(0))?;
    sched_setaffinity(Pid::from_raw(0), &last)?;
    let figures = run::all(runners, args.calls.max(1), args.repeat, &args.class)?;
    sched_setaffinity(Pid::from_raw(0), &everywhere)?;
    Ok(figures)
}

/// How an object is loaded.
type Load = fn(&[u8], &Bounds) -> Result<Kernel, KernelError>;

/// The object with the example configuration, on a ring that takes the records of a whole call.
fn load(object: &Path, load: Load) -> Result<Runner, Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../authsensor.toml");
    let mut config = config::load(&file)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    config.bounds.event_ring_bytes = 64 << 20;
    let bytes = std::fs::read(object).map_err(|error| format!("{}: {error}", object.display()))?;
    let mut kernel = load(&bytes, &config.bounds)?;
    kernel.stop_stats();
    kernel.configure(&Tables::new(&config, Key::from_bytes(b"a key for benches"[..16].try_into()?))?)?;
    kernel.set_local_addresses(&LOCAL)?;
    let (events, bytes) = kernel.rings(&config.bounds)?;
    Runner::new(kernel, events, bytes)
}
