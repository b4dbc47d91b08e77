//! What is on disk and must not be read there: AES-256-GCM under a key that follows from the account key.
//!
//! Walks in progress hold numbers of accounts, which otherwise leave the sensor only as hashes under that same key. Bytes flow
//! in and out; the file begins with the nonce, which is drawn anew each time.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::collect::Keys;

/// What a sealed file is of: bound to it, so that one cannot stand for another.
pub(super) type Label = &'static str;

/// Seals and opens. (No `Debug`: it holds a key.)
pub(super) struct Seal {
    key: Option<LessSafeKey>,
    random: SystemRandom,
}

impl Seal {
    /// Under a key that follows from the account key.
    pub fn new(keys: &Keys) -> Self {
        let mut context = Context::new(&SHA256);
        context.update(b"authsensor estimators' progress\0");
        context.update(&keys.account.k0.to_le_bytes());
        context.update(&keys.account.k1.to_le_bytes());
        let key = UnboundKey::new(&AES_256_GCM, context.finish().as_ref()).ok().map(LessSafeKey::new);
        Self { key, random: SystemRandom::new() }
    }

    /// Seals `text`, which is overwritten. `None`: the system gives no randomness.
    pub fn seal(&self, label: Label, mut text: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let at = Nonce::assume_unique_for_key(nonce);
        self.key.as_ref()?.seal_in_place_append_tag(at, Aad::from(label), &mut text).ok()?;
        text.splice(0..0, nonce);
        Some(text)
    }

    /// Opens what [`Seal::seal`] gave; `None`: it is of another key or label, or was changed.
    pub fn open(&self, label: Label, mut sealed: Vec<u8>) -> Option<Vec<u8>> {
        let nonce: [u8; NONCE_LEN] = sealed.get(..NONCE_LEN)?.try_into().ok()?;
        let at = Nonce::assume_unique_for_key(nonce);
        let body = sealed.get_mut(NONCE_LEN..)?;
        let length = self.key.as_ref()?.open_in_place(at, Aad::from(label), body).ok()?.len();
        sealed.drain(..NONCE_LEN);
        sealed.truncate(length);
        Some(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::testing::KEYS;
    use sensor_ebpf::siphash::Key;

    #[test]
    fn only_the_same_key_and_label_open_it() {
        let seal = Seal::new(&KEYS);
        let text = b"walk at 33673817".to_vec();
        let sealed = seal.seal("progress", text.clone()).unwrap();
        assert!(!sealed.windows(4).any(|part| part == b"3367"), "{sealed:?}");
        assert_ne!(sealed, seal.seal("progress", text.clone()).unwrap(), "a nonce is never used again");
        assert_eq!(seal.open("progress", sealed.clone()), Some(text));
        assert_eq!(seal.open("past", sealed.clone()), None);
        let other = Keys { account: Key { k0: 1, k1: KEYS.account.k1 }, ..KEYS };
        assert_eq!(Seal::new(&other).open("progress", sealed.clone()), None);
        let mut torn = sealed.clone();
        torn.pop();
        assert_eq!((seal.open("progress", torn), seal.open("progress", Vec::new())), (None, None));
    }
}
