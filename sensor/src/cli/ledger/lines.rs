//! Issuances as lines of JSON: what import reads and export writes.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Write};
use std::path::PathBuf;

use sensor_ebpf::siphash::{Key, hash128};
use serde::{Deserialize, Serialize};

use crate::collect::Keys;
use crate::config::model::Config;
use crate::diagnostic::{Diagnostic, quoted};
use crate::ledger::Archived;
use crate::observation::{AccountHash, Fingerprint, IssuerId, Provenance, ServiceId};
use crate::suggest;

/// Mistakes that are told before giving up.
const MISTAKES: usize = 50;
/// Longest line of JSON, bytes.
const LINE_MAX: u64 = 64 << 10;
/// What a line looks like.
const EXAMPLE: &str = r#"{"service":"shop","fingerprint":"0123456789abcdef0123456789abcdef","expires":1800000000}"#;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    service: Cow<'a, str>,
    #[serde(borrow)]
    fingerprint: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Cow<'a, str>>,
    /// The account's hash, as export writes it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    account: Option<Cow<'a, str>>,
    /// The account itself, to be hashed.
    #[serde(borrow, default, skip_serializing)]
    account_id: Option<Cow<'a, str>>,
    expires: Time<'a>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    provenance: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    used: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    ended: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Time<'a> {
    Seconds(u64),
    #[serde(borrow)]
    Text(Cow<'a, str>),
}

/// What is wrong with a value, and what to write.
pub(super) type Mistake = (String, String);

/// Reading for a configuration.
pub(super) struct Reading<'a> {
    config: &'a Config,
    pub(super) fingerprint: Key,
    account: Key,
    name: PathBuf,
    mistakes: Vec<Diagnostic>,
}

impl<'a> Reading<'a> {
    pub(super) fn new(config: &'a Config, keys: &Keys, name: PathBuf) -> Self {
        Self { config, fingerprint: keys.fingerprint, account: keys.account, name, mistakes: Vec::new() }
    }

    /// All issuances of `input`, or all mistakes.
    pub(super) fn lines(mut self, input: File) -> io::Result<Result<Vec<Archived>, Vec<Diagnostic>>> {
        let mut input = BufReader::new(input);
        let mut issuances = Vec::new();
        let mut line = Vec::new();
        let mut number = 0;
        loop {
            line.clear();
            let read = io::Read::take(&mut input, LINE_MAX).read_until(b'\n', &mut line)?;
            if read == 0 || self.is_enough() {
                return Ok(self.done(issuances));
            }
            number += 1;
            if line.len() as u64 == LINE_MAX {
                let message = format!("the line is longer than {LINE_MAX} bytes");
                self.mistake(number, 1, (message, format!("Write one issuance a line: {EXAMPLE}")));
                return Ok(self.done(issuances));
            }
            let text = line.trim_ascii();
            if !text.is_empty() {
                self.line(text, number, &mut issuances);
            }
        }
    }

    fn line(&mut self, text: &[u8], number: usize, issuances: &mut Vec<Archived>) {
        let line: Line = match serde_json::from_slice(text) {
            Ok(line) => line,
            Err(error) => {
                // Without its place, which is that within the line.
                let said = error.to_string();
                let said = said.split(" at line ").next().unwrap_or_default();
                let mistake = (format!("this is no issuance: {said}"), format!("Write {EXAMPLE}"));
                self.mistake(number, error.column().max(1), mistake);
                return;
            }
        };
        match self.archived(&line) {
            Ok(archived) => issuances.push(archived),
            Err(mistake) => self.mistake(number, 1, mistake),
        }
    }

    fn archived(&self, line: &Line<'_>) -> Result<Archived, Mistake> {
        let (service, issuer) = self.names(&line.service, line.issuer.as_deref())?;
        let hash = |name: &str, text: &str| {
            hexadecimal(text).ok_or_else(|| {
                (
                    format!("`{name}` {} is not 32 hexadecimal digits", quoted(text)),
                    "Write it as export does".to_owned(),
                )
            })
        };
        let account = match (&line.account, &line.account_id) {
            (Some(_), Some(_)) => {
                return Err(("both `account` and `account_id` are given".into(), "Write one of them".into()));
            }
            (Some(account), None) => Some(AccountHash(hash("account", account)?)),
            (None, Some(id)) => Some(self.account(id.as_bytes())),
            (None, None) => None,
        };
        let provenance = line.provenance.as_deref().unwrap_or(Provenance::Issued.label());
        let known = [Provenance::Issued, Provenance::Preexisting, Provenance::Unverifiable, Provenance::Unissued];
        let words = known.map(Provenance::label);
        let provenance =
            Provenance::from_label(provenance).filter(|provenance| *provenance != Provenance::None).ok_or_else(
                || (format!("unknown provenance {}", quoted(provenance)), suggest::advice(provenance, &words)),
            )?;
        Ok(Archived {
            service,
            fingerprint: Fingerprint(hash("fingerprint", &line.fingerprint)?),
            issuer,
            account,
            expires_unix: match &line.expires {
                Time::Seconds(seconds) => until(Some(*seconds), &seconds.to_string())?,
                Time::Text(text) => until(crate::config::unix_seconds(text), text)?,
            },
            provenance,
            used: line.used,
            ended: line.ended,
        })
    }

