//! The lab's network: two namespaces joined by a veth pair, and the temporary folder, all named after the process.
//!
//! ```text
//! clients namespace                         gateway namespace
//!   lo: 10.78.0.0/16, fd78:a5::/64 (local)    nginx :80 (all addresses)
//!   cl0: 10.77.0.2/24, fd77:a5::2  ── veth ── gw0: 10.77.0.1/24, fd77:a5::1
//!                                             origin 127.0.0.1:9000, metrics 127.0.0.1:9464
//! ```
//!
//! A [`World`] takes all of it away when dropped; what a killed run left behind goes at the next start. Nothing else
//! on the machine is touched. Segmentation offloads stay as the kernel sets them (on), so super-packets cross the pair.

use std::fs::{self, File};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::{Doing, LabError, Result};
use super::process::run;

/// The gateway's interface that the sensor watches.
pub const GATEWAY_INTERFACE: &str = "gw0";
/// The gateway's addresses as clients see them.
pub const GATEWAY_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Likewise, over IPv6.
pub const GATEWAY_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd77, 0xa5, 0, 0, 0, 0, 0, 1));

const PREFIX: &str = "authsensor-lab-";
const NAMESPACES: &str = "/run/netns";

/// A network namespace, by name.
#[derive(Clone, Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Opens it, to be entered.
    pub fn open(&self) -> Result<File> {
        let path = Path::new(NAMESPACES).join(&self.name);
        File::open(&path).doing(format!("opening {}", path.display()))
    }

    /// Moves the calling thread into it. The main thread stays outside.
    pub fn enter(&self) -> Result<()> {
        setns(self.open()?, CloneFlags::CLONE_NEWNET).doing(format!("entering {}", self.name))
    }

    /// Runs `work` on a thread inside and waits for it.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    self.enter()?;
                    work()
                })
                .join()
                .unwrap_or(Err(LabError::Panicked("in a namespace")))
        })
    }
}

/// Everything that the lab makes on the machine.
pub struct World {
    /// Where nginx, the origin and the sensor run.
    pub gateway: Namespace,
    /// Where members and the attacker come from.
    pub clients: Namespace,
    /// Temporary folder.
    pub folder: PathBuf,
    keep: bool,
}

impl World {
    /// Removes what killed runs left, then makes namespaces and folder. With `keep` the folder is not removed.
    pub fn build(keep: bool) -> Result<Self> {
        remove_stale()?;
        let id = format!("{PREFIX}{}", std::process::id());
        let folder = std::env::temp_dir().join(&id);
        // The world exists before its parts do, so that a failure half-way takes away what is there.
        let world = Self {
            gateway: Namespace { name: format!("{id}-gw") },
            clients: Namespace { name: format!("{id}-cl") },
            folder,
            keep,
        };
        fs::DirBuilder::new().mode(0o711).create(&world.folder).doing("making the lab's folder")?;
        // The umask may have taken bits that nginx's workers need to reach their temporary files.
        fs::set_permissions(&world.folder, fs::Permissions::from_mode(0o711)).doing("opening the lab's folder")?;
        world.lay_network()?;
        Ok(world)
    }

