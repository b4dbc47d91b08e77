//! `cargo xtask setup`: finds out what this machine lacks and installs only that.
//!
//! [`needs`] says what is missing and what would remedy it; here the remedies are applied, apt's in one go, until
//! nothing is missing. Besides apt packages everything goes below `target/tools`. A second run changes nothing and
//! takes a fraction of a second.

pub mod apt;
mod needs;

use std::fs;
use std::path::Path;
use std::process::Command;

use bpf_build::{Toolchain, tools_dir};

use crate::process::{cargo, line, run_shown};
use crate::{Failure, Outcome};
use apt::Apt;
use needs::{CargoTool, Need, Remedy};

/// What to set up beyond the BPF toolchain.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub struct Args {
    /// Only say what is missing; exit code 2 if anything is
    #[arg(long)]
    pub check: bool,
    /// Also what the tests and the lab need (nginx, Apache, haproxy, curl, wrk, promtool, …)
    #[arg(long)]
    pub tests: bool,
    /// Also what `.ci/run` needs: --tests and cargo-deny
    #[arg(long)]
    pub ci: bool,
    /// Also what `cargo xtask vm` needs: qemu, and the tools that tests use in the guest
    #[arg(long)]
    pub vm: bool,
    /// Also what `cargo xtask fuzz` needs: cargo-fuzz and a C++ compiler
    #[arg(long)]
    pub fuzz: bool,
}

/// What `cargo xtask test` sets up.
pub const TESTS: Args = Args { check: false, tests: true, ci: false, vm: false, fuzz: false };

/// What `cargo xtask vm` sets up.
pub const VM: Args = Args { check: false, tests: false, ci: false, vm: true, fuzz: false };

/// What `cargo xtask fuzz` sets up.
pub const FUZZ: Args = Args { check: false, tests: false, ci: false, vm: false, fuzz: true };

/// One remedy can bring the next need to light (a compiler says which linker it wants); each chain is shorter.
const ROUNDS: usize = 5;

/// Runs the command: prints what will be built with, or what was done.
pub fn run(root: &Path, args: Args) -> Outcome {
    ensure(root, args)?;
    if let Ok(toolchain) = Toolchain::find(root) {
        println!("BPF toolchain: {toolchain}");
    }
    println!("Everything is in place.");
    Ok(())
}

/// Installs what is missing, silently when nothing is.
pub fn ensure(root: &Path, args: Args) -> Outcome {
    let mut apt = Apt::new(!args.check);
    let mut tried: Vec<String> = Vec::new();
    for _ in 0..ROUNDS {
        let missing = needs::survey(root, args, &mut apt);
        if missing.is_empty() {
            return Ok(());
        }
        let possible = missing.iter().all(|need| can_apply(&need.remedy, &apt) && !tried.contains(&need.key()));
        if args.check || !possible {
            return Err(Failure::Missing(explain(&missing, &apt, &tried)));
        }
        tried.extend(apply(root, &missing, &mut apt)?);
    }
    Err(Failure::Missing("setup did not come to an end; please report this".to_owned()))
}

fn can_apply(remedy: &Remedy, apt: &Apt) -> bool {
    match remedy {
        Remedy::Packages(_) => apt.can_install(),
        Remedy::FromPackage { .. } => apt.is_there(),
        Remedy::Cargo(_) => true,
        Remedy::Advice(_) => false,
    }
}

/// Applies apt's remedies together, or, if there are none, the others. Returns what was remedied.
fn apply(root: &Path, missing: &[Need], apt: &mut Apt) -> Outcome<Vec<String>> {
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.remedy.packages()).collect();
    if !packages.is_empty() {
        apt.install(&packages)?;
        return Ok(missing.iter().filter(|need| !need.remedy.packages().is_empty()).map(Need::key).collect());
    }
    for need in missing {
        match &need.remedy {
            Remedy::FromPackage { package, file } => apt.extract(root, package, file)?,
            Remedy::Cargo(tool) => install(root, tool)?,
            Remedy::Packages(_) | Remedy::Advice(_) => {}
        }
    }
    Ok(missing.iter().map(Need::key).collect())
}

/// `cargo install` below `target/tools`; its intermediate files go away afterwards.
fn install(root: &Path, tool: &CargoTool) -> Outcome {
    let scratch = tools_dir(root).join("build");
    let mut command = cargo(root);
    command.args(["install", tool.name, "--version", tool.version, "--locked", "--quiet"]);
    command.args(&tool.arguments).envs(tool.environment.iter().map(|(name, value)| (*name, value)));
    command.arg("--root").arg(tools_dir(root)).arg("--target-dir").arg(&scratch);
    println!("Building {} {} ({}) …", tool.name, tool.version, tool.duration);
    let outcome = run_shown(&mut command);
    let _ = fs::remove_dir_all(&scratch);
    outcome
}

/// One paragraph: what is missing, and what a person has to do about it.
fn explain(missing: &[Need], apt: &Apt, tried: &[String]) -> String {
    let names = missing.iter().map(|need| need.what.as_str()).collect::<Vec<_>>().join("; ");
    let mut sentences = vec![format!("missing on this machine: {names}.")];
    if let Some(again) = missing.iter().find(|need| tried.contains(&need.key())) {
        sentences.push(format!("What setup did about \"{}\" did not help.", again.what));
    }
    let packages: Vec<&str> = missing.iter().flat_map(|need| need.remedy.packages()).collect();
    if !packages.is_empty() {
        let command = format!("apt-get install --no-install-recommends {}", packages.join(" "));
        sentences.push(if apt.can_install() {
            format!("`cargo xtask setup` runs `{command}`.")
        } else if apt.is_there() {
            format!("As root `cargo xtask setup` installs it; or run `sudo {command}`.")
        } else {
            format!("On Debian or Ubuntu that is `{command}`; install the same with this system's package manager.")
        });
    }
    sentences.extend(missing.iter().filter_map(|need| match &need.remedy {
        Remedy::Packages(_) => None,
        Remedy::Advice(advice) => Some(advice.clone()),
        Remedy::Cargo(tool) => Some(format!("`cargo xtask setup` builds {}.", tool.name)),
        Remedy::FromPackage { package, file } => Some(format!(
            "`cargo xtask setup` takes {file} out of Debian's package {package}; elsewhere put it on PATH."
        )),
    }));
    sentences.join(" ")
}

/// Shows the command, runs it, and names it when it fails.
fn announced(command: &mut Command) -> Outcome {
    println!("+ {}", line(command));
    run_shown(command)
}
