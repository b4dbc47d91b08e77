//! xtask as the first process of a guest: mounts what the daemon and the tests expect, loads the modules, runs the probe
//! and the test programs, tells the host, powers off.

use std::ffi::CString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::kmod::init_module;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

/// Its presence tells a guest of ours from a container in which xtask happens to be the first process.
pub const MARK: &str = "/authsensor-guest";
/// Where the daemon is in the guest.
pub const DAEMON: &str = "/bin/authsensor";
/// The folder of the modules, which sort in the order of loading.
pub const MODULES: &str = "/modules";
/// The folder of the test programs.
pub const TESTS: &str = "/tests";
/// Begins the lines that are for the host.
pub const TELL: &str = "authsensor-guest:";
/// How much longer than on an idle machine the tests wait for things: emulated processors are 10 to 30 times slower, and
/// more where other work keeps the host busy.
const SLOWNESS: &str = "60";
/// Where tests write what they skip (see `xtask test`).
const SKIPS: &str = "/tmp/skips";

/// Whether this process is a guest's first.
pub fn is_guest() -> bool {
    std::process::id() == 1 && Path::new(MARK).exists()
}

/// Never returns: a guest ends with its first process.
pub fn main() -> ! {
    prepare();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    println!("{TELL} kernel {}", release.trim());
    for module in listed(MODULES) {
        load(&module);
    }
    let probe = Command::new(DAEMON).arg("probe").status();
    let mut outcome = match probe {
        Ok(status) => status.code().unwrap_or(-1),
        Err(error) => {
            println!("{DAEMON}: {error}");
            -1
        }
    };
    for test in listed(TESTS) {
        let code = run(&test);
        println!("{TELL} ended {} {code}", test.file_name().unwrap_or_default().to_string_lossy());
        outcome = if outcome == 0 { code } else { outcome };
    }
    for skipped in fs::read_to_string(SKIPS).unwrap_or_default().lines() {
        println!("{TELL} skipped {skipped}");
    }
    println!("{TELL} exit {outcome}");
    let error = reboot(RebootMode::RB_POWER_OFF);
    println!("cannot power off: {error:?}");
    loop {
        std::thread::park();
    }
}

fn prepare() {
    for (kind, target) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("bpf", "/sys/fs/bpf"), ("tmpfs", "/run")]
    {
        if let Err(error) = mount(Some(kind), target, Some(kind), MsFlags::empty(), None::<&str>) {
            println!("cannot mount {target}: {error}");
        }
    }
    // `ip netns` keeps its names below the one, the tests look below the other.
    let linked = fs::create_dir_all("/var").and_then(|()| std::os::unix::fs::symlink("/run", "/var/run"));
    if let Err(error) = linked {
        println!("cannot link /var/run: {error}");
    }
}

/// The files in a folder, sorted; none if it is not there.
fn listed(folder: &str) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

fn load(module: &Path) {
    let loaded = fs::read(module).map_err(|error| error.to_string()).and_then(|bytes| {
        let outcome = init_module(&bytes, &CString::default());
        if outcome == Err(Errno::EEXIST) { Ok(()) } else { outcome.map_err(|error| error.to_string()) }
    });
    if let Err(error) = loaded {
        println!("cannot load {}: {error}", module.display());
    }
}

/// Runs a test program; its exit code. Whole lines only, so that the kernel's own messages do not stand in the middle.
fn run(program: &Path) -> i32 {
    let mut command = Command::new(program);
    command
        .arg("--test-threads=1")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("RUST_BACKTRACE", "0")
        .env("AUTHSENSOR_SLOW_MACHINE", SLOWNESS)
        .env("AUTHSENSOR_SKIPS", SKIPS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            println!("{}: {error}", program.display());
            return -1;
        }
    };
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            println!("{}", String::from_utf8_lossy(&line));
        }
    }
    child.wait().ok().and_then(|status| status.code()).unwrap_or(-1)
}
