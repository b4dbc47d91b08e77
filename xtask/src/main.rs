//! Developer commands. See `cargo xtask help`.

mod lab;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask")]
enum Command {
    /// Show the attack of 2025 on this machine, and the sensor catching it
    Lab(lab::LabArgs),
    /// The origin behind the lab's nginx
    #[command(hide = true)]
    LabOrigin(lab::OriginArgs),
}

fn main() -> ExitCode {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.parent().unwrap_or(here);
    match Command::parse() {
        Command::Lab(args) => lab::run(&args, root, || build(root)),
        Command::LabOrigin(args) => lab::run_origin(&args),
    }
}

fn build(root: &Path) -> Result<PathBuf, String> {
    let mut command = std::process::Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = command.current_dir(root).args(["build", "--release", "--package", "sensor"]).status();
    match status {
        Ok(status) if status.success() => Ok(root.join("target/release/authsensor")),
        Ok(status) => Err(format!("cargo build: {status}")),
        Err(error) => Err(format!("cargo build: {error}")),
    }
}
