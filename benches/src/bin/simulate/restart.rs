//! The sensor is killed in the middle of a scenario, starts again, and goes on: what it says against what it says when it
//! is left alone.
//!
//! Each life of a sensor is a process of its own ([`crate::life`]). One lives through everything; of the others each but
//! the last ends itself with SIGKILL, and the next starts so many seconds later with what is on disk. The simulation is the
//! same in each, and the traffic of the time between is nobody's. Reports flow in from files; one line of JSON flows out.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde::Serialize;
use serde_json::Value;

use crate::feed::Failed;
use crate::life::{Span, Words, said};
use crate::truth::Truth;
use crate::world::{SECOND, START_NS};

/// What is to be done.
pub struct Kills<'a> {
    /// Arguments that say what is simulated.
    pub arguments: Vec<String>,
    /// When it is killed, days from the start.
    pub at: &'a [f64],
    /// How long it is down, seconds.
    pub down_s: f64,
    /// Where ledgers and states are kept.
    pub folder: PathBuf,
}

/// A rule's group.
type Key = (String, String);

/// One finding, from its reports.
#[derive(Debug, Default)]
struct Story {
    rule: String,
    group: String,
    /// How often it was opened: once.
    opens: u32,
    opened: Value,
    /// How often it was told of, in all.
    reports: u32,
    /// As last reported.
    count: u64,
    observations: u64,
    threshold: u64,
    estimate: bool,
}

/// A finding of one run that the other does not have.
#[derive(Debug, Serialize)]
struct Odd {
    rule: String,
    group: String,
    count: u64,
    /// It counted so little more than its threshold that the gap may account for it.
    within_gap: bool,
}

/// Counts that are not the same.
#[derive(Debug, Serialize)]
struct Difference {
    rule: String,
    group: String,
    /// What the rule counts, and the observations behind it.
    whole: [u64; 2],
    killed: [u64; 2],
    within_gap: bool,
}

#[derive(Debug, Default, Serialize)]
struct Gap {
    /// From where the ledger was complete to where it watched again.
    seconds: f64,
    /// Exchanges of that time, which nobody judged.
    requests: u64,
    /// Issuances that the ledger says it may have missed.
    issuances_recorded: u64,
    /// Reads whose credentials that excused: `unverifiable`, not `unissued`.
    excused: u64,
    /// Exchanges since what is under way in the estimators was last written down.
    unlearned: u64,
    /// The same by client.
    #[serde(skip)]
    by_client: BTreeMap<String, u64>,
    #[serde(skip)]
    kills: u64,
}

impl Gap {
    fn of(lives: &[Words], whole: &Words) -> Self {
        let mut by_client: BTreeMap<String, u64> = BTreeMap::new();
        for (client, count) in lives.iter().flat_map(|life| &life.by_client) {
            *by_client.entry(client.clone()).or_default() += count;
        }
        let nanos: u64 = lives.iter().skip(1).map(|life| life.from_ns.saturating_sub(life.complete_ns)).sum();
        let excused: u64 = lives.iter().map(|life| life.excuses).sum();
        Self {
            seconds: nanos as f64 / SECOND as f64,
            requests: lives.iter().map(|life| life.unseen).sum(),
            issuances_recorded: lives.iter().map(|life| life.lost_at_most).sum(),
            // What the scenario's own gaps excuse, they excuse in both.
            excused: excused.saturating_sub(whole.excuses),
            unlearned: lives.iter().map(|life| life.unlearned).sum(),
            by_client,
            kills: lives.len() as u64 - 1,
        }
    }

    /// By how much the counts of a group may differ: what nobody judged of its client or network (of all, if it names
    /// none), and what the gap excused. An estimator's events, which come by the hour or when something has doubled, may be
    /// one more or less for each kill.
    fn bound(&self, story: &Story) -> u64 {
        if story.estimate {
            return self.kills;
        }
        let group: Value = serde_json::from_str(&story.group).unwrap_or_default();
        let named = |field: &str| group.get(field).and_then(Value::as_str);
        let of = |prefix: &str| {
            let those = self.by_client.iter().filter(|(client, _)| client.starts_with(prefix));
            those.map(|(_, count)| count).sum()
        };
        let unseen = match (named("client"), named("network")) {
            (Some(client), _) => self.by_client.get(client).copied().unwrap_or(0),
            (_, Some(network)) => of(network.trim_end_matches("0/24")),
            _ => self.unlearned,
        };
        unseen + self.excused
    }
}

