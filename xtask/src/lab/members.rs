//! Members' traffic: logins of every kind, own pages, refreshes, mistakes and logouts, none of which is an attack.
//!
//! Each member is a small script whose course follows from the seed; a dozen threads act them out from as many
//! addresses as there are members, some over IPv6. What a member expects and does not get ends the lab with an error.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::client::{Connection, Cut};
use super::error::{LabError, Result};
use super::http::Message;
use super::interrupt;
use super::store::{self, Page};
use super::tally::{Dice, Shared};
use super::token::Key;
use super::world::{Namespace, source};

/// Threads that act out members.
const ACTORS: usize = 12;

/// One run of members.
pub struct Crowd<'a> {
    /// Where they come from.
    pub clients: &'a Namespace,
    /// Counts and credentials.
    pub shared: &'a Shared,
    /// Makes the passwords.
    pub key: &'a Key,
    /// Makes the scripts.
    pub seed: u64,
    /// Longest pause between two requests of a member.
    pub pause: Duration,
}

impl Crowd<'_> {
    /// Acts out these members; returns when the last is done.
    pub fn act(&self, members: &[u64]) -> Result<()> {
        thread::scope(|scope| {
            let actors: Vec<_> = (0..ACTORS)
                .map(|first| {
                    scope.spawn(move || {
                        self.clients.enter()?;
                        members.iter().skip(first).step_by(ACTORS).try_for_each(|member| self.visit(*member))
                    })
                })
                .collect();
            // All are joined before the first error is returned.
            let ends: Vec<Result<()>> =
                actors.into_iter().map(|actor| actor.join().unwrap_or(Err(LabError::Panicked("a member")))).collect();
            ends.into_iter().collect()
        })
    }

    fn visit(&self, member: u64) -> Result<()> {
        if self.shared.stop.load(Ordering::SeqCst) {
            return Ok(());
        }
        let mut dice = Dice::new(self.seed, member);
        let number = u16::try_from(member % 60_000).unwrap_or_default();
        let mut visitor = Visitor {
            crowd: self,
            member,
            source: source(number, dice.chance(20)),
            connection: None,
            manner: Manner::pick(&mut dice),
            session: None,
            tokens: None,
            dice,
        };
        self.shared.wallet().passwords.insert(store::password(self.key, member));
        visitor.script()
    }
}

/// How a member proves who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// JSON login, then `Authorization` with this scheme word (with its space; empty: the bare token).
    Token(&'static str),
    /// JSON login, then token and cookie together.
    Both,
    /// JSON login, then the session cookie only.
    JsonCookie,
    /// Form login (302), then the session cookie only.
    FormCookie,
}

impl Manner {
    fn pick(dice: &mut Dice) -> Self {
        match dice.below(8) {
            0 | 1 => Self::Token("Bearer "),
            2 => Self::Token("bearer "),
            3 => Self::Token(""),
            4 => Self::Both,
            5 => Self::JsonCookie,
            _ => Self::FormCookie,
        }
    }

    fn has_token(self) -> bool {
        matches!(self, Self::Token(_) | Self::Both)
    }
}

struct Tokens {
    access: String,
    refresh: String,
}

struct Visitor<'a> {
    crowd: &'a Crowd<'a>,
    member: u64,
    source: IpAddr,
    connection: Option<Connection>,
    manner: Manner,
    session: Option<String>,
    tokens: Option<Tokens>,
    dice: Dice,
}

/// A request to be sent.
struct Ask<'a> {
    method: &'a str,
    target: &'a str,
    fields: Vec<String>,
    body: String,
}

impl<'a> Ask<'a> {
    fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, fields: Vec::new(), body: String::new() }
    }

    fn body(mut self, content_type: &str, body: String) -> Self {
        self.fields.push(format!("Content-Type: {content_type}"));
        self.body = body;
        self
    }

    fn field(mut self, field: impl Into<String>) -> Self {
        self.fields.push(field.into());
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: store.example\r\n", self.method, self.target);
        for field in &self.fields {
            head.push_str(field);
            head.push_str("\r\n");
        }
        if !self.body.is_empty() || self.method == "POST" {
            head.push_str("Content-Length: ");
            head.push_str(&self.body.len().to_string());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.push_str(&self.body);
        head.into_bytes()
    }
}

