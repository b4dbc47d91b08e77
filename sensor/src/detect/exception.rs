//! Exceptions: who may do more than a rule allows, how much, until when, and who answers for it.
//!
//! An exception never silences. What it matches is taken out of the rule's groups and counted in groups of its own, with
//! a ceiling of its own; beyond the ceiling the rule fires and names the exception. After its last day it no longer
//! applies.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compile::Compiler;
use super::correlation::{threshold, timespan};
use super::error::quoted;
use super::field::{Source, hex};
use super::header::{Header, Table, days, logsource};
use super::names::{Names, Patterns};
use super::predicate::{Selection, selected};
use super::rule::{CompiledRule, Count};
use super::yaml::{Node, Place};
use super::{Labels, RuleError};
use crate::detect::field::Subject;
use sensor_ebpf::siphash;

const KEYS: &[&str] = &["rules", "match", "condition", "timespan", "owner", "reason", "expires"];
const DAY_NS: u64 = 86_400_000_000_000;

/// What is known of an exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its id (UUID).
    pub id: String,
    /// Its title.
    pub title: String,
    /// Who answers for it.
    pub owner: String,
    /// Why it is granted.
    pub reason: String,
    /// Last day on which it applies, `YYYY-MM-DD` (UTC).
    pub expires: String,
    /// When that day is over, nanoseconds since 1970.
    pub until_unix_ns: u64,
    /// The file it stands in.
    pub file: PathBuf,
    /// And the line.
    pub line: usize,
}

impl Exception {
    /// How a finding names it.
    pub fn named(&self) -> String {
        format!("{} (owner: {}, until {})", self.title, self.owner, self.expires)
    }
}

/// An exception as read, before it is applied to rules.
#[derive(Debug)]
pub(super) struct Draft {
    info: Arc<Exception>,
    rules: Vec<(String, Place)>,
    source: Source,
    selection: Arc<Selection>,
    pub patterns: Arc<Patterns>,
    ceiling: u64,
    timespan_s: Option<u64>,
    /// Hash of the file's text.
    pub hash: String,
}

/// Where an observation stands to an exception; the exception counts until it expires.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    info: Arc<Exception>,
    selection: Arc<Selection>,
    pub patterns: Arc<Patterns>,
    /// The rule wants what the exception matches, or what it does not match.
    inside: bool,
}

impl Guard {
    /// What the exception is for.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// True when the rule wants what the exception matches.
    pub fn wants_match(&self) -> bool {
        self.inside
    }

    /// Whether the rule may count `s`; `names` are those of this guard's patterns.
    pub fn lets(&self, s: Subject<'_>, names: &mut Names, labels: &dyn Labels) -> bool {
        let matches =
            s.o.at.unix_ns < self.info.until_unix_ns && selected(&self.selection, s, &names.fitting(s, labels));
        matches == self.inside
    }
}

