//! From a line to what the parser would have reported.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use sensor_ebpf::siphash::Key;
use sensor_ebpf::wire::{LINE_CAPTURE_MAX, ROUTES_MAX, VALUE_CAPTURE_MAX, anomaly, credential_flag, place, route_flag};

use super::credential::{Canonical, with_scheme};
use super::line::{Line, Pairs, Text};
use crate::capture::tables::{Tables, TablesError, mapped};
use crate::collect::routes::{Readings, Router};
use crate::collect::target::RequestLine;
use crate::collect::{Answer, Exchange, Shown};
use crate::config::model::{Config, Method, OutcomeRule, Route, Service};
use crate::diagnostic::quoted;
use crate::observation::ServiceId;
use crate::suggest;

/// Latest time that a line may have: where nanoseconds since 1970 end, with room to spare.
const LATEST_S: f64 = 1.0e10;

/// Who sent a request whose line does not say so (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// A line that means nothing with this configuration: what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub fix: String,
}

fn misfit(message: String, fix: &str) -> Misfit {
    Misfit { message, fix: fix.to_owned() }
}

/// Makes exchanges of lines. (No `Debug`: it holds the fingerprint key.)
pub struct Converter {
    config: Arc<Config>,
    tables: Tables,
    router: Router,
    readings: Readings,
    key: Key,
    canonical: Canonical,
    request_line: Vec<u8>,
}

impl Converter {
    /// For the services of `config`; credentials are fingerprinted under `key`.
    pub fn new(config: Arc<Config>, key: Key) -> Result<Self, TablesError> {
        Ok(Self {
            tables: Tables::new(&config, key)?,
            router: Router::new(&config),
            readings: Readings::default(),
            key,
            canonical: Canonical::default(),
            request_line: Vec::new(),
            config,
        })
    }

    /// Hands the exchange that `line` tells of to `take`.
    pub fn convert<T>(&mut self, line: &Line<'_>, take: impl FnOnce(&Exchange<'_>) -> T) -> Result<T, Misfit> {
        let config = Arc::clone(&self.config);
        let at_ns = time(line)?;
        let (id, service) = service_of(&config, line)?;
        let client = client(line)?;
        let Some(path) = &line.path else {
            return Err(misfit("the line has no `path`".to_owned(), "Write the target, such as \"/members/17\""));
        };
        let has_body = line.request_json.is_some() || line.request_form.is_some();
        let method = line.method.as_ref().map_or(if has_body { "POST" } else { "GET" }, |text| &text.0);
        let mut shown = Vec::new();
        self.request_line(method, path.bytes(), service, &mut shown);
        let (route, flags) = self.route(id, service, method);
        request(&mut self.canonical, self.key, service, line, &mut shown);
        let mut handed = Vec::new();
        hand_out(&mut self.canonical, self.key, service, line, &mut handed);
        let form = line.request_form.as_ref().map(Text::bytes);
        let body = line.request_json.map(|body| body.get().as_bytes()).or(form);
        let cut = self.request_line.len() > LINE_CAPTURE_MAX;
        let exchange = Exchange {
            at_ns,
            service: id,
            client: mapped(client),
            method: Method::new(method).id,
            line: self.request_line.get(..LINE_CAPTURE_MAX).unwrap_or(&self.request_line),
            host: line.host.as_ref().map_or(&[][..], |text| clipped(text.bytes())),
            anomalies: if cut { anomaly::LINE_CUT } else { 0 },
            shown: &shown,
            body: body.filter(|_| flags & route_flag::TEE_REQUEST != 0),
            answer: answer(line, at_ns, route, flags, &handed),
        };
        Ok(take(&exchange))
    }

    /// Writes the request line; what its target carries goes to `shown`.
    fn request_line<'a>(&mut self, method: &str, path: &'a [u8], service: &Service, shown: &mut Vec<Shown<'a>>) {
        let Self { request_line: out, canonical, key, .. } = self;
        out.clear();
        out.extend_from_slice(method.as_bytes());
        out.push(b' ');
        cut_target(path, service, out, |index, value, cut_at| {
            if let Some(mut one) = canonical.shown(*key, (place::QUERY, index), value) {
                one.credential.cut_at = u16::try_from(cut_at).unwrap_or(u16::MAX);
                shown.push(one);
            }
        });
        out.extend_from_slice(b" HTTP/1.1");
    }

    /// The route that the request line takes, and its flags in the kernel.
    fn route<'s>(&mut self, id: u16, service: &'s Service, method: &str) -> (Option<&'s Route>, u8) {
        let target = RequestLine::new(&self.request_line, false).split();
        let taken = self.router.take(ServiceId(id), method.as_bytes(), &target, &mut self.readings);
        let Some(index) = taken.map(|taken| usize::from(taken.route.0)) else { return (None, 0) };
        let row = u32::try_from(usize::from(id) * ROUTES_MAX + index).unwrap_or(u32::MAX);
        (service.routes.get(index), self.tables.routes.get(&row).map_or(0, |compiled| compiled.flags))
    }
}