impl Visitor<'_> {
    fn script(&mut self) -> Result<()> {
        if self.dice.chance(25) {
            self.look_around()?;
        }
        if self.dice.chance(20) {
            self.fail_to_log_in()?;
        }
        self.log_in()?;
        for _ in 0..2 + self.dice.below(3) {
            self.read_own_pages()?;
        }
        if self.manner.has_token() && self.dice.chance(60) {
            self.refresh()?;
            self.read_own_pages()?;
        }
        if self.dice.chance(10) {
            self.mistype()?;
        }
        if self.dice.chance(50) {
            self.log_out()?;
        }
        Ok(())
    }

    /// A visitor without any credential: home page, and the login page in place of a member's page.
    fn look_around(&mut self) -> Result<()> {
        let method = if self.dice.chance(20) { "HEAD" } else { "GET" };
        self.ask(Ask::new(method, "/home"), 200)?;
        let path = Page::Addresses.path(self.member);
        let page = self.ask(Ask::new("GET", &path), 200)?;
        html(&page)
    }

    /// A failed login sets a session all the same; with it the visitor sees login pages.
    fn fail_to_log_in(&mut self) -> Result<()> {
        let user = store::user(self.member);
        if self.manner == Manner::FormCookie {
            let body = format!("user={user}&password=wrong{}", self.dice.below(1000));
            self.ask(Ask::new("POST", "/login/form").body("application/x-www-form-urlencoded", body), 302)?;
            self.ask(self.with_cookie(Ask::new("GET", "/login?error=1")), 200)?;
        } else {
            let body = json!({"user": user, "password": "wrong"}).to_string();
            self.ask(Ask::new("POST", "/login").body("application/json", body), 401)?;
        }
        Shared::bump(&self.crowd.shared.failed_logins);
        let path = Page::Addresses.path(self.member);
        let page = self.ask(self.with_cookie(Ask::new("GET", &path)), 200)?;
        html(&page)
    }

    fn log_in(&mut self) -> Result<()> {
        let (user, password) = (store::user(self.member), store::password(self.crowd.key, self.member));
        if self.manner == Manner::FormCookie {
            let body = format!("user={user}&password={password}");
            let ask = Ask::new("POST", "/login/form").body("application/x-www-form-urlencoded", body);
            self.ask(self.with_cookie(ask), 302)?;
            self.ask(self.with_cookie(Ask::new("GET", "/home")), 200)?;
        } else {
            let body = json!({"user": user, "password": password}).to_string();
            let mut ask = Ask::new("POST", "/login").body("application/json", body);
            if self.dice.chance(15) {
                // As curl does before a body: nginx answers 100 first.
                ask = ask.field("Expect: 100-continue");
            }
            let answer = self.ask(ask, 200)?;
            self.take_tokens(&answer)?;
        }
        Shared::bump(&self.crowd.shared.logins);
        Ok(())
    }

    fn take_tokens(&mut self, answer: &Message) -> Result<()> {
        let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
        let (Some(access), Some(refresh)) = (text("access_token"), text("refresh_token")) else {
            return Err(LabError::Http("a login without tokens".into()));
        };
        let mut wallet = self.crowd.shared.wallet();
        wallet.tokens.insert(access.clone());
        wallet.refresh_tokens.insert(refresh.clone());
        self.tokens = Some(Tokens { access, refresh });
        Ok(())
    }

    fn read_own_pages(&mut self) -> Result<()> {
        let pages = [Page::Addresses, Page::Profile, Page::Orders];
        let first = usize::try_from(self.dice.below(3)).unwrap_or_default();
        let pages: Vec<Page> = pages.into_iter().cycle().skip(first).take(1 + first % 2).collect();
        let paths: Vec<String> = pages.iter().map(|page| page.path(self.member)).collect();
        if self.dice.chance(15) {
            // Pipelined: all requests in one segment.
            let asks: Vec<Ask> = paths.iter().map(|path| self.proving(Ask::new("GET", path))).collect();
            let bytes: Vec<u8> = asks.iter().flat_map(Ask::bytes).collect();
            self.send(&bytes, Cut::Whole)?;
            for ask in &asks {
                let page = self.receive(ask)?;
                expect(ask, &page, 200)?;
                json_page(&page)?;
            }
        } else {
            for path in &paths {
                let page = self.ask(self.proving(Ask::new("GET", path)), 200)?;
                json_page(&page)?;
            }
        }
        self.crowd.shared.pages.fetch_add(u64::try_from(paths.len()).unwrap_or_default(), Ordering::SeqCst);
        Ok(())
    }

    fn refresh(&mut self) -> Result<()> {
        let Some(tokens) = &self.tokens else { return Ok(()) };
        let body = json!({"refresh_token": tokens.refresh}).to_string();
        let mut ask = Ask::new("POST", "/token/refresh").body("application/json", body);
        if self.dice.chance(50) {
            ask = self.proving(ask);
        }
        let answer = self.ask(ask, 200)?;
        self.take_tokens(&answer)?;
        Shared::bump(&self.crowd.shared.refreshes);
        Ok(())
    }

    /// Somebody else's page, a member who left, a page that is not there, a token with a broken signature.
    fn mistype(&mut self) -> Result<()> {
        let neighbour = store::existing().find(|member| *member > self.member).unwrap_or(store::FIRST);
        let gone = store::absent().find(|member| *member > self.member).unwrap_or(store::FIRST);
        for (member, status) in [(neighbour, 403), (gone, 404)] {
            if member != self.member {
                let path = Page::Orders.path(member);
                self.ask(self.proving(Ask::new("GET", &path)), status)?;
            }
        }
        let nowhere = format!("/members/{}/coupons?page=2", self.member);
        self.ask(self.proving(Ask::new("GET", &nowhere)), 404)?;
        if let Some(tokens) = &self.tokens {
            let cut = tokens.access.len().saturating_sub(4);
            let broken = tokens.access.get(..cut).unwrap_or_default();
            let path = Page::Profile.path(self.member);
            self.ask(Ask::new("GET", &path).field(format!("Authorization: Bearer {broken}")), 401)?;
        }
        Ok(())
    }

    fn log_out(&mut self) -> Result<()> {
        self.ask(self.with_cookie(self.proving(Ask::new("POST", "/logout"))), 204)?;
        Ok(())
    }

    /// The request with what the member proves themselves with.
    fn proving<'r>(&self, ask: Ask<'r>) -> Ask<'r> {
        let ask = match (self.manner, &self.tokens) {
            (Manner::Token(scheme), Some(tokens)) => ask.field(format!("Authorization: {scheme}{}", tokens.access)),
            (Manner::Both, Some(tokens)) => ask.field(format!("authorization: BEARER {}", tokens.access)),
            _ => ask,
        };
        if matches!(self.manner, Manner::Token(_)) { ask } else { self.with_cookie(ask) }
    }

    fn with_cookie<'r>(&self, ask: Ask<'r>) -> Ask<'r> {
        match &self.session {
            Some(session) if !ask.fields.iter().any(|field| field.starts_with("Cookie")) => {
                ask.field(format!("Cookie: theme=dark; SESSION={session}; seen=1"))
            }
            _ => ask,
        }
    }

    /// Sends one request in some manner of segmentation and checks the status of its answer.
    fn ask(&mut self, ask: Ask, status: u16) -> Result<Message> {
        let ask = if self.dice.chance(10) {
            // A large head: analytics cookies of a browser that has been around.
            ask.field(format!("X-Trace: {}", "0123456789abcdef".repeat(120)))
        } else {
            ask.field("User-Agent: Mozilla/5.0 (lab)").field("Accept: */*")
        };
        let bytes = ask.bytes();
        let cut = if self.dice.chance(25) {
            Cut::At(usize::try_from(self.dice.below(u64::try_from(bytes.len()).unwrap_or(1))).unwrap_or_default() + 1)
        } else {
            Cut::Whole
        };
        self.send(&bytes, cut)?;
        let answer = self.receive(&ask)?;
        expect(&ask, &answer, status)?;
        Ok(answer)
    }

    fn send(&mut self, bytes: &[u8], cut: Cut) -> Result<()> {
        interrupt::check()?;
        // Some requests follow their predecessor at once: a use right behind its own login must not look unissued.
        if !self.dice.chance(30) {
            let most = u64::try_from(self.crowd.pause.as_millis()).unwrap_or(u64::MAX);
            thread::sleep(Duration::from_millis(self.dice.below(most + 1)));
        }
        if self.dice.chance(15) {
            self.connection = None;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.source)?,
        };
        connection.send(bytes, cut)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn receive(&mut self, ask: &Ask) -> Result<Message> {
        let Some(connection) = &mut self.connection else { return Err(LabError::Http("no connection".into())) };
        let answer = connection.receive(ask.method == "HEAD")?;
        if answer.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            self.connection = None;
        }
        let status = answer.status().unwrap_or_default();
        self.crowd.shared.count(ask.method, ask.target, status, answer.field("content-type").unwrap_or_default());
        if let Some(cookie) = answer.field("set-cookie").and_then(|field| field.strip_prefix("SESSION=")) {
            let value = cookie.split(';').next().unwrap_or_default();
            self.session = (!value.is_empty()).then(|| value.to_owned());
            self.crowd.shared.wallet().sessions.extend(self.session.clone());
        }
        Ok(answer)
    }
}

fn expect(ask: &Ask, answer: &Message, status: u16) -> Result<()> {
    if answer.status() == Some(status) {
        return Ok(());
    }
    let (method, target, line) = (ask.method, ask.target, &answer.line);
    Err(LabError::Http(format!("{method} {target} was answered {line:?} where {status} was due")))
}

fn html(page: &Message) -> Result<()> {
    of_type(page, "text/html")
}

fn json_page(page: &Message) -> Result<()> {
    of_type(page, "application/json")
}

fn of_type(page: &Message, content_type: &str) -> Result<()> {
    match page.field("content-type") {
        Some(value) if value.starts_with(content_type) => Ok(()),
        other => Err(LabError::Http(format!("a page of type {other:?} where {content_type} was due"))),
    }
}
