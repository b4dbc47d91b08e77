//! Typed predicates over observations and events: a detection whose names were resolved against the configuration.
//!
//! Matching compares small numbers only; text was compared before (see [`Names`](super::names::Names)). What a predicate
//! comes to can also be asked of a [`Shade`], the few fields by which most rules tell most traffic apart.

use std::ops::RangeInclusive;

use ipnet::IpNet;

use super::condition::Expr;
use super::field::{Field, Key, Subject, network};
use super::names::Fitting;
use super::shade::Shade;
use crate::observation::{ClaimName, IssuerId, RouteId, ServiceId};

/// One field against its list of values; `absent` says whether a missing value matches (`null` in the list).
#[derive(Clone, Debug)]
pub(super) enum Test {
    Service {
        ids: Vec<ServiceId>,
        absent: bool,
    },
    Route {
        ids: Vec<(ServiceId, RouteId)>,
        absent: bool,
    },
    Issuer {
        ids: Vec<(ServiceId, IssuerId)>,
        absent: bool,
    },
    /// Bit set over indexes of words.
    Word {
        field: Field,
        set: u32,
        absent: bool,
    },
    /// Bits of which one must be set.
    Bits {
        claims: bool,
        any: u32,
        absent: bool,
    },
    /// Ranges of which one must hold the number.
    Number {
        field: Field,
        ranges: Vec<RangeInclusive<i64>>,
        absent: bool,
    },
    /// Patterns of the rule's file of which one must fit.
    Text {
        field: Field,
        of: ClaimName,
        patterns: u64,
        absent: bool,
    },
    Client {
        networks: Vec<IpNet>,
        absent: bool,
    },
    Network {
        networks: Vec<Key>,
        absent: bool,
    },
    Exists(Field),
    Not(Box<Test>),
}

impl Test {
    /// Whether `s` passes; `fitting` says which of the file's patterns its names fit.
    fn holds(&self, s: Subject<'_>, fitting: &Fitting) -> bool {
        let o = s.o;
        match self {
            Self::Service { absent, .. } if o.service == ServiceId::NONE => *absent,
            Self::Service { ids, .. } => ids.contains(&o.service),
            Self::Route { ids, absent } => o.route.map_or(*absent, |id| ids.contains(&(o.service, id))),
            Self::Issuer { ids, absent } => o.issuer.map_or(*absent, |id| ids.contains(&(o.service, id))),
            Self::Word { field, set, absent } => field.word(s).map_or(*absent, |index| bit(*set, index)),
            Self::Bits { claims, any, absent } => {
                let bits = if *claims { o.claim_anomalies.into() } else { o.anomalies };
                if bits == 0 { *absent } else { bits & any != 0 }
            }
            Self::Number { field, ranges, absent } => {
                field.number(s).map_or(*absent, |number| ranges.iter().any(|range| range.contains(&number)))
            }
            Self::Text { field, absent, .. } if field.interned(s).is_none() => *absent,
            Self::Text { of, patterns, .. } => fitting.get(*of as usize).is_some_and(|fits| fits & patterns != 0),
            Self::Client { networks, absent } => Field::address(s).map_or(*absent, |client| {
                let client = client.to_canonical();
                networks.iter().any(|network| network.contains(&client))
            }),
            Self::Network { networks, absent } => {
                Field::address(s).map_or(*absent, |client| networks.contains(&network(client)))
            }
            Self::Exists(field) => field.key(s).is_some(),
            Self::Not(test) => !test.holds(s, fitting),
        }
    }

    /// What it comes to for every observation of that shade; `None`: not the same for all.
    fn decided(&self, shade: Shade) -> Option<bool> {
        match self {
            Self::Word { field, set, .. } => shade.word(*field).map(|index| bit(*set, index)),
            Self::Bits { absent, .. } => shade.plain.then_some(*absent),
            Self::Number { field, ranges, .. } => {
                let may = shade.number(*field)?;
                let (low, high) = (may.start(), may.end());
                if ranges.iter().any(|range| range.contains(low) && range.contains(high)) {
                    return Some(true);
                }
                let none = ranges.iter().all(|range| range.end() < low || high < range.start());
                none.then_some(false)
            }
            Self::Exists(Field::Anomaly | Field::ClaimAnomaly) => shade.plain.then_some(false),
            Self::Not(test) => test.decided(shade).map(|holds| !holds),
            _ => None,
        }
    }
}

/// Whether a set of words has that of `index`.
pub(super) fn bit(set: u32, index: u8) -> bool {
    set.checked_shr(u32::from(index)).unwrap_or(0) & 1 == 1
}

/// A selection: one of several lists of tests that must all hold.
pub(super) type Selection = Vec<Vec<Test>>;

/// Whether `s` is in the selection.
pub(super) fn selected(selection: &Selection, s: Subject<'_>, fitting: &Fitting) -> bool {
    selection.iter().any(|tests| tests.iter().all(|test| test.holds(s, fitting)))
}

/// One base rule: its selections and the condition over them.
#[derive(Clone, Debug)]
pub(super) struct Detection {
    pub selections: Vec<Selection>,
    pub condition: Expr,
}

impl Detection {
    /// Whether `s` matches.
    pub fn matches(&self, s: Subject<'_>, fitting: &Fitting) -> bool {
        self.condition.holds(&|index| self.selections.get(index).is_some_and(|one| selected(one, s, fitting)))
    }

    /// False when no observation of that shade matches.
    pub fn may_match(&self, shade: Shade) -> bool {
        let decided = self.condition.decided(&|index| {
            let maps = self.selections.get(index)?;
            any(maps.iter().map(|tests| all(tests.iter().map(|test| test.decided(shade)))))
        });
        decided != Some(false)
    }
}

/// Three-valued "and": false beats unknown, unknown beats true.
pub(super) fn all(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    let mut whole = Some(true);
    for part in parts {
        match part {
            Some(false) => return Some(false),
            Some(true) => {}
            None => whole = None,
        }
    }
    whole
}

/// Three-valued "or": true beats unknown, unknown beats false.
pub(super) fn any(parts: impl Iterator<Item = Option<bool>>) -> Option<bool> {
    all(parts.map(|part| part.map(|holds| !holds))).map(|none| !none)
}
