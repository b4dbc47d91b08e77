//! Exchanges that are at hand as a whole, request and response, in the order of their times: judged at once.
//!
//! What traces and simulations give. The way through queue, table and pairing is spared; what judges, concludes and emits is
//! the same. An exchange with a body that is read, or without an answer, goes as records.

use std::sync::Arc;

use sensor_ebpf::wire::{
    Credential, FlowId, HeadRecord, NO_LENGTH, NO_ROUTE, RecordHead, Span, capture, direction, framing, kind, version,
};

use super::decode::Head;
use super::{Collector, Sink};

/// `salt` of the connections of exchanges at hand, which no other has.
const SALT: u32 = u32::MAX;

/// A credential as the parser reports it.
#[derive(Clone, Copy, Default)]
pub struct Shown<'a> {
    /// Fingerprint, place and shape; the span of its claims is set by [`Encoder`].
    pub credential: Credential,
    /// `header.payload` of a signed JWT, when [`credential_flag::CLAIMS`] is set.
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
    /// Bits of [`anomaly`].
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

impl Collector {
    /// Judges and emits `exchange`, behind everything of an earlier time. False, and nothing done, when it must go as
    /// records.
    pub fn whole(&mut self, exchange: &Exchange<'_>, out: &mut impl Sink) -> bool {
        let Some(answer) = exchange.answer.as_ref() else { return false };
        let bodies = exchange.body.is_some() || answer.body.is_some() || answer.bytes.is_none();
        if bodies || self.chunks.any() {
            return false;
        }
        if self.queue.next_time().is_some_and(|time_ns| time_ns <= exchange.at_ns) {
            self.advance(exchange.at_ns.saturating_add(1), out);
        }
        self.expire(exchange.at_ns, out);
        self.applied_ns = self.applied_ns.max(answer.at_ns);
        self.counts.records += 2;
        self.counts.requests += 1;
        self.counts.responses += 1;
        let config = Arc::clone(&self.config);
        let mut area = std::mem::take(&mut self.area);
        area.clear();
        let (request, response) = self.heads(exchange, answer, &mut area);
        let request = Head::whole(request, &area, exchange.shown);
        let response = Head::whole(response, &area, answer.handed);
        let mut pending = self.judge_request(&config, &request);
        pending.anomalies |= response.fixed.anomalies;
        // It waits for nothing: there is no body, and its length is known.
        self.response_head(&config, &mut pending, &response);
        self.close(&config, &mut pending, &request, Some(&response), answer.at_ns, out);
        self.give_list_back(pending.credentials);
        self.area = area;
        true
    }

    /// The fixed parts of both heads; their captures go to `area`.
    fn heads(&mut self, exchange: &Exchange<'_>, answer: &Answer<'_>, area: &mut Vec<u8>) -> (HeadRecord, HeadRecord) {
        let flow = FlowId { created_ns: self.counts.requests, salt: SALT, reserved: 0 };
        let mut request = HeadRecord {
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
        let mut response = HeadRecord {
            head: RecordHead {
                kind: kind::RESPONSE,
                direction: direction::RESPONSE,
                time_ns: answer.at_ns,
                ..request.head
            },
            status: answer.status,
            content_length: answer.bytes.unwrap_or(NO_LENGTH),
            framing: framing::LENGTH,
            anomalies: 0,
            ..request
        };
        let mut put = |record: &mut HeadRecord, which: usize, text: &[u8]| {
            let span = u16::try_from(area.len()).ok().zip(u16::try_from(text.len()).ok());
            if let (Some((at, len)), Some(place)) = (span, record.captures.get_mut(which)) {
                *place = Span { at, len };
                area.extend_from_slice(text);
            }
        };
        put(&mut request, capture::LINE, exchange.line);
        put(&mut request, capture::HOST, exchange.host);
        put(&mut response, capture::CONTENT_TYPE, answer.content_type);
        put(&mut response, capture::LOCATION, answer.location);
        (request, response)
    }
}
