//! What a group touches beside its key: signing keys, routes, credentials, and requests in doubt.
//!
//! Observations flow in, a finding's [`Scope`] flows out. Bounded like everything of a group: the first of a window while
//! nothing is open, then for credentials those with the lowest fingerprints.

use super::Labels;
use super::field::Subject;
use super::sample::{Lowest, Sample};
use crate::finding::model::Scope;
use crate::observation::{ClaimName, Fingerprint, Interned, RouteId, ServiceId};

/// What one group touches.
#[derive(Debug)]
pub(super) struct Touched {
    kids: Sample<Interned>,
    routes: Sample<(ServiceId, RouteId)>,
    credentials: Sample<Fingerprint>,
    /// Of an open finding.
    listed: Option<Lowest<Fingerprint>>,
    doubtful: u64,
}

impl Touched {
    /// Nothing yet.
    pub fn new() -> Self {
        Self { kids: Sample::new(), routes: Sample::new(), credentials: Sample::new(), listed: None, doubtful: 0 }
    }

    /// Takes what `s` touches; what was last seen before slice `oldest` may go.
    pub fn take(&mut self, s: Subject<'_>, slice: u64, oldest: u64) {
        let o = s.o;
        if let Some(kid) = o.kid {
            self.kids.take(kid, slice, oldest);
        }
        if let Some(route) = o.route {
            self.routes.take((o.service, route), slice, oldest);
        }
        if let Some(fingerprint) = o.fingerprint {
            match &mut self.listed {
                Some(listed) => listed.take(fingerprint),
                None => self.credentials.take(fingerprint, slice, oldest),
            }
        }
        self.doubtful += u64::from(o.conflict() || o.ambiguous());
    }

    /// A finding opens over what was seen since slice `since`.
    pub fn open(&mut self, since: u64) {
        let mut listed = Lowest::new();
        self.credentials.since(since).into_iter().for_each(|fingerprint| listed.take(fingerprint));
        self.listed = Some(listed);
    }

    /// As a finding tells it.
    pub fn scope(&self, labels: &dyn Labels) -> Scope {
        let kids = self.kids.since(0).into_iter().map(|kid| labels.name(ClaimName::Kid, kid).to_owned());
        let routes = self.routes.since(0).into_iter().map(|(service, route)| labels.route(service, route).to_owned());
        Scope {
            kids: kids.collect(),
            routes: routes.collect(),
            credentials: self.listed.as_ref().map(Lowest::values).unwrap_or_default(),
            doubtful: self.doubtful,
        }
    }
}
