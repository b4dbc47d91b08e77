//! Typed predicates over observations: a detection whose names were resolved against the configuration.
//!
//! Matching compares small numbers only. The one string among the fields, `kid`, is compared once per distinct value
//! and remembered (see [`Kids`]).

use std::net::IpAddr;

use sensor_ebpf::wire::place;

use super::Labels;
use super::condition::Expr;
use super::error::{advice, quoted};
use super::field::{Field, PLACES};
use super::yaml::{Mistakes, Node, Value};
use crate::anomaly;
use crate::config::model::Config;
use crate::observation::{
    Interned, IssuerId, Observation, Outcome, Provenance, RouteClass, RouteId, ServiceId, Validity,
};

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
    /// Bit set over discriminants.
    Class(u32),
    Outcome(u32),
    Provenance(u32),
    Validity(u32),
    Place(u32),
    /// Bit 0: false matches; bit 1: true matches.
    SelfContained(u32),
    Conflict(u32),
    Ambiguous(u32),
    /// Bits of which one must be set.
    Anomaly {
        any: u32,
        absent: bool,
    },
    Status {
        codes: Vec<u16>,
        absent: bool,
    },
    /// Indexes into the rule's kid literals.
    Kid {
        literals: Vec<u16>,
        absent: bool,
    },
    AccountAbsent,
    Client(Vec<IpAddr>),
}

impl Test {
    fn holds(&self, o: &Observation, kid: Option<u16>) -> bool {
        let bit = |set: &u32, index: u8| set.checked_shr(u32::from(index)).unwrap_or(0) & 1 == 1;
        match self {
            Self::Service { absent, .. } if o.service == ServiceId::NONE => *absent,
            Self::Service { ids, .. } => ids.contains(&o.service),
            Self::Route { ids, absent } => o.route.map_or(*absent, |id| ids.contains(&(o.service, id))),
            Self::Issuer { ids, absent } => o.issuer.map_or(*absent, |id| ids.contains(&(o.service, id))),
            Self::Class(set) => bit(set, o.class as u8),
            Self::Outcome(set) => bit(set, o.outcome as u8),
            Self::Provenance(set) => bit(set, o.provenance as u8),
            Self::Validity(set) => bit(set, o.validity as u8),
            Self::Place(set) => bit(set, o.place),
            Self::SelfContained(set) => bit(set, u8::from(o.self_contained)),
            Self::Conflict(set) => bit(set, u8::from(o.conflict())),
            Self::Ambiguous(set) => bit(set, u8::from(o.ambiguous())),
            Self::Anomaly { absent, .. } if o.anomalies == 0 => *absent,
            Self::Anomaly { any, .. } => o.anomalies & any != 0,
            Self::Status { codes, absent } => o.status.map_or(*absent, |code| codes.contains(&code)),
            Self::Kid { absent, .. } if o.kid.is_none() => *absent,
            Self::Kid { literals, .. } => kid.is_some_and(|kid| literals.contains(&kid)),
            Self::AccountAbsent => o.account.is_none(),
            Self::Client(addresses) => addresses.contains(&o.client.to_canonical()),
        }
    }
}

/// One base rule: its selections (each an OR of ANDs) and the condition over them.
#[derive(Clone, Debug)]
pub(super) struct Detection {
    pub selections: Vec<Vec<Vec<Test>>>,
    pub condition: Expr,
}

impl Detection {
    /// Whether `o` matches; `kid` is the literal that its `kid` equals, as [`Kids`] found.
    pub fn matches(&self, o: &Observation, kid: Option<u16>) -> bool {
        self.condition.holds(&|index| {
            self.selections
                .get(index)
                .is_some_and(|maps| maps.iter().any(|tests| tests.iter().all(|test| test.holds(o, kid))))
        })
    }
}

/// Which of a rule's `kid` literals an interned `kid` equals; each interned value is compared once, as the interner
/// never gives a number a second meaning.
#[derive(Debug)]
pub(super) struct Kids {
    literals: Vec<String>,
    known: Vec<Known>,
}

#[derive(Clone, Copy, Debug)]
enum Known {
    NotYet,
    Literal(u16),
    Other,
}

impl Kids {
    /// `capacity`: distinct `kid`s the interner keeps; memory is taken only when the rule names a `kid`.
    pub fn new(literals: &[String], capacity: usize) -> Self {
        let capacity = if literals.is_empty() { 0 } else { capacity };
        Self { literals: literals.to_vec(), known: vec![Known::NotYet; capacity] }
    }

