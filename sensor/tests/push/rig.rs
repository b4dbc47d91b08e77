//! A push endpoint with real certificates, and clients for it.

#![allow(dead_code, reason = "each test program uses a part of this")]

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType,
};
use sensor::collect::Keys;
use sensor::config;
use sensor::metrics::Metrics;
use sensor::push::{self, Pushed, Receiver, Server};
use sensor_ebpf::siphash::Key;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, version};

pub const KEYS: Keys = Keys { fingerprint: Key { k0: 1, k1: 2 }, account: Key { k0: 3, k1: 4 } };

/// Two services; the issuers `gate` and `other` are told apart by `iss`, `session` is opaque.
const SERVICES: &str = r#"
rules = []
[[service]]
name = "shop"
listen = 80
[service.credentials]
cookies = ["SESSION"]
[[service.issuer]]
name = "gate"
kind = "jwt"
iss = "https://gate.example"
kids = ["g1", "g2"]
max_lifetime = "12h"
[[service.issuer]]
name = "other"
kind = "jwt"
iss = "https://other.example"
kids = ["o1"]
max_lifetime = "12h"
[[service.issuer]]
name = "session"
kind = "opaque"
places = ["cookie:SESSION"]
max_lifetime = "30d"
[[service]]
name = "api"
listen = 81
[[service.issuer]]
name = "gate"
kind = "jwt"
iss = "https://gate.example"
max_lifetime = "12h"
[push]
certificate = "push.pem"
key = "push.key"
client_ca = "sources.pem"
"#;

pub const SOURCES: &str = r#"
[[push.source]]
name = "sso"
subject = "dns:sso.example"
service = "shop"
issuers = ["gate", "session"]
[[push.source]]
name = "sso for the api"
subject = "dns:sso.example"
service = "api"
issuers = "gate"
[[push.source]]
name = "mobile"
subject = "uri:spiffe://example/mobile"
service = "shop"
issuers = "gate"
kids = "g2"
per_second = 1
"#;

pub type Ca = CertifiedIssuer<'static, KeyPair>;

pub fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "test CA");
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate with its key, both as PEM and as the client uses them.
pub struct Leaf {
    pub pem: String,
    pub key_pem: String,
    der: CertificateDer<'static>,
    key: Vec<u8>,
}

pub fn leaf(ca: &Ca, names: Vec<SanType>, usage: ExtendedKeyUsagePurpose) -> Leaf {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    // What a careless operator would look at.
    params.distinguished_name.push(DnType::CommonName, "sso.example");
    params.subject_alt_names = names;
    params.extended_key_usages = vec![usage];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, ca).unwrap();
    Leaf {
        pem: certificate.pem(),
        key_pem: key.serialize_pem(),
        der: certificate.der().clone(),
        key: key.serialize_der(),
    }
}

impl Leaf {
    /// The certificate as it is shown.
    pub fn der(&self) -> &[u8] {
        &self.der
    }
}

pub fn dns(name: &str) -> SanType {
    SanType::DnsName(name.try_into().unwrap())
}

pub fn uri(uri: &str) -> SanType {
    SanType::URI(uri.try_into().unwrap())
}

/// A folder with a configuration and its certificates, and the CAs that made them.
pub struct Pki {
    pub folder: TempDir,
    pub sources_ca: Ca,
    pub server_ca: Ca,
}

/// A running endpoint.
pub struct Rig {
    pub pki: Pki,
    pub metrics: Arc<Metrics>,
    pub receiver: Receiver,
    pub address: SocketAddr,
    pub server: Option<Server>,
}

