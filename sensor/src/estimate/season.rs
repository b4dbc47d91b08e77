//! What is usual at this hour of the week, for one measure: robust, slow to learn, and explainable as "observed, expected,
//! so many deviations".
//!
//! **Method.** A level for each of the 168 hours of the week (UTC), moved towards what was observed by a share that falls
//! from all to a quarter, never by more than two deviations at once (Huber's clipping); the deviation is one for all hours,
//! 1.25 times the clipped mean of absolute residuals, and never below what chance makes (`floor`) or 5 % of the level. An
//! hour that was not seen on this day of the week borrows that of the same hour on other days, with a wider deviation; the
//! first day expects nothing. What is more than six deviations away is not learned at once: only if the same hour of the
//! next week is like it. A drift that is real is usual after two weeks, an attack of one week never.

use serde::{Deserialize, Serialize};

/// Hours of a week.
const WEEK: usize = 168;
const DAY: usize = 24;
/// Deviations beyond which an hour is not learned at once.
pub(super) const ODD: f32 = 6.0;

/// Seasons of one measure. Values are whatever scale the caller keeps them on, best one on which chance is even (twice the
/// root of a count).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Season {
    cells: Vec<Cell>,
    days: Vec<Cell>,
    deviation: f32,
    learned: u16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Cell {
    level: f32,
    times: u8,
    /// What was too odd to be learned last time.
    odd: Option<f32>,
}

impl Cell {
    fn learn(&mut self, value: f32, most: f32) {
        let share = if self.times < 4 { 1.0 / f32::from(self.times + 1) } else { 0.25 };
        let off = value - self.level;
        self.level += share * if self.times == 0 { off } else { off.clamp(-most, most) };
        self.times = self.times.saturating_add(1);
    }
}

/// What is expected of an hour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Expected {
    pub level: f32,
    pub deviation: f32,
}

impl Expected {
    /// How many deviations `value` is above.
    pub fn score(self, value: f32) -> f32 {
        (value - self.level) / self.deviation
    }
}

impl Default for Season {
    fn default() -> Self {
        Self { cells: vec![Cell::default(); WEEK], days: vec![Cell::default(); DAY], deviation: 0.0, learned: 0 }
    }
}

impl Season {
    /// What is expected of the hour numbered `hour` since 1970, when chance alone deviates by `floor`.
    pub(super) fn expected(&self, hour: u64, floor: f32) -> Option<Expected> {
        let cell = self.cells.get(place(hour, WEEK)).filter(|cell| cell.times > 0);
        let day = self.days.get(place(hour, DAY)).filter(|cell| cell.times > 0);
        let (cell, wider) = match (cell, day) {
            (Some(cell), _) => (cell, if cell.times == 1 { 1.5 } else { 1.0 }),
            (None, Some(day)) => (day, if day.times < 3 { 3.0 } else { 2.0 }),
            (None, None) => return None,
        };
        // Little is known of how much it varies after a day or two.
        let young = f32::from(48u16.saturating_sub(self.learned)) / 48.0;
        let least = floor.max((0.05 + 0.15 * young) * cell.level.abs());
        Some(Expected { level: cell.level, deviation: self.deviation.max(least) * wider })
    }

    /// Learns what an hour came to.
    pub(super) fn learn(&mut self, hour: u64, value: f32, floor: f32) {
        let expected = self.expected(hour, floor);
        let Some(cell) = self.cells.get_mut(place(hour, WEEK)) else { return };
        let mut most = f32::INFINITY;
        if let Some(expected) = expected {
            let score = expected.score(value);
            if score.abs() > ODD {
                let again = cell.odd.is_some_and(|odd| (value - odd).abs() <= 3.0 * expected.deviation);
                cell.odd = Some(value);
                if !again {
                    return;
                }
            } else {
                let residual = (value - expected.level).abs().min(3.0 * expected.deviation) * 1.253_3;
                let share = 1.0 / f32::from(self.learned.clamp(1, 100));
                self.deviation += share * (residual - self.deviation);
                most = 2.0 * expected.deviation;
                self.learned = self.learned.saturating_add(1);
            }
        }
        if cell.odd.take().is_some_and(|odd| (value - odd).abs() < f32::EPSILON) {
            // Twice the same: it is usual now.
            most = f32::INFINITY;
            cell.times = 0;
        }
        cell.learn(value, most);
        if let Some(day) = self.days.get_mut(place(hour, DAY)) {
            day.learn(value, most);
        }
    }

