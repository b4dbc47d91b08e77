use serde_json::Value;

use super::*;
use crate::finding::confidence::Confidence;
use crate::finding::model::{AlertReason, Scope, Standing};
use crate::observation::{AccountHash, Fingerprint};

pub(crate) fn finding() -> Finding {
    let instant = |ms: u64| Instant { monotonic_ns: ms * 1_000_000, unix_ns: (1_763_000_000_000 + ms) * 1_000_000 };
    Finding {
        uid: "0123456789abcdef0123456789abcdef".to_owned(),
        activity: Activity::Open,
        rule_id: "a2b3f6c1-6a53-4f2c-9d6e-0f4f6a7b8c9d".to_owned(),
        title: "Bulk account reads".to_owned(),
        rule_version: "2026-11-20".to_owned(),
        description: "Why it matters.".to_owned(),
        tags: ["attack.t1606", "attack.t1550.001", "owasp.api2", "ismsp.2.11.3"].map(str::to_owned).to_vec(),
        level: Level::High,
        exception: None,
        at: instant(65_500),
        first: instant(0),
        last: instant(65_500),
        group: [("service", "shop"), ("issuer", "members"), ("kid", "k1")]
            .map(|(field, value)| (field.to_owned(), value.to_owned()))
            .to_vec(),
        counted_field: "account".to_owned(),
        distinct: 10,
        accounts: 10,
        exact: true,
        observations: 12,
        clients: 3,
        client_sample: vec!["192.0.2.1".parse().unwrap(), "2001:db8::2".parse().unwrap(), "192.0.2.3".parse().unwrap()],
        account_sample: vec![AccountHash([0xab; 16]), AccountHash([0xcd; 16])],
        window_s: 86_400,
        threshold: 10,
        scope: Scope {
            routes: vec!["addresses".to_owned()],
            credentials: vec![Fingerprint([0xee; 16])],
            ..Scope::default()
        },
        standing: Standing { parent: None, alert: Some(AlertReason::Opened) },
        confidence: Confidence { score: 95, reasons: Vec::new() },
    }
}

fn json(finding: &Finding) -> Value {
    let mut line = Vec::new();
    write_line(finding, &mut line).unwrap();
    assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1), "one line");
    serde_json::from_slice(&line).unwrap()
}

