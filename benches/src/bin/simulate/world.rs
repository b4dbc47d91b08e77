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

/// Every so many numbers one is never given to a member: it can be a decoy. `scenarios/config/storefront.toml` names them.
pub const DECOY_STEP: u64 = 5501;
/// Numbers that can be decoys.
pub const DECOYS: u64 = 200;

/// True for a number that no member has, so that it can be a decoy.
pub fn is_nobodys(id: u64) -> bool {
    id.is_multiple_of(DECOY_STEP) && (1..=DECOYS).contains(&(id / DECOY_STEP))
}

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
    decoys: u64,
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
            decoys: members.canaries.0.into(),
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
        self.is_kept(id) && !is_nobodys(id)
    }

    /// True for a number that was not given up.
    pub fn is_kept(&self, id: u64) -> bool {
        id > 0 && self.trait_of(id, 0) >= self.withdrawn && id <= self.ids
    }

    /// True for a decoy: nobody's account, which answers like any. As many as the scenario has, spread over all that can be.
    pub fn is_decoy(&self, id: u64) -> bool {
        let index = id / DECOY_STEP;
        is_nobodys(id) && index * self.decoys / DECOYS > (index - 1) * self.decoys / DECOYS
    }

    /// Whose account somebody reads who asks for `id`, if there is one; with `decoys`, of these too.
    pub fn target(&self, id: u64, decoys: bool) -> Option<u64> {
        if decoys && self.is_decoy(id) {
            return Some(id);
        }
        self.is_kept(id).then(|| self.beside(id))
    }

    /// The number itself, or the next member's if it is nobody's: so that decoys change nothing about who else comes.
    fn beside(&self, mut id: u64) -> u64 {
        while is_nobodys(id) || !self.is_kept(id) {
            id = id % self.ids + 1;
        }
        id
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
            if self.is_kept(id) && self.active(id, day) {
                return self.beside(id);
            }
        }
        1
    }

    /// Any member.
    pub fn member(&self, rng: &mut Rng) -> u64 {
        loop {
            let id = rng.below(self.ids) + 1;
            if self.is_kept(id) {
                return self.beside(id);
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
    use crate::scenario::Canaries;

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
    fn decoys_are_nobodys_and_spread_out() {
        let mut plan = Plan::default();
        for (wanted, gap) in [(0, 0), (1, 0), (8, 25), (200, 1)] {
            plan.members.canaries = Canaries(wanted);
            let world = World::new(&plan);
            let decoys: Vec<u64> = (1..=world.ids).filter(|id| world.is_decoy(*id)).collect();
            assert_eq!(decoys.len(), wanted as usize);
            assert!(decoys.windows(2).all(|two| two[1] - two[0] == gap * DECOY_STEP), "{decoys:?}");
            assert!(decoys.iter().all(|id| !world.exists(*id)));
        }
        let world = World::new(&plan);
        let mut rng = Rng::new(1, 1);
        let came = (0..100_000).map(|_| world.visitor(&mut rng, 0)).all(|id| world.exists(id));
        assert!(came, "only members come");
    }

    #[test]
    fn a_mean_day_is_a_mean_day() {
        let week: f64 = (0..7 * 1440).map(|minute| busy(f64::from(minute) * 60.0)).sum::<f64>() / (7.0 * 1440.0);
        assert!((week - 1.0).abs() < 0.01, "{week}");
        assert!((0..7 * 1440).all(|minute| (0.2..1.9).contains(&busy(f64::from(minute) * 60.0))));
    }
}
