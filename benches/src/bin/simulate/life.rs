//! One life of a sensor whose ledger and state are kept in a folder: from its start to its kill, or to the end.
//!
//! Traffic flows in from the beginning of the simulation. What came before this life is thrown away: an earlier life had
//! it, or nobody. Findings are appended to a file in the folder. What a daemon has on disk by its clock is put there by the
//! simulated clock ([`EVERY_NS`]), near the kill as often as a daemon does it ([`CLOSE_NS`]).

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::{Signal, raise};
use sensor::collect::Clock;
use sensor::config::model::LedgerStore;
use sensor::ledger::{Issuance, Ledger};
use serde::{Deserialize, Serialize};

use crate::feed::{Act, Failed, Feed, Findings, PipelineFeed, Sensor, issued_before};
use crate::token::Held;
use crate::world::{SECOND, START_NS};

/// Exchanges after which everything is on disk at the latest, so that queues never lose what a real rate would not.
const EXCHANGES: u32 = 4096;
/// Simulated time after which it is.
const EVERY_NS: u64 = 60 * SECOND;
/// So long before the kill it is as often as in a daemon: twice in each `ledger.sync_interval`.
const CLOSE_NS: u64 = 120 * SECOND;
/// Of exchanges that nobody judged, those of so long before this life are remembered. No gap of a restart is longer.
const UNSEEN_NS: u64 = 600 * SECOND;
/// The next life starts that long after a kill at the latest.
const HOUR_NS: u64 = 3600 * SECOND;

/// What a process is to live through.
#[derive(Clone, Debug)]
pub struct Span {
    /// Where ledger, state and findings are.
    pub folder: PathBuf,
    /// When it starts; `None`: with the simulation.
    pub from_ns: Option<u64>,
    /// When it kills itself.
    pub die_ns: Option<u64>,
}

impl Span {
    /// Where its findings are appended.
    pub fn findings(&self) -> PathBuf {
        self.folder.join("findings.ndjson")
    }
}

/// What a life says of itself, a line of JSON.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Words {
    /// When it started with what an earlier one left, and up to when that was complete, ns since 1970.
    pub from_ns: u64,
    pub complete_ns: u64,
    /// Up to when walks and miss tests under way were written down.
    pub taken_up_ns: u64,
    /// Exchanges that came between, and since the estimators' state, in all and by client.
    pub unseen: u64,
    pub unlearned: u64,
    pub by_client: BTreeMap<String, u64>,
    /// Reads with credentials that a gap excused.
    pub excuses: u64,
    /// Issuances in the ledger at its start, and that the gap may have taken at most.
    pub found: u64,
    pub lost_at_most: u64,
    /// Issuances in the ledger at its end, and those of them that the next life has to find.
    pub left: u64,
    pub lasting: u64,
    /// The end: when it killed itself; `None`: with the simulation.
    pub died_ns: Option<u64>,
}

/// Feeds one life.
pub struct LifeFeed {
    sensor: Sensor,
    span: Span,
    findings: Findings,
    feed: Option<PipelineFeed>,
    /// When exchanges came that nobody judged, and what was held before the start then.
    unseen: VecDeque<(u64, u32)>,
    held: VecDeque<(u64, Issuance)>,
    now_ns: u64,
    exchanges: u32,
    settled_ns: u64,
    half_interval_ns: u64,
    pub words: Words,
}

impl LifeFeed {
    /// For the life of `span`; findings go to `findings`, too.
    pub fn new(sensor: &Sensor, span: &Span, findings: &Findings) -> Result<Self, Failed> {
        fs::create_dir_all(&span.folder)?;
        let mut config = (*sensor.config).clone();
        config.ledger.store = LedgerStore::Folder(span.folder.join("ledger"));
        let half_interval_ns = u64::try_from(config.ledger.sync_interval.as_nanos())? / 2;
        let sensor = Sensor { config: Arc::new(config), rules: sensor.rules.clone(), keys: sensor.keys };
        let mut life = Self {
            sensor,
            span: span.clone(),
            findings: findings.clone(),
            feed: None,
            unseen: VecDeque::new(),
            held: VecDeque::new(),
            now_ns: START_NS,
            exchanges: 0,
            settled_ns: START_NS,
            half_interval_ns,
            words: Words::default(),
        };
        if span.from_ns.is_none() {
            life.start(START_NS.saturating_sub(u64::try_from(life.sensor.before().as_nanos())?))?;
        }
        Ok(life)
    }

    /// Starts as the daemon does.
    fn start(&mut self, at_ns: u64) -> Result<(), Failed> {
        let opened = Clock::default().instant(at_ns);
        let ledger = Ledger::open(&self.sensor.config, &self.sensor.keys, opened)?;
        let found = ledger.loaded().issuances;
        let mut feed = PipelineFeed::behind(&self.sensor, ledger, &self.findings)?;
        let pipeline = feed.pipeline();
        pipeline.keep_state(&self.state(), opened)?;
        pipeline.ledger().watch_from(opened);
        self.words.taken_up_ns = pipeline.taken_up_from().unwrap_or(START_NS);
        if let Some(complete_ns) = pipeline.ledger().resumed_from() {
            self.words.complete_ns = complete_ns;
            self.words.lost_at_most = pipeline.ledger().stats().gap_lost;
            for (_, issuance) in self.held.drain(..).filter(|(at_ns, _)| *at_ns > complete_ns) {
                pipeline.ledger().issue(issuance);
            }
        }
        (self.words.from_ns, self.words.found) = (at_ns, found);
        let since_ns = self.words.complete_ns.min(self.words.taken_up_ns);
        for (at_ns, client) in self.unseen.drain(..).filter(|(at_ns, _)| *at_ns > since_ns) {
            self.words.unseen += u64::from(at_ns > self.words.complete_ns);
            self.words.unlearned += 1;
            *self.words.by_client.entry(Ipv4Addr::from(client).to_string()).or_default() += 1;
        }
        self.feed = Some(feed);
        Ok(())
    }

