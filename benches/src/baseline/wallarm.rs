//! Wallarm's published example of a trigger against BOLA: 30 requests from one address in 30 s for one path with a
//! wildcard, then four hours on the denylist. Off unless configured.
//!
//! Source: <https://docs.wallarm.com/admin-en/configuration-guides/protecting-against-bola-trigger/>. The example's path
//! (`/shops/*/financial_info`) stands for one kind of page, so addresses are counted for each account-reading route apart.
//! Restated as an exact sliding window that more than 30 requests exceed; for four hours the address is not reported again,
//! on whatever route. Left out: the application and address filters, which the example does not use either.

use std::net::IpAddr;

use sensor::observation::RouteClass;

use super::table::Table;
use super::window::Window;
use super::{Baseline, Fired, Request, SECOND};

/// The trigger.
#[derive(Debug)]
pub struct Bola {
    window: Window<(IpAddr, u16)>,
    /// Until when an address is on the denylist, nanoseconds.
    denied: Table<IpAddr, u64>,
}

/// The time that the example denies an address.
const DENIED_NS: u64 = 4 * 3600 * SECOND;

impl Bola {
    /// The example; keeps `kept` addresses.
    pub fn example(kept: usize) -> Self {
        Self { window: Window::new(30, 30 * SECOND, 0, kept), denied: Table::new(kept) }
    }
}

impl Baseline for Bola {
    fn name(&self) -> &'static str {
        "Wallarm BOLA 30 in 30 s"
    }

    fn see(&mut self, request: &Request) -> Option<Fired> {
        let route = request.route.filter(|_| request.class == RouteClass::AccountRead)?;
        let fired = self.window.count((request.client, route), request)?;
        let denied_ns = self.denied.at(request.client);
        let fresh = request.at_ns >= *denied_ns;
        if fresh {
            *denied_ns = request.at_ns.saturating_add(DENIED_NS);
        }
        fresh.then_some(fired)
    }

    fn forgotten(&self) -> u64 {
        self.window.forgotten() + self.denied.forgotten()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NEVER, address, read, times};
    use super::*;

    #[test]
    fn forty_requests_in_thirty_seconds_from_one_address() {
        // One every 0.75 s; the 31st comes after 22.5 s, with 31 accounts.
        let mut trigger = Bola::example(100);
        let requests = (0..40).map(|n: u32| read(address(1), 100.0 + f64::from(n) * 0.75, 1, 1000 + n));
        let fired: Vec<Fired> = requests.filter_map(|request| trigger.see(&request)).collect();
        assert_eq!(fired.len(), 1);
        assert_eq!((fired[0].at_ns, fired[0].accounts.len()), (122_500_000_000, 31));
    }

    #[test]
    fn forty_addresses_or_forty_products_or_half_of_them_on_each_route_are_not_seen() {
        let mut trigger = Bola::example(100);
        let at = |n: u32| 100.0 + f64::from(n) * 0.75;
        assert_eq!(times(&mut trigger, (0..40).map(|n| read(address(n), at(n), 1, n))), NEVER);
        let product = |n| Request { class: RouteClass::Other, ..read(address(99), at(n), 1, n) };
        assert_eq!(times(&mut trigger, (0..40).map(product)), NEVER);
        let two = |n| Request { route: u16::try_from(n % 2).ok(), ..read(address(98), at(n), 1, n) };
        assert_eq!(times(&mut trigger, (0..40).map(two)), NEVER);
    }

    #[test]
    fn a_denied_address_is_reported_again_after_four_hours() {
        let mut trigger = Bola::example(100);
        // One a second for nine hours; 31 of them lie within 30 s only when they come faster.
        let slow = (0..600).map(|n| read(address(1), 100.0 + f64::from(n), 1, 17));
        assert_eq!(times(&mut trigger, slow), NEVER);
        // Bursts of 31 at once, every minute of nine hours.
        let bursts = (0..540).flat_map(|n| (0..31).map(move |_| read(address(1), 1000.0 + f64::from(n) * 60.0, 1, 17)));
        assert_eq!(times(&mut trigger, bursts), [1000.0, 15_400.0, 29_800.0]);
    }
}
