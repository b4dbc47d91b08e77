//! Clients that hang up where it is least convenient. Only they may need an exception.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use crate::bytes::connect;
use crate::servers::V4;
use crate::support::net::{Net, inside};

/// Stands in the target of every request that is given up.
pub const MARK: &str = "gives-up=";

/// How a client leaves.
#[derive(Clone, Copy)]
enum Leave {
    /// With a FIN.
    Close,
    /// With a RST.
    Reset,
}

/// Plays every client that gives up; how many there were.
pub fn all(net: &Net) -> usize {
    let parts: [(&str, usize); 6] = [
        // Without a word.
        ("", 0),
        // Inside the request line, and inside a header.
        ("GET /files/sm", 0),
        ("GET /files/small.txt?gives-up=head HTTP/1.1\r\nHost: shop.exa", 0),
        // Inside a body.
        ("POST /app/echo?gives-up=body HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1000\r\n\r\nten bytes.", 0),
        // Before the answer.
        ("GET /app/slow?gives-up=waiting HTTP/1.1\r\nHost: shop.example\r\n\r\n", 0),
        // Inside the answer's body.
        ("GET /files/10m.bin?gives-up=reading HTTP/1.1\r\nHost: shop.example\r\n\r\n", 100_000),
    ];
    let ways = [Leave::Close, Leave::Reset];
    inside(&net.client, || {
        for (text, read) in parts {
            for leave in ways {
                give_up(text.as_bytes(), read, leave);
            }
        }
    });
    parts.len() * ways.len()
}

fn give_up(bytes: &[u8], read: usize, leave: Leave) {
    let mut stream = connect(V4);
    stream.write_all(bytes).unwrap();
    let mut answer = vec![0; read];
    stream.read_exact(&mut answer).unwrap();
    // The server has taken in what was sent.
    thread::sleep(Duration::from_millis(30));
    if matches!(leave, Leave::Reset) {
        reset_on_close(&stream);
    }
}

/// Closing the socket sends a RST.
fn reset_on_close(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let length = libc::socklen_t::try_from(size_of::<libc::linger>()).unwrap();
    // SAFETY: the option is such a structure, and lives.
    let set = unsafe {
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length)
    };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
}
