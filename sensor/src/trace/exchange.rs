//! Exchanges as the records in which the kernel sends them.

use sensor_ebpf::wire::{
    CAPTURES_MAX, CREDENTIALS_MAX, Credential, FlowId, HeadRecord, NO_LENGTH, NO_ROUTE, RecordHead, Span,
    TEE_CHUNK_MAX, anomaly, capture, credential_flag, direction, framing, head_flag, kind, version,
};
use zeroize::Zeroize as _;

use crate::collect::{Answer, Exchange, Shown};

/// Writes records. Each exchange is a connection of its own, with one transaction.
#[derive(Debug, Default)]
pub struct Encoder {
    /// Connections so far.
    flows: u64,
    /// Captures of the head that is being written.
    area: Vec<u8>,
    records: Vec<u8>,
    /// Some of the records hold raw bodies.
    secret: bool,
}

impl Encoder {
    /// The records of `exchange`, one behind the other in the order in which the kernel sends them; they stand until the
    /// next call. Split them with [`crate::capture::host::each`].
    pub fn encode(&mut self, exchange: &Exchange<'_>) -> &[u8] {
        self.clear();
        self.flows += 1;
        let head = RecordHead {
            service: exchange.service,
            time_ns: exchange.at_ns,
            flow: FlowId { created_ns: self.flows, salt: 0, reserved: 0 },
            ..RecordHead::default()
        };
        self.request(head, exchange);
        if let Some(body) = exchange.body {
            self.body(RecordHead { direction: direction::REQUEST, ..head }, body);
        }
        if let Some(answer) = &exchange.answer {
            let head = RecordHead { direction: direction::RESPONSE, time_ns: answer.at_ns, ..head };
            self.answer(head, exchange, answer);
            if let Some(body) = answer.body {
                self.body(head, body);
            }
        }
        &self.records
    }

    /// Forgets what was written; raw bodies are overwritten.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.secret) {
            self.records.as_mut_slice().zeroize();
        }
        self.records.clear();
    }

    fn request(&mut self, head: RecordHead, exchange: &Exchange<'_>) {
        let mut record = self.head(RecordHead { kind: kind::REQUEST, ..head }, exchange);
        record.anomalies = exchange.anomalies;
        record.framing = if exchange.body.is_some() { framing::LENGTH } else { framing::NONE };
        record.flags = if exchange.body.is_some() { head_flag::TEE } else { 0 };
        self.capture(&mut record, capture::LINE, exchange.line);
        self.capture(&mut record, capture::HOST, exchange.host);
        self.finish(record, exchange.shown);
    }

    fn answer(&mut self, head: RecordHead, exchange: &Exchange<'_>, answer: &Answer<'_>) {
        let mut record = self.head(RecordHead { kind: kind::RESPONSE, ..head }, exchange);
        record.status = answer.status;
        record.content_length = answer.bytes.unwrap_or(NO_LENGTH);
        record.framing = if answer.bytes.is_some() { framing::LENGTH } else { framing::CLOSE };
        record.flags = if answer.body.is_some() { head_flag::TEE } else { 0 };
        self.capture(&mut record, capture::CONTENT_TYPE, answer.content_type);
        self.capture(&mut record, capture::LOCATION, answer.location);
        self.finish(record, answer.handed);
    }

    fn head(&mut self, head: RecordHead, exchange: &Exchange<'_>) -> HeadRecord {
        self.area.clear();
        HeadRecord {
            head,
            client: exchange.client,
            route: NO_ROUTE,
            content_length: NO_LENGTH,
            method: exchange.method,
            version: version::HTTP_11,
            ..HeadRecord::default()
        }
    }

    fn capture(&mut self, record: &mut HeadRecord, which: usize, text: &[u8]) {
        let span = self.put(text);
        if let Some(place) = record.captures.get_mut(which) {
            *place = span.unwrap_or_default();
        }
        if span.is_none() {
            record.anomalies |= anomaly::VALUE_CUT;
        }
    }

    /// Appends `text` to the capture area, if there is room.
    fn put(&mut self, text: &[u8]) -> Option<Span> {
        let at = self.area.len();
        if at + text.len() > CAPTURES_MAX {
            return None;
        }
        self.area.extend_from_slice(text);
        Some(Span { at: u16::try_from(at).ok()?, len: u16::try_from(text.len()).ok()? })
    }

    /// Writes the record with its credentials and captures.
    fn finish(&mut self, mut record: HeadRecord, shown: &[Shown<'_>]) {
        let start = self.records.len();
        let count = shown.len().min(CREDENTIALS_MAX);
        if shown.len() > count {
            record.anomalies |= anomaly::MORE_CREDENTIALS;
        }
        record.credentials = u16::try_from(count).unwrap_or(0);
        put_head(&record, &mut self.records);
        for one in shown.iter().take(count) {
            let mut credential = one.credential;
            if credential.flags & (credential_flag::CLAIMS | credential_flag::EXPIRES) != 0 {
                if let Some(span) = self.put(one.claims) {
                    credential.claims = span;
                } else {
                    credential.flags &= !(credential_flag::CLAIMS | credential_flag::EXPIRES);
                    credential.flags |= credential_flag::CLAIMS_CUT;
                }
            }
            put_credential(&credential, &mut self.records);
        }
        self.records.extend_from_slice(&self.area);
        // Known only now: they stand in what was written.
        let (size, area) = (self.records.len() - start, self.area.len());
        if let Some(written) = self.records.get_mut(start..) {
            patch(written, 0, &u32::try_from(size).unwrap_or(0).to_le_bytes());
            patch(written, CAPTURES_LEN_AT, &u16::try_from(area).unwrap_or(0).to_le_bytes());
        }
    }

    /// A teed body and its end.
    fn body(&mut self, head: RecordHead, body: &[u8]) {
        self.secret = true;
        let mut offset = 0u64;
        for chunk in body.chunks(TEE_CHUNK_MAX) {
            let size = u32::try_from(TEE_HEAD + chunk.len()).unwrap_or(0);
            put_record_head(&RecordHead { size, kind: kind::TEE, offset, ..head }, &mut self.records);
            self.records.extend_from_slice(&u32::try_from(chunk.len()).unwrap_or(0).to_le_bytes());
            self.records.extend_from_slice(&[0; 4]);
            self.records.extend_from_slice(chunk);
            offset += chunk.len() as u64;
        }
        let size = u32::try_from(size_of::<sensor_ebpf::wire::EndRecord>()).unwrap_or(0);
        put_record_head(&RecordHead { size, kind: kind::TEE_END, ..head }, &mut self.records);
        self.records.extend_from_slice(&offset.to_le_bytes());
        self.records.extend_from_slice(&1u32.to_le_bytes());
        self.records.extend_from_slice(&0u32.to_le_bytes());
    }
}

