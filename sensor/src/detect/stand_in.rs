//! An observation that stands for an estimator's event, so that rules over events need no second kind of everything.

use std::net::{IpAddr, Ipv4Addr};

use crate::observation::{
    Claims, Estimate, Estimates, Observation, Outcome, Provenance, Relation, RouteClass, Validity,
};

/// What of an observation an event has; whatever else a rule could ask is refused when it is compiled.
pub(super) fn stand_in(e: &Estimate) -> Observation {
    Observation {
        at: e.at,
        service: e.service,
        route: e.route,
        class: e.class.unwrap_or(RouteClass::Other),
        outcome: Outcome::Other,
        status: None,
        provenance: Provenance::None,
        validity: Validity::Ok,
        fingerprint: None,
        issuer: e.issuer,
        kid: e.kid,
        place: 0,
        self_contained: false,
        account: None,
        client: e.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        anomalies: 0,
        claims: Claims::default(),
        claim_anomalies: 0,
        relation: Relation::Unknown,
        object: None,
        target_id: None,
        canary: false,
        issued: 0,
        estimates: Estimates::default(),
    }
}
