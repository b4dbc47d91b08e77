//! The attack: whom it goes for, with what, whence, how fast. It reads what members read, at the hours at which they do.

use std::collections::HashSet;

use sensor_ebpf::wire::place;

use crate::feed::{Failed, Feed, Route};
use crate::outlet::{ERROR_PAGE, Sent, gap_at};
use crate::rng::Rng;
use crate::scenario::{self, Actor, AddressKind, ForgedIat, Kid, Kind, Order, RouteChoice, Via};
use crate::sim::{Sim, Task};
use crate::token::{ACCESS, Claims, Held, Issuer, OTHER_AUDIENCE, REFRESH, STAFF, Secret};
use crate::visit::{SESSION, TOKEN, page, put_credential, put_number, write_line};
use crate::world::{SECOND, START_NS, START_S, busy};

/// Logouts a second with made-up tokens, beside those with forged ones.
const SPAM_RATE: f64 = 5.0;
/// Own logins a second, to fill the ledger.
const FLOOD_RATE: f64 = 30.0;
/// Of tried passwords, the share that fit (Tmoney 2025: 51,691 of 12.26 million; domain A3).
const STUFFING_HITS: f64 = 0.0042;

/// What the attack does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// A request for an account that exists.
    Read,
    /// One for an account that does not.
    Absent,
    /// A logout with a made-up token.
    Spam,
    /// A login with an account of its own.
    Flood,
}

/// A credential that the attack holds.
#[derive(Clone, Copy, Debug)]
struct Token {
    jwt: bool,
    claims: Claims,
    number: u64,
    fingerprint: [u8; 16],
    place: u8,
    index: u8,
}

impl Token {
    fn held(&self) -> Held<'_> {
        let secret = if self.jwt { Secret::Jwt(self.claims.text(), self.number) } else { Secret::Opaque(self.number) };
        Held { place: self.place, index: self.index, secret, fingerprint: self.fingerprint }
    }
}

/// The account that is being read.
#[derive(Clone, Copy, Debug)]
struct Target {
    id: u64,
    left: u64,
    token: Option<Token>,
    address: u32,
}

/// What an address has of its own.
#[derive(Clone, Copy, Debug, Default)]
struct Base {
    address: u32,
    /// An account, once it logged in with it.
    login: Option<(Token, u64)>,
}

/// The attack under way.
#[derive(Debug)]
pub struct Attack {
    plan: scenario::Attack,
    rng: Rng,
    bases: Vec<Base>,
    end_ns: u64,
    /// Requests a second on average, for accounts that exist.
    rate: f64,
    cursor: u64,
    absent: u64,
    target: Option<Target>,
    /// Accounts so far.
    taken: u64,
    chosen: HashSet<u64>,
    turn: usize,
}

impl Attack {
    /// Files the attack's first tasks, if there is one.
    pub fn begin<F: Feed>(sim: &mut Sim<'_, F>) -> Option<Self> {
        let plan = sim.plan.attack.clone();
        if plan.kind == Kind::None {
            return None;
        }
        let mut rng = Rng::new(sim.plan.members.seed, 3);
        let start_ns = START_NS + (plan.start_day * 86_400.0 * SECOND as f64) as u64;
        let span_s = plan.span_s.max(1.0);
        let views = plan.views_per_account.max(1.0);
        let rate = match plan.requests_per_second {
            0.0 => plan.accounts as f64 * views / span_s,
            given => given,
        };
        let base = |which: u64| {
            let address = match plan.address_kind {
                AddressKind::SharedNat => sim.world.nat_address(crate::rng::mix(which ^ 0x6e61_7473)),
                // 185.0.0.0/8 and 186.0.0.0/8: one in a network each, as rented ones are
                AddressKind::Own => 0xb900_0000 + (crate::rng::mix(which) % 0x1_ffff) as u32 * 256 + 7,
            };
            Base { address, login: None }
        };
        let bases = (0..plan.addresses.max(1)).map(base).collect();
        let cursor = rng.below(sim.world.ids / 2 + 1);
        sim.truth.began_ns = Some(start_ns);
        let mut attack = Self {
            end_ns: start_ns + (span_s * SECOND as f64) as u64,
            rate,
            cursor,
            absent: cursor,
            target: None,
            taken: 0,
            chosen: HashSet::new(),
            turn: 0,
            bases,
            rng,
            plan,
        };
        let mut parts = Vec::new();
        if attack.plan.kind != Kind::NonexistentMembers && attack.rate > 0.0 {
            parts.push((Part::Read, attack.rate));
        }
        if attack.absent_rate() > 0.0 {
            parts.push((Part::Absent, attack.absent_rate()));
        }
        match attack.plan.via {
            Via::LogoutSpam => parts.push((Part::Spam, SPAM_RATE)),
            Via::LoginFlood => parts.push((Part::Flood, FLOOD_RATE)),
            _ => {}
        }
        for (part, rate) in parts {
            // The first comes at once, as far as one can say that of a rate.
            let wait = attack.rng.exponential(rate).min(span_s / 20.0);
            sim.file(start_ns + (wait * SECOND as f64) as u64, Task::Attack(part));
        }
        Some(attack)
    }

