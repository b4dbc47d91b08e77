//! What a JWT says of itself: header and payload (RFC 7515, RFC 7519), decoded once per fingerprint.
//!
//! `header.payload` text flows in (never with a signature), a few typed facts flow out. Every byte is chosen by an
//! attacker: text is bounded, JSON of any depth is skipped without recursion, a duplicate key takes its last value
//! (RFC 7519 §4), a claim of the wrong type counts as absent. Account claims leave this module only as keyed hashes;
//! nothing of the text is logged, and the scratch buffer is wiped. A hit of the cache allocates nothing.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sensor_ebpf::siphash::{self, hash128};
use sensor_ebpf::wire::credential_flag as flag;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroize as _;

use super::Presented;
use super::table::{ClockMap, Key};
use crate::config::model::{AccountSource, Config};
use crate::observation::{AccountHash, Interned, ServiceId};

/// Longest `header.payload` that is decoded, bytes; longer ones count as unreadable.
const TEXT_MAX: usize = 8192;
/// Longest name that is interned, bytes; longer ones share [`Interned::OVERFLOW`].
const NAME_MAX: usize = 128;
/// Longest form of a name that is shown, characters.
const SHOWN_MAX: usize = 64;
/// What is shown for names beyond the bound.
const SHOWN_OVERFLOW: &str = "(other)";

/// base64url, with or without padding, as lenient as the libraries that services use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// How much of a credential could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Not shaped like a JWT.
    Opaque,
    /// Three parts, but no JWT header: an opaque credential with dots, or a broken JWT.
    NoHeader,
    /// A JWT whose payload was not captured whole, or (`broken`) does not decode.
    Header {
        /// The payload was there and does not decode.
        broken: bool,
    },
    /// A JWT, of which nothing was captured.
    Unread,
    /// A JWT, read.
    Read,
}

/// The typed facts of one credential.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// How much could be read.
    pub form: Form,
    /// `alg` is `none`, in any letter case, or the signature is empty.
    pub alg_none: bool,
    /// `kid`
    pub kid: Option<Interned>,
    /// `iss`, as [`Claims::iss`] interns it.
    pub iss: Option<Interned>,
    /// `iat`, seconds since 1970.
    pub iat: Option<i64>,
    /// `exp`, seconds since 1970.
    pub exp: Option<i64>,
}

impl Facts {
    const fn only(form: Form) -> Self {
        Self { form, alg_none: false, kid: None, iss: None, iat: None, exp: None }
    }
}

/// Distinct strings as small numbers, bounded; shown only in printable form.
#[derive(Debug)]
pub struct Interner {
    index: HashMap<Box<str>, u32, ahash::RandomState>,
    shown: Vec<Box<str>>,
    room: usize,
    overflow: u64,
}

impl Interner {
    fn new(room: usize) -> Self {
        Self { index: HashMap::default(), shown: Vec::new(), room, overflow: 0 }
    }

    /// Interns a name from the configuration, which does not count against the bound.
    pub fn declare(&mut self, name: &str) -> Interned {
        self.index.get(name).copied().map_or_else(|| self.add(name), Interned)
    }

    fn intern(&mut self, name: &str) -> Interned {
        if let Some(id) = self.index.get(name) {
            return Interned(*id);
        }
        if self.room == 0 || name.len() > NAME_MAX {
            self.overflow += 1;
            return Interned::OVERFLOW;
        }
        self.room -= 1;
        self.add(name)
    }

    fn add(&mut self, name: &str) -> Interned {
        let Ok(id) = u32::try_from(self.shown.len()) else { return Interned::OVERFLOW };
        self.index.insert(name.into(), id);
        self.shown.push(printable(name).into());
        Interned(id)
    }

    /// The name in printable form.
    pub fn show(&self, id: Interned) -> &str {
        self.shown.get(id.0 as usize).map_or(SHOWN_OVERFLOW, |shown| shown)
    }

    /// Names told apart, and occurrences of names that were not.
    pub fn counts(&self) -> (usize, u64) {
        (self.shown.len(), self.overflow)
    }
}

