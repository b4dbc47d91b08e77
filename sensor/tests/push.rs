//! The push endpoint over real TLS: who may push what, what is taken as a whole or not at all, and that no raw
//! credential is left anywhere.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

#[path = "push/rig.rs"]
mod rig;

use std::fmt::Write as _;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::ExtendedKeyUsagePurpose::{ClientAuth, ServerAuth};
use rig::{KEYS, Rig, SOURCES, answer, ca, dns, leaf, private, token, uri};
use sensor::config;
use sensor::observation::{IssuerId, ServiceId};
use sensor_ebpf::siphash::hash128;

const SSO: &str = "sso.example";

fn fingerprint(text: &str) -> [u8; 16] {
    hash128(KEYS.fingerprint, text.as_bytes())
}

fn hex(text: &str) -> String {
    sensor::observation::Fingerprint(fingerprint(text)).to_string()
}

fn unix() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn monotonic() -> u64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    u64::try_from(Duration::from(time).as_nanos()).unwrap()
}

#[test]
fn lines_and_arrays_of_fingerprints_and_credentials_are_taken_in_order() {
    let rig = Rig::new();
    let client = rig.client(vec![dns(SSO)]);
    let gate = token("gate", "g1", "1");
    let before = monotonic();
    let lines = format!(
        "{{\"service\":\"shop\",\"issuer\":\"session\",\"fingerprint\":\"{}\",\"account\":\"17\"}}\r\n\n\
         {{\"service\":\"shop\",\"credential\":\" Bearer \\\"{gate}\\\" \",\"account\":17}}\n\
         {{\"service\":\"shop\",\"iss\":\"https:\\/\\/gate.example\",\"kid\":\"g2\",\"fingerprint\":\"{}\",\
           \"issued_at\":{}.5,\"expires\":{},\"parent_credential\":\"r\\u0031\"}}",
        hex("s1"),
        hex("t2").to_uppercase(),
        unix() - 61,
        unix() + 600,
    );
    let said = client.push(&lines);
    assert_eq!((said.status, said.body), (202, serde_json::json!({"accepted": 3})));
    let taken = rig.taken();
    let of = |one: &sensor::push::Pushed| (one.source, one.service, one.issuer, one.fingerprint.0);
    assert_eq!(of(&taken[0]), (0, ServiceId(0), IssuerId(2), fingerprint("s1")));
    assert_eq!(of(&taken[1]), (0, ServiceId(0), IssuerId(0), fingerprint(&gate)));
    assert_eq!(of(&taken[2]), (0, ServiceId(0), IssuerId(0), fingerprint("t2")));
    assert_eq!(taken[0].account.unwrap().0, hash128(KEYS.account, b"17"));
    assert_eq!((taken[1].account, taken[2].account), (taken[0].account, None));
    assert_eq!(taken[2].parent.unwrap().0, fingerprint("r1"));
    let now = monotonic();
    assert!((before..=now).contains(&taken[0].issued_ns) && taken[0].expires_ns.is_none());
    let second = 1_000_000_000;
    let age = now - taken[2].issued_ns;
    assert!((60 * second..63 * second + (now - before)).contains(&age), "{age}");
    let left = taken[2].expires_ns.unwrap() - before;
    assert!((598 * second..=600 * second + (now - before)).contains(&left), "{left}");

    let array = format!(
        " [ {{\"credential\":\"{}\"}}, {{\"service\":\"shop\",\"issuer\":\"gate\",\"fingerprint\":\"{}\"}}]\n",
        token("gate", "rotated", "9"),
        hex("t3")
    );
    let only_shop = rig.client(vec![uri("spiffe://example/mobile")]);
    assert_eq!(only_shop.push(&array).status, 403, "the key is not its own");
    let api = client.push(&array);
    assert_eq!((api.status, api.body["line"].as_u64()), (422, Some(1)), "two services fit: {}", api.body);
    assert_eq!(client.push(&array.replace("{\"cred", "{\"service\":\"api\",\"cred")).status, 202);
    let taken = rig.taken();
    assert_eq!(of(&taken[0]), (1, ServiceId(1), IssuerId(0), fingerprint(&token("gate", "rotated", "9"))));
    assert_eq!(of(&taken[1]), (0, ServiceId(0), IssuerId(0), fingerprint("t3")));
    assert_eq!((rig.requests("sso", "accepted"), rig.requests("mobile", "forbidden")), (2, 1));
}

