//! Exchanges that are at hand as a whole, request and response, in the order of their times.
//!
//! What traces and simulations give. The way through queue, table and pairing is spared; what judges, concludes and emits is
//! the same. An exchange with a body that is read, or without an answer, goes as records. A few exchanges wait for one
//! another, so that the ledger's memory is fetched for all of them at once; nothing else of a later time passes them.

use std::sync::Arc;

use sensor_ebpf::wire::{
    Credential, FlowId, HeadRecord, NO_LENGTH, NO_ROUTE, RecordHead, Span, capture, direction, framing, kind, version,
};

use super::decode::Head;
use super::{Collector, Sink};
use crate::ahead;
use crate::config::model::Config;
use crate::ledger::Expected;
use crate::observation::{Fingerprint, ServiceId};

/// `salt` of the connections of exchanges at hand, which no other has.
const SALT: u32 = u32::MAX;

/// A credential as the parser reports it.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// Fingerprint, place and shape; the span of its claims is set by [`crate::trace::Encoder`].
    pub credential: Credential,
    /// `header.payload` of a signed JWT, when `credential_flag::CLAIMS` is set.
    pub claims: &'a [u8],
}

/// A request, and its response if there was one.
#[derive(Clone, Copy, Default)]
pub struct Exchange<'a> {
    /// When the request's head was complete, nanoseconds.
    pub at_ns: u64,
    /// Index of the service.
    pub service: u16,
    /// The client's address, IPv4 as mapped IPv6, network order.
    pub client: [u8; 16],
    /// One of `sensor_ebpf::wire::method`.
    pub method: u8,
    /// The request line, values of credential parameters cut out.
    pub line: &'a [u8],
    /// `Host`; empty for none.
    pub host: &'a [u8],
    /// Bits of `sensor_ebpf::wire::anomaly`.
    pub anomalies: u32,
    /// What the request authenticates with.
    pub shown: &'a [Shown<'a>],
    /// The request's body, when its route has it teed.
    pub body: Option<&'a [u8]>,
    /// The response.
    pub answer: Option<Answer<'a>>,
}

/// A response.
#[derive(Clone, Copy, Default)]
pub struct Answer<'a> {
    /// When its head was complete, nanoseconds.
    pub at_ns: u64,
    /// Status code.
    pub status: u16,
    /// Bytes of its body, where that is known.
    pub bytes: Option<u64>,
    /// `Content-Type`; empty for none.
    pub content_type: &'a [u8],
    /// `Location`; empty for none.
    pub location: &'a [u8],
    /// What its head hands out.
    pub handed: &'a [Shown<'a>],
    /// Its body, when its route has it teed.
    pub body: Option<&'a [u8]>,
}

/// An exchange whose credentials' memory is on its way: all of it, copied.
#[derive(Default)]
pub(super) struct Waiting {
    request: HeadRecord,
    response: HeadRecord,
    /// Captures of both heads.
    area: Vec<u8>,
    /// What the request shows, then what the response hands out.
    credentials: Vec<Credential>,
    /// How many the request shows.
    shown: usize,
}

impl Waiting {
    /// Copies `exchange`; false when it is longer than spans can tell.
    fn fill(&mut self, exchange: &Exchange<'_>, answer: &Answer<'_>, flow: FlowId) -> bool {
        self.credentials.clear();
        self.area.clear();
        self.request = HeadRecord {
            head: RecordHead {
                kind: kind::REQUEST,
                service: exchange.service,
                time_ns: exchange.at_ns,
                flow,
                ..RecordHead::default()
            },
            client: exchange.client,
            route: NO_ROUTE,
            content_length: NO_LENGTH,
            anomalies: exchange.anomalies,
            method: exchange.method,
            version: version::HTTP_11,
            ..HeadRecord::default()
        };
        self.response = HeadRecord {
            head: RecordHead {
                kind: kind::RESPONSE,
                direction: direction::RESPONSE,
                time_ns: answer.at_ns,
                ..self.request.head
            },
            status: answer.status,
            content_length: answer.bytes.unwrap_or(NO_LENGTH),
            framing: framing::LENGTH,
            anomalies: 0,
            ..self.request
        };
        let Self { request, response, area, credentials, shown } = self;
        let mut put_in = |record: &mut HeadRecord, which: usize, text: &[u8]| {
            let span = put(area, text);
            record.captures.get_mut(which).zip(span).map(|(place, span)| *place = span).is_some()
        };
        *shown = exchange.shown.len();
        let fits = put_in(request, capture::LINE, exchange.line)
            && put_in(request, capture::HOST, exchange.host)
            && put_in(response, capture::CONTENT_TYPE, answer.content_type)
            && put_in(response, capture::LOCATION, answer.location);
        fits && exchange.shown.iter().chain(answer.handed).all(|one| {
            let mut credential = one.credential;
            let span = if one.claims.is_empty() { Some(credential.claims) } else { put(area, one.claims) };
            credential.claims = span.unwrap_or_default();
            credentials.push(credential);
            span.is_some()
        })
    }

