//! What a JWT says of itself: header and payload (RFC 7515, RFC 7519), decoded once per fingerprint.
//!
//! `header.payload` text flows in (never with a signature), a few typed facts flow out. Every byte is chosen by an
//! attacker: text is bounded, JSON of any depth is skipped without recursion, a duplicate key takes its last value
//! (RFC 7519 §4), a claim of the wrong type counts as absent. Account claims leave this module only as keyed hashes;
//! nothing of the text is logged, and the scratch buffer is wiped. A hit of the cache allocates nothing.

use sensor_ebpf::siphash::{self, hash128};
use sensor_ebpf::wire::credential_flag as flag;

use super::Presented;
use super::facts::{Decoded, Facts, Form};
use super::json::{Scalar, object};
use super::names::Interner;
use super::table::{ClockMap, Key};
use crate::config::model::{AccountSource, Config};
use crate::observation::{self, AccountHash, ClaimName, Fingerprint, Interned, ServiceId};

/// Longest `header.payload` that is decoded, bytes; longer ones count as unreadable.
const TEXT_MAX: usize = 8192;

/// The names that were seen, by kind.
#[derive(Debug)]
pub struct Names {
    pub kids: Interner,
    pub iss: Interner,
    alg: Interner,
    pub aud: Interner,
    pub scope: Interner,
}

/// The decoder with its cache.
pub struct Claims {
    /// The names seen.
    pub seen: Names,
    cache: ClockMap<Decoded>,
    /// Claims, other than `sub`, that some route takes accounts from or some issuer subjects.
    names: Vec<Box<str>>,
    scratch: Vec<u8>,
    key: siphash::Key,
    /// The header that came last, as a keyed hash, and what it says: tokens of one issuer have one header.
    header: Option<([u8; 16], Facts)>,
    decoded: u64,
}

impl Claims {
    /// A decoder for the claims that `config` names; accounts are hashed under `key`.
    pub fn new(config: &Config, key: siphash::Key) -> Self {
        let mut names: Vec<Box<str>> = Vec::new();
        let routes = config.services.iter().flat_map(|service| &service.routes).flat_map(|route| &route.account);
        let accounts = routes.filter_map(|source| match source {
            AccountSource::Claim(name) => Some(name),
            _ => None,
        });
        let issuers = config.services.iter().flat_map(|service| &service.issuers);
        for name in accounts.chain(issuers.filter_map(|issuer| issuer.subject.as_ref())) {
            if name != "sub" && !names.iter().any(|known| **known == **name) {
                names.push(name.as_str().into());
            }
        }
        let interner = || Interner::new(config.bounds.kids);
        Self {
            seen: Names { kids: interner(), iss: interner(), alg: interner(), aud: interner(), scope: interner() },
            cache: ClockMap::roomy(config.bounds.claims_cache),
            names,
            scratch: Vec::new(),
            key,
            header: None,
            decoded: 0,
        }
    }

    fn names(&self, of: ClaimName) -> &Interner {
        match of {
            ClaimName::Kid => &self.seen.kids,
            ClaimName::Iss => &self.seen.iss,
            ClaimName::Alg => &self.seen.alg,
            ClaimName::Aud => &self.seen.aud,
            ClaimName::Scope => &self.seen.scope,
        }
    }

    /// A name in printable form, cut to 64 characters.
    pub fn show(&self, of: ClaimName, name: Interned) -> &str {
        self.names(of).show(name)
    }

    /// A name as it came.
    pub fn whole(&self, of: ClaimName, name: Interned) -> Option<&str> {
        self.names(of).whole(name)
    }

    /// The number of a name.
    pub fn intern(&mut self, of: ClaimName, name: &str) -> Interned {
        let names = match of {
            ClaimName::Kid => &mut self.seen.kids,
            ClaimName::Iss => &mut self.seen.iss,
            ClaimName::Alg => &mut self.seen.alg,
            ClaimName::Aud => &mut self.seen.aud,
            ClaimName::Scope => &mut self.seen.scope,
        };
        names.intern(name)
    }