#[test]
fn only_certificates_of_the_ca_come_in() {
    let rig = Rig::new();
    let line = format!("{{\"service\":\"shop\",\"issuer\":\"gate\",\"fingerprint\":\"{}\"}}", hex("t"));
    let elsewhere = leaf(&ca(), vec![dns(SSO)], ClientAuth);
    assert!(rig.client_with(Some(&elsewhere)).try_push(&line).is_err());
    rig.connections("refused", 1);
    assert!(rig.client_with(None).try_push(&line).is_err());
    rig.connections("refused", 2);
    let server = leaf(&rig.pki.sources_ca, vec![dns(SSO)], ServerAuth);
    assert!(rig.client_with(Some(&server)).try_push(&line).is_err(), "a server's certificate");
    rig.connections("refused", 3);
    let mut plain = TcpStream::connect(rig.address).unwrap();
    plain.write_all(format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\n\r\n{line}").as_bytes()).unwrap();
    plain.read_to_end(&mut Vec::new()).ok();
    rig.connections("refused", 4);
    assert_eq!(rig.taken(), []);
    rig.connections("served", 0);
}

#[test]
fn a_good_certificate_of_nobody_is_nobodys() {
    let rig = Rig::new();
    let line = format!("{{\"service\":\"shop\",\"issuer\":\"gate\",\"fingerprint\":\"{}\"}}", hex("t"));
    // The common name of all of them is that of a source.
    let names = [
        vec![],
        vec![dns("*.example")],
        vec![dns("sso.example.org")],
        vec![dns("a.sso.example")],
        vec![uri("spiffe://example/mobile/2")],
        vec![uri("spiffe://example/Mobile")],
    ];
    for (count, names) in (1..).zip(names) {
        assert!(rig.client(names).try_push(&line).is_err());
        rig.connections("no_source", count);
    }
    assert_eq!(rig.client(vec![dns("x.example"), dns("SSO.Example")]).push(&line).status, 202);
    assert_eq!(rig.taken().len(), 1);
}

#[test]
fn a_source_speaks_for_its_own_and_a_request_is_taken_as_a_whole() {
    let rig = Rig::new();
    let (sso, mobile) = (rig.client(vec![dns(SSO)]), rig.client(vec![uri("spiffe://example/mobile")]));
    let good = format!("{{\"service\":\"shop\",\"issuer\":\"gate\",\"fingerprint\":\"{}\"}}\n", hex("good"));
    let f = hex("bad");
    let shop = |rest: &str| format!("{{\"service\":\"shop\",{rest}}}");
    let forbidden = [
        shop(&format!("\"issuer\":\"other\",\"fingerprint\":\"{f}\"")),
        shop(&format!("\"iss\":\"https://other.example\",\"fingerprint\":\"{f}\"")),
        shop(&format!("\"issuer\":\"gate\",\"iss\":\"https://other.example\",\"fingerprint\":\"{f}\"")),
        shop(&format!("\"issuer\":\"session\",\"iss\":\"https://gate.example\",\"fingerprint\":\"{f}\"")),
        shop(&format!("\"credential\":\"{}\"", token("other", "o1", ""))),
        shop(&format!("\"credential\":\"{}\"", token("else", "g1", ""))),
        shop(&format!("\"issuer\":\"gate\",\"credential\":\"{}\"", token("other", "o1", ""))),
        shop(&format!("\"issuer\":\"session\",\"credential\":\"{}\"", token("other", "o1", ""))),
        format!("{{\"service\":\"api\",\"issuer\":\"session\",\"fingerprint\":\"{f}\"}}"),
        format!("{{\"service\":\"none\",\"issuer\":\"gate\",\"fingerprint\":\"{f}\"}}"),
    ];
    for line in &forbidden {
        let said = sso.push(&format!("{good}{line}\n{good}"));
        assert_eq!((said.status, said.body["line"].as_u64()), (403, Some(2)), "{line}: {}", said.body);
    }
    // One that is limited to keys shows them.
    let limited = [
        shop(&format!("\"fingerprint\":\"{f}\"")),
        shop(&format!("\"kid\":\"g2\",\"fingerprint\":\"{f}\"")),
        shop(&format!("\"credential\":\"{}\"", token("gate", "g1", ""))),
        shop("\"kid\":\"g2\",\"credential\":\"opaque\""),
        shop(&format!("\"kid\":\"g1\",\"credential\":\"{}\"", token("gate", "g2", ""))),
    ];
    for line in &limited {
        assert_eq!(mobile.push(line).status, 403, "{line}");
    }
    assert_eq!(rig.taken(), []);
    assert_eq!(rig.requests("sso", "forbidden"), forbidden.len() as u64);
    assert_eq!(mobile.push(&format!("{{\"credential\":\"{}\"}}", token("gate", "g2", ""))).status, 202);
    assert_eq!(rig.taken().len(), 1);
}

#[test]
fn what_does_not_say_what_it_has_to_is_refused_by_its_line() {
    let rig = Rig::new();
    let client = rig.client(vec![dns(SSO)]);
    let f = hex("t");
    let shop = |rest: &str| format!("{{\"service\":\"shop\",\"issuer\":\"gate\",{rest}}}");
    let with = |rest: &str| shop(&format!("\"fingerprint\":\"{f}\",{rest}"));
    let unsigned = token("gate", "g1", "").replace("c2lnbmF0dXJl", "");
    let invalid = [
        "not json".to_owned(),
        "17".to_owned(),
        "{}".to_owned(),
        format!("{{\"service\":\"shop\",\"fingerprint\":\"{f}\"}}"),
        shop("\"fingerprint\":\"abc\""),
        shop(&format!("\"fingerprint\":\"{}\"", f.replace(&f[..1], "g"))),
        shop("\"fingerprint\":17"),
        shop("\"credential\":\"\""),
        shop("\"credential\":\" Bearer \\\"\\\"\""),
        shop("\"credential\":[\"a\"]"),
        shop("\"credential\":\"\\ud800\""),
        shop(&format!("\"credential\":\"{unsigned}\"")),
        with("\"credential\":\"x\""),
        with("\"unknown\":1"),
        with("\"issuer\":\"gate\""),
        with("\"kid\":7"),
        with("\"account\":\"\""),
        with("\"account\":-1"),
        with("\"account\":{\"id\":1}"),
        with(&format!("\"account\":\"{}\"", "a".repeat(257))),
        with("\"parent\":\"x\""),
        with(&format!("\"parent\":\"{f}\",\"parent_credential\":\"x\"")),
        with(&format!("\"issued_at\":{}", unix() - 125)),
        with(&format!("\"issued_at\":{}", unix() + 125)),
        with(&format!("\"issued_at\":{}000", unix())),
        with(&format!("\"issued_at\":\"{}\"", unix())),
        with("\"issued_at\":-1"),
        with(&format!("\"expires\":{}", unix() - 125)),
        with("\"expires\":1e300"),
        with("\"issued_at\":true"),
    ];
    for line in &invalid {
        let said = client.push(&format!("\n{}\n{line}", shop(&format!("\"fingerprint\":\"{f}\""))));
        assert_eq!((said.status, said.body["line"].as_u64()), (422, Some(3)), "{line}: {}", said.body);
    }
    for body in ["", "\n \n", "[]", "[", "[{}", "[1,]", "\u{feff}[]"] {
        assert_eq!(client.push(body).status, 422, "{body}");
    }
    let said = client.push(&format!("[{}, {}]", shop(&format!("\"fingerprint\":\"{f}\"")), invalid[20]));
    assert_eq!((said.status, said.body["line"].as_u64()), (422, Some(2)));
    let behind = client.push(&format!("[{}] x", shop(&format!("\"fingerprint\":\"{f}\""))));
    assert_eq!(behind.status, 422, "something behind the array");
    assert_eq!(rig.taken(), []);
}

#[test]
fn other_requests_are_refused_and_a_connection_goes_on() {
    let rig = Rig::new();
    let client = rig.client(vec![dns(SSO)]);
    let mut stream = client.connect();
    for (request, status) in [
        ("GET /v1/issuances HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404),
        ("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 415),
    ] {
        stream.write_all(request.as_bytes()).unwrap();
        assert_eq!(answer(&mut stream).unwrap().status, status, "{request}");
    }
    let line = format!("{{\"service\":\"shop\",\"issuer\":\"gate\",\"fingerprint\":\"{}\"}}", hex("t"));
    let (first, second) = line.split_at(20);
    let chunked = format!(
        "POST /v1/issuances HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        first.len(),
        second.len()
    );
    stream.write_all(chunked.as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).unwrap().status, 202);
    assert_eq!((rig.requests("sso", "other"), rig.taken().len()), (3, 1));
    rig.connections("served", 1);
}

#[test]
fn too_large_and_torn_bodies_leave_nothing() {
    let rig = Rig::with("max_body = 2048", SOURCES);
    let client = rig.client(vec![dns(SSO)]);
    let line = format!("{{\"service\":\"shop\",\"issuer\":\"gate\",\"fingerprint\":\"{}\"}}\n", hex("t"));
    let large = line.repeat(2048 / line.len() + 1);
    assert_eq!(client.push(&large).status, 413);
    let announced = "POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n";
    assert_eq!(client.exchange(announced).unwrap().status, 413);
    let chunk = format!("{:x}\r\n{line}\r\n", line.len()).repeat(2048 / line.len() + 1);
    let chunked = format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}");
    assert_eq!(client.exchange(&chunked).unwrap().status, 413);
    assert_eq!(rig.requests("sso", "too_large"), 3);
    let fits = line.repeat(2048 / line.len());
    assert_eq!(client.push(&fits).status, 202);
    assert_eq!(rig.taken().len(), 2048 / line.len());

    // Whole lines of a body that ends too early.
    for ending in ["", "0\r\n"] {
        let mut stream = client.connect();
        let head = "POST /v1/issuances HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{:x}\r\n{line}\r\n{ending}", line.len()).as_bytes()).unwrap();
        stream.conn.send_close_notify();
        stream.flush().unwrap();
        stream.sock.shutdown(std::net::Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).ok();
    }
    let mut stream = client.connect();
    let head = format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", line.len() * 2);
    stream.write_all(format!("{head}{line}").as_bytes()).unwrap();
    drop(stream);
    for _ in 0..500 {
        if rig.requests("sso", "torn") == 3 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!((rig.requests("sso", "torn"), rig.taken()), (3, Vec::new()));
}

