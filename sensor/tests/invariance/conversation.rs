//! A conversation as its two ends mean it: two byte streams, and which bytes are an answer to which.

use super::tape::Tape;

const JWT: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6ImsxIn0.eyJzdWIiOiI0MiIsImlzcyI6Imh0dHBzOi8vaXNzdWVyLmV4YW1wbGUifQ.c2lnbmF0dXJlLWNhbmFyeS0wMTIzNDU2Nzg5";

/// One direction.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    pub bytes: Vec<u8>,
    /// Places, and how many bytes of the other direction were read before what begins there was sent. Both rise.
    pub needs: Vec<(usize, usize)>,
    /// What the end needs; none if the stream does not end.
    pub end: Option<usize>,
}

impl Stream {
    /// What stands at `at` is sent when the other direction's first `bytes` bytes were read.
    fn after(&mut self, bytes: usize) {
        if self.needs.last().map_or(0, |(_, needed)| *needed) < bytes {
            self.needs.push((self.bytes.len(), bytes));
        }
    }

    /// How many bytes of the other direction come before the one at `at`.
    pub fn needed(&self, at: usize) -> usize {
        self.needs.iter().take_while(|(from, _)| *from <= at).last().map_or(0, |(_, needed)| *needed)
    }
}

/// Both directions, and what was said: of each request its method, and the status of its answer.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    pub client: Stream,
    pub server: Stream,
    pub exchanges: Vec<(String, u16)>,
    /// It stops being HTTP.
    pub tunnel: bool,
}

/// How a body is delimited.
enum Body {
    None,
    Length(usize),
    Chunked(Vec<usize>),
    UntilClose(usize),
}

/// How the connection goes on behind an exchange.
#[derive(PartialEq)]
enum Then {
    Next,
    Over,
}

impl Conversation {
    pub fn draw(tape: &mut Tape<'_>) -> Self {
        let mut made = Self::default();
        let count = 1 + tape.below(7);
        for index in 0..count {
            if made.exchange(tape, index + 1 == count) == Then::Over {
                break;
            }
        }
        let must_end = made.server.end.is_some();
        if must_end || tape.below(3) > 0 {
            let half_close = tape.one_in(4);
            made.server.end = Some(made.client.bytes.len());
            made.client.end = Some(if half_close { 0 } else { made.server.bytes.len() });
        }
        made
    }

