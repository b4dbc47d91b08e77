//! `cargo xtask vm`: the BPF object on other kernels.
//!
//! Debian's kernel images ([`image`]) boot in qemu ([`guest`]) with an initramfs ([`initramfs`]) that holds the daemon
//! and xtask itself. xtask is the guest's first process ([`init`]): it runs `authsensor probe`, which loads every
//! program and attaches none, tells the host the result over the serial console, and powers off. Nothing is installed
//! but qemu; all files are below `target/vm`.

mod guest;
mod image;
pub mod init;
mod initramfs;

use std::env;
use std::fs;
use std::path::Path;

use crate::{Failure, Outcome, build, setup};

/// Which kernels to try.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel series, such as 6.1 and 6.12: the newest of each that Debian has
    #[arg(required = true, value_name = "VERSION")]
    versions: Vec<String>,
    /// Load the programs and attach none (the only thing that this command does so far)
    #[arg(long, required = true)]
    load_only: bool,
}

/// Runs the command: PASS or FAIL for each kernel, with the guest's output (and so the verifier's log) on failure.
pub fn run(root: &Path, args: &Args) -> Outcome {
    if env::consts::ARCH != "x86_64" {
        return Err(Failure::Missing("the kernels that this command boots are for x86-64 only.".to_owned()));
    }
    setup::ensure(root, setup::VM)?;
    let daemon = build::daemon(root, true)?;
    let vm = bpf_build::target_dir(root).join("vm");
    let cannot = |error: std::io::Error| Failure::Failed(format!("cannot make the initramfs: {error}"));
    fs::create_dir_all(&vm).map_err(cannot)?;
    let initramfs = vm.join("initramfs.cpio");
    let xtask = env::current_exe().map_err(cannot)?;
    fs::write(&initramfs, initramfs::build(&xtask, &daemon)?).map_err(cannot)?;

    let mut failed = Vec::new();
    for version in &args.versions {
        let kernel = image::kernel(root, &vm, version)?;
        let report = guest::boot(root, &kernel, &initramfs, &vm.join(format!("{version}.log")))?;
        match report.verdict() {
            Ok(loaded) => println!("PASS {version} ({}): {loaded} programs loaded", report.release()),
            Err(why) => {
                println!("{}", report.output());
                println!("FAIL {version} ({}): {why}", report.release());
                failed.push(version.as_str());
            }
        }
    }
    if failed.is_empty() { Ok(()) } else { Err(Failure::Failed(format!("failed on {}", failed.join(", ")))) }
}
