//! The connections: each from a client of its own, each with one request, every tenth cut in the middle of its head.

use std::net::{IpAddr, Ipv4Addr};

use benches::frames::{Connection, End};
use benches::heads;

/// The service's address, which counts as this host's.
pub const SERVICE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1));
/// Of so many connections one has its head cut.
pub const ONE_IN: u32 = 10;
/// Bytes of the first part of such a head: the cut is inside the credential.
const CUT: usize = 600;

/// What is sent over the connections.
pub struct Load {
    head: Vec<u8>,
    /// Where the token's signature ends.
    signature_end: usize,
}

impl Load {
    /// A GET with a JWT.
    pub fn new() -> Result<Self, &'static str> {
        let (head, token) = (heads::with_jwt(), heads::jwt());
        let at = head.windows(token.len()).position(|part| part == token.as_bytes()).ok_or("no token in the head")?;
        Ok(Self { signature_end: at + token.len(), head })
    }

    /// The request of connection `number`: its token's signature is like no other's.
    fn request(&self, number: u32) -> Vec<u8> {
        let mut head = self.head.clone();
        let digits = format!("{number:08}");
        let place = self.signature_end - digits.len()..self.signature_end;
        head.get_mut(place).into_iter().for_each(|place| place.copy_from_slice(digits.as_bytes()));
        head
    }

    /// The SYN of connection `number`, and its request, or the first part of it.
    pub fn opening(&self, number: u32) -> [Vec<u8>; 2] {
        let connection = connection(number);
        let request = self.request(number);
        let first = if is_cut(number) { request.get(..CUT).unwrap_or_default() } else { &request };
        [connection.syn(), connection.request(0, first)]
    }

    /// The second part of the request of a connection whose head is cut.
    pub fn rest(&self, number: u32) -> Vec<u8> {
        connection(number).request(CUT, self.request(number).get(CUT..).unwrap_or_default())
    }
}

/// Whether the head of connection `number` is cut.
pub const fn is_cut(number: u32) -> bool {
    number.is_multiple_of(ONE_IN)
}

fn connection(number: u32) -> Connection {
    // 32,768 ports of each address, below 100.64.0.0/10.
    let address = Ipv4Addr::from_bits(0x6440_0000 | number >> 15);
    let port = u16::try_from(number & 0x7fff).unwrap_or(0) + 1024;
    Connection { client: End { address: address.into(), port }, service: End { address: SERVICE, port: 8080 } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_and_tokens_are_all_different_and_a_tenth_is_cut() {
        let load = Load::new().unwrap();
        let frames: std::collections::HashSet<_> = (0..100_000).map(|number| connection(number).syn()).collect();
        assert_eq!(frames.len(), 100_000);
        assert_ne!(load.request(1), load.request(2));
        assert_eq!(load.request(1).len(), heads::REQUEST);
        assert_eq!((0..1000).filter(|number| is_cut(*number)).count(), 100);
        let [_, first] = load.opening(10);
        let headers = 54;
        assert_eq!([&first[headers..], &load.rest(10)[headers..]].concat(), load.request(10));
    }
}
