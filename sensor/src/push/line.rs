//! One issuance as a source writes it: a JSON object, read without copying its strings.
//!
//! A line flows in as text; a [`Pushed`] flows out, or the reason why not, which repeats nothing of the line.

use serde::Deserialize;
use serde_json::value::RawValue;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sensor_ebpf::siphash::hash128;
use sensor_ebpf::wire::credential_flag;

use super::Pushed;
use super::source::{Grants, Sources};
use crate::collect::Keys;
use crate::collect::json::{self, Value};
use crate::collect::secret::SecretBuf;
use crate::collect::{canonical, jwt_shape};
use crate::observation::{AccountHash, Fingerprint};

/// Longest account identifier, bytes.
const ACCOUNT_MAX: usize = 256;
/// Later than any date that is meant in seconds since 1970 (year 5138): milliseconds are refused, not misread.
const SECONDS_MAX: f64 = 1e11;

/// Why a line is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It does not say what it has to.
    Invalid(&'static str),
    /// It is of an issuer that is not the source's.
    Forbidden(&'static str),
}

/// The members of a line as they stand in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Line<'a> {
    #[serde(borrow, default)]
    pub service: Text<'a>,
    #[serde(borrow, default)]
    pub issuer: Text<'a>,
    #[serde(borrow, default)]
    pub iss: Text<'a>,
    #[serde(borrow, default)]
    pub kid: Text<'a>,
    #[serde(borrow, default)]
    fingerprint: Text<'a>,
    #[serde(borrow, default)]
    credential: Text<'a>,
    #[serde(borrow, default)]
    parent: Text<'a>,
    #[serde(borrow, default)]
    parent_credential: Text<'a>,
    #[serde(borrow, default)]
    account: Text<'a>,
    #[serde(borrow, default)]
    issued_at: Text<'a>,
    #[serde(borrow, default)]
    expires: Text<'a>,
}

/// A value as it stands in the text, if there is one.
#[derive(Clone, Copy, Default, Deserialize)]
#[serde(transparent)]
pub(super) struct Text<'a>(#[serde(borrow)] Option<&'a RawValue>);

impl<'a> Text<'a> {
    /// True unless it is absent or `null`.
    pub fn given(self) -> bool {
        self.0.is_some()
    }

    /// What stands between its quotes, if it is a string.
    fn string(self) -> Option<&'a [u8]> {
        match json::lookup(self.0?.get().as_bytes(), "") {
            Some(Value::String(raw)) => Some(raw),
            _ => None,
        }
    }

    /// True when it is not given, or says `text`.
    pub fn is(self, text: Option<&str>) -> bool {
        !self.given() || self.string().zip(text).is_some_and(|(raw, text)| json::same_text(raw, text))
    }

    /// Seconds since 1970, with a fraction.
    fn seconds(self) -> Result<Option<f64>, ()> {
        let Some(raw) = self.0 else { return Ok(None) };
        let number = raw.get().parse::<f64>().ok().filter(|_| !raw.get().starts_with('"'));
        number.filter(|number| (0.0..SECONDS_MAX).contains(number)).map(Some).ok_or(())
    }
}

/// What a raw credential says of itself.
pub(super) enum Shown {
    /// It is opaque, or only its fingerprint was sent.
    Nothing,
    /// It is a signed JWT.
    Token { iss: Claim, kid: Claim },
}

/// A claim's text, wiped after use.
#[derive(Default)]
pub(super) struct Claim(Option<SecretBuf>);

impl Claim {
    fn read(json: &[u8], pointer: &str) -> Self {
        let Some(Value::String(raw)) = json::lookup(json, pointer) else { return Self(None) };
        let mut text = SecretBuf::default();
        Self(json::unescape(raw, &mut text).then_some(text))
    }

    pub fn text(&self) -> Option<&[u8]> {
        self.0.as_ref().map(SecretBuf::as_slice)
    }
}

/// The clocks at the moment at which a request is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    /// The kernel's monotonic clock, nanoseconds.
    pub monotonic_ns: u64,
    /// Seconds since 1970.
    pub unix: f64,
}

/// What lines are read by.
pub(super) struct Reader<'a> {
    pub sources: &'a Sources,
    pub keys: &'a Keys,
    pub now: Now,
    /// How far back an issuance may be dated, seconds.
    pub max_delay: f64,
    /// How far clocks may be off, seconds.
    pub leeway: f64,
}

