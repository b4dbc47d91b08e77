//! Findings about the same thing, under one: who is whose parent, and which report is worth an alert.
//!
//! Reports flow in from the detectors, in order, and leave with their [`Standing`]. Two findings are about the same thing
//! when the accounts they name overlap (both carry the accounts with the lowest hashes, so samples compare), or, where
//! one names none, when they name the same client, credential or key of a service. The parent is the one that opened
//! first. Alerts are few on purpose: when a finding opens that has no parent, when one opens that is graver than its
//! parent ever was, and when the scope of one that was told changes: ten times the size, a new `kid`, a new route. That
//! holds whether or not somebody has acknowledged it. Bounded: beyond so many open findings the oldest without
//! children are no longer compared, which is counted.

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};

use super::model::{Activity, AlertReason, Finding, Level, Standing};
use crate::observation::AccountHash;

/// Growth that is worth another alert.
const SCOPE_GROWTH: u64 = 10;
/// Fewest accounts in common, and of the smaller sample the share in percent, that make two findings one thing.
const COMMON_MIN: usize = 3;
const COMMON_PERCENT: usize = 50;

#[derive(Clone, Debug)]
struct Member {
    /// Order of opening.
    order: u64,
    parent: Option<String>,
    service: Option<String>,
    marks: Vec<(String, String)>,
    /// Sorted, so that two samples are compared in one pass.
    accounts: Vec<AccountHash>,
    kids: Vec<String>,
    routes: Vec<String>,
    /// Size at the last alert.
    told: u64,
    /// Gravest level that the family was told at; kept at the parent.
    gravest: Level,
}

/// The open findings.
#[derive(Debug)]
pub struct Parents {
    open: BTreeMap<String, Member>,
    most: usize,
    opened: u64,
    /// Findings that were no longer compared for want of room.
    pub dropped: u64,
}

impl Parents {
    /// None yet; at most `most` are compared.
    pub fn new(most: usize) -> Self {
        Self { open: BTreeMap::new(), most, opened: 0, dropped: 0 }
    }

    /// Says how `finding` stands to the others.
    pub fn place(&mut self, finding: &mut Finding) {
        finding.standing = match finding.activity {
            Activity::Open => self.opened(finding),
            Activity::Update => self.updated(finding),
            Activity::Close => {
                let member = self.open.remove(&finding.uid);
                Standing { parent: member.and_then(|member| member.parent), alert: None }
            }
        };
    }

    /// Open findings that are compared.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// True when none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn opened(&mut self, finding: &Finding) -> Standing {
        let mut member = Member::of(finding, self.opened);
        self.opened += 1;
        let kin = self.open.iter().filter(|(_, other)| other.is_kin(&member)).min_by_key(|(_, other)| other.order);
        member.parent = kin.map(|(uid, other)| other.parent.clone().unwrap_or_else(|| uid.clone()));
        let parent = member.parent.clone();
        let alert = match parent.as_ref().and_then(|uid| self.open.get_mut(uid)) {
            Some(head) if finding.level > head.gravest => {
                head.gravest = finding.level;
                Some(AlertReason::Graver)
            }
            // The parent itself may have closed; its children still belong together.
            Some(_) => None,
            None if parent.is_some() => None,
            None => Some(AlertReason::Opened),
        };
        if alert.is_none() {
            member.told = 0;
        }
        self.make_room();
        self.open.insert(finding.uid.clone(), member);
        Standing { parent, alert }
    }

    fn updated(&mut self, finding: &Finding) -> Standing {
        let Some(member) = self.open.get_mut(&finding.uid) else {
            // It was open before a restart, or not compared for want of room.
            let mut again = finding.clone();
            again.activity = Activity::Open;
            let standing = self.opened(&again);
            return Standing { alert: None, ..standing };
        };
        let new = |known: &[String], now: &[String]| now.iter().any(|name| !known.contains(name));
        let alert = if new(&member.kids, &finding.scope.kids) {
            Some(AlertReason::NewKid)
        } else if new(&member.routes, &finding.scope.routes) {
            Some(AlertReason::NewRoute)
        } else if member.told > 0 && finding.distinct >= member.told.saturating_mul(SCOPE_GROWTH) {
            Some(AlertReason::Tenfold)
        } else {
            None
        };
        let alert = alert.filter(|_| member.told > 0);
        if alert.is_some() {
            member.told = finding.distinct.max(1);
        }
        member.kids.clone_from(&finding.scope.kids);
        member.routes.clone_from(&finding.scope.routes);
        member.accounts = sorted(&finding.account_sample);
        Standing { parent: member.parent.clone(), alert }
    }

    fn make_room(&mut self) {
        while self.open.len() >= self.most {
            let parents: HashSet<&String> = self.open.values().filter_map(|member| member.parent.as_ref()).collect();
            let childless = self.open.iter().filter(|(uid, _)| !parents.contains(uid));
            let oldest = childless.min_by_key(|(_, member)| member.order).map(|(uid, _)| uid.clone());
            let Some(uid) = oldest.or_else(|| self.open.keys().next().cloned()) else { return };
            self.open.remove(&uid);
            self.dropped += 1;
        }
    }
}

