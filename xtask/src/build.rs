//! `cargo xtask build`: the BPF object, then the daemon that embeds it.

use std::env;
use std::path::{Path, PathBuf};

use bpf_build::{Messages, OBJECT_ENV, Toolchain};

use crate::process::{cargo, run_shown};
use crate::{Failure, Outcome};

/// What to build.
#[derive(clap::Args)]
pub struct Args {
    /// Optimised, as it is shipped
    #[arg(long)]
    release: bool,
    /// Fail if the compiler warns about the BPF programs
    #[arg(long)]
    deny_warnings: bool,
}

/// Runs the command.
pub fn run(root: &Path, args: &Args) -> Outcome {
    if args.deny_warnings {
        object(root, Messages::ShownStrict)?;
    }
    let daemon = daemon(root, args.release)?;
    println!("{}", daemon.display());
    Ok(())
}

/// Builds the object with the compiler's messages shown.
pub fn object(root: &Path, messages: Messages) -> Outcome<PathBuf> {
    let toolchain = Toolchain::find(root)
        .map_err(|missing| Failure::Missing(format!("{missing}. `cargo xtask setup` installs it.")))?;
    bpf_build::build(root, &toolchain, messages).map_err(|error| Failure::Failed(error.to_string()))
}

/// Builds the object and the daemon; returns the path of the latter. (The daemon's build script would build the
/// object as well, but shows messages only when it fails.) A ready or stubbed object is taken as it is.
pub fn daemon(root: &Path, release: bool) -> Outcome<PathBuf> {
    if env::var_os(OBJECT_ENV).is_none() {
        object(root, Messages::Shown)?;
    }
    let mut command = cargo(root);
    command.args(["build", "--package", "sensor", "--bin", "authsensor"]);
    if release {
        command.arg("--release");
    }
    run_shown(&mut command)?;
    Ok(bpf_build::target_dir(root).join(if release { "release" } else { "debug" }).join("authsensor"))
}
