//! What leaves the simulation: exchanges, as the service answers them now, unless the sensor is blind.

use crate::feed::{Act, Failed, Feed, Route};
use crate::rng::Rng;
use crate::scenario::Plan;
use crate::token::Held;
use crate::world::{SECOND, START_NS};

/// Bytes of an error page.
pub const ERROR_PAGE: u64 = 312;
/// A deploy, seconds; and the share of answers that fail meanwhile, and that never come.
const DEPLOY_S: f64 = 60.0;
const DEPLOY_FAILS: f64 = 0.2;
const DEPLOY_LOSES: f64 = 0.02;
/// An outage of the login service, and the rush behind it, seconds.
const OUTAGE_S: f64 = 1200.0;
const RUSH_S: f64 = 600.0;
/// How many times as many come in that rush.
const RUSH: f64 = 2.0;
/// Minutes in which people follow a push message, as seconds, and the share of a day's visitors who do.
const PUSH_S: f64 = 300.0;
const PUSH_SHARE: f64 = 0.05;
/// A storm of logins: seconds, and how many times as many come.
const STORM_S: f64 = 900.0;
const STORM: f64 = 9.0;
/// The sensor is down for so long, seconds.
const DOWN_S: f64 = 4.0;

/// What goes on for a while.
#[derive(Clone, Debug)]
pub enum Spell {
    /// So many times as many members come.
    Rush(f64),
    /// So many times as many come, and most only log in.
    Storm(f64),
    /// Answers fail.
    Deploy,
    /// Logins and refreshes fail.
    Outage,
    /// The sensor loses everything, and knows it.
    Gap,
    /// The sensor is down.
    Down,
}

/// One exchange, but for its lines, which stand in the outlet.
#[derive(Clone, Copy)]
pub struct Sent<'a> {
    pub client: u32,
    pub route: Route,
    pub shown: &'a [Held<'a>],
    pub status: u16,
    pub bytes: u64,
    pub handed: &'a [Held<'a>],
}

/// The way out.
pub struct Outlet<F> {
    pub feed: F,
    /// Time of what is sent next.
    pub at_ns: u64,
    /// The request line.
    pub line: Vec<u8>,
    /// JSON bodies; emptied by [`Outlet::send`].
    pub request: Vec<u8>,
    pub response: Vec<u8>,
    /// Of the service, not of its members.
    rng: Rng,
    /// What is sent now is the attack's.
    pub attacking: bool,
    spells: Vec<(u64, u64, Spell)>,
    now: Vec<usize>,
    change_ns: u64,
    /// Records that the sensor did not get while it was blind.
    unseen: u64,
}

fn ns(seconds: f64) -> u64 {
    START_NS + (seconds * SECOND as f64) as u64
}

/// Everything that goes on for a while, by the plan.
fn spells(plan: &Plan) -> Vec<(u64, u64, Spell)> {
    let members = &plan.members;
    let mut spells = Vec::new();
    let mut add = |from: f64, length: f64, spell: Spell| spells.push((ns(from), ns(from + length), spell));
    let visits_a_second = members.logins_per_active_day / 86_400.0;
    for at in members.push_bursts.seconds(members.days) {
        add(at, PUSH_S, Spell::Rush(PUSH_SHARE / PUSH_S / visits_a_second.max(1e-9)));
    }
    for at in members.login_storm.seconds(members.days) {
        add(at, STORM_S, Spell::Storm(STORM));
    }
    for at in members.deploys.seconds(members.days) {
        add(at, DEPLOY_S, Spell::Deploy);
    }
    for at in members.issuer_outages.seconds(members.days) {
        add(at, OUTAGE_S, Spell::Outage);
        add(at + OUTAGE_S, RUSH_S, Spell::Rush(RUSH));
    }
    for at in members.sensor_restarts.seconds(members.days) {
        add(at, DOWN_S, Spell::Down);
    }
    if members.gap_seconds > 0.0 {
        add(gap_at(plan), members.gap_seconds, Spell::Gap);
    }
    spells
}

/// When the gap is, seconds from the start: half a day before the attack, as far as there is that time.
pub fn gap_at(plan: &Plan) -> f64 {
    let day = if plan.attack.kind == crate::scenario::Kind::None { 1.0 } else { plan.attack.start_day };
    (day - 0.5).max(0.1 * day) * 86_400.0
}