    fn exchange(&mut self, tape: &mut Tape<'_>, last: bool) -> Then {
        let pipelined = tape.one_in(3);
        if !pipelined {
            self.client.after(self.server.bytes.len());
        }
        let special = if last { tape.below(8) } else { 0 };
        match special {
            5 => return self.leaves_http(tape, "CONNECT", "h:443", 200),
            6 => return self.leaves_http(tape, "GET", "/socket", 101),
            7 => return self.cut_short(),
            _ => {}
        }
        let method = tape.pick(&["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "BREW"]);
        let body = match (method, tape.below(4)) {
            ("POST" | "PUT" | "BREW", 0 | 1) => Body::Length(tape.below(1200)),
            ("POST" | "PUT" | "BREW", 2) => Body::Chunked(chunks(tape)),
            _ => Body::None,
        };
        let expects = !matches!(body, Body::None) && !pipelined && tape.one_in(4);
        let early = matches!(body, Body::Length(_)) && !expects && tape.one_in(5);
        request_head(tape, &mut self.client.bytes, method, &body, expects);
        if expects {
            self.server.after(self.client.bytes.len());
            self.server.bytes.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
            self.client.after(self.server.bytes.len());
        }
        if early {
            self.server.after(self.client.bytes.len());
        }
        write_body(tape, &mut self.client.bytes, &body);
        self.server.after(if early { 0 } else { self.client.bytes.len() });
        let status = if early { 413 } else { [200, 200, 302, 401, 404, 500, 204, 304, 201][tape.below(9)] };
        let over = self.response(tape, method, status, last);
        self.exchanges.push((method.to_owned(), status));
        over
    }

    fn response(&mut self, tape: &mut Tape<'_>, method: &str, status: u16, last: bool) -> Then {
        let out = &mut self.server.bytes;
        if tape.one_in(6) {
            out.extend(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n");
        }
        let body = match tape.below(5) {
            0 | 1 => Body::Length(tape.below(1500)),
            2 => Body::Chunked(chunks(tape)),
            3 if last => Body::UntilClose(tape.below(1500)),
            _ => Body::Length(0),
        };
        response_head(tape, out, status, &body);
        if method != "HEAD" && !matches!(status, 204 | 304) {
            write_body(tape, out, &body);
        }
        if matches!(body, Body::UntilClose(_)) {
            self.server.end = Some(0);
            return Then::Over;
        }
        Then::Next
    }

    /// The last exchange makes the connection something else.
    fn leaves_http(&mut self, tape: &mut Tape<'_>, method: &str, target: &str, status: u16) -> Then {
        let head =
            format!("{method} {target} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        self.client.bytes.extend(head.as_bytes());
        self.server.after(self.client.bytes.len());
        let head = format!("HTTP/1.1 {status} Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        self.server.bytes.extend(head.as_bytes());
        self.client.after(self.server.bytes.len());
        for stream in [&mut self.client, &mut self.server] {
            let len = tape.below(600);
            stream.bytes.extend(b"GET /not-http HTTP/1.1\r\n\r\n\x81\x05hello".iter().cycle().take(len));
        }
        self.exchanges.push((method.to_owned(), status));
        self.tunnel = true;
        Then::Over
    }

    /// The last request is refused in the middle of its head, and does not go on.
    fn cut_short(&mut self) -> Then {
        self.client.bytes.extend(b"GET /slow HTTP/1.1\r\nHost: h\r\nX-Slow: very");
        self.server.after(self.client.bytes.len());
        self.server.bytes.extend(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
        Then::Over
    }
}

fn chunks(tape: &mut Tape<'_>) -> Vec<usize> {
    (0..tape.below(5)).map(|_| 1 + tape.below(300)).collect()
}

fn target(tape: &mut Tape<'_>, method: &str) -> String {
    let member = tape.below(1000);
    match tape.below(8) {
        1 => format!("/users/{member}/addresses?page=2&access_token={JWT}&x=1"),
        2 => format!("/users/{member}?t=%41bc%4g&x"),
        3 => format!("http://shop.example/users/{member}"),
        4 => format!("/%75sers//{member}/../addresses;v=1"),
        5 if method == "OPTIONS" => "*".to_owned(),
        6 => format!("/search?q={}", "long+words+".repeat(tape.below(60))),
        _ => format!("/users/{member}/addresses"),
    }
}

fn request_head(tape: &mut Tape<'_>, out: &mut Vec<u8>, method: &str, body: &Body, expects: bool) {
    if tape.one_in(8) {
        out.extend(b"\r\n");
    }
    let mut lines = vec![
        format!("{method} {} {}", target(tape, method), tape.pick(&["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"])),
        "Host: shop.example".to_owned(),
    ];
    let number = tape.below(1 << 16);
    let all = [
        format!("Authorization: Bearer {JWT}"),
        format!("authorization:   bEaReR \t {JWT} "),
        format!("Authorization:\r\n Bearer opaque-{number}"),
        format!("Authorization: Basic dXNlcjpwYXNz{number}"),
        format!("Cookie: a=b; SESSION=\"abc%2fd{number}\" ; c=d"),
        format!("Cookie: x=y;\r\n\tSESSION=folded-{number}"),
        format!("Cookie: __Host-a-rather-long-cookie-name={JWT}"),
        format!("X-Api-Key: key-{number}"),
        format!("X-Forwarded-For: 192.0.2.{}, 198.51.100.7", number % 256),
        format!("User-Agent: {}", "a browser with a name ".repeat(1 + number % 8)),
        format!("X-Padding: {}", "p".repeat(number % 2000)),
        "No colon here".to_owned(),
    ];
    for _ in 0..tape.below(6) {
        lines.push(all[tape.below(all.len())].clone());
    }
    if expects {
        lines.push("Expect: 100-continue".to_owned());
    }
    finish_head(tape, out, lines, body);
}

fn response_head(tape: &mut Tape<'_>, out: &mut Vec<u8>, status: u16, body: &Body) {
    let mut lines = vec![format!("HTTP/1.1 {status} {}", tape.pick(&["Some Reason", "", "OK"]))];
    let number = tape.below(1 << 16);
    let all = [
        format!("Set-Cookie: SESSION=fresh-{number}; Path=/; HttpOnly"),
        format!("Set-Cookie: SESSION={JWT}; Secure"),
        format!("Set-Cookie: other={number}"),
        format!("X-New-Token: token-{number}"),
        format!("Location: /home?{number}"),
        "Content-Type: application/json".to_owned(),
        "Content-Encoding: gzip".to_owned(),
        format!("X-Folded: {number}\r\n  goes on"),
    ];
    for _ in 0..tape.below(6) {
        lines.push(all[tape.below(all.len())].clone());
    }
    finish_head(tape, out, lines, body);
}

fn finish_head(tape: &mut Tape<'_>, out: &mut Vec<u8>, mut lines: Vec<String>, body: &Body) {
    match body {
        Body::Length(len) => lines.push(format!("Content-Length: {len}")),
        Body::Chunked(_) => lines.push("Transfer-Encoding: chunked".to_owned()),
        Body::None | Body::UntilClose(_) => {}
    }
    let end = if tape.one_in(6) { "\n" } else { "\r\n" };
    for line in lines {
        out.extend(line.as_bytes());
        out.extend(end.as_bytes());
    }
    out.extend(end.as_bytes());
}

/// Bodies look like heads, so that a parser which is lost in one shows.
fn content(len: usize) -> impl Iterator<Item = u8> {
    b"HTTP/1.1 200 OK\r\n\r\nGET /inside HTTP/1.1\r\n\r\n".iter().copied().cycle().take(len)
}

fn write_body(tape: &mut Tape<'_>, out: &mut Vec<u8>, body: &Body) {
    match body {
        Body::None => {}
        Body::Length(len) | Body::UntilClose(len) => out.extend(content(*len)),
        Body::Chunked(sizes) => {
            for size in sizes {
                out.extend(format!("{size:x}{}\r\n", tape.pick(&["", ";name=value", ";quoted=\"a;b\""])).as_bytes());
                out.extend(content(*size));
                out.extend(b"\r\n");
            }
            out.extend(b"0\r\n");
            if tape.one_in(3) {
                out.extend(b"X-Trailer: checksum\r\nAuthorization: Bearer not-in-a-head\r\n");
            }
            out.extend(b"\r\n");
        }
    }
}
