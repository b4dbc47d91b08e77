//! `cargo xtask bench kernel`: what each class of packets costs. `cargo xtask bench memory`: what a million connections do.
//!
//! Builds the bench's BPF object and the program in `benches/` that loads and times it, and takes that one's exit code.
//! With `--against` the object of another revision ([`other`]) is timed in the same run.

mod other;

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use bpf_build::{Messages, Object, Toolchain};

use crate::process::{cannot_start, cargo, path_with_tools, run_shown};
use crate::{Failure, Outcome, build};

/// What to measure.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Nanoseconds per packet class, by `BPF_PROG_TEST_RUN` and in situ (needs root; see docs/benchmarks.md)
    Kernel(Kernel),
    /// A million connections at once, a tenth with a cut head, against the configured bounds (needs root)
    Memory(Memory),
}

#[derive(clap::Args)]
struct Memory {
    /// Connections that are open at once [default: 1,000,000, with room for 1,048,576 flows and 131,072 cut heads]
    #[arg(long, value_name = "N")]
    connections: Option<u32>,
    /// The bound `flows`
    #[arg(long, value_name = "N")]
    flows: Option<u32>,
    /// The bound `split_heads`
    #[arg(long, value_name = "N")]
    split_heads: Option<u32>,
}

#[derive(clap::Args)]
struct Kernel {
    /// One JSON object instead of the table
    #[arg(long)]
    json: bool,
    /// Most runs of one call [default: 100,000, fewer where runs emit records]
    #[arg(long, value_name = "N")]
    repeat: Option<u32>,
    /// Calls of each class, of which the least and the middle figure are shown [default: 15]
    #[arg(long, value_name = "N")]
    calls: Option<u32>,
    /// Only classes with this in their name
    #[arg(long, value_name = "TEXT")]
    class: Option<String>,
    /// Leave the part in situ out
    #[arg(long)]
    no_situ: bool,
    /// Compare with this revision (or this object) in one run, class by class; no part in situ, no limits
    #[arg(long, value_name = "REVISION|FILE")]
    against: Option<String>,
    /// Exit with 1 when a class is over its limit, or slower than --against by more than 5 %
    #[arg(long)]
    check: bool,
}

/// Runs the command.
pub fn run(root: &Path, args: &Args) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::Missing(
            "the bench loads BPF programs and makes network namespaces: run this command as root.".to_owned(),
        ));
    }
    match &args.what {
        What::Kernel(kernel) => time(root, kernel),
        What::Memory(bounds) => memory(root, bounds),
    }
}

/// Builds the daemon's object, and the program that embeds it and fills its maps.
fn memory(root: &Path, bounds: &Memory) -> Outcome {
    build::object(root, Messages::Shown)?;
    run_shown(cargo(root).args(["build", "--quiet", "--release", "--package", "benches", "--bin", "bench-memory"]))?;
    let mut command = Command::new(bpf_build::target_dir(root).join("release").join("bench-memory"));
    let numbers =
        [("--connections", bounds.connections), ("--flows", bounds.flows), ("--split-heads", bounds.split_heads)];
    for (flag, number) in numbers {
        if let Some(number) = number {
            command.arg(flag).arg(number.to_string());
        }
    }
    finished(&mut command, "a bound is exceeded")
}

/// Takes a bench's exit code: 1 means that a figure is over its limit.
fn finished(command: &mut Command, over: &str) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(Failure::Failed(over.to_owned())),
        _ => Err(Failure::Reported),
    }
}

fn time(root: &Path, kernel: &Kernel) -> Outcome {
    let toolchain = Toolchain::find(root)
        .map_err(|missing| Failure::Missing(format!("{missing}. `cargo xtask setup` installs it.")))?;
    let object = bpf_build::build_object(root, &toolchain, Messages::Shown, Object::Bench)
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let other = kernel.against.as_deref().map(|what| other::object(root, &toolchain, what)).transpose()?;
    // Not optimised: what is timed runs in the kernel.
    run_shown(cargo(root).args(["build", "--quiet", "--package", "benches", "--bin", "bench-kernel"]))?;
    let mut command = Command::new(bpf_build::target_dir(root).join("debug").join("bench-kernel"));
    command.env("PATH", path_with_tools(root)).arg("--object").arg(object).args(kernel.arguments());
    if let Some(other) = other {
        command.arg("--against").arg(other);
    }
    finished(&mut command, "a class is over its limit, or slower than before")
}

impl Kernel {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        for (given, flag) in [(self.json, "--json"), (self.no_situ, "--no-situ"), (self.check, "--check")] {
            if given {
                arguments.push(flag.into());
            }
        }
        let numbers = [("--repeat", self.repeat), ("--calls", self.calls)];
        for (flag, number) in numbers {
            if let Some(number) = number {
                arguments.extend([flag.into(), number.to_string().into()]);
            }
        }
        if let Some(class) = &self.class {
            arguments.extend(["--class".into(), class.into()]);
        }
        arguments
    }
}
