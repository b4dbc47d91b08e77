//! One run of qemu, and what its serial console said.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use super::init::TELL;
use crate::process::{cannot_start, tool};
use crate::{Failure, Outcome};

/// How long a guest may say nothing. Software emulation (KVM, where there is one, may be nested and hang) boots in seconds;
/// the longest test takes minutes, and several times as many where other work keeps the processors busy. All tests
/// together have no limit: how long they take says more about the machine than about them.
const PATIENCE: Duration = Duration::from_mins(40);
/// Mebibytes: enough for the flow table at its default size.
const MEMORY: &str = "2048";

/// What a guest said.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<String>,
    fell_silent: bool,
}

/// What the tests in a guest came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tests {
    /// How many passed.
    pub passed: usize,
    /// Which failed.
    pub failed: Vec<String>,
    /// Which could not run there, and why.
    pub skipped: Vec<String>,
}

impl Report {
    /// The number of programs that were loaded, or why the run does not count as a success: the probe must have loaded
    /// something, and each of `programs` must have come to its end.
    pub fn verdict(&self, programs: &[String]) -> Result<usize, String> {
        let loaded = self.lines.iter().filter(|line| line.starts_with("loaded: ")).count();
        let failed = self.tests().failed;
        let lost = programs.iter().find(|name| self.told(&format!("ended {name} ")).is_none());
        match (self.told("exit "), lost) {
            _ if !failed.is_empty() => Err(format!("failed: {}", failed.join(", "))),
            (Some("0"), None) if loaded > 0 => Ok(loaded),
            (Some("0"), None) => Err("the probe named no loaded program".to_owned()),
            (Some("0"), Some(lost)) => Err(format!("{lost} did not run")),
            (Some(code), _) => Err(format!("the probe or a test program ended with {code}")),
            (None, _) if self.fell_silent => Err(format!("it said nothing for {} s", PATIENCE.as_secs())),
            (None, _) => Err("the guest ended without a result".to_owned()),
        }
    }

    /// The tests, one by one.
    pub fn tests(&self) -> Tests {
        let told = self.lines.iter().filter_map(|line| line.strip_prefix(TELL)?.trim_start().strip_prefix("skipped "));
        let mut tests = Tests { skipped: told.map(str::to_owned).collect(), ..Tests::default() };
        for (name, result) in self.lines.iter().filter_map(|line| line.strip_prefix("test ")?.rsplit_once(" ... ")) {
            if tests.skipped.iter().any(|skipped| skipped.split(':').next() == Some(name)) && result == "ok" {
                continue;
            }
            match result {
                "ok" => tests.passed += 1,
                "FAILED" => tests.failed.push(name.to_owned()),
                other => tests.skipped.push(format!("{name}: {other}")),
            }
        }
        tests
    }

    /// The kernel's full version.
    pub fn release(&self) -> &str {
        self.told("kernel ").unwrap_or("it did not boot")
    }

    /// Everything on the console.
    pub fn output(&self) -> String {
        self.lines.iter().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "    {line}");
            text
        })
    }

    fn told(&self, what: &str) -> Option<&str> {
        let told = self.lines.iter().filter_map(|line| line.strip_prefix(TELL)?.trim_start().strip_prefix(what));
        told.map(str::trim).next_back()
    }
}

