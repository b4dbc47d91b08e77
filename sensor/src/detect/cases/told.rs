//! Observations and events in words.
//!
//! What is not said is absent, or the first of its words; the client is then 192.0.2.1. Names that the configuration does
//! not have are as good as those it has. `{n}` in a text is the number of the repetition, from 0; `{n%7}` and `{n/7}` its
//! remainder and its quotient.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};

use sensor_ebpf::siphash;
use sensor_ebpf::wire::anomaly as wire;

use super::super::Labels;
use super::super::compile::{duration, seconds, words_of};
use super::super::error::{advice, quoted};
use super::super::field::{Field, Shape, Source};
use super::super::header::Table;
use super::super::modifier;
use super::super::stand_in::stand_in;
use super::super::yaml::{Key, Mistakes, Node, Place, Value};
use crate::config::model::{Config, Service};
use crate::observation::{
    AccountHash, ClaimName, Estimate, EstimateKind, Fingerprint, Instant, Interned, IssuerId, Measure, Observation,
    Outcome, Provenance, Relation, RouteClass, RouteId, ServiceId, Validity,
};

/// When every case begins: 2026-11-22, 00:00 UTC.
const START_NS: u64 = 20_779 * 86_400 * 1_000_000_000;
/// Most repetitions of one line.
const REPEAT_MAX: u64 = 100_000;
/// Keys of a line that are no fields.
const OWN_KEYS: [&str; 3] = ["repeat", "every", "at"];

/// One repetition of a line.
pub(super) struct Event<'n> {
    /// After the start of the case.
    pub after_ns: u64,
    number: u64,
    estimate: bool,
    entries: &'n [(Key, Node)],
}

/// What a line says.
pub(super) enum Told {
    Observation(Observation),
    Estimate(Estimate),
}

/// Reads lines; knows the names that they brought.
pub(super) struct Teller<'c> {
    config: &'c Config,
    names: [Vec<String>; ClaimName::ALL.len()],
    /// Services, routes and issuers that the configuration does not have, by service: numbers from the top down.
    declared: HashMap<(Field, u16, u16), String>,
}

impl Labels for Teller<'_> {
    fn service(&self, service: ServiceId) -> &str {
        let known = self.config.services.get(usize::from(service.0)).map(|service| service.name.as_str());
        known.or_else(|| self.brought(Field::Service, 0, service.0)).unwrap_or("service")
    }

    fn route(&self, service: ServiceId, route: RouteId) -> &str {
        let known = self.known(service).and_then(|service| service.routes.get(usize::from(route.0)));
        known.map(|route| route.name.as_str()).or_else(|| self.brought(Field::Route, service.0, route.0)).unwrap_or("?")
    }

    fn issuer(&self, service: ServiceId, issuer: IssuerId) -> &str {
        let known = self.known(service).and_then(|service| service.issuers.get(usize::from(issuer.0)));
        known
            .map(|issuer| issuer.name.as_str())
            .or_else(|| self.brought(Field::Issuer, service.0, issuer.0))
            .unwrap_or("?")
    }

    fn name(&self, of: ClaimName, id: Interned) -> &str {
        let names = self.names.get(of as usize);
        names.and_then(|names| names.get(id.0 as usize)).map_or("(other)", String::as_str)
    }
}

impl<'c> Teller<'c> {
    /// Knows the names of the configuration.
    pub fn new(config: &'c Config) -> Self {
        Self { config, names: Default::default(), declared: HashMap::new() }
    }

