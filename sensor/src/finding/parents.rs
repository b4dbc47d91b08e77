//! Findings about the same thing, under one: who is whose parent, and which report is worth an alert.
//!
//! Reports flow in from the detectors, in order, and leave with their [`Standing`]. Two findings are about the same thing
//! when the accounts they name overlap (both carry the accounts with the lowest hashes, so samples compare), or, where
//! one names none, when they name the same client, credential or key of a service. The parent is the one that opened
//! first. Alerts are few on purpose: when a finding opens that has no parent, when one opens that is graver than its
//! parent ever was, and when the scope of one that was told changes: ten times the size, a new `kid`, a new route. That
//! holds whether or not somebody has acknowledged it. Bounded: beyond so many open findings the oldest without
//! children are no longer compared, which is counted. A finding meets only those that it shares an account or a mark
//! with (see `table`), so thousands of open ones cost little.

mod table;
#[cfg(test)]
mod tests;

use std::cmp::Ordering;

use table::Table;

use super::model::{Activity, AlertReason, Finding, Level, Standing};
use crate::observation::AccountHash;

/// Growth that is worth another alert.
const SCOPE_GROWTH: u64 = 10;
/// Fewest accounts in common, and of the smaller sample the share in percent, that make two findings one thing.
const COMMON_MIN: usize = 3;
const COMMON_PERCENT: usize = 50;

#[derive(Clone, Debug)]
struct Member {
    uid: String,
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
    open: Table,
    most: usize,
    opened: u64,
    /// Findings that were no longer compared for want of room.
    pub dropped: u64,
}

impl Parents {
    /// None yet; at most `most` are compared.
    pub fn new(most: usize) -> Self {
        Self { open: Table::default(), most, opened: 0, dropped: 0 }
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
        self.open.len() == 0
    }

    fn opened(&mut self, finding: &Finding) -> Standing {
        let mut member = Member::of(finding, self.opened);
        self.opened += 1;
        member.parent = self.open.kin(&member).map(|other| other.parent.as_ref().unwrap_or(&other.uid).clone());
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
        self.open.insert(member);
        Standing { parent, alert }
    }

    fn updated(&mut self, finding: &Finding) -> Standing {
        let Some(member) = self.open.get_mut(&finding.uid) else {
            // It was open before a restart, or not compared for want of room.
            return Standing { alert: None, ..self.opened(finding) };
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
        let parent = member.parent.clone();
        self.open.resample(&finding.uid, sorted(&finding.account_sample));
        Standing { parent, alert }
    }

    fn make_room(&mut self) {
        while self.open.len() >= self.most {
            if !self.open.give_up() {
                return;
            }
            self.dropped += 1;
        }
    }
}

impl Member {
    fn of(finding: &Finding, order: u64) -> Self {
        let named = |field: &str| finding.group.iter().find(|(name, _)| name == field);
        Self {
            uid: finding.uid.clone(),
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

    /// True when its accounts are too few to tell what it is about: its marks do.
    fn has_few_accounts(&self) -> bool {
        self.accounts.len() < COMMON_MIN
    }

    /// True when both are about the same thing.
    fn is_kin(&self, other: &Self) -> bool {
        let apart = self.service.is_some() && other.service.is_some() && self.service != other.service;
        if apart {
            return false;
        }
        if !self.has_few_accounts() && !other.has_few_accounts() {
            return self.are_enough(other, in_common(&self.accounts, &other.accounts));
        }
        self.marks.iter().any(|mark| other.marks.contains(mark))
    }

    /// True when so many accounts in common make one thing of two findings.
    fn are_enough(&self, other: &Self, common: usize) -> bool {
        let fewer = self.accounts.len().min(other.accounts.len());
        common >= COMMON_MIN && common * 100 >= fewer * COMMON_PERCENT
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