    fn state(&self) -> PathBuf {
        self.span.folder.join("ledger")
    }

    /// The feed, once this life has begun.
    fn living(&mut self, at_ns: u64) -> Result<Option<&mut PipelineFeed>, Failed> {
        self.now_ns = self.now_ns.max(at_ns);
        if self.feed.is_none()
            && let Some(from_ns) = self.span.from_ns.filter(|from_ns| at_ns >= *from_ns)
        {
            self.start(from_ns)?;
        }
        Ok(self.feed.as_mut())
    }

    /// Puts on disk what a daemon would have there by now.
    fn settle(&mut self, at_ns: u64) -> Result<(), Failed> {
        let close = self.span.die_ns.is_some_and(|die_ns| at_ns.saturating_add(CLOSE_NS) >= die_ns);
        let every = if close { self.half_interval_ns } else { EVERY_NS };
        self.exchanges += 1;
        if self.exchanges < EXCHANGES && at_ns < self.settled_ns.saturating_add(every) {
            return Ok(());
        }
        (self.exchanges, self.settled_ns) = (0, at_ns);
        if let Some(feed) = &mut self.feed {
            feed.pipeline().advance(at_ns)?;
            feed.pipeline().settle();
        }
        Ok(())
    }

    /// Says its last words and is gone, in the middle of whatever its threads do.
    fn die(&mut self) -> Result<(), Failed> {
        self.words.left = self.issuances();
        self.words.lasting = self.lasting();
        self.words.excuses = self.excuses();
        self.words.died_ns = Some(self.now_ns);
        println!("{}", serde_json::to_string(&self.words)?);
        raise(Signal::SIGKILL)?;
        Err("SIGKILL was survived".into())
    }

    fn excuses(&mut self) -> u64 {
        self.ledger(|ledger| ledger.stats().gap_excuses)
    }

    /// Of what a start within the hour has to find.
    fn lasting(&mut self) -> u64 {
        let until = self.now_ns.saturating_add(HOUR_NS);
        self.ledger(|ledger| ledger.lasting(until))
    }

    fn issuances(&mut self) -> u64 {
        self.ledger(|ledger| ledger.stats().issuances as u64)
    }

    /// What `of` says of the ledger; nothing before the start.
    fn ledger(&mut self, of: impl FnOnce(&Ledger) -> u64) -> u64 {
        self.feed.as_mut().map_or(0, |feed| of(feed.pipeline().ledger()))
    }
}

impl Feed for LifeFeed {
    fn act(&mut self, act: &Act<'_>) -> Result<(), Failed> {
        if self.span.die_ns.is_some_and(|die_ns| act.at_ns >= die_ns) {
            self.now_ns = act.at_ns;
            return self.die();
        }
        if let Some(feed) = self.living(act.at_ns)? {
            feed.act(act)?;
            return self.settle(act.at_ns);
        }
        self.unseen.push_back((act.at_ns, act.client));
        let oldest = act.at_ns.saturating_sub(UNSEEN_NS);
        while self.unseen.front().is_some_and(|(at_ns, _)| *at_ns < oldest) {
            self.unseen.pop_front();
        }
        while self.held.front().is_some_and(|(at_ns, _)| *at_ns < oldest) {
            self.held.pop_front();
        }
        Ok(())
    }

    fn held_before(&mut self, held: &Held<'_>) -> Result<(), Failed> {
        if let Some(feed) = &mut self.feed {
            return feed.held_before(held);
        }
        self.held.push_back((self.now_ns, issued_before(held)));
        Ok(())
    }

    fn lost(&mut self, from_ns: u64, to_ns: u64, records: u64) -> Result<(), Failed> {
        self.living(to_ns)?.map_or(Ok(()), |feed| feed.lost(from_ns, to_ns, records))
    }

    fn restart(&mut self, from_ns: u64, to_ns: u64, records: u64) -> Result<(), Failed> {
        self.living(to_ns)?.map_or(Ok(()), |feed| feed.restart(from_ns, to_ns, records))
    }

    fn finish(&mut self, at_ns: u64) -> Result<(), Failed> {
        let Some(feed) = self.living(at_ns)? else { return Ok(()) };
        feed.pipeline().advance(at_ns)?;
        // Before what is pending counts as unanswered: the counts of both runs at one moment.
        feed.pipeline().report_open()?;
        feed.finish(at_ns)?;
        self.words.left = self.issuances();
        self.words.excuses = self.excuses();
        Ok(())
    }
}

/// The lines that all lives in a folder have said.
pub fn said(findings: &Path) -> Result<Vec<serde_json::Value>, Failed> {
    let text = fs::read_to_string(findings)?;
    // The last line of a killed process may be torn.
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}
