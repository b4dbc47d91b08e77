//! The guest's file system: a cpio archive with programs, the libraries that they need, and the kernel's modules.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::init::{DAEMON, MARK, MODULES, TESTS};
use crate::process::said;
use crate::{Failure, Outcome};

/// What goes into the archive.
pub struct Content<'a> {
    /// The first process.
    pub init: &'a Path,
    /// The daemon.
    pub daemon: &'a Path,
    /// Test programs: name in the guest, file here.
    pub tests: &'a [(String, PathBuf)],
    /// What the tests start; it stands in the guest where it stands here.
    pub tools: &'a [PathBuf],
    /// The folder of the modules.
    pub modules: &'a Path,
}

/// The archive.
pub fn build(content: &Content) -> Outcome<Vec<u8>> {
    let mut programs = vec![(PathBuf::from("/init"), content.init), (PathBuf::from(DAEMON), content.daemon)];
    programs.extend(content.tests.iter().map(|(name, file)| (Path::new(TESTS).join(name), file.as_path())));
    programs.extend(content.tools.iter().map(|tool| (tool.clone(), tool.as_path())));
    let mut files = BTreeMap::from([(PathBuf::from(MARK), Vec::new())]);
    for (place, program) in programs {
        files.insert(place, read(program)?);
        for library in libraries(program) {
            let bytes = read(&library)?;
            files.insert(library, bytes);
        }
    }
    for module in fs::read_dir(content.modules).into_iter().flatten().flatten() {
        files.insert(Path::new(MODULES).join(module.file_name()), read(&module.path())?);
    }
    let mut archive = Archive::default();
    for directory in ["/proc", "/sys", "/dev", "/tmp", "/run"].map(Path::new) {
        archive.directory(directory);
    }
    // The kernel opens it for the first process's input and output.
    archive.entry(Path::new("/dev/console"), 0o020_600, (5, 1), &[]);
    for (path, bytes) in &files {
        archive.file(path, bytes);
    }
    Ok(archive.finish())
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    fs::read(path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))
}

/// The shared libraries of a program and the loader; none for a static one.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let said = said(Command::new("ldd").arg(program)).unwrap_or_default();
    said.lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
        .collect()
}

/// A cpio archive in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: Vec<PathBuf>,
}

impl Archive {
    /// A file, and the directories above it, which must come first.
    fn file(&mut self, path: &Path, bytes: &[u8]) {
        if let Some(parent) = path.parent() {
            self.directory(parent);
        }
        self.entry(path, 0o100_755, (0, 0), bytes);
    }

    fn directory(&mut self, path: &Path) {
        let above: Vec<_> = path.ancestors().filter(|path| path.parent().is_some()).collect();
        for directory in above.into_iter().rev() {
            if !self.directories.iter().any(|known| known == directory) {
                self.directories.push(directory.to_path_buf());
                self.entry(directory, 0o040_755, (0, 0), &[]);
            }
        }
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), content: &[u8]) {
        let name = path.to_string_lossy();
        self.raw(name.trim_start_matches('/'), mode, device, content);
    }

    fn raw(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(name.len() + 1).unwrap_or(u32::MAX);
        // inode, mode, uid, gid, links, mtime, size, device of the file system, device, length of the name, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.raw("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_come_once_and_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file(Path::new("/a/b/c"), b"12345");
        archive.file(Path::new("/a/b/d"), b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let position = |name: &str| text.find(&format!("{name}\0")).unwrap();
        assert!(position("00000000a") < position("00000000a/b"));
        assert!(position("00000000a/b") < position("00000000a/b/c"));
        assert_eq!(text.matches("070701").count(), 5, "a, a/b, two files, the trailer");
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn a_header_is_110_bytes_and_says_the_size() {
        let mut archive = Archive::default();
        archive.entry(Path::new("/x"), 0o100_755, (0, 0), b"12345");
        let text = String::from_utf8(archive.bytes).unwrap();
        assert_eq!(&text[54..62], "00000005");
        assert_eq!(&text[110..112], "x\0");
        assert_eq!(&text[112..], "12345\0\0\0");
    }
}
