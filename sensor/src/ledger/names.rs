//! Names that come from traffic (`kid`, `iss`, `aud`, ...) as small numbers, bounded, shown only in printable form.

use std::collections::HashMap;

use crate::observation::Interned;

/// Longest name that is interned, bytes; longer ones share [`Interned::OVERFLOW`] unless the configuration has them.
const NAME_MAX: usize = 256;
/// Longest form of a name that is shown, characters.
const SHOWN_MAX: usize = 64;
/// What is shown for names beyond the bound.
const SHOWN_OVERFLOW: &str = "(other)";

/// Distinct strings as small numbers, bounded; shown only in printable form.
#[derive(Debug)]
pub struct Interner {
    index: HashMap<Box<str>, u32, ahash::RandomState>,
    shown: Vec<Box<str>>,
    room: usize,
    overflow: u64,
}

impl Interner {
    pub fn new(room: usize) -> Self {
        Self { index: HashMap::default(), shown: Vec::new(), room, overflow: 0 }
    }

    /// Interns a name from the configuration, which does not count against the bound.
    pub fn declare(&mut self, name: &str) -> Interned {
        self.index.get(name).copied().map_or_else(|| self.add(name), Interned)
    }

    /// The number of a name from traffic.
    pub fn intern(&mut self, name: &str) -> Interned {
        if let Some(id) = self.index.get(name) {
            return Interned(*id);
        }
        if self.room == 0 || name.len() > NAME_MAX {
            self.overflow += 1;
            return Interned::OVERFLOW;
        }
        self.room -= 1;
        self.add(name)
    }

    fn add(&mut self, name: &str) -> Interned {
        let Ok(id) = u32::try_from(self.shown.len()) else { return Interned::OVERFLOW };
        self.index.insert(name.into(), id);
        self.shown.push(printable(name).into());
        Interned(id)
    }

    /// The name in printable form.
    pub fn show(&self, id: Interned) -> &str {
        self.shown.get(id.0 as usize).map_or(SHOWN_OVERFLOW, |shown| shown)
    }

    /// The name as it came. For what is rarely done: it looks through all.
    pub fn whole(&self, id: Interned) -> Option<&str> {
        self.index.iter().find(|(_, known)| **known == id.0).map(|(name, _)| &**name)
    }

    /// Names told apart, and occurrences of names that were not.
    pub fn counts(&self) -> (usize, u64) {
        (self.shown.len(), self.overflow)
    }
}

/// `name` without anything that a terminal, a log reader or a label could take for more than text.
fn printable(name: &str) -> String {
    let mut shown: String = name
        .chars()
        .take(SHOWN_MAX)
        .map(|char| if char.is_ascii_graphic() || char == ' ' || char.is_alphanumeric() { char } else { '?' })
        .collect();
    if name.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

/// Words in the one order in which they are compared: sorted, each once, joined by a space.
pub fn joined<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    let mut words: Vec<&str> = words.into_iter().collect();
    words.sort_unstable();
    words.dedup();
    words.join(" ")
}
