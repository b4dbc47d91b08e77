//! The lab's JWTs (RFC 7519, HS256): signed by the origin at login, and by the attacker, who has the same key.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// Issuer claim of every token.
pub const ISSUER: &str = "https://login.store.example";
/// The key id: the backup signing key nobody rotated.
pub const KID: &str = "backup-2024-04";
/// Lifetime, seconds.
pub const LIFETIME_S: u64 = 3600;

/// The signing key.
#[derive(Clone)]
pub struct Key(pub [u8; 32]);

impl Key {
    /// A key from the system's random source.
    pub fn random() -> std::io::Result<Self> {
        use std::io::Read;
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(bytes))
    }

    /// HMAC-SHA-256 of `parts` in turn, each followed by a zero byte.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        // HMAC takes keys of any length, so this cannot fail; a tag over nothing would only make tokens unverifiable.
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.0) else { return [0; 32] };
        for part in parts {
            mac.update(part);
            mac.update(&[0]);
        }
        mac.finalize().into_bytes().into()
    }

    /// A secret of 40 hex digits that nobody without the key can guess, for a purpose and a number.
    pub fn secret(&self, purpose: &str, number: u64) -> String {
        let tag = self.mac(&[purpose.as_bytes(), &number.to_le_bytes()]);
        let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
        tag.iter().take(20).flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
    }

    fn signature(&self, signed: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(signed.as_bytes());
        Some(mac)
    }

    /// Signs a token for member `sub`, issued at `iat` (seconds since 1970).
    pub fn sign(&self, sub: u64, iat: u64, jti: &str) -> String {
        let header = json!({"alg": "HS256", "kid": KID, "typ": "JWT"});
        let claims = json!({"iss": ISSUER, "sub": sub.to_string(), "iat": iat, "exp": iat + LIFETIME_S, "jti": jti,
            "scope": "member", "aud": "store"});
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let tag = self.signature(&signed).map(|mac| mac.finalize().into_bytes().to_vec()).unwrap_or_default();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// The member a token speaks for, when its signature is right. Expiry is checked; whether a login ever issued it
    /// is not: the hole of 2025.
    pub fn verify(&self, token: &str, now: u64) -> Option<u64> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, payload) = signed.split_once('.')?;
        self.signature(signed)?.verify_slice(&URL_SAFE_NO_PAD.decode(signature).ok()?).ok()?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
        if claims.get("exp")?.as_u64()? < now {
            return None;
        }
        claims.get("sub")?.as_str()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_token_verifies_like_an_issued_one() {
        let key = Key([7; 32]);
        let token = key.sign(1042, 1_700_000_000, "a");
        assert_eq!(key.verify(&token, 1_700_000_100), Some(1042));
        assert_eq!(key.verify(&token, 1_700_000_000 + LIFETIME_S + 1), None, "expired");
        assert_eq!(Key([8; 32]).verify(&token, 1_700_000_100), None, "another key");
        assert_eq!(key.verify(&token.replace('.', ""), 0), None);
        assert_eq!(token.split('.').count(), 3);
    }

    #[test]
    fn secrets_differ_by_purpose_and_number() {
        let key = Key([1; 32]);
        assert_eq!(key.secret("session", 1).len(), 40);
        assert_ne!(key.secret("session", 1), key.secret("session", 2));
        assert_ne!(key.secret("session", 1), key.secret("refresh", 1));
    }
}
