//! Services: listen addresses and credential places; routes and issuers are read by their own modules.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use sensor_ebpf::wire::{COOKIES_MAX, HEADERS_MAX, QUERY_MAX, ROUTES_MAX, SERVICES_MAX};

use super::approvals::Approvals;
use super::canaries;
use super::issuance::each;
use super::issuer;
use super::model::{Credentials, Issuer, Listen, Observed, Pieces, Place, Service};
use super::names;
use super::reader::{At, Context, Item, Section};
use super::route;
use crate::diagnostic::quoted;
use crate::observation::RouteClass;

/// Issuers that one service may have.
pub(super) const ISSUERS_MAX: usize = 64;

/// What the services that were read so far have taken: byte offsets by name and by listen address.
#[derive(Default)]
struct Taken {
    names: HashMap<String, usize>,
    listens: HashMap<(Option<IpAddr>, u16), usize>,
}

/// All services of the file.
pub(super) fn services(root: &mut Section, approvals: &mut Approvals, cx: &mut Context) -> Vec<Service> {
    let items = tables(root, "service", "one or more [[service]] tables", SERVICES_MAX, cx);
    if items.is_empty() && !root.has("service") {
        cx.warn(0, "no service is declared, so nothing is watched", "Add a [[service]] table");
    }
    let mut taken = Taken::default();
    items.into_iter().filter_map(|table| service(table, &mut taken, approvals, cx)).collect()
}

/// The tables of an array of tables, at most `max`.
fn tables<'t>(
    section: &mut Section<'t>,
    key: &'static str,
    example: &str,
    max: usize,
    cx: &mut Context,
) -> Vec<Section<'t>> {
    let items = section.get(cx, key).map(|item| item.list(cx, example)).unwrap_or_default();
    if let Some(first) = items.get(max) {
        cx.error(first.at, format!("more than {max} `{key}` tables"), format!("Keep at most {max}"));
    }
    items.iter().filter_map(|item| item.section(cx, example)).collect()
}

fn service(mut table: Section, taken: &mut Taken, approvals: &mut Approvals, cx: &mut Context) -> Option<Service> {
    let name = table.need(cx, "name", "`name = \"...\"`").and_then(|item| names::label(&item, cx));
    if let Some(name) = &name {
        taken.claim_name(name, cx);
    }
    let listen = listens(&mut table, taken, cx);
    table.refuse_unless(cx, "tls", false, "reading TLS through the TLS library");
    table.refuse_unless(cx, "http2", false, "reading HTTP/2");
    table.refuse_unless(cx, "fold_path_case", false, "matching paths without regard to letter case");
    let rolling = table.get(cx, "rolling").and_then(|item| item.boolean(cx)).unwrap_or(false);
    let proxy_protocol = table.get(cx, "proxy_protocol").and_then(|item| item.boolean(cx)).unwrap_or(false);
    let mut credentials = credentials(&mut table, cx);
    let mut routes_taken = route::Taken::default();
    let routes: Vec<_> = tables(&mut table, "route", "one or more [[service.route]] tables", ROUTES_MAX, cx)
        .into_iter()
        .filter_map(|section| route::route(section, &mut credentials, &mut routes_taken, cx))
        .collect();
    let canaries = canaries::canaries(&mut table, cx);
    let mut known = issuer::Known::new();
    for section in tables(&mut table, "issuer", "one or more [[service.issuer]] tables", ISSUERS_MAX, cx) {
        let mut approved = |issuer: &str| approvals.take(&name.as_ref()?.value, issuer);
        known.extend(issuer::issuer(section, &credentials, &known, &mut approved, cx));
    }
    let mut issuers: Vec<_> = known.into_iter().map(|(_, issuer)| issuer).collect();
    if rolling {
        roll(&mut issuers, &credentials, table.key_at("rolling"), cx);
    }
    if issuers.is_empty() && !table.has("issuer") {
        let message = "this service declares no issuer: all its credentials are `unverifiable`";
        cx.warn(table.at, message, "Add a [[service.issuer]] table");
    }
    let has_login = routes.iter().any(|route| route.class == RouteClass::Login);
    if let Some(issuer) = issuers.iter().find(|issuer| issuer.observed == Observed::All).filter(|_| !has_login) {
        let message =
            format!("the issuer {} is `observed = \"all\"`, but this service has no login route", quoted(&issuer.name));
        cx.warn(table.at, message, "Add the routes whose responses hand its credentials out, of class `login`");
    }
    table.finish(cx);
    Some(Service { name: name?.value, listen, proxy_protocol, credentials, routes, issuers, canaries })
}

