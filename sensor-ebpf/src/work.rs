//! The scratch area in which a segment is parsed: one per CPU in the kernel, one per engine on the host.
//!
//! Holds the working copy of the half's [`Parser`], a window onto the segment's bytes, and the record under
//! construction. Bytes come into the window from the packet; the finished record goes to a ring.
//!
//! All variable indexing is masked right where it happens, behind an optimisation barrier: the compiler would remove a
//! mask that it can prove redundant, and the verifier would then refuse the access.

use crate::flow::{FlowKey, Parser};
use crate::layers::Walk;
use crate::packet::{Packet, tcp_flag};
use crate::wire::{self, Credential, HeadRecord, ResumeEntry};
use crate::words;

/// Bytes of the window; a power of two.
pub const WINDOW: usize = 1024;
/// Bytes that can be read behind any window index: eight unrolled words.
const WINDOW_PAD: usize = 72;
/// Bytes of the capture buffer: any start below `CAPTURES_MAX` plus the longest single copy.
const CAPTURE_BUFFER: usize = wire::CAPTURES_MAX + COPY_MAX;
/// Longest single copy into the capture buffer, a power of two.
pub const COPY_MAX: usize = 2048;

/// The captures of an unfinished head: what a slot keeps between segments.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Captured {
    /// Record under construction.
    pub record: HeadRecord,
    /// Credentials found.
    pub credentials: [Credential; wire::CREDENTIALS_MAX],
    /// Bytes used of `bytes`.
    pub len: u32,
    /// Where in `bytes` the open capture began.
    pub open_at: u32,
    /// Which capture is open, plus 1; [`CLAIMS`] for a JWT's claims; 0 for none.
    pub open: u32,
    /// Position (in this segment) of a query credential's claims, which are copied when the request line is done.
    pub query_from: u32,
    /// Their bytes; 0 for none.
    pub query_len: u32,
    /// Index plus 1 of the credential they belong to.
    pub query_credential: u32,
    /// Index plus 1 of the credential whose `Set-Cookie` attributes are being read, [`NO_COOKIE`] when they are nobody's;
    /// 0 in front of them.
    pub set_cookie: u32,
    /// Capture bytes.
    pub bytes: [u8; CAPTURE_BUFFER],
}

/// Value of [`Captured::open`] for a JWT's header and payload.
pub const CLAIMS: u32 = 100;
/// Value of [`Captured::open`] once header and payload are complete and the signature streams past.
pub const CLAIMS_DONE: u32 = 101;

/// Value of [`Captured::set_cookie`] for the attributes of a cookie that is not reported.
pub const NO_COOKIE: u32 = 100;
/// How far a packet got ([`Work::stage`]).
pub mod stage {
    /// Nothing more to do.
    pub const DONE: u32 = 0;
    /// A half is locked, and its bytes need no parser.
    pub const LOCKED: u32 = 1;
    /// A half is locked, and its parser is to run.
    pub const PARSE: u32 = 2;
    /// A half is locked, and the segment goes to the slow path.
    pub const SLOW: u32 = 3;
    /// A half is locked, and the segment is sent to be compared.
    pub const AGAIN: u32 = 4;
    /// The half is busy on another CPU, and the segment goes to the slow path.
    pub const BUSY: u32 = 5;
}

/// The scratch area.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Work {
    /// The packet. It stands here, and not in registers, so that the many ways through layers 2 to 4 end in one state
    /// for the verifier.
    pub packet: Packet,
    /// The way through what stands around it, if that is not plain.
    pub walk: Walk,
    /// Sequence number of the first payload byte.
    pub sequence: u32,
    /// Payload bytes that are there.
    pub present: u32,
    /// One of [`stage`].
    pub stage: u32,
    /// The packet's disposition, an index of [`crate::reason::Counter`].
    pub disposition: u32,
    /// 1 when the packet ends its half (FIN or RST).
    pub ending: u32,
    /// 1 when the segment stands where the half is: only then do FIN and RST count.
    pub in_order: u32,
    /// Kind of the records that a segment goes to the slow path as.
    pub slow_kind: u32,
    /// 1 when the parser's step budget ran out.
    pub overrun: u32,
    /// Working copy of the half's parser.
    pub parser: Parser,
    /// The connection.
    pub key: FlowKey,
    /// One of [`wire::direction`].
    pub direction: u32,
    /// The service's index.
    pub service: u32,
    /// Offset in the frame of the first new payload byte.
    pub base: u32,
    /// Next byte to parse, counted from `base`.
    pub pos: u32,
    /// New payload bytes.
    pub end: u32,
    /// Position of the window's first byte.
    pub window_at: u32,
    /// Bytes in the window.
    pub window_len: u32,
    /// Position from which the open capture was not yet copied.
    pub open_from: u32,
    /// Phase behind a completion.
    pub after: u32,
    /// Position up to which a JWT's header and payload reach.
    pub claims_to: u32,
    /// 1 when the captures of the half's open head go to the slow path too.
    pub slow_captured: u32,
    /// Sequence number behind everything that was sent to the slow path.
    pub slow_next: u32,
    /// 1 when the segment began inside a head.
    pub goes_on: u32,
    /// Sequence number of the first byte of the message that seen bytes are compared with.
    pub slow_from: u32,
    /// Requests that wait for an answer, up to that message.
    pub slow_waiting: u32,
    /// Where the slow path left the flow.
    pub resume: ResumeEntry,
    /// Stream offset of position 0.
    pub stream: u64,
    /// Place in the stream of requests of a segment that was seen before.
    pub position: u64,
    /// Bytes of this segment that were skipped (bodies), for the byte identity.
    pub skipped: u64,
    /// Captures.
    pub captured: Captured,
    /// The window.
    pub window: [u8; WINDOW + WINDOW_PAD],
}

