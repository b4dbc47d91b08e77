//! The engine: observations and events in, findings out.
//!
//! One [`RuleState`] per rule, independent of the others; [`Shades`] says which of them an observation can concern. Time is
//! that of the observations and of [`Detectors::tick`], never a clock of its own, so a replay gives the same findings. In
//! steady state (no new group, no report) nothing is allocated.

use std::sync::Arc;
use std::time::Duration;

use super::Labels;
use super::field::{Field, Key, Source, Subject};
use super::group::{GroupKey, Taken};
use super::groups::{Groups, Slot};
use super::names::Names;
use super::quiet::{Quiet, Seen, Took};
use super::report;
use super::rule::{CompiledRule, Count};
use super::shade::Shades;
use super::stand_in::stand_in;
use super::window::SLICES;
use crate::ahead;
use crate::config::model::Bounds;
use crate::finding::model::{Activity, Finding};
use crate::observation::{Estimate, Instant, Observation};

/// An open finding is reported again when its count has grown by this factor since the last report.
const GROWTH: u64 = 2;
/// Rules whose threshold is at least this keep groups by client, credential and the like quiet at first.
const QUIET_FROM: u64 = 4;

/// What a rule's state amounts to, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleStats {
    /// Groups kept.
    pub groups: usize,
    /// Groups kept that have hardly anything in them yet.
    pub quiet: usize,
    /// Findings open.
    pub open: usize,
    /// Observations that matched and counted.
    pub matched: u64,
    /// Observations that matched but have no value of the counted field.
    pub without_value: u64,
    /// Observations that matched but were older than the window.
    pub late: u64,
    /// Groups pushed out because the table was full.
    pub evicted: u64,
    /// Of quiet groups, those pushed out.
    pub evicted_quiet: u64,
    /// Observations counted in the overflow group, because every group kept was near its threshold.
    pub overflowed: u64,
    /// Groups that came to have more values than are counted exactly.
    pub estimated: u64,
}

/// All rules, running.
#[derive(Debug)]
pub struct Detectors {
    rules: Vec<RuleState>,
    shades: Shades,
    bounds: Bounds,
    seed: [u64; 2],
    /// When the first slice of any rule ends.
    next_ns: u64,
    /// What the observations at hand are to count for; empty in between.
    due: Vec<Due>,
}

/// That an observation counts for a rule.
#[derive(Clone, Copy, Debug)]
struct Due {
    /// Which of the observations at hand.
    which: usize,
    /// By index.
    rule: usize,
    counts: Counts,
}

/// What an observation or event counts for.
#[derive(Clone, Copy, Debug)]
struct Counts {
    /// Bits of the base rules that it matched, not 0.
    steps: u32,
    /// Value of the counted field, if there is one and it has one.
    value: Option<Key>,
    group: GroupKey,
    /// The group's, if the rule keeps quiet ones.
    hash: u128,
}

#[derive(Debug)]
struct RuleState {
    rule: Arc<CompiledRule>,
    /// Length of a slice.
    slice_ns: u64,
    names: Names,
    /// Of each guard.
    guards: Vec<Names>,
    quiet: Option<Quiet>,
    groups: Groups,
    /// Newest slice seen.
    now: u64,
    /// When it ends.
    slice_end_ns: u64,
    stats: RuleStats,
}

impl Detectors {
    /// Starts all `rules` empty. `seed` is secret, so that nobody chooses values that share a place in tables, and the
    /// same in each run over the same capture.
    pub fn new(rules: &[CompiledRule], bounds: &Bounds, seed: [u64; 2]) -> Self {
        let mut detectors = Self {
            rules: Vec::new(),
            shades: Shades::new(0),
            bounds: bounds.clone(),
            seed,
            next_ns: 0,
            due: Vec::new(),
        };
        detectors.replace(rules);
        detectors
    }

    /// Runs `rules` from now on. Rules that are the same as before (id, file, exceptions) go on with what they have
    /// counted; findings of rules that are gone are dropped without a word.
    pub fn replace(&mut self, rules: &[CompiledRule]) {
        let mut before = std::mem::take(&mut self.rules);
        let same = |state: &RuleState, rule: &CompiledRule| {
            let exception = |rule: &CompiledRule| rule.exception.as_ref().map(|exception| exception.id.clone());
            let (own, new) = (&state.rule, rule);
            own.info.id == new.info.id && own.state == new.state && exception(own) == exception(new)
        };
        for rule in rules {
            let kept = before.iter().position(|state| same(state, rule)).map(|index| before.swap_remove(index));
            let state = kept.unwrap_or_else(|| RuleState::new(rule.clone(), &self.bounds, self.seed));
            self.rules.push(state);
        }
        self.shades = Shades::new(self.rules.len());
        self.next_ns = 0;
    }

