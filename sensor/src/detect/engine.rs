//! The engine: observations in, findings out.
//!
//! One [`RuleState`] per rule, independent of the others. Time is that of the observations and of [`Detectors::tick`],
//! never a clock of its own, so a replay gives the same findings. In steady state (no new group, no report) nothing is
//! allocated.

use sensor_ebpf::siphash;

use super::Labels;
use super::field::{Field, OVERFLOW, hex};
use super::group::GroupKey;
use super::groups::{Groups, Slot};
use super::predicate::Kids;
use super::rule::{CompiledRule, Count, GROUP_FIELDS_MAX};
use super::window::SLICES;
use crate::config::model::Bounds;
use crate::finding::model::{Activity, Finding};
use crate::observation::{Estimate, Instant, Observation};

/// An open finding is reported again when its count has grown by this factor since the last report.
const GROWTH: u64 = 2;

/// What a rule's state amounts to, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleStats {
    /// Groups kept.
    pub groups: usize,
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
    /// Observations counted in the overflow group, because every group kept was near its threshold.
    pub overflowed: u64,
}

/// All rules, running.
#[derive(Debug)]
pub struct Detectors {
    rules: Vec<RuleState>,
}

#[derive(Debug)]
struct RuleState {
    rule: CompiledRule,
    /// Length of a slice.
    slice_ns: u64,
    kids: Kids,
    groups: Groups,
    /// Newest slice seen.
    now: u64,
    /// When it ends.
    slice_end_ns: u64,
    stats: RuleStats,
}

impl Detectors {
    /// Starts all `rules` empty.
    pub fn new(rules: &[CompiledRule], bounds: &Bounds) -> Self {
        Self { rules: rules.iter().map(|rule| RuleState::new(rule.clone(), bounds)).collect() }
    }

    /// Takes one observation. Findings that it opens, grows or (by its time) closes are appended to `out`.
    pub fn observe(&mut self, o: &Observation, labels: &dyn Labels, out: &mut Vec<Finding>) {
        for rule in &mut self.rules {
            rule.observe(o, labels, out);
        }
    }

    /// Takes one event of an estimator, like an observation.
    pub fn estimate(&mut self, _estimate: &Estimate, _labels: &dyn Labels, _out: &mut Vec<Finding>) {}

    /// Says what time it is when no observations come. Findings that are over by then are appended to `out`.
    pub fn tick(&mut self, now: Instant, labels: &dyn Labels, out: &mut Vec<Finding>) {
        for rule in &mut self.rules {
            rule.advance(now.monotonic_ns, labels, out);
        }
    }

    /// The state of each rule, in the order they were given.
    pub fn stats(&self) -> impl Iterator<Item = (&CompiledRule, RuleStats)> {
        self.rules.iter().map(|state| {
            let stats = RuleStats { groups: state.groups.len(), evicted: state.groups.evicted, ..state.stats };
            (&state.rule, stats)
        })
    }
}

impl RuleState {
    fn new(rule: CompiledRule, bounds: &Bounds) -> Self {
        Self {
            slice_ns: rule.timespan_ns.div_ceil(SLICES).max(1),
            kids: Kids::new(&rule.kids, bounds.kids),
            groups: Groups::new(bounds.rule_groups, bounds.group_values),
            now: 0,
            slice_end_ns: 0,
            stats: RuleStats::default(),
            rule,
        }
    }

    fn observe(&mut self, o: &Observation, labels: &dyn Labels, out: &mut Vec<Finding>) {
        self.advance(o.at.monotonic_ns, labels, out);
        let kid = self.kids.literal(o.kid, labels);
        if !self.rule.detections.iter().any(|detection| detection.matches(o, kid)) {
            return;
        }
        let slice = o.at.monotonic_ns / self.slice_ns;
        if slice + SLICES < self.now {
            self.stats.late += 1;
            return;
        }
        let value = match self.rule.count {
            Count::Events => None,
            Count::Distinct(field) => {
                let value = field.key(o);
                if value.is_none() {
                    self.stats.without_value += 1;
                    return;
                }
                value
            }
        };
        let mut key = GroupKey([None; GROUP_FIELDS_MAX]);
        for (slot, field) in key.0.iter_mut().zip(&self.rule.group_by) {
            *slot = field.key(o);
        }
        self.stats.matched += 1;
        let slot = self.groups.slot(key, self.now);
        self.stats.overflowed += u64::from(slot == Slot::Overflow);
        let Some(group) = self.groups.get(slot) else { return };
        group.advance(self.now);
        let client = Field::Client.key(o).unwrap_or_default();
        group.take(o, value.as_ref(), &client, slice);
        self.judge(slot, labels, out);
    }

