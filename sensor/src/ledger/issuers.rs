//! Which declared issuer a credential belongs to.
//!
//! The configuration's issuers, compiled so that matching compares small numbers. A credential matches the first
//! issuer of its service whose place, kind (JWT or opaque) and `iss` fit; among several, one that has its `kid`
//! registered comes first. Where `iss` cannot be read (payload cut, undecodable, or kept in the kernel for
//! `alg: none`), a JWT belongs to the first JWT issuer of its place: else whoever forges tokens would only have to
//! pad their claims to leave the issuer's accountability.

use std::time::Duration;

use sensor_ebpf::wire::{credential_flag, place, scheme};

use super::claims::Claims;
use super::facts::{Facts, Form};
use super::verdict::Leeway;
use super::{Presented, nanos};
use crate::config::model::{self as config, Config, Place, Service};
use crate::observation::{Instant, Interned, IssuerId, ServiceId};

/// Lifetime assumed for what a service without issuers hands out.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(24);

/// One declared issuer.
#[derive(Debug)]
pub struct Issuer {
    pub id: IssuerId,
    iss: Option<Interned>,
    kids: Vec<SigningKey>,
    combinations: Vec<Combination>,
    /// What holds of `exp`.
    pub expiry: Expiry,
    /// Which claim names whose a token is.
    pub subject: Subject,
    places: Vec<Place>,
    /// Some login binds credentials of its places: they are presented before they are issued.
    pub bound: bool,
    pub jwt: bool,
    pub accountable: bool,
    /// Longest lifetime of its credentials, ns.
    pub lifetime: u64,
    /// Index into the per-issuer statistics.
    pub row: usize,
}

/// What holds of `exp` in an issuer's tokens.
#[derive(Clone, Copy, Debug)]
pub struct Expiry {
    /// They always carry it.
    pub always: bool,
    /// Seconds after it that they are still accepted.
    pub grace: i64,
}

/// A registered key; times are seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct SigningKey {
    kid: Interned,
    pub created: Option<i64>,
    pub retired: Option<i64>,
    pub owner_left: Option<i64>,
}

/// Where an issuer's tokens name whose they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// They name nobody.
    Nobody,
    /// `sub`
    Sub,
    /// Another claim, by its place among those that the configuration names.
    Claim(usize),
}

/// What was registered together; `None`: anything.
#[derive(Debug)]
struct Combination {
    kid: Option<Interned>,
    iss: Option<Interned>,
    aud: Option<Interned>,
    scope: Option<Interned>,
}

/// What the register says of a `kid`.
#[derive(Clone, Copy, Debug)]
pub enum Registered<'a> {
    /// No key is registered.
    Any,
    /// Others are, this one is not.
    Unknown,
    /// It is.
    Known(&'a SigningKey),
}

impl SigningKey {
    fn new(kid: &config::Kid, claims: &mut Claims) -> Self {
        let date = |unix: Option<u64>| unix.map(|unix| i64::try_from(unix).unwrap_or(i64::MAX));
        Self {
            kid: claims.seen.kids.declare(&kid.kid),
            created: date(kid.created_unix),
            retired: date(kid.retired_unix),
            owner_left: date(kid.owner_left_unix),
        }
    }
}

impl Combination {
    fn new(from: &config::Combination, claims: &mut Claims) -> Self {
        let names = &mut claims.seen;
        Self {
            kid: from.kid.as_deref().map(|kid| names.kids.declare(kid)),
            iss: from.iss.as_deref().map(|iss| names.iss.declare(iss)),
            aud: from.aud.as_deref().map(|aud| names.aud.declare(aud)),
            scope: from.scope.as_deref().map(|scope| names.scope.declare(scope)),
        }
    }

    fn fits(&self, facts: &Facts) -> bool {
        let same = |stated: Option<Interned>, said| stated.is_none() || stated == said;
        let claims = &facts.claims;
        same(self.kid, facts.kid)
            && same(self.iss, claims.iss)
            && same(self.aud, claims.aud)
            && same(self.scope, claims.scope)
    }
}

