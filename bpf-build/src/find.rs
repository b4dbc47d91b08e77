//! Looks for the compiler and the linker that build the BPF object.
//!
//! Two set-ups are known to work and any mix of their parts is taken: a rustup toolchain with the `rust-src`
//! component, and a distribution's compiler with its source package (Debian's `rustc-web` and `rust-web-src`).
//! The linker reads the compiler's bitcode, so both must come from the same major version of LLVM.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::target_dir;

/// The oldest compiler that the workspace builds with (`rust-version` in `Cargo.toml`).
pub const MIN_RUST: (u32, u32) = (1, 95);

/// A Rust compiler and the cargo beside it.
#[derive(Clone, Debug)]
pub struct Compiler {
    /// What people call it: `rustup nightly`, `/usr/bin/rustc`.
    pub name: String,
    /// The `cargo` to run.
    pub cargo: PathBuf,
    /// The `rustc` that it must use.
    pub rustc: PathBuf,
    /// Its version, major and minor.
    pub version: (u32, u32),
    /// Major version of its LLVM.
    pub llvm: u32,
    /// Whether the sources of `core` are installed with it.
    pub has_sources: bool,
}

impl Compiler {
    /// Whether it can compile for BPF at all.
    pub fn usable(&self) -> bool {
        self.has_sources && self.version >= MIN_RUST
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version;
        write!(f, "{} {major}.{minor} (LLVM {})", self.name, self.llvm)?;
        if self.version < MIN_RUST {
            write!(f, ", too old: {}.{} is needed", MIN_RUST.0, MIN_RUST.1)?;
        } else if !self.has_sources {
            write!(f, ", without the sources of core")?;
        }
        Ok(())
    }
}

/// A `bpf-linker`.
#[derive(Clone, Debug)]
pub struct Linker {
    /// Where it is.
    pub path: PathBuf,
    /// Major version of its LLVM; `None` when it is linked statically and does not say.
    pub llvm: Option<u32>,
}

impl fmt::Display for Linker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.llvm {
            Some(llvm) => write!(f, "{} (LLVM {llvm})", self.path.display()),
            None => write!(f, "{} (LLVM version not stated)", self.path.display()),
        }
    }
}

/// A compiler and a linker that fit each other.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// The compiler.
    pub compiler: Compiler,
    /// The linker.
    pub linker: Linker,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.compiler, self.linker)
    }
}

/// Why no toolchain was found.
#[derive(Debug)]
pub enum Missing {
    /// No compiler has the sources of `core`; holds those that were looked at.
    Compiler(Vec<Compiler>),
    /// There are compilers, but no linker for one of them.
    Linker(Vec<Compiler>, Vec<Linker>),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compiler(seen) if seen.is_empty() => write!(f, "no Rust compiler was found"),
            Self::Compiler(seen) => {
                write!(f, "no Rust compiler can build for BPF (found: {})", list(seen))
            }
            Self::Linker(compilers, linkers) if linkers.is_empty() => {
                write!(f, "bpf-linker is not installed (compilers: {})", list(compilers))
            }
            Self::Linker(compilers, linkers) => write!(
                f,
                "no bpf-linker has the LLVM of the compiler (compilers: {}; linkers: {})",
                list(compilers),
                list(linkers)
            ),
        }
    }
}

impl std::error::Error for Missing {}

