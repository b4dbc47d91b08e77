//! What user space costs, piece by piece: `cargo bench -p benches`.
//!
//! Every figure is per request (or per finding), so that they add up against the budget of an observation.

#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "a bench that cannot be set up ends")]

use std::hash::Hasher as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;

use benches::frames::{Connection, End};
use benches::heads;
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use sensor::capture::host::HostEngine;
use sensor::capture::tables::Tables;
use sensor::cli::start::fixed_keys;
use sensor::collect::Clock;
use sensor::config;
use sensor::config::model::Config;
use sensor::detect;
use sensor::finding::confidence::Confidence;
use sensor::finding::model::{Activity, Finding, Level, Scope, Standing};
use sensor::finding::ocsf;
use sensor::finding::sink::NdjsonSink;
use sensor::metrics::Metrics;
use sensor::observation::{
    AccountHash, Claims, Estimates, Fingerprint, Instant, Observation, Outcome, Provenance, Relation, RouteClass,
    ServiceId, Validity,
};
use sensor::pipeline::Pipeline;
use sensor_ebpf::siphash::{self, Key};
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Exchanges that the pipeline takes between two looks at the clock.
const EXCHANGES: u64 = 1000;

fn main() {
    divan::main();
}

/// The example configuration, as users start with it.
fn configuration() -> Config {
    config::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../authsensor.toml")).expect("the example is valid")
}

fn connection() -> Connection {
    Connection {
        client: End { address: Ipv4Addr::new(203, 0, 113, 9).into(), port: 40_000 },
        service: End { address: Ipv4Addr::new(10, 77, 0, 1).into(), port: 8080 },
    }
}

fn engine(config: &Config) -> HostEngine {
    let tables = Tables::new(config, fixed_keys(config).fingerprint).expect("the example fits");
    let mut engine = HostEngine::new(tables, false, 1024, 64);
    for frame in [connection().syn(), connection().syn_ack()] {
        give(&mut engine, 0, &frame);
    }
    engine
}

fn give(engine: &mut HostEngine, at_ns: u64, frame: &[u8]) {
    engine.ethernet(at_ns, frame, u32::try_from(frame.len()).expect("a small frame"));
}

/// Moves the frame's sequence number on by `by`: the same bytes again would be a retransmit.
fn advance(frame: &mut [u8], by: usize) {
    let field: &mut [u8; 4] = (&mut frame[38..42]).try_into().expect("four bytes");
    *field = u32::from_be_bytes(*field).wrapping_add(u32::try_from(by).expect("a small segment")).to_be_bytes();
}

/// The shared parser on the host, as `replay` and later the slow path run it: headers, flow, head of 824 bytes with a JWT
/// of 400, fingerprint, record. (Nobody answers, so the queue of outstanding requests is full; that costs no more.)
#[divan::bench(sample_size = 200)]
fn parser_shared(bencher: Bencher<'_, '_>) {
    let config = configuration();
    let mut engine = engine(&config);
    let head = heads::with_jwt();
    let mut frame = connection().request(0, &head);
    let mut records = 0;
    bencher.bench_local(|| {
        give(&mut engine, 1, &frame);
        advance(&mut frame, head.len());
        engine.drain(|record| records += black_box(record).len());
    });
    assert!(records > 0, "heads were completed");
}

/// What a sensor of the usual design does in user space with the same head: `httparse`, then SipHash of the credential.
#[divan::bench(sample_size = 200)]
fn parser_httparse_and_siphasher(bencher: Bencher<'_, '_>) {
    let head = heads::with_jwt();
    bencher.bench_local(|| {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        request.parse(black_box(&head)).expect("a whole head");
        let value = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("authorization"));
        let token = value.and_then(|header| header.value.strip_prefix(b"Bearer ")).expect("a credential");
        let mut hash = SipHasher24::new_with_key(&[7; 16]);
        hash.write(token);
        hash.finish128()
    });
}

/// Of that, SipHash-2-4-128 over the 400 bytes: the share that no parser can save.
#[divan::bench(sample_size = 200)]
fn siphash_of_400_bytes(bencher: Bencher<'_, '_>) {
    let token = heads::jwt();
    bencher.bench_local(|| siphash::hash128(Key::default(), black_box(token.as_bytes())));
}

