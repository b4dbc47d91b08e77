//! What `authsensor routes` shows: observed routes with their outcomes and statuses, so that an operator sees what to
//! declare. Paths are put together: a segment that looks like an identifier becomes `{id}`.

use std::sync::Arc;

use ahash::AHashMap;

use super::pending::fixed_state;
use super::target::{Path, Target};
use super::{Sink, Transaction};
use crate::config::model::Config;
use crate::observation::{Observation, Outcome, RouteClass, RouteId, ServiceId};

/// Statuses told apart per row; further ones count as `other_statuses`.
const STATUSES_MAX: usize = 16;
/// Longest segment that is shown; longer ones are identifiers.
const SEGMENT_MAX: usize = 24;
/// Most segments that are shown.
const SEGMENTS_MAX: usize = 12;

/// Distribution of one observed route.
#[derive(Clone, Debug)]
pub struct RouteRow {
    /// The service.
    pub service: ServiceId,
    /// Method as on the wire (invalid UTF-8 replaced, at most 24 bytes).
    pub method: String,
    /// Path with identifiers put together; the template of a declared route.
    pub path: String,
    /// The declared route, if one matched.
    pub route: Option<RouteId>,
    /// Its class.
    pub class: RouteClass,
    /// Observations, by outcome (index is the discriminant).
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Observations by status code (0: unanswered), in the order in which they were first seen.
    pub statuses: Vec<(u16, u64)>,
    /// Observations with a status beyond those told apart.
    pub other_statuses: u64,
}

impl RouteRow {
    /// All observations of the row.
    pub fn total(&self) -> u64 {
        self.outcomes.iter().sum()
    }
}

/// A bounded table of observed routes.
#[derive(Debug)]
pub struct RouteStats {
    config: Arc<Config>,
    rows: AHashMap<Vec<u8>, RouteRow>,
    max_rows: usize,
    overflow: u64,
    key: Vec<u8>,
    path: Path,
}

impl RouteStats {
    /// A table of at most `max_rows` rows.
    pub fn new(config: Arc<Config>, max_rows: usize) -> Self {
        Self {
            config,
            rows: AHashMap::with_hasher(fixed_state()),
            max_rows,
            overflow: 0,
            key: Vec::new(),
            path: Path::default(),
        }
    }

    /// Observations that found no room for a row of their own.
    pub fn overflow(&self) -> u64 {
        self.overflow
    }

    /// The rows by service, path and method.
    pub fn rows(&self) -> Vec<&RouteRow> {
        let mut rows: Vec<_> = self.rows.values().collect();
        rows.sort_by(|one, other| {
            (one.service, &one.path, &one.method).cmp(&(other.service, &other.path, &other.method))
        });
        rows
    }

    /// Counts one observation.
    pub fn count(&mut self, observation: &Observation, transaction: &Transaction<'_>) {
        self.make_key(observation, transaction);
        if !self.rows.contains_key(&self.key) {
            if self.rows.len() >= self.max_rows {
                self.overflow += 1;
                return;
            }
            let row = self.new_row(observation);
            self.rows.insert(self.key.clone(), row);
        }
        let Some(row) = self.rows.get_mut(&self.key) else { return };
        if let Some(count) = row.outcomes.get_mut(observation.outcome as usize) {
            *count += 1;
        }
        let status = observation.status.unwrap_or(0);
        if let Some((_, count)) = row.statuses.iter_mut().find(|(known, _)| *known == status) {
            *count += 1;
        } else if row.statuses.len() < STATUSES_MAX {
            row.statuses.push((status, 1));
        } else {
            row.other_statuses += 1;
        }
    }

    /// The key is service, route, method, SP, path.
    fn make_key(&mut self, observation: &Observation, transaction: &Transaction<'_>) {
        self.key.clear();
        self.key.extend_from_slice(&observation.service.0.to_be_bytes());
        self.key.extend_from_slice(&observation.route.map_or(u16::MAX, |route| route.0).to_be_bytes());
        let method = transaction.method.unwrap_or_default();
        self.key.extend_from_slice(method.get(..SEGMENT_MAX).unwrap_or(method));
        self.key.push(b' ');
        let services = &self.config.services;
        let declared = observation
            .route
            .and_then(|route| services.get(usize::from(observation.service.0))?.routes.get(usize::from(route.0)));
        if let Some(route) = declared {
            self.key.extend_from_slice(route.template.as_bytes());
            return;
        }
        self.path.set_normalised(Target::new(transaction.target.unwrap_or_default()).path);
        for segment in self.path.iter().take(SEGMENTS_MAX) {
            self.key.push(b'/');
            self.key.extend_from_slice(if is_identifier(segment) { b"{id}" } else { segment });
        }
        if self.path.is_empty() {
            self.key.push(b'/');
        }
        if self.path.len() > SEGMENTS_MAX {
            self.key.extend_from_slice(b"/...");
        }
    }

    fn new_row(&self, observation: &Observation) -> RouteRow {
        let text = String::from_utf8_lossy(self.key.get(4..).unwrap_or_default());
        let (method, path) = text.split_once(' ').unwrap_or((&text, "/"));
        RouteRow {
            service: observation.service,
            method: method.to_owned(),
            path: path.to_owned(),
            route: observation.route,
            class: observation.class,
            outcomes: [0; Outcome::ALL.len()],
            statuses: Vec::new(),
            other_statuses: 0,
        }
    }
}

impl Sink for RouteStats {
    fn observation(&mut self, observation: &Observation, transaction: &Transaction<'_>) {
        self.count(observation, transaction);
    }
}

/// True for what varies from account to account: anything with a digit that is not like `v1`, long segments, and bytes
/// that do not belong into a route's name.
fn is_identifier(segment: &[u8]) -> bool {
    let digits = segment.iter().filter(|byte| byte.is_ascii_digit()).count();
    let version = matches!(segment, [b'v' | b'V', rest @ ..] if rest.len() <= 2 && rest.len() == digits && digits > 0);
    let plain = segment.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~'));
    segment.len() > SEGMENT_MAX
        || !plain
        || (digits > 0 && !version && (digits * 2 >= segment.len() || segment.len() >= 12))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for id in [
            "1",
            "0042",
            "3f2c8a9e-11d2-4c1e-9b1a-0123456789ab",
            "user@example.org",
            "u12345",
            "deadbeefdeadbeefdeadbeefdead",
        ] {
            assert!(is_identifier(id.as_bytes()), "{id}");
        }
        for name in ["users", "v1", "v12", "oauth2", "addresses", "edit-my-info", "base64"] {
            assert!(!is_identifier(name.as_bytes()), "{name}");
        }
    }
}
