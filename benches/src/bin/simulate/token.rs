//! Credentials as text: JWTs (with a signature that nobody checks) and opaque values, each following from its numbers.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sensor::collect::Shown;
use sensor_ebpf::siphash::{Key, hash128};
use sensor_ebpf::wire::{Credential, credential_flag, place, scheme};

use crate::rng::mix;

/// Longest header and payload, base64url.
pub const CLAIMS_MAX: usize = 320;
/// Characters of a signature (of 32 bytes).
const SIGNATURE: usize = 43;
/// Characters of an opaque value.
const OPAQUE: usize = 32;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Who a JWT says that it is from, and what for.
#[derive(Clone, Copy, Debug)]
pub struct Issuer {
    pub iss: &'static str,
    pub aud: &'static str,
    pub scope: &'static str,
}

pub const ACCESS: Issuer = Issuer { iss: "https://auth.storefront.example", aud: "storefront", scope: "member" };
pub const REFRESH: Issuer =
    Issuer { iss: "https://auth.storefront.example/refresh", aud: "storefront", scope: "refresh" };
pub const STAFF: Issuer = Issuer { iss: "https://auth.storefront.example", aud: "backoffice", scope: "staff" };
/// An audience of the same issuer that the account routes never see.
pub const OTHER_AUDIENCE: Issuer =
    Issuer { iss: "https://auth.storefront.example", aud: "seller-portal", scope: "seller" };
pub const SISTER: Issuer = Issuer { iss: "https://sso.sister.example", aud: "storefront", scope: "member" };
pub const INTERNAL: Issuer = Issuer { iss: "https://internal.storefront.example", aud: "storefront", scope: "service" };

/// Header and payload of a JWT, base64url.
#[derive(Clone, Copy, Debug)]
pub struct Claims {
    len: u16,
    bytes: [u8; CLAIMS_MAX],
}

impl Default for Claims {
    fn default() -> Self {
        Self { len: 0, bytes: [0; CLAIMS_MAX] }
    }
}

impl Claims {
    /// The text.
    pub fn text(&self) -> &[u8] {
        self.first(self.len)
    }

    /// Bytes of the text.
    pub fn len(&self) -> u16 {
        self.len
    }

    /// The text, of which is known that it has `len` bytes: of a visit's token this spares the memory a visit.
    pub fn first(&self, len: u16) -> &[u8] {
        self.bytes.get(..usize::from(len)).unwrap_or_default()
    }
}

/// What a credential is made of.
#[derive(Clone, Copy)]
pub enum Secret<'a> {
    /// A JWT: its claims, and the number that its signature follows from.
    Jwt(&'a [u8], u64),
    /// 32 hexadecimal digits.
    Opaque(u64),
}

/// A credential at its place.
#[derive(Clone, Copy)]
pub struct Held<'a> {
    /// One of [`place`].
    pub place: u8,
    /// Which of the place's names.
    pub index: u8,
    /// What it is made of.
    pub secret: Secret<'a>,
    /// Its fingerprint.
    pub fingerprint: [u8; 16],
}

impl<'a> Held<'a> {
    /// As the parser reports it.
    pub fn shown(&self) -> Shown<'a> {
        let scheme = if self.place == place::AUTHORIZATION { scheme::BEARER } else { scheme::BARE };
        let (len, dots, flags, claims) = match self.secret {
            Secret::Jwt(claims, _) => {
                let flags = credential_flag::THREE_PARTS | credential_flag::CLAIMS;
                (claims.len() + 1 + SIGNATURE, 2, flags, claims)
            }
            Secret::Opaque(_) => (OPAQUE, 0, 0, &[][..]),
        };
        let (place, index, fingerprint) = (self.place, self.index, self.fingerprint);
        let credential =
            Credential { fingerprint, len: len as u32, place, index, scheme, dots, flags, ..Credential::default() };
        Shown { credential, claims }
    }

    /// Appends its text.
    pub fn write(&self, out: &mut Vec<u8>) {
        write(&self.secret, out);
    }
}

/// Appends the text of a credential.
pub fn write(secret: &Secret<'_>, out: &mut Vec<u8>) {
    match secret {
        Secret::Jwt(claims, number) => {
            out.extend_from_slice(claims);
            out.push(b'.');
            let mut word = *number;
            for at in 0..SIGNATURE {
                if at % 10 == 0 {
                    word = mix(word.wrapping_add(0x9e37_79b9_7f4a_7c15));
                }
                out.extend(ALPHABET.get((word >> (at % 10 * 6)) as usize & 63));
            }
        }
        Secret::Opaque(number) => {
            for half in [mix(number ^ 0x6f70_6171_7565), mix(*number ^ 0x7365_7373_696f)] {
                out.extend((0..16).map(|digit| {
                    b"0123456789abcdef".get((half >> (digit * 4)) as usize & 15).copied().unwrap_or(b'0')
                }));
            }
        }
    }
}

