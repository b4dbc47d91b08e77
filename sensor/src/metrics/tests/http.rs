//! The endpoint, over a running server: complete from the start, accepted by Prometheus' own tool, bounded.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;

use tokio::sync::oneshot;

use super::*;
use crate::metrics::observations::Login;

/// A running server; stops when dropped.
struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    fn start(metrics: Arc<Metrics>) -> Self {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let stopped = async { stopped.await.unwrap_or(()) };
            runtime.block_on(serve(listener, metrics, stopped)).unwrap();
        });
        Self { address, stop: Some(stop), thread: Some(thread) }
    }

    /// Sends `request` as it stands and reads to the end: head and body.
    fn exchange(&self, request: &[u8]) -> (String, String) {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request).unwrap();
        let mut answer = Vec::new();
        // A server that refuses a request may reset the connection behind its answer.
        stream.read_to_end(&mut answer).ok();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_ascii_lowercase(), body.to_owned())
    }

    fn get(&self, path: &str) -> (String, String) {
        self.exchange(format!("GET {path} HTTP/1.1\r\nHost: sensor\r\n\r\n").as_bytes())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.take().unwrap().send(()).ok();
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn everything_is_there_at_zero_from_the_start() {
    let server = Server::start(Arc::new(metrics()));
    let (head, text) = server.get("/metrics");
    assert!(head.starts_with("http/1.1 200") && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for Family { name, kind, help, .. } in ALL {
        let kind = format!("{kind:?}").to_lowercase();
        assert!(text.contains(&format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")), "{name}");
    }
    let samples = samples(&text);
    let zero = |series: String| assert_equal(*samples.get(&series).unwrap_or_else(|| panic!("{series}")), 0.0);
    let services = ["store \\\"front\\\"", "api\\\\v2", NO_SERVICE];
    for service in services {
        for class in RouteClass::ALL {
            for provenance in Provenance::ALL {
                for outcome in Outcome::ALL {
                    // Labels are written in alphabetical order.
                    zero(format!(
                        "authsensor_observations_total{{class=\"{class}\",outcome=\"{outcome}\",\
                         provenance=\"{provenance}\",service=\"{service}\"}}"
                    ));
                }
            }
        }
        for login in Login::ALL {
            let login = login.label();
            zero(format!("authsensor_account_reads_total{{login=\"{login}\",service=\"{service}\"}}"));
        }
        zero(format!("authsensor_accounts_read_without_login{{service=\"{service}\"}}"));
    }
    for &counter in Counter::ALL {
        let Family { name, labels, .. } = kernel::home(counter);
        match labels {
            [] => zero((*name).to_owned()),
            labels => zero(format!("{name}{{{}=\"{}\"}}", labels[0], counter.label())),
        }
    }
    for result in control::ISSUANCE_RESULTS {
        zero(format!("authsensor_issuances_total{{result=\"{result}\"}}"));
    }
    for bound in Bound::ALL {
        zero(format!("authsensor_bound_reached_total{{bound=\"{bound}\"}}"));
    }
    zero("authsensor_findings_total{level=\"critical\",rule=\"8a0c3c6e\"}".to_owned());
    zero("authsensor_ledger_horizon_timestamp_seconds{issuer=\"sso\",service=\"api\\\\v2\"}".to_owned());
    zero("authsensor_bpf_runs_total{program=\"egress\"}".to_owned());
    zero("authsensor_detection_latency_seconds_bucket{le=\"0.001\"}".to_owned());
    assert!(samples["authsensor_issuer_sight_ratio{issuer=\"login\",service=\"store \\\"front\\\"\"}"].is_nan());
    assert_equal(samples["authsensor_bound_limit{bound=\"max_seen\"}"], 77.0);
    assert_equal(samples["authsensor_ledger_capacity"], 1000.0);
    assert_equal(samples["authsensor_config_info{hash=\"00ff\"}"], 1.0);
    let rule = "authsensor_rule_info{id=\"8a0c3c6e\",level=\"critical\",title=\"Bulk reads\\nwithout login\",\
                version=\"2026-11-01\"}";
    assert_equal(samples[rule], 1.0);
}

#[test]
fn promtool_accepts_the_text() {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        eprintln!("skipped: promtool is not installed");
        return;
    };
    let metrics = metrics();
    metrics.finding("8a0c3c6e", Duration::from_millis(12));
    child.stdin.take().unwrap().write_all(metrics.render().unwrap().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success() && said.is_empty(), "{}", String::from_utf8_lossy(&said));
}

#[test]
fn only_get_is_answered_and_nothing_is_unbounded() {
    let server = Server::start(Arc::new(metrics()));
    assert!(server.get("/").1.contains("/metrics"));
    assert_eq!(server.get("/healthz").1, "ok\n");
    assert!(server.get("/other").0.starts_with("http/1.1 404"));
    let (head, _) = server.exchange(b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
    assert!(head.starts_with("http/1.1 405"), "{head}");
    let (head, _) = server.exchange(b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 999999999\r\n\r\nhello");
    assert!(head.starts_with("http/1.1 200") && head.contains("connection: close"), "a body is not waited for: {head}");
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 * 1024));
    assert!(server.exchange(long.as_bytes()).0.starts_with("http/1.1 431"));
    // Half a request on one connection does not keep the others waiting.
    let mut dawdler = TcpStream::connect(server.address).unwrap();
    dawdler.write_all(b"GET /met").unwrap();
    assert_eq!(server.get("/healthz").1, "ok\n");
}

#[test]
fn a_taken_port_is_an_error_that_names_address_and_fix() {
    let first = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = first.local_addr().unwrap();
    let text = bind(address).unwrap_err().to_string();
    assert!(text.starts_with(&format!("cannot serve metrics on {address}: ")) && text.contains("[metrics]"), "{text}");
    let text = bind(SocketAddr::from(([192, 0, 2, 1], 9464))).unwrap_err().to_string();
    assert!(text.contains("No interface of this host has the address"), "{text}");
}
