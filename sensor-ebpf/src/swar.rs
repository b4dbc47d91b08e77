//! Eight bytes at a time: finding line ends and delimiters without a loop over bytes.
//!
//! Pure functions over little-endian words (byte 0 is the lowest). The BPF target has no count-trailing-zeros
//! instruction, so the position of a match comes from one multiplication.

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// `byte` in all eight places.
#[inline(always)]
pub const fn splat(byte: u8) -> u64 {
    LOW * byte as u64
}

/// Marks (bit 7 of) the bytes of `word` that equal the byte splatted in `pattern`. The lowest mark is exact; marks
/// above it may be false.
#[inline(always)]
pub const fn equal(word: u64, pattern: u64) -> u64 {
    let x = word ^ pattern;
    x.wrapping_sub(LOW) & !x & HIGH
}

/// As [`equal`], with every mark exact.
#[inline(always)]
pub const fn equal_exact(word: u64, pattern: u64) -> u64 {
    let x = word ^ pattern;
    !(((x & !HIGH).wrapping_add(!HIGH)) | x) & HIGH
}

/// Marks the bytes below the byte splatted in `limit` (at most 0x80). The lowest mark is exact.
#[inline(always)]
pub const fn below(word: u64, limit: u64) -> u64 {
    word.wrapping_sub(limit) & !word & HIGH
}

/// Index (0 to 7) of the lowest mark; `marks` must not be 0.
#[inline(always)]
pub const fn first(marks: u64) -> u32 {
    // The lowest mark alone is 0x80 << 8k; moved to 1 << 8k, the product has k in its top byte.
    let lowest = (marks & marks.wrapping_neg()) >> 7;
    (lowest.wrapping_mul(0x0001_0203_0405_0607) >> 56) as u32
}

/// Number of marks (all exact).
#[inline(always)]
pub const fn count(marks: u64) -> u32 {
    ((marks >> 7).wrapping_mul(LOW) >> 56) as u32
}

/// The low `bytes` (0 to 8) of `word`, the others zero.
#[inline(always)]
pub const fn keep(word: u64, bytes: u32) -> u64 {
    if bytes >= 8 { word } else { word & !(u64::MAX << (8 * (bytes & 7))) }
}

/// ASCII capitals made small.
#[inline(always)]
pub const fn lower(word: u64) -> u64 {
    let seven = word & !HIGH;
    let from_a = seven.wrapping_add(splat(0x80 - b'A'));
    let past_z = seven.wrapping_add(splat(0x7f - b'Z'));
    word | ((!word & HIGH & (from_a ^ past_z)) >> 2)
}

/// The word of up to eight bytes of `text`, for comparing with constants.
#[expect(clippy::indexing_slicing, reason = "the index is below the length; iterators are not const")]
pub const fn literal(text: &[u8]) -> u64 {
    let mut word = 0;
    let mut i = text.len();
    while i > 0 {
        i -= 1;
        word = word << 8 | text[i] as u64;
    }
    word
}

/// The value of a hexadecimal digit; 16 for any other byte.
#[inline(always)]
pub const fn hex_digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        _ => 16,
    }
}

/// The value of the low `digits` (at most 8) bytes of `word`, the most significant first, as a decimal number; `None` if
/// one is no digit, or there are more.
#[inline(always)]
pub const fn decimal(word: u64, digits: u32) -> Option<u64> {
    if digits > 8 {
        return None;
    }
    if digits == 0 {
        return Some(0);
    }
    let each = keep(word ^ splat(b'0'), digits);
    if (each | each.wrapping_add(splat(0x80 - 10))) & HIGH != 0 {
        return None;
    }
    // Zeros in front make it eight digits; then pairs, fours and the whole.
    let each = each << (8 * ((8 - digits) & 7));
    let pairs = (each * 10 + (each >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_bytes(bytes in any::<[u8; 8]>(), needle in any::<u8>(), limit in 0u8..=0x80, n in 0u32..9) {
            let word = u64::from_le_bytes(bytes);
            let want = bytes.iter().position(|b| *b == needle);
            let got = equal(word, splat(needle));
            prop_assert_eq!((got != 0).then(|| first(got) as usize), want);
            let exact = equal_exact(word, splat(needle));
            for (i, b) in bytes.iter().enumerate() {
                prop_assert_eq!(exact >> (8 * i) & 0x80 != 0, *b == needle);
            }
            prop_assert_eq!(count(exact) as usize, bytes.iter().map(|b| usize::from(*b == needle)).sum::<usize>());
            let under = below(word, splat(limit));
            prop_assert_eq!((under != 0).then(|| first(under) as usize), bytes.iter().position(|b| *b < limit));
            prop_assert_eq!(lower(word).to_le_bytes(), bytes.map(|b| b.to_ascii_lowercase()));
            let text = bytes.map(|b| if limit < 0x70 { b'0' + b % 10 } else { b });
            let text = &text[..(n as usize).min(8)];
            let number = core::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            let want = number.and_then(|t| if t.is_empty() { Some(0) } else { t.parse().ok() });
            prop_assert_eq!(decimal(literal(text), n.min(8)), want);
            let mut kept = [0; 8];
            kept[..n as usize].copy_from_slice(&bytes[..n as usize]);
            prop_assert_eq!(keep(word, n).to_le_bytes(), kept);
        }
    }
}
