//! A [`Finding`] as an OCSF 1.8.0 Detection Finding (class 2004), one JSON object.
//!
//! Source of the field names and enum values: the OCSF schema, <https://schema.ocsf.io/1.8.0/classes/detection_finding>. Accounts
//! appear only as their keyed hashes; credentials not at all. Keys stand in a fixed order, so equal findings give equal
//! bytes.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::ser::SerializeMap as _;
use serde::{Serialize, Serializer};

use super::action;
use super::attack::technique;
use super::model::{Activity, AlertReason, Finding, Level};
use crate::observation::{Fingerprint, Instant};

/// Schema version that is written.
pub const VERSION: &str = "1.8.0";
const CLASS_UID: u32 = 2004;
/// Most characters of a group value that the message repeats: a `kid` is chosen by whoever made the token.
const SHOWN_MAX: usize = 64;

/// A Detection Finding event.
#[derive(Debug, Serialize)]
pub struct DetectionFinding<'f> {
    time: u64,
    class_uid: u32,
    class_name: &'static str,
    category_uid: u8,
    category_name: &'static str,
    activity_id: u8,
    activity_name: &'static str,
    type_uid: u32,
    type_name: &'static str,
    severity_id: u8,
    severity: &'static str,
    confidence_id: u8,
    confidence: &'static str,
    confidence_score: u8,
    status_id: u8,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_detail: Option<&'static str>,
    is_alert: bool,
    message: String,
    count: u32,
    start_time: u64,
    end_time: u64,
    metadata: Metadata<'f>,
    finding_info: FindingInfo<'f>,
    remediation: Remediation,
    evidences: Vec<Evidence<'f>>,
    resources: Vec<Resource>,
    observables: Vec<Observable>,
}

#[derive(Debug, Serialize)]
struct Metadata<'f> {
    version: &'static str,
    product: Product,
    event_code: &'f str,
    labels: &'f [String],
}

#[derive(Debug, Serialize)]
struct Product {
    name: &'static str,
    vendor_name: &'static str,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct FindingInfo<'f> {
    uid: &'f str,
    title: &'f str,
    desc: &'f str,
    analytic: Analytic<'f>,
    attacks: Vec<Attack>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    related_events: Vec<Related<'f>>,
    first_seen_time: u64,
    last_seen_time: u64,
}

/// What to do first.
#[derive(Debug, Serialize)]
struct Remediation {
    desc: String,
}

/// The finding that opened first about the same thing.
#[derive(Debug, Serialize)]
struct Related<'f> {
    uid: &'f str,
    type_uid: u32,
    type_name: &'static str,
}

#[derive(Debug, Serialize)]
struct Analytic<'f> {
    type_id: u8,
    r#type: &'static str,
    uid: &'f str,
    name: &'f str,
    version: &'f str,
}

#[derive(Debug, Serialize)]
struct Attack {
    technique: Entity,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub_technique: Option<Entity>,
}

#[derive(Debug, Serialize)]
struct Entity {
    uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'static str>,
}

#[derive(Debug, Serialize)]
struct Evidence<'f> {
    #[serde(skip_serializing_if = "Option::is_none")]
    src_endpoint: Option<Endpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Counts<'f>>,
}

#[derive(Debug, Serialize)]
struct Endpoint {
    ip: IpAddr,
}

/// The figures behind the finding (`data` of the first evidence).
#[derive(Debug, Serialize)]
struct Counts<'f> {
    #[serde(serialize_with = "ordered")]
    group: &'f [(String, String)],
    counted_field: &'f str,
    distinct: u64,
    accounts: u64,
    clients: u64,
    exact: bool,
    observations: u64,
    threshold: u64,
    window_seconds: u64,
    kids: &'f [String],
    routes: &'f [String],
    #[serde(serialize_with = "texts")]
    credentials: &'f [Fingerprint],
    /// What speaks against it.
    doubts: &'f [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    alert: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exception: Option<&'f str>,
}

#[derive(Debug, Serialize)]
struct Resource {
    r#type: &'static str,
    uid: String,
}

#[derive(Debug, Serialize)]
struct Observable {
    name: String,
    r#type: &'static str,
    type_id: u8,
    value: String,
}

