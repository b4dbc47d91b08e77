//! From wire records to judged observations and transactions.
//!
//! Record bytes flow in from the rings (or from the parser that reads capture files), in any order; observations and
//! transactions flow out to a [`Sink`], and issuances to the ledger. Everything is applied in the order of its time
//! stamp once the watermark has passed it (DESIGN §4, "Order"): a request's credentials are judged at the request's
//! time, issuances are entered at the time of the response that completes them. So a use that overtakes its own login
//! response on the rings is still judged after it, and an issuance never helps a use that came before.

mod account;
mod bodies;
mod chunks;
mod client;
mod cookie_date;
mod counts;
pub mod decode;
pub mod decompress;
mod emit;
mod exchange;
mod issuance;
pub(crate) mod json;
mod outcome;
mod pending;
mod queue;
mod route_stats;
pub mod routes;
pub(crate) mod secret;
mod shaken;
pub mod target;
mod text;
pub mod transaction;
mod version;
mod whole;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;
#[cfg(test)]
mod tests_issuing;
#[cfg(test)]
mod tests_reading;
#[cfg(test)]
mod tests_versions;
#[cfg(test)]
mod tests_wire;

use std::collections::VecDeque;
use std::sync::Arc;

use sensor_ebpf::siphash;
use sensor_ebpf::wire::{Credential, place};

use crate::config::model::{Config, Place};
use crate::ledger::Ledger;
use crate::observation::{Instant, Observation};

use account::Canaries;
use bodies::Bodies;
use chunks::Chunks;
pub use counts::{CollectorCounts, DecodingCounts, IssuanceCounts};
use decode::{Record, decode};
use decompress::Decompressor;
pub use pending::Judged;
use pending::{Key, Table};
use queue::Queue;
use routes::{Readings, Router};
use secret::SecretBuf;
use shaken::Shaken;
pub(crate) use text::{canonical, jwt_shape};
pub use transaction::Transaction;
use version::Asides;
use whole::Waiting;
pub use whole::{Answer, Exchange, Shown};

/// Of as many requests as may wait, one such part more may that only other versions have.
const MORE_PART: usize = 8;
/// Spare credential lists kept for reuse.
const SPARE_LISTS: usize = 1024;

/// The two keys of keyed hashes.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// Key of credential fingerprints, the same as the parser's.
    pub fingerprint: siphash::Key,
    /// Key of account hashes, the same as the ledger's.
    pub account: siphash::Key,
}

/// Maps the monotonic time of records to wall-clock time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What to add to a record's time to get nanoseconds since 1970 UTC. 0 in replay, where records carry capture time.
    pub unix_offset_ns: i64,
}

impl Clock {
    /// The instant of a record's time.
    pub fn instant(self, monotonic_ns: u64) -> Instant {
        let unix_ns = monotonic_ns.saturating_add_signed(self.unix_offset_ns);
        Instant { monotonic_ns: unix_ns, unix_ns }
    }
}

/// Takes what the collector makes.
pub trait Sink {
    /// One observation, with everything that is known of its transaction.
    fn observation(&mut self, observation: &Observation, transaction: &Transaction<'_>);

    /// A response whose request is not known: its method, host and target are `None`.
    fn unmatched(&mut self, transaction: &Transaction<'_>) {
        let _ = transaction;
    }
}

/// Pairs, judges and emits. One per shard; not shared. (No `Debug`: it holds the keys and raw bodies.)
pub struct Collector {
    config: Arc<Config>,
    keys: Keys,
    clock: Clock,
    canaries: Canaries,
    chunks: Chunks,
    ledger: Ledger,
    router: Router,
    queue: Queue,
    table: Table,
    /// Requests that only other versions of a stream have.
    more: Table,
    bodies: Bodies,
    decompressor: Decompressor,
    counts: CollectorCounts,
    /// Request records in the queue.
    queued_requests: u64,
    /// Time of the latest record that was applied.
    applied_ns: u64,
    /// Everything before this was applied.
    watermark_ns: u64,
    /// Connections of which another reading was seen.
    shaken: Shaken,
    asides: Asides,
    /// Responses that came before their request's head was complete.
    early: VecDeque<(Key, SecretBuf)>,
    readings: Readings,
    scratch: Vec<u8>,
    /// Exchanges at hand that wait, and how many of them do.
    waiting: Vec<Waiting>,
    waits: usize,
    secret: SecretBuf,
    spare_credentials: Vec<Vec<Judged>>,
}

impl Collector {
    /// A collector with `ledger`, bounded by `config.bounds`. The queue takes four times what both rings hold, which
    /// is more than can arrive between two watermarks.
    pub fn new(config: Arc<Config>, keys: Keys, clock: Clock, ledger: Ledger) -> Self {
        let bounds = &config.bounds;
        let ring_bytes = u64::from(bounds.event_ring_bytes) + u64::from(bounds.byte_ring_bytes);
        Self {
            router: Router::new(&config),
            queue: Queue::new(usize::try_from(ring_bytes.saturating_mul(4)).unwrap_or(usize::MAX)),
            table: Table::new(bounds.pending_requests),
            more: Table::new(bounds.pending_requests / MORE_PART),
            bodies: Bodies::new(bounds.tee_bodies, bounds.tee_bytes),
            decompressor: Decompressor::new(bounds.decoded_bytes),
            keys,
            clock,
            canaries: Canaries::new(&config, &ledger),
            chunks: Chunks::new(&config),
            ledger,
            counts: CollectorCounts::default(),
            queued_requests: 0,
            applied_ns: 0,
            watermark_ns: 0,
            shaken: Shaken::default(),
            asides: Asides::default(),
            early: VecDeque::new(),
            readings: Readings::default(),
            scratch: Vec::new(),
            waiting: Vec::new(),
            waits: 0,
            secret: SecretBuf::default(),
            spare_credentials: Vec::new(),
            config,
        }
    }

