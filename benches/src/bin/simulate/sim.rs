//! The service at work: what is due when.
//!
//! Members on a visit stand in a wheel of time slots of a tenth of a second each; whatever is rarer stands in an agenda.
//! Only visits under way are kept. Times rise from exchange to exchange.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hint::black_box;

use crate::attack::{Attack, Part};
use crate::feed::{Failed, Feed, Findings};
use crate::outlet::{Outlet, Spell};
use crate::rng::{Gaps, Rng};
use crate::scenario::Plan;
use crate::token::{Claims, Mint};
use crate::truth::Truth;
use crate::visit::Visit;
use crate::world::{SECOND, START_NS, World, busy};

/// Length of a slot, nanoseconds.
pub const SLOT_NS: u64 = SECOND / 10;
/// Mean time between two requests of a visit, slots.
const GAP_SLOTS: f64 = 80.0;

/// Visits that are fetched together.
const AHEAD: usize = 16;

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// The next member comes.
    Arrival,
    /// The next person signs up.
    SignUp,
    /// Customer service: who.
    Staff(u32),
    /// A partner service: which.
    Partner(u32),
    /// A crawler: which.
    Crawler(u32),
    /// A new signing key.
    Rotation,
    /// The logins move.
    Move,
    /// The attack.
    Attack(Part),
}

/// Makes the task of one of many.
type Make = fn(u32) -> Task;

/// The simulation.
pub struct Sim<'p, F> {
    pub plan: &'p Plan,
    pub world: World,
    pub out: Outlet<F>,
    pub mint: Mint,
    pub rng: Rng,
    pub truth: Truth,
    findings: Findings,
    /// Visits; those that are over are listed in `free`.
    pub visits: Vec<Visit>,
    /// The claims of each visit's token.
    pub claims: Vec<Claims>,
    pub free: Vec<u32>,
    wheel: Vec<Vec<u32>>,
    slot: u64,
    pub gaps: Gaps,
    agenda: BinaryHeap<Reverse<(u64, u64, Task)>>,
    /// Tasks filed so far: those of one time come in this order.
    filed: u64,
    /// When members with the app logged in, of those who did since the start, seconds.
    pub app_logins: HashMap<u64, i64>,
    /// Tokens of customer service, and when they end.
    pub staff_tokens: Vec<(Claims, u64)>,
    /// Where crawlers are.
    pub crawled: Vec<u64>,
    /// Members who signed up so far.
    pub signed_up: u64,
    rotations: usize,
    pub logins_moved: bool,
    /// `iat` and `exp` of a token that a member got lately.
    pub last_times: (i64, i64),
    attack: Option<Attack>,
    end_ns: u64,
}

/// Names of signing keys, in the order in which they are used.
const KEYS: [&str; 9] =
    ["2025-04", "2025-05", "2025-06", "2025-07", "2025-08", "2025-09", "2025-10", "2025-11", "2025-12"];

impl<'p, F: Feed> Sim<'p, F> {
    /// Ready to run. Findings of the feed come out of `findings`.
    pub fn new(plan: &'p Plan, feed: F, mint: Mint, truth: Truth, findings: Findings) -> Self {
        let members = &plan.members;
        let gaps = Gaps::new(GAP_SLOTS);
        let mut sim = Self {
            plan,
            world: World::new(plan),
            out: Outlet::new(plan, feed),
            mint,
            rng: Rng::new(members.seed, 1),
            truth,
            findings,
            visits: Vec::new(),
            claims: Vec::new(),
            free: Vec::new(),
            wheel: vec![Vec::new(); gaps.longest() as usize + 2],
            slot: 0,
            gaps,
            agenda: BinaryHeap::new(),
            filed: 0,
            app_logins: HashMap::new(),
            staff_tokens: vec![(Claims::default(), 0); members.staff as usize],
            crawled: vec![0; members.crawlers as usize],
            signed_up: 0,
            rotations: 0,
            logins_moved: false,
            last_times: (0, 0),
            attack: None,
            end_ns: START_NS + (members.days * 86_400.0 * SECOND as f64) as u64,
        };
        sim.first_tasks();
        sim.attack = Attack::begin(&mut sim);
        sim
    }

    fn first_tasks(&mut self) {
        let members = &self.plan.members;
        self.file(START_NS, Task::Arrival);
        if members.signups_per_day > 0.0 {
            self.file(START_NS, Task::SignUp);
        }
        let groups: [(u32, u64, Make); 3] = [
            (members.staff, 60, Task::Staff),
            (members.partners, 1, Task::Partner),
            (members.crawlers, 1, Task::Crawler),
        ];
        for (count, within_s, task) in groups {
            for which in 0..count {
                let at_ns = START_NS + self.rng.below(within_s * SECOND);
                self.file(at_ns, task(which));
            }
        }
        for (when, task) in [(&members.key_rotations, Task::Rotation), (&members.login_path_change, Task::Move)] {
            for seconds in when.seconds(members.days) {
                self.file(START_NS + (seconds * SECOND as f64) as u64, task);
            }
        }
    }