#[test]
fn a_request_has_at_most_ten_thousand() {
    let rig = Rig::with("max_body = \"4MiB\"", SOURCES);
    let client = rig.client(vec![dns(SSO)]);
    let line = format!("{{\"service\":\"api\",\"fingerprint\":\"{}\"}}", hex("t"));
    let lines = |count: usize| vec![line.as_str(); count];
    assert_eq!(client.push(&lines(10_001).join("\n")).status, 413);
    assert_eq!(client.push(&format!("[{}]", lines(10_001).join(","))).status, 413);
    assert_eq!(rig.taken(), []);
    // Two refusals cost the first of the certificate's sources two issuances; these are of the second.
    assert_eq!(client.push(&format!("[{}]", lines(10_000).join(","))).status, 202);
    assert_eq!(rig.taken().len(), 10_000);
}

#[test]
fn beyond_its_rate_a_source_has_to_wait() {
    let rig = Rig::new();
    let (sso, mobile) = (rig.client(vec![dns(SSO)]), rig.client(vec![uri("spiffe://example/mobile")]));
    let line = format!("{{\"service\":\"shop\",\"credential\":\"{}\"}}\n", token("gate", "g2", ""));
    assert_eq!(mobile.push(&line.repeat(11)).status, 413, "more than it may ever send at once");
    assert_eq!(mobile.push(&line.repeat(10)).status, 202);
    let said = mobile.push(&line.repeat(9));
    assert_eq!(said.status, 429, "{}", said.body);
    let wait = said.head.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap().parse::<u64>().unwrap();
    assert!((1..=9).contains(&wait), "{wait}");
    assert_eq!(sso.push(&line).status, 202, "others go on");
    assert_eq!((rig.requests("mobile", "rate"), rig.taken().len()), (1, 11));
}

