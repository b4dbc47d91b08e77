//! What is wrong in a file, where, and what to write instead.
//!
//! Owns [`Diagnostic`], the form in which every mistake in a configuration or rule file reaches its author, and the
//! way from a byte offset to a line and a column. Offsets flow in from the reader, sorted lists of diagnostics flow
//! out.

use std::fmt;
use std::path::PathBuf;

/// Longest piece of a file that a message repeats, in characters.
const QUOTE_MAX: usize = 64;

/// One mistake. Displays as `FILE:LINE:COLUMN: what is wrong. What to write instead.`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named on the command line.
    pub file: PathBuf,
    /// Line, from 1; 0 when the mistake is the whole file's.
    pub line: usize,
    /// Column in characters, from 1; 0 when the mistake is the whole file's.
    pub column: usize,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead, without a full stop.
    pub fix: String,
}

impl std::error::Error for Diagnostic {}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, fix } = self;
        if *line == 0 {
            return write!(f, "{}: {message}. {fix}.", file.display());
        }
        write!(f, "{}:{line}:{column}: {message}. {fix}.", file.display())
    }
}

/// Where the lines of a text begin.
pub(crate) struct Lines<'t> {
    text: &'t str,
    starts: Vec<usize>,
}

impl<'t> Lines<'t> {
    /// Indexes `text`.
    pub(crate) fn new(text: &'t str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column, both from 1, of the byte at `offset`. An offset past the end gives the end.
    pub(crate) fn position(&self, offset: usize) -> (usize, usize) {
        let offset = offset.min(self.text.len());
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let before = self.text.as_bytes().get(start..offset).unwrap_or_default();
        // Characters are counted by their first bytes, so an offset inside a character is no special case.
        let column = before.iter().filter(|byte| **byte & 0xc0 != 0x80).count() + 1;
        (line, column)
    }
}

/// `text` as a message may repeat it: in backquotes, control characters escaped, clipped.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (count, character) in text.chars().enumerate() {
        if count == QUOTE_MAX {
            out.push('…');
            break;
        }
        if character.is_control() {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out.push('`');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_lines_and_characters() {
        let lines = Lines::new("ab\nçé = 1\n\nx");
        assert_eq!(lines.position(0), (1, 1));
        assert_eq!(lines.position(2), (1, 3));
        assert_eq!(lines.position(3), (2, 1));
        assert_eq!(lines.position(3 + "çé = ".len()), (2, 6));
        assert_eq!(lines.position("ab\nçé = 1\n".len()), (3, 1));
        assert_eq!(lines.position(9999), (4, 2));
        assert_eq!(Lines::new("").position(5), (1, 1));
    }

    #[test]
    fn quotes_hide_control_characters_and_clip() {
        assert_eq!(quoted("a\u{1b}[31mb"), "`a\\u{1b}[31mb`");
        assert_eq!(quoted(&"x".repeat(500)), format!("`{}…`", "x".repeat(QUOTE_MAX)));
    }
}
