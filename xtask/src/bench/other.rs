//! The bench's object of another revision.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bpf_build::{Messages, Object, Toolchain};

use crate::process::{run_shown, said};
use crate::{Failure, Outcome};

/// The object that `what` names: a file, or a revision, which is built with this one's compiler and flags in a worktree
/// below `target/against`. Beside a built one stands `NAME.counters`: what that revision counts, in its order.
pub fn object(root: &Path, toolchain: &Toolchain, what: &str) -> Outcome<PathBuf> {
    let file = Path::new(what);
    if file.is_file() {
        return fs::canonicalize(file).map_err(|error| Failure::Failed(format!("{what}: {error}")));
    }
    let revision = format!("{what}^{{commit}}");
    let commit = said(git(root).args(["rev-parse", "--verify", "--quiet", "--end-of-options"]).arg(&revision));
    let commit = commit.map(|text| text.trim().to_owned()).filter(|commit| !commit.is_empty());
    let commit = commit.ok_or_else(|| Failure::Missing(format!("{what} is neither a file nor a revision.")))?;
    let against = bpf_build::target_dir(root).join("against");
    let tree = Tree::new(root, against.join("tree"), &commit)?;
    let built = bpf_build::build_into(&tree.path, &against, toolchain, Messages::Shown, Object::Bench)
        .map_err(|error| Failure::Failed(format!("{what}: {error}")))?;
    let cannot = |error: std::io::Error| Failure::Failed(format!("cannot keep the object of {what}: {error}"));
    let object = against.join(format!("{commit}.o"));
    fs::copy(built, &object).map_err(cannot)?;
    let source = fs::read_to_string(tree.path.join("sensor-ebpf/src/reason.rs")).map_err(cannot)?;
    fs::write(object.with_extension("counters"), counters(&source).join("\n")).map_err(cannot)?;
    Ok(object)
}

/// The labels in the `counters!` list of `reason.rs`, in order: `    /// Doc.` and `    Name = "label",` by turns.
fn counters(source: &str) -> Vec<&str> {
    let list = source.split("\ncounters! {").nth(1).unwrap_or_default().split("\n}").next().unwrap_or_default();
    let lines = list.lines().filter_map(|line| line.trim().strip_suffix("\",")?.split_once(" = \""));
    lines.filter(|(name, _)| !name.starts_with("//")).map(|(_, label)| label).collect()
}

fn git(root: &Path) -> Command {
    let mut command = Command::new("git");
    command.arg("-C").arg(root);
    command
}

/// A worktree, gone when dropped.
struct Tree<'a> {
    root: &'a Path,
    path: PathBuf,
}

impl<'a> Tree<'a> {
    fn new(root: &'a Path, path: PathBuf, commit: &str) -> Outcome<Self> {
        let tree = Self { root, path };
        // What a killed run left.
        tree.remove();
        run_shown(git(root).args(["worktree", "add", "--quiet", "--detach", "--force"]).arg(&tree.path).arg(commit))?;
        Ok(tree)
    }

    fn remove(&self) {
        let _ = git(self.root)
            .args(["worktree", "remove", "--force", "--force"])
            .arg(&self.path)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for Tree<'_> {
    fn drop(&mut self) {
        self.remove();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_the_source_in_their_order() {
        let source = fs::read_to_string(crate::root().join("sensor-ebpf/src/reason.rs")).unwrap();
        let labels = counters(&source);
        assert_eq!(labels.first(), Some(&"seen"));
        assert!(labels.len() > 20, "{labels:?}");
        let list =
            "macro\ncounters! {\n    /// A = \"b\",\n    One = \"one\",\n\n    Two = \"two\",\n}\n    X = \"x\",\n";
        assert_eq!(counters(list), ["one", "two"]);
        assert!(counters("nothing").is_empty());
    }
}
