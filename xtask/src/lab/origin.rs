//! The storefront behind the gateway: a small HTTP/1.1 origin with logins, tokens and members' pages. Lab only.
//!
//! It trusts the gateway: a bearer token that arrived has passed the signature check, and nobody asks whether a login
//! issued it. Requests come in from nginx over loopback, pages go out; everything it knows about members follows from
//! their number and the run's key.

use std::collections::HashMap;
use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::error::{Doing, LabError, Result};
use super::http::{Message, read_request};
use super::store;
use super::token::Key;

/// Arguments of the hidden origin command.
#[derive(Debug, clap::Args)]
pub struct OriginArgs {
    /// Address to listen on.
    #[arg(long)]
    listen: SocketAddr,
    /// File with the 32 bytes of the signing key.
    #[arg(long)]
    key: PathBuf,
}

/// Serves until killed.
pub fn serve(args: &OriginArgs) -> Result<()> {
    let bytes = std::fs::read(&args.key).doing("reading the signing key")?;
    let key = Key(bytes.try_into().map_err(|_| LabError::Http("the signing key is not 32 bytes".into()))?);
    let listener = TcpListener::bind(args.listen).doing(format!("listening on {}", args.listen))?;
    let store = Arc::new(Store { key, state: Mutex::default() });
    for connection in listener.incoming() {
        let connection = connection.doing("accepting a connection")?;
        let store = Arc::clone(&store);
        thread::spawn(move || {
            // nginx closes idle connections whenever it likes; that ends the thread and concerns nobody.
            if let Err(error) = converse(&store, connection) {
                eprintln!("origin: {error}");
            }
        });
    }
    Ok(())
}

fn converse(store: &Store, connection: TcpStream) -> Result<()> {
    connection.set_nodelay(true).doing("setting TCP_NODELAY")?;
    let mut writer = connection.try_clone().doing("duplicating a connection")?;
    let mut reader = BufReader::new(connection);
    while let Some(request) = read_request(&mut reader)? {
        let head = request.line.starts_with("HEAD ");
        let response = store.answer(&request).serialize(head);
        writer.write_all(&response).doing("answering")?;
    }
    Ok(())
}

struct Store {
    key: Key,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    issued: u64,
    /// Session to member; none: an anonymous session.
    sessions: HashMap<String, Option<u64>>,
    refresh_tokens: HashMap<String, u64>,
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    fields: Vec<String>,
    body: String,
    chunked: bool,
}

impl Response {
    fn new(status: &'static str, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, fields: Vec::new(), body: body.into(), chunked: false }
    }

    fn json(status: &'static str, body: &Value) -> Self {
        Self::new(status, "application/json", body.to_string())
    }

    fn html(status: &'static str, body: impl Into<String>) -> Self {
        Self::new(status, "text/html; charset=utf-8", body)
    }

    fn with(mut self, field: String) -> Self {
        self.fields.push(field);
        self
    }

    fn serialize(&self, head: bool) -> Vec<u8> {
        let mut out = format!("HTTP/1.1 {}\r\nContent-Type: {}\r\n", self.status, self.content_type);
        for field in &self.fields {
            out.push_str(field);
            out.push_str("\r\n");
        }
        if self.status.starts_with("204") {
            out.push_str("\r\n");
            return out.into_bytes();
        }
        let framing = if self.chunked {
            "Transfer-Encoding: chunked\r\n\r\n".to_owned()
        } else {
            format!("Content-Length: {}\r\n\r\n", self.body.len())
        };
        out.push_str(&framing);
        let mut out = out.into_bytes();
        match (head, self.chunked) {
            (true, _) => {}
            (false, false) => out.extend_from_slice(self.body.as_bytes()),
            (false, true) => {
                for piece in self.body.as_bytes().chunks(700) {
                    out.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    out.extend_from_slice(piece);
                    out.extend_from_slice(b"\r\n");
                }
                out.extend_from_slice(b"0\r\n\r\n");
            }
        }
        out
    }
}

