//! Records as bytes, as they come out of a ring or the host parser, read field by field.
//!
//! The layouts are those of [`sensor_ebpf::wire`]. Every length is checked before it is believed: a record that
//! contradicts itself is a [`Malformed`] value, never a panic and never a partial record.

use std::fmt;

use sensor_ebpf::wire::{
    CREDENTIALS_MAX, Credential, EndRecord, FlowId, HeadRecord, RecordHead, Span, capture, credential_flag, kind,
};

use super::cookie_date;
use crate::observation::Instant;

/// Bytes of [`RecordHead`].
const RECORD_HEAD: usize = size_of::<RecordHead>();
/// Bytes of one [`Credential`].
const CREDENTIAL: usize = size_of::<Credential>();

/// How far the clock of a server that deletes a cookie by date may be behind, seconds.
const CLOCK_LEEWAY_S: i64 = 120;

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Fewer bytes than the record says or needs.
    #[error("record is cut short")]
    Short,
    /// The kind is none of `wire::kind`.
    #[error("unknown record kind {0}")]
    Kind(u8),
    /// More credentials than `wire::CREDENTIALS_MAX`.
    #[error("{0} credentials in one record")]
    Credentials(u16),
    /// A span reaches outside the capture area.
    #[error("a capture reaches outside the record")]
    Span,
}

/// One record.
#[derive(Clone, Copy)]
pub enum Record<'a> {
    /// A request head.
    Request(Head<'a>),
    /// A response head.
    Response(Head<'a>),
    /// Another version of a request head.
    Version(Head<'a>),
    /// End of a body (`END`).
    End(EndRecord),
    /// Bytes of a teed body.
    Tee(RecordHead, &'a [u8]),
    /// End of a teed body.
    TeeEnd(EndRecord),
    /// End of the connection.
    Close(RecordHead),
    /// The answer to a request may be lost.
    AnswerLost(RecordHead),
}

/// Raw bytes stay out of whatever prints this.
impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(head) | Self::Response(head) | Self::Version(head) => head.fmt(f),
            Self::End(end) | Self::TeeEnd(end) => end.fmt(f),
            Self::Tee(head, bytes) => write!(f, "Tee({head:?}, {} bytes)", bytes.len()),
            Self::Close(head) => write!(f, "Close({head:?})"),
            Self::AnswerLost(head) => write!(f, "AnswerLost({head:?})"),
        }
    }
}

impl Record<'_> {
    /// The common head.
    pub fn head(&self) -> &RecordHead {
        match self {
            Self::Request(head) | Self::Response(head) | Self::Version(head) => &head.fixed.head,
            Self::End(end) | Self::TeeEnd(end) => &end.head,
            Self::Tee(head, _) | Self::Close(head) | Self::AnswerLost(head) => head,
        }
    }
}

/// A request or response head with what follows it.
#[derive(Clone, Copy)]
pub struct Head<'a> {
    /// The fixed part.
    pub fixed: HeadRecord,
    credentials: &'a [u8],
    captures: &'a [u8],
    /// Credentials that do not stand in a record; their spans are those of the captures.
    shown: &'a [Credential],
}

/// Captures name people (claims, query parameters), so they stay out of whatever prints this.
impl fmt::Debug for Head<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head({:?}, captures of {} bytes)", self.fixed, self.captures.len())
    }
}

impl<'a> Head<'a> {
    /// A head that is no record: the spans of its captures are those of `captures`.
    pub(super) fn whole(fixed: HeadRecord, captures: &'a [u8], shown: &'a [Credential]) -> Self {
        Self { fixed, credentials: &[], captures, shown }
    }

    /// The capture `which` (one of [`capture`]) without trailing whitespace, of which the kernel takes off no more than
    /// the usual; `None` when it is absent.
    pub fn capture(&self, which: usize) -> Option<&'a [u8]> {
        let span = self.fixed.captures.get(which)?;
        let mut value = if span.len == 0 { None } else { slice(self.captures, *span) }?;
        while let Some((b' ' | b'\t' | b'\r', before)) = value.split_last() {
            value = before;
        }
        Some(value).filter(|value| !value.is_empty())
    }

    /// The credentials, in the order in which they stood.
    pub fn credentials(&self) -> impl Iterator<Item = Credential> + use<'a> {
        let recorded =
            self.credentials.chunks_exact(CREDENTIAL).filter_map(|bytes| credential(&mut Reader(bytes)).ok());
        recorded.chain(self.shown.iter().copied())
    }

    /// `header.payload` of a JWT, when the record carries it whole.
    pub fn claims(&self, credential: &Credential) -> Option<&'a [u8]> {
        let whole = credential.flags & (credential_flag::CLAIMS | credential_flag::CLAIMS_CUT);
        if whole != credential_flag::CLAIMS {
            return None;
        }
        slice(self.captures, credential.claims)
    }

    /// The credentials that a response seen at `at` hands out: those that it does not make the client forget.
    pub fn handed_out(&self, at: Instant) -> impl Iterator<Item = Credential> {
        self.credentials().filter(move |one| !self.forgotten(one, at))
    }

    /// True for a `Set-Cookie` that deletes its cookie: by `Max-Age`, or else by an `Expires` that is over (RFC 6265
    /// §5.3). Within [`CLOCK_LEEWAY_S`] it counts as handed out.
    pub(super) fn forgotten(&self, credential: &Credential, at: Instant) -> bool {
        let flags = credential.flags;
        if flags & (credential_flag::DELETED | credential_flag::LASTS) != 0 {
            return flags & credential_flag::DELETED != 0;
        }
        if flags & credential_flag::EXPIRES == 0 {
            return false;
        }
        let date = slice(self.captures, credential.claims).and_then(cookie_date::parse);
        let now = i64::try_from(at.unix_ns / 1_000_000_000).unwrap_or(i64::MAX);
        date.is_some_and(|date| date < now.saturating_sub(CLOCK_LEEWAY_S))
    }

    /// True when all the bits of `mask` (of [`sensor_ebpf::wire::anomaly`]) are set.
    pub fn anomaly(&self, mask: u32) -> bool {
        self.fixed.anomalies & mask == mask
    }

    /// True when all the bits of `mask` (of [`sensor_ebpf::wire::head_flag`]) are set.
    pub fn flag(&self, mask: u8) -> bool {
        self.fixed.flags & mask == mask
    }
}

