//! Whatever a file holds, reading it ends with a configuration or with diagnostics that point into it.

use std::path::Path;

use proptest::prelude::*;

use super::values::{FULL, SHIPPED};
use crate::config::check;

/// Pieces that are likely to reach deep into the reader.
const PIECES: [&str; 25] = [
    "[[service]]",
    "[service]",
    "=",
    "{",
    "}",
    "[",
    "]",
    "\"",
    "'",
    "\n",
    "\"\"\"",
    "-1",
    "1e400",
    "nan",
    "0xffffffffffffffffff",
    "2026-02-31",
    "true",
    "\u{0}",
    "\\u001b",
    "é\u{301}",
    "{id}",
    "json:/~",
    "cookie:",
    "9999999999999999999",
    "service.route.success.json",
];

fn holds(bytes: &[u8]) -> Result<(), TestCaseError> {
    let report = check(Path::new("f.toml"), bytes);
    prop_assert_eq!(report.config.is_none(), !report.errors.is_empty());
    let lines: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    for diagnostic in report.errors.iter().chain(&report.warnings) {
        let line = diagnostic.line.checked_sub(1).and_then(|line| lines.get(line));
        prop_assert!(line.is_some_and(|line| (1..=line.len() + 1).contains(&diagnostic.column)), "{}", diagnostic);
        prop_assert!(!diagnostic.to_string().contains(char::is_control), "{:?}", diagnostic);
    }
    Ok(())
}

/// Replaces up to `len` bytes at `at` (both fitted to the text) by `piece`.
fn splice(text: &mut Vec<u8>, at: usize, len: usize, piece: &[u8]) {
    let from = at % (text.len() + 1);
    let to = (from + len).min(text.len());
    text.splice(from..to, piece.iter().copied());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn on_arbitrary_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        holds(&bytes)?;
    }

    #[test]
    fn on_arbitrary_pieces(pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..60)) {
        holds(pieces.concat().as_bytes())?;
    }

    #[test]
    fn on_mutated_files(
        full in any::<bool>(),
        edits in proptest::collection::vec((any::<usize>(), 0usize..24, proptest::sample::select(&PIECES[..])), 1..4),
    ) {
        let mut text = if full { FULL } else { SHIPPED }.as_bytes().to_vec();
        for (at, len, piece) in edits {
            splice(&mut text, at, len, piece.as_bytes());
        }
        holds(&text)?;
    }

    /// Syntax stays intact, values change type: every typed getter meets every type.
    #[test]
    fn on_exchanged_values(line in any::<usize>(), value in proptest::sample::select(&[
        "1", "-1", "0.5", "true", "\"x\"", "\"\"", "2026-01-01", "[]", "[[]]", "[1, \"a\", {}]", "{}", "{ a = 1 }", "\"a:b\"",
    ][..])) {
        let lines: Vec<&str> = FULL.lines().collect();
        let chosen = line % lines.len();
        let text: Vec<String> = lines.iter().enumerate().map(|(index, line)| match line.split_once(" = ") {
            Some((key, old)) if index == chosen && !old.ends_with('[') && !line.starts_with([' ', '#']) => format!("{key} = {value}"),
            _ => (*line).to_owned(),
        }).collect();
        holds(text.join("\n").as_bytes())?;
    }
}

#[test]
fn on_deep_nesting() {
    for open in ["[", "{a=", "[{a="] {
        holds(format!("rules = {}", open.repeat(20_000)).as_bytes()).unwrap();
    }
    holds(format!("{} = 1", vec!["a"; 20_000].join(".")).as_bytes()).unwrap();
}
