//! Test cases that stand beside rules (`tests/*.yml`): observations in words, and whether the rule fires.
//!
//! Files flow in; each case is played to a fresh engine that has only its rule (and the exceptions to it), and every case
//! that comes out otherwise than written is a mistake with its place.

mod told;

#[cfg(test)]
use std::path::Path;
use std::path::PathBuf;

use self::told::{Event, Teller};
use super::engine::Detectors;
use super::error::{advice, quoted};
use super::header::Table;
use super::rule::CompiledRule;
use super::yaml::{self, Mistakes, Node, Place, Value};
use super::{RuleError, RuleSet, files, read};
use crate::config::model::Config;
use crate::finding::model::{Activity, Finding};
use crate::finding::ocsf;

/// Most observations of one case.
const EVENTS_MAX: usize = 200_000;

/// One case.
struct Case<'n> {
    title: String,
    at: Place,
    fires: bool,
    events: Vec<Event<'n>>,
}

/// Plays the cases beside the rules at `paths`; how many there were, or what was otherwise than written.
pub fn check(paths: &[PathBuf], set: &RuleSet, config: &Config) -> Result<usize, Vec<RuleError>> {
    let mut errors = Vec::new();
    let mut count = 0;
    for file in beside(paths) {
        match read(&file) {
            Ok(text) => {
                let mut mistakes = Mistakes::new(&file);
                count += play(&text, set, config, &mut mistakes);
                let mut found = mistakes.list;
                found.sort_by_key(|error| (error.line, error.column));
                errors.append(&mut found);
            }
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() { Ok(count) } else { Err(errors) }
}

/// The files of cases: of a directory all in its `tests`, of a file the one of the same name.
fn beside(paths: &[PathBuf]) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for path in paths {
        if path.is_dir() {
            all.extend(files(&path.join("tests")).unwrap_or_default());
        } else if let (Some(folder), Some(name)) = (path.parent(), path.file_name()) {
            let file = folder.join("tests").join(name);
            all.extend(file.is_file().then_some(file));
        }
    }
    all
}

/// Plays the cases in `text`.
pub(super) fn play(text: &str, set: &RuleSet, config: &Config, mistakes: &mut Mistakes<'_>) -> usize {
    let mut count = 0;
    for document in yaml::documents(text, mistakes) {
        let Some(table) = Table::new(&document, "a document of cases", mistakes) else { continue };
        table.only(&["rule", "cases", "title", "description"], &[], mistakes);
        let Some((id, at)) = table.text("rule", true, mistakes) else { continue };
        let rules: Vec<CompiledRule> = set.rules.iter().filter(|rule| rule.info.id == id).cloned().collect();
        if rules.is_empty() {
            let message = format!("no rule that is loaded has the id {}", quoted(id));
            let known: Vec<&str> = set.info().map(|info| info.id.as_str()).collect();
            mistakes.add(at, message, advice(id, &known));
            continue;
        }
        let Some((_, Node { value: Value::Sequence(nodes), .. })) = table.get("cases") else {
            mistakes.add(table.at, "`cases` is missing", "Add `cases:` with a list of cases below it");
            continue;
        };
        for node in nodes {
            let mut teller = Teller::new(config);
            if let Some(case) = case(node, mistakes) {
                count += 1;
                judge(&case, &rules, &mut teller, config, mistakes);
            }
        }
    }
    count
}

fn case<'n>(node: &'n Node, mistakes: &mut Mistakes<'_>) -> Option<Case<'n>> {
    let table = Table::new(node, "a case", mistakes)?;
    table.only(&["title", "fires", "observations", "estimates"], &[], mistakes);
    let title = table.text("title", true, mistakes);
    let fires = match table.text("fires", true, mistakes)? {
        ("true", _) => true,
        ("false", _) => false,
        (other, at) => {
            mistakes.add(at, format!("{} is no yes or no", quoted(other)), "Write `true` or `false`");
            return None;
        }
    };
    let mut events = Vec::new();
    for (name, estimates) in [("observations", false), ("estimates", true)] {
        match table.get(name) {
            Some((_, Node { value: Value::Sequence(nodes), .. })) => {
                for node in nodes {
                    events.extend(Teller::events(node, estimates, mistakes));
                }
            }
            Some((key, _)) => mistakes.add(key.at, format!("`{name}` is no list"), "Write a list of mappings"),
            None => {}
        }
    }
    if events.is_empty() || events.len() > EVENTS_MAX {
        let message = format!("a case of {} observations", events.len());
        mistakes.add(table.at, message, format!("Write from 1 to {EVENTS_MAX} under `observations` or `estimates`"));
        return None;
    }
    events.sort_by_key(|event| event.after_ns);
    Some(Case { title: title?.0.to_owned(), at: table.at, fires, events })
}

fn judge(
    case: &Case<'_>,
    rules: &[CompiledRule],
    teller: &mut Teller<'_>,
    config: &Config,
    mistakes: &mut Mistakes<'_>,
) {
    let before = mistakes.list.len();
    let mut detectors = Detectors::new(rules, &config.bounds, [1, 2]);
    let mut fired: Vec<Finding> = Vec::new();
    for event in &case.events {
        match teller.tell(event, mistakes) {
            Some(told::Told::Observation(o)) => {
                detectors.observe(&o, teller, &mut fired);
            }
            Some(told::Told::Estimate(e)) => detectors.estimate(&e, teller, &mut fired),
            None => {}
        }
        if mistakes.list.len() > before {
            return;
        }
    }
    let opened = fired.iter().find(|finding| finding.activity == Activity::Open);
    let title = quoted(&case.title);
    match (case.fires, opened) {
        (true, None) => {
            let matched: u64 = detectors.stats().map(|(_, stats)| stats.matched).sum();
            let message = format!(
                "the case {title} does not make the rule fire: of {} observations {matched} count",
                case.events.len()
            );
            mistakes.add(case.at, message, "Correct the rule, or the case");
        }
        (false, Some(finding)) => {
            let message = format!("the case {title} makes the rule fire: {}", ocsf::message(finding));
            mistakes.add(case.at, message, "Correct the rule, or the case");
        }
        _ => {}
    }
}

/// The rules of `set` without a case of one kind (`fires`), by id; for checking that shipped rules have both.
#[cfg(test)]
pub(super) fn without(folder: &Path, set: &RuleSet, fires: bool) -> Vec<String> {
    let mut with: Vec<String> = Vec::new();
    for file in files(folder).unwrap_or_default() {
        let text = read(&file).unwrap_or_default();
        for document in yaml::documents(&text, &mut Mistakes::new(&file)) {
            let Value::Mapping(entries) = &document.value else { continue };
            let get = |name: &str| entries.iter().find(|(key, _)| key.text == name).map(|(_, node)| &node.value);
            let (Some(Value::Scalar { text: id, .. }), Some(Value::Sequence(cases))) = (get("rule"), get("cases"))
            else {
                continue;
            };
            let says = |case: &Node| {
                let Value::Mapping(entries) = &case.value else { return false };
                entries.iter().any(|(key, node)| {
                    key.text == "fires"
                        && matches!(&node.value, Value::Scalar { text, .. } if *text == fires.to_string())
                })
            };
            if cases.iter().any(says) {
                with.push(id.clone());
            }
        }
    }
    set.info().filter(|info| !with.contains(&info.id)).map(|info| format!("{} {}", info.id, info.title)).collect()
}

#[cfg(test)]
mod tests;
