//! Who guesses, and the same volume of those who do not.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]

use super::*;
use crate::estimate::testing::*;
use crate::estimate::time::Epoch;
use crate::observation::{Interned, RouteId};

struct Rig {
    misses: Misses,
    epoch: Epoch,
}

impl Rig {
    fn new(misses: usize) -> Self {
        let mut epoch = Epoch::default();
        epoch.tenths(at(0.0).monotonic_ns);
        Self { misses: Misses::new(misses, 3, Hasher::new([3; 16])), epoch }
    }

    fn take(&mut self, o: &Observation) -> Odds {
        let route = usize::from(o.route.unwrap_or(RouteId(0)).0);
        self.misses.observe(o, route, self.epoch.tenths(o.at.monotonic_ns))
    }
}

fn guess(seconds: f64, id: u64, client: IpAddr, miss: bool) -> Observation {
    let outcome = if miss { Outcome::Miss } else { Outcome::Read };
    Observation { outcome, kid: Some(Interned(7)), ..forged_read(seconds, id, client) }
}

#[test]
fn four_misses_decide() {
    let mut rig = Rig::new(1_024);
    let odds: Vec<i32> = (0..4).map(|n| rig.take(&guess(n as f64, n, address(1), true)).client).collect();
    assert_eq!(odds, [130, 260, 390, 520]);
}

#[test]
fn the_incident_is_decided_in_a_handful_of_requests_of_its_key() {
    let mut worst = 0;
    let mut sum = 0;
    for seed in 0..200 {
        let (mut rig, mut random) = (Rig::new(1_024), Random(seed));
        let needed = (1..1_000).find(|n| {
            let o = guess(*n as f64 * 0.23, *n, address(*n as u32), random.happens(0.566));
            rig.take(&o).kid >= 500
        });
        worst = worst.max(needed.unwrap());
        sum += needed.unwrap();
    }
    assert!(sum < 200 * 10 && worst < 40, "{sum} / 200, {worst}");
}

/// Trello's 97 % misses from one network each, and 2 % of a member's.
#[test]
fn networks_of_guessers_and_of_members() {
    let (mut rig, mut random) = (Rig::new(65_536), Random(1));
    let mut most = 0;
    for n in 0..400_000u64 {
        let client = address(random.below(3_000) as u32);
        let mut o = guess(n as f64 / 50.0, random.below(1_000_000), client, random.happens(0.002));
        o.provenance = Provenance::Unverifiable;
        let odds = rig.take(&o);
        assert_eq!(odds.kid, 0, "only what no login issued");
        most = most.max(odds.client).max(odds.network);
    }
    assert!(most < 500, "members who miss a tenth of what is usual: {most}");
    let mut last = Odds::default();
    for n in 0..20u64 {
        let client = IpAddr::from([203, 0, 113, u8::try_from(n).unwrap()]);
        last = rig.take(&guess(9_000.0 + n as f64, n, client, random.happens(0.97)));
    }
    assert!(last.network > 1_000 && last.client < 200, "{last:?}");
}

#[test]
fn issued_credentials_and_the_same_target_again_do_not_count() {
    let mut rig = Rig::new(1_024);
    for n in 0..100 {
        let mut o = guess(n as f64, n, address(1), true);
        o.provenance = Provenance::Issued;
        assert_eq!(rig.take(&o), Odds::default());
        let o = guess(n as f64, n % 2, address(2), true);
        assert!(rig.take(&o).client <= 260);
        let o = Observation { class: RouteClass::Other, ..guess(n as f64, n, address(3), true) };
        assert_eq!(rig.take(&o), Odds::default());
    }
}

#[test]
fn half_is_forgotten_in_six_hours() {
    let mut rig = Rig::new(1_024);
    for n in 0..4 {
        rig.take(&guess(n as f64, n, address(1), true));
    }
    let later = rig.take(&guess(21_603.0, 3, address(1), true));
    assert!((255..=265).contains(&later.client), "{later:?}");
}

