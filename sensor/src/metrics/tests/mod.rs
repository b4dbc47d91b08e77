//! What is exported: counted where it belongs, and adding up.

mod documentation;
mod http;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use sensor_ebpf::reason::Counter;

use super::catalogue::{ALL, Family, Kind};
use super::observations::NO_SERVICE;
use super::*;
use crate::collect::DecodingCounts;
use crate::config::model::{self, Findings, Issuer, Keys, Ledger, Observed, Service};
use crate::ledger::Sight;
use crate::observation::{AccountHash, Instant, Outcome, Provenance, RouteClass, ServiceId};

fn service(name: &str, issuer: &str) -> Service {
    let issuer = Issuer {
        name: issuer.to_owned(),
        jwt: true,
        observed: Observed::All,
        max_lifetime: Duration::from_hours(1),
        ..Issuer::default()
    };
    Service { name: name.to_owned(), issuers: vec![issuer], ..Service::default() }
}

fn config() -> Config {
    Config {
        path: PathBuf::from("authsensor.toml"),
        hash: "00ff".to_owned(),
        interfaces: Vec::new(),
        trusted_proxies: Vec::new(),
        client_header: model::ClientHeader::default(),
        tunnels: false,
        services: vec![service("store \"front\"", "login"), service("api\\v2", "sso")],
        keys: Keys::default(),
        ledger: Ledger {
            store: model::LedgerStore::Memory,
            sync_interval: Duration::from_millis(500),
            max_accounts: 1000,
            max_issuances: 1000,
            clock_leeway: Duration::from_mins(2),
            max_seen: 77,
        },
        approvals: PathBuf::new(),
        rules: Vec::new(),
        findings: Findings::Stdout,
        push: None,
        metrics_listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        estimate: model::Estimate::default(),
        bounds: model::Bounds {
            flows: 100,
            split_heads: 10,
            event_ring_bytes: 4096,
            byte_ring_bytes: 8192,
            poll_interval: Duration::from_millis(10),
            pending_requests: 11,
            unanswered_after: Duration::from_secs(30),
            tee_bytes: 12,
            tee_bodies: 13,
            head_bytes: 65_536,
            slow_path_bytes: 1 << 20,
            slow_half_bytes: 1 << 16,
            slow_flows: 64,
            hole_timeout: Duration::from_secs(5),
            fragments: 16,
            decoded_bytes: 1 << 16,
            kids: 14,
            claims_cache: 15,
            rule_groups: 16,
            quiet_groups: 16,
            group_values: 17,
            journal_bytes: 1 << 20,
            open_findings: 18,
        },
    }
}

fn metrics() -> Metrics {
    let rule = RuleInfoLite {
        id: "8a0c3c6e".to_owned(),
        title: "Bulk reads\nwithout login".to_owned(),
        level: Level::Critical,
        version: "2026-11-01".to_owned(),
    };
    Metrics::new(&config(), &[rule]).unwrap()
}

/// Samples of a text, by series as written.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs = lines.map(|line| line.rsplit_once(' ').unwrap());
    pairs.map(|(series, value)| (series.to_owned(), value.parse().unwrap())).collect()
}

/// Sum of a family's samples.
fn sum(samples: &BTreeMap<String, f64>, name: &str) -> f64 {
    let of_family = |series: &&String| series.split('{').next() == Some(name);
    let values: Vec<f64> = samples.keys().filter(of_family).map(|series| samples[series]).collect();
    assert!(!values.is_empty(), "{name} is missing");
    values.iter().sum()
}

fn assert_equal(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9, "{left} is not {right}");
}

