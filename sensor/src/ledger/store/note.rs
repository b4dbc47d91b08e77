//! What the tag table notes of a credential, in sixteen bits, and the time unit of its expiry.

use crate::observation::{IssuerId, Provenance};

/// Buckets that can be told apart, of all rings.
const CODES: u64 = 256;
/// Buckets that are filed under; the rest is slack for sweeping late.
const SPAN: u64 = 200;
/// Most rings of buckets.
const RINGS: usize = 4;
/// Ticks of a bucket of each ring.
const WIDTHS: [u64; RINGS] = [1, 5, 25, 125];
/// One ring is enough if its buckets are no wider than that, ns: an hour.
const FINE: u64 = 3_600_000_000_000;

/// A credential's note.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Expiry bucket, as [`Buckets`] numbers them.
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

/// Time in ticks, the width of the finest buckets. A bucket is passed when its last tick is; nothing is let go before.
///
/// A day's session and a year's key differ in what is near enough. So where lives are long there are four rings of
/// buckets, each five times as coarse as the one before, and a note is filed in the finest one that reaches its time.
#[derive(Clone, Copy, Debug)]
pub struct Buckets {
    /// Width of a tick, ns.
    tick: u64,
    /// Earliest tick that the table may hold.
    floor: u64,
    /// The bucket of each ring that holds it.
    first: [u64; RINGS],
    /// Binary digits of a bucket's number in its ring.
    digits: u32,
}

impl Buckets {
    /// For tags that are kept for at most `longest` ns, from monotonic time `now` on.
    pub fn new(longest: u64, now: u64) -> Self {
        let rings = if longest / SPAN <= FINE { 1 } else { RINGS };
        let widest = WIDTHS.get(rings - 1).copied().unwrap_or(1);
        let tick = longest / (SPAN / rings as u64 * widest) + 1;
        let digits = (CODES / rings as u64).ilog2();
        let mut buckets = Self { tick, floor: 0, first: [0; RINGS], digits };
        buckets.pass(now / tick);
        buckets
    }

    /// Width of a tick, ns.
    pub fn tick(&self) -> u64 {
        self.tick
    }

    /// Earliest tick that the table may hold.
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// Nothing is filed under ticks before `tick` any more.
    pub fn pass(&mut self, tick: u64) {
        self.floor = self.floor.max(tick);
        self.first = WIDTHS.map(|width| self.floor / width);
    }

    /// The tick that time `at` falls into.
    pub fn at(&self, at: u64) -> u64 {
        at / self.tick
    }

    /// The last tick of a note's bucket.
    pub fn of(&self, note: Note) -> u64 {
        let ring = usize::from(note.bucket) >> self.digits;
        let (Some(first), Some(width)) = (self.first.get(ring), WIDTHS.get(ring)) else { return self.floor };
        let ahead = u64::from(note.bucket).wrapping_sub(*first) & self.mask();
        first.saturating_add(ahead).saturating_add(1).saturating_mul(*width) - 1
    }

    /// Files a note under the finest bucket that holds `tick`, or the nearest one that can be told.
    #[expect(clippy::cast_possible_truncation, reason = "there are 256 codes")]
    pub fn file(&self, note: Note, tick: u64) -> Note {
        let rings = 1 << (CODES.ilog2() - self.digits);
        let span = SPAN / rings as u64;
        let tick = tick.max(self.floor);
        let rings = (0u64..).zip(self.first.iter().zip(WIDTHS)).take(rings);
        let mut bucket = note.bucket;
        for (ring, (first, width)) in rings {
            let ahead = tick / width - first;
            bucket = (ring << self.digits | (first + ahead.min(self.mask())) & self.mask()) as u8;
            if ahead <= span {
                break;
            }
        }
        Note { bucket, ..note }
    }

    /// Files a note under `last`, if it stands under a later bucket.
    pub fn filed_by(&self, note: Note, last: u64) -> Note {
        let filed = self.file(note, last);
        if self.of(filed) < self.of(note) { filed } else { note }
    }

    /// The earliest time that may have been filed as a note is, ns.
    pub fn since(&self, note: Note) -> u64 {
        let width = WIDTHS.get(usize::from(note.bucket) >> self.digits).copied().unwrap_or(1);
        self.begins(self.of(note).saturating_add(1).saturating_sub(width))
    }

    /// When a tick begins, ns.
    pub fn begins(&self, tick: u64) -> u64 {
        tick.saturating_mul(self.tick)
    }

    /// When a note's bucket is over, ns.
    pub fn over(&self, note: Note) -> u64 {
        self.begins(self.of(note).saturating_add(1))
    }

    fn mask(&self) -> u64 {
        (1 << self.digits) - 1
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

    const HOUR: u64 = 3_600_000_000_000;

    #[test]
    fn buckets_wrap_but_keep_their_order() {
        let mut buckets = Buckets::new(20_000, 1_000_000);
        let note = Note::new(Provenance::Issued, None);
        for floor in [buckets.floor, 5000, 5255, 5256, 1 << 40].map(|floor| floor.max(buckets.floor)) {
            buckets.pass(floor);
            for ahead in [0, 1, 200] {
                assert_eq!(buckets.of(buckets.file(note, floor + ahead)), floor + ahead);
            }
            assert_eq!(buckets.of(buckets.file(note, floor + 256)), floor + 255);
            assert_eq!(buckets.of(buckets.file(note, 0)), floor);
        }
        assert!(buckets.at(1_020_000) - buckets.at(1_000_000) <= SPAN);
    }

    #[test]
    fn rings_hold_what_was_filed_and_wrap() {
        let mut buckets = Buckets::new(366 * 24 * HOUR, 1_000_000 * HOUR);
        let note = Note::new(Provenance::Issued, None);
        for floor in [buckets.floor, 5000, 5255, 5256, 1 << 40].map(|floor| floor.max(buckets.floor)) {
            buckets.pass(floor);
            for ahead in [0, 1, 49, 50, 51, 63, 64, 250, 251, 1250, 6000, 6250] {
                let late = buckets.of(buckets.file(note, floor + ahead)) - (floor + ahead);
                assert!(late <= ahead / 10, "{ahead} ticks ahead are {late} late");
            }
            let furthest = buckets.of(buckets.file(note, u64::MAX));
            assert!((floor + 62 * 125..=floor + 64 * 125).contains(&furthest), "{furthest}");
            assert_eq!(buckets.of(buckets.file(note, 0)), floor);
        }
    }

    #[test]
    fn a_note_says_the_same_until_its_bucket_is_passed() {
        for longest in [HOUR, 366 * 24 * HOUR] {
            let buckets = Buckets::new(longest, 0);
            for ahead in (0..=buckets.at(longest)).step_by(7) {
                let mut buckets = buckets;
                buckets.pass(1_000_003);
                let note = buckets.file(Note::new(Provenance::Issued, None), buckets.floor + ahead);
                let last = buckets.of(note);
                for floor in (buckets.floor..last).step_by(11).chain([last]) {
                    buckets.pass(floor);
                    assert_eq!(buckets.of(note), last);
                }
            }
        }
    }

    #[test]
    fn a_long_life_does_not_coarsen_a_short_one() {
        let buckets = Buckets::new(366 * 24 * HOUR, 0);
        for (hours, late) in [(36, 2), (31 * 24, 36), (366 * 24, 8 * 24)] {
            let note = buckets.file(Note::new(Provenance::Issued, None), buckets.at(hours * HOUR));
            let over = buckets.begins(buckets.of(note) + 1);
            assert!((hours * HOUR..=(hours + late) * HOUR).contains(&over), "{hours} h: {} h", over / HOUR);
        }
    }
}
