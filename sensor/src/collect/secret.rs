//! Buffers that may hold raw bodies: grown without leaving copies behind, wiped before they are freed or reused.

use std::fmt;

use zeroize::Zeroize as _;

/// A growable byte buffer whose content never survives in freed memory.
#[derive(Default)]
pub(crate) struct SecretBuf {
    bytes: Vec<u8>,
}

/// What it holds stays out of whatever prints it.
impl fmt::Debug for SecretBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretBuf({} bytes)", self.bytes.len())
    }
}

impl SecretBuf {
    /// Appends `more`. `Vec` would reallocate and leave the old copy in the freed block, so growth is done by hand.
    pub fn push(&mut self, more: &[u8]) {
        self.reserve(self.bytes.len().saturating_add(more.len()));
        self.bytes.extend_from_slice(more);
    }

    /// Makes it `len` bytes long: zeros are appended, or what stands beyond is overwritten.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len);
        if let Some(beyond) = self.bytes.get_mut(len..) {
            beyond.zeroize();
        }
        self.bytes.resize(len, 0);
    }

    fn reserve(&mut self, wanted: usize) {
        if wanted > self.bytes.capacity() {
            let mut grown = Vec::with_capacity(wanted.next_power_of_two());
            grown.extend_from_slice(&self.bytes);
            self.overwrite();
            self.bytes = grown;
        }
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Bytes held.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Overwrites what is held and empties the buffer, keeping its memory. Costs what was held, not the capacity:
    /// whatever lay beyond was wiped when it was given up.
    pub fn wipe(&mut self) {
        self.overwrite();
        self.bytes.clear();
    }

    fn overwrite(&mut self) {
        self.bytes.as_mut_slice().zeroize();
    }
}

impl Drop for SecretBuf {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_and_wipes_in_place() {
        let mut buffer = SecretBuf::default();
        buffer.push(b"canary-0123456789");
        buffer.push(b"tail");
        assert_eq!(buffer.as_slice(), b"canary-0123456789tail");
        let capacity = buffer.bytes.capacity();
        buffer.overwrite();
        assert_eq!(buffer.as_slice(), [0; 21]);
        buffer.as_mut_slice().fill(b'x');
        buffer.resize(3);
        buffer.resize(5);
        assert_eq!(buffer.as_slice(), b"xxx\0\0");
        buffer.wipe();
        assert_eq!((buffer.len(), buffer.bytes.capacity()), (0, capacity));
    }

    #[test]
    fn prints_no_content() {
        let mut buffer = SecretBuf::default();
        buffer.push(b"canary");
        assert_eq!(format!("{buffer:?}"), "SecretBuf(6 bytes)");
    }
}
