//! Small simulations, through the pipeline and through traces.

use std::path::{Path, PathBuf};

use sensor::cli::observe::TracePlayer;
use sensor::cli::start::{self, Start};
use sensor::finding::sink::NdjsonSink;

use super::*;
use crate::scenario::{Attack, Kind, Scenario};

/// Twenty-nine minutes of a small service; the attack begins in the middle.
fn plan(attack: &str) -> Plan {
    let text = format!("days = 0.02\nmembers = 5_000\ncrawlers = 0\n{attack}");
    Plan::read(Path::new("test"), &text).unwrap_or_else(|error| panic!("{error}"))
}

/// The same with an attack; `more` are further keys of it.
fn attack(more: &str) -> Plan {
    plan(&format!(
        "[attack]\nstart_day = 0.01\nspan_s = 800\naccounts = 400\naddresses = 30\nrequests_per_second = 0.5\n{more}\n"
    ))
}

/// What a run came to: the report without what differs from machine to machine, and what was counted.
struct Ran {
    report: serde_json::Value,
    counts: String,
    lines: Vec<u8>,
    /// Requests of the attack.
    requests: u64,
}

/// The shipped configuration with one rule, so that these tests are about the simulator and not about the rules.
fn sensor() -> Sensor {
    Sensor::read(&shipped(), Some(&rule())).unwrap_or_else(|error| panic!("{error}"))
}

fn rule() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/detection/bulk_account_reads_unissued.yml")
}

fn simulate(plan: &Plan) -> Ran {
    let sensor = sensor();
    let findings = Findings::default();
    let feed = PipelineFeed::new(&sensor, &findings).unwrap();
    let mint = Mint::new(sensor.keys.fingerprint, plan.members.clock_skew_ms);
    let mut sim = Sim::new(plan, feed, mint, Truth::new(sensor.keys.account), findings);
    sim.run().unwrap_or_else(|error| panic!("{error}"));
    let counts = format!("{:?}", sim.out.feed.pipeline().counts());
    let report = sim.truth.report("test", plan.members.seed, 1, plan.members.days, Instant::now());
    let mut report = serde_json::to_value(&report).unwrap();
    for key in ["peak_rss_mib", "observations_per_second"] {
        report[key] = 0.into();
    }
    Ran { report, counts, lines: Vec::new(), requests: sim.truth.requests }
}

/// The same traffic as a trace, judged with a ledger that is complete.
fn replayed(plan: &Plan) -> Ran {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trace");
    let sensor = sensor();
    let mint = Mint::new(sensor.keys.fingerprint, plan.members.clock_skew_ms);
    let feed = TraceFeed::new(&path).unwrap();
    let findings = Findings::default();
    Sim::new(plan, feed, mint, Truth::new(sensor.keys.account), findings.clone()).run().unwrap();
    let start = Start { rules: sensor.rules, ..start::read(&shipped()).unwrap() };
    let sink = NdjsonSink::to(Box::new(findings.clone()) as Box<dyn std::io::Write + Send>, "the test");
    let mut player = TracePlayer::new(&start, true, sink).unwrap();
    player.play(&path).unwrap();
    player.finish().unwrap();
    let counts = format!("{:?}", player.pipeline().unwrap().counts());
    Ran { report: serde_json::Value::Null, counts, lines: findings.take().unwrap_or_default(), requests: 0 }
}

#[test]
fn every_shipped_scenario_is_read() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let scenarios: Vec<&PathBuf> =
        files.iter().filter(|path| path.extension().is_some_and(|one| one == "toml")).collect();
    assert!(scenarios.len() > 20);
    for path in scenarios {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("# "), "{} says what it is", path.display());
        Plan::read(path, &text).unwrap_or_else(|error| panic!("{error}"));
    }
}

#[test]
fn the_same_seed_gives_the_same_line() {
    let plan = attack("kind = \"forged_tokens\"");
    let (first, second) = (simulate(&plan), simulate(&plan));
    assert_eq!((&first.report, &first.counts), (&second.report, &second.counts));
    let mut other = plan.clone();
    other.members.seed = 2;
    assert_ne!(simulate(&other).counts, first.counts);
}

#[test]
fn members_alone_are_quiet() {
    let quiet = "unexplained_miss_rate = 0\nrolling_cookie_share = 0.3\nmulti_step_login = true\ntoken_lifetime_s = 200\n\
                 login_storm = true\ndeploys = 2\nkey_rotations = 1\npush_bursts = 1\nissuer_outages = [0.001]\n";
    let ran = simulate(&plan(quiet));
    assert_eq!(ran.report["false_findings_per_day"], 0.0, "{} {}", ran.report, ran.counts);
    assert_eq!(ran.report["detected_by"], serde_json::Value::Null);
}

