//! Routes: methods, path template, class, outcomes, account.

use std::collections::HashMap;

use sensor_ebpf::wire::method;

use super::issuance::{self, each};
use super::model::{AccountSource, Credentials, Method, Route, Segment};
use super::names;
use super::outcome;
use super::reader::{At, Context, Item, Section};
use super::template;
use crate::diagnostic::quoted;
use crate::observation::RouteClass;
use crate::suggest;

const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT"];

/// What the routes of a service that were read so far have taken.
#[derive(Default)]
pub(super) struct Taken {
    names: HashMap<String, usize>,
    /// By method and template shape: byte offset of the template.
    paths: HashMap<(String, String), usize>,
}

/// One route; `None` when it lacks what everything else hangs on (the diagnostics say so).
pub(super) fn route(
    mut table: Section,
    credentials: &mut Credentials,
    taken: &mut Taken,
    cx: &mut Context,
) -> Option<Route> {
    let name = table.get(cx, "name").and_then(|item| names::label(&item, cx));
    let class = table.need(cx, "class", "`class = \"account_read\"`, \"login\", \"refresh\", \"logout\" or \"other\"");
    let class = class.and_then(|item| class_of(&item, cx));
    let methods = methods(&mut table, cx);
    let path = table
        .need(cx, "path", "a path template such as `path = \"/members/{member}\"`")
        .and_then(|item| item.text(cx, "a path template such as \"/members/{member}\""));
    let segments = path.and_then(|text| template::segments(text, cx));
    let authenticates_with = each(&mut table, "authenticates_with", cx, |item, cx| names::place(item, credentials, cx));
    let account = accounts(&mut table, segments.as_deref(), credentials, cx);
    let object = object(&mut table, segments.as_deref(), credentials, cx);
    let issuance = issuance::issuance(&mut table, class, credentials, cx);
    let success = issuance.as_ref().map(|rule| &rule.success);
    let outcomes = outcome::outcomes(&mut table, class.unwrap_or(RouteClass::Other), success, cx);
    table.finish(cx);

    let (class, path, segments) = (class?, path?, segments?);
    taken.claim_path(&methods, path, &segments, cx);
    let account = account.unwrap_or_else(|| default_account(class, &segments));
    let object = object.or_else(|| default_object(class, &segments, &account));
    let name = name.unwrap_or_else(|| At { value: default_name(&methods, path.value), at: path.at });
    taken.claim_name(&name, cx);
    let template = path.value.to_owned();
    let name = name.value;
    Some(Route { name, methods, segments, template, class, authenticates_with, outcomes, account, object, issuance })
}

fn class_of(item: &Item, cx: &mut Context) -> Option<RouteClass> {
    let text = item.text(cx, "a class such as \"account_read\"")?;
    let class = RouteClass::from_label(text.value);
    if class.is_none() {
        let labels: Vec<&str> = RouteClass::ALL.iter().map(|class| class.label()).collect();
        cx.error(text.at, format!("unknown class {}", quoted(text.value)), suggest::advice(text.value, &labels));
    }
    class
}

fn methods(table: &mut Section, cx: &mut Context) -> Vec<Method> {
    let example = "`methods = [\"GET\"]`";
    if !table.has("methods") {
        table.need(cx, "methods", example);
        return Vec::new();
    }
    let before = cx.errors.len();
    let methods = each(table, "methods", cx, one_method);
    if methods.is_empty() && cx.errors.len() == before {
        cx.error(table.key_at("methods"), "`methods` is empty", format!("Write {example}"));
    }
    methods
}

fn one_method(item: &Item, cx: &mut Context) -> Option<Method> {
    let text = item.text(cx, "a method such as \"GET\"")?;
    let upper = text.value.to_ascii_uppercase();
    let known = METHODS.contains(&text.value);
    let near = suggest::nearest(&upper, METHODS).filter(|_| !known);
    let is_token = !upper.is_empty() && upper.len() <= 32 && upper.bytes().all(names::is_token_byte);
    if near.is_some() || upper != text.value || !is_token {
        let fix = match near {
            Some(near) => format!("Did you mean `{near}`"),
            None => "Write the method in capitals, as on the wire, such as \"GET\"".to_owned(),
        };
        cx.error(text.at, format!("{} is not a method", quoted(text.value)), fix);
        return None;
    }
    Some(Method::new(text.value))
}

/// Where the account stands, if the route says so.
fn accounts(
    table: &mut Section,
    segments: Option<&[Segment]>,
    credentials: &Credentials,
    cx: &mut Context,
) -> Option<Vec<AccountSource>> {
    let before = cx.errors.len();
    let sources = each(table, "account", cx, |item, cx| account(item, segments, credentials, cx));
    if !table.has("account") {
        return None;
    }
    // Without a template nothing can be said of `path:NAME`, and the template has its own diagnostic.
    if sources.is_empty() && segments.is_some() && cx.errors.len() == before {
        cx.error(
            table.key_at("account"),
            "`account` is empty",
            "Remove it for the default, or say where the account stands",
        );
    }
    Some(sources)
}