/// `name` without anything that a terminal, a log reader or a label could take for more than text.
fn printable(name: &str) -> String {
    let mut shown: String = name
        .chars()
        .take(SHOWN_MAX)
        .map(|char| if char.is_ascii_graphic() || char == ' ' || char.is_alphanumeric() { char } else { '?' })
        .collect();
    if name.chars().nth(SHOWN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[derive(Debug)]
struct Decoded {
    facts: Facts,
    /// By index into [`Claims::names`].
    accounts: Box<[Option<AccountHash>]>,
}

/// The decoder with its cache.
pub struct Claims {
    /// The `kid`s seen.
    pub kids: Interner,
    /// The `iss`s seen.
    pub iss: Interner,
    /// The `alg`s seen.
    pub algs: Interner,
    /// The `aud`s seen.
    pub auds: Interner,
    /// The `scope`s seen.
    pub scopes: Interner,
    cache: ClockMap<Decoded>,
    /// Claims that some route takes accounts from.
    names: Vec<Box<str>>,
    scratch: Vec<u8>,
    key: siphash::Key,
    decoded: u64,
}

impl Claims {
    /// A decoder for the claims that `config` names; accounts are hashed under `key`.
    pub fn new(config: &Config, key: siphash::Key) -> Self {
        let mut names: Vec<Box<str>> = Vec::new();
        for source in config.services.iter().flat_map(|service| &service.routes).flat_map(|route| &route.account) {
            if let AccountSource::Claim(name) = source
                && !names.iter().any(|known| **known == **name)
            {
                names.push(name.as_str().into());
            }
        }
        Self {
            kids: Interner::new(config.bounds.kids),
            iss: Interner::new(config.bounds.kids),
            algs: Interner::new(config.bounds.kids),
            auds: Interner::new(config.bounds.kids),
            scopes: Interner::new(config.bounds.kids),
            cache: ClockMap::new(config.bounds.claims_cache),
            names,
            scratch: Vec::new(),
            key,
            decoded: 0,
        }
    }

    /// Texts decoded (misses of the cache), and entries evicted from it.
    pub fn counts(&self) -> (u64, u64) {
        (self.decoded, self.cache.evictions())
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
            return decoded.facts;
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
                payload.take(name, value);
            });
            facts.form = if read { Form::Read } else { Form::Header { broken: true } };
            if read {
                facts.iat = payload.iat;
                facts.exp = payload.exp;
                facts.iss = payload.iss.as_deref().map(|iss| self.iss.intern(iss));
            } else {
                accounts = Box::default();
            }
        }
        self.cache.insert(key, Decoded { facts, accounts });
        facts
    }

    /// Keyed hash of the value of a top-level claim, if it is a string or an integer.
    pub fn account(&mut self, presented: &Presented<'_>, claim: &str) -> Option<AccountHash> {
        if let Some(place) = self.names.iter().position(|name| **name == *claim) {
            self.facts(presented);
            return *self.cache.peek(&cache_key(presented))?.accounts.get(place)?;
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
        let (mut alg_none, mut has_alg, mut kid) = (false, false, None);
        let kids = &mut self.kids;
        let read = object(&mut self.scratch, header, |name, value| match (name, value) {
            ("alg", value) => {
                has_alg = matches!(value, Scalar::Text(_));
                alg_none = matches!(&value, Scalar::Text(alg) if alg.eq_ignore_ascii_case("none"));
            }
            ("kid", Scalar::Text(value)) => kid = Some(kids.intern(&value)),
            ("kid", _) => kid = None,
            _ => {}
        });
        if !read || !has_alg {
            return Facts::only(Form::NoHeader);
        }
        Facts { alg_none, kid, ..Facts::only(Form::Header { broken: false }) }
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
    iat: Option<i64>,
    exp: Option<i64>,
}

impl Payload {
    fn take(&mut self, name: &str, value: Scalar<'_>) {
        match name {
            "iss" => {
                self.iss = match value {
                    Scalar::Text(text) => Some(text.into_owned()),
                    _ => None,
                }
            }
            "iat" => self.iat = value.date(),
            "exp" => self.exp = value.date(),
            _ => {}
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
            Scalar::Float(_) | Scalar::Other => None,
        }
    }
}

/// Reads a base64url JSON object, handing each member to `member`; false if it is none.
fn object(scratch: &mut Vec<u8>, text: &[u8], member: impl FnMut(&str, Scalar<'_>)) -> bool {
    scratch.resize(base64::decoded_len_estimate(text.len()), 0);
    let read = match BASE64.decode_slice(text, scratch) {
        Ok(len) => {
            let mut json = serde_json::Deserializer::from_slice(scratch.get(..len).unwrap_or_default());
            json.deserialize_map(Members(member)).is_ok() && json.end().is_ok()
        }
        Err(_) => false,
    };
    scratch.zeroize();
    read
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, Scalar<'_>)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<Scalar<'de>, Scalar<'de>>()? {
            if let Scalar::Text(name) = name {
                (self.0)(&name, value);
            }
        }
        Ok(())
    }
}

/// One JSON value, as far as claims go.
#[derive(Debug)]
enum Scalar<'a> {
    Text(Cow<'a, str>),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// null, a boolean, an array or an object.
    Other,
}

impl Scalar<'_> {
    /// A `NumericDate` (RFC 7519 §2) in whole seconds; out of range: the nearest.
    fn date(&self) -> Option<i64> {
        match self {
            Self::Unsigned(number) => Some(i64::try_from(*number).unwrap_or(i64::MAX)),
            Self::Signed(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is what is wanted")]
            Self::Float(number) => Some(number.floor() as i64),
            Self::Text(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Scalar<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Unsigned(number))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Signed(number))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Float(number))
            }

            fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Other)
            }

            fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Other)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Other)
            }
        }

        deserializer.deserialize_any(Any)
    }
}
