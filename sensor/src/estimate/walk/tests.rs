//! Walks over many clients, and the same volume of reads that are none.

#![allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "small numbers")]

use super::*;
use crate::estimate::testing::*;
use crate::estimate::time::Epoch;
use crate::observation::ServiceId;

struct Rig {
    walks: Walks,
    routes: Routes,
    epoch: Epoch,
}

impl Rig {
    fn new(walks: usize) -> Self {
        let routes = Routes::new(&config());
        let mut epoch = Epoch::default();
        epoch.tenths(at(0.0).monotonic_ns);
        Self { walks: Walks::new(walks, &routes, Hasher::new([3; 16])), routes, epoch }
    }

    /// With members who have long been there.
    fn knowing(walks: usize, highest: u64) -> Self {
        let mut rig = Self::new(walks);
        rig.walks.accounts.fill(Frontier::knowing(highest));
        for route in &mut rig.walks.routes {
            route.objects = Frontier::knowing(highest);
        }
        rig
    }

    fn take(&mut self, o: &Observation) -> Lengths {
        let route = self.routes.number(o).unwrap();
        self.walks.observe(o, route, self.epoch.tenths(o.at.monotonic_ns))
    }
}

const MEMBERS: u64 = 33_670_000;

#[test]
fn the_incident_in_order_over_2_313_addresses() {
    let mut rig = Rig::new(65_536);
    let (mut random, mut found) = (Random(1), None);
    // 4.3 forged reads a second, more than half of them of accounts that are not there; members read beside them.
    for n in 0..2_000u32 {
        let now = f64::from(n) / 4.3;
        for _ in 0..20 {
            let o = own_read(now, random.below(MEMBERS), address(random.below(60_000) as u32));
            assert_eq!(rig.take(&o), Lengths::default());
        }
        let mut o = forged_read(now, 12_000_000 + u64::from(n), address(random.below(2_313) as u32));
        o.outcome = if random.happens(0.566) { Outcome::Miss } else { Outcome::Read };
        let lengths = rig.take(&o);
        if found.is_none() && lengths.route >= 20 {
            found = Some(n);
        }
    }
    assert!(found.is_some_and(|steps| steps < 23), "{found:?}");
}

#[test]
fn shuffled_with_gaps_at_a_hundredth_of_the_rate() {
    let mut rig = Rig::new(65_536);
    let (mut random, mut longest) = (Random(2), 0);
    for n in 0..400u64 {
        // Blocks of 20 in any order, a third left out.
        let id = 9_000_000 + n / 20 * 30 + n * 7 % 20 * 3 / 2;
        let o = forged_read(n as f64 / 0.043, id, address(random.below(2_313) as u32));
        longest = longest.max(rig.take(&o).route);
    }
    assert!(longest > 350, "{longest}");
}

#[test]
fn the_same_volume_in_random_order_is_no_walk() {
    let mut rig = Rig::new(65_536);
    let mut random = Random(3);
    for n in 0..100_000u32 {
        let o = forged_read(f64::from(n) / 4.3, random.below(MEMBERS), address(random.below(2_313) as u32));
        let lengths = rig.take(&o);
        assert!(lengths.route.max(lengths.client).max(lengths.network) < 6, "{n}: {lengths:?}");
    }
}

/// Nothing is known of any credential, all of the service's reads are fed: ten thousand a second.
#[test]
fn ten_thousand_doubtful_reads_a_second_are_no_walk_and_hide_none_of_the_other_lane() {
    let mut rig = Rig::knowing(65_536, MEMBERS);
    let (mut random, mut most, mut found) = (Random(4), 0, 0);
    for n in 0..1_500_000u32 {
        let now = f64::from(n) / 10_000.0;
        let mut o = own_read(now, random.below(MEMBERS), address(random.below(60_000) as u32));
        o.provenance = Provenance::Unverifiable;
        let lengths = rig.take(&o);
        most = most.max(lengths.route).max(lengths.client).max(lengths.network);
        if n % 2_300 == 0 {
            let o = forged_read(now, 7_000_000 + u64::from(n / 2_300), address(random.below(2_313) as u32));
            found = rig.take(&o).route;
        }
    }
    assert!(most < 10, "{most}");
    assert!(found > 600, "{found}");
    assert!(rig.walks.stats()[0].evicted > 0, "the flood of beginnings was bounded");
}

#[test]
fn a_walk_among_doubtful_reads_is_found() {
    let mut rig = Rig::knowing(65_536, MEMBERS);
    let (mut random, mut found) = (Random(5), None);
    for n in 0..900_000u32 {
        let now = f64::from(n) / 10_000.0;
        let mut o = own_read(now, random.below(MEMBERS), address(random.below(60_000) as u32));
        o.provenance = Provenance::Preexisting;
        if n > 700_000 && n % 2_300 == 0 {
            o.target_id = Some(7_000_000 + u64::from(n / 2_300));
            if found.is_none() && rig.take(&o).route >= 20 {
                found = Some((n - 700_000) / 2_300);
            }
        } else {
            rig.take(&o);
        }
    }
    assert!(found.is_some_and(|steps| steps < 40), "{found:?}");
}

