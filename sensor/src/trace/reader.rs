//! Lines of a trace, one after the other, each at most so long.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize as _, Zeroizing};

use super::line::Line;
use crate::diagnostic::Diagnostic;

/// Longest line, bytes.
const LINE_MAX: usize = 1 << 20;
/// Bytes read at once.
const READ: usize = 1 << 18;

/// Why a trace cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// A line says something that is not understood.
    #[error(transparent)]
    Line(#[from] Diagnostic),
    /// The file cannot be opened or read.
    #[error("cannot read the trace {}: {source}. Name a readable file, or `-` for standard input.", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Reads lines; holds one at a time. (No `Debug`: it holds raw credentials.)
pub struct TraceReader<R = Box<dyn Read>> {
    path: PathBuf,
    source: BufReader<R>,
    line: Zeroizing<Vec<u8>>,
    number: usize,
}

impl TraceReader {
    /// Opens `path`; `-` is standard input.
    pub fn open(path: &Path) -> Result<Self, TraceError> {
        let source: Box<dyn Read> = if path.as_os_str() == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(path).map_err(|source| TraceError::Read { path: path.to_owned(), source })?)
        };
        Ok(Self::new(path, source))
    }
}

impl<R: Read> TraceReader<R> {
    /// Reads from `source`, which messages call `path`.
    pub fn new(path: &Path, source: R) -> Self {
        let line = Zeroizing::new(Vec::with_capacity(4096));
        Self { path: path.to_owned(), source: BufReader::with_capacity(READ, source), line, number: 0 }
    }

    /// The next line; empty ones are passed over.
    pub fn next_line(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        loop {
            self.line.zeroize();
            self.number += 1;
            let most = u64::try_from(LINE_MAX).unwrap_or(u64::MAX);
            let read = (&mut self.source).take(most + 1).read_until(b'\n', &mut self.line);
            let count = read.map_err(|source| TraceError::Read { path: self.path.clone(), source })?;
            if count == 0 {
                return Ok(None);
            }
            if count > LINE_MAX {
                let fix = "Write one transaction a line";
                return Err(self.mistake(1, format!("the line is longer than {LINE_MAX} bytes"), fix).into());
            }
            if !self.line.trim_ascii().is_empty() {
                break;
            }
        }
        let text = match std::str::from_utf8(&self.line) {
            Ok(text) => text,
            Err(error) => {
                let column = error.valid_up_to() + 1;
                return Err(self.mistake(column, "the line is not UTF-8 text".to_owned(), "Save it as UTF-8").into());
            }
        };
        match serde_json::from_str(text) {
            Ok(line) => Ok(Some(line)),
            Err(error) => Err(self.unreadable(&error).into()),
        }
    }

    /// A mistake in the line that was read last.
    pub fn mistake(&self, column: usize, message: String, fix: &str) -> Diagnostic {
        Diagnostic { file: self.path.clone(), line: self.number, column, message, fix: fix.to_owned() }
    }

    /// What serde says, with the place and without what it repeats of the text: that may be a credential.
    fn unreadable(&self, error: &serde_json::Error) -> Diagnostic {
        let text = error.to_string();
        let text = text.rsplit_once(" at line ").map_or(text.as_str(), |(text, _)| text);
        let text = text.strip_prefix("invalid type: ").map_or_else(|| text.to_owned(), wrong_type);
        let (message, fix) = match text.split_once(". ") {
            Some((message, fix)) => (message.to_owned(), fix.to_owned()),
            None => (text, "Write one JSON object a line, as docs/simulate.md describes".to_owned()),
        };
        self.mistake(error.column().max(1), message, &fix)
    }
}

/// `string "secret", expected u16` without the secret.
fn wrong_type(text: &str) -> String {
    let (found, expected) = text.rsplit_once(", expected ").unwrap_or((text, "something else"));
    let kind = found.split([' ', '`', '"']).next().unwrap_or_default();
    let expected = match expected {
        "u16" | "u64" => "a whole number",
        "f64" => "a number",
        other => other,
    };
    format!("a {kind} stands where {expected} is expected")
}