    /// Takes one observation. Findings that it opens, grows or (by its time) closes are appended to `out`. True when it
    /// changed what some rule has counted by more than the time it was last seen: what must be known after a restart.
    pub fn observe(&mut self, o: &Observation, labels: &dyn Labels, out: &mut Vec<Finding>) -> bool {
        let mut news = false;
        self.observe_all(std::slice::from_ref(o), labels, out, |_| news = true);
        news
    }

    /// Takes observations in their order, as [`Detectors::observe`] takes each; `news` gets those of which it says true.
    /// The memory that some of them need is fetched at once.
    pub fn observe_all(
        &mut self,
        observations: &[Observation],
        labels: &dyn Labels,
        out: &mut Vec<Finding>,
        mut news: impl FnMut(&Observation),
    ) {
        let mut all = std::mem::take(&mut self.due);
        for some in observations.chunks(ahead::WINDOW) {
            all.clear();
            some.iter().enumerate().for_each(|(which, o)| self.sort(which, o, labels, &mut all));
            for Due { rule, counts, .. } in &all {
                if let Some(quiet) = self.rules.get(*rule).and_then(|rule| rule.quiet.as_ref()) {
                    quiet.fetch_entry(counts.hash);
                }
            }
            let mut due = all.iter().peekable();
            for (which, o) in some.iter().enumerate() {
                self.advance(o.at.monotonic_ns, labels, out);
                let mut changed = false;
                while let Some(due) = due.next_if(|due| due.which == which) {
                    if let Some(rule) = self.rules.get_mut(due.rule) {
                        changed |= rule.count(Subject { o, e: None }, &due.counts, labels, out);
                    }
                }
                if changed {
                    news(o);
                }
            }
        }
        self.due = all;
    }

    /// Appends to `due` the rules that an observation counts for, and asks for the memory that counting begins with.
    fn sort(&mut self, which: usize, o: &Observation, labels: &dyn Labels, due: &mut Vec<Due>) {
        let candidates = self.shades.candidates(o, self.rules.iter().map(|state| &*state.rule));
        for (word, set) in candidates.iter().enumerate() {
            let mut set = *set;
            while set != 0 {
                let index = word * 64 + usize::try_from(set.trailing_zeros()).unwrap_or(0);
                set &= set - 1;
                let Some(rule) = self.rules.get_mut(index) else { continue };
                let Some(counts) = rule.counts(Subject { o, e: None }, labels) else { continue };
                if let Some(quiet) = &rule.quiet {
                    quiet.fetch(counts.hash);
                }
                due.push(Due { which, rule: index, counts });
            }
        }
    }

    /// Takes one event of an estimator, like an observation.
    pub fn estimate(&mut self, estimate: &Estimate, labels: &dyn Labels, out: &mut Vec<Finding>) {
        self.advance(estimate.at.monotonic_ns, labels, out);
        let o = stand_in(estimate);
        let subject = Subject { o: &o, e: Some(estimate) };
        for rule in self.rules.iter_mut().filter(|state| state.rule.source == Source::Estimate) {
            if let Some(counts) = rule.counts(subject, labels) {
                rule.count(subject, &counts, labels, out);
            }
        }
    }

    /// Says what time it is when no observations come. Findings that are over by then are appended to `out`.
    pub fn tick(&mut self, now: Instant, labels: &dyn Labels, out: &mut Vec<Finding>) {
        self.advance(now.monotonic_ns, labels, out);
    }

    fn advance(&mut self, now_ns: u64, labels: &dyn Labels, out: &mut Vec<Finding>) {
        if now_ns < self.next_ns {
            return;
        }
        for rule in &mut self.rules {
            rule.advance(now_ns, labels, out);
        }
        self.next_ns = self.rules.iter().map(|rule| rule.slice_end_ns).min().unwrap_or(u64::MAX);
    }

    /// Appends a report of each open finding to `out`: what a restarted program still knows to be open.
    pub fn open(&mut self, labels: &dyn Labels, out: &mut Vec<Finding>) {
        for rule in &mut self.rules {
            for slot in rule.groups.slots() {
                if rule.groups.get(slot).is_some_and(|group| group.incident.is_some()) {
                    rule.report(slot, Activity::Update, None, labels, out);
                }
            }
        }
    }

