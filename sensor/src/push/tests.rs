//! From the queue into judgements.

use std::io::Write;
use std::sync::{Arc, Mutex};

use super::*;
use crate::collect::testing::{BASE, CLOCK, KEYS, MS, RecordBuilder, config, fingerprint, jwt};
use crate::config::model::Findings;
use crate::detect::RuleSet;
use crate::finding::sink::NdjsonSink;
use crate::ledger::Issued;
use crate::pipeline::Pipeline;

#[derive(Clone, Default)]
struct Printed(Arc<Mutex<Vec<u8>>>);

impl Write for Printed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A use of a member's token `n` milliseconds after the start, with its answer.
fn used(pipeline: &mut Pipeline, n: u64, subject: &str) {
    let flow = n;
    let request = RecordBuilder::request(flow, 1, n, "GET /members/17/addresses HTTP/1.1").bearer(&jwt(subject));
    pipeline.record(&request.build());
    pipeline.record(&RecordBuilder::response(flow, 1, n + 1, 200).build());
}

#[test]
fn what_was_pushed_before_a_use_counts_and_what_was_judged_stays() {
    let printed = Printed::default();
    let folder = tempfile::TempDir::new().unwrap();
    let findings = NdjsonSink::open(&Findings::File(folder.path().join("findings"))).unwrap();
    let config = Arc::new(config());
    let mut pipeline = Pipeline::new(config, &RuleSet::default(), KEYS, CLOCK, CLOCK.instant(0), findings, None);
    pipeline.print_transactions(Box::new(printed.clone()));
    let (sender, receiver) = queue(16);
    let pushed = |subject: &str, ms: u64| Pushed {
        source: 0,
        service: ServiceId(0),
        issuer: IssuerId(1),
        fingerprint: Fingerprint(fingerprint(&jwt(subject))),
        issued_ns: BASE + ms * MS,
        expires_ns: None,
        account: None,
        parent: None,
    };
    let mut results = Vec::new();
    let mut turn = |pipeline: &mut Pipeline, ms: u64| {
        receiver.drain(|pushed| results.push(pipeline.issued(pushed, BASE + ms * MS)));
        pipeline.advance(BASE + ms * MS).unwrap();
    };
    // In one turn with its use: the push was accepted first.
    sender.send(&[pushed("early", 0)]).unwrap();
    used(&mut pipeline, 10, "early");
    used(&mut pipeline, 20, "late");
    used(&mut pipeline, 30, "forged");
    turn(&mut pipeline, 100);
    // Told after its first use, dated before it; and dated long after it.
    sender.send(&[pushed("late", 15), pushed("forged", 200_000)]).unwrap();
    used(&mut pipeline, 200_100, "late");
    used(&mut pipeline, 200_200, "forged");
    turn(&mut pipeline, 200_300);
    pipeline.finish().unwrap();
    assert_eq!(results, [Issued::Added, Issued::Added, Issued::Echo]);
    let text = String::from_utf8(printed.0.lock().unwrap().clone()).unwrap();
    let judged: Vec<String> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["provenance"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(judged, ["issued", "unissued", "unissued", "issued", "unissued"], "{text}");
}
