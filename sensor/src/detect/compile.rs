//! Turns the lines of selections into [`Test`]s: values typed, names resolved against the configuration.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;
use sensor_ebpf::wire::place;

use super::error::{advice, quoted};
use super::field::{Field, Key, PLACES, Shape, Source, network};
use super::modifier::{self, Line, Operator};
use super::names::{PATTERNS_MAX, Pattern, Patterns};
use super::predicate::{Selection, Test};
use super::yaml::{self, Mistakes, Node, Value};
use crate::anomaly;
use crate::config::model::{Config, Service};
use crate::observation::{
    ClaimName, EstimateKind, IssuerId, Measure, Outcome, Provenance, Relation, RouteClass, RouteId, ServiceId,
    Validity, claim_anomaly,
};

/// Turns values into tests; keeps the patterns of a file.
pub(super) struct Compiler<'c, 'm, 'f> {
    pub config: &'c Config,
    pub mistakes: &'m mut Mistakes<'f>,
    /// What the file's rules want of names that credentials bring.
    pub patterns: Patterns,
}

/// The words of yes-or-no fields.
const BOOLEANS: [(&str, u8); 2] = [("false", 0), ("true", 1)];

/// Values as written, and whether `null` is among them.
struct Values<'n> {
    texts: Vec<(&'n Node, String)>,
    absent: bool,
}

