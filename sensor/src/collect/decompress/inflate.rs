//! gzip (RFC 1952), zlib (RFC 1950) and raw deflate (RFC 1951). The output is the window, so nothing is kept besides.

use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_PARSE_ZLIB_HEADER, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

use super::{Output, Undecodable};

/// gzip members, one behind the other. What follows them and is none is ignored, as clients do.
pub(super) fn gzip(body: &[u8], out: &mut Output<'_>) -> Result<(), Undecodable> {
    let mut rest = body;
    loop {
        let from = out.bytes.len();
        let used = inflate(after_header(rest)?, 0, out, from)?;
        let behind = after_header(rest)?.get(used..).unwrap_or_default();
        let (trailer, after) = behind.split_first_chunk::<8>().ok_or(Undecodable::Truncated)?;
        let member = out.bytes.as_slice().get(from..).unwrap_or_default();
        let [a, b, c, d, size @ ..] = *trailer;
        let length = u32::try_from(member.len()).unwrap_or(u32::MAX);
        if u32::from_le_bytes([a, b, c, d]) != crc32(member) || u32::from_le_bytes(size) != length {
            return Err(Undecodable::Corrupt);
        }
        if !after.starts_with(&[0x1f, 0x8b]) {
            return Ok(());
        }
        rest = after;
    }
}

/// `deflate` means zlib (RFC 9110 §8.4.1.2); some servers send it raw, and clients take both.
pub(super) fn deflate(body: &[u8], out: &mut Output<'_>) -> Result<(), Undecodable> {
    let zlib = match body {
        [method, flags, ..] => method & 0xf == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31),
        _ => false,
    };
    inflate(body, if zlib { TINFL_FLAG_PARSE_ZLIB_HEADER } else { 0 }, out, 0).map(|_| ())
}

/// Inflates the stream that `input` begins with behind the `from` bytes of `out`, and gives its length.
fn inflate(input: &[u8], flags: u32, out: &mut Output<'_>, from: usize) -> Result<usize, Undecodable> {
    let mut state = Box::new(DecompressorOxide::new());
    let flags = flags | TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF;
    let mut used = 0;
    out.fill(|buffer, at| {
        // Another member's bytes are no window of this one.
        let buffer = buffer.get_mut(from..).unwrap_or_default();
        let rest = input.get(used..).unwrap_or_default();
        let (status, read, written) = decompress(&mut state, rest, buffer, at - from, flags);
        used += read;
        match status {
            TINFLStatus::Done => Ok((at + written, true)),
            TINFLStatus::HasMoreOutput => Ok((at + written, false)),
            TINFLStatus::NeedsMoreInput | TINFLStatus::FailedCannotMakeProgress => Err(Undecodable::Truncated),
            _ => Err(Undecodable::Corrupt),
        }
    })?;
    Ok(used)
}

/// What follows the header of a gzip member.
fn after_header(member: &[u8]) -> Result<&[u8], Undecodable> {
    const HEADER_CRC: u8 = 2;
    const EXTRA: u8 = 4;
    const NAME: u8 = 8;
    const COMMENT: u8 = 16;
    const RESERVED: u8 = 0xe0;
    let (fixed, mut rest) = member.split_first_chunk::<10>().ok_or(Undecodable::Truncated)?;
    let [0x1f, 0x8b, 8, flags, ..] = *fixed else { return Err(Undecodable::Corrupt) };
    if flags & RESERVED != 0 {
        return Err(Undecodable::Corrupt);
    }
    if flags & EXTRA != 0 {
        let (length, after) = rest.split_first_chunk().ok_or(Undecodable::Truncated)?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..).ok_or(Undecodable::Truncated)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|byte| *byte == 0).ok_or(Undecodable::Truncated)?;
            rest = rest.get(end + 1..).unwrap_or_default();
        }
    }
    if flags & HEADER_CRC != 0 {
        rest = rest.get(2..).ok_or(Undecodable::Truncated)?;
    }
    Ok(rest)
}

/// The CRC of RFC 1952 §8, four bits at a time.
fn crc32(bytes: &[u8]) -> u32 {
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0;
        while index < 16 {
            let mut value = index;
            let mut bit = 0;
            while bit < 4 {
                value = if value & 1 == 0 { value >> 1 } else { value >> 1 ^ 0xedb8_8320 };
                bit += 1;
            }
            #[expect(clippy::indexing_slicing, reason = "a constant loop over the table")]
            {
                table[index as usize] = value;
            }
            index += 1;
        }
        table
    };
    let step = |crc: u32| crc >> 4 ^ TABLE.get(crc as usize & 0xf).copied().unwrap_or_default();
    !bytes.iter().fold(!0, |crc, byte| step(step(crc ^ u32::from(*byte))))
}

#[cfg(test)]
mod tests {
    #[test]
    fn crc() {
        assert_eq!(super::crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(super::crc32(b""), 0);
    }
}
