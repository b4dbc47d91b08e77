//! The service that kernel tests watch, and what is said to it.

use std::net::{IpAddr, SocketAddr};

use sensor::config::model::{Bounds, Config};

use super::packets::{Connection, token};
use super::sides::{Sides, config};

pub const CONFIG: &str = r#"
[bounds]
flows = 16384
split_heads = 1024
event_ring_bytes = "1MiB"
byte_ring_bytes = "1MiB"
[[service]]
name = "shop"
listen = ["192.0.2.10:80", "[2001:db8::10]:80", 8080]
[service.credentials]
authorization = true
cookies = ["SESSION"]
query = ["access_token"]
[[service.route]]
class = "login"
methods = "POST"
path = "/login"
issues = ["set-cookie:SESSION", "json:/access_token"]
[[service.route]]
class = "refresh"
methods = "POST"
path = "/token"
issues = ["json:/access_token"]
presents = ["json:/refresh_token"]
[[service.route]]
class = "account_read"
methods = ["GET", "HEAD"]
path = "/members/{member}"
outcomes = [{ outcome = "read", status = 200, min_length = 2 }]
[[service.route]]
class = "other"
methods = "GET"
path = "/products/{product}"
"#;

/// Indexes of the routes above.
pub const LOGIN: u16 = 0;
pub const REFRESH: u16 = 1;
pub const MEMBER: u16 = 2;
pub const PRODUCT: u16 = 3;

pub const COOKIE: &str = "SESSION-f00dcafe0123456789";

pub fn loaded() -> Sides {
    let config: Config = config(CONFIG);
    sides(&config, &config.bounds)
}

pub fn sides(config: &Config, bounds: &Bounds) -> Sides {
    Sides::new(config, bounds, &[address("192.0.2.10"), address("2001:db8::10")])
}

pub fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A client of the IPv4 listener.
pub fn client(port: u16) -> Connection {
    Connection::new(SocketAddr::new(address("198.51.100.7"), port), socket("192.0.2.10:80"))
}

pub fn bearer() -> String {
    token("https://auth.shop.example", "member-4711", 1_790_000_000)
}

/// A member's read, with a token and a session.
pub fn read(member: &str, token: &str) -> Vec<u8> {
    format!(
        "GET /members/{member}?view=full HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0 (X11; Linux)\r\n\
         Accept: application/json\r\nX-Forwarded-For: 203.0.113.9\r\nCookie: theme=dark; SESSION={COOKIE}; lang=en\r\n\
         Authorization: Bearer {token}\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}

/// An answer with a JSON body of `len` bytes.
pub fn answer(len: usize) -> Vec<u8> {
    let mut bytes = answer_head(len);
    bytes.extend(vec![b'x'; len]);
    bytes
}

pub fn answer_head(len: usize) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: {len}\r\n\r\n")
        .into()
}

/// What a login answers.
pub fn login_answer(token: &str) -> Vec<u8> {
    let body = format!(r#"{{"member":"4711","access_token":"{token}"}}"#);
    format!(
        "HTTP/1.1 200 OK\r\nServer: nginx\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\
         Set-Cookie: SESSION={COOKIE}; Path=/; HttpOnly; Secure; SameSite=Lax\r\nCache-Control: no-store\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// A login form.
pub fn login() -> Vec<u8> {
    let body = "user=kim&password=hunter2";
    format!("POST /login HTTP/1.1\r\nHost: shop.example\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// Where the body of a message begins.
pub fn body_at(message: &[u8]) -> usize {
    message.windows(4).position(|part| part == b"\r\n\r\n").unwrap() + 4
}
