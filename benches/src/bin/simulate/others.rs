//! Whoever else uses the service: customer service, partners' services, crawlers.

use sensor_ebpf::wire::place;

use crate::feed::{Failed, Feed, Route};
use crate::outlet::{ERROR_PAGE, Sent};
use crate::sim::{Sim, Task};
use crate::token::{Held, STAFF, Secret};
use crate::visit::{page, put_credential, put_number, write_line};
use crate::world::SECOND;

/// Seconds between two members' pages that one of the staff reads.
const STAFF_GAP_S: f64 = 40.0;
/// Hours of the day, from the start's, in which the staff works.
const OFFICE_HOURS: std::ops::Range<f64> = 0.0..9.0;
/// Requests a second of a partner's service.
const PARTNER_RATE: f64 = 0.5;
/// Requests a second of a crawler.
const CRAWLER_RATE: f64 = 2.0;
/// Of these, the share for a page that asks for a login.
const CRAWLER_DENIED: f64 = 0.002;

impl<F: Feed> Sim<'_, F> {
    /// One of the staff opens a member's page; logs in first when the token is over.
    pub fn staff(&mut self, who: u32) -> Result<(), Failed> {
        let at_ns = self.after(1.0 / STAFF_GAP_S);
        self.file(at_ns, Task::Staff(who));
        let seconds = self.seconds();
        let (day, hour) = ((seconds / 86_400.0) as u64, seconds / 3600.0 % 24.0);
        // The simulation starts on a Sunday, of which a third of the staff works.
        let weekend = day % 7 == 0 || day % 7 == 6;
        if !OFFICE_HOURS.contains(&hour) || (weekend && !who.is_multiple_of(3)) {
            return Ok(());
        }
        // 192.0.2.0/28, the office
        let client = 0xc000_0200 + who % 14;
        let subject = 9_000_000_000 + u64::from(who);
        let Some((_, ends_ns)) = self.staff_tokens.get(who as usize).copied() else { return Ok(()) };
        if ends_ns < self.out.at_ns + 10 * SECOND {
            return self.staff_login(who, client, subject);
        }
        let member = self.world.member(&mut self.rng);
        let route = page(&mut self.rng);
        let other = 1_000_000 + self.rng.below(9_000_000);
        write_line(&mut self.out.line, route, member, other);
        let Some((claims, _)) = self.staff_tokens.get(who as usize) else { return Ok(()) };
        let secret = Secret::Jwt(claims.text(), subject);
        let fingerprint = self.mint.fingerprint(&secret);
        let shown = [Held { place: place::AUTHORIZATION, index: 0, secret, fingerprint }];
        self.out.send(Sent { client, route, shown: &shown, status: 200, bytes: 2200, handed: &[] })?;
        Ok(())
    }

    /// One of the staff logs in.
    pub fn staff_login(&mut self, who: u32, client: u32, subject: u64) -> Result<(), Failed> {
        let life = self.plan.members.token_lifetime_s;
        let now = self.mint.issuer_seconds(self.out.at_ns);
        let kid = self.kid();
        let claims = self.mint.claims(kid, &STAFF, subject, (now, now + life as i64), subject);
        self.login_request(subject, Route::StaffLogin);
        self.out.response.push(b'{');
        put_number(&mut self.out.response, "member", subject);
        put_credential(&mut self.out.response, "access_token", &Secret::Jwt(claims.text(), subject));
        self.out.response.push(b'}');
        let good =
            self.out.send(Sent { client, route: Route::StaffLogin, shown: &[], status: 200, bytes: 0, handed: &[] })?;
        let ends_ns = self.out.at_ns + (life * SECOND as f64) as u64;
        if let Some(place) = self.staff_tokens.get_mut(who as usize).filter(|_| good) {
            *place = (claims, ends_ns);
        }
        Ok(())
    }

    /// A partner's service asks for a member's orders.
    pub fn partner(&mut self, which: u32) -> Result<(), Failed> {
        let at_ns = self.after(PARTNER_RATE);
        self.file(at_ns, Task::Partner(which));
        let member = self.world.member(&mut self.rng);
        let other = 1_000_000 + self.rng.below(9_000_000);
        write_line(&mut self.out.line, Route::Order, member, other);
        let secret = Secret::Opaque(self.world.number(u64::from(which), 77));
        let fingerprint = self.mint.fingerprint(&secret);
        let shown = [Held { place: place::HEADER, index: 0, secret, fingerprint }];
        // 198.51.100.0/24
        let client = 0xc633_6400 + which % 250;
        self.out.send(Sent { client, route: Route::Order, shown: &shown, status: 200, bytes: 1400, handed: &[] })?;
        Ok(())
    }

    /// A crawler looks at the next product.
    pub fn crawler(&mut self, which: u32) -> Result<(), Failed> {
        let at_ns = self.after(CRAWLER_RATE);
        self.file(at_ns, Task::Crawler(which));
        let Some(place) = self.crawled.get_mut(which as usize) else { return Ok(()) };
        *place += 1;
        let product = *place;
        // 66.249.64.0/20
        let client = 0x42f9_4000 + which * 16 + (product % 8) as u32;
        let denied = self.rng.chance(CRAWLER_DENIED);
        let (route, status, bytes) =
            if denied { (Route::Profile, 401, ERROR_PAGE) } else { (Route::Product, 200, 5000) };
        write_line(&mut self.out.line, route, self.world.ids / 2 + 1, product);
        self.out.send(Sent { client, route, shown: &[], status, bytes, handed: &[] })?;
        Ok(())
    }
}
