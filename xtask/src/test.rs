//! `cargo xtask test`: every test of the workspace, counted.
//!
//! Unit, property and host tests run as cargo runs them. Test files named `kernel_*` or `e2e_*` load programs into
//! the kernel or set up networks, so their tests run one after the other. A test that cannot run here writes its
//! name to the file that `AUTHSENSOR_SKIPS` names and returns; libtest then calls it passed, and this command takes
//! it out of that count again, names it, and counts it as skipped. With `REQUIRE_KERNEL=1` such a test fails
//! instead. `sensor/tests/support` is the other end of this protocol.

use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::process::{cannot_start, cargo, run_shown, said};
use crate::{Failure, Outcome, build, setup};

/// What to test.
#[derive(clap::Args)]
pub struct Args {
    /// Leave out the tests that need root; they are named and counted as skipped
    #[arg(long)]
    no_kernel: bool,
    /// Arguments for the test programs, such as a filter
    #[arg(last = true)]
    rest: Vec<OsString>,
}

/// Runs the command. Its last line is `N passed, N failed, N skipped`.
pub fn run(root: &Path, args: &Args) -> Outcome {
    check_request(args)?;
    setup::ensure(root, setup::TESTS)?;
    let daemon = build::daemon(root, false)?;
    run_shown(cargo(root).args(["test", "--workspace", "--quiet", "--no-run"]))?;

    let skips = bpf_build::target_dir(root).join("test-skips.txt");
    fs::write(&skips, "").map_err(|error| Failure::Failed(format!("cannot write {}: {error}", skips.display())))?;
    let (serial, parallel): (Vec<_>, Vec<_>) = test_targets(root)?.into_iter().partition(|name| is_serial(name));

    let mut tally = Tally::default();
    let mut step = |what: &[&str], targets: &[String], threads: &[&str]| -> Outcome {
        let mut command = cargo(root);
        command.env("AUTHSENSOR_SKIPS", &skips).args(["test", "--workspace", "--no-fail-fast"]).args(what);
        if args.no_kernel {
            command.env("AUTHSENSOR_NO_KERNEL", "1");
        }
        command.args(targets.iter().flat_map(|name| ["--test", name.as_str()]));
        command.arg("--").args(threads).args(&args.rest);
        count(&mut command, &mut tally)
    };
    step(&["--lib", "--bins"], &parallel, &[])?;
    step(&["--doc"], &[], &[])?;
    if !serial.is_empty() {
        step(&[], &serial, &["--test-threads=1"])?;
    }
    if args.rest.is_empty() {
        lab(args, &daemon, &mut tally)?;
    }
    tally.take_skips(&fs::read_to_string(&skips).unwrap_or_default());
    tally.report()
}

/// The end-to-end test: the whole lab, with the debug daemon (its overflow checks on). Counts as one test.
fn lab(args: &Args, daemon: &Path, tally: &mut Tally) -> Outcome {
    const NAME: &str = "lab (members, rehearsal, attack; counts against nginx; search for raw credentials)";
    if args.no_kernel {
        tally.skipped.push(format!("{NAME}: left out by --no-kernel"));
        return Ok(());
    }
    let own = std::env::current_exe().map_err(|error| Failure::Failed(format!("cannot find this program: {error}")))?;
    let mut command = Command::new(own);
    command.arg("lab").arg("--sensor").arg(daemon);
    let status = command.status().map_err(|error| cannot_start(&command, &error))?;
    if status.success() {
        tally.passed += 1;
    } else {
        tally.failed += 1;
    }
    println!("test {NAME} ... {}", if status.success() { "ok" } else { "FAILED" });
    Ok(())
}

fn check_request(args: &Args) -> Outcome {
    let required = std::env::var_os("REQUIRE_KERNEL").is_some_and(|value| value == "1");
    if args.no_kernel && required {
        return Err(Failure::Missing("--no-kernel contradicts REQUIRE_KERNEL=1; drop one of them.".to_owned()));
    }
    if !args.no_kernel && !nix::unistd::geteuid().is_root() {
        return Err(Failure::Missing(
            "the kernel tests load BPF programs and need root. Run this command as root, or leave them out with \
             `cargo xtask test --no-kernel`."
                .to_owned(),
        ));
    }
    Ok(())
}

