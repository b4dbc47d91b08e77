//! Everything that can stand around TCP: each encapsulation made by hand, alone, inside each other, cut at every
//! length, and in fragments.

use proptest::prelude::*;
use sensor::capture::offline::Offline;
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;

use super::frames::{IN_FRAME, IN_IP, frame, gtp, ipv4, ipv6, link, over_gre, over_udp, pppoe, udp, with};
use super::layers::{disposition, run, segment};
use super::rig::{check_identities, count, drain, engine, tables};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

fn requests() -> [(&'static str, Vec<u8>); 2] {
    [("ipv4", ipv4(&[], 0x4000, 6, &segment(GET))), ("ipv6", ipv6(&[], &segment(GET)))]
}

fn assert_request(name: &str, engine: &mut Offline) {
    assert_eq!(disposition(engine), Counter::PacketData, "{name}");
    assert_eq!(count(engine, Counter::BytesNew), GET.len() as u64, "{name}");
    let heads = drain(engine).heads;
    assert_eq!(heads.len(), 1, "{name}");
    assert_eq!(heads[0].line(), "GET /a HTTP/1.1", "{name}");
}

/// Every link layer, alone and with every tunnel; the innermost of either version.
fn below(mut check: impl FnMut(&str, Vec<u8>)) {
    for (version, request) in requests() {
        for (outer, around) in IN_FRAME {
            check(&format!("{outer} {version}"), around(request.clone()));
            for (first, tunnel) in IN_IP {
                check(&format!("{outer} {first} {version}"), around(tunnel(request.clone())));
            }
        }
    }
}

/// Every tunnel in every other.
fn nested(mut check: impl FnMut(&str, Vec<u8>)) {
    for (version, request) in requests() {
        for (first, outside) in IN_IP {
            for (second, inside) in IN_IP {
                check(&format!("{first} {second} {version}"), frame(outside(inside(request.clone()))));
            }
        }
    }
}

#[test]
fn every_tunnel_leads_to_the_request() {
    below(|name, frame| assert_request(name, &mut run(&frame, frame.len())));
    nested(|name, frame| assert_request(name, &mut run(&frame, frame.len())));
}

#[test]
fn without_leave_nothing_inside_a_tunnel_is_read() {
    let mut tables = tables();
    tables.settings.tunnels = 0;
    let mut engine = Offline::new(tables, false, 1024, 64, Limits::default());
    let request = ipv4(&[], 0, 6, &segment(GET));
    for (name, tunnel) in IN_IP {
        let frame = frame(tunnel(request.clone()));
        let before = count(&engine, Counter::PacketNotTcp);
        engine.ethernet(1, &frame, u32::try_from(frame.len()).unwrap());
        assert_eq!(count(&engine, Counter::PacketNotTcp), before + 1, "{name}");
    }
    // What stands below IP is no tunnel, but for Ethernet inside.
    for (name, around) in IN_FRAME {
        let frame = around(request.clone());
        engine.ethernet(1, &frame, u32::try_from(frame.len()).unwrap());
        let got = count(&engine, Counter::PacketNotIp);
        assert_eq!(got, u64::from(*name == "pseudowire" || got == 1), "{name}");
    }
    assert_eq!(drain(&mut engine).heads.len(), 1, "the same segment again and again");
    check_identities(&engine);
}

#[test]
fn four_tunnels_and_no_more() {
    for (name, tunnel) in IN_IP {
        let mut packet = ipv4(&[], 0, 6, &segment(GET));
        // Teredo around IPv4 has an IPv6 packet of its own.
        let own = usize::from(name.starts_with("teredo")) + 1;
        for level in 1..=6 {
            packet = tunnel(packet);
            let mut engine = run(&frame(packet.clone()), frame(packet.clone()).len());
            if own * level <= 4 {
                assert_request(name, &mut engine);
            } else {
                assert_eq!(disposition(&engine), Counter::PacketNotTcp, "{name} at {level}");
            }
        }
    }
}

/// A capture that kept only the start, and a frame that ended there: never a request, never a panic.
#[test]
fn cut_at_every_length() {
    below(|name, frame| {
        let at = frame.windows(GET.len()).position(|part| part == GET).unwrap();
        for len in 0..frame.len() {
            let mut kept = run(&frame[..len], frame.len());
            let seen = count(&kept, Counter::BytesNew);
            assert_eq!(seen, len.saturating_sub(at).min(GET.len()) as u64, "{name} cut to {len}");
            if len < at + GET.len() {
                assert_eq!(drain(&mut kept).heads, [], "{name} cut to {len}");
                let ended = run(&frame[..len], len);
                assert_eq!(count(&ended, Counter::BytesNew), 0, "{name} ended at {len}");
            }
        }
    });
}

/// What an inner length claims beyond the outer one is not read, wherever the frame ends.
#[test]
fn an_inner_packet_never_reaches_beyond_the_outer() {
    for (name, tunnel) in IN_IP {
        let mut inner = ipv4(&[], 0, 6, &segment(GET));
        let honest = tunnel(inner.clone());
        inner[3] += 4;
        let mut packet = tunnel(inner.clone());
        packet.extend(b"more");
        let lying = run(&frame(packet.clone()), frame(packet).len());
        assert_eq!(count(&lying, Counter::BytesNew), 0, "{name}");
        // No inner length (BIG TCP): what the outer one says, not the frame with its padding.
        inner[2..4].fill(0);
        let mut packet = tunnel(inner);
        assert_eq!(packet.len(), honest.len());
        packet.extend(b"padding");
        assert_request(name, &mut run(&frame(packet.clone()), frame(packet).len()));
    }
}

#[test]
fn what_only_looks_like_a_tunnel_counts_as_what_it_is() {
    let request = ipv4(&[], 0, 6, &segment(GET));
    let gre = |header: &[u8]| over_gre(header, request.clone());
    for (name, packet) in [
        ("gre with routing", gre(&[0x40, 0, 8, 0, 0, 0, 0, 0])),
        ("gre of something", gre(&[0, 0, 0x88, 0xcc])),
        ("erspan of no version", gre(&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1, 0x70, 0, 0, 0, 0, 0, 0, 0])),
        ("udp shorter than itself", ipv4(&[], 0, 17, &[0, 1, 0x12, 0xb5, 0, 7, 0, 0])),
        ("udp longer than its packet", ipv4(&[], 0, 17, &[0, 1, 0x12, 0xb5, 0, 200, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0])),
        ("dns", over_udp(53, &[8, 0, 0, 0, 0, 0, 1, 0], frame(request.clone()))),
        ("gpe of something", over_udp(4790, &[12, 0, 0, 9, 0, 0, 1, 0], request.clone())),
        ("geneve of a later version", over_udp(6081, &[0x40, 0, 8, 0, 0, 0, 1, 0], request.clone())),
        ("gtp echo", over_udp(2152, &[0x30, 1, 0, 68, 0, 0, 0, 1], request.clone())),
        ("gtp of version 2", over_udp(2152, &[0x50, 255, 0, 68, 0, 0, 0, 1], request.clone())),
        ("gtp longer than its packet", over_udp(2152, &[0x30, 255, 9, 68, 0, 0, 0, 1], request.clone())),
        ("gtp with an empty extension", gtp(0x34, &[0, 0, 0, 0x85, 0, 0, 0, 0], request.clone())),
        ("gtp of ppp", gtp(0x30, &[], vec![0xff, 3, 0, 0x21])),
        ("teredo of ipv4", over_udp(3544, &[], request.clone())),
        ("etherip of a later version", ipv4(&[], 0, 97, &with(&[0x40, 0], frame(request.clone())))),
        ("labels without end", ipv4(&[], 0, 137, &[0; 400])),
        ("inner version", ipv4(&[], 0, 41, &request)),
        ("inner udp", ipv4(&[], 0, 4, &ipv4(&[], 0, 17, &udp(1, 2, b"x")))),
        ("inner tcp cut", ipv4(&[], 0, 4, &ipv4(&[], 0, 6, &segment(b"")[..19]))),
    ] {
        let frame = frame(packet);
        assert_eq!(disposition(&run(&frame, frame.len())), Counter::PacketNotTcp, "{name}");
    }
    for (name, frame) in [
        (
            "pppoe discovery code",
            with(&[&link(&[], 0x8864)[..], &[0x11, 9, 0, 7, 0, 70, 0, 0x21]].concat(), request.clone()),
        ),
        (
            "pppoe longer than its frame",
            with(&[&link(&[], 0x8864)[..], &[0x11, 0, 0, 7, 9, 70, 0, 0x21]].concat(), request.clone()),
        ),
        ("lcp", pppoe(&[0xc0, 0x21], vec![1, 2, 3, 4])),
        ("associated channel", with(&[&link(&[], 0x8847)[..], &[0, 1, 1, 64, 0x10]].concat(), request.clone())),
        ("labels without end", with(&link(&[], 0x8847), vec![0; 400])),
        ("tags without end", with(&link(&[0x8100; 60], 0x0800), request.clone())),
    ] {
        assert_eq!(disposition(&run(&frame, frame.len())), Counter::PacketNotIp, "{name}");
    }
}

