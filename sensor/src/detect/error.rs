//! What is wrong in a rule file: a [`Diagnostic`] like those of the configuration, and the words of its advice.

pub use crate::diagnostic::Diagnostic as RuleError;
pub(super) use crate::diagnostic::quoted;
pub(super) use crate::suggest::listed;
use crate::suggest::nearest;

/// Fix text for an unknown word: the likely one, and all that are known.
pub(super) fn advice(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("Did you mean `{candidate}`? Known are {}", listed(known)),
        None if known.is_empty() => "The configuration declares none; remove this line".to_owned(),
        None => format!("Write one of {}", listed(known)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlike_word_lists_all() {
        assert_eq!(advice("zzzzzz", &["service", "issuer"]), "Write one of `service`, `issuer`");
        assert!(advice("isuer", &["service", "issuer"]).starts_with("Did you mean `issuer`"));
    }
}
