//! Numbers in observations stand for names, and another start numbers them otherwise.
//!
//! When an entry is written, every name that it uses and that its segment has not told yet is written before it. When it is
//! read, numbers are replaced by those that the names have now.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::entry::Entry;
use crate::observation::{Claims, Estimate, Interned, IssuerId, Observation, RouteId, ServiceId};

/// A number that stands for a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Name {
    /// A service.
    Service(u16),
    /// A route of a service.
    Route(u16, u16),
    /// An issuer of a service.
    Issuer(u16, u16),
    /// A `kid`.
    Kid(u32),
    /// An `iss`.
    Iss(u32),
    /// An `alg`.
    Alg(u32),
    /// An `aud`.
    Aud(u32),
    /// A `scope`.
    Scope(u32),
}

/// What numbers stand for now.
pub trait Names {
    /// The name; `None` for a number that stands for none.
    fn text(&self, name: Name) -> Option<&str>;
}

/// What number a name has now.
pub trait Resolve {
    /// The number of `text`, a name of the same kind as `like` (for a route or issuer, of the service numbered there, as
    /// it is numbered now). `None`: there is no such name, and no room to add one.
    fn number(&mut self, like: Name, text: &str) -> Option<u32>;
}

/// Tells `tell` every name that an observation uses.
pub(super) fn named(o: &Observation, tell: &mut impl FnMut(Name)) {
    if o.service == ServiceId::NONE {
        return;
    }
    let service = o.service.0;
    tell(Name::Service(service));
    if let Some(route) = o.route {
        tell(Name::Route(service, route.0));
    }
    if let Some(issuer) = o.issuer {
        tell(Name::Issuer(service, issuer.0));
    }
    let Claims { iss, alg, aud, scope, .. } = o.claims;
    let interned = [
        (o.kid, Name::Kid as fn(u32) -> Name),
        (iss, Name::Iss),
        (alg, Name::Alg),
        (aud, Name::Aud),
        (scope, Name::Scope),
    ];
    for (number, name) in interned {
        if let Some(number) = number.filter(|number| *number != Interned::OVERFLOW) {
            tell(name(number.0));
        }
    }
}

/// Tells `tell` every name that an estimator's event uses.
pub(super) fn named_by_estimate(e: &Estimate, tell: &mut impl FnMut(Name)) {
    let service = e.service.0;
    tell(Name::Service(service));
    if let Some(route) = e.route {
        tell(Name::Route(service, route.0));
    }
    if let Some(issuer) = e.issuer {
        tell(Name::Issuer(service, issuer.0));
    }
    if let Some(kid) = e.kid.filter(|kid| *kid != Interned::OVERFLOW) {
        tell(Name::Kid(kid.0));
    }
}

/// Old numbers to new ones, within one segment.
#[derive(Debug, Default)]
pub(super) struct Renamer {
    numbers: HashMap<Name, u32>,
}

impl Renamer {
    /// What `name` stood for when the segment was written.
    pub fn learn(&mut self, name: Name, text: &str, names: &mut dyn Resolve) {
        let now = match name {
            Name::Route(service, old) => self.service(service).map(|service| Name::Route(service, old)),
            Name::Issuer(service, old) => self.service(service).map(|service| Name::Issuer(service, old)),
            other => Some(other),
        };
        if let Some(number) = now.and_then(|now| names.number(now, text)) {
            self.numbers.insert(name, number);
        }
    }

    fn service(&self, old: u16) -> Option<u16> {
        self.small(Name::Service(old))
    }

    fn small(&self, name: Name) -> Option<u16> {
        self.numbers.get(&name).and_then(|number| u16::try_from(*number).ok())
    }

    fn interned(&self, old: Option<Interned>, name: fn(u32) -> Name) -> Option<Interned> {
        old.map(|old| self.numbers.get(&name(old.0)).map_or(Interned::OVERFLOW, |number| Interned(*number)))
    }

    /// The entry with the numbers of now; `None` when its service, route or issuer is no more.
    pub fn renamed(&self, entry: Entry) -> Option<Entry> {
        match entry {
            Entry::Name(..) => None,
            Entry::Observation(o) => self.observation(o).map(Entry::Observation),
            Entry::Estimate(e) => self.estimate(e).map(Entry::Estimate),
        }
    }

    fn place(
        &self,
        service: ServiceId,
        route: Option<RouteId>,
        issuer: Option<IssuerId>,
    ) -> Option<(ServiceId, Option<RouteId>, Option<IssuerId>)> {
        if service == ServiceId::NONE {
            return Some((service, None, None));
        }
        let old = service.0;
        let service = ServiceId(self.service(old)?);
        let route = match route {
            Some(route) => Some(RouteId(self.small(Name::Route(old, route.0))?)),
            None => None,
        };
        let issuer = match issuer {
            Some(issuer) => Some(IssuerId(self.small(Name::Issuer(old, issuer.0))?)),
            None => None,
        };
        Some((service, route, issuer))
    }

    #[expect(clippy::large_types_passed_by_value, reason = "it is changed and handed on")]
    fn observation(&self, o: Observation) -> Option<Observation> {
        let (service, route, issuer) = self.place(o.service, o.route, o.issuer)?;
        let claims = Claims {
            iss: self.interned(o.claims.iss, Name::Iss),
            alg: self.interned(o.claims.alg, Name::Alg),
            aud: self.interned(o.claims.aud, Name::Aud),
            scope: self.interned(o.claims.scope, Name::Scope),
            ..o.claims
        };
        Some(Observation { service, route, issuer, kid: self.interned(o.kid, Name::Kid), claims, ..o })
    }

    fn estimate(&self, e: Estimate) -> Option<Estimate> {
        let (service, route, issuer) = self.place(e.service, e.route, e.issuer)?;
        Some(Estimate { service, route, issuer, kid: self.interned(e.kid, Name::Kid), ..e })
    }
}