/// `value & MASK`, done where it stands: the compiler can neither remove the mask nor move it away from the access
/// that it guards.
#[inline(always)]
pub fn bound<const MASK: u32>(value: u32) -> u32 {
    #[cfg(target_arch = "bpf")]
    {
        let mut value = value;
        // SAFETY: one AND on one register.
        unsafe {
            core::arch::asm!("{0} &= {1}", inout(wreg) value, const MASK, options(nomem, nostack, preserves_flags, pure));
        }
        value
    }
    #[cfg(not(target_arch = "bpf"))]
    {
        value & MASK
    }
}

/// Reads the eight bytes at `at`.
///
/// # Safety
/// `at` must be valid for reading eight bytes.
#[inline(always)]
unsafe fn load_word(at: *const u8) -> u64 {
    // SAFETY: the caller's promise; the read is unaligned.
    u64::from_le(unsafe { at.cast::<u64>().read_unaligned() })
}

/// A place in the window from which eight words can be read.
#[derive(Clone, Copy)]
pub struct Cursor(*const u8);

impl Cursor {
    /// The word `8 * STEP` bytes on.
    #[inline(always)]
    pub fn word<const STEP: usize>(self) -> u64 {
        const { assert!(STEP < 8) };
        // SAFETY: a cursor points below `WINDOW`, and `WINDOW_PAD` is 72: 8 * 7 + 8 bytes on is still inside.
        unsafe { load_word(self.0.add(8 * STEP)) }
    }

    /// The byte `STEP` bytes on.
    #[inline(always)]
    pub fn byte<const STEP: usize>(self) -> u8 {
        const { assert!(STEP < 64) };
        // SAFETY: as for `word`.
        unsafe { *self.0.add(STEP) }
    }
}

impl Work {
    /// A cursor at the position `pos + ahead`, which must lie in the window (else it reads other window bytes).
    #[inline(always)]
    pub fn cursor(&self, ahead: u32) -> Cursor {
        let index = bound::<{ WINDOW as u32 - 1 }>((self.pos + ahead).wrapping_sub(self.window_at)) as usize;
        // SAFETY: the mask keeps the index inside the window.
        Cursor(unsafe { self.window.as_ptr().add(index) })
    }

    /// The byte at the position `pos + ahead`, which must lie in the window.
    #[inline(always)]
    pub fn byte(&self, ahead: u32) -> u8 {
        self.cursor(ahead).byte::<0>()
    }

    /// True if CR and LF stand at the position, both at hand.
    #[inline(always)]
    pub fn at_line_end(&self) -> bool {
        self.cursor(0).word::<0>() as u16 == u16::from_le_bytes(*b"\r\n") && self.available() >= 2
    }

    /// Bytes of the segment, from `pos` on, that stand in the window.
    #[inline(always)]
    pub fn available(&self) -> u32 {
        self.window_at + self.window_len - self.pos
    }

    /// Appends the low `count` bytes of `word` to the gathered name; the caller keeps `name_len + count` within bounds.
    #[inline(always)]
    pub fn gather(&mut self, word: u64, count: u32) {
        let len = self.parser.name_len;
        let slot = bound::<3>(len >> 3) as usize;
        let shift = 8 * (len & 7);
        // SAFETY: both indexes are masked to the four words.
        unsafe {
            *self.parser.name.as_mut_ptr().add(slot) |= word << shift;
            if shift + 8 * count > 64 {
                *self.parser.name.as_mut_ptr().add((slot + 1) & 3) |= word >> (64 - shift);
            }
        }
        self.parser.name_len = len + count;
    }

