//! Bodies as the tools of the trade compress them, and bodies as nobody should.

use base64::Engine as _;
use miniz_oxide::deflate::{compress_to_vec, compress_to_vec_zlib};
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec as zstd_to_vec};

use super::*;

/// [`text`] by brotli's own encoder at level 11.
const BROTLI: &str = "GyoDIIzTFfOihHUPAlpX6pMXPITyZgPcOixdfSFoJ3HG36N3XdRlWVgYBjygoe0GsrmNLUe0rcCk1fHnvIfdFXbhj7\
    ufwfJb2cyK821zW+n2f2Xb2FZyxYffYlj+V/blk1FzdzjNjgWzGFUOhLCNVLDGI6Z/tgsYgdSOKH+IaQg3c2vjAl+J2fO7vLE3zVZbdtqx156D\
    Dhx15EQnnOqUM51xrvN7a5Aq1zPCxtuxHw==";
/// [`text`] by zstd's own encoder at level 19, with its length and a checksum.
const ZSTD: &str = "KLUv/WQrAt0FANIKIxlQ1wMMrb/Tf0r+VA+JtUZjVUUQBhw7M2NCYTjNOedMEgQ5DsMoCoIYBkGYM4aT7/c6yqPvx/\
    e3P6Ztjy6B/VTWaYD6Z1d7lNRxdlCivmXPZY8H9f1b59ExG2GpZJTGhCqQug41N7lC+LPeB4nNzKzf49jc5GqhLOu9U9d/aZyD1C93scfvNkf9\
    0hwMGagQ6Oof7RmQo6g6EBBChP+ixErOByBAfIokKf6b9k/7Ffn0ddL6YMN7UQpQvS9R";
/// [`text`] by zstd as a stream with a window of 16 MiB.
const ZSTD_WIDE: &str = "KLUv/QBw3QUA0gojGVDXAwytv9N/Sv5UD4m1RmNVRRAGHDszY0JhOM0550wSBDkOwygKghgGQZgzhpPv9zrKo+/H97\
    c/pm2PLoH9VNZpgPpnV3uU1HF2UKK+Zc9ljwf1/Vvn0TEbYalklMaEKpC6DjU3uUL4s94Hic3MrN/j2NzkaqEs671T139pnIPUL3exx+82R/3S\
    HAwZqBDo6h/tGZCjqDoQEEKE/6LESs4HIEB8iiQp/pv2T/sV+fR10vpgw3tRCg==";

/// What the constants hold.
fn text() -> Vec<u8> {
    let item = |id: u32| format!(r#"{{"id":{id},"name":"item number {id}","roles":["reader","buyer"]}}"#);
    let items: Vec<_> = (0..12).map(item).collect();
    let token = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiI3In0.c2lnbmF0dXJl";
    format!(r#"{{"ok":true,"data":{{"token":"{token}","user":7,"items":[{}]}}}}"#, items.join(",")).into_bytes()
}

fn stored(base64: &str) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(base64).unwrap()
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| crc >> 1 ^ (0xedb8_8320 & 0u32.wrapping_sub(crc & 1)))
    })
}

/// A gzip member with every optional field.
pub(in crate::collect) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 2 | 4 | 8 | 16, 1, 2, 3, 4, 0, 255];
    out.extend(b"\x03\x00abcname\0comment\0hc");
    out.extend(compress_to_vec(plain, 6));
    out.extend(crc(plain).to_le_bytes());
    out.extend(u32::try_from(plain.len()).unwrap().to_le_bytes());
    out
}

/// A brotli stream (window of 64 KiB) of stored meta-blocks (RFC 7932 §9.2).
pub(in crate::collect) fn brotli(plain: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    // WBITS 16, not last, MNIBBLES 4, MLEN - 1, ISUNCOMPRESSED: 21 bits before the bytes begin.
    let mut first = true;
    for piece in plain.chunks(65_536) {
        let length = u32::try_from(piece.len() - 1).unwrap();
        // ISLAST 0, MNIBBLES 0, length, uncompressed 1; WBITS 16 is one 0 bit in front of the first.
        let header = length << 3 | 1 << 19;
        let header = if first { header << 1 } else { header };
        first = false;
        out.extend(&header.to_le_bytes()[..3]);
        out.extend(piece);
    }
    // ISLAST, ISLASTEMPTY; behind WBITS when nothing came.
    out.push(if first { 0b110 } else { 0b11 });
    out
}

