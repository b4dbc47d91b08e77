//! The smallest attack that is sure to be found: how many accounts somebody who forges an issuer's tokens can read before
//! a rule of level high or critical fires, whatever else he does.
//!
//! Configuration (approvals among it) and compiled rules flow in, a count for each issuer flows out. Nothing that traffic
//! does is looked at, so nobody can move the figure by it.
//!
//! Each rule is asked, with "may be either" as a third answer, whether it counts *every* answered read of an account with
//! such a token: service, issuer, class, outcome, provenance and kind are given, all else is the attacker's choice (key,
//! claims, address, network, route, place). A rule that groups by something he can vary without end (client, network,
//! credential, `kid`) is never sure. Of one that is, each of the `g` groups that he can spread over holds `n - 1` accounts
//! without a word, in each of the `w` windows of the rule that it takes to cover the time in question, and so does the
//! ceiling of every exception that he may fall under; with one account more, one of them is full.

use super::exception::Guard;
use super::field::{Field, PLACES, Source};
use super::predicate::{Detection, Test, all, any};
use super::rule::{CompiledRule, Count};
use super::{RuleSet, predicate};
use crate::config::model::{Config, Issuer, Place, Service};
use crate::finding::model::Level;
use crate::observation::{
    IssuerId, Outcome, Provenance, Relation, RouteClass, RouteId, ServiceId, Validity, claim_anomaly,
};

/// Times that an attack may take: name, seconds.
pub const WINDOWS: [(&str, u64); 3] = [("10m", 600), ("1h", 3600), ("24h", 86_400)];

/// The smallest attack with forged tokens of one issuer that is sure to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detectable {
    /// Whose service the accounts are.
    pub service: ServiceId,
    /// Whose tokens are forged.
    pub issuer: IssuerId,
    /// Accounts by [`WINDOWS`]; `None`: no number is sure to fire. Holds once the ledger has watched for the issuer's
    /// longest lifetime.
    pub passed: [Option<u64>; WINDOWS.len()],
    /// The same before that, when tokens that claim to be older than the ledger are believed up to a budget.
    pub open: [Option<u64>; WINDOWS.len()],
}

impl Detectable {
    /// What it says in words, for people who check or load rules.
    pub fn said(&self, config: &Config) -> String {
        let service = config.services.get(usize::from(self.service.0));
        let issuer = service.and_then(|service| service.issuers.get(usize::from(self.issuer.0)));
        let name = service.map_or("", |service| &service.name);
        let forged = format!("tokens forged as those of {name}/{}", issuer.map_or("", |issuer| &issuer.name));
        let sure: Vec<String> = (self.passed.iter().zip(WINDOWS))
            .filter_map(|(accounts, (window, _))| Some(format!("{} accounts in {window}", (*accounts)?)))
            .collect();
        match issuer.filter(|issuer| issuer.accountable()) {
            None => format!("{forged} are not told from others: the issuer is not confirmed"),
            Some(_) if sure.is_empty() => format!("no number of {forged} is sure to be found"),
            Some(_) => format!("{forged} are sure to be found from {} on", sure.join(", ")),
        }
    }
}

impl RuleSet {
    /// The smallest attacks that are sure to be found, for each issuer of signed tokens (an opaque credential cannot be
    /// forged with a key), in the configuration's order.
    pub fn detectable(&self, config: &Config) -> Vec<Detectable> {
        let services = (0u16..).zip(&config.services);
        let issuers = services.flat_map(|(id, service)| {
            let issuers = (0u16..).zip(&service.issuers).filter(|(_, issuer)| issuer.jwt);
            issuers.map(move |(issuer_id, issuer)| (ServiceId(id), service, IssuerId(issuer_id), issuer))
        });
        issuers
            .map(|(service_id, service, issuer_id, issuer)| {
                let accountable = issuer.accountable();
                let read = |provenance, claim_anomalies| Forged {
                    service: service_id,
                    issuer: issuer_id,
                    provenance,
                    claim_anomalies,
                    places: places(service, issuer),
                    routes: reads(service),
                };
                let unissued = read(Provenance::Unissued, 0);
                let excused = read(Provenance::Preexisting, 0);
                let beyond = read(Provenance::Unverifiable, claim_anomaly::HORIZON_SPENT);
                let passed = WINDOWS.map(|(_, seconds)| {
                    self.silent(config, &unissued, seconds).filter(|_| accountable)?.checked_add(1)
                });
                let open = WINDOWS.map(|(_, seconds)| {
                    let judged = self.silent(config, &unissued, seconds).filter(|_| accountable)?;
                    let believed = self.believed(config, issuer, &excused, &beyond, seconds)?;
                    judged.checked_add(believed)?.checked_add(1)
                });
                Detectable { service: service_id, issuer: issuer_id, passed, open }
            })
            .collect()
    }

