//! What a login, refresh or logout route does with credentials.

use serde_json::Value;

use super::model::{Credentials, IssuanceRule, Success};
use super::names;
use super::outcome;
use super::reader::{Context, Item, Section};
use super::scalar;
use crate::diagnostic::quoted;
use crate::observation::RouteClass;

/// The issuance part of a route; `None` for a class that issues and ends nothing.
pub(super) fn issuance(
    route: &mut Section,
    class: Option<RouteClass>,
    credentials: &mut Credentials,
    cx: &mut Context,
) -> Option<IssuanceRule> {
    use RouteClass::{Login, Logout, Refresh};
    let success = success(route, credentials, cx);
    let issues = each(route, "issues", cx, |item, cx| names::issue(item, credentials, cx));
    let binds = each(route, "binds", cx, |item, cx| names::place(item, credentials, cx));
    let presents = each(route, "presents", cx, |item, cx| names::present(item, credentials, cx));
    let tries = each(route, "tries", cx, names::tried);
    let account_pointer = route
        .get(cx, "account_pointer")
        .and_then(|item| item.text(cx, "a JSON pointer such as \"/member/id\""))
        .and_then(|text| names::pointer(text, cx));

    let class = class?;
    for (key, classes) in [
        ("success", [Login, Refresh, Logout].as_slice()),
        ("issues", &[Login, Refresh]),
        ("binds", &[Login]),
        ("presents", &[Refresh]),
        ("account_pointer", &[Login]),
        ("tries", &[Login]),
    ] {
        if route.has(key) && !classes.contains(&class) {
            let allowed = classes.iter().map(|class| class.label()).collect::<Vec<_>>().join(", ");
            let message = format!("`{key}` has no meaning on a route of class `{class}`");
            cx.error(
                route.key_at(key),
                message,
                format!("Remove it, or give the route the class it is for ({allowed})"),
            );
        }
    }
    if class == Login && !route.has("issues") && !route.has("binds") {
        let message = "this login route issues nothing, so no credential could ever count as issued by it";
        let fix = "Write `issues` (such as [\"set-cookie:SESSION\", \"json:/access_token\"]) or `binds`";
        cx.error(route.at, message, fix);
    }
    if class == Refresh && !route.has("issues") {
        let message = "this refresh route issues nothing";
        cx.error(route.at, message, "Write `issues`, such as [\"json:/access_token\"]");
    }
    matches!(class, Login | Refresh | Logout).then_some(IssuanceRule {
        success,
        issues,
        binds,
        presents,
        account_pointer,
        tries,
    })
}

/// Reads every element of an array, or a single value without brackets, and refuses repetitions.
pub(super) fn each<'t, T: PartialEq>(
    section: &mut Section<'t>,
    key: &'static str,
    cx: &mut Context,
    mut read: impl FnMut(&Item<'t>, &mut Context) -> Option<T>,
) -> Vec<T> {
    let items = section.get(cx, key).map(|item| item.one_or_list()).unwrap_or_default();
    let mut values = Vec::new();
    for item in &items {
        let Some(value) = read(item, cx) else { continue };
        if values.contains(&value) {
            cx.error(item.at, format!("{} names the same thing twice", item.name()), "Remove the repetition");
        } else {
            values.push(value);
        }
    }
    values
}

fn success(route: &mut Section, credentials: &Credentials, cx: &mut Context) -> Success {
    let mut table = route.table(cx, "success", "a table such as { status = [200, 302] }");
    let status = table.get(cx, "status").map(|item| scalar::statuses(&item, cx)).unwrap_or_default();
    let example = "the beginning of a Location, such as \"/login\"";
    let location = outcome::text(&mut table, "location", example, cx);
    let location_not = outcome::text(&mut table, "location_not", example, cx);
    if let (Some(wanted), Some(unwanted)) = (&location, &location_not)
        && wanted.starts_with(unwanted.as_str())
    {
        let message = format!("`location_not` {} excludes every `location` {}", quoted(unwanted), quoted(wanted));
        cx.error(table.key_at("location_not"), message, "Make the prefixes exclude less");
    }
    let sets_cookie = table.get(cx, "sets_cookie").and_then(|item| names::declared_cookie(&item, credentials, cx));
    let json = json(&mut table, cx);
    table.finish(cx);
    Success { status, location, location_not, sets_cookie, json }
}

fn json(success: &mut Section, cx: &mut Context) -> Option<(String, Value)> {
    let given = success.has("json");
    let mut table = success.table(cx, "json", "a table such as { pointer = \"/result\", value = \"ok\" }");
    if !given {
        // Only so that the keys are known.
        table.get(cx, "pointer");
        table.get(cx, "value");
        return None;
    }
    let pointer = table
        .need(cx, "pointer", "a JSON pointer such as `pointer = \"/result\"`")
        .and_then(|item| item.text(cx, "a JSON pointer such as \"/result\""))
        .and_then(|text| names::pointer(text, cx));
    let value = table.need(cx, "value", "the value to compare with, such as `value = \"ok\"`");
    let value = value.and_then(|item| {
        let value = json_value(&item);
        if value.is_none() {
            let message = format!("{} cannot be compared with a JSON value", item.name());
            cx.error(item.at, message, "Write a string, a number, `true` or `false`");
        }
        value
    });
    table.finish(cx);
    Some((pointer?, value?))
}

fn json_value(item: &Item) -> Option<Value> {
    if let Some(text) = item.as_text() {
        return Some(Value::from(text));
    }
    if let Some(integer) = item.as_integer() {
        return Some(Value::from(integer));
    }
    if let Some(boolean) = item.as_boolean() {
        return Some(Value::from(boolean));
    }
    item.as_number().and_then(serde_json::Number::from_f64).map(Value::Number)
}