/// Cookies of a rolling service change on every response: each issuer renews all of its own.
fn roll(issuers: &mut [Issuer], credentials: &Credentials, at: usize, cx: &mut Context) {
    let parts: Vec<u8> = credentials.pieces.iter().flat_map(|pieces| pieces.cookies.iter().skip(1).copied()).collect();
    let whole = (0..credentials.cookies.len()).filter_map(|index| u8::try_from(index).ok());
    let whole: Vec<u8> = whole.filter(|index| !parts.contains(index)).collect();
    for issuer in issuers.iter_mut().filter(|issuer| issuer.renews.is_empty()) {
        let stands = |index: &u8| issuer.places.is_empty() || issuer.places.contains(&Place::Cookie(*index));
        issuer.renews = whole.iter().copied().filter(stands).collect();
    }
    if issuers.iter().all(|issuer| issuer.renews.is_empty()) {
        let message = "`rolling` has no effect: no cookie of this service belongs to an issuer";
        cx.warn(at, message, "Declare the session cookie and its issuer, or remove `rolling`");
    }
}

fn listens(table: &mut Section, taken: &mut Taken, cx: &mut Context) -> Vec<Listen> {
    let example = "`listen = [80, \"192.0.2.7:8080\", \"[2001:db8::7]:8080\"]`";
    let items = table.need(cx, "listen", example).map(|item| item.one_or_list()).unwrap_or_default();
    if items.is_empty() && table.has("listen") {
        cx.error(table.key_at("listen"), "`listen` is empty", format!("Write {example}"));
    }
    let mut listens = Vec::new();
    for item in &items {
        let Some(listen) = listen(item, cx) else { continue };
        if let Some(first) = taken.listens.insert((listen.address, listen.port), item.at) {
            let message = format!("{} is already listened on by a service", shown(listen));
            cx.error(item.at, message, format!("Remove one of the two; the other stands in line {}", cx.line(first)));
            continue;
        }
        listens.push(listen);
    }
    listens
}

/// `80`, `"*:80"`, `"192.0.2.7:80"`, `"[2001:db8::7]:80"`. The unspecified address means every address.
fn listen(item: &Item, cx: &mut Context) -> Option<Listen> {
    let fix = "Write a port such as 80 (every address of this host), or \"192.0.2.7:80\" or \"[2001:db8::7]:80\"";
    let Some(text) = item.as_text() else {
        let port = item.as_integer().and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        if port.is_none() {
            cx.error(item.at, format!("{} is neither a port (1 to 65535) nor an address with one", item.name()), fix);
        }
        return port.map(|port| Listen { address: None, port });
    };
    let parsed = match text.strip_prefix("*:") {
        Some(port) => port.parse().ok().map(|port| Listen { address: None, port }),
        None => text.parse::<SocketAddr>().ok().map(|socket| {
            let address = Some(socket.ip().to_canonical()).filter(|address| !address.is_unspecified());
            Listen { address, port: socket.port() }
        }),
    };
    let usable = parsed.filter(|listen| listen.port != 0);
    if usable.is_none() {
        cx.error(item.at, format!("{} is not an address with a port", quoted(text)), fix);
    }
    usable
}

