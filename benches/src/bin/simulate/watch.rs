//! The detectors that people use today, beside the sensor: they are shown the same exchanges as they happen.
//!
//! Exchanges flow in, each with the word whether the attack sent it; rows of what each detector would have said flow out.
//! What a request is (route, account, whether data came back) follows from what the simulated service did, as its
//! configuration says it; tests hold that against what the sensor observes, and against what the attack really got.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use benches::baseline::judge::{Judge, Row};
use benches::baseline::{KEPT, Request, all};
use sensor::config::model::Config;
use sensor::observation::RouteClass;
use serde_json::Value;

use crate::feed::{Act, Route};
use crate::rng::mix;
use crate::token::Secret;
use crate::world::START_S;

/// An answer of less is an error page, as the configuration's `min_length` says.
const PAGE_MIN: u64 = 800;
/// Headers of tokens that are told apart; a service signs with a few keys.
const HEADERS_MAX: usize = 64;

/// Shows exchanges to every detector.
pub struct Watch {
    judge: Judge,
    /// Keys whose signatures pass a check: registered, and not retired.
    good_keys: Vec<String>,
    /// Headers of tokens seen, and whether the key that they name is good.
    headers: Vec<(Vec<u8>, bool)>,
}

impl Watch {
    /// Of a service with the keys of `config`, and an attack that begins at `began_ns`, if there is one.
    pub fn new(config: &Config, began_ns: Option<u64>) -> Self {
        let issuers = config.services.iter().flat_map(|service| &service.issuers);
        let keys = issuers.flat_map(|issuer| &issuer.kids);
        let good = keys.filter(|key| key.retired_unix.is_none_or(|retired| retired > START_S));
        let mut judge = Judge::new(all(KEPT));
        if let Some(began_ns) = began_ns {
            judge.begins(began_ns);
        }
        Self { judge, good_keys: good.map(|key| key.kid.clone()).collect(), headers: Vec::new() }
    }

    /// The next exchange.
    pub fn see(&mut self, act: &Act<'_>) {
        let request = self.request(act);
        self.judge.see(&request, act.attack);
    }

    /// What each detector came to.
    pub fn rows(&self, scenario: &str) -> Vec<Row> {
        self.judge.rows(scenario)
    }

    fn request(&mut self, act: &Act<'_>) -> Request {
        let class = class_of(act.route);
        // Of several credentials the last is the one that the service reads by: a decoy stands before it.
        let shown = act.shown.last();
        let (account, object) = named(act.line);
        Request {
            at_ns: act.at_ns,
            client: std::net::Ipv4Addr::from(act.client).into(),
            session: shown.map(|held| u128::from_be_bytes(held.fingerprint)),
            route: (act.route != Route::MovedLogin).then_some(act.route as u16),
            class,
            account: account.map(mix),
            object: object.map(mix),
            status: act.status,
            returned: class == RouteClass::AccountRead && act.status == 200 && act.bytes >= PAGE_MIN,
            signature_valid: shown.and_then(|held| match held.secret {
                Secret::Jwt(claims, _) => Some(self.signed(claims)),
                Secret::Opaque(_) => None,
            }),
        }
    }

    /// Whether the key that a token's header names is good; `claims` are its header and payload.
    fn signed(&mut self, claims: &[u8]) -> bool {
        let header = claims.split(|byte| *byte == b'.').next().unwrap_or_default();
        if let Some((_, good)) = self.headers.iter().find(|(known, _)| known == header) {
            return *good;
        }
        let json: Value =
            URL_SAFE_NO_PAD.decode(header).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        let good =
            json.get("kid").and_then(Value::as_str).is_some_and(|kid| self.good_keys.iter().any(|one| one == kid));
        if self.headers.len() < HEADERS_MAX {
            self.headers.push((header.to_owned(), good));
        }
        good
    }
}

/// What the configuration says a route is for.
fn class_of(route: Route) -> RouteClass {
    match route {
        Route::Login | Route::Otp | Route::SignUp | Route::StaffLogin => RouteClass::Login,
        Route::Refresh => RouteClass::Refresh,
        Route::Logout => RouteClass::Logout,
        Route::Profile | Route::Addresses | Route::Orders | Route::Order | Route::Dormant => RouteClass::AccountRead,
        Route::Product | Route::Password | Route::MovedLogin => RouteClass::Other,
    }
}

/// Account and object that a request line names.
fn named(line: &[u8]) -> (Option<u64>, Option<u64>) {
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    let number = |text: &[u8]| {
        let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
        digits.then(|| text.iter().fold(0u64, |sum, digit| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'))))
    };
    let (mut account, mut object) = (None, None);
    let mut before = &b""[..];
    for segment in target.split(|byte| *byte == b'/') {
        match before {
            b"members" => account = number(segment),
            b"orders" | b"products" => object = number(segment),
            _ => {}
        }
        before = segment;
    }
    (account, object)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_for_what_the_configuration_says() {
        let sensor = crate::feed::Sensor::read(&crate::shipped(), None).unwrap_or_else(|error| panic!("{error}"));
        let routes = &sensor.config.services[0].routes;
        let all = [
            Route::Login,
            Route::Otp,
            Route::SignUp,
            Route::StaffLogin,
            Route::Refresh,
            Route::Logout,
            Route::Profile,
            Route::Addresses,
            Route::Orders,
            Route::Order,
            Route::Dormant,
            Route::Product,
            Route::Password,
        ];
        assert_eq!(all.len(), routes.len());
        for route in all {
            assert_eq!(class_of(route), routes[route as usize].class, "{route:?}");
        }
    }

    #[test]
    fn what_a_line_names() {
        assert_eq!(named(b"GET /members/17/orders/1234567 HTTP/1.1"), (Some(17), Some(1_234_567)));
        assert_eq!(named(b"GET /v1/members/8/profile HTTP/1.1"), (Some(8), None));
        assert_eq!(named(b"GET /products/9 HTTP/1.1"), (None, Some(9)));
        assert_eq!(named(b"POST /login HTTP/1.1"), (None, None));
    }
}