    fn absent_rate(&self) -> f64 {
        let plan = &self.plan;
        match (plan.kind, plan.nonexistent_per_second) {
            (Kind::NonexistentMembers, 0.0) => self.rate,
            (_, given) => given,
        }
    }

    /// Does `part`, and files the next of its kind.
    pub fn act<F: Feed>(&mut self, sim: &mut Sim<'_, F>, part: Part) -> Result<(), Failed> {
        if sim.out.at_ns >= self.end_ns {
            return Ok(());
        }
        let rate = match part {
            Part::Read => self.rate,
            Part::Absent => self.absent_rate(),
            Part::Spam => SPAM_RATE,
            Part::Flood => FLOOD_RATE,
        };
        // It keeps the members' hours.
        let wait = self.rng.exponential(rate * busy(sim.seconds()).max(0.05));
        sim.file(sim.out.at_ns + (wait * SECOND as f64) as u64, Task::Attack(part));
        match part {
            Part::Read if self.plan.kind == Kind::CredentialStuffing => self.stuff(sim),
            Part::Read => self.read(sim),
            Part::Absent => self.absent(sim),
            Part::Spam => self.spam(sim),
            Part::Flood => {
                let at = self.rng.below(self.bases.len() as u64) as usize;
                self.own_login(sim, at).map(|_| ())
            }
        }
    }

    fn next_base(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.bases.len();
        self.turn
    }

    fn address(&self, base: usize) -> u32 {
        self.bases.get(base).map_or(0, |base| base.address)
    }

    /// The next account to be read, until there were enough.
    fn choose<F: Feed>(&mut self, sim: &Sim<'_, F>) -> Option<u64> {
        if self.taken >= self.plan.accounts {
            return None;
        }
        if self.chosen.len() as u64 >= sim.plan.members.members / 20 * 19 {
            // Nearly all had their turn: an attack that goes for more accounts than there are begins again.
            self.chosen.clear();
        }
        // Nobody logs in as a decoy, or has a session to be stolen.
        let decoys = matches!(self.plan.kind, Kind::ForgedTokens | Kind::BolaIssued | Kind::NoCredential);
        for _ in 0..1_000_000 {
            let id = match self.plan.order {
                Order::Sequential => {
                    self.cursor = self.cursor % sim.world.ids + 1;
                    self.cursor
                }
                Order::Random => self.rng.below(sim.world.ids) + 1,
            };
            if let Some(id) = sim.world.target(id, decoys)
                && self.chosen.insert(id)
            {
                self.taken += 1;
                return Some(id);
            }
        }
        // Everybody was read: it is not looked for again.
        self.taken = self.plan.accounts;
        None
    }

    /// One request for an account that exists.
    fn read<F: Feed>(&mut self, sim: &mut Sim<'_, F>) -> Result<(), Failed> {
        let target = match self.target.take() {
            Some(target) => Some(target),
            None => self.aim(sim)?,
        };
        let Some(mut target) = target else { return Ok(()) };
        if self.plan.kind == Kind::StolenSession {
            let base = self.next_base();
            target.address = self.address(base);
        }
        let route = self.route();
        let bytes = 900 + self.rng.below(4096);
        self.request(sim, &target, route, (200, bytes))?;
        sim.truth.attacked(sim.out.at_ns, target.id, target.address, true);
        target.left -= 1;
        self.target = Some(target).filter(|target| target.left > 0);
        Ok(())
    }

    fn route(&mut self) -> Route {
        match self.plan.route {
            RouteChoice::Dormant => Route::Dormant,
            RouteChoice::Normal => page(&mut self.rng),
        }
    }

    /// Chooses an account and makes ready to read it.
    fn aim<F: Feed>(&mut self, sim: &mut Sim<'_, F>) -> Result<Option<Target>, Failed> {
        let Some(id) = self.choose(sim) else { return Ok(None) };
        let base = self.next_base();
        if self.plan.own_login_first && self.bases.get(base).is_some_and(|base| base.login.is_none()) {
            self.own_login(sim, base)?;
        }
        let token = self.credential(sim, base, id)?;
        if token.is_none() && self.plan.kind == Kind::BolaIssued {
            return Ok(None);
        }
        let left = self.rng.round(self.plan.views_per_account.max(1.0)).max(1);
        Ok(Some(Target { id, left, token, address: self.address(base) }))
    }