/// The packet in `pieces` IP fragments, as frames; the last first.
fn fragmented(packet: &[u8], identification: u8, unit: usize) -> Vec<Vec<u8>> {
    let (header, payload) = if packet[0] >> 4 == 4 { packet.split_at(20) } else { packet.split_at(40) };
    let parts = payload.chunks(unit).enumerate().map(|(index, part)| {
        let (at, more) = (index * unit, (index + 1) * unit < payload.len());
        let mut one = header.to_vec();
        let place = u16::try_from(at).unwrap();
        if header.len() == 20 {
            one[2..4].copy_from_slice(&u16::try_from(20 + part.len()).unwrap().to_be_bytes());
            one[5] = identification;
            one[6..8].copy_from_slice(&(place >> 3 | u16::from(more) << 13).to_be_bytes());
        } else {
            one[4..6].copy_from_slice(&u16::try_from(8 + part.len()).unwrap().to_be_bytes());
            let next = std::mem::replace(&mut one[6], 44);
            let place = (place | u16::from(more)).to_be_bytes();
            one.extend([next, 0, place[0], place[1], 0, 0, 0, identification]);
        }
        frame(with(&one, part.to_vec()))
    });
    let mut frames: Vec<Vec<u8>> = parts.collect();
    frames.reverse();
    frames
}