/// A signed JWT.
pub fn token(iss: &str, kid: &str, seed: &str) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = part(format!(r#"{{"alg":"RS256","kid":"{kid}"}}"#));
    format!("{header}.{}.c2lnbmF0dXJl{seed}", part(format!(r#"{{"iss":"https://{iss}.example","sub":"17"}}"#)))
}

/// The answer to a request.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: serde_json::Value,
}

pub fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
}

impl Pki {
    /// With these keys of `[push]`, and these sources.
    pub fn new(push: &str, sources: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let (sources_ca, server_ca) = (ca(), ca());
        let own = leaf(&server_ca, vec![dns("sensor.example")], ExtendedKeyUsagePurpose::ServerAuth);
        fs::write(folder.path().join("push.pem"), &own.pem).unwrap();
        private(&folder.path().join("push.key"), &own.key_pem);
        fs::write(folder.path().join("sources.pem"), sources_ca.pem()).unwrap();
        fs::write(folder.path().join("authsensor.toml"), format!("{SERVICES}{push}\n{sources}")).unwrap();
        Self { folder, sources_ca, server_ca }
    }

    /// A client of the endpoint at `address`.
    pub fn client(&self, address: SocketAddr, leaf: Option<&Leaf>) -> Client {
        let mut roots = RootCertStore::empty();
        roots.add(self.server_ca.der().clone()).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            Some(leaf) => {
                let key = PrivateKeyDer::try_from(leaf.key.clone()).unwrap();
                builder.with_client_auth_cert(vec![leaf.der.clone()], key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        Client { config: Arc::new(config), address }
    }
}

impl Rig {
    pub fn new() -> Self {
        Self::with("", SOURCES)
    }

    /// With more keys of `[push]`, and these sources.
    pub fn with(push: &str, sources: &str) -> Self {
        let pki = Pki::new(&format!("listen = \"127.0.0.1:0\"\n{push}"), sources);
        let config = config::load(&pki.folder.path().join("authsensor.toml"));
        let config = config.unwrap_or_else(|errors| panic!("{errors:?}"));
        let metrics = Arc::new(Metrics::new(&config, &[]).unwrap());
        let push = config.push.as_ref().unwrap();
        let listener = push::bind(push).unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, receiver) = push::queue(push.queue);
        let server = Server::start(listener, &config, push, KEYS, sender, Arc::clone(&metrics)).unwrap();
        Self { pki, metrics, receiver, address, server: Some(server) }
    }

    pub fn client(&self, names: Vec<SanType>) -> Client {
        self.client_with(Some(&leaf(&self.pki.sources_ca, names, ExtendedKeyUsagePurpose::ClientAuth)))
    }

    pub fn client_with(&self, leaf: Option<&Leaf>) -> Client {
        self.pki.client(self.address, leaf)
    }

    pub fn taken(&self) -> Vec<Pushed> {
        let mut taken = Vec::new();
        self.receiver.drain(|pushed| taken.push(*pushed));
        taken
    }

    /// The value of a series; the endpoint counts a little after it answered.
    pub fn metric(&self, series: &str) -> u64 {
        let text = self.metrics.render().unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{series}\n{text}")).parse().unwrap()
    }

    pub fn requests(&self, source: &str, result: &str) -> u64 {
        self.metric(&format!("authsensor_push_requests_total{{result=\"{result}\",source=\"{source}\"}}"))
    }

    /// Waits for a count of connections.
    pub fn connections(&self, result: &str, count: u64) {
        let series = format!("authsensor_push_connections_total{{result=\"{result}\"}}");
        for _ in 0..500 {
            if self.metric(&series) == count {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{series} is {}, not {count}", self.metric(&series));
    }
}

/// Who pushes.
pub struct Client {
    config: Arc<ClientConfig>,
    address: SocketAddr,
}

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

impl Client {
    pub fn connect(&self) -> Stream {
        let name = ServerName::try_from("sensor.example").unwrap();
        let tls = ClientConnection::new(Arc::clone(&self.config), name).unwrap();
        let tcp = TcpStream::connect(self.address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        StreamOwned::new(tls, tcp)
    }

    pub fn push(&self, body: &str) -> Answer {
        self.try_push(body).unwrap()
    }

    pub fn try_push(&self, body: &str) -> io::Result<Answer> {
        let length = body.len();
        self.exchange(&format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"))
    }

    /// Sends `request` and reads one answer.
    pub fn exchange(&self, request: &str) -> io::Result<Answer> {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes())?;
        answer(&mut stream)
    }
}

/// Reads one answer.
pub fn answer(stream: &mut Stream) -> io::Result<Answer> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Ok(Answer { status, head, body: serde_json::from_slice(&body).unwrap() })
}
