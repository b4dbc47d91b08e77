//! A new fingerprint key without a blind day: a second daemon with the new key, and a ledger of its own, watches the same
//! interface for as long as the longest lifetime; then the first one stops.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::net::{Net, SERVER_END, inside};
use support::packets::token;
use support::shop;

const ISSUER: &str = r#"
[[service.issuer]]
name = "members"
kind = "jwt"
iss = "https://auth.shop.example"
max_lifetime = "1h"
"#;

struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    /// With keys of its own, which `seed` tells apart.
    fn start(net: &Net, seed: char, metrics_port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = |name: &str, digits: String| {
            let path = folder.path().join(name);
            fs::write(&path, digits).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        };
        key("fingerprint.key", seed.to_string().repeat(32));
        key("account.key", format!("{seed}0").repeat(16));
        let config = format!(
            "rules = []\nmetrics.listen = \"127.0.0.1:{metrics_port}\"\nledger.store = \"./ledger\"\n\
             keys = {{ fingerprint = \"fingerprint.key\", account = \"account.key\" }}\n{}{ISSUER}",
            shop::CONFIG
        );
        fs::write(folder.path().join("authsensor.toml"), config).unwrap();
        let words = ["run", "--interface", SERVER_END, "--transactions", "transactions"];
        let mut child = Command::new("ip")
            .args([&["netns", "exec", &net.server, env!("CARGO_BIN_EXE_authsensor")][..], &words].concat())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("\nmetrics ") {
            assert!(errors.read_line(&mut said).unwrap() > 0, "the daemon ended before it watched: {said}");
        }
        // Whatever it says later is read, so that it never waits for a reader.
        thread::spawn(move || errors.read_to_string(&mut String::new()));
        Self { child, folder }
    }

    /// Fingerprint and provenance of the credential of each read, once there are `count` transactions.
    fn reads(&self, count: usize) -> Vec<(String, String)> {
        let lines = || read(&self.folder.path().join("transactions"));
        for _ in 0..500 {
            if lines().len() >= count {
                break;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let lines = lines();
        assert_eq!(lines.len(), count, "{lines:?}");
        let text = |line: &serde_json::Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
        let reads = lines.iter().filter(|line| text(line, "method") == "GET");
        reads.map(|line| (text(&line["credentials"][0], "fingerprint"), text(line, "provenance"))).collect()
    }

    fn stop(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that ended already cannot be killed again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(path: &Path) -> Vec<serde_json::Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    // The last line may be on its way.
    text.split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Answers a login with the token that its `User-Agent` names, and anything else with an empty object.
fn serve(listener: &TcpListener, count: usize) {
    for _ in 0..count {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let token = head.lines().find_map(|line| line.strip_prefix("User-Agent: ")).unwrap_or_default();
        let body = if head.starts_with("POST") { format!("{{\"access_token\":\"{token}\"}}") } else { "{}".to_owned() };
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(answer.as_bytes()).unwrap();
    }
}

fn ask(head: &str) {
    let mut stream = TcpStream::connect("192.0.2.10:80").unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

fn log_in(token: &str) {
    ask(&format!("POST /login HTTP/1.1\r\nHost: x\r\nUser-Agent: {token}\r\nContent-Length: 0\r\n\r\n"));
}

fn read_member(token: &str) {
    ask(&format!("GET /members/17 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"));
}

#[test]
fn two_daemons_with_two_keys_hand_over_without_a_gap() {
    let name = "two_daemons_with_two_keys_hand_over_without_a_gap";
    if !support::kernel(name) {
        return;
    }
    if !aya::util::KernelVersion::current().is_ok_and(|version| version >= aya::util::KernelVersion::new(6, 6, 0)) {
        support::skip(name, "without TCX the second daemon takes the first one's place");
        return;
    }
    let net = Net::new();
    let listener = inside(&net.server, || TcpListener::bind("192.0.2.10:80").unwrap());
    let server = thread::spawn(move || serve(&listener, 6));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let (early, late) =
        (token("https://auth.shop.example", "17", now), token("https://auth.shop.example", "17", now + 1));

    let old = Daemon::start(&net, 'a', 9464);
    inside(&net.client, || {
        log_in(&early);
        read_member(&early);
    });
    let new = Daemon::start(&net, 'b', 9465);
    inside(&net.client, || {
        log_in(&late);
        read_member(&late);
        read_member(&early);
    });

    let (by_old, by_new) = (old.reads(5), new.reads(3));
    let provenances = |reads: &[(String, String)]| reads.iter().map(|(_, word)| word.clone()).collect::<Vec<_>>();
    assert_eq!(provenances(&by_old), ["issued", "issued", "issued"]);
    // The new one did not see the first login: it does not accuse what may be older than itself.
    assert_eq!(provenances(&by_new), ["issued", "unverifiable"]);
    assert_ne!(by_old[1].0, by_new[0].0, "each has its own fingerprint of the same token");

    old.stop();
    inside(&net.client, || read_member(&late));
    assert_eq!(new.reads(4).last().unwrap().1, "issued");
    new.stop();
    server.join().unwrap();
}
