//! nginx `limit_req` with the figures of its documentation: `rate=1r/s`, `burst=5`, keyed by `$binary_remote_addr`.
//!
//! Source: <https://nginx.org/en/docs/http/ngx_http_limit_req_module.html> ("not more than 1 request per second at an
//! average, with bursts not exceeding 5 requests"). Restated: a leaky bucket for each address; a request that finds more
//! than `burst` in it is rejected and does not count, the first rejection is reported, and the address is reported again
//! only after its bucket ran empty. Left out: delaying (`delay=`, without `nodelay`), which rejects the same requests; the
//! zone's size. The example limits one location; here every request counts.

use std::net::IpAddr;

use super::table::Table;
use super::{Baseline, Fired, Request, SECOND, distinct};

/// Accounts of an address's latest requests that are remembered.
const LATEST: usize = 8;

/// The limit.
#[derive(Debug)]
pub struct LimitReq {
    /// Between two requests at the allowed rate, nanoseconds.
    interval_ns: u64,
    burst: u64,
    buckets: Table<IpAddr, Bucket>,
}

#[derive(Debug, Default)]
struct Bucket {
    /// When the last request passed; 0: none did.
    at_ns: u64,
    /// What stood in the bucket then, as the time that it takes to leak, nanoseconds.
    excess_ns: u64,
    reported: bool,
    /// Accounts of the latest requests, and how many there were.
    latest: [u64; LATEST],
    count: usize,
}

impl LimitReq {
    /// The example of the documentation; keeps `kept` addresses.
    pub fn documented(kept: usize) -> Self {
        Self { interval_ns: SECOND, burst: 5, buckets: Table::new(kept) }
    }
}

impl Baseline for LimitReq {
    fn name(&self) -> &'static str {
        "nginx limit_req 1 r/s burst 5"
    }

    fn see(&mut self, request: &Request) -> Option<Fired> {
        let bucket = self.buckets.at(request.client);
        if let Some(latest) = bucket.latest.get_mut(bucket.count % LATEST) {
            *latest = request.account.unwrap_or(0);
        }
        bucket.count += 1;
        let leaked_ns = request.at_ns.saturating_sub(bucket.at_ns);
        // The first request of an address comes to no bucket at all.
        let waiting_ns = if bucket.at_ns == 0 { 0 } else { bucket.excess_ns + self.interval_ns };
        let excess_ns = waiting_ns.saturating_sub(leaked_ns);
        if excess_ns == 0 {
            bucket.reported = false;
        }
        if excess_ns <= self.burst * self.interval_ns {
            bucket.at_ns = bucket.at_ns.max(request.at_ns);
            bucket.excess_ns = excess_ns;
            return None;
        }
        let first = !std::mem::replace(&mut bucket.reported, true);
        first.then(|| Fired {
            at_ns: request.at_ns,
            client: request.client,
            accounts: distinct(bucket.latest.iter().copied()),
        })
    }

    fn forgotten(&self) -> u64 {
        self.buckets.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NEVER, address, read, times};
    use super::*;

    #[test]
    fn six_at_once_pass_and_the_seventh_is_rejected() {
        let mut limit = LimitReq::documented(100);
        // The first request finds an empty bucket, the next five fill it.
        let fired: Vec<usize> = (0..9).filter(|_| limit.see(&read(address(1), 5.0, 1, 17)).is_some()).collect();
        assert_eq!(fired, [6]);
        // One a second leaks: the bucket stays full, so one request a second passes and two do not; one report for all.
        assert_eq!(times(&mut limit, (0..10).map(|n| read(address(1), 6.0 + f64::from(n), 1, 17))), NEVER);
        assert_eq!(times(&mut limit, (0..20).map(|n| read(address(1), 16.0 + f64::from(n) / 2.0, 1, 17))), NEVER);
        // After the bucket ran empty, it counts from the beginning.
        let fired: Vec<usize> = (0..9).filter(|_| limit.see(&read(address(1), 60.0, 1, 17)).is_some()).collect();
        assert_eq!(fired, [6]);
    }

    #[test]
    fn two_a_second_are_too_many_after_the_burst() {
        // Each request adds 1 and half of that leaks: 0, 0.5, 1, … 5 pass, which are 11; the next would make it 5.5.
        let mut limit = LimitReq::documented(100);
        let requests = (0..30).map(|n| read(address(1), 100.0 + f64::from(n) / 2.0, 1, 17));
        assert_eq!(times(&mut limit, requests), [105.5]);
    }

    #[test]
    fn one_a_second_for_a_day_is_allowed() {
        let mut limit = LimitReq::documented(100);
        let requests = (0..86_400).map(|n| read(address(1), 100.0 + f64::from(n), u32::try_from(n).unwrap_or(0), 17));
        assert_eq!(times(&mut limit, requests), NEVER);
    }
}
