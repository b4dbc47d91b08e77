//! Drift and its members together: weeks of a service, and what happens to it.

#![allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]

use super::*;
use crate::estimate::drift::{Drift, Drifts};
use crate::estimate::routes::Routes;
use crate::estimate::testing::*;
use crate::estimate::time::Epoch;
use crate::observation::Measure;

struct Rig {
    routes: Routes,
    drifts: Drifts,
    members: Members,
    epoch: Epoch,
    random: Random,
    drift: Vec<(u32, Drift)>,
    told: Vec<(u32, Member)>,
}

const ATTACKERS: u32 = 100_000;
/// The whole service is out of season.
const ALL: [(usize, Measure, Option<usize>); 1] = [(0, Measure::ReadsPerLogin, None)];

impl Rig {
    fn new() -> Self {
        let routes = Routes::new(&config());
        Self {
            drifts: Drifts::new(&routes),
            members: Members::new(1 << 20, 4_096, 1, routes.len(), Hasher::new([1; 16])),
            routes,
            epoch: Epoch::default(),
            random: Random(1),
            drift: Vec::new(),
            told: Vec::new(),
        }
    }

    fn take(&mut self, o: &Observation) {
        let now = self.epoch.tenths(o.at.monotonic_ns);
        let route = self.routes.number(o).unwrap();
        self.drifts.observe(o, route);
        self.members.observe(o, route, now);
    }

    fn tick(&mut self, seconds: f64) {
        let time = at(seconds);
        let now = self.epoch.tenths(time.monotonic_ns);
        let hour = (seconds / 3_600.0) as u32;
        self.drifts.tick(now, time.unix_ns / 1_000_000_000, |drift| self.drift.push((hour, drift)));
        let drifts = &self.drifts;
        self.members.tick(now, drifts.alarms(), |member| self.told.push((hour, member)));
    }

    /// An hour of members: about 40 logins, 400 reads of addresses and 4 of the edit page by day; `more` on top.
    fn hour(&mut self, hour: u32, busy: (f64, f64, f64), more: impl Fn(&mut Self, f64)) {
        let day = if hour % 24 < 8 { 0.25 } else { 1.0 } * if hour % 168 >= 120 { 0.6 } else { 1.0 };
        let (logins, failures, reads) = busy;
        for minute in 0..60 {
            let now = f64::from(hour) * 3_600.0 + f64::from(minute) * 60.0;
            self.tick(now);
            for (rate, route) in [(6.7, ADDRESSES), (0.07, EDIT)] {
                for _ in 0..self.random.poisson(rate * day * reads) {
                    let client = self.random.below(3_000) as u32;
                    let mut o = own_read(now, u64::from(client), address(client));
                    o.route = Some(crate::observation::RouteId(route));
                    self.take(&o);
                }
            }
            for (rate, success) in [(0.7 * logins, true), (0.07 * failures, false)] {
                for _ in 0..self.random.poisson(rate * day) {
                    let client = self.random.below(3_000) as u32;
                    self.take(&login_of(now, address(client), success));
                }
            }
            more(self, now);
        }
    }

    fn weeks(&mut self, from: u32, to: u32) {
        for hour in from * 168..to * 168 {
            self.hour(hour, (1.0, 1.0, 1.0), |_, _| {});
        }
    }

    fn measures(&self) -> Vec<Measure> {
        let mut measures: Vec<Measure> = self.drift.iter().map(|(_, drift)| drift.measure).collect();
        measures.dedup();
        measures
    }
}

/// Quiet clients, each of which reads an account every twenty minutes.
fn attack(rig: &mut Rig, now: f64, a_minute: u32, route: u16) {
    for _ in 0..a_minute {
        let client = ATTACKERS + rig.random.below(u64::from(a_minute) * 20) as u32;
        let mut o = forged_read(now, rig.random.below(1_000_000), address(client));
        o.route = Some(crate::observation::RouteId(route));
        o.provenance = Provenance::Unverifiable;
        rig.take(&o);
    }
}

#[test]
fn a_month_of_members_does_not_drift() {
    let mut rig = Rig::new();
    rig.weeks(0, 4);
    assert_eq!((rig.drift.as_slice(), rig.told.as_slice()), ([].as_slice(), [].as_slice()));
}

