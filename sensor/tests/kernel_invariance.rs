//! Invariance on the real object: whatever the network does to a conversation, kernel and slow path together say what the
//! host says of it undisturbed. `AUTHSENSOR_KERNEL_CASES` says how many conversations are tried.
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
#[path = "parser/rig.rs"]
#[allow(dead_code, reason = "each test program uses a part of this")]
mod rig;
mod support;
#[path = "invariance/tape.rs"]
mod tape;

use conversation::Conversation;
use meaning::{SAME, check_versions, difference, show};
use network::Disturbance;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use rig::Output;
use sensor::config::model::Config;
use sensor::slow::Limits;
use sensor_ebpf::reason::Counter;
use support::packets::{self, Segment};
use support::paths::{Live, Object, fitting};
use support::sides::{Totals, assert_identities, config, grown};
use tape::{Tape, Words};

/// Conversations that are tried if nothing else is said.
const CASES: u32 = 300;
const NAME: &str = "whatever_the_network_does";

fn cases() -> u32 {
    std::env::var("AUTHSENSOR_KERNEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(CASES)
}

/// What the host makes of the undisturbed conversation.
fn meant(conversation: &Conversation) -> (Output, Vec<Segment>, Totals) {
    let segments = network::segments(conversation, &mut Tape::new(&Words(Vec::new())), Disturbance::None);
    let mut engine = rig::engine();
    for (number, segment) in segments.iter().enumerate() {
        let frame = segment.frame();
        engine.ethernet(number as u64 + 1, &frame, u32::try_from(frame.len()).unwrap());
    }
    let mut output = rig::drain(&mut engine);
    meaning::put_in_order(&mut output);
    (output, segments, engine.totals())
}

/// What kernel and slow path make of segments, records read behind each `every` of them.
fn observed(live: &mut Live, segments: &[Segment], every: usize) -> (Output, Totals) {
    let before = (live.totals(), *live.slow.totals());
    let mut output = Output::default();
    for (number, segment) in segments.iter().enumerate() {
        live.packet(&segment.frame());
        if number % every == 0 {
            live.turn(|record| output.note(record));
        }
    }
    live.settle(|record| output.note(record));
    let counts = grown(&before.0, &live.totals());
    assert_identities(&counts);
    let slow = grown(&before.1, live.slow.totals());
    let sum = [Counter::BytesParsed, Counter::BytesSkipped, Counter::BytesGap].map(|one| slow[one as usize]);
    assert_eq!(counts[Counter::BytesHandedOver as usize], sum.iter().sum::<u64>(), "handed over = {sum:?}");
    meaning::put_in_order(&mut output);
    (output, counts)
}

fn check(live: &mut Live, port: u16, words: &Words, network: &Words) {
    let conversation = Conversation::draw(&mut Tape::new(words));
    let (whole, plain, whole_counts) = meant(&conversation);
    let mut tape = Tape::new(network);
    let every = [1, 2, 5, 20, 200][tape.below(5)];
    let how = if tape.one_in(5) { Disturbance::InOrder } else { Disturbance::AnyOrder };
    let mut segments = fitting(&network::segments(&conversation, &mut tape, how));
    for end in segments.iter_mut().flat_map(|segment| [&mut segment.from, &mut segment.to]) {
        // A connection of its own.
        if end.port() != rig::PORT {
            end.set_port(port);
        }
    }
    let (mut cut, counts) = observed(live, &segments, every);
    check_versions(&whole, &std::mem::take(&mut cut.versions));
    let lines = |segments: &[Segment]| segments.iter().map(show).collect::<Vec<String>>().join("\n");
    let both = || {
        let (plain, came) = (lines(&plain), lines(&segments));
        format!("records read behind every {every}\nas it was meant:\n{plain}\nas it came:\n{came}")
    };
    assert!(cut == whole, "{}\n{}", both(), difference(&cut, &whole));
    for counter in SAME {
        let (cut, whole) = (counts[*counter as usize], whole_counts[*counter as usize]);
        assert_eq!(cut, whole, "{}\n{}", counter.label(), both());
    }
}

#[test]
fn whatever_the_network_does() {
    if !support::kernel(NAME) {
        return;
    }
    let Config { bounds, .. } = config(support::shop::CONFIG);
    let local = [support::shop::address("10.0.0.2"), support::shop::address("2001:db8::10")];
    let object = Object::load(&rig::tables(), &bounds, &local).alone();
    let live = std::cell::RefCell::new((Live::new(object, &rig::tables(), Limits::default()), 1024));
    let tape = |most: usize| vec(any::<u16>(), 0..most).prop_map(Words);
    let settings =
        ProptestConfig { failure_persistence: None, max_shrink_iters: 1000, ..ProptestConfig::with_cases(cases()) };
    TestRunner::new(settings)
        .run(&(tape(250), tape(400)), |(words, network)| {
            let (live, port) = &mut *live.borrow_mut();
            *port = 1024 + (*port - 1023) % 60_000;
            check(live, *port, &words, &network);
            Ok(())
        })
        .unwrap();
    let (live, _) = &*live.borrow();
    let totals = live.totals();
    for counter in [Counter::HalvesHandedOver, Counter::FlowsResumed, Counter::SegmentsCompared, Counter::PacketPassed]
    {
        assert!(totals[counter as usize] > 0 || cases() < CASES, "{}", counter.label());
    }
}