    /// True if it is of the right size, and finite: from a file it may not be.
    pub fn is_sound(&self) -> bool {
        let sound = |cell: &Cell| cell.level.is_finite() && cell.odd.is_none_or(f32::is_finite);
        self.cells.len() == WEEK
            && self.days.len() == DAY
            && self.cells.iter().chain(&self.days).all(sound)
            && self.deviation.is_finite()
            && self.deviation >= 0.0
    }
}

fn place(hour: u64, of: usize) -> usize {
    usize::try_from(hour % of as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::testing::Random;

    /// Four times as much by day as by night, half of it on the last two days of a week, and chance.
    #[expect(clippy::cast_possible_truncation, reason = "small numbers")]
    fn usual(hour: u64, random: &mut Random) -> f32 {
        let day = if hour % 24 < 8 { 10.0 } else { 40.0 };
        let week = if hour % 168 >= 120 { 0.5 } else { 1.0 };
        let chance = (0..12).map(|_| random.unit()).sum::<f64>() - 6.0;
        (day * week + chance) as f32
    }

    fn weeks(season: &mut Season, from: u64, to: u64, random: &mut Random) -> f32 {
        let mut most: f32 = 0.0;
        for hour in from * 168..to * 168 {
            let value = usual(hour, random);
            if let Some(expected) = season.expected(hour, 1.0) {
                most = most.max(expected.score(value));
            }
            season.learn(hour, value, 1.0);
        }
        most
    }

    #[test]
    fn a_month_of_members_is_usual() {
        let (mut season, mut random) = (Season::default(), Random(1));
        assert_eq!(season.expected(5, 1.0), None);
        assert!(weeks(&mut season, 0, 4, &mut random) < ODD);
        let expected = season.expected(5 * 168 + 12, 1.0).unwrap();
        assert!((38.0..42.0).contains(&expected.level) && expected.deviation < 3.0, "{expected:?}");
        assert!(expected.score(60.0) > 6.0);
    }

    #[test]
    fn one_odd_week_is_not_learned_and_two_are() {
        let (mut season, mut random) = (Season::default(), Random(2));
        weeks(&mut season, 0, 3, &mut random);
        for hour in 3 * 168..4 * 168 {
            season.learn(hour, usual(hour, &mut random) + 60.0, 1.0);
        }
        let expected = season.expected(4 * 168 + 12, 1.0).unwrap();
        assert!(expected.score(100.0) > ODD, "{expected:?}");
        for hour in 4 * 168..5 * 168 {
            season.learn(hour, usual(hour, &mut random) + 60.0, 1.0);
        }
        let expected = season.expected(5 * 168 + 12, 1.0).unwrap();
        assert!(expected.score(100.0) < 3.0, "{expected:?}");
        // An outage of a day comes once.
        for hour in 5 * 168..5 * 168 + 24 {
            season.learn(hour, 0.0, 1.0);
        }
        assert_eq!(season.expected(6 * 168 + 12, 1.0).map(|e| e.level), Some(expected.level));
    }

    #[test]
    fn it_can_be_written_down() {
        let (mut season, mut random) = (Season::default(), Random(3));
        weeks(&mut season, 0, 2, &mut random);
        let text = serde_json::to_string(&season).unwrap();
        assert!(text.len() < 16_384, "{}", text.len());
        let read: Season = serde_json::from_str(&text).unwrap();
        assert!(read.is_sound());
        assert_eq!(read, season);
        assert!(
            !serde_json::from_str::<Season>("{\"cells\":[],\"days\":[],\"deviation\":1.0,\"learned\":3}")
                .unwrap()
                .is_sound()
        );
    }
}