fn client(line: &Line<'_>) -> Result<IpAddr, Misfit> {
    let Some(text) = &line.client else { return Ok(NOBODY) };
    text.0
        .parse()
        .map_err(|_| misfit(format!("the client {} is no address", quoted(&text.0)), "Write an IPv4 or IPv6 address"))
}

fn service_of<'c>(config: &'c Config, line: &Line<'_>) -> Result<(u16, &'c Service), Misfit> {
    let mut services = (0u16..).zip(&config.services);
    let found = match &line.service {
        Some(name) => services.find(|(_, service)| service.name == *name.0),
        None => services.next().filter(|_| config.services.len() == 1),
    };
    found.ok_or_else(|| {
        let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        let (message, name) = match &line.service {
            Some(name) => (format!("the configuration has no service {}", quoted(&name.0)), &*name.0),
            None => ("the line names no `service`".to_owned(), ""),
        };
        Misfit { message, fix: suggest::advice(name, &names) }
    })
}

/// The response of `line`, on a route with these `flags`.
fn answer<'a>(
    line: &'a Line<'_>,
    at_ns: u64,
    route: Option<&'a Route>,
    flags: u8,
    handed: &'a [Shown<'a>],
) -> Option<Answer<'a>> {
    let status = line.status.filter(|status| *status != 0)?;
    let body = line.response_json.map(|body| body.get().as_bytes());
    let bytes = line.bytes.or_else(|| body.map(|body| body.len() as u64));
    let teed = flags & route_flag::TEE_RESPONSE != 0 && bytes != Some(0);
    Some(Answer {
        at_ns,
        status,
        bytes,
        content_type: match &line.content_type {
            Some(text) => clipped(text.bytes()),
            None => assumed_type(route, status, bytes).as_bytes(),
        },
        location: line.location.as_ref().map_or(&[][..], |text| clipped(text.bytes())),
        handed,
        body: if teed { Some(body.unwrap_or_default()) } else { None },
    })
}

fn time(line: &Line<'_>) -> Result<u64, Misfit> {
    let Some(t) = line.t else {
        return Err(misfit("the line has no `t`".to_owned(), "Write when the request came, seconds since 1970"));
    };
    if !(0.0..LATEST_S).contains(&t) {
        return Err(misfit(format!("`t` is {t}"), "Write seconds since 1970, with a fraction; not milliseconds"));
    }
    // A double holds microseconds of our time, no more.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 10¹⁶")]
    let micros = (t * 1e6).round() as u64;
    Ok(micros * 1000)
}

/// As much of a value as the parser keeps.
fn clipped(value: &[u8]) -> &[u8] {
    value.get(..VALUE_CAPTURE_MAX).unwrap_or(value)
}

