//! Issuers: who hands credentials out, and how much of that passes the sensor.

use std::time::Duration;

use super::issuance::each;
use super::model::{Confirmation, Credentials, Issuer, Observed, Place};
use super::names;
use super::outcome::text;
use super::reader::{At, Context, Item, Section};
use super::register;
use super::scalar;
use crate::diagnostic::quoted;
use crate::suggest;

const DAY: Duration = Duration::from_hours(24);
/// Below this share, "never seen issued" is mostly our own blindness.
pub const GOOD_SIGHT: f64 = 0.99;

/// The issuers of a service that were read so far: name, offset, and the issuer.
pub(super) type Known = Vec<(At<String>, Issuer)>;

/// One issuer; `None` when it lacks what everything else hangs on.
pub(super) fn issuer(
    mut table: Section,
    credentials: &Credentials,
    known: &Known,
    approved: &mut dyn FnMut(&str) -> Option<Confirmation>,
    cx: &mut Context,
) -> Option<(At<String>, Issuer)> {
    let name = table.need(cx, "name", "`name = \"...\"`").and_then(|item| names::label(&item, cx));
    let jwt = table.need(cx, "kind", "`kind = \"jwt\"` or `kind = \"opaque\"`").and_then(|item| kind(&item, cx));
    let iss = text(&mut table, "iss", "the `iss` claim of its tokens", cx);
    let kids = each(&mut table, "kids", cx, register::kid);
    let combinations = register::combinations(&mut table, iss.as_deref(), &kids, cx);
    let expires = table.get(cx, "expires").and_then(|item| item.boolean(cx)).unwrap_or(false);
    let expiry_grace = scalar::duration_or(&mut table, cx, "expiry_grace", Duration::ZERO, Duration::ZERO..=3650 * DAY);
    let subject = register::subject(&mut table, cx);
    let places = each(&mut table, "places", cx, |item, cx| names::place(item, credentials, cx));
    let approved = name.as_ref().and_then(|name| approved(&name.value));
    let (observed, confirmed) = sight(&mut table, approved, cx);
    let max_lifetime = table
        .need(cx, "max_lifetime", "how long its longest-lived credential is valid, such as `max_lifetime = \"12h\"`")
        .and_then(|item| scalar::duration(&item, cx, Duration::from_secs(1)..=3650 * DAY));
    let preexisting = table.get(cx, "preexisting").and_then(|item| item.integer(cx, register::POPULATION));
    let renews = each(&mut table, "renews", cx, |item, cx| renewed(item, credentials, &places, cx));
    let grace = Duration::ZERO..=DAY;
    let renew_grace = scalar::duration_or(&mut table, cx, "renew_grace", Duration::from_mins(1), grace);
    if table.has("renew_grace") && !table.has("renews") {
        cx.warn(
            table.key_at("renew_grace"),
            "`renew_grace` has no effect without `renews`",
            "Remove it, or name the cookies",
        );
    }
    if jwt == Some(false) {
        for key in ["iss", "kids", "combinations", "expires", "expiry_grace", "subject"] {
            if table.has(key) {
                let message = format!("`{key}` is part of a JWT, and this issuer is `opaque`");
                cx.error(table.key_at(key), message, "Remove it, or write `kind = \"jwt\"`");
            }
        }
    }
    let at = table.at;
    table.finish(cx);
    let (name, jwt) = (name?, jwt?);
    let label = name.value.clone();
    let max_lifetime = max_lifetime.unwrap_or(DAY);
    let issuer = Issuer {
        name: label,
        iss,
        kids,
        combinations,
        expires,
        expiry_grace,
        subject,
        places,
        jwt,
        observed,
        confirmed,
        max_lifetime,
        preexisting,
        renews,
        renew_grace,
    };
    refuse_overlap(&name, at, &issuer, known, cx);
    Some((name, issuer))
}

fn kind(item: &Item, cx: &mut Context) -> Option<bool> {
    let text = item.text(cx, "\"jwt\" or \"opaque\"")?;
    match text.value {
        "jwt" => Some(true),
        "opaque" => Some(false),
        other => {
            cx.error(text.at, format!("unknown kind {}", quoted(other)), suggest::advice(other, &["jwt", "opaque"]));
            None
        }
    }
}

fn sight(table: &mut Section, approved: Option<Confirmation>, cx: &mut Context) -> (Observed, Option<Confirmation>) {
    let observed = table.get(cx, "observed");
    let observed_at = observed.as_ref().map_or(table.at, |item| item.at);
    let observed = observed.and_then(|item| observed_word(&item, cx)).unwrap_or(Observed::Part);
    let stated = confirmation(table, cx);
    if observed == Observed::All && !table.has("confirmed") && approved.is_none() {
        let message = "`observed = \"all\"` has no effect without `confirmed`: its credentials stay `unverifiable`";
        let fix =
            "Once the measured sight is good (`authsensor issuer list`), approve it (`authsensor issuer approve`)";
        cx.warn(observed_at, message, fix);
    }
    if observed != Observed::All && table.has("confirmed") {
        let message = "`confirmed` has no effect unless `observed` is \"all\"";
        cx.warn(table.key_at("confirmed"), message, "Write `observed = \"all\"`, or remove `confirmed`");
    } else if observed != Observed::All && approved.is_some() {
        let message = "the approval of this issuer has no effect unless `observed` is \"all\"";
        cx.warn(observed_at, message, "Write `observed = \"all\"`, or remove the approval");
    } else if table.has("confirmed") && approved.is_some() {
        let message = "this issuer is approved too, and `confirmed` counts more";
        cx.warn(table.key_at("confirmed"), message, "Remove one of the two");
    }
    (observed, stated.or(approved))
}