    /// Puts a task on the agenda.
    pub fn file(&mut self, at_ns: u64, task: Task) {
        self.filed += 1;
        self.agenda.push(Reverse((at_ns, self.filed, task)));
    }

    /// Puts a visit into the wheel, so many slots from now (at least one).
    pub fn wait(&mut self, visit: u32, slots: u32) {
        let slots = u64::from(slots.max(1)).min(self.wheel.len() as u64 - 1);
        let at = (self.slot + slots) as usize % self.wheel.len();
        if let Some(list) = self.wheel.get_mut(at) {
            list.push(visit);
        }
    }

    /// Runs to the end.
    pub fn run(&mut self) -> Result<(), Failed> {
        self.snapshot()?;
        while START_NS + self.slot * SLOT_NS < self.end_ns {
            let from = START_NS + self.slot * SLOT_NS;
            let at = self.slot as usize % self.wheel.len();
            let mut due = self.wheel.get_mut(at).map(std::mem::take).unwrap_or_default();
            let step = SLOT_NS / (due.len() as u64 + 1);
            let mut at_ns = from;
            for visits in due.chunks(AHEAD) {
                // They lie all over the memory: fetched together, they are waited for once.
                let left = visits.iter().filter_map(|visit| self.visits.get(*visit as usize)).map(|visit| visit.left);
                black_box(left.fold(0, |sum, left| sum ^ left));
                for visit in visits {
                    at_ns += step;
                    self.tasks(at_ns)?;
                    self.out.advance(at_ns)?;
                    self.step(*visit)?;
                }
            }
            self.tasks(from + SLOT_NS - 1)?;
            self.out.advance(from + SLOT_NS)?;
            due.clear();
            if let Some(list) = self.wheel.get_mut(at) {
                *list = due;
            }
            self.listen()?;
            self.slot += 1;
        }
        self.out.finish(self.end_ns)?;
        self.listen()
    }

    /// Hears what the sensor found.
    fn listen(&mut self) -> Result<(), Failed> {
        match self.findings.take() {
            Some(lines) => self.truth.told(&lines),
            None => Ok(()),
        }
    }

    /// Does what is due by `until_ns`.
    fn tasks(&mut self, until_ns: u64) -> Result<(), Failed> {
        while let Some(Reverse((at_ns, _, task))) = self.agenda.peek().copied() {
            if at_ns > until_ns {
                return Ok(());
            }
            self.agenda.pop();
            self.out.advance(at_ns)?;
            self.act_on(task)?;
        }
        Ok(())
    }

    fn act_on(&mut self, task: Task) -> Result<(), Failed> {
        match task {
            Task::Arrival => self.arrival()?,
            Task::SignUp => self.sign_up()?,
            Task::Staff(who) => self.staff(who)?,
            Task::Partner(which) => self.partner(which)?,
            Task::Crawler(which) => self.crawler(which)?,
            Task::Rotation => self.rotations += 1,
            Task::Move => self.logins_moved = true,
            Task::Attack(part) => {
                if let Some(mut attack) = self.attack.take() {
                    self.out.attacking = true;
                    attack.act(self, part)?;
                    self.out.attacking = false;
                    self.attack = Some(attack);
                    // What was found by now was found before the next request.
                    self.listen()?;
                }
            }
        }
        Ok(())
    }

    /// When the next of events comes, that come at `rate` a second.
    pub fn after(&mut self, rate: f64) -> u64 {
        self.out.at_ns + (self.rng.exponential(rate.max(1e-9)) * SECOND as f64) as u64
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        (self.out.at_ns - START_NS) as f64 / SECOND as f64
    }

    /// The signing key in use.
    pub fn kid(&self) -> &'static str {
        KEYS.get(self.rotations % KEYS.len()).copied().unwrap_or("2025-04")
    }

    /// How many members come in a second.
    pub fn arrivals(&self) -> f64 {
        let members = &self.plan.members;
        let visits = members.members as f64 * members.daily_active_share * members.logins_per_active_day / 86_400.0;
        visits * busy(self.seconds()) * self.out.rush()
    }

    /// True in a storm of logins.
    pub fn storm(&self) -> bool {
        self.out.is(|spell| matches!(spell, Spell::Storm(_)))
    }
}