/// Everything behind the rings for one exchange: pairing, claims (cached), route, outcome, ledger, every shipped rule,
/// metrics. Times are per exchange.
#[divan::bench(sample_count = 50)]
fn pipeline(bencher: Bencher<'_, '_>) {
    let config = Arc::new(configuration());
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/detection");
    let rules = detect::load(&[root], &config).expect("the shipped rules are valid");
    let records = exchanges(&config);
    bencher
        .counter(ItemsCount::new(EXCHANGES))
        .with_inputs(|| {
            let started = Instant { monotonic_ns: 0, unix_ns: 1_767_225_600_000_000_000 };
            let clock = Clock { unix_offset_ns: 1_767_225_600_000_000_000 };
            let findings = NdjsonSink::to(Box::new(io::sink()) as Box<dyn io::Write + Send>, "nowhere");
            let metrics = Metrics::new(&config, &[]).expect("a fresh registry");
            let keys = fixed_keys(&config);
            Pipeline::new(Arc::clone(&config), &rules, keys, clock, started, findings, Some(Arc::new(metrics)))
        })
        .bench_local_values(|mut pipeline| {
            for record in &records {
                pipeline.record(record);
            }
            pipeline.advance(EXCHANGES * 1000 + 1).expect("nothing to write to fails");
            pipeline
        });
}

/// The records of [`EXCHANGES`] requests with a JWT, each answered with 200.
fn exchanges(config: &Config) -> Vec<Vec<u8>> {
    let mut engine = engine(config);
    let (head, answer) = (heads::with_jwt(), heads::response(0));
    let (mut request, mut response) = (connection().request(0, &head), connection().response(0, &answer));
    let mut records = Vec::new();
    for exchange in 0..EXCHANGES {
        give(&mut engine, exchange * 1000 + 1, &request);
        give(&mut engine, exchange * 1000 + 500, &response);
        advance(&mut request, head.len());
        advance(&mut response, answer.len());
        engine.drain(|record| records.push(record.to_vec()));
    }
    // Request, response, and the end of its body, whose length this route's outcome asks for.
    assert_eq!(records.len() as u64, 3 * EXCHANGES);
    records
}

/// One observation into the metrics: what `/metrics` costs the data plane.
#[divan::bench]
fn metrics_observe(bencher: Bencher<'_, '_>) {
    let metrics = Metrics::new(&configuration(), &[]).expect("a fresh registry");
    let observation = Observation {
        at: Instant { monotonic_ns: 1, unix_ns: 1 },
        service: ServiceId(0),
        route: None,
        class: RouteClass::AccountRead,
        outcome: Outcome::Read,
        status: Some(200),
        provenance: Provenance::Unissued,
        validity: Validity::Ok,
        fingerprint: Some(Fingerprint([1; 16])),
        issuer: None,
        kid: None,
        place: sensor_ebpf::wire::place::AUTHORIZATION,
        self_contained: true,
        account: Some(AccountHash([2; 16])),
        client: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9)),
        anomalies: 0,
        claims: Claims::default(),
        claim_anomalies: 0,
        relation: Relation::Unknown,
        object: None,
        target_id: None,
        canary: false,
        issued: 0,
        estimates: Estimates::default(),
    };
    bencher.bench_local(|| metrics.observe(black_box(&observation)));
}

/// One finding as a line of OCSF: what an alert storm costs.
#[divan::bench]
fn finding_as_ocsf_line(bencher: Bencher<'_, '_>) {
    let at = Instant { monotonic_ns: 1, unix_ns: 1_767_225_600_000_000_000 };
    let finding = Finding {
        uid: "0123456789abcdef0123456789abcdef".to_owned(),
        activity: Activity::Open,
        rule_id: "a2b3f6c1-6a53-4f2c-9d6e-0f4f6a7b8c9d".to_owned(),
        title: "Accounts read with tokens no login issued".to_owned(),
        rule_version: "2026-01-01".to_owned(),
        description: "Many accounts were read with credentials that no login handed out.".to_owned(),
        tags: ["attack.t1606", "owasp.api2", "ismsp.2.11.3"].map(str::to_owned).to_vec(),
        level: Level::High,
        at,
        first: at,
        last: at,
        group: vec![("service".to_owned(), "storefront".to_owned()), ("kid".to_owned(), "2024-04".to_owned())],
        counted_field: "account".to_owned(),
        distinct: 10,
        accounts: 10,
        exact: true,
        observations: 12,
        clients: 3,
        client_sample: (1..=10).map(|last| IpAddr::V4(Ipv4Addr::new(203, 0, 113, last))).collect(),
        account_sample: (1..=10).map(|byte| AccountHash([byte; 16])).collect(),
        window_s: 86_400,
        threshold: 10,
        exception: None,
        scope: Scope::default(),
        standing: Standing::default(),
        confidence: Confidence::default(),
    };
    let mut line = Vec::with_capacity(8192);
    bencher.bench_local(|| {
        line.clear();
        ocsf::write_line(black_box(&finding), &mut line).expect("memory takes it");
        line.len()
    });
}
