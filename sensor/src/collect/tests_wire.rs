//! Credentials from the packet on: frames through the parser into the collector.

use sensor_ebpf::siphash::hash128;

use super::decompress::tests::{encoded, gzip};
use super::testing::*;
use super::{Collector, DecodingCounts};
use crate::capture::offline::Offline;
use crate::capture::tables::Tables;
use crate::observation::{Fingerprint, Observation, Outcome, Provenance};
use crate::slow::Limits;

const CLIENT: bool = true;
const SERVER: bool = false;

/// Connections over a parser and a collector.
struct Wire {
    engine: Offline,
    collector: Collector,
    kept: Kept,
    port: u16,
    sequences: [u32; 2],
    at_ns: u64,
    /// Most bytes of a segment.
    cut: usize,
}

impl Wire {
    fn new(cut: usize) -> Self {
        let tables = Tables::new(&config(), KEYS.fingerprint).unwrap();
        let engine = Offline::new(tables, false, 64, 16, Limits::default());
        Self { engine, collector: collector(), kept: Kept::default(), port: 1000, sequences: [0; 2], at_ns: BASE, cut }
    }

    fn segment(&mut self, client: bool, flags: u8, payload: &[u8]) {
        let mut frame = vec![2; 12];
        frame.extend([8, 0, 0x45, 0]);
        frame.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
        frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
        let ends = [([198, 51, 100, 7], self.port), ([192, 0, 2, 1], 8080)];
        let [from, to] = if client { ends } else { [ends[1], ends[0]] };
        frame.extend(from.0.into_iter().chain(to.0));
        frame.extend(from.1.to_be_bytes());
        frame.extend(to.1.to_be_bytes());
        frame.extend(self.sequences[usize::from(client)].to_be_bytes());
        frame.extend(self.sequences[usize::from(!client)].to_be_bytes());
        frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        frame.extend(payload);
        self.at_ns += MS;
        self.engine.ethernet(self.at_ns, &frame, u32::try_from(frame.len()).unwrap());
        let collector = &mut self.collector;
        self.engine.drain(|record| collector.record(record));
        let bytes = u32::try_from(payload.len()).unwrap() + u32::from(flags & 2 != 0);
        self.sequences[usize::from(client)] += bytes;
    }

    /// One exchange on a connection of its own; gives its observation.
    fn exchange(&mut self, request: &[u8], response: &[u8]) -> Observation {
        self.port += 1;
        self.sequences = [0; 2];
        self.segment(CLIENT, 2, b"");
        self.segment(SERVER, 18, b"");
        for (side, bytes) in [(CLIENT, request), (SERVER, response)] {
            for piece in bytes.chunks(self.cut) {
                self.segment(side, 16, piece);
            }
        }
        let seen = self.kept.observations.len();
        self.collector.advance(self.at_ns + 1, &mut self.kept);
        assert_eq!(self.kept.observations.len(), seen + 1, "answered at once");
        *self.kept.observations.last().unwrap()
    }

