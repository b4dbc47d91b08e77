//! Brotli (RFC 7932). The window is at most 16 MiB, by its format: large windows are not offered to HTTP.

use brotli_decompressor::{
    Allocator, BrotliDecoderErrorCode, BrotliDecompressStream, BrotliResult, BrotliState, HuffmanCode, SliceWrapper,
    SliceWrapperMut,
};
use zeroize::Zeroize as _;

use super::{Output, Undecodable};

/// Decodes one stream. What follows it is ignored, as clients do.
pub(super) fn decode(body: &[u8], out: &mut Output<'_>) -> Result<(), Undecodable> {
    let mut state = Box::new(BrotliState::new_strict(Heap, Heap, Heap));
    let mut left = body.len();
    let mut at_input = 0;
    let mut total = 0;
    out.fill(|buffer, at| {
        let mut to = at;
        let mut room = buffer.len() - at;
        let result =
            BrotliDecompressStream(&mut left, &mut at_input, body, &mut room, &mut to, buffer, &mut total, &mut state);
        match result {
            BrotliResult::ResultSuccess => Ok((to, true)),
            BrotliResult::NeedsMoreOutput => Ok((to, false)),
            BrotliResult::NeedsMoreInput => Err(Undecodable::Truncated),
            BrotliResult::ResultFailure => Err(match state.error_code {
                // With large windows off, theirs are wrong.
                BrotliDecoderErrorCode::BROTLI_DECODER_ERROR_FORMAT_WINDOW_BITS => Undecodable::Window,
                _ => Undecodable::Corrupt,
            }),
        }
    })
}

/// The decoder's memory.
struct Heap;

/// Bytes that hold what was decoded: wiped.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Drop for Bytes {
    fn drop(&mut self) {
        self.0.as_mut_slice().zeroize();
    }
}

impl SliceWrapper<u8> for Bytes {
    fn slice(&self) -> &[u8] {
        &self.0
    }
}

impl SliceWrapperMut<u8> for Bytes {
    fn slice_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Allocator<u8> for Heap {
    type AllocatedMemory = Bytes;

    fn alloc_cell(&mut self, len: usize) -> Bytes {
        Bytes(vec![0; len])
    }

    fn free_cell(&mut self, data: Bytes) {
        drop(data);
    }
}

/// Tables of codes, which say nothing of the text.
struct Codes<T>(Vec<T>);

impl<T> Default for Codes<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> SliceWrapper<T> for Codes<T> {
    fn slice(&self) -> &[T] {
        &self.0
    }
}

impl<T> SliceWrapperMut<T> for Codes<T> {
    fn slice_mut(&mut self) -> &mut [T] {
        &mut self.0
    }
}

impl Allocator<u32> for Heap {
    type AllocatedMemory = Codes<u32>;

    fn alloc_cell(&mut self, len: usize) -> Codes<u32> {
        Codes(vec![0; len])
    }

    fn free_cell(&mut self, data: Codes<u32>) {
        drop(data);
    }
}

impl Allocator<HuffmanCode> for Heap {
    type AllocatedMemory = Codes<HuffmanCode>;

    fn alloc_cell(&mut self, len: usize) -> Codes<HuffmanCode> {
        Codes(vec![HuffmanCode::default(); len])
    }

    fn free_cell(&mut self, data: Codes<HuffmanCode>) {
        drop(data);
    }
}
