//! Requests for the tests of every re-statement.

use std::net::{IpAddr, Ipv4Addr};

use sensor::observation::RouteClass;

use super::{Baseline, Request};

/// [`times`] of a detector that stays silent.
pub const NEVER: [f64; 0] = [];

/// An address by number.
pub fn address(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + number))
}

/// A read of `account` at `seconds` with the credential of `session`, answered with the account's data.
pub fn read(client: IpAddr, seconds: f64, session: u32, account: u32) -> Request {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "times of tests")]
    let at_ns = (seconds * 1e3).round() as u64 * 1_000_000;
    Request {
        at_ns,
        client,
        session: Some(u128::from(session) + 1),
        route: Some(0),
        class: RouteClass::AccountRead,
        account: Some(u64::from(account) + 1),
        object: None,
        status: 200,
        returned: true,
        signature_valid: Some(true),
    }
}

/// When `baseline` fires, seconds.
pub fn times(baseline: &mut impl Baseline, requests: impl Iterator<Item = Request>) -> Vec<f64> {
    #[expect(clippy::cast_precision_loss, reason = "times of tests")]
    requests.filter_map(|request| baseline.see(&request)).map(|fired| fired.at_ns as f64 / 1e9).collect()
}
