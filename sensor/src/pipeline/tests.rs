use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::Value;

use super::*;
use crate::collect::testing::{BASE, CLOCK, KEYS, MS, RecordBuilder, config, jwt};
use crate::detect;

const RULE: &str = "\
title: Account read without an issuance
id: 4f0c7a52-9f7e-4a61-8f0e-6d1c6a0f3b11
name: unissued
logsource:
  product: authsensor
detection:
  selection:
    provenance: unissued
    class: account_read
    outcome: read
  condition: selection
---
title: Bulk
id: 8f4d0a2c-58a5-4a0e-9b0b-0d3c5e6a7f21
level: high
correlation:
  type: value_count
  rules:
    - unissued
  group-by:
    - service
    - kid
  timespan: 1h
  condition:
    gte: 10
    field: account
";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    /// (activity, id, accounts) of each report.
    fn reports(&self) -> Vec<(u64, String, u64)> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let events = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let report = events.map(|event| {
            let uid = event["finding_info"]["uid"].as_str().unwrap().to_owned();
            (event["activity_id"].as_u64().unwrap(), uid, event["evidences"][0]["data"]["distinct"].as_u64().unwrap())
        });
        report.collect()
    }
}

fn pipeline(lines: &Lines, state: Option<&Path>, started_ns: u64) -> Pipeline {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rule.yml");
    std::fs::write(&file, RULE).unwrap();
    let config = config();
    let rules = detect::load(&[file], &config).unwrap();
    let sink = NdjsonSink::to(Box::new(lines.clone()) as Box<dyn Write + Send>, "memory");
    // The horizon lies far back: unknown tokens are unissued.
    let mut pipeline = Pipeline::new(Arc::new(config), &rules, KEYS, CLOCK, CLOCK.instant(0), sink, None);
    if let Some(state) = state {
        pipeline.keep_state(state, CLOCK.instant(started_ns)).unwrap();
    }
    pipeline
}

/// Forged tokens of `accounts` read an account each, a second apart.
fn forge(pipeline: &mut Pipeline, accounts: std::ops::Range<u64>) {
    for account in accounts {
        let ms = account * 1000;
        let line = format!("GET /users/{account}/addresses HTTP/1.1");
        pipeline.record(&RecordBuilder::request(account, 0, ms, &line).bearer(&jwt(&account.to_string())).build());
        pipeline.record(&RecordBuilder::response(account, 0, ms + 1, 200).length(500).build());
        pipeline.advance(BASE + (ms + 2) * MS).unwrap();
    }
}

#[test]
fn a_killed_sensor_goes_on_where_it_stood() {
    let whole = Lines::default();
    forge(&mut pipeline(&whole, None, BASE), 0..30);
    let whole = whole.reports();
    assert_eq!(whole.iter().map(|(activity, _, count)| (*activity, *count)).collect::<Vec<_>>(), [(1, 10), (2, 20)]);

    let state = tempfile::tempdir().unwrap();
    let cut = Lines::default();
    for part in [0..6, 6..14, 14..30] {
        let started = BASE + part.start * 1000 * MS;
        // Dropped without `finish`, as by a kill.
        forge(&mut pipeline(&cut, Some(state.path()), started), part);
    }
    let cut = cut.reports();
    assert!(cut.iter().all(|(_, uid, _)| *uid == whole[0].1), "one finding: {cut:?}");
    let counts: Vec<_> = cut.iter().map(|(activity, _, count)| (*activity, *count)).collect();
    assert_eq!(counts, [(1, 10), (2, 14), (2, 20)], "opened in the second run, told again in the third");
}

#[test]
fn what_ended_while_the_sensor_was_down_is_closed_at_start() {
    let state = tempfile::tempdir().unwrap();
    let lines = Lines::default();
    forge(&mut pipeline(&lines, Some(state.path()), BASE), 0..12);
    pipeline(&lines, Some(state.path()), BASE + 3 * 3600 * 1000 * MS);
    pipeline(&lines, Some(state.path()), BASE + 4 * 3600 * 1000 * MS);
    let activities: Vec<u64> = lines.reports().iter().map(|(activity, ..)| *activity).collect();
    assert_eq!(activities, [1, 3], "opened, closed at the next start, and not told again");
}

