//! Budgets of doubt: what may be unknowable before that is a finding in its own right.
//!
//! **In**: account reads that returned data. **Out**: for each service and issuer, shares of the last hour above their
//! budget, with the accounts and clients behind them. Budgets are declared (`[estimate.doubt]`), never learned: nobody can
//! boil them up by slow growth.
//!
//! - `preexisting`: once the longest lifetime has been watched, no more than its budget. Before, everything begins
//!   preexisting and only fades away: the share of a day must not exceed 1.2 times the least of the days before.
//! - `unverifiable`: of wholly observed issuers, and of credentials that match no declared issuer. Of others, nothing can
//!   be known by declaration. What a gap or a silent source excuses does not count: that doubt has a budget of its own, of
//!   distinct credentials, beyond which they are `unissued`.
//! - `ambiguous`, `conflict`, `malformed`: of everything.
//!
//! Shares are of all account reads of the service that returned data. Fewer doubtful reads than `least` spend no budget.
//! **State**: 5 counts for each of 6 slices, and 8 accounts and clients of each measure, for every issuer.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::newest::Newest;
use super::time::Tenths;
use super::told::Told;
use crate::config::model::{Config, Doubt as Budgets};
use crate::observation::{
    AccountHash, IssuerId, Measure, Observation, Outcome, Provenance, RouteClass, ServiceId, Validity, claim_anomaly,
};

/// An hour in slices of ten minutes.
const SLICES: usize = 6;
const SLICE: Tenths = 6_000;
/// A day in slices.
const DAY_SLICES: u32 = 144;
/// Accounts and clients told.
const SAMPLE: usize = 8;
/// What is measured, in order.
const MEASURES: [Measure; 5] =
    [Measure::Preexisting, Measure::Unverifiable, Measure::Ambiguous, Measure::Conflict, Measure::Malformed];
const PREEXISTING: usize = 0;

/// Budgets of all services.
#[derive(Debug)]
pub(super) struct Doubts {
    budgets: Budgets,
    services: Vec<Service>,
    slice: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Service {
    reads: [u32; SLICES],
    day_reads: u64,
    /// By issuer; the last is for credentials that match none.
    issuers: Vec<Issuer>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Issuer {
    /// Its unverifiable credentials count.
    accountable: bool,
    /// Since when (seconds since 1970) no credential can be older than the horizon.
    complete_unix: i64,
    doubts: [Doubtful; 5],
    /// Preexisting reads today, and the least share of a day so far.
    day: u64,
    ceiling: Option<f64>,
}

#[derive(Debug, Default, Clone, Serialize, Deserialize)]
struct Doubtful {
    slices: [u32; SLICES],
    newest: Newest<SAMPLE>,
    told: Told,
}

/// Budgets as they stand.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DoubtsProgress {
    services: Vec<Service>,
    slice: u32,
}

/// What must be known again after a restart, of one issuer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DoubtState {
    /// Least share of preexisting reads of a day.
    pub ceiling: Option<f64>,
}

/// A budget that is spent.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Spent {
    pub service: ServiceId,
    pub issuer: Option<IssuerId>,
    pub measure: Measure,
    pub since: Tenths,
    /// Doubtful reads of the last hour.
    pub doubtful: u64,
    /// Reads of the last hour, and how many of them the budget lets be doubtful.
    pub reads: u64,
    pub budget: f64,
    pub accounts: Vec<AccountHash>,
    pub clients: Vec<IpAddr>,
}

impl Doubts {
    /// Of the services and issuers of `config`.
    pub fn new(config: &Config) -> Self {
        let service = |service: &crate::config::model::Service| {
            let issuers = service.issuers.iter().map(crate::config::model::Issuer::accountable).chain([true]);
            Service {
                reads: [0; SLICES],
                day_reads: 0,
                issuers: issuers.map(|accountable| Issuer { accountable, ..Issuer::default() }).collect(),
            }
        };
        Self { budgets: config.estimate.doubt, services: config.services.iter().map(service).collect(), slice: 0 }
    }