impl Member {
    fn of(finding: &Finding, order: u64) -> Self {
        let named = |field: &str| finding.group.iter().find(|(name, _)| name == field);
        Self {
            order,
            parent: None,
            service: named("service").map(|(_, value)| value.clone()),
            marks: (finding.group.iter())
                .filter(|(field, value)| matches!(field.as_str(), "kid" | "client" | "fingerprint") && value != "none")
                .cloned()
                .collect(),
            accounts: sorted(&finding.account_sample),
            kids: finding.scope.kids.clone(),
            routes: finding.scope.routes.clone(),
            told: finding.distinct.max(1),
            gravest: finding.level,
        }
    }

    /// True when both are about the same thing.
    fn is_kin(&self, other: &Self) -> bool {
        let apart = self.service.is_some() && other.service.is_some() && self.service != other.service;
        if apart {
            return false;
        }
        let fewer = self.accounts.len().min(other.accounts.len());
        if fewer >= COMMON_MIN {
            let common = in_common(&self.accounts, &other.accounts);
            return common >= COMMON_MIN && common * 100 >= fewer * COMMON_PERCENT;
        }
        self.marks.iter().any(|mark| other.marks.contains(mark))
    }
}

fn sorted(accounts: &[AccountHash]) -> Vec<AccountHash> {
    let mut accounts = accounts.to_vec();
    accounts.sort_unstable();
    accounts
}

/// Accounts that stand in both of two sorted samples.
fn in_common(left: &[AccountHash], right: &[AccountHash]) -> usize {
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    let mut common = 0;
    while let (Some(one), Some(other)) = (left.peek(), right.peek()) {
        match one.cmp(other) {
            Ordering::Less => drop(left.next()),
            Ordering::Greater => drop(right.next()),
            Ordering::Equal => {
                common += 1;
                left.next();
                right.next();
            }
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::ocsf::tests::finding;

    fn account(n: u8) -> AccountHash {
        AccountHash([n; 16])
    }

    fn open(uid: &str, level: Level, accounts: std::ops::Range<u8>) -> Finding {
        Finding {
            uid: uid.to_owned(),
            level,
            distinct: accounts.len() as u64,
            account_sample: accounts.map(account).collect(),
            ..finding()
        }
    }

    fn placed(parents: &mut Parents, mut finding: Finding) -> Standing {
        parents.place(&mut finding);
        finding.standing
    }

    #[test]
    fn overlapping_findings_have_one_parent_and_one_alert() {
        let mut parents = Parents::new(30);
        let first = placed(&mut parents, open("a", Level::Medium, 0..20));
        assert_eq!((first.parent, first.alert), (None, Some(AlertReason::Opened)));
        let same = placed(&mut parents, open("b", Level::Medium, 5..25));
        assert_eq!((same.parent.as_deref(), same.alert), (Some("a"), None));
        let graver = placed(&mut parents, open("c", Level::High, 8..24));
        assert_eq!((graver.parent.as_deref(), graver.alert), (Some("a"), Some(AlertReason::Graver)));
        let again = placed(&mut parents, open("d", Level::High, 8..24));
        assert_eq!(again.alert, None, "as grave as what was told");
        let other = placed(&mut parents, open("e", Level::High, 100..120));
        assert_eq!((other.parent, other.alert), (None, Some(AlertReason::Opened)));
        let mut elsewhere = open("f", Level::High, 0..20);
        elsewhere.group[0].1 = "bank".to_owned();
        assert_eq!(placed(&mut parents, elsewhere).parent, None, "another service");
    }

    #[test]
    fn without_accounts_the_same_key_or_client_tells() {
        let mut parents = Parents::new(30);
        placed(&mut parents, open("a", Level::High, 0..20));
        assert_eq!(placed(&mut parents, open("b", Level::Medium, 0..0)).parent.as_deref(), Some("a"), "the same kid");
        let mut other = open("c", Level::Medium, 0..0);
        other.group[2].1 = "k2".to_owned();
        assert_eq!(placed(&mut parents, other).parent, None);
    }

    #[test]
    fn a_changed_scope_alerts_again() {
        let mut parents = Parents::new(30);
        let mut one = open("a", Level::High, 0..10);
        one.scope.kids = vec!["k1".to_owned()];
        placed(&mut parents, one.clone());
        one.activity = Activity::Update;
        one.distinct = 99;
        assert_eq!(placed(&mut parents, one.clone()).alert, None);
        one.distinct = 100;
        assert_eq!(placed(&mut parents, one.clone()).alert, Some(AlertReason::Tenfold));
        one.distinct = 200;
        assert_eq!(placed(&mut parents, one.clone()).alert, None);
        one.scope.kids.push("k2".to_owned());
        assert_eq!(placed(&mut parents, one.clone()).alert, Some(AlertReason::NewKid));
        one.scope.routes.push("/orders".to_owned());
        assert_eq!(placed(&mut parents, one.clone()).alert, Some(AlertReason::NewRoute));
        one.activity = Activity::Close;
        assert_eq!(placed(&mut parents, one.clone()).alert, None);
        assert!(parents.is_empty());
    }

    #[test]
    fn a_flood_of_findings_is_bounded_and_counted() {
        let mut parents = Parents::new(30);
        for n in 0..40 {
            let mut one = open(&format!("{n:08}"), Level::Low, 0..0);
            one.group = vec![("client".to_owned(), n.to_string())];
            placed(&mut parents, one);
        }
        assert_eq!((parents.len(), parents.dropped), (30, 10));
    }
}