/// Writes `target` to `out` without the values of credential parameters; hands each of those, with its place in `out`, to
/// `found`.
fn cut_target<'a>(target: &'a [u8], service: &Service, out: &mut Vec<u8>, mut found: impl FnMut(u8, &'a [u8], usize)) {
    let (path, query) = match target.iter().position(|byte| *byte == b'?') {
        Some(at) if !service.credentials.query.is_empty() => target.split_at_checked(at + 1).unwrap_or((target, &[])),
        _ => (target, &[][..]),
    };
    out.extend_from_slice(path);
    let (query, fragment) = match query.iter().position(|byte| *byte == b'#') {
        Some(at) => query.split_at_checked(at).unwrap_or((query, &[])),
        None => (query, &[][..]),
    };
    for (number, pair) in query.split(|byte| *byte == b'&').enumerate() {
        if number > 0 {
            out.push(b'&');
        }
        let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at_checked(at).unwrap_or((pair, &[]));
        let index = service.credentials.query.iter().position(|known| known.as_bytes() == name);
        out.extend_from_slice(name);
        match (index, value.split_first()) {
            (Some(index), Some((_, value))) => {
                out.push(b'=');
                found(u8::try_from(index).unwrap_or(u8::MAX), value, out.len());
            }
            _ => out.extend_from_slice(value),
        }
    }
    out.extend_from_slice(fragment);
}

/// What the request's headers carry.
fn request<'a>(
    canonical: &mut Canonical,
    key: Key,
    service: &'a Service,
    line: &'a Line<'_>,
    out: &mut Vec<Shown<'a>>,
) {
    let places = &service.credentials;
    let shown = &line.credentials;
    if places.authorization {
        if let Some(text) = &shown.bearer {
            out.extend(canonical.shown(key, (place::AUTHORIZATION, 0), text.bytes()));
        }
        if let Some(text) = &shown.authorization {
            let (scheme, value) = with_scheme(text.bytes(), false);
            let one = canonical.shown(key, (place::AUTHORIZATION, 0), value);
            out.extend(one.map(|mut one| {
                one.credential.scheme = scheme;
                one
            }));
        }
    }
    for (index, value) in named(&places.cookies, &shown.cookies, false) {
        out.extend(canonical.shown(key, (place::COOKIE, index), value.unwrap_or_default()));
    }
    for (index, value) in named(&places.headers, &shown.headers, true) {
        let (_, value) = with_scheme(value.unwrap_or_default(), true);
        out.extend(canonical.shown(key, (place::HEADER, index), value));
    }
}

/// What the response's head hands out.
fn hand_out<'a>(
    canonical: &mut Canonical,
    key: Key,
    service: &'a Service,
    line: &'a Line<'_>,
    out: &mut Vec<Shown<'a>>,
) {
    let places = &service.credentials;
    for (index, value) in named(&places.cookies, &line.set_cookies, false) {
        match value {
            Some(value) => out.extend(canonical.shown(key, (place::SET_COOKIE, index), value).map(|mut one| {
                // Claims are looked at where a credential is presented.
                one.credential.flags &= !credential_flag::CLAIMS;
                one
            })),
            None => out.extend(canonical.shown(key, (place::SET_COOKIE, index), b"deleted").map(|mut one| {
                one.credential.flags |= credential_flag::DELETED;
                one
            })),
        }
    }
    for (index, value) in named(&places.response_headers, &line.response_headers, true) {
        let (_, value) = with_scheme(value.unwrap_or_default(), true);
        out.extend(canonical.shown(key, (place::RESPONSE_HEADER, index), value));
    }
}

/// Those of `pairs` whose name is one of `names`, with its index.
fn named<'a>(
    names: &'a [String],
    pairs: &'a Pairs<'_>,
    fold: bool,
) -> impl Iterator<Item = (u8, Option<&'a [u8]>)> + use<'a> {
    pairs.iter().filter_map(move |(name, value)| {
        let same = |known: &String| {
            if fold { known.eq_ignore_ascii_case(&name.0) } else { known.as_bytes() == name.bytes() }
        };
        let index = u8::try_from(names.iter().position(same)?).ok()?;
        Some((index, value.as_ref().map(Text::bytes)))
    })
}

/// A trace that says nothing of content types must not make misses of reads: the type that the first predicate asks for
/// whose other parts hold.
fn assumed_type(route: Option<&Route>, status: u16, bytes: Option<u64>) -> &str {
    let fits = |rule: &&OutcomeRule| {
        let status = rule.status.is_empty() || rule.status.iter().any(|range| range.contains(&status));
        status && rule.min_length.is_none_or(|least| bytes.is_none_or(|bytes| bytes >= least))
    };
    let rules = route.map_or(&[][..], |route| &route.outcomes);
    rules.iter().find(fits).and_then(|rule| rule.content_type.as_deref()).unwrap_or("application/json")
}
