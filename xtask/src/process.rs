//! Starting other programs: how their failures are told, and with which environment cargo runs.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpf_build::tools_dir;

use crate::{Failure, Outcome};

/// The cargo that runs this xtask, in the workspace. It finds the tools that setup installed; what `cargo run` set
/// for xtask itself must not reach it.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_")) {
            command.env_remove(&name);
        }
    }
    command.current_dir(root).env("PATH", path_with_tools(root));
    command
}

/// The same for a nightly Rust: rustup's, or the cargo that runs this xtask if it is one.
pub fn nightly(root: &Path) -> Option<Command> {
    let with = |mut command: Command| command.arg("--version").output().ok().filter(|output| output.status.success());
    let rustup = || {
        let mut command = Command::new("rustup");
        command.args(["run", "nightly", "cargo"]);
        command
    };
    if with(rustup()).is_some() {
        let mut command = rustup();
        command.current_dir(root).env("PATH", path_with_tools(root)).env_remove("CARGO");
        return Some(command);
    }
    let own = with(cargo(root))?;
    String::from_utf8_lossy(&own.stdout).contains("nightly").then(|| cargo(root))
}

/// PATH with `target/tools/bin` in front, and with sbin, where daemons stand, at its end.
pub fn path_with_tools(root: &Path) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let places = std::iter::once(tools_dir(root).join("bin")).chain(search_path());
    // Joining fails only if a directory has a colon in its name: PATH cannot hold it.
    env::join_paths(places).unwrap_or(path)
}

fn search_path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = env::split_paths(&path).collect();
    for place in ["/usr/sbin", "/sbin"].map(PathBuf::from) {
        if !places.contains(&place) {
            places.push(place);
        }
    }
    places
}

/// Runs a command whose output goes to the terminal.
pub fn run_shown(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::Failed(format!("`{}` failed ({status})", line(command)))) }
}

/// The failure to tell when a program does not start.
pub fn cannot_start(command: &Command, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("cannot start {}: {error}", command.get_program().to_string_lossy()))
}

/// What a command prints on standard output, or `None` when it cannot be started or fails.
pub fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Where a program is on PATH or in sbin.
pub fn which(program: &str) -> Option<PathBuf> {
    search_path().into_iter().map(|place| place.join(program)).find(|file| file.is_file())
}

/// Where a program is among the tools that setup installed, or on PATH.
pub fn tool(root: &Path, program: &str) -> Option<PathBuf> {
    let installed = tools_dir(root).join("bin").join(program);
    if installed.is_file() { Some(installed) } else { which(program) }
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
