//! Buffers that may hold raw bodies: grown without leaving copies behind, wiped before they are freed or reused.

use zeroize::Zeroize as _;

/// A growable byte buffer whose content never survives in freed memory.
#[derive(Debug, Default)]
pub(super) struct SecretBuf {
    bytes: Vec<u8>,
}

impl SecretBuf {
    /// Appends `more`. `Vec` would reallocate and leave the old copy in the freed block, so growth is done by hand.
    pub fn push(&mut self, more: &[u8]) {
        let wanted = self.bytes.len().saturating_add(more.len());
        if wanted > self.bytes.capacity() {
            let mut grown = Vec::with_capacity(wanted.next_power_of_two());
            grown.extend_from_slice(&self.bytes);
            self.overwrite();
            self.bytes = grown;
        }
        self.bytes.extend_from_slice(more);
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
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
        buffer.wipe();
        assert_eq!((buffer.len(), buffer.bytes.capacity()), (0, capacity));
    }
}
