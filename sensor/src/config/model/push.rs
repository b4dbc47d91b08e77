//! The push endpoint's part of the configuration.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::ServerConfig;

use crate::observation::{IssuerId, ServiceId};

/// Issuers of a service, from the first, that a source can speak for: the ledger notes of these who told of a credential,
/// in three bits of an issuance.
pub const PUSHED_ISSUERS: u16 = 7;

/// The push endpoint: issuers whose logins do not pass the sensor tell it what they hand out.
#[derive(Clone, Debug)]
pub struct Push {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it shows of itself, and whom it trusts.
    pub tls: PushTls,
    /// Where that was read from.
    pub files: PushFiles,
    /// Who may tell, and of what.
    pub sources: Vec<PushSource>,
    /// Largest request body, bytes.
    pub max_body: usize,
    /// Issuances that wait for the data plane at most.
    pub queue: usize,
    /// How far back an issuance may be dated.
    pub max_delay: Duration,
}

/// The files of the endpoint's TLS, as PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushFiles {
    /// Its certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The CA of client certificates.
    pub client_ca: PathBuf,
}

/// Certificate, private key, and the CA of client certificates, ready for use.
#[derive(Clone)]
pub struct PushTls(pub Arc<ServerConfig>);

/// It holds the private key.
impl fmt::Debug for PushTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PushTls")
    }
}

/// One source of issuances, for one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushSource {
    /// Name: label in metrics.
    pub name: String,
    /// The name in the client certificates that are its.
    pub subject: PushSubject,
    /// The service whose issuers it speaks for.
    pub service: ServiceId,
    /// These issuers.
    pub issuers: Vec<IssuerId>,
    /// The only `kid`s of its tokens; empty: any.
    pub kids: Vec<String>,
    /// Issuances a second that it may tell, as a mean.
    pub per_second: u32,
}

/// A subject alternative name of a certificate (RFC 5280 §4.2.1.6), compared as a whole: wildcards match nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PushSubject {
    /// `dns:NAME`, lower case.
    Dns(String),
    /// `uri:URI`, such as a SPIFFE ID.
    Uri(String),
}
