//! What `cargo xtask bench memory` starts: a million concurrent connections, a tenth of them with a head that is cut, and
//! what they cost in the kernel's maps and in user space.
//!
//! Each part runs in a process of its own, so that its peak is its own. Exit code 1 when a bound is exceeded: the tables
//! must hold no more entries than configured, every entry no more bytes than stated here, and what was evicted must be
//! what is missing.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod host;
mod kernel;
mod load;
mod slow;

use std::env;
use std::error::Error;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use sensor::config;
use sensor::config::model::Config;

#[derive(Parser)]
struct Args {
    /// Connections that are open at once
    #[arg(long, default_value_t = 1_000_000)]
    connections: u32,
    /// The bound `flows`
    #[arg(long, default_value_t = 1_048_576)]
    flows: u32,
    /// The bound `split_heads`
    #[arg(long, default_value_t = 131_072)]
    split_heads: u32,
    /// Only this part, in this process
    #[arg(long)]
    part: Option<Part>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Part {
    /// The BPF object's maps, by test runs (needs root)
    Kernel,
    /// The same parser on the host
    Engine,
    /// The parser on the host, and the slow path
    Slow,
    /// The parser on the host, and the collector with its ledger behind it
    Collector,
}

/// Name, figure, bound.
struct Row(&'static str, u64, Option<u64>);

impl Row {
    fn holds(&self) -> bool {
        self.2.is_none_or(|bound| self.1 <= bound)
    }
}

fn main() -> ExitCode {
    match measure(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench-memory: {error}");
            ExitCode::from(2)
        }
    }
}

fn measure(args: &Args) -> Result<bool, Box<dyn Error>> {
    let Some(part) = args.part else { return all_parts(args) };
    let config = configured(args)?;
    let rows = match part {
        Part::Kernel => kernel::measure(&config, args.connections)?,
        Part::Engine => host::engine(&config, args.connections)?,
        Part::Slow => slow::measure(&config, args.connections)?,
        Part::Collector => host::collector(&config, args.connections)?,
    };
    let mut within = true;
    for row in rows {
        let Row(name, figure, bound) = row;
        let verdict = if row.holds() { "" } else { "  EXCEEDED" };
        let bound = bound.map_or(String::new(), |bound| format!("  of at most {}{verdict}", grouped(bound)));
        println!("{name:<58} {:>15}{bound}", grouped(figure));
        within &= row.holds();
    }
    Ok(within)
}

fn all_parts(args: &Args) -> Result<bool, Box<dyn Error>> {
    let mut within = true;
    for (part, title) in [
        ("kernel", "kernel: the maps"),
        ("engine", "host: the parser"),
        ("slow", "host: parser and slow path, the second part of every cut head first"),
        ("collector", "host: parser, collector and ledger"),
    ] {
        println!("{title}");
        let mut command = Command::new(env::current_exe()?);
        command.args(["--part", part, "--connections", &args.connections.to_string()]);
        command.args(["--flows", &args.flows.to_string(), "--split-heads", &args.split_heads.to_string()]);
        match command.status()?.code() {
            Some(0) => {}
            Some(1) => within = false,
            other => return Err(format!("the part {part} ended with {other:?}").into()),
        }
        println!();
    }
    println!("{}", if within { "every bound holds" } else { "a bound is EXCEEDED" });
    Ok(within)
}

/// The example configuration with the bounds that were asked for.
fn configured(args: &Args) -> Result<Arc<Config>, Box<dyn Error>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../authsensor.toml");
    let mut config = config::load(&file)
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    config.bounds.flows = args.flows;
    config.bounds.split_heads = args.split_heads;
    Ok(Arc::new(config))
}

/// 1234567 as 1,234,567.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_above_its_bound_fails() {
        assert!(Row("x", 7, Some(7)).holds() && Row("x", 7, None).holds());
        assert!(!Row("x", 8, Some(7)).holds());
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
