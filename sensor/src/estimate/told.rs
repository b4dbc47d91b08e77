//! When something that lasts is told: when it begins, each time that it has doubled, and every six hours.

use serde::{Deserialize, Serialize};

use super::time::Tenths;

/// After this it is told again.
const AGAIN: Tenths = 216_000;

/// What was told last.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Told(Option<(Tenths, Tenths, f32)>);

impl Told {
    /// It is so, and this much: since when it has been, if that is to be told now.
    pub fn tell(&mut self, now: Tenths, score: f32) -> Option<Tenths> {
        let since = match self.0 {
            None => now,
            Some((since, told, before)) if score >= 2.0 * before || now.saturating_sub(told) >= AGAIN => since,
            Some(_) => return None,
        };
        self.0 = Some((since, now, score));
        Some(since)
    }

    /// True from when it was told until it is over.
    pub fn lasts(self) -> bool {
        self.0.is_some()
    }

    /// It is over.
    pub fn end(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_then_doubled_then_after_six_hours() {
        let mut told = Told::default();
        let told: Vec<_> = [(5, 2.0), (6, 2.0), (7, 3.9), (8, 4.1), (9, 4.1), (216_008, 1.0), (216_009, 1.0)]
            .map(|(now, score)| told.tell(now, score))
            .into();
        assert_eq!(told, [Some(5), None, None, Some(5), None, Some(5), None]);
        let mut told = Told::default();
        told.tell(5, 2.0);
        told.end();
        assert_eq!(told.tell(9, 1.0), Some(9));
    }
}
