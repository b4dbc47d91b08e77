//! The application behind the servers: a small HTTP/1.1 server of this test's own, on the namespace's loopback, which
//! nobody watches.
//!
//! It reads each request to its end, by Content-Length or chunked, and answers by path: `/app/echo` with a
//! Content-Length, `/app/chunked` in chunks with a trailer, `/app/hints` after a 103, `/app/slow` after a while,
//! `/app/big` with a body of [`BIG`] bytes, `/app/login` with a cookie, `/app/empty` with a 204. Asked to upgrade, it
//! echoes bytes from then on.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use crate::support::net::inside;

/// Where it listens.
pub const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9000);
const BIG: usize = 3 << 20;
/// How long `/app/slow` thinks: long enough for a client to hang up first.
const SLOW: Duration = Duration::from_millis(400);

/// Accepts the key of RFC 6455's example (section 1.3), which this test's client sends: haproxy looks at it.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Listens in the namespace; its threads end with the connections, and the listener with the test program.
pub fn start(namespace: &str) {
    let listener = inside(namespace, || TcpListener::bind(ADDRESS).unwrap());
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // A server that hangs up ends the conversation; nothing is left to be told.
                let _ = converse(&stream);
            });
        }
    });
}

fn converse(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut input, mut output) = (BufReader::new(stream), stream);
    while let Some(request) = Request::read(&mut input)? {
        if request.upgrades {
            output.write_all(UPGRADED)?;
            return io::copy(&mut input, &mut output).map(drop);
        }
        if request.expects {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let body = request.body(&mut input)?;
        output.write_all(&answer(&request, body))?;
    }
    Ok(())
}

enum Body {
    Length(u64),
    Chunked,
}

/// What is needed of a head.
struct Request {
    head_only: bool,
    path: String,
    body: Body,
    expects: bool,
    upgrades: bool,
}

impl Request {
    fn read(input: &mut impl BufRead) -> io::Result<Option<Self>> {
        let line = line(input)?;
        let mut words = line.split(' ');
        let (Some(method), Some(target)) = (words.next(), words.next()) else { return Ok(None) };
        let path = target.split('?').next().unwrap_or_default().to_owned();
        let body = Body::Length(0);
        let mut request = Self { head_only: method == "HEAD", path, body, expects: false, upgrades: false };
        loop {
            let field = self::line(input)?;
            let Some((name, value)) = field.split_once(':') else { return Ok(Some(request)) };
            let value = value.trim();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => request.body = Body::Length(value.parse().map_err(io::Error::other)?),
                "transfer-encoding" => request.body = Body::Chunked,
                "upgrade" => request.upgrades = true,
                "expect" => request.expects = true,
                _ => {}
            }
        }
    }

    /// Reads the body away; its length.
    fn body(&self, input: &mut impl BufRead) -> io::Result<u64> {
        if let Body::Length(length) = self.body {
            return skip(input, length);
        }
        let mut sum = 0;
        loop {
            let size = line(input)?;
            let size = u64::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16);
            let size = size.map_err(io::Error::other)?;
            sum += skip(input, size)?;
            if size == 0 {
                while !line(input)?.is_empty() {}
                return Ok(sum);
            }
            line(input)?;
        }
    }
}

fn line(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.take(1 << 16).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn skip(input: &mut impl Read, length: u64) -> io::Result<u64> {
    let skipped = io::copy(&mut input.take(length), &mut io::sink())?;
    if skipped == length { Ok(length) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn answer(request: &Request, body: u64) -> Vec<u8> {
    let mut text = match request.path.as_str() {
        "/app/empty" => return b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        "/app/hints" => "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n".to_owned(),
        "/app/chunked" => {
            let chunks = "5\r\nfirst\r\n6;why=not\r\nsecond\r\n0\r\nX-Sum: 11\r\n\r\n";
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n";
            return [head, if request.head_only { "" } else { chunks }].concat().into_bytes();
        }
        _ => String::new(),
    };
    let content = match request.path.as_str() {
        "/app/big" => "b".repeat(BIG),
        "/app/slow" => {
            thread::sleep(SLOW);
            "at last".to_owned()
        }
        _ => format!("{body} bytes"),
    };
    text.extend(["HTTP/1.1 200 OK\r\nContent-Length: ", &content.len().to_string(), "\r\n"]);
    if request.path == "/app/login" {
        text.push_str("Set-Cookie: SESSION=wire-session-0123456789; Path=/; HttpOnly\r\n");
    }
    text.push_str("\r\n");
    if !request.head_only {
        text.push_str(&content);
    }
    text.into_bytes()
}