    /// Opens or reports again what `slot` has come to.
    fn judge(&mut self, slot: Slot, labels: &dyn Labels, out: &mut Vec<Finding>) {
        let events = self.rule.count == Count::Events;
        let Some(group) = self.groups.get(slot) else { return };
        let (count, _) = group.count(events);
        let activity = match &mut group.incident {
            None if count >= self.rule.threshold => {
                let (rule, key) = (&self.rule, group.key);
                group.open(events, |first| uid(rule, key, first, labels));
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
        let events = self.rule.count == Count::Events;
        for slot in self.groups.slots() {
            let Some(group) = self.groups.get(slot) else { continue };
            if !group.is_over(self.now) {
                if group.incident.is_none() {
                    group.advance(self.now);
                    let (count, _) = group.count(events);
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

    /// Appends a report of the finding at `slot`. It is dated by its last observation or, closing, by `over_ns`, the
    /// moment from which nothing was left in the window; so it does not depend on how often time is told.
    fn report(
        &mut self,
        slot: Slot,
        activity: Activity,
        over_ns: Option<u64>,
        labels: &dyn Labels,
        out: &mut Vec<Finding>,
    ) {
        let rule = &self.rule;
        let Some(group) = self.groups.get(slot) else { return };
        let (account_sample, client_sample) = group.samples();
        let key = group.key;
        let Some(incident) = &group.incident else { return };
        let ((distinct, exact), (clients, clients_exact)) = (incident.count(), incident.clients.count());
        let last = incident.last;
        let at = over_ns.map_or(last, |over| Instant {
            monotonic_ns: over,
            unix_ns: last.unix_ns.saturating_add(over.saturating_sub(last.monotonic_ns)),
        });
        out.push(Finding {
            uid: incident.uid.clone(),
            activity,
            rule_id: rule.info.id.clone(),
            title: rule.info.title.clone(),
            rule_version: rule.version.clone(),
            description: rule.description.clone(),
            tags: rule.tags.clone(),
            level: rule.info.level,
            at,
            first: incident.first,
            last,
            group: group_texts(rule, key, labels),
            counted_field: match rule.count {
                Count::Events => "observation",
                Count::Distinct(field) => field.label(),
            }
            .to_owned(),
            distinct,
            exact: exact && clients_exact,
            observations: incident.observations,
            clients,
            client_sample,
            account_sample,
            window_s: rule.timespan_ns / 1_000_000_000,
            threshold: rule.threshold,
        });
    }
}

/// The group's fields and values; `overflow` for each when the table was full.
fn group_texts(rule: &CompiledRule, key: Option<GroupKey>, labels: &dyn Labels) -> Vec<(String, String)> {
    let texts = rule.group_by.iter().enumerate().map(|(index, field)| {
        let text = match key {
            None => OVERFLOW.to_owned(),
            Some(key) => field.text(key.0.get(index).copied().flatten(), labels),
        };
        (field.label().to_owned(), text)
    });
    texts.collect()
}

/// The finding's id: a hash of rule, group and first observation, the same on every run over the same traffic.
fn uid(rule: &CompiledRule, key: Option<GroupKey>, first: Instant, labels: &dyn Labels) -> String {
    let mut bytes = rule.info.id.as_bytes().to_vec();
    for (index, (field, text)) in group_texts(rule, key, labels).iter().enumerate() {
        // Absent and called "none" are two groups.
        let present = key.is_some_and(|key| key.0.get(index).copied().flatten().is_some());
        for part in [field.as_str(), text.as_str()] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.push(u8::from(present));
    }
    bytes.extend_from_slice(&first.unix_ns.to_le_bytes());
    hex(&siphash::hash128(siphash::Key::default(), &bytes))
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