    /// The literal that `kid` equals.
    pub fn literal(&mut self, kid: Option<Interned>, labels: &dyn Labels) -> Option<u16> {
        let kid = kid.filter(|kid| *kid != Interned::OVERFLOW)?;
        if self.literals.is_empty() {
            return None;
        }
        let slot = usize::try_from(kid.0).ok().and_then(|index| self.known.get_mut(index));
        match slot.as_deref() {
            Some(Known::Literal(literal)) => return Some(*literal),
            Some(Known::Other) => return None,
            Some(Known::NotYet) | None => {}
        }
        let text = labels.kid(kid);
        let found = (0u16..).zip(&self.literals).find(|(_, literal)| *literal == text).map(|(index, _)| index);
        if let Some(slot) = slot {
            *slot = found.map_or(Known::Other, Known::Literal);
        }
        found
    }
}

/// Turns the values of detections into [`Test`]s.
pub(super) struct Compiler<'c, 'm, 'f> {
    pub config: &'c Config,
    pub mistakes: &'m mut Mistakes<'f>,
    /// The `kid`s that the file's rules name.
    pub kids: Vec<String>,
}

/// The words of yes-or-no fields.
const BOOLEANS: [(&str, u8); 2] = [("false", 0), ("true", 1)];

/// Values as written, and whether `null` is among them.
struct Values<'n> {
    texts: Vec<(&'n Node, String)>,
    absent: bool,
}