#[test]
fn a_data_plane_that_does_not_keep_up_is_said_so() {
    let rig = Rig::with("queue = 16", SOURCES);
    let client = rig.client(vec![dns(SSO)]);
    let line = format!("{{\"service\":\"api\",\"fingerprint\":\"{}\"}}\n", hex("t"));
    assert_eq!(client.push(&line.repeat(10)).status, 202);
    let said = client.push(&line.repeat(7));
    assert!(said.status == 503 && said.head.contains("retry-after: 1"), "{}", said.head);
    assert_eq!(client.push(&line.repeat(6)).status, 202);
    assert_eq!((rig.taken().len(), rig.requests("sso", "queue_full")), (16, 1));
    assert_eq!(client.push(&line.repeat(16)).status, 202);
}

#[test]
fn one_source_cannot_take_all_connections() {
    let rig = Rig::new();
    let sso = rig.client(vec![dns(SSO)]);
    let line = format!("{{\"service\":\"api\",\"fingerprint\":\"{}\"}}\n", hex("t"));
    let request = format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{line}", line.len());
    let held: Vec<_> = (0..16)
        .map(|_| {
            let mut stream = sso.connect();
            stream.write_all(request.as_bytes()).unwrap();
            assert_eq!(answer(&mut stream).unwrap().status, 202);
            stream
        })
        .collect();
    assert!(sso.try_push(&line).is_err());
    rig.connections("crowded", 1);
    let mobile = rig.client(vec![uri("spiffe://example/mobile")]);
    assert_eq!(mobile.push(&format!("{{\"credential\":\"{}\"}}", token("gate", "g2", ""))).status, 202);
    drop(held);
    for _ in 0..500 {
        if sso.try_push(&line).is_ok() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("connections that ended still count");
}

#[test]
fn who_never_shakes_hands_holds_up_nobody_who_did() {
    let rig = Rig::new();
    let client = rig.client(vec![dns(SSO)]);
    let line = format!("{{\"service\":\"api\",\"fingerprint\":\"{}\"}}\n", hex("t"));
    let request = format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{line}", line.len());
    let mut connected = client.connect();
    connected.write_all(request.as_bytes()).unwrap();
    assert_eq!(answer(&mut connected).unwrap().status, 202);
    let silent: Vec<_> = (0..32).map(|_| TcpStream::connect(rig.address).unwrap()).collect();
    connected.write_all(request.as_bytes()).unwrap();
    assert_eq!(answer(&mut connected).unwrap().status, 202);
    // They have five seconds.
    assert_eq!(client.push(&line).status, 202);
    rig.connections("timed_out", 32);
    drop(silent);
    assert_eq!(rig.taken().len(), 3);
}

/// What the program logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn no_raw_credential_and_no_account_is_left_anywhere() {
    const CANARY: &str = "canary5f1e7b";
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).init();
    let rig = Rig::new();
    let client = rig.client(vec![dns(SSO)]);
    let shop = |rest: &str| format!("{{\"service\":\"shop\",\"issuer\":\"gate\",{rest}}}");
    let jwt = token("gate", "g1", CANARY);
    let bodies = [
        (shop(&format!("\"credential\":\"{jwt}\",\"account\":\"{CANARY}\"")), 202),
        (shop(&format!("\"credential\":\"{jwt}\",\"parent_credential\":\"{CANARY}\",\"{CANARY}\":1")), 422),
        (shop(&format!("\"fingerprint\":\"{CANARY}\"")), 422),
        (shop(&format!("\"credential\":\"{CANARY}\",\"issued_at\":\"{CANARY}\"")), 422),
        (format!("{{\"service\":\"{CANARY}\",\"credential\":\"{jwt}\"}}"), 403),
        (format!("{{\"iss\":\"{CANARY}\",\"credential\":\"{jwt}\"}}"), 403),
        (shop(&format!("\"credential\":\"{}\"", token(CANARY, CANARY, CANARY))), 403),
        (format!("[{CANARY}]"), 422),
        (CANARY.to_owned(), 422),
    ];
    let mut said = String::new();
    for (body, status) in &bodies {
        let answer = client.push(body);
        assert_eq!(answer.status, *status, "{body}");
        said += &answer.head;
        said += &answer.body.to_string();
    }
    let torn = format!("POST /v1/issuances?{CANARY} HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n{CANARY}");
    client.connect().write_all(torn.as_bytes()).unwrap();
    write!(said, "{:?}", rig.taken()).unwrap();
    said += &rig.metrics.render().unwrap();
    let folder = rig.pki.folder.path().to_owned();
    for entry in fs::read_dir(&folder).unwrap() {
        said.push_str(&String::from_utf8_lossy(&fs::read(entry.unwrap().path()).unwrap()));
    }
    drop(rig.server);
    said.push_str(&String::from_utf8_lossy(&log.0.lock().unwrap()));
    assert!(said.contains(&hex(&jwt)) && said.contains("push_requests_total"), "it searches what there is");
    for form in [CANARY.to_owned(), URL_SAFE_NO_PAD.encode(CANARY), jwt] {
        assert!(!said.contains(&form), "{form} is left somewhere");
    }
}

