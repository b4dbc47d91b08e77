//! What the clients did and what they hold: the lab's own counts, to be laid beside nginx's and the sensor's, and
//! every raw credential of the run, to be searched for in whatever the sensor leaves behind.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::store;

/// What an answer to an account read means, in the sensor's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// Personal data was returned.
    Read,
    /// There is no such member.
    Miss,
    /// Refused.
    Denied,
    /// Anything else: the login page.
    Other,
}

impl Outcome {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Read, Self::Miss, Self::Denied, Self::Other];

    /// The label of the sensor's metric.
    pub fn label(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Miss => "miss",
            Self::Denied => "denied",
            Self::Other => "other",
        }
    }
}

/// Requests, and account reads among them by outcome and status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All requests.
    pub requests: u64,
    /// Account reads.
    pub reads: BTreeMap<(Outcome, u16), u64>,
}

impl Counts {
    /// Counts one answered request.
    pub fn add(&mut self, method: &str, target: &str, status: u16, content_type: &str) {
        self.requests += 1;
        let path = target.split('?').next().unwrap_or_default();
        if method != "GET" || store::page(path).is_none() {
            return;
        }
        let outcome = match status {
            200 if content_type.starts_with("application/json") => Outcome::Read,
            404 => Outcome::Miss,
            401 | 403 => Outcome::Denied,
            _ => Outcome::Other,
        };
        *self.reads.entry((outcome, status)).or_default() += 1;
    }

    /// Account reads of one outcome.
    pub fn outcome(&self, outcome: Outcome) -> u64 {
        self.reads.iter().filter(|((of, _), _)| *of == outcome).map(|(_, count)| count).sum()
    }
}

/// The raw credentials of a run.
#[derive(Debug, Default)]
pub struct Wallet {
    /// Session cookie values.
    pub sessions: BTreeSet<String>,
    /// Issued and forged JWTs.
    pub tokens: BTreeSet<String>,
    /// Refresh tokens.
    pub refresh_tokens: BTreeSet<String>,
    /// Passwords.
    pub passwords: BTreeSet<String>,
}

/// What the threads of the clients share with the narrator.
#[derive(Debug, Default)]
pub struct Shared {
    counts: Mutex<Counts>,
    wallet: Mutex<Wallet>,
    /// Logins that succeeded.
    pub logins: AtomicU64,
    /// Logins that failed.
    pub failed_logins: AtomicU64,
    /// Refreshed tokens.
    pub refreshes: AtomicU64,
    /// Members' pages read by members.
    pub pages: AtomicU64,
    /// Requests with a forged token.
    pub forged_requests: AtomicU64,
    /// Accounts read with a forged token (each token reads its own).
    pub forged_accounts: AtomicU64,
    /// When the first forged request was sent.
    pub attack_began: OnceLock<Instant>,
    /// Asks the threads to end early.
    pub stop: AtomicBool,
}

impl Shared {
    /// Counts one answered request.
    pub fn count(&self, method: &str, target: &str, status: u16, content_type: &str) {
        lock(&self.counts).add(method, target, status, content_type);
    }

    /// The counts so far.
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// The credentials so far.
    pub fn wallet(&self) -> MutexGuard<'_, Wallet> {
        lock(&self.wallet)
    }

    /// Adds one to a counter.
    pub fn bump(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Small deterministic random numbers (SplitMix64): the same seed gives the same script.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    /// Dice for one member of a run.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ stream.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound` (1 at least).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mix = self.0;
        mix = (mix ^ (mix >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mix = (mix ^ (mix >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mix ^ (mix >> 31)) % bound.max(1)
    }

    /// True in `percent` of a hundred throws.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_page_with_status_200_is_not_a_read() {
        let mut counts = Counts::default();
        let page = store::Page::Addresses.path(100_002);
        counts.add("GET", &page, 200, "application/json");
        counts.add("GET", &page, 200, "text/html; charset=utf-8");
        counts.add("GET", &page, 401, "text/html");
        counts.add("GET", &page, 403, "application/json");
        counts.add("GET", &format!("{page}?a=1"), 404, "application/json");
        counts.add("HEAD", &page, 200, "application/json");
        counts.add("GET", "/home", 200, "text/html");
        assert_eq!(Outcome::ALL.map(|outcome| counts.outcome(outcome)), [1, 1, 2, 1]);
        assert_eq!(counts.requests, 7);
    }

    #[test]
    fn the_same_seed_gives_the_same_throws() {
        let throws = |seed| {
            let mut dice = Dice::new(seed, 3);
            (0..50).map(|_| dice.below(1000)).collect::<Vec<_>>()
        };
        assert_eq!(throws(1), throws(1));
        assert_ne!(throws(1), throws(2));
    }
}
