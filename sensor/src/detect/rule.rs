//! Rule files: text in, [`CompiledRule`]s out.
//!
//! One file holds base rules (`detection`, named) and the correlations over them; names count within their file. Every
//! mistake of a file is reported at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};

use sensor_ebpf::siphash;

use super::condition;
use super::error::{advice, quoted};
use super::field::{Field, hex};
use super::header::{Header, Table, logsource};
use super::predicate::{Compiler, Detection, Test};
use super::yaml::{self, Mistakes, Node, Place, Value};
use crate::config::model::Config;
use crate::finding::model::Level;

/// Most fields of a `group-by`.
pub(super) const GROUP_FIELDS_MAX: usize = 4;
/// Longest window.
const TIMESPAN_MAX_S: u64 = 90 * 86_400;
/// Largest threshold.
const THRESHOLD_MAX: u64 = 1_000_000_000;
const CORRELATION_KEYS: &[&str] = &["type", "rules", "group-by", "timespan", "condition"];
const TYPES: &[&str] = &["value_count", "event_count"];
const TYPES_LATER: &[&str] =
    &["temporal", "temporal_ordered", "value_sum", "value_avg", "value_percentile", "value_median"];

/// What a metric says of a loaded rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInfo {
    /// Rule id (UUID).
    pub id: String,
    /// Title.
    pub title: String,
    /// Severity.
    pub level: Level,
    /// SipHash-2-4-128 of the rule file's bytes, 32 hex digits: changes when the file does.
    pub hash: String,
    /// The file it stands in.
    pub file: PathBuf,
}

/// What a correlation counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Observations (`event_count`).
    Events,
    /// Distinct values of a field (`value_count`).
    Distinct(Field),
}

/// A correlation with its base rules, resolved against the configuration.
#[derive(Clone, Debug)]
pub struct CompiledRule {
    /// Id, title, level, hash, file.
    pub info: RuleInfo,
    /// `modified` or `date` of the rule, else the file's hash.
    pub version: String,
    /// The plain-language why, on one line.
    pub description: String,
    /// Tags of the correlation, then those of its base rules that it does not repeat.
    pub tags: Vec<String>,
    pub(super) detections: Vec<Detection>,
    pub(super) kids: Vec<String>,
    pub(super) count: Count,
    pub(super) group_by: Vec<Field>,
    pub(super) timespan_ns: u64,
    pub(super) threshold: u64,
}

struct BaseRule {
    header: Header,
    detection: Option<Detection>,
    used: bool,
}

struct Correlation {
    header: Header,
    rules: Vec<(String, Place)>,
    count: Option<Count>,
    group_by: Vec<Field>,
    timespan_s: Option<u64>,
    threshold: Option<u64>,
}

/// Rule ids seen so far, over all files, and where.
pub(super) type Ids = BTreeMap<String, (PathBuf, Place)>;

/// The rules in `text`, the contents of `file`. When mistakes were added, the rules are incomplete.
pub(super) fn compile(
    file: &Path,
    text: &str,
    config: &Config,
    ids: &mut Ids,
    mistakes: &mut Mistakes<'_>,
) -> Vec<CompiledRule> {
    let documents = yaml::documents(text, mistakes);
    let mut compiler = Compiler { config, mistakes, kids: Vec::new() };
    let mut bases: Vec<BaseRule> = Vec::new();
    let mut correlations = Vec::new();
    for document in &documents {
        let Some(table) = Table::new(document, "a rule document", compiler.mistakes) else { continue };
        let header = Header::read(&table, compiler.mistakes);
        unique(&header, file, ids, compiler.mistakes);
        match (table.get("detection"), table.get("correlation")) {
            (Some((_, detection)), None) => bases.push(base_rule(&table, header, detection, &mut compiler)),
            (None, Some((_, node))) => correlations.extend(correlation(&table, header, node, compiler.mistakes)),
            (Some(_), Some((key, _))) => {
                let message = "a document has either `detection` or `correlation`";
                compiler.mistakes.add(key.at, message, "Put the correlation in its own document, after a line `---`");
            }
            (None, None) => {
                let message = "the document has neither `detection` nor `correlation`";
                compiler.mistakes.add(table.at, message, "Add the part that says what to look for");
            }
        }
    }
    let Compiler { kids, .. } = compiler;
    same_names(&bases, mistakes);
    let hash = file_hash(text);
    let mut rules = Vec::new();
    for correlation in correlations {
        let Some(mut rule) = assemble(correlation, &mut bases, mistakes) else { continue };
        rule.kids.clone_from(&kids);
        rule.info.hash.clone_from(&hash);
        file.clone_into(&mut rule.info.file);
        if rule.version.is_empty() {
            rule.version.clone_from(&hash);
        }
        rules.push(rule);
    }
    for base in bases.iter().filter(|base| !base.used) {
        let message = "no correlation of this file uses this rule, and rules of their own are not implemented yet";
        mistakes.add(base.header.at, message, "Add an `event_count` correlation with `gte: 1`, or remove the document");
    }
    if documents.is_empty() && mistakes.list.is_empty() {
        mistakes.add(Place { line: 1, column: 1 }, "the file holds no rule", "Write a rule or remove the file");
    }
    rules
}