/// A listen address as the configuration writes it.
pub(crate) fn shown(listen: Listen) -> String {
    match listen.address {
        Some(address) => SocketAddr::new(address, listen.port).to_string(),
        None => format!("*:{}", listen.port),
    }
}

fn credentials(service: &mut Section, cx: &mut Context) -> Credentials {
    let mut table = service.table(cx, "credentials", "a [service.credentials] table");
    let authorization = table.get(cx, "authorization").and_then(|item| item.boolean(cx)).unwrap_or(true);
    let (cookies, pieces) = spread(each(&mut table, "cookies", cx, cookie));
    let example = "a name in double quotes";
    let headers = each(&mut table, "headers", cx, |item, cx| names::header(item.text(cx, example)?, cx));
    let query = each(&mut table, "query", cx, |item, cx| names::query(item.text(cx, example)?, cx));
    for (key, count, max) in [
        ("cookies", cookies.len(), COOKIES_MAX),
        ("headers", headers.len(), HEADERS_MAX),
        ("query", query.len(), QUERY_MAX),
    ] {
        if count > max {
            let message = format!("`service.credentials.{key}` has {count} names, and a service can have {max}");
            cx.error(table.key_at(key), message, format!("Keep the {max} that requests authenticate with"));
        }
    }
    if !authorization && cookies.is_empty() && headers.is_empty() && query.is_empty() {
        let message = "this service has no credential place: every request counts as carrying none";
        cx.warn(table.at, message, "Write `authorization = true`, or name cookies, headers or query parameters");
    }
    table.finish(cx);
    Credentials { authorization, cookies, headers, query, response_headers: Vec::new(), pieces }
}

/// A cookie by name, or as a table that says more about it.
fn cookie(item: &Item, cx: &mut Context) -> Option<Cookie> {
    if !item.is_table() {
        let name = names::cookie(item.text(cx, "a cookie name in double quotes")?, cx)?;
        return Some(Cookie { name, pieces: Vec::new() });
    }
    let mut table = item.section(cx, "a table")?;
    let name = table
        .need(cx, "name", "`name = \"...\"`")
        .and_then(|item| item.text(cx, "a cookie name in double quotes"))
        .and_then(|text| names::cookie(text, cx));
    let example = "what follows the name in the names of its pieces, in their order, such as [\".0\", \".1\"]";
    let pieces = each(&mut table, "chunks", cx, |item, cx| {
        let text = item.text(cx, example)?;
        let name = At { value: &*format!("{}{}", name.as_deref()?, text.value), at: text.at };
        if text.value.is_empty() {
            cx.error(text.at, "a piece with the name of the whole cookie", format!("Write {example}"));
            return None;
        }
        names::cookie(name, cx)
    });
    table.finish(cx);
    Some(Cookie { name: name?, pieces })
}

/// A declared cookie.
#[derive(PartialEq)]
struct Cookie {
    name: String,
    /// Names of its pieces, in their order.
    pieces: Vec<String>,
}

/// The names of all cookies that are looked for, and which of them are pieces of one credential.
fn spread(cookies: Vec<Cookie>) -> (Vec<String>, Vec<Pieces>) {
    let (mut names, mut pieces) = (Vec::new(), Vec::new());
    for cookie in cookies {
        let first = names.len();
        names.push(cookie.name);
        if !cookie.pieces.is_empty() {
            names.extend(cookie.pieces);
            let indexes = (first..names.len()).map(|index| u8::try_from(index).unwrap_or(u8::MAX));
            pieces.push(Pieces { cookies: indexes.collect() });
        }
    }
    (names, pieces)
}

impl Taken {
    fn claim_name(&mut self, name: &At<String>, cx: &mut Context) {
        if let Some(first) = self.names.insert(name.value.clone(), name.at) {
            let message = format!("two services are named {}", quoted(&name.value));
            cx.error(name.at, message, format!("Write another `name`; line {} has this one", cx.line(first)));
        }
    }
}
