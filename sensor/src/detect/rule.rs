//! Rule files: text in, [`CompiledRule`]s out.
//!
//! One file holds base rules (`detection`, named) and the correlations over them; names count within their file. It may
//! also hold exceptions to rules of any file. Every mistake of a file is reported at once.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sensor_ebpf::siphash;

use super::compile::Compiler;
use super::condition;
use super::correlation::{self, assemble};
use super::error::quoted;
use super::exception::{self, Draft, Exception, Guard};
use super::field::{Field, Source, hex};
use super::header::{Header, Table, logsource};
use super::names::Patterns;
use super::predicate::Detection;
use super::shade::Shade;
use super::yaml::{self, Mistakes, Node, Place};
use crate::config::model::Config;
use crate::finding::model::Level;

/// Most fields of a `group-by`.
pub(super) const GROUP_FIELDS_MAX: usize = 4;
/// Longest window.
pub(super) const TIMESPAN_MAX_S: u64 = 90 * 86_400;
/// Largest threshold.
pub(super) const THRESHOLD_MAX: u64 = 1_000_000_000;

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
    /// Base rules that matched (`temporal`).
    Steps,
    /// Base rules that matched one after the other (`temporal_ordered`).
    Ordered,
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
    /// The exception whose ceiling this is; `None`: the rule itself.
    pub exception: Option<Arc<Exception>>,
    pub(super) source: Source,
    pub(super) detections: Vec<Detection>,
    pub(super) patterns: Arc<Patterns>,
    pub(super) count: Count,
    pub(super) group_by: Vec<Field>,
    pub(super) timespan_ns: u64,
    pub(super) threshold: u64,
    pub(super) guards: Vec<Guard>,
    /// Changes when what the rule's counts mean changes.
    pub(super) state: String,
}

impl CompiledRule {
    /// Changes when the rule, or an exception to it, does.
    pub fn version_hash(&self) -> String {
        self.state.clone()
    }

    /// False when no observation of that shade counts.
    pub(super) fn may_match(&self, shade: Shade) -> bool {
        self.source == Source::Observation && self.detections.iter().any(|detection| detection.may_match(shade))
    }
}

/// A document with `detection`.
pub(super) struct BaseRule {
    pub header: Header,
    pub source: Source,
    pub detection: Option<Detection>,
    pub used: bool,
}

/// What a file holds.
#[derive(Default)]
pub(super) struct Compiled {
    pub rules: Vec<CompiledRule>,
    pub exceptions: Vec<Draft>,
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
) -> Compiled {
    let documents = yaml::documents(text, mistakes);
    let mut compiler = Compiler { config, mistakes, patterns: Patterns::default() };
    let mut bases: Vec<BaseRule> = Vec::new();
    let mut correlations = Vec::new();
    let mut found = Compiled::default();
    for document in &documents {
        let Some(table) = Table::new(document, "a rule document", compiler.mistakes) else { continue };
        let header = Header::read(&table, compiler.mistakes);
        unique(&header, file, ids, compiler.mistakes);
        let parts: Vec<_> =
            ["detection", "correlation", "exception"].iter().filter_map(|part| table.get(part)).collect();
        match parts.as_slice() {
            [] => {
                let message = "the document has neither `detection` nor `correlation`";
                compiler.mistakes.add(table.at, message, "Add the part that says what to look for");
            }
            [(key, node)] if key.text == "detection" => bases.push(base_rule(&table, header, node, &mut compiler)),
            [(key, node)] if key.text == "correlation" => {
                correlations.extend(correlation::read(&table, header, node, compiler.mistakes));
            }
            [(_, node)] => {
                found.exceptions.extend(exception::read(&table, header, node, file, &mut compiler));
            }
            [_, (key, _), ..] => {
                let message = "a document has one of `detection`, `correlation` and `exception`";
                let fix = format!("Put the {} in its own document, after a line `---`", key.text);
                compiler.mistakes.add(key.at, message, fix);
            }
        }
    }
    let patterns = Arc::new(compiler.patterns);
    same_names(&bases, mistakes);
    let hash = hex(&siphash::hash128(siphash::Key::default(), text.as_bytes()));
    for draft in &mut found.exceptions {
        draft.patterns = Arc::clone(&patterns);
        draft.hash.clone_from(&hash);
    }
    for correlation in correlations {
        let Some(mut rule) = assemble(correlation, &mut bases, &patterns, mistakes) else { continue };
        rule.info.hash.clone_from(&hash);
        rule.state.clone_from(&hash);
        file.clone_into(&mut rule.info.file);
        if rule.version.is_empty() {
            rule.version.clone_from(&hash);
        }
        found.rules.push(rule);
    }
    for base in bases.iter().filter(|base| !base.used) {
        let message = "no correlation of this file uses this rule, and rules of their own are not implemented yet";
        mistakes.add(base.header.at, message, "Add an `event_count` correlation with `gte: 1`, or remove the document");
    }
    if documents.is_empty() && mistakes.list.is_empty() {
        mistakes.add(Place { line: 1, column: 1 }, "the file holds no rule", "Write a rule or remove the file");
    }
    found
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
    let source = logsource(table, compiler.mistakes);
    let detection = detection(node, source, compiler);
    BaseRule { header, source, detection, used: false }
}

/// Selections and the condition over them.
fn detection(node: &Node, source: Source, compiler: &mut Compiler<'_, '_, '_>) -> Option<Detection> {
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
                selections.push(compiler.selection(name, node, source));
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
