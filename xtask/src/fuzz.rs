//! `cargo xtask fuzz`: fuzz targets under libFuzzer, one summary line each, and the invariance property at length.
//!
//! Targets are the programs in `fuzz/fuzz_targets`; what they do stands in `fuzz/targets`. They are built by cargo-fuzz with
//! nightly Rust and started directly, so that their output goes to a log and only its result to the terminal. What they learn
//! is kept in `fuzz/corpus`, what breaks them in `fuzz/artifacts`; neither is checked in.

use std::collections::VecDeque;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::process::{cannot_start, cargo, nightly, run_shown};
use crate::{Failure, Outcome, setup};

/// The property that is run beside the targets, under this name.
const INVARIANCE: &str = "invariance";
/// Its test program, in the `sensor` package.
const INVARIANCE_TEST: &str = "sensor/tests/invariance.rs";
/// Targets whose inputs are text, for which there is a dictionary.
const TEXT: [&str; 5] = ["capture", "head", "http", "jwt", "proxy"];
/// What cargo-fuzz builds for.
fn triple() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// What to fuzz.
#[derive(clap::Args)]
pub struct Args {
    /// Targets of `fuzz/fuzz_targets`, or `invariance` [default: all]
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
    /// How long each target is fuzzed
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Targets that run at the same time
    #[arg(long, value_name = "N", default_value_t = 1)]
    jobs: usize,
    /// Conversations of the invariance property
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    cases: u64,
}