    /// The longest window of any rule.
    pub fn longest(&self) -> Duration {
        let longest = self.rules.iter().map(|state| state.rule.timespan_ns).max().unwrap_or(0);
        // The window and the slice before it.
        Duration::from_nanos(longest.saturating_add(longest / SLICES))
    }

    /// The state of each rule, in the order they were given.
    pub fn stats(&self) -> impl Iterator<Item = (&CompiledRule, RuleStats)> {
        self.rules.iter().map(|state| (&*state.rule, state.stats()))
    }
}

impl RuleState {
    fn new(rule: CompiledRule, bounds: &Bounds, seed: [u64; 2]) -> Self {
        let many = rule.group_by.iter().any(|field| field.is_many());
        let counts = matches!(rule.count, Count::Events | Count::Distinct(_)) && rule.source == Source::Observation;
        let small = many && counts && rule.threshold >= QUIET_FROM;
        Self {
            slice_ns: rule.timespan_ns.div_ceil(SLICES).max(1),
            names: Names::new(&rule.patterns, bounds.kids),
            guards: rule.guards.iter().map(|guard| Names::new(&guard.patterns, bounds.kids)).collect(),
            quiet: small.then(|| Quiet::new(bounds.quiet_groups, seed)),
            groups: Groups::new(bounds.rule_groups, bounds.group_values),
            now: 0,
            slice_end_ns: 0,
            stats: RuleStats::default(),
            rule: Arc::new(rule),
        }
    }

    fn stats(&self) -> RuleStats {
        let (quiet, evicted_quiet) = self.quiet.as_ref().map_or((0, 0), |quiet| (quiet.len(), quiet.evicted));
        let groups = self.groups.len() + quiet;
        RuleStats { groups, quiet, evicted: self.groups.evicted, evicted_quiet, ..self.stats }
    }

    /// Bits of the base rules that `s` matches (the first only, unless all count), if it may count.
    fn matched(&mut self, s: Subject<'_>, labels: &dyn Labels) -> u32 {
        let fitting = self.names.fitting(s, labels);
        let mut matching = (0u32..)
            .zip(&self.rule.detections)
            .filter(|(_, detection)| detection.matches(s, &fitting))
            .map(|(step, _)| 1u32.checked_shl(step).unwrap_or(0));
        let steps = match self.rule.count {
            Count::Steps | Count::Ordered => matching.fold(0, |all, step| all | step),
            Count::Events | Count::Distinct(_) => matching.next().map_or(0, |_| 1),
        };
        let lets = steps != 0
            && self.rule.guards.iter().zip(&mut self.guards).all(|(guard, names)| guard.lets(s, names, labels));
        if lets { steps } else { 0 }
    }

    /// What `s` counts for, if it does.
    fn counts(&mut self, s: Subject<'_>, labels: &dyn Labels) -> Option<Counts> {
        let steps = self.matched(s, labels);
        if steps == 0 {
            return None;
        }
        let group = GroupKey::new(self.rule.group_by.iter().map(|field| field.key(s)));
        let value = if let Count::Distinct(field) = self.rule.count { field.key(s) } else { None };
        let hash = self.quiet.as_ref().map_or(0, |quiet| quiet.hash(&group));
        Some(Counts { steps, value, group, hash })
    }

    /// Counts `s`; true when that was news.
    fn count(&mut self, s: Subject<'_>, counts: &Counts, labels: &dyn Labels, out: &mut Vec<Finding>) -> bool {
        let Counts { steps, value, .. } = *counts;
        let at = s.o.at;
        let slice = at.monotonic_ns / self.slice_ns;
        if slice + SLICES < self.now {
            self.stats.late += 1;
            return false;
        }
        if matches!(self.rule.count, Count::Distinct(_)) && value.is_none() {
            self.stats.without_value += 1;
            return false;
        }
        self.stats.matched += 1;
        let client = Field::address(s);
        let slot = match self.whole(counts, s, slice) {
            Ok(slot) => slot,
            Err(news) => return news,
        };
        self.stats.overflowed += u64::from(slot == Slot::Overflow);
        let (count, timespan_ns) = (self.rule.count, self.rule.timespan_ns);
        let Some(group) = self.groups.get(slot) else { return false };
        group.advance(self.now);
        let requests = s.e.map_or(1, |e| e.requests);
        let taken = Taken { value: value.as_ref(), steps, account: s.o.account, client, at, slice, count: 1, requests };
        group.take(&taken, count, timespan_ns);
        group.touched.take(s, slice, self.now.saturating_sub(SLICES));
        if let Some(e) = s.e {
            group.more(&e.accounts, &e.clients, slice);
        }
        self.judge(slot, labels, out);
        true
    }