/// Path, and whether the value there has the type that the schema states.
type Shape = (&'static str, fn(&Value) -> bool);

#[test]
fn every_required_and_promised_field_has_its_type() {
    let shapes: &[Shape] = &[
        ("/activity_id", Value::is_u64),
        ("/category_uid", Value::is_u64),
        ("/class_uid", Value::is_u64),
        ("/type_uid", Value::is_u64),
        ("/severity_id", Value::is_u64),
        ("/time", Value::is_u64),
        ("/metadata/version", Value::is_string),
        ("/metadata/product/name", Value::is_string),
        ("/metadata/labels", Value::is_array),
        ("/metadata/event_code", Value::is_string),
        ("/finding_info/uid", Value::is_string),
        ("/finding_info/title", Value::is_string),
        ("/finding_info/analytic/type_id", Value::is_u64),
        ("/finding_info/analytic/uid", Value::is_string),
        ("/finding_info/attacks/0/technique/uid", Value::is_string),
        ("/evidences/0/src_endpoint/ip", Value::is_string),
        ("/evidences/0/data", Value::is_object),
        ("/observables/0/type_id", Value::is_u64),
        ("/observables/0/name", Value::is_string),
        ("/resources/0/uid", Value::is_string),
        ("/confidence_id", Value::is_u64),
        ("/status_id", Value::is_u64),
        ("/message", Value::is_string),
        ("/count", Value::is_u64),
        ("/start_time", Value::is_u64),
        ("/end_time", Value::is_u64),
        ("/is_alert", Value::is_boolean),
    ];
    for activity in [Activity::Open, Activity::Update, Activity::Close] {
        let event = json(&Finding { activity, ..finding() });
        for (path, is_typed) in shapes {
            let value = event.pointer(path).unwrap_or_else(|| panic!("{path} is missing"));
            assert!(is_typed(value), "{path}: {value}");
        }
        let number = |path: &str| event.pointer(path).and_then(Value::as_u64).unwrap();
        assert_eq!(number("/type_uid"), number("/class_uid") * 100 + number("/activity_id"));
        for evidence in event["evidences"].as_array().unwrap() {
            assert!(
                evidence.get("src_endpoint").or(evidence.get("data")).is_some(),
                "one of the named objects is required"
            );
        }
    }
}

#[test]
fn ids_follow_activity_level_and_confidence() {
    let ids = |activity, level, score| {
        let confidence = Confidence { score, reasons: Vec::new() };
        let event = json(&Finding { activity, level, confidence, ..finding() });
        ["type_uid", "status_id", "severity_id", "confidence_id"].map(|key| event[key].as_u64().unwrap())
    };
    assert_eq!(ids(Activity::Open, Level::Critical, 80), [200_401, 1, 5, 3]);
    assert_eq!(ids(Activity::Update, Level::Medium, 79), [200_402, 1, 3, 2]);
    assert_eq!(ids(Activity::Close, Level::Informational, 49), [200_403, 4, 1, 1]);
}

#[test]
fn observables_point_at_what_they_name() {
    let event = json(&finding());
    for observable in event["observables"].as_array().unwrap() {
        let pointer = format!("/{}", observable["name"].as_str().unwrap().replace(['.', '['], "/").replace(']', ""));
        assert_eq!(event.pointer(&pointer), Some(&observable["value"]), "{pointer}");
    }
}

#[test]
fn the_line_is_the_golden_one() {
    let mut line = Vec::new();
    write_line(&finding(), &mut line).unwrap();
    let golden = include_str!("../../tests/data/finding.ocsf.ndjson").replace("@VERSION@", env!("CARGO_PKG_VERSION"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let (vendor, version) = ("\"vendor_name\":\"authsensor\",\"version\":\"", env!("CARGO_PKG_VERSION"));
        let fresh =
            String::from_utf8_lossy(&line).replace(&format!("{vendor}{version}"), &format!("{vendor}@VERSION@"));
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/finding.ocsf.ndjson"), fresh).unwrap();
        return;
    }
    assert_eq!(String::from_utf8_lossy(&line), golden, "the format changed: check it, then replace the file");
}

#[test]
fn the_message_is_plain_and_cannot_mislead() {
    let text = message(&finding());
    assert!(
        text.starts_with(
            "Bulk account reads: 10 accounts from 3 addresses in 12 requests within 1 minute 5 seconds (service shop, "
        ),
        "{text}"
    );
    let hostile = Finding { group: vec![("kid".to_owned(), "k\u{202e}1\u{1b}[31m".to_owned())], ..finding() };
    assert!(message(&hostile).contains("(kid k\\u{202e}1\\u{1b}[31m)"), "{}", message(&hostile));
    assert!(text.ends_with("; the rule speaks from 10 in 1 day."), "{text}");
    let many = Finding { exact: false, group: vec![("kid".to_owned(), "x".repeat(5_000))], ..finding() };
    assert!(message(&many).contains("about 10 accounts") && message(&many).len() < 300);
    let events =
        Finding { counted_field: "observation".to_owned(), distinct: 1, clients: 1, group: Vec::new(), ..finding() };
    assert!(
        message(&events).starts_with("Bulk account reads: 1 request from 1 address within "),
        "{}",
        message(&events)
    );
}

#[test]
fn a_finding_without_clients_still_has_evidence() {
    let event = json(&Finding { client_sample: Vec::new(), account_sample: Vec::new(), ..finding() });
    assert!(event.pointer("/evidences/0/data").is_some());
    assert!(event.pointer("/evidences/0/src_endpoint").is_none());
}
