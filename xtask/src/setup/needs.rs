//! What this machine lacks, and what would remedy each lack.

use std::path::Path;
use std::process::Command;

use bpf_build::{Compiler, MIN_RUST, Missing, OBJECT_ENV, Toolchain, compilers};

use super::Args;
use super::apt::Apt;
use crate::process::{nightly, said, tool};

/// The linker that reads the compiler's bitcode.
const BPF_LINKER: &str = "0.13.0";
/// The versions of LLVM that this bpf-linker can be built with.
const BPF_LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;
/// The licence and advisory checker of `.ci/run`.
const CARGO_DENY: &str = "0.20.2";
/// What builds the fuzz targets.
const CARGO_FUZZ: &str = "0.13.2";

/// Something that is missing.
#[derive(Debug)]
pub struct Need {
    /// What, as a person would call it.
    pub what: String,
    /// What to do about it.
    pub remedy: Remedy,
}

impl Need {
    /// By which it is recognised when it turns up again: the same lack with another remedy is progress.
    pub fn key(&self) -> String {
        format!("{self:?}")
    }
}

/// What brings the missing thing.
#[derive(Debug)]
pub enum Remedy {
    /// Installing these packages.
    Packages(Vec<String>),
    /// Taking one file out of a package without installing it: for programs whose package brings a service.
    FromPackage {
        /// The package.
        package: &'static str,
        /// The program in it.
        file: &'static str,
    },
    /// `cargo install` into `target/tools`.
    Cargo(CargoTool),
    /// Nothing that setup can do: a sentence for a person.
    Advice(String),
}

impl Remedy {
    /// The packages to install; empty for the other remedies.
    pub fn packages(&self) -> Vec<&str> {
        match self {
            Self::Packages(packages) => packages.iter().map(String::as_str).collect(),
            _ => Vec::new(),
        }
    }
}

