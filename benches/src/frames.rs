//! Ethernet frames with TCP segments, as `BPF_PROG_TEST_RUN` and the host engine take them. Checksums are 0: nobody on
//! this path looks at them.

use std::net::IpAddr;

use sensor_ebpf::packet::tcp_flag;

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// Address; both ends of a frame have the same family.
    pub address: IpAddr,
    /// Port.
    pub port: u16,
}

/// A frame with a TCP segment.
pub fn tcp(from: End, to: End, sequence: u32, flags: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let segment = u16::try_from(20 + payload.len()).unwrap_or(u16::MAX);
    match (from.address, to.address) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            frame.extend([8, 0, 0x45, 0]);
            frame.extend((segment + 20).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        (source, destination) => {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            frame.extend(segment.to_be_bytes());
            frame.extend([6, 64]);
            for address in [source, destination] {
                match address {
                    IpAddr::V4(v4) => frame.extend(v4.to_ipv6_mapped().octets()),
                    IpAddr::V6(v6) => frame.extend(v6.octets()),
                }
            }
        }
    }
    frame.extend(from.port.to_be_bytes());
    frame.extend(to.port.to_be_bytes());
    frame.extend(sequence.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend([0x50, u8::try_from(flags & 0xff).unwrap_or(0), 0x40, 0, 0, 0, 0, 0]);
    frame.extend(payload);
    frame
}

/// A frame that is not IP: an ARP request.
pub fn arp() -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(60, 0);
    frame
}

/// Client and service of one connection, with the sequence numbers that both begin with.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    /// Who opens it.
    pub client: End,
    /// Who is asked.
    pub service: End,
}

impl Connection {
    /// First sequence number (of the SYN) on both sides.
    pub const START: u32 = 1000;

    /// The client's SYN.
    pub fn syn(&self) -> Vec<u8> {
        tcp(self.client, self.service, Self::START, tcp_flag::SYN, &[])
    }

    /// The service's SYN-ACK.
    pub fn syn_ack(&self) -> Vec<u8> {
        tcp(self.service, self.client, Self::START, tcp_flag::SYN | tcp_flag::ACK, &[])
    }

    /// The client's bytes from stream offset `at` on.
    pub fn request(&self, at: usize, payload: &[u8]) -> Vec<u8> {
        tcp(self.client, self.service, Self::sequence(at), tcp_flag::ACK, payload)
    }

    /// The service's bytes from stream offset `at` on.
    pub fn response(&self, at: usize, payload: &[u8]) -> Vec<u8> {
        tcp(self.service, self.client, Self::sequence(at), tcp_flag::ACK, payload)
    }

    fn sequence(at: usize) -> u32 {
        Self::START.wrapping_add(1).wrapping_add(u32::try_from(at).unwrap_or(u32::MAX))
    }
}