impl Issuer {
    fn new(service: &Service, from: &config::Issuer, id: IssuerId, row: usize, claims: &mut Claims) -> Self {
        let logins = service.routes.iter().filter_map(|route| route.issuance.as_ref());
        let mut binds = logins.flat_map(|rule| &rule.binds);
        Self {
            id,
            iss: from.iss.as_deref().map(|iss| claims.seen.iss.declare(iss)),
            kids: from.kids.iter().map(|kid| SigningKey::new(kid, claims)).collect(),
            combinations: from.combinations.iter().map(|one| Combination::new(one, claims)).collect(),
            expiry: Expiry {
                always: from.expires,
                grace: i64::try_from(from.expiry_grace.as_secs()).unwrap_or(i64::MAX),
            },
            subject: match from.subject.as_deref() {
                None => Subject::Nobody,
                Some("sub") => Subject::Sub,
                Some(claim) => claims.place_of(claim).map_or(Subject::Nobody, Subject::Claim),
            },
            bound: binds.any(|place| from.places.is_empty() || from.places.contains(place)),
            places: from.places.clone(),
            jwt: from.jwt,
            accountable: from.accountable(),
            lifetime: nanos(from.max_lifetime),
            row,
        }
    }

    /// When a credential that is presented or handed out at `at` ends at the latest, monotonic ns: by its `exp`, and
    /// whatever that says after the longest lifetime.
    pub fn end(&self, facts: &Facts, at: Instant, leeway: Leeway) -> u64 {
        let longest = at.monotonic_ns.saturating_add(self.lifetime).saturating_add(leeway.monotonic);
        let Some(left) = self.left(facts, at) else { return longest };
        // What is over, is over by now.
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0));
        at.monotonic_ns.saturating_add(nanos(left)).saturating_add(leeway.monotonic).min(longest)
    }

    /// True when a credential ended by its own `exp` more than `ago` ns before `at`.
    pub fn ended_before(&self, facts: &Facts, at: Instant, leeway: Leeway, ago: u64) -> bool {
        let ago = super::unix_seconds(ago).saturating_add(leeway.unix);
        self.left(facts, at).is_some_and(|left| left < ago.saturating_neg())
    }

    /// Seconds from `at` to the end that a credential says.
    fn left(&self, facts: &Facts, at: Instant) -> Option<i64> {
        Some(facts.claims.exp?.saturating_add(self.expiry.grace).saturating_sub(super::seconds(at)))
    }

    /// What the register says of `kid`.
    pub fn registered(&self, kid: Option<Interned>) -> Registered<'_> {
        if self.kids.is_empty() {
            return Registered::Any;
        }
        self.kids.iter().find(|known| Some(known.kid) == kid).map_or(Registered::Unknown, Registered::Known)
    }

    /// True when nothing was registered together, or what a token says was.
    pub fn combines(&self, facts: &Facts) -> bool {
        self.combinations.is_empty() || self.combinations.iter().any(|one| one.fits(facts))
    }

    /// Whether a presented credential, which matches the issuer `found`, can be one that this issuer handed out;
    /// `None` where it does not show. The place decides only over opaque credentials: a JWT names its issuer.
    pub fn handed_out(&self, presented: &Presented<'_>, facts: &Facts, found: Option<&Self>) -> Option<bool> {
        let at = request_place(presented.place, presented.index);
        let of_no_other = found.is_none_or(|found| found.id == self.id);
        let here = of_no_other || at.is_none() || (!self.jwt && self.stands_at(at));
        // A key that nobody registered may be this issuer's new one.
        let key_of_other = |found: &Self| {
            matches!(found.registered(facts.kid), Registered::Known(_))
                && matches!(self.registered(facts.kid), Registered::Unknown)
        };
        match facts.form {
            Form::Read => Some(self.jwt && self.iss == facts.claims.iss && !found.is_some_and(key_of_other)),
            Form::Opaque | Form::NoHeader => here.then_some(true),
            Form::Header { .. } | Form::Unread => of_no_other.then_some(true),
        }
    }

    /// Bodies have no configurable place: there a JWT is told by its `iss`, an opaque credential only by an issuer
    /// that is not bound to places.
    fn stands_at(&self, at: Option<Place>) -> bool {
        self.places.is_empty() || at.map_or(self.jwt, |at| self.places.contains(&at))
    }
}

