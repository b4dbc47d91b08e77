//! One keep-alive HTTP/1.1 connection from a chosen source address.

use std::io::{BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use super::error::{Doing, Result};
use super::gateway::PORT;
use super::http::{Message, read_response};
use super::world::{GATEWAY_V4, GATEWAY_V6};

const ANSWER_TIME: Duration = Duration::from_secs(10);

/// A connection to the gateway. Open it on a thread inside the clients' namespace.
pub struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

/// How the bytes of a request are handed to the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// All at once.
    Whole,
    /// In two writes, the first of this many bytes, a little apart: a head over two segments.
    At(usize),
}

impl Connection {
    /// Connects from `source`.
    pub fn open(source: IpAddr) -> Result<Self> {
        let (from, to) = match source {
            IpAddr::V4(_) => (SocketAddr::new(source, 0), SocketAddr::new(GATEWAY_V4, PORT)),
            IpAddr::V6(_) => (SocketAddr::new(source, 0), SocketAddr::new(GATEWAY_V6, PORT)),
        };
        let stream = open_from(from, to).doing(format!("connecting from {source}"))?;
        stream.set_nodelay(true).doing("setting TCP_NODELAY")?;
        stream.set_read_timeout(Some(ANSWER_TIME)).doing("setting a time-out")?;
        Ok(Self { writer: stream.try_clone().doing("duplicating a connection")?, reader: BufReader::new(stream) })
    }

    /// Sends bytes of one or more requests.
    pub fn send(&mut self, bytes: &[u8], cut: Cut) -> Result<()> {
        let first = match cut {
            Cut::Whole => bytes.len(),
            Cut::At(at) => at.min(bytes.len()),
        };
        let (head, rest) = bytes.split_at(first);
        self.writer.write_all(head).doing("sending a request")?;
        if !rest.is_empty() {
            std::thread::sleep(Duration::from_millis(3));
            self.writer.write_all(rest).doing("sending a request")?;
        }
        Ok(())
    }

    /// Reads the next response; `head` says that it answers a HEAD.
    pub fn receive(&mut self, head: bool) -> Result<Message> {
        read_response(&mut self.reader, head)
    }
}

/// `std` offers no way to bind a stream before it connects.
fn open_from(from: SocketAddr, to: SocketAddr) -> nix::Result<TcpStream> {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // The sources are a routed prefix, not addresses of an interface; IPv6 binds to such an address only when asked to.
    setsockopt(&socket, sockopt::IpFreebind, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(from))?;
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(TcpStream::from(socket))
}
