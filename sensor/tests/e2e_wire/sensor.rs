//! The daemon and tcpdump on the servers' end of the veth pair, and what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::process::{Running, command};
use crate::rows::{Client, client, difference};
use crate::servers::{V4, V6};
use crate::support::keys;
use crate::support::net::{Net, SERVER_END};

const METRICS: &str = "127.0.0.1:9464";
const CAPTURE: &str = "wire.pcap";
const TRANSACTIONS: &str = "live.ndjson";
const CONFIGURATION: &str = "authsensor.toml";

/// The sensor's keys.
pub const FINGERPRINT_KEY: [u8; 16] = [0x11; 16];
const ACCOUNT_KEY: [u8; 16] = [0x22; 16];

/// Counters that must stay 0: whatever stands here would be a request that nobody told. (Segments out of order, and those
/// of a half that is busy on another processor, are not among them: the slow path has them. Nor are bytes that come late
/// into a body of known length: the kernel does without them, as a gap.)
const NOTHING_LOST: [&str; 19] = [
    "authsensor_heads_total{result=\"event_ring_full\"}",
    "authsensor_lost_records_total{reason=\"end_ring_full\"}",
    "authsensor_lost_records_total{reason=\"byte_ring_full\"}",
    "authsensor_lost_records_total{reason=\"segment_ring_full\"}",
    "authsensor_packets_total{disposition=\"flow_table_full\"}",
    "authsensor_packets_total{disposition=\"malformed\"}",
    "authsensor_flows_passed_total{reason=\"tls\"}",
    "authsensor_flows_passed_total{reason=\"h2\"}",
    "authsensor_slow_path_bytes_total{disposition=\"gap\"}",
    "authsensor_slow_path_events_total{event=\"hole\"}",
    "authsensor_slow_path_events_total{event=\"evicted\"}",
    "authsensor_slow_path_events_total{event=\"conflict\"}",
    "authsensor_slow_path_events_total{event=\"out_of_window\"}",
    "authsensor_halves_desynchronised_total",
    "authsensor_stream_faults_total{reason=\"head_slot_lost\"}",
    "authsensor_stream_faults_total{reason=\"pairing_overflow\"}",
    "authsensor_stream_faults_total{reason=\"step_budget\"}",
    "authsensor_collector_lost_total{reason=\"full\"}",
    "authsensor_collector_lost_total{reason=\"malformed\"}",
];

const UPGRADED: &str = "authsensor_flows_passed_total{reason=\"flows_upgraded\"}";

/// Longer than a packet stays in a block of the kernel's that tcpdump did not get yet: one second.
const QUIET: Duration = Duration::from_millis(1300);

/// Both while they watch.
pub struct Watch {
    sensor: Running,
    tcpdump: Running,
    transactions: std::path::PathBuf,
}

/// What was seen.
pub struct Seen {
    /// The daemon's transactions.
    pub live: String,
}

impl Watch {
    /// Starts both in the server's namespace; returns once both look.
    pub fn start(net: &Net, folder: &Path) -> Self {
        fs::write(folder.join(CONFIGURATION), configuration(folder)).unwrap();
        let capture = folder.join(CAPTURE).display().to_string();
        let words = ["tcpdump", "-i", SERVER_END, "-n", "-s", "0", "-B", "131072", "-Z", "root", "-U"];
        let rest = ["--time-stamp-precision", "nano", "-w", &capture, "tcp port 8080"];
        let mut tcpdump = Running::start("tcpdump", command(&net.server, &[&words[..], &rest].concat()), folder);
        tcpdump.wait_until("listening", |tcpdump| tcpdump.said().contains("listening on"));

        let transactions = folder.join(TRANSACTIONS);
        let words = [env!("CARGO_BIN_EXE_authsensor"), "run", "--config", CONFIGURATION, "--interface", SERVER_END];
        let rest = ["--transactions", TRANSACTIONS];
        let mut sensor = command(&net.server, &[&words[..], &rest].concat());
        sensor.current_dir(folder).env_remove("RUST_LOG");
        let mut sensor = Running::start("authsensor", sensor, folder);
        sensor.wait_until("watching", |sensor| sensor.said().lines().any(|line| line.starts_with("metrics ")));
        Self { sensor, tcpdump, transactions }
    }

    /// Waits until neither the access log nor the capture grows any more.
    pub fn settle(&mut self, log: &Path) {
        let capture = self.transactions.with_file_name(CAPTURE);
        let lengths = || [log, &capture].map(|file| fs::metadata(file).map_or(0, |file| file.len()));
        let (mut before, mut since) = (lengths(), Instant::now());
        self.tcpdump.wait_until("through", |_| {
            let now = lengths();
            if now != before {
                (before, since) = (now, Instant::now());
            }
            since.elapsed() > QUIET
        });
    }

    fn metrics(&mut self, net: &Net) -> String {
        self.sensor.wait_until("serving metrics", |_| true);
        net.in_server(&["curl", "-sS", "--max-time", "10", &format!("http://{METRICS}/metrics")])
    }

