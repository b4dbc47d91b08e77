//! Who reads: the peer, or behind a trusted proxy the right-most address that is not one.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use sensor_ebpf::wire::{VALUE_CAPTURE_MAX, anomaly, capture};

use super::decode::Head;

/// The address of a record, IPv4 where it is a mapped one.
pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// The client of a request. A forwarding header is believed only when the peer is a trusted proxy; one that cannot be
/// read, or whose end is cut off (the trusted part is at the end), leaves the peer.
pub(super) fn attribute(head: &Head<'_>, trusted: &[IpNet]) -> IpAddr {
    let peer = address(head.fixed.client);
    if !is_trusted(peer, trusted) {
        return peer;
    }
    for which in [capture::FORWARDED, capture::X_FORWARDED_FOR, capture::X_REAL_IP] {
        let Some(value) = head.capture(which) else { continue };
        if head.anomaly(anomaly::VALUE_CUT) && value.len() >= VALUE_CAPTURE_MAX {
            return peer;
        }
        let found = if which == capture::FORWARDED {
            right_most(value, trusted, |element| forwarded_for(element))
        } else {
            right_most(value, trusted, Some)
        };
        return found.unwrap_or(peer);
    }
    peer
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The right-most untrusted address of a comma-separated list; the left-most one when all are trusted.
fn right_most<'a>(list: &'a [u8], trusted: &[IpNet], node: impl Fn(&'a [u8]) -> Option<&'a [u8]>) -> Option<IpAddr> {
    let mut leftmost = None;
    for element in list.rsplit(|byte| *byte == b',') {
        let address = parse_node(node(element.trim_ascii())?)?;
        if !is_trusted(address, trusted) {
            return Some(address);
        }
        leftmost = Some(address);
    }
    leftmost
}

/// The `for` parameter of one element of `Forwarded` (RFC 7239 §4). A quoted comma or semicolon does not occur in an
/// address, so splitting first is safe: such a value is unreadable either way.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    element.split(|byte| *byte == b';').find_map(|pair| {
        let pair = pair.trim_ascii();
        let (name, value) = pair.split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    })
}

/// An address with or without quotes, brackets and port (RFC 7239 §6).
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let node = node.trim_ascii();
    let node = node.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(node);
    let text = std::str::from_utf8(node).ok()?;
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        return if is_port(port) { address.parse::<Ipv6Addr>().ok().map(canonical) } else { None };
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    let (address, port) = text.split_at_checked(text.find(':')?)?;
    if is_port(port) { address.parse().ok().map(IpAddr::V4) } else { None }
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

fn is_port(text: &str) -> bool {
    text.is_empty()
        || text
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'))
}

#[cfg(test)]
mod tests {
    use sensor_ebpf::wire::kind;

    use super::*;
    use crate::collect::decode::{Record, decode};
    use crate::collect::testing::RecordBuilder;

    fn client(peer: &str, headers: &[(usize, &str)], anomalies: u32) -> String {
        let mut builder = RecordBuilder::new(kind::REQUEST, 1, 0).client(peer).anomalies(anomalies);
        for (which, value) in headers {
            builder = builder.capture(*which, value.as_bytes());
        }
        let bytes = builder.build();
        let Ok(Record::Request(head)) = decode(&bytes) else { panic!("not a request") };
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        attribute(&head, &trusted).to_string()
    }

    #[test]
    fn forwarding_headers() {
        const XFF: usize = capture::X_FORWARDED_FOR;
        const FWD: usize = capture::FORWARDED;
        for (peer, headers, want) in [
            ("203.0.113.9", vec![(XFF, "198.51.100.1")], "203.0.113.9"),
            ("10.0.0.1", vec![], "10.0.0.1"),
            ("10.0.0.1", vec![(XFF, "1.1.1.1, 198.51.100.1, 10.2.2.2")], "198.51.100.1"),
            ("10.0.0.1", vec![(XFF, "10.3.3.3, 10.2.2.2")], "10.3.3.3"),
            ("10.0.0.1", vec![(XFF, "198.51.100.1:4711")], "198.51.100.1"),
            ("10.0.0.1", vec![(XFF, "1.1.1.1, junk")], "10.0.0.1"),
            ("10.0.0.1", vec![(XFF, "2001:db8::1")], "2001:db8::1"),
            ("fd00::1", vec![(FWD, "for=1.1.1.1, for=\"[2001:db8::7]:80\";proto=https, for=10.1.1.1")], "2001:db8::7"),
            ("10.0.0.1", vec![(FWD, "proto=https; For=198.51.100.4"), (XFF, "1.1.1.1")], "198.51.100.4"),
            ("10.0.0.1", vec![(FWD, "for=_hidden")], "10.0.0.1"),
            ("10.0.0.1", vec![(FWD, "for=unknown")], "10.0.0.1"),
            ("10.0.0.1", vec![(capture::X_REAL_IP, "198.51.100.5")], "198.51.100.5"),
            ("10.0.0.1", vec![(XFF, "::ffff:198.51.100.6")], "198.51.100.6"),
        ] {
            assert_eq!(client(peer, &headers, 0), want, "{headers:?}");
        }
    }

    #[test]
    fn a_cut_list_is_not_believed() {
        let long = "6.6.6.6, ".repeat(40);
        let cut = &long[..VALUE_CAPTURE_MAX - 2];
        let cut = format!("{cut:x<256}");
        let value = cut.replace('x', " ");
        assert_eq!(client("10.0.0.1", &[(capture::X_FORWARDED_FOR, &value)], anomaly::VALUE_CUT), "10.0.0.1");
    }
}
