//! Two objects timed in one run: each class's figures as ratios, which a slow or busy machine does not change.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::run::{Figure, median};

/// Above this a class counts as slower: what two runs of the same object differ by.
const TOLERANCE: f64 = 1.05;

/// One class by both objects.
pub struct Pair {
    new: Figure,
    old: Figure,
}

impl Pair {
    /// New over old, of the minima.
    fn min(&self) -> f64 {
        self.new.min() / self.old.min()
    }

    /// The middle one of the ratios of calls that followed each other.
    fn median(&self) -> f64 {
        median(self.new.calls.iter().zip(&self.old.calls).map(|(new, old)| new / old).collect())
    }

    /// Slower by both measures: one alone may be the machine's doing.
    fn is_worse(&self) -> bool {
        self.min() > TOLERANCE && self.median() > TOLERANCE
    }
}

/// Joins the figures of two runners: first the new object's, then the old one's.
pub fn pairs(figures: Vec<Vec<Figure>>) -> Vec<Pair> {
    let mut sides = figures.into_iter();
    let (new, old) = (sides.next().unwrap_or_default(), sides.next().unwrap_or_default());
    new.into_iter().zip(old).map(|(new, old)| Pair { new, old }).collect()
}

/// Everything that was measured.
pub struct Report<'a> {
    /// By class.
    pub pairs: &'a [Pair],
    /// Instructions that the verifier looked at, by program: new, old.
    pub verified: &'a [Vec<(&'static str, u32)>; 2],
    /// Statistics were on: all figures are too high, and ratios too near to 1.
    pub disturbed: bool,
    /// That the old object did what each class is about was checked by its counters.
    pub checked: bool,
}

impl Report<'_> {
    /// True if no class is slower than before.
    pub fn no_worse(&self) -> bool {
        !self.pairs.iter().any(Pair::is_worse)
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        if self.disturbed {
            text.push_str("run time statistics are on (another program asked for them): ratios are too near to 1\n\n");
        }
        if !self.checked {
            text.push_str("the old object's counters are not known: what it did was not checked\n\n");
        }
        let _ = writeln!(
            text,
            "{:<40} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "packet class", "new min", "median", "old min", "median", "new/old", "median"
        );
        for pair in self.pairs {
            let (new, old) = (&pair.new, &pair.old);
            let _ = writeln!(
                text,
                "{:<40} {:>8.1} {:>8.1} {:>8.1} {:>8.1} {:>8.3} {:>8.3}{}",
                new.class.name,
                new.min(),
                new.median(),
                old.min(),
                old.median(),
                pair.min(),
                pair.median(),
                if pair.is_worse() { "  SLOWER" } else { "" }
            );
        }
        for (side, programs) in ["new", "old"].iter().zip(self.verified) {
            for (program, instructions) in programs {
                let _ = write!(text, "\n{side} {program}: {instructions} instructions verified");
            }
        }
        text.push('\n');
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let classes: Vec<Value> = self
            .pairs
            .iter()
            .map(|pair| {
                json!({
                    "class": pair.new.class.name, "new_min_ns": pair.new.min(), "new_median_ns": pair.new.median(),
                    "old_min_ns": pair.old.min(), "old_median_ns": pair.old.median(),
                    "ratio_min": pair.min(), "ratio_median": pair.median(), "slower": pair.is_worse(),
                })
            })
            .collect();
        json!({ "classes": classes, "disturbed": self.disturbed, "checked": self.checked })
    }
}