pub(in crate::collect) fn encoded(coding: &str, plain: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => gzip(plain),
        "deflate" => compress_to_vec_zlib(plain, 6),
        "raw" => compress_to_vec(plain, 6),
        "br" => brotli(plain),
        _ => zstd_to_vec(plain, CompressionLevel::Fastest),
    }
}

fn decode(list: &str, body: &[u8], max: usize) -> Result<Vec<u8>, Undecodable> {
    Decompressor::new(max).decode(list.as_bytes(), body).map(<[u8]>::to_vec)
}

const CODINGS: [&str; 5] = ["gzip", "deflate", "raw", "br", "zstd"];

fn name(coding: &str) -> &str {
    if coding == "raw" { "deflate" } else { coding }
}

#[test]
fn what_encoders_make() {
    assert_eq!(decode("br", &stored(BROTLI), 4096).unwrap(), text());
    assert_eq!(decode("zstd", &stored(ZSTD), 4096).unwrap(), text());
    assert_eq!(decode("zstd", &stored(ZSTD_WIDE), 4096), Err(Undecodable::Window));
    for coding in CODINGS {
        assert_eq!(decode(name(coding), &encoded(coding, &text()), 4096).unwrap(), text(), "{coding}");
    }
}

#[test]
fn lists_of_codings() {
    let twice = encoded("br", &gzip(b"text"));
    let thrice = encoded("zstd", &twice);
    for (list, body) in [
        ("", &b"text"[..]),
        ("identity", b"text"),
        (" , Identity,", b"text"),
        ("X-GZIP", &gzip(b"text")),
        ("identity, gzip", &gzip(b"text")),
        ("gzip,BR", &twice),
        ("GZip ,\tbr, identity, zstd", &thrice),
        ("gzip", b""),
        ("nobody knows", b""),
    ] {
        let want: &[u8] = if body.is_empty() { b"" } else { b"text" };
        assert_eq!(decode(list, body, 4096).as_deref(), Ok(want), "{list}");
    }
    let four = gzip(&thrice);
    for (list, body) in [
        ("gzip, br, zstd, gzip", &four),
        ("compress", &four),
        ("gzip;q=1", &four),
        ("dcb", &four),
        (&",".repeat(20), &four),
    ] {
        assert_eq!(decode(list, body, 4096), Err(Undecodable::Coding), "{list}");
    }
    assert_eq!(decode("br, gzip", &twice, 4096), Err(Undecodable::Corrupt), "the wrong way round");
}

#[test]
fn members_and_frames() {
    let two = [gzip(b"one, "), gzip(b"two")].concat();
    assert_eq!(decode("gzip", &two, 8).unwrap(), b"one, two");
    assert_eq!(decode("gzip", &two, 7), Err(Undecodable::TooLong));
    assert_eq!(decode("gzip", &[&two[..], b"\0\0\0"].concat(), 8).unwrap(), b"one, two", "padding");
    let skippable = b"\x50\x2a\x4d\x18\x03\0\0\0abc";
    let frames = [skippable, &encoded("zstd", b"one, ")[..], skippable, &encoded("zstd", b"two")].concat();
    assert_eq!(decode("zstd", &frames, 8).unwrap(), b"one, two");
    assert_eq!(decode("zstd", &frames, 7), Err(Undecodable::TooLong));
    assert_eq!(decode("zstd", b"\x50\x2a\x4d\x18\xff\xff\xff\xffabc", 8), Err(Undecodable::Truncated));
}

#[test]
fn bombs_stop_at_the_bound() {
    let zeros = vec![0; 32 << 20];
    for coding in ["gzip", "deflate", "raw", "zstd"] {
        let bomb = encoded(coding, &zeros);
        assert!(bomb.len() < zeros.len() / 100, "{coding}");
        let mut one = Decompressor::new(100_000);
        assert_eq!(one.decode(name(coding).as_bytes(), &bomb), Err(Undecodable::TooLong), "{coding}");
        assert!(one.plain.len() == 0 && one.inner.len() == 0);
        // It goes on with the next body as if nothing had been.
        assert_eq!(one.decode(name(coding).as_bytes(), &encoded(coding, b"next")), Ok(&b"next"[..]), "{coding}");
    }
    // A million zeros in 14 bytes, by brotli's own encoder.
    assert_eq!(decode("br", &stored("W///j38CIB4LBHLvHwA="), (1 << 20) - 1), Err(Undecodable::TooLong));
    assert_eq!(decode("br", &stored("W///j38CIB4LBHLvHwA="), 1 << 20).unwrap(), vec![0; 1 << 20]);
    // The layer between two codings is bounded, too.
    let nested = gzip(&gzip(&zeros));
    assert_eq!(decode("gzip, gzip", &nested, 1000), Err(Undecodable::TooLong));
}