    /// Where [`Claims::nth_account`] finds a claim that the configuration names.
    pub fn place_of(&self, claim: &str) -> Option<usize> {
        self.names.iter().position(|name| **name == *claim)
    }

    /// Texts decoded (misses of the cache), and entries evicted from it.
    pub fn counts(&self) -> (u64, u64) {
        (self.decoded, self.cache.evictions())
    }

    /// Asks for the memory in which a look for the facts of a credential with these flags begins.
    pub fn fetch(&self, fingerprint: Fingerprint, flags: u16) {
        if flags & flag::THREE_PARTS != 0 {
            self.cache.fetch(&Key { service: ServiceId::NONE, fingerprint });
        }
    }

    /// Asks for the memory of what that finds; worth it once that memory has come.
    pub fn fetch_facts(&self, fingerprint: Fingerprint, flags: u16) {
        if flags & flag::THREE_PARTS != 0 {
            let _ = self.cache.fetch_entry(&Key { service: ServiceId::NONE, fingerprint });
        }
    }

    /// The facts of a presented credential.
    pub fn facts(&mut self, presented: &Presented<'_>) -> Facts {
        if presented.flags & (flag::THREE_PARTS | flag::EMPTY_SIGNATURE) == 0 {
            return Facts::only(Form::Opaque);
        }
        if presented.flags & flag::EMPTY_SIGNATURE != 0 {
            return Facts { alg_none: true, ..Facts::only(Form::Unread) };
        }
        let key = cache_key(presented);
        if let Some(decoded) = self.cache.get_mut(&key) {
            return decoded.facts();
        }
        let Some(text) = presented.claims else { return Facts::only(Form::Unread) };
        if presented.flags & flag::CLAIMS_CUT != 0 || text.len() > TEXT_MAX {
            // Not cached: the same credential may come whole the next time.
            return self.decode_header(text);
        }
        self.decoded += 1;
        let mut facts = self.decode_header(text);
        let mut accounts = Box::default();
        if let Form::Header { .. } = facts.form {
            accounts = vec![None; self.names.len()].into_boxed_slice();
            let hasher = Hasher(self.key);
            let names = &self.names;
            let mut payload = Payload::default();
            let read = object(&mut self.scratch, payload_of(text), |name, value| {
                if let Some(place) = names.iter().position(|known| **known == *name)
                    && let Some(account) = accounts.get_mut(place)
                {
                    *account = hasher.account(&value);
                }
                payload.take(name, &value, &hasher);
            });
            facts.form = if read { Form::Read } else { Form::Header { broken: true } };
            if read {
                facts.claims = payload.claims(facts.claims.alg, &mut self.seen);
            } else {
                accounts = Box::default();
            }
        }
        self.cache.insert(key, Decoded::new(&facts, accounts));
        facts
    }

    /// Keyed hash of a claim that the configuration names, by [`Claims::place_of`].
    pub fn nth_account(&mut self, presented: &Presented<'_>, place: usize) -> Option<AccountHash> {
        *self.cache.peek(&cache_key(presented))?.accounts().get(place)?
    }

    /// Keyed hash of the value of a top-level claim, if it is a string or an integer.
    pub fn account(&mut self, presented: &Presented<'_>, claim: &str) -> Option<AccountHash> {
        if claim == "sub" {
            return self.facts(presented).claims.sub;
        }
        if let Some(place) = self.place_of(claim) {
            self.facts(presented);
            return self.nth_account(presented, place);
        }
        // Not named in the configuration, so not in the cache.
        let text = presented.claims.filter(|text| text.len() <= TEXT_MAX)?;
        if presented.flags & flag::CLAIMS_CUT != 0 {
            return None;
        }
        let hasher = Hasher(self.key);
        let mut account = None;
        let read = object(&mut self.scratch, payload_of(text), |name, value| {
            if name == claim {
                account = hasher.account(&value);
            }
        });
        account.filter(|_| read)
    }

