//! Who reads: the peer, or behind trusted proxies whom they say that they speak for.
//!
//! Two things can name another client than the peer: a PROXY protocol header in front of the connection, and the one
//! forwarding header that the configuration declares. Each is believed only when who stands before it is a trusted
//! proxy; any other forwarding header is a client's to write, and ignored.

use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;
use sensor_ebpf::wire::{CAPTURES_MAX, VALUE_CAPTURE_MAX, anomaly, capture};

use super::decode::Head;
use crate::config::model::ClientHeader;

/// Longest node (address, quotes and port included) of a forwarding header that is read, bytes.
const NODE_MAX: usize = 64;
/// Trailing bytes of a capture that the parser may have taken off (CR and a space).
const TRIMMED_MAX: usize = 2;

/// Who sent a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributed {
    /// The client.
    pub client: IpAddr,
    /// A PROXY protocol header named another client, and its sender is not trusted.
    pub refused: bool,
}

/// The address of a record, IPv4 where it is a mapped one.
pub(super) fn address(bytes: [u8; 16]) -> IpAddr {
    IpAddr::V6(Ipv6Addr::from(bytes)).to_canonical()
}

/// The client of a request. A forwarding header that cannot be read leaves the one who sent it.
pub(super) fn attribute(head: &Head<'_>, trusted: &[IpNet], header: ClientHeader) -> Attributed {
    let peer = address(head.fixed.client);
    let mut client = peer;
    let mut refused = false;
    if head.fixed.proxied != [0; 16] {
        refused = !is_trusted(peer, trusted);
        client = if refused { peer } else { address(head.fixed.proxied) };
    }
    if is_trusted(client, trusted) {
        client = forwarded(head, trusted, header).unwrap_or(client);
    }
    Attributed { client, refused }
}

/// What the declared header says.
fn forwarded(head: &Head<'_>, trusted: &[IpNet], header: ClientHeader) -> Option<IpAddr> {
    // What a proxy added may stand on a folded line, which is not captured.
    if head.anomaly(anomaly::OBS_FOLD) {
        return None;
    }
    let which = match header {
        ClientHeader::XForwardedFor => capture::X_FORWARDED_FOR,
        ClientHeader::Forwarded => capture::FORWARDED,
        ClientHeader::XRealIp => capture::X_REAL_IP,
    };
    let value = head.capture(which)?;
    let span = head.fixed.captures.get(which)?;
    let (at, len) = (usize::from(span.at), usize::from(span.len));
    // There was no room for its end, and what the trusted proxy said stands at the end.
    if at + len + TRIMMED_MAX >= CAPTURES_MAX {
        return None;
    }
    let cut = head.anomaly(anomaly::VALUE_CUT) && len + TRIMMED_MAX >= VALUE_CAPTURE_MAX;
    match header {
        ClientHeader::XForwardedFor => right_most(value, cut, trusted, parse_node),
        ClientHeader::Forwarded => right_most(value, cut, trusted, |element| parse_node(forwarded_for(element)?)),
        ClientHeader::XRealIp if cut => None,
        ClientHeader::XRealIp => parse_node(value),
    }
}

fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&address))
}

/// The right-most untrusted address of a comma-separated list; the left-most one when all are trusted. Of a list that is
/// `cut` at its beginning, the first element may be a part of one, and is not read.
fn right_most(list: &[u8], cut: bool, trusted: &[IpNet], read: impl Fn(&[u8]) -> Option<IpAddr>) -> Option<IpAddr> {
    let list = if cut { list.split_at_checked(list.iter().position(|byte| *byte == b',')? + 1)?.1 } else { list };
    let mut leftmost = None;
    // Empty elements mean nothing (RFC 9110 §5.6.1). A comma inside quotes does not occur in an address, so splitting
    // at every comma is safe; and an unfinished quote in what the client wrote does not swallow what a proxy added.
    for element in list.rsplit(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|element| !element.is_empty()) {
        let address = read(element)?;
        if !is_trusted(address, trusted) {
            return Some(address);
        }
        leftmost = Some(address);
    }
    if cut { None } else { leftmost }
}

/// The `for` parameter of one element of `Forwarded` (RFC 7239 §4); none when it stands there twice.
fn forwarded_for(element: &[u8]) -> Option<&[u8]> {
    let mut nodes = element.split(|byte| *byte == b';').filter_map(|pair| {
        let (name, value) = pair.trim_ascii().split_at_checked(4)?;
        name.eq_ignore_ascii_case(b"for=").then_some(value)
    });
    let node = nodes.next()?;
    if nodes.next().is_some() { None } else { Some(node) }
}