    /// What the attack shows when it asks for account `id`.
    fn credential<F: Feed>(&mut self, sim: &mut Sim<'_, F>, base: usize, id: u64) -> Result<Option<Token>, Failed> {
        match self.plan.kind {
            Kind::NoCredential | Kind::None => Ok(None),
            Kind::BolaIssued => match self.plan.actor {
                Actor::Partner => {
                    let number = sim.world.number(0, 77);
                    let fingerprint = sim.mint.fingerprint(&Secret::Opaque(number));
                    let (place, claims) = (place::HEADER, Claims::default());
                    Ok(Some(Token { jwt: false, claims, number, fingerprint, place, index: 0 }))
                }
                _ => self.own_token(sim, base),
            },
            Kind::StolenSession => self.stolen(sim, id).map(Some),
            Kind::ForgedTokens | Kind::NonexistentMembers | Kind::CredentialStuffing => {
                self.forged(sim, base, id).map(Some)
            }
        }
    }

    /// The token of the address's own account, issued by a login; a new one when it is over.
    fn own_token<F: Feed>(&mut self, sim: &mut Sim<'_, F>, base: usize) -> Result<Option<Token>, Failed> {
        let live =
            self.bases.get(base).and_then(|base| base.login).filter(|(_, ends)| *ends > sim.out.at_ns + 60 * SECOND);
        match live {
            Some((token, _)) => Ok(Some(token)),
            None => self.own_login(sim, base),
        }
    }

    /// A login with an account of the attacker's own; `None` when the service fails.
    fn own_login<F: Feed>(&mut self, sim: &mut Sim<'_, F>, base: usize) -> Result<Option<Token>, Failed> {
        let address = self.address(base);
        let now = sim.mint.issuer_seconds(sim.out.at_ns);
        let life = sim.plan.members.token_lifetime_s;
        let (staff, number) = (self.plan.actor == Actor::Staff, self.rng.next());
        let subject = if staff { 9_000_000_000 } else { sim.world.member(&mut self.rng) };
        let (issuer, route) = if staff { (STAFF, Route::StaffLogin) } else { (ACCESS, Route::Login) };
        let kid = sim.kid();
        let claims = sim.mint.claims(kid, &issuer, subject, (now, now + life as i64), number);
        let fingerprint = sim.mint.fingerprint(&Secret::Jwt(claims.text(), number));
        let mut token = Token { jwt: true, claims, number, fingerprint, place: place::AUTHORIZATION, index: 0 };
        sim.login_request(subject, route);
        sim.out.response.extend_from_slice(b"{\"result\":\"ok\"");
        put_number(&mut sim.out.response, "member", subject);
        put_credential(&mut sim.out.response, "access_token", &Secret::Jwt(claims.text(), number));
        sim.out.response.push(b'}');
        let cookie = self.cookie(sim);
        let handed = [Held { place: place::SET_COOKIE, ..cookie.held() }];
        let handed = if staff { &[][..] } else { &handed };
        let good = sim.out.send(Sent { client: address, route, shown: &[], status: 200, bytes: 0, handed })?;
        if self.plan.via == Via::DecoyCookie {
            token = cookie;
        }
        if !good {
            return Ok(None);
        }
        if let Some(base) = self.bases.get_mut(base) {
            base.login = Some((token, sim.out.at_ns + (life * SECOND as f64) as u64));
        }
        Ok(Some(token))
    }

    fn cookie<F: Feed>(&mut self, sim: &mut Sim<'_, F>) -> Token {
        let number = self.rng.next();
        let fingerprint = sim.mint.fingerprint(&Secret::Opaque(number));
        Token { jwt: false, claims: Claims::default(), number, fingerprint, place: place::COOKIE, index: SESSION }
    }

    /// A member logs in, and their session is stolen.
    fn stolen<F: Feed>(&mut self, sim: &mut Sim<'_, F>, id: u64) -> Result<Token, Failed> {
        let token = self.cookie(sim);
        sim.login_request(id, Route::Login);
        sim.out.response.extend_from_slice(b"{\"result\":\"ok\"");
        put_number(&mut sim.out.response, "member", id);
        sim.out.response.push(b'}');
        let client = sim.world.address(id);
        let handed = [Held { place: place::SET_COOKIE, ..token.held() }];
        sim.out.send(Sent { client, route: Route::Login, shown: &[], status: 200, bytes: 0, handed: &handed })?;
        Ok(token)
    }

