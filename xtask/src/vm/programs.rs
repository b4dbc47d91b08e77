//! The kernel tests' programs and what they start, ready for the guest.

use std::fs;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::process::{cannot_start, cargo, said, tool};
use crate::{Failure, Outcome, test};

/// What the tests start; `xtask setup --vm` installs it.
const TOOLS: [&str; 3] = ["ip", "tc", "ethtool"];

/// Builds `sensor/tests/kernel_*`; their names, and copies without debug information below `vm`.
pub fn tests(root: &Path, vm: &Path) -> Outcome<Vec<(String, PathBuf)>> {
    let names: Vec<String> = test::test_targets(root)?.into_iter().filter(|name| name.starts_with("kernel_")).collect();
    let mut command = cargo(root);
    command.args(["test", "--package", "sensor", "--no-run", "--message-format", "json-render-diagnostics"]);
    command.args(names.iter().flat_map(|name| ["--test", name.as_str()]));
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(&command, &error))?;
    let mut messages = String::new();
    let read = child.stdout.take().map(|stdout| BufReader::new(stdout).read_to_string(&mut messages));
    let status = child.wait().map_err(|error| cannot_start(&command, &error))?;
    if !status.success() || !matches!(read, Some(Ok(_))) {
        return Err(Failure::Failed(format!("the kernel tests did not build ({status})")));
    }
    let built = messages.lines().filter_map(executable);
    Ok(built.map(|(name, file)| (name.clone(), stripped(file, vm.join(name)))).collect())
}

/// The test program that a message of cargo's is about.
fn executable(message: &str) -> Option<(String, PathBuf)> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    let target = message.get("target")?;
    let is_test = target.get("kind")?.as_array()?.iter().any(|kind| kind == "test");
    let name = target.get("name")?.as_str()?.to_owned();
    is_test.then_some(())?;
    Some((name, message.get("executable")?.as_str()?.into()))
}

/// A copy without debug information, which is most of a test program and would fill the guest's memory; the file itself
/// where there is no `strip`.
fn stripped(file: PathBuf, to: PathBuf) -> PathBuf {
    let _ = fs::remove_file(&to);
    if said(Command::new("strip").arg("-o").arg(&to).arg(&file)).is_some() { to } else { file }
}

/// The tools' programs here.
pub fn tools(root: &Path) -> Outcome<Vec<PathBuf>> {
    let find = |name: &&str| tool(root, name).ok_or_else(|| Failure::Missing(format!("{name} is not on PATH.")));
    TOOLS.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_test_programs_are_taken_from_cargos_messages() {
        let test = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"kernel_x"},"executable":"/a/b"}"#;
        assert_eq!(executable(test), Some(("kernel_x".to_owned(), PathBuf::from("/a/b"))));
        let program = r#"{"target":{"kind":["bin"],"name":"authsensor"},"executable":"/a/c"}"#;
        assert_eq!(executable(program), None);
        assert_eq!(executable(r#"{"reason":"build-finished","success":true}"#), None);
    }
}
