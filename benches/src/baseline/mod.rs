//! The detectors that people use today, restated from their published thresholds, so that the benchmark can show what
//! they would have said of the same traffic.
//!
//! Owns one re-statement a file, each citing where its figures are published. [`Request`]s flow in, one for each observed
//! request with its answer, in the order of their times; what a detector would have reported flows out as [`Fired`], and
//! [`judge`] weighs that against what the attack really did. All state is bounded ([`table`]) and depends on the requests
//! alone, so the same traffic gives the same result. Nothing is blocked: an address that would have been shut out goes on,
//! but is not reported again for as long as it would have been.
//!
//! `docs/detection.md` says what each leaves out of its original. Where a choice was open it favours the original.

pub mod aws;
pub mod cloudflare;
pub mod crowdsec;
pub mod judge;
pub mod nginx;
pub mod signature;
pub mod table;
pub mod wallarm;
pub mod window;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use sensor::observation::{AccountHash, Observation, Outcome, RouteClass, Validity};

/// One second, nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// One request with its answer, as a proxy or its access log would know it.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// When it came, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Who sent it.
    pub client: IpAddr,
    /// Its session: the fingerprint of the credential that it presented.
    pub session: Option<u128>,
    /// Index of its route; `None`: none of those configured.
    pub route: Option<u16>,
    /// What the route is for.
    pub class: RouteClass,
    /// Whose data it is about, hashed.
    pub account: Option<u64>,
    /// What its path names beside the account, hashed.
    pub object: Option<u64>,
    /// Status of the answer; 0: there was none.
    pub status: u16,
    /// The account's data was returned.
    pub returned: bool,
    /// Whether a check of the signature passes; `None`: it carries nothing that is signed.
    pub signature_valid: Option<bool>,
}

impl Request {
    /// What `observation` tells of. A check of signatures is taken to know the registered keys that are not retired: no
    /// trace carries keys, so a token of such a key counts as rightly signed.
    pub fn of(observation: &Observation) -> Self {
        let number = |hash: AccountHash| short(hash.0);
        let signed = observation.self_contained || observation.validity != Validity::Ok;
        Self {
            at_ns: observation.at.unix_ns,
            client: observation.client,
            session: observation.fingerprint.map(|fingerprint| u128::from_be_bytes(fingerprint.0)),
            route: observation.route.map(|route| route.0),
            class: observation.class,
            account: observation.account.map(number),
            object: observation.object.map(number),
            status: observation.status.unwrap_or(0),
            returned: observation.class == RouteClass::AccountRead && observation.outcome == Outcome::Read,
            signature_valid: (signed && observation.fingerprint.is_some())
                .then_some(matches!(observation.validity, Validity::Ok | Validity::Expired)),
        }
    }

    /// A number for what the request asks for: route, account and object together.
    fn target(&self) -> u64 {
        let route = self.route.map_or(u64::from(u16::MAX) + 1, u64::from);
        let parts = [self.account.unwrap_or(0), self.object.unwrap_or(0)];
        parts.iter().fold(route, |sum, part| (sum ^ part).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29))
    }
}

/// The first half of a hash: enough to tell accounts apart.
pub fn short(hash: [u8; 16]) -> u64 {
    u64::try_from(u128::from_be_bytes(hash) >> 64).unwrap_or(0)
}

/// What a detector reports. Each counts as of high level: the originals block, ban or label on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fired {
    /// Time of the request that made it fire, nanoseconds since 1970 UTC.
    pub at_ns: u64,
    /// Who sent that request.
    pub client: IpAddr,
    /// The distinct accounts in what it counted, where the requests named any; at most [`ACCOUNTS_MAX`].
    pub accounts: Vec<u64>,
}

/// Accounts that one [`Fired`] names at most.
pub const ACCOUNTS_MAX: usize = 1024;

/// A detector.
pub trait Baseline {
    /// Its name in reports.
    fn name(&self) -> &str;
    /// Takes the next request.
    fn see(&mut self, request: &Request) -> Option<Fired>;
    /// States that were forgotten because a bound was reached.
    fn forgotten(&self) -> u64;
}

/// Addresses, or sessions of one route, that each detector keeps at once unless told otherwise.
pub const KEPT: usize = 1 << 20;

/// Every re-statement, each keeping at most `kept` addresses or sessions.
pub fn all(kept: usize) -> Vec<Box<dyn Baseline>> {
    vec![
        Box::new(nginx::LimitReq::documented(kept)),
        Box::new(aws::RateBased::blanket(kept)),
        Box::new(aws::RateBased::sensitive(kept)),
        Box::new(wallarm::Bola::example(kept)),
        Box::new(crowdsec::Leaky::crawl(kept)),
        Box::new(crowdsec::Leaky::probing(kept)),
        Box::new(crowdsec::Leaky::refused(kept)),
        Box::new(cloudflare::Sessions::volumetric(kept)),
        Box::new(cloudflare::Sessions::enumeration(kept)),
        Box::new(signature::Signature::new(kept)),
    ]
}

/// `accounts` without repetitions and without 0, in their order.
fn distinct(accounts: impl Iterator<Item = u64>) -> Vec<u64> {
    let mut seen = Vec::new();
    for account in accounts {
        if account != 0 && seen.len() < ACCOUNTS_MAX && !seen.contains(&account) {
            seen.push(account);
        }
    }
    seen
}
