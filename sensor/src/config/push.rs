//! The push endpoint: where it listens, its TLS, and who may tell of whose issuances.
//!
//! Certificates and the key are read here (`tls`), so that a mistake in them is told with its line before anything starts;
//! the running endpoint reads them again when they change.

mod tls;

use std::net::SocketAddr;
use std::time::Duration;

use tls::Part;
pub use tls::{Mistake as PushMistake, read as read_tls};

use super::bounds::count;
use super::issuance::each;
use super::model::{Keys, PUSHED_ISSUERS, Push, PushFiles, PushSource, PushSubject, PushTls, Service};
use super::names;
use super::reader::{At, Context, Item, Section};
use super::scalar;
use crate::diagnostic::quoted;
use crate::observation::{IssuerId, ServiceId};
use crate::suggest;

/// Sources that one sensor can have.
const SOURCES_MAX: usize = 64;
/// Longest subject alternative name that is compared, bytes.
const SUBJECT_MAX: usize = 255;
const KEYS: [&str; 7] = ["listen", "certificate", "key", "client_ca", "max_body", "queue", "max_delay"];
const SOURCE_KEYS: [&str; 6] = ["name", "subject", "service", "issuers", "kids", "per_second"];

/// The `[push]` table; `None` where it is not given.
pub(super) fn push(root: &mut Section, services: &[Service], keys: &Keys, cx: &mut Context) -> Option<Push> {
    let given = root.has("push");
    let mut table = root.table(cx, "push", "a [push] table");
    if !given {
        // Only so that the keys are known.
        for key in KEYS {
            table.get(cx, key);
        }
        let mut source = table.table(cx, "source", "");
        for key in SOURCE_KEYS {
            source.get(cx, key);
        }
        return None;
    }
    let listen = listen(&mut table, cx);
    let tls = tls(&mut table, cx);
    let body = table.get(cx, "max_body").and_then(|item| scalar::size(&item, cx, 1 << 10..=16 << 20));
    let max_body = body.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(1 << 20);
    let queue = count(&mut table, cx, "queue", 65_536, 16..=1 << 24);
    let delays = Duration::from_secs(1)..=Duration::from_hours(24);
    let max_delay = scalar::duration_or(&mut table, cx, "max_delay", Duration::from_mins(2), delays);
    let sources = sources(&mut table, services, cx);
    let at = table.at;
    if keys.fingerprint.is_none() {
        let message = "without `keys.fingerprint` no source can know fingerprints, so all have to push raw credentials";
        cx.warn(at, message, "Name a key file, and give the key to the sources");
    }
    table.finish(cx);
    if sources.is_empty() && !cx.errors.iter().any(|error| error.message.contains("push.source")) {
        cx.warn(at, "no source may push anything", "Add a [[push.source]] table");
    }
    let (files, tls) = tls?;
    Some(Push { listen: listen?, tls, files, sources, max_body, queue, max_delay })
}

fn listen(table: &mut Section, cx: &mut Context) -> Option<SocketAddr> {
    let example = "an address with a port, such as \"192.0.2.7:9465\"";
    let text = table.need(cx, "listen", example).and_then(|item| item.text(cx, example))?;
    let address = text.value.parse().ok();
    if address.is_none() {
        let message = format!("{} is not an address with a port", quoted(text.value));
        cx.error(text.at, message, format!("Write {example}"));
    }
    address
}

/// The endpoint's TLS and the files that it was read from; `None` where one is missing or wrong.
fn tls(table: &mut Section, cx: &mut Context) -> Option<(PushFiles, PushTls)> {
    let mut named = |part: Part| {
        let example = format!("the path of a PEM file with {}", part.what());
        let text = table.need(cx, part.key(), &example).and_then(|item| item.text(cx, &example));
        text.map(|text| (cx.folder().join(text.value), text.at))
    };
    let named = Part::ALL.map(&mut named);
    let place = |part: Part| named.get(part as usize).and_then(Option::as_ref).map_or(table.at, |(_, at)| *at);
    let [certificate, key, client_ca] = named.each_ref().map(|file| file.as_ref().map(|(path, _)| path.clone()));
    let files = PushFiles { certificate: certificate?, key: key?, client_ca: client_ca? };
    match tls::read(&files) {
        Ok(tls) => Some((files, tls)),
        Err(mistakes) => {
            for mistake in mistakes {
                cx.error(place(mistake.part), mistake.message(), mistake.fix);
            }
            None
        }
    }
}