#[derive(Debug, Default, Serialize)]
struct LedgerKept {
    /// In the ledger when it was killed, by kill.
    issuances_before: Vec<u64>,
    /// Found on disk after it.
    issuances_after: Vec<u64>,
    /// Those of before that had to be: in memory a tombstone stays until its bucket is swept.
    lasting: Vec<u64>,
    /// None of these are missing but what the recorded gap accounts for, and none were made up.
    intact: bool,
}

/// The line.
#[derive(Debug, Serialize)]
pub struct Verdict {
    scenario: String,
    seed: u64,
    /// Days from the start.
    killed_at: Vec<f64>,
    gap: Gap,
    findings: usize,
    same_rules: bool,
    missing: Vec<Odd>,
    new: Vec<Odd>,
    /// Of the new ones, those that are not the attack's.
    new_false: usize,
    /// Opened more than once under one id.
    opened_again: Vec<String>,
    /// Open at the kill and went on under another id, or not at all.
    not_continued: Vec<String>,
    count_differences: Vec<Difference>,
    ledger: LedgerKept,
    pub ok: bool,
}

/// The process of one life, to its end.
fn live(kills: &Kills<'_>, span: &Span) -> Result<Words, Failed> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(&kills.arguments).arg("--life").arg(&span.folder);
    for (flag, at_ns) in [("--from-ns", span.from_ns), ("--die-ns", span.die_ns)] {
        if let Some(at_ns) = at_ns {
            command.arg(flag).arg(at_ns.to_string());
        }
    }
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut text = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    let died = status.signal() == Some(Signal::SIGKILL as i32);
    if died != span.die_ns.is_some() || (!died && !status.success()) {
        return Err(format!("a life was to end otherwise than by {status}: {span:?}").into());
    }
    Ok(serde_json::from_str(text.trim())?)
}

/// Runs all lives; `truth` has seen the whole simulation.
pub fn run(
    kills: &Kills<'_>,
    scenario: &str,
    seed: u64,
    truth: &Truth,
    whole: &Span,
    words: &Words,
) -> Result<Verdict, Failed> {
    let down_ns = (kills.down_s * SECOND as f64) as u64;
    let mut times: Vec<u64> = kills.at.iter().map(|day| START_NS + (day * 86_400.0 * SECOND as f64) as u64).collect();
    times.sort_unstable();
    let folder = kills.folder.join("killed");
    let mut lives = Vec::new();
    let mut from_ns = None;
    for die_ns in times.iter().copied().map(Some).chain([None]) {
        let words = live(kills, &Span { folder: folder.clone(), from_ns, die_ns })?;
        from_ns = words.died_ns.map(|died_ns| died_ns.saturating_add(down_ns));
        lives.push(words);
    }
    let killed = Span { folder, from_ns: None, die_ns: None };
    let (whole, killed) = (said(&whole.findings())?, said(&killed.findings())?);
    let mut verdict = compare(&whole, &killed, &lives, Gap::of(&lives, words), truth);
    scenario.clone_into(&mut verdict.scenario);
    verdict.seed = seed;
    verdict.killed_at = kills.at.to_vec();
    Ok(verdict)
}

/// Findings by id.
fn stories(lines: &[Value]) -> BTreeMap<String, Story> {
    let mut stories: BTreeMap<String, Story> = BTreeMap::new();
    for line in lines {
        let text = |path: &str| line.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let number = |path: &str| line.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        let story = stories.entry(text("/finding_info/uid").to_owned()).or_default();
        text("/finding_info/title").clone_into(&mut story.rule);
        story.group = line.pointer("/evidences/0/data/group").map(Value::to_string).unwrap_or_default();
        story.estimate = text("/evidences/0/data/counted_field") == "estimate";
        story.count = number("/evidences/0/data/distinct");
        story.observations = number("/evidences/0/data/observations");
        story.threshold = number("/evidences/0/data/threshold");
        story.reports += 1;
        if number("/activity_id") == 1 {
            story.opens += 1;
            story.opened = line.clone();
        }
    }
    stories
}

/// The findings of each rule's group, in the order in which they opened.
fn by_group(stories: &BTreeMap<String, Story>) -> BTreeMap<Key, Vec<&Story>> {
    let mut groups: BTreeMap<Key, Vec<&Story>> = BTreeMap::new();
    for story in stories.values() {
        groups.entry((story.rule.clone(), story.group.clone())).or_default().push(story);
    }
    for list in groups.values_mut() {
        list.sort_by_key(|story| story.opened.get("time").and_then(Value::as_u64));
    }
    groups
}

