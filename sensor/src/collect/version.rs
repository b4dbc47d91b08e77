//! Another version of a request: a retransmission that said something else.
//!
//! Which of the two the server read cannot be known, so both are judged. The worse one becomes the request that the
//! observation tells of (the more sensitive route class, then the worse provenance); the credentials of both stand in
//! it. Version records flow in behind the request that they contradict. A reading may also have more requests than the first:
//! each of these becomes an observation of its own, without an answer.

use std::sync::Arc;

use sensor_ebpf::wire::{CREDENTIALS_MAX, Credential, FlowId, anomaly, capture, head_flag};

use super::decode::{Head, Record, decode};
use super::exchange::{key_of, route_of};
use super::pending::{Judged, Key, Pending, Wanted};
use super::routes::sensitivity_of;
use super::secret::SecretBuf;
use super::{Collector, Sink};
use crate::config::model::Config;
use crate::observation::{Outcome, Provenance, ServiceId};

/// Most credentials of all versions of one request. What is beyond may be missing, and the observation says so.
const MERGED_MAX: usize = 4 * CREDENTIALS_MAX;
/// `cut_at` of a credential that does not stand in the request line that is told: behind the end of any.
const ELSEWHERE: u16 = u16::MAX;

/// Most issuances of a service in an hour that may have been missed because a request was sent in two versions.
const ASIDES_MAX: u64 = 10;
const HOUR_NS: u64 = 3_600_000_000_000;

impl Collector {
    /// Judges a version and merges it with its request. A request that only the other reading has becomes an observation
    /// of its own; a version whose request is gone is counted.
    pub(super) fn version(&mut self, record: SecretBuf, out: &mut impl Sink) {
        self.counts.versions += 1;
        let Ok(Record::Version(head)) = decode(record.as_slice()) else { return };
        let key = key_of(&head.fixed.head);
        let whole = head.capture(capture::LINE).is_some();
        let Some(known) = self.first_reading(key) else {
            if whole {
                self.shaken.note(key.flow);
            }
            if whole && head.flag(head_flag::MORE) {
                self.request_of_its_own(record, out);
            } else {
                self.counts.versions_late += 1;
                self.queue.recycle(record);
            }
            return;
        };
        if !whole {
            // The slow path could not read it: all that is known is that there may be another version. What was seen to
            // be unissued stays so; what was not may have been something else.
            known.doubtful = true;
            known.anomalies |= head.fixed.anomalies;
            self.queue.recycle(record);
        } else if says_the_same(&known.request, &head) {
            self.counts.versions_same += 1;
            self.queue.recycle(record);
        } else {
            self.shaken.note(key.flow);
            self.merge_version(key, record);
        }
    }

    /// The request that a version contradicts: as it was read first, or else by an earlier version that had more.
    fn first_reading(&mut self, key: Key) -> Option<&mut Pending> {
        if self.table.get_mut(key).is_some() { self.table.get_mut(key) } else { self.more.get_mut(key) }
    }

    /// Judges a version that says something else than its request, and gives it the worse of both.
    fn merge_version(&mut self, key: Key, record: SecretBuf) {
        let config = Arc::clone(&self.config);
        let Ok(Record::Version(head)) = decode(record.as_slice()) else { return };
        let mut other = self.judge_request(&config, &head);
        let Some(pending) = self.first_reading(key) else { return };
        if rank(&other) > rank(pending) {
            trade(&mut other, record, pending);
        } else {
            other.request = record;
        }
        let lost = merge(pending, &other);
        let reroutes = pending.route != other.route;
        pending.anomalies |= anomaly::CONFLICT | other.anomalies;
        if lost {
            pending.doubtful = true;
            pending.anomalies |= anomaly::MORE_CREDENTIALS;
        }
        if reroutes {
            self.doubt_issuances(&config, &other);
        }
        self.recycle(other);
    }

    /// A request that the first reading does not have at all: the server may have read it, so it is judged like any. It
    /// waits as long as one, for versions of itself. No answer can be told to be its own, so it never issues anything;
    /// what it would have issued is a gap.
    fn request_of_its_own(&mut self, record: SecretBuf, out: &mut impl Sink) {
        let config = Arc::clone(&self.config);
        let Ok(Record::Version(head)) = decode(record.as_slice()) else { return };
        let now_ns = head.fixed.head.time_ns;
        let mut pending = self.judge_request(&config, &head);
        pending.request = record;
        pending.anomalies |= anomaly::CONFLICT;
        self.doubt_issuances(&config, &pending);
        self.counts.versions_more += 1;
        while self.more.is_full() {
            let Some((oldest, _)) = self.more.oldest() else { break };
            self.counts.evicted += 1;
            self.tell_more(oldest, out);
        }
        let deadline = self.deadline(now_ns);
        self.more.insert(pending, deadline);
    }

