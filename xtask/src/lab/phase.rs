//! One phase of the lab: fresh gateway and sensor, members, perhaps forged tokens, then the verdict.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::attack::Attack;
use super::canary::{Hits, Search};
use super::error::{Doing, LabError, Result};
use super::gateway::Gateway;
use super::interrupt;
use super::members::Crowd;
use super::metrics::Metrics;
use super::sensor::{Sensor, Sighting, follow};
use super::tally::Shared;
use super::token::Key;
use super::verdict::{self, Verdict};
use super::world::World;

/// How long the sensor may take to have judged everything after the traffic has ended.
const SETTLE_TIME: Duration = Duration::from_secs(8);
/// Time between two lines of the live account.
const TELL_EVERY: Duration = Duration::from_secs(3);

/// What all phases share.
pub struct Lab {
    /// Namespaces and folder.
    pub world: World,
    /// The daemon.
    pub sensor: PathBuf,
    /// Its rules.
    pub rules: PathBuf,
    /// The origin's signing key, which the attacker has, too.
    pub key: Key,
    /// Seed of the members' scripts.
    pub seed: u64,
    /// Start of the lab.
    pub began: Instant,
}

/// Who does what in a phase.
pub struct Phase {
    /// One word.
    pub name: &'static str,
    /// One line.
    pub title: &'static str,
    /// Members before the attack begins.
    pub before: Vec<u64>,
    /// Members while it goes on.
    pub during: Vec<u64>,
    /// Longest pause of a member.
    pub pause: Duration,
    /// The attack.
    pub forgery: Option<Forgery>,
}

/// The attack of a phase.
pub struct Forgery {
    /// Member numbers in the order of the walk.
    pub targets: Vec<u64>,
    /// Source addresses.
    pub sources: u16,
    /// Time between two requests.
    pub interval: Duration,
    /// Most accounts that may have been read when the finding appears.
    pub most: u64,
}

/// A phase under way.
struct Stage<'a> {
    lab: &'a Lab,
    phase: &'a Phase,
    gateway: Gateway,
    sensor: Sensor,
    shared: Shared,
}

impl Lab {
    /// Tells the reader what happens.
    pub fn say(&self, text: &str) {
        println!("[{:6.2} s] {text}", self.began.elapsed().as_secs_f64());
    }

    /// Plays one phase; returns the checks that failed.
    pub fn play(&self, phase: &Phase) -> Result<Vec<String>> {
        println!();
        self.say(&format!("PHASE {}", phase.title));
        let folder = self.world.folder.join(phase.name);
        fs::create_dir(&folder).doing("making a folder")?;
        let gateway = Gateway::start(&self.world, &folder, &self.key)?;
        let sensor = Sensor::start(&self.sensor, &self.rules, &self.world, &folder)?;
        self.say("nginx is up; the sensor watches gw0 and its ledger is past the horizon");
        let mut stage = Stage { lab: self, phase, gateway, sensor, shared: Shared::default() };
        let (sightings, metrics) = stage.perform()?;
        fs::write(folder.join("metrics.txt"), &metrics.text).doing("keeping the metrics")?;
        stage.judge(&sightings, &metrics)
    }
}

