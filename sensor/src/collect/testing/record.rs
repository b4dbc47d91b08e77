//! Records built by hand, byte by byte as the kernel writes them.
//!
//! A test says what of a request, a response or a body matters to it; the rest is blank. What comes out is what the
//! collector takes.

use std::net::IpAddr;

use sensor_ebpf::wire::{
    Credential, NO_LENGTH, NO_ROUTE, capture, credential_flag, direction, framing, head_flag, kind, place, scheme,
    version,
};

use super::{BASE, MS, fingerprint, route_index};

/// Builds one record.
#[derive(Clone)]
pub struct RecordBuilder {
    kind: u8,
    direction: u8,
    flow: u64,
    txn: u32,
    time_ns: u64,
    service: u16,
    route: u16,
    status: u16,
    content_length: u64,
    anomalies: u32,
    framing: u8,
    flags: u8,
    client: [u8; 16],
    proxied: [u8; 16],
    credentials: Vec<Credential>,
    captures: [Vec<u8>; capture::COUNT],
    claims: Vec<(usize, Vec<u8>)>,
    offset: u64,
    body: Vec<u8>,
    body_bytes: u64,
}

impl RecordBuilder {
    pub fn new(kind: u8, flow: u64, txn: u32) -> Self {
        Self {
            kind,
            direction: u8::from(!matches!(kind, kind::REQUEST | kind::VERSION)),
            flow,
            txn,
            time_ns: BASE,
            service: 0,
            route: NO_ROUTE,
            status: 0,
            content_length: NO_LENGTH,
            anomalies: 0,
            framing: framing::NONE,
            flags: 0,
            client: mapped("198.51.100.7"),
            proxied: [0; 16],
            credentials: Vec::new(),
            captures: Default::default(),
            claims: Vec::new(),
            offset: 0,
            body: Vec::new(),
            body_bytes: 0,
        }
    }

    /// A request at `at` milliseconds after [`BASE`].
    pub fn request(flow: u64, txn: u32, at: u64, line: &str) -> Self {
        Self::new(kind::REQUEST, flow, txn)
            .at(at)
            .capture(capture::LINE, line.as_bytes())
            .capture(capture::HOST, b"shop.example")
    }

    /// Another version of a request.
    pub fn version(flow: u64, txn: u32, at: u64, line: &str) -> Self {
        Self { kind: kind::VERSION, ..Self::request(flow, txn, at, line) }
    }

    /// Of a version: the first reading has no such request.
    pub fn more(self) -> Self {
        Self { flags: self.flags | head_flag::MORE, ..self }
    }

    /// A response with a body of 500 bytes.
    pub fn response(flow: u64, txn: u32, at: u64, status: u16) -> Self {
        Self { status, content_length: 500, framing: framing::LENGTH, ..Self::new(kind::RESPONSE, flow, txn).at(at) }
    }

    /// A chunk of a teed body.
    pub fn tee(flow: u64, txn: u32, at: u64, direction: u8, offset: u64, body: &[u8]) -> Self {
        Self { direction, offset, body: body.to_owned(), ..Self::new(kind::TEE, flow, txn).at(at) }
    }

    pub fn tee_end(flow: u64, txn: u32, at: u64, direction: u8, body_bytes: u64) -> Self {
        Self { direction, body_bytes, ..Self::new(kind::TEE_END, flow, txn).at(at) }
    }

    pub fn end(flow: u64, txn: u32, at: u64, body_bytes: u64) -> Self {
        Self { body_bytes, direction: direction::RESPONSE, ..Self::new(kind::END, flow, txn).at(at) }
    }

    pub fn close(flow: u64, at: u64) -> Self {
        Self::new(kind::CLOSE, flow, 0).at(at)
    }

    pub fn at(self, ms: u64) -> Self {
        Self { time_ns: BASE + ms * MS, ..self }
    }

    pub fn client(self, address: &str) -> Self {
        Self { client: mapped(address), ..self }
    }

    /// What a PROXY protocol header named.
    pub fn proxied(self, address: &str) -> Self {
        Self { proxied: mapped(address), ..self }
    }

    pub fn anomalies(self, anomalies: u32) -> Self {
        Self { anomalies, ..self }
    }

    pub fn service(self, service: u16) -> Self {
        Self { service, ..self }
    }

    pub fn route(self, template: &str) -> Self {
        Self { route: route_index(template), ..self }
    }

    pub fn teed(self) -> Self {
        Self { flags: self.flags | head_flag::TEE, ..self }
    }

    /// A chunked body, the length of which an END record gives.
    pub fn chunked(self) -> Self {
        Self {
            framing: framing::CHUNKED,
            content_length: NO_LENGTH,
            flags: self.flags | head_flag::END_FOLLOWS,
            ..self
        }
    }

    pub fn length(self, content_length: u64) -> Self {
        Self { content_length, framing: framing::LENGTH, ..self }
    }

    pub fn capture(mut self, which: usize, bytes: &[u8]) -> Self {
        self.captures[which] = bytes.to_owned();
        self
    }

