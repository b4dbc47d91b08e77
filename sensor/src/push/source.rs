//! Who may tell of what: from the names in a certificate to sources, and from what a line says to the one issuer that
//! it is of.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::Semaphore;
use webpki::EndEntityCert;

use super::line::{Line, Refusal, Shown};
use crate::config::model::{Config, Issuer, PushSource, PushSubject, Service};
use crate::observation::{IssuerId, ServiceId};

/// Connections that one source may have at once.
const CONNECTIONS: usize = 16;
/// A source may use this many seconds' worth of its rate at once.
pub(super) const BURST_SECONDS: u32 = 10;

/// One source, with what it uses.
struct Source {
    config: PushSource,
    connections: Arc<Semaphore>,
    bucket: Mutex<Bucket>,
}

/// What a source may still push; refilled by time.
struct Bucket {
    left: f64,
    filled: Instant,
}

/// All sources.
pub(super) struct Sources {
    sources: Vec<Source>,
    services: Vec<Service>,
}

/// The sources that a certificate is of, by index; at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grants(pub Vec<u16>);

impl Grants {
    /// The source that metrics name.
    pub fn first(&self) -> u16 {
        self.0.first().copied().unwrap_or(u16::MAX)
    }
}

/// What a line is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Of {
    pub source: u16,
    pub service: ServiceId,
    pub issuer: IssuerId,
}

#[derive(Clone, Copy)]
struct Candidate<'a> {
    of: Of,
    source: &'a PushSource,
    service: &'a Service,
    issuer: &'a Issuer,
}

impl Candidate<'_> {
    /// True when a token with the key that `is` tells can be of this source and issuer. A key that nobody registered can
    /// be anybody's new one; what it is worth, the verdict on its validity says.
    fn has_key(&self, is: &dyn Fn(&str) -> bool) -> bool {
        let registers = |issuer: &Issuer| issuer.kids.iter().any(|known| is(&known.kid));
        let same_iss = |other: &&Issuer| other.jwt && other.iss == self.issuer.iss;
        let elsewhere = || self.service.issuers.iter().filter(same_iss).any(registers);
        let limited = !self.source.kids.is_empty() && !self.source.kids.iter().any(|kid| is(kid));
        !limited && (registers(self.issuer) || !elsewhere())
    }
}