fn ordered<S: Serializer>(pairs: &&[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (field, value) in *pairs {
        map.serialize_entry(field, value)?;
    }
    map.end()
}

fn texts<S: Serializer>(fingerprints: &&[Fingerprint], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(fingerprints.iter().map(ToString::to_string))
}

/// The event for `finding`.
pub fn event(finding: &Finding) -> DetectionFinding<'_> {
    let (activity_id, activity_name, type_name) = match finding.activity {
        Activity::Open => (1, "Create", "Detection Finding: Create"),
        Activity::Update => (2, "Update", "Detection Finding: Update"),
        Activity::Close => (3, "Close", "Detection Finding: Close"),
    };
    let (severity_id, severity) = severity(finding.level);
    let (confidence_id, confidence) = finding.confidence.band();
    let closed = finding.activity == Activity::Close;
    let resources: Vec<Resource> =
        finding.account_sample.iter().map(|account| Resource { r#type: "account", uid: account.to_string() }).collect();
    DetectionFinding {
        time: milliseconds(finding.at),
        class_uid: CLASS_UID,
        class_name: "Detection Finding",
        category_uid: 2,
        category_name: "Findings",
        activity_id,
        activity_name,
        type_uid: CLASS_UID * 100 + u32::from(activity_id),
        type_name,
        severity_id,
        severity,
        confidence_id,
        confidence,
        confidence_score: finding.confidence.score,
        // "In Progress" would claim that someone reviews it, which the sensor cannot know.
        status_id: if closed { 4 } else { 1 },
        status: if closed { "Resolved" } else { "New" },
        status_detail: closed
            .then_some("Nothing more was seen for the rule's window; whether it was reviewed is not known here."),
        is_alert: finding.standing.alert.is_some(),
        message: message(finding),
        // `integer_t` is a signed 32-bit number; the exact figure stands in the evidence.
        count: u32::try_from(finding.observations.min(i32::MAX as u64)).unwrap_or(i32::MAX as u32),
        start_time: milliseconds(finding.first),
        end_time: milliseconds(finding.last),
        metadata: Metadata {
            version: VERSION,
            product: Product { name: "authsensor", vendor_name: "authsensor", version: env!("CARGO_PKG_VERSION") },
            event_code: &finding.rule_id,
            labels: &finding.tags,
        },
        finding_info: FindingInfo {
            uid: &finding.uid,
            title: &finding.title,
            desc: &finding.description,
            analytic: Analytic {
                type_id: 1,
                r#type: "Rule",
                uid: &finding.rule_id,
                name: &finding.title,
                version: &finding.rule_version,
            },
            attacks: attacks(&finding.tags),
            related_events: related(finding),
            first_seen_time: milliseconds(finding.first),
            last_seen_time: milliseconds(finding.last),
        },
        remediation: Remediation { desc: remediation(finding) },
        evidences: evidences(finding),
        observables: observables(finding, &resources),
        resources,
    }
}

fn milliseconds(at: Instant) -> u64 {
    at.unix_ns / 1_000_000
}

fn severity(level: Level) -> (u8, &'static str) {
    match level {
        Level::Informational => (1, "Informational"),
        Level::Low => (2, "Low"),
        Level::Medium => (3, "Medium"),
        Level::High => (4, "High"),
        Level::Critical => (5, "Critical"),
    }
}

/// The parent stands where OCSF has related events; the family's first report is its `Create`.
fn related(finding: &Finding) -> Vec<Related<'_>> {
    let parent = finding.standing.parent.as_deref();
    let parent =
        parent.map(|uid| Related { uid, type_uid: CLASS_UID * 100 + 1, type_name: "Detection Finding: Create" });
    parent.into_iter().collect()
}

fn remediation(finding: &Finding) -> String {
    let [first, second, third] = action::first(finding);
    format!("1. {first}. 2. {second}. 3. {third}.")
}

fn attacks(tags: &[String]) -> Vec<Attack> {
    let techniques = tags.iter().filter_map(|tag| technique(tag));
    techniques
        .map(|technique| Attack {
            technique: Entity { uid: technique.uid, name: technique.name },
            sub_technique: technique.sub.map(|(uid, name)| Entity { uid, name }),
        })
        .collect()
}

/// One evidence per sampled client; the first also carries the figures.
fn evidences(finding: &Finding) -> Vec<Evidence<'_>> {
    let counts = Counts {
        group: &finding.group,
        counted_field: &finding.counted_field,
        distinct: finding.distinct,
        accounts: finding.accounts,
        clients: finding.clients,
        exact: finding.exact,
        observations: finding.observations,
        threshold: finding.threshold,
        window_seconds: finding.window_s,
        kids: &finding.scope.kids,
        routes: &finding.scope.routes,
        credentials: &finding.scope.credentials,
        doubts: &finding.confidence.reasons,
        alert: finding.standing.alert.map(AlertReason::label),
        exception: finding.exception.as_deref(),
    };
    let mut clients = finding.client_sample.iter().map(|ip| Endpoint { ip: *ip });
    let mut evidences = vec![Evidence { src_endpoint: clients.next(), data: Some(counts) }];
    evidences.extend(clients.map(|client| Evidence { src_endpoint: Some(client), data: None }));
    evidences
}