    /// Tells of the requests that only other readings had and that waited until `now_ns`.
    pub(super) fn expire_more(&mut self, now_ns: u64, out: &mut impl Sink) {
        while let Some((key, _)) = self.more.oldest().filter(|(_, deadline_ns)| *deadline_ns <= now_ns) {
            self.tell_more(key, out);
        }
    }

    /// Tells of those of a connection that closed.
    pub(super) fn close_more(&mut self, flow: FlowId, out: &mut impl Sink) {
        while let Some(key) = self.more.first_of(flow) {
            self.tell_more(key, out);
        }
    }

    fn tell_more(&mut self, key: Key, out: &mut impl Sink) {
        let Some(pending) = self.more.remove(key) else { return };
        let config = Arc::clone(&self.config);
        if let Ok(Record::Request(head) | Record::Version(head)) = decode(pending.request.as_slice()) {
            self.emit(&config, &pending, &head, None, Outcome::Unanswered, out);
        }
        self.recycle(pending);
    }

    /// A version that is not the one whose answer was seen might be the one that the server answered: what it would have
    /// issued is a gap.
    fn doubt_issuances(&mut self, config: &Config, aside: &Pending) {
        let route = route_of(config.services.get(usize::from(aside.service.0)), aside.route);
        let issues = route.and_then(|route| route.issuance.as_ref()).map_or(0, |rule| rule.issues.len() as u64);
        let issues = self.asides.take(aside.service, aside.time_ns, issues);
        if issues > 0 {
            let at = self.clock.instant(aside.time_ns);
            self.counts.issuances.lost += issues;
            self.ledger.gap(aside.service, at, at, issues);
        }
    }
}

/// Issuances that only other readings had, of late. A network makes next to none. Whoever sends two versions on purpose
/// could make as much doubt as he likes, and hide in it; so it has a bound ([`ASIDES_MAX`]).
#[derive(Debug, Default)]
pub(super) struct Asides {
    hour: u64,
    /// By service.
    taken: Vec<u64>,
}

impl Asides {
    /// How many of `issues` at monotonic time `now_ns` are taken for possible.
    fn take(&mut self, service: ServiceId, now_ns: u64, issues: u64) -> u64 {
        if now_ns / HOUR_NS > self.hour {
            (self.hour, self.taken) = (now_ns / HOUR_NS, Vec::new());
        }
        let service = usize::from(service.0);
        if issues > 0 && self.taken.len() <= service {
            self.taken.resize(service + 1, 0);
        }
        let Some(taken) = self.taken.get_mut(service) else { return 0 };
        let room = ASIDES_MAX.saturating_sub(*taken).min(issues);
        *taken += room;
        room
    }
}

/// True when two versions of a request differ in nothing that is judged or told.
fn says_the_same(first: &SecretBuf, other: &Head<'_>) -> bool {
    let Ok(Record::Request(first) | Record::Version(first)) = decode(first.as_slice()) else { return false };
    let what = |credential: &Credential| (credential.fingerprint, credential.tag());
    first.fixed.method == other.fixed.method
        && first.fixed.version == other.fixed.version
        && (0..capture::COUNT).all(|which| first.capture(which) == other.capture(which))
        && first.credentials().map(|one| what(&one)).eq(other.credentials().map(|one| what(&one)))
}

/// By what the worse of two versions is told.
fn rank(pending: &Pending) -> (u8, Provenance) {
    let class = if pending.route.is_some() { sensitivity_of(pending.class) } else { 0 };
    (class, pending.provenance(pending.worst()))
}

/// Makes `other` (whose record is `record`) what `pending` tells, and the reverse. Place in the table, time and what is
/// known of the response stay.
fn trade(other: &mut Pending, record: SecretBuf, pending: &mut Pending) {
    other.request = std::mem::replace(&mut pending.request, record);
    std::mem::swap(&mut other.route, &mut pending.route);
    std::mem::swap(&mut other.class, &mut pending.class);
    std::mem::swap(&mut other.credentials, &mut pending.credentials);
    std::mem::swap(&mut other.reading, &mut pending.reading);
    std::mem::swap(&mut other.client, &mut pending.client);
    if pending.response.is_none() {
        pending.wants_response_body = other.wants_response_body;
        if pending.request_body != Wanted::Read {
            pending.request_body = other.request_body;
        }
    }
}

/// Adds the credentials of `other` that `pending` does not have; true when some found no room.
fn merge(pending: &mut Pending, other: &Pending) -> bool {
    let mut lost = false;
    for judged in &other.credentials {
        let same = |one: &&mut Judged| {
            one.credential.fingerprint == judged.credential.fingerprint
                && one.credential.tag() == judged.credential.tag()
        };
        if let Some(known) = pending.credentials.iter_mut().find(same) {
            known.counts |= judged.counts;
        } else if pending.credentials.len() < MERGED_MAX {
            let mut judged = *judged;
            judged.credential.cut_at = ELSEWHERE;
            pending.credentials.push(judged);
        } else {
            lost = true;
        }
    }
    pending.doubtful |= other.doubtful;
    lost
}