    /// Most accounts that tokens forged as older than the ledger can read within a time without a rule that speaks.
    fn believed(
        &self,
        config: &Config,
        issuer: &Issuer,
        excused: &Forged,
        beyond: &Forged,
        seconds: u64,
    ) -> Option<u64> {
        let heard = self.silent(config, excused, seconds);
        let Some(budget) = issuer.horizon_budget() else { return heard };
        // It is held to within 2 %.
        let budget = budget.saturating_add(budget.div_ceil(50));
        self.silent(config, beyond, seconds)?.checked_add(heard.map_or(budget, |heard| heard.min(budget)))
    }

    /// Most accounts that can be read so within a time without a rule that speaks; `None`: any number.
    fn silent(&self, config: &Config, forged: &Forged, seconds: u64) -> Option<u64> {
        let sure = self.each().filter(|rule| rule.info.level >= Level::High && forged.is_counted_by(rule));
        sure.filter_map(|rule| {
            let ceilings = self.rules.iter().filter(|other| other.exception.is_some() && other.info.id == rule.info.id);
            let ceilings = ceilings.filter(|ceiling| ceiling.guards.iter().all(|guard| forged.may_pass(guard)));
            let mut sum = 0u64;
            for counted in std::iter::once(rule).chain(ceilings) {
                sum = sum.checked_add(forged.room(counted, config, seconds)?)?;
            }
            Some(sum)
        })
        .min()
    }
}

/// An answered read of an account with a forged token: what is given of it, everything else being the attacker's choice.
struct Forged {
    service: ServiceId,
    issuer: IssuerId,
    provenance: Provenance,
    /// Bits that it is sure to have; it may have others.
    claim_anomalies: u16,
    /// Numbers of the places where it may stand.
    places: Vec<u8>,
    /// Routes that it may ask.
    routes: Vec<RouteId>,
}

impl Forged {
    /// True when `rule` is sure to count it.
    fn is_counted_by(&self, rule: &CompiledRule) -> bool {
        let reads = !self.routes.is_empty() && rule.source == Source::Observation;
        let counts = matches!(rule.count, Count::Events | Count::Distinct(Field::Account));
        reads && counts && rule.detections.iter().any(|detection| self.detected(detection) == Some(true))
    }

    fn detected(&self, detection: &Detection) -> Option<bool> {
        detection.condition.decided(&|index| self.selected(detection.selections.get(index)?))
    }

    fn selected(&self, selection: &predicate::Selection) -> Option<bool> {
        any(selection.iter().map(|tests| all(tests.iter().map(|test| self.passes(test)))))
    }

    /// False when it cannot be what `guard` lets through.
    fn may_pass(&self, guard: &Guard) -> bool {
        self.selected(guard.selection()) != Some(!guard.wants_match())
    }

    /// What a test comes to for every one of them; `None`: the attacker's choice.
    fn passes(&self, test: &Test) -> Option<bool> {
        match test {
            Test::Service { ids, .. } => Some(ids.contains(&self.service)),
            Test::Issuer { ids, .. } => Some(ids.contains(&(self.service, self.issuer))),
            Test::Route { ids, .. } => every(self.routes.iter().map(|route| ids.contains(&(self.service, *route)))),
            Test::Word { field, set, .. } => {
                let is = |word: u8| predicate::bit(*set, word);
                match field {
                    Field::Class => Some(is(RouteClass::AccountRead as u8)),
                    Field::Outcome => Some(is(Outcome::Read as u8)),
                    Field::Provenance => Some(is(self.provenance as u8)),
                    Field::SelfContained => Some(is(1)),
                    Field::Place => every(self.places.iter().map(|place| is(*place))),
                    _ => None,
                }
            }
            Test::Bits { claims: true, any, .. } if u32::from(self.claim_anomalies) & any != 0 => Some(true),
            Test::Exists(Field::ClaimAnomaly) if self.claim_anomalies != 0 => Some(true),
            Test::Exists(Field::Service | Field::Issuer | Field::Route | Field::Account | Field::Fingerprint) => {
                Some(true)
            }
            Test::Not(test) => self.passes(test).map(|passes| !passes),
            Test::Bits { .. }
            | Test::Number { .. }
            | Test::Text { .. }
            | Test::Client { .. }
            | Test::Network { .. }
            | Test::Exists(_) => None,
        }
    }