    /// Takes one observation.
    #[inline]
    pub fn observe(&mut self, o: &Observation) {
        if o.class != RouteClass::AccountRead || o.outcome != Outcome::Read {
            return;
        }
        let slice = self.slice as usize % SLICES;
        let Some(service) = self.services.get_mut(usize::from(o.service.0)) else { return };
        if let Some(reads) = service.reads.get_mut(slice) {
            *reads = reads.saturating_add(1);
        }
        service.day_reads += 1;
        if !matches!(o.provenance, Provenance::Preexisting | Provenance::Unverifiable)
            && o.validity != Validity::Malformed
            && !o.conflict()
            && !o.ambiguous()
        {
            return;
        }
        let none = service.issuers.len() - 1;
        let issuer = o.issuer.map_or(none, |issuer| usize::from(issuer.0).min(none));
        let Some(issuer) = service.issuers.get_mut(issuer) else { return };
        // What a gap excuses has that gap's own budget, of distinct credentials: beyond it they are unissued.
        let excused = o.claim_anomalies & claim_anomaly::EXCUSED != 0;
        let unverifiable = o.provenance == Provenance::Unverifiable && !o.ambiguous() && !excused;
        let doubts = [
            o.provenance == Provenance::Preexisting,
            unverifiable && issuer.accountable,
            o.ambiguous(),
            o.conflict(),
            o.validity == Validity::Malformed,
        ];
        issuer.day += u64::from(doubts[PREEXISTING]);
        for (doubtful, _) in issuer.doubts.iter_mut().zip(doubts).filter(|(_, so)| *so) {
            doubtful.count(o, slice);
        }
    }

    /// The ledger says since when no credential of an issuer can be older than the horizon.
    pub fn horizon(&mut self, service: ServiceId, issuer: IssuerId, complete_unix: i64) {
        let service = self.services.get_mut(usize::from(service.0));
        if let Some(issuer) = service.and_then(|service| service.issuers.get_mut(usize::from(issuer.0))) {
            issuer.complete_unix = complete_unix;
        }
    }

    /// Budgets that are spent, as they are to be told.
    pub fn tick(&mut self, now: Tenths, now_unix: i64, mut tell: impl FnMut(Spent)) {
        let slice = now / SLICE;
        if slice == self.slice {
            return;
        }
        let days = slice / DAY_SLICES - self.slice / DAY_SLICES;
        for (id, service) in (0u16..).zip(&mut self.services) {
            service.judge(ServiceId(id), &self.budgets, now, now_unix, &mut tell);
            if days > 0 {
                service.end_day();
            }
            // The slices that begin are those of an hour ago.
            for next in (self.slice + 1..=slice).take(SLICES) {
                service.clear(next as usize % SLICES);
            }
        }
        self.slice = slice;
    }

    /// The shares of the running hour, and what was told.
    pub fn progress(&self) -> DoubtsProgress {
        DoubtsProgress { services: self.services.clone(), slice: self.slice }
    }

    /// Takes them up, of the same services and issuers.
    pub fn resume(&mut self, progress: DoubtsProgress) {
        self.slice = progress.slice;
        for (service, known) in self.services.iter_mut().zip(progress.services) {
            if service.issuers.len() == known.issuers.len() {
                *service = known;
            }
        }
    }

    /// For a snapshot: of every issuer of a service, the last for none.
    pub fn state(&self, service: usize) -> Vec<DoubtState> {
        let service = self.services.get(service);
        let issuers = service.map(|service| service.issuers.as_slice()).unwrap_or_default();
        issuers.iter().map(|issuer| DoubtState { ceiling: issuer.ceiling }).collect()
    }

    /// From a snapshot.
    pub fn restore(&mut self, service: usize, issuer: usize, state: DoubtState) {
        let service = self.services.get_mut(service);
        if let Some(issuer) = service.and_then(|service| service.issuers.get_mut(issuer)) {
            issuer.ceiling = state.ceiling.filter(|share| (0.0..=1.0).contains(share));
        }
    }
}

