//! Server faults: misses that rise over all who are known to be members.
//!
//! **In**: reads and misses of *witnesses*. **Out**: the share of misses that is usual on a route, and whether the server
//! is at fault now.
//!
//! A witness is a read with a credential that a login issued, of an account that is not known to be another's, or by a client
//! whose own miss test stands well on the side of the members. (Who asks for others' accounts with issued tokens from five
//! hundred networks would make a fault of it, and hide in that.) Nobody makes a fault cheaply: an eighth of all witnesses' reads must miss, of one route and within
//! seconds, and half of these must come from others than the eight networks that miss most. In a service of a thousand reads a second that is
//! more than a hundred misses a second with issued credentials, and the fault itself is told.
//!
//! What is usual is measured from witnesses too, with a half-life of a day, and never believed to be less than 2 % or more
//! than 10 %; it stands still during a fault.

use serde::{Deserialize, Serialize};

use super::time::{Fading, Tenths};

/// Half-life of what is usual, and of what is now, in seconds.
const USUAL_S: f32 = 86_400.0;
const NOW_S: f32 = 5.0;
/// Witnesses' reads that there must be.
const READS_MIN: f32 = 24.0;
/// Misses are counted by network in this many buckets; so many of the fullest may hold half of them.
const NETWORKS: usize = 64;
const FULLEST: usize = 8;
/// A fault begins at this share of misses (or three times the usual one), and ends at half of it.
const SHARE: f32 = 0.125;
/// After this, half of the misses by network is forgotten.
const NETWORKS_TENTHS: Tenths = 50;

/// Misses of witnesses on one route.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Witnesses {
    usual: Share,
    now: Share,
    /// The latest misses by network.
    #[serde(skip, default = "no_networks")]
    networks: [u16; NETWORKS],
    networks_at: Tenths,
    fault: Option<Tenths>,
}

/// They are forgotten within a minute, and so not kept over a restart.
fn no_networks() -> [u16; NETWORKS] {
    [0; NETWORKS]
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Share {
    reads: Fading,
    misses: Fading,
}

impl Share {
    fn add(&mut self, miss: bool, now: Tenths, half: f32) {
        self.reads.add(1.0, now, half);
        if miss {
            self.misses.add(1.0, now, half);
        }
    }

    fn of(&self, now: Tenths, half: f32) -> (f32, f32) {
        (self.misses.at(now, half), self.reads.at(now, half))
    }
}

/// What became of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing.
    None,
    /// It began.
    Began,
    /// It is over.
    Ended,
}

impl Default for Witnesses {
    fn default() -> Self {
        let (usual, now) = Default::default();
        Self { usual, now, networks: [0; NETWORKS], networks_at: 0, fault: None }
    }
}

impl Witnesses {
    /// Counts a witness' read or miss; `network` is a hash of where it came from.
    pub fn count(&mut self, miss: bool, network: u64, now: Tenths) -> Turn {
        self.now.add(miss, now, NOW_S);
        if self.fault.is_none() {
            self.usual.add(miss, now, USUAL_S);
        }
        if miss {
            self.remember(network, now);
        } else if self.fault.is_none() {
            return Turn::None;
        }
        let (misses, reads) = self.now.of(now, NOW_S);
        let limit = SHARE.max(3.0 * self.usual(now));
        match self.fault {
            None if reads >= READS_MIN && misses > limit * reads && self.widespread() => {
                self.fault = Some(now);
                Turn::Began
            }
            Some(_) if misses < 0.5 * limit * reads => {
                self.fault = None;
                Turn::Ended
            }
            _ => Turn::None,
        }
    }

    fn remember(&mut self, network: u64, now: Tenths) {
        let passed = now.saturating_sub(self.networks_at) / NETWORKS_TENTHS;
        if passed > 0 {
            for count in &mut self.networks {
                *count = count.checked_shr(passed).unwrap_or(0);
            }
            self.networks_at = now;
        }
        let bucket = usize::try_from(network % NETWORKS as u64).ok().and_then(|index| self.networks.get_mut(index));
        if let Some(count) = bucket {
            *count = count.saturating_add(1);
        }
    }