    /// Provenance of a read with `head` lines.
    fn read(&mut self, head: &str) -> Observation {
        let request = format!("GET /mine HTTP/1.1\r\nHost: shop.example\r\n{head}\r\n");
        self.exchange(request.as_bytes(), b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    }

    fn login(&mut self, target: &str, response: &str) -> Observation {
        let request = format!("POST {target} HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n");
        self.exchange(request.as_bytes(), response.as_bytes())
    }
}

/// `body` in chunks of `size` bytes, with extensions and a trailer.
fn chunked(start: &str, coding: &str, body: &[u8], size: usize) -> Vec<u8> {
    let mut out = format!("{start}\r\nContent-Encoding: {coding}\r\nTransfer-Encoding: chunked\r\n\r\n").into_bytes();
    for piece in body.chunks(size) {
        out.extend(format!("{:X};x=\"y\"\r\n", piece.len()).bytes());
        out.extend(piece);
        out.extend(b"\r\n");
    }
    out.extend(b"0\r\nDigest: none\r\n\r\n");
    out
}

#[test]
fn compressed_chunked_and_split() {
    let filler = "x".repeat(3000);
    let body = format!(r#"{{"filler":"{filler}","ok":true,"data":{{"token":"s1"}}}}"#).into_bytes();
    let parent = br#"{"refresh_token":"s1"}"#;
    let answer = br#"{"token":"s2"}"#;
    for coding in ["gzip", "deflate", "br", "zstd"] {
        for (cut, size) in [(1, 5), (3, 1), (17, 1000), (1460, 333)] {
            let mut wire = Wire::new(cut);
            let login = b"POST /api/login HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n";
            let response = chunked("HTTP/1.1 200 OK", coding, &encoded(coding, &body), size);
            assert_eq!(wire.exchange(login, &response).outcome, Outcome::Read, "{coding} {cut}");
            assert_eq!(wire.read("Cookie: sid=s1\r\n").provenance, Provenance::Issued, "{coding} {cut}");

            let start = "POST /refresh HTTP/1.1\r\nHost: shop.example";
            let refresh = chunked(start, coding, &encoded(coding, parent), size);
            let response =
                chunked("HTTP/1.1 200 OK", &format!("{coding}, gzip"), &gzip(&encoded(coding, answer)), size);
            wire.exchange(&refresh, &response);
            assert_eq!(wire.read("Cookie: sid=s2\r\n").provenance, Provenance::Issued, "{coding} {cut}");
            let counts = wire.collector.counts();
            assert_eq!(counts.decoding, DecodingCounts { decoded: 3, ..DecodingCounts::default() });
            assert_eq!(counts.issuances.lost, 0);
        }
    }
}

#[test]
fn a_body_that_does_not_decode_is_a_gap() {
    let mut wire = Wire::new(100);
    let login = b"POST /api/login HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n";
    wire.exchange(login, &chunked("HTTP/1.1 200 OK", "gzip", b"\x1f\x8b\x08 no more", 4));
    assert_eq!(wire.collector.counts().issuances.lost, 2);
    assert_eq!(wire.read("Cookie: sid=s1\r\n").provenance, Provenance::Unverifiable);
    assert_eq!(wire.read("Cookie: sid=s2\r\n").provenance, Provenance::Unverifiable);
    assert_eq!(wire.read("Cookie: sid=s3\r\n").provenance, Provenance::Unissued, "no more than were lost");
}

#[test]
fn deletions_are_no_issuances() {
    for (attributes, issued) in [
        ("; Path=/", true),
        ("; Max-Age=600", true),
        ("; Max-Age=0", false),
        ("; Path=/; max-age=-1; Secure", false),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/", false),
        ("; Expires=Thu, 01-Jan-1970 00:00:10 GMT", false),
        ("; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=600", true),
        ("; Expires=Fri, 01 Jan 2100 00:00:00 GMT", true),
        ("; Expires=Fri, 01 Jan 2100 00:00:00 GMT; Max-Age=0", false),
        ("; Expires=never", true),
    ] {
        for cut in [1, 1460] {
            let mut wire = Wire::new(cut);
            let head = format!("HTTP/1.1 302 Found\r\nSet-Cookie: sid=s1{attributes}\r\nContent-Length: 0\r\n\r\n");
            let login = wire.login("/login", &head);
            // The route's success is that it sets the cookie.
            assert_eq!(login.outcome == Outcome::Read, issued, "{attributes}");
            let read = wire.read("Cookie: sid=s1\r\n");
            assert_eq!(read.provenance == Provenance::Issued, issued, "{attributes}");
            assert_eq!(read.provenance == Provenance::Unissued, !issued, "{attributes}");
            assert_eq!(wire.collector.counts().issuances.deleted, u64::from(!issued), "{attributes}");
        }
    }
    let mut wire = Wire::new(1460);
    let empty = "HTTP/1.1 302 Found\r\nSet-Cookie: sid=; Path=/\r\nContent-Length: 0\r\n\r\n";
    assert_ne!(wire.login("/login", empty).outcome, Outcome::Read);
    // The old cookie goes, the new one stays.
    let both = "HTTP/1.1 302 Found\r\nSet-Cookie: sid=old; Max-Age=0; Path=/a\r\nSet-Cookie: sid=new\r\n\
                Content-Length: 0\r\n\r\n";
    assert_eq!(wire.login("/login", both).outcome, Outcome::Read);
    assert_eq!(wire.read("Cookie: sid=new\r\n").provenance, Provenance::Issued);
    assert_eq!(wire.read("Cookie: sid=old\r\n").provenance, Provenance::Unissued);
}

#[test]
fn a_scheme_word_in_a_header_of_its_own() {
    let mut wire = Wire::new(5);
    wire.login("/header/login", "HTTP/1.1 200 OK\r\nX-Issued: Bearer s1\r\nContent-Length: 0\r\n\r\n");
    for head in ["Cookie: sid=s1\r\n", "Authorization: bearer  s1\r\n", "Authorization: DPoP s1\r\n"] {
        assert_eq!(wire.read(head).provenance, Provenance::Issued, "{head}");
    }
}

#[test]
fn schemes_without_a_stable_token() {
    let mut wire = Wire::new(1460);
    wire.login("/login", "HTTP/1.1 302 Found\r\nSet-Cookie: sid=s1\r\nContent-Length: 0\r\n\r\n");
    let digest = "Authorization: Digest username=\"a.b\", realm=\"shop.example\", uri=\"/mine\", nonce=\"x\"\r\n";
    let all = [digest, "Authorization: NTLM TlRMTVNTUAAB\r\n", "Authorization: Negotiate YIIB.x.y\r\n"];
    for (count, head) in (1..).zip(all) {
        let observation = wire.read(head);
        assert_eq!(observation.provenance, Provenance::Unverifiable, "{head}");
        assert_eq!((observation.fingerprint, observation.account, observation.issuer), (None, None, None), "{head}");
        let stats = wire.collector.ledger().stats();
        assert_eq!((stats.no_stable_token, stats.unmatched, stats.seen), (count, 0, 0), "{head}");
    }
    // What stands beside it is judged; and a token does not hide behind the word.
    let forged = jwt("9");
    for head in [
        format!("{digest}Authorization: Bearer {forged}\r\n"),
        format!("Authorization: Digest {forged}\r\n"),
        format!("Authorization: NTLM {forged}\r\nCookie: sid=s1\r\n"),
    ] {
        let observation = wire.read(&head);
        assert_eq!(observation.provenance, Provenance::Unissued, "{head}");
        assert_eq!(observation.fingerprint, Some(Fingerprint(hash128(KEYS.fingerprint, forged.as_bytes()))));
    }
    assert_eq!(wire.read("Cookie: sid=s1\r\n").provenance, Provenance::Issued);
    // A password is stable, and nothing that a login hands out.
    assert_eq!(wire.read("Authorization: Basic dXNlcjpwYXNz\r\n").provenance, Provenance::Unverifiable);
    assert_eq!(wire.collector.ledger().stats().unmatched, 1);
}

#[test]
fn an_issued_cookie_repeated_hides_no_forged_token() {
    let mut wire = Wire::new(1460);
    wire.login("/login", "HTTP/1.1 302 Found\r\nSet-Cookie: sid=s1\r\nContent-Length: 0\r\n\r\n");
    let own = "sid=s1; sid=%731; ".repeat(10);
    let head = format!("Cookie: {own}\r\nAuthorization: Bearer s1\r\nAuthorization: Bearer {}\r\n", jwt("9"));
    assert_eq!(wire.read(&head).provenance, Provenance::Unissued);
}
