//! Zstandard (RFC 8878), with windows of at most 8 MiB, which is what RFC 9659 lets HTTP use.
//!
//! The decoder keeps its own buffers, which nobody else can reach: zeros are decoded over what they held. They get their
//! full size by decoding zeros, too, before anything else: a buffer that grows leaves a copy behind.

use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

use super::{Output, Undecodable};

/// Largest window, bytes (RFC 9659 §3).
const WINDOW_MAX: u64 = 8 << 20;
/// Largest block, bytes (RFC 8878 §3.1.1.2.4).
const BLOCK_MAX: usize = 128 << 10;
/// Literals of one block of zeros: with what stands around them, the block is as large as one can be.
const ZEROS: usize = BLOCK_MAX - 4;
/// Magic number, no flags, and a window of 128 KiB.
const ZERO_FRAME: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd, 0, 7 << 3];

/// The decoder.
#[derive(Default)]
pub(super) struct Decoder {
    /// Made when the first body comes; most services never send one.
    frames: Option<Box<FrameDecoder>>,
}

impl Decoder {
    /// Decodes frames one behind the other; skippable ones are skipped.
    pub fn decode(&mut self, body: &[u8], out: &mut Output<'_>) -> Result<(), Undecodable> {
        let most = out.max.saturating_add(BLOCK_MAX);
        let frames = self.frames.get_or_insert_with(|| {
            let mut frames = Box::new(FrameDecoder::new());
            frames.set_max_window_size(WINDOW_MAX);
            overwrite(&mut frames, most);
            frames
        });
        let decoded = decode(frames, body, out);
        overwrite(frames, if decoded.is_ok() { out.bytes.len() } else { most });
        decoded
    }
}

fn decode(frames: &mut FrameDecoder, body: &[u8], out: &mut Output<'_>) -> Result<(), Undecodable> {
    let mut rest = body;
    let failed = |rest: &[u8]| if rest.is_empty() { Undecodable::Truncated } else { Undecodable::Corrupt };
    while !rest.is_empty() {
        match frames.reset(&mut rest) {
            Ok(()) => {}
            Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                rest = rest.get(length..).ok_or(Undecodable::Truncated)?;
                continue;
            }
            Err(FrameDecoderError::WindowSizeTooBig { .. }) => return Err(Undecodable::Window),
            Err(_) => return Err(failed(rest)),
        }
        // The whole frame, or more of it than may be: at most one block beyond the bound.
        let room = out.max.saturating_sub(out.bytes.len()).saturating_add(1);
        let whole =
            frames.decode_blocks(&mut rest, BlockDecodingStrategy::UptoBytes(room)).map_err(|_| failed(rest))?;
        if !whole || frames.can_collect() >= room {
            return Err(Undecodable::TooLong);
        }
        frames.collect_to_writer(&mut *out).map_err(|_| Undecodable::TooLong)?;
        if frames.get_checksum_from_data().is_some_and(|said| frames.get_calculated_checksum() != Some(said)) {
            return Err(Undecodable::Corrupt);
        }
    }
    Ok(())
}

impl std::io::Write for Output<'_> {
    fn write(&mut self, more: &[u8]) -> std::io::Result<usize> {
        self.push(more).map_err(|_| std::io::ErrorKind::StorageFull)?;
        Ok(more.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Decodes `held` bytes of zeros and some more. A frame begins at the start of the decoder's buffers, whatever was there.
fn overwrite(frames: &mut FrameDecoder, held: usize) {
    // Compressed, 128 KiB long; its literals are raw and 20 bits say how many; no sequences follow.
    let block = (2 << 1 | BLOCK_MAX << 3).to_le_bytes();
    let literals = (3 << 2 | ZEROS << 4).to_le_bytes();
    let mut zeros = Vec::with_capacity(BLOCK_MAX + 3);
    zeros.extend_from_slice(block.get(..3).unwrap_or_default());
    zeros.extend_from_slice(literals.get(..3).unwrap_or_default());
    zeros.resize(BLOCK_MAX + 3, 0);
    let mut decoded = frames.reset(ZERO_FRAME);
    for _ in 0..=held / ZEROS {
        decoded = decoded
            .and_then(|()| frames.decode_blocks(zeros.as_slice(), BlockDecodingStrategy::UptoBlocks(1)).map(|_| ()));
    }
    debug_assert!(decoded.is_ok(), "zeros decode: {decoded:?}");
}