    /// True when the latest misses come from many networks.
    fn widespread(&self) -> bool {
        let mut counts = self.networks.map(u32::from);
        counts.sort_unstable_by(|a, b| b.cmp(a));
        let (fullest, others) = counts.split_at(FULLEST);
        others.iter().sum::<u32>() >= fullest.iter().sum()
    }

    /// Share of misses that is usual, as measured.
    fn measured(&self, now: Tenths) -> f32 {
        let (misses, reads) = self.usual.of(now, USUAL_S);
        misses / (reads + 100.0)
    }

    /// Share of misses that is usual, as it is believed: 0.02 to 0.1.
    pub fn usual(&self, now: Tenths) -> f32 {
        self.measured(now).clamp(0.02, 0.1)
    }

    /// Since when the server is at fault. What has not been seen for a minute is over.
    pub fn fault(&self, now: Tenths) -> Option<Tenths> {
        self.fault.filter(|_| now.saturating_sub(self.now_at()) < 600)
    }

    fn now_at(&self) -> Tenths {
        self.now.reads.last()
    }

    /// Misses among witnesses' reads of the last seconds, and these reads.
    pub fn recent(&self, now: Tenths) -> (f32, f32) {
        self.now.of(now, NOW_S)
    }

    /// Misses and reads that make up what is usual, for a snapshot.
    pub fn state(&self, now: Tenths) -> (f32, f32) {
        self.usual.of(now, USUAL_S)
    }

    /// From a snapshot.
    pub fn restore(&mut self, (misses, reads): (f32, f32), now: Tenths) {
        self.usual = Share::default();
        if misses.is_finite() && reads.is_finite() && misses >= 0.0 && reads >= misses {
            self.usual.reads.add(reads, now, USUAL_S);
            self.usual.misses.add(misses, now, USUAL_S);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::testing::Random;

    /// A hundred reads a second for a minute, of which `share` misses, from `networks` networks.
    fn minute(witnesses: &mut Witnesses, from: Tenths, share: f64, networks: u64) -> Vec<(Tenths, Turn)> {
        let mut random = Random(u64::from(from));
        let mut turns = Vec::new();
        for n in 0..6_000u32 {
            let now = from + n / 10;
            let network = random.below(networks).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            match witnesses.count(random.happens(share), network, now) {
                Turn::None => {}
                turn => turns.push((now, turn)),
            }
        }
        turns
    }

    #[test]
    fn a_fault_begins_within_seconds_and_ends() {
        let mut witnesses = Witnesses::default();
        assert_eq!(minute(&mut witnesses, 0, 0.01, 1_000), []);
        let usual = witnesses.usual(600);
        let turns = minute(&mut witnesses, 600, 0.6, 1_000);
        assert!(matches!(turns[..], [(at, Turn::Began)] if at < 650), "{turns:?}");
        assert!(witnesses.fault(1_200).is_some());
        assert!((witnesses.usual(1_200) - usual).abs() < 0.02, "a fault does not become usual");
        let turns = minute(&mut witnesses, 1_200, 0.01, 1_000);
        assert!(matches!(turns[..], [(_, Turn::Ended)]), "{turns:?}");
        assert_eq!(witnesses.fault(1_800), None);
    }

    #[test]
    fn a_few_networks_make_no_fault() {
        let mut witnesses = Witnesses::default();
        minute(&mut witnesses, 0, 0.01, 1_000);
        assert_eq!(minute(&mut witnesses, 600, 0.6, 5), []);
    }

    #[test]
    fn what_is_usual_is_bounded_and_outlives_a_restart() {
        let mut witnesses = Witnesses::default();
        assert!((witnesses.usual(0) - 0.02).abs() < 1e-6);
        for n in 0..100 {
            minute(&mut witnesses, n * 600, 0.06, 1_000);
        }
        assert!((0.05..0.07).contains(&witnesses.usual(60_000)), "{}", witnesses.usual(60_000));
        let mut restored = Witnesses::default();
        restored.restore(witnesses.state(60_000), 5);
        assert!((restored.usual(5) - witnesses.usual(60_000)).abs() < 1e-3);
        restored.restore((f32::NAN, 1.0), 5);
        assert!((restored.usual(5) - 0.02).abs() < 1e-6);
    }
}
