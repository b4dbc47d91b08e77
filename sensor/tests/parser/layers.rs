//! Layers 2 to 4: every way in which the TCP header can stand behind others, and every way of cutting that short.

use sensor::capture::offline::Offline;
use sensor_ebpf::packet::{Packet, SliceHeaders, ethernet};
use sensor_ebpf::reason::Counter;

use super::frames::{extension, ipv4, ipv6, link};
use super::rig::{ACK, PORT, check_identities, count, drain, engine, tcp};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

pub fn segment(payload: &[u8]) -> Vec<u8> {
    [tcp(40_000, PORT, 1, ACK), payload.to_vec()].concat()
}

/// Frames that hold one request, and what they are called.
fn whole() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = ipv4(&[], 0x4000, 6, &segment(GET));
    let v6 = ipv6(&[], &segment(GET));
    let mut options = tcp(40_000, PORT, 1, ACK);
    options[12] = 0xf0;
    options.extend([1; 40]);
    options.extend(GET);
    let mut authentication = vec![0; 24];
    authentication[1] = 4;
    let on = |tags: &[u16], ethertype, packet: &[u8]| [link(tags, ethertype), packet.to_vec()].concat();
    vec![
        ("plain", on(&[], 0x0800, &v4)),
        ("vlan", on(&[0x8100], 0x0800, &v4)),
        ("qinq", on(&[0x88a8, 0x8100], 0x86dd, &v6)),
        ("three tags", on(&[0x9100, 0x88a8, 0x8100], 0x0800, &v4)),
        ("ipv6", on(&[], 0x86dd, &v6)),
        ("ip options", on(&[], 0x0800, &ipv4(&[1; 40], 0, 6, &segment(GET)))),
        ("tcp options", on(&[], 0x0800, &ipv4(&[], 0, 6, &options))),
        ("hop by hop", on(&[], 0x86dd, &ipv6(&[(0, extension(0))], &segment(GET)))),
        (
            "four extensions",
            on(
                &[0x8100],
                0x86dd,
                &ipv6(
                    &[(0, extension(1)), (60, extension(3)), (43, extension(2)), (51, authentication)],
                    &segment(GET),
                ),
            ),
        ),
        ("four tags", on(&[0x8100; 4], 0x0800, &v4)),
        ("seven extensions", on(&[], 0x86dd, &ipv6(&vec![(60, extension(0)); 7], &segment(GET)))),
        ("far", on(&[], 0x86dd, &ipv6(&[(60, extension(130))], &segment(GET)))),
        ("atomic fragment", on(&[], 0x86dd, &ipv6(&[(44, vec![0; 8])], &segment(GET)))),
        ("padding", [on(&[], 0x0800, &v4), vec![b'X'; 30]].concat()),
    ]
}

pub fn run(frame: &[u8], frame_len: usize) -> Offline {
    let mut engine = engine();
    engine.ethernet(1, frame, u32::try_from(frame_len).unwrap());
    check_identities(&engine);
    engine
}

pub fn disposition(engine: &Offline) -> Counter {
    let hit: Vec<Counter> =
        Counter::PACKET_DISPOSITIONS.iter().copied().filter(|one| count(engine, *one) > 0).collect();
    assert_eq!(hit.len(), 1, "{hit:?}");
    hit[0]
}

#[test]
fn every_way_to_the_request() {
    for (name, frame) in whole() {
        let mut engine = run(&frame, frame.len());
        assert_eq!(disposition(&engine), Counter::PacketData, "{name}");
        assert_eq!(count(&engine, Counter::BytesNew), GET.len() as u64, "{name}: padding is no payload");
        let output = drain(&mut engine);
        assert_eq!(output.heads.len(), 1, "{name}");
        assert_eq!(output.heads[0].line(), "GET /a HTTP/1.1", "{name}");
    }
}

