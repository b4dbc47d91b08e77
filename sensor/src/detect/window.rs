//! A count of distinct values over a sliding window.
//!
//! Time is cut into slices of a 24th of the window; the window is the current slice and the 24 before it. So a value
//! seen within the window always counts, and one seen up to a 24th of the window earlier may still count: the error is
//! on the side of speaking early, never of missing. Values are kept with the slice they were last seen in, exactly, up
//! to a bound; beyond it each slice has a HyperLogLog sketch, and the window's is their union.

use std::collections::HashMap;

use ahash::RandomState;

use super::distinct::{Distinct, Registers};
use super::field::Key;

/// Slices of a window.
pub(super) const SLICES: u64 = 24;
/// Slices that are kept: the current one and those before it.
pub(super) const KEPT: usize = 25;
const _: () = assert!(SLICES + 1 == KEPT as u64, "one more than there are before the current one");

/// Where slice `slice` is kept in a ring.
pub(super) fn slot(slice: u64) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "a remainder below 25")]
    let slot = (slice % KEPT as u64) as usize;
    slot
}

/// The slices that leave a ring when its newest goes from `before` to `now`; at most all of them.
pub(super) fn leaving(before: u64, now: u64) -> impl Iterator<Item = usize> {
    let steps = now.saturating_sub(before).min(KEPT as u64);
    (now - steps + 1..=now).map(slot)
}

/// Distinct values of the last [`KEPT`] slices.
#[derive(Debug)]
pub(super) struct Window {
    bound: usize,
    newest: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Exact {
        /// Value to the slice it was last seen in; those of past slices are swept when they are many.
        last: HashMap<Key, u64, RandomState>,
        /// Values by the slice they were last seen in.
        by_slice: [u32; KEPT],
        /// Sum of `by_slice`.
        live: u32,
    },
    Sketch {
        slices: Vec<Option<Registers>>,
        union: Registers,
        /// A slice left: the union must be made anew.
        stale: bool,
    },
}

impl State {
    fn empty() -> Self {
        Self::Exact { last: HashMap::default(), by_slice: [0; KEPT], live: 0 }
    }
}

impl Window {
    /// Exact up to `bound` values.
    pub fn new(bound: usize) -> Self {
        Self { bound: bound.max(1), newest: 0, state: State::empty() }
    }

    /// Starts anew at `now`; a small table keeps its memory, so that groups that come and go cost no allocation.
    pub fn reset(&mut self, now: u64) {
        self.newest = now;
        match &mut self.state {
            State::Exact { last, by_slice, live } if last.capacity() <= 64 => {
                last.clear();
                by_slice.fill(0);
                *live = 0;
            }
            _ => self.state = State::empty(),
        }
    }

    /// Moves the window on; what falls out of it no longer counts.
    pub fn advance(&mut self, now: u64) {
        if now <= self.newest {
            return;
        }
        match &mut self.state {
            State::Exact { by_slice, live, .. } => {
                for slot in leaving(self.newest, now) {
                    if let Some(count) = by_slice.get_mut(slot) {
                        *live -= std::mem::take(count);
                    }
                }
            }
            State::Sketch { slices, stale, .. } => {
                for slot in leaving(self.newest, now) {
                    *stale |= slices.get_mut(slot).is_some_and(|slice| slice.take().is_some());
                }
            }
        }
        self.newest = now;
    }

    /// Counts `key` in `slice`, which must be one of those kept.
    pub fn insert(&mut self, key: &Key, slice: u64) {
        match &mut self.state {
            State::Exact { last, by_slice, live } => {
                let oldest = self.newest.saturating_sub(SLICES);
                let seen = last.get_mut(key);
                let fresh = match seen {
                    Some(before) if *before >= slice => return,
                    Some(before) => {
                        let before = std::mem::replace(before, slice);
                        if let Some(count) = by_slice.get_mut(slot(before)).filter(|_| before >= oldest) {
                            *count -= 1;
                            *live -= 1;
                        }
                        false
                    }
                    None => true,
                };
                if fresh {
                    if *live as usize >= self.bound {
                        self.become_sketch();
                        return self.insert(key, slice);
                    }
                    if last.len() >= (*live as usize).max(8) * 2 {
                        last.retain(|_, slice| *slice >= oldest);
                    }
                    last.insert(*key, slice);
                }
                if let Some(count) = by_slice.get_mut(slot(slice)) {
                    *count += 1;
                    *live += 1;
                }
            }
            State::Sketch { slices, union, .. } => {
                if let Some(registers) = slices.get_mut(slot(slice)) {
                    registers.get_or_insert_with(Registers::new).insert(key);
                }
                // Right even while the union is stale: it is made anew from the slices.
                union.insert(key);
            }
        }
    }