/// The issuers of all services.
#[derive(Debug)]
pub struct Issuers {
    services: Vec<Vec<Issuer>>,
    /// Every registered key with the `iss` that it is registered for.
    keys: Vec<(Interned, Option<Interned>)>,
}

impl Issuers {
    /// Compiles the issuers of `config`, declaring their names to `claims`.
    pub fn new(config: &Config, claims: &mut Claims) -> Self {
        let mut row = 0;
        let mut services = Vec::new();
        for service in &config.services {
            let mut issuers = Vec::new();
            for (issuer, id) in service.issuers.iter().zip(0u16..) {
                issuers.push(Issuer::new(service, issuer, IssuerId(id), row, claims));
                row += 1;
            }
            services.push(issuers);
        }
        let all = services.iter().flatten();
        let keys = all.flat_map(|issuer: &Issuer| issuer.kids.iter().map(|key| (key.kid, issuer.iss))).collect();
        Self { services, keys }
    }

    /// True when `kid` is registered for another `iss` than this.
    pub fn registered_elsewhere(&self, kid: Option<Interned>, iss: Option<Interned>) -> bool {
        kid.is_some_and(|kid| self.keys.iter().any(|(known, owner)| *known == kid && *owner != iss))
    }

    /// All issuers with their services, by [`Issuer::row`].
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Issuer)> {
        (0u16..).zip(&self.services).flat_map(|(service, issuers)| issuers.iter().map(move |i| (ServiceId(service), i)))
    }

    /// An issuer of a service.
    pub fn get(&self, service: ServiceId, id: IssuerId) -> Option<&Issuer> {
        self.services.get(usize::from(service.0))?.get(usize::from(id.0))
    }

    fn of(&self, service: ServiceId) -> &[Issuer] {
        self.services.get(usize::from(service.0)).map_or(&[], Vec::as_slice)
    }

    /// Number of services.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// The issuer of a presented credential, and whether it is taken for a JWT.
    pub fn find(&self, presented: &Presented<'_>, facts: &Facts) -> (Option<&Issuer>, bool) {
        let issuers = self.of(presented.service);
        let at = request_place(presented.place, presented.index);
        let opaque = || issuers.iter().find(|issuer| !issuer.jwt && issuer.stands_at(at));
        let jwt = |fits: &dyn Fn(&Issuer) -> bool| {
            let fitting = issuers.iter().filter(|issuer| issuer.jwt && issuer.stands_at(at) && fits(issuer));
            of_key(fitting, facts.kid)
        };
        match facts.form {
            // A login hands out no password.
            Form::Opaque => (if presented.scheme == scheme::BASIC { None } else { opaque() }, false),
            Form::NoHeader => match opaque() {
                Some(issuer) => (Some(issuer), false),
                None => (jwt(&|_| true), true),
            },
            Form::Read => (jwt(&|issuer| issuer.iss == facts.claims.iss), true),
            Form::Header { .. } | Form::Unread => match jwt(&|_| true) {
                Some(issuer) => (Some(issuer), true),
                None => match opaque() {
                    Some(issuer) => (Some(issuer), false),
                    None => (None, true),
                },
            },
        }
    }

    /// The issuer whose session stands at a place of a request.
    pub fn standing_at(&self, service: ServiceId, place: u8, index: u8) -> Option<&Issuer> {
        let at = request_place(place, index);
        let standing = || self.of(service).iter().filter(|issuer| issuer.stands_at(at));
        standing().find(|issuer| !issuer.jwt).or_else(|| standing().next())
    }

    /// The issuer that knows how long a credential lives: of a token which could be read the one whose name it says,
    /// wherever it stands, of an opaque one the one that was `found`. `None` where that is a guess.
    pub fn ending<'a>(&'a self, service: ServiceId, found: Option<&'a Issuer>, facts: &Facts) -> Option<&'a Issuer> {
        match facts.form {
            Form::Read => self.that_says(service, facts),
            Form::Opaque | Form::NoHeader => found.filter(|issuer| !issuer.jwt),
            Form::Header { .. } | Form::Unread => None,
        }
    }

    /// The issuer whose name a token says; of one that says none, an issuer without a name.
    fn that_says(&self, service: ServiceId, facts: &Facts) -> Option<&Issuer> {
        let named = self.of(service).iter().filter(|issuer| issuer.jwt && issuer.iss == facts.claims.iss);
        // Of several of one name, the one whose tokens live longest.
        named.max_by_key(|issuer| issuer.lifetime)
    }

    /// Longest lifetime (ns) that a credential handed out at a place of `service` can have.
    pub fn lifetime(&self, service: ServiceId, issued_at: u8, index: u8) -> u64 {
        let issuers = self.of(service);
        let longest = |fits: &dyn Fn(&Issuer) -> bool| {
            issuers.iter().filter(|issuer| fits(issuer)).map(|issuer| issuer.lifetime).max()
        };
        // Only a cookie stands at the same place when it is presented.
        let at = (issued_at == place::SET_COOKIE).then_some(Place::Cookie(index));
        longest(&|issuer| at.is_none_or(|at| issuer.places.is_empty() || issuer.places.contains(&at)))
            .or_else(|| longest(&|_| true))
            .unwrap_or(nanos(DEFAULT_LIFETIME))
    }

    /// Longest lifetime (ns) of any credential of any service.
    pub fn longest_lifetime(&self) -> u64 {
        self.iter().map(|(_, issuer)| issuer.lifetime).max().unwrap_or(0).max(nanos(DEFAULT_LIFETIME))
    }
}

