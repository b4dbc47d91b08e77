//! The push endpoint: where it listens, its TLS, and who may tell of whose issuances.
//!
//! Certificates and the key are read here, so that a mistake in them is told with its line before anything starts; the
//! key flows on only inside the TLS configuration.

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use super::bounds::count;
use super::issuance::each;
use super::keys;
use super::model::{Keys, PUSHED_ISSUERS, Push, PushSource, PushSubject, PushTls, Service};
use super::names;
use super::reader::{At, Context, Item, Section};
use super::scalar;
use crate::diagnostic::quoted;
use crate::observation::{IssuerId, ServiceId};
use crate::suggest;

/// Sources that one sensor can have.
const SOURCES_MAX: usize = 64;
/// Largest file of certificates or keys, bytes.
const PEM_MAX: usize = 1 << 20;
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
    Some(Push { listen: listen?, tls: tls?, sources, max_body, queue, max_delay })
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

/// A file that the table names.
struct Named {
    path: PathBuf,
    at: usize,
}

impl Named {
    fn get(table: &mut Section, key: &'static str, what: &str, cx: &mut Context) -> Option<Self> {
        let example = format!("the path of a PEM file with {what}");
        let text = table.need(cx, key, &example).and_then(|item| item.text(cx, &example))?;
        Some(Self { path: cx.folder().join(text.value), at: text.at })
    }

    fn refuse(&self, what: &str, fix: &str, cx: &mut Context) {
        cx.error(self.at, format!("the file {} {what}", quoted(&self.path.to_string_lossy())), fix);
    }

    /// All certificates of the file; none: it was refused.
    fn certificates(&self, cx: &mut Context) -> Vec<CertificateDer<'static>> {
        let mut bytes = Vec::new();
        let read = File::open(&self.path).and_then(|file| file.take(PEM_MAX as u64).read_to_end(&mut bytes));
        if let Err(error) = read {
            self.refuse(&format!("cannot be read ({error})"), "Name a readable PEM file", cx);
            return Vec::new();
        }
        let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
        let all = all.unwrap_or_default();
        if all.is_empty() {
            self.refuse("holds no certificate", "Name a PEM file with BEGIN CERTIFICATE", cx);
        }
        all
    }

    fn private_key(&self, cx: &mut Context) -> Option<PrivateKeyDer<'static>> {
        const FIX: &str = "Name a PEM file with BEGIN PRIVATE KEY, mode 0600";
        let bytes = match keys::private_file(&self.path, PEM_MAX) {
            Ok(bytes) => bytes,
            Err(mistake) => {
                let (what, fix) = mistake.words(FIX);
                self.refuse(&what, fix, cx);
                return None;
            }
        };
        let key = PrivateKeyDer::from_pem_slice(&bytes).ok();
        if key.is_none() {
            self.refuse("holds no private key", FIX, cx);
        }
        key
    }
}

/// TLS 1.3 only: client certificates stay hidden from who listens, and there is one version to follow.
fn tls(table: &mut Section, cx: &mut Context) -> Option<PushTls> {
    let certificate = Named::get(table, "certificate", "the endpoint's certificate chain", cx);
    let key = Named::get(table, "key", "its private key", cx);
    let client_ca = Named::get(table, "client_ca", "the CA of client certificates", cx);
    let chain = certificate.as_ref().map(|file| file.certificates(cx));
    let private = key.as_ref().and_then(|file| file.private_key(cx));
    let cas = client_ca.as_ref().map(|file| file.certificates(cx));
    let (chain, private, cas) = (chain?, private?, cas?);
    if chain.is_empty() || cas.is_empty() {
        return None;
    }
    let mut roots = RootCertStore::empty();
    for ca in cas {
        if let (Err(error), Some(file)) = (roots.add(ca), &client_ca) {
            file.refuse(&format!("holds a certificate that is no CA ({error})"), "Name a PEM file with CAs only", cx);
            return None;
        }
    }
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| error.to_string());
    let built = verifier.and_then(|verifier| {
        let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]);
        let builder = builder.map_err(|error| error.to_string())?;
        let built = builder.with_client_cert_verifier(verifier).with_single_cert(chain, private);
        built.map_err(|error| error.to_string())
    });
    match (built, certificate) {
        (Ok(config), _) => Some(PushTls(Arc::new(config))),
        (Err(error), Some(file)) => {
            file.refuse(&format!("does not go with `push.key` ({error})"), "Name a certificate and its own key", cx);
            None
        }
        (Err(_), None) => None,
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