impl Compiler<'_, '_, '_> {
    /// A mapping (all must hold) or a list of mappings (one must hold).
    pub fn selection(&mut self, name: &str, node: &Node, source: Source) -> Selection {
        let maps = match &node.value {
            Value::Sequence(items) if !items.is_empty() => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let mut alternatives = Vec::new();
        for map in maps {
            match &map.value {
                Value::Mapping(entries) if !entries.is_empty() => {
                    alternatives.push(entries.iter().flat_map(|(key, node)| self.line(key, node, source)).collect());
                }
                Value::Scalar { .. } if !map.is_null() => {
                    let message = format!("{}: keyword search is not implemented yet", quoted(name));
                    self.mistakes.add(map.at, message, "Write `field: value` lines");
                }
                _ => {
                    let message = format!("{} is {} here", quoted(name), map.kind());
                    self.mistakes.add(map.at, message, "Write `field: value` lines");
                }
            }
        }
        alternatives
    }

    /// The tests of one line, all of which must hold.
    fn line(&mut self, key: &yaml::Key, node: &Node, source: Source) -> Vec<Test> {
        let Some(line) = modifier::read(key, source, self.mistakes) else { return Vec::new() };
        let parts = match &node.value {
            Value::Sequence(items) if line.all && !items.is_empty() => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        let tests: Vec<Test> = parts.iter().filter_map(|part| self.test(line, part, source)).collect();
        match (line.neq, tests.as_slice()) {
            (false, _) => tests,
            (true, [one]) => vec![Test::Not(Box::new(one.clone()))],
            (true, _) => {
                self.mistakes.add(key.at, "`neq` with `all` has no plain meaning", "Use `not` in the condition");
                Vec::new()
            }
        }
    }

    /// The test that a field compares with one of the values in `node`.
    fn test(&mut self, line: Line, node: &Node, source: Source) -> Option<Test> {
        if line.operator == Operator::Exists {
            return self.exists(line.field, node, source);
        }
        let Values { texts, absent } = self.values(line, node, source)?;
        let field = line.field;
        Some(match field.shape() {
            Shape::Declared => self.declared(line, &texts, absent),
            Shape::Words => Test::Word { field, set: self.words(field, &texts), absent },
            Shape::Bits => {
                let claims = field == Field::ClaimAnomaly;
                Test::Bits { claims, any: self.words(field, &texts), absent }
            }
            Shape::Text(of) => Test::Text { field, of, patterns: self.patterns(of, line, &texts), absent },
            Shape::Hash => {
                for (node, _) in &texts {
                    let label = field.label();
                    let message = if field == Field::Account {
                        "accounts are kept as keyed hashes and cannot be matched by value".to_owned()
                    } else {
                        format!("`{label}` is kept as a keyed hash and cannot be matched by value")
                    };
                    let fix = format!("Write `{label}: null` (there is none), or leave it out");
                    self.mistakes.add(node.at, message, fix);
                }
                Test::Not(Box::new(Test::Exists(field)))
            }
            Shape::Address => {
                let parse = if line.operator == Operator::Cidr { cidr } else { client };
                let wanted = match line.operator {
                    Operator::Cidr => "a network such as `192.0.2.0/24` or `2001:db8::/32`",
                    _ => "an IPv4 or IPv6 address",
                };
                Test::Client { networks: self.parsed(&texts, wanted, parse), absent }
            }
            Shape::Network => {
                let wanted = "a network such as `192.0.2.0/24` or `2001:db8:1::/48`";
                Test::Network { networks: self.parsed(&texts, wanted, whole_network), absent }
            }
            Shape::Status => {
                let wanted = "a status code, 100 to 599";
                Test::Number { field, ranges: self.ranges(line.operator, &texts, wanted, status), absent }
            }
            Shape::Number => {
                let wanted = "a whole number";
                Test::Number { field, ranges: self.ranges(line.operator, &texts, wanted, whole), absent }
            }
            Shape::Seconds => {
                let wanted = "a duration such as `90s`, `15m`, `12h`, `30d`, or a number of seconds";
                Test::Number { field, ranges: self.ranges(line.operator, &texts, wanted, seconds), absent }
            }
        })
    }

    fn exists(&mut self, field: Field, node: &Node, source: Source) -> Option<Test> {
        if !field.nullable(source) {
            self.mistakes.add(node.at, format!("`{}` is never absent", field.label()), "Remove the line");
            return None;
        }
        match &node.value {
            Value::Scalar { text, .. } if text == "true" => Some(Test::Exists(field)),
            Value::Scalar { text, .. } if text == "false" => Some(Test::Not(Box::new(Test::Exists(field)))),
            _ => {
                self.mistakes.add(node.at, "`exists` wants a yes or a no", "Write `true` or `false`");
                None
            }
        }
    }

    /// The scalars of `node`, escapes undone, `null` taken out; none when something other than scalars stands there.
    fn values<'n>(&mut self, line: Line, node: &'n Node, source: Source) -> Option<Values<'n>> {
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
                let message = format!("`{}` is {} here", line.field.label(), node.kind());
                self.mistakes.add(node.at, message, "Write one value or a list of values");
                continue;
            };
            if node.is_null() {
                if line.field.nullable(source) && line.operator == Operator::Is {
                    values.absent = true;
                } else if line.operator == Operator::Is {
                    let message = format!("`{}` is never absent", line.field.label());
                    self.mistakes.add(node.at, message, "Name a value");
                } else {
                    self.mistakes.add(node.at, "nothing cannot be compared", "Name a value, or use `exists`");
                }
            } else if line.operator == Operator::Regex {
                values.texts.push((node, text.clone()));
            } else if let Some(text) = unescaped(text) {
                values.texts.push((node, text));
            } else {
                let message = format!("{}: wildcards are not implemented yet", quoted(text));
                let fix = "Use `startswith`, `endswith`, `contains` or `re`, or write `\\*` for a literal `*`";
                self.mistakes.add(node.at, message, fix);
            }
        }
        Some(values)
    }

    /// A test over names of the configuration; modifiers choose among them here and now.
    fn declared(&mut self, line: Line, texts: &[(&Node, String)], absent: bool) -> Test {
        let config = self.config;
        match line.field {
            Field::Route => {
                let known = per_service(config, |service| service.routes.iter().map(|route| route.name.as_str()));
                let known: Vec<_> =
                    known.into_iter().map(|(name, service, id)| (name, (service, RouteId(id)))).collect();
                Test::Route { ids: self.named("route", line, texts, &known), absent }
            }
            Field::Issuer => {
                let known = per_service(config, |service| service.issuers.iter().map(|issuer| issuer.name.as_str()));
                let known: Vec<_> =
                    known.into_iter().map(|(name, service, id)| (name, (service, IssuerId(id)))).collect();
                Test::Issuer { ids: self.named("issuer", line, texts, &known), absent }
            }
            _ => {
                let known = (0u16..).zip(&config.services).map(|(id, service)| (service.name.as_str(), ServiceId(id)));
                Test::Service { ids: self.named("service", line, texts, &known.collect::<Vec<_>>()), absent }
            }
        }
    }

    /// All ids of `known` whose name fits one of the texts.
    fn named<T: Copy>(&mut self, what: &str, line: Line, texts: &[(&Node, String)], known: &[(&str, T)]) -> Vec<T> {
        let mut ids = Vec::new();
        for (node, text) in texts {
            let Some(pattern) = self.pattern(line.operator, node, text) else { continue };
            let before = ids.len();
            ids.extend(known.iter().filter(|(name, _)| pattern.fits(name)).map(|(_, id)| *id));
            if ids.len() == before {
                let mut names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
                names.sort_unstable();
                names.dedup();
                let called = if line.operator == Operator::Is { "called" } else { "with a name like" };
                let message = format!("the configuration has no {what} {called} {}", quoted(text));
                self.mistakes.add(node.at, message, advice(text, &names));
            }
        }
        ids
    }

    fn pattern(&mut self, operator: Operator, node: &Node, text: &str) -> Option<Pattern> {
        let owned = text.to_owned();
        Some(match operator {
            Operator::Contains => Pattern::Contains(owned),
            Operator::Starts => Pattern::Starts(owned),
            Operator::Ends => Pattern::Ends(owned),
            Operator::Regex => match Pattern::regex(text) {
                Ok(pattern) => pattern,
                Err(error) => {
                    let message = format!("{} is no regular expression: {error}", quoted(text));
                    self.mistakes.add(node.at, message, "Write one without look-around and back-references");
                    return None;
                }
            },
            _ => Pattern::Is(owned),
        })
    }

    /// The bits of the file's patterns that these texts are.
    fn patterns(&mut self, of: ClaimName, line: Line, texts: &[(&Node, String)]) -> u64 {
        let mut bits = 0;
        for (node, text) in texts {
            let Some(pattern) = self.pattern(line.operator, node, text) else { continue };
            let Some(patterns) = self.patterns.get_mut(of as usize) else { continue };
            let known = patterns.iter().position(
                |known| matches!((known, &pattern), (Pattern::Is(known), Pattern::Is(text)) if known == text),
            );
            let index = known.unwrap_or(patterns.len());
            if index >= PATTERNS_MAX {
                let message = format!("more than {PATTERNS_MAX} values of `{}` in one file", line.field.label());
                self.mistakes.add(node.at, message, "Use `re` for several at once, or split the file");
                continue;
            }
            if known.is_none() {
                patterns.push(pattern);
            }
            bits |= 1 << index;
        }
        bits
    }

    /// The bit set of the values with one of the words.
    fn words(&mut self, field: Field, texts: &[(&Node, String)]) -> u32 {
        let known = words_of(field);
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

    fn ranges(
        &mut self,
        operator: Operator,
        texts: &[(&Node, String)],
        wanted: &str,
        parse: fn(&str) -> Option<i64>,
    ) -> Vec<RangeInclusive<i64>> {
        let numbers = self.parsed(texts, wanted, parse);
        let range = |number: i64| match operator {
            Operator::Gt => number.saturating_add(1)..=i64::MAX,
            Operator::Gte => number..=i64::MAX,
            Operator::Lt => i64::MIN..=number.saturating_sub(1),
            Operator::Lte => i64::MIN..=number,
            _ => number..=number,
        };
        numbers.into_iter().map(range).collect()
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
}

/// The words of a field with the index, or bit, that each stands for.
pub(super) fn words_of(field: Field) -> Vec<(&'static str, u8)> {
    fn indexed(labels: impl Iterator<Item = &'static str>) -> Vec<(&'static str, u8)> {
        labels.zip(0..).collect()
    }
    match field {
        Field::Class => indexed(RouteClass::ALL.iter().map(|value| value.label())),
        Field::Outcome => indexed(Outcome::ALL.iter().map(|value| value.label())),
        Field::Provenance => indexed(Provenance::ALL.iter().map(|value| value.label())),
        Field::Validity => indexed(Validity::ALL.iter().map(|value| value.label())),
        Field::Relation => indexed(Relation::ALL.iter().map(|value| value.label())),
        Field::Kind => indexed(EstimateKind::ALL.iter().map(|value| value.label())),
        Field::Measure => indexed(Measure::ALL.iter().map(|value| value.label())),
        Field::ClaimAnomaly => indexed(claim_anomaly::NAMES.iter().copied()),
        Field::Place => PLACES.to_vec(),
        #[expect(clippy::cast_possible_truncation, reason = "a bit's number is below 32")]
        Field::Anomaly => anomaly::NAMES.iter().map(|(name, bit)| (*name, bit.trailing_zeros() as u8)).collect(),
        _ => BOOLEANS.to_vec(),
    }
}

/// Every route or issuer name with its service and index.
fn per_service<'c, I: Iterator<Item = &'c str>>(
    config: &'c Config,
    names: impl Fn(&'c Service) -> I,
) -> Vec<(&'c str, ServiceId, u16)> {
    let mut known = Vec::new();
    for (service, item) in (0u16..).zip(&config.services) {
        known.extend((0u16..).zip(names(item)).map(|(id, name)| (name, ServiceId(service), id)));
    }
    known
}

fn status(text: &str) -> Option<i64> {
    text.parse().ok().filter(|code| (100..600).contains(code))
}

fn whole(text: &str) -> Option<i64> {
    text.parse().ok()
}

fn client(text: &str) -> Option<IpNet> {
    text.parse::<IpAddr>().ok().map(|address| address.to_canonical().into())
}

fn cidr(text: &str) -> Option<IpNet> {
    text.parse::<IpNet>().ok().map(|network| network.trunc())
}

/// A network of the size that the field `network` has.
fn whole_network(text: &str) -> Option<Key> {
    let net: IpNet = text.parse().ok()?;
    let size = if net.addr().is_ipv4() { 24 } else { 48 };
    (net.prefix_len() == size && net.trunc() == net).then(|| network(net.addr()))
}

/// Seconds: a number, or a number with `s`, `m`, `h`, `d` or `w`; may be negative.
pub(super) fn seconds(text: &str) -> Option<i64> {
    if let Ok(number) = text.parse() {
        return Some(number);
    }
    let (sign, rest) = text.strip_prefix('-').map_or((1, text), |rest| (-1, rest));
    let seconds = i64::try_from(duration(rest)?).ok()?;
    Some(sign * seconds)
}

/// Seconds of a duration: a number with `s`, `m`, `h`, `d` or `w`.
pub(super) fn duration(text: &str) -> Option<u64> {
    let (index, unit) = text.char_indices().next_back()?;
    let unit = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return None,
    };
    let digits = text.get(..index).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse::<u64>().ok()?.checked_mul(unit)
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

    #[test]
    fn durations_and_networks() {
        assert_eq!(
            (seconds("12h"), seconds("-90s"), seconds("-7"), seconds("7")),
            (Some(43_200), Some(-90), Some(-7), Some(7))
        );
        assert_eq!(
            (seconds("h"), seconds("1y"), seconds("--1s"), duration("-1s"), duration("5")),
            (None, None, None, None, None)
        );
        assert!(whole_network("192.0.2.0/24").is_some() && whole_network("2001:db8:1::/48").is_some());
        assert!(whole_network("192.0.2.1/24").is_none() && whole_network("192.0.0.0/16").is_none());
    }
}
