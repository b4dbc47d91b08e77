//! Estimators: what no single observation shows.
//!
//! Observations flow in, in order, and leave with their [`Estimates`](crate::observation::Estimates) filled; at ticks,
//! [`Estimate`] events flow out. Estimators measure and nothing else: thresholds, levels and groups are those of the rules
//! in `rules/detection`. All state is bounded, and time is that of the observations and ticks, so that a replay says the
//! same.

use crate::config::model::Config;
use crate::observation::{Estimate, Instant, Observation};

/// All estimators of a run.
#[derive(Debug)]
pub struct Estimators {}

impl Estimators {
    /// Ready, knowing nothing.
    pub fn new(_config: &Config) -> Self {
        Self {}
    }

    /// Takes one observation into account and fills its estimates.
    pub fn annotate(&mut self, _observation: &mut Observation) {}

    /// Says what time it is; events that are due are appended to `out`.
    pub fn tick(&mut self, _now: Instant, _out: &mut Vec<Estimate>) {}
}
