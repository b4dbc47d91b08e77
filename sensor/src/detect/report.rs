//! What a group says when its rule fires: the finding and its id.

use sensor_ebpf::siphash;

use super::Labels;
use super::field::{OVERFLOW, Source, hex};
use super::group::{Group, GroupKey};
use super::rule::{CompiledRule, Count};
use crate::finding::confidence::Confidence;
use crate::finding::model::{Activity, Finding, Standing};
use crate::observation::Instant;

/// A report of the finding that is open in `group`. It is dated by its last observation or, closing, by `over_ns`, the
/// moment from which nothing was left in the window; so it does not depend on how often time is told.
pub(super) fn finding(
    rule: &CompiledRule,
    group: &Group,
    activity: Activity,
    over_ns: Option<u64>,
    labels: &dyn Labels,
) -> Option<Finding> {
    let (account_sample, client_sample) = group.samples();
    let incident = group.incident.as_ref()?;
    let ((distinct, exact), (clients, clients_exact)) = (incident.count(), incident.clients.count());
    let (accounts, accounts_exact) = incident.accounts();
    let last = incident.last;
    let at = over_ns.map_or(last, |over| last.moved_to(over));
    Some(Finding {
        uid: incident.uid.clone(),
        activity,
        rule_id: rule.info.id.clone(),
        title: rule.info.title.clone(),
        rule_version: rule.version.clone(),
        description: rule.description.clone(),
        tags: rule.tags.clone(),
        level: rule.info.level,
        exception: rule.exception.as_ref().map(|exception| exception.named()),
        at,
        first: incident.first,
        last,
        group: group_texts(rule, group.key, labels),
        counted_field: match rule.count {
            Count::Distinct(field) => field.label(),
            Count::Events | Count::Steps | Count::Ordered if rule.source == Source::Estimate => "estimate",
            Count::Events | Count::Steps | Count::Ordered => "observation",
        }
        .to_owned(),
        distinct,
        accounts,
        exact: exact && clients_exact && accounts_exact,
        observations: if rule.source == Source::Estimate { incident.requests } else { incident.observations },
        clients,
        client_sample,
        account_sample,
        window_s: rule.timespan_ns / 1_000_000_000,
        threshold: rule.threshold,
        scope: group.touched.scope(labels),
        standing: Standing::default(),
        confidence: Confidence::default(),
    })
}

/// The group's fields and values; `overflow` for each when the table was full.
fn group_texts(rule: &CompiledRule, key: Option<GroupKey>, labels: &dyn Labels) -> Vec<(String, String)> {
    let texts = rule.group_by.iter().enumerate().map(|(index, field)| {
        let text = match key {
            None => OVERFLOW.to_owned(),
            Some(key) => field.text(key.get(index), labels),
        };
        (field.label().to_owned(), text)
    });
    texts.collect()
}

/// The finding's id: a hash of rule, exception, group and first observation, the same on every run over the same traffic.
pub(super) fn uid(rule: &CompiledRule, key: Option<GroupKey>, first: Instant, labels: &dyn Labels) -> String {
    let mut bytes = rule.info.id.as_bytes().to_vec();
    bytes.extend(rule.exception.iter().flat_map(|exception| exception.id.bytes()));
    for (index, (field, text)) in group_texts(rule, key, labels).iter().enumerate() {
        // Absent and called "none" are two groups.
        let present = key.is_some_and(|key| key.get(index).is_some());
        for part in [field.as_str(), text.as_str()] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes.push(u8::from(present));
    }
    bytes.extend_from_slice(&first.unix_ns.to_le_bytes());
    hex(&siphash::hash128(siphash::Key::default(), &bytes))
}
