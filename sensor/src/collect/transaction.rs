//! The view of one transaction that `--transactions` prints, borrowed from the records it was made of.

use std::fmt::Write as _;
use std::net::IpAddr;

use sensor_ebpf::wire::{place, scheme, version};

use super::pending::Judged;
use crate::anomaly;
use crate::config::model::{Credentials, Service};
use crate::observation::{AccountHash, Fingerprint, Instant, Outcome, Provenance, RouteClass, RouteId, ServiceId};

/// One HTTP transaction: a request with its response, either of which may be unknown.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// When the request head (without one: the response head) was complete.
    pub at: Instant,
    /// The requester.
    pub source: (IpAddr, u16),
    /// The server.
    pub destination: (IpAddr, u16),
    /// Index of the service.
    pub service_id: ServiceId,
    /// The service, if one is declared.
    pub service: Option<&'a Service>,
    /// Method as on the wire.
    pub method: Option<&'a [u8]>,
    /// `Host`, or the authority of an absolute-form target.
    pub host: Option<&'a [u8]>,
    /// Target as on the wire, credential query values cut out.
    pub target: Option<&'a [u8]>,
    /// Offset of the target within the request line, to which `Credential::cut_at` refers.
    pub target_at: usize,
    /// One of [`version`].
    pub version: u8,
    /// Status code.
    pub status: Option<u16>,
    /// All credentials of the request with their verdicts.
    pub credentials: &'a [Judged],
    /// As in the observation.
    pub provenance: Provenance,
    /// The route, if one matched.
    pub route: Option<RouteId>,
    /// As in the observation.
    pub class: RouteClass,
    /// As in the observation; `None` when there was no request.
    pub outcome: Option<Outcome>,
    /// As in the observation.
    pub account: Option<AccountHash>,
    /// As in the observation.
    pub client: IpAddr,
    /// As in the observation.
    pub anomalies: u32,
}