#[test]
fn a_quiet_group_on_a_quiet_route_is_found_and_named() {
    let mut rig = Rig::new();
    rig.weeks(0, 2);
    for hour in 336..340 {
        rig.hour(hour, (1.0, 1.0, 1.0), |rig, now| attack(rig, now, 2, EDIT));
    }
    let (hour, drift) = rig.drift[0];
    assert_eq!((hour, drift.measure, drift.route), (336, Measure::RouteVolume, Some(usize::from(EDIT))));
    assert!(drift.observed > 4.0 * drift.expected, "{drift:?}");
    let attackers = rig.told.iter().filter(|(_, member)| match member.client {
        Some(IpAddr::V4(client)) => (client.to_bits() - 0x0a00_0001) >> 8 >= ATTACKERS,
        _ => false,
    });
    assert!(rig.told.len() > 10 && attackers.count() == rig.told.len(), "{:?}", rig.told);
    assert!(rig.told.iter().all(|(_, member)| member.distinct >= 2 && member.accounts.len() >= 2));
}

#[test]
fn whoever_reads_another_route_is_no_member_of_the_drift() {
    let told = |out: &[(usize, Measure, Option<usize>)]| {
        let mut members = Members::new(1 << 20, 4_096, 1, 3, Hasher::new([1; 16]));
        members.complete = 1;
        members.tick(0, out.iter().copied(), |_| {});
        for (route, n) in [(1, 0), (1, 1), (2, 2), (2, 3)] {
            members.observe(&forged_read(0.0, n, address(route)), route as usize, 1);
        }
        let mut told = Vec::new();
        members.tick(FIRST, out.iter().copied(), |member| told.extend(member.client));
        told
    };
    let route = |number| (0, Measure::RouteVolume, Some(number));
    assert_eq!(told(&[route(1)]), [address(1)]);
    assert_eq!(told(&[route(1), route(2)]), [address(1), address(2)]);
    assert_eq!(told(&ALL), [address(1), address(2)], "reads for each login are of all routes");
    assert!(told(&[]).is_empty());
}

#[test]
fn a_login_explains_own_accounts_and_none_of_others() {
    let told = |relation: Relation| {
        let mut members = Members::new(1 << 20, 4_096, 1, 1, Hasher::new([1; 16]));
        members.complete = 1;
        members.tick(0, ALL.into_iter(), |_| {});
        members.observe(&login_of(0.0, address(1), true), 0, 1);
        for n in 0..3 {
            let mut o = forged_read(0.0, n, address(1));
            (o.relation, o.provenance) = (relation, Provenance::Unverifiable);
            members.observe(&o, 0, 1);
        }
        let mut told = Vec::new();
        members.tick(FIRST, ALL.into_iter(), |member| told.push(member.distinct));
        told
    };
    assert_eq!((told(Relation::Unknown), told(Relation::Own), told(Relation::Foreign)), (vec![], vec![], vec![3]));
}

#[test]
fn who_was_there_last_week_is_nobody_new() {
    let mut members = Members::new(1 << 20, 4_096, 1, 1, Hasher::new([1; 16]));
    let mut told = Vec::new();
    // Two offices: one came on the first day and not on the six after it, one comes on the eighth day only.
    let day = |day: u32| day * DAY;
    members.tick(day(0), [].into_iter(), |_| {});
    for n in 0..3 {
        members.observe(&forged_read(0.0, n, address(1)), 0, day(0) + 1);
    }
    (1..8).for_each(|number| members.tick(day(number), [].into_iter(), |_| {}));
    members.tick(day(7) + 1, ALL.into_iter(), |_| {});
    for n in 0..3 {
        members.observe(&forged_read(0.0, n, address(1)), 0, day(7) + 2);
        members.observe(&forged_read(0.0, n, address(2)), 0, day(7) + 2);
    }
    members.tick(day(7) + 1 + FIRST, ALL.into_iter(), |member| told.extend(member.client));
    assert_eq!(told, [address(2)]);
}

#[test]
fn reads_without_logins_drift_by_their_ratio() {
    let mut rig = Rig::new();
    rig.weeks(0, 2);
    for hour in 336..344 {
        rig.hour(hour, (1.0, 1.0, 1.0), |rig, now| attack(rig, now, 20, ADDRESSES));
    }
    assert!(rig.measures().contains(&Measure::ReadsPerLogin), "{:?}", rig.drift);
    assert!(!rig.told.is_empty());
}

