//! Puts the BPF object where [`include_bytes!`] finds it: built here, taken ready, or stubbed.
//!
//! `AUTHSENSOR_BPF_OBJECT` = a path takes that object; = `stub` embeds an empty one, which is enough for `cargo
//! check` and clippy; unset builds it, so that a changed source never leaves a stale object in the daemon.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use bpf_build::{Messages, OBJECT_ENV, SOURCES, Toolchain};

fn main() {
    println!("cargo::rerun-if-env-changed={OBJECT_ENV}");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("authsensor.bpf.o");
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default()).join("..");
    if let Err(message) = object(&root)
        .and_then(|bytes| fs::write(&out, bytes).map_err(|error| format!("cannot write {}: {error}", out.display())))
    {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
    }
}

fn object(root: &Path) -> Result<Vec<u8>, String> {
    match env::var_os(OBJECT_ENV) {
        Some(word) if word == "stub" => Ok(Vec::new()),
        Some(path) => {
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).map_err(|error| format!("{OBJECT_ENV} names {}: {error}", path.display()))
        }
        None => built(root),
    }
}

fn built(root: &Path) -> Result<Vec<u8>, String> {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
    }
    let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
    let toolchain = Toolchain::find(&root).map_err(|missing| {
        format!(
            "the BPF object that authsensor embeds cannot be built: {missing}. Run `cargo xtask setup` once, then \
             build again; to check or lint without it, set {OBJECT_ENV}=stub."
        )
    })?;
    for tool in [&toolchain.compiler.rustc, &toolchain.linker.path] {
        println!("cargo::rerun-if-changed={}", tool.display());
    }
    let path = bpf_build::build(&root, &toolchain, Messages::Kept).map_err(|error| error.to_string())?;
    fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
}
