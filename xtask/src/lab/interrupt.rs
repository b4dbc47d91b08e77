//! Ctrl-C: a signal becomes a flag that every wait of the lab looks at, so that the guards on the stack of the main
//! thread take the namespaces and processes down as they do on any failure.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};

use super::error::{Doing, LabError, Result};

static SIGNALS: AtomicU32 = AtomicU32::new(0);

/// Takes SIGINT, SIGTERM and SIGHUP out of their default handling. Call it before the first thread is started:
/// threads inherit the mask.
pub fn install() -> Result<()> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block().doing("blocking signals")?;
    thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while set.wait().is_ok() {
                if SIGNALS.fetch_add(1, Ordering::SeqCst) == 0 {
                    eprintln!("\ninterrupted: taking the lab down …");
                }
            }
        })
        .doing("starting the signal thread")?;
    Ok(())
}

/// An error once a signal came.
pub fn check() -> Result<()> {
    if SIGNALS.load(Ordering::SeqCst) > 0 { Err(LabError::Interrupted) } else { Ok(()) }
}

/// Sleeps, but wakes with an error when a signal comes.
pub fn sleep(time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(Duration::from_millis(50)));
    }
}