    fn known(&self, service: ServiceId) -> Option<&'c Service> {
        self.config.services.get(usize::from(service.0))
    }

    fn brought(&self, field: Field, service: u16, id: u16) -> Option<&str> {
        self.declared.get(&(field, service, id)).map(String::as_str)
    }

    /// The repetitions of one line.
    pub fn events<'n>(node: &'n Node, estimate: bool, mistakes: &mut Mistakes<'_>) -> Vec<Event<'n>> {
        let Some(table) = Table::new(node, "an observation", mistakes) else { return Vec::new() };
        let mut repeat = 1;
        if let Some((text, at)) = table.get("repeat").and_then(|_| table.text("repeat", true, mistakes)) {
            let Some(number) = text.parse().ok().filter(|number| (1..=REPEAT_MAX).contains(number)) else {
                let message = format!("{} is no number of repetitions", quoted(text));
                mistakes.add(at, message, format!("Write a whole number from 1 to {REPEAT_MAX}"));
                return Vec::new();
            };
            repeat = number;
        }
        let mut time = |name: &str, default_ns: u64| {
            let Some((text, at)) = table.get(name).and_then(|_| table.text(name, true, mistakes)) else {
                return default_ns;
            };
            if let Some(milliseconds) = milliseconds(text) {
                return milliseconds.saturating_mul(1_000_000);
            }
            let fix = "Write a number and a unit, such as `250ms`, `90s`, `15m`, `24h`";
            mistakes.add(at, format!("{} is no duration", quoted(text)), fix);
            default_ns
        };
        let (at_ns, every_ns) = (time("at", 0), time("every", 1_000_000_000));
        let event = |number: u64| Event {
            after_ns: at_ns.saturating_add(every_ns.saturating_mul(number)),
            number,
            estimate,
            entries: table.entries,
        };
        (0..repeat).map(event).collect()
    }

    /// What the event says; a line that cannot be read is a mistake.
    pub fn tell(&mut self, event: &Event<'_>, mistakes: &mut Mistakes<'_>) -> Option<Told> {
        let at_ns = START_NS.saturating_add(event.after_ns);
        let at = Instant { monotonic_ns: at_ns, unix_ns: at_ns };
        let mut e = Estimate {
            at,
            since: at,
            kind: EstimateKind::Drift,
            measure: Measure::ReadsPerLogin,
            service: ServiceId(0),
            route: None,
            class: None,
            issuer: None,
            kid: None,
            client: None,
            observed: 0,
            expected: 0,
            score: 0,
            requests: 0,
            accounts: Vec::new(),
            clients: Vec::new(),
        };
        let mut o = stand_in(&e);
        (o.outcome, o.client) = (Outcome::Read, IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
        let source = if event.estimate { Source::Estimate } else { Source::Observation };
        let lines = event.entries.iter().filter(|(key, _)| !OWN_KEYS.contains(&key.text.as_str()));
        // What names depend on comes first.
        let (first, rest): (Vec<_>, Vec<_>) = lines.partition(|(key, _)| key.text == "service");
        for (key, node) in first.into_iter().chain(rest) {
            let field = modifier::field(&key.text, key.at, source, mistakes)?;
            for (text, at) in texts(node, mistakes)? {
                let text = filled(text, event.number);
                let said = self.say(field, &text, &mut o, &mut e);
                if let Err(fix) = said {
                    mistakes.add(at, format!("{} is no value of `{}` here", quoted(&text), field.label()), fix);
                    return None;
                }
            }
        }
        if !event.estimate {
            return Some(Told::Observation(o));
        }
        (e.service, e.route, e.issuer, e.kid) = (o.service, o.route, o.issuer, o.kid);
        Some(Told::Estimate(e))
    }

    /// Puts one value where it belongs; what to write instead when it cannot be one.
    fn say(&mut self, field: Field, text: &str, o: &mut Observation, e: &mut Estimate) -> Result<(), String> {
        match field.shape() {
            Shape::Words | Shape::Bits => {
                let words = words_of(field);
                let Some((_, index)) = words.iter().find(|(word, _)| *word == text) else {
                    let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                    return Err(advice(text, &words));
                };
                word(field, *index, o, e);
            }
            Shape::Declared => {
                let id = self.declare(field, o.service, text);
                match field {
                    Field::Service => o.service = ServiceId(id),
                    Field::Route => o.route = Some(RouteId(id)),
                    _ => o.issuer = Some(IssuerId(id)),
                }
            }
            Shape::Text(of) => {
                let id = Some(self.intern(of, text));
                match of {
                    ClaimName::Kid => o.kid = id,
                    ClaimName::Iss => o.claims.iss = id,
                    ClaimName::Alg => o.claims.alg = id,
                    ClaimName::Aud => o.claims.aud = id,
                    ClaimName::Scope => o.claims.scope = id,
                }
            }
            Shape::Hash => {
                let hash = siphash::hash128(siphash::Key::default(), text.as_bytes());
                match field {
                    Field::Fingerprint => o.fingerprint = Some(Fingerprint(hash)),
                    Field::Account => o.account = Some(AccountHash(hash)),
                    Field::Object => o.object = Some(AccountHash(hash)),
                    Field::Sub => o.claims.sub = Some(AccountHash(hash)),
                    _ => o.claims.jti = Some(AccountHash(hash)),
                }
            }
            Shape::Address => {
                o.client = text.parse().map_err(|_| "Write an IPv4 or IPv6 address".to_owned())?;
                e.client = Some(o.client);
            }
            Shape::Network => return Err("Say who the `client` is; the network follows from it".to_owned()),
            Shape::Status | Shape::Number | Shape::Seconds => {
                let number = seconds(text).ok_or_else(|| "Write a whole number, or a duration".to_owned())?;
                number_of(field, number, o, e).ok_or_else(|| "Write a number in range".to_owned())?;
            }
        }
        Ok(())
    }

    fn intern(&mut self, of: ClaimName, text: &str) -> Interned {
        let Some(names) = self.names.get_mut(of as usize) else { return Interned::OVERFLOW };
        let index = names.iter().position(|name| name == text).unwrap_or_else(|| {
            names.push(text.to_owned());
            names.len() - 1
        });
        u32::try_from(index).map_or(Interned::OVERFLOW, Interned)
    }

    /// The number of a name of the configuration, or one of its own for a name that it does not have.
    fn declare(&mut self, field: Field, service: ServiceId, text: &str) -> u16 {
        let place = |names: &mut dyn Iterator<Item = &str>| {
            (0u16..).zip(names).find(|(_, name)| *name == text).map(|(id, _)| id)
        };
        let known = self.known(service);
        let found = match field {
            Field::Service => place(&mut self.config.services.iter().map(|service| service.name.as_str())),
            Field::Route => {
                known.and_then(|service| place(&mut service.routes.iter().map(|route| route.name.as_str())))
            }
            _ => known.and_then(|service| place(&mut service.issuers.iter().map(|issuer| issuer.name.as_str()))),
        };
        if let Some(id) = found {
            return id;
        }
        let within = if field == Field::Service { 0 } else { service.0 };
        let same = self.declared.iter().find(|((of, at, _), name)| *of == field && *at == within && *name == text);
        if let Some(((_, _, id), _)) = same {
            return *id;
        }
        let taken = self.declared.keys().filter(|(of, at, _)| *of == field && *at == within).count();
        let id = u16::MAX - 1 - u16::try_from(taken).unwrap_or(u16::MAX - 1);
        self.declared.insert((field, within, id), text.to_owned());
        id
    }
}