/// Ids that were opened and not closed before `at_ms`, and that the lines say something of after it.
fn open_at(lines: &[Value], at_ms: u64) -> BTreeSet<String> {
    let mut open = BTreeSet::new();
    for line in lines {
        let time = line.get("time").and_then(Value::as_u64).unwrap_or(0);
        let uid = line.pointer("/finding_info/uid").and_then(Value::as_str).unwrap_or_default();
        match line.get("activity_id").and_then(Value::as_u64) {
            Some(1) if time <= at_ms => drop(open.insert(uid.to_owned())),
            Some(3) if time <= at_ms => drop(open.remove(uid)),
            _ => {}
        }
    }
    open
}

/// Counts differ by no more than `bound`. (Of an estimator's events the requests behind them are not compared.)
fn within(whole: &Story, killed: &Story, bound: u64) -> bool {
    let observations = whole.observations.abs_diff(killed.observations);
    whole.count.abs_diff(killed.count) <= bound && (whole.estimate || observations <= bound)
}

fn compare(whole: &[Value], killed: &[Value], lives: &[Words], gap: Gap, truth: &Truth) -> Verdict {
    let (of_whole, of_killed) = (stories(whole), stories(killed));
    let (groups, killed_groups) = (by_group(&of_whole), by_group(&of_killed));
    let (mut missing, mut new, mut count_differences, mut new_false) = (Vec::new(), Vec::new(), Vec::new(), 0);
    let odd = |story: &Story| Odd {
        rule: story.rule.clone(),
        group: story.group.clone(),
        count: story.count,
        within_gap: story.count.saturating_sub(story.threshold) < gap.bound(story),
    };
    let keys: BTreeSet<&Key> = groups.keys().chain(killed_groups.keys()).collect();
    for key in keys {
        let list = |groups: &BTreeMap<Key, Vec<&Story>>| groups.get(key).map_or(0, Vec::len);
        let (most, more) = (list(&groups), list(&killed_groups));
        for place in 0..most.max(more) {
            let left = groups.get(key).and_then(|list| list.get(place));
            let right = killed_groups.get(key).and_then(|list| list.get(place));
            match (left, right) {
                (Some(left), None) => missing.push(odd(left)),
                (None, Some(right)) => {
                    new_false += usize::from(!truth.is_attack(&right.opened));
                    new.push(odd(right));
                }
                (Some(left), Some(right)) if (left.count, left.observations) != (right.count, right.observations) => {
                    count_differences.push(Difference {
                        rule: left.rule.clone(),
                        group: left.group.clone(),
                        whole: [left.count, left.observations],
                        killed: [right.count, right.observations],
                        within_gap: within(left, right, gap.bound(left)),
                    });
                }
                _ => {}
            }
        }
    }
    let rules = |stories: &BTreeMap<String, Story>| -> BTreeSet<String> {
        stories.values().map(|story| story.rule.clone()).collect()
    };
    let again = of_killed.iter().filter(|(_, story)| story.opens > 1);
    let not_continued = not_continued(whole, killed, &of_killed, lives);
    let ledger = ledger(lives);
    let mut verdict = Verdict {
        scenario: String::new(),
        seed: 0,
        killed_at: Vec::new(),
        gap,
        findings: of_whole.len(),
        same_rules: rules(&of_whole) == rules(&of_killed),
        missing,
        new,
        new_false,
        opened_again: again.map(|(uid, story)| format!("{}: {uid}", story.rule)).collect(),
        not_continued,
        count_differences,
        ledger,
        ok: false,
    };
    verdict.ok = verdict.same_rules
        && verdict.missing.iter().chain(&verdict.new).all(|odd| odd.within_gap)
        && verdict.new_false == 0
        && verdict.opened_again.is_empty()
        && verdict.not_continued.is_empty()
        && verdict.count_differences.iter().all(|one| one.within_gap)
        && verdict.ledger.intact;
    verdict
}

/// Findings that were open at a kill, in both runs, and of which the killed one says nothing afterwards.
fn not_continued(
    whole: &[Value],
    killed: &[Value],
    of_killed: &BTreeMap<String, Story>,
    lives: &[Words],
) -> Vec<String> {
    let mut lost = Vec::new();
    for died_ns in lives.iter().filter_map(|life| life.died_ns) {
        let at_ms = died_ns / 1_000_000;
        for uid in open_at(whole, at_ms).intersection(&open_at(killed, at_ms)) {
            // Each finding that is open is told again at the start, or closed.
            let Some(story) = of_killed.get(uid) else { continue };
            if story.reports < 2 {
                lost.push(format!("{}: {uid}", story.rule));
            }
        }
    }
    lost
}

