//! `authsensor`, the command line: arguments in, exit codes out. 0 done; 1 something broke while running; 2 it could not
//! start, and the text says what to change.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sensor::cli::issuer::{Approve, approve};
use sensor::cli::start::CliError;
use sensor::cli::{check, issuer, ledger, observe, probe, replay, routes, run};

/// Finds accounts being read with tokens that no login ever issued.
#[derive(Parser)]
#[command(name = "authsensor", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Watch this machine's interfaces
    Run {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
        /// An interface to watch; may be repeated [default: that of the configuration, else of the default route]
        #[arg(long, value_name = "IF")]
        interface: Vec<String>,
        /// Also append every HTTP transaction to this file, a line of JSON each
        #[arg(long, value_name = "FILE")]
        transactions: Option<PathBuf>,
    },
    /// Run the same pipeline over capture files (pcap, pcapng), or over traces (one HTTP transaction a line, JSON)
    Replay {
        /// The configuration (not needed with --all-tcp) [default with --observations: authsensor.toml]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Traces instead of capture files, in order; `-` is standard input
        #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["all_tcp", "files"])]
        observations: Vec<PathBuf>,
        /// Of traces: the ledger counts as complete since before the first line
        #[arg(long, requires = "observations")]
        warm: bool,
        /// Print every HTTP transaction as a line of JSON
        #[arg(long)]
        transactions: bool,
        /// Treat every TCP flow as a candidate
        #[arg(long)]
        all_tcp: bool,
        /// Capture files, in order
        #[arg(required_unless_present = "observations", value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Check configuration and rules: every mistake at once
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
    },
    /// Show the routes observed in capture files, with their outcomes
    Routes {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
        /// Capture files, in order
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// How much of each issuer's issuing is seen, and what is approved of it
    Issuer {
        #[command(subcommand)]
        command: IssuerCommand,
    },
    /// Look into the ledger's folder, or add issuances to it (the daemon must not have it open)
    Ledger {
        #[command(subcommand)]
        command: LedgerCommand,
    },
    /// Load the BPF object into this kernel without attaching it
    #[command(hide = true)]
    Probe,
}

#[derive(Subcommand)]
enum IssuerCommand {
    /// Show every declared issuer with what the running sensor measured
    List {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
        /// Address of the running sensor's metrics [default: that of the configuration]
        #[arg(long, value_name = "ADDRESS:PORT")]
        metrics: Option<SocketAddr>,
    },
    /// Confirm that all of an issuer's issuing is seen: from then on its unknown credentials are called unissued
    Approve {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
        /// Who approves
        #[arg(long, value_name = "NAME")]
        by: String,
        /// The share of newly used credentials whose issuance was seen [default: as measured]
        #[arg(long, value_name = "SHARE")]
        sight: Option<f64>,
        /// Most distinct credentials that may be older than the ledger [default: as measured, half again and a hundred]
        #[arg(long, value_name = "NUMBER")]
        preexisting: Option<u64>,
        /// Address of the running sensor's metrics [default: that of the configuration]
        #[arg(long, value_name = "ADDRESS:PORT")]
        metrics: Option<SocketAddr>,
        /// The service
        service: String,
        /// The issuer
        issuer: String,
    },
}

#[derive(Subcommand)]
enum LedgerCommand {
    /// Add issuances: all of them, or none when there is a mistake
    Import {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
        /// The lines are raw credentials (and, after a tab, the account); they are fingerprinted and wiped
        #[arg(long, requires = "service", requires = "expires")]
        raw: bool,
        /// With --raw: the service that the credentials are for
        #[arg(long, value_name = "NAME", requires = "raw")]
        service: Option<String>,
        /// With --raw: who issued them
        #[arg(long, value_name = "NAME", requires = "raw")]
        issuer: Option<String>,
        /// With --raw: when they end, in seconds since 1970 or as 2026-01-31T09:00:00Z
        #[arg(long, value_name = "TIME", requires = "raw")]
        expires: Option<String>,
        /// The issuances, a line of JSON each; - is standard input
        #[arg(value_name = "FILE", default_value = "-")]
        file: PathBuf,
    },
    /// Print every issuance as a line of JSON: fingerprints and hashes, nothing raw
    Export {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
    },
    /// Print counts, sizes, horizon and gaps
    Stats {
        /// The configuration
        #[arg(long, value_name = "FILE", default_value = "authsensor.toml")]
        config: PathBuf,
    },
}

fn ledger(command: LedgerCommand) -> Result<(), CliError> {
    match command {
        LedgerCommand::Import { config, raw, service, issuer, expires, file } => {
            let raw = raw.then(|| ledger::Raw {
                service: service.unwrap_or_default(),
                issuer,
                expires: expires.unwrap_or_default(),
            });
            ledger::import(&config, &file, raw.as_ref())
        }
        LedgerCommand::Export { config } => ledger::export(&config),
        LedgerCommand::Stats { config } => ledger::stats(&config),
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::level_filters::LevelFilter::WARN.into())
                .from_env_lossy(),
        )
        .init();
    let outcome = match Cli::parse().command {
        Command::Run { config, interface, transactions } => run::run(&config, &interface, transactions.as_deref()),
        Command::Replay { config, observations, warm, transactions, .. } if !observations.is_empty() => {
            let config = config.unwrap_or_else(|| PathBuf::from("authsensor.toml"));
            observe::run(&observe::Observe { config, files: observations, transactions, warm })
        }
        Command::Replay { config, transactions, all_tcp, files, .. } => {
            replay::run(&replay::Replay { config, files, transactions, all_tcp })
        }
        Command::Check { config } => return check::run(&config),
        Command::Routes { config, files } => routes::run(config, files),
        Command::Issuer { command: IssuerCommand::List { config, metrics } } => issuer::list(&config, metrics),
        Command::Issuer {
            command: IssuerCommand::Approve { config, by, sight, preexisting, metrics, service, issuer },
        } => {
            let today = issuer::today();
            approve(&Approve { config, service, issuer, by, sight, preexisting, metrics, today })
        }
        Command::Ledger { command } => ledger(command),
        Command::Probe => probe::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("authsensor: {error}");
            ExitCode::from(if error.is_of_running() { 1 } else { check::UNUSABLE })
        }
    }
}