#[test]
fn one_client_and_one_network() {
    let mut rig = Rig::knowing(1_024, MEMBERS);
    let mut random = Random(6);
    let mut last = Lengths::default();
    // A member with an issued credential reads other people's accounts, in the middle of a carrier's NAT.
    for n in 0..300u32 {
        let now = f64::from(n) * 200.0;
        for _ in 0..20 {
            rig.take(&own_read(now, random.below(MEMBERS), address(1)));
        }
        let mut o = own_read(now, 500_000 + u64::from(n), address(1));
        o.relation = Relation::Foreign;
        last = rig.take(&o);
    }
    assert!(last.client > 150 && last.network > 150 && last.route > 150, "{last:?}");

    let mut rig = Rig::new(1_024);
    for n in 0..300u64 {
        let client = std::net::IpAddr::from([203, 0, 113, u8::try_from(n % 200).unwrap()]);
        last = rig.take(&forged_read(n as f64 * 10.0, 500_000 + n * 3, client));
    }
    assert!(last.client < 4 && last.network > 150, "{last:?}");
}

#[test]
fn wide_steps_of_one_client_and_of_all() {
    let mut rig = Rig::new(4_096);
    let mut last = Lengths::default();
    // Each of a hundred addresses takes the identifiers of its own remainder.
    for n in 0..40u64 {
        for client in 0..100u32 {
            let now = (n * 100 + u64::from(client)) as f64;
            let id = 1_000_000 + n * 100_003 + u64::from(client) * 977;
            last = rig.take(&forged_read(now, id, address(client)));
        }
    }
    assert!(last.client >= 38, "{last:?}");
    for n in 0..60u64 {
        last = rig.take(&forged_read(5_000.0 + n as f64, 90_000_000 + n * 1_000, address(1_000 + n as u32)));
    }
    assert!(last.route >= 50 && last.client == 0, "{last:?}");
}

/// Members who have just signed up read their accounts, over and over: in the order of sign-up, with credentials of
/// which nothing is known.
#[test]
fn sign_ups_walk_too_and_do_not_count() {
    let mut rig = Rig::new(65_536);
    let (mut random, mut most) = (Random(7), 0);
    let mut top = 1_000_000;
    for n in 0..200_000u32 {
        let now = f64::from(n);
        top += u64::from(n % 8 == 0);
        for id in [random.below(top), top, top - random.below(70).min(u64::from(n / 8))] {
            let mut o = own_read(now, id, address(random.below(60_000) as u32));
            o.provenance = Provenance::Unverifiable;
            let lengths = rig.take(&o);
            if n > 600 {
                most = most.max(lengths.route).max(lengths.client).max(lengths.network);
            }
        }
    }
    assert!(most < 15, "{most}");
}

#[test]
fn own_accounts_and_other_classes_are_not_fed() {
    let mut rig = Rig::new(1_024);
    for n in 0..1_000u64 {
        let o = own_read(n as f64, 1_000 + n, address(1));
        assert_eq!(rig.take(&o), Lengths::default());
        let mut o = forged_read(n as f64, 1_000 + n, address(1));
        o.outcome = Outcome::Denied;
        assert_eq!(rig.take(&o), Lengths::default());
        o.target_id = None;
        assert_eq!(rig.take(&o), Lengths::default());
        o.service = ServiceId::NONE;
        assert_eq!(rig.routes.number(&o), None);
    }
}

#[test]
fn own_objects_count_for_their_reader_only() {
    let mut rig = Rig::knowing(1_024, 90_000);
    let mut last = Lengths::default();
    for n in 0..100u64 {
        let mut o = own_read(n as f64, 1_000 + n, address(1));
        o.object = o.account;
        last = rig.take(&o);
    }
    assert!(last.client > 50 && last.route == 0, "{last:?}");
}

/// What floods with identifiers, in walks of two or at random, does not push out a walk.
#[test]
fn a_flood_does_not_push_a_walk_out() {
    let mut rig = Rig::new(4_096);
    let mut random = Random(8);
    for n in 0..20u64 {
        rig.take(&forged_read(n as f64, 5_000_000 + n, address(1)));
    }
    for n in 0..200_000u32 {
        let id = random.below(MEMBERS);
        rig.take(&forged_read(20.0 + f64::from(n) / 2_000.0, id, address(random.below(60_000) as u32)));
        rig.take(&forged_read(20.0 + f64::from(n) / 2_000.0, id + 1, address(random.below(60_000) as u32)));
    }
    let after = rig.take(&forged_read(121.0, 5_000_020, address(1)));
    // Evidence wore off where the flood fell beside it.
    assert!(after.client >= 10, "{after:?} {:?}", rig.walks.stats());
}

/// A branch reads its two thousand members at random; so do two dozen branches.
#[test]
fn a_narrow_range_at_random_is_no_walk() {
    let mut rig = Rig::knowing(65_536, MEMBERS);
    let (mut random, mut most) = (Random(9), 0);
    for n in 0..100_000u32 {
        let branch = random.below(24);
        let id = branch * 1_000_000 + random.below(2_000);
        let mut o = own_read(f64::from(n) * 3.0, id, address(branch as u32));
        o.relation = Relation::Foreign;
        let lengths = rig.take(&o);
        most = most.max(lengths.route).max(lengths.client).max(lengths.network);
    }
    assert!(most < 15, "{most}");
}

/// Every one of 2,313 addresses walks a range of its own, in a service of only a hundred thousand accounts.
#[test]
fn many_walk_side_by_side() {
    let mut rig = Rig::new(65_536);
    let mut last = Lengths::default();
    for n in 0..40u64 {
        for client in 0..2_313u32 {
            let now = (n * 2_313 + u64::from(client)) as f64 / 10.0;
            last = rig.take(&forged_read(now, u64::from(client) * 43 + n, address(client)));
        }
    }
    assert!(last.client > 25, "{last:?}");
}