/// Offset of `captures_len` in a head record.
const CAPTURES_LEN_AT: usize = std::mem::offset_of!(HeadRecord, captures_len);
/// Bytes in front of a teed chunk.
const TEE_HEAD: usize = size_of::<sensor_ebpf::wire::TeeRecord>();

fn patch(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn put_record_head(head: &RecordHead, out: &mut Vec<u8>) {
    out.extend_from_slice(&head.size.to_le_bytes());
    out.extend_from_slice(&[head.kind, head.direction]);
    out.extend_from_slice(&head.service.to_le_bytes());
    out.extend_from_slice(&head.time_ns.to_le_bytes());
    out.extend_from_slice(&head.flow.created_ns.to_le_bytes());
    out.extend_from_slice(&head.flow.salt.to_le_bytes());
    out.extend_from_slice(&head.flow.reserved.to_le_bytes());
    out.extend_from_slice(&head.txn.to_le_bytes());
    out.extend_from_slice(&head.epoch.to_le_bytes());
    out.extend_from_slice(&head.offset.to_le_bytes());
}

fn put_head(record: &HeadRecord, out: &mut Vec<u8>) {
    put_record_head(&record.head, out);
    out.extend_from_slice(&record.client);
    out.extend_from_slice(&record.server);
    out.extend_from_slice(&record.client_port.to_le_bytes());
    out.extend_from_slice(&record.server_port.to_le_bytes());
    out.extend_from_slice(&record.route.to_le_bytes());
    out.extend_from_slice(&record.status.to_le_bytes());
    out.extend_from_slice(&record.content_length.to_le_bytes());
    out.extend_from_slice(&record.user_agent.to_le_bytes());
    out.extend_from_slice(&record.head_bytes.to_le_bytes());
    out.extend_from_slice(&record.anomalies.to_le_bytes());
    out.extend_from_slice(&[record.method, record.version, record.framing, record.flags]);
    out.extend_from_slice(&record.credentials.to_le_bytes());
    out.extend_from_slice(&record.captures_len.to_le_bytes());
    for span in &record.captures {
        out.extend_from_slice(&span.at.to_le_bytes());
        out.extend_from_slice(&span.len.to_le_bytes());
    }
    out.extend_from_slice(&record.proxied);
    out.extend_from_slice(&record.proxied_port.to_le_bytes());
    out.extend_from_slice(&record.reserved);
}

fn put_credential(credential: &Credential, out: &mut Vec<u8>) {
    out.extend_from_slice(&credential.fingerprint);
    out.extend_from_slice(&credential.len.to_le_bytes());
    out.extend_from_slice(&credential.claims.at.to_le_bytes());
    out.extend_from_slice(&credential.claims.len.to_le_bytes());
    out.extend_from_slice(&[credential.place, credential.index, credential.scheme, credential.dots]);
    out.extend_from_slice(&credential.cut_at.to_le_bytes());
    out.extend_from_slice(&credential.flags.to_le_bytes());
}
