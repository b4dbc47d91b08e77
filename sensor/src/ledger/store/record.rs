//! An issuance as it stands on disk.
//!
//! The key is the fingerprint, its leading half mixed with the service's name: the tag table's order is the key's
//! order. The value is 13 bytes, or 29 with an account. Times are wall-clock seconds: a monotonic clock does not outlive
//! the machine.

use sensor_ebpf::siphash::{self, hash128};

use crate::observation::{AccountHash, Fingerprint, Provenance};

/// A fingerprint mixed with its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskKey(pub [u8; 16]);

impl DiskKey {
    /// The key of `fingerprint` of the service with this salt ([`salt`]).
    pub fn new(fingerprint: Fingerprint, salt: u64) -> Self {
        let (leading, mut bytes) = (first(&fingerprint.0) ^ salt, fingerprint.0);
        for (byte, mixed) in bytes.iter_mut().zip(leading.to_be_bytes()) {
            *byte = mixed;
        }
        Self(bytes)
    }

    /// Its leading bits, which the tag table knows it by.
    pub fn bits(&self) -> u64 {
        first(&self.0)
    }

    /// The fingerprint again.
    pub fn fingerprint(&self, salt: u64) -> Fingerprint {
        Fingerprint(Self::new(Fingerprint(self.0), salt).0)
    }
}

fn first(bytes: &[u8; 16]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// What tells the credentials of one service from those of another, by its name: the order of services in the
/// configuration may change.
pub fn salt(service: &str) -> u64 {
    first(&hash128(siphash::Key::from_bytes(b"authsensor srvc\0"), service.as_bytes()))
}

/// What a name is written as: of a service or an issuer; never 0.
pub fn name(text: &str) -> u32 {
    let hash = hash128(siphash::Key::from_bytes(b"authsensor name\0"), text.as_bytes());
    hash.first_chunk().map_or(1, |bytes| u32::from_be_bytes(*bytes)).max(1)
}

/// What is written of an issuance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The service, by [`name`].
    pub service: u32,
    /// The issuer, by [`name`]; 0 if it was not said.
    pub issuer: u32,
    /// Issued, or what was inherited.
    pub provenance: Provenance,
    /// Presented at least once.
    pub used: bool,
    /// Logged out, or presented after its end.
    pub ended: bool,
    /// End of its life, or its last use after that, seconds since 1970.
    pub expires: u32,
    /// What the login said.
    pub account: Option<AccountHash>,
}

/// Length of a value without an account.
const SHORT: usize = 13;

impl Record {
    /// The value on disk, and its length.
    pub fn encode(&self) -> ([u8; SHORT + 16], usize) {
        let mut bytes = [0; SHORT + 16];
        let flags = self.provenance as u8 | u8::from(self.used) << 3 | u8::from(self.ended) << 4;
        let parts =
            [&[flags][..], &self.service.to_be_bytes(), &self.issuer.to_be_bytes(), &self.expires.to_be_bytes()];
        let account = self.account.as_ref().map_or(&[][..], |account| &account.0);
        let all = parts.into_iter().chain([account]).flatten();
        let mut len = 0;
        for (to, from) in bytes.iter_mut().zip(all) {
            *to = *from;
            len += 1;
        }
        (bytes, len)
    }

    /// Reads a value; `None` if it is none.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (flags, rest) = bytes.split_first()?;
        let (service, rest) = rest.split_first_chunk()?;
        let (issuer, rest) = rest.split_first_chunk()?;
        let (expires, rest) = rest.split_first_chunk()?;
        let account = match rest.len() {
            0 => None,
            _ => Some(AccountHash(rest.try_into().ok()?)),
        };
        Some(Self {
            service: u32::from_be_bytes(*service),
            issuer: u32::from_be_bytes(*issuer),
            provenance: *Provenance::ALL.get(usize::from(flags & 7))?,
            used: flags & 1 << 3 != 0,
            ended: flags & 1 << 4 != 0,
            expires: u32::from_be_bytes(*expires),
            account,
        })
    }

    /// Takes what is newer.
    pub fn amend(&mut self, change: &Change) {
        if change.issued {
            self.provenance = Provenance::Issued;
        }
        self.used |= change.used;
        self.ended = (self.ended && !change.revived) || change.ended;
        if change.ends > 0 {
            self.expires = self.expires.min(change.ends);
        }
        self.expires = self.expires.max(change.expires);
        self.account = change.account.or(self.account);
    }
}

/// A change to a record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent of each other, and named where they are set")]
pub struct Change {
    /// It became issued.
    pub issued: bool,
    /// It was presented.
    pub used: bool,
    /// Its life is over.
    pub ended: bool,
    /// Its life goes on.
    pub revived: bool,
    /// It ends then, if that is later, seconds since 1970.
    pub expires: u32,
    /// It ends then, if that is earlier, seconds since 1970; 0: nothing is known.
    pub ends: u32,
    /// Whose it is.
    pub account: Option<AccountHash>,
}

impl Change {
    /// True when a credential would be judged worse without it.
    pub fn betters(&self) -> bool {
        self.issued || self.revived || self.expires != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut record = Record {
            service: name("shop"),
            issuer: 0,
            provenance: Provenance::Unissued,
            used: true,
            ended: false,
            expires: u32::MAX,
            account: None,
        };
        for account in [None, Some(AccountHash([7; 16]))] {
            record.account = account;
            let (bytes, len) = record.encode();
            assert_eq!(Record::decode(&bytes[..len]), Some(record));
            assert_eq!(Record::decode(&bytes[..len - 1]), None);
        }
        record.amend(&Change { issued: true, ended: true, expires: 7, ..Change::default() });
        assert_eq!((record.provenance, record.ended, record.expires), (Provenance::Issued, true, u32::MAX));
        record.amend(&Change { ends: 70, ..Change::default() });
        assert_eq!(record.expires, 70);
        record.amend(&Change { ends: 71, expires: 60, ..Change::default() });
        assert_eq!(record.expires, 70);
        record.amend(&Change { revived: true, ..Change::default() });
        assert!(!record.ended && record.account.is_some());
    }

    #[test]
    fn keys_give_their_fingerprint_back() {
        let fingerprint = Fingerprint([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
        let key = DiskKey::new(fingerprint, salt("shop"));
        assert_ne!(key.0, fingerprint.0);
        assert_eq!(key.fingerprint(salt("shop")), fingerprint);
        assert_ne!(DiskKey::new(fingerprint, salt("api")), key);
    }
}