/// Reads one record from the start of `bytes`; bytes beyond its `size` are padding.
pub fn decode(bytes: &[u8]) -> Result<Record<'_>, Malformed> {
    let size = u32::from_le_bytes(*bytes.first_chunk().ok_or(Malformed::Short)?);
    let size = usize::try_from(size).map_err(|_| Malformed::Short)?;
    if size < RECORD_HEAD {
        return Err(Malformed::Short);
    }
    let mut reader = Reader(bytes.get(..size).ok_or(Malformed::Short)?);
    let head = record_head(&mut reader)?;
    match head.kind {
        kind::REQUEST => Ok(Record::Request(message(head, &mut reader)?)),
        kind::RESPONSE => Ok(Record::Response(message(head, &mut reader)?)),
        kind::VERSION => Ok(Record::Version(message(head, &mut reader)?)),
        kind::END => Ok(Record::End(end(head, &mut reader)?)),
        kind::TEE_END => Ok(Record::TeeEnd(end(head, &mut reader)?)),
        kind::TEE => {
            let len = usize::try_from(reader.u32()?).map_err(|_| Malformed::Short)?;
            reader.u32()?;
            Ok(Record::Tee(head, reader.bytes(len)?))
        }
        kind::CLOSE => Ok(Record::Close(head)),
        kind::ANSWER_LOST => Ok(Record::AnswerLost(head)),
        other => Err(Malformed::Kind(other)),
    }
}

fn record_head(reader: &mut Reader<'_>) -> Result<RecordHead, Malformed> {
    Ok(RecordHead {
        size: reader.u32()?,
        kind: reader.u8()?,
        direction: reader.u8()?,
        service: reader.u16()?,
        time_ns: reader.u64()?,
        flow: FlowId { created_ns: reader.u64()?, salt: reader.u32()?, reserved: reader.u32()? },
        txn: reader.u32()?,
        epoch: reader.u32()?,
        offset: reader.u64()?,
    })
}

fn message<'a>(head: RecordHead, reader: &mut Reader<'a>) -> Result<Head<'a>, Malformed> {
    let mut fixed = HeadRecord {
        head,
        client: reader.array()?,
        server: reader.array()?,
        client_port: reader.u16()?,
        server_port: reader.u16()?,
        route: reader.u16()?,
        status: reader.u16()?,
        content_length: reader.u64()?,
        user_agent: reader.u64()?,
        head_bytes: reader.u32()?,
        anomalies: reader.u32()?,
        method: reader.u8()?,
        version: reader.u8()?,
        framing: reader.u8()?,
        flags: reader.u8()?,
        credentials: reader.u16()?,
        captures_len: reader.u16()?,
        captures: [Span::default(); capture::COUNT],
        proxied: [0; 16],
        proxied_port: 0,
        reserved: [0; 6],
    };
    for span in &mut fixed.captures {
        *span = reader.span()?;
    }
    fixed.proxied = reader.array()?;
    fixed.proxied_port = reader.u16()?;
    fixed.reserved = reader.array()?;
    if usize::from(fixed.credentials) > CREDENTIALS_MAX {
        return Err(Malformed::Credentials(fixed.credentials));
    }
    let credentials = reader.bytes(usize::from(fixed.credentials) * CREDENTIAL)?;
    let captures = reader.bytes(usize::from(fixed.captures_len))?;
    let decoded = Head { fixed, credentials, captures, shown: &[] };
    let spans_fit = fixed.captures.iter().all(|span| slice(captures, *span).is_some());
    let claims_fit = decoded.credentials().all(|one| {
        one.flags & (credential_flag::CLAIMS | credential_flag::EXPIRES) == 0 || slice(captures, one.claims).is_some()
    });
    if spans_fit && claims_fit { Ok(decoded) } else { Err(Malformed::Span) }
}

fn credential(reader: &mut Reader<'_>) -> Result<Credential, Malformed> {
    Ok(Credential {
        fingerprint: reader.array()?,
        len: reader.u32()?,
        claims: reader.span()?,
        place: reader.u8()?,
        index: reader.u8()?,
        scheme: reader.u8()?,
        dots: reader.u8()?,
        cut_at: reader.u16()?,
        flags: reader.u16()?,
    })
}

fn end(head: RecordHead, reader: &mut Reader<'_>) -> Result<EndRecord, Malformed> {
    Ok(EndRecord { head, body_bytes: reader.u64()?, complete: reader.u32()?, anomalies: reader.u32()? })
}

fn slice(area: &[u8], span: Span) -> Option<&[u8]> {
    area.get(usize::from(span.at)..usize::from(span.at) + usize::from(span.len))
}

/// Takes fields off the front of a slice.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (field, rest) = self.0.split_first_chunk().ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(*field)
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (field, rest) = self.0.split_at_checked(count).ok_or(Malformed::Short)?;
        self.0 = rest;
        Ok(field)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    fn span(&mut self) -> Result<Span, Malformed> {
        Ok(Span { at: self.u16()?, len: self.u16()? })
    }
}