impl Service {
    fn judge(&mut self, id: ServiceId, budgets: &Budgets, now: Tenths, now_unix: i64, tell: &mut impl FnMut(Spent)) {
        let reads: u64 = self.reads.iter().copied().map(u64::from).sum();
        let none = self.issuers.len() - 1;
        for (number, issuer) in self.issuers.iter_mut().enumerate() {
            let allowed = issuer.allowed(budgets, now_unix);
            for ((doubtful, share), measure) in issuer.doubts.iter_mut().zip(allowed).zip(MEASURES) {
                let count: u64 = doubtful.slices.iter().copied().map(u64::from).sum();
                #[expect(clippy::cast_precision_loss, reason = "a share")]
                let (spent, budget) = (count as f64, (share * reads as f64).max(budgets.least as f64));
                if spent <= budget {
                    doubtful.told.end();
                    continue;
                }
                #[expect(clippy::cast_possible_truncation, reason = "a score")]
                let Some(since) = doubtful.told.tell(now, (spent / budget) as f32) else { continue };
                tell(Spent {
                    service: id,
                    issuer: (number < none).then(|| IssuerId(u16::try_from(number).unwrap_or(u16::MAX))),
                    measure,
                    since,
                    doubtful: count,
                    reads,
                    budget,
                    accounts: doubtful.newest.accounts().to_vec(),
                    clients: doubtful.newest.clients().to_vec(),
                });
            }
        }
    }

    fn end_day(&mut self) {
        let reads = std::mem::take(&mut self.day_reads);
        for issuer in &mut self.issuers {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let share = std::mem::take(&mut issuer.day) as f64 / reads.max(1) as f64;
            if reads > 0 {
                issuer.ceiling = Some(issuer.ceiling.map_or(share, |least| least.min(share)));
            }
        }
    }

    fn clear(&mut self, slice: usize) {
        if let Some(reads) = self.reads.get_mut(slice) {
            *reads = 0;
        }
        for doubtful in self.issuers.iter_mut().flat_map(|issuer| &mut issuer.doubts) {
            if let Some(count) = doubtful.slices.get_mut(slice) {
                *count = 0;
            }
        }
    }
}

impl Issuer {
    /// Shares that may be doubtful, in the order of [`MEASURES`].
    fn allowed(&self, budgets: &Budgets, now_unix: i64) -> [f64; 5] {
        let fading = match self.ceiling {
            _ if now_unix >= self.complete_unix => 0.0,
            None => 1.0,
            Some(least) => 1.2 * least,
        };
        [budgets.preexisting + fading, budgets.unverifiable, budgets.ambiguous, budgets.conflict, budgets.malformed]
    }
}

impl Doubtful {
    fn count(&mut self, o: &Observation, slice: usize) {
        if let Some(count) = self.slices.get_mut(slice) {
            *count = count.saturating_add(1);
        }
        self.newest.take(o);
    }
}

#[cfg(test)]
mod tests {
    use sensor_ebpf::wire::anomaly;

    use super::*;
    use crate::estimate::testing::*;
    use crate::estimate::time::Epoch;

    struct Rig {
        doubts: Doubts,
        epoch: Epoch,
        told: Vec<(f64, Spent)>,
    }

    impl Rig {
        fn new() -> Self {
            Self { doubts: Doubts::new(&config()), epoch: Epoch::default(), told: Vec::new() }
        }

        /// `hours` of ten reads a second, of which `share` are as `change` makes them.
        fn run(&mut self, from_hour: u32, hours: u32, share: f64, change: impl Fn(&mut Observation)) {
            let mut random = Random(u64::from(from_hour));
            for n in 0..hours * 36_000 {
                let now = f64::from(from_hour) * 3_600.0 + f64::from(n) / 10.0;
                let mut o = own_read(now, random.below(1_000), address(n % 1_000));
                if random.happens(share) {
                    change(&mut o);
                }
                let tenths = self.epoch.tenths(o.at.monotonic_ns);
                self.doubts.observe(&o);
                let unix = i64::try_from(o.at.unix_ns / 1_000_000_000).unwrap();
                self.doubts.tick(tenths, unix, |spent| self.told.push((now / 3_600.0, spent)));
            }
        }

