//! The PROXY protocol in front of the first request, versions 1 and 2, cut anywhere.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;
use sensor::capture::offline::Offline;
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::service_flag;

use super::rig::{ACK, Conversation, From, SYN, count, segment_of, tables};

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn service() -> Offline {
    let mut tables = tables();
    tables.services[0].flags |= service_flag::PROXY;
    Offline::new(tables, false, 1024, 64, Limits::default())
}

/// What became of a flow: the lines of its requests with the address that the header named, and the counters.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    requests: Vec<(String, Option<(Ipv6Addr, u16)>)>,
    missing: u64,
    malformed: u64,
    tls: u64,
}

/// A flow that begins with `bytes`, cut at `cuts`.
fn flow(bytes: &[u8], cuts: &[usize]) -> Told {
    let mut conversation = Conversation::over(service());
    let mut sent = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        if cut > sent && cut <= bytes.len() {
            conversation.data(From::Client, &bytes[sent..cut]);
            sent = cut;
        }
    }
    let heads = conversation.output().heads;
    let address = |named: &([u8; 16], u16)| (Ipv6Addr::from(named.0), named.1);
    let told = |head: &super::rig::Seen| {
        let named = Some(address(&head.proxied)).filter(|(address, _)| !address.is_unspecified());
        (head.line().to_owned(), named)
    };
    let counted = |counter| count(&conversation.engine, counter);
    Told {
        requests: heads.iter().map(told).collect(),
        missing: counted(Counter::ProxyMissing),
        malformed: counted(Counter::ProxyMalformed),
        tls: counted(Counter::PassedTls),
    }
}

fn with_request(header: &[u8]) -> Vec<u8> {
    [header, REQUEST].concat()
}

fn read(named: Option<(Ipv6Addr, u16)>) -> Told {
    Told { requests: vec![("GET /a HTTP/1.1".to_owned(), named)], missing: 0, malformed: 0, tls: 0 }
}

fn refused() -> Told {
    Told { requests: Vec::new(), missing: 0, malformed: 1, tls: 0 }
}

/// A header of version 2.
fn binary(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
    let mut header = [SIGNATURE, &[command, family]].concat();
    header.extend(u16::try_from(addresses.len()).unwrap().to_be_bytes());
    header.extend(addresses);
    header
}

fn v4(source: [u8; 4], port: u16) -> Vec<u8> {
    [&source[..], &[192, 0, 2, 1], &port.to_be_bytes(), &[0x1f, 0x90]].concat()
}

fn v6(source: Ipv6Addr, port: u16) -> Vec<u8> {
    [&source.octets()[..], &[0xfd; 16], &port.to_be_bytes(), &[0x1f, 0x90]].concat()
}

fn mapped(address: [u8; 4]) -> Ipv6Addr {
    Ipv4Addr::from(address).to_ipv6_mapped()
}

