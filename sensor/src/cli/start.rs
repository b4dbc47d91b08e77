//! What every command that runs the pipeline begins with: configuration, rules, keys.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sensor_ebpf::siphash::Key;

use crate::capture::file::CaptureError;
use crate::capture::kernel::KernelError;
use crate::capture::tables::TablesError;
use crate::cli::interface::InterfaceError;
use crate::cli::issuer::IssuerError;
use crate::collect::Keys;
use crate::config::model::Config;
use crate::config::{self, Diagnostic};
use crate::detect::{self, RuleError, RuleSet};
use crate::finding::sink::SinkError;
use crate::ledger::StoreError;
use crate::metrics::{BindError, MetricsError};
use crate::object::Stubbed;
use crate::pipeline::PipelineError;
use crate::push::PushError;
use crate::trace::TraceError;

/// Why a command ended early: every variant's text is one paragraph that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// Mistakes in the configuration.
    #[error("{}", listed(.0))]
    Config(Vec<Diagnostic>),
    /// Mistakes in rules.
    #[error("{}", listed(.0))]
    Rules(Vec<RuleError>),
    /// Mistakes in issuances to be imported.
    #[error("{}", listed(.0))]
    Import(Vec<Diagnostic>),
    /// A file of issuances cannot be read.
    #[error("cannot read {0}: {1}. Name a file of issuances, or - for standard input")]
    Issuances(PathBuf, io::Error),
    /// `ledger` with a configuration whose ledger is in memory.
    #[error(
        "the configuration {0} keeps its ledger in memory, so there is nothing to import into or to show. Name a folder in `ledger.store`"
    )]
    NoFolder(PathBuf),
    /// `replay` without anything to look at.
    #[error("`replay` needs services to look at: name a configuration with --config, or add --all-tcp")]
    NothingToReplay,
    /// A key could not be drawn.
    #[error("cannot draw a key from /dev/urandom: {0}")]
    Random(io::Error),
    /// The file for transactions cannot be opened for appending.
    #[error(
        "cannot open the transactions file {path}: {source}. Name another with --transactions, or correct the permissions of its directory."
    )]
    Transactions {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The operating system refused something without which nothing runs.
    #[error("cannot {0}: {1}")]
    System(&'static str, io::Error),
    /// See [`CaptureError`].
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// See [`TablesError`].
    #[error(transparent)]
    Tables(#[from] TablesError),
    /// See [`KernelError`].
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// See [`TraceError`].
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// See [`SinkError`].
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// See [`StoreError`].
    #[error(transparent)]
    Ledger(#[from] StoreError),
    /// See [`PipelineError`].
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// See [`BindError`].
    #[error(transparent)]
    Bind(#[from] BindError),
    /// See [`PushError`].
    #[error(transparent)]
    Push(#[from] PushError),
    /// See [`MetricsError`].
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    /// See [`IssuerError`].
    #[error(transparent)]
    Issuer(#[from] IssuerError),
    /// See [`InterfaceError`].
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// See [`Stubbed`].
    #[error(transparent)]
    Stubbed(#[from] Stubbed),
}

impl CliError {
    /// True for what breaks a program that had started; false for what nothing was started with.
    pub fn is_of_running(&self) -> bool {
        matches!(self, Self::Pipeline(PipelineError::Sink(_) | PipelineError::Transactions(_)) | Self::System(..))
    }
}

fn listed<T: std::fmt::Display>(mistakes: &[T]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// A checked start.
pub struct Start {
    /// The configuration.
    pub config: Arc<Config>,
    /// What is allowed but should be known.
    pub warnings: Vec<Diagnostic>,
    /// The rules.
    pub rules: RuleSet,
}

/// Reads the configuration at `path` and its rules.
pub fn read(path: &Path) -> Result<Start, CliError> {
    let report = config::examine(path);
    let Some(config) = report.config.filter(|_| report.errors.is_empty()) else {
        return Err(CliError::Config(report.errors));
    };
    let rules = detect::load(&config.rules, &config).map_err(CliError::Rules)?;
    Ok(Start { config: Arc::new(config), warnings: report.warnings, rules })
}

/// A start without a configuration file, for `--all-tcp`.
pub fn without_file() -> Result<Start, CliError> {
    let mut config = config::defaults().ok_or(CliError::NothingToReplay)?;
    config.rules = Vec::<PathBuf>::new();
    // A capture ends by itself; until then a request may be answered.
    config.bounds.unanswered_after = Duration::from_hours(24);
    Ok(Start { config: Arc::new(config), warnings: Vec::new(), rules: RuleSet::default() })
}

/// The keys of the configuration; those it does not name are drawn.
pub fn drawn_keys(config: &Config) -> Result<Keys, CliError> {
    Ok(Keys { fingerprint: key_or_drawn(config.keys.fingerprint)?, account: key_or_drawn(config.keys.account)? })
}

fn key_or_drawn(given: Option<[u8; 16]>) -> Result<Key, CliError> {
    let mut bytes = [0; 16];
    match given {
        Some(key) => bytes = key,
        None => {
            File::open("/dev/urandom")
                .and_then(|mut source| source.read_exact(&mut bytes))
                .map_err(CliError::Random)?;
        }
    }
    Ok(Key::from_bytes(&bytes))
}

/// The keys of the configuration; those it does not name are fixed, because the same capture must give the same
/// findings, byte for byte.
pub fn fixed_keys(config: &Config) -> Keys {
    let fixed = |given: Option<[u8; 16]>, own: &[u8; 16]| Key::from_bytes(given.as_ref().unwrap_or(own));
    Keys {
        fingerprint: fixed(config.keys.fingerprint, b"authsensorreplay"),
        account: fixed(config.keys.account, b"authsensor accnt"),
    }
}
