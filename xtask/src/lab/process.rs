//! Child processes that live in a namespace and never outlive the lab.
//!
//! A [`Running`] is stopped when it is dropped (SIGTERM, then SIGKILL); should the lab itself be killed, the kernel
//! kills its children.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::Pid;

use super::error::{Doing, LabError, Result, tail};
use super::world::Namespace;

/// How long a process may take to stop when asked.
const STOP_TIME: Duration = Duration::from_secs(5);

/// A running child.
pub struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Starts `command` in `namespace`, its standard error (and output, unless the caller set it) in the file `log`.
///
/// Call it from the main thread: the kernel kills the child when the *thread* that started it ends.
pub fn start(name: &'static str, mut command: Command, namespace: &Namespace, log: &Path) -> Result<Running> {
    let out = File::create(log).doing(format!("creating {}", log.display()))?;
    let err = out.try_clone().doing("duplicating a descriptor")?;
    command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
    let entry = namespace.open()?;
    debug_assert!(entry.as_raw_fd() > 2);
    // SAFETY: the closure runs between fork and exec. It makes three system calls (setns, rt_sigprocmask, prctl)
    // through wrappers that neither allocate nor lock, and builds errors from plain numbers; `entry` is owned by the
    // closure and open. All of that is async-signal-safe.
    unsafe {
        command.pre_exec(move || {
            setns(&entry, CloneFlags::CLONE_NEWNET)?;
            SigSet::all().thread_unblock()?;
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    let child = command.spawn().doing(format!("starting {name}"))?;
    Ok(Running { name, child, log: log.to_owned() })
}

impl Running {
    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The file that holds what it wrote to standard error and output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// An error when it has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait().doing(format!("waiting for {}", self.name))? {
            None => Ok(()),
            Some(status) => {
                Err(LabError::Died { what: self.name, status: status.to_string(), detail: tail(&self.log) })
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let Ok(pid) = i32::try_from(self.child.id()) else { return Ok(()) };
        signal::kill(Pid::from_raw(pid), signal).doing(format!("signalling {}", self.name))
    }

    /// Asks it to stop, waits, and kills it when it does not. Returns its exit status.
    pub fn stop(&mut self, with: Signal) -> Result<ExitStatus> {
        let what = format!("waiting for {}", self.name);
        if let Some(status) = self.child.try_wait().doing(what.as_str())? {
            return Ok(status);
        }
        self.signal(with)?;
        let end = Instant::now() + STOP_TIME;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().doing(what.as_str())? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().doing(format!("killing {}", self.name))?;
        self.child.wait().doing(what)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing is left to be told about a failure here; the namespace goes away with its last process.
        let _ = self.signal(Signal::SIGCONT);
        let _ = self.stop(Signal::SIGTERM);
    }
}

/// Runs a command to its end and returns its output, which is part of the error when it fails.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let command = || format!("{program} {}", arguments.join(" "));
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().doing(command())?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(LabError::Command { command: command(), output: format!("{} {said}", output.status) })
}
