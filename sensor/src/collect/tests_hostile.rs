//! Floods, garbage and canaries: every bound holds, every loss is counted, nothing panics, nothing raw survives.

use proptest::prelude::*;
use sensor_ebpf::wire::{HeadRecord, capture, direction::RESPONSE, kind};

use super::decode::{Malformed, decode};
use super::decompress::tests::brotli;
use super::secret::SecretBuf;
use super::testing::*;
use super::{Collector, Sink};

type R = RecordBuilder;

#[test]
fn pending_requests_are_bounded() {
    let mut config = config();
    config.bounds.pending_requests = 10;
    let mut collector = collector_with(config);
    let mut kept = Kept::default();
    for n in 0..1000u32 {
        collector.record(&R::request(u64::from(n), 0, u64::from(n), "GET / HTTP/1.1").build());
        collector.advance(BASE + u64::from(n) * MS, &mut kept);
        assert!(collector.counts().pending <= 11);
        check_identities(&collector, &kept);
    }
    collector.finish(&mut kept);
    assert_eq!((collector.counts().evicted, collector.counts().observations), (990, 1000));
    assert!(kept.observations.is_sorted_by_key(|one| one.at), "oldest first");
}

#[test]
fn the_queue_is_bounded() {
    let mut config = config();
    (config.bounds.event_ring_bytes, config.bounds.byte_ring_bytes) = (4096, 4096);
    let mut collector = collector_with(config);
    let mut kept = Kept::default();
    for n in 0..1000 {
        collector.record(&R::request(n, 0, n, "GET / HTTP/1.1").build());
        collector.record(&R::response(n, 0, n, 200).set_cookie("s").build());
    }
    let lost = collector.counts().requests_lost;
    assert!(lost > 0 && collector.counts().issuances.lost > 0);
    collector.finish(&mut kept);
    assert_eq!(collector.counts().requests + lost, 1000);
    check_identities(&collector, &kept);
}

#[test]
fn teed_bodies_are_bounded() {
    let mut collector = collector();
    let mut kept = Kept::default();
    for n in 0..100 {
        collector.record(&R::request(n, 0, n, "POST /api/login HTTP/1.1").build());
        collector.record(&R::response(n, 0, n, 200).teed().build());
        collector.record(&R::tee(n, 0, n, RESPONSE, 0, b"{").build());
        collector.record(&R::tee(1000 + n, 0, n, RESPONSE, 0, b"{").build());
    }
    collector.finish(&mut kept);
    let counts = collector.counts();
    assert_eq!((counts.tee_evicted, counts.tee_unwanted), (84, 100));
    assert_eq!(counts.issuances.lost, 200, "two for each login");
    check_identities(&collector, &kept);
}

#[test]
fn duplicates_are_counted() {
    let (kept, collector) = run([
        R::request(1, 0, 0, "GET /a HTTP/1.1"),
        R::request(1, 0, 1, "GET /b HTTP/1.1"),
        R::response(1, 0, 2, 200),
        R::response(1, 0, 3, 200),
    ]);
    let counts = collector.counts();
    assert_eq!((counts.duplicate_requests, counts.unmatched_responses, kept.observations.len()), (1, 1, 2));
}

#[test]
fn late_records_are_applied_and_counted() {
    let mut collector = collector();
    let mut kept = Kept::default();
    collector.advance(BASE + 100 * MS, &mut kept);
    collector.record(&R::request(1, 0, 0, "GET /a HTTP/1.1").build());
    collector.finish(&mut kept);
    assert_eq!((collector.counts().late, kept.observations.len()), (1, 1));
}

#[test]
fn malformed_records_are_errors() {
    let good = R::request(1, 0, 0, "GET /a HTTP/1.1").bearer(&jwt("1")).build();
    assert!(decode(&good).is_ok());
    for cut in 0..good.len() {
        assert_eq!(decode(&good[..cut]).unwrap_err(), Malformed::Short);
    }
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        decode(&bytes).err()
    };
    assert_eq!(with(4, 99), Some(Malformed::Kind(99)));
    assert_eq!(with(116, 9), Some(Malformed::Credentials(9)));
    assert_eq!(with(123, 0xff), Some(Malformed::Span), "the line's span");
    assert_eq!(with(size_of::<HeadRecord>() + 23, 0xff), Some(Malformed::Span), "the claims' span");
    let mut collector = collector();
    collector.record(&good[..60]);
    assert_eq!((collector.counts().malformed, collector.counts().requests), (1, 0));
}

/// A sink that reads everything.
struct Devour(usize);

impl Sink for Devour {
    fn observation(&mut self, _: &crate::observation::Observation, transaction: &super::Transaction<'_>) {
        let line: serde_json::Value = serde_json::from_str(&transaction.to_json_line()).unwrap();
        self.0 += usize::from(line.is_object());
    }
}

