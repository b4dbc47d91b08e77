//! Debian's and Ubuntu's package manager, used so that it leaves nothing running behind.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use bpf_build::tools_dir;
use nix::sys::signal::{SigSet, Signal};

use super::announced;
use crate::process::{said, which};
use crate::{Failure, Outcome};

/// Asked by every package's installation before it starts a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// How our own policy file is known, should a killed run have left it there.
const POLICY_MARK: &str = "# Written by `cargo xtask setup` while it installs packages; safe to remove.";
/// Services that start at boot once their package is there; nobody asked us for that.
const SERVICES: [(&str, &str); 2] = [("nginx", "nginx"), ("haproxy", "haproxy")];

/// What apt can do here.
pub struct Apt {
    there: bool,
    root: bool,
    /// Whether the package lists may (still) be fetched.
    may_update: bool,
}

impl Apt {
    /// Looks for apt; with `may_update` the package lists are fetched when a package is unknown.
    pub fn new(may_update: bool) -> Self {
        let root = nix::unistd::geteuid().is_root();
        Self { there: which("apt-get").is_some(), root, may_update: may_update && root }
    }

    /// Whether this system uses apt.
    pub fn is_there(&self) -> bool {
        self.there
    }

    /// Whether packages can be installed.
    pub fn can_install(&self) -> bool {
        self.there && self.root
    }

    /// The version of a package that would be installed, if there is one.
    pub fn candidate(&mut self, package: &str) -> Option<String> {
        self.candidate_that(package, |_| true)
    }

    /// The same of a version that will do. Old lists know old versions, so they too are fetched anew before the answer
    /// is no.
    pub fn candidate_that(&mut self, package: &str, will_do: impl Fn(&str) -> bool) -> Option<String> {
        if !self.there {
            return None;
        }
        let known = || candidate(package).filter(|version| will_do(version));
        known().or_else(|| {
            self.update();
            known()
        })
    }

    /// Fetches the package lists, at most once. A failure shows in what follows.
    fn update(&mut self) {
        if std::mem::take(&mut self.may_update) {
            let _ = announced(apt_get().args(["update", "-qq"]));
        }
    }

    /// Installs packages, without what they recommend, and without starting anything.
    pub fn install(&mut self, packages: &[&str]) -> Outcome {
        if packages.iter().any(|package| candidate(package).is_none()) {
            self.update();
        }
        let guard = NoServices::new()?;
        let mut outcome = self.try_install(packages);
        if outcome.is_err() && self.may_update {
            // Old lists name packages that the mirror no longer has.
            self.update();
            outcome = self.try_install(packages);
        }
        for (_, service) in SERVICES.iter().filter(|(package, _)| outcome.is_ok() && packages.contains(package)) {
            disable(service);
        }
        drop(guard);
        outcome
    }

    fn try_install(&self, packages: &[&str]) -> Outcome {
        debug_assert!(self.can_install());
        announced(apt_get().args(["install", "-y", "-qq", "--no-install-recommends"]).args(packages))
    }

    /// Puts one file of a package into `target/tools/bin`, without installing the package.
    pub fn extract(&mut self, root: &Path, package: &str, file: &str) -> Outcome {
        let unpacked = self.unpack(root, package)?;
        let bin = tools_dir(root).join("bin");
        let from = unpacked.join(file);
        let outcome = fs::create_dir_all(&bin)
            .and_then(|()| fs::copy(&from, bin.join(from.file_name().unwrap_or_default())))
            .map(drop)
            .map_err(|error| Failure::Failed(format!("{package} has no usable {file}: {error}")));
        let _ = fs::remove_dir_all(&unpacked);
        outcome
    }

    /// Downloads a package and unpacks it into a directory below `target/tools`, which the caller removes. Needs no
    /// root.
    pub fn unpack(&mut self, root: &Path, package: &str) -> Outcome<PathBuf> {
        if candidate(package).is_none() {
            self.update();
        }
        let downloads = tools_dir(root).join("debs");
        let unpacked = tools_dir(root).join("unpacked");
        let io =
            |error: std::io::Error| Failure::Failed(format!("cannot write below {}: {error}", downloads.display()));
        for directory in [&downloads, &unpacked] {
            let _ = fs::remove_dir_all(directory);
            fs::create_dir_all(directory).map_err(io)?;
        }
        // apt's own download user cannot write below somebody's home directory.
        let mut download = apt_get();
        announced(
            download.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]).current_dir(&downloads),
        )?;
        for file in fs::read_dir(&downloads).map_err(io)?.flatten() {
            announced(Command::new("dpkg-deb").arg("-x").arg(file.path()).arg(&unpacked))?;
        }
        fs::remove_dir_all(&downloads).map_err(io)?;
        Ok(unpacked)
    }
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"]);
    command
}

fn candidate(package: &str) -> Option<String> {
    let policy = said(Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C"))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

/// Keeps a freshly installed service from starting at the next boot.
fn disable(service: &str) {
    let mut command = if which("systemctl").is_some() {
        let mut command = Command::new("systemctl");
        command.args(["--quiet", "disable", service]);
        command
    } else {
        let mut command = Command::new("update-rc.d");
        command.args([service, "disable"]);
        command
    };
    if said(&mut command).is_none() {
        println!("note: the service {service} came with its package and could not be kept from starting at boot");
    }
}

/// While this lives no package starts a service. Ctrl-C is held back meanwhile: it ends apt, and takes effect here
/// once the policy file is gone.
struct NoServices {
    written: bool,
    held: SigSet,
}

impl NoServices {
    fn new() -> Outcome<Self> {
        let held = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        held.thread_block().map_err(|error| Failure::Failed(format!("cannot hold signals back: {error}")))?;
        let policy = Path::new(POLICY);
        let ours = fs::read_to_string(policy).is_ok_and(|text| text.contains(POLICY_MARK));
        let mut guard = Self { written: ours, held };
        if ours || !policy.exists() {
            let script = format!("#!/bin/sh\n{POLICY_MARK}\nexit 101\n");
            guard.written = true;
            fs::write(policy, script)
                .and_then(|()| fs::set_permissions(policy, fs::Permissions::from_mode(0o755)))
                .map_err(|error| Failure::Failed(format!("cannot write {POLICY}: {error}")))?;
        }
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.written {
            let _ = fs::remove_file(POLICY);
        }
        let _ = self.held.thread_unblock();
    }
}