    fn become_sketch(&mut self) {
        let State::Exact { last, .. } = &self.state else { return };
        let mut slices = vec![None::<Registers>; KEPT];
        let mut union = Registers::new();
        let oldest = self.newest.saturating_sub(SLICES);
        for (key, slice) in last.iter().filter(|(_, slice)| **slice >= oldest) {
            if let Some(registers) = slices.get_mut(slot(*slice)) {
                registers.get_or_insert_with(Registers::new).insert(key);
            }
            union.insert(key);
        }
        self.state = State::Sketch { slices, union, stale: false };
    }

    fn refresh(&mut self) {
        if let State::Sketch { slices, union, stale } = &mut self.state
            && *stale
        {
            union.clear();
            slices.iter().flatten().for_each(|slice| union.merge(slice));
            *stale = false;
        }
    }

    /// Distinct values in the window, and whether that is exact.
    pub fn count(&mut self) -> (u64, bool) {
        self.refresh();
        match &self.state {
            State::Exact { live, .. } => (u64::from(*live), true),
            State::Sketch { union, .. } => (union.estimate(), false),
        }
    }

    /// Values that are counted exactly.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Gives each value in the window to `take`, as long as they are counted exactly.
    pub fn each(&self, mut take: impl FnMut(&Key)) {
        let oldest = self.newest.saturating_sub(SLICES);
        if let State::Exact { last, .. } = &self.state {
            last.iter().filter(|(_, slice)| **slice >= oldest).for_each(|(key, _)| take(key));
        }
    }

    /// The window's values as the start of a count that forgets nothing.
    pub fn distinct(&mut self) -> Distinct {
        self.refresh();
        let oldest = self.newest.saturating_sub(SLICES);
        match &self.state {
            State::Exact { last, .. } => {
                let mut distinct = Distinct::new(self.bound);
                last.iter().filter(|(_, slice)| **slice >= oldest).for_each(|(key, _)| distinct.insert(key));
                distinct
            }
            State::Sketch { union, .. } => Distinct::from_sketch(union.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn key(number: u16) -> Key {
        u128::from(number).to_be_bytes()
    }

    #[test]
    fn a_value_counts_for_24_slices_after_its_own() {
        let mut window = Window::new(100);
        window.reset(1000);
        window.insert(&key(1), 1000);
        window.advance(1024);
        assert_eq!(window.count(), (1, true));
        window.advance(1025);
        assert_eq!(window.count(), (0, true));
        window.advance(u64::MAX);
        assert_eq!(window.count(), (0, true));
    }

    #[test]
    fn a_late_value_counts_in_its_own_slice() {
        let mut window = Window::new(100);
        window.reset(50);
        window.insert(&key(1), 30);
        window.insert(&key(2), 50);
        window.insert(&key(2), 30);
        window.advance(55);
        assert_eq!(window.count(), (1, true), "seen late does not make a value younger or older");
    }

    #[test]
    fn a_sketch_slides_too() {
        let mut window = Window::new(10);
        window.reset(0);
        for number in 0..2_000u16 {
            window.advance(u64::from(number) / 200);
            window.insert(&key(number), u64::from(number) / 200);
        }
        let (count, exact) = window.count();
        assert!(!exact && (1_900..2_100).contains(&count), "{count}");
        window.advance(24 + 5);
        let (count, _) = window.count();
        assert!((940..1_060).contains(&count), "five of ten slices are left: {count}");
        window.advance(24 + 10);
        assert_eq!(window.count().0, 0);
        window.reset(40);
        assert_eq!(window.count(), (0, true));
    }

    #[test]
    fn past_values_are_swept() {
        let mut window = Window::new(10_000);
        window.reset(0);
        for number in 0..u16::MAX {
            window.advance(u64::from(number));
            window.insert(&key(number), u64::from(number));
        }
        let State::Exact { last, .. } = &window.state else { panic!() };
        assert!(last.len() <= 2 * KEPT, "{}", last.len());
        assert_eq!(window.count(), (KEPT as u64, true));
    }

    proptest! {
        /// Against the definition: distinct values whose newest sighting stands in the last 25 slices.
        #[test]
        fn agrees_with_brute_force(steps in proptest::collection::vec((0u64..6, 0u64..30, 0u16..40), 1..400)) {
            let mut window = Window::new(1_000);
            let mut now = 500;
            window.reset(now);
            let mut seen: Vec<(u64, u16)> = Vec::new();
            for (step, age, number) in steps {
                now += step;
                window.advance(now);
                if age <= SLICES {
                    window.insert(&key(number), now - age);
                    seen.push((now - age, number));
                }
                let want: HashSet<u16> = seen.iter().filter(|(slice, _)| slice + SLICES >= now).map(|(_, n)| *n).collect();
                prop_assert_eq!(window.count(), (want.len() as u64, true));
                prop_assert_eq!(window.distinct().count(), (want.len() as u64, true));
            }
        }
    }
}