/// Makes JWTs and fingerprints.
#[derive(Debug)]
pub struct Mint {
    key: Key,
    /// Header by key, base64url.
    headers: Vec<(String, Vec<u8>)>,
    text: Vec<u8>,
    payload: Vec<u8>,
    /// What the issuer's clock is ahead, milliseconds.
    skew_ms: i64,
}

impl Mint {
    /// Credentials are fingerprinted under `key`.
    pub fn new(key: Key, skew_ms: i64) -> Self {
        Self { key, headers: Vec::new(), text: Vec::new(), payload: Vec::new(), skew_ms }
    }

    /// The fingerprint of a credential.
    pub fn fingerprint(&mut self, secret: &Secret<'_>) -> [u8; 16] {
        self.text.clear();
        write(secret, &mut self.text);
        hash128(self.key, &self.text)
    }

    /// Time on the issuer's clock, seconds, at `at_ns`.
    pub fn issuer_seconds(&self, at_ns: u64) -> i64 {
        ((at_ns / 1_000_000) as i64 + self.skew_ms).div_euclid(1000)
    }

    /// Header and payload of a token for `subject`.
    pub fn claims(&mut self, kid: &str, issuer: &Issuer, subject: u64, times: (i64, i64), number: u64) -> Claims {
        let (iat, exp) = times;
        let payload = &mut self.payload;
        payload.clear();
        for (name, text) in
            [(&b"{\"iss\":\""[..], issuer.iss), (b"\",\"aud\":\"", issuer.aud), (b"\",\"scope\":\"", issuer.scope)]
        {
            payload.extend_from_slice(name);
            payload.extend_from_slice(text.as_bytes());
        }
        for (name, value) in
            [(&b"\",\"sub\":\""[..], subject), (b"\",\"iat\":", iat.max(0) as u64), (b",\"exp\":", exp.max(0) as u64)]
        {
            payload.extend_from_slice(name);
            decimal(value, payload);
        }
        payload.extend_from_slice(b",\"jti\":\"");
        payload.extend(
            (0..16)
                .map(|digit| b"0123456789abcdef".get((number >> (digit * 4)) as usize & 15).copied().unwrap_or(b'0')),
        );
        payload.extend_from_slice(b"\"}");
        let known = self.headers.iter().position(|(known, _)| known == kid);
        let header = known.unwrap_or_else(|| {
            let text = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"ES256","kid":"{kid}","typ":"JWT"}}"#));
            self.headers.push((kid.to_owned(), text.into_bytes()));
            self.headers.len() - 1
        });
        let mut claims = Claims::default();
        let header = self.headers.get(header).map_or(&[][..], |(_, text)| text);
        let (front, rest) = claims.bytes.split_at_mut(header.len() + 1);
        front.get_mut(..header.len()).unwrap_or_default().copy_from_slice(header);
        front.last_mut().into_iter().for_each(|dot| *dot = b'.');
        let len = URL_SAFE_NO_PAD.encode_slice(&self.payload, rest).unwrap_or(0);
        claims.len = (header.len() + 1 + len) as u16;
        claims
    }
}

/// Appends a number.
pub fn decimal(mut value: u64, out: &mut Vec<u8>) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        if let Some(digit) = digits.get_mut(at) {
            *digit = b'0' + (value % 10) as u8;
        }
        value /= 10;
        if value == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_what_the_parser_takes_it_for() {
        let key = Key { k0: 1, k1: 2 };
        let mut mint = Mint::new(key, 0);
        let claims = mint.claims("2025-04", &REFRESH, 33_673_817, (1_744_588_800, 1_747_180_800), 7);
        let secret = Secret::Jwt(claims.text(), 7);
        let fingerprint = mint.fingerprint(&secret);
        let held = Held { place: place::AUTHORIZATION, index: 0, secret, fingerprint };
        let mut text = Vec::new();
        held.write(&mut text);
        let want = sensor::trace::fingerprinted(key, place::AUTHORIZATION, 0, &text);
        assert_eq!(held.shown().credential, want);
        assert_eq!(sensor::trace::claims_of(&text), Some(claims.text()));
        let payload = text.split(|byte| *byte == b'.').nth(1).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap();
        assert_eq!((json["sub"].as_str(), json["exp"].as_i64()), (Some("33673817"), Some(1_747_180_800)));
        let secret = Secret::Opaque(9);
        let fingerprint = mint.fingerprint(&secret);
        let held = Held { place: place::COOKIE, index: 1, secret, fingerprint };
        text.clear();
        held.write(&mut text);
        assert_eq!(held.shown().credential, sensor::trace::fingerprinted(key, place::COOKIE, 1, &text));
    }
}