/// The server answers 404 to everybody for two minutes: members whose credentials nobody knows miss too.
#[test]
fn a_server_fault_is_told_and_makes_nobody_a_guesser() {
    let (mut rig, mut random) = (Rig::new(65_536), Random(2));
    let (mut most, mut told) = (0, Vec::new());
    for n in 0..120_000u32 {
        let now = f64::from(n) / 200.0;
        let fault = (300.0..420.0).contains(&now);
        let miss = random.happens(if fault { 0.9 } else { 0.005 });
        let client = address(random.below(2_000) as u32);
        let mut o = guess(now, random.below(100_000), client, miss);
        o.provenance = if n % 4 == 0 { Provenance::Unverifiable } else { Provenance::Issued };
        let odds = rig.take(&o);
        most = most.max(odds.client).max(odds.network);
        rig.misses.faults(rig.epoch.tenths(o.at.monotonic_ns), |fault| told.push((now, fault)));
    }
    assert!(most < 500, "{most}");
    assert_eq!(told.len(), 1, "{told:?}");
    let (at, fault) = &told[0];
    assert!((300.0..303.0).contains(at) && fault.share > 0.1 && fault.usual < 0.03, "{at} {fault:?}");
    assert_eq!(fault.clients.len(), SAMPLE);
}

/// A service of which no login is seen: who has read well for a while is a witness too.
#[test]
fn members_without_issued_credentials_are_witnesses() {
    let (mut rig, mut random) = (Rig::new(65_536), Random(3));
    let mut told = 0;
    for n in 0..60_000u32 {
        let now = f64::from(n) / 100.0;
        let miss = random.happens(if now > 500.0 { 0.9 } else { 0.005 });
        let mut o = guess(now, random.below(100_000), address(random.below(500) as u32), miss);
        o.provenance = Provenance::Unverifiable;
        rig.take(&o);
        rig.misses.faults(rig.epoch.tenths(o.at.monotonic_ns), |_| told += 1);
    }
    assert_eq!(told, 1);
}

/// Guessers over thousands of addresses make no fault of the server of themselves, and hide behind none.
#[test]
fn guessers_make_no_fault() {
    let (mut rig, mut random) = (Rig::new(65_536), Random(4));
    let (mut told, mut last) = (0, Odds::default());
    for n in 0..60_000u32 {
        let now = f64::from(n) / 100.0;
        rig.take(&own_read(now, random.below(100_000), address(random.below(5_000) as u32)));
        let client = address(10_000 + random.below(2_313) as u32);
        last = rig.take(&guess(now, u64::from(n), client, random.happens(0.566)));
        rig.misses.faults(rig.epoch.tenths(o_at(now)), |_| told += 1);
    }
    assert_eq!(told, 0);
    assert!(last.kid > 1_000, "{last:?}");
}

/// Issued tokens that ask for the accounts of others, over hundreds of networks, say nothing of the server, while a
/// member who does not find the own account does.
#[test]
fn who_tries_numbers_with_issued_tokens_is_no_witness_of_a_fault() {
    for (relation, faults) in [(Relation::Foreign, 0), (Relation::Own, 1)] {
        let (mut rig, mut random) = (Rig::new(65_536), Random(5));
        let mut told = 0;
        for n in 0..60_000u32 {
            let now = f64::from(n) / 100.0;
            rig.take(&own_read(now, random.below(100_000), address(random.below(5_000) as u32)));
            if now > 300.0 {
                let mut o = guess(now, u64::from(n), address(10_000 + random.below(500) as u32), random.happens(0.9));
                (o.provenance, o.relation) = (Provenance::Issued, relation);
                rig.take(&o);
            }
            rig.misses.faults(rig.epoch.tenths(o_at(now)), |_| told += 1);
        }
        assert_eq!(told, faults, "{relation:?}");
    }
}

fn o_at(seconds: f64) -> u64 {
    at(seconds).monotonic_ns
}

#[test]
fn a_flood_of_clients_does_not_push_a_guesser_out() {
    let mut rig = Rig::new(1_024);
    for n in 0..6 {
        rig.take(&guess(n as f64, n, address(1), true));
    }
    for n in 0..100_000u32 {
        rig.take(&guess(10.0 + f64::from(n) / 1_000.0, 1_000 + u64::from(n), address(10 + n), n % 2 == 0));
    }
    assert!(rig.take(&guess(111.0, 5, address(1), true)).client > 700);
    assert!(rig.misses.stats().evicted + rig.misses.stats().refused > 100_000);
}
