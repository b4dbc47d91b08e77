//! This process under a memory limit, and what memory it has.

use std::fs;
use std::path::{Path, PathBuf};

/// Puts this process into a control group of its own with at most `mib` of memory; says how, or why not.
pub fn limit(mib: u64) -> String {
    let name = format!("bench-ledger.{}", std::process::id());
    let unified = Path::new("/sys/fs/cgroup");
    let controllers = fs::read_to_string(unified.join("cgroup.controllers")).unwrap_or_default();
    let (group, file, version) = if controllers.split_whitespace().any(|controller| controller == "memory") {
        (unified.join(name), "memory.max", 2)
    } else {
        (unified.join("memory").join(name), "memory.limit_in_bytes", 1)
    };
    let put = || {
        fs::create_dir(&group)?;
        fs::write(group.join(file), (mib << 20).to_string())?;
        fs::write(group.join("cgroup.procs"), std::process::id().to_string())
    };
    match put() {
        Ok(()) => format!("control group v{version}, {mib} MiB, page cache included"),
        Err(error) => format!("none ({}: {error})", group.display()),
    }
}

/// Most memory that the control group of this process ever held, MiB.
pub fn peak() -> Option<u64> {
    let name = format!("bench-ledger.{}", std::process::id());
    let root = PathBuf::from("/sys/fs/cgroup");
    let files =
        [root.join(&name).join("memory.peak"), root.join("memory").join(&name).join("memory.max_usage_in_bytes")];
    files.iter().find_map(|file| fs::read_to_string(file).ok()?.trim().parse::<u64>().ok()).map(|bytes| bytes >> 20)
}

/// Anonymous memory of this process, KiB.
pub fn anonymous() -> u64 {
    value("/proc/self/smaps_rollup", "Anonymous:")
}

/// Most resident memory that this process ever had, KiB.
pub fn resident_peak() -> u64 {
    value("/proc/self/status", "VmHWM:")
}

fn value(file: &str, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
