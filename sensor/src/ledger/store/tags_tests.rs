use std::collections::BTreeMap;

use proptest::prelude::*;
use sensor_ebpf::siphash::{Key as SipKey, hash128};

use super::*;

/// A random id, the same for the same `n`.
fn bits(n: u64) -> u64 {
    u64::from_be_bytes(*hash128(SipKey { k0: 3, k1: 4 }, &n.to_le_bytes()).first_chunk().unwrap())
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Insert(u64, u16),
    Change(u64, u16),
    Sweep(u16),
    Evict(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0u64..400, any::<u16>()).prop_map(|(n, note)| Step::Insert(n, note)),
        4 => (0u64..400, any::<u16>()).prop_map(|(n, note)| Step::Change(n, note)),
        1 => (0u16..16).prop_map(Step::Sweep),
        1 => (0u64..400).prop_map(Step::Evict),
    ]
}

fn check(table: &Tags, model: &BTreeMap<Id, u16>) -> Result<(), TestCaseError> {
    prop_assert_eq!(table.len(), model.len());
    for n in 0..400 {
        let id = table.id(bits(n));
        prop_assert_eq!(table.get(id), model.get(&id).copied());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    /// Against a map, with ids that meet in rows and tags: few bits in every part.
    #[test]
    fn is_a_map(steps in proptest::collection::vec(step(), 0..600), narrow in 1u32..=40, capacity in 1usize..500) {
        let mut table = Tags::with_tags_of(narrow, capacity);
        let mut model: BTreeMap<Id, u16> = BTreeMap::new();
        for step in steps {
            match step {
                Step::Insert(n, note) => {
                    let id = table.id(bits(n) & 0xff_ffff | bits(n) << 60 | (bits(n) & 0xff00_0000) << 20);
                    let id = if n % 2 == 0 { id } else { table.id(bits(n)) };
                    if table.get(id).is_none() {
                        let room = model.len() < capacity;
                        prop_assert_eq!(table.insert(id, note), room);
                        if room { model.insert(id, note); }
                    }
                }
                Step::Change(n, note) => {
                    let id = table.id(bits(n));
                    let before = model.get_mut(&id).map(|value| std::mem::replace(value, note));
                    prop_assert_eq!(table.change(id, |_| note), before);
                }
                Step::Sweep(drop) => {
                    let mut gone = BTreeMap::new();
                    for region in 0..table.regions() {
                        table.sweep(region, |note| note % 16 != drop, |id, note| { gone.insert(id, note); });
                    }
                    let (keep, drop): (BTreeMap<_, _>, _) = model.into_iter().partition(|(_, note)| note % 16 != drop);
                    model = keep;
                    prop_assert_eq!(gone, drop);
                }
                Step::Evict(n) => {
                    let least = model.values().copied().min();
                    let evicted = table.evict(table.id(bits(n)), u64::from);
                    prop_assert_eq!(evicted.map(|(_, note)| note), least);
                    if let Some((id, _)) = evicted { prop_assert!(model.remove(&id).is_some()); }
                }
            }
        }
        check(&table, &model)?;
    }
}

#[test]
#[expect(clippy::cast_possible_truncation, reason = "any sixteen bits do")]
fn grows_by_hundreds_of_thousands_in_place() {
    let mut table = Tags::new(100_000);
    for n in 0..100_000u64 {
        assert!(table.insert(table.id(bits(n)), (n % 65_536) as u16), "{n}");
    }
    assert!(!table.insert(table.id(bits(100_000)), 0), "full");
    for n in 0..100_000u64 {
        assert_eq!(table.get(table.id(bits(n))), Some((n % 65_536) as u16));
    }
    assert!((100_000..200_000u64).all(|n| table.get(table.id(bits(n))).is_none()));
    assert!(table.bytes() < 100_000 * 7 * 65 / 64 + 128 * 2500, "{}", table.bytes());
}

/// The arithmetic of the module's text, where it can be seen: with `b` bits a wrong "there" comes once in
/// `2^b / tags of a row`, and each bit more halves it.
#[test]
#[expect(clippy::cast_precision_loss, reason = "small numbers")]
fn a_wrong_there_is_as_rare_as_the_tags_bits_say() {
    // As many tags in a row as there ever are on average.
    let capacity = ROW_TAGS * ROWS * REGIONS.0 / 64 * 64;
    let looks = 150_000u64;
    for tag_bits in [10, 12, 14] {
        let mut table = Tags::with_tags_of(tag_bits, capacity);
        let mut stored = 0;
        for n in 0..capacity as u64 / 16 {
            let id = table.id(bits(n));
            stored += u64::from(table.get(id).is_none() && table.insert(id, 0));
        }
        let wrong = (0..looks).filter(|n| table.get(table.id(bits(n + (1 << 40)))).is_some()).count();
        let row = stored as f64 / (REGIONS.0 * ROWS) as f64;
        let expected = row / f64::from(1 << tag_bits) * looks as f64;
        let error = (wrong as f64 - expected).abs() / expected.sqrt();
        assert!(error < 6.0, "{tag_bits} bits: {wrong} wrong, {expected} expected");
    }
    let errs = ROW_TAGS as f64 / 2f64.powi(TAG_BITS.cast_signed());
    assert!(errs < 1e-10, "{errs}");
    for capacity in [1, 1000, 1 << 20, 15_466_495, 15_466_497, 60_000_000, 61_865_984] {
        let table = Tags::new(capacity);
        assert!(capacity <= ROW_TAGS * ROWS * table.regions(), "{capacity}");
    }
}
