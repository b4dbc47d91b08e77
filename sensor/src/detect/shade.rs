//! Which rules can match an observation at all, by a look at few of its fields.
//!
//! Class, outcome, provenance, kind of credential, relation, and whether anything is out of the ordinary make the *shade*
//! of an observation. For each shade that comes up, the rules that can match are worked out once and kept as a set of
//! bits, so that an ordinary read touches the few rules that count it and none of the others.

use std::ops::RangeInclusive;

use super::field::Field;
use super::rule::CompiledRule;
use crate::observation::{Observation, Outcome, Provenance, Relation, RouteClass, Validity};

/// What a plain observation may have of identifiers walked.
const WALKED: RangeInclusive<i64> = 0..=2;
/// What it may have of likelihood ratios, hundredths of log₁₀.
const RATIO: RangeInclusive<i64> = i64::MIN..=100;

const CLASSES: usize = RouteClass::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();
const PROVENANCES: usize = Provenance::ALL.len();
const RELATIONS: usize = Relation::ALL.len();
/// Shades that there are.
const SHADES: usize = CLASSES * OUTCOMES * PROVENANCES * RELATIONS * 4;

/// What is told apart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shade {
    class: u8,
    outcome: u8,
    provenance: u8,
    relation: u8,
    self_contained: bool,
    /// Nothing is odd about request, credential or account, it issued nothing, and no estimator points at it.
    pub plain: bool,
}

impl Shade {
    fn of(o: &Observation) -> Self {
        let e = &o.estimates;
        let walked = e.walk_client.max(e.walk_network).max(e.walk_route);
        let ratio = e.miss_client.max(e.miss_network).max(e.miss_kid);
        let quiet = o.anomalies == 0 && o.claim_anomalies == 0 && !o.canary && o.issued == 0;
        let plain = quiet
            && o.validity == Validity::Ok
            && i64::from(walked) <= *WALKED.end()
            && i64::from(ratio) <= *RATIO.end();
        Self {
            class: o.class as u8,
            outcome: o.outcome as u8,
            provenance: o.provenance as u8,
            relation: o.relation as u8,
            self_contained: o.self_contained,
            plain,
        }
    }

    fn index(self) -> usize {
        let mut index = usize::from(self.class);
        for (count, value) in [(OUTCOMES, self.outcome), (PROVENANCES, self.provenance), (RELATIONS, self.relation)] {
            index = index * count + usize::from(value);
        }
        index * 4 + usize::from(self.self_contained) * 2 + usize::from(self.plain)
    }

    /// The index of the word that every observation of this shade has, if it has one.
    pub fn word(self, field: Field) -> Option<u8> {
        match field {
            Field::Class => Some(self.class),
            Field::Outcome => Some(self.outcome),
            Field::Provenance => Some(self.provenance),
            Field::Relation => Some(self.relation),
            Field::SelfContained => Some(u8::from(self.self_contained)),
            Field::Validity => self.plain.then_some(Validity::Ok as u8),
            Field::Canary | Field::Conflict | Field::Ambiguous => self.plain.then_some(0),
            _ => None,
        }
    }

    /// Where a number of every observation of this shade lies, if that is known.
    pub fn number(self, field: Field) -> Option<RangeInclusive<i64>> {
        match field {
            Field::WalkClient | Field::WalkNetwork | Field::WalkRoute => self.plain.then_some(WALKED),
            Field::MissClient | Field::MissNetwork | Field::MissKid => self.plain.then_some(RATIO),
            Field::Issued => self.plain.then_some(0..=0),
            _ => None,
        }
    }
}

/// Rules by shade.
#[derive(Debug)]
pub(super) struct Shades {
    /// Words of a set.
    words: usize,
    known: Vec<bool>,
    sets: Vec<u64>,
}

impl Shades {
    /// For `rules` rules.
    pub fn new(rules: usize) -> Self {
        let words = rules.div_ceil(64).max(1);
        Self { words, known: vec![false; SHADES], sets: vec![0; SHADES * words] }
    }

    /// The rules that `o` can match: one bit each, 64 to a word. `rule` gives them by index.
    pub fn candidates<'r>(&mut self, o: &Observation, rules: impl Iterator<Item = &'r CompiledRule>) -> &[u64] {
        let shade = Shade::of(o);
        let index = shade.index();
        let set = self.sets.get_mut(index * self.words..(index + 1) * self.words).unwrap_or_default();
        if let Some(known) = self.known.get_mut(index).filter(|known| !**known) {
            *known = true;
            for (number, rule) in rules.enumerate() {
                if rule.may_match(shade)
                    && let Some(word) = set.get_mut(number / 64)
                {
                    *word |= 1 << (number % 64);
                }
            }
        }
        set
    }
}
