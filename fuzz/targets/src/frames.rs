//! Ethernet frames of one TCP connection. Checksums are 0: the parser does not look at them.

use crate::rig::{PORT, Side};

/// No more data from the sender.
pub const FIN: u8 = 1;
/// Synchronise sequence numbers.
pub const SYN: u8 = 2;
/// The acknowledgement field is valid.
pub const ACK: u8 = 16;

/// The client's address.
pub const CLIENT: [u8; 4] = [10, 0, 0, 1];
/// The service's address.
pub const SERVER: [u8; 4] = [10, 0, 0, 2];
/// The client's port.
pub const CLIENT_PORT: u16 = 40_000;

/// Sequence number and acknowledgement of a segment.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    /// Of the first payload byte.
    pub sequence: u32,
    /// Next byte that is expected from the other end.
    pub acknowledged: u32,
}

/// A TCP header without options.
pub fn tcp(from: Side, numbers: Numbers, flags: u8) -> Vec<u8> {
    let (source, destination) = match from {
        Side::Client => (CLIENT_PORT, PORT),
        Side::Server => (PORT, CLIENT_PORT),
    };
    let mut header = Vec::with_capacity(20);
    header.extend(source.to_be_bytes());
    header.extend(destination.to_be_bytes());
    header.extend(numbers.sequence.to_be_bytes());
    header.extend(numbers.acknowledged.to_be_bytes());
    header.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    header
}

/// An IPv4 header without options around `len` bytes of `protocol`; `fragment` is its flags and offset field.
pub fn ipv4(from: Side, protocol: u8, fragment: u16, len: usize) -> Vec<u8> {
    let (source, destination) = if from == Side::Client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let mut header = vec![0x45, 0];
    header.extend(u16::try_from(20 + len).unwrap_or(u16::MAX).to_be_bytes());
    header.extend([0, 7]);
    header.extend(fragment.to_be_bytes());
    header.extend([64, protocol, 0, 0]);
    header.extend(source);
    header.extend(destination);
    header
}

/// An IPv6 header around `len` bytes, of which `next` says what they begin with.
pub fn ipv6(from: Side, next: u8, len: usize) -> Vec<u8> {
    let (source, destination) = if from == Side::Client { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    let mut header = vec![0x60, 0, 0, 0];
    header.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    header.extend([next, 64]);
    for address in [source, destination] {
        header.extend([0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0]);
        header.extend(address);
    }
    header
}

/// A frame with one segment.
pub fn segment(from: Side, numbers: Numbers, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0]);
    frame.extend(ipv4(from, 6, 0x4000, 20 + payload.len()));
    frame.extend(tcp(from, numbers, flags));
    frame.extend(payload);
    frame
}