        fn told(&self) -> Vec<(Measure, Option<IssuerId>)> {
            self.told.iter().map(|(_, spent)| (spent.measure, spent.issuer)).collect()
        }
    }

    const ISSUER: Option<IssuerId> = Some(IssuerId(0));

    #[test]
    fn each_budget_is_told_when_it_is_spent_and_not_below() {
        type Case = (f64, fn(&mut Observation), Measure);
        let cases: [Case; 5] = [
            (0.02, |o| o.provenance = Provenance::Preexisting, Measure::Preexisting),
            (0.02, |o| o.provenance = Provenance::Unverifiable, Measure::Unverifiable),
            (0.01, |o| o.anomalies |= anomaly::AMBIGUOUS, Measure::Ambiguous),
            (0.000_5, |o| o.anomalies |= anomaly::CONFLICT, Measure::Conflict),
            (0.001, |o| o.validity = Validity::Malformed, Measure::Malformed),
        ];
        for (budget, change, measure) in cases {
            let mut rig = Rig::new();
            rig.run(0, 3, budget * 0.8, change);
            assert_eq!(rig.told(), []);
            rig.run(3, 2, budget * 6.0, change);
            assert!(!rig.told().is_empty() && rig.told().iter().all(|told| *told == (measure, ISSUER)), "{measure}");
            let (_, spent) = &rig.told[0];
            assert_eq!((spent.accounts.len(), spent.clients.len()), (SAMPLE, SAMPLE));
        }
    }

    #[test]
    fn slow_growth_boils_nothing_up() {
        let mut rig = Rig::new();
        for hour in 0..10 {
            rig.run(hour, 1, 0.004 * f64::from(hour), |o| o.provenance = Provenance::Unverifiable);
        }
        let (hour, spent) = &rig.told[0];
        assert!(
            (5.0..7.0).contains(hour) && spent.budget * 1_000.0 < 21.0 * f64::from(u32::try_from(spent.reads).unwrap()),
            "{hour} {spent:?}"
        );
    }

    #[test]
    fn what_cannot_be_known_by_declaration_spends_nothing_but_unmatched_does() {
        let mut rig = Rig::new();
        rig.doubts.services[0].issuers[0].accountable = false;
        rig.run(0, 2, 1.0, |o| o.provenance = Provenance::Unverifiable);
        assert_eq!(rig.told(), []);
        rig.run(2, 1, 0.1, |o| (o.provenance, o.issuer) = (Provenance::Unverifiable, None));
        assert!(!rig.told().is_empty() && rig.told().iter().all(|told| *told == (Measure::Unverifiable, None)));
    }

    #[test]
    fn what_a_gap_excuses_spends_the_gaps_budget_only() {
        let mut rig = Rig::new();
        rig.run(0, 2, 0.2, |o| {
            (o.provenance, o.claim_anomalies) = (Provenance::Unverifiable, claim_anomaly::EXCUSED);
        });
        assert_eq!(rig.told(), []);
        rig.run(2, 2, 0.2, |o| o.provenance = Provenance::Unverifiable);
        assert!(!rig.told().is_empty());
    }

    #[test]
    fn before_the_horizon_preexisting_may_fade_and_not_grow() {
        let mut rig = Rig::new();
        rig.doubts.horizon(ServiceId(0), IssuerId(0), i64::MAX);
        rig.run(0, 24, 0.9, |o| o.provenance = Provenance::Preexisting);
        rig.run(24, 24, 0.5, |o| o.provenance = Provenance::Preexisting);
        rig.run(48, 12, 0.45, |o| o.provenance = Provenance::Preexisting);
        assert_eq!(rig.told(), []);
        let state: Vec<DoubtState> = rig.doubts.state(0);
        let mut again = Rig::new();
        again.doubts.horizon(ServiceId(0), IssuerId(0), i64::MAX);
        again.doubts.restore(0, 0, state[0]);
        for rig in [&mut rig, &mut again] {
            rig.run(60, 2, 0.8, |o| o.provenance = Provenance::Preexisting);
            assert!(rig.told().contains(&(Measure::Preexisting, ISSUER)), "{:?}", rig.doubts);
        }
    }
}
