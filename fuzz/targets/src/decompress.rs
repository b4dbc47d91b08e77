//! Content codings of a body: any bytes as any coding, and any plain text coded and decoded again.
//!
//! What must hold: no result beyond its bound; the same body gives the same result, whatever was decoded before; a smaller
//! bound changes nothing but that longer results are refused; what was coded comes back.

use std::sync::OnceLock;

use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
use ruzstd::encoding::{CompressionLevel, compress_to_vec as compress_zstd};
use sensor::collect::decompress::{Decompressor, Undecodable};

/// `Content-Encoding` values; beyond them the list itself is part of the input.
const LISTS: &[&str] =
    &["gzip", "deflate", "br", "zstd", "gzip, br", "zstd,gzip", "deflate,deflate,deflate", "x-gzip, identity", ", ,BR"];
/// Bounds.
const BOUNDS: [usize; 4] = [0, 100, 4096, 256 << 10];
/// Larger than what any input can fill in a reasonable time is not needed.
const LARGE: usize = 1 << 20;

/// The first byte chooses list and bound, and whether the rest is a coded body or a plain text.
pub fn target(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let max = BOUNDS[usize::from(mode >> 4 & 3)];
    if mode & 0x80 != 0 {
        return round_trip(rest, max);
    }
    if let Some(list) = LISTS.get(usize::from(mode & 15)) {
        coded(list.as_bytes(), rest, max);
    } else {
        let at = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        let (list, body) = rest.split_at(at);
        coded(list, body, max);
    }
}

fn coded(list: &[u8], body: &[u8], max: usize) {
    let mut decompressor = Decompressor::new(max);
    let first = decompressor.decode(list, body).map(<[u8]>::to_vec);
    if let Ok(plain) = &first {
        let bound = if plain == body { body.len().max(max) } else { max };
        assert!(plain.len() <= bound, "{} bytes, bound {max}", plain.len());
    }
    let again = decompressor.decode(list, body).map(<[u8]>::to_vec);
    assert_eq!(first, again, "decoded twice");
    let large = Decompressor::new(LARGE).decode(list, body).map(<[u8]>::to_vec);
    match first {
        // What is too long may turn out to be broken further on. (In a stack, what lies between has the bound too.)
        Err(Undecodable::TooLong) if !list.contains(&b',') => {
            assert!(!matches!(large, Ok(plain) if plain.len() <= max), "refused, although it fits");
        }
        Err(Undecodable::TooLong) => {}
        other => assert_eq!(other, large, "with another bound"),
    }
}

fn round_trip(plain: &[u8], max: usize) {
    let mut decompressor = Decompressor::new(max);
    let raw = compress_to_vec(plain, 6);
    let bodies = [
        ("gzip", gzip(&raw, plain)),
        ("deflate", compress_to_vec_zlib(plain, 6)),
        ("deflate", raw),
        ("zstd", compress_zstd(plain, CompressionLevel::Fastest)),
    ];
    for (list, body) in bodies {
        // (A raw deflate stream may happen to begin like one with a header.)
        let decoded = decompressor.decode(list.as_bytes(), &body);
        if plain.len() <= max {
            assert_eq!(decoded, Ok(plain), "{list}");
        } else {
            assert_eq!(decoded, Err(Undecodable::TooLong), "{list}");
        }
    }
}

/// A gzip member (RFC 1952) around a deflate stream.
fn gzip(raw: &[u8], plain: &[u8]) -> Vec<u8> {
    let len = u32::try_from(plain.len()).expect("inputs are short");
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255], raw, &crc(plain).to_le_bytes(), &len.to_le_bytes()].concat()
}

/// CRC-32 as gzip has it.
fn crc(bytes: &[u8]) -> u32 {
    static TABLE: OnceLock<Vec<u32>> = OnceLock::new();
    let step = |value: u32| if value & 1 == 0 { value >> 1 } else { value >> 1 ^ 0xedb8_8320 };
    let table = TABLE.get_or_init(|| (0..256).map(|index| (0..8).fold(index, |value, _| step(value))).collect());
    !bytes.iter().fold(!0, |crc, byte| table[usize::from(crc.to_le_bytes()[0] ^ byte)] ^ crc >> 8)
}