fn list<T: ToString>(items: &[T]) -> String {
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl Toolchain {
    /// The first compiler with sources for which there is a linker. A linker known to match wins over one that
    /// does not state its LLVM.
    pub fn find(root: &Path) -> Result<Self, Missing> {
        let (usable, rejected): (Vec<_>, Vec<_>) = compilers().into_iter().partition(Compiler::usable);
        if usable.is_empty() {
            return Err(Missing::Compiler(rejected));
        }
        let linkers = linkers(root);
        let pair = |wanted: &dyn Fn(&Compiler, &Linker) -> bool| {
            let mut pairs = usable.iter().flat_map(|compiler| linkers.iter().map(move |linker| (compiler, linker)));
            pairs
                .find(|(compiler, linker)| wanted(compiler, linker))
                .map(|(compiler, linker)| Self { compiler: compiler.clone(), linker: linker.clone() })
        };
        pair(&|compiler, linker| linker.llvm == Some(compiler.llvm))
            .or_else(|| pair(&|_, linker| linker.llvm.is_none()))
            .ok_or(Missing::Linker(usable, linkers))
    }

    /// What to suspect first when a build with this toolchain fails.
    pub(crate) fn hint(&self) -> Option<String> {
        self.linker.llvm.is_none().then(|| {
            format!(
                "if the linker speaks of invalid bitcode, {} was built with another LLVM than {} of {}",
                self.linker.path.display(),
                self.compiler.llvm,
                self.compiler.name
            )
        })
    }
}

/// Where `cargo xtask setup` installs tools: inside the target directory, so that nothing else is touched.
pub fn tools_dir(root: &Path) -> PathBuf {
    target_dir(root).join("tools")
}

/// Every compiler that is installed, in order of preference.
pub fn compilers() -> Vec<Compiler> {
    let rustup = |name: &str, args: &[&str]| {
        let rustc = said(rustup_command("rustup").args(["which", "rustc"]).args(args))?;
        compiler(name, PathBuf::from(rustc.trim()))
    };
    let system = || compiler("/usr/bin/rustc", PathBuf::from("/usr/bin/rustc"));
    let found = [rustup("rustup nightly", &["--toolchain", "nightly"]), rustup("rustup default", &[]), system()];
    found.into_iter().flatten().collect()
}

fn compiler(name: &str, rustc: PathBuf) -> Option<Compiler> {
    let cargo = rustc.with_file_name("cargo");
    if !rustc.is_file() || !cargo.is_file() {
        return None;
    }
    let version = said(rustup_command(&rustc).arg("-vV"))?;
    let sysroot = said(rustup_command(&rustc).args(["--print", "sysroot"]))?;
    let core = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    Some(Compiler {
        name: name.to_owned(),
        cargo,
        version: release(&version)?,
        llvm: llvm_of_rustc(&version)?,
        has_sources: core.is_file(),
        rustc,
    })
}

/// Every `bpf-linker` that runs, in order of preference.
pub fn linkers(root: &Path) -> Vec<Linker> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin"));
    let places = [tools_dir(root).join("bin")].into_iter().chain(env::split_paths(&path)).chain(home);
    let mut found: Vec<Linker> = Vec::new();
    for place in places {
        let path = place.join("bpf-linker");
        if found.iter().any(|linker| linker.path == path) || !path.is_file() {
            continue;
        }
        // A linker whose libLLVM was removed is there, but does not start.
        if said(Command::new(&path).arg("--version")).is_some() {
            let llvm = said(Command::new("ldd").arg(&path)).and_then(|libraries| llvm_of_libraries(&libraries));
            found.push(Linker { path, llvm });
        }
    }
    found
}

/// A command that rustup must neither redirect nor answer with a download.
fn rustup_command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC").env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// What a command prints, if it succeeds.
fn said(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = field(version, "release: ")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn llvm_of_rustc(version: &str) -> Option<u32> {
    field(version, "LLVM version: ")?.split('.').next()?.parse().ok()
}

fn field<'a>(version: &'a str, name: &str) -> Option<&'a str> {
    version.lines().find_map(|line| line.strip_prefix(name))
}

/// The major version in `libLLVM.so.22.1` (LLVM 18 and newer) or `libLLVM-17.so`.
fn llvm_of_libraries(libraries: &str) -> Option<u32> {
    let (_, rest) = libraries.split_once("libLLVM")?;
    let digits = rest.trim_start_matches(".so.").trim_start_matches('-');
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUSTC: &str = "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";

    #[test]
    fn versions_are_read_from_rustc() {
        assert_eq!(release(RUSTC), Some((1, 96)));
        assert_eq!(release("release: 1.97.0-nightly\n"), Some((1, 97)));
        assert_eq!(llvm_of_rustc(RUSTC), Some(22));
        assert_eq!(llvm_of_rustc("rustc 1.96.0\n"), None);
    }

    #[test]
    fn llvm_is_read_from_the_libraries_of_a_linker() {
        assert_eq!(llvm_of_libraries("\tlibLLVM.so.22.1 => /usr/lib/llvm-22/lib/libLLVM.so.22.1 (0x7f)"), Some(22));
        assert_eq!(llvm_of_libraries("\tlibLLVM-17.so => /usr/lib/libLLVM-17.so"), Some(17));
        assert_eq!(llvm_of_libraries("\tlibc.so.6 => /lib/libc.so.6"), None);
    }

    #[test]
    fn a_compiler_without_sources_or_too_old_is_not_usable_and_says_why() {
        let good = Compiler {
            name: "x".to_owned(),
            cargo: PathBuf::new(),
            rustc: PathBuf::new(),
            version: MIN_RUST,
            llvm: 22,
            has_sources: true,
        };
        assert!(good.usable());
        let bare = Compiler { has_sources: false, ..good.clone() };
        assert!(!bare.usable() && bare.to_string().contains("without the sources"));
        let old = Compiler { version: (1, 85), ..good };
        assert!(!old.usable() && old.to_string().contains("too old"));
    }
}