    /// Hash of an account as routes name it.
    pub(super) fn account(&self, id: &[u8]) -> AccountHash {
        AccountHash(hash128(self.account, id))
    }

    /// The service and the issuer of these names.
    pub(super) fn names(&self, service: &str, issuer: Option<&str>) -> Result<(ServiceId, Option<IssuerId>), Mistake> {
        let services: Vec<&str> = self.config.services.iter().map(|service| service.name.as_str()).collect();
        let at = services.iter().position(|name| *name == service);
        let Some(declared) = at.and_then(|at| self.config.services.get(at)) else {
            return Err((format!("unknown service {}", quoted(service)), suggest::advice(service, &services)));
        };
        let number = |at: usize| u16::try_from(at).unwrap_or(u16::MAX);
        let service = ServiceId(number(at.unwrap_or_default()));
        let Some(issuer) = issuer else { return Ok((service, None)) };
        let issuers: Vec<&str> = declared.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
        let Some(at) = issuers.iter().position(|name| *name == issuer) else {
            let message = format!("service {} has no issuer {}", quoted(&declared.name), quoted(issuer));
            return Err((message, suggest::advice(issuer, &issuers)));
        };
        Ok((service, Some(IssuerId(number(at)))))
    }

    pub(super) fn mistake(&mut self, line: usize, column: usize, (message, fix): Mistake) {
        self.mistakes.push(Diagnostic { file: self.name.clone(), line, column, message, fix });
    }

    /// True when so many mistakes were found that the rest is hardly better.
    pub(super) fn is_enough(&self) -> bool {
        self.mistakes.len() >= MISTAKES
    }

    pub(super) fn done(mut self, issuances: Vec<Archived>) -> Result<Vec<Archived>, Vec<Diagnostic>> {
        if self.mistakes.is_empty() {
            return Ok(issuances);
        }
        let message = "nothing was imported".to_owned();
        let fix = "Correct the lines above and import the file again".to_owned();
        self.mistakes.push(Diagnostic { file: self.name, line: 0, column: 0, message, fix });
        Err(self.mistakes)
    }
}

/// A time as an end of life.
pub(super) fn until(seconds: Option<u64>, text: &str) -> Result<u32, Mistake> {
    seconds.and_then(|seconds| u32::try_from(seconds).ok()).filter(|seconds| *seconds > 0).ok_or_else(|| {
        let message = format!("`expires` {} is not a time from 1970 to 2106", quoted(text));
        (message, "Write seconds since 1970, or a time with offset such as \"2026-01-31T09:00:00Z\"".to_owned())
    })
}

/// Sixteen bytes of 32 hexadecimal digits.
fn hexadecimal(text: &str) -> Option<[u8; 16]> {
    let digits = text.as_bytes();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 16];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Writing for a configuration.
pub(super) struct Names<'a> {
    config: &'a Config,
}

impl<'a> Names<'a> {
    pub(super) fn new(config: &'a Config) -> Self {
        Self { config }
    }

    /// Writes one issuance as a line.
    pub(super) fn write(&self, archived: &Archived, out: &mut impl Write) -> io::Result<()> {
        let Some(service) = self.config.services.get(usize::from(archived.service.0)) else { return Ok(()) };
        let issuer = archived.issuer.and_then(|issuer| service.issuers.get(usize::from(issuer.0)));
        let line = Line {
            service: Cow::Borrowed(&service.name),
            fingerprint: Cow::Owned(archived.fingerprint.to_string()),
            issuer: issuer.map(|issuer| Cow::Borrowed(issuer.name.as_str())),
            account: archived.account.map(|account| Cow::Owned(account.to_string())),
            account_id: None,
            expires: Time::Seconds(archived.expires_unix.into()),
            provenance: (archived.provenance != Provenance::Issued).then(|| Cow::Borrowed(archived.provenance.label())),
            used: archived.used,
            ended: archived.ended,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")
    }
}
