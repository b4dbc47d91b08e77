//! The one place that knows how the BPF object is built.
//!
//! `sensor`'s build script and `cargo xtask` both come here: [`Toolchain::find`] looks for a compiler with the
//! sources of `core` and a `bpf-linker` that understands its bitcode, [`build`] runs the compiler on `sensor-ebpf`
//! and leaves the object at [`object_path`]. No dependencies, so that it costs a build next to nothing.

mod find;

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub use find::{Compiler, Linker, MIN_RUST, Missing, Toolchain, compilers, linkers, tools_dir};

/// The environment variable that replaces the build of the object: a path to a ready object, or `stub`.
pub const OBJECT_ENV: &str = "AUTHSENSOR_BPF_OBJECT";

/// Cargo's name for the target: little endian, no operating system.
pub const TARGET: &str = "bpfel-unknown-none";

/// Where cargo puts what it builds for this workspace.
pub fn target_dir(root: &Path) -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |dir| root.join(dir))
}

/// The two objects that are made from `sensor-ebpf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    /// The programs that the daemon embeds.
    Sensor,
    /// The same programs, and beside them those that `cargo xtask bench kernel` times. Never shipped.
    Bench,
}

impl Object {
    /// The binary target of `sensor-ebpf`.
    const fn bin(self) -> &'static str {
        match self {
            Self::Sensor => "authsensor-ebpf",
            Self::Bench => "authsensor-bench",
        }
    }
}

/// Where [`build`] leaves the daemon's object.
pub fn object_path(root: &Path) -> PathBuf {
    path_of(&target_dir(root), Object::Sensor)
}

fn path_of(target: &Path, object: Object) -> PathBuf {
    target.join("bpf").join(object.bin()).with_extension("o")
}

/// What the object is made from: paths below the workspace root that a rebuild must watch.
pub const SOURCES: [&str; 5] =
    ["sensor-ebpf/src", "sensor-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock", "bpf-build/src"];

/// Where the compiler's messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Messages {
    /// To the terminal, as they come.
    Shown,
    /// To the terminal, and a warning fails the build.
    ShownStrict,
    /// Into [`BuildError::Failed`], for callers whose own output is a protocol.
    Kept,
}

/// Why there is no object.
#[derive(Debug)]
pub enum BuildError {
    /// Cargo could not be started.
    Spawn(PathBuf, io::Error),
    /// The compiler or the linker refused; holds what they said (empty if already shown) and a hint.
    Failed {
        /// The compiler's messages.
        messages: String,
        /// What is likely wrong, if anything is known.
        hint: Option<String>,
    },
    /// The object could not be put in its place.
    Place(PathBuf, io::Error),
}