/// Reads the part of a document below `exception`.
pub(super) fn read(
    outer: &Table<'_>,
    header: Header,
    node: &Node,
    file: &Path,
    compiler: &mut Compiler<'_, '_, '_>,
) -> Option<Draft> {
    let source = match outer.get("logsource") {
        Some(_) => logsource(outer, compiler.mistakes),
        None => Source::Observation,
    };
    let table = Table::new(node, "`exception`", compiler.mistakes)?;
    table.only(KEYS, &[], compiler.mistakes);
    let rules = table.list("rules", true, compiler.mistakes);
    if rules.is_empty() {
        compiler.mistakes.add(table.at, "the exception names no rule", "Add `rules:` with the `id` of a correlation");
    }
    let selection = table.get("match").map(|(_, node)| compiler.selection("match", node, source));
    if selection.is_none() {
        let message = "`match` is missing: the exception would be one for everybody";
        compiler.mistakes.add(table.at, message, "Add `match:` with `field: value` lines below it");
    }
    let ceiling = if let Some((_, node)) = table.get("condition") {
        let condition = Table::new(node, "`condition` of an exception", compiler.mistakes);
        condition.and_then(|condition| {
            condition.only(&["gte", "gt"], &[], compiler.mistakes);
            threshold(&condition, compiler.mistakes)
        })
    } else {
        let message = "`condition` is missing: an exception has a ceiling of its own";
        compiler.mistakes.add(table.at, message, "Add `condition:` with `gte: N` below it");
        None
    };
    let timespan_s = table.get("timespan").and_then(|_| timespan(&table, compiler.mistakes));
    let owner = table.text("owner", true, compiler.mistakes);
    let reason = table.text("reason", true, compiler.mistakes);
    let expires = table.text("expires", true, compiler.mistakes);
    let day = expires.and_then(|(text, at)| {
        let day = days(text);
        if day.is_none() {
            compiler.mistakes.add(at, format!("{} is not a date", quoted(text)), "Write `YYYY-MM-DD`");
        }
        day
    });
    Some(Draft {
        info: Arc::new(Exception {
            id: header.id,
            title: header.title,
            owner: owner?.0.to_owned(),
            reason: reason?.0.to_owned(),
            expires: expires?.0.to_owned(),
            until_unix_ns: day?.saturating_add(1).saturating_mul(DAY_NS),
            file: file.to_owned(),
            line: header.at.line,
        }),
        rules: rules.into_iter().map(|(rule, at)| (rule.to_ascii_lowercase(), at)).collect(),
        source,
        selection: Arc::new(selection?),
        patterns: Arc::default(),
        ceiling: ceiling?,
        timespan_s,
        hash: String::new(),
    })
}

/// Applies `drafts` to the rules that they name: each such rule counts only what no exception matches, and for each
/// exception there is a rule more, with its ceiling, right after it.
pub(super) fn apply(rules: Vec<CompiledRule>, drafts: &[Draft], errors: &mut Vec<RuleError>) -> Vec<CompiledRule> {
    for draft in drafts {
        for (wanted, at) in &draft.rules {
            let rule = rules.iter().find(|rule| rule.info.id == *wanted);
            let wrong = match rule {
                None => format!("no rule that is loaded has the id {}", quoted(wanted)),
                Some(rule) if matches!(rule.count, Count::Steps | Count::Ordered) => {
                    format!("the rule {} counts nothing that a ceiling could be set for", quoted(&rule.info.title))
                }
                Some(rule) if rule.source != draft.source => {
                    format!("the rule {} is about {}", quoted(&rule.info.title), rule.source.things())
                }
                Some(_) => continue,
            };
            errors.push(RuleError {
                file: draft.info.file.clone(),
                line: at.line,
                column: at.column,
                message: wrong,
                fix: "Name the `id` of a correlation that counts, of the same `category`".to_owned(),
            });
        }
    }
    rules.into_iter().flat_map(|rule| with_exceptions(rule, drafts)).collect()
}

fn with_exceptions(mut rule: CompiledRule, drafts: &[Draft]) -> Vec<CompiledRule> {
    let mut ceilings = Vec::new();
    let all = drafts.iter().filter(|draft| draft.rules.iter().any(|(id, _)| *id == rule.info.id));
    for draft in all {
        let guard = |inside| Guard {
            info: Arc::clone(&draft.info),
            selection: Arc::clone(&draft.selection),
            patterns: Arc::clone(&draft.patterns),
            inside,
        };
        // Who is in several exceptions counts for the first.
        let mut ceiling = rule.clone();
        ceiling.guards.push(guard(true));
        ceiling.threshold = draft.ceiling;
        if let Some(seconds) = draft.timespan_s {
            ceiling.timespan_ns = seconds.saturating_mul(1_000_000_000);
        }
        ceiling.exception = Some(Arc::clone(&draft.info));
        ceiling.state = hash(&[&rule.state, &draft.hash, &draft.info.id]);
        ceilings.push(ceiling);
        rule.guards.push(guard(false));
        rule.state = hash(&[&rule.state, &draft.hash]);
    }
    ceilings.insert(0, rule);
    ceilings
}

fn hash(parts: &[&str]) -> String {
    hex(&siphash::hash128(siphash::Key::default(), parts.join("/").as_bytes()))
}

/// What is known of each exception, in order.
pub(super) fn infos(drafts: &[Draft]) -> Vec<Arc<Exception>> {
    drafts.iter().map(|draft| Arc::clone(&draft.info)).collect()
}