/// A deploy moves the login: from then on every new token of a member is one that no login issued. Who forges tokens while
/// logins go on is found all the same.
#[test]
fn a_login_that_moves_accuses_nobody() {
    let service = "days = 1.15\nmembers = 4_000\ncrawlers = 0\nreads_per_session = 4\nrefresh = false\n\
                   unexplained_miss_rate = 0\n";
    let read = |text: String| Plan::read(Path::new("test"), &text).unwrap_or_else(|error| panic!("{error}"));
    let moved = simulate(&read(format!("{service}login_path_change = [1.1]\n")));
    assert_eq!(moved.report["false_findings_per_day"], 0.0, "{} {}", moved.report, moved.counts);
    let forged = "[attack]\nkind = \"forged_tokens\"\nstart_day = 1.1\nspan_s = 4000\naccounts = 400\naddresses = 30\n";
    let attacked = simulate(&read(format!("{service}{forged}")));
    assert!(attacked.report["detected_by"].is_string(), "{} {}", attacked.report, attacked.counts);
}

/// Forged tokens, however they are brought in, are found out by where they come from; and the attack is what is found.
#[test]
fn forged_tokens_are_detected_whatever_the_way() {
    for more in [
        "via = \"direct\"",
        "via = \"refresh\"",
        "via = \"echo\"",
        "via = \"decoy_cookie\"",
        "via = \"logout_spam\"",
        "via = \"login_flood\"",
        "forged_iat = \"copied\"",
        "forged_iat = \"before_horizon\"",
        "kid = \"retired\"",
        "kid = \"other_audience\"\norder = \"random\"\nown_login_first = true\naddress_kind = \"shared_nat\"",
        "actor = \"staff\"",
        "route = \"dormant\"\nnonexistent_per_second = 1",
    ] {
        let ran = simulate(&attack(&format!("kind = \"forged_tokens\"\n{more}")));
        assert_ne!(ran.report["detected_by"], serde_json::Value::Null, "{more}: {} {}", ran.report, ran.counts);
        let exposed = ran.report["accounts_exposed_at_detection"].as_u64().unwrap();
        assert!((5..40).contains(&exposed), "{more}: {}", ran.report);
    }
}

#[test]
fn every_other_kind_runs() {
    for keys in [
        "kind = \"bola_issued\"\nactor = \"member\"",
        "kind = \"bola_issued\"\nactor = \"partner\"",
        "kind = \"bola_issued\"\nactor = \"staff\"",
        "kind = \"no_credential\"",
        "kind = \"stolen_session\"\nviews_per_account = 9",
        "kind = \"nonexistent_members\"",
        "kind = \"credential_stuffing\"",
    ] {
        let ran = simulate(&attack(keys));
        assert_eq!(ran.report["false_findings_by_level"]["high"], 0, "{keys}: {}", ran.report);
        assert!(ran.requests > 80, "{keys}");
    }
}

#[test]
fn a_trace_is_judged_as_the_simulation_is() {
    let plan = attack("kind = \"forged_tokens\"\nvia = \"echo\"\nnonexistent_per_second = 0.2");
    let (ran, replayed) = (simulate(&plan), replayed(&plan));
    let mut truth = Truth::new(sensor().keys.account);
    truth.told(&replayed.lines).unwrap();
    let report = serde_json::to_value(truth.report("test", 1, 1, 1.0, Instant::now())).unwrap();
    let brief = |report: &serde_json::Value| -> Vec<(String, String)> {
        let list = report["findings"].as_array().unwrap().iter();
        list.map(|one| (one["rule"].to_string(), one["opened"].to_string())).collect()
    };
    assert!(!brief(&report).is_empty());
    assert_eq!(brief(&report), brief(&ran.report));
    // The trace also has the logins of those who held a token before.
    let issuances = |counts: &str| counts.split("echo: ").nth(1).map(|rest| rest.split(',').next().unwrap().to_owned());
    assert_eq!(issuances(&replayed.counts), issuances(&ran.counts), "{}\n{}", replayed.counts, ran.counts);
}

#[test]
fn defaults_are_a_quiet_service() {
    assert_eq!(Attack::default().kind, Kind::None);
    assert!(Scenario::default().unexplained_miss_rate <= 1e-6);
}

