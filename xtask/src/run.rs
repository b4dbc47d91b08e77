//! `cargo xtask run`: from a fresh checkout to a daemon that watches this machine.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::cannot_start;
use crate::{Outcome, build, setup};

/// How to run the daemon.
#[derive(clap::Args)]
pub struct Args {
    /// The interface to watch [default: the daemon takes that of the default route]
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// The configuration [default: authsensor.toml of the workspace]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// More arguments for `authsensor run`
    #[arg(last = true)]
    rest: Vec<OsString>,
}

/// Runs the command. The daemon takes this process's place, so that Ctrl-C and signals reach it directly.
pub fn run(root: &Path, args: Args) -> Outcome {
    setup::ensure(root, setup::Args::default())?;
    let daemon = build::daemon(root, true)?;
    let mut command = Command::new(daemon);
    command.arg("run").arg("--config").arg(args.config.unwrap_or_else(|| root.join("authsensor.toml")));
    if let Some(interface) = args.interface {
        command.arg("--interface").arg(interface);
    }
    let error = command.args(args.rest).exec();
    Err(cannot_start(&command, &error))
}
