//! What the tag table notes of a credential, in sixteen bits, and the time unit of its expiry.

use crate::observation::{IssuerId, Provenance};

/// Buckets that can be told apart.
const BUCKETS: u64 = 256;
/// Buckets that a lifetime and its retention are spread over; the rest is slack for sweeping late.
const SPAN: u64 = 200;

/// A credential's note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Expiry bucket, modulo 256.
    pub(super) bucket: u8,
    /// Issued, or what was inherited.
    pub provenance: Provenance,
    /// Presented at least once since it was issued.
    pub used: bool,
    /// Logged out, or presented after its end.
    pub ended: bool,
    /// An account came with it.
    pub account: bool,
    /// Its issuer, if that was said and is among the first seven of its service.
    pub issuer: Option<IssuerId>,
}

impl Note {
    /// Highest issuer that fits.
    pub const ISSUER_MAX: u16 = 7;

    pub fn new(provenance: Provenance, issuer: Option<IssuerId>) -> Self {
        let issuer = issuer.filter(|issuer| issuer.0 < Self::ISSUER_MAX);
        Self { bucket: 0, provenance, used: false, ended: false, account: false, issuer }
    }

    pub fn pack(self) -> u16 {
        let provenance = match self.provenance {
            Provenance::Issued => 0,
            Provenance::Preexisting => 1,
            Provenance::Unissued => 3,
            Provenance::None | Provenance::Unverifiable => 2,
        };
        let issuer = self.issuer.map_or(0, |issuer| issuer.0 + 1);
        u16::from(self.bucket) << 8
            | (issuer & 7) << 5
            | u16::from(self.account) << 4
            | u16::from(self.ended) << 3
            | u16::from(self.used) << 2
            | provenance
    }

    pub fn unpack(bits: u16) -> Self {
        let provenance = match bits & 3 {
            0 => Provenance::Issued,
            1 => Provenance::Preexisting,
            2 => Provenance::Unverifiable,
            _ => Provenance::Unissued,
        };
        Self {
            bucket: bits.to_be_bytes()[0],
            provenance,
            used: bits & 1 << 2 != 0,
            ended: bits & 1 << 3 != 0,
            account: bits & 1 << 4 != 0,
            issuer: (bits >> 5 & 7).checked_sub(1).map(IssuerId),
        }
    }
}

/// Time in buckets. A bucket is passed when its last nanosecond is; nothing is let go before.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    /// Width of a bucket, ns.
    grain: u64,
    /// Earliest bucket that the table may hold.
    pub floor: u64,
}

impl Buckets {
    /// For tags that are kept for at most `longest` ns, from monotonic time `now` on.
    pub fn new(longest: u64, now: u64) -> Self {
        let grain = longest / SPAN + 1;
        Self { grain, floor: now / grain }
    }

    /// Width of a bucket, ns.
    pub fn grain(&self) -> u64 {
        self.grain
    }

    /// The bucket that time `at` falls into.
    pub fn at(&self, at: u64) -> u64 {
        at / self.grain
    }

    /// The bucket of a note.
    pub fn of(&self, note: Note) -> u64 {
        let ahead = u64::from(note.bucket).wrapping_sub(self.floor) % BUCKETS;
        self.floor.saturating_add(ahead)
    }

    /// Files a note under `bucket`, or the nearest one that can be told.
    #[expect(clippy::cast_possible_truncation, reason = "buckets are written modulo 256")]
    pub fn file(&self, note: Note, bucket: u64) -> Note {
        let bucket = bucket.clamp(self.floor, self.floor.saturating_add(BUCKETS - 1));
        Note { bucket: bucket as u8, ..note }
    }

    /// The earliest time at which a bucket may be over, ns.
    pub fn begins(&self, bucket: u64) -> u64 {
        bucket.saturating_mul(self.grain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixteen_bits_are_enough() {
        for bits in 0..=u16::MAX {
            assert_eq!(Note::unpack(bits).pack(), bits);
        }
        let note = Note::new(Provenance::Issued, Some(IssuerId(7)));
        assert_eq!(note.issuer, None, "beyond what fits: not said");
        assert_eq!(Note::unpack(note.pack()), note);
    }

    #[test]
    fn buckets_wrap_but_keep_their_order() {
        let mut buckets = Buckets::new(20_000, 1_000_000);
        let note = Note::new(Provenance::Issued, None);
        for floor in [buckets.floor, 5000, 5255, 5256, 1 << 40] {
            buckets.floor = floor;
            for ahead in [0, 1, 200, 255] {
                assert_eq!(buckets.of(buckets.file(note, floor + ahead)), floor + ahead);
            }
            assert_eq!(buckets.of(buckets.file(note, floor + 256)), floor + 255);
            assert_eq!(buckets.of(buckets.file(note, 0)), floor);
        }
        assert!(buckets.at(1_020_000) - buckets.at(1_000_000) <= SPAN);
    }
}