fn arbitrary_record() -> impl Strategy<Value = Vec<u8>> {
    // Near-valid records: built well, then bytes overwritten.
    let line = prop_oneof![
        Just("GET /users/7/addresses HTTP/1.1".to_owned()),
        Just("POST /login HTTP/1.1".to_owned()),
        Just("POST /api/login HTTP/1.1".to_owned()),
        Just("POST /refresh HTTP/1.1".to_owned()),
        "\\PC{0,40}",
    ];
    let edits = proptest::collection::vec((0usize..400, any::<u8>()), 0..6);
    (0u8..8, 0u64..3, 0u32..3, 0u64..50, line, edits, any::<bool>()).prop_map(
        |(kind, flow, txn, at, line, edits, tee)| {
            let record = match kind {
                kind::REQUEST => R::request(flow, txn, at, &line).cookie("s").query(0, "q", 6).bearer(&jwt("1")),
                kind::RESPONSE => R::response(flow, txn, at, 200).set_cookie("s"),
                kind::TEE => R::tee(flow, txn, at, u8::from(tee), 0, line.as_bytes()),
                kind::TEE_END => R::tee_end(flow, txn, at, u8::from(tee), line.len() as u64),
                other => R::new(other, flow, txn).at(at),
            };
            let mut bytes = if tee { record.teed() } else { record }.build();
            for (at, byte) in edits {
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
            bytes
        },
    )
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(records in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20)) {
        let mut collector = collector();
        for record in &records {
            collector.record(record);
        }
        collector.finish(&mut Devour(0));
        prop_assert_eq!(collector.counts().records, records.len() as u64);
    }

    #[test]
    fn near_valid_records_never_panic_and_are_all_accounted_for(
        records in proptest::collection::vec(arbitrary_record(), 0..60),
        steps in proptest::collection::vec(0u64..60, 0..60),
    ) {
        let mut collector = collector();
        let mut sink = Devour(0);
        for (record, step) in records.iter().zip(steps.iter().chain(std::iter::repeat(&0))) {
            collector.record(record);
            collector.advance(BASE + step * MS, &mut sink);
            let counts = collector.counts();
            prop_assert_eq!(counts.requests, counts.observations + counts.pending);
        }
        collector.finish(&mut sink);
        let counts = *collector.counts();
        prop_assert_eq!(counts.pending, 0);
        prop_assert_eq!(counts.requests, counts.observations);
        prop_assert_eq!(counts.observations, sink.0 as u64);
    }
}

/// Searches every buffer that the collector owns, in use or kept for reuse, and all that can be printed of them.
fn shows(collector: &Collector, canary: &[u8]) -> bool {
    let Collector { queue, table, bodies, decompressor, secret, scratch, .. } = collector;
    let text = format!("{queue:?} {table:?} {bodies:?} {decompressor:?} {secret:?}");
    let digits = canary.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    assert!(!text.contains(&digits), "printed: {text}");
    let buffers = queue.buffers().chain(table.buffers()).chain(bodies.buffers()).chain(decompressor.buffers());
    let mut slices = buffers.chain([secret]).map(SecretBuf::as_slice).chain([scratch.as_slice()]);
    slices.any(|slice| slice.windows(canary.len()).any(|window| window == canary))
}

#[test]
fn canaries_do_not_survive() {
    let canary = "canary-5d1f0c";
    let plain = format!(r#"{{"ok":true,"data":{{"token":"{canary}"}}}}"#).into_bytes();
    // Stored blocks leave the canary as it is in the coded body.
    for (coding, body) in [("identity", plain.clone()), ("br", brotli(&plain)), ("br, br", brotli(&brotli(&plain)))] {
        let len = body.len() as u64;
        let mut collector = collector();
        let mut kept = Kept::default();
        for record in [
            R::request(1, 0, 0, "POST /api/login HTTP/1.1"),
            R::response(1, 0, 1, 200).teed().length(len).capture(capture::CONTENT_ENCODING, coding.as_bytes()),
            R::tee(1, 0, 2, RESPONSE, 0, &body),
        ] {
            collector.record(&record.build());
        }
        assert!(shows(&collector, canary.as_bytes()), "the search finds it while it is queued");
        collector.advance(BASE + 3 * MS, &mut kept);
        assert!(shows(&collector, canary.as_bytes()), "and while the body is incomplete");
        collector.record(&R::tee_end(1, 0, 4, RESPONSE, len).build());
        collector.advance(BASE + 5 * MS, &mut kept);
        assert_eq!(collector.counts().issuances.added, 1);
        assert!(!shows(&collector, canary.as_bytes()), "gone once it was read");
        assert!(!kept.lines.concat().contains(canary));
    }
}
