//! A small HTTP server behind the sensor, one connection for each request, and a client of it.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use super::net::{Net, inside};

/// Where it listens.
const ADDRESS: &str = "192.0.2.10:80";

/// Listens in the server's namespace and answers `count` requests with the JSON text that `body` makes of each head.
pub fn serve(net: &Net, count: usize, body: impl Fn(&str) -> String + Send + 'static) -> JoinHandle<()> {
    let listener = inside(&net.server, || TcpListener::bind(ADDRESS).unwrap());
    thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().unwrap();
            let body = body(&head(&mut stream));
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// Asks it, from the namespace of the calling thread, and waits for the end of the answer.
pub fn ask(head: &str) {
    let mut stream = TcpStream::connect(ADDRESS).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    stream.read_to_end(&mut Vec::new()).unwrap();
}

/// A member's read with a token.
pub fn read_member(token: &str) {
    ask(&format!("GET /members/17 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n"));
}
