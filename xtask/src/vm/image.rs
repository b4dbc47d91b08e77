//! Debian's kernel images: found by series, downloaded, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::modules;
use crate::process::said;
use crate::setup::apt::Apt;
use crate::{Failure, Outcome};

/// A kernel that can be booted.
pub struct Image {
    /// The compressed kernel.
    pub kernel: PathBuf,
    /// The modules that the tests need, by name in the order of loading.
    pub modules: PathBuf,
}

/// The kernel of a series and its modules, below `vm`; downloaded when they are not there yet. Remove them to get a
/// newer one.
pub fn kernel(root: &Path, vm: &Path, series: &str) -> Outcome<Image> {
    let image = Image { kernel: vm.join(format!("vmlinuz-{series}")), modules: vm.join(format!("modules-{series}")) };
    if image.kernel.is_file() && image.modules.is_dir() {
        return Ok(image);
    }
    let mut apt = Apt::new(true);
    let package = newest(&names(series), |name| apt.candidate(name).is_some()).ok_or_else(|| {
        Failure::Missing(format!(
            "apt knows no linux-image-{series}.*-amd64. Debian 12 carries 6.1 in bookworm and 6.12 in \
             bookworm-security: add those to apt's sources and run `apt-get update`, or put a kernel image at {} and \
             its modules (veth, sch_ingress, cls_bpf and what they need, named in the order of loading) into {}.",
            image.kernel.display(),
            image.modules.display()
        ))
    })?;
    let unpacked = apt.unpack(root, &package)?;
    let outcome = take(&unpacked, &image);
    let _ = fs::remove_dir_all(&unpacked);
    outcome.map_err(|error| Failure::Failed(format!("cannot take the kernel out of {package}: {error}")))?;
    Ok(image)
}

/// Takes kernel and modules out of an unpacked package.
fn take(unpacked: &Path, image: &Image) -> Result<(), String> {
    let kernel = first(&unpacked.join("boot"), "vmlinuz").ok_or("no boot/vmlinuz in it")?;
    let trees = ["lib/modules", "usr/lib/modules"];
    let tree = trees.iter().find_map(|tree| first(&unpacked.join(tree), "")).ok_or("no lib/modules in it")?;
    modules::collect(&tree, &image.modules)?;
    fs::rename(&kernel, &image.kernel).map_err(|error| error.to_string())
}

/// The first entry of a folder whose name begins with `prefix`.
fn first(folder: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?.flatten();
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|entry| entry.path())
}

/// All kernel image packages of a series that apt knows.
fn names(series: &str) -> Vec<String> {
    let prefix = format!("linux-image-{series}.");
    let names = said(Command::new("apt-cache").args(["pkgnames", &prefix])).unwrap_or_default();
    names.lines().map(str::to_owned).collect()
}

/// The newest signed image for ordinary machines that can be had: no real-time, cloud or debug variant.
fn newest(names: &[String], mut there: impl FnMut(&str) -> bool) -> Option<String> {
    let mut plain: Vec<_> = names.iter().filter_map(|name| Some((version(name)?, name))).collect();
    plain.sort();
    plain.into_iter().rev().map(|(_, name)| name).find(|name| there(name)).cloned()
}

/// The numbers in `linux-image-6.1.0-56-amd64` or `linux-image-6.12.117+deb12-amd64`; `None` for other variants.
fn version(package: &str) -> Option<Vec<u32>> {
    let version = package.strip_prefix("linux-image-")?.strip_suffix("-amd64")?;
    let number = |part: &str| part.trim_start_matches("deb").parse().ok();
    version.split(['.', '-', '+']).map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_plain_image_wins_by_number_not_by_letter() {
        let names = [
            "linux-image-6.1.0-9-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1.0-57-rt-amd64",
            "linux-image-6.1.0-58-amd64-dbg",
            "linux-image-6.1.0-59-amd64-unsigned",
            "linux-image-6.1.0-60-amd64",
        ]
        .map(str::to_owned);
        let newest = newest(&names, |name| name != "linux-image-6.1.0-60-amd64");
        assert_eq!(newest.as_deref(), Some("linux-image-6.1.0-56-amd64"), "60 is known but cannot be had");
    }

    #[test]
    fn images_of_later_series_are_read_too() {
        assert_eq!(version("linux-image-6.12.117+deb12-amd64"), Some(vec![6, 12, 117, 12]));
        assert_eq!(version("linux-image-6.12.117+deb12-cloud-amd64"), None);
    }
}
