//! What benches of the stages behind capture share: draws, reads of members, names for rules, and the processor's clock.

use std::net::IpAddr;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};
use sensor::detect::Labels;
use sensor::observation::{
    AccountHash, ClaimName, Instant, Interned, IssuerId, Observation, Outcome, Provenance, Relation, RouteClass,
    RouteId, ServiceId,
};
use sensor_ebpf::wire::place;

/// A permutation of 64-bit numbers that looks like none (the finaliser of `SplitMix64`, Steele et al. 2014).
#[must_use]
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// Draws, all of one seed: `SplitMix64` (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub const fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound.max(1)
    }
}

/// One name for each kind of thing.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// Of every service.
    pub service: &'static str,
    /// Of every issuer.
    pub issuer: &'static str,
    /// Of every key, audience and the like.
    pub claim: &'static str,
}

impl Labels for Names {
    fn service(&self, _: ServiceId) -> &'static str {
        self.service
    }
    fn route(&self, _: ServiceId, _: RouteId) -> &'static str {
        "addresses"
    }
    fn issuer(&self, _: ServiceId, _: IssuerId) -> &'static str {
        self.issuer
    }
    fn name(&self, _: ClaimName, _: Interned) -> &'static str {
        self.claim
    }
}

/// A member reads data of `account`, its own, with a token of the first issuer, in the first service.
#[must_use]
pub fn own_read(at: Instant, route: RouteId, account: AccountHash, client: IpAddr) -> Observation {
    Observation {
        route: Some(route),
        class: RouteClass::AccountRead,
        outcome: Outcome::Read,
        status: Some(200),
        provenance: Provenance::Issued,
        issuer: Some(IssuerId(0)),
        place: place::AUTHORIZATION,
        self_contained: true,
        account: Some(account),
        client,
        relation: Relation::Own,
        ..Observation::blank(at, ServiceId(0))
    }
}

/// Time of this thread on the processor: what others do on the machine does not count.
///
/// # Errors
/// When the kernel does not tell.
pub fn processor() -> nix::Result<Duration> {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
}