    fn times<F: Feed>(&self, sim: &Sim<'_, F>) -> (i64, i64) {
        let life = sim.plan.members.token_lifetime_s as i64;
        let now = sim.mint.issuer_seconds(sim.out.at_ns);
        match self.plan.forged_iat {
            ForgedIat::Now => (now, now + life),
            ForgedIat::Copied => sim.last_times,
            // It would be over by now, did it not say that it lives on.
            ForgedIat::BeforeHorizon => (START_S as i64 - 45 * 86_400, now + life),
            ForgedIat::InGap => {
                let at = START_S as i64 + (gap_at(sim.plan) + sim.plan.members.gap_seconds / 2.0) as i64;
                (at, (at + life).max(now + 60))
            }
        }
    }

    /// A token that nobody issued, brought in the way that the plan says.
    fn forged<F: Feed>(&mut self, sim: &mut Sim<'_, F>, base: usize, id: u64) -> Result<Token, Failed> {
        let times = self.times(sim);
        let (kid, issuer) = match self.plan.kid {
            Kid::Current => (sim.kid(), ACCESS),
            Kid::Retired => ("2024-04", ACCESS),
            Kid::Unknown => ("dev-7", ACCESS),
            Kid::OtherAudience => (sim.kid(), OTHER_AUDIENCE),
        };
        let staff = matches!(self.plan.actor, Actor::Staff | Actor::Partner);
        let (issuer, subject) = if staff { (STAFF, 9_000_000_000) } else { (issuer, id) };
        // One token for all that the staff may read, else one for each account.
        if staff
            && let Some((token, ends_ns)) = self.bases.get(base).and_then(|base| base.login)
            && ends_ns > sim.out.at_ns
        {
            return Ok(token);
        }
        let mut token = self.mint(sim, kid, &issuer, subject, times);
        if staff && let Some(base) = self.bases.get_mut(base) {
            base.login = Some((token, sim.out.at_ns + (sim.plan.members.token_lifetime_s * SECOND as f64) as u64));
        }
        match self.plan.via {
            Via::Refresh => token = self.launder(sim, base, kid, id, times)?,
            Via::Echo => token = self.echo(sim, base, &token)?,
            Via::DecoyCookie => drop(self.own_token(sim, base)?),
            Via::LogoutSpam => self.log_out(sim, base, &token)?,
            Via::Direct | Via::LoginFlood => {}
        }
        Ok(token)
    }

    fn mint<F: Feed>(
        &mut self,
        sim: &mut Sim<'_, F>,
        kid: &str,
        issuer: &Issuer,
        subject: u64,
        times: (i64, i64),
    ) -> Token {
        let number = self.rng.next();
        let claims = sim.mint.claims(kid, issuer, subject, times, number);
        let fingerprint = sim.mint.fingerprint(&Secret::Jwt(claims.text(), number));
        Token { jwt: true, claims, number, fingerprint, place: place::AUTHORIZATION, index: 0 }
    }

    /// A forged refresh token is exchanged for an access token that the service really issues.
    fn launder<F: Feed>(
        &mut self,
        sim: &mut Sim<'_, F>,
        base: usize,
        kid: &str,
        id: u64,
        times: (i64, i64),
    ) -> Result<Token, Failed> {
        let refresh = self.mint(sim, kid, &REFRESH, id, (times.0, times.0 + 2_592_000));
        let now = sim.mint.issuer_seconds(sim.out.at_ns);
        let current = sim.kid();
        let life = sim.plan.members.token_lifetime_s as i64;
        let access = self.mint(sim, current, &ACCESS, id, (now, now + life));
        write_line(&mut sim.out.line, Route::Refresh, 0, 0);
        for (body, name, token) in
            [(&mut sim.out.request, "refresh_token", &refresh), (&mut sim.out.response, "access_token", &access)]
        {
            body.clear();
            body.push(b'{');
            put_credential(body, name, &token.held().secret);
            body.push(b'}');
        }
        let client = self.address(base);
        sim.out.send(Sent { client, route: Route::Refresh, shown: &[], status: 200, bytes: 0, handed: &[] })?;
        Ok(access)
    }