/// Puts a word where it belongs.
fn word(field: Field, index: u8, o: &mut Observation, e: &mut Estimate) {
    fn at<T: Copy>(all: &[T], index: u8, place: &mut T) {
        if let Some(value) = all.get(usize::from(index)) {
            *place = *value;
        }
    }
    let mut flag = |bit: u32| if index == 1 { o.anomalies |= bit } else { o.anomalies &= !bit };
    match field {
        Field::Conflict => flag(wire::CONFLICT),
        Field::Ambiguous => flag(wire::AMBIGUOUS),
        Field::Class => {
            at(RouteClass::ALL, index, &mut o.class);
            e.class = Some(o.class);
        }
        Field::Outcome => at(Outcome::ALL, index, &mut o.outcome),
        Field::Provenance => at(Provenance::ALL, index, &mut o.provenance),
        Field::Validity => at(Validity::ALL, index, &mut o.validity),
        Field::Relation => at(Relation::ALL, index, &mut o.relation),
        Field::Kind => at(EstimateKind::ALL, index, &mut e.kind),
        Field::Measure => at(Measure::ALL, index, &mut e.measure),
        Field::Place => o.place = index,
        Field::SelfContained => o.self_contained = index == 1,
        Field::Canary => o.canary = index == 1,
        Field::Anomaly => o.anomalies |= 1 << index,
        _ => o.claim_anomalies |= 1 << index,
    }
}

