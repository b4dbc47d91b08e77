//! The part of a file that is in memory: a buffer with a moving start, filled from any [`Read`].

use std::io::{ErrorKind, Read};

use super::error::Problem;

/// Bytes read at once, and size of the buffer until a packet needs more.
const CHUNK: usize = 256 * 1024;

/// A refillable view of a byte source. Owns the only large buffer of a capture reader.
pub(super) struct Window<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// File offset of `start`.
    offset: u64,
}

impl<R: Read> Window<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, buffer: vec![0; CHUNK], start: 0, end: 0, offset: 0 }
    }

    /// File offset of the first byte of the window.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// File offset behind the last byte that was read: the length of the file once `fill` returned false.
    pub(super) fn end_offset(&self) -> u64 {
        self.offset + (self.end - self.start) as u64
    }

    /// Makes at least `need` bytes available; false when the source ends before that. `need` is bounded by the
    /// caller: the buffer grows to hold it.
    pub(super) fn fill(&mut self, need: usize) -> Result<bool, Problem> {
        if self.end - self.start >= need {
            return Ok(true);
        }
        self.buffer.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
        if self.buffer.len() < need {
            self.buffer.resize(need, 0);
        }
        while self.end < need {
            let space = self.buffer.get_mut(self.end..).unwrap_or_default();
            match self.source.read(space) {
                Ok(0) => return Ok(false),
                Ok(count) => self.end += count.min(space.len()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(Problem::Unreadable { source, offset: self.end_offset() }),
            }
        }
        Ok(true)
    }

    /// `len` bytes from `at` (relative to the window's start); shorter where fewer are available.
    pub(super) fn bytes(&self, at: usize, len: usize) -> &[u8] {
        let available = self.available();
        let from = at.min(available.len());
        let to = at.saturating_add(len).min(available.len());
        available.get(from..to).unwrap_or_default()
    }

    /// Everything that is in memory.
    pub(super) fn available(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    /// Moves the start over `count` bytes that are available.
    pub(super) fn consume(&mut self, count: usize) {
        let count = count.min(self.end - self.start);
        self.start += count;
        self.offset += count as u64;
    }

    /// Moves the start over `count` bytes, reading what is not in memory yet without keeping it; false when the
    /// source ends before that.
    pub(super) fn skip(&mut self, mut count: u64) -> Result<bool, Problem> {
        loop {
            let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.end - self.start);
            self.consume(here);
            count -= here as u64;
            if count == 0 {
                return Ok(true);
            }
            if !self.fill(1)? {
                return Ok(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one byte a call, with an interruption before each.
    struct Dribble<'a>(&'a [u8], bool);

    impl Read for Dribble<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            self.1 = !self.1;
            if self.1 {
                return Err(ErrorKind::Interrupted.into());
            }
            let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
            into[0] = *first;
            self.0 = rest;
            Ok(1)
        }
    }

    #[test]
    fn fills_over_short_and_interrupted_reads() {
        let data: Vec<u8> = (0..100).collect();
        let mut window = Window::new(Dribble(&data, false));
        assert!(window.fill(10).unwrap());
        assert_eq!(window.bytes(0, 10), &data[..10]);
        window.consume(7);
        assert!(window.fill(50).unwrap());
        assert_eq!((window.bytes(0, 50), window.offset()), (&data[7..57], 7));
        assert!(!window.fill(94).unwrap());
        assert_eq!((window.available(), window.end_offset()), (&data[7..], 100));
    }

    #[test]
    fn skips_without_keeping_and_knows_where_the_source_ends() {
        let data = vec![7; 3 * CHUNK];
        let mut window = Window::new(data.as_slice());
        assert!(window.skip(2 * CHUNK as u64 + 1).unwrap());
        assert_eq!(window.buffer.len(), CHUNK, "skipping needs no larger buffer");
        assert!(window.skip(CHUNK as u64 - 1).unwrap());
        assert!(!window.skip(1).unwrap());
        assert_eq!(window.end_offset(), 3 * CHUNK as u64);
    }

    #[test]
    fn grows_to_what_a_caller_needs() {
        let data = vec![7; 3 * CHUNK];
        let mut window = Window::new(data.as_slice());
        assert!(window.fill(2 * CHUNK).unwrap());
        assert_eq!(window.bytes(CHUNK, CHUNK).len(), CHUNK);
    }
}