#[test]
fn fragments_of_anything_are_put_together() {
    for (version, request) in requests() {
        for (name, tunnel) in IN_IP.iter().chain(&[("nothing", (|inner| inner) as fn(Vec<u8>) -> Vec<u8>)]) {
            let name = format!("{name} {version}");
            for unit in [8, 16, 24] {
                // The outer packet, in pieces.
                let mut engine = engine();
                let frames = fragmented(&tunnel(request.clone()), 9, unit);
                for frame in &frames {
                    engine.ethernet(1, frame, u32::try_from(frame.len()).unwrap());
                }
                check_identities(&engine);
                assert_eq!(count(&engine, Counter::PacketFragment), frames.len() as u64 - 1, "{name}");
                assert_eq!(count(&engine, Counter::FragmentsReassembled), 1, "{name}");
                assert_eq!(count(&engine, Counter::PacketData), 1, "{name}");
                assert_eq!(drain(&mut engine).heads[0].line(), "GET /a HTTP/1.1", "{name}");
            }
            // The inner packet in pieces, and each of those in pieces again.
            let mut engine = engine();
            for (number, inner) in (1..).zip(fragmented(&request, 99, 16)) {
                for frame in fragmented(&tunnel(inner[14..].to_vec()), number, 24) {
                    engine.ethernet(1, &frame, u32::try_from(frame.len()).unwrap());
                }
            }
            check_identities(&engine);
            if !name.starts_with("nothing") {
                assert_eq!(drain(&mut engine).heads.len(), 1, "{name}");
            }
        }
    }
}

#[test]
fn a_fragment_that_the_capture_cut_is_counted() {
    let mut engine = engine();
    for frame in fragmented(&ipv4(&[], 0, 6, &segment(GET)), 9, 24) {
        engine.ethernet(1, &frame[..frame.len() - 1], u32::try_from(frame.len()).unwrap());
    }
    check_identities(&engine);
    let pieces = count(&engine, Counter::FragmentsDropped);
    assert!(pieces > 1);
    assert_eq!(count(&engine, Counter::PacketFragment), pieces);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Any bytes behind any beginning, and any byte changed: no panic, the identities hold, and no byte beyond the frame.
    #[test]
    fn hostile_bytes_are_only_counted(
        way in 0..IN_IP.len(),
        second in 0..IN_IP.len(),
        around in 0..IN_FRAME.len(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        tail in proptest::collection::vec(any::<u8>(), 0..80),
        keep in any::<prop::sample::Index>(),
        longer in 0..100_usize,
    ) {
        let packet = IN_IP[way].1(IN_IP[second].1(with(&ipv4(&[], 0, 6, &segment(GET)), tail)));
        let mut frame = IN_FRAME[around].1(packet);
        for (at, byte) in changes {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        let keep = keep.index(frame.len()) + 1;
        let engine = run(&frame[..keep], keep + longer);
        prop_assert!(count(&engine, Counter::BytesNew) <= keep as u64);
    }
}