    /// The whole group that `s` is to be counted in, made if need be; an error when it was counted in a quiet one,
    /// which says whether that was news.
    fn whole(&mut self, counts: &Counts, s: Subject<'_>, slice: u64) -> Result<Slot, bool> {
        let (key, value) = (&counts.group, counts.value.as_ref());
        let Some(quiet) = self.quiet.as_mut() else { return Ok(self.groups.slot(*key, self.now)) };
        if let Some(slot) = self.groups.find(key) {
            return Ok(slot);
        }
        let at_ns = s.o.at.monotonic_ns;
        let client = Field::Client.key(s).unwrap_or_default();
        let (now, most) = (self.now, self.rule.threshold / 2);
        let grown = match quiet.take(counts.hash, Seen { value, client: &client, at_ns, slice, now, most }) {
            Took::Grown(grown) => grown,
            Took::Kept { news } => return Err(news),
        };
        let slot = self.groups.slot(*key, now);
        let (count, timespan_ns) = (self.rule.count, self.rule.timespan_ns);
        let Some(group) = self.groups.get(slot) else { return Err(false) };
        group.advance(now);
        for (seen, slice) in grown.seen().filter(|(seen, _)| seen.count > 0) {
            // A slice is all that is known of when, but for the first.
            let since_ns = slice.saturating_mul(self.slice_ns).max(grown.first_ns);
            let account =
                (count == Count::Distinct(Field::Account)).then_some(crate::observation::AccountHash(seen.value));
            let taken = Taken {
                value: value.is_some().then_some(&seen.value),
                steps: 1,
                account,
                client: Some(std::net::Ipv6Addr::from(seen.client).into()),
                at: s.o.at.moved_to(since_ns),
                slice,
                count: seen.count.into(),
                requests: seen.count.into(),
            };
            group.take(&taken, count, timespan_ns);
        }
        Ok(slot)
    }

    /// Opens or reports again what `slot` has come to.
    fn judge(&mut self, slot: Slot, labels: &dyn Labels, out: &mut Vec<Finding>) {
        let kind = self.rule.count;
        let Some(group) = self.groups.get(slot) else { return };
        let (count, exact) = group.count(kind);
        self.stats.estimated += u64::from(!exact && !group.estimated);
        group.estimated = !exact;
        let activity = match &mut group.incident {
            None if count >= self.rule.threshold => {
                let (rule, key) = (&self.rule, group.key);
                group.open(kind, |first| report::uid(rule, key, first, labels));
                self.stats.open += 1;
                Some(Activity::Open)
            }
            Some(incident) if count >= incident.reported.saturating_mul(GROWTH) => {
                incident.reported = count;
                Some(Activity::Update)
            }
            _ => None,
        };
        let open = group.incident.is_some();
        self.groups.file(slot, count, self.rule.threshold, open, true);
        if let Some(activity) = activity {
            self.report(slot, activity, None, labels, out);
        }
    }

    /// Moves time on; at each new slice, gives up groups whose window is empty and closes their findings.
    fn advance(&mut self, now_ns: u64, labels: &dyn Labels, out: &mut Vec<Finding>) {
        if now_ns < self.slice_end_ns {
            return;
        }
        self.now = now_ns / self.slice_ns;
        self.slice_end_ns = (self.now + 1).saturating_mul(self.slice_ns);
        if let Some(quiet) = &mut self.quiet {
            quiet.sweep(self.now);
        }
        let kind = self.rule.count;
        for slot in self.groups.slots() {
            let Some(group) = self.groups.get(slot) else { continue };
            if !group.is_over(self.now) {
                if group.incident.is_none() {
                    group.advance(self.now);
                    let (count, _) = group.count(kind);
                    self.groups.file(slot, count, self.rule.threshold, false, false);
                }
                continue;
            }
            let over_ns = (group.last_slice + SLICES + 1).saturating_mul(self.slice_ns);
            if group.incident.is_some() {
                self.stats.open -= 1;
                self.report(slot, Activity::Close, Some(over_ns), labels, out);
            }
            self.groups.remove(slot);
        }
    }

    fn report(
        &mut self,
        slot: Slot,
        activity: Activity,
        over_ns: Option<u64>,
        labels: &dyn Labels,
        out: &mut Vec<Finding>,
    ) {
        if let Some(group) = self.groups.get(slot) {
            out.extend(report::finding(&self.rule, group, activity, over_ns, labels));
        }
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "language_tests.rs"]
mod language_tests;
