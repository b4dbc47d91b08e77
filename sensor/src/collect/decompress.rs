//! Takes the content codings off a message body (RFC 9110 §8.4): gzip, deflate, brotli, zstd, and lists of them.
//!
//! A whole coded body flows in, the plain one flows out, or the reason why there is none. What comes out is bounded, and
//! so are the windows of the decoders; what was decoded is wiped when the next body comes, or at once by
//! [`Decompressor::wipe`]. Bodies are chosen by whoever answers (or refreshes): nothing here trusts them.

use std::fmt;

use sensor_ebpf::wire::capture;

use super::counts::DecodingCounts;
use super::decode::Head;
use super::secret::SecretBuf;

mod brotli;
mod inflate;
mod zstd;

/// Codings that a body may have had applied to it; more is nobody's practice, but could be somebody's bomb.
const CODINGS_MAX: usize = 3;
/// Longest list of codings that is read, `identity` included.
const LIST_MAX: usize = 16;
/// Room that a decoder gets first; it doubles when that does not do.
const FIRST_ROOM: usize = 8 << 10;

/// Why a body could not be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Undecodable {
    /// A coding that is not known, or more than three of them.
    #[error("unknown content coding")]
    Coding,
    /// It ends before the coding does.
    #[error("coded body is cut short")]
    Truncated,
    /// It is not what its coding says.
    #[error("coded body is corrupt")]
    Corrupt,
    /// It grows beyond the bound.
    #[error("decoded body is too long")]
    TooLong,
    /// Decoding it takes a larger window than is granted.
    #[error("coded body needs too large a window")]
    Window,
}

/// One content coding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Gzip,
    Deflate,
    Brotli,
    Zstd,
}

impl Coding {
    /// `None`: not known. Names as registered with IANA, and `x-gzip` (RFC 9110 §8.4.1.3).
    fn named(name: &[u8]) -> Option<Self> {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match () {
            () if is("gzip") || is("x-gzip") => Some(Self::Gzip),
            () if is("deflate") => Some(Self::Deflate),
            () if is("br") => Some(Self::Brotli),
            () if is("zstd") => Some(Self::Zstd),
            () => None,
        }
    }
}

/// The codings of a `Content-Encoding` value, in the order in which they were applied.
fn codings(list: &[u8]) -> Result<([Option<Coding>; CODINGS_MAX], usize), Undecodable> {
    let mut applied = [None; CODINGS_MAX];
    let mut count = 0;
    for (seen, name) in list.split(|byte| *byte == b',').enumerate() {
        let name = name.trim_ascii();
        if seen >= LIST_MAX {
            return Err(Undecodable::Coding);
        }
        // Empty elements mean nothing (RFC 9110 §5.6.1).
        if name.is_empty() || name.eq_ignore_ascii_case(b"identity") {
            continue;
        }
        let slot = applied.get_mut(count).ok_or(Undecodable::Coding)?;
        *slot = Some(Coding::named(name).ok_or(Undecodable::Coding)?);
        count += 1;
    }
    Ok((applied, count))
}

/// Decodes bodies, one at a time.
pub struct Decompressor {
    /// The latest result.
    plain: SecretBuf,
    /// The result before, when codings are stacked.
    inner: SecretBuf,
    zstd: zstd::Decoder,
    max_bytes: usize,
}

/// What it holds stays out of whatever prints it.
impl fmt::Debug for Decompressor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Decompressor({} of at most {} bytes)", self.plain.len(), self.max_bytes)
    }
}

impl Decompressor {
    /// No result, nor one between two codings, is longer than `max_bytes`.
    pub fn new(max_bytes: usize) -> Self {
        Self { plain: SecretBuf::default(), inner: SecretBuf::default(), zstd: zstd::Decoder::default(), max_bytes }
    }

