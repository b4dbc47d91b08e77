//! Members: they come, log in or refresh, read their pages, look at products, and go.

use sensor_ebpf::wire::place;

use crate::feed::{Failed, Feed, Route};
use crate::outlet::{ERROR_PAGE, Sent};
use crate::rng::Rng;
use crate::sim::{Sim, Task};
use crate::token::{ACCESS, Claims, Held, INTERNAL, REFRESH, SISTER, Secret, decimal};
use crate::world::{Habit, SECOND, START_NS, is_nobodys};

/// Of a visit's requests, the share that are for products.
const PRODUCTS: f64 = 0.3;
/// Products.
const PRODUCT_COUNT: u64 = 400_000;
/// Share of pages that are gone (an order that was deleted).
const GONE: f64 = 0.002;
/// Share of logins with a wrong password first.
const WRONG_PASSWORD: f64 = 0.04;
/// Share of visits that end with a logout.
const LOGOUT: f64 = 0.05;
/// Of the visits in a storm of logins, the share that read only a page or two.
const HASTY: f64 = 0.8;
/// Requests after which an answer renews a rolling cookie.
const ROLL_AFTER: u8 = 8;
/// Index of the cookies in the configuration.
pub const SESSION: u8 = 0;
pub const ROLL: u8 = 1;
pub const TOKEN: u8 = 2;

/// What a visit authenticates with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum With {
    /// A JWT, as bearer.
    Bearer,
    /// An opaque cookie.
    Session,
    /// A cookie that answers renew.
    Rolling,
}

/// A visit under way; of a size that costs the processor one line of memory.
#[repr(align(64))]
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    fingerprint: [u8; 16],
    member: u32,
    /// What its credential follows from.
    number: u64,
    /// What its refresh token follows from.
    refresh: u64,
    /// When the refresh token was issued, seconds.
    refresh_iat: u32,
    /// When its token ends, seconds since the start.
    ends_s: u32,
    client: u32,
    /// Account pages that are still to be read.
    pub left: u16,
    /// Bytes of the token's claims.
    claims_len: u16,
    since_roll: u8,
    with: With,
    /// Issued by our own login.
    own: bool,
}

const _: () = assert!(size_of::<Visit>() == 64, "one line of memory");

/// Writes a request line with the member's number.
pub fn write_line(line: &mut Vec<u8>, route: Route, member: u64, other: u64) {
    line.clear();
    let (front, back) = match route {
        Route::Profile => (&b"GET /members/"[..], &b""[..]),
        Route::Addresses => (&b"GET /members/"[..], &b"/addresses"[..]),
        Route::Orders => (&b"GET /members/"[..], &b"/orders"[..]),
        Route::Order => (&b"GET /members/"[..], &b"/orders/"[..]),
        Route::Dormant => (&b"GET /v1/members/"[..], &b"/profile"[..]),
        Route::Product => (&b"GET /products/"[..], &b""[..]),
        Route::Login => (&b"POST /login"[..], &b""[..]),
        Route::Otp => (&b"POST /login/otp"[..], &b""[..]),
        Route::SignUp => (&b"POST /signup"[..], &b""[..]),
        Route::StaffLogin => (&b"POST /staff/login"[..], &b""[..]),
        Route::Refresh => (&b"POST /token/refresh"[..], &b""[..]),
        Route::Logout => (&b"POST /logout"[..], &b""[..]),
        Route::Password => (&b"POST /login/password"[..], &b""[..]),
        Route::MovedLogin => (&b"POST /v2/auth/login"[..], &b""[..]),
    };
    line.extend_from_slice(front);
    if front.starts_with(b"G") {
        decimal(if route == Route::Product { other } else { member }, line);
    }
    line.extend_from_slice(back);
    if route == Route::Order {
        decimal(other, line);
    }
    line.extend_from_slice(b" HTTP/1.1");
}

/// The page that a member reads.
pub fn page(rng: &mut Rng) -> Route {
    match rng.next() & 63 {
        0..28 => Route::Addresses,
        28..44 => Route::Profile,
        44..57 => Route::Orders,
        _ => Route::Order,
    }
}

/// Appends `"name":"` and the text of a credential and `"`, with a comma in front of all but the first.
pub fn put_credential(out: &mut Vec<u8>, name: &str, secret: &Secret<'_>) {
    out.extend_from_slice(if out.ends_with(b"{") { b"\"" } else { b",\"" });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    crate::token::write(secret, out);
    out.push(b'"');
}

/// Appends `,"name":number`, likewise.
pub fn put_number(out: &mut Vec<u8>, name: &str, number: u64) {
    out.extend_from_slice(if out.ends_with(b"{") { b"\"" } else { b",\"" });
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    decimal(number, out);
}

