//! The newest few of what is counted, for people to look at.
//!
//! **In**: observations, or values of them. **Out**: the newest of these, at most as many as the type says, in no order.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::observation::{AccountHash, Observation};

/// The newest `N` values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Ring<T, const N: usize> {
    values: Vec<T>,
    next: usize,
}

/// Accounts and clients of the newest `N` observations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Newest<const N: usize> {
    /// Each in the place of its client; one that is not known leaves that of an older observation there.
    accounts: Vec<AccountHash>,
    clients: Ring<IpAddr, N>,
}

impl<T, const N: usize> Default for Ring<T, N> {
    fn default() -> Self {
        Self { values: Vec::with_capacity(N), next: 0 }
    }
}

impl<T, const N: usize> Ring<T, N> {
    /// Takes `value` for the oldest, if there is no room; where it stands now.
    pub fn take(&mut self, value: T) -> usize {
        let place = self.next;
        self.next = (self.next + 1) % N;
        put(&mut self.values, place, value);
        place
    }

    /// The newest.
    pub fn values(&self) -> &[T] {
        &self.values
    }
}

impl<const N: usize> Default for Newest<N> {
    fn default() -> Self {
        Self { accounts: Vec::with_capacity(N), clients: Ring::default() }
    }
}

impl<const N: usize> Newest<N> {
    /// Takes account and client of one observation.
    pub fn take(&mut self, o: &Observation) {
        let place = self.clients.take(o.client);
        if let Some(account) = o.account {
            put(&mut self.accounts, place, account);
        }
    }

    /// Accounts, as far as they are known.
    pub fn accounts(&self) -> &[AccountHash] {
        &self.accounts
    }

    /// Clients.
    pub fn clients(&self) -> &[IpAddr] {
        self.clients.values()
    }
}

/// Puts `value` in its place, or at the end where there are fewer.
fn put<T>(values: &mut Vec<T>, place: usize, value: T) {
    match values.get_mut(place) {
        Some(known) => *known = value,
        None => values.push(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::estimate::testing::{address, own_read};

    #[test]
    fn the_newest_stay() {
        let mut ring = Ring::<u32, 3>::default();
        let places: Vec<usize> = (0..5).map(|n| ring.take(n)).collect();
        assert_eq!((places, ring.values()), (vec![0, 1, 2, 0, 1], &[3, 4, 2][..]));
    }

    #[test]
    fn who_has_no_account_has_a_client() {
        let mut newest = Newest::<2>::default();
        let known = |n| own_read(0.0, n, address(u32::try_from(n).unwrap()));
        newest.take(&Observation { account: None, ..known(0) });
        newest.take(&known(1));
        assert_eq!((newest.accounts().len(), newest.clients()), (1, &[address(0), address(1)][..]));
        for n in 2..9 {
            newest.take(&known(n));
        }
        let accounts = [8, 7].map(|n| known(n).account.unwrap());
        assert_eq!((newest.accounts(), newest.clients()), (&accounts[..], &[address(8), address(7)][..]));
    }

    /// States that were written down are read again.
    #[test]
    fn the_bytes_are_accounts_clients_and_the_next_place() {
        let mut newest = Newest::<2>::default();
        let o = own_read(0.0, 7, address(7));
        newest.take(&o);
        let written = postcard::to_allocvec(&newest).unwrap();
        assert_eq!(written, postcard::to_allocvec(&(vec![o.account.unwrap()], vec![o.client], 1usize)).unwrap());
        let again: Newest<2> = postcard::from_bytes(&written).unwrap();
        assert_eq!((again.accounts(), again.clients()), (newest.accounts(), newest.clients()));
    }
}