    /// A login of the attacker's own, whose answer repeats the forged token that it brought as a cookie.
    fn echo<F: Feed>(&mut self, sim: &mut Sim<'_, F>, base: usize, token: &Token) -> Result<Token, Failed> {
        let token = Token { place: place::COOKIE, index: TOKEN, ..*token };
        let subject = sim.world.member(&mut self.rng);
        let cookie = self.cookie(sim);
        sim.login_request(subject, Route::Login);
        sim.out.response.extend_from_slice(b"{\"result\":\"ok\"");
        put_number(&mut sim.out.response, "member", subject);
        sim.out.response.push(b'}');
        let handed =
            [Held { place: place::SET_COOKIE, ..cookie.held() }, Held { place: place::SET_COOKIE, ..token.held() }];
        let (client, shown) = (self.address(base), [token.held()]);
        sim.out.send(Sent { client, route: Route::Login, shown: &shown, status: 200, bytes: 0, handed: &handed })?;
        Ok(token)
    }

    fn log_out<F: Feed>(&mut self, sim: &mut Sim<'_, F>, base: usize, token: &Token) -> Result<(), Failed> {
        write_line(&mut sim.out.line, Route::Logout, 0, 0);
        let (client, shown) = (self.address(base), [token.held()]);
        sim.out
            .send(Sent { client, route: Route::Logout, shown: &shown, status: 200, bytes: 2, handed: &[] })
            .map(|_| ())
    }

    fn spam<F: Feed>(&mut self, sim: &mut Sim<'_, F>) -> Result<(), Failed> {
        let base = self.next_base();
        let token = self.cookie(sim);
        self.log_out(sim, base, &token)
    }

    /// Sends a request for the target's page.
    fn request<F: Feed>(
        &mut self,
        sim: &mut Sim<'_, F>,
        target: &Target,
        route: Route,
        (status, bytes): (u16, u64),
    ) -> Result<(), Failed> {
        let other = 1_000_000 + self.rng.below(9_000_000);
        write_line(&mut sim.out.line, route, target.id, other);
        let decoy = match self.plan.via {
            Via::DecoyCookie => {
                self.bases.iter().find(|base| base.address == target.address).and_then(|base| base.login)
            }
            _ => None,
        };
        let mut shown = Vec::with_capacity(2);
        shown.extend(decoy.as_ref().map(|(token, _)| token.held()));
        shown.extend(target.token.as_ref().map(Token::held));
        sim.out.send(Sent { client: target.address, route, shown: &shown, status, bytes, handed: &[] }).map(|_| ())
    }

    /// One request for an account that does not exist.
    fn absent<F: Feed>(&mut self, sim: &mut Sim<'_, F>) -> Result<(), Failed> {
        let absent = |id| !sim.world.is_kept(id) && !sim.world.is_decoy(id);
        let id = match self.plan.order {
            Order::Sequential => loop {
                self.absent += 1;
                if absent(self.absent) {
                    break self.absent;
                }
            },
            Order::Random => loop {
                let id = self.rng.below(sim.world.ids * 2) + 1;
                if absent(id) {
                    break id;
                }
            },
        };
        let base = self.next_base();
        let token = match self.plan.kind {
            Kind::NoCredential => None,
            Kind::BolaIssued => self.credential(sim, base, id)?,
            _ => Some(self.forged(sim, base, id)?),
        };
        let target = Target { id, left: 1, token, address: self.address(base) };
        let route = self.route();
        let status = if sim.plan.members.soft_200 { 200 } else { 404 };
        self.request(sim, &target, route, (status, ERROR_PAGE))?;
        sim.truth.attacked(sim.out.at_ns, id, target.address, false);
        Ok(())
    }

    /// One password tried; when it fits, the account's pages are read.
    fn stuff<F: Feed>(&mut self, sim: &mut Sim<'_, F>) -> Result<(), Failed> {
        let Some(id) = self.choose(sim) else { return Ok(()) };
        let base = self.next_base();
        let client = self.address(base);
        if !self.rng.chance(STUFFING_HITS) {
            sim.failed_login(client, id, Route::Login)?;
            sim.truth.attacked(sim.out.at_ns, id, client, false);
            return Ok(());
        }
        let token = self.cookie(sim);
        sim.login_request(id, Route::Login);
        sim.out.response.extend_from_slice(b"{\"result\":\"ok\"");
        put_number(&mut sim.out.response, "member", id);
        sim.out.response.push(b'}');
        let handed = [Held { place: place::SET_COOKIE, ..token.held() }];
        sim.out.send(Sent { client, route: Route::Login, shown: &[], status: 200, bytes: 0, handed: &handed })?;
        let target = Target { id, left: 1, token: Some(token), address: client };
        for _ in 0..self.plan.views_per_account.round().max(1.0) as u64 {
            let route = self.route();
            self.request(sim, &target, route, (200, 1800))?;
            sim.truth.attacked(sim.out.at_ns, id, client, true);
        }
        Ok(())
    }
}
