//! Clients that care how their bytes are cut: many requests in one segment, and one byte in each.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use crate::servers::{SMALL, V4, V6};
use crate::support::net::{Net, inside};

/// Requests in one go.
const PIPELINED: usize = 16;

/// A connection to the server under test.
pub fn connect(address: &str) -> TcpStream {
    let address: SocketAddr = address.parse().unwrap();
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    stream
}

/// Every kind of request, the last one asking the server to hang up.
fn requests(count: usize, tag: &str) -> Vec<u8> {
    some_requests(count, tag, true)
}

/// Every kind of request; the last one may ask the server to hang up.
pub fn some_requests(count: usize, tag: &str, hang_up: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..count {
        let close = if hang_up && number + 1 == count { "Connection: close\r\n" } else { "" };
        let (line, rest) = match number % 8 {
            0 => ("GET /files/small.txt", "\r\n"),
            1 => ("HEAD /files/page.html", "\r\n"),
            2 => ("POST /app/echo", "Content-Length: 11\r\n\r\nhello=world"),
            3 => ("GET /missing", "X-Empty:\r\nX-Padded:   spaces   \r\n\r\n"),
            4 => (
                "POST /app/chunked",
                "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1A\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\n\r\n",
            ),
            5 => ("GET /moved", "Authorization: Bearer opaque-token-0123456789\r\n\r\n"),
            6 => ("HEAD /app/chunked", "Cookie: a=b; SESSION=pipe; c=d\r\n\r\n"),
            _ => ("GET /files/page.html", "Cookie: SESSION=pipe\r\n\r\n"),
        };
        bytes.extend(format!("{line}?{tag}={number} HTTP/1.1\r\nHost: shop.example\r\n{close}{rest}").into_bytes());
    }
    bytes
}

/// Reads until the server hangs up; what it said must be answers.
fn read_all(mut stream: &TcpStream) {
    let mut answers = Vec::new();
    stream.read_to_end(&mut answers).unwrap();
    assert!(answers.starts_with(b"HTTP/1."), "{:?}", String::from_utf8_lossy(&answers[..answers.len().min(80)]));
}

/// Pipelined requests, in one write, and cut at odd places.
pub fn pipelines(net: &Net) {
    inside(&net.client, || {
        for (round, sizes) in
            [&[usize::MAX][..], &[1, 2, 3, 5, 8, 13, 21], &[7], &[97, 1], &[1000, 3], &[150]].iter().enumerate()
        {
            let bytes = requests(PIPELINED, &format!("pipe{round}"));
            let stream = connect(if round % 2 == 0 { V4 } else { V6 });
            thread::scope(|scope| {
                // A server that gets more than it can answer stops reading: both at once.
                scope.spawn(|| read_all(&stream));
                let mut rest = bytes.as_slice();
                for size in sizes.iter().cycle() {
                    let (now, later) = rest.split_at((*size).min(rest.len()));
                    (&stream).write_all(now).unwrap();
                    wait_until_sent(&stream);
                    rest = later;
                    if rest.is_empty() {
                        break;
                    }
                }
            });
        }
    });
}

/// One byte in each segment, heads and bodies alike; several at once, over both families.
pub fn slow_senders(net: &Net) {
    inside(&net.client, || {
        thread::scope(|scope| {
            for number in 0..4 {
                // A thread has the namespace of the one that starts it.
                scope.spawn(move || {
                    let stream = connect(if number % 2 == 0 { V4 } else { V6 });
                    for byte in requests(8, &format!("slow{number}")) {
                        (&stream).write_all(&[byte]).unwrap();
                        wait_until_sent(&stream);
                    }
                    read_all(&stream);
                });
            }
        });
        // A client that has said all it will say still gets its answer.
        let stream = connect(V4);
        (&stream)
            .write_all(b"GET /files/page.html?half-closed HTTP/1.1\r\nHost: shop.example\r\nConnection: close\r\n\r\n")
            .unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&stream);
    });
}

/// Connections that leave HTTP; how many. What is said afterwards looks like requests and answers, and is none.
pub fn upgrades(net: &Net) -> usize {
    const REQUEST: &[u8] = b"GET /app/upgrade HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\n\
        Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let alike: [&[u8]; 2] =
        [b"GET /not-http HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"];
    inside(&net.client, || {
        for address in [V4, V6] {
            let mut stream = connect(address);
            stream.write_all(b"GET /files/small.txt?before HTTP/1.1\r\nHost: shop.example\r\n\r\n").unwrap();
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
            stream.read_exact(&mut [0; SMALL]).unwrap();
            stream.write_all(REQUEST).unwrap();
            assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
            for text in alike {
                stream.write_all(text).unwrap();
                let mut echoed = vec![0; text.len()];
                stream.read_exact(&mut echoed).unwrap();
                assert_eq!(echoed, text);
            }
        }
    });
    2
}

/// Reads to the empty line.
fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    String::from_utf8(head).unwrap()
}

/// Waits until nothing written is unsent: what comes next is in a segment of its own.
fn wait_until_sent(stream: &TcpStream) {
    /// `linux/sockios.h`: bytes that were not sent yet.
    const SIOCOUTQNSD: libc::c_ulong = 0x894b;
    loop {
        let mut unsent: libc::c_int = 0;
        // SAFETY: the request writes one int.
        let asked = unsafe { libc::ioctl(stream.as_raw_fd(), SIOCOUTQNSD, &raw mut unsent) };
        assert_eq!(asked, 0, "{}", std::io::Error::last_os_error());
        if unsent == 0 {
            return;
        }
        thread::sleep(Duration::from_micros(50));
    }
}
