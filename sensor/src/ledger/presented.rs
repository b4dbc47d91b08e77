//! The words of a judgement: a credential that is presented, and what the ledger says of it.

use std::fmt;

use crate::observation::{self, AccountHash, Fingerprint, Interned, IssuerId, Provenance, ServiceId, Validity};

/// A credential in a request.
#[derive(Clone, Copy)]
pub struct Presented<'a> {
    /// The service.
    pub service: ServiceId,
    /// Where it stood: one of `sensor_ebpf::wire::place`.
    pub place: u8,
    /// Which of the configured names of that place.
    pub index: u8,
    /// One of `sensor_ebpf::wire::scheme`.
    pub scheme: u8,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// Bits of `sensor_ebpf::wire::credential_flag`.
    pub flags: u16,
    /// Of a JWT, the base64url text `header.payload`; never the signature.
    pub claims: Option<&'a [u8]>,
    /// It is to authenticate a read of personal data or an exchange: a budget of doubt that it needs is spent.
    pub spends: bool,
}

/// A credential that will be presented.
#[derive(Clone, Copy, Debug)]
pub struct Expected {
    /// The service.
    pub service: ServiceId,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// Bits of `sensor_ebpf::wire::credential_flag`.
    pub flags: u16,
}

/// Claims name people, so they stay out of whatever prints this.
impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, place, index, scheme, fingerprint, flags, claims, spends: _ } = self;
        write!(f, "Presented({service:?} {fingerprint} place {place}.{index} scheme {scheme} flags {flags:#x} ")?;
        write!(f, "claims {} bytes)", claims.map_or(0, <[u8]>::len))
    }
}

/// What the ledger says of a presented credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether a login handed it out; never [`Provenance::None`].
    pub provenance: Provenance,
    /// What it says of itself.
    pub validity: Validity,
    /// Its issuer, if it matches a declared one.
    pub issuer: Option<IssuerId>,
    /// Its `kid`, if it is a JWT that has one.
    pub kid: Option<Interned>,
    /// True for a JWT, which can be forged with a signing key.
    pub self_contained: bool,
    /// Whose it is, by what the login said.
    pub account: Option<AccountHash>,
    /// Whose it is, by what it says itself.
    pub subject: Option<AccountHash>,
    /// What it says of itself.
    pub claims: observation::Claims,
    /// What is odd about that: bits of [`observation::claim_anomaly`].
    pub anomalies: u16,
    /// False when the scheme proves a secret anew in every request: the fingerprint names nothing.
    pub stable: bool,
}

impl Verdict {
    /// True when it ended longer ago than issuances are remembered, so that nobody knows whether it was issued.
    pub fn is_forgotten(&self) -> bool {
        self.anomalies & observation::claim_anomaly::FORGOTTEN != 0
    }

    /// True of a token past its end that was issued, or that ended so long ago that nobody knows: its key may have been
    /// retired since.
    pub fn is_left_over(&self) -> bool {
        let forgotten = self.is_forgotten();
        match self.validity {
            Validity::Expired => forgotten || self.provenance == Provenance::Issued,
            Validity::RetiredKey => forgotten,
            _ => false,
        }
    }

    /// On a credential without a stable token: no login hands one out, so there is nothing to look up.
    pub const UNSTABLE: Self = Self { stable: false, ..Self::UNKNOWN };
    /// On a credential of which nothing can be known.
    pub const UNKNOWN: Self = Self {
        provenance: Provenance::Unverifiable,
        validity: Validity::Ok,
        issuer: None,
        kid: None,
        self_contained: false,
        account: None,
        subject: None,
        claims: observation::Claims::NONE,
        anomalies: 0,
        stable: true,
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::claim_anomaly::FORGOTTEN;

    #[test]
    fn what_is_left_over() {
        let of = |provenance, validity, anomalies| {
            Verdict { provenance, validity, anomalies, ..Verdict::UNKNOWN }.is_left_over()
        };
        let (issued, doubt) = (Provenance::Issued, Provenance::Unverifiable);
        assert!(of(issued, Validity::Expired, 0) && of(doubt, Validity::Expired, FORGOTTEN));
        assert!(of(doubt, Validity::RetiredKey, FORGOTTEN), "a key goes while its last tokens lie about");
        assert!(!of(issued, Validity::Ok, 0) && !of(issued, Validity::RetiredKey, 0), "a living one");
        assert!(!of(doubt, Validity::Expired, 0) && !of(Provenance::Unissued, Validity::Expired, 0));
        assert!(!of(doubt, Validity::AlgNone, FORGOTTEN) && !of(doubt, Validity::UnknownKey, FORGOTTEN));
    }
}