fn unique(header: &Header, file: &Path, ids: &mut Ids, mistakes: &mut Mistakes<'_>) {
    if header.id.is_empty() {
        return;
    }
    match ids.entry(header.id.clone()) {
        Entry::Vacant(slot) => {
            slot.insert((file.to_owned(), header.id_at));
        }
        Entry::Occupied(first) => {
            let (first, at) = first.get();
            let message = format!("the id {} is taken by {}:{}", quoted(&header.id), first.display(), at.line);
            mistakes.add(header.id_at, message, "Make a new UUID for this rule");
        }
    }
}

fn file_hash(text: &str) -> String {
    hex(&siphash::hash128(siphash::Key::default(), text.as_bytes()))
}

fn same_names(bases: &[BaseRule], mistakes: &mut Mistakes<'_>) {
    for (index, base) in bases.iter().enumerate() {
        let Some((name, at)) = &base.header.name else { continue };
        let earlier = bases.iter().take(index).find_map(|other| other.header.name.as_ref().filter(|(n, _)| n == name));
        if let Some((_, first)) = earlier {
            let message = format!("a second rule called {}; the first is on line {}", quoted(name), first.line);
            mistakes.add(*at, message, "Give each base rule its own name");
        }
    }
}

fn base_rule(table: &Table<'_>, header: Header, node: &Node, compiler: &mut Compiler<'_, '_, '_>) -> BaseRule {
    logsource(table, compiler.mistakes);
    let detection = detection(node, compiler);
    BaseRule { header, detection, used: false }
}

/// Selections and the condition over them.
fn detection(node: &Node, compiler: &mut Compiler<'_, '_, '_>) -> Option<Detection> {
    let table = Table::new(node, "`detection`", compiler.mistakes)?;
    let mut names = Vec::new();
    let mut places = Vec::new();
    let mut selections = Vec::new();
    for (key, node) in table.entries {
        match key.text.as_str() {
            "condition" => {}
            "timeframe" => {
                compiler.mistakes.add(key.at, "`timeframe` is not implemented yet", "Use `timespan` of a correlation");
            }
            name => {
                names.push(name);
                places.push(key.at);
                selections.push(selection(name, node, compiler));
            }
        }
    }
    let Some((_, condition)) = table.get("condition") else {
        compiler.mistakes.add(table.at, "`condition` is missing", "Add, for example, `condition: selection`");
        return None;
    };
    let condition = condition::parse(condition, &names, compiler.mistakes)?;
    for (index, (name, at)) in names.iter().zip(places).enumerate() {
        if !condition.mentions(index) {
            let message = format!("the condition does not use {}", quoted(name));
            compiler.mistakes.add(at, message, "Name it in `condition`, or remove it");
        }
    }
    Some(Detection { selections, condition })
}