/// Of issuers that a token may be of: who lists its key before who takes any, and the first of several alike.
fn of_key<'a>(fitting: impl Iterator<Item = &'a Issuer>, kid: Option<Interned>) -> Option<&'a Issuer> {
    let (mut open, mut other) = (None, None);
    for issuer in fitting {
        match issuer.registered(kid) {
            Registered::Known(_) => return Some(issuer),
            Registered::Any => open = open.or(Some(issuer)),
            Registered::Unknown => other = other.or(Some(issuer)),
        }
    }
    open.or(other)
}

/// True when the value changes from request to request by its scheme (RFC 7616, RFC 4559). What can be read as a JWT is
/// one whatever word stands before it: a server may look at neither.
pub fn unstable(presented: &Presented<'_>, facts: &Facts) -> bool {
    let word = matches!(presented.scheme, scheme::DIGEST | scheme::NTLM | scheme::NEGOTIATE);
    word && match facts.form {
        Form::Opaque | Form::NoHeader => true,
        // The parameters of Digest may have two dots among them; no JWT has a space inside.
        Form::Unread => presented.flags & credential_flag::INNER_SPACE != 0,
        Form::Read | Form::Header { .. } => false,
    }
}

fn request_place(at: u8, index: u8) -> Option<Place> {
    match at {
        place::AUTHORIZATION => Some(Place::Authorization),
        place::COOKIE | place::SET_COOKIE => Some(Place::Cookie(index)),
        place::HEADER => Some(Place::Header(index)),
        place::QUERY => Some(Place::Query(index)),
        _ => None,
    }
}
