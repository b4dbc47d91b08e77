//! xtask as the first process of a guest: mounts what the daemon expects, runs it, tells the host, powers off.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Its presence tells a guest of ours from a container in which xtask happens to be the first process.
pub const MARK: &str = "/authsensor-guest";
/// Where the daemon is in the guest.
pub const DAEMON: &str = "/bin/authsensor";
/// Begins the lines that are for the host.
pub const TELL: &str = "authsensor-guest:";

/// Whether this process is a guest's first.
pub fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(MARK).exists()
}

/// Never returns: a guest ends with its first process.
pub fn main() -> ! {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("bpf", "/sys/fs/bpf")] {
        if let Err(error) = mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            println!("cannot mount {target}: {error}");
        }
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("{TELL} kernel {}", release.trim());
    match Command::new(DAEMON).arg("probe").status() {
        Ok(status) => println!("{TELL} exit {}", status.code().unwrap_or(-1)),
        Err(error) => println!("{TELL} exit -1 ({DAEMON}: {error})"),
    }
    let error = reboot(RebootMode::RB_POWER_OFF);
    println!("cannot power off: {error:?}");
    loop {
        std::thread::park();
    }
}
