//! A check of signatures and nothing else: what a gateway does that validates tokens (RFC 7519 §7.2, RFC 8725 §3.3) and
//! does not ask whether anybody issued them. Accepting what carries a valid signature is the mechanism of the incident of
//! 2025, so a token forged with the real key is accepted for ever.
//!
//! Restated: every token that carries no signature, or that of a key which is not registered or retired, is reported once.
//! Opaque credentials have nothing to check. A trace carries no keys, so a registered `kid` counts as rightly signed.

use super::table::Table;
use super::{Baseline, Fired, Request};

/// The check.
#[derive(Debug)]
pub struct Signature {
    reported: Table<u128, bool>,
}

impl Signature {
    /// Remembers `kept` reported tokens.
    pub fn new(kept: usize) -> Self {
        Self { reported: Table::new(kept) }
    }
}

impl Baseline for Signature {
    fn name(&self) -> &'static str {
        "signature check"
    }

    fn see(&mut self, request: &Request) -> Option<Fired> {
        if request.signature_valid != Some(false) {
            return None;
        }
        let reported = self.reported.at(request.session.unwrap_or(0));
        if std::mem::replace(reported, true) {
            return None;
        }
        let accounts = request.account.into_iter().collect();
        Some(Fired { at_ns: request.at_ns, client: request.client, accounts })
    }

    fn forgotten(&self) -> u64 {
        self.reported.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NEVER, address, read, times};
    use super::*;

    #[test]
    fn a_forged_token_with_a_valid_signature_is_never_seen() {
        let mut check = Signature::new(100);
        let forged = (0..10_000).map(|n| read(address(n % 7), f64::from(n), n, n));
        assert_eq!(times(&mut check, forged), NEVER);
        let opaque = (0..100).map(|n| Request { signature_valid: None, ..read(address(1), 20_000.0, n, n) });
        assert_eq!(times(&mut check, opaque), NEVER);
    }

    #[test]
    fn a_bad_one_is_reported_once() {
        let mut check = Signature::new(100);
        let bad = |at, session| Request { signature_valid: Some(false), ..read(address(1), at, session, 17) };
        assert_eq!(times(&mut check, [bad(1.0, 1), bad(2.0, 1), bad(3.0, 2)].into_iter()), [1.0, 3.0]);
    }
}
