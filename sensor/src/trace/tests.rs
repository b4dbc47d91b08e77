//! A line of a trace leads to the observation that the same exchange as bytes leads to.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::capture::host;
use crate::capture::offline::Offline;
use crate::capture::tables::Tables;
use crate::collect::Collector;
use crate::collect::testing::{BASE, KEYS, Kept, collector, config, jwt};
use crate::observation::Observation;
use crate::slow::Limits;

const CLIENT: bool = true;
const SERVER: bool = false;

/// One connection's frames through the parser, all at one time.
struct Bytes {
    engine: Offline,
    collector: Collector,
    port: u16,
}

impl Bytes {
    fn new() -> Self {
        let tables = Tables::new(&config(), KEYS.fingerprint).unwrap();
        let engine = Offline::new(tables, false, 1024, 16, Limits::default());
        Self { engine, collector: collector(), port: 1000 }
    }

    fn exchange(&mut self, at_ns: u64, client: [u8; 4], request: &[u8], response: Option<&[u8]>) {
        self.port += 1;
        let mut sequences = [0u32; 2];
        let mut segment = |client_sends: bool, flags: u8, payload: &[u8]| {
            let mut frame = vec![2; 12];
            frame.extend([8, 0, 0x45, 0]);
            frame.extend(u16::try_from(40 + payload.len()).unwrap().to_be_bytes());
            frame.extend([0, 0, 0x40, 0, 64, 6, 0, 0]);
            let ends = [(client, self.port), ([192, 0, 2, 1], 8080)];
            let [from, to] = if client_sends { ends } else { [ends[1], ends[0]] };
            frame.extend(from.0.into_iter().chain(to.0));
            frame.extend(from.1.to_be_bytes());
            frame.extend(to.1.to_be_bytes());
            frame.extend(sequences[usize::from(client_sends)].to_be_bytes());
            frame.extend(sequences[usize::from(!client_sends)].to_be_bytes());
            frame.extend([0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
            frame.extend(payload);
            self.engine.ethernet(at_ns, &frame, u32::try_from(frame.len()).unwrap());
            let collector = &mut self.collector;
            self.engine.drain(|record| collector.record(record));
            sequences[usize::from(client_sends)] += u32::try_from(payload.len()).unwrap() + u32::from(flags & 2 != 0);
        };
        segment(CLIENT, 2, b"");
        segment(SERVER, 0x12, b"");
        segment(CLIENT, 0x18, request);
        if let Some(response) = response {
            segment(SERVER, 0x18, response);
        }
    }
}

/// A line as the bytes of its request and response.
fn wire(line: &Line<'_>) -> (Vec<u8>, Option<Vec<u8>>) {
    let text = |text: &Option<Text<'_>>| text.as_ref().map(|text| text.0.to_string());
    let body = line.request_json.map(|body| body.get().to_owned()).or_else(|| text(&line.request_form));
    let method = text(&line.method).unwrap_or_else(|| if body.is_some() { "POST" } else { "GET" }.to_owned());
    let mut out = format!("{method} {} HTTP/1.1\r\n", text(&line.path).unwrap());
    if let Some(host) = text(&line.host) {
        let _ = write!(out, "Host: {host}\r\n");
    }
    if let Some(token) = text(&line.credentials.bearer) {
        let _ = write!(out, "Authorization: Bearer {token}\r\n");
    }
    if let Some(value) = text(&line.credentials.authorization) {
        let _ = write!(out, "Authorization: {value}\r\n");
    }
    let cookies: Vec<String> = line
        .credentials
        .cookies
        .iter()
        .map(|(name, value)| format!("{}={}", name.0, value.as_ref().unwrap().0))
        .collect();
    if !cookies.is_empty() {
        let _ = write!(out, "Cookie: {}\r\n", cookies.join("; "));
    }
    for (name, value) in &line.credentials.headers {
        let _ = write!(out, "{}: {}\r\n", name.0, value.as_ref().unwrap().0);
    }
    if let Some(body) = &body {
        let _ = write!(out, "Content-Length: {}\r\n", body.len());
    }
    let _ = write!(out, "\r\n{}", body.unwrap_or_default());
    let Some(status) = line.status else { return (out.into_bytes(), None) };
    let mut answer = format!("HTTP/1.1 {status} OK\r\n");
    let body = line.response_json.map(|body| body.get().to_owned());
    let content_type = text(&line.content_type).unwrap_or_else(|| "application/json".to_owned());
    let _ = write!(answer, "Content-Type: {content_type}\r\n");
    if let Some(location) = text(&line.location) {
        let _ = write!(answer, "Location: {location}\r\n");
    }
    for (name, value) in &line.set_cookies {
        let _ = match value {
            Some(value) => write!(answer, "Set-Cookie: {}={}\r\n", name.0, value.0),
            None => write!(answer, "Set-Cookie: {}=deleted; Max-Age=0\r\n", name.0),
        };
    }
    for (name, value) in &line.response_headers {
        let _ = write!(answer, "{}: {}\r\n", name.0, value.as_ref().unwrap().0);
    }
    let body = body.unwrap_or_else(|| "x".repeat(usize::try_from(line.bytes.unwrap_or(0)).unwrap()));
    let _ = write!(answer, "Content-Length: {}\r\n\r\n{body}", body.len());
    (out.into_bytes(), Some(answer.into_bytes()))
}

/// What the ways make of the lines of `text`: as bytes through the parser, as records, and as exchanges at hand.
fn both_ways(text: &str) -> [Vec<String>; 3] {
    let (mut bytes, mut records) = (Bytes::new(), collector());
    let (mut whole, mut whole_kept) = (collector(), Kept::default());
    let mut converter = Converter::new(Arc::new(config()), KEYS.fingerprint).unwrap();
    let mut encoder = Encoder::default();
    let mut reader = TraceReader::new(Path::new("test"), text.as_bytes());
    while let Some(line) = reader.next_line().unwrap() {
        let at_ns = converter
            .convert(&line, |exchange| {
                host::each(encoder.encode(exchange), |record| records.record(record));
                if !whole.whole(exchange, &mut whole_kept) {
                    host::each(encoder.encode(exchange), |record| whole.record(record));
                }
                exchange.at_ns
            })
            .unwrap();
        let (request, response) = wire(&line);
        let client =
            line.client.as_ref().map_or([192, 0, 2, 1], |text| text.0.parse::<std::net::Ipv4Addr>().unwrap().octets());
        bytes.exchange(at_ns, client, &request, response.as_deref());
    }
    let show = |mut collector: Collector, mut kept: Kept| {
        collector.finish(&mut kept);
        let counts = *collector.counts();
        let mut shown: Vec<String> =
            kept.observations.iter().map(|one| format!("{:?}", Observation { anomalies: 0, ..*one })).collect();
        shown.push(format!("{:?} {:?} {}", counts.issuances, counts.decoding, counts.unanswered));
        shown
    };
    [show(bytes.collector, Kept::default()), show(records, Kept::default()), show(whole, whole_kept)]
}

#[track_caller]
fn alike(text: &str) -> Vec<String> {
    let [bytes, records, whole] = both_ways(text);
    assert_eq!(bytes, records, "{text}");
    assert_eq!(whole, records, "{text}");
    records
}

fn t(seconds: u64) -> String {
    format!("{}", BASE / 1_000_000_000 + seconds)
}

#[test]
fn every_place_of_credentials() {
    let token = jwt("17");
    let long = format!("{}.{}.c2ln", "e".repeat(900), "f".repeat(900));
    for credentials in [
        format!(r#"{{"bearer":"{token}"}}"#),
        format!(r#"{{"bearer":" \"{token}\" "}}"#),
        format!(r#"{{"bearer":"{long}"}}"#),
        r#"{"bearer":"aa.bb."}"#.to_owned(),
        r#"{"bearer":"a b  c"}"#.to_owned(),
        r#"{"authorization":"Basic dXNlcjpwdw=="}"#.to_owned(),
        r#"{"authorization":"opaque"}"#.to_owned(),
        r#"{"authorization":"Digest username=x"}"#.to_owned(),
        format!(r#"{{"authorization":"Bearer {token}"}}"#),
        r#"{"cookies":{"sid":"abc","other":"x","roll":"def"}}"#.to_owned(),
        format!(r#"{{"cookies":{{"sid":"{token}"}}}}"#),
        r#"{"cookies":{"sid":"a%41%zz%"}}"#.to_owned(),
        format!(r#"{{"headers":{{"X-Token":"Bearer {token}"}}}}"#),
        r#"{"headers":{"x-token":"word opaque"}}"#.to_owned(),
        format!(r#"{{"bearer":"{token}","cookies":{{"sid":"abc"}},"headers":{{"x-token":"t"}}}}"#),
    ] {
        let line = format!(
            r#"{{"t":{},"client":"198.51.100.9","service":"shop","path":"/users/17/addresses","host":"h","status":200,"bytes":500,"credentials":{credentials}}}"#,
            t(1)
        );
        alike(&line);
    }
}

#[test]
fn every_form_of_target_and_answer() {
    let token = jwt("17");
    for (path, rest) in [
        ("/users/17/addresses?token=abc&key=d%41", r#""status":200,"bytes":10"#),
        (&*format!("/users/17/addresses?x=1&token={token}&y"), r#""status":200,"bytes":10"#),
        ("/%75sers/17//addresses", r#""status":404,"bytes":0"#),
        ("/users/17", r#""status":200,"bytes":99"#),
        ("/users/17", r#""status":200,"bytes":100"#),
        ("/users/17", r#""status":302,"bytes":0,"location":"/login?x""#),
        ("/users/17", r#""status":200,"bytes":1000,"content_type":"text/html""#),
        ("/mine?user=9", r#""status":403,"bytes":3"#),
        ("/nothing", r#""status":null"#),
    ] {
        let line =
            format!(r#"{{"t":{},"path":"{path}","host":"h",{rest},"credentials":{{"bearer":"{token}"}}}}"#, t(1));
        alike(&line);
    }
}

#[test]
fn issuances_of_every_kind() {
    let (token, refreshed) = (jwt("17"), jwt("18"));
    let read = |at: u64, credentials: &str| {
        format!(
            r#"{{"t":{},"path":"/users/17/addresses","host":"h","status":200,"bytes":9,"credentials":{credentials}}}"#,
            t(at)
        )
    };
    let text = [
        format!(r#"{{"t":{},"method":"POST","path":"/login","host":"h","status":302,"bytes":0,"location":"/","set_cookies":{{"sid":"s1"}}}}"#, t(1)),
        format!(r#"{{"t":{},"method":"POST","path":"/api/login","host":"h","status":200,"set_cookies":{{"sid":"s2"}},"response_json":{{"ok":true,"data":{{"token":"{token}","user":17}}}}}}"#, t(2)),
        format!(r#"{{"t":{},"path":"/refresh","host":"h","status":200,"request_json":{{"refresh_token":"{token}"}},"response_json":{{"token":"{refreshed}"}}}}"#, t(3)),
        format!(r#"{{"t":{},"path":"/form/refresh","host":"h","status":200,"bytes":0,"request_form":"a=1&refresh_token=s2","set_cookies":{{"sid":"s3"}}}}"#, t(4)),
        format!(r#"{{"t":{},"method":"POST","path":"/header/login","host":"h","status":200,"bytes":2,"response_headers":{{"X-Issued":"tok"}}}}"#, t(5)),
        format!(r#"{{"t":{},"method":"POST","path":"/login","host":"h","status":302,"bytes":0,"set_cookies":{{"sid":null}}}}"#, t(6)),
        format!(r#"{{"t":{},"method":"POST","path":"/api/login","host":"h","status":200,"response_json":{{"ok":false}}}}"#, t(6)),
        read(7, &format!(r#"{{"bearer":"{token}"}}"#)),
        read(7, &format!(r#"{{"bearer":"{refreshed}"}}"#)),
        read(8, r#"{"cookies":{"sid":"s1"}}"#),
        read(8, r#"{"cookies":{"sid":"s3"}}"#),
        read(9, r#"{"headers":{"x-token":"tok"}}"#),
        read(9, &format!(r#"{{"bearer":"{}"}}"#, jwt("99"))),
        format!(r#"{{"t":{},"method":"POST","path":"/logout","host":"h","status":200,"bytes":0,"credentials":{{"cookies":{{"sid":"s1"}}}}}}"#, t(10)),
    ]
    .join("\n");
    let shown = alike(&text);
    for (at, want) in [(7, "Issued"), (8, "Issued"), (9, "Issued"), (10, "Issued"), (11, "Issued"), (12, "Unissued")] {
        assert!(shown[at].contains(&format!("provenance: {want}")), "{at}: {}", shown[at]);
    }
}

#[test]
fn what_is_not_understood_is_named() {
    for (text, want) in [
        (r#"{"t":1,"path":"/","pth":1}"#, "trace:2:23: unknown key `pth`. Did you mean `path`."),
        (r#"{"t":1,"path":"/","credentials":{"barer":"secret"}}"#, "trace:2:"),
        (
            r#"{"t":"secret","path":"/"}"#,
            "trace:2:13: a string stands where a number is expected. Write one JSON object",
        ),
        (r#"{"t":1"#, "trace:2:"),
        ("[1]", "trace:2:"),
    ] {
        let text = format!("\n{text}\n");
        let mut reader = TraceReader::new(Path::new("trace"), text.as_bytes());
        let error = reader.next_line().unwrap_err().to_string();
        assert!(error.starts_with(want), "{error}");
        assert!(!error.contains("secret"), "{error}");
    }
    let misfits = [
        (r#"{"path":"/"}"#, "the line has no `t`"),
        (r#"{"t":1744588800250,"path":"/"}"#, "`t` is 1744588800250"),
        (r#"{"t":1}"#, "the line has no `path`"),
        (r#"{"t":1,"path":"/","client":"me"}"#, "the client `me` is no address"),
        (r#"{"t":1,"path":"/","service":"shp"}"#, "the configuration has no service `shp`"),
    ];
    let mut converter = Converter::new(Arc::new(config()), KEYS.fingerprint).unwrap();
    for (text, want) in misfits {
        let mut reader = TraceReader::new(Path::new("trace"), text.as_bytes());
        let line = reader.next_line().unwrap().unwrap();
        assert_eq!(converter.convert(&line, |_| ()).unwrap_err().message, want);
    }
}

#[test]
fn a_line_is_bounded() {
    let text = format!(r#"{{"t":1,"path":"/{}"}}"#, "x".repeat(2 << 20));
    let error = TraceReader::new(Path::new("trace"), text.as_bytes()).next_line().unwrap_err();
    assert!(error.to_string().starts_with("trace:1:1: the line is longer than"), "{error}");
}

#[test]
fn what_is_written_is_read() {
    let text = r#"{"t":1744588800.25,"client":"203.0.113.7","service":"shop","method":"GET","path":"/members/17/addresses","host":"shop.example","status":200,"bytes":1834,"credentials":{"bearer":"a\"b","cookies":{"SESSION":"c"}},"request_json":{"a":[1]},"response_json":{"b":"\u00e9"},"set_cookies":{"SESSION":null},"location":"/"}"#;
    let mut reader = TraceReader::new(Path::new("trace"), text.as_bytes());
    let mut out = String::new();
    write_line(&reader.next_line().unwrap().unwrap(), &mut out);
    assert_eq!(out.trim_end(), text);
}

proptest! {
    /// Any bytes as a line, and any text as a value: no panic, and both ways agree on credentials.
    #[test]
    fn never_panics(line in ".{0,200}") {
        let mut reader = TraceReader::new(Path::new("trace"), line.as_bytes());
        let mut converter = Converter::new(Arc::new(config()), KEYS.fingerprint).unwrap();
        while let Ok(Some(line)) = reader.next_line() {
            let _ = converter.convert(&line, |_| ());
        }
    }

    #[test]
    fn any_value_in_any_place(value in "[a-zA-Z0-9._%\"' =&#+-]{0,24}", place in 0usize..4) {
        // A quote within, and what a header or a list cannot carry, have no counterpart as bytes of one field.
        let value = value.replace(['"', ';', ','], "");
        let text = serde_json::to_string(&value).unwrap();
        let (path, credentials) = match place {
            0 => ("/mine".to_owned(), format!(r#"{{"bearer":{text}}}"#)),
            1 => ("/mine".to_owned(), format!(r#"{{"cookies":{{"sid":{text}}}}}"#)),
            2 => ("/mine".to_owned(), format!(r#"{{"headers":{{"x-token":{text}}}}}"#)),
            _ => (format!("/mine?token={}", value.replace([' ', '"'], "")), "{}".to_owned()),
        };
        let line = format!(r#"{{"t":{},"path":"{path}","host":"h","status":200,"bytes":5,"credentials":{credentials}}}"#, t(1));
        let [bytes, records, whole] = both_ways(&line);
        prop_assert_eq!(&bytes, &records);
        prop_assert_eq!(&whole, &records);
    }
}