impl Reader<'_> {
    /// Reads one line.
    pub fn read(&self, grants: &Grants, text: &str) -> Result<Pushed, Refusal> {
        let line: Line<'_> = serde_json::from_str(text)
            .map_err(|_| Refusal::Invalid("not a JSON object with the members that this endpoint knows"))?;
        let (fingerprint, shown) = match (line.fingerprint.given(), line.credential.given()) {
            (true, false) => (digits(line.fingerprint)?, Shown::Nothing),
            (false, true) => self.credential(line.credential)?,
            _ => return Err(Refusal::Invalid("write either `fingerprint` or `credential`")),
        };
        let parent = match (line.parent.given(), line.parent_credential.given()) {
            (false, false) => None,
            (true, false) => Some(digits(line.parent)?),
            (false, true) => Some(self.credential(line.parent_credential)?.0),
            (true, true) => return Err(Refusal::Invalid("write either `parent` or `parent_credential`")),
        };
        for text in [line.service, line.issuer, line.iss, line.kid] {
            if text.given() && text.string().is_none() {
                return Err(Refusal::Invalid("`service`, `issuer`, `iss` and `kid` are strings"));
            }
        }
        let of = self.sources.permit(grants, &line, &shown)?;
        let issued_ns = self.issued(line.issued_at)?;
        Ok(Pushed {
            source: of.source,
            service: of.service,
            issuer: of.issuer,
            fingerprint,
            issued_ns,
            expires_ns: self.expires(line.expires)?,
            account: self.account(line.account)?,
            parent,
        })
    }

    fn credential(&self, text: Text<'_>) -> Result<(Fingerprint, Shown), Refusal> {
        let mut plain = SecretBuf::default();
        if !text.string().is_some_and(|raw| json::unescape(raw, &mut plain)) {
            return Err(Refusal::Invalid("a credential is a string"));
        }
        let credential = canonical(plain.as_slice());
        if credential.is_empty() {
            return Err(Refusal::Invalid("the credential is empty"));
        }
        let fingerprint = Fingerprint(hash128(self.keys.fingerprint, credential));
        Ok((fingerprint, shown(credential)?))
    }

    /// Between the longest delay before now, and now; the source's clock may be a little ahead.
    fn issued(&self, at: Text<'_>) -> Result<u64, Refusal> {
        const WHAT: Refusal = Refusal::Invalid("`issued_at` is a number of seconds since 1970");
        let Some(at) = at.seconds().map_err(|()| WHAT)? else { return Ok(self.now.monotonic_ns) };
        let age = self.now.unix - at;
        if age < -self.leeway {
            return Err(Refusal::Invalid("`issued_at` lies in the future"));
        }
        if age > self.max_delay {
            return Err(Refusal::Invalid("`issued_at` lies further back than `push.max_delay`"));
        }
        Ok(self.now.monotonic_ns.saturating_sub(nanoseconds(age.max(0.0))))
    }

    fn expires(&self, at: Text<'_>) -> Result<Option<u64>, Refusal> {
        const WHAT: Refusal = Refusal::Invalid("`expires` is a number of seconds since 1970");
        let Some(at) = at.seconds().map_err(|()| WHAT)? else { return Ok(None) };
        let left = at - self.now.unix;
        if left < -self.leeway {
            return Err(Refusal::Invalid("`expires` lies in the past"));
        }
        Ok(Some(self.now.monotonic_ns.saturating_add(nanoseconds(left.max(0.0)))))
    }

    /// As text: `17` and `"17"` are the same account.
    fn account(&self, account: Text<'_>) -> Result<Option<AccountHash>, Refusal> {
        let Some(raw) = account.0 else { return Ok(None) };
        let mut plain = SecretBuf::default();
        let read = match json::lookup(raw.get().as_bytes(), "") {
            Some(Value::String(raw)) => json::unescape(raw, &mut plain),
            Some(Value::Scalar(digits)) if digits.iter().all(u8::is_ascii_digit) => {
                plain.push(digits);
                true
            }
            _ => false,
        };
        if !read || !(1..=ACCOUNT_MAX).contains(&plain.len()) {
            return Err(Refusal::Invalid("`account` is a string or a whole number, at most 256 bytes"));
        }
        Ok(Some(AccountHash(hash128(self.keys.account, plain.as_slice()))))
    }
}

/// Nanoseconds of a number of seconds from 0 to [`SECONDS_MAX`].
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

fn digits(text: Text<'_>) -> Result<Fingerprint, Refusal> {
    let bytes = text.string().filter(|raw| raw.len() == 32);
    let mut fingerprint = [0; 16];
    let pairs = bytes.map(|raw| raw.as_chunks::<2>().0).unwrap_or_default();
    for (byte, [high, low]) in fingerprint.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16);
        let Some((high, low)) = digit(*high).zip(digit(*low)) else { return Err(NO_FINGERPRINT) };
        *byte = u8::try_from(high << 4 | low).map_err(|_| NO_FINGERPRINT)?;
    }
    if pairs.is_empty() { Err(NO_FINGERPRINT) } else { Ok(Fingerprint(fingerprint)) }
}

const NO_FINGERPRINT: Refusal = Refusal::Invalid("a fingerprint is a string of 32 hexadecimal digits");

/// What a credential says of itself. A JWT that nobody signed is no issuance.
fn shown(credential: &[u8]) -> Result<Shown, Refusal> {
    let (flags, claims) = jwt_shape(credential);
    if flags & credential_flag::EMPTY_SIGNATURE != 0 {
        return Err(Refusal::Invalid("the credential is a JWT without a signature"));
    }
    let mut parts = claims.unwrap_or_default().splitn(2, |byte| *byte == b'.');
    let (Some(header), Some(payload)) = (parts.next().and_then(object), parts.next().and_then(object)) else {
        return Ok(Shown::Nothing);
    };
    Ok(Shown::Token { iss: Claim::read(payload.as_slice(), "/iss"), kid: Claim::read(header.as_slice(), "/kid") })
}

/// The JSON object that a part of a JWT holds.
fn object(part: &[u8]) -> Option<SecretBuf> {
    let mut decoded = SecretBuf::default();
    decoded.resize(base64::decoded_len_estimate(part.len()));
    let length = URL_SAFE_NO_PAD.decode_slice(part, decoded.as_mut_slice()).ok()?;
    decoded.resize(length);
    (json::lookup(decoded.as_slice(), "") == Some(Value::Container)).then_some(decoded)
}
