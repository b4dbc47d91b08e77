//! The highest identifier that was there some time ago: what is newer grew by sign-ups (or orders), which walk too.

use serde::{Deserialize, Serialize};

use super::super::time::Tenths;

/// Times between two steps: the frontier is one to two steps old. What members read in the first ten minutes holds for the
/// first half day; from then on it is 12 to 24 hours old.
const STEPS: [Tenths; 4] = [600, 600, 4_800, 6_000];
const LONGEST: Tenths = 432_000;

/// Highest identifiers read: so far, and as of one and of two steps ago.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Frontier {
    highest: u64,
    before: u64,
    long_before: u64,
    next: Option<Tenths>,
    steps: u8,
}

/// What outlives a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontierState {
    highest: u64,
    before: u64,
    long_before: u64,
    steps: u8,
}

impl Frontier {
    /// One that has long known `highest`.
    #[cfg(test)]
    pub fn knowing(highest: u64) -> Self {
        Self { highest, before: highest, long_before: highest, steps: u8::MAX, next: None }
    }

    fn step(&self) -> Tenths {
        STEPS.get(usize::from(self.steps)).copied().unwrap_or(LONGEST)
    }

    /// Moves time on.
    pub fn advance(&mut self, now: Tenths) {
        let next = *self.next.get_or_insert(now.saturating_add(self.step()));
        if now >= next {
            self.long_before = self.before;
            self.before = self.highest;
            self.steps = self.steps.saturating_add(1);
            self.next = Some(now.saturating_add(self.step()));
        }
    }

    /// Somebody who may read it read `id`.
    pub fn raise(&mut self, id: u64) {
        self.highest = self.highest.max(id);
    }

    /// True when `id` may be newer than one to two steps.
    pub fn is_new(&self, id: u64) -> bool {
        id > self.long_before
    }

    /// For a snapshot.
    pub fn state(&self) -> FrontierState {
        let Self { highest, before, long_before, steps, .. } = *self;
        FrontierState { highest, before, long_before, steps }
    }

    /// From a snapshot; the next step comes a whole one later.
    pub fn restore(&mut self, state: FrontierState) {
        let FrontierState { highest, before, long_before, steps } = state;
        *self = Self { highest, before, long_before, steps, next: None };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_signed_up_lately_is_new() {
        let mut frontier = Frontier::default();
        frontier.advance(0);
        frontier.raise(1_000);
        assert!(frontier.is_new(5), "nothing is known yet");
        // Read in the first, second, tenth and twentieth minute, and half a day later.
        for (now, highest) in [(600, 1_100), (1_200, 1_200), (6_000, 1_300), (12_000, 1_400)] {
            frontier.advance(now);
            frontier.raise(highest);
        }
        assert!(!frontier.is_new(1_200) && frontier.is_new(1_201), "as of the tenth minute: {frontier:?}");
        for now in (12_000..440_000).step_by(1_000) {
            frontier.advance(now);
            frontier.raise(1_400 + u64::from(now));
            assert!(frontier.is_new(1_201));
        }
        let mut restored = Frontier::default();
        restored.restore(frontier.state());
        restored.advance(7);
        assert!(!restored.is_new(1_200) && restored.is_new(1_201));
    }
}
