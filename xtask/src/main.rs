//! authsensor's developer commands. See `cargo xtask help`.
//!
//! Each command is a module; [`process`] starts other programs for all of them, and `bpf-build` (shared with
//! `sensor`'s build script) knows how the BPF object is made. Exit codes: 0 done, 1 something failed, 2 something
//! is missing or was asked for wrongly.

mod bench;
mod build;
mod fuzz;
mod lab;
mod process;
mod run;
mod setup;
mod test;
mod vm;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "authsensor's developer commands")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what this machine lacks to build, test and try authsensor
    Setup(setup::Args),
    /// Build the BPF object and the daemon
    Build(build::Args),
    /// Set up, build and start the daemon on this machine
    Run(run::Args),
    /// Run every test; the last line counts them
    Test(test::Args),
    /// Fuzz what takes bytes from outside, and say what was found
    Fuzz(fuzz::Args),
    /// Measure what packets cost in the kernel
    Bench(bench::Args),
    /// Show the attack of 2025 on this machine, and the sensor catching it
    Lab(lab::LabArgs),
    /// The origin behind the lab's nginx
    #[command(hide = true)]
    LabOrigin(lab::OriginArgs),
    /// Run the kernel tests on other kernels, in qemu
    Vm(vm::Args),
}

/// What a command ends with when it cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Something that was tried did not work: exit code 1.
    #[error("{0}")]
    Failed(String),
    /// Something is missing on this machine, or the request makes no sense: exit code 2.
    #[error("{0}")]
    Missing(String),
    /// Something failed, and the output already says what: exit code 1, nothing more is printed.
    #[error("failed")]
    Reported,
}

/// What every command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

fn main() -> ExitCode {
    if vm::init::is_guest() {
        vm::init::main();
    }
    let root = root();
    let outcome = match Cli::parse().task {
        Task::Setup(args) => setup::run(&root, args),
        Task::Build(args) => build::run(&root, &args),
        Task::Run(args) => run::run(&root, args),
        Task::Test(args) => test::run(&root, &args),
        Task::Fuzz(args) => fuzz::run(&root, &args),
        Task::Bench(args) => bench::run(&root, &args),
        Task::Lab(args) => {
            return lab::run(&args, &root, || build::daemon(&root, true).map_err(|error| error.to_string()));
        }
        Task::LabOrigin(args) => return lab::run_origin(&args),
        Task::Vm(args) => vm::run(&root, &args),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(failure, Failure::Reported) {
                eprintln!("xtask: {failure}");
            }
            ExitCode::from(if matches!(failure, Failure::Missing(_)) { 2 } else { 1 })
        }
    }
}

/// The workspace: the directory above this crate's.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
