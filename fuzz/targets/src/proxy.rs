//! The PROXY protocol at the start of a connection: any bytes, cut anywhere, in front of a request.
//!
//! What must hold: the identities of the totals, and that cuts change nothing; where the reference below, which takes only
//! what the specification does, reads a header, the first request says what it says; without a header, nothing.

use std::net::{Ipv4Addr, Ipv6Addr};

use sensor_ebpf::wire::service_flag;

use crate::rig::{Side, check_invariance, play, tables};
use crate::script::{self, Event};

/// What version 2 begins with.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Plays `data` as a [`script`] to a service whose connections begin with a PROXY header.
pub fn target(data: &[u8]) {
    let events = script::read(Side::Client, data);
    let uncut = play(tables(service_flag::PROXY), &events, false);
    let cut = play(tables(service_flag::PROXY), &events, true);
    check_invariance(&uncut, &cut);

    let said = |event: &Event| match event {
        Event::Say(Side::Client, bytes, _) => bytes.clone(),
        _ => Vec::new(),
    };
    let text: Vec<u8> = events.iter().flat_map(said).collect();
    let Some(first) = cut.output.heads.iter().find(|head| head.is_request() && head.fixed.head.txn == 0) else {
        return;
    };
    if let Some(header) = one(&text).or_else(|| two(&text)) {
        assert_eq!((first.fixed.proxied, first.fixed.proxied_port), header.client, "the client that the header names");
        assert!(first.fixed.head.offset >= header.len as u64, "the request begins inside the header");
    } else if !text.trim_ascii_start().starts_with(b"PROXY") && !text.starts_with(SIGNATURE) {
        assert_eq!((first.fixed.proxied, first.fixed.proxied_port), NOBODY, "a client that no header names");
    }
}

/// Address (IPv4 mapped into IPv6) and port.
type Client = ([u8; 16], u16);
const NOBODY: Client = ([0; 16], 0);

/// A header that is read.
struct Header {
    len: usize,
    client: Client,
}

/// Version 1: a line.
fn one(text: &[u8]) -> Option<Header> {
    let len = text.windows(2).take(106).position(|end| end == b"\r\n")? + 2;
    let line = std::str::from_utf8(&text[..len - 2]).ok()?;
    let words: Vec<&str> = line.split(' ').collect();
    let client = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => NOBODY,
        ["PROXY", family, source, destination, from, to] => {
            to.parse::<u16>().ok()?;
            (address(family, source).and_then(|source| address(family, destination).and(Some(source)))?, port(from)?)
        }
        _ => return None,
    };
    Some(Header { len, client })
}

fn address(family: &str, text: &str) -> Option<[u8; 16]> {
    match family {
        "TCP4" => text.parse::<Ipv4Addr>().ok().map(|v4| v4.to_ipv6_mapped().octets()),
        "TCP6" => text.parse::<Ipv6Addr>().ok().map(|v6| v6.octets()),
        _ => None,
    }
}

fn port(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Version 2: binary.
fn two(text: &[u8]) -> Option<Header> {
    let rest = text.strip_prefix(SIGNATURE)?;
    let (&[command, family, high, low], rest) = rest.split_first_chunk()?;
    let len = usize::from(high) << 8 | usize::from(low);
    let content = rest.get(..len)?;
    let at = |from: usize, to: usize| content.get(from..to);
    let number = |bytes: &[u8]| u16::from(bytes[0]) << 8 | u16::from(bytes[1]);
    let client = match (command, family) {
        (0x20, _) | (0x21, 0 | 0x12 | 0x22 | 0x31 | 0x32) => NOBODY,
        (0x21, 0x11) => {
            let source: [u8; 4] = at(0, 4)?.try_into().ok()?;
            (Ipv4Addr::from(source).to_ipv6_mapped().octets(), number(at(8, 12)?))
        }
        (0x21, 0x21) => (at(0, 16)?.try_into().ok()?, number(at(32, 36)?)),
        _ => return None,
    };
    Some(Header { len: SIGNATURE.len() + 4 + len, client })
}