#[test]
fn cut_at_every_length() {
    for (name, frame) in whole() {
        let padding = if name == "padding" { 30 } else { 0 };
        let payload_at = frame.len() - GET.len() - padding;
        for len in 0..frame.len() {
            // A capture that kept only the start of the frame; the frame itself was longer.
            let mut engine = run(&frame[..len], frame.len());
            let got = disposition(&engine);
            if len <= payload_at {
                // More tags than the short way takes: what cannot be followed stays what it was.
                let known = matches!(got, Counter::PacketMalformed | Counter::PacketNoFlow)
                    || (name == "four tags" && got == Counter::PacketNotIp);
                assert!(known, "{name} cut to {len}: {got:?}");
                assert_eq!(drain(&mut engine).heads, [], "{name} cut to {len}");
            } else {
                assert_eq!(got, Counter::PacketData, "{name} cut to {len}");
                assert_eq!(count(&engine, Counter::BytesNew), (len - payload_at).min(GET.len()) as u64);
            }
        }
    }
}

#[test]
fn what_is_not_looked_at() {
    let payload = segment(GET);
    for (name, frame, want) in [
        ("arp", [link(&[], 0x0806), vec![0; 46]].concat(), Counter::PacketNotIp),
        ("udp", [link(&[], 0x0800), ipv4(&[], 0, 17, &payload)].concat(), Counter::PacketNotTcp),
        ("first fragment", [link(&[], 0x0800), ipv4(&[], 0x2000, 6, &payload)].concat(), Counter::PacketFragment),
        ("later fragment", [link(&[], 0x0800), ipv4(&[], 0x0007, 6, &payload)].concat(), Counter::PacketFragment),
        (
            "ipv6 fragment",
            [link(&[], 0x86dd), ipv6(&[(44, vec![0, 0, 0, 1, 0, 0, 0, 0])], &payload)].concat(),
            Counter::PacketFragment,
        ),
        (
            "ipv6 later fragment",
            [link(&[], 0x86dd), ipv6(&[(44, vec![0, 0, 1, 0, 0, 0, 0, 0])], &payload)].concat(),
            Counter::PacketFragment,
        ),
        ("esp", [link(&[], 0x86dd), ipv6(&[(50, extension(0))], &payload)].concat(), Counter::PacketNotTcp),
        ("version", [link(&[], 0x0800), ipv6(&[], &payload)].concat(), Counter::PacketMalformed),
        ("version 6", [link(&[], 0x86dd), ipv4(&[], 0, 6, &payload)].concat(), Counter::PacketMalformed),
    ] {
        assert_eq!(disposition(&run(&frame, frame.len())), want, "{name}");
    }
    let mut short = ipv4(&[], 0, 6, &payload);
    short[0] = 0x44;
    assert_eq!(disposition(&run(&[link(&[], 0x0800), short].concat(), 82)), Counter::PacketMalformed);
    let mut lying = ipv4(&[], 0, 6, &payload);
    lying[3] = 30;
    assert_eq!(disposition(&run(&[link(&[], 0x0800), lying].concat(), 82)), Counter::PacketMalformed);
    let mut offset = payload.clone();
    offset[12] = 0x40;
    assert_eq!(
        disposition(&run(&[link(&[], 0x0800), ipv4(&[], 0, 6, &offset)].concat(), 82)),
        Counter::PacketMalformed
    );
    let other = [tcp(40_000, PORT + 1, 1, ACK), GET.to_vec()].concat();
    assert_eq!(disposition(&run(&[link(&[], 0x0800), ipv4(&[], 0, 6, &other)].concat(), 82)), Counter::PacketNoService);
}

/// BIG TCP: an IP length of 0 means that the frame's length counts.
#[test]
fn no_ip_length() {
    for (ethertype, mut packet, place) in
        [(0x0800, ipv4(&[], 0, 6, &segment(GET)), 2), (0x86dd, ipv6(&[], &segment(GET)), 4)]
    {
        packet[place..place + 2].fill(0);
        let frame = [link(&[], ethertype), packet].concat();
        let mut packet = Packet::default();
        ethernet(&SliceHeaders(&frame), u32::try_from(frame.len()).unwrap(), &mut packet).unwrap();
        assert_eq!(packet.payload_len as usize, GET.len());
        assert_eq!(drain(&mut run(&frame, frame.len())).heads.len(), 1);
    }
}