/// `authsensor_detectable_accounts` is there for reviewers: nothing that anybody sends may move it, only rules and
/// approvals.
#[test]
fn traffic_does_not_move_the_smallest_attack() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rule.yml");
    std::fs::write(&file, RULE.replace("    - kid\n", "")).unwrap();
    let config = Arc::new(config());
    let load = || detect::load(std::slice::from_ref(&file), &config).unwrap();
    let metrics = Arc::new(Metrics::new(&config, &[]).unwrap());
    metrics.detectable(&load().detectable(&config));
    let told = || {
        let text = metrics.render().unwrap();
        let lines = text.lines().filter(|line| line.starts_with("authsensor_detectable_accounts{"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = told();
    assert!(before.iter().any(|line| line.ends_with(" 10")), "{before:#?}");
    let lines = Lines::default();
    let sink = NdjsonSink::to(Box::new(lines.clone()) as Box<dyn Write + Send>, "memory");
    let seen = Some(Arc::clone(&metrics));
    let mut pipeline = Pipeline::new(Arc::clone(&config), &load(), KEYS, CLOCK, CLOCK.instant(0), sink, seen);
    // Forged reads, refused and failed ones, and losses that leave gaps.
    forge(&mut pipeline, 0..60);
    pipeline.lost(BASE, BASE + 60_000 * MS, 1000);
    for n in 60..120u64 {
        let (ms, line) = (n * 1000, format!("POST /login?n={n} HTTP/1.1"));
        pipeline.record(&RecordBuilder::request(n, 0, ms, &line).build());
        pipeline.record(&RecordBuilder::response(n, 0, ms + 1, if n % 2 == 0 { 401 } else { 200 }).build());
        pipeline.advance(BASE + (ms + 2) * MS).unwrap();
    }
    pipeline.publish((0, 0));
    assert!(!lines.reports().is_empty() && metrics.render().unwrap().contains("provenance=\"unissued\""));
    assert_eq!(told(), before, "traffic moved it");
    // What does: other rules.
    std::fs::write(&file, RULE.replace("    - kid\n", "").replace("gte: 10", "gte: 12")).unwrap();
    metrics.detectable(&load().detectable(&config));
    assert!(told() != before && told().iter().any(|line| line.ends_with(" 12")));
}

#[test]
fn bounds_that_were_reached_and_records_that_do_not_decode_show() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("rule.yml");
    std::fs::write(&file, RULE).unwrap();
    let mut config = config();
    (config.bounds.claims_cache, config.ledger.max_seen) = (1, 1);
    let rules = detect::load(&[file], &config).unwrap();
    let metrics = Arc::new(Metrics::new(&config, &[]).unwrap());
    let sink = NdjsonSink::to(Box::new(io::sink()) as Box<dyn Write + Send>, "memory");
    let seen = Some(Arc::clone(&metrics));
    let mut pipeline = Pipeline::new(Arc::new(config), &rules, KEYS, CLOCK, CLOCK.instant(0), sink, seen);
    forge(&mut pipeline, 0..60);
    pipeline.record(b"no record");
    pipeline.publish((0, 0));
    let text = metrics.render().unwrap();
    let value = |series: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(series));
        line.and_then(|value| value.trim().parse::<f64>().ok()).unwrap()
    };
    for bound in ["claims_cache", "max_seen"] {
        assert!(value(&format!("authsensor_bound_reached_total{{bound=\"{bound}\"}}")) > 10.0, "{bound}");
    }
    assert!((value("authsensor_collector_lost_total{reason=\"malformed\"}") - 1.0).abs() < 0.5);
    assert!((value("authsensor_collector_records_total") - 61.0).abs() < 0.5, "it stands in the sum, too");
}