    /// Of the latest credential.
    pub fn scheme(mut self, scheme: u8) -> Self {
        self.credentials.last_mut().unwrap().scheme = scheme;
        self
    }

    pub fn credential(mut self, place: u8, index: u8, text: &str) -> Self {
        let mut credential = Credential {
            fingerprint: fingerprint(text),
            len: u32::try_from(text.len()).unwrap(),
            place,
            index,
            scheme: if place == place::AUTHORIZATION { scheme::BEARER } else { scheme::BARE },
            ..Credential::default()
        };
        if let [header, payload, _] = text.split('.').collect::<Vec<_>>()[..] {
            credential.flags = credential_flag::THREE_PARTS | credential_flag::CLAIMS;
            credential.dots = 2;
            self.claims.push((self.credentials.len(), format!("{header}.{payload}").into_bytes()));
        }
        self.credentials.push(credential);
        self
    }

    /// Of the latest credential.
    pub fn credential_flags(mut self, flags: u16) -> Self {
        self.credentials.last_mut().unwrap().flags |= flags;
        self
    }

    pub fn bearer(self, text: &str) -> Self {
        self.credential(place::AUTHORIZATION, 0, text)
    }

    pub fn cookie(self, text: &str) -> Self {
        self.credential(place::COOKIE, 0, text)
    }

    pub fn set_cookie(self, text: &str) -> Self {
        self.credential(place::SET_COOKIE, 0, text)
    }

    /// A query credential whose value was cut out at `cut_at` of the line.
    pub fn query(mut self, index: u8, text: &str, cut_at: u16) -> Self {
        self = self.credential(place::QUERY, index, text);
        self.credentials.last_mut().unwrap().cut_at = cut_at;
        self
    }

    pub fn build(mut self) -> Vec<u8> {
        let mut area = Vec::new();
        let mut spans = Vec::new();
        for bytes in &self.captures {
            spans.push(put(&mut area, bytes));
        }
        for (index, bytes) in &self.claims {
            let (at, len) = put(&mut area, bytes);
            self.credentials[*index].claims = sensor_ebpf::wire::Span { at, len };
        }
        let mut out = vec![0; 4];
        out.extend([self.kind, self.direction]);
        out.extend(self.service.to_le_bytes());
        out.extend(self.time_ns.to_le_bytes());
        out.extend(self.flow.to_le_bytes());
        out.extend([0; 8]);
        out.extend(self.txn.to_le_bytes());
        out.extend([0; 4]);
        out.extend(self.offset.to_le_bytes());
        match self.kind {
            kind::REQUEST | kind::VERSION | kind::RESPONSE => self.put_head(&mut out, &spans, &area),
            kind::END | kind::TEE_END => {
                out.extend(self.body_bytes.to_le_bytes());
                out.extend(1u64.to_le_bytes());
            }
            kind::TEE => {
                out.extend(u32::try_from(self.body.len()).unwrap().to_le_bytes());
                out.extend([0; 4]);
                out.extend(&self.body);
            }
            _ => {}
        }
        let size = u32::try_from(out.len()).unwrap();
        out[..4].copy_from_slice(&size.to_le_bytes());
        out
    }

    fn put_head(&self, out: &mut Vec<u8>, spans: &[(u16, u16)], area: &[u8]) {
        out.extend(self.client);
        out.extend(mapped("192.0.2.1"));
        out.extend(40_000u16.to_le_bytes());
        out.extend(8080u16.to_le_bytes());
        out.extend(self.route.to_le_bytes());
        out.extend(self.status.to_le_bytes());
        out.extend(self.content_length.to_le_bytes());
        out.extend([0; 8]);
        out.extend([0; 4]);
        out.extend(self.anomalies.to_le_bytes());
        out.extend([0, version::HTTP_11, self.framing, self.flags]);
        out.extend(u16::try_from(self.credentials.len()).unwrap().to_le_bytes());
        out.extend(u16::try_from(area.len()).unwrap().to_le_bytes());
        for (at, len) in spans {
            out.extend(at.to_le_bytes());
            out.extend(len.to_le_bytes());
        }
        out.extend(self.proxied);
        out.extend(4711u16.to_le_bytes());
        out.extend([0; 6]);
        for one in &self.credentials {
            out.extend(one.fingerprint);
            out.extend(one.len.to_le_bytes());
            out.extend(one.claims.at.to_le_bytes());
            out.extend(one.claims.len.to_le_bytes());
            out.extend([one.place, one.index, one.scheme, one.dots]);
            out.extend(one.cut_at.to_le_bytes());
            out.extend(one.flags.to_le_bytes());
        }
        out.extend(area);
    }
}

fn put(area: &mut Vec<u8>, bytes: &[u8]) -> (u16, u16) {
    let at = u16::try_from(area.len()).unwrap();
    area.extend(bytes);
    (at, u16::try_from(bytes.len()).unwrap())
}

fn mapped(address: &str) -> [u8; 16] {
    match address.parse().unwrap() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