fn is_serial(target: &str) -> bool {
    target.starts_with("kernel_") || target.starts_with("e2e_")
}

/// The names of the integration test targets of the workspace.
pub fn test_targets(root: &Path) -> Outcome<Vec<String>> {
    let metadata = said(cargo(root).args(["metadata", "--no-deps", "--format-version", "1"]));
    let metadata: Option<serde_json::Value> = metadata.and_then(|text| serde_json::from_str(&text).ok());
    let packages = metadata.as_ref().and_then(|metadata| metadata.get("packages")?.as_array());
    let packages = packages.ok_or_else(|| Failure::Failed("cargo metadata does not describe the workspace".into()))?;
    let targets = packages.iter().filter_map(|package| package.get("targets")?.as_array()).flatten();
    let is_test = |target: &serde_json::Value| {
        target.get("kind").and_then(|kind| kind.as_array()).is_some_and(|kinds| kinds.iter().any(|kind| kind == "test"))
    };
    let names = targets.filter(|target| is_test(target)).filter_map(|target| target.get("name")?.as_str());
    Ok(names.map(str::to_owned).collect())
}

/// Runs tests with their output shown, and counts.
fn count(command: &mut Command, tally: &mut Tally) -> Outcome {
    let failed_before = tally.failed;
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(command, &error))?;
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line);
            println!("{line}");
            tally.line(&line);
        }
    }
    let status = child.wait().map_err(|error| cannot_start(command, &error))?;
    if !status.success() && tally.failed == failed_before {
        // A test program that crashes has no result line.
        tally.failed += 1;
        println!("xtask: a test program ended without a result ({status})");
    }
    Ok(())
}

/// The sum over all test programs.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    skipped: Vec<String>,
}

impl Tally {
    /// Takes in one line of a test program's output.
    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix("test ").and_then(ignored) {
            self.skipped.push(format!("{name}: marked #[ignore]"));
        }
        let Some(result) = line.strip_prefix("test result: ") else { return };
        let number = |word: &str| {
            let mut counts = result.split([';', '.']).filter_map(|part| part.trim().split_once(' '));
            counts.find(|(_, unit)| *unit == word).and_then(|(count, _)| count.parse::<usize>().ok()).unwrap_or(0)
        };
        self.passed += number("passed");
        self.failed += number("failed");
    }

    /// Takes in the names that tests wrote instead of running.
    fn take_skips(&mut self, names: &str) {
        let names: Vec<_> = names.lines().map(str::to_owned).collect();
        self.passed = self.passed.saturating_sub(names.len());
        self.skipped.extend(names);
    }

    /// Names what was skipped, prints the counts as the last line, and fails if a test failed.
    fn report(&self) -> Outcome {
        println!();
        for name in &self.skipped {
            println!("skipped: {name}");
        }
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped.len());
        if self.failed == 0 { Ok(()) } else { Err(Failure::Reported) }
    }
}

/// The name in `NAME ... ignored` or `NAME ... ignored, REASON`.
fn ignored(rest: &str) -> Option<&str> {
    let (name, result) = rest.rsplit_once(" ... ")?;
    (result == "ignored" || result.starts_with("ignored, ")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_add_up() {
        let mut tally = Tally::default();
        for line in [
            "running 3 tests",
            "test a::b ... ok",
            "test c ... ignored, takes an hour",
            "test result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s",
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 5 filtered out; finished in 1.20s",
        ] {
            tally.line(line);
        }
        tally.take_skips("kernel_load: not root\n");
        let skipped = vec!["c: marked #[ignore]".to_owned(), "kernel_load: not root".to_owned()];
        assert_eq!(tally, Tally { passed: 13, failed: 3, skipped });
        assert!(tally.report().is_err());
    }

    #[test]
    fn a_skip_without_any_pass_does_not_wrap() {
        let mut tally = Tally::default();
        tally.take_skips("x: y\n");
        assert_eq!(tally.passed, 0);
        assert!(tally.report().is_ok());
    }

    #[test]
    fn tests_that_change_the_machine_run_alone() {
        assert!(is_serial("kernel_packets") && is_serial("e2e_lab") && !is_serial("replay"));
    }
}