/// A push that brings four times the reads, a storm of logins with their reads, stuffing, an outage, a week later the
/// usual: nobody is a member of anything.
#[test]
fn bursts_storms_and_outages_name_nobody() {
    let mut rig = Rig::new();
    rig.weeks(0, 2);
    for hour in 336..504 {
        let busy = match hour {
            348 | 349 => (1.0, 1.0, 4.0),
            372 => (10.0, 1.0, 4.0),
            396..400 => (1.0, 50.0, 1.0),
            420 => (0.0, 0.0, 0.0),
            _ => (1.0, 1.0, 1.0),
        };
        rig.hour(hour, busy, |_, _| {});
    }
    assert!(rig.told.is_empty(), "{:?}", rig.told);
    let hours: Vec<u32> = rig.drift.iter().map(|(hour, _)| *hour).collect();
    assert!(hours.iter().all(|hour| matches!(hour, 348..354 | 372..378 | 396..406)), "{:?}", rig.drift);
    assert!(rig.drift.iter().any(|(_, drift)| drift.measure == Measure::LoginFailures));
    let (_, clients) = rig.drifts.newest(0, Measure::LoginFailures);
    assert_eq!(clients.len(), 16, "of the newest that were refused");
    assert!(rig.drift.iter().any(|(hour, drift)| *hour == 372 && drift.measure == Measure::Logins));
}

#[test]
fn a_key_that_is_new_or_grew_is_told() {
    let mut rig = Rig::new();
    rig.weeks(0, 2);
    for hour in 336..339 {
        rig.hour(hour, (1.0, 1.0, 1.0), |rig, now| {
            for n in 0..5 {
                let mut o = own_read(now, n, address(n as u32));
                (o.kid, o.route) = (Some(Interned(9)), Some(crate::observation::RouteId(EDIT)));
                rig.take(&o);
            }
        });
    }
    assert!(
        rig.told.iter().any(|(_, member)| member.kid == Some(Interned(9)) && member.expected < 100.0),
        "{:?}",
        rig.told
    );
}

#[test]
fn hours_that_were_not_watched_are_not_learned() {
    let mut rig = Rig::new();
    rig.weeks(0, 2);
    rig.tick(336.0 * 3_600.0);
    let seasons = |rig: &Rig| {
        let services = [Measure::ReadsPerLogin, Measure::Logins, Measure::LoginFailures];
        let of = services.map(|measure| rig.drifts.season(measure, 0, None).cloned());
        (of, rig.drifts.season(Measure::RouteVolume, 0, Some(0)).cloned())
    };
    let before = seasons(&rig);
    // Asleep from minute 30 of an hour on for three hours, then awake in the middle of another.
    for minute in (0..30).chain(230..240) {
        rig.tick(336.0 * 3_600.0 + f64::from(minute) * 60.0);
    }
    rig.tick(340.0 * 3_600.0);
    assert!(before == seasons(&rig));
}

#[test]
fn members_keep_their_place_against_a_flood_of_clients() {
    let mut members = Members::new(1 << 16, 256, 1, 1, Hasher::new([1; 16]));
    members.complete = 1;
    members.tick(0, ALL.into_iter(), |_| {});
    for n in 0..5u64 {
        members.observe(&forged_read(0.0, n, address(1)), 0, 1);
    }
    for n in 0..50_000u32 {
        members.observe(&forged_read(0.0, 7, address(10 + n)), 0, 2);
    }
    let mut told = Vec::new();
    members.tick(FIRST, ALL.into_iter(), |member| told.push(member));
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].client, told[0].distinct, told[0].accounts.len()), (Some(address(1)), 5, SAMPLE));
    assert!(members.stats().evicted > 40_000);
}

#[test]
fn a_day_of_more_clients_than_the_filter_is_made_for_shows() {
    let mut members = Members::new(1 << 16, 256, 1, 1, Hasher::new([1; 16]));
    let mut day = |day: u32, clients: u32| {
        for n in 0..clients {
            members.observe(&own_read(0.0, 7, address(n)), 0, day * 864_000);
        }
        members.tick((day + 1) * 864_000, [].into_iter(), |_| {});
        members.full_days()
    };
    // Three bits each: 15,000 bits of 65,536, then 40,000 and more.
    assert_eq!((day(0, 5_000), day(1, 20_000), day(2, 5_000)), (0, 1, 1));
}
