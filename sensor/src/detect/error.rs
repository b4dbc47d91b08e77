//! What is wrong in a rule file, where, and what to write instead.
//!
//! Owns [`RuleError`], the form in which every mistake in a rule file reaches its author, and "did you mean".

use std::fmt;
use std::path::PathBuf;

/// Longest word that is compared or repeated in a message, in characters.
const WORD_MAX: usize = 64;

/// One mistake in a rule file. Displays as `FILE:LINE:COLUMN: what is wrong. What to write instead.`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleError {
    /// The file, as it was named in the configuration.
    pub file: PathBuf,
    /// Line, from 1; 0 when the file could not be read at all.
    pub line: usize,
    /// Column in characters, from 1; 0 when the file could not be read at all.
    pub column: usize,
    /// What is wrong, without a full stop.
    pub message: String,
    /// What to write instead, without a full stop.
    pub fix: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, message, fix } = self;
        if *line == 0 {
            return write!(f, "{}: {message}. {fix}.", file.display());
        }
        write!(f, "{}:{line}:{column}: {message}. {fix}.", file.display())
    }
}

impl std::error::Error for RuleError {}

/// `text` as a message may repeat it: in backquotes, control characters escaped, clipped.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (count, character) in text.chars().enumerate() {
        if count == WORD_MAX {
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

/// Fix text for an unknown word: the likely one, else all that are known.
pub(super) fn advice(word: &str, known: &[&str]) -> String {
    let lower = word.to_lowercase();
    let nearest = known
        .iter()
        .map(|candidate| (distance(&lower, &candidate.to_lowercase()), *candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((_, candidate)) => format!("Did you mean `{candidate}`? Known are {}", listed(known)),
        None if known.is_empty() => "The configuration declares none; remove this line".to_owned(),
        None => format!("Write one of {}", listed(known)),
    }
}

/// The words in backquotes, separated by commas.
pub(super) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Edit distance in characters: insert, delete, replace and swap of neighbours cost 1 each; words beyond [`WORD_MAX`] are
/// like nothing.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    if left.chars().count() > WORD_MAX || right.len() > WORD_MAX {
        return usize::MAX;
    }
    let cell = |row: &[usize], index: usize| row.get(index).copied().unwrap_or(usize::MAX / 2);
    let (mut above, mut row): (Vec<usize>, Vec<usize>) = (Vec::new(), (0..=right.len()).collect());
    let mut previous: Option<char> = None;
    for (index, character) in left.chars().enumerate() {
        let mut next = vec![index + 1];
        let mut other_before = None;
        for (column, other) in right.iter().enumerate() {
            let replaced = cell(&row, column) + usize::from(character != *other);
            let mut best = replaced.min(cell(&next, column) + 1).min(cell(&row, column + 1) + 1);
            if column > 0 && previous == Some(*other) && other_before == Some(character) {
                best = best.min(cell(&above, column - 1) + 1);
            }
            next.push(best);
            other_before = Some(*other);
        }
        above = std::mem::replace(&mut row, next);
        previous = Some(character);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        for (left, right, want) in [
            ("", "", 0),
            ("abc", "abc", 0),
            ("unisued", "unissued", 1),
            ("kitten", "sitting", 3),
            ("", "ab", 2),
            ("hihg", "high", 1),
            ("ab", "ba", 1),
        ] {
            assert_eq!(distance(left, right), want, "{left} {right}");
        }
    }

    #[test]
    fn an_unlike_word_lists_all() {
        assert_eq!(advice("zzzzzz", &["service", "issuer"]), "Write one of `service`, `issuer`");
        assert!(advice("isuer", &["service", "issuer"]).starts_with("Did you mean `issuer`"));
    }
}
