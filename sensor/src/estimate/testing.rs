//! What tests of estimators share: a configuration, observations, and numbers that are random and the same every time.

use std::net::{IpAddr, Ipv4Addr};

use crate::config::model::Config;
use crate::observation::{
    AccountHash, Instant, IssuerId, Observation, Outcome, Provenance, Relation, RouteClass, RouteId, ServiceId,
};

/// Routes of the service: the first two return data.
pub const ADDRESSES: u16 = 0;
pub const EDIT: u16 = 1;
pub const LOGIN: u16 = 2;

const CONFIG: &str = r#"
[[service]]
name = "shop"
listen = 80
credentials = { authorization = true }
[[service.route]]
class = "account_read"
methods = "GET"
path = "/members/{member}/addresses"
account = "path:member"
[[service.route]]
class = "account_read"
methods = "GET"
path = "/members/{member}"
account = "path:member"
[[service.route]]
class = "login"
methods = "POST"
path = "/login"
issues = "json:/token"
[[service.issuer]]
name = "members"
kind = "jwt"
observed = "all"
confirmed = { sight = 0.999, by = "Kim", on = 2026-01-31 }
max_lifetime = "24h"
"#;

/// One service with two account routes and a login, and one issuer that is wholly observed.
pub fn config() -> Config {
    crate::config::from_text(CONFIG).unwrap()
}

/// `seconds` after the start of the tests' time, a Monday's midnight UTC.
pub fn at(seconds: f64) -> Instant {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    let ns = (seconds * 1e9) as u64;
    Instant { monotonic_ns: 1_000_000_000_000 + ns, unix_ns: 1_744_588_800_000_000_000 + ns }
}

/// A member reads the own account `id` with a credential that a login issued.
pub fn own_read(seconds: f64, id: u64, client: IpAddr) -> Observation {
    let mut account = [0; 16];
    account[..8].copy_from_slice(&id.to_le_bytes());
    Observation {
        route: Some(RouteId(ADDRESSES)),
        class: RouteClass::AccountRead,
        outcome: Outcome::Read,
        status: Some(200),
        provenance: Provenance::Issued,
        issuer: Some(IssuerId(0)),
        place: 1,
        self_contained: true,
        account: Some(AccountHash(account)),
        client,
        relation: Relation::Own,
        target_id: Some(id),
        ..Observation::blank(at(seconds), ServiceId(0))
    }
}

/// The same with a credential that no login issued.
pub fn forged_read(seconds: f64, id: u64, client: IpAddr) -> Observation {
    Observation { provenance: Provenance::Unissued, ..own_read(seconds, id, client) }
}

/// A login.
pub fn login_of(seconds: f64, client: IpAddr, success: bool) -> Observation {
    Observation {
        class: RouteClass::Login,
        route: Some(RouteId(LOGIN)),
        outcome: if success { Outcome::Read } else { Outcome::Denied },
        provenance: Provenance::None,
        target_id: None,
        issued: u8::from(success),
        ..own_read(seconds, 0, client)
    }
}

/// The address number `n`, each in a /24 of its own.
pub fn address(n: u32) -> IpAddr {
    Ipv4Addr::from_bits(0x0a00_0001 + (n << 8)).into()
}

/// Numbers, evenly distributed: splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// Below `most`.
    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    /// True `share` of the time.
    pub fn happens(&mut self, share: f64) -> bool {
        self.unit() < share
    }

    /// From 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// How many of a rate of `mean` (at most 500) come: Poisson, by Knuth's product.
    pub fn poisson(&mut self, mean: f64) -> u32 {
        let (limit, mut product, mut count) = ((-mean).exp(), 1.0, 0);
        loop {
            product *= self.unit();
            if product <= limit {
                return count;
            }
            count += 1;
        }
    }
}