impl<F: Feed> Sim<'_, F> {
    /// Issues what members of the app hold at the start.
    pub fn snapshot(&mut self) -> Result<(), Failed> {
        for member in 1..=self.world.ids {
            if !self.world.exists(member) || self.world.habit(member) != Habit::App {
                continue;
            }
            let (number, iat) = self.app_refresh(member, START_NS);
            let claims = self.refresh_claims(member, number, iat);
            let secret = Secret::Jwt(claims.text(), number);
            let fingerprint = self.mint.fingerprint(&secret);
            self.out.feed.held_before(&Held { place: place::BODY, index: 0, secret, fingerprint })?;
        }
        for partner in 0..self.plan.members.partners {
            let secret = Secret::Opaque(self.world.number(u64::from(partner), 77));
            let fingerprint = self.mint.fingerprint(&secret);
            self.out.feed.held_before(&Held { place: place::HEADER, index: 0, secret, fingerprint })?;
        }
        Ok(())
    }

    /// Number and `iat` of the refresh token that a member of the app got last before `at_ns`, had they come at once when
    /// the one before was over.
    fn app_refresh(&self, member: u64, at_ns: u64) -> (u64, i64) {
        let life = (self.plan.members.refresh_lifetime_s as u64).max(1);
        let phase = self.world.number(member, 0) % life;
        let epoch = (at_ns / SECOND + phase) / life;
        (self.world.number(member, 1 + epoch), (epoch * life).saturating_sub(phase) as i64)
    }

    fn refresh_claims(&mut self, member: u64, number: u64, iat: i64) -> Claims {
        let exp = iat + self.plan.members.refresh_lifetime_s as i64;
        // Long-lived tokens are signed with the key that was there first.
        self.mint.claims("2025-04", &REFRESH, member, (iat, exp), number)
    }

    /// The next member comes.
    pub fn arrival(&mut self) -> Result<(), Failed> {
        let at_ns = self.after(self.arrivals());
        // When things change soon, the rate does.
        self.file(at_ns.min(self.out.at_ns + 60 * SECOND), Task::Arrival);
        if at_ns > self.out.at_ns + 60 * SECOND {
            return Ok(());
        }
        let day = (self.out.at_ns - START_NS) / (86_400 * SECOND);
        let member = self.world.visitor(&mut self.rng, day);
        let visit = self.new_visit(member);
        if self.rng.chance(self.plan.members.internal_minted_share) {
            self.internal(visit);
            return Ok(());
        }
        match self.world.habit(member) {
            Habit::Sister => {
                self.sister(visit);
                Ok(())
            }
            Habit::App => self.open_app(visit).map(|_| ()),
            Habit::Token => self.log_in(visit, With::Bearer).map(|_| ()),
            Habit::Session => self.log_in(visit, With::Session).map(|_| ()),
            Habit::Rolling => self.log_in(visit, With::Rolling).map(|_| ()),
        }
    }

    fn new_visit(&mut self, member: u64) -> u32 {
        let hasty = self.storm() && self.rng.chance(HASTY);
        let mean = if hasty { 1.5 } else { self.plan.members.reads_per_session };
        // Most visits are short, some are long.
        let left = self.rng.exponential(1.0 / mean.max(0.1));
        let visit = Visit {
            fingerprint: [0; 16],
            member: member as u32,
            number: self.rng.next(),
            refresh: self.rng.next(),
            refresh_iat: 0,
            ends_s: 0,
            client: self.world.address(member),
            left: self.rng.round(left).clamp(1, 2000) as u16,
            claims_len: 0,
            since_roll: 0,
            with: With::Bearer,
            own: true,
        };
        if let Some(at) = self.free.pop() {
            if let Some(place) = self.visits.get_mut(at as usize) {
                *place = visit;
            }
            return at;
        }
        self.visits.push(visit);
        self.claims.push(Claims::default());
        self.visits.len() as u32 - 1
    }

    fn visit(&self, visit: u32) -> Option<Visit> {
        self.visits.get(visit as usize).copied()
    }

    /// Gives a visit a new access token; its claims are kept beside it.
    fn mint_access(&mut self, at: u32, issuer: &crate::token::Issuer) {
        let kid = self.kid();
        let now = self.mint.issuer_seconds(self.out.at_ns);
        let life = self.plan.members.token_lifetime_s as i64;
        let number = self.rng.next();
        let Some(member) = self.visit(at).map(|visit| u64::from(visit.member)) else { return };
        let claims = self.mint.claims(kid, issuer, member, (now, now + life), number);
        let fingerprint = self.mint.fingerprint(&Secret::Jwt(claims.text(), number));
        let ends_s = (self.seconds() + life as f64) as u32;
        self.last_times = (now, now + life);
        if let (Some(visit), Some(place)) = (self.visits.get_mut(at as usize), self.claims.get_mut(at as usize)) {
            *place = claims;
            (visit.number, visit.fingerprint, visit.ends_s, visit.with) = (number, fingerprint, ends_s, With::Bearer);
            visit.claims_len = claims.len();
        }
    }

    /// True for an issuance that the sensor does not see, for no known reason.
    fn missed(&mut self) -> bool {
        let rate = self.plan.members.unexplained_miss_rate;
        rate > 0.0 && self.rng.chance(rate)
    }

    /// Sends an issuance, whose bodies stand in the outlet; the visit goes on if it succeeded, which is told.
    fn issue(&mut self, at: u32, route: Route, status: u16, handed: &[Held<'_>]) -> Result<bool, Failed> {
        let Some(client) = self.visit(at).map(|visit| visit.client) else { return Ok(false) };
        let missed = self.missed();
        let bytes = self.out.response.len() as u64;
        let good = if missed {
            self.out.miss();
            true
        } else {
            self.out.send(Sent { client, route, shown: &[], status, bytes, handed })?
        };
        if good {
            let gap = self.gaps.draw(&mut self.rng) / 8;
            self.wait(at, gap);
        } else {
            self.free.push(at);
        }
        Ok(good)
    }

    /// A login with a password, perhaps with a second step. True when it succeeded.
    fn log_in(&mut self, at: u32, with: With) -> Result<bool, Failed> {
        let Some(visit) = self.visit(at) else { return Ok(false) };
        let steps = self.rng.chance(self.plan.members.multi_step_login.0);
        let route = match (self.logins_moved, steps) {
            (true, _) => Route::MovedLogin,
            (false, true) => Route::Otp,
            (false, false) => Route::Login,
        };
        if self.rng.chance(WRONG_PASSWORD) {
            self.failed_login(visit.client, u64::from(visit.member), if steps { Route::Password } else { route })?;
        }
        if steps {
            self.login_request(u64::from(visit.member), Route::Password);
            self.out.response.extend_from_slice(b"{\"next\":\"otp\"}");
            self.out.send(Sent {
                client: visit.client,
                route: Route::Password,
                shown: &[],
                status: 200,
                bytes: 0,
                handed: &[],
            })?;
        }
        if with == With::Bearer {
            self.mint_access(at, &ACCESS);
        } else {
            self.new_cookie(at, with);
        }
        let Some(visit) = self.visit(at) else { return Ok(false) };
        self.login_request(u64::from(visit.member), route);
        self.out.response.extend_from_slice(b"{\"result\":\"ok\"");
        put_number(&mut self.out.response, "member", u64::from(visit.member));
        if with != With::Bearer {
            self.out.response.push(b'}');
            let index = if with == With::Session { SESSION } else { ROLL };
            let (secret, fingerprint) = (Secret::Opaque(visit.number), visit.fingerprint);
            return self.issue(at, route, 200, &[Held { place: place::SET_COOKIE, index, secret, fingerprint }]);
        }
        let iat = self.mint.issuer_seconds(self.out.at_ns);
        let refresh = self.refresh_claims(u64::from(visit.member), visit.refresh, iat);
        if let Some(visit) = self.visits.get_mut(at as usize) {
            visit.refresh_iat = iat as u32;
        }
        self.put_tokens(at, Some((&refresh, visit.refresh)));
        self.issue(at, route, 200, &[])
    }

    /// Ends the response with the visit's access token, and a refresh token.
    fn put_tokens(&mut self, at: u32, refresh: Option<(&Claims, u64)>) {
        let out = &mut self.out.response;
        if let (Some(visit), Some(claims)) = (self.visits.get(at as usize), self.claims.get(at as usize)) {
            put_credential(out, "access_token", &Secret::Jwt(claims.text(), visit.number));
        }
        if let Some((claims, number)) = refresh {
            put_credential(out, "refresh_token", &Secret::Jwt(claims.text(), number));
        }
        out.push(b'}');
    }

    /// Writes the lines of a login by `member`.
    pub fn login_request(&mut self, member: u64, route: Route) {
        write_line(&mut self.out.line, route, 0, 0);
        self.out.request.clear();
        self.out.request.push(b'{');
        put_number(&mut self.out.request, "login", member);
        self.out.request.push(b'}');
        self.out.response.clear();
    }

    /// A login with a wrong password.
    pub fn failed_login(&mut self, client: u32, member: u64, route: Route) -> Result<(), Failed> {
        self.login_request(member, route);
        self.out.response.extend_from_slice(b"{\"result\":\"no\"}");
        let status = if self.plan.members.soft_200 { 200 } else { 401 };
        self.out.send(Sent { client, route, shown: &[], status, bytes: 0, handed: &[] }).map(|_| ())
    }

    fn new_cookie(&mut self, at: u32, with: With) {
        let number = self.rng.next();
        let fingerprint = self.mint.fingerprint(&Secret::Opaque(number));
        let ends_s = (self.seconds() + 43_000.0) as u32;
        if let Some(visit) = self.visits.get_mut(at as usize) {
            (visit.number, visit.fingerprint, visit.ends_s, visit.with) = (number, fingerprint, ends_s, with);
        }
    }

    /// The app opens: a refresh, or a login when the refresh token is over.
    fn open_app(&mut self, at: u32) -> Result<bool, Failed> {
        let Some(member) = self.visit(at).map(|visit| u64::from(visit.member)) else { return Ok(false) };
        let (number, iat) = self.app_refresh(member, self.out.at_ns);
        let before = self.app_refresh(member, START_NS).0;
        let known = self.app_logins.get(&member).copied().filter(|since| *since >= iat);
        let iat = known.or((number == before).then_some(iat));
        if let Some(visit) = self.visits.get_mut(at as usize) {
            visit.refresh = number;
            visit.refresh_iat = iat.unwrap_or(0) as u32;
        }
        if iat.is_some() {
            return self.refresh(at);
        }
        let now = self.mint.issuer_seconds(self.out.at_ns);
        let good = self.log_in(at, With::Bearer)?;
        if good {
            self.app_logins.insert(member, now);
        }
        Ok(good)
    }

    /// Exchanges the refresh token for an access token.
    fn refresh(&mut self, at: u32) -> Result<bool, Failed> {
        self.mint_access(at, &ACCESS);
        let Some(visit) = self.visit(at) else { return Ok(false) };
        let claims = self.refresh_claims(u64::from(visit.member), visit.refresh, i64::from(visit.refresh_iat));
        write_line(&mut self.out.line, Route::Refresh, 0, 0);
        self.out.request.clear();
        self.out.request.push(b'{');
        put_credential(&mut self.out.request, "refresh_token", &Secret::Jwt(claims.text(), visit.refresh));
        self.out.request.push(b'}');
        self.out.response.clear();
        self.out.response.push(b'{');
        self.put_tokens(at, None);
        self.issue(at, Route::Refresh, 200, &[])
    }

    /// A login at the sister company: the sensor sees none of it.
    fn sister(&mut self, at: u32) {
        self.mint_access(at, &SISTER);
        self.foreign(at);
    }

    /// Our own services' calls, from inside.
    fn internal(&mut self, at: u32) {
        self.mint_access(at, &INTERNAL);
        if let Some(visit) = self.visits.get_mut(at as usize) {
            // 10.20.0.0/16
            visit.client = 0x0a14_0000 + (visit.member & 0xff);
        }
        self.foreign(at);
    }

    fn foreign(&mut self, at: u32) {
        if let Some(visit) = self.visits.get_mut(at as usize) {
            visit.own = false;
        }
        self.wait(at, 1);
    }

    /// The next request of a visit.
    pub fn step(&mut self, at: u32) -> Result<(), Failed> {
        let Some(visit) = self.visit(at) else { return Ok(()) };
        if f64::from(visit.ends_s) < self.seconds() + 5.0 {
            return match (visit.own, visit.with) {
                (true, With::Bearer) if self.plan.members.refresh.0 > 0.0 => self.refresh(at).map(|_| ()),
                (true, with) => self.log_in(at, with).map(|_| ()),
                (false, _) => {
                    self.free.push(at);
                    Ok(())
                }
            };
        }
        if visit.left == 0 {
            return self.leave(at);
        }
        let draw = self.rng.next();
        let product = (draw & 0xffff) as f64 / 65_536.0 < PRODUCTS;
        let gone = !product && ((draw >> 16) & 0xffff) as f64 / 65_536.0 < GONE;
        let route = match (product, gone) {
            (true, _) => Route::Product,
            (false, true) => Route::Order,
            (false, false) => page(&mut self.rng),
        };
        let other = if product { self.rng.below(PRODUCT_COUNT) } else { 1_000_000 + (draw >> 32) % 9_000_000 };
        write_line(&mut self.out.line, route, u64::from(visit.member), other);
        let missing = if self.plan.members.soft_200 { 200 } else { 404 };
        let (status, bytes) = if gone { (missing, ERROR_PAGE) } else { (200, 900 + (draw >> 48) % 4096) };
        self.request(at, &visit, route, (status, bytes), u16::from(!product))
    }

    /// Sends a visit's request, whose line stands in the outlet.
    fn request(
        &mut self,
        at: u32,
        visit: &Visit,
        route: Route,
        (status, bytes): (u16, u64),
        read: u16,
    ) -> Result<(), Failed> {
        let fingerprint = visit.fingerprint;
        let mut handed = None;
        if visit.with == With::Rolling && visit.since_roll >= ROLL_AFTER {
            self.new_cookie(at, With::Rolling);
            handed = self.visit(at).map(|new| Held {
                place: place::SET_COOKIE,
                index: ROLL,
                secret: Secret::Opaque(new.number),
                fingerprint: new.fingerprint,
            });
        }
        let claims = self.claims.get(at as usize).map_or(&[][..], |claims| claims.first(visit.claims_len));
        let shown = match visit.with {
            With::Bearer => {
                Held { place: place::AUTHORIZATION, index: 0, secret: Secret::Jwt(claims, visit.number), fingerprint }
            }
            With::Session => {
                Held { place: place::COOKIE, index: SESSION, secret: Secret::Opaque(visit.number), fingerprint }
            }
            With::Rolling => {
                Held { place: place::COOKIE, index: ROLL, secret: Secret::Opaque(visit.number), fingerprint }
            }
        };
        let client = visit.client;
        let sent = self.out.send(Sent { client, route, shown: &[shown], status, bytes, handed: handed.as_slice() })?;
        if let Some(kept) = self.visits.get_mut(at as usize) {
            kept.left -= read;
            kept.since_roll = if handed.is_some() { 0 } else { kept.since_roll.saturating_add(1) };
            if handed.is_some() && !sent {
                // The new cookie never arrived.
                (kept.number, kept.fingerprint) = (visit.number, visit.fingerprint);
            }
        }
        let gap = self.gaps.draw(&mut self.rng);
        self.wait(at, gap);
        Ok(())
    }

    /// The end of a visit, sometimes with a logout.
    fn leave(&mut self, at: u32) -> Result<(), Failed> {
        self.free.push(at);
        let Some(visit) = self.visit(at) else { return Ok(()) };
        if !visit.own || !self.rng.chance(LOGOUT) {
            return Ok(());
        }
        write_line(&mut self.out.line, Route::Logout, 0, 0);
        let claims = self.claims.get(at as usize).map_or(&[][..], Claims::text);
        let (place, index, secret) = match visit.with {
            With::Bearer => (place::AUTHORIZATION, 0, Secret::Jwt(claims, visit.number)),
            With::Session => (place::COOKIE, SESSION, Secret::Opaque(visit.number)),
            With::Rolling => (place::COOKIE, ROLL, Secret::Opaque(visit.number)),
        };
        let shown = [Held { place, index, secret, fingerprint: visit.fingerprint }];
        self.out.send(Sent {
            client: visit.client,
            route: Route::Logout,
            shown: &shown,
            status: 200,
            bytes: 2,
            handed: &[],
        })?;
        Ok(())
    }

    /// Somebody becomes a member: the next number, a token, a look at the new pages.
    pub fn sign_up(&mut self) -> Result<(), Failed> {
        let at_ns = self.after(self.plan.members.signups_per_day / 86_400.0);
        self.file(at_ns, Task::SignUp);
        self.signed_up += 1;
        if is_nobodys(self.world.ids + self.signed_up) {
            self.signed_up += 1;
        }
        let at = self.new_visit(self.world.ids + self.signed_up);
        self.mint_access(at, &ACCESS);
        let Some(visit) = self.visit(at) else { return Ok(()) };
        let iat = self.mint.issuer_seconds(self.out.at_ns);
        let refresh = self.refresh_claims(u64::from(visit.member), visit.refresh, iat);
        if let Some(visit) = self.visits.get_mut(at as usize) {
            visit.refresh_iat = iat as u32;
        }
        write_line(&mut self.out.line, Route::SignUp, 0, 0);
        self.out.request.clear();
        self.out.request.extend_from_slice(b"{\"name\":\"new\"}");
        self.out.response.clear();
        self.out.response.push(b'{');
        put_number(&mut self.out.response, "member", u64::from(visit.member));
        self.put_tokens(at, Some((&refresh, visit.refresh)));
        self.issue(at, Route::SignUp, 201, &[]).map(|_| ())
    }
}
