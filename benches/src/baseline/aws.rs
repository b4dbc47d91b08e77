//! AWS WAF rate-based rules with the limits of AWS's best practices: 500 requests in five minutes for everything, and 100
//! for sensitive paths, each keyed by address.
//!
//! Sources: <https://docs.aws.amazon.com/whitepapers/latest/aws-best-practices-ddos-resiliency/aws-waf-rate-based-rules.html>
//! (a blanket rule of 500 in 5 minutes; more restrictive ones, as low as 100, for paths that reach the database or log in),
//! <https://docs.aws.amazon.com/waf/latest/developerguide/waf-rule-statement-type-rate-based-high-level-settings.html>
//! (300 s is the default window). Restated as an exact sliding window, where AWS says that its limit is approximate and
//! checked now and then; an address is reported again once it was below the limit. "Sensitive" are routes that read
//! accounts, log in or refresh.

use std::net::IpAddr;

use sensor::observation::RouteClass;

use super::window::Window;
use super::{Baseline, Fired, Request, SECOND};

/// A rate-based rule.
#[derive(Debug)]
pub struct RateBased {
    name: &'static str,
    everything: bool,
    window: Window<IpAddr>,
}

const WINDOW_NS: u64 = 300 * SECOND;

impl RateBased {
    /// The blanket rule; keeps `kept` addresses.
    pub fn blanket(kept: usize) -> Self {
        Self { name: "AWS WAF 500 in 5 min", everything: true, window: Window::new(500, WINDOW_NS, 0, kept) }
    }

    /// The rule for sensitive paths; keeps `kept` addresses.
    pub fn sensitive(kept: usize) -> Self {
        Self {
            name: "AWS WAF 100 in 5 min, sensitive paths",
            everything: false,
            window: Window::new(100, WINDOW_NS, 0, kept),
        }
    }
}

impl Baseline for RateBased {
    fn name(&self) -> &str {
        self.name
    }

    fn see(&mut self, request: &Request) -> Option<Fired> {
        let sensitive = matches!(request.class, RouteClass::AccountRead | RouteClass::Login | RouteClass::Refresh);
        if self.everything || sensitive { self.window.count(request.client, request) } else { None }
    }

    fn forgotten(&self) -> u64 {
        self.window.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NEVER, address, read, times};
    use super::*;

    #[test]
    fn the_501st_in_five_minutes_is_one_too_many() {
        // Two a second: 500 in the 250 s before, so the 501st comes at 250 s.
        let mut rule = RateBased::blanket(100);
        let requests = (0..800).map(|n| read(address(1), 1000.0 + f64::from(n) / 2.0, 1, 17));
        assert_eq!(times(&mut rule, requests), [1250.0]);
        // 500 in any 300 s are allowed for ever: one every 0.6 s.
        let mut rule = RateBased::blanket(100);
        let requests = (0..5000).map(|n| read(address(1), 1000.0 + f64::from(n) * 0.6, 1, 17));
        assert_eq!(times(&mut rule, requests), NEVER);
    }

    #[test]
    fn sensitive_paths_have_a_lower_limit_and_others_do_not_count() {
        let product = |n: i32| Request {
            class: RouteClass::Other,
            account: None,
            returned: false,
            ..read(address(1), 1000.0 + f64::from(n), 1, 17)
        };
        let mut rule = RateBased::sensitive(100);
        assert_eq!(times(&mut rule, (0..1000).map(product)), NEVER);
        let requests = (0..150).map(|n| read(address(1), 3000.0 + f64::from(n), 1, 17));
        assert_eq!(times(&mut rule, requests), [3100.0]);
    }

    #[test]
    fn it_speaks_again_after_the_address_was_quiet() {
        let mut rule = RateBased::sensitive(100);
        let burst = |from: f64| (0..200).map(move |n| read(address(1), from + f64::from(n) / 10.0, 1, 17));
        assert_eq!(times(&mut rule, burst(1000.0).chain(burst(2000.0))), [1010.0, 2010.0]);
    }
}