#[test]
fn exactly_the_bound() {
    for coding in CODINGS {
        for length in [1, FIRST_ROOM - 1, FIRST_ROOM, FIRST_ROOM + 1, 200_000] {
            let plain: Vec<u8> = (0..length).map(|at| (at * at / 7).to_le_bytes()[0]).collect();
            let body = encoded(coding, &plain);
            assert_eq!(decode(name(coding), &body, length).unwrap(), plain, "{coding} {length}");
            assert_eq!(decode(name(coding), &body, length - 1), Err(Undecodable::TooLong), "{coding} {length}");
        }
    }
}

#[test]
fn checksums_count() {
    let mut bad = gzip(b"text");
    let at = bad.len() - 8;
    bad[at] ^= 1;
    assert_eq!(decode("gzip", &bad, 100), Err(Undecodable::Corrupt));
    let mut bad = gzip(b"text");
    let at = bad.len() - 1;
    bad[at] ^= 1;
    assert_eq!(decode("gzip", &bad, 100), Err(Undecodable::Corrupt));
    let mut bad = encoded("deflate", b"text");
    let at = bad.len() - 1;
    bad[at] ^= 1;
    assert_eq!(decode("deflate", &bad, 100), Err(Undecodable::Corrupt));
    let mut bad = stored(ZSTD);
    let at = bad.len() - 1;
    bad[at] ^= 1;
    assert_eq!(decode("zstd", &bad, 4096), Err(Undecodable::Corrupt));
}

#[test]
fn brotli_has_no_large_windows() {
    assert_eq!(decode("br", &[0x11, 0x3e, 0, 0, 0, 0], 100), Err(Undecodable::Window));
}

#[test]
fn prints_no_content() {
    let mut one = Decompressor::new(100);
    one.decode(b"gzip", &gzip(b"canary")).unwrap();
    assert_eq!(format!("{one:?}"), "Decompressor(6 of at most 100 bytes)");
    one.wipe();
    assert_eq!(one.plain.len(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trips(plain in proptest::collection::vec(any::<u8>(), 0..3000), first in 0usize..5, second in 0usize..5) {
        let (first, second) = (CODINGS[first], CODINGS[second]);
        let body = encoded(second, &encoded(first, &plain));
        prop_assert_eq!(decode(&format!("{}, {}", name(first), name(second)), &body, 10_000).unwrap(), plain);
    }

    /// What is cut short is never taken for whole.
    #[test]
    fn cut_short(coding in 0usize..5, keep in 1usize..1000) {
        let coding = CODINGS[coding];
        let body = if coding == "br" { stored(BROTLI) } else { encoded(coding, &text()) };
        let keep = keep % (body.len() - 1) + 1;
        let got = decode(name(coding), &body[..keep], 10_000);
        // zlib's header tells it from raw deflate; one byte of it does not.
        let want: &[Undecodable] = if keep < 4 { &[Undecodable::Truncated, Undecodable::Corrupt] } else { &[Undecodable::Truncated] };
        prop_assert!(want.contains(&got.unwrap_err()), "{} {}", coding, keep);
    }

    #[test]
    fn random_bytes(list in "(gzip|deflate|br|zstd|, ){1,5}", body in proptest::collection::vec(any::<u8>(), 0..600)) {
        if let Ok(plain) = decode(&list, &body, 5000) {
            prop_assert!(plain.len() <= 5000 || plain == body);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Damaged bodies, one decoder after another: no panic, no output beyond the bound, and the next body is read.
    #[test]
    fn damaged(coding in 0usize..5, damage in proptest::collection::vec((0usize..1000, any::<u8>()), 1..6)) {
        let coding = CODINGS[coding];
        let mut body = match coding {
            "br" => stored(BROTLI),
            "zstd" => stored(ZSTD),
            _ => encoded(coding, &text()),
        };
        for (at, byte) in damage {
            let at = at % body.len();
            body[at] = byte;
        }
        let mut one = Decompressor::new(5000);
        if let Ok(plain) = one.decode(name(coding).as_bytes(), &body) {
            prop_assert!(plain.len() <= 5000);
        }
        let next = encoded(coding, b"next");
        prop_assert_eq!(one.decode(name(coding).as_bytes(), &next).unwrap(), b"next");
    }
}
