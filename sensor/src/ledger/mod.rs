//! Minimal in-memory ledger with the agreed signatures, so that the collector compiles and is tested alone.

use ahash::AHashMap;
use sensor_ebpf::siphash;

use crate::config::model::Config;
use crate::observation::{AccountHash, Fingerprint, Instant, Interned, IssuerId, Provenance, ServiceId, Validity};

/// An issuance to be entered.
#[derive(Clone, Copy, Debug)]
pub struct Issuance {
    /// The service.
    pub service: ServiceId,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// Where it stood.
    pub place: u8,
    /// Which of the names of that place.
    pub index: u8,
    /// When.
    pub at: Instant,
    /// Whose it is.
    pub account: Option<AccountHash>,
    /// `None`: a login; else a refresh or renewal.
    pub inherits: Option<Provenance>,
    /// A presented credential becomes issued.
    pub binds: bool,
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issued {
    /// Entered.
    Added,
    /// Already seen in a request.
    Echo,
    /// Entered with the parent's provenance.
    Inherited(Provenance),
    /// Already known.
    Known,
    /// No room.
    Full,
}

/// A credential as presented.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// The service.
    pub service: ServiceId,
    /// Where it stood.
    pub place: u8,
    /// Which of the names of that place.
    pub index: u8,
    /// Scheme word.
    pub scheme: u8,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// Credential flags.
    pub flags: u16,
    /// `header.payload`.
    pub claims: Option<&'a [u8]>,
}

/// What the ledger knows of it.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// Provenance.
    pub provenance: Provenance,
    /// Validity.
    pub validity: Validity,
    /// Issuer.
    pub issuer: Option<IssuerId>,
    /// Key id.
    pub kid: Option<Interned>,
    /// Self-contained.
    pub self_contained: bool,
    /// Account by issuance.
    pub account: Option<AccountHash>,
}

/// The ledger.
#[derive(Debug)]
pub struct Ledger {
    key: siphash::Key,
    issued: AHashMap<(ServiceId, Fingerprint), (Provenance, Option<AccountHash>)>,
    seen: AHashMap<(ServiceId, Fingerprint), ()>,
    /// Issuances lost.
    pub lost: u64,
}

impl Ledger {
    /// An empty ledger.
    pub fn new(_config: &Config, account_key: siphash::Key, _started: Instant) -> Self {
        Self { key: account_key, issued: AHashMap::new(), seen: AHashMap::new(), lost: 0 }
    }

    /// Enters an issuance.
    pub fn issue(&mut self, issuance: Issuance) -> Issued {
        let key = (issuance.service, issuance.fingerprint);
        if self.issued.contains_key(&key) {
            return Issued::Known;
        }
        if self.seen.contains_key(&key) && !issuance.binds {
            return Issued::Echo;
        }
        let provenance = issuance.inherits.unwrap_or(Provenance::Issued);
        self.issued.insert(key, (provenance, issuance.account));
        issuance.inherits.map_or(Issued::Added, Issued::Inherited)
    }

    /// Ends a credential.
    pub fn revoke(&mut self, service: ServiceId, fingerprint: Fingerprint, _at: Instant) {
        self.issued.remove(&(service, fingerprint));
    }

    /// Judges a credential.
    pub fn judge(&mut self, presented: &Presented<'_>, _at: Instant) -> Verdict {
        let key = (presented.service, presented.fingerprint);
        let known = self.issued.get(&key).copied();
        if known.is_none() {
            self.seen.insert(key, ());
        }
        Verdict {
            provenance: known.map_or(Provenance::Unissued, |known| known.0),
            validity: Validity::Ok,
            issuer: None,
            kid: None,
            self_contained: presented.claims.is_some(),
            account: known.and_then(|known| known.1),
        }
    }

    /// A claim as account.
    pub fn claim_account(&mut self, presented: &Presented<'_>, name: &str) -> Option<AccountHash> {
        use base64::Engine as _;
        let payload = presented.claims?.split(|byte| *byte == b'.').nth(1)?;
        let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(payload).ok()?;
        let claims: serde_json::Value = serde_json::from_slice(&text).ok()?;
        match claims.get(name)? {
            serde_json::Value::String(text) => Some(self.hash_account(text.as_bytes())),
            other => Some(self.hash_account(other.to_string().as_bytes())),
        }
    }

    /// Notes lost issuances.
    pub fn gap(&mut self, _service: ServiceId, _from: Instant, _to: Instant, lost: u64) {
        self.lost += lost;
    }

    /// The keyed hash of an account id.
    pub fn hash_account(&self, id: &[u8]) -> AccountHash {
        AccountHash(siphash::hash128(self.key, id))
    }

    /// The text of a key id.
    pub fn kid(&self, _kid: Interned) -> &str {
        if self.lost == 0 { "none" } else { "lost" }
    }
}