    /// A counter of the daemon's.
    pub fn metric(&mut self, net: &Net, name: &str) -> u64 {
        let metrics = self.metrics(net);
        let line = metrics.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or_else(|| panic!("no {name} in\n{metrics}"))
    }

    /// Every counter of a loss is there, and 0; `upgraded` connections left HTTP.
    pub fn assert_nothing_lost(&mut self, net: &Net, upgraded: usize) {
        let metrics = self.metrics(net);
        let values: BTreeMap<&str, &str> = metrics.lines().filter_map(|line| line.rsplit_once(' ')).collect();
        let not_zero = NOTHING_LOST.iter().filter(|name| values.get(**name) != Some(&"0"));
        let lost: Vec<String> = not_zero.map(|name| format!("{name} {:?}", values.get(*name))).collect();
        let all = || metrics.lines().filter(|line| !line.ends_with(" 0")).collect::<Vec<_>>().join("\n");
        assert_eq!(values.get(UPGRADED), Some(&upgraded.to_string().as_str()), "{}", all());
        assert!(lost.is_empty(), "{lost:#?}; all that is not 0:\n{}", all());
    }

    /// Ends both; the capture must be whole.
    pub fn stop(mut self) -> Seen {
        let status = self.sensor.stop(Signal::SIGINT);
        assert!(status.success(), "{status}: {}", self.sensor.said());
        let status = self.tcpdump.stop(Signal::SIGINT);
        let said = self.tcpdump.said();
        assert!(status.success() && said.contains("\n0 packets dropped by kernel"), "{status}: {said}");
        let mode = fs::metadata(&self.transactions).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "others may not read what was asked for");
        Seen { live: fs::read_to_string(&self.transactions).unwrap() }
    }
}

fn configuration(folder: &Path) -> String {
    // The same keys live and offline, or fingerprints could not be compared.
    let [fingerprint, account] =
        [FINGERPRINT_KEY, ACCOUNT_KEY].map(|key| key.map(|byte| format!("{byte:02x}")).concat());
    keys::write(folder, &fingerprint, &account);
    format!(
        r#"
rules = []
metrics.listen = "{METRICS}"
findings.output = "findings.ndjson"
keys = {{ fingerprint = "fingerprint.key", account = "account.key" }}
[bounds]
flows = 16384
split_heads = 1024
event_ring_bytes = "64MiB"
byte_ring_bytes = "16MiB"
unanswered_after = "1h"
[[service]]
name = "site"
listen = ["{V4}", "{V6}"]
[service.credentials]
authorization = true
cookies = ["SESSION"]
query = ["access_token"]
[[service.route]]
class = "login"
methods = "POST"
path = "/app/login"
issues = ["set-cookie:SESSION"]
[[service.route]]
class = "account_read"
methods = ["GET", "HEAD"]
path = "/files/{{file}}"
outcomes = [{{ outcome = "read", status = 200, min_length = 2 }}]
"#
    )
}

/// The transactions that `replay` finds in the capture.
pub fn replay(folder: &Path) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_authsensor"));
    command.args(["replay", "--config", CONFIGURATION, "--transactions", CAPTURE]).current_dir(folder);
    let ended = crate::support::program::ended(&mut command);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    ended.out
}

/// True for a transaction that may have been another.
fn doubted(row: &Value) -> bool {
    let doubt = |name: &Value| name == "conflict" || name == "ambiguous";
    row["anomalies"].as_array().is_some_and(|names| names.iter().any(doubt))
}

/// Live and offline are alike in everything but the time: the one is the kernel's, the other the capture's.
pub fn assert_same_transactions(live: &str, offline: &str) {
    let by_client = |text: &str| {
        let mut all: BTreeMap<Client, Vec<Value>> = BTreeMap::new();
        for line in text.lines() {
            let mut value: Value = serde_json::from_str(line).unwrap();
            value.as_object_mut().unwrap().remove("ts").unwrap();
            all.entry(client(&value)).or_default().push(value);
        }
        all
    };
    let (mut live, mut offline) = (by_client(live), by_client(offline));
    // A part of a head that came twice is in doubt where the first bytes are not at hand; whether they are depends on
    // which path had the connection at that moment, and so on how the programs and the capture were scheduled.
    let shaken: BTreeSet<Client> = [&live, &offline]
        .into_iter()
        .flatten()
        .filter(|(_, rows)| rows.iter().any(doubted))
        .map(|(one, _)| *one)
        .collect();
    for (_, rows) in [&mut live, &mut offline].into_iter().flatten().filter(|(one, _)| shaken.contains(one)) {
        for row in rows.iter_mut().filter_map(Value::as_object_mut) {
            row.remove("anomalies");
            row.remove("provenance");
        }
    }
    assert!(live == offline, "{}", difference(&live, &offline, "live", "the replay"));
}
