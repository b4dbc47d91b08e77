//! Invariance: whatever the network does to a conversation, the same transactions come out.
//!
//! A conversation is generated, sent once as it was meant and once as a network may have brought it, and what the sensor
//! makes of both must be equal. `AUTHSENSOR_CASES` says how many conversations are tried.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "helpers of tests fail the test"
)]

#[path = "invariance/conversation.rs"]
mod conversation;
#[path = "invariance/meaning.rs"]
mod meaning;
#[path = "invariance/network.rs"]
mod network;
#[path = "support/packets.rs"]
#[allow(dead_code, reason = "each test program uses a part of this")]
mod packets;
#[path = "parser/rig.rs"]
#[allow(dead_code, reason = "each test program uses a part of this")]
mod rig;
#[path = "invariance/tape.rs"]
mod tape;

use conversation::Conversation;
use meaning::{SAME, check_versions, difference, show};
use network::Disturbance;
use packets::Segment;
use proptest::collection::vec;
use proptest::prelude::*;
use rig::{Output, count};
use sensor::slow::stream::Stream;
use tape::{Tape, Words};

/// Conversations that are tried if nothing else is said.
const CASES: u32 = 2000;

fn cases() -> u32 {
    std::env::var("AUTHSENSOR_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// What the sensor makes of the segments, when its records are read behind each `every` of them.
fn observe(segments: &[Segment], every: usize) -> (Output, Vec<u64>) {
    let mut engine = rig::engine();
    let mut output = Output::default();
    for (number, segment) in segments.iter().enumerate() {
        let frame = segment.frame();
        engine.ethernet(1000 * (number as u64 + 1), &frame, u32::try_from(frame.len()).unwrap());
        if number % every == 0 {
            engine.drain(|record| output.note(record));
        }
    }
    engine.settle(|record| output.note(record));
    rig::check_identities(&engine);
    meaning::put_in_order(&mut output);
    (output, SAME.iter().map(|counter| count(&engine, *counter)).collect())
}

/// The uncut conversation is understood as it was meant.
fn check_meaning(conversation: &Conversation, output: &Output) {
    let expected: Vec<(usize, u16)> =
        conversation.exchanges.iter().enumerate().map(|(index, (_, status))| (index, *status)).collect();
    let answered: Vec<(usize, u16)> = output
        .heads
        .iter()
        .filter(|head| !head.request)
        .map(|head| (head.txn as usize, head.status))
        .filter(|(_, status)| *status != 408)
        .collect();
    assert_eq!(answered, expected, "answers");
    let methods: Vec<&str> = output.heads.iter().filter(|head| head.request).map(|head| word(head.line())).collect();
    let meant: Vec<&str> = conversation.exchanges.iter().map(|(method, _)| method.as_str()).collect();
    assert_eq!(methods, meant, "requests");
}

fn word(line: &str) -> &str {
    line.split(' ').next().unwrap_or_default()
}

fn check(words: &Words, network: &Words, how: Disturbance) {
    let conversation = Conversation::draw(&mut Tape::new(words));
    let plain = network::segments(&conversation, &mut Tape::new(&Words(Vec::new())), Disturbance::None);
    let (whole, whole_totals) = observe(&plain, 1);
    check_meaning(&conversation, &whole);
    let mut tape = Tape::new(network);
    let every = [1, 2, 5, 20, 200][tape.below(5)];
    let segments = network::segments(&conversation, &mut tape, how);
    let (mut cut, cut_totals) = observe(&segments, every);
    check_versions(&whole, &std::mem::take(&mut cut.versions));
    let show = |segments: &[Segment]| segments.iter().map(show).collect::<Vec<String>>().join("\n");
    let both = || {
        format!(
            "records read behind every {every}\nas it was meant:\n{}\nas it came:\n{}",
            show(&plain),
            show(&segments)
        )
    };
    assert!(cut == whole, "{}\n{}", both(), difference(&cut, &whole));
    assert_eq!(cut_totals, whole_totals, "{}", both());
}

fn tape(most: usize) -> impl Strategy<Value = Words> {
    vec(any::<u16>(), 0..most).prop_map(Words)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 3000, ..ProptestConfig::with_cases(cases()) })]

    #[test]
    fn cut_repeated_and_overlapping(words in tape(250), network in tape(400)) {
        check(&words, &network, Disturbance::InOrder);
    }

    #[test]
    fn in_any_order(words in tape(250), network in tape(400)) {
        check(&words, &network, Disturbance::AnyOrder);
    }

    /// The network that the other properties stand on: it brings every byte, and no answer before what it answers.
    #[test]
    fn any_order_put_back_in_order(words in tape(250), network in tape(400)) {
        let conversation = Conversation::draw(&mut Tape::new(&words));
        let segments = network::segments(&conversation, &mut Tape::new(&network), Disturbance::AnyOrder);
        let meant = [&conversation.client, &conversation.server];
        let mut streams = [0, 1].map(|side| Stream::new(segments[side].sequence.wrapping_add(1), 1 << 20));
        let mut got = [Vec::new(), Vec::new()];
        for segment in &segments[3..] {
            let side = usize::from(segment.to.port() != rig::PORT);
            let fin = segment.flags & packets::FIN != 0;
            streams[side].push(segment.sequence, &segment.payload, fin, 1);
            while streams[side].next(|piece| got[side].extend_from_slice(piece.bytes)) {}
            let offset = segment.sequence.wrapping_sub(segments[side].sequence.wrapping_add(1)) as usize;
            for at in offset..offset + segment.payload.len() {
                prop_assert!(meant[side].needed(at) <= got[1 - side].len(), "side {} byte {}", side, at);
            }
        }
        for side in [0, 1] {
            prop_assert!(got[side] == meant[side].bytes);
            prop_assert_eq!(streams[side].finished(), meant[side].end.is_some());
            prop_assert!(!streams[side].conflicted());
        }
    }
}
