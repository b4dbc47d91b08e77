//! Starting other programs: how their failures are told, and with which environment cargo runs.

use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Failure, Outcome};

/// The cargo that runs this xtask, in the workspace. What `cargo run` set for xtask itself must not reach it.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(&name);
        }
    }
    command.current_dir(root);
    command
}

/// Runs a command whose output goes to the terminal.
pub fn run_shown(command: &mut Command) -> Outcome {
    let name = name(command);
    let status = command.status().map_err(|error| Failure::Failed(format!("cannot start {name}: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("{} failed ({status})", line(command)))) }
}

/// What a command prints on standard output, or `None` when it cannot be started or fails.
pub fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is on PATH.
pub fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // Daemons stand in sbin, which is not on everybody's PATH.
    let sbin = ["/usr/sbin", "/sbin"].iter().map(std::path::PathBuf::from);
    env::split_paths(&path).chain(sbin).map(|place| place.join(program)).find(|file| file.is_file())
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
