//! Choices, drawn from a list of words: zero is always the plainest choice, and so is everything behind the end. What
//! proptest shrinks is the list, so a failing case loses its disturbances one after the other.

use std::fmt;

/// The list.
#[derive(Clone)]
pub struct Words(pub Vec<u16>);

impl fmt::Debug for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = self.0.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        write!(f, "{:?}", &self.0[..used])
    }
}

/// Draws from a list.
pub struct Tape<'a> {
    words: std::slice::Iter<'a, u16>,
}

impl<'a> Tape<'a> {
    pub fn new(words: &'a Words) -> Self {
        Self { words: words.0.iter() }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.words.next().copied().unwrap_or(0)) % bound
    }

    /// True once in `chances`.
    pub fn one_in(&mut self, chances: usize) -> bool {
        self.below(chances) == chances - 1
    }

    pub fn pick<'b, T: ?Sized>(&mut self, list: &[&'b T]) -> &'b T {
        list[self.below(list.len())]
    }
}