    /// Forgets the gathered name.
    #[inline(always)]
    pub fn gather_start(&mut self) {
        // An array's assignment would become a call of `memset`, a loop over bytes (see `words`).
        // SAFETY: four words and a number, cleared.
        unsafe { words::clear(&raw mut self.parser.name) };
        self.parser.name_len = 0;
    }
}

impl Work {
    /// The four numbers behind the connection of a [`wire::SegmentRecord`] for a piece of `len` bytes at the position.
    #[inline(always)]
    pub fn segment(&self, len: u32, last: bool) -> [u32; 4] {
        let again = self.slow_kind == u32::from(wire::kind::AGAIN);
        let acknowledged = if again { self.slow_from } else { self.packet.acknowledgement };
        // A FIN stands behind the last byte of the segment. A reset from elsewhere than where the half is is none.
        let reset = if self.in_order != 0 { self.packet.flags } else { self.packet.flags & !tcp_flag::RST };
        let flags = if last { reset | wire::SEGMENT_LAST } else { reset & !tcp_flag::FIN };
        [self.sequence.wrapping_add(self.pos), acknowledged, flags, len]
    }
}

impl Captured {
    /// The buffer place for the next copy, and how much of `wanted` bytes may be copied there.
    #[inline(always)]
    pub fn room(&self, wanted: u32, most: u32) -> u32 {
        let used = self.len - self.open_at;
        let left = most.saturating_sub(used).min((wire::CAPTURES_MAX as u32).saturating_sub(self.len));
        if wanted < left { wanted } else { left }
    }

    /// The byte at `at` of the capture buffer.
    #[inline(always)]
    pub fn byte(&self, at: u32) -> u8 {
        let index = bound::<{ wire::CAPTURES_MAX as u32 - 1 }>(at) as usize;
        // SAFETY: masked below `CAPTURES_MAX`, which the buffer exceeds.
        unsafe { *self.bytes.as_ptr().add(index) }
    }

    /// The eight bytes at `at` of the capture buffer.
    #[inline(always)]
    pub fn word(&self, at: u32) -> u64 {
        let index = bound::<{ wire::CAPTURES_MAX as u32 - 1 }>(at) as usize;
        // SAFETY: masked below `CAPTURES_MAX`; the buffer has `COPY_MAX` bytes behind that.
        unsafe { load_word(self.bytes.as_ptr().add(index)) }
    }

    /// Pointer for a copy of up to [`COPY_MAX`] bytes at `at`.
    #[inline(always)]
    pub fn place(&mut self, at: u32) -> *mut u8 {
        let index = bound::<{ wire::CAPTURES_MAX as u32 - 1 }>(at) as usize;
        // SAFETY: masked below `CAPTURES_MAX`; the buffer has `COPY_MAX` bytes behind that.
        unsafe { self.bytes.as_mut_ptr().add(index) }
    }

    /// True when `wanted` was reported before, in all that tells it from others; its value counts only if `whole`.
    #[inline(always)]
    pub fn repeats(&self, wanted: &Credential, whole: bool) -> bool {
        let taken = u32::from(self.record.credentials);
        let mut found = false;
        for at in 0..wire::CREDENTIALS_MAX as u32 {
            if at >= taken {
                break;
            }
            let index = bound::<{ wire::CREDENTIALS_MAX as u32 - 1 }>(at) as usize;
            // SAFETY: masked to the array's length, a power of two.
            let known = unsafe { &*self.credentials.as_ptr().add(index) };
            let same = u128::from_ne_bytes(known.fingerprint) == u128::from_ne_bytes(wanted.fingerprint);
            found |= known.tag() == wanted.tag() && (same || !whole);
        }
        found
    }

    /// The next free credential entry, or `None` when all are taken.
    #[inline(always)]
    pub fn credential(&mut self) -> Option<&mut Credential> {
        let taken = u32::from(self.record.credentials);
        if taken >= wire::CREDENTIALS_MAX as u32 {
            return None;
        }
        self.record.credentials += 1;
        let index = bound::<{ wire::CREDENTIALS_MAX as u32 - 1 }>(taken) as usize;
        // SAFETY: masked to the array's length, a power of two.
        Some(unsafe { &mut *self.credentials.as_mut_ptr().add(index) })
    }
}