impl Stage<'_> {
    /// Traffic from first to last, while findings are watched for.
    fn perform(&mut self) -> Result<(Vec<Sighting>, Metrics)> {
        let Self { lab, phase, gateway, sensor, shared } = self;
        let (lab, phase, shared, done) = (*lab, *phase, &*shared, AtomicBool::new(false));
        let findings = sensor.findings().to_owned();
        let crowd = Crowd { clients: &lab.world.clients, shared, key: &lab.key, seed: lab.seed, pause: phase.pause };
        thread::scope(|scope| {
            let follower = scope.spawn(|| follow(&findings, shared, &done, |sighting| tell_finding(lab, sighting)));
            let mut watch = |threads| watch_over(lab, gateway, sensor, shared, threads);
            let traffic = (|| {
                lab.say(&format!("{} members come by: they log in and read their own pages", phase.before.len()));
                watch(vec![scope.spawn(|| crowd.act(&phase.before))])?;
                let Some(forgery) = &phase.forgery else { return Ok(()) };
                let attack = Attack {
                    clients: &lab.world.clients,
                    shared,
                    key: &lab.key,
                    targets: forgery.targets.clone(),
                    sources: forgery.sources,
                    interval: forgery.interval,
                };
                let (tokens, sources) = (forgery.targets.len(), forgery.sources);
                lab.say(&format!("the attack begins: {tokens} forged tokens, {sources} addresses; members go on"));
                watch(vec![scope.spawn(move || attack.carry_out()), scope.spawn(|| crowd.act(&phase.during))])
            })();
            shared.stop.store(traffic.is_err(), Ordering::SeqCst);
            let metrics = traffic.and_then(|()| settle(lab, gateway, sensor));
            done.store(true, Ordering::SeqCst);
            let sightings = follower.join().unwrap_or(Err(LabError::Panicked("that follows the findings")));
            Ok((sightings?, metrics?))
        })
    }

    fn judge(&mut self, sightings: &[Sighting], metrics: &Metrics) -> Result<Vec<String>> {
        let nginx = verdict::counts_of(&self.gateway.entries()?);
        let mut verdict = Verdict::default();
        self.print_story(sightings, metrics);
        let forged = self.shared.forged_accounts.load(Ordering::SeqCst);
        verdict::compare(&mut verdict, &self.shared.counts(), &nginx, metrics);
        verdict::provenance(&mut verdict, &nginx, forged, metrics);
        self.judge_findings(&mut verdict, sightings);
        self.judge_canaries(&mut verdict, metrics)?;
        Ok(verdict.failed().to_vec())
    }

    fn print_story(&self, sightings: &[Sighting], metrics: &Metrics) {
        let (Some(first), Some(last)) = (sightings.first(), sightings.last()) else { return };
        if let Some(began) = self.shared.attack_began.get() {
            println!(
                "\n  Flagged {} ms after the first forged read, when {} accounts had been read with forged tokens.",
                first.at.saturating_duration_since(*began).as_millis(),
                first.accounts,
            );
        }
        println!(
            "  First report: {} accounts from {} addresses. Last report: {} accounts from {} addresses, {} requests.\n",
            first.figure("distinct"),
            first.figure("clients"),
            last.figure("distinct"),
            last.figure("clients"),
            last.figure("observations"),
        );
        verdict::print_finding(last);
        println!("\n  Metrics:");
        verdict::print_metrics(metrics);
    }

    fn judge_findings(&self, verdict: &mut Verdict, sightings: &[Sighting]) {
        let early = sightings.iter().filter(|sighting| sighting.before_attack).count();
        verdict.check(early == 0, format!("findings on members' traffic alone: {early}"));
        let Some(forgery) = &self.phase.forgery else { return };
        let first = sightings.iter().find(|sighting| !sighting.before_attack);
        let text = match first {
            Some(first) => format!("flagged when {} accounts had been read (at most {})", first.accounts, forgery.most),
            None => "the attack was not flagged".to_owned(),
        };
        verdict.check(first.is_some_and(|first| first.accounts <= forgery.most), text);
        let forged = self.shared.forged_accounts.load(Ordering::SeqCst);
        let counting = sightings.iter().filter(|sighting| sighting.counts_reads());
        let most = counting.map(|sighting| sighting.figure("distinct")).max().unwrap_or_default();
        verdict.check(
            first.is_none() || (1..=forged).contains(&most),
            format!("the bulk rule counts no more accounts ({most}) than were read with forged tokens ({forged})"),
        );
    }

    fn judge_canaries(&mut self, verdict: &mut Verdict, metrics: &Metrics) -> Result<()> {
        let search = Search::for_wallet(&self.shared.wallet());
        let mut hits = Hits::new();
        let (image, control) = self.sensor.search_memory(&search, &mut hits)?;
        search.search("metrics", metrics.text.as_bytes(), &mut hits);
        let status = self.sensor.stop_and_search_files(&search, &mut hits)?;
        verdict::canaries(verdict, search.len(), image, control, &hits);
        verdict.check(status.success(), format!("the daemon stopped when asked ({status})"));
        Ok(())
    }
}

fn tell_finding(lab: &Lab, sighting: &Sighting) {
    let when = if sighting.before_attack { "BEFORE ANY ATTACK" } else { "FINDING" };
    lab.say(&format!("{when}: {}", sighting.message()));
}

/// Waits for traffic threads, tells how far they are, and looks whether everyone still lives. Asks the threads to stop
/// when something is wrong, and always waits for all of them.
fn watch_over(
    lab: &Lab,
    gateway: &mut Gateway,
    sensor: &mut Sensor,
    shared: &Shared,
    threads: Vec<ScopedJoinHandle<'_, Result<()>>>,
) -> Result<()> {
    let mut told = Instant::now();
    let mut alive = Ok(());
    while threads.iter().any(|thread| !thread.is_finished()) {
        thread::sleep(Duration::from_millis(20));
        if alive.is_ok() {
            alive = interrupt::check().and_then(|()| gateway.check()).and_then(|()| sensor.check());
            shared.stop.fetch_or(alive.is_err(), Ordering::SeqCst);
        }
        if told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            lab.say(&progress(shared));
        }
    }
    lab.say(&progress(shared));
    let ends: Vec<Result<()>> =
        threads.into_iter().map(|thread| thread.join().unwrap_or(Err(LabError::Panicked("of the traffic")))).collect();
    // A dead nginx says more than the members who could not reach it.
    alive?;
    ends.into_iter().collect()
}

fn progress(shared: &Shared) -> String {
    let of = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::SeqCst);
    let mut text = format!(
        "members: {} logins ({} failed ones), {} own pages read, {} refreshes",
        of(&shared.logins),
        of(&shared.failed_logins),
        of(&shared.pages),
        of(&shared.refreshes)
    );
    if shared.attack_began.get().is_some() {
        let attacker = format!(
            "; attacker: {} requests, {} accounts read",
            of(&shared.forged_requests),
            of(&shared.forged_accounts)
        );
        text.push_str(&attacker);
    }
    text
}

/// Waits until the sensor has judged every request that nginx has logged, or the time is over; then the figures speak.
fn settle(lab: &Lab, gateway: &mut Gateway, sensor: &mut Sensor) -> Result<Metrics> {
    lab.say("the traffic has ended; the sensor settles");
    let end = Instant::now() + SETTLE_TIME;
    loop {
        // Longer than it takes nginx to write its last line and the sensor to see the last connection close.
        interrupt::sleep(Duration::from_millis(500))?;
        sensor.check()?;
        let metrics = Metrics::fetch(&lab.world.gateway)?;
        let requests = verdict::counts_of(&gateway.entries()?).requests;
        if verdict::settled(&metrics, requests) || Instant::now() > end {
            return Ok(metrics);
        }
    }
}