#[test]
fn mistakes_in_the_table_are_told_by_line_and_fix() {
    let rig = Rig::new();
    let folder = rig.pki.folder.path();
    let file = folder.join("authsensor.toml");
    let whole = fs::read_to_string(&file).unwrap();
    let told = |from: &str, to: &str, want: &[&str]| {
        assert_eq!(whole.matches(from).count(), 1, "{from}");
        fs::write(&file, whole.replace(from, to)).unwrap();
        let errors = config::load(&file).unwrap_err().iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        let at = whole[..whole.find(from).unwrap()].matches('\n').count() + 1;
        for want in want {
            assert!(errors.contains(want) && errors.contains(&format!("toml:{at}:")), "{want} at {at}:\n{errors}");
        }
    };
    told("listen = \"127.0.0.1:0\"", "listen = 9465", &["not a string", "192.0.2.7:9465"]);
    told("listen = \"127.0.0.1:0\"", "listen = \"9465\"", &["is not an address with a port"]);
    told("\"push.pem\"", "\"no.pem\"", &["no.pem` cannot be read"]);
    told("\"push.pem\"", "\"push.key\"", &["holds no certificate"]);
    told("\"push.key\"", "\"sources.pem\"", &["can be read by others", "chmod 600"]);
    told("\"sources.pem\"", "\"push.key\"", &["holds no certificate"]);
    told("\"uri:spiffe://example/mobile\"", "\"mobile\"", &["names no certificate"]);
    told("\"uri:spiffe://example/mobile\"", "\"dns:*.example\"", &["names no certificate"]);
    told("issuers = [\"gate\", \"session\"]", "issuers = [\"gat\"]", &["has no issuer `gat`", "Did you mean `gate`"]);
    told("service = \"api\"", "service = \"app\"", &["no service is named `app`"]);
    told("kids = \"g2\"", "kids = \"o1\"", &["none of this source's issuers has the key `o1`"]);
    told("per_second = 1", "per_second = 0", &["out of range"]);
    told("per_second = 1", "per_secnd = 1", &["unknown key", "per_second"]);
    let key = fs::read_to_string(folder.join("push.key")).unwrap();
    let strange = leaf(&rig.pki.sources_ca, vec![dns("x")], ServerAuth);
    private(&folder.join("push.key"), &strange.key_pem);
    told("certificate = \"push.pem\"", "certificate = \"push.pem\" ", &["does not go with `push.key`"]);
    private(&folder.join("push.key"), "no key");
    told("key = \"push.key\"", "key = \"push.key\" ", &["holds no private key"]);
    fs::write(folder.join("push.key"), &key).unwrap();
    fs::set_permissions(folder.join("push.key"), fs::Permissions::from_mode(0o640)).unwrap();
    told("key = \"push.key\"", "key = \"push.key\" ", &["can be read by others (mode 640)"]);
    private(&folder.join("push.key"), &key);
    fs::write(&file, whole.replace("service = \"api\"", "service = \"shop\"")).unwrap();
    let errors = format!("{:?}", config::load(&file).unwrap_err());
    assert!(errors.contains("have the same subject and service"), "{errors}");
    fs::write(&file, whole.replace("name = \"mobile\"", "name = \"sso\"")).unwrap();
    let errors = format!("{:?}", config::load(&file).unwrap_err());
    assert!(errors.contains("are named"), "{errors}");
    assert!(!errors.contains("PRIVATE"), "{errors}");
}

