//! `cargo xtask vm`: the BPF object and the kernel tests on other kernels.
//!
//! Debian's kernel images and the modules that the tests need ([`image`], [`modules`]) boot in qemu ([`guest`]) with an
//! initramfs ([`initramfs`]) that holds the daemon, the programs of `sensor/tests/kernel_*` with the tools they start
//! ([`programs`]), and xtask itself. xtask is the guest's first process ([`init`]): it runs `authsensor probe`, which
//! loads every program and attaches none, then the tests, tells the host the results over the serial console, and powers
//! off. All files are below `target/vm`.

mod guest;
mod image;
pub mod init;
mod initramfs;
mod modules;
mod programs;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::{Failure, Outcome, build, setup};

/// Which kernels to try.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel series, such as 6.1 and 6.12: the newest of each that Debian has
    #[arg(required = true, value_name = "VERSION")]
    versions: Vec<String>,
    /// Load the programs and attach none: no tests
    #[arg(long)]
    load_only: bool,
}

/// Runs the command: what the verifier looked at and the tests one by one, then PASS or FAIL for each kernel, with the
/// guest's output (and so the verifier's log) on failure.
pub fn run(root: &Path, args: &Args) -> Outcome {
    if env::consts::ARCH != "x86_64" {
        return Err(Failure::Missing("the kernels that this command boots are for x86-64 only.".to_owned()));
    }
    setup::ensure(root, setup::VM)?;
    let cannot = |error: std::io::Error| Failure::Failed(format!("cannot make the initramfs: {error}"));
    let vm = bpf_build::target_dir(root).join("vm");
    fs::create_dir_all(&vm).map_err(cannot)?;
    let init = env::current_exe().map_err(cannot)?;
    let daemon = build::daemon(root, true)?;
    let (tests, tools) =
        if args.load_only { (Vec::new(), Vec::new()) } else { (programs::tests(root, &vm)?, programs::tools(root)?) };
    let mut failed = Vec::new();
    for version in &args.versions {
        let image = image::kernel(root, &vm, version)?;
        let content =
            initramfs::Content { init: &init, daemon: &daemon, tests: &tests, tools: &tools, modules: &image.modules };
        let initramfs = vm.join("initramfs.cpio");
        fs::write(&initramfs, initramfs::build(&content)?).map_err(cannot)?;
        if !on_kernel(root, version, &image.kernel, &initramfs, &tests)? {
            failed.push(version.as_str());
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("failed on {}", failed.join(", ")))) }
}

/// One kernel; whether all went well there.
fn on_kernel(
    root: &Path,
    version: &str,
    kernel: &Path,
    initramfs: &Path,
    tests: &[(String, PathBuf)],
) -> Outcome<bool> {
    let started = Instant::now();
    let log = initramfs.with_file_name(format!("{version}.log"));
    let report = guest::boot(root, kernel, initramfs, &log, |line| {
        if line.starts_with("loaded: ") || line.starts_with("test ") && !line.starts_with("test result: ") {
            println!("{line}");
        }
    })?;
    let (release, seconds) = (report.release(), started.elapsed().as_secs());
    let names: Vec<String> = tests.iter().map(|(name, _)| name.clone()).collect();
    let counts = report.tests();
    let verdict = report.verdict(&names);
    if verdict.is_err() {
        println!("{}", report.output());
    }
    for skipped in &counts.skipped {
        println!("skipped on {version}: {skipped}");
    }
    let counts = format!("{} passed, {} failed, {} skipped", counts.passed, counts.failed.len(), counts.skipped.len());
    match &verdict {
        Ok(loaded) if tests.is_empty() => println!("PASS {version} ({release}): {loaded} programs loaded, {seconds} s"),
        Ok(loaded) => println!("PASS {version} ({release}): {loaded} programs loaded; {counts}; {seconds} s"),
        Err(why) => println!("FAIL {version} ({release}): {why}; {counts}; {seconds} s"),
    }
    Ok(verdict.is_ok())
}