fn sources(table: &mut Section, services: &[Service], cx: &mut Context) -> Vec<PushSource> {
    let example = "one or more [[push.source]] tables";
    let items = table.get(cx, "source").map(|item| item.list(cx, example)).unwrap_or_default();
    if let Some(first) = items.get(SOURCES_MAX) {
        cx.error(first.at, format!("more than {SOURCES_MAX} `push.source` tables"), format!("Keep {SOURCES_MAX}"));
    }
    let mut known: Vec<PushSource> = Vec::new();
    for item in &items {
        let Some(section) = item.section(cx, example) else { continue };
        let at = section.at;
        let Some(source) = source(section, services, cx) else { continue };
        for other in &known {
            if other.name == source.name {
                let message = format!("two sources (`push.source`) are named {}", quoted(&source.name));
                cx.error(at, message, "Write another `name`");
            } else if other.subject == source.subject && other.service == source.service {
                let message = format!(
                    "the sources (`push.source`) {} and {} have the same subject and service",
                    quoted(&other.name),
                    quoted(&source.name)
                );
                cx.error(at, message, "Make them one source with the `issuers` of both");
            }
        }
        known.push(source);
    }
    known
}

fn source(mut table: Section, services: &[Service], cx: &mut Context) -> Option<PushSource> {
    let name = table.need(cx, "name", "`name = \"...\"`").and_then(|item| names::label(&item, cx));
    let subject = table.need(cx, "subject", SUBJECT).and_then(|item| subject(&item, cx));
    let service = table.need(cx, "service", "the name of a service").and_then(|item| service(&item, services, cx));
    let of = service.and_then(|id| services.get(usize::from(id.0)));
    let issuers = each(&mut table, "issuers", cx, |item, cx| issuer(item, of?, cx));
    if !table.has("issuers") {
        let message = "`push.source.issuers` is missing";
        cx.error(table.at, message, "Write the names of the issuers that it speaks for, such as `issuers = [\"...\"]`");
    }
    let kids = each(&mut table, "kids", cx, |item, cx| kid(item, of?, &issuers, cx));
    let rates = 1..=1_000_000;
    let per_second = table.get(cx, "per_second").and_then(|item| item.integer(cx, rates)).unwrap_or(1000);
    table.finish(cx);
    Some(PushSource {
        name: name?.value,
        subject: subject?,
        service: service?,
        issuers,
        kids,
        per_second: u32::try_from(per_second).unwrap_or(u32::MAX),
    })
}

const SUBJECT: &str = "a name in its client certificate: \"dns:sso.example\" or \"uri:spiffe://example/sso\"";

fn subject(item: &Item, cx: &mut Context) -> Option<PushSubject> {
    let text = item.text(cx, SUBJECT)?;
    let plain =
        |name: &str| !name.is_empty() && name.len() <= SUBJECT_MAX && name.bytes().all(|b| b.is_ascii_graphic());
    match text.value.split_once(':') {
        Some(("dns", name)) if plain(name) && !name.contains(['*', '/', ':']) => {
            Some(PushSubject::Dns(name.to_ascii_lowercase()))
        }
        Some(("uri", name)) if plain(name) && name.contains(':') => Some(PushSubject::Uri(name.to_owned())),
        _ => {
            let message = format!("{} names no certificate", quoted(text.value));
            cx.error(text.at, message, format!("Write {SUBJECT}"));
            None
        }
    }
}

fn service(item: &Item, services: &[Service], cx: &mut Context) -> Option<ServiceId> {
    let text = item.text(cx, "the name of a service")?;
    let index = services.iter().position(|service| service.name == text.value);
    if index.is_none() {
        let names: Vec<&str> = services.iter().map(|service| service.name.as_str()).collect();
        cx.error(text.at, format!("no service is named {}", quoted(text.value)), suggest::advice(text.value, &names));
    }
    index.and_then(|index| u16::try_from(index).ok()).map(ServiceId)
}

fn issuer(item: &Item, service: &Service, cx: &mut Context) -> Option<IssuerId> {
    let text = item.text(cx, "the name of an issuer of the service")?;
    let index = service.issuers.iter().position(|issuer| issuer.name == text.value);
    if index.is_none() {
        let names: Vec<&str> = service.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let message = format!("the service {} has no issuer {}", quoted(&service.name), quoted(text.value));
        cx.error(text.at, message, suggest::advice(text.value, &names));
    }
    let id = index.and_then(|index| u16::try_from(index).ok()).map(IssuerId)?;
    if id.0 >= PUSHED_ISSUERS {
        let message = format!("{} is not among the first {PUSHED_ISSUERS} issuers of its service", quoted(text.value));
        cx.error(text.at, message, "Put it further up: only of these the ledger can note who pushed what");
        return None;
    }
    Some(id)
}

/// A key that one of the issuers has, or could have.
fn kid(item: &Item, service: &Service, issuers: &[IssuerId], cx: &mut Context) -> Option<String> {
    let At { value, at } = item.text(cx, "a `kid`")?;
    let mut named = issuers.iter().filter_map(|id| service.issuers.get(usize::from(id.0)));
    let knows = |kids: &[super::model::Kid]| kids.is_empty() || kids.iter().any(|known| known.kid == value);
    if !issuers.is_empty() && !named.any(|issuer| issuer.jwt && knows(&issuer.kids)) {
        let message = format!("none of this source's issuers has the key {}", quoted(value));
        cx.error(at, message, "Register it under `kids` of the issuer, or name one that is registered");
        return None;
    }
    Some(value.to_owned())
}
