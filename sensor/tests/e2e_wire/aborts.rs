//! Clients that hang up where it is least convenient. Only their lines of the log may need an exception.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::Duration;

use crate::bytes::connect;
use crate::rows::Client;
use crate::servers::V4;
use crate::support::net::{Net, inside};

/// How far a client goes before it hangs up.
#[derive(Clone, Copy, Debug)]
pub enum Point {
    /// It connects.
    Silence,
    /// Inside the request line.
    RequestLine,
    /// Inside a header.
    Header,
    /// Inside the request's body.
    Body,
    /// The request is whole, the answer not begun.
    Waiting,
    /// Inside the answer's body.
    Reading,
}

/// How it leaves.
#[derive(Clone, Copy, Debug)]
pub enum Leave {
    /// With a FIN.
    Close,
    /// With a RST.
    Reset,
}

/// A client that gave up.
#[derive(Clone, Copy, Debug)]
pub struct GaveUp {
    pub at: Point,
    pub leave: Leave,
}

impl Point {
    const ALL: [Self; 6] = [Self::Silence, Self::RequestLine, Self::Header, Self::Body, Self::Waiting, Self::Reading];

    /// What is said before.
    fn said(self) -> &'static [u8] {
        match self {
            Self::Silence => b"",
            Self::RequestLine => b"GET /files/sm",
            Self::Header => b"GET /files/small.txt?gives-up HTTP/1.1\r\nHost: shop.exa",
            Self::Body => {
                b"POST /app/echo?gives-up HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 99\r\n\r\nten bytes."
            }
            Self::Waiting => b"GET /app/slow?gives-up HTTP/1.1\r\nHost: shop.example\r\n\r\n",
            Self::Reading => b"GET /files/10m.bin?gives-up HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        }
    }

    /// Bytes of the answer that are read before.
    fn heard(self) -> usize {
        if matches!(self, Self::Reading) { 100_000 } else { 0 }
    }
}

/// Plays every client that gives up, each way.
pub fn all(net: &Net) -> BTreeMap<Client, GaveUp> {
    inside(&net.client, || {
        let clients =
            Point::ALL.into_iter().flat_map(|at| [Leave::Close, Leave::Reset].map(|leave| GaveUp { at, leave }));
        clients.map(|gave_up| (give_up(gave_up), gave_up)).collect()
    })
}

fn give_up(how: GaveUp) -> Client {
    let mut stream = connect(V4);
    stream.write_all(how.at.said()).unwrap();
    let mut answer = vec![0; how.at.heard()];
    stream.read_exact(&mut answer).unwrap();
    // Until the server has taken in what was said: a reset takes away what it has not read.
    thread::sleep(Duration::from_millis(50));
    if matches!(how.leave, Leave::Reset) {
        reset_on_close(&stream);
    }
    let own = stream.local_addr().unwrap();
    (own.ip(), own.port())
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
