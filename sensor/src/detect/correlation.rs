//! The `correlation` of a document: which base rules, how many of what, by group, in how long.

use std::path::PathBuf;
use std::sync::Arc;

use super::compile::duration;
use super::error::{advice, quoted};
use super::field::{Field, Source};
use super::header::{Header, Table};
use super::modifier;
use super::names::Patterns;
use super::rule::{BaseRule, CompiledRule, Count, GROUP_FIELDS_MAX, RuleInfo, THRESHOLD_MAX, TIMESPAN_MAX_S};
use super::yaml::{Mistakes, Node, Place};

const KEYS: &[&str] = &["type", "rules", "group-by", "timespan", "condition"];
const TYPES: &[&str] = &["value_count", "event_count", "temporal", "temporal_ordered"];
const TYPES_LATER: &[&str] = &["value_sum", "value_avg", "value_percentile", "value_median"];
/// Most base rules that a `temporal` correlation may ask for.
const STEPS_MAX: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Values,
    Events,
    Temporal,
    Ordered,
}

/// A correlation as written, fields not yet looked up: which there are depends on its base rules.
pub(super) struct Correlation<'n> {
    header: Header,
    kind: Option<Kind>,
    rules: Vec<(&'n str, Place)>,
    counted: Option<(&'n str, Place)>,
    group_by: Vec<(&'n str, Place)>,
    timespan_s: Option<u64>,
    threshold: Option<u64>,
}

/// Reads the part of a document below `correlation`.
pub(super) fn read<'n>(
    outer: &Table<'_>,
    header: Header,
    node: &'n Node,
    mistakes: &mut Mistakes<'_>,
) -> Option<Correlation<'n>> {
    if outer.get("level").is_none() {
        mistakes.add(header.at, "`level` is missing", "Add a line `level: high`, or another level");
    }
    let table = Table::new(node, "`correlation`", mistakes)?;
    table.only(KEYS, &["aliases", "generate"], mistakes);
    let kind = match table.text("type", true, mistakes) {
        Some(("value_count", _)) => Some(Kind::Values),
        Some(("event_count", _)) => Some(Kind::Events),
        Some(("temporal", _)) => Some(Kind::Temporal),
        Some(("temporal_ordered", _)) => Some(Kind::Ordered),
        Some((other, at)) if TYPES_LATER.contains(&other) => {
            mistakes.add(at, format!("the correlation type `{other}` is not implemented yet"), advice("", TYPES));
            None
        }
        Some((other, at)) => {
            mistakes.add(at, format!("{} is no correlation type", quoted(other)), advice(other, TYPES));
            None
        }
        None => None,
    };
    let rules = table.list("rules", true, mistakes);
    if rules.is_empty() {
        mistakes.add(table.at, "the correlation names no rule", "Add `rules:` with the `name` of a base rule");
    }
    let (counted, threshold) = match kind {
        Some(Kind::Temporal | Kind::Ordered) => {
            if let Some((key, _)) = table.get("condition") {
                let message = "`temporal` and `temporal_ordered` take no condition: all their rules must match";
                mistakes.add(key.at, message, "Remove it");
            }
            let steps = rules.len();
            if steps == 1 || steps > STEPS_MAX {
                let message = format!("{steps} rules cannot be brought into relation");
                mistakes.add(table.at, message, format!("Name from 2 to {STEPS_MAX} under `rules`"));
            }
            (None, Some(steps as u64))
        }
        _ => bound(&table, kind, mistakes),
    };
    Some(Correlation {
        header,
        kind,
        counted,
        threshold,
        group_by: table.list("group-by", true, mistakes),
        timespan_s: timespan(&table, mistakes),
        rules,
    })
}