fn observables(finding: &Finding, resources: &[Resource]) -> Vec<Observable> {
    let clients = finding.client_sample.iter().enumerate().map(|(index, client)| Observable {
        name: format!("evidences[{index}].src_endpoint.ip"),
        r#type: "IP Address",
        type_id: 2,
        value: client.to_string(),
    });
    let accounts = resources.iter().enumerate().map(|(index, resource)| Observable {
        name: format!("resources[{index}].uid"),
        r#type: "Resource UID",
        type_id: 10,
        value: resource.uid.clone(),
    });
    clients.chain(accounts).collect()
}

/// One plain sentence: what, how many, from how many addresses, where, and the bound it passed.
pub fn message(finding: &Finding) -> String {
    let about = if finding.exact { "" } else { "about " };
    let mut text = format!("{}: {about}{}", finding.title, things(finding.distinct, &finding.counted_field));
    if finding.counted_field != "client" {
        let _ = write!(text, " from {}", plural(finding.clients, "address", "addresses"));
    }
    if finding.counted_field != "observation" {
        let _ = write!(text, " in {}", plural(finding.observations, "request", "requests"));
    }
    let _ = write!(
        text,
        " within {}",
        span(finding.last.monotonic_ns.saturating_sub(finding.first.monotonic_ns) / 1_000_000_000)
    );
    for (index, (field, value)) in finding.group.iter().enumerate() {
        let _ = write!(text, "{}{field} {}", if index == 0 { " (" } else { ", " }, shown(value));
    }
    if !finding.group.is_empty() {
        text.push(')');
    }
    let who = match &finding.exception {
        Some(exception) => format!("the exception \"{}\" ends at", shown(exception)),
        None => "the rule speaks from".to_owned(),
    };
    let _ = write!(text, "; {who} {} in {}.", finding.threshold, span(finding.window_s));
    if finding.activity == Activity::Close {
        text.push_str(" Nothing more was seen since.");
    }
    text
}

fn things(count: u64, field: &str) -> String {
    match field {
        "observation" => plural(count, "request", "requests"),
        "estimate" => plural(count, "estimate", "estimates"),
        "account" => plural(count, "account", "accounts"),
        "client" => plural(count, "address", "addresses"),
        field => format!("{count} different values of {field}"),
    }
}

fn plural(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A duration in words, in its two largest units.
fn span(seconds: u64) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut rest = seconds;
    for (unit, length) in [("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1)] {
        let count = rest / length;
        rest %= length;
        if words.len() < 2 && count > 0 {
            words.push(plural(count, unit, &format!("{unit}s")));
        }
    }
    if words.is_empty() { "a second".to_owned() } else { words.join(" ") }
}

/// A group value as a sentence may repeat it: what could mislead a terminal or a reader is escaped, length is bounded.
pub(super) fn shown(value: &str) -> String {
    let mut out = String::new();
    for character in value.chars().take(SHOWN_MAX) {
        if character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    if value.chars().nth(SHOWN_MAX).is_some() {
        out.push('…');
    }
    out
}

/// Appends the event as one line of JSON, line feed included.
pub fn write_line(finding: &Finding, line: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *line, &event(finding))?;
    line.push(b'\n');
    Ok(())
}

#[cfg(test)]
#[path = "ocsf_tests.rs"]
pub(crate) mod tests;
