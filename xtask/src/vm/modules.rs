//! The kernel modules that the kernel tests need, taken out of a Debian kernel's package.
//!
//! Their dependencies stand in the modules themselves, so no `depmod` is needed: what comes out is a folder of plain
//! modules whose names sort in the order of loading.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A veth pair, both ways of attaching, packet sockets and tagged frames.
const WANTED: [&str; 5] = ["veth", "sch_ingress", "cls_bpf", "af_packet", "8021q"];

/// Copies the wanted modules and all that they depend on from `tree` (`lib/modules/RELEASE`) to `folder`.
pub fn collect(tree: &Path, folder: &Path) -> Result<(), String> {
    let cannot = |error: std::io::Error| format!("cannot write below {}: {error}", folder.display());
    let mut modules = Modules { files: BTreeMap::new(), built_in: built_in(tree), ordered: Vec::new() };
    index(tree, &mut modules.files);
    for name in WANTED {
        modules.take(name)?;
    }
    // A folder that is there is whole.
    let part = folder.with_extension("part");
    let _ = fs::remove_dir_all(&part);
    let _ = fs::remove_dir_all(folder);
    fs::create_dir_all(&part).map_err(cannot)?;
    for (place, (name, bytes)) in modules.ordered.iter().enumerate() {
        fs::write(part.join(format!("{place:02}-{name}.ko")), bytes).map_err(cannot)?;
    }
    fs::rename(&part, folder).map_err(cannot)
}

struct Modules {
    files: BTreeMap<String, PathBuf>,
    built_in: Vec<String>,
    /// Each behind what it depends on.
    ordered: Vec<(String, Vec<u8>)>,
}

impl Modules {
    fn take(&mut self, name: &str) -> Result<(), String> {
        if self.ordered.iter().any(|(known, _)| known == name) || self.built_in.iter().any(|known| known == name) {
            return Ok(());
        }
        let file = self.files.get(name).ok_or_else(|| format!("the kernel has no module {name}"))?;
        let bytes = plain(file)?;
        for needed in dependencies(&bytes) {
            self.take(&needed)?;
        }
        self.ordered.push((name.to_owned(), bytes));
        Ok(())
    }
}

/// What the kernel calls the module in a file, if it is one: `x_y` for `x-y.ko.xz`.
fn name_of(file: &str) -> Option<String> {
    let (stem, packed) = file.rsplit('/').next()?.split_once(".ko")?;
    matches!(packed, "" | ".xz").then(|| stem.replace('-', "_"))
}

fn index(folder: &Path, files: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        // Links lead to the headers, which the package does not have.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            index(&path, files);
        } else if let Some(name) = path.to_str().and_then(name_of) {
            files.insert(name, path);
        }
    }
}

fn built_in(tree: &Path) -> Vec<String> {
    let list = fs::read_to_string(tree.join("modules.builtin")).unwrap_or_default();
    list.lines().filter_map(name_of).collect()
}

/// A module's bytes, unpacked.
fn plain(file: &Path) -> Result<Vec<u8>, String> {
    let cannot = |error: std::io::Error| format!("{}: {error}", file.display());
    if file.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(file).map_err(cannot);
    }
    let output = Command::new("xz").arg("-dc").arg(file).stdin(Stdio::null()).output().map_err(cannot)?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(format!("{}: {}", file.display(), String::from_utf8_lossy(&output.stderr).trim()))
}

/// The names in `depends=` of a module's `.modinfo` section, whose entries end with a NUL.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|part| part == KEY) else { return Vec::new() };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let value = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(value)
        .split(',')
        .filter(|name| !name.is_empty())
        .map(|name| name.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_the_modules_names() {
        assert_eq!(name_of("kernel/net/8021q/8021q.ko"), Some("8021q".to_owned()));
        assert_eq!(name_of("/a/b/cls-bpf.ko.xz"), Some("cls_bpf".to_owned()));
        assert_eq!(name_of("modules.order"), None);
        assert_eq!(name_of("x.ko.zst"), None);
    }

    #[test]
    fn dependencies_stand_in_the_module() {
        assert_eq!(dependencies(b"\x7fELF license=GPL\0depends=garp,mrp\0name=8021q\0"), ["garp", "mrp"]);
        assert!(dependencies(b"license=GPL\0depends=\0name=veth\0").is_empty());
        assert!(dependencies(b"no module").is_empty());
    }

    #[test]
    fn what_a_module_needs_is_loaded_before_it_and_once() {
        let folder = std::env::temp_dir().join(format!("authsensor-modules-{}", std::process::id()));
        let tree = folder.join("tree/kernel");
        fs::create_dir_all(&tree).unwrap();
        let module = |name: &str, depends: &str| {
            fs::write(tree.join(format!("{name}.ko")), format!("x\0depends={depends}\0")).unwrap();
        };
        for name in ["sch_ingress", "cls_bpf"] {
            module(name, "");
        }
        module("veth", "llc");
        module("8021q", "stp,llc");
        module("stp", "llc");
        module("llc", "");
        fs::write(folder.join("tree/modules.builtin"), "kernel/net/packet/af_packet.ko\n").unwrap();
        let into = folder.join("modules");
        collect(&folder.join("tree"), &into).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&into).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let expected = ["00-llc.ko", "01-veth.ko", "02-sch_ingress.ko", "03-cls_bpf.ko", "04-stp.ko", "05-8021q.ko"];
        assert_eq!(names, expected);
        fs::remove_file(tree.join("stp.ko")).unwrap();
        assert!(collect(&folder.join("tree"), &into).unwrap_err().contains("stp"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