/// Connections that are there go on; new ones get what the files have now, as long as that can be used.
#[test]
fn certificates_are_exchanged_while_it_runs() {
    let mut rig = Rig::new();
    let mut certificates = rig.server.as_ref().unwrap().certificates(&rig.metrics);
    let told = |rig: &Rig, result: &str| {
        rig.metric(&format!("authsensor_push_certificate_reloads_total{{result=\"{result}\"}}"))
    };
    let body = format!("{{\"service\":\"shop\",\"issuer\":\"session\",\"fingerprint\":\"{}\"}}", hex("s"));
    let request = format!("POST /v1/issuances HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let before = rig.client(vec![dns(SSO)]);
    let mut kept = before.connect();
    kept.write_all(request.as_bytes()).unwrap();
    assert_eq!(answer(&mut kept).unwrap().status, 202);
    certificates.look();
    assert_eq!((told(&rig, "loaded"), told(&rig, "refused")), (0, 0), "nothing changed");

    // Another chain, key and CA, one file after the other: in between they do not go together.
    let folder = rig.pki.folder.path().to_owned();
    let (old_sources, old_server) = (std::mem::replace(&mut rig.pki.sources_ca, ca()), &rig.pki.server_ca);
    let own = leaf(old_server, vec![dns("sensor.example")], ServerAuth);
    fs::write(folder.join("push.pem"), &own.pem).unwrap();
    certificates.look();
    assert_eq!((told(&rig, "loaded"), told(&rig, "refused")), (0, 1), "a certificate without its key");
    assert_eq!(before.push(&body).status, 202, "the running one stays");
    certificates.look();
    assert_eq!(told(&rig, "refused"), 1, "said once");
    private(&folder.join("push.key"), &own.key_pem);
    fs::write(folder.join("sources.pem"), rig.pki.sources_ca.pem()).unwrap();
    certificates.look();
    assert_eq!((told(&rig, "loaded"), told(&rig, "refused")), (1, 1));
    assert!(before.try_push(&body).is_err(), "its CA is trusted no longer");
    let after = rig.client(vec![dns(SSO)]);
    let mut stream = after.connect();
    stream.write_all(request.as_bytes()).unwrap();
    assert_eq!(answer(&mut stream).unwrap().status, 202);
    let shown = stream.conn.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown.as_ref(), own.der(), "the new certificate is shown");
    kept.write_all(request.as_bytes()).unwrap();
    assert_eq!(answer(&mut kept).unwrap().status, 202, "what was connected goes on");

    // Whatever is wrong with them, the endpoint goes on.
    for (file, text) in [("push.pem", ""), ("push.pem", "no PEM"), ("sources.pem", &*own.key_pem), ("push.key", "x")] {
        let (path, refused) = (folder.join(file), told(&rig, "refused"));
        let good = fs::read_to_string(&path).unwrap();
        fs::write(&path, text).unwrap();
        certificates.load();
        assert_eq!(told(&rig, "refused"), refused + 1, "{file}");
        assert_eq!(after.push(&body).status, 202, "{file}");
        fs::write(&path, good).unwrap();
    }
    fs::remove_file(folder.join("push.key")).unwrap();
    certificates.look();
    assert_eq!(told(&rig, "refused"), 6);
    private(&folder.join("push.key"), &own.key_pem);
    certificates.look();
    assert_eq!(told(&rig, "loaded"), 2);
    assert_eq!(after.push(&body).status, 202);
    drop(old_sources);
}
