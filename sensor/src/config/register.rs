//! The register of an issuer's keys and of what may stand together in its tokens.

use std::ops::RangeInclusive;

use super::issuance::each;
use super::model::{Combination, Kid};
use super::outcome::text;
use super::reader::{Context, Item, Section};
use super::scalar;
use crate::diagnostic::quoted;
use crate::suggest;

/// Credentials that may be older than the horizon.
pub(super) const POPULATION: RangeInclusive<u64> = 0..=10_000_000_000;

/// A registered key: its id, or a table that says more about it.
pub(super) fn kid(item: &Item, cx: &mut Context) -> Option<Kid> {
    if !item.is_table() {
        let text = item.text(cx, "a key id, or a table such as { kid = \"2024-04\", retired = 2025-01-01 }")?;
        return non_empty(text.value, text.at, cx).map(|kid| Kid { kid, ..Kid::default() });
    }
    let mut table = item.section(cx, "a table")?;
    let kid = table
        .need(cx, "kid", "`kid = \"...\"`")
        .and_then(|item| item.text(cx, "the key id in double quotes"))
        .and_then(|text| non_empty(text.value, text.at, cx));
    let owner = text(&mut table, "owner", "who answers for the key, a person or a team", cx);
    let mut date = |key| {
        let when = table.get(cx, key).and_then(|item| scalar::date(&item, cx));
        when.as_ref().map(scalar::unix_seconds)
    };
    let (created_unix, retired_unix, owner_left_unix) = (date("created"), date("retired"), date("owner_left"));
    if let (Some(created), Some(retired)) = (created_unix, retired_unix)
        && retired < created
    {
        cx.error(table.key_at("retired"), "the key is retired before it was created", "Correct one of the two dates");
    }
    if owner_left_unix.is_some() && !table.has("owner") {
        let message = "`owner_left` without `owner` does not say who left";
        cx.warn(table.key_at("owner_left"), message, "Add `owner = \"...\"`");
    }
    table.finish(cx);
    Some(Kid { kid: kid?, owner, created_unix, retired_unix, owner_left_unix })
}

fn non_empty(kid: &str, at: usize, cx: &mut Context) -> Option<String> {
    if kid.is_empty() {
        cx.error(at, "an empty `kid` names no key", "Write the key id as the token's header has it");
        return None;
    }
    Some(kid.to_owned())
}

/// What was registered together.
pub(super) fn combinations(
    issuer: &mut Section,
    iss: Option<&str>,
    kids: &[Kid],
    cx: &mut Context,
) -> Vec<Combination> {
    each(issuer, "combinations", cx, |item, cx| {
        let table = item.section(cx, "a table such as { kid = \"2026-01\", aud = \"storefront\" }")?;
        Some(combination(table, iss, kids, cx))
    })
}

fn combination(mut table: Section, issuer: Option<&str>, kids: &[Kid], cx: &mut Context) -> Combination {
    let kid = text(&mut table, "kid", "a key id", cx);
    let iss = text(&mut table, "iss", "the `iss` claim", cx);
    let aud = words(&mut table, "aud", "the `aud` claim, or an array of all its values", cx);
    let scope = words(&mut table, "scope", "the `scope` claim, such as \"orders profile\"", cx);
    if !["kid", "iss", "aud", "scope"].iter().any(|key| table.has(key)) {
        cx.error(
            table.at,
            "a combination that states nothing fits every token",
            "State `kid`, `iss`, `aud` or `scope`",
        );
    }
    if let Some(wanted) = &kid
        && !kids.is_empty()
        && !kids.iter().any(|known| known.kid == *wanted)
    {
        let names: Vec<&str> = kids.iter().map(|known| known.kid.as_str()).collect();
        let message = format!("the key {} is not among this issuer's `kids`", quoted(wanted));
        cx.error(table.key_at("kid"), message, suggest::advice(wanted, &names));
    }
    if let (Some(stated), Some(issuer)) = (&iss, issuer)
        && stated != issuer
    {
        let message = format!("this issuer's tokens say `iss` {}, so the combination never fits", quoted(issuer));
        cx.error(table.key_at("iss"), message, "Remove `iss` here, or move the combination to its issuer");
    }
    table.finish(cx);
    Combination { kid, iss, aud, scope }
}

/// A claim that is a list of words, in the order in which tokens are compared: sorted.
fn words(table: &mut Section, key: &'static str, example: &str, cx: &mut Context) -> Option<String> {
    let item = table.get(cx, key)?;
    let mut words = Vec::new();
    for one in item.one_or_list() {
        words.extend(one.text(cx, example)?.value.split_ascii_whitespace());
    }
    if words.is_empty() {
        cx.error(item.at, format!("{} is empty", item.name()), format!("Write {example}, or remove the key"));
        return None;
    }
    Some(crate::ledger::joined(words))
}

/// The claim that names whose a token is.
pub(super) fn subject(issuer: &mut Section, cx: &mut Context) -> Option<String> {
    let example = "\"claim:NAME\", or \"none\" for tokens that name no member";
    let default = Some("sub".to_owned());
    let Some(text) = issuer.get(cx, "subject").and_then(|item| item.text(cx, example)) else { return default };
    match text.value.split_once(':') {
        None if text.value == "none" => None,
        Some(("claim", name)) if !name.is_empty() => Some(name.to_owned()),
        _ => {
            let message = format!("{} does not say which claim names the subject", quoted(text.value));
            cx.error(text.at, message, format!("Write {example}"));
            default
        }
    }
}