/// An address with or without quotes, brackets and port (RFC 7239 §6). `unknown`, obfuscated names (`_hidden`) and
/// anything else are none.
fn parse_node(node: &[u8]) -> Option<IpAddr> {
    let mut plain = [0; NODE_MAX];
    let text = std::str::from_utf8(unquoted(node.trim_ascii(), &mut plain)?).ok()?;
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

/// The inside of a quoted string (RFC 9110 §5.6.4), written to `plain`; what is not quoted as it stands.
fn unquoted<'a>(text: &'a [u8], plain: &'a mut [u8; NODE_MAX]) -> Option<&'a [u8]> {
    let Some(inner) = text.strip_prefix(b"\"") else { return Some(text) };
    let inner = inner.strip_suffix(b"\"")?;
    let mut len = 0;
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        let byte = match byte {
            b'\\' => bytes.next()?,
            b'"' => return None,
            other => other,
        };
        *plain.get_mut(len)? = *byte;
        len += 1;
    }
    plain.get(..len)
}

fn canonical(address: Ipv6Addr) -> IpAddr {
    IpAddr::V6(address).to_canonical()
}

/// Nothing, or a port: a number, or an obfuscated one (`_x`).
fn is_port(text: &str) -> bool {
    let Some(port) = text.strip_prefix(':') else { return text.is_empty() };
    match port.strip_prefix('_') {
        Some(name) => {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        }
        None => (1..=5).contains(&port.len()) && port.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sensor_ebpf::wire::kind;

    use super::*;
    use crate::collect::decode::{Record, decode};
    use crate::collect::testing::RecordBuilder;

    const XFF: usize = capture::X_FORWARDED_FOR;
    const FWD: usize = capture::FORWARDED;
    const REAL: usize = capture::X_REAL_IP;

    fn attributed(builder: RecordBuilder, header: ClientHeader) -> (String, bool) {
        let bytes = builder.build();
        let Ok(Record::Request(head)) = decode(&bytes) else { panic!("not a request") };
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        let attributed = attribute(&head, &trusted, header);
        (attributed.client.to_string(), attributed.refused)
    }

    fn builder(peer: &str, headers: &[(usize, &str)]) -> RecordBuilder {
        let builder = RecordBuilder::new(kind::REQUEST, 1, 0).client(peer);
        headers.iter().fold(builder, |builder, (which, value)| builder.capture(*which, value.as_bytes()))
    }

    fn client(peer: &str, headers: &[(usize, &str)], header: ClientHeader) -> String {
        attributed(builder(peer, headers), header).0
    }

    #[test]
    fn x_forwarded_for() {
        for (peer, value, want) in [
            ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
            ("10.0.0.1", "", "10.0.0.1"),
            ("10.0.0.1", "1.1.1.1, 198.51.100.1, 10.2.2.2", "198.51.100.1"),
            ("10.0.0.1", "10.3.3.3, 10.2.2.2", "10.3.3.3"),
            ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
            ("10.0.0.1", "198.51.100.1:471100", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1:", "10.0.0.1"),
            ("10.0.0.1", "198.51.100.1,,  ,", "198.51.100.1"),
            ("10.0.0.1", "1.1.1.1, junk", "10.0.0.1"),
            ("10.0.0.1", "1.1.1.1, unknown, 10.2.2.2", "10.0.0.1"),
            ("10.0.0.1", "2001:db8::1", "2001:db8::1"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "[2001:db8::1]x", "10.0.0.1"),
            ("10.0.0.1", "::ffff:198.51.100.6", "198.51.100.6"),
            ("::ffff:10.0.0.1", "198.51.100.6", "198.51.100.6"),
            ("10.0.0.1", "for=198.51.100.6", "10.0.0.1"),
        ] {
            assert_eq!(client(peer, &[(XFF, value)], ClientHeader::XForwardedFor), want, "{value}");
        }
    }

    #[test]
    fn forwarded() {
        for (value, want) in [
            ("for=1.1.1.1, for=\"[2001:db8::7]:80\";proto=https, for=10.1.1.1", "2001:db8::7"),
            ("proto=https; For=198.51.100.4;by=10.0.0.1", "198.51.100.4"),
            ("FOR=\"198.51.100.4:4711\"", "198.51.100.4"),
            ("for=\"198.51.100.4:_port\"", "198.51.100.4"),
            ("for=\"[2001:db8::7]:_x.y-z\"", "2001:db8::7"),
            ("for=\"\\[2001:db8::\\7\\]\"", "2001:db8::7"),
            ("for=1.1.1.1, for=_hidden", "10.0.0.1"),
            ("for=1.1.1.1, for=unknown", "10.0.0.1"),
            ("for=1.1.1.1, for=\"_hid\\\"den\"", "10.0.0.1"),
            ("for=1.1.1.1, proto=http", "10.0.0.1"),
            ("for=1.1.1.1;for=2.2.2.2", "10.0.0.1"),
            ("for=\"1.1.1.1", "10.0.0.1"),
            ("for=\"1.1.1.1\\\"", "10.0.0.1"),
            // The client left a quote open; what the proxy added counts all the same.
            ("for=1.1.1.1;by=\", for=198.51.100.4", "198.51.100.4"),
        ] {
            assert_eq!(client("10.0.0.1", &[(FWD, value)], ClientHeader::Forwarded), want, "{value}");
        }
    }

    #[test]
    fn only_the_declared_header_counts() {
        let all = [(XFF, "1.1.1.1"), (FWD, "for=2.2.2.2"), (REAL, "3.3.3.3")];
        for (header, want) in [
            (ClientHeader::XForwardedFor, "1.1.1.1"),
            (ClientHeader::Forwarded, "2.2.2.2"),
            (ClientHeader::XRealIp, "3.3.3.3"),
        ] {
            assert_eq!(client("10.0.0.1", &all, header), want);
        }
        assert_eq!(client("10.0.0.1", &all[1..], ClientHeader::XForwardedFor), "10.0.0.1");
        assert_eq!(client("10.0.0.1", &[(REAL, "3.3.3.3, 4.4.4.4")], ClientHeader::XRealIp), "10.0.0.1");
    }

    #[test]
    fn of_a_cut_list_the_first_element_is_not_read() {
        let attributed = |value: &str| {
            let builder = builder("10.0.0.1", &[(XFF, value)]).anomalies(anomaly::VALUE_CUT);
            attributed(builder, ClientHeader::XForwardedFor).0
        };
        let pad = ",".repeat(VALUE_CAPTURE_MAX);
        assert_eq!(attributed(&format!("1.1.1.1{pad}198.51.100.7, 10.2.2.2")), "198.51.100.7");
        assert_eq!(attributed(&format!("1.1.1.1{pad}10.2.2.2")), "10.0.0.1", "it may be the end of 21.1.1.1");
        assert_eq!(attributed(&"x".repeat(VALUE_CAPTURE_MAX)), "10.0.0.1");
        assert_eq!(attributed("198.51.100.7"), "198.51.100.7", "another value was cut");
    }

    #[test]
    fn a_list_whose_end_may_be_missing_is_not_believed() {
        let long = "x".repeat(CAPTURES_MAX - 20);
        let head = builder("10.0.0.1", &[(capture::HOST, &long), (XFF, "6.6.6.6, 198.51.1001")]);
        assert_eq!(attributed(head, ClientHeader::XForwardedFor).0, "10.0.0.1");
        let head = builder("10.0.0.1", &[(XFF, "6.6.6.6")]).anomalies(anomaly::OBS_FOLD);
        assert_eq!(attributed(head, ClientHeader::XForwardedFor).0, "10.0.0.1", "or on a folded line");
    }

    #[test]
    fn proxy_protocol() {
        for (peer, named, list, want) in [
            ("10.0.0.1", "198.51.100.7", "", ("198.51.100.7", false)),
            ("203.0.113.9", "198.51.100.7", "", ("203.0.113.9", true)),
            ("10.0.0.1", "2001:db8::7", "", ("2001:db8::7", false)),
            // The client wrote the header itself: the proxy passed its bytes on as they were.
            ("10.0.0.1", "198.51.100.7", "1.1.1.1", ("198.51.100.7", false)),
            // One trusted proxy behind another.
            ("10.0.0.1", "10.0.0.2", "198.51.100.7", ("198.51.100.7", false)),
            ("203.0.113.9", "10.0.0.2", "1.1.1.1", ("203.0.113.9", true)),
        ] {
            let head = builder(peer, &[(XFF, list)]).proxied(named);
            let (client, refused) = attributed(head, ClientHeader::XForwardedFor);
            assert_eq!((client.as_str(), refused), want, "{peer} {named} {list}");
        }
    }

    proptest! {
        /// Whatever the client wrote in front, and however it cut: what the trusted proxy added counts.
        #[test]
        fn a_client_cannot_choose_its_address(front in "[ -~]{0,100}", which in 0usize..2) {
            let (which, added, header) = [
                (XFF, "198.51.100.7", ClientHeader::XForwardedFor),
                (FWD, "for=198.51.100.7", ClientHeader::Forwarded),
            ][which];
            prop_assert_eq!(client("10.0.0.1", &[(which, &format!("{front}, {added}"))], header), "198.51.100.7");
        }
    }
}
