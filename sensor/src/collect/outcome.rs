//! What a response meant: the route's predicates, and for issuing routes whether it succeeded.

use sensor_ebpf::wire::{NO_LENGTH, capture, framing, head_flag, method, place};

use super::decode::Head;
use super::json::{self, Value};
use crate::config::model::{OutcomeRule, Success};
use crate::observation::{Instant, Outcome};

/// Length of a response body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// Bytes.
    Known(u64),
    /// An END or `TEE_END` record will say.
    Awaited,
    /// Nobody will say.
    Unknown,
}

/// The length as far as the head tells.
pub(super) fn length(head: &Head<'_>) -> Length {
    let fixed = &head.fixed;
    if fixed.framing == framing::NONE || fixed.method == method::HEAD {
        Length::Known(0)
    } else if fixed.content_length != NO_LENGTH && fixed.framing == framing::LENGTH {
        Length::Known(fixed.content_length)
    } else if head.flag(head_flag::END_FOLLOWS) || head.flag(head_flag::TEE) {
        Length::Awaited
    } else {
        Length::Unknown
    }
}

/// The outcome by the first rule that fits; `None` when that depends on a length which is awaited.
pub(super) fn judge(rules: &[OutcomeRule], head: &Head<'_>, length: Length) -> Option<Outcome> {
    for rule in rules {
        if !fits_head(rule, head) {
            continue;
        }
        match (rule.min_length, length) {
            (None, _) => return Some(rule.outcome),
            (Some(least), Length::Known(bytes)) if bytes >= least => return Some(rule.outcome),
            (Some(_), Length::Awaited) => return None,
            (Some(_), Length::Known(_) | Length::Unknown) => {}
        }
    }
    Some(Outcome::Other)
}

/// The outcome where no route, and so no predicate, is declared.
pub(super) fn judge_bare(status: u16) -> Outcome {
    match status {
        200..=299 => Outcome::Read,
        401 | 403 => Outcome::Denied,
        404 | 410 => Outcome::Miss,
        _ => Outcome::Other,
    }
}

fn fits_head(rule: &OutcomeRule, head: &Head<'_>) -> bool {
    let status = head.fixed.status;
    (rule.status.is_empty() || rule.status.iter().any(|range| range.contains(&status)))
        && rule.content_type.as_ref().is_none_or(|prefix| {
            let value = head.capture(capture::CONTENT_TYPE).unwrap_or_default();
            value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
        })
        && rule.location.as_ref().is_none_or(|prefix| {
            head.capture(capture::LOCATION).is_some_and(|value| value.starts_with(prefix.as_bytes()))
        })
}

/// True when a response seen at `at` meets every part of `success` that its head decides.
pub(super) fn head_succeeds(success: &Success, head: &Head<'_>, at: Instant) -> bool {
    let status = head.fixed.status;
    let location = head.capture(capture::LOCATION);
    let status_fits = if success.status.is_empty() {
        matches!(status, 200..=299 | 302 | 303)
    } else {
        success.status.iter().any(|range| range.contains(&status))
    };
    let starts = |prefix: &String| location.is_some_and(|value| value.starts_with(prefix.as_bytes()));
    status_fits
        && success.location.as_ref().is_none_or(starts)
        && !success.location_not.as_ref().is_some_and(starts)
        && success
            .sets_cookie
            .is_none_or(|index| head.handed_out(at).any(|one| one.place == place::SET_COOKIE && one.index == index))
}

/// True when the value at `pointer` of the JSON text `body` is `want`. Objects and arrays are never equal.
pub(super) fn json_is(body: &[u8], pointer: &str, want: &serde_json::Value) -> bool {
    match (json::lookup(body, pointer), want) {
        (Some(Value::String(raw)), serde_json::Value::String(text)) => json::same_text(raw, text),
        (Some(Value::Scalar(raw)), serde_json::Value::Bool(flag)) => raw == if *flag { &b"true"[..] } else { b"false" },
        (Some(Value::Scalar(raw)), serde_json::Value::Null) => raw == b"null",
        (Some(Value::Scalar(raw)), serde_json::Value::Number(number)) => {
            let got = std::str::from_utf8(raw).ok().and_then(|text| text.parse::<f64>().ok());
            got.is_some() && got == number.as_f64()
        }
        _ => false,
    }
}