    fn decode_header(&mut self, text: &[u8]) -> Facts {
        let Some(dot) = text.iter().position(|byte| *byte == b'.') else { return Facts::only(Form::Unread) };
        let header = text.get(..dot.min(TEXT_MAX)).unwrap_or_default();
        let hash = hash128(self.key, header);
        if let Some((_, facts)) = self.header.filter(|(last, _)| *last == hash) {
            return facts;
        }
        let facts = self.read_header(header);
        self.header = Some((hash, facts));
        facts
    }

    fn read_header(&mut self, header: &[u8]) -> Facts {
        let (mut alg_none, mut has_alg, mut kid, mut shown) = (false, false, None, None);
        let Names { kids, alg: algorithms, .. } = &mut self.seen;
        let read = object(&mut self.scratch, header, |name, value| match (name, value) {
            ("alg", value) => {
                has_alg = matches!(value, Scalar::Text(_));
                alg_none = matches!(&value, Scalar::Text(alg) if alg.eq_ignore_ascii_case("none"));
                shown = if let Scalar::Text(alg) = &value { Some(algorithms.intern(alg)) } else { None };
            }
            ("kid", Scalar::Text(value)) => kid = Some(kids.intern(&value)),
            ("kid", _) => kid = None,
            _ => {}
        });
        if !read || !has_alg {
            return Facts::only(Form::NoHeader);
        }
        let mut facts = Facts { alg_none, kid, ..Facts::only(Form::Header { broken: false }) };
        facts.claims.alg = shown;
        facts
    }
}

/// The claims of a credential are the same at every service.
fn cache_key(presented: &Presented<'_>) -> Key {
    Key { service: ServiceId::NONE, fingerprint: presented.fingerprint }
}

fn payload_of(text: &[u8]) -> &[u8] {
    let after = text.iter().position(|byte| *byte == b'.').map_or(text.len(), |dot| dot + 1);
    text.get(after..).unwrap_or_default()
}

#[derive(Default)]
struct Payload {
    iss: Option<String>,
    aud: Option<String>,
    scope: Option<String>,
    dates: observation::Claims,
}

impl Payload {
    fn take(&mut self, name: &str, value: &Scalar<'_>, hasher: &Hasher) {
        match name {
            "iss" => {
                self.iss = match value {
                    Scalar::Text(text) => Some(text.as_ref().to_owned()),
                    _ => None,
                }
            }
            "aud" => self.aud = value.words(),
            // RFC 8693 §4.2; `scp` as Entra ID and Okta write it.
            "scope" | "scp" => self.scope = value.words(),
            "sub" => self.dates.sub = hasher.account(value),
            "jti" => self.dates.jti = hasher.account(value),
            "iat" => self.dates.iat = value.date(),
            "exp" => self.dates.exp = value.date(),
            "nbf" => self.dates.nbf = value.date(),
            _ => {}
        }
    }

    fn claims(self, alg: Option<Interned>, names: &mut Names) -> observation::Claims {
        observation::Claims {
            alg,
            iss: self.iss.map(|iss| names.iss.intern(&iss)),
            aud: self.aud.map(|aud| names.aud.intern(&aud)),
            scope: self.scope.map(|scope| names.scope.intern(&scope)),
            ..self.dates
        }
    }
}

struct Hasher(siphash::Key);

impl Hasher {
    fn account(&self, value: &Scalar<'_>) -> Option<AccountHash> {
        let hash = |text: &str| (!text.is_empty()).then(|| AccountHash(hash128(self.0, text.as_bytes())));
        match value {
            Scalar::Text(text) => hash(text),
            Scalar::Unsigned(number) => hash(&number.to_string()),
            Scalar::Signed(number) => hash(&number.to_string()),
            Scalar::Float(_) | Scalar::List(_) | Scalar::Other => None,
        }
    }
}