/// A mapping (all must hold) or a list of mappings (one must hold).
fn selection(name: &str, node: &Node, compiler: &mut Compiler<'_, '_, '_>) -> Vec<Vec<Test>> {
    let maps = match &node.value {
        Value::Sequence(items) if !items.is_empty() => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut alternatives = Vec::new();
    for map in maps {
        match &map.value {
            Value::Mapping(entries) if !entries.is_empty() => {
                let tests = entries.iter().filter_map(|(key, node)| {
                    field(&key.text, key.at, compiler.mistakes).and_then(|field| compiler.test(field, node))
                });
                alternatives.push(tests.collect());
            }
            Value::Scalar { .. } if !map.is_null() => {
                let message = format!("{}: keyword search is not implemented yet", quoted(name));
                compiler.mistakes.add(map.at, message, "Write `field: value` lines");
            }
            _ => {
                let message = format!("{} is {} here", quoted(name), map.kind());
                compiler.mistakes.add(map.at, message, "Write `field: value` lines");
            }
        }
    }
    alternatives
}

fn field(text: &str, at: Place, mistakes: &mut Mistakes<'_>) -> Option<Field> {
    if let Some((_, modifier)) = text.split_once('|') {
        let message = format!("the modifier {} is not implemented yet", quoted(modifier));
        mistakes.add(at, message, "Name each value in full");
        return None;
    }
    let field = Field::from_label(text);
    if field.is_none() {
        let message = format!("observations have no field {}", quoted(text));
        mistakes.add(at, message, advice(text, Field::LABELS));
    }
    field
}

fn correlation(outer: &Table<'_>, header: Header, node: &Node, mistakes: &mut Mistakes<'_>) -> Option<Correlation> {
    if outer.get("level").is_none() {
        mistakes.add(header.at, "`level` is missing", "Add a line `level: high`, or another level");
    }
    let table = Table::new(node, "`correlation`", mistakes)?;
    table.only(CORRELATION_KEYS, &["aliases", "generate"], mistakes);
    let distinct = match table.text("type", true, mistakes) {
        Some(("value_count", _)) => Some(true),
        Some(("event_count", _)) => Some(false),
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
    let (count, threshold) = bound(&table, distinct, mistakes);
    Some(Correlation {
        header,
        rules: rules.into_iter().map(|(rule, at)| (rule.to_owned(), at)).collect(),
        count,
        group_by: group_by(&table, mistakes),
        timespan_s: timespan(&table, mistakes),
        threshold,
    })
}

fn group_by(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Vec<Field> {
    let mut fields = Vec::new();
    for (text, at) in table.list("group-by", true, mistakes) {
        let Some(field) = field(text, at, mistakes) else { continue };
        if fields.contains(&field) {
            mistakes.add(at, format!("{} stands here twice", quoted(text)), "Keep one of the two");
        } else if fields.len() == GROUP_FIELDS_MAX {
            mistakes.add(at, format!("more than {GROUP_FIELDS_MAX} fields to group by"), "Remove some");
        } else {
            fields.push(field);
        }
    }
    fields
}

/// Seconds of a Sigma timespan: a number with `s`, `m`, `h`, `d` or `w`.
fn timespan(table: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Option<u64> {
    let (text, at) = table.text("timespan", true, mistakes)?;
    let seconds = text.char_indices().next_back().and_then(|(index, unit)| {
        let unit = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        let digits = text.get(..index).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
        digits.parse::<u64>().ok()?.checked_mul(unit)
    });
    match seconds {
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
fn bound(table: &Table<'_>, distinct: Option<bool>, mistakes: &mut Mistakes<'_>) -> (Option<Count>, Option<u64>) {
    let Some((_, node)) = table.get("condition") else {
        mistakes.add(table.at, "`condition` is missing", "Add `condition:` with `gte: N` below it");
        return (None, None);
    };
    let Some(condition) = Table::new(node, "`condition` of a correlation", mistakes) else { return (None, None) };
    condition.only(&["gte", "gt", "field"], &["lt", "lte", "eq", "neq", "percentile"], mistakes);
    let threshold = threshold(&condition, mistakes);
    let count = match (distinct, condition.get("field")) {
        (Some(true), _) => condition
            .text("field", true, mistakes)
            .and_then(|(text, at)| field(text, at, mistakes))
            .map(Count::Distinct),
        (Some(false), Some((key, _))) => {
            mistakes.add(
                key.at,
                "`event_count` counts observations, not values",
                "Remove `field`, or use `type: value_count`",
            );
            None
        }
        (Some(false), None) => Some(Count::Events),
        (None, _) => None,
    };
    (count, threshold)
}

/// The least count that fires.
fn threshold(condition: &Table<'_>, mistakes: &mut Mistakes<'_>) -> Option<u64> {
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

/// Joins a correlation with its base rules; none when a part of it is missing (a mistake was added then).
fn assemble(correlation: Correlation, bases: &mut [BaseRule], mistakes: &mut Mistakes<'_>) -> Option<CompiledRule> {
    let Correlation { header, rules, count, group_by, timespan_s, threshold } = correlation;
    let mut tags = header.tags;
    let mut detections = Vec::new();
    let mut complete = true;
    for (wanted, at) in &rules {
        let named = |base: &BaseRule| base.header.name.as_ref().is_some_and(|(name, _)| name == wanted);
        let Some(index) = bases.iter().position(|base| named(base) || base.header.id == *wanted) else {
            let known: Vec<&str> =
                bases.iter().filter_map(|base| base.header.name.as_ref()).map(|(name, _)| name.as_str()).collect();
            let message = format!("this file has no base rule called {}", quoted(wanted));
            let fix = if known.is_empty() { "Give the base rule a `name`".to_owned() } else { advice(wanted, &known) };
            mistakes.add(*at, message, fix);
            complete = false;
            continue;
        };
        let Some(base) = bases.get_mut(index) else { continue };
        base.used = true;
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
    let (count, timespan_s, threshold, level) = (count?, timespan_s?, threshold?, header.level?);
    if !complete || detections.is_empty() {
        return None;
    }
    Some(CompiledRule {
        info: RuleInfo { id: header.id, title: header.title, level, hash: String::new(), file: PathBuf::new() },
        version: header.version.unwrap_or_default(),
        description: header.description,
        tags,
        detections,
        kids: Vec::new(),
        count,
        group_by,
        timespan_ns: timespan_s.saturating_mul(1_000_000_000),
        threshold,
    })
}
