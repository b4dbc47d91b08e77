//! The daemon as operators run it: in the server's namespace, for as long as the test needs it.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::net::{Net, SERVER_END};

/// Said once it watches.
pub const WATCHES: &str = "\nmetrics ";

/// Gone when the value is dropped, also by a panic.
pub struct Daemon {
    child: Child,
    /// Reads on, so that it never waits for a reader; gives all that it said.
    said: Option<JoinHandle<String>>,
}

impl Daemon {
    /// Watches the server's end with the configuration of `folder`; `words` are further arguments. Returns once it said
    /// `ready`.
    pub fn start(net: &Net, folder: &Path, words: &[&str], ready: &str) -> Self {
        let mut child = Command::new("ip")
            .args(["netns", "exec", &net.server, env!("CARGO_BIN_EXE_authsensor"), "run", "--interface", SERVER_END])
            .args(words)
            .current_dir(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        // Made first: what fails from here on ends the daemon.
        let mut daemon = Self { child, said: None };
        let mut said = String::new();
        while !said.contains(ready) {
            assert!(errors.read_line(&mut said).unwrap() > 0, "the daemon ended before it was ready: {said}");
        }
        daemon.said = Some(thread::spawn(move || {
            errors.read_to_string(&mut said).unwrap();
            said
        }));
        daemon
    }

    /// Ends it by `signal`: its exit code, or none if the signal killed it, and all that it said.
    pub fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        // `ip netns exec` replaces itself by the program, so this is its process.
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        let status = self.child.wait().unwrap();
        let said = self.said.take().unwrap().join().unwrap();
        assert_eq!(status.code().is_none(), status.signal() == Some(Signal::SIGKILL as i32));
        (status.code(), said)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After a failed assertion; one that ended already cannot be killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