impl Sources {
    pub fn new(config: &Config, sources: &[PushSource]) -> Self {
        let now = Instant::now();
        let source = |config: &PushSource| Source {
            config: config.clone(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            bucket: Mutex::new(Bucket { left: f64::from(config.per_second) * f64::from(BURST_SECONDS), filled: now }),
        };
        Self { sources: sources.iter().map(source).collect(), services: config.services.clone() }
    }

    /// The sources of a verified certificate (DER); `None` when no source has one of its names.
    pub fn grants(&self, certificate: &tokio_rustls::rustls::pki_types::CertificateDer<'_>) -> Option<Grants> {
        let certificate = EndEntityCert::try_from(certificate).ok()?;
        let named = |subject: &PushSubject| match subject {
            PushSubject::Dns(name) => certificate.valid_dns_names().any(|held| held.eq_ignore_ascii_case(name)),
            PushSubject::Uri(uri) => certificate.valid_uri_names().any(|held| held == uri),
        };
        let fits = (0u16..).zip(&self.sources).filter(|(_, source)| named(&source.config.subject));
        let grants: Vec<u16> = fits.map(|(index, _)| index).collect();
        (!grants.is_empty()).then_some(Grants(grants))
    }

    /// What bounds the connections of these sources.
    pub fn connections(&self, grants: &Grants) -> Option<Arc<Semaphore>> {
        self.sources.get(usize::from(grants.first())).map(|source| Arc::clone(&source.connections))
    }

    /// Takes `count` issuances of each source from its rate at `now`, all or none. Else the seconds to wait, or `None`
    /// where so many never come through at once.
    pub fn spend(&self, counts: &[(u16, u32)], now: Instant) -> Result<(), Option<u64>> {
        let mut longest = 0;
        let all = || counts.iter().filter_map(|(index, count)| Some((self.sources.get(usize::from(*index))?, *count)));
        for (source, count) in all() {
            let rate = f64::from(source.config.per_second);
            let most = rate * f64::from(BURST_SECONDS);
            if f64::from(count) > most {
                return Err(None);
            }
            let mut bucket = source.bucket.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = now.saturating_duration_since(bucket.filled).as_secs_f64();
            bucket.left = (bucket.left + passed * rate).min(most);
            bucket.filled = bucket.filled.max(now);
            let short = f64::from(count) - bucket.left;
            if short > 0.0 {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most BURST_SECONDS")]
                let wait = (short / rate).ceil() as u64;
                longest = wait.max(1).max(longest);
            }
        }
        if longest > 0 {
            return Err(Some(longest));
        }
        for (source, count) in all() {
            source.bucket.lock().unwrap_or_else(PoisonError::into_inner).left -= f64::from(count);
        }
        Ok(())
    }

    /// The one issuer that a line is of, among those of the sources.
    pub fn permit(&self, grants: &Grants, line: &Line<'_>, shown: &Shown) -> Result<Of, Refusal> {
        let mut left = self.candidates(grants);
        let mut narrow = |refusal: &'static str, fits: &dyn Fn(&Candidate<'_>) -> bool| {
            left.retain(fits);
            if left.is_empty() { Err(Refusal::Forbidden(refusal)) } else { Ok(()) }
        };
        narrow("the service is not this source's", &|one| line.service.is(Some(&one.service.name)))?;
        narrow("the issuer is not this source's", &|one| line.issuer.is(Some(&one.issuer.name)))?;
        narrow("the iss is not this source's", &|one| line.iss.is(one.issuer.iss.as_deref()))?;
        narrow("the kid is not this source's", &|one| !line.kid.given() || one.has_key(&|kid| line.kid.is(Some(kid))))?;
        match shown {
            Shown::Token { iss, kid } => {
                narrow("the credential's iss is not this source's", &|one| {
                    one.issuer.jwt && one.issuer.iss.as_deref().map(str::as_bytes) == iss.text()
                })?;
                narrow("the credential's kid is not this source's", &|one| {
                    one.has_key(&|known| kid.text() == Some(known.as_bytes()))
                })?;
            }
            Shown::Nothing => narrow("this source is limited to keys, and only a signed JWT shows its own", &|one| {
                one.source.kids.is_empty()
            })?,
        }
        only(&left, line, shown)
    }

    fn candidates(&self, grants: &Grants) -> Vec<Candidate<'_>> {
        let mut all = Vec::new();
        for index in &grants.0 {
            let Some(source) = self.sources.get(usize::from(*index)).map(|source| &source.config) else { continue };
            let Some(service) = self.services.get(usize::from(source.service.0)) else { continue };
            for id in &source.issuers {
                let Some(issuer) = service.issuers.get(usize::from(id.0)) else { continue };
                let of = Of { source: *index, service: source.service, issuer: *id };
                all.push(Candidate { of, source, service, issuer });
            }
        }
        all
    }
}

/// The candidate that is meant. Issuers that differ by `kid` or place only have the same `iss`: the one that has the key
/// registered goes first, as it does when the credential is used.
fn only(left: &[Candidate<'_>], line: &Line<'_>, shown: &Shown) -> Result<Of, Refusal> {
    let Some(first) = left.first() else { return Err(Refusal::Forbidden("nothing is this source's")) };
    if left.iter().any(|one| one.of.service != first.of.service) {
        return Err(Refusal::Invalid("`service` is missing: this certificate speaks for several"));
    }
    let registered = |one: &&Candidate<'_>| {
        one.issuer.kids.iter().any(|known| match shown {
            Shown::Token { kid, .. } => kid.text() == Some(known.kid.as_bytes()),
            Shown::Nothing => line.kid.given() && line.kid.is(Some(&known.kid)),
        })
    };
    let named = line.issuer.given() || line.iss.given() || matches!(shown, Shown::Token { .. });
    if left.len() > 1 && !named {
        return Err(Refusal::Invalid("`issuer` is missing: this source speaks for several"));
    }
    Ok(left.iter().find(registered).unwrap_or(first).of)
}