impl<F: Feed> Outlet<F> {
    /// To `feed`, by the plan.
    pub fn new(plan: &Plan, feed: F) -> Self {
        Self {
            feed,
            at_ns: START_NS,
            line: Vec::with_capacity(256),
            request: Vec::with_capacity(2048),
            response: Vec::with_capacity(4096),
            rng: Rng::new(plan.members.seed, 2),
            attacking: false,
            spells: spells(plan),
            now: Vec::new(),
            change_ns: 0,
            unseen: 0,
        }
    }

    /// Moves time on; it never goes back, and has whole microseconds, as in a trace.
    pub fn advance(&mut self, at_ns: u64) -> Result<(), Failed> {
        self.at_ns = self.at_ns.max(at_ns / 1000 * 1000);
        if self.at_ns >= self.change_ns { self.turn() } else { Ok(()) }
    }

    /// The end.
    pub fn finish(&mut self, at_ns: u64) -> Result<(), Failed> {
        self.end_spells(u64::MAX)?;
        self.feed.finish(at_ns)
    }

    /// Brings up to date what goes on.
    fn turn(&mut self) -> Result<(), Failed> {
        let at_ns = self.at_ns;
        self.end_spells(at_ns)?;
        let begun = self.spells.iter().enumerate().filter(|(_, (from, to, _))| (*from..*to).contains(&at_ns));
        self.now = begun.map(|(at, _)| at).collect();
        let borders = self.spells.iter().flat_map(|(from, to, _)| [*from, *to]);
        self.change_ns = borders.filter(|border| *border > at_ns).min().unwrap_or(u64::MAX);
        Ok(())
    }

    fn end_spells(&mut self, at_ns: u64) -> Result<(), Failed> {
        for at in std::mem::take(&mut self.now) {
            let Some((from, to, spell)) = self.spells.get(at) else { continue };
            match spell {
                Spell::Gap if *to <= at_ns => self.feed.lost(*from, *to, std::mem::take(&mut self.unseen))?,
                Spell::Down if *to <= at_ns => self.feed.restart(*from, *to, std::mem::take(&mut self.unseen))?,
                _ => {}
            }
        }
        Ok(())
    }

    /// True while such a spell goes on.
    pub fn is(&self, which: impl Fn(&Spell) -> bool) -> bool {
        self.now.iter().any(|at| self.spells.get(*at).is_some_and(|(_, _, spell)| which(spell)))
    }

    /// How many times as many members come as usual.
    pub fn rush(&self) -> f64 {
        let spells = self.now.iter().filter_map(|at| self.spells.get(*at));
        let more = spells.map(|(_, _, spell)| match spell {
            Spell::Rush(times) | Spell::Storm(times) => *times,
            _ => 0.0,
        });
        1.0 + more.sum::<f64>()
    }

    /// Gives an exchange to the feed, unless the sensor is blind. True when the client got the answer that it wanted.
    pub fn send(&mut self, sent: Sent<'_>) -> Result<bool, Failed> {
        let mut sent = sent;
        let mut good = true;
        if !self.now.is_empty() {
            if self.is(|spell| matches!(spell, Spell::Deploy)) {
                let drawn = self.rng.share();
                if drawn < DEPLOY_LOSES {
                    (sent.status, good) = (0, false);
                } else if drawn < DEPLOY_FAILS {
                    (sent.status, sent.bytes, good) = (503, ERROR_PAGE, false);
                }
            }
            let issuing = matches!(
                sent.route,
                Route::Login | Route::Otp | Route::SignUp | Route::StaffLogin | Route::Refresh | Route::MovedLogin
            );
            if issuing && self.is(|spell| matches!(spell, Spell::Outage)) {
                (sent.status, sent.bytes, good) = (503, ERROR_PAGE, false);
            }
            if !good {
                sent.handed = &[];
                self.response.clear();
            }
            if self.is(|spell| matches!(spell, Spell::Gap | Spell::Down)) {
                self.unseen += 2;
                self.request.clear();
                self.response.clear();
                return Ok(good);
            }
        }
        self.feed.act(&Act {
            at_ns: self.at_ns,
            client: sent.client,
            route: sent.route,
            line: &self.line,
            shown: sent.shown,
            status: sent.status,
            bytes: if self.response.is_empty() { sent.bytes } else { self.response.len() as u64 },
            handed: sent.handed,
            request: &self.request,
            response: &self.response,
            attack: self.attacking,
        })?;
        self.request.clear();
        self.response.clear();
        Ok(good)
    }

    /// What `send` does, for an exchange of which the sensor sees nothing, for no known reason.
    pub fn miss(&mut self) {
        self.request.clear();
        self.response.clear();
    }
}