/// A program that cargo builds.
#[derive(Debug)]
pub struct CargoTool {
    /// Its crate.
    pub name: &'static str,
    /// Exactly this version.
    pub version: &'static str,
    /// More arguments for `cargo install`.
    pub arguments: Vec<String>,
    /// Environment for its build.
    pub environment: Vec<(&'static str, String)>,
    /// What to tell a person who waits.
    pub duration: &'static str,
}

/// Everything that is missing now.
pub fn survey(root: &Path, args: Args, apt: &mut Apt) -> Vec<Need> {
    let mut needs = Vec::new();
    if std::env::var_os(OBJECT_ENV).is_none() {
        needs.extend(bpf_toolchain(root, apt));
    }
    if args.tests || args.ci {
        for (name, package) in [
            ("nginx", "nginx"),
            // The server itself; the package `apache2` is what makes it a service.
            ("apache2", "apache2-bin"),
            ("haproxy", "haproxy"),
            ("curl", "curl"),
            ("ip", "iproute2"),
            ("ethtool", "ethtool"),
            ("wrk", "wrk"),
            ("h2load", "nghttp2-client"),
            ("tcpdump", "tcpdump"),
        ] {
            program(root, &mut needs, name, &[package]);
        }
        if tool(root, "promtool").is_none() {
            let remedy = Remedy::FromPackage { package: "prometheus", file: "usr/bin/promtool" };
            needs.push(Need { what: "promtool".to_owned(), remedy });
        }
    }
    if args.ci && tool(root, "cargo-deny").is_none() {
        needs.push(Need {
            what: "cargo-deny".to_owned(),
            remedy: Remedy::Cargo(cargo_tool("cargo-deny", CARGO_DENY, "about three minutes")),
        });
    }
    if args.vm {
        for (name, package) in [
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("xz", "xz-utils"),
            ("ip", "iproute2"),
            ("tc", "iproute2"),
            ("ethtool", "ethtool"),
        ] {
            program(root, &mut needs, name, &[package]);
        }
    }
    if args.fuzz {
        fuzzer(root, &mut needs);
    }
    needs
}

/// libFuzzer is C++, and its instrumentation is nightly Rust's.
fn fuzzer(root: &Path, needs: &mut Vec<Need>) {
    program(root, needs, "c++", &["g++"]);
    if nightly(root).is_none() {
        let advice = "With rustup run `rustup toolchain install nightly --profile minimal`.";
        needs.push(Need { what: "nightly Rust".to_owned(), remedy: Remedy::Advice(advice.to_owned()) });
    }
    if tool(root, "cargo-fuzz").is_none() {
        let remedy = Remedy::Cargo(cargo_tool("cargo-fuzz", CARGO_FUZZ, "about a minute"));
        needs.push(Need { what: "cargo-fuzz".to_owned(), remedy });
    }
}

fn program(root: &Path, needs: &mut Vec<Need>, name: &str, packages: &[&str]) {
    if tool(root, name).is_none() {
        let packages = packages.iter().map(ToString::to_string).collect();
        needs.push(Need { what: name.to_owned(), remedy: Remedy::Packages(packages) });
    }
}

/// A program that needs nothing but its crate.
fn cargo_tool(name: &'static str, version: &'static str, duration: &'static str) -> CargoTool {
    CargoTool { name, version, arguments: Vec::new(), environment: Vec::new(), duration }
}

fn bpf_toolchain(root: &Path, apt: &mut Apt) -> Option<Need> {
    match Toolchain::find(root).err()? {
        missing @ Missing::Compiler(_) => Some(Need { what: missing.to_string(), remedy: bpf_compiler(apt) }),
        missing @ Missing::Linker(..) => {
            let what = missing.to_string();
            let compiler = compilers().into_iter().find(Compiler::usable)?;
            Some(Need { what, remedy: bpf_linker(&compiler, apt) })
        }
    }
}

/// Debian keeps a current compiler, with its sources, for its browsers.
fn bpf_compiler(apt: &mut Apt) -> Remedy {
    let recent = apt.candidate_that("rustc-web", |version| {
        let mut parts = version.split('.').map_while(|part| part.parse::<u32>().ok());
        parts.next().zip(parts.next()) >= Some(MIN_RUST)
    });
    if recent.is_some() {
        Remedy::Packages(["rustc-web", "cargo-web", "rust-web-src"].map(str::to_owned).to_vec())
    } else {
        Remedy::Advice(format!(
            "No package here has Rust {}.{} or newer with its sources; with rustup run `rustup toolchain install \
             nightly --profile minimal --component rust-src`, then `cargo xtask setup` again.",
            MIN_RUST.0, MIN_RUST.1
        ))
    }
}

fn bpf_linker(compiler: &Compiler, apt: &mut Apt) -> Remedy {
    let llvm = compiler.llvm;
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let config = Path::new(&prefix).join("bin/llvm-config");
    let package = format!("llvm-{llvm}-dev");
    if !BPF_LINKER_LLVM.contains(&llvm) {
        Remedy::Advice(format!("bpf-linker {BPF_LINKER} knows no LLVM {llvm}; install a bpf-linker that does."))
    } else if Path::new(&prefix).join("lib/libLLVM.so").exists()
        && said(Command::new(config).arg("--version")).is_some()
    {
        Remedy::Cargo(CargoTool {
            name: "bpf-linker",
            version: BPF_LINKER,
            arguments: vec!["--no-default-features".to_owned(), format!("--features=llvm-{llvm}")],
            environment: vec![("LLVM_PREFIX", prefix)],
            duration: "about a minute",
        })
    } else if apt.candidate(&package).is_some() {
        Remedy::Packages(vec![package])
    } else {
        Remedy::Advice(format!(
            "No package here has LLVM {llvm}, which {} uses; put a bpf-linker built with LLVM {llvm} on PATH \
             (`cargo binstall bpf-linker` fetches one for rustup's nightly).",
            compiler.name
        ))
    }
}
