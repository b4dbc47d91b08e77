//! One run of qemu, and what its serial console said.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::init::TELL;
use crate::process::{cannot_start, tool};
use crate::{Failure, Outcome};

/// Software emulation (KVM, where there is one, may be nested and hang) boots in half a minute; verifying large programs takes as long again.
const PATIENCE: Duration = Duration::from_mins(10);
/// Enough for the flow table at its default size.
const MEMORY: &str = "2048";

/// What a guest said.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<String>,
    timed_out: bool,
}

impl Report {
    /// The number of programs that were loaded, or why the run does not count as a success.
    pub fn verdict(&self) -> Result<usize, String> {
        let loaded = self.lines.iter().filter(|line| line.starts_with("loaded: ")).count();
        match self.told("exit") {
            Some("0") if loaded > 0 => Ok(loaded),
            Some("0") => Err("the probe named no loaded program".to_owned()),
            Some(code) => Err(format!("the probe ended with {code}")),
            None if self.timed_out => Err(format!("no result within {} s", PATIENCE.as_secs())),
            None => Err("the guest ended without a result".to_owned()),
        }
    }

    /// The kernel's full version.
    pub fn release(&self) -> &str {
        self.told("kernel").unwrap_or("it did not boot")
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

/// Boots a kernel and waits for its end. The console goes to `log` as well.
pub fn boot(root: &Path, kernel: &Path, initramfs: &Path, log: &Path) -> Outcome<Report> {
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
    let report = watch(&mut child);
    // It is gone already, unless it ran out of time.
    let _ = child.kill();
    let _ = child.wait();
    fs::write(log, report.lines.join("\n"))
        .map_err(|error| Failure::Failed(format!("cannot write {}: {error}", log.display())))?;
    Ok(report)
}

fn watch(child: &mut Child) -> Report {
    let lines = lines_of(child);
    let end = Instant::now() + PATIENCE;
    let mut report = Report::default();
    loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => report.lines.push(line),
            Err(RecvTimeoutError::Disconnected) => return report,
            Err(RecvTimeoutError::Timeout) => {
                report.timed_out = true;
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
        Report { lines: lines.iter().map(ToString::to_string).collect(), timed_out: false }
    }

    #[test]
    fn only_a_probe_that_loaded_something_and_ended_well_passes() {
        let good = report(&[
            "authsensor-guest: kernel 6.1.0-56-amd64",
            "loaded: ingress verified_insns=9",
            "authsensor-guest: exit 0",
        ]);
        assert_eq!(good.verdict(), Ok(1));
        assert_eq!(good.release(), "6.1.0-56-amd64");
        assert!(report(&["authsensor-guest: exit 0"]).verdict().is_err());
        assert!(report(&["loaded: ingress", "authsensor-guest: exit 1"]).verdict().is_err());
        assert!(report(&["loaded: ingress", "Kernel panic - not syncing"]).verdict().is_err());
    }
}
