//! The service's members: what each is follows from the number and the seed, so that none of it is kept.

use crate::rng::{Rng, mix};
use crate::scenario::Plan;

/// When a simulation starts, seconds since 1970: 2025-04-13, the day before the mass read of 2025 began (domain A1).
pub const START_S: u64 = 1_744_502_400;
/// Nanoseconds of a second.
pub const SECOND: u64 = 1_000_000_000;
/// When a simulation starts, nanoseconds.
pub const START_NS: u64 = START_S * SECOND;

/// Members behind one carrier address.
const NAT_MEMBERS: f64 = 5000.0;
/// Of a member's hash, the bits that say how they log in.
const TRAITS: u32 = 24;

/// How a member authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Habit {
    /// The app: a refresh token that lasts, an access token for each visit.
    App,
    /// The site: a login for each visit, an access token.
    Token,
    /// The site: a login for each visit, an opaque cookie.
    Session,
    /// The site: a login for each visit, a cookie that answers renew.
    Rolling,
    /// A login at the sister company.
    Sister,
}

/// The members.
#[derive(Debug)]
pub struct World {
    seed: u64,
    /// Numbers given out before the start: 1 to this.
    pub ids: u64,
    withdrawn: u64,
    habits: [u64; 4],
    active: u64,
    nat: u64,
    nat_addresses: u64,
}

fn bound(share: f64) -> u64 {
    (share.clamp(0.0, 1.0) * f64::from(1u32 << TRAITS)) as u64
}

impl World {
    /// The members of `plan`.
    pub fn new(plan: &Plan) -> Self {
        let members = &plan.members;
        let exist = (1.0 - members.withdrawn_share).max(0.01);
        let sister = members.offhost_issuer_share;
        let rolling = sister + members.rolling_cookie_share;
        let session = rolling + members.opaque_share;
        let app = session + (1.0 - session).max(0.0) * members.refresh.0;
        let nat_addresses = (members.members as f64 * members.nat_share / NAT_MEMBERS).ceil().max(1.0) as u64;
        Self {
            seed: mix(members.seed),
            ids: (members.members as f64 / exist).ceil() as u64,
            withdrawn: bound(members.withdrawn_share),
            habits: [bound(sister), bound(rolling), bound(session), bound(app)],
            active: bound(members.daily_active_share),
            nat: bound(members.nat_share),
            nat_addresses,
        }
    }

    fn hash(&self, id: u64, what: u64) -> u64 {
        mix(self.seed ^ mix(id.wrapping_mul(8).wrapping_add(what)))
    }

    fn trait_of(&self, id: u64, what: u64) -> u64 {
        self.hash(id, what) >> (64 - TRAITS)
    }

    /// True when there is such a member; of numbers given out since the start, all are.
    pub fn exists(&self, id: u64) -> bool {
        id > 0 && self.trait_of(id, 0) >= self.withdrawn && id <= self.ids
    }

    /// How a member authenticates.
    pub fn habit(&self, id: u64) -> Habit {
        let drawn = self.trait_of(id, 1);
        let [sister, rolling, session, app] = self.habits;
        match drawn {
            _ if drawn < sister => Habit::Sister,
            _ if drawn < rolling => Habit::Rolling,
            _ if drawn < session => Habit::Session,
            _ if drawn < app => Habit::App,
            _ => Habit::Token,
        }
    }

    /// True when a member comes on `day`.
    fn active(&self, id: u64, day: u64) -> bool {
        self.trait_of(id, 16 + day * 8) < self.active
    }

    /// A member who comes on `day`.
    pub fn visitor(&self, rng: &mut Rng, day: u64) -> u64 {
        // Of a service whose members never come, anyone.
        for _ in 0..10_000 {
            let id = rng.below(self.ids) + 1;
            if self.exists(id) && self.active(id, day) {
                return id;
            }
        }
        1
    }

    /// Any member.
    pub fn member(&self, rng: &mut Rng) -> u64 {
        loop {
            let id = rng.below(self.ids) + 1;
            if self.exists(id) {
                return id;
            }
        }
    }

    /// Whence a member comes: a line of their own, or a carrier's address.
    pub fn address(&self, id: u64) -> u32 {
        if self.trait_of(id, 3) < self.nat {
            return self.nat_address(self.hash(id, 4));
        }
        // 1.0.0.0 to 96.255.255.255
        0x0100_0000 + (self.hash(id, 5) % 0x6000_0000) as u32
    }

    /// One of the carriers' addresses, 100.64.0.0/10 (RFC 6598).
    pub fn nat_address(&self, which: u64) -> u32 {
        0x6440_0000 + (which % self.nat_addresses.min(1 << 22)) as u32
    }

    /// A number by which something of a member's is told apart: a token, an order.
    pub fn number(&self, id: u64, what: u64) -> u64 {
        self.hash(id, 1000 + what)
    }
}

/// How busy the service is at `seconds` from the start, relative to its mean: least before dawn, most in the evening, a
/// little more at the weekend.
pub fn busy(seconds: f64) -> f64 {
    let day = seconds / 86_400.0;
    let hour = std::f64::consts::TAU * (day - 0.5 / 24.0);
    // The simulation starts at 09:00 in Seoul: the peak is twelve hours later.
    let daily = 1.0 - 0.55 * hour.cos() - 0.12 * (2.0 * hour).cos();
    let weekly = 1.0 + 0.06 * (std::f64::consts::TAU * day / 7.0).cos();
    daily * weekly
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_what_they_say() {
        let mut plan = Plan::default();
        plan.members.members = 100_000;
        let world = World::new(&plan);
        let all: Vec<u64> = (1..=world.ids).filter(|id| world.exists(*id)).collect();
        assert!((99_000..101_000).contains(&all.len()), "{}", all.len());
        let share = |which: Habit| all.iter().filter(|id| world.habit(**id) == which).count() as f64 / 1e5;
        for (habit, want) in [(Habit::Sister, 0.02), (Habit::Rolling, 0.05), (Habit::Session, 0.2), (Habit::App, 0.292)]
        {
            assert!((share(habit) - want).abs() < 0.01, "{habit:?} {}", share(habit));
        }
        let carriers = all.iter().filter(|id| world.address(**id) >> 22 == 0x6440_0000 >> 22).count();
        assert!((29_000..31_000).contains(&carriers), "{carriers}");
    }

    #[test]
    fn a_mean_day_is_a_mean_day() {
        let week: f64 = (0..7 * 1440).map(|minute| busy(f64::from(minute) * 60.0)).sum::<f64>() / (7.0 * 1440.0);
        assert!((week - 1.0).abs() < 0.01, "{week}");
        assert!((0..7 * 1440).all(|minute| (0.2..1.9).contains(&busy(f64::from(minute) * 60.0))));
    }
}