/// Runs the command.
pub fn run(root: &Path, args: &Args) -> Outcome {
    let known = targets(root)?;
    let wanted = if args.targets.is_empty() { known.clone() } else { args.targets.clone() };
    if let Some(unknown) = wanted.iter().find(|name| !known.contains(name)) {
        return Err(Failure::Missing(format!("there is no target {unknown}; there are {}.", known.join(", "))));
    }
    setup::ensure(root, setup::FUZZ)?;
    let place = Place::new(root);
    let fuzzed: Vec<&String> = wanted.iter().filter(|name| *name != INVARIANCE).collect();
    if !fuzzed.is_empty() {
        place.build(fuzzed.as_slice())?;
    }
    if wanted.iter().any(|name| name == INVARIANCE) {
        println!("Building the {INVARIANCE} test …");
        run_shown(place.property().args(["--no-run", "--quiet"]))?;
    }
    let queue: Mutex<VecDeque<&String>> = Mutex::new(wanted.iter().collect());
    let outcomes: Mutex<Vec<bool>> = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs.clamp(1, wanted.len()) {
            scope.spawn(|| {
                while let Some(name) = queue.lock().ok().and_then(|mut queue| queue.pop_front()) {
                    let report =
                        if name == INVARIANCE { place.invariance(args.cases) } else { place.fuzz(name, args.seconds) };
                    println!("{}", report.line(name));
                    if let Ok(mut outcomes) = outcomes.lock() {
                        outcomes.push(report.failure.is_none());
                    }
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_default();
    let clean = outcomes.len() == wanted.len() && outcomes.iter().all(|clean| *clean);
    println!("Logs: {}", place.logs.strip_prefix(root).unwrap_or(&place.logs).display());
    if clean { Ok(()) } else { Err(Failure::Reported) }
}

/// The names of all targets, the invariance property last.
fn targets(root: &Path) -> Outcome<Vec<String>> {
    let directory = root.join("fuzz/fuzz_targets");
    let entries = fs::read_dir(&directory)
        .map_err(|error| Failure::Failed(format!("cannot read {}: {error}", directory.display())))?;
    let stem = |path: PathBuf| path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned);
    let mut names: Vec<String> = entries.flatten().filter_map(|entry| stem(entry.path())).collect();
    names.sort_unstable();
    if root.join(INVARIANCE_TEST).is_file() {
        names.push(INVARIANCE.to_owned());
    }
    Ok(names)
}

/// What a run came to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    executions: u64,
    /// Edges of the code that were reached.
    coverage: u64,
    time: Duration,
    /// What went wrong, and where it is kept.
    failure: Option<String>,
    artifact: Option<String>,
}

impl Report {
    fn failed(what: impl Into<String>) -> Self {
        Self { failure: Some(what.into()), ..Self::default() }
    }

    /// Takes in one line of a fuzzer's output.
    fn take(&mut self, line: &str) {
        if let Some((_, rest)) = line.split_once(" cov: ") {
            self.coverage = number(rest).max(self.coverage);
        }
        if let Some(rest) = line.strip_prefix('#') {
            self.executions = number(rest).max(self.executions);
        }
        if let Some(rest) = line.strip_prefix("stat::number_of_executed_units:") {
            self.executions = number(rest.trim_start());
        }
        if let Some((_, rest)) = line.split_once("Test unit written to ") {
            self.artifact = Some(rest.trim().to_owned());
        }
        // Of several the first says most: what the program itself said.
        let telling = line.contains("panicked at") || line.contains("ERROR: ") || line.starts_with("SUMMARY: ");
        if telling && self.failure.is_none() {
            self.failure = Some(line.trim().to_owned());
        }
    }

    /// The summary line.
    fn line(&self, name: &str) -> String {
        let coverage = if self.coverage == 0 { String::new() } else { format!(", coverage {}", self.coverage) };
        let result = match (&self.failure, &self.artifact) {
            (None, _) => "no finding".to_owned(),
            (Some(what), None) => format!("FAILED: {what}"),
            (Some(what), Some(artifact)) => format!("1 FINDING: {what}; kept in {artifact}"),
        };
        format!("{name:<12} {:>11} executions{coverage}, {} s: {result}", self.executions, self.time.as_secs())
    }
}

/// The number that a text begins with, or 0.
fn number(text: &str) -> u64 {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

/// Where things are.
struct Place {
    root: PathBuf,
    fuzz: PathBuf,
    build: PathBuf,
    logs: PathBuf,
}

impl Place {
    fn new(root: &Path) -> Self {
        let build = bpf_build::target_dir(root).join("fuzz");
        Self { root: root.to_owned(), fuzz: root.join("fuzz"), logs: build.join("logs"), build }
    }

    /// Builds the programs of these targets.
    fn build(&self, names: &[&String]) -> Outcome {
        let Some(mut command) = nightly(&self.root) else {
            return Err(Failure::Missing(
                "there is no nightly Rust; `cargo xtask setup --fuzz` says how to get it.".to_owned(),
            ));
        };
        command.args(["fuzz", "build", "--target-dir"]).arg(&self.build);
        // One is built alone; of several cargo-fuzz knows only "all".
        if let [one] = names {
            command.arg(one);
        }
        println!("Building {} …", if names.len() == 1 { "the target" } else { "the targets" });
        run_shown(command.env(bpf_build::OBJECT_ENV, "stub").env("CARGO_TERM_QUIET", "true"))
    }

    /// Fuzzes one target for so many seconds.
    fn fuzz(&self, name: &str, seconds: u64) -> Report {
        let (corpus, artifacts) = (self.fuzz.join("corpus").join(name), self.fuzz.join("artifacts").join(name));
        for directory in [&corpus, &artifacts] {
            if let Err(error) = fs::create_dir_all(directory) {
                return Report::failed(format!("cannot make {}: {error}", directory.display()));
            }
        }
        let mut command = Command::new(self.build.join(triple()).join("release").join(name));
        command
            .current_dir(&self.root)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            // Bounded memory is part of what is tested: in all, and of one allocation.
            .args([
                "-rss_limit_mb=2048",
                "-malloc_limit_mb=256",
                "-timeout=20",
                "-max_len=16384",
                "-print_final_stats=1",
            ])
            .arg(&corpus)
            .arg(self.fuzz.join("seeds").join(name));
        if TEXT.contains(&name) {
            command.arg(format!("-dict={}", self.fuzz.join("http.dict").display()));
        }
        let started = Instant::now();
        let mut report = self.watch(name, &mut command, Report::take);
        report.time = started.elapsed();
        report
    }

    /// `cargo test` of the invariance property.
    fn property(&self) -> Command {
        let mut command = cargo(&self.root);
        command
            .args(["test", "--release", "--package", "sensor", "--test", INVARIANCE, "--target-dir"])
            .arg(&self.build);
        command.env(bpf_build::OBJECT_ENV, "stub");
        command
    }

    /// Runs the invariance property with so many cases.
    fn invariance(&self, cases: u64) -> Report {
        let mut command = cargo(&self.root);
        command
            .args(["test", "--release", "--package", "sensor", "--test", INVARIANCE, "--target-dir"])
            .arg(&self.build);
        command.env("AUTHSENSOR_CASES", cases.to_string()).env(bpf_build::OBJECT_ENV, "stub");
        let started = Instant::now();
        let mut report = self.watch(INVARIANCE, &mut command, |_, _| {});
        report.time = started.elapsed();
        report.executions = cases;
        report
    }

    /// Runs a command with its output in the log of that name.
    fn watch(&self, name: &str, command: &mut Command, take: impl Fn(&mut Report, &str)) -> Report {
        let path = self.logs.join(format!("{name}.log"));
        let log = fs::create_dir_all(&self.logs).and_then(|()| fs::File::create(&path));
        let Ok(mut log) = log else { return Report::failed(format!("cannot write {}", path.display())) };
        let Ok(out) = log.try_clone() else { return Report::failed(format!("cannot write {}", path.display())) };
        let mut child = match command.stdin(Stdio::null()).stdout(out).stderr(Stdio::piped()).spawn() {
            Ok(child) => child,
            Err(error) => return Report::failed(cannot_start(command, &error).to_string()),
        };
        let mut report = Report::default();
        for line in
            child.stderr.take().into_iter().flat_map(|stderr| BufReader::new(stderr).split(b'\n')).map_while(Result::ok)
        {
            let line = String::from_utf8_lossy(&line);
            // A full disk costs the log, not the run.
            let _ = writeln!(log, "{line}");
            take(&mut report, &line);
        }
        match child.wait() {
            Ok(status) if status.success() => report.failure = None,
            Ok(status) => {
                report.failure.get_or_insert_with(|| format!("it ended with {status}; see {}", path.display()));
            }
            Err(error) => report.failure = Some(error.to_string()),
        }
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_without_a_finding() {
        let mut report = Report::default();
        for line in [
            "INFO: seed corpus: files: 11 min: 70b max: 200b total: 1400b rss: 40Mb",
            "#12\tINITED cov: 903 ft: 2110 corp: 11/1400b exec/s: 0 rss: 50Mb",
            "#4096\tpulse  cov: 1203 ft: 3110 corp: 80/9Kb lim: 260 exec/s: 2048 rss: 60Mb",
            "stat::number_of_executed_units: 123456",
        ] {
            report.take(line);
        }
        report.time = Duration::from_secs(61);
        assert_eq!(report.line("head"), "head              123456 executions, coverage 1203, 61 s: no finding");
    }

    #[test]
    fn a_finding_says_what_and_where() {
        let mut report = Report::default();
        for line in [
            "#77\tNEW    cov: 5 ft: 6 corp: 1/1b",
            "thread '<unnamed>' panicked at fuzz/targets/src/rig.rs:1:2:",
            "==1== ERROR: libFuzzer: deadly signal",
            "artifact_prefix='fuzz/artifacts/head/'; Test unit written to fuzz/artifacts/head/crash-01",
        ] {
            report.take(line);
        }
        let line = report.line("head");
        assert!(line.contains("77 executions, coverage 5"), "{line}");
        assert!(line.contains("1 FINDING: thread '<unnamed>' panicked at fuzz/targets/src/rig.rs:1:2:"), "{line}");
        assert!(line.ends_with("kept in fuzz/artifacts/head/crash-01"), "{line}");
    }
}