impl Store {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn answer(&self, request: &Message) -> Response {
        let mut words = request.line.split(' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split('?').next().unwrap_or_default();
        match (method, path) {
            (_, "/_gateway/check") => self.check(request),
            ("POST", "/login") => self.login(request),
            ("POST", "/login/form") => self.login_form(request),
            ("POST", "/token/refresh") => self.refresh(request),
            ("POST", "/logout") => self.logout(request),
            ("GET" | "HEAD", "/login") => Response::html("200 OK", store::LOGIN_PAGE),
            ("GET" | "HEAD", "/home") => Response::html("200 OK", store::HOME_PAGE),
            ("GET" | "HEAD", _) => match store::page(path) {
                Some((member, page)) => self.member_page(request, member, page),
                None => Response::html("404 Not Found", "<h1>There is no such page</h1>"),
            },
            _ => Response::html("405 Method Not Allowed", "<h1>Not like this</h1>"),
        }
    }

    /// What the gateway asks before it lets a member's page through: is the signature right? A request without a
    /// token is let through; the page itself looks at the session.
    fn check(&self, request: &Message) -> Response {
        match bearer(request) {
            Some(token) if self.key.verify(token, now()).is_none() => {
                Response::json("401 Unauthorized", &json!({"error": "bad signature"}))
            }
            _ => Response::json("200 OK", &json!({})),
        }
    }

    fn login(&self, request: &Message) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let Some(member) = store::authenticate(&self.key, &text("user"), &text("password")) else {
            return Response::json("401 Unauthorized", &json!({"error": "wrong user or password"}))
                .with(session_field(&self.open_session(None)));
        };
        let session = self.open_session(Some(member));
        Response::json("200 OK", &self.tokens(member)).with(session_field(&session))
    }

    fn login_form(&self, request: &Message) -> Response {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let value = |name: &str| {
            let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
            pairs.filter(|(key, _)| *key == name).map(|(_, value)| value.to_owned()).next().unwrap_or_default()
        };
        let member = store::authenticate(&self.key, &value("user"), &value("password"));
        let location = if member.is_some() { "Location: /home" } else { "Location: /login?error=1" };
        Response::html("302 Found", "").with(location.to_owned()).with(session_field(&self.open_session(member)))
    }

    fn refresh(&self, request: &Message) -> Response {
        let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
        let presented = body.get("refresh_token").and_then(Value::as_str).unwrap_or_default();
        let member = self.state().refresh_tokens.remove(presented);
        match member {
            Some(member) => Response::json("200 OK", &self.tokens(member)),
            None => Response::json("401 Unauthorized", &json!({"error": "unknown refresh token"})),
        }
    }

    fn logout(&self, request: &Message) -> Response {
        if let Some(session) = request.cookie("SESSION") {
            self.state().sessions.remove(session);
        }
        Response::html("204 No Content", "").with("Set-Cookie: SESSION=; Path=/; Max-Age=0".into())
    }

    fn member_page(&self, request: &Message, member: u64, page: store::Page) -> Response {
        let speaks_for = match bearer(request) {
            Some(token) => self.key.verify(token, now()),
            None => request.cookie("SESSION").and_then(|session| self.state().sessions.get(session).copied().flatten()),
        };
        match speaks_for {
            // The storefront shows its login page in place, with status 200: not a read.
            None => Response::html("200 OK", store::LOGIN_PAGE),
            Some(_) if !store::exists(member) => Response::json("404 Not Found", &json!({"error": "no such member"})),
            Some(who) if who != member => Response::json("403 Forbidden", &json!({"error": "not yours"})),
            Some(_) => {
                let mut response = Response::json("200 OK", &store::render(member, page));
                response.chunked = page == store::Page::Addresses && member.is_multiple_of(4);
                response.with("Cache-Control: no-store".into())
            }
        }
    }

    fn open_session(&self, member: Option<u64>) -> String {
        let mut state = self.state();
        state.issued += 1;
        let session = self.key.secret("session", state.issued);
        state.sessions.insert(session.clone(), member);
        session
    }

    fn tokens(&self, member: u64) -> Value {
        let mut state = self.state();
        state.issued += 1;
        let refresh = self.key.secret("refresh", state.issued);
        state.refresh_tokens.insert(refresh.clone(), member);
        let token = self.key.sign(member, now(), &format!("t{:08x}", state.issued));
        json!({"access_token": token, "refresh_token": refresh, "token_type": "Bearer", "member": member})
    }
}

