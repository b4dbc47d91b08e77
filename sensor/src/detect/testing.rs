//! What tests of rules count: forged reads, and names for what is in them.

use std::net::{IpAddr, Ipv4Addr};

use super::Labels;
use crate::observation::{
    AccountHash, ClaimName, Instant, Interned, IssuerId, Observation, Outcome, Provenance, RouteClass, RouteId,
    ServiceId,
};

pub(super) struct Names;

impl Labels for Names {
    fn service(&self, service: ServiceId) -> &'static str {
        ["shop", "admin"].get(usize::from(service.0)).copied().unwrap_or("?")
    }
    fn route(&self, _: ServiceId, _: RouteId) -> &'static str {
        "addresses"
    }
    fn issuer(&self, _: ServiceId, issuer: IssuerId) -> &'static str {
        ["members", "partners"].get(usize::from(issuer.0)).copied().unwrap_or("?")
    }
    fn name(&self, of: ClaimName, id: Interned) -> &'static str {
        match of {
            ClaimName::Kid => ["k0", "k1", "k2"].get(id.0 as usize).copied().unwrap_or("k-other"),
            ClaimName::Aud => ["shop", "partner api"].get(id.0 as usize).copied().unwrap_or("a-other"),
            _ => "other",
        }
    }
}

pub(super) const SECOND: u64 = 1_000_000_000;

pub(super) fn at(ns: u64) -> Instant {
    Instant { monotonic_ns: ns, unix_ns: 1_763_000_000 * SECOND + ns }
}

/// A forged read of account `account`.
pub(super) fn read(ns: u64, account: u32, client: u32) -> Observation {
    Observation {
        route: Some(RouteId(0)),
        class: RouteClass::AccountRead,
        outcome: Outcome::Read,
        status: Some(200),
        provenance: Provenance::Unissued,
        issuer: Some(IssuerId(0)),
        kid: Some(Interned(1)),
        place: 1,
        self_contained: true,
        account: Some(AccountHash(u128::from(account).to_be_bytes())),
        client: IpAddr::V4(Ipv4Addr::from(0xc000_0200 + client)),
        ..Observation::blank(at(ns), ServiceId(0))
    }
}
