//! Which declared issuer a credential belongs to.
//!
//! The configuration's issuers, compiled so that matching compares small numbers. A credential matches the first
//! issuer of its service whose place, kind (JWT or opaque) and `iss` fit; among several, one that has its `kid`
//! registered comes first. Where `iss` cannot be read (payload cut, undecodable, or kept in the kernel for
//! `alg: none`), a JWT belongs to the first JWT issuer of its place: else whoever forges tokens would only have to
//! pad their claims to leave the issuer's accountability.

use std::time::Duration;

use sensor_ebpf::wire::{credential_flag, place, scheme};

use super::claims::{Claims, Facts, Form};
use super::{Presented, nanos};
use crate::config::model::{Config, Place};
use crate::observation::{Interned, IssuerId, ServiceId};

/// Lifetime assumed for what a service without issuers hands out.
const DEFAULT_LIFETIME: Duration = Duration::from_hours(24);

/// One declared issuer.
#[derive(Debug)]
pub struct Issuer {
    pub id: IssuerId,
    iss: Option<Interned>,
    /// `kid` and since when it is retired (seconds since 1970).
    kids: Vec<(Interned, Option<i64>)>,
    places: Vec<Place>,
    pub jwt: bool,
    pub accountable: bool,
    /// Longest lifetime of its credentials, ns.
    pub lifetime: u64,
    /// Index into the per-issuer statistics.
    pub row: usize,
}

/// What the registered keys say of a `kid`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    /// Registered, or no key is.
    Good,
    /// Not registered, while others are.
    Unknown,
    /// Retired.
    Retired,
}

impl Issuer {
    /// The state of `kid` at `unix` (seconds since 1970).
    pub fn key_state(&self, kid: Option<Interned>, unix: i64) -> KeyState {
        if self.kids.is_empty() {
            return KeyState::Good;
        }
        match self.kids.iter().find(|(known, _)| Some(*known) == kid) {
            None => KeyState::Unknown,
            Some((_, Some(retired))) if unix >= *retired => KeyState::Retired,
            Some(_) => KeyState::Good,
        }
    }

    fn knows(&self, kid: Option<Interned>) -> bool {
        self.kids.is_empty() || self.kids.iter().any(|(known, _)| Some(*known) == kid)
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
}

impl Issuers {
    /// Compiles the issuers of `config`, declaring their names to `claims`.
    pub fn new(config: &Config, claims: &mut Claims) -> Self {
        let mut row = 0;
        let services = config.services.iter().map(|service| {
            let issuers = service.issuers.iter().zip(0u16..).map(|(issuer, id)| {
                row += 1;
                Issuer {
                    id: IssuerId(id),
                    iss: issuer.iss.as_deref().map(|iss| claims.iss.declare(iss)),
                    kids: (issuer.kids.iter())
                        .map(|kid| {
                            let retired = kid.retired_unix.map(|unix| i64::try_from(unix).unwrap_or(i64::MAX));
                            (claims.kids.declare(&kid.kid), retired)
                        })
                        .collect(),
                    places: issuer.places.clone(),
                    jwt: issuer.jwt,
                    accountable: issuer.accountable(),
                    lifetime: nanos(issuer.max_lifetime),
                    row: row - 1,
                }
            });
            issuers.collect()
        });
        Self { services: services.collect() }
    }

    /// All issuers with their services, by [`Issuer::row`].
    pub fn iter(&self) -> impl Iterator<Item = (ServiceId, &Issuer)> {
        (0u16..).zip(&self.services).flat_map(|(service, issuers)| issuers.iter().map(move |i| (ServiceId(service), i)))
    }

    /// Number of services.
    pub fn services(&self) -> usize {
        self.services.len()
    }

    /// The issuer of a presented credential, and whether it is taken for a JWT.
    pub fn find(&self, presented: &Presented<'_>, facts: &Facts) -> (Option<&Issuer>, bool) {
        let issuers = self.services.get(usize::from(presented.service.0)).map_or(&[][..], Vec::as_slice);
        let at = request_place(presented.place, presented.index);
        let opaque = || issuers.iter().find(|issuer| !issuer.jwt && issuer.stands_at(at));
        let jwt = |fits: &dyn Fn(&Issuer) -> bool| {
            let mut fitting = issuers.iter().filter(|issuer| issuer.jwt && issuer.stands_at(at) && fits(issuer));
            let first = fitting.clone().next();
            fitting.find(|issuer| issuer.knows(facts.kid)).or(first)
        };
        match facts.form {
            // A login hands out no password.
            Form::Opaque => (if presented.scheme == scheme::BASIC { None } else { opaque() }, false),
            Form::NoHeader => match opaque() {
                Some(issuer) => (Some(issuer), false),
                None => (jwt(&|_| true), true),
            },
            Form::Read => (jwt(&|issuer| issuer.iss == facts.iss), true),
            Form::Header { .. } | Form::Unread => match jwt(&|_| true) {
                Some(issuer) => (Some(issuer), true),
                None => match opaque() {
                    Some(issuer) => (Some(issuer), false),
                    None => (None, true),
                },
            },
        }
    }

    /// Longest lifetime (ns) that a credential handed out at a place of `service` can have.
    pub fn lifetime(&self, service: ServiceId, issued_at: u8, index: u8) -> u64 {
        let issuers = self.services.get(usize::from(service.0)).map_or(&[][..], Vec::as_slice);
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