fn observed_word(item: &Item, cx: &mut Context) -> Option<Observed> {
    let text = item.text(cx, "\"all\", \"part\" or \"none\"")?;
    match text.value {
        "all" => Some(Observed::All),
        "part" => Some(Observed::Part),
        "none" => Some(Observed::None),
        other => {
            let message = format!("unknown value {} of `observed`", quoted(other));
            cx.error(text.at, message, suggest::advice(other, &["all", "part", "none"]));
            None
        }
    }
}

fn confirmation(issuer: &mut Section, cx: &mut Context) -> Option<Confirmation> {
    let given = issuer.has("confirmed");
    let example = "a table such as { sight = 0.998, by = \"name\", on = 2026-01-31 }";
    let mut table = issuer.table(cx, "confirmed", example);
    if !given {
        // Only so that the keys are known.
        for key in ["sight", "by", "on", "preexisting"] {
            table.get(cx, key);
        }
        return None;
    }
    let confirmed = confirmed(&mut table, cx);
    table.finish(cx);
    confirmed
}

/// The figures of a confirmation.
pub(super) fn confirmed(table: &mut Section, cx: &mut Context) -> Option<Confirmation> {
    let sight =
        table.need(cx, "sight", "the measured share, such as `sight = 0.998`").and_then(|item| share(&item, cx));
    let by = table.need(cx, "by", "who confirms it, such as `by = \"name\"`").and_then(|item| names::label(&item, cx));
    let on = table.need(cx, "on", "when it was confirmed, such as `on = 2026-01-31`");
    let on = on.and_then(|item| scalar::date(&item, cx)).and_then(|when| when.date);
    let preexisting = table.get(cx, "preexisting").and_then(|item| item.integer(cx, register::POPULATION));
    Some(Confirmation { sight: sight?, by: by?.value, on: on?.to_string(), preexisting, approved: false })
}

fn share(item: &Item, cx: &mut Context) -> Option<f64> {
    let share = item.as_number().filter(|share| (0.0..=1.0).contains(share));
    match share {
        None => {
            cx.error(item.at, format!("{} is not a share", item.name()), "Write a number from 0 to 1, such as 0.998");
        }
        Some(share) if share < GOOD_SIGHT => {
            let message =
                format!("with a sight of {share}, many credentials would be called `unissued` that a login did issue");
            cx.warn(item.at, message, format!("Confirm an issuer when its sight has reached {GOOD_SIGHT}"));
        }
        Some(_) => {}
    }
    share
}

fn renewed(item: &Item, credentials: &Credentials, places: &[Place], cx: &mut Context) -> Option<u8> {
    let index = names::declared_cookie(item, credentials, cx)?;
    if !places.is_empty() && !places.contains(&Place::Cookie(index)) {
        let message = format!("{} names a cookie that is not among this issuer's `places`", item.name());
        cx.error(item.at, message, "Add \"cookie:NAME\" to `places`, or renew it by the issuer that it belongs to");
        return None;
    }
    Some(index)
}

/// Two issuers that claim the same credentials would make its verdict depend on their order.
fn refuse_overlap(name: &At<String>, at: usize, issuer: &Issuer, known: &Known, cx: &mut Context) {
    for (other_name, other) in known {
        let line = cx.line(other_name.at);
        if other.name == issuer.name {
            let message = format!("two issuers of this service are named {}", quoted(&issuer.name));
            cx.error(name.at, message, format!("Write another `name`; line {line} has this one"));
        }
        let kids_meet = meet(&issuer.kids, &other.kids, |a, b| a.kid == b.kid);
        let places_meet = meet(&issuer.places, &other.places, |a, b| a == b);
        if issuer.jwt == other.jwt && issuer.iss == other.iss && kids_meet && places_meet {
            let message =
                format!("the issuers {} and {} claim the same credentials", quoted(&other.name), quoted(&issuer.name));
            cx.error(at, message, "Tell them apart by `iss`, `kids` or `places`");
        }
    }
}

/// True when both lists are empty or share an element; a list beside none is the more specific one and goes first.
fn meet<T>(left: &[T], right: &[T], same: impl Fn(&T, &T) -> bool) -> bool {
    (left.is_empty() && right.is_empty()) || left.iter().any(|a| right.iter().any(|b| same(a, b)))
}
