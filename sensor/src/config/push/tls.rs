//! Certificate, private key and CA of the push endpoint: PEM files in, a TLS configuration out.
//!
//! The key flows on only inside the TLS configuration. Read when the configuration is, and again while the endpoint runs.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig, version};

use crate::config::keys;
use crate::config::model::{PushFiles, PushTls};
use crate::diagnostic::quoted;

/// Largest file of certificates or keys, bytes.
const PEM_MAX: usize = 1 << 20;

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The endpoint's chain.
    Certificate,
    /// Its private key.
    Key,
    /// Whoever signs the sources' certificates.
    ClientCa,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Certificate, Self::Key, Self::ClientCa];

    /// Its key in `[push]`.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::ClientCa => "client_ca",
        }
    }

    /// What it holds.
    pub const fn what(self) -> &'static str {
        match self {
            Self::Certificate => "the endpoint's certificate chain",
            Self::Key => "its private key",
            Self::ClientCa => "the CA of client certificates",
        }
    }
}

/// What is wrong with one of the files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Which.
    pub part: Part,
    file: PathBuf,
    what: String,
    /// What to do about it.
    pub fix: &'static str,
}

impl Mistake {
    /// The file, and what is wrong with it.
    pub fn message(&self) -> String {
        format!("the file {} {}", quoted(&self.file.to_string_lossy()), self.what)
    }
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}. {}.", self.message(), self.fix)
    }
}

/// The TLS configuration that `files` give, or everything that is wrong with them. TLS 1.3 only: client certificates stay
/// hidden from who listens, and there is one version to follow.
pub fn read(files: &PushFiles) -> Result<PushTls, Vec<Mistake>> {
    let mistake = |part: Part, (what, fix): (String, &'static str)| {
        let file = match part {
            Part::Certificate => &files.certificate,
            Part::Key => &files.key,
            Part::ClientCa => &files.client_ca,
        };
        Mistake { part, file: file.clone(), what, fix }
    };
    let chain = certificates(&files.certificate).map_err(|wrong| mistake(Part::Certificate, wrong));
    let key = private_key(&files.key).map_err(|wrong| mistake(Part::Key, wrong));
    let roots = roots(&files.client_ca).map_err(|wrong| mistake(Part::ClientCa, wrong));
    match (chain, key, roots) {
        (Ok(chain), Ok(key), Ok(roots)) => build(chain, key, roots).map_err(|error| {
            let wrong = (format!("does not go with `push.key` ({error})"), "Name a certificate and its own key");
            vec![mistake(Part::Certificate, wrong)]
        }),
        (chain, key, roots) => Err([chain.err(), key.err(), roots.err()].into_iter().flatten().collect()),
    }
}

/// What is wrong, and what to do about it.
type Wrong = (String, &'static str);

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    const READABLE: &str = "Name a readable PEM file";
    // Opening a named pipe would wait for a writer.
    let kind = std::fs::metadata(path).map_err(|error| (format!("cannot be read ({error})"), READABLE))?;
    if !kind.is_file() {
        return Err(("is not a regular file".to_owned(), READABLE));
    }
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(PEM_MAX as u64).read_to_end(&mut bytes));
    read.map_err(|error| (format!("cannot be read ({error})"), READABLE))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.unwrap_or_default();
    if all.is_empty() {
        return Err(("holds no certificate".to_owned(), "Name a PEM file with BEGIN CERTIFICATE"));
    }
    Ok(all)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Wrong> {
    const FIX: &str = "Name a PEM file with BEGIN PRIVATE KEY, mode 0600";
    let bytes = keys::private_file(path, PEM_MAX).map_err(|mistake| mistake.words(FIX))?;
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| ("holds no private key".to_owned(), FIX))
}

fn roots(path: &Path) -> Result<RootCertStore, Wrong> {
    let mut roots = RootCertStore::empty();
    for ca in certificates(path)? {
        let added = roots.add(ca);
        added.map_err(|error| {
            (format!("holds a certificate that is no CA ({error})"), "Name a PEM file with CAs only")
        })?;
    }
    Ok(roots)
}

fn build(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    roots: RootCertStore,
) -> Result<PushTls, String> {
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider)).build();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&version::TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let built = builder.with_client_cert_verifier(verifier).with_single_cert(chain, key);
    Ok(PushTls(Arc::new(built.map_err(|error| error.to_string())?)))
}
