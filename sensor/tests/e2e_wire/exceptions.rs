//! The access log as rows, and the few lines in it that say something else than what was on the wire.
//!
//! Each exception belongs to a client that hung up; well-formed traffic needs none, and the test counts them.

use std::net::IpAddr;

use crate::aborts::MARK;
use crate::rows::{Row, Rows};
use crate::servers::Kind;

/// A line of the log.
struct Line {
    client: (IpAddr, u16),
    row: Row,
}

/// Why a line is not taken as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exception {
    /// The request head never ended (nginx: an empty request line; haproxy: `<BADREQ>`; Apache: `-`). There was no
    /// request that the sensor could tell, and no answer left the server.
    NoRequest,
    /// The client was gone before an answer left the server: the status is a note of the server's to itself (nginx: 499,
    /// or 400 inside a body; haproxy: -1 or 400 inside a body).
    NotSent,
}

/// The log's rows as they must have been on the wire, and how many exceptions that took.
pub fn applied(kind: Kind, log: &str) -> (Rows, usize) {
    let (mut rows, mut used) = (Rows::default(), 0);
    for line in log.lines() {
        let Some(mut line) = parsed(kind, line) else { continue };
        match exception(kind, &line.row) {
            Some(Exception::NoRequest) => {
                used += 1;
                continue;
            }
            Some(Exception::NotSent) => {
                used += 1;
                line.row.status = None;
            }
            None => {}
        }
        rows.push(line.client, line.row);
    }
    (rows, used)
}

fn exception(kind: Kind, row: &Row) -> Option<Exception> {
    let no_request = match kind {
        Kind::Nginx => row.request.is_empty(),
        Kind::Apache => row.request == "-",
        Kind::Haproxy => row.request == "<BADREQ>",
    };
    let not_sent: &[Option<u16>] = match kind {
        Kind::Nginx => &[Some(499), Some(400)],
        Kind::Apache => &[],
        Kind::Haproxy => &[None, Some(400)],
    };
    if no_request {
        Some(Exception::NoRequest)
    } else if row.request.contains(MARK) && not_sent.contains(&row.status) {
        Some(Exception::NotSent)
    } else {
        None
    }
}

fn parsed(kind: Kind, line: &str) -> Option<Line> {
    let mut fields = line.splitn(6, '\t');
    let mut next = || fields.next().unwrap_or_else(|| panic!("the access log has the line {line:?}"));
    let (address, port, status, _body, host) = (next(), next(), next(), next(), next());
    let request = match kind {
        Kind::Apache => unescaped(next()),
        Kind::Nginx | Kind::Haproxy => next().to_owned(),
    };
    let host = if host == "-" { String::new() } else { host.to_owned() };
    // haproxy: -1 for "no answer".
    let row = Row { request, host, status: status.parse().ok() };
    Some(Line { client: (address.parse().unwrap(), port.parse().unwrap()), row })
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