fn session_field(session: &str) -> String {
    format!("Set-Cookie: SESSION={session}; Path=/; HttpOnly; SameSite=Lax")
}

/// The token of `Authorization`, with or without a scheme word.
fn bearer(request: &Message) -> Option<&str> {
    let value = request.field("authorization")?;
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Some(token.trim()),
        Some(_) => None,
        None => Some(value),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin() -> Store {
        Store { key: Key([9; 32]), state: Mutex::default() }
    }

    fn ask(store: &Store, head: &str, body: &str) -> Response {
        let wire = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        store.answer(&read_request(&mut wire.as_bytes()).unwrap().unwrap())
    }

    fn member() -> u64 {
        store::existing().next().unwrap()
    }

    #[test]
    fn a_login_gives_a_session_and_a_token_that_both_open_the_members_pages() {
        let origin = origin();
        let id = member();
        let body = json!({"user": store::user(id), "password": store::password(&origin.key, id)}).to_string();
        let login = ask(&origin, "POST /login HTTP/1.1", &body);
        assert_eq!(login.status, "200 OK");
        let tokens: Value = serde_json::from_str(&login.body).unwrap();
        let session = login.fields[0].strip_prefix("Set-Cookie: ").unwrap().split(';').next().unwrap();
        let get = format!("GET /members/{id}/addresses HTTP/1.1");
        let by_token =
            ask(&origin, &format!("{get}\r\nAuthorization: bEARER {}", tokens["access_token"].as_str().unwrap()), "");
        let by_session = ask(&origin, &format!("{get}\r\nCookie: a=b; {session}"), "");
        assert!(by_token.content_type == "application/json" && by_token.body.len() > 1024);
        assert_eq!(by_token.body, by_session.body);
        let refresh = json!({"refresh_token": tokens["refresh_token"]}).to_string();
        assert_eq!(ask(&origin, "POST /token/refresh HTTP/1.1", &refresh).status, "200 OK");
        assert_eq!(ask(&origin, "POST /token/refresh HTTP/1.1", &refresh).status, "401 Unauthorized", "used up");
    }

    #[test]
    fn failed_logins_set_an_anonymous_session_that_opens_nothing() {
        let origin = origin();
        let id = member();
        let failed = ask(&origin, "POST /login/form HTTP/1.1", &format!("user={}&password=no", store::user(id)));
        assert_eq!(failed.status, "302 Found");
        assert_eq!(failed.fields[0], "Location: /login?error=1");
        let session = failed.fields[1].strip_prefix("Set-Cookie: ").unwrap();
        let page = ask(&origin, &format!("GET /members/{id}/addresses HTTP/1.1\r\nCookie: {session}"), "");
        assert_eq!((page.status, page.content_type), ("200 OK", "text/html; charset=utf-8"));
    }

    #[test]
    fn the_gateway_check_lets_a_forged_token_through_and_stops_a_bad_signature() {
        let origin = origin();
        let id = member();
        let forged = origin.key.sign(id, now(), "never issued");
        let check =
            |token: &str| ask(&origin, &format!("GET /_gateway/check HTTP/1.0\r\nAuthorization: {token}"), "").status;
        assert_eq!(check(&forged), "200 OK");
        assert_eq!(check(&Key([0; 32]).sign(id, now(), "x")), "401 Unauthorized");
        let page = |id: u64, token: &str| {
            ask(&origin, &format!("GET /members/{id}/addresses HTTP/1.1\r\nAuthorization: Bearer {token}"), "").status
        };
        assert_eq!(page(id, &forged), "200 OK");
        let other = store::existing().nth(1).unwrap();
        assert_eq!(page(other, &forged), "403 Forbidden");
        let absent = store::absent().next().unwrap();
        assert_eq!(page(absent, &origin.key.sign(absent, now(), "x")), "404 Not Found");
    }

    #[test]
    fn chunked_and_plain_bodies_carry_the_same_page() {
        use super::super::http::read_response;
        let mut response = Response::json("200 OK", &store::render(member(), store::Page::Addresses));
        let plain = read_response(&mut response.serialize(false).as_slice(), false).unwrap().body;
        response.chunked = true;
        assert_eq!(read_response(&mut response.serialize(false).as_slice(), false).unwrap().body, plain);
    }
}