/// Boots a kernel and waits for its end. The console goes to `log` as well, and each line, as it comes, to `hear`.
pub fn boot(root: &Path, kernel: &Path, initramfs: &Path, log: &Path, hear: fn(&str)) -> Outcome<Report> {
    let mut command = Command::new(tool(root, "qemu-system-x86_64").unwrap_or_else(|| "qemu-system-x86_64".into()));
    command
        .args(["-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", MEMORY])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .args(["-append", "console=ttyS0 loglevel=4 panic=-1"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| cannot_start(&command, &error))?;
    let report = watch(&mut child, PATIENCE, hear);
    // It is gone already, unless it fell silent.
    let _ = child.kill();
    let _ = child.wait();
    fs::write(log, report.lines.join("\n"))
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", log.display())))?;
    Ok(report)
}

/// Until the child's end, or until it has said nothing for as long as `patience`.
fn watch(child: &mut Child, patience: Duration, hear: fn(&str)) -> Report {
    let lines = lines_of(child);
    let mut report = Report::default();
    loop {
        match lines.recv_timeout(patience) {
            Ok(line) => {
                hear(&line);
                report.lines.push(line);
            }
            Err(RecvTimeoutError::Disconnected) => return report,
            Err(RecvTimeoutError::Timeout) => {
                report.fell_silent = true;
                return report;
            }
        }
    }
}

/// Both outputs of a process as lines; the channel ends when both do.
fn lines_of(child: &mut Child) -> Receiver<String> {
    let (sender, receiver) = channel();
    let streams: [Option<Box<dyn std::io::Read + Send>>; 2] = [
        child.stdout.take().map(|stream| Box::new(stream) as _),
        child.stderr.take().map(|stream| Box::new(stream) as _),
    ];
    for stream in streams.into_iter().flatten() {
        let sender = sender.clone();
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(lines: &[&str]) -> Report {
        Report { lines: lines.iter().map(ToString::to_string).collect(), fell_silent: false }
    }

    #[test]
    fn only_a_probe_that_loaded_something_and_ended_well_passes() {
        let good = report(&[
            "authsensor-guest: kernel 6.1.0-56-amd64",
            "loaded: ingress verified_insns=9",
            "authsensor-guest: exit 0",
        ]);
        assert_eq!(good.verdict(&[]), Ok(1));
        assert_eq!(good.release(), "6.1.0-56-amd64");
        assert!(report(&["authsensor-guest: exit 0"]).verdict(&[]).is_err());
        assert!(report(&["loaded: ingress", "authsensor-guest: exit 1"]).verdict(&[]).is_err());
        assert!(report(&["loaded: ingress", "Kernel panic - not syncing"]).verdict(&[]).is_err());
    }

    #[test]
    fn a_guest_may_take_its_time_but_not_fall_silent() {
        let patience = Duration::from_secs(2);
        let told = |script: &str| {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let report = watch(&mut child, patience, |_| ());
            let _ = child.kill();
            child.wait().unwrap();
            report
        };
        let slow = told("for line in 1 2 3 4 5; do sleep 0.5; echo $line; done");
        assert_eq!((slow.lines.len(), slow.fell_silent), (5, false));
        let silent = told("echo begun; exec sleep 60");
        assert_eq!((silent.lines.len(), silent.fell_silent), (1, true));
        assert!(silent.verdict(&[]).unwrap_err().contains("said nothing"));
    }

    #[test]
    fn tests_are_counted_one_by_one_and_skips_are_not_passes() {
        let lines = [
            "loaded: ingress",
            "running 3 tests",
            "test one ... ok",
            "test two::three ... ok",
            "test four ... ignored, takes an hour",
            "authsensor-guest: ended kernel_a 0",
            "authsensor-guest: skipped one: this kernel has no TCX",
            "authsensor-guest: exit 0",
        ];
        let tests = report(&lines).tests();
        assert_eq!((tests.passed, tests.failed.len()), (1, 0));
        assert_eq!(tests.skipped, ["one: this kernel has no TCX", "four: ignored, takes an hour"]);
        let (a, b) = ("kernel_a".to_owned(), "kernel_b".to_owned());
        assert_eq!(report(&lines).verdict(std::slice::from_ref(&a)), Ok(1));
        assert_eq!(report(&lines).verdict(&[a, b]), Err("kernel_b did not run".to_owned()));
        let failed = report(&["loaded: ingress", "test one ... FAILED", "authsensor-guest: exit 101"]);
        assert_eq!(failed.verdict(&[]), Err("failed: one".to_owned()));
    }
}
