//! HTTP behind a SOCKS handshake, where every flow is a candidate.

use sensor::capture::offline::Offline;
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;

use super::rig::{ACK, From, SYN, check_identities, count, drain, engine, segment_of, tables};

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn talk(engine: &mut Offline, turns: &[(From, &[u8])]) {
    let (mut client, mut server) = (1, 1);
    let syn = segment_of(40_000, From::Client, 0, SYN, b"");
    let answer = segment_of(40_000, From::Server, 0, SYN | ACK, b"");
    for frame in [&syn, &answer] {
        engine.ethernet(1, frame, u32::try_from(frame.len()).unwrap());
    }
    for (from, payload) in turns {
        let next = if *from == From::Client { &mut client } else { &mut server };
        let frame = segment_of(40_000, *from, *next, ACK, payload);
        *next += u32::try_from(payload.len()).unwrap();
        engine.ethernet(1, &frame, u32::try_from(frame.len()).unwrap());
    }
    check_identities(engine);
}

fn any() -> Offline {
    let mut tables = tables();
    tables.ports.clear();
    tables.listens.clear();
    Offline::new(tables, true, 64, 64, Limits::default())
}

const CLIENT: From = From::Client;
const SERVER: From = From::Server;

type Turns = Vec<(From, &'static [u8])>;

/// What is said before HTTP.
fn handshakes() -> Vec<(&'static str, Turns)> {
    vec![
        ("4", vec![(CLIENT, b"\x04\x01\0P\x5d\xb8\xd8w\0"), (SERVER, b"\0Z\xdf\xb2\n\xb4\x9c\xf9")]),
        ("4a", vec![(CLIENT, b"\x04\x01\0P\0\0\0\x01u\0example.com\0"), (SERVER, b"\0Z\0\0\0\0\0\0")]),
        (
            "5",
            vec![
                (CLIENT, b"\x05\x01\0"),
                (SERVER, b"\x05\0"),
                (CLIENT, b"\x05\x01\0\x03\x0bexample.com\0P"),
                (SERVER, b"\x05\0\0\x01\n\0\0\x02\0P"),
            ],
        ),
        (
            "5 with a password",
            vec![
                (CLIENT, b"\x05"),
                (CLIENT, b"\x02\0\x02"),
                (SERVER, b"\x05\x02"),
                (CLIENT, b"\x01\x04user\x03key"),
                (SERVER, b"\x01\0"),
                (CLIENT, b"\x05\x01\0\x01\n\0\0\x02\0P"),
                (SERVER, b"\x05"),
                (SERVER, b"\0\0\x01\n\0\0\x02\0P"),
            ],
        ),
    ]
}

#[test]
fn http_behind_socks_is_read_in_both_directions() {
    for (name, mut turns) in handshakes() {
        turns.extend([(CLIENT, GET), (SERVER, OK), (CLIENT, GET), (SERVER, OK)]);
        let mut engine = any();
        talk(&mut engine, &turns);
        let heads = drain(&mut engine).heads;
        let seen: Vec<(bool, u32, u16)> = heads.iter().map(|head| (head.request, head.txn, head.status)).collect();
        assert_eq!(seen, [(true, 0, 0), (false, 0, 200), (true, 1, 0), (false, 1, 200)], "{name}");
        assert_eq!(heads[0].line(), "GET /a HTTP/1.1", "{name}");
    }
}

/// A declared service does not speak SOCKS: what begins like that is passed over for good.
#[test]
fn a_service_has_no_handshake() {
    for (name, mut turns) in handshakes() {
        turns.extend([(CLIENT, GET), (SERVER, OK)]);
        let mut engine = engine();
        talk(&mut engine, &turns);
        assert_eq!(drain(&mut engine).heads, [], "{name}");
        assert!(count(&engine, Counter::PacketPassed) > 0, "{name}");
    }
}
