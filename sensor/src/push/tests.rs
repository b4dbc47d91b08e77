//! What a body of any bytes can bring in, and from the queue into judgements.

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::connection::Endpoint;
use super::source::{Grants, Sources};
use super::*;
use crate::collect::testing::{BASE, CLOCK, KEYS, MS, RecordBuilder, config, fingerprint, jwt};
use crate::config::model::{Findings, PushSource, PushSubject};
use crate::detect::RuleSet;
use crate::finding::sink::NdjsonSink;
use crate::ledger::Issued;
use crate::metrics::Metrics;
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

/// An endpoint with one source, that of the session issuer.
fn endpoint() -> Endpoint {
    let config = config();
    let source = PushSource {
        name: "sso".to_owned(),
        subject: PushSubject::Dns("sso.example".to_owned()),
        service: ServiceId(0),
        issuers: vec![IssuerId(0)],
        kids: Vec::new(),
        per_second: 1,
    };
    Endpoint {
        sources: Sources::new(&config, &[source]),
        keys: KEYS,
        sender: queue(1).0,
        metrics: Arc::new(Metrics::new(&config, &[]).unwrap()),
        max_body: 1 << 20,
        max_delay: Duration::from_mins(2),
        leeway: Duration::from_mins(2),
    }
}

/// Pieces of which bodies are made: some fit together, most do not.
fn piece() -> impl Strategy<Value = String> {
    const WORDS: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\n",
        "\"",
        "\\",
        "null",
        "17",
        "1e999",
        "-0",
        "\u{feff}",
        "\"fingerprint\":",
        "\"credential\":\"",
        "\"account\":",
        "\"issued_at\":",
        "\"expires\":",
        "\"service\":\"shop\",",
        "\"issuer\":\"session\",",
        "\"issuer\":\"tokens\",",
        "\"iss\":\"\",",
        "\"00112233445566778899aabbccddeeff\"",
        "{\"fingerprint\":\"00112233445566778899aabbccddeeff\"}",
        "{\"credential\":\"a\"}",
        "\\ud83d\\ude00",
        "e30.e30.c2ln",
    ];
    prop_oneof![4 => proptest::sample::select(WORDS).prop_map(str::to_owned), 1 => ".{0,4}"]
}

proptest! {
    /// Whatever comes: no panic, and nothing but issuances of the source's own issuer.
    #[test]
    fn nothing_foreign_comes_of_any_body(pieces in proptest::collection::vec(piece(), 0..40), cut in 0usize..400) {
        let endpoint = endpoint();
        let text = pieces.concat();
        let body = text.as_bytes().get(..cut).unwrap_or(text.as_bytes());
        if let Ok(pushed) = endpoint.read(body, &Grants(vec![0])) {
            prop_assert!(!pushed.is_empty());
            for one in pushed {
                prop_assert_eq!((one.source, one.service, one.issuer), (0, ServiceId(0), IssuerId(0)));
            }
        }
    }
}

#[test]
fn a_rate_is_refilled_by_time_and_no_further_than_its_burst() {
    let endpoint = endpoint();
    let start = std::time::Instant::now();
    let spend = |count, seconds| endpoint.sources.spend(&[(0, count)], start + Duration::from_secs(seconds));
    assert_eq!(spend(11, 0), Err(None));
    assert_eq!(spend(10, 0), Ok(()));
    assert_eq!(spend(3, 1), Err(Some(2)));
    assert_eq!(spend(3, 3), Ok(()));
    assert_eq!(spend(1, 3), Err(Some(1)));
    assert_eq!(spend(10, 1000), Ok(()));
    assert_eq!(spend(1, 1000), Err(Some(1)));
}
