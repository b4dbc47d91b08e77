//! An observation that stands for an estimator's event, so that rules over events need no second kind of everything.

use std::net::{IpAddr, Ipv4Addr};

use crate::observation::{Estimate, Observation, RouteClass};

/// What of an observation an event has; whatever else a rule could ask is refused when it is compiled.
pub(super) fn stand_in(e: &Estimate) -> Observation {
    Observation {
        route: e.route,
        class: e.class.unwrap_or(RouteClass::Other),
        issuer: e.issuer,
        kid: e.kid,
        client: e.client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        ..Observation::blank(e.at, e.service)
    }
}