fn account(
    item: &Item,
    segments: Option<&[Segment]>,
    credentials: &Credentials,
    cx: &mut Context,
) -> Option<AccountSource> {
    let example = "\"path:NAME\", \"query:NAME\", \"claim:NAME\", \"issuance\" or \"fingerprint\"";
    let text = item.text(cx, example)?;
    match text.value.split_once(':') {
        None if text.value == "issuance" => return Some(AccountSource::Issuance),
        None if text.value == "fingerprint" => return Some(AccountSource::Fingerprint),
        Some(("path", name)) => return path_parameter(At { value: name, at: text.at }, segments?, cx),
        Some(("query", name)) => {
            let name = names::query(At { value: name, at: text.at }, cx)?;
            if credentials.query.contains(&name) {
                let message = format!("the query parameter {} carries a credential, which is not kept", quoted(&name));
                cx.error(text.at, message, "Name the parameter that carries the account, or write \"fingerprint\"");
                return None;
            }
            return Some(AccountSource::Query(name));
        }
        Some(("claim", name)) if !name.is_empty() => return Some(AccountSource::Claim(name.to_owned())),
        _ => {}
    }
    cx.error(
        text.at,
        format!("{} does not say where an account stands", quoted(text.value)),
        format!("Write {example}"),
    );
    None
}

/// What the target names beside the account, if the route says so.
fn object(
    table: &mut Section,
    segments: Option<&[Segment]>,
    credentials: &Credentials,
    cx: &mut Context,
) -> Option<AccountSource> {
    let item = table.get(cx, "object")?;
    let source = account(&item, segments, credentials, cx)?;
    if !matches!(source, AccountSource::Path(_) | AccountSource::Query(_)) {
        let message = format!("{} does not name an object of the target", item.name());
        cx.error(item.at, message, "Write \"path:NAME\" or \"query:NAME\"");
        return None;
    }
    Some(source)
}

/// Of an account read: the last path parameter that is not the account.
fn default_object(class: RouteClass, segments: &[Segment], account: &[AccountSource]) -> Option<AccountSource> {
    let is_account = |index| account.contains(&AccountSource::Path(index));
    let named = |index: &usize| segments.get(*index).and_then(parameter).is_some() && !is_account(*index);
    let last = (0..segments.len()).rev().find(named).filter(|_| class == RouteClass::AccountRead);
    last.map(AccountSource::Path)
}

fn path_parameter(name: At<&str>, segments: &[Segment], cx: &mut Context) -> Option<AccountSource> {
    let parameters: Vec<&str> = segments.iter().filter_map(parameter).collect();
    let index = segments.iter().position(|segment| parameter(segment) == Some(name.value));
    if index.is_none() {
        let message = format!("the path template has no parameter {}", quoted(name.value));
        let fix = if parameters.is_empty() {
            format!("Write `{{{}}}` in `path` where it stands", name.value.escape_default())
        } else {
            suggest::advice(name.value, &parameters)
        };
        cx.error(name.at, message, fix);
    }
    index.map(AccountSource::Path)
}

fn parameter(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Parameter(name) => Some(name),
        Segment::Literal(_) => None,
    }
}

/// For an account read: the path parameter where there is exactly one, else `sub`, else what the issuance said, else
/// the fingerprint. Other classes name no account unless they say so.
fn default_account(class: RouteClass, segments: &[Segment]) -> Vec<AccountSource> {
    if class != RouteClass::AccountRead {
        return Vec::new();
    }
    let mut parameters = segments.iter().enumerate().filter(|(_, segment)| parameter(segment).is_some());
    let only = parameters.next().filter(|_| parameters.next().is_none());
    let mut sources: Vec<AccountSource> = only.map(|(index, _)| AccountSource::Path(index)).into_iter().collect();
    sources.extend([AccountSource::Claim("sub".to_owned()), AccountSource::Issuance, AccountSource::Fingerprint]);
    sources
}

fn default_name(methods: &[Method], template: &str) -> String {
    let methods: Vec<&str> = methods.iter().map(|method| method.text.as_str()).collect();
    format!("{} {template}", methods.join("|"))
}

impl Taken {
    fn claim_name(&mut self, name: &At<String>, cx: &mut Context) {
        if let Some(first) = self.names.insert(name.value.clone(), name.at) {
            let message = format!("two routes of this service are named {}", quoted(&name.value));
            cx.error(name.at, message, format!("Write another `name`; line {} has this one", cx.line(first)));
        }
    }

    /// The kernel tells the common methods apart; all others share one entry.
    fn claim_path(&mut self, methods: &[Method], path: At<&str>, segments: &[Segment], cx: &mut Context) {
        for wanted in methods {
            let word = if wanted.id == method::OTHER { "any other method" } else { &wanted.text };
            let key = (word.to_owned(), template::shape(segments));
            if let Some(first) = self.paths.insert(key, path.at).filter(|first| *first != path.at) {
                let message = format!("{} {} is already a route of this service", wanted.text, quoted(path.value));
                cx.error(
                    path.at,
                    message,
                    format!("Remove one of the two; the other stands in line {}", cx.line(first)),
                );
            }
        }
    }
}