impl fmt::Display for BuildError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawn(path, error) => write!(f, "cannot start {}: {error}", path.display()),
            Self::Failed { messages, hint } => {
                write!(f, "{messages}the BPF object did not build")?;
                hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
            }
            Self::Place(path, error) => write!(f, "cannot write the BPF object to {}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BuildError {}

/// Builds the daemon's object and returns its path. Cargo decides what is fresh: an unchanged tree costs a fraction
/// of a second.
pub fn build(root: &Path, toolchain: &Toolchain, messages: Messages) -> Result<PathBuf, BuildError> {
    build_object(root, toolchain, messages, Object::Sensor)
}

/// As [`build`], for either object.
pub fn build_object(
    root: &Path,
    toolchain: &Toolchain,
    messages: Messages,
    object: Object,
) -> Result<PathBuf, BuildError> {
    build_into(root, &target_dir(root), toolchain, messages, object)
}

/// As [`build_object`], from the sources in `root`, which may be those of another version, below `target`.
pub fn build_into(
    root: &Path,
    target: &Path,
    toolchain: &Toolchain,
    messages: Messages,
    object: Object,
) -> Result<PathBuf, BuildError> {
    let mut command = cargo_into(root, target, toolchain, "build", object);
    command.arg("--release");
    match messages {
        Messages::Shown => {}
        Messages::ShownStrict => {
            command.args(["-Z", "warnings", "--config", "build.warnings=\"deny\""]);
        }
        Messages::Kept => {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
    }
    let spawned = command.spawn().and_then(std::process::Child::wait_with_output);
    let output = spawned.map_err(|error| BuildError::Spawn(toolchain.compiler.cargo.clone(), error))?;
    if !output.status.success() {
        return Err(BuildError::Failed {
            messages: String::from_utf8_lossy(&output.stderr).into_owned(),
            hint: toolchain.hint(),
        });
    }
    let built = target.join("bpf").join(TARGET).join("release").join(object.bin());
    let path = path_of(target, object);
    place(&built, &path).map_err(|error| BuildError::Place(path.clone(), error))?;
    Ok(path)
}

/// A cargo subcommand (`build`, `clippy`, …) on the BPF programs, with everything that the target needs.
pub fn cargo(root: &Path, toolchain: &Toolchain, subcommand: &str, object: Object) -> Command {
    cargo_into(root, &target_dir(root), toolchain, subcommand, object)
}

fn cargo_into(root: &Path, target: &Path, toolchain: &Toolchain, subcommand: &str, object: Object) -> Command {
    let mut command = Command::new(&toolchain.compiler.cargo);
    clear_environment(&mut command);
    command
        .current_dir(root)
        .env("RUSTC", &toolchain.compiler.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(&toolchain.linker.path))
        .args([subcommand, "--package", "sensor-ebpf", "--bin", object.bin(), "--features", "bpf"])
        .args(["-Z", "build-std=core", "--target", TARGET])
        .arg("--target-dir")
        .arg(target.join("bpf"));
    command
}

/// `v3` has 32-bit arithmetic and compare-and-swap (kernel 5.12 and newer); `--btf` keeps map and function types,
/// without which neither line numbers in the verifier's log nor CO-RE work.
fn rustflags(linker: &Path) -> OsString {
    let mut flags = OsString::from("-Clinker=");
    flags.push(linker);
    for flag in
        ["-Ctarget-cpu=v3", "-Ctarget-feature=+allows-misaligned-mem-access", "-Cdebuginfo=2", "-Clink-arg=--btf"]
    {
        flags.push("\u{1f}");
        flags.push(flag);
    }
    if strong_order() {
        flags.push("\u{1f}--cfg=strong_order");
    }
    flags
}

/// Whether the machine that will run the object never reorders stores (x86): inside a build script cargo says which that
/// is, elsewhere it is this one.
fn strong_order() -> bool {
    env::var("CARGO_CFG_TARGET_ARCH").map_or(env::consts::ARCH == "x86_64", |arch| arch == "x86_64")
}

/// A cargo that runs inside another cargo inherits the outer one's compiler, flags and job server, and inside a
/// build script that script's variables (`HOST` alone makes aya-ebpf build anew). Only what says where and how to
/// reach registries is kept.
fn clear_environment(command: &mut Command) {
    const KEPT: [&str; 8] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "CARGO_SOURCE_",
        "CARGO_TERM_",
        "RUSTUP_HOME",
        "RUST_BACKTRACE",
    ];
    for (name, _) in env::vars_os() {
        let Some(text) = name.to_str() else { continue };
        let ours = ["CARGO", "RUST", "CLIPPY_"].iter().any(|prefix| text.starts_with(prefix))
            || matches!(text, "MAKEFLAGS" | "MFLAGS" | "HOST" | "TARGET" | "OUT_DIR" | "NUM_JOBS" | "OPT_LEVEL")
            || matches!(text, "PROFILE" | "DEBUG");
        if ours && !KEPT.iter().any(|kept| text.starts_with(kept)) {
            command.env_remove(&name);
        }
    }
}

/// Copies only when the bytes differ, and by rename, so that a reader never sees half an object.
fn place(from: &Path, to: &Path) -> io::Result<()> {
    let bytes = fs::read(from)?;
    if fs::read(to).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    let part = to.with_extension(format!("{}.part", std::process::id()));
    fs::write(&part, &bytes)?;
    fs::rename(&part, to)
}
