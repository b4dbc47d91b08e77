//! What can stop the lab, each with the word that helps.

use std::io;
use std::path::Path;

/// Why the lab could not be run to its end. A sensor that misses the attack is not an error but a verdict.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces need root.
    #[error("the lab makes network namespaces and loads a BPF program: run it as root")]
    NotRoot,
    /// A program that the lab drives is not installed.
    #[error("`{0}` is not installed; `cargo xtask setup --tests` installs it (Debian package `{1}`)")]
    Missing(&'static str, &'static str),
    /// A command failed.
    #[error("`{command}` failed: {output}")]
    Command {
        /// The command line.
        command: String,
        /// What it said.
        output: String,
    },
    /// Input or output failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// The peer said something that is not HTTP as the lab knows it.
    #[error("not the expected HTTP: {0}")]
    Http(String),
    /// Something did not come up in time.
    #[error("{what} did not come up within {seconds} s{detail}")]
    NotUp {
        /// Which process.
        what: &'static str,
        /// How long was waited.
        seconds: u64,
        /// The end of its log, with a leading separator.
        detail: String,
    },
    /// A process ended that should not have.
    #[error("{what} ended early ({status}){detail}")]
    Died {
        /// Which process.
        what: &'static str,
        /// Its exit status.
        status: String,
        /// The end of its log, with a leading separator.
        detail: String,
    },
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupted,
    /// A thread of the lab panicked.
    #[error("a thread of the lab panicked: {0}")]
    Panicked(&'static str),
}

/// Result of a step of the lab.
pub type Result<T> = std::result::Result<T, LabError>;

/// Says what was being done when input or output failed.
pub trait Doing<T> {
    /// Turns the error into [`LabError::Io`].
    fn doing(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| LabError::Io { what: what.into(), source: source.into() })
    }
}

/// The last lines of a log, as the `detail` of an error; empty when there is none.
pub fn tail(log: &Path) -> String {
    let Ok(bytes) = std::fs::read(log) else { return String::new() };
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    if lines.is_empty() {
        return String::new();
    }
    let lines: Vec<&str> = lines.into_iter().rev().collect();
    format!("; it said:\n  {}", lines.join("\n  "))
}