impl Transaction<'_> {
    /// Name of the route.
    pub fn route_name(&self) -> Option<&str> {
        let route = self.service?.routes.get(usize::from(self.route?.0))?;
        Some(&route.name)
    }

    /// One JSON object without a line end.
    pub fn to_json_line(&self) -> String {
        let mut line = String::with_capacity(512);
        self.write_json_line(&mut line);
        line
    }

    /// Appends one JSON object, without a line end, to `out`.
    pub fn write_json_line(&self, out: &mut String) {
        let seconds = self.at.unix_ns / 1_000_000_000;
        let fraction = self.at.unix_ns % 1_000_000_000;
        // Writing to a string cannot fail.
        let _ = write!(out, "{{\"ts\":{seconds}.{fraction:09}");
        let _ = write!(out, ",\"src\":\"{}\",\"sport\":{}", self.source.0, self.source.1);
        let _ = write!(out, ",\"dst\":\"{}\",\"dport\":{}", self.destination.0, self.destination.1);
        field(out, "service", self.service.map(|service| service.name.as_bytes()));
        field(out, "method", self.method);
        field(out, "host", self.host);
        out.push_str(",\"uri\":");
        self.write_uri(out);
        field(out, "version", version_text(self.version).map(str::as_bytes));
        match self.status {
            Some(status) => drop(write!(out, ",\"status\":{status}")),
            None => out.push_str(",\"status\":null"),
        }
        out.push_str(",\"credentials\":[");
        for (index, judged) in self.credentials.iter().enumerate() {
            out.push_str(if index == 0 { "{" } else { ",{" });
            self.write_credential(judged, out);
            out.push('}');
        }
        out.push(']');
        let asked = self.method.is_some();
        field(out, "provenance", asked.then(|| self.provenance.label().as_bytes()));
        field(out, "route", self.route_name().map(str::as_bytes));
        field(out, "class", asked.then(|| self.class.label().as_bytes()));
        field(out, "outcome", self.outcome.map(|outcome| outcome.label().as_bytes()));
        match self.account {
            Some(account) => drop(write!(out, ",\"account\":\"{account}\"")),
            None => out.push_str(",\"account\":null"),
        }
        let _ = write!(out, ",\"client\":\"{}\",\"anomalies\":[", self.client);
        for (index, name) in anomaly::names(self.anomalies).enumerate() {
            let _ = write!(out, "{}\"{name}\"", if index == 0 { "" } else { "," });
        }
        out.push_str("]}");
    }

    /// The target with each query credential's fingerprint where its value stood.
    fn write_uri(&self, out: &mut String) {
        let Some(target) = self.target else {
            out.push_str("null");
            return;
        };
        // One reading for the whole target: UTF-8 if all of it is, else Latin-1.
        let utf8 = std::str::from_utf8(target).is_ok();
        out.push('"');
        let (mut done, mut from) = (0, 0);
        // At most eight, so looking for the next one each time costs less than sorting. Two values are never cut at
        // one place: a name stands between them.
        while let Some((at, fingerprint)) = self.next_cut(target, from) {
            escape(target.get(done..at).unwrap_or_default(), utf8, out);
            let _ = write!(out, "{fingerprint}");
            (done, from) = (at, at + 1);
        }
        escape(target.get(done..).unwrap_or_default(), utf8, out);
        out.push('"');
    }

    /// The first cut at or after `from`, as offset within the target.
    fn next_cut(&self, target: &[u8], from: usize) -> Option<(usize, Fingerprint)> {
        self.credentials
            .iter()
            .filter(|judged| judged.credential.place == place::QUERY)
            .filter_map(|judged| {
                let at = usize::from(judged.credential.cut_at).checked_sub(self.target_at)?;
                (at >= from && at <= target.len()).then_some((at, Fingerprint(judged.credential.fingerprint)))
            })
            .min_by_key(|(at, _)| *at)
    }

    fn write_credential(&self, judged: &Judged, out: &mut String) {
        let credential = &judged.credential;
        let names = self.service.map(|service| &service.credentials);
        let labelled = |word: &str, list: fn(&Credentials) -> &Vec<String>| {
            let name = names.and_then(|names| list(names).get(usize::from(credential.index)));
            name.map_or_else(|| word.to_owned(), |name| format!("{word}:{name}"))
        };
        let kind = match credential.place {
            place::COOKIE => labelled("cookie", |names| &names.cookies),
            place::HEADER => labelled("header", |names| &names.headers),
            place::QUERY => labelled("query", |names| &names.query),
            place::BODY => "body".to_owned(),
            _ => scheme_word(credential.scheme).to_owned(),
        };
        out.push_str("\"kind\":\"");
        escape(kind.as_bytes(), true, out);
        let fingerprint = Fingerprint(credential.fingerprint);
        let verdict = &judged.verdict;
        let _ = write!(
            out,
            "\",\"fingerprint\":\"{fingerprint}\",\"provenance\":\"{}\",\"validity\":\"{}\"",
            verdict.provenance, verdict.validity
        );
    }
}

/// The word for an `Authorization` credential.
fn scheme_word(scheme: u8) -> &'static str {
    match scheme {
        scheme::BEARER => "bearer",
        scheme::BASIC => "basic",
        scheme::DIGEST => "digest",
        scheme::NTLM => "ntlm",
        scheme::NEGOTIATE => "negotiate",
        scheme::TOKEN => "token",
        scheme::JWT => "jwt",
        scheme::DPOP => "dpop",
        _ => "authorization",
    }
}

fn version_text(version: u8) -> Option<&'static str> {
    match version {
        version::HTTP_11 => Some("1.1"),
        version::HTTP_10 => Some("1.0"),
        version::HTTP_09 => Some("0.9"),
        _ => None,
    }
}

fn field(out: &mut String, name: &str, value: Option<&[u8]>) {
    let _ = write!(out, ",\"{name}\":");
    match value {
        Some(bytes) => {
            out.push('"');
            escape(bytes, std::str::from_utf8(bytes).is_ok(), out);
            out.push('"');
        }
        None => out.push_str("null"),
    }
}

/// Appends `bytes` as the inside of a JSON string: as UTF-8, or each byte as its Latin-1 character.
fn escape(bytes: &[u8], utf8: bool, out: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(text) if utf8 => text.chars().for_each(|character| escape_one(character, out)),
        _ => bytes.iter().for_each(|byte| escape_one(char::from(*byte), out)),
    }
}

fn escape_one(character: char, out: &mut String) {
    match character {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        control if u32::from(control) < 0x20 || control == '\u{7f}' => {
            let _ = write!(out, "\\u{:04x}", u32::from(control));
        }
        other => out.push(other),
    }
}
