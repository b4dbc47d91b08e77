//! Processes in a namespace that never outlive the test: stopped when dropped, killed by the kernel if the test is.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::servers::Kind;

/// Longest time anything here may take to start or to stop.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Whose processes servers are: nobody's.
const NOBODY: &str = "65534";

/// The first program that this test needs and does not find.
pub fn missing_program(kind: Kind) -> Option<&'static str> {
    let needed = ["curl", "wrk", "tcpdump", "ethtool", "setpriv", "nginx", kind.program()];
    needed
        .into_iter()
        .find(|name| !["/usr/sbin", "/usr/bin", "/sbin", "/bin"].iter().any(|d| Path::new(d).join(name).is_file()))
}

/// Lets servers, which run as nobody, write into the folder.
pub fn open_to_everybody(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
}

/// `words` in the namespace, to be killed when this thread ends.
pub fn command(namespace: &str, words: &[&str]) -> Command {
    let mut command = Command::new("ip");
    // Both replace themselves by what they start, so the child is the program itself.
    command.args(["netns", "exec", namespace, "setpriv", "--pdeathsig", "KILL"]).args(words);
    command.stdin(Stdio::null());
    command
}

/// The same as nobody, without a privilege.
pub fn unprivileged(namespace: &str, words: &[&str]) -> Command {
    let nobody =
        ["setpriv", "--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs", "--pdeathsig", "KILL"];
    command(namespace, &[&nobody[..], words].concat())
}

/// A running process whose standard output and error are in files.
pub struct Running {
    name: String,
    child: Child,
    pub out: PathBuf,
    pub errors: PathBuf,
}

impl Running {
    pub fn start(name: &str, mut command: Command, folder: &Path) -> Self {
        let [out, errors] = ["out", "err"].map(|ending| folder.join(format!("{name}.{ending}")));
        command.stdout(File::create(&out).unwrap()).stderr(File::create(&errors).unwrap());
        let child = command.spawn().unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { name: name.to_owned(), child, out, errors }
    }

    /// What it said on standard error.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.errors).unwrap_or_default()).into_owned()
    }

    /// Waits until `done`; the process must not end meanwhile.
    pub fn wait_until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !done(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended before {what}: {}", self.name, self.said());
            assert!(Instant::now() < end, "{} is not {what} in time: {}", self.name, self.said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Asks it to end by `signal` and waits.
    pub fn stop(&mut self, signal: Signal) -> ExitStatus {
        // One that has ended by itself cannot be signalled; its status says how it ended.
        let _ = kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal);
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("{} does not end: {}", self.name, self.said());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
