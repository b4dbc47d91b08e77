//! However the daemon ends, nothing of it stays on the interface.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};

use aya::programs::{SchedClassifier, TcAttachType};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::net::{Net, SERVER_END, inside};
use support::shop;

/// The daemon in the server's namespace, once it said that it watches.
struct Daemon {
    child: Child,
    errors: BufReader<std::process::ChildStderr>,
}

impl Daemon {
    fn start(net: &Net, folder: &std::path::Path) -> Self {
        let metrics = "rules = []\nmetrics.listen = \"127.0.0.1:9464\"\n";
        fs::write(folder.join("authsensor.toml"), format!("{metrics}{}", shop::CONFIG)).unwrap();
        let mut child = Command::new("ip")
            .args(["netns", "exec", &net.server, env!("CARGO_BIN_EXE_authsensor"), "run", "--interface", SERVER_END])
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.starts_with("metrics ") {
            line.clear();
            assert!(errors.read_line(&mut line).unwrap() > 0, "the daemon ended before it watched");
        }
        Self { child, errors }
    }

    /// Ends it by `signal`: its exit code, or none if the signal killed it, and what it said last.
    fn end(mut self, signal: Signal) -> (Option<i32>, String) {
        // `ip netns exec` replaces itself by the program, so this is its process.
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        let status = self.child.wait().unwrap();
        let mut said = String::new();
        self.errors.read_to_string(&mut said).unwrap();
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

fn attached(net: &Net) -> Vec<u32> {
    inside(&net.server, || {
        let ids = |way| SchedClassifier::query_tcx(SERVER_END, way).unwrap().1.into_iter().map(|program| program.id());
        ids(TcAttachType::Ingress).chain(ids(TcAttachType::Egress)).collect()
    })
}

#[test]
fn nothing_is_left_attached_however_the_daemon_ends() {
    let name = "nothing_is_left_attached_however_the_daemon_ends";
    if !support::kernel(name) {
        return;
    }
    if !aya::util::KernelVersion::current().is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0)) {
        support::skip(name, "this kernel has no TCX to ask what is attached");
        return;
    }
    let net = Net::new();
    let folder = tempfile::tempdir().unwrap();
    for (signal, code) in [(Signal::SIGINT, Some(0)), (Signal::SIGTERM, Some(0)), (Signal::SIGKILL, None)] {
        let daemon = Daemon::start(&net, folder.path());
        let programs = attached(&net);
        assert_eq!(programs.len(), 2, "{signal}");
        let (ended, said) = daemon.end(signal);
        assert_eq!(ended, code, "{signal}: {said}");
        assert_eq!(said.contains("nothing is left attached"), code.is_some(), "{signal}: {said}");
        assert!(attached(&net).is_empty(), "{signal}");
        support::programs::assert_unloaded(&programs);
    }
}