impl Compiler<'_, '_, '_> {
    /// The test that `field` has one of the values in `node`.
    pub fn test(&mut self, field: Field, node: &Node) -> Option<Test> {
        let Values { texts, absent } = self.values(field, node)?;
        let config = self.config;
        Some(match field {
            Field::Service => {
                let known = (0u16..).zip(&config.services).map(|(id, service)| (service.name.as_str(), ServiceId(id)));
                Test::Service { ids: self.named("service", &texts, &known.collect::<Vec<_>>()), absent }
            }
            Field::Route => {
                let known = per_service(config, |service| service.routes.iter().map(|route| route.name.as_str()));
                let known: Vec<_> =
                    known.into_iter().map(|(name, service, id)| (name, (service, RouteId(id)))).collect();
                Test::Route { ids: self.named("route", &texts, &known), absent }
            }
            Field::Issuer => {
                let known = per_service(config, |service| service.issuers.iter().map(|issuer| issuer.name.as_str()));
                let known: Vec<_> =
                    known.into_iter().map(|(name, service, id)| (name, (service, IssuerId(id)))).collect();
                Test::Issuer { ids: self.named("issuer", &texts, &known), absent }
            }
            Field::Class => Test::Class(self.set(field, &texts, RouteClass::ALL.iter().map(|v| (v.label(), *v as u8)))),
            Field::Outcome => {
                Test::Outcome(self.set(field, &texts, Outcome::ALL.iter().map(|v| (v.label(), *v as u8))))
            }
            Field::Provenance => {
                Test::Provenance(self.set(field, &texts, Provenance::ALL.iter().map(|v| (v.label(), *v as u8))))
            }
            Field::Validity => {
                Test::Validity(self.set(field, &texts, Validity::ALL.iter().map(|v| (v.label(), *v as u8))))
            }
            Field::Place => Test::Place(self.set(field, &texts, PLACES.iter().copied())),
            Field::SelfContained => Test::SelfContained(self.set(field, &texts, BOOLEANS.into_iter())),
            Field::Conflict => Test::Conflict(self.set(field, &texts, BOOLEANS.into_iter())),
            Field::Ambiguous => Test::Ambiguous(self.set(field, &texts, BOOLEANS.into_iter())),
            Field::Anomaly => {
                #[expect(clippy::cast_possible_truncation, reason = "a bit's number is below 32")]
                let known = anomaly::NAMES.iter().map(|(name, bit)| (*name, bit.trailing_zeros() as u8));
                Test::Anomaly { any: self.set(field, &texts, known), absent }
            }
            Field::Status => Test::Status { codes: self.parsed(&texts, "a status code, 100 to 599", status), absent },
            Field::Client => Test::Client(self.parsed(&texts, "an IPv4 or IPv6 address", client)),
            Field::Kid => Test::Kid { literals: self.kid_literals(&texts), absent },
            Field::Account => {
                for (node, _) in &texts {
                    let message = "accounts are kept as keyed hashes and cannot be matched by value";
                    self.mistakes.add(node.at, message, "Write `account: null` (no account known), or leave it out");
                }
                Test::AccountAbsent
            }
        })
    }

    /// The scalars of `node`, escapes undone, `null` taken out; none when something other than scalars stands there.
    fn values<'n>(&mut self, field: Field, node: &'n Node) -> Option<Values<'n>> {
        let nodes = match &node.value {
            Value::Sequence(items) if items.is_empty() => {
                self.mistakes.add(node.at, "an empty list matches nothing", "Name at least one value");
                return None;
            }
            Value::Sequence(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut values = Values { texts: Vec::new(), absent: false };
        for node in nodes {
            let Value::Scalar { text, .. } = &node.value else {
                let message = format!("`{}` is {} here", field.label(), node.kind());
                self.mistakes.add(node.at, message, "Write one value or a list of values");
                continue;
            };
            if node.is_null() {
                if field.nullable() {
                    values.absent = true;
                } else {
                    let message = format!("`{}` is never absent", field.label());
                    self.mistakes.add(node.at, message, "Name a value");
                }
            } else if let Some(text) = unescaped(text) {
                values.texts.push((node, text));
            } else {
                let message = format!("{}: wildcards are not implemented yet", quoted(text));
                self.mistakes.add(node.at, message, "Name each value, or write `\\*` for a literal `*`");
            }
        }
        Some(values)
    }

    /// All ids of `known` with one of the names.
    fn named<T: Copy>(&mut self, what: &str, texts: &[(&Node, String)], known: &[(&str, T)]) -> Vec<T> {
        let mut ids = Vec::new();
        for (node, text) in texts {
            let before = ids.len();
            ids.extend(known.iter().filter(|(name, _)| name == text).map(|(_, id)| *id));
            if ids.len() == before {
                let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.dedup();
                let message = format!("the configuration has no {what} called {}", quoted(text));
                self.mistakes.add(node.at, message, advice(text, &names));
            }
        }
        ids
    }

    /// The bit set of the values with one of the words.
    fn set<'w>(&mut self, field: Field, texts: &[(&Node, String)], known: impl Iterator<Item = (&'w str, u8)>) -> u32 {
        let known: Vec<(&str, u8)> = known.collect();
        let mut set = 0;
        for (node, text) in texts {
            if let Some((_, bit)) = known.iter().find(|(word, _)| word == text) {
                set |= 1 << bit;
            } else {
                let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
                let message = format!("{} is no value of `{}`", quoted(text), field.label());
                self.mistakes.add(node.at, message, advice(text, &words));
            }
        }
        set
    }

    fn parsed<T>(&mut self, texts: &[(&Node, String)], wanted: &str, parse: fn(&str) -> Option<T>) -> Vec<T> {
        let mut values = Vec::new();
        for (node, text) in texts {
            let value = parse(text);
            if value.is_none() {
                self.mistakes.add(node.at, format!("{} is not {wanted}", quoted(text)), format!("Write {wanted}"));
            }
            values.extend(value);
        }
        values
    }

    fn kid_literals(&mut self, texts: &[(&Node, String)]) -> Vec<u16> {
        let mut literals = Vec::new();
        for (node, text) in texts {
            let index = self.kids.iter().position(|kid| kid == text).unwrap_or_else(|| {
                self.kids.push(text.clone());
                self.kids.len() - 1
            });
            match u16::try_from(index) {
                Ok(index) => literals.push(index),
                Err(_) => self.mistakes.add(node.at, "too many `kid` values in one file", "Name at most 65536"),
            }
        }
        literals
    }
}

/// Every route or issuer name with its service and index.
fn per_service<'c, I: Iterator<Item = &'c str>>(
    config: &'c Config,
    names: impl Fn(&'c crate::config::model::Service) -> I,
) -> Vec<(&'c str, ServiceId, u16)> {
    let mut known = Vec::new();
    for (service, item) in (0u16..).zip(&config.services) {
        known.extend((0u16..).zip(names(item)).map(|(id, name)| (name, ServiceId(service), id)));
    }
    known
}

fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|code| (100..600).contains(code))
}

fn client(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// A Sigma string without wildcards: `\*`, `\?` and `\\` stand for the character; none when a bare `*` or `?` is in it.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '*' | '?' => return None,
            '\\' => out.push(characters.next_if(|next| matches!(next, '*' | '?' | '\\')).unwrap_or('\\')),
            _ => out.push(character),
        }
    }
    Some(out)
}

const _: () = assert!(place::QUERY < 32, "places fit a bit set");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_and_escapes() {
        assert_eq!(unescaped("a*"), None);
        assert_eq!(unescaped("a?"), None);
        assert_eq!(unescaped(r"a\*b\?c\\d\e"), Some(r"a*b?c\d\e".to_owned()));
        assert_eq!(unescaped(r"a\"), Some(r"a\".to_owned()));
    }
}