fn ledger(lives: &[Words]) -> LedgerKept {
    let pairs = || lives.iter().zip(lives.iter().skip(1));
    LedgerKept {
        issuances_before: pairs().map(|(dead, _)| dead.left).collect(),
        issuances_after: pairs().map(|(_, next)| next.found).collect(),
        lasting: pairs().map(|(dead, _)| dead.lasting).collect(),
        intact: pairs().all(|(dead, next)| {
            next.found <= dead.left && dead.lasting.saturating_sub(next.found) <= next.lost_at_most
        }),
    }
}

/// Where lives are kept: `chosen`, or a folder that goes when this does.
pub fn folder(chosen: Option<&Path>) -> Result<(PathBuf, Option<tempfile::TempDir>), Failed> {
    if let Some(path) = chosen {
        if ["whole", "killed"].iter().any(|life| path.join(life).exists()) {
            return Err(format!("{} has the lives of another run: choose an empty folder", path.display()).into());
        }
        return Ok((path.to_owned(), None));
    }
    let made = tempfile::tempdir()?;
    Ok((made.path().to_owned(), Some(made)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(activity: u64, uid: &str, client: &str, time: u64, count: u64) -> Value {
        json!({
            "activity_id": activity, "time": time, "finding_info": {"uid": uid, "title": "Fan-out"},
            "evidences": [{"data": {
                "group": {"client": client}, "counted_field": "account", "distinct": count, "observations": count,
                "threshold": 10,
            }}],
        })
    }

    /// A life that died at 100 s and one from 104 s on, who missed three reads of one client and none of the other.
    fn lives(found: u64) -> [Words; 2] {
        let dead = Words { died_ns: Some(100 * SECOND), left: 60, lasting: 50, ..Words::default() };
        let by_client = BTreeMap::from([("192.0.2.1".to_owned(), 3)]);
        let (from_ns, complete_ns) = (104 * SECOND, 100 * SECOND);
        let next = Words {
            from_ns,
            complete_ns,
            unseen: 3,
            unlearned: 3,
            by_client,
            found,
            lost_at_most: 2,
            ..Words::default()
        };
        [dead, next]
    }

    fn compared(killed: &[Value], found: u64) -> Verdict {
        let whole = [line(1, "a", "192.0.2.1", 90_000, 10), line(2, "a", "192.0.2.1", 200_000, 40)];
        let lives = lives(found);
        let truth = Truth::new(sensor_ebpf::siphash::Key::default());
        compare(&whole, killed, &lives, Gap::of(&lives, &Words::default()), &truth)
    }

    #[test]
    fn what_differs_by_more_than_the_gap_is_not_well() {
        let opened = line(1, "a", "192.0.2.1", 90_000, 10);
        let again = line(2, "a", "192.0.2.1", 104_000, 10);
        let last = |count| line(2, "a", "192.0.2.1", 200_000, count);
        let ok = |killed: &[Value]| compared(killed, 48).ok;
        assert!(ok(&[opened.clone(), again.clone(), last(40)]));
        assert!(ok(&[opened.clone(), again.clone(), last(37)]));
        assert!(!ok(&[opened.clone(), again.clone(), last(36)]), "four are missing, three were not seen");
        assert!(!ok(std::slice::from_ref(&opened)), "it was open and is not told of again");
        assert!(!ok(&[opened.clone(), opened.clone(), last(40)]), "opened twice");
        let other = line(1, "b", "192.0.2.1", 150_000, 30);
        assert!(!ok(&[opened.clone(), again.clone(), last(40), other]), "a second finding of the same group");
        let elsewhere = line(1, "c", "192.0.2.2", 150_000, 10);
        let verdict = compared(&[opened.clone(), again.clone(), last(40), elsewhere], 48);
        assert_eq!((verdict.ok, verdict.new_false), (false, 1));
        assert!(!ok(&[]), "nothing is left");
        let well = [opened, again, last(40)];
        assert!(!compared(&well, 47).ledger.intact, "three issuances are gone, two may have been lost");
        assert!(!compared(&well, 61).ledger.intact, "one was made up");
    }
}