    fn lay_network(&self) -> Result<()> {
        let (gateway, clients) = (self.gateway.name.as_str(), self.clients.name.as_str());
        let ip = |line: &str| run("ip", &line.split_whitespace().collect::<Vec<_>>()).map(|_| ());
        ip(&format!("netns add {gateway}"))?;
        ip(&format!("netns add {clients}"))?;
        ip(&format!("link add {GATEWAY_INTERFACE} netns {gateway} type veth peer name cl0 netns {clients}"))?;
        for (namespace, interface, last) in [(gateway, GATEWAY_INTERFACE, 1), (clients, "cl0", 2)] {
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} addr add 10.77.0.{last}/24 dev {interface}"))?;
            ip(&format!("-n {namespace} addr add fd77:a5::{last}/64 dev {interface} nodad"))?;
            ip(&format!("-n {namespace} link set {interface} up"))?;
        }
        ip(&format!("-n {clients} route add local 10.78.0.0/16 dev lo"))?;
        ip(&format!("-n {clients} -6 route add local fd78:a5::/64 dev lo"))?;
        ip(&format!("-n {gateway} route add 10.78.0.0/16 via 10.77.0.2"))?;
        ip(&format!("-n {gateway} -6 route add fd78:a5::/64 via fd77:a5::2"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for namespace in [&self.gateway, &self.clients] {
            if Path::new(NAMESPACES).join(&namespace.name).exists()
                && let Err(error) = remove(&namespace.name)
            {
                eprintln!("could not remove a namespace: {error}");
            }
        }
        if self.keep {
            // Another name, so that the next lab does not take it for the remains of a killed one.
            let kept = self.folder.with_file_name(format!("{PREFIX}kept-{}", std::process::id()));
            match fs::rename(&self.folder, &kept) {
                Ok(()) => println!("kept: {}", kept.display()),
                Err(error) => eprintln!("could not rename {}: {error}", self.folder.display()),
            }
        } else if let Err(error) = fs::remove_dir_all(&self.folder) {
            eprintln!("could not remove {}: {error}", self.folder.display());
        }
    }
}

/// Source address number `n` of the clients' namespace (65,000 of them), over IPv4 or IPv6.
pub fn source(n: u16, v6: bool) -> IpAddr {
    if v6 {
        return Ipv6Addr::new(0xfd78, 0xa5, 0, 0, 0, 0, 1, n).into();
    }
    // Host parts .0 and .255 are ordinary addresses in a /16, but look odd in a report.
    let [high, low] = [n / 250, n % 250 + 1].map(|part| u8::try_from(part).unwrap_or(u8::MAX));
    Ipv4Addr::new(10, 78, high, low).into()
}

/// Removes namespaces and folders of labs whose process is gone.
fn remove_stale() -> Result<()> {
    for name in names(Path::new(NAMESPACES)) {
        if is_stale(&name) {
            remove(&name)?;
        }
    }
    let temporary = std::env::temp_dir();
    for name in names(&temporary) {
        if is_stale(&name) {
            let path = temporary.join(&name);
            fs::remove_dir_all(&path).doing(format!("removing {}", path.display()))?;
        }
    }
    Ok(())
}

/// Removes a namespace of a lab with whatever still runs in it: workers of an nginx whose master was killed go on.
fn remove(name: &str) -> Result<()> {
    for pid in run("ip", &["netns", "pids", name])?.lines().filter_map(|line| line.trim().parse().ok()) {
        // It may have ended by itself in the meantime.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    run("ip", &["netns", "del", name]).map(|_| ())
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// True for the name of something a lab made whose process no longer runs (or whose id another program took).
fn is_stale(name: &str) -> bool {
    let Some(rest) = name.strip_prefix(PREFIX) else { return false };
    let digits = rest.split_once('-').map_or(rest, |(digits, _)| digits);
    let Ok(pid) = digits.parse::<u32>() else { return false };
    // A namespace named after this process, before it made one, is left from another that had its id.
    pid == std::process::id() || !is_running_lab(pid)
}

/// True when the process runs and is this program.
fn is_running_lab(pid: u32) -> bool {
    let program = |process: &str| {
        let path = fs::read_link(format!("/proc/{process}/exe")).ok()?;
        // A rebuilt binary that still runs shows as "xtask (deleted)".
        Some(path.file_name()?.to_string_lossy().trim_end_matches(" (deleted)").to_owned())
    };
    let theirs = program(&pid.to_string());
    theirs.is_some() && theirs == program("self")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_dead_lab_left_is_stale() {
        assert!(!is_stale("production"));
        assert!(!is_stale("authsensor-lab-x-gw"));
        assert!(!is_stale("authsensor-lab-kept-4294967295"));
        assert!(is_stale("authsensor-lab-4294967295-gw"), "no process has this id");
        assert!(is_stale(&format!("authsensor-lab-{}-cl", std::os::unix::process::parent_id())), "cargo is no lab");
    }

    #[test]
    fn only_this_program_counts_as_a_running_lab() {
        assert!(is_running_lab(std::process::id()));
        assert!(!is_running_lab(std::os::unix::process::parent_id()), "cargo");
        assert!(!is_running_lab(u32::MAX));
    }

    #[test]
    fn sources_are_distinct_and_inside_their_network() {
        let all: std::collections::HashSet<IpAddr> = (0..60_000).map(|n| source(n, false)).collect();
        assert_eq!(all.len(), 60_000);
        assert!(all.iter().all(|address| matches!(address, IpAddr::V4(v4) if v4.octets()[..2] == [10, 78])));
        assert_eq!(source(1, true).to_string(), "fd78:a5::1:1");
    }
}
