//! Ethernet frames, made byte by byte.
//!
//! A [`Segment`] is one TCP segment and all that may stand around it (tags, options, extension headers); a
//! [`Connection`] keeps the sequence numbers of both sides. Checksums are 0: the sensor does not look at them, and no
//! TCP stack receives these frames.

use std::net::{IpAddr, SocketAddr};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PUSH: u8 = 8;
pub const ACK: u8 = 16;

/// Offset of a plain IPv4 segment's payload.
pub const PLAIN_HEADERS: usize = 14 + 20 + 20;

/// One TCP segment.
#[derive(Clone, Debug)]
pub struct Segment {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub sequence: u32,
    pub acknowledged: u32,
    pub flags: u8,
    pub payload: Vec<u8>,
    /// VLAN tags, outermost first: type and number.
    pub tags: Vec<(u16, u16)>,
    /// Bytes of IPv4 options, a multiple of 4.
    pub ip_options: usize,
    /// IPv6 extension headers: type, and content behind the "next header" byte.
    pub extensions: Vec<(u8, Vec<u8>)>,
    /// Bytes of TCP options, a multiple of 4.
    pub tcp_options: usize,
    /// The flags and fragment offset field of IPv4.
    pub fragment: u16,
    /// Bytes behind the IP packet (Ethernet padding).
    pub padding: usize,
}

impl Segment {
    pub fn new(from: SocketAddr, to: SocketAddr, sequence: u32, flags: u8, payload: &[u8]) -> Self {
        Self {
            from,
            to,
            sequence,
            acknowledged: 0,
            flags,
            payload: payload.to_vec(),
            tags: Vec::new(),
            ip_options: 0,
            extensions: Vec::new(),
            tcp_options: 0,
            fragment: 0,
            padding: 0,
        }
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for (kind, number) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(number.to_be_bytes());
        }
        let tcp = self.tcp();
        match (self.from.ip(), self.to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let header = 20 + self.ip_options;
                frame.extend([8, 0, 0x40 | u8::try_from(header / 4).unwrap(), 0]);
                frame.extend(u16::try_from(header + tcp.len()).unwrap().to_be_bytes());
                frame.extend([0, 1]);
                frame.extend(self.fragment.to_be_bytes());
                frame.extend([64, 6, 0, 0]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                // No-operation options (RFC 791).
                frame.extend(vec![1; self.ip_options]);
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let extensions = self.extension_bytes();
                frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                frame.extend(u16::try_from(extensions.len() + tcp.len()).unwrap().to_be_bytes());
                frame.extend([self.extensions.first().map_or(6, |(kind, _)| *kind), 64]);
                frame.extend(from.octets());
                frame.extend(to.octets());
                frame.extend(extensions);
            }
            _ => panic!("both addresses must be of one family"),
        }
        frame.extend(tcp);
        frame.extend(vec![0; self.padding]);
        frame
    }

    fn extension_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (index, (_, content)) in self.extensions.iter().enumerate() {
            bytes.push(self.extensions.get(index + 1).map_or(6, |(kind, _)| *kind));
            bytes.extend(content);
        }
        bytes
    }

    fn tcp(&self) -> Vec<u8> {
        let header = u8::try_from(20 + self.tcp_options).unwrap();
        let mut tcp = Vec::new();
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        tcp.extend([(header / 4) << 4, self.flags, 0x20, 0, 0, 0, 0, 0]);
        tcp.extend(vec![1; self.tcp_options]);
        tcp.extend(&self.payload);
        tcp
    }
}

/// Both sides of a connection.
#[derive(Clone, Debug)]
pub struct Connection {
    pub client: SocketAddr,
    pub server: SocketAddr,
    /// Next sequence number of the client.
    pub client_next: u32,
    /// Next sequence number of the server.
    pub server_next: u32,
}

impl Connection {
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, client_next: 0xffff_ff00, server_next: 77_000 }
    }

    pub fn syn(&mut self) -> Segment {
        let segment = Segment::new(self.client, self.server, self.client_next, SYN, b"");
        self.client_next = self.client_next.wrapping_add(1);
        segment
    }

    pub fn syn_ack(&mut self) -> Segment {
        let mut segment = Segment::new(self.server, self.client, self.server_next, SYN | ACK, b"");
        segment.acknowledged = self.client_next;
        self.server_next = self.server_next.wrapping_add(1);
        segment
    }

    /// From the client.
    pub fn request(&mut self, payload: &[u8]) -> Segment {
        let mut segment = Segment::new(self.client, self.server, self.client_next, PUSH | ACK, payload);
        segment.acknowledged = self.server_next;
        self.client_next = self.client_next.wrapping_add(u32::try_from(payload.len()).unwrap());
        segment
    }

    /// From the server.
    pub fn response(&mut self, payload: &[u8]) -> Segment {
        let mut segment = Segment::new(self.server, self.client, self.server_next, PUSH | ACK, payload);
        segment.acknowledged = self.client_next;
        self.server_next = self.server_next.wrapping_add(u32::try_from(payload.len()).unwrap());
        segment
    }

    /// Nothing but an acknowledgement, from the client.
    pub fn ack(&self) -> Segment {
        Segment::new(self.client, self.server, self.client_next, ACK, b"")
    }

    /// The three packets that open it.
    pub fn open(&mut self) -> Vec<Segment> {
        vec![self.syn(), self.syn_ack(), self.ack()]
    }

    /// FIN from the client, FIN from the server, the last acknowledgement.
    pub fn close(&mut self) -> Vec<Segment> {
        let from_client = Segment::new(self.client, self.server, self.client_next, FIN | ACK, b"");
        self.client_next = self.client_next.wrapping_add(1);
        let from_server = Segment::new(self.server, self.client, self.server_next, FIN | ACK, b"");
        self.server_next = self.server_next.wrapping_add(1);
        vec![from_client, from_server, self.ack()]
    }
}

/// A JWT with the claims that matter; the signature is no real one.
pub fn token(issuer: &str, subject: &str, issued_at: u64) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let header = BASE64.encode(r#"{"alg":"RS256","typ":"JWT","kid":"key-1"}"#);
    let claims = format!(r#"{{"iss":"{issuer}","sub":"{subject}","iat":{issued_at},"exp":{}}}"#, issued_at + 3600);
    let signature = BASE64.encode(format!("signature of {subject} at {issued_at}, {}", "x".repeat(80)));
    format!("{header}.{}.{signature}", BASE64.encode(claims))
}

/// The third part of a token: what must never leave the kernel.
pub fn signature(token: &str) -> &str {
    token.rsplit('.').next().unwrap()
}