    /// Takes one record from a ring. Records may come in any order between rings and processors; those of equal time
    /// are applied in the order in which they come.
    pub fn record(&mut self, bytes: &[u8]) {
        self.counts.records += 1;
        let Ok(record) = decode(bytes) else {
            self.counts.malformed += 1;
            return;
        };
        let time_ns = record.head().time_ns;
        let is_request = matches!(record, Record::Request(_));
        if self.queue.push(time_ns, bytes).is_err() {
            self.lose(&record);
            return;
        }
        self.counts.late += u64::from(time_ns < self.watermark_ns);
        self.queued_requests += u64::from(is_request);
        self.counts.requests += u64::from(is_request);
        self.counts.responses += u64::from(matches!(record, Record::Response(_)));
        self.count_gauges();
    }

    /// Everything stamped before `watermark_ns` is in: applies it in time order.
    pub fn advance(&mut self, watermark_ns: u64, out: &mut impl Sink) {
        self.settle(out);
        while let Some(time_ns) = self.queue.next_time().filter(|time_ns| *time_ns < watermark_ns) {
            self.expire(time_ns, out);
            self.applied_ns = self.applied_ns.max(time_ns);
            if let Some(record) = self.queue.pop() {
                self.apply(record, out);
            }
        }
        self.expire(watermark_ns, out);
        self.watermark_ns = self.watermark_ns.max(watermark_ns);
        self.count_gauges();
    }

    /// End of capture: applies what is queued; what is pending becomes unanswered.
    pub fn finish(&mut self, out: &mut impl Sink) {
        let end = self.applied_ns.max(self.watermark_ns);
        self.advance(u64::MAX, out);
        // A record may carry the greatest time there is; nothing may stay behind.
        while let Some(record) = self.queue.pop() {
            self.apply(record, out);
        }
        self.drop_early(|_| true, exchange::EARLY_MAX, out);
        self.expire(u64::MAX, out);
        self.watermark_ns = end.max(self.applied_ns);
        self.count_gauges();
    }

    /// What was counted so far.
    pub fn counts(&self) -> &CollectorCounts {
        &self.counts
    }

    /// True when the records that wait for their time take half of the room there is for them.
    pub fn is_half_full(&self) -> bool {
        self.queue.is_half_full()
    }

    /// The ledger. What it is told passes exchanges that wait; [`Collector::settle`] comes first.
    pub fn ledger(&mut self) -> &mut Ledger {
        &mut self.ledger
    }

    fn count_gauges(&mut self) {
        self.counts.pending = self.queued_requests + self.table.len() as u64;
        self.counts.tee_truncated = self.bodies.truncated;
        self.counts.tee_evicted = self.bodies.evicted;
        self.counts.shaken_forgotten = self.shaken.forgotten;
    }

    fn spare_list(&mut self) -> Vec<Judged> {
        self.spare_credentials.pop().unwrap_or_default()
    }

    fn give_list_back(&mut self, mut list: Vec<Judged>) {
        list.clear();
        if self.spare_credentials.len() < SPARE_LISTS {
            self.spare_credentials.push(list);
        }
    }
}

/// The place of a request credential by name; `None` for places of responses and bodies.
fn place_of(credential: &Credential) -> Option<Place> {
    match credential.place {
        place::AUTHORIZATION => Some(Place::Authorization),
        place::COOKIE => Some(Place::Cookie(credential.index)),
        place::HEADER => Some(Place::Header(credential.index)),
        place::QUERY => Some(Place::Query(credential.index)),
        _ => None,
    }
}
