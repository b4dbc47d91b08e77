//! "Did you mean": the nearest of the known words.

/// Longest word that is compared: what is longer resembles no key of ours.
const WORD_MAX: usize = 48;

/// The candidate that `word` is most likely a misspelling of, if any is near enough.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > WORD_MAX {
        return None;
    }
    let folded = word.to_ascii_lowercase().replace('-', "_");
    candidates
        .into_iter()
        .map(|candidate| (distance(&folded, &candidate.to_ascii_lowercase()), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Fix text for an unknown word: the likely one, else all of them.
pub(crate) fn advice(word: &str, candidates: &[&str]) -> String {
    match nearest(word, candidates.iter().copied()) {
        Some(candidate) => format!("Did you mean `{candidate}`"),
        None if candidates.is_empty() => "Remove it".to_owned(),
        None => format!("Write one of {}", listed(candidates)),
    }
}

/// `a`, `b`, `c` in backquotes.
pub(crate) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Edit distance (insert, delete, replace, swap of neighbours each cost 1), by bytes.
fn distance(from: &str, to: &str) -> usize {
    let (from, to) = (from.as_bytes(), to.as_bytes());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    let mut previous: Option<u8> = None;
    for (row, left) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, right) in to.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX - 1);
            let replaced = at(&last, column) + usize::from(left != right);
            let mut best = replaced.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let left_neighbour = column.checked_sub(1).and_then(|index| to.get(index));
            if previous == Some(*right) && left_neighbour == Some(left) {
                best = best.min(at(&before, column - 1) + 1);
            }
            current.push(best);
        }
        before = std::mem::replace(&mut last, current);
        previous = Some(*left);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_word() {
        let words = ["listen", "credentials", "issuer", "route"];
        assert_eq!(nearest("lsiten", words), Some("listen"));
        assert_eq!(nearest("Credential", words), Some("credentials"));
        assert_eq!(nearest("routes", words), Some("route"));
        assert_eq!(nearest("zzz", words), None);
        assert_eq!(nearest(&"listen".repeat(100), words), None);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
