//! What is under way in the estimators, so that a restart interrupts nothing: walks, miss tests, silences, hours, budgets.
//!
//! **In and out**: bytes, for the same configuration only; a changed one begins anew, but for what [`super::State`] keeps by
//! name. Times are tenths of a second of one scale that goes on over restarts ([`super::time::Epoch`]). Walks hold numbers of
//! accounts: whoever writes the bytes to a disk seals them first.

use std::fmt::Write as _;

use sensor_ebpf::siphash::{self, hash128};
use serde::{Deserialize, Serialize};

use super::Estimators;
use super::doubt::DoubtsProgress;
use super::drift::Drifts;
use super::members::{MembersProgress, Past};
use super::miss::MissesProgress;
use super::silence::Silence;
use super::time::Tenths;
use super::told::Told;
use super::walk::WalksProgress;
use crate::config::model::Config;
use crate::observation::Instant;

/// What is written apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What is under way.
    Progress,
    /// The clients of the last days, three filters.
    Past,
}

/// All parts, in the order in which they are taken up.
pub const PARTS: [Part; 2] = [Part::Past, Part::Progress];

/// Before each part.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Head {
    shape: [u8; 16],
    taken_unix_ns: u64,
    tenths: Tenths,
}

#[derive(Debug, Serialize, Deserialize)]
struct Progress {
    walks: WalksProgress,
    misses: MissesProgress,
    silence: Silence,
    doubts: DoubtsProgress,
    sights: Vec<Vec<Told>>,
    drifts: Drifts,
    members: MembersProgress,
}

/// A hash of what the state of estimators is laid out by.
pub(super) fn shape(config: &Config) -> [u8; 16] {
    let mut text = format!("1 {:?}", config.estimate);
    for service in &config.services {
        // Writing to a text cannot fail.
        let _ = write!(text, " service {:?}", service.name);
        for route in &service.routes {
            let _ = write!(text, " route {:?} {:?}", route.name, route.class);
        }
        for issuer in &service.issuers {
            let _ = write!(text, " issuer {:?} {}", issuer.name, issuer.accountable());
        }
    }
    hash128(siphash::Key::default(), text.as_bytes())
}

impl Estimators {
    /// A part as of `now`, the time of the latest tick, appended to `out`. `None`: it cannot be written.
    pub fn part(&mut self, part: Part, now: Instant, out: Vec<u8>) -> Option<Vec<u8>> {
        let tenths = self.epoch.tenths(now.monotonic_ns);
        let head = Head { shape: self.shape, taken_unix_ns: now.unix_ns, tenths };
        let written = match part {
            Part::Past => postcard::to_extend(&(head, self.members.past()), out),
            Part::Progress => {
                let progress = Progress {
                    walks: self.walks.progress(),
                    misses: self.misses.progress(),
                    silence: self.silence.clone(),
                    doubts: self.doubts.progress(),
                    sights: self.sights.progress(),
                    drifts: self.drifts.clone(),
                    members: self.members.progress(),
                };
                postcard::to_extend(&(head, progress), out)
            }
        };
        written.ok()
    }

    /// Takes up what was under way; `past`, if there is one, is the other part. Gives when it was taken, ns since
    /// 1970; `None`, and nothing done, when it is of another configuration or cannot be read.
    pub fn resume(&mut self, progress: &[u8], past: Option<&[u8]>, now: Instant) -> Option<u64> {
        let (head, progress) = postcard::from_bytes::<(Head, Progress)>(progress).ok()?;
        if head.shape != self.shape || head.taken_unix_ns > now.unix_ns {
            return None;
        }
        let past = past.and_then(|past| postcard::from_bytes::<(Head, Past)>(past).ok());
        let past = past.filter(|(of, _)| of.shape == head.shape && of.tenths <= head.tenths).map(|(_, past)| past);
        self.epoch.resume(head.tenths, now.unix_ns - head.taken_unix_ns, now.monotonic_ns);
        let tenths = self.epoch.tenths(now.monotonic_ns);
        self.walks.resume(progress.walks, tenths);
        self.misses.resume(progress.misses, tenths);
        self.silence = progress.silence;
        self.doubts.resume(progress.doubts);
        self.sights.resume(&progress.sights);
        self.drifts = progress.drifts;
        self.members.resume(progress.members, past, self.drifts.alarms(), tenths);
        Some(head.taken_unix_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{address, at, config, forged_read, login_of, own_read};
    use super::*;
    use crate::observation::{Estimate, Estimates, Observation, Outcome};

    /// Two days of members, a walk that makes a step every four minutes, somebody who guesses, and logins that stop in the
    /// end: what estimators say of each, with restarts after some of them.
    fn run(restarts: &[u32]) -> (Vec<Estimates>, Vec<Estimate>) {
        let mut estimators = Estimators::new(&config());
        let (mut said, mut events) = (Vec::new(), Vec::new());
        for n in 0..2_960u32 {
            let now = f64::from(n) * 60.0;
            if restarts.contains(&n) {
                let last = at(now - 60.0);
                let parts = PARTS.map(|part| estimators.part(part, last, Vec::new()).unwrap());
                estimators = Estimators::new(&config());
                assert_eq!(estimators.resume(&parts[1], Some(&parts[0]), at(now - 30.0)), Some(last.unix_ns));
            }
            let mut of_now = vec![own_read(now, u64::from(n % 97), address(n % 40))];
            if n < 2_880 {
                of_now.push(login_of(now + 1.0, address(n % 40), true));
            }
            if n % 4 == 0 {
                of_now.push(forged_read(now + 2.0, 9_000 + u64::from(n / 4), address(77)));
            }
            if n % 90 == 3 {
                let miss = forged_read(now + 3.0, 500_000 + u64::from(n) * 7_919, address(78));
                of_now.push(Observation { outcome: Outcome::Miss, ..miss });
            }
            for mut o in of_now {
                estimators.annotate(&mut o);
                said.push(o.estimates);
            }
            estimators.tick(at(now + 30.0), &mut events);
        }
        (said, events)
    }

    #[test]
    fn a_restart_interrupts_nothing() {
        let (whole, events) = run(&[]);
        let walked = whole.iter().map(|one| one.walk_client).max();
        let guessed = whole.iter().map(|one| one.miss_client).max();
        assert!(walked > Some(500) && guessed > Some(300), "{walked:?} {guessed:?}");
        assert!(!events.is_empty());
        let (killed, again) = run(&[100, 1_000, 1_001, 2_000, 2_890]);
        let differs = whole.iter().zip(&killed).position(|(whole, killed)| whole != killed);
        assert_eq!(differs, None);
        assert_eq!(format!("{events:?}"), format!("{again:?}"));
    }

    #[test]
    fn another_configuration_begins_anew() {
        let mut estimators = Estimators::new(&config());
        let bytes = estimators.part(Part::Progress, at(10.0), Vec::new()).unwrap();
        let mut other = config();
        other.services[0].routes.pop();
        assert_eq!(Estimators::new(&other).resume(&bytes, None, at(20.0)), None);
        assert_eq!(Estimators::new(&config()).resume(&bytes, None, at(5.0)), None, "of a time to come");
        assert_eq!(Estimators::new(&config()).resume(&bytes[..bytes.len() / 2], None, at(20.0)), None);
        assert_eq!(Estimators::new(&config()).resume(&bytes, None, at(20.0)), Some(at(10.0).unix_ns));
    }
}
