//! Names behind the numbers of an observation, for rules, findings and the journal.

use std::ops::{Deref, DerefMut};

use crate::config::model::{Config, Service};
use crate::detect::Labels;
use crate::journal;
use crate::ledger::Ledger;
use crate::observation::{ClaimName, Interned, IssuerId, RouteId, ServiceId};

/// What is absent.
const NONE: &str = "none";

/// The names of the configuration and of the ledger.
pub(super) struct Names<'a, L> {
    pub config: &'a Config,
    pub ledger: L,
}

impl<L> Names<'_, L> {
    fn at(&self, service: u16) -> Option<&Service> {
        self.config.services.get(usize::from(service))
    }
}

impl<L: Deref<Target = Ledger>> Labels for Names<'_, L> {
    fn service(&self, service: ServiceId) -> &str {
        self.at(service.0).map_or(NONE, |service| &service.name)
    }
    fn route(&self, service: ServiceId, route: RouteId) -> &str {
        self.at(service.0)
            .and_then(|service| service.routes.get(usize::from(route.0)))
            .map_or(NONE, |route| &route.name)
    }
    fn issuer(&self, service: ServiceId, issuer: IssuerId) -> &str {
        let issuers = self.at(service.0).map(|service| &service.issuers);
        issuers.and_then(|issuers| issuers.get(usize::from(issuer.0))).map_or(NONE, |issuer| &issuer.name)
    }
    fn name(&self, of: ClaimName, id: Interned) -> &str {
        self.ledger.name(of, id)
    }
}

impl<L: Deref<Target = Ledger>> journal::Names for Names<'_, L> {
    fn text(&self, name: journal::Name) -> Option<&str> {
        use journal::Name;
        let claim = |of, id| self.ledger.whole_name(of, Interned(id));
        match name {
            Name::Service(service) => self.at(service).map(|service| service.name.as_str()),
            Name::Route(service, route) => {
                self.at(service)?.routes.get(usize::from(route)).map(|route| route.name.as_str())
            }
            Name::Issuer(service, issuer) => {
                self.at(service)?.issuers.get(usize::from(issuer)).map(|issuer| issuer.name.as_str())
            }
            Name::Kid(id) => claim(ClaimName::Kid, id),
            Name::Iss(id) => claim(ClaimName::Iss, id),
            Name::Alg(id) => claim(ClaimName::Alg, id),
            Name::Aud(id) => claim(ClaimName::Aud, id),
            Name::Scope(id) => claim(ClaimName::Scope, id),
        }
    }
}

impl<L: DerefMut<Target = Ledger>> journal::Resolve for Names<'_, L> {
    fn number(&mut self, like: journal::Name, text: &str) -> Option<u32> {
        use journal::Name;
        let index = |at: Option<usize>| at.and_then(|at| u32::try_from(at).ok());
        let of = match like {
            Name::Service(_) => {
                return index(self.config.services.iter().position(|service| service.name == text));
            }
            Name::Route(service, _) => {
                return index(self.at(service)?.routes.iter().position(|route| route.name == text));
            }
            Name::Issuer(service, _) => {
                return index(self.at(service)?.issuers.iter().position(|issuer| issuer.name == text));
            }
            Name::Kid(_) => ClaimName::Kid,
            Name::Iss(_) => ClaimName::Iss,
            Name::Alg(_) => ClaimName::Alg,
            Name::Aud(_) => ClaimName::Aud,
            Name::Scope(_) => ClaimName::Scope,
        };
        let id = self.ledger.intern(of, text);
        (id != Interned::OVERFLOW).then_some(id.0)
    }
}
