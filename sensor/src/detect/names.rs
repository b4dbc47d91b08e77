//! Patterns over names that credentials bring (`kid`, `iss`, `aud`, `scope`, `alg`).
//!
//! Each distinct name is compared once and the outcome remembered, as the interner never gives a number a second meaning:
//! an observation brings a number, and a set of bits says which of a rule's patterns it fits.

use std::sync::Arc;

use regex_lite::Regex;

use super::Labels;
use super::field::{Field, Subject};
use crate::observation::{ClaimName, Interned};

/// Most patterns over one field in one file; the bit above them says that a name was looked at.
pub(super) const PATTERNS_MAX: usize = 63;
/// Largest compiled regular expression, bytes.
const REGEX_BYTES: usize = 64 << 10;
/// That a name was looked at.
const LOOKED: u64 = 1 << PATTERNS_MAX;

/// What a name must be like.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// This text.
    Is(String),
    /// It holds this text.
    Contains(String),
    /// It begins with this text.
    Starts(String),
    /// It ends with this text.
    Ends(String),
    /// It holds a match.
    Regex(Regex),
}

impl Pattern {
    /// A regular expression, or what is wrong with it.
    pub fn regex(text: &str) -> Result<Self, String> {
        let built = regex_lite::RegexBuilder::new(text).size_limit(REGEX_BYTES).build();
        built.map(Self::Regex).map_err(|error| error.to_string())
    }

    /// Whether `name` is like it.
    pub fn fits(&self, name: &str) -> bool {
        match self {
            Self::Is(text) => name == text,
            Self::Contains(text) => name.contains(text.as_str()),
            Self::Starts(text) => name.starts_with(text.as_str()),
            Self::Ends(text) => name.ends_with(text.as_str()),
            Self::Regex(regex) => regex.is_match(name),
        }
    }
}

/// The patterns of a file's rules, by [`ClaimName`].
pub(super) type Patterns = [Vec<Pattern>; ClaimName::ALL.len()];

/// Which of a file's patterns the names of a subject fit, by [`ClaimName`].
pub(super) type Fitting = [u64; ClaimName::ALL.len()];

/// The fields that bring names, in the order of [`ClaimName`].
const FIELDS: [Field; ClaimName::ALL.len()] = [Field::Kid, Field::Iss, Field::Alg, Field::Aud, Field::Scope];

/// A rule's patterns with what they were found to fit.
#[derive(Debug)]
pub(super) struct Names {
    patterns: Arc<Patterns>,
    known: [Vec<u64>; ClaimName::ALL.len()],
    none: bool,
}

impl Names {
    /// `capacity`: distinct names that an interner keeps; memory is taken only for fields with patterns.
    pub fn new(patterns: &Arc<Patterns>, capacity: usize) -> Self {
        let known = std::array::from_fn(|index| {
            let used = patterns.get(index).is_some_and(|patterns| !patterns.is_empty());
            vec![0; if used { capacity } else { 0 }]
        });
        Self { none: patterns.iter().all(Vec::is_empty), patterns: Arc::clone(patterns), known }
    }

    /// The patterns that the names in `s` fit.
    pub fn fitting(&mut self, s: Subject<'_>, labels: &dyn Labels) -> Fitting {
        let mut fitting = Fitting::default();
        if self.none {
            return fitting;
        }
        let all = fitting.iter_mut().zip(FIELDS).zip(ClaimName::ALL).zip(self.patterns.iter()).zip(&mut self.known);
        for ((((fits, field), of), patterns), known) in all {
            let id = field.interned(s).filter(|id| *id != Interned::OVERFLOW && !patterns.is_empty());
            let Some(id) = id else { continue };
            let slot = usize::try_from(id.0).ok().and_then(|index| known.get_mut(index));
            if let Some(bits) = slot.as_deref().filter(|bits| **bits & LOOKED != 0) {
                *fits = *bits;
                continue;
            }
            let name = labels.name(of, id);
            let bits = (0..).zip(patterns).filter(|(_, pattern)| pattern.fits(name));
            *fits = bits.fold(LOOKED, |bits, (index, _)| bits | 1u64.checked_shl(index).unwrap_or(0));
            if let Some(slot) = slot {
                *slot = *fits;
            }
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_what_they_say() {
        let re = Pattern::regex("^k[0-9]+$").unwrap();
        for (pattern, fits, not) in [
            (Pattern::Is("k1".to_owned()), "k1", "k10"),
            (Pattern::Contains("read".to_owned()), "a read b", "a rea d"),
            (Pattern::Starts("stg-".to_owned()), "stg-1", "x-stg-1"),
            (Pattern::Ends("-old".to_owned()), "k-old", "k-old2"),
            (re, "k12", "k12x"),
        ] {
            assert!(pattern.fits(fits) && !pattern.fits(not), "{pattern:?}");
        }
        assert!(Pattern::regex("(").is_err());
        assert!(Pattern::regex("(a{1000}){1000}").is_err(), "a large one is refused, not built");
    }
}