    /// The plain text of the whole `body` of `head`; `None`, counted, when it cannot be had.
    pub(super) fn plain<'a>(
        &'a mut self,
        head: &Head<'_>,
        body: &'a [u8],
        counts: &mut DecodingCounts,
    ) -> Option<&'a [u8]> {
        let list = head.capture(capture::CONTENT_ENCODING).unwrap_or_default();
        let bare = body.is_empty() || matches!(codings(list), Ok((_, 0)));
        let decoded = self.decode(list, body);
        let counter = match &decoded {
            Ok(_) if bare => return decoded.ok(),
            Ok(_) => &mut counts.decoded,
            Err(Undecodable::Coding) => &mut counts.unknown_coding,
            Err(Undecodable::Truncated) => &mut counts.truncated,
            Err(Undecodable::Corrupt) => &mut counts.corrupt,
            Err(Undecodable::TooLong) => &mut counts.too_long,
            Err(Undecodable::Window) => &mut counts.window,
        };
        *counter += 1;
        decoded.ok()
    }

    /// `body` without the codings that `list`, a `Content-Encoding` value, names: the last one is taken off first. An
    /// empty body is empty in any coding, as clients have it.
    pub fn decode<'a>(&'a mut self, list: &[u8], body: &'a [u8]) -> Result<&'a [u8], Undecodable> {
        self.wipe();
        if body.is_empty() {
            return Ok(body);
        }
        let (applied, count) = codings(list)?;
        if count == 0 {
            return Ok(body);
        }
        for (done, coding) in applied.iter().rev().flatten().enumerate() {
            std::mem::swap(&mut self.plain, &mut self.inner);
            self.plain.wipe();
            let from = if done == 0 { body } else { self.inner.as_slice() };
            let mut out = Output { bytes: &mut self.plain, max: self.max_bytes };
            let decoded = match coding {
                Coding::Gzip => inflate::gzip(from, &mut out),
                Coding::Deflate => inflate::deflate(from, &mut out),
                Coding::Brotli => brotli::decode(from, &mut out),
                Coding::Zstd => self.zstd.decode(from, &mut out),
            };
            if let Err(reason) = decoded {
                self.wipe();
                return Err(reason);
            }
        }
        self.inner.wipe();
        Ok(self.plain.as_slice())
    }

    /// Every buffer.
    #[cfg(test)]
    pub(super) fn buffers(&self) -> impl Iterator<Item = &SecretBuf> {
        [&self.plain, &self.inner].into_iter()
    }

    /// Overwrites the latest result.
    pub fn wipe(&mut self) {
        self.plain.wipe();
        self.inner.wipe();
    }
}

/// Where a decoder writes: at most `max` bytes.
struct Output<'a> {
    bytes: &'a mut SecretBuf,
    max: usize,
}

impl Output<'_> {
    /// Runs `write` on a buffer, of which the first `at` bytes are written, until it is done, and leaves just what it
    /// wrote. `write` gets the whole buffer and the place where to go on, and gives how far it came and whether that is
    /// all; it is called again with more room as long as it is not.
    fn fill(
        &mut self,
        mut write: impl FnMut(&mut [u8], usize) -> Result<(usize, bool), Undecodable>,
    ) -> Result<(), Undecodable> {
        let mut at = self.bytes.len();
        // One byte more than may come shows whether more would.
        let most = self.max.saturating_add(1);
        let mut room = at.saturating_add(FIRST_ROOM).min(most);
        loop {
            self.bytes.resize(room);
            let (to, done) = write(self.bytes.as_mut_slice(), at)?;
            at = to;
            if at > self.max {
                return Err(Undecodable::TooLong);
            }
            if done {
                self.bytes.resize(at);
                return Ok(());
            }
            room = room.saturating_mul(2).min(most);
        }
    }

    /// Appends `more`.
    fn push(&mut self, more: &[u8]) -> Result<(), Undecodable> {
        if more.len() > self.max.saturating_sub(self.bytes.len()) {
            return Err(Undecodable::TooLong);
        }
        self.bytes.push(more);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