/// The report with other detectors beside the sensor, their rows, and whose accounts were exposed.
fn watched(plan: &Plan) -> (Ran, Vec<Row>, usize) {
    let sensor = sensor();
    let findings = Findings::default();
    let mut feed = PipelineFeed::new(&sensor, &findings).unwrap();
    let start_ns = world::START_NS + (plan.attack.start_day * 86_400e9) as u64;
    feed.watch = Some(Watch::new(&sensor.config, Some(start_ns)));
    let mint = Mint::new(sensor.keys.fingerprint, plan.members.clock_skew_ms);
    let mut sim = Sim::new(plan, feed, mint, Truth::new(sensor.keys.account), findings);
    sim.run().unwrap();
    let counts = format!("{:?}", sim.out.feed.pipeline().counts());
    let rows = sim.out.feed.watch.as_ref().unwrap().rows("test");
    let observations = sim.out.feed.pipeline().counts().observations;
    assert!(rows.iter().all(|row| row.observations == observations), "{rows:?} {counts}");
    let exposed = sim.truth.exposed();
    let report = sim.truth.report("test", plan.members.seed, 1, plan.members.days, Instant::now());
    let mut report = serde_json::to_value(&report).unwrap();
    for key in ["peak_rss_mib", "observations_per_second"] {
        report[key] = 0.into();
    }
    (Ran { report, counts, lines: Vec::new(), requests: sim.truth.requests }, rows, exposed)
}

#[test]
fn other_detectors_see_the_same_traffic_and_change_nothing() {
    let plan = attack("kind = \"forged_tokens\"\nnonexistent_per_second = 0.5\nkid = \"retired\"");
    let alone = simulate(&plan);
    let (ran, rows, exposed) = watched(&plan);
    assert_eq!((&ran.report, &ran.counts), (&alone.report, &alone.counts));
    assert!(exposed > 100);
    for row in &rows {
        assert_eq!((row.accounts_exposed, row.attack_requests), (exposed, ran.requests), "{row:?}");
    }
    // Every token names a key that is retired: the first request is enough.
    let signature = rows.iter().find(|row| row.baseline == "signature check").unwrap();
    assert_eq!((signature.attack_requests_at_detection, signature.false_findings), (Some(1), 0), "{signature:?}");
    let (_, rows, _) = watched(&attack("kind = \"forged_tokens\"\nvia = \"decoy_cookie\""));
    let signature = rows.iter().find(|row| row.baseline == "signature check").unwrap();
    assert_eq!((signature.findings, signature.accounts_exposed > 100), (0, true), "{signature:?}");
}

/// What the configuration calls a decoy is one, and nobody else.
#[test]
fn the_configuration_names_the_decoys() {
    let sensor = sensor();
    let mut named = sensor.config.services[0].canaries.0.clone();
    let mut decoys: Vec<String> = (1..=world::DECOYS).map(|n| (n * world::DECOY_STEP).to_string()).collect();
    named.sort();
    decoys.sort();
    assert_eq!(named, decoys);
}

/// Forged tokens that walk over the numbers read decoys like any account; where there are none, they pass them by.
#[test]
fn an_attack_meets_decoys() {
    let rule = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/detection/canary_accounts.yml");
    for canaries in [0, 200] {
        // Of some 5,550 numbers, one can be a decoy, and every one that is anybody's is read.
        let mut plan = attack("kind = \"forged_tokens\"\norder = \"random\"\nviews_per_account = 1");
        plan.members.canaries = scenario::Canaries(canaries);
        (plan.attack.accounts, plan.attack.requests_per_second) = (5000, 20.0);
        let sensor = Sensor::read(&shipped(), Some(&rule)).unwrap_or_else(|error| panic!("{error}"));
        let findings = Findings::default();
        let feed = PipelineFeed::new(&sensor, &findings).unwrap();
        let mint = Mint::new(sensor.keys.fingerprint, 0);
        let mut sim = Sim::new(&plan, feed, mint, Truth::new(sensor.keys.account), findings);
        sim.run().unwrap_or_else(|error| panic!("{error}"));
        let report = sim.truth.report("test", 1, 1, plan.members.days, Instant::now());
        assert!(sim.truth.requests > 4000, "{}", sim.truth.requests);
        assert_eq!(report.detected_by.is_some(), canaries > 0, "{report:?}");
        assert!(report.false_findings_per_day < 1e-9, "{report:?}");
    }
}
