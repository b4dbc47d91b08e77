//! Where findings go: newline-delimited JSON on standard output or appended to a file.
//!
//! Opened at start, so that a path that cannot be written stops the program before it attaches anything. Each finding
//! is written and flushed on its own. Rotation by renaming needs a restart.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::model::Finding;
use super::ocsf;
use crate::config::model::Findings;

/// Why a finding could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file cannot be opened for appending.
    #[error(
        "cannot open the findings file {path}: {source}. Correct `findings` in the configuration, or the permissions of the file and its directory."
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The line did not get out whole.
    #[error("cannot write a finding to {target}: {source}")]
    Write {
        /// The file, or standard output.
        target: String,
        /// Why.
        source: io::Error,
    },
}

/// Writes findings as OCSF, one line each.
pub struct NdjsonSink<W: Write = Box<dyn Write + Send>> {
    out: W,
    target: String,
    line: Vec<u8>,
    /// The last line may have been cut off: the next one starts with a line feed, so only one line is spoilt.
    torn: bool,
}

impl NdjsonSink {
    /// Opens what the configuration names. A new file is readable by its owner only: addresses are personal data.
    pub fn open(findings: &Findings) -> Result<Self, SinkError> {
        match findings {
            Findings::Stdout => Ok(Self::to(Box::new(io::stdout()), "standard output")),
            Findings::File(path) => {
                let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
                let file = opened.map_err(|source| SinkError::Open { path: path.clone(), source })?;
                let mut sink = Self::to(Box::new(file), &path.display().to_string());
                sink.torn = ends_inside_a_line(path);
                Ok(sink)
            }
        }
    }
}

impl<W: Write> fmt::Debug for NdjsonSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NdjsonSink").field("target", &self.target).field("torn", &self.torn).finish_non_exhaustive()
    }
}

impl<W: Write> NdjsonSink<W> {
    /// Writes to `out`, which error messages call `target`.
    pub fn to(out: W, target: &str) -> Self {
        Self { out, target: target.to_owned(), line: Vec::new(), torn: false }
    }

    /// Writes one finding and flushes.
    pub fn write(&mut self, finding: &Finding) -> Result<(), SinkError> {
        self.line.clear();
        if self.torn {
            self.line.push(b'\n');
        }
        ocsf::write_line(finding, &mut self.line).map_err(|error| self.failed(error.into()))?;
        self.torn = true;
        self.out.write_all(&self.line).and_then(|()| self.out.flush()).map_err(|error| self.failed(error))?;
        self.torn = false;
        Ok(())
    }

    fn failed(&self, source: io::Error) -> SinkError {
        SinkError::Write { target: self.target.clone(), source }
    }
}

/// True when a regular file has bytes and the last is no line feed: its writer died inside a line.
fn ends_inside_a_line(path: &Path) -> bool {
    let last = || -> io::Result<u8> {
        if !path.metadata()?.is_file() {
            return Ok(b'\n');
        }
        let mut file = File::open(path)?;
        let mut byte = [b'\n'];
        if file.seek(SeekFrom::End(0))? > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut byte)?;
        }
        Ok(byte[0])
    };
    // A file that may be written but not read: nothing is known, so nothing is claimed.
    last().is_ok_and(|byte| byte != b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::ocsf::tests::finding;

    #[test]
    fn appends_whole_lines_even_after_a_torn_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("findings.ndjson");
        NdjsonSink::open(&Findings::File(path.clone())).unwrap().write(&finding()).unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [whole.as_slice(), b"{\"time\":1"].concat()).unwrap();
        NdjsonSink::open(&Findings::File(path.clone())).unwrap().write(&finding()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let good = text.lines().filter(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()).count();
        assert_eq!((text.lines().count(), good), (3, 2));
    }

    #[test]
    fn a_new_file_is_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f");
        NdjsonSink::open(&Findings::File(path.clone())).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o077, 0);
    }

    #[test]
    fn an_unwritable_path_is_named() {
        let error = NdjsonSink::open(&Findings::File("/nowhere/at/all.ndjson".into())).err().unwrap();
        assert!(error.to_string().starts_with("cannot open the findings file /nowhere/at/all.ndjson: "), "{error}");
    }

    #[test]
    fn a_failed_write_spoils_one_line_only() {
        /// Takes ten bytes, then fails once, then takes everything.
        struct Full(Vec<u8>, u8);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                match self.1 {
                    1 => self.0.extend_from_slice(&bytes[..10]),
                    2 => return Err(io::Error::from(io::ErrorKind::StorageFull)),
                    _ => self.0.extend_from_slice(bytes),
                }
                Ok(if self.1 == 1 { 10 } else { bytes.len() })
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut sink = NdjsonSink::to(Full(Vec::new(), 0), "a full disk");
        assert!(sink.write(&finding()).unwrap_err().to_string().contains("a full disk"));
        sink.write(&finding()).unwrap();
        let text = String::from_utf8(sink.out.0).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(serde_json::from_str::<serde_json::Value>(text.lines().last().unwrap()).is_ok());
    }
}
