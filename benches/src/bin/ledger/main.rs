//! The ledger at sixty million issuances: memory, speed, start-up time.
//!
//! Each part runs in a process of its own, so that its memory is its own: `memory` fills a ledger through the front that
//! the collector uses and asks it; `fill` writes a folder; `open` starts on that folder, under a limit of 512 MiB where
//! control groups allow it, and goes on issuing and judging. What is printed is measured, but for the limit.

mod group;
mod parts;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use clap::Parser;

/// Measures the ledger.
#[derive(Parser)]
struct Arguments {
    /// Issuances
    #[arg(long, default_value_t = 60_000_000)]
    issuances: u64,
    /// Where the ledger's folder is made, and left [default: a temporary one]
    #[arg(long)]
    folder: Option<PathBuf>,
    /// The memory limit of the process that has the ledger open, MiB
    #[arg(long, default_value_t = 512)]
    limit: u64,
    /// One part only: memory, fill or open
    #[arg(long)]
    part: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match (&arguments.part, &arguments.folder) {
        (Some(part), Some(folder)) => parts::run(part, folder, arguments.issuances, arguments.limit),
        _ => all(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-ledger: {error}");
            ExitCode::FAILURE
        }
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn all(arguments: &Arguments) -> Outcome {
    let given = arguments.folder.clone();
    let folder = given.clone().unwrap_or_else(|| std::env::temp_dir().join(format!("ledger.{}", std::process::id())));
    std::fs::create_dir_all(&folder)?;
    let outcome = ["memory", "fill", "open"].into_iter().try_for_each(|part| alone(part, &folder, arguments));
    if given.is_none() {
        std::fs::remove_dir_all(&folder)?;
    }
    outcome
}

fn alone(part: &str, folder: &Path, arguments: &Arguments) -> Outcome {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--part").arg(part).arg("--folder").arg(folder);
    command.arg("--issuances").arg(arguments.issuances.to_string());
    command.arg("--limit").arg(arguments.limit.to_string());
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("part {part} ended with {status}").into()) }
}