    fn shown(&self) -> &[Credential] {
        self.credentials.get(..self.shown).unwrap_or_default()
    }

    fn handed(&self) -> &[Credential] {
        self.credentials.get(self.shown..).unwrap_or_default()
    }

    /// What the ledger will be asked.
    fn expected(&self) -> impl Iterator<Item = Expected> {
        let service = ServiceId(self.request.head.service);
        self.credentials.iter().map(move |one| Expected {
            service,
            fingerprint: Fingerprint(one.fingerprint),
            flags: one.flags,
        })
    }
}

/// Appends `text` to the captures, if a span can say where.
fn put(area: &mut Vec<u8>, text: &[u8]) -> Option<Span> {
    let span = Span { at: u16::try_from(area.len()).ok()?, len: u16::try_from(text.len()).ok()? };
    area.extend_from_slice(text);
    Some(span)
}

impl Collector {
    /// Takes `exchange`, to be judged behind everything of an earlier time and with the next [`Collector::advance`] at the
    /// latest; in between exchanges wait for one another, so that the memory that they need is fetched at once. False, and
    /// nothing done, when it must go as records.
    pub fn whole(&mut self, exchange: &Exchange<'_>, out: &mut impl Sink) -> bool {
        let Some(answer) = exchange.answer.as_ref() else { return false };
        let bodies = exchange.body.is_some() || answer.body.is_some() || answer.bytes.is_none();
        if bodies || self.chunks.any() {
            return false;
        }
        if self.waits >= ahead::WINDOW {
            self.settle(out);
        }
        if self.queue.next_time().is_some_and(|time_ns| time_ns <= exchange.at_ns) {
            self.advance(exchange.at_ns.saturating_add(1), out);
        }
        let flow = FlowId { created_ns: self.counts.requests, salt: SALT, reserved: 0 };
        if self.waiting.len() <= self.waits {
            self.waiting.push(Waiting::default());
        }
        let Some(waiting) = self.waiting.get_mut(self.waits) else { return false };
        if !waiting.fill(exchange, answer, flow) {
            return false;
        }
        waiting.expected().for_each(|one| self.ledger.expect(one));
        self.waits += 1;
        self.counts.records += 2;
        self.counts.requests += 1;
        self.counts.responses += 1;
        true
    }

    /// Judges and emits the exchanges that wait.
    pub fn settle(&mut self, out: &mut impl Sink) {
        if self.waits == 0 {
            return;
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        let some = waiting.get_mut(..self.waits).unwrap_or_default();
        self.waits = 0;
        some.iter().flat_map(Waiting::expected).for_each(|one| self.ledger.expect_soon(one));
        let config = Arc::clone(&self.config);
        for one in some {
            self.judge_whole(&config, one, out);
            // It names people.
            one.area.fill(0);
        }
        self.waiting = waiting;
    }

    fn judge_whole(&mut self, config: &Config, one: &Waiting, out: &mut impl Sink) {
        let answered_ns = one.response.head.time_ns;
        self.expire(one.request.head.time_ns, out);
        self.applied_ns = self.applied_ns.max(answered_ns);
        let request = Head::whole(one.request, &one.area, one.shown());
        let response = Head::whole(one.response, &one.area, one.handed());
        let mut pending = self.judge_request(config, &request);
        pending.anomalies |= response.fixed.anomalies;
        // It waits for nothing: there is no body, and its length is known.
        self.response_head(config, &mut pending, &response);
        self.close(config, &mut pending, &request, Some(&response), answered_ns, out);
        self.give_list_back(pending.credentials);
    }
}
