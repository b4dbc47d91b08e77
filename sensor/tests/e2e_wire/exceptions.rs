//! The access log as rows, and the few lines in it that say something else than what was on the wire.
//!
//! Each of them belongs to a client that hung up, and is found by that client's port: well-formed traffic has none.

use std::collections::BTreeMap;

use sensor::observation::Fingerprint;
use sensor_ebpf::siphash::{Key, hash128};

use crate::aborts::{GaveUp, Leave, Point};
use crate::rows::{Client, Row, Rows};
use crate::servers::Kind;
use crate::watch::FINGERPRINT_KEY;

/// What was on the wire, where that is not what the server logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wire {
    /// The log is right.
    AsLogged,
    /// No request head and no answer: there was nothing to tell.
    Nothing,
    /// The answer, but no whole request head.
    AnswerAlone,
    /// The request; the status is a note of the server's to itself, which it could not or would not send.
    Unanswered,
}

fn wire(kind: Kind, gave_up: GaveUp) -> Wire {
    match (gave_up.at, gave_up.leave) {
        // Nothing can be sent into a connection that was reset. All three log as if they had.
        (Point::RequestLine | Point::Header, Leave::Reset) => Wire::Nothing,
        (Point::Body | Point::Waiting, Leave::Reset) => Wire::Unanswered,
        // nginx takes the end of the client's side for the end of the connection: it logs 400 inside a head or body, 499
        // before the answer, and says nothing. Apache and haproxy answer.
        (Point::RequestLine | Point::Header, Leave::Close) if kind == Kind::Nginx => Wire::Nothing,
        (Point::Body | Point::Waiting, Leave::Close) if kind == Kind::Nginx => Wire::Unanswered,
        (Point::RequestLine | Point::Header, Leave::Close) => Wire::AnswerAlone,
        (Point::Body | Point::Waiting, Leave::Close) | (Point::Silence | Point::Reading, _) => Wire::AsLogged,
    }
}

/// The log's rows as they must have been on the wire.
pub fn applied(kind: Kind, log: &str, gave_up: &BTreeMap<Client, GaveUp>) -> Rows {
    let mut rows = Rows::default();
    for line in log.lines() {
        let (client, mut row) = parsed(kind, line);
        match gave_up.get(&client).map_or(Wire::AsLogged, |gave_up| wire(kind, *gave_up)) {
            Wire::AsLogged => {}
            Wire::Nothing => continue,
            Wire::AnswerAlone => row = Row { request: String::new(), host: String::new(), status: row.status },
            Wire::Unanswered => row.status = None,
        }
        rows.push(client, row);
    }
    rows
}

fn parsed(kind: Kind, line: &str) -> (Client, Row) {
    let mut fields = line.splitn(5, '\t');
    let mut next = || fields.next().unwrap_or_else(|| panic!("the access log has the line {line:?}"));
    let (address, port, status, host) = (next(), next(), next(), next());
    let request = match kind {
        Kind::Apache => unescaped(next()),
        Kind::Nginx | Kind::Haproxy => next().to_owned(),
    };
    let host = if host == "-" { String::new() } else { host.to_owned() };
    // haproxy writes -1 where there was no answer.
    let row = Row { request: credentials_cut(&request), host, status: status.parse().ok() };
    ((address.parse().unwrap(), port.parse().unwrap()), row)
}

/// Servers log the value of a query credential, the sensor prints its fingerprint.
fn credentials_cut(request: &str) -> String {
    const NAME: &str = "access_token=";
    let Some((before, rest)) = request.split_once(NAME) else { return request.to_owned() };
    let end = rest.find(['&', ' ']).unwrap_or(rest.len());
    let (value, after) = rest.split_at(end);
    let fingerprint = Fingerprint(hash128(Key::from_bytes(&FINGERPRINT_KEY), value.as_bytes()));
    format!("{before}{NAME}{fingerprint}{after}")
}

/// Apache escapes quotes and backslashes by a backslash, and what is not printable as `\xhh`.
fn unescaped(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        match rest.next() {
            Some(b'x') => {
                let digits: String = rest.by_ref().take(2).map(char::from).collect();
                bytes.push(u8::from_str_radix(&digits, 16).unwrap());
            }
            Some(b't') => bytes.push(b'\t'),
            Some(other) => bytes.push(other),
            None => {}
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
