//! The daemon judges requests by what a source pushed over the network before.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

#[path = "push/rig.rs"]
mod rig;
mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rcgen::ExtendedKeyUsagePurpose::ClientAuth;
use rig::{Pki, SOURCES, dns, leaf, token};
use support::net::{Net, SERVER_END, inside};

/// Ends with the test.
struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        // One that ended already cannot be killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn read(token: &str) {
    let mut stream = TcpStream::connect("192.0.2.10:80").unwrap();
    let request = format!("GET /members/17 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn a_pushed_token_is_issued_and_another_is_not() {
    if !support::kernel("a_pushed_token_is_issued_and_another_is_not") {
        return;
    }
    let net = Net::new();
    let pki = Pki::new("listen = \"192.0.2.10:9465\"", SOURCES);
    let folder = pki.folder.path();
    let words = ["run", "--interface", SERVER_END, "--transactions", "transactions"];
    let child = Command::new("ip")
        .args([&["netns", "exec", &net.server, env!("CARGO_BIN_EXE_authsensor")][..], &words].concat())
        .current_dir(folder)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child);
    let mut errors = BufReader::new(daemon.0.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("push      https://192.0.2.10:9465/v1/issuances (3 sources)\n") {
        assert!(errors.read_line(&mut said).unwrap() > 0, "the daemon ended before it listened: {said}");
    }
    let listener = inside(&net.server, || TcpListener::bind("192.0.2.10:80").unwrap());
    let server = thread::spawn(move || {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}").unwrap();
        }
    });
    let (issued, other) = (token("gate", "g1", "issued"), token("gate", "g1", "other"));
    let source = pki
        .client("192.0.2.10:9465".parse().unwrap(), Some(&leaf(&pki.sources_ca, vec![dns("sso.example")], ClientAuth)));
    let answer = inside(&net.client, || {
        let answer = source.push(&format!("{{\"service\":\"shop\",\"credential\":\"{issued}\"}}"));
        // At once: what was accepted before a use counts for it.
        read(&issued);
        read(&other);
        answer
    });
    assert_eq!(answer.status, 202, "{}", answer.body);
    server.join().unwrap();
    let lines = || fs::read_to_string(folder.join("transactions")).unwrap_or_default();
    for _ in 0..500 {
        if lines().lines().count() == 2 {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let judged: Vec<String> = lines()
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["provenance"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(judged, ["issued", "unverifiable"], "{}", lines());
    kill(Pid::from_raw(i32::try_from(daemon.0.id()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(daemon.0.wait().unwrap().success());
    errors.read_to_string(&mut said).unwrap();
    assert!(!said.contains(&issued) && !lines().contains("c2lnbmF0dXJl"), "{said}");
}