#[test]
fn version_1() {
    let named = |text: &str, port| Some((text.parse().unwrap(), port));
    for (line, want) in [
        ("PROXY TCP4 198.51.100.7 192.0.2.1 56324 443", named("::ffff:198.51.100.7", 56_324)),
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535", named("::ffff:255.255.255.255", 65_535)),
        ("PROXY TCP4 0.0.0.1 0.0.0.0 0 0", named("::ffff:0.0.0.1", 0)),
        ("PROXY TCP6 2001:db8::7 ::1 1 2", named("2001:db8::7", 1)),
        ("PROXY TCP6 1:2:3:4:5:6:7:8 ::1 1 2", named("1:2:3:4:5:6:7:8", 1)),
        ("PROXY TCP6 ::1 ::1 1 2", named("::1", 1)),
        ("PROXY TCP6 fe80:: ::1 1 2", named("fe80::", 1)),
        ("PROXY TCP6 1::8 ::1 1 2", named("1::8", 1)),
        ("PROXY TCP6 1:2:3:4:5:6:7:: ::1 1 2", named("1:2:3:4:5:6:7:0", 1)),
        ("PROXY TCP6 ::2:3:4:5:6:7:8 ::1 1 2", named("0:2:3:4:5:6:7:8", 1)),
        ("PROXY TCP6 ::FFFF:198.51.100.7 ::1 1 2", named("::ffff:198.51.100.7", 1)),
        ("PROXY TCP6 64:ff9b::1.2.3.4 ::1 1 2", named("64:ff9b::1.2.3.4", 1)),
        (
            "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535",
            named("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65_535),
        ),
        ("PROXY UNKNOWN", None),
        ("PROXY UNKNOWN ffff::1 whatever\tstands here", None),
    ] {
        let bytes = with_request(format!("{line}\r\n").as_bytes());
        assert_eq!(flow(&bytes, &[]), read(want), "{line}");
        for cut in 1..line.len() + 4 {
            assert_eq!(flow(&bytes, &[cut]), read(want), "{line} cut at {cut}");
        }
        let each: Vec<usize> = (1..bytes.len()).collect();
        assert_eq!(flow(&bytes, &each), read(want), "{line} byte by byte");
    }
}

#[test]
fn malformed_lines_are_no_http() {
    let long = format!("PROXY UNKNOWN {}", "x".repeat(107 - 16));
    let bytes = with_request(format!("{long}\r\n").as_bytes());
    assert_eq!((long.len() + 2, flow(&bytes, &[])), (107, read(None)), "as long as it may be");
    let longer = format!("{long}x");
    for line in [
        longer.as_str(),
        "PROXY ",
        "PROXY TCP4",
        "PROXY TCP5 1.2.3.4 1.2.3.4 1 2",
        "PROXY UNKNOWNS",
        "PROXY tcp4 1.2.3.4 1.2.3.4 1 2",
        "PROXY TCP4 1.2.3 1.2.3.4 1 2",
        "PROXY TCP4 1.2.3.4.5 1.2.3.4 1 2",
        "PROXY TCP4 1.2.3.256 1.2.3.4 1 2",
        "PROXY TCP4 1.2.3.0004 1.2.3.4 1 2",
        "PROXY TCP4 1..3.4 1.2.3.4 1 2",
        "PROXY TCP4 ::1 ::1 1 2",
        "PROXY TCP4  1.2.3.4 1.2.3.4 1 2",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1",
        "PROXY TCP4 1.2.3.4 1.2.3.4 65536 2",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 65536",
        "PROXY TCP4 1.2.3.4 1.2.3.4 000001 2",
        "PROXY TCP4 1.2.3.4 1.2.3.4 -1 2",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 ",
        "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3",
        "PROXY TCP4 1.2.3.4 host 1 2",
        "PROXY TCP6 1.2.3.4 ::1 1 2",
        "PROXY TCP6 : ::1 1 2",
        "PROXY TCP6 :1 ::1 1 2",
        "PROXY TCP6 1: ::1 1 2",
        "PROXY TCP6 ::: ::1 1 2",
        "PROXY TCP6 1::2::3 ::1 1 2",
        "PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2",
        "PROXY TCP6 1:2:3:4:5:6:7:8:9 ::1 1 2",
        "PROXY TCP6 1:2:3:4:5:6:7:8:: ::1 1 2",
        "PROXY TCP6 12345::1 ::1 1 2",
        "PROXY TCP6 g::1 ::1 1 2",
        "PROXY TCP6 ::a.2.3.4 ::1 1 2",
        "PROXY TCP6 1:2:3:4:5:6:7:1.2.3.4 ::1 1 2",
        "PROXY TCP6 ::1.2.3:4 ::1 1 2",
        "PROXY UNKNOWN\r",
    ] {
        let bytes = with_request(format!("{line}\r\n").as_bytes());
        assert_eq!(flow(&bytes, &[]), refused(), "{line}");
        assert_eq!(flow(&bytes, &[9, 10, 20, 21]), refused(), "{line}");
    }
    assert_eq!(flow(&with_request(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\n"), &[]), refused(), "LF alone");
}

#[test]
fn version_2() {
    let source: Ipv6Addr = "2001:db8::8000:1".parse().unwrap();
    let tlv = |mut addresses: Vec<u8>, len: usize| {
        addresses.extend(std::iter::repeat_n(b'\n', len));
        addresses
    };
    for (name, header, want) in [
        ("IPv4", binary(0x21, 0x11, &v4([198, 51, 100, 7], 4711)), Some((mapped([198, 51, 100, 7]), 4711))),
        ("IPv6", binary(0x21, 0x21, &v6(source, 65_535)), Some((source, 65_535))),
        ("IPv4 with TLVs", binary(0x21, 0x11, &tlv(v4([9, 8, 7, 6], 1), 300)), Some((mapped([9, 8, 7, 6]), 1))),
        ("LOCAL", binary(0x20, 0, &[]), None),
        ("LOCAL with what is to be ignored", binary(0x20, 0x11, &v4([9, 8, 7, 6], 1)), None),
        ("LOCAL of no known family", binary(0x20, 0xff, &[1, 2, 3]), None),
        ("unspecified", binary(0x21, 0, &[1; 7]), None),
        ("UDP", binary(0x21, 0x12, &v4([9, 8, 7, 6], 1)), None),
        ("a socket file", binary(0x21, 0x31, &[b'/'; 216]), None),
        ("all that fits", binary(0x21, 0x11, &tlv(v4([9, 8, 7, 6], 1), 65_523)), Some((mapped([9, 8, 7, 6]), 1))),
    ] {
        let bytes = with_request(&header);
        let large: Vec<usize> = (1400..bytes.len()).step_by(1400).collect();
        assert_eq!(flow(&bytes, &large), read(want), "{name}");
        for cut in 1..header.len().min(80) {
            let cuts: Vec<usize> = [cut].into_iter().chain(large.iter().copied()).collect();
            assert_eq!(flow(&bytes, &cuts), read(want), "{name} cut at {cut}");
        }
        if bytes.len() < 1000 {
            let each: Vec<usize> = (1..bytes.len()).collect();
            assert_eq!(flow(&bytes, &each), read(want), "{name} byte by byte");
        }
    }
}

#[test]
fn malformed_binary_headers_are_no_http() {
    let good = v4([9, 8, 7, 6], 1);
    let mut headers = vec![
        ("version 1", binary(0x11, 0x11, &good)),
        ("command 2", binary(0x22, 0x11, &good)),
        ("family 4", binary(0x21, 0x41, &good)),
        ("protocol 3", binary(0x21, 0x13, &good)),
        ("short IPv4", binary(0x21, 0x11, &good[..11])),
        ("IPv4's length for IPv6", binary(0x21, 0x21, &good)),
        ("no addresses", binary(0x21, 0x11, &[])),
    ];
    for at in 5..12 {
        let mut header = binary(0x21, 0x11, &good);
        header[at] ^= 1;
        headers.push(("signature", header));
    }
    for (name, header) in headers {
        assert_eq!(flow(&with_request(&header), &[]), refused(), "{name}");
        assert_eq!(flow(&with_request(&header), &[3, 4, 5, 13, 15]), refused(), "{name}");
    }
}

#[test]
fn without_a_header_it_is_http_and_counted() {
    assert_eq!(flow(REQUEST, &[]), Told { missing: 1, ..read(None) });
    assert_eq!(flow(REQUEST, &[1, 2, 3]), Told { missing: 1, ..read(None) });
    let twice = [REQUEST, b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 HTTP/1.1\r\n\r\n"].concat();
    let told = flow(&twice, &[]);
    assert_eq!((told.requests.len(), told.missing, told.malformed), (2, 1, 0), "only at the beginning");
    assert_eq!(told.requests[1].1, None);
    assert_eq!(flow(b"\x16\x03\x01\x02\0", &[]).tls, 1);
}

#[test]
fn what_follows_a_header_may_be_tls_or_http_2() {
    let header = b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n";
    assert_eq!(flow(&[&header[..], b"\x16\x03\x01\x02\0"].concat(), &[]).tls, 1);
    let mut conversation = Conversation::over(service());
    conversation.data(From::Client, &[&header[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"].concat());
    assert_eq!(count(&conversation.engine, Counter::PassedH2), 1);
}

#[test]
fn every_request_of_the_flow_has_the_address() {
    let bytes = [b"PROXY TCP4 9.8.7.6 1.2.3.4 5 2\r\n", REQUEST, REQUEST].concat();
    let told = flow(&bytes, &[]);
    assert_eq!(told.requests.iter().map(|(_, named)| *named).collect::<Vec<_>>(), [Some((mapped([9, 8, 7, 6]), 5)); 2]);
}

#[test]
fn a_port_that_is_used_again_has_another_client() {
    let mut engine = service();
    for (source, sequence) in [("9.8.7.6", 1000u32), ("", 90_000)] {
        let header = if source.is_empty() { String::new() } else { format!("PROXY TCP4 {source} 1.2.3.4 5 2\r\n") };
        for (flags, at, payload) in [(SYN, 0, Vec::new()), (ACK, 1, [header.as_bytes(), REQUEST].concat())] {
            let frame = segment_of(40_000, From::Client, sequence + at, flags, &payload);
            engine.ethernet(1, &frame, u32::try_from(frame.len()).unwrap());
        }
    }
    let heads = super::rig::drain(&mut engine).heads;
    assert_eq!(heads[0].proxied, (mapped([9, 8, 7, 6]).octets(), 5));
    assert_eq!(heads[1].proxied, ([0; 16], 0));
}

#[test]
fn services_without_it_take_the_word_for_a_method() {
    let mut conversation = Conversation::open();
    conversation.data(From::Client, b"PROXY /a HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_eq!(conversation.output().heads[0].line(), "PROXY /a HTTP/1.1");
}

proptest! {
    /// Any address of either version, as the standard library reads it, in any two cuts.
    #[test]
    fn addresses_as_others_read_them(
        words in any::<[u16; 8]>(), zeroes in 0u8..=255, port in any::<u16>(), cuts in [1usize..90, 1usize..90]
    ) {
        let mut words = words;
        for (index, word) in words.iter_mut().enumerate() {
            *word *= u16::from(zeroes >> index & 1);
        }
        let address = Ipv6Addr::from(words);
        prop_assume!(!address.is_unspecified());
        let quad = Ipv4Addr::from([words[0], words[1]].map(u16::to_be_bytes).concat().first_chunk().copied().unwrap());
        let mut cuts = cuts;
        cuts.sort_unstable();
        let line = format!("PROXY TCP6 {address} ::1 {port} 1\r\n");
        prop_assert_eq!(flow(&with_request(line.as_bytes()), &cuts), read(Some((address, port))));
        let line = format!("PROXY TCP4 {quad} 0.0.0.0 {port} 1\r\n");
        prop_assert_eq!(flow(&with_request(line.as_bytes()), &cuts), read(Some((quad.to_ipv6_mapped(), port))));
        let header = binary(0x21, 0x21, &v6(address, port));
        prop_assert_eq!(flow(&with_request(&header), &cuts), read(Some((address, port))));
    }

    /// Whatever stands in place of an address: it is what the standard library makes of it, or malformed.
    #[test]
    fn addresses_that_are_none(text in "[0-9a-f:.]{1,24}") {
        let line = format!("PROXY TCP6 {text} ::1 1 1\r\n");
        let want = text.parse::<Ipv6Addr>();
        let told = flow(&with_request(line.as_bytes()), &[]);
        match want {
            Ok(address) if !address.is_unspecified() => prop_assert_eq!(told, read(Some((address, 1)))),
            Ok(_) => prop_assert_eq!(told, read(None)),
            Err(_) => prop_assert_eq!(told, refused()),
        }
    }

    /// Bytes of any kind behind what a header begins with, in any cuts: the same as uncut, and never a panic.
    #[test]
    fn hostile_bytes(
        start in prop::sample::select(vec![b"PROXY ".to_vec(), SIGNATURE.to_vec(), binary(0x21, 0x11, &[])[..14].to_vec()]),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in [1usize..200, 1usize..200, 1usize..200]
    ) {
        let mut cuts = cuts;
        cuts.sort_unstable();
        let all = [start, bytes, REQUEST.to_vec()].concat();
        prop_assert_eq!(flow(&all, &cuts), flow(&all, &[]));
    }
}