/// Seconds of the `timespan` of `table`.
pub(super) fn timespan(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Option<u64> {
    let (text, at) = table.text("timespan", true, mistakes)?;
    match duration(text) {
        None => {
            mistakes.add(
                at,
                format!("{} is no timespan", quoted(text)),
                "Write a number and a unit, such as `90s`, `15m`, `24h`, `7d`",
            );
            None
        }
        Some(seconds) if !(1..=TIMESPAN_MAX_S).contains(&seconds) => {
            mistakes.add(at, format!("{} is out of range", quoted(text)), "Write something from `1s` to `90d`");
            None
        }
        seconds => seconds,
    }
}

/// What is counted and from which count on the rule fires.
fn bound<'n>(
    table: &Table<'n>,
    kind: Option<Kind>,
    mistakes: &mut Mistakes<'_>,
) -> (Option<(&'n str, Place)>, Option<u64>) {
    let Some((_, node)) = table.get("condition") else {
        mistakes.add(table.at, "`condition` is missing", "Add `condition:` with `gte: N` below it");
        return (None, None);
    };
    let Some(condition) = Table::new(node, "`condition` of a correlation", mistakes) else { return (None, None) };
    condition.only(&["gte", "gt", "field"], &["lt", "lte", "eq", "neq", "percentile"], mistakes);
    let threshold = threshold(&condition, mistakes);
    let counted = match (kind, condition.get("field")) {
        (Some(Kind::Values), _) => condition.text("field", true, mistakes),
        (Some(Kind::Events), Some((key, _))) => {
            mistakes.add(
                key.at,
                "`event_count` counts observations, not values",
                "Remove `field`, or use `type: value_count`",
            );
            None
        }
        _ => None,
    };
    (counted, threshold)
}

/// The least count that fires.
pub(super) fn threshold(condition: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Option<u64> {
    let bounds: Vec<_> = ["gte", "gt"].into_iter().filter(|key| condition.get(key).is_some()).collect();
    let [only] = bounds.as_slice() else {
        let message = "the condition needs exactly one of `gte` and `gt`";
        mistakes.add(condition.at, message, "Write, for example, `gte: 10`");
        return None;
    };
    let (text, at) = condition.text(only, true, mistakes)?;
    let number = text.parse::<u64>().ok().map(|number| number.saturating_add(u64::from(*only == "gt")));
    let threshold = number.filter(|number| (1..=THRESHOLD_MAX).contains(number));
    if threshold.is_none() {
        let message = format!("{} is no count to reach", quoted(text));
        mistakes.add(at, message, format!("Write a whole number from 1 to {THRESHOLD_MAX}"));
    }
    threshold
}

fn group_by(texts: &[(&str, Place)], source: Source, mistakes: &mut Mistakes<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    for (text, at) in texts {
        let Some(field) = modifier::field(text, *at, source, mistakes) else { continue };
        if fields.contains(&field) {
            mistakes.add(*at, format!("{} stands here twice", quoted(text)), "Keep one of the two");
        } else if fields.len() == GROUP_FIELDS_MAX {
            mistakes.add(*at, format!("more than {GROUP_FIELDS_MAX} fields to group by"), "Remove some");
        } else {
            fields.push(field);
        }
    }
    fields
}

/// Joins a correlation with its base rules; none when a part of it is missing (a mistake was added then).
pub(super) fn assemble(
    correlation: Correlation<'_>,
    bases: &mut [BaseRule],
    patterns: &Arc<Patterns>,
    mistakes: &mut Mistakes<'_>,
) -> Option<CompiledRule> {
    let Correlation { header, kind, rules, counted, group_by: groups, timespan_s, threshold } = correlation;
    let mut tags = header.tags;
    let mut detections = Vec::new();
    let mut complete = true;
    let mut source: Option<Source> = None;
    for (wanted, at) in &rules {
        let Some(base) = named(wanted, *at, bases, mistakes) else {
            complete = false;
            continue;
        };
        base.used = true;
        if *source.get_or_insert(base.source) != base.source {
            let message = format!("{} is about {}, the rules before it are not", quoted(wanted), base.source.things());
            mistakes.add(*at, message, "Name rules of one `category` only");
            complete = false;
        }
        for tag in &base.header.tags {
            if !tags.contains(tag) {
                tags.push(tag.clone());
            }
        }
        match &base.detection {
            Some(detection) => detections.push(detection.clone()),
            None => complete = false,
        }
    }
    let source = source.unwrap_or(Source::Observation);
    let group_by = group_by(&groups, source, mistakes);
    let count = match kind? {
        Kind::Events => Count::Events,
        Kind::Temporal => Count::Steps,
        Kind::Ordered => Count::Ordered,
        Kind::Values => {
            let (text, at) = counted?;
            Count::Distinct(modifier::field(text, at, source, mistakes)?)
        }
    };
    let (timespan_s, threshold, level) = (timespan_s?, threshold?, header.level?);
    if !complete || detections.is_empty() {
        return None;
    }
    Some(CompiledRule {
        info: RuleInfo { id: header.id, title: header.title, level, hash: String::new(), file: PathBuf::new() },
        version: header.version.unwrap_or_default(),
        description: header.description,
        tags,
        source,
        detections,
        patterns: Arc::clone(patterns),
        count,
        group_by,
        timespan_ns: timespan_s.saturating_mul(1_000_000_000),
        threshold,
        guards: Vec::new(),
        exception: None,
        state: String::new(),
    })
}

/// The base rule that `wanted` names.
fn named<'b>(
    wanted: &str,
    at: Place,
    bases: &'b mut [BaseRule],
    mistakes: &mut Mistakes<'_>,
) -> Option<&'b mut BaseRule> {
    let named = |base: &BaseRule| base.header.name.as_ref().is_some_and(|(name, _)| name == wanted);
    let Some(index) = bases.iter().position(|base| named(base) || base.header.id == wanted) else {
        let known: Vec<&str> =
            bases.iter().filter_map(|base| base.header.name.as_ref()).map(|(name, _)| name.as_str()).collect();
        let message = format!("this file has no base rule called {}", quoted(wanted));
        let fix = if known.is_empty() { "Give the base rule a `name`".to_owned() } else { advice(wanted, &known) };
        mistakes.add(at, message, fix);
        return None;
    };
    bases.get_mut(index)
}