fn observation(service: u16, class: RouteClass, provenance: Provenance, outcome: Outcome, account: u64) -> Observation {
    let mut hash = [0; 16];
    // Spread over all bits as a keyed hash is.
    hash[..8].copy_from_slice(&account.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    Observation {
        class,
        outcome,
        provenance,
        self_contained: true,
        account: Some(AccountHash(hash)),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        ..Observation::blank(Instant { monotonic_ns: 0, unix_ns: 0 }, ServiceId(service))
    }
}

#[test]
fn observations_are_counted_under_their_own_labels() {
    let metrics = metrics();
    let mut expected = BTreeMap::new();
    let mut times = 0_u32;
    for (index, name) in [(0, "store \\\"front\\\""), (1, "api\\\\v2"), (2, NO_SERVICE), (u16::MAX, NO_SERVICE)] {
        for &class in RouteClass::ALL {
            for &provenance in Provenance::ALL {
                for &outcome in Outcome::ALL {
                    times += 1;
                    for _ in 0..times % 7 {
                        metrics.observe(&observation(index, class, provenance, outcome, 1));
                    }
                    let series = format!(
                        "authsensor_observations_total{{class=\"{class}\",outcome=\"{outcome}\",\
                         provenance=\"{provenance}\",service=\"{name}\"}}"
                    );
                    *expected.entry(series).or_insert(0.0) += f64::from(times % 7);
                }
            }
        }
    }
    let samples = samples(&metrics.render().unwrap());
    for (series, count) in expected {
        assert_equal(samples[&series], count);
    }
    let reads: f64 = sum(&samples, "authsensor_account_reads_total");
    let of_class = |series: &&String| {
        series.starts_with("authsensor_observations_total")
            && series.contains("class=\"account_read\",outcome=\"read\"")
    };
    assert_equal(reads, samples.keys().filter(of_class).map(|series| samples[series]).sum());
}

#[test]
fn accounts_read_without_a_login_are_counted_once_each() {
    let metrics = metrics();
    let read = |provenance, outcome, account| {
        metrics.observe(&observation(1, RouteClass::AccountRead, provenance, outcome, account));
    };
    for account in 0..1000 {
        read(Provenance::Unissued, Outcome::Read, account % 250);
        read(Provenance::Unissued, Outcome::Miss, 10_000 + account);
        read(Provenance::Issued, Outcome::Read, 20_000 + account);
        read(Provenance::None, Outcome::Read, 30_000 + account);
    }
    let samples = samples(&metrics.render().unwrap());
    let accounts = samples["authsensor_accounts_read_without_login{service=\"api\\\\v2\"}"];
    assert!((accounts - 250.0).abs() <= 5.0, "{accounts}");
    let reads =
        |login: &str| samples[&format!("authsensor_account_reads_total{{login=\"{login}\",service=\"api\\\\v2\"}}")];
    assert_equal(reads("none"), 1000.0);
    assert_equal(reads("seen"), 1000.0);
    assert_equal(reads("unknown"), 1000.0);
}

/// Totals in which every counter is different and the three identities hold.
fn totals(scale: u64) -> Vec<u64> {
    let mut totals: Vec<u64> = (0..Counter::COUNT as u64).map(|index| scale * (1000 + index)).collect();
    for (total, parts) in [
        (Counter::PacketsSeen, Counter::PACKET_DISPOSITIONS),
        (Counter::BytesNew, Counter::BYTE_DISPOSITIONS),
        (Counter::HeadsCompleted, Counter::HEAD_DISPOSITIONS),
    ] {
        totals[total as usize] = parts.iter().map(|part| totals[*part as usize]).sum();
    }
    totals
}

#[test]
fn the_identities_can_be_computed_from_what_is_exported() {
    let metrics = metrics();
    for scale in [1, 5] {
        metrics.kernel(&totals(scale));
        let unit = scale * 10;
        metrics.collector(&CollectorView {
            records: 10 * unit,
            observations: 6 * unit,
            pending: 2 * unit,
            lost_full: unit / 2,
            lost_malformed: 3 * unit / 2,
            credentials_unmatched: 4,
            no_stable_token: 3,
            decoding: DecodingCounts { decoded: 2, corrupt: 1, ..DecodingCounts::default() },
            versions_judged: 5,
            versions_more: 7,
            versions_late: 6,
            shaken_forgotten: 9,
            proxies_refused: 8,
            event_ring_unread: 99,
            byte_ring_unread: 7,
        });
        let samples = samples(&metrics.render().unwrap());
        let total = |name: &str| sum(&samples, name);
        assert!(total("authsensor_packets_total") > 0.0);
        assert_equal(total("authsensor_packets_seen_total"), total("authsensor_packets_total"));
        assert_equal(total("authsensor_stream_bytes_new_total"), total("authsensor_stream_bytes_total"));
        assert_equal(total("authsensor_heads_completed_total"), total("authsensor_heads_total"));
        assert_equal(
            total("authsensor_collector_records_total"),
            total("authsensor_collector_observations_total")
                + total("authsensor_collector_pending")
                + total("authsensor_collector_lost_total"),
        );
        assert_equal(samples["authsensor_ring_unread_bytes{ring=\"event\"}"], 99.0);
        assert_equal(samples["authsensor_coded_bodies_total{result=\"corrupt\"}"], 1.0);
        assert_equal(total("authsensor_credentials_without_stable_token_total"), 3.0);
        assert_equal(samples["authsensor_request_versions_total{result=\"judged\"}"], 5.0);
        assert_equal(samples["authsensor_request_versions_total{result=\"more\"}"], 7.0);
        assert_equal(samples["authsensor_request_versions_total{result=\"late\"}"], 6.0);
        assert_equal(total("authsensor_contradicted_flows_forgotten_total"), 9.0);
        assert_equal(total("authsensor_proxy_addresses_refused_total"), 8.0);
    }
}

#[test]
fn every_counter_has_one_home_and_its_own_series() {
    let mut homes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for &counter in Counter::ALL {
        let home = kernel::home(counter);
        assert_eq!(home.kind, Kind::Counter);
        assert!(home.labels.len() <= 1 && ALL.iter().any(|family| family.name == home.name));
        let labels = homes.entry(home.name).or_default();
        assert!(!home.labels.is_empty() || labels.is_empty(), "{} has no label to tell counters apart", home.name);
        assert!(labels.insert(counter.label()), "{} twice in {}", counter.label(), home.name);
    }
    // And each total shows in that series alone.
    for (index, &counter) in Counter::ALL.iter().enumerate() {
        let metrics = metrics();
        let mut totals = vec![0; Counter::COUNT];
        totals[index] = 42;
        metrics.kernel(&totals);
        let samples = samples(&metrics.render().unwrap());
        let Family { name, labels, .. } = kernel::home(counter);
        let series = match labels {
            [] => (*name).to_owned(),
            labels => format!("{name}{{{}=\"{}\"}}", labels[0], counter.label()),
        };
        assert_equal(samples[&series], 42.0);
        let others = homes.keys().map(|name| sum(&samples, name)).sum::<f64>();
        assert_equal(others, 42.0);
    }
}

#[test]
fn totals_that_fell_count_from_zero() {
    let metrics = metrics();
    let mut totals = vec![0; Counter::COUNT];
    let mut shown = |seen, created, deleted| {
        totals[Counter::PacketsSeen as usize] = seen;
        totals[Counter::FlowsCreated as usize] = created;
        totals[Counter::FlowsDeleted as usize] = deleted;
        metrics.kernel(&totals);
        metrics.bpf("ingress", seen * 1_000_000_000, seen);
        let samples = samples(&metrics.render().unwrap());
        assert_equal(
            samples["authsensor_bpf_runs_total{program=\"ingress\"}"],
            samples["authsensor_packets_seen_total"],
        );
        assert_equal(
            samples["authsensor_bpf_run_seconds_total{program=\"ingress\"}"],
            samples["authsensor_packets_seen_total"],
        );
        (samples["authsensor_packets_seen_total"], samples["authsensor_flows_live_estimate"])
    };
    let is = |(seen, live): (f64, f64), expected: (f64, f64)| {
        assert_equal(seen, expected.0);
        assert_equal(live, expected.1);
    };
    is(shown(10, 5, 2), (10.0, 3.0));
    is(shown(10, 500, 2), (10.0, 100.0));
    is(shown(4, 1, 0), (14.0, 1.0));
    is(shown(6, 1, 1), (16.0, 0.0));
}

#[test]
fn ledger_rules_and_build_are_shown() {
    let metrics = metrics();
    let issuers = [
        IssuerView {
            service: 1,
            issuer: 0,
            horizon_unix_s: 1_745_000_000.5,
            sight: Some(0.75),
            used: Sight { seen: 3, unseen: 1, preexisting: 7 },
            preexisting: 40,
            preexisting_budget: Some(50),
            preexisting_exceeded: 2,
        },
        // Indexes of a configuration that is not this one are ignored.
        IssuerView { service: 9, issuer: 0, horizon_unix_s: 1.0, ..IssuerView::default() },
        IssuerView { service: 0, issuer: 9, horizon_unix_s: 1.0, ..IssuerView::default() },
    ];
    metrics.ledger(&LedgerView {
        issuances: 5,
        evicted_over: 2,
        evicted_running: 6,
        eviction_doubt: 0.25,
        added: 1,
        inherited: 2,
        echo: 3,
        known: 4,
        full: 5,
        lost: 6,
        told_by_another: 9,
        issuers: &issuers,
        folder: None,
    });
    metrics.bound(Bound::Kids, 3);
    metrics.object("abc123");
    metrics.finding("8a0c3c6e", Duration::from_millis(40));
    metrics.finding("not announced", Duration::from_secs(100));
    let samples = samples(&metrics.render().unwrap());
    let version = env!("CARGO_PKG_VERSION");
    for (series, value) in [
        ("authsensor_ledger_issuances", 5.0),
        ("authsensor_ledger_evicted_total{life=\"over\"}", 2.0),
        ("authsensor_ledger_evicted_total{life=\"running\"}", 6.0),
        ("authsensor_ledger_eviction_doubt_ratio", 0.25),
        ("authsensor_issuances_total{result=\"echo\"}", 3.0),
        ("authsensor_issuances_total{result=\"lost\"}", 6.0),
        ("authsensor_issuer_sight_ratio{issuer=\"sso\",service=\"api\\\\v2\"}", 0.75),
        ("authsensor_issuer_credentials{class=\"unseen\",issuer=\"sso\",service=\"api\\\\v2\"}", 1.0),
        ("authsensor_issuer_preexisting{issuer=\"sso\",service=\"api\\\\v2\"}", 40.0),
        ("authsensor_issuer_preexisting_budget{issuer=\"sso\",service=\"api\\\\v2\"}", 50.0),
        ("authsensor_issuer_preexisting_exceeded_total{issuer=\"sso\",service=\"api\\\\v2\"}", 2.0),
        ("authsensor_ledger_horizon_timestamp_seconds{issuer=\"sso\",service=\"api\\\\v2\"}", 1_745_000_000.5),
        ("authsensor_bound_reached_total{bound=\"kids\"}", 3.0),
        ("authsensor_findings_total{level=\"critical\",rule=\"8a0c3c6e\"}", 1.0),
        ("authsensor_findings_total{level=\"(other)\",rule=\"(other)\"}", 1.0),
        ("authsensor_detection_latency_seconds_bucket{le=\"0.025\"}", 0.0),
        ("authsensor_detection_latency_seconds_bucket{le=\"0.05\"}", 1.0),
        ("authsensor_detection_latency_seconds_bucket{le=\"+Inf\"}", 2.0),
        ("authsensor_detection_latency_seconds_count", 2.0),
    ] {
        assert_equal(samples[series], value);
    }
    assert_equal(samples[&format!("authsensor_build_info{{bpf_object=\"abc123\",version=\"{version}\"}}")], 1.0);
    assert_equal(sum(&samples, "authsensor_build_info"), 1.0);
}

#[test]
fn every_anomaly_of_an_observation_is_counted() {
    use sensor_ebpf::wire::anomaly::{AMBIGUOUS, OBS_FOLD};
    let metrics = metrics();
    let plain = observation(0, RouteClass::Other, Provenance::None, Outcome::Other, 1);
    for anomalies in [0, OBS_FOLD, OBS_FOLD | AMBIGUOUS, 1 << 31] {
        metrics.observe(&Observation { anomalies, ..plain });
    }
    let samples = samples(&metrics.render().unwrap());
    assert_equal(samples["authsensor_anomalies_total{anomaly=\"obs_fold\"}"], 2.0);
    assert_equal(samples["authsensor_anomalies_total{anomaly=\"ambiguous\"}"], 1.0);
    assert_equal(samples["authsensor_anomalies_total{anomaly=\"conflict\"}"], 0.0);
}
