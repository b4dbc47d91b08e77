//! Child processes, one a job, and the folder of their results. A result is written whole or not at all, so that a run
//! that was interrupted goes on where it stopped.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::Failed;
use crate::jobs::Job;
use crate::line::{Kept, Line};

/// Where the result of a job stands.
fn file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.json"))
}

/// True when `job` has a result, of the same scenario, size and rules.
pub fn done(folder: &Path, job: &Job) -> bool {
    let text = fs::read_to_string(file(folder, &job.name)).unwrap_or_default();
    serde_json::from_str::<Kept>(&text).is_ok_and(|kept| kept.inputs == job.inputs)
}

/// Every result in `folder`, by the name of its job.
///
/// # Errors
/// One is of another shape.
pub fn results(folder: &Path) -> Result<BTreeMap<String, Kept>, Failed> {
    let mut results = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(next) = left.pop() {
        let Ok(list) = fs::read_dir(&next) else { continue };
        for entry in list {
            let path = entry?.path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path)?;
                let kept: Kept = serde_json::from_str(&text).map_err(|error| {
                    format!("{}: not a result of this program ({error}): remove it and run again", path.display())
                })?;
                let name = path.strip_prefix(folder)?.with_extension("").to_string_lossy().into_owned();
                results.insert(name, kept);
            }
        }
    }
    Ok(results)
}

/// Does `jobs`, so many at a time.
///
/// # Errors
/// The simulator cannot be built, or jobs failed: then the others were done all the same.
pub fn all(folder: &Path, jobs: &[Job], at_a_time: usize) -> Result<(), Failed> {
    let simulator = simulator()?;
    let (next, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let failed = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..at_a_time {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let came = one(&simulator, folder, job);
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    match came {
                        Ok(line) => {
                            let by = line.detected_by.as_deref().unwrap_or("no detection");
                            println!("{done} of {}: {}: {by}", jobs.len(), job.name);
                        }
                        Err(error) => {
                            eprintln!("{done} of {}: {}: {error}", jobs.len(), job.name);
                            failed.lock().iter_mut().for_each(|list| list.push(job.name.clone()));
                        }
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap_or_default();
    if failed.is_empty() { Ok(()) } else { Err(format!("failed: {}", failed.join(", ")).into()) }
}

/// Builds the simulator as this program was built, and says where it is.
fn simulator() -> Result<PathBuf, Failed> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--package", "benches", "--bin", "simulate"]);
    if !cfg!(debug_assertions) {
        build.arg("--release");
    }
    if !build.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success() {
        return Err("the simulator was not built".into());
    }
    Ok(std::env::current_exe()?.with_file_name("simulate"))
}

fn one(simulator: &Path, folder: &Path, job: &Job) -> Result<Line, Failed> {
    let path = file(folder, &job.name);
    let inputs = &job.inputs;
    fs::create_dir_all(path.parent().ok_or("no folder")?)?;
    // The simulator names a scenario by its file.
    let scenario = path.with_extension("toml");
    fs::write(&scenario, &inputs.scenario)?;
    let mut command = Command::new(simulator);
    command.arg(&scenario).args(["--seed", &inputs.seed.to_string(), "--members", &inputs.members.to_string()]);
    if inputs.baselines {
        command.arg("--baselines");
    }
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into());
    }
    let line = Line::read(&String::from_utf8(output.stdout)?)?;
    fs::remove_file(&scenario)?;
    let text = serde_json::to_string(&Kept { inputs: inputs.clone(), line: line.clone() })?;
    let unfinished = path.with_extension("new");
    fs::write(&unfinished, text + "\n")?;
    fs::rename(unfinished, path)?;
    Ok(line)
}