    /// Most accounts that a rule counts within `seconds` without firing; `None`: any number.
    fn room(&self, rule: &CompiledRule, config: &Config, seconds: u64) -> Option<u64> {
        let groups = product(rule.group_by.iter().map(|field| self.spread(*field)))?;
        // A group that is pushed out takes along what it has counted.
        let all = product(rule.group_by.iter().map(|field| values(*field, config)))?;
        if all > config.bounds.rule_groups as u64 {
            return None;
        }
        let mut threshold = rule.threshold;
        if matches!(rule.count, Count::Distinct(_)) && threshold > config.bounds.group_values as u64 {
            // Three standard errors of an estimate.
            threshold = threshold.saturating_add(threshold / 20);
        }
        let windows = seconds.saturating_mul(1_000_000_000).div_ceil(rule.timespan_ns.max(1));
        windows.checked_mul(groups)?.checked_mul(threshold.saturating_sub(1))
    }

    /// Values of `field` that the attacker can spread over; `None`: any number.
    fn spread(&self, field: Field) -> Option<u64> {
        match field {
            Field::Service
            | Field::Issuer
            | Field::Class
            | Field::Outcome
            | Field::Provenance
            | Field::SelfContained => Some(1),
            Field::Place => Some(self.places.len() as u64),
            Field::Route => Some(self.routes.len() as u64),
            _ => words(field),
        }
    }
}

/// Values of `field` that any traffic can have, absent among them; `None`: any number.
fn values(field: Field, config: &Config) -> Option<u64> {
    let per_service = |of: fn(&Service) -> usize| config.services.iter().map(|one| of(one) as u64).sum::<u64>() + 1;
    match field {
        Field::Service => Some(config.services.len() as u64 + 1),
        Field::Issuer => Some(per_service(|service| service.issuers.len())),
        Field::Route => Some(per_service(|service| service.routes.len())),
        _ => words(field),
    }
}

/// Words of a field that has few.
fn words(field: Field) -> Option<u64> {
    let count = match field {
        Field::Class => RouteClass::ALL.len(),
        Field::Outcome => Outcome::ALL.len(),
        Field::Provenance => Provenance::ALL.len(),
        Field::Validity => Validity::ALL.len(),
        Field::Relation => Relation::ALL.len(),
        Field::Place => PLACES.len(),
        Field::SelfContained | Field::Canary | Field::Conflict | Field::Ambiguous => 2,
        _ => return None,
    };
    Some(count as u64)
}

/// What holds for each of several things alike.
fn every(mut holds: impl Iterator<Item = bool>) -> Option<bool> {
    let first = holds.next()?;
    holds.all(|other| other == first).then_some(first)
}

fn product(mut counts: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    counts.try_fold(1u64, |product, count| product.checked_mul(count?))
}

/// Numbers of the places where an issuer's tokens stand: its own, else all that the service declares.
fn places(service: &Service, issuer: &Issuer) -> Vec<u8> {
    use sensor_ebpf::wire::place;
    let declared = &service.credentials;
    let of = |stated: fn(&Place) -> bool, declared: bool, number: u8| {
        let stands = if issuer.places.is_empty() { declared } else { issuer.places.iter().any(stated) };
        stands.then_some(number)
    };
    [
        of(|at| matches!(at, Place::Authorization), declared.authorization, place::AUTHORIZATION),
        of(|at| matches!(at, Place::Cookie(_)), !declared.cookies.is_empty(), place::COOKIE),
        of(|at| matches!(at, Place::Header(_)), !declared.headers.is_empty(), place::HEADER),
        of(|at| matches!(at, Place::Query(_)), !declared.query.is_empty(), place::QUERY),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The routes of a service that return personal data.
fn reads(service: &Service) -> Vec<RouteId> {
    let routes = (0u16..).zip(&service.routes).filter(|(_, route)| route.class == RouteClass::AccountRead);
    routes.map(|(id, _)| RouteId(id)).collect()
}

#[cfg(test)]
#[path = "sure_tests.rs"]
mod tests;
