//! Outcome predicates: what a response means.

use super::model::{OutcomeRule, Success};
use super::reader::{Context, Item, Section};
use super::scalar;
use crate::diagnostic::quoted;
use crate::observation::{Outcome, RouteClass};
use crate::suggest;

const WORDS: [&str; 3] = ["read", "miss", "denied"];

/// The predicates of a route, in file order, followed by the default of every outcome that it does not state.
pub(super) fn outcomes(
    section: &mut Section,
    class: RouteClass,
    success: Option<&Success>,
    cx: &mut Context,
) -> Vec<OutcomeRule> {
    let example = "an array of tables such as [{ outcome = \"read\", status = 200 }]";
    let items = section.get(cx, "outcomes").map(|item| item.list(cx, example)).unwrap_or_default();
    let mut rules: Vec<OutcomeRule> = Vec::new();
    let mut catch_all = false;
    for item in &items {
        let Some(table) = item.section(cx, "a table such as { outcome = \"read\", status = 200 }") else { continue };
        if catch_all {
            let message = "this predicate is never reached, because the one before it fits every response";
            cx.error(item.at, message, "Move it up, or narrow the one before it");
        }
        if let Some(rule) = predicate(table, cx) {
            catch_all = is_catch_all(&rule);
            rules.push(rule);
        }
    }
    for rule in defaults(class, success) {
        if !rules.iter().any(|stated| stated.outcome == rule.outcome) {
            rules.push(rule);
        }
    }
    rules
}

fn predicate(mut table: Section, cx: &mut Context) -> Option<OutcomeRule> {
    let outcome =
        table.need(cx, "outcome", "`outcome = \"read\"`, \"miss\" or \"denied\"").and_then(|item| word(&item, cx));
    let status = table.get(cx, "status").map(|item| scalar::statuses(&item, cx)).unwrap_or_default();
    let min_length = table.get(cx, "min_length").and_then(|item| scalar::size(&item, cx, 0..=u64::MAX >> 1));
    let content_type = text(&mut table, "content_type", "a media type such as \"application/json\"", cx);
    let location = text(&mut table, "location", "the beginning of a Location, such as \"/login\"", cx);
    table.refuse(cx, "json", "an outcome by a value in the response body");
    table.refuse(cx, "graphql_errors", "an outcome by the `errors` of a GraphQL response");
    table.finish(cx);
    let content_type = content_type.map(|value| value.to_ascii_lowercase());
    Some(OutcomeRule { outcome: outcome?, status, min_length, content_type, location })
}

fn word(item: &Item, cx: &mut Context) -> Option<Outcome> {
    let text = item.text(cx, "\"read\", \"miss\" or \"denied\"")?;
    match text.value {
        "read" => Some(Outcome::Read),
        "miss" => Some(Outcome::Miss),
        "denied" => Some(Outcome::Denied),
        other => {
            cx.error(text.at, format!("unknown outcome {}", quoted(other)), suggest::advice(other, &WORDS));
            None
        }
    }
}

/// A non-empty string at `key`.
pub(super) fn text(section: &mut Section, key: &'static str, example: &str, cx: &mut Context) -> Option<String> {
    let item = section.get(cx, key)?;
    let text = item.text(cx, example)?;
    if text.value.is_empty() {
        cx.error(text.at, format!("{} is empty", item.name()), format!("Write {example}, or remove the key"));
        return None;
    }
    Some(text.value.to_owned())
}

fn is_catch_all(rule: &OutcomeRule) -> bool {
    rule.status.is_empty() && rule.min_length.is_none() && rule.content_type.is_none() && rule.location.is_none()
}

/// read: 2xx (on a route that issues: what counts as success); miss: 404, 410; denied: 401, 403.
fn defaults(class: RouteClass, success: Option<&Success>) -> [OutcomeRule; 3] {
    let by_status =
        |outcome, status| OutcomeRule { outcome, status, min_length: None, content_type: None, location: None };
    let mut read = by_status(Outcome::Read, vec![200..=299]);
    if let Some(success) = success.filter(|_| matches!(class, RouteClass::Login | RouteClass::Refresh)) {
        read.status = if success.status.is_empty() { vec![200..=299, 302..=303] } else { success.status.clone() };
        read.location.clone_from(&success.location);
    }
    [read, by_status(Outcome::Miss, vec![404..=404, 410..=410]), by_status(Outcome::Denied, vec![401..=401, 403..=403])]
}
