//! What tests of estimators share: a configuration, observations, and numbers that are random and the same every time.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::config::model::{Canaries, Config, Confirmation, Credentials, Issuer, Kid, Observed, Route, Service};
use crate::observation::{
    AccountHash, Claims, Estimates, Instant, IssuerId, Observation, Outcome, Provenance, Relation, RouteClass, RouteId,
    ServiceId, Validity,
};

/// Routes of the service: `addresses` and `edit` return data, `login` and `refresh` issue, `order` names an object.
pub const ADDRESSES: u16 = 0;
pub const EDIT: u16 = 1;
pub const LOGIN: u16 = 2;

/// One service with two account routes, a login and a refresh, and one issuer that is wholly observed.
pub fn config() -> Config {
    let mut config = crate::config::defaults().unwrap();
    let route = |name: &str, class| Route {
        name: name.to_owned(),
        methods: Vec::new(),
        segments: Vec::new(),
        template: String::new(),
        class,
        authenticates_with: Vec::new(),
        outcomes: Vec::new(),
        account: Vec::new(),
        object: None,
        issuance: None,
    };
    let (read, login, refresh) = (RouteClass::AccountRead, RouteClass::Login, RouteClass::Refresh);
    config.services.push(Service {
        name: "shop".to_owned(),
        listen: Vec::new(),
        proxy_protocol: false,
        canaries: Canaries::default(),
        credentials: Credentials::default(),
        routes: vec![route("addresses", read), route("edit", read), route("login", login), route("refresh", refresh)],
        issuers: vec![Issuer {
            name: "members".to_owned(),
            iss: None,
            combinations: Vec::new(),
            expires: false,
            expiry_grace: Duration::ZERO,
            subject: None,
            preexisting: None,
            kids: vec![Kid { kid: "k1".to_owned(), ..Kid::default() }],
            places: Vec::new(),
            jwt: true,
            observed: Observed::All,
            confirmed: Some(Confirmation {
                sight: 0.999,
                by: "Kim".to_owned(),
                on: "2026-01-31".to_owned(),
                preexisting: None,
            }),
            max_lifetime: Duration::from_hours(24),
            renews: Vec::new(),
            renew_grace: Duration::ZERO,
        }],
    });
    config
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
        at: at(seconds),
        service: ServiceId(0),
        route: Some(RouteId(ADDRESSES)),
        class: RouteClass::AccountRead,
        outcome: Outcome::Read,
        status: Some(200),
        provenance: Provenance::Issued,
        validity: Validity::Ok,
        fingerprint: None,
        issuer: Some(IssuerId(0)),
        kid: None,
        place: 1,
        self_contained: true,
        account: Some(AccountHash(account)),
        client,
        anomalies: 0,
        claims: Claims::default(),
        claim_anomalies: 0,
        relation: Relation::Own,
        object: None,
        target_id: Some(id),
        canary: false,
        issued: 0,
        estimates: Estimates::default(),
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