/// Puts a number where it belongs; none when it does not fit there.
fn number_of(field: Field, number: i64, o: &mut Observation, e: &mut Estimate) -> Option<()> {
    match field {
        Field::Status => o.status = Some(u16::try_from(number).ok()?),
        Field::Issued => o.issued = u8::try_from(number).ok()?,
        Field::Iat => o.claims.iat = Some(number),
        Field::Exp => o.claims.exp = Some(number),
        Field::Nbf => o.claims.nbf = Some(number),
        Field::Age => o.claims.age_s = Some(number),
        Field::Lifetime => o.claims.lifetime_s = Some(number),
        Field::KeyRetired => o.claims.key_retired_s = Some(number),
        Field::WalkClient => o.estimates.walk_client = u32::try_from(number).ok()?,
        Field::WalkNetwork => o.estimates.walk_network = u32::try_from(number).ok()?,
        Field::WalkRoute => o.estimates.walk_route = u32::try_from(number).ok()?,
        Field::MissClient => o.estimates.miss_client = i32::try_from(number).ok()?,
        Field::MissNetwork => o.estimates.miss_network = i32::try_from(number).ok()?,
        Field::MissKid => o.estimates.miss_kid = i32::try_from(number).ok()?,
        Field::Observed => e.observed = u64::try_from(number).ok()?,
        Field::Expected => e.expected = u64::try_from(number).ok()?,
        Field::Score => e.score = u64::try_from(number).ok()?,
        _ => e.requests = u64::try_from(number).ok()?,
    }
    Some(())
}

fn texts<'n>(node: &'n Node, mistakes: &mut Mistakes<'_>) -> Option<Vec<(&'n str, Place)>> {
    let nodes = match &node.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let text = |node: &'n Node| match &node.value {
        Value::Scalar { text, .. } if !node.is_null() => Some((text.as_str(), node.at)),
        _ => None,
    };
    let found: Vec<_> = nodes.iter().filter_map(text).collect();
    if found.len() != nodes.len() {
        mistakes.add(node.at, "a value is missing here", "Write a value, or leave the line out");
        return None;
    }
    Some(found)
}

fn milliseconds(text: &str) -> Option<u64> {
    match text.strip_suffix("ms") {
        Some(number) => number.parse().ok(),
        None => duration(text)?.checked_mul(1_000),
    }
}

/// `text` with `{n}`, `{n%K}` and `{n/K}` filled in.
fn filled(text: &str, number: u64) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, (inner, after))) =
        rest.split_once("{n").and_then(|(before, tail)| Some((before, tail.split_once('}')?)))
    {
        out.push_str(before);
        let by = |sign: char| inner.strip_prefix(sign).and_then(|by| by.parse::<u64>().ok()).filter(|by| *by > 0);
        let value = match (by('%'), by('/')) {
            (Some(by), _) => number % by,
            (_, Some(by)) => number / by,
            _ => number,
        };
        out.push_str(&value.to_string());
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_filled_in() {
        assert_eq!(filled("m-{n}-{n%3}.{n/4}", 10), "m-10-1.2");
        assert_eq!(
            (filled("plain", 1), filled("{n", 1), filled("{x}", 1)),
            ("plain".into(), "{n".into(), "{x}".into())
        );
        assert_eq!((milliseconds("250ms"), milliseconds("2m"), milliseconds("x")), (Some(250), Some(120_000), None));
    }
}
