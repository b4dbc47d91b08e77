//! Samples that a finding shows: the first seen of a window, and an unbiased one of accounts.

use crate::observation::AccountHash;

/// Most values of a [`Sample`]: clients that a finding names.
pub(super) const SAMPLE_MAX: usize = 10;
/// Most accounts that a finding names.
pub(super) const ACCOUNTS_MAX: usize = 64;

/// Up to [`SAMPLE_MAX`] distinct values, the first seen; one that left the window makes room.
#[derive(Clone, Debug)]
pub(super) struct Sample<T> {
    values: [Option<(T, u64)>; SAMPLE_MAX],
}

impl<T: Copy + PartialEq> Sample<T> {
    /// Empty.
    pub const fn new() -> Self {
        Self { values: [None; SAMPLE_MAX] }
    }

    /// Takes a value seen in `slice`; what was last seen before `oldest` may go.
    pub fn take(&mut self, value: T, slice: u64, oldest: u64) {
        let mut room = None;
        for entry in &mut self.values {
            match entry {
                Some((known, last)) if *known == value => {
                    *last = slice.max(*last);
                    return;
                }
                Some((_, last)) if *last >= oldest => {}
                _ if room.is_none() => room = Some(entry),
                _ => {}
            }
        }
        if let Some(entry) = room {
            *entry = Some((value, slice));
        }
    }

    /// The values last seen in `oldest` or later.
    pub fn since(&self, oldest: u64) -> Vec<T> {
        self.values.iter().flatten().filter(|(_, last)| *last >= oldest).map(|(value, _)| *value).collect()
    }
}

/// The [`ACCOUNTS_MAX`] accounts with the lowest hashes. The hash is keyed, so which these are has nothing to do with when,
/// how often or by whom they were read: whoever judges a finding by them judges an unbiased sample.
#[derive(Debug)]
pub(super) struct Lowest<T = AccountHash> {
    /// In order.
    values: Vec<T>,
}

impl<T: Copy + Ord> Lowest<T> {
    /// Empty, with room for all.
    pub fn new() -> Self {
        Self { values: Vec::with_capacity(ACCOUNTS_MAX) }
    }

    /// Takes an account (or a credential).
    pub fn take(&mut self, account: T) {
        if self.values.len() == ACCOUNTS_MAX && self.values.last().is_some_and(|last| account >= *last) {
            return;
        }
        if let Err(index) = self.values.binary_search(&account) {
            self.values.truncate(ACCOUNTS_MAX - 1);
            self.values.insert(index, account);
        }
    }

    /// The accounts, by hash.
    pub fn values(&self) -> Vec<T> {
        self.values.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_hashes_stay_whatever_the_order() {
        let hash = |number: u64| AccountHash(u128::from(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        let (mut up, mut down) = (Lowest::new(), Lowest::new());
        for number in 0..1_000 {
            up.take(hash(number));
            up.take(hash(number / 2));
            down.take(hash(999 - number));
        }
        let mut all: Vec<AccountHash> = (0..1_000).map(hash).collect();
        all.sort_unstable();
        assert_eq!(up.values(), all[..ACCOUNTS_MAX]);
        assert_eq!(up.values(), down.values());
    }
}
