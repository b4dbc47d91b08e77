//! What crosses the boundary between kernel and user space.
//!
//! Owns the byte layout of every record on the rings; `tables` owns that of every key and value in the maps, all of it
//! `wire::NAME`. Records flow out of the parser (kernel or host, the same code) and into the collector; configuration flows
//! the other way. Every layout is `repr(C)` without implicit padding and its size is asserted, so that a record never
//! carries stale bytes of another request.
//!
//! **Invariant**: no field holds raw credential bytes. A credential appears as its keyed fingerprint; a JWT
//! additionally as header and payload without the signature.

mod tables;

pub use self::tables::{
    BenchStream, COOKIES_MAX, EdgeKey, HEADERS_MAX, ListenKey, NAME_MAX, Name, QUERY_MAX, RESPONSE_HEADERS_MAX,
    ROUTES_MAX, ResumeEntry, RouteConfig, RouteState, SERVICES_MAX, ServiceConfig, Settings, Totals, bench_mode,
    route_flag, service_flag,
};

/// Credentials that one head can report; one that repeats another of the same place takes no room. Further ones are
/// counted ([`anomaly::MORE_CREDENTIALS`]).
pub const CREDENTIALS_MAX: usize = 8;
/// Largest capture area of one record, in bytes.
pub const CAPTURES_MAX: usize = 4096;
/// Longest request line that is captured, in bytes; longer ones are cut ([`anomaly::LINE_CUT`]).
pub const LINE_CAPTURE_MAX: usize = 2048;
/// Longest value of any other captured header, in bytes; of `X-Forwarded-For` and `Forwarded` the last ones are kept
/// ([`anomaly::VALUE_CUT`]).
pub const VALUE_CAPTURE_MAX: usize = 256;
/// Longest `header.payload` of a JWT that is captured, in bytes; longer ones are cut ([`credential_flag::CLAIMS_CUT`]).
pub const CLAIMS_CAPTURE_MAX: usize = 1536;
/// Most body bytes that one tee record carries.
pub const TEE_CHUNK_MAX: usize = 1024;
/// `service` of a record when `--all-tcp` made the flow a candidate and no service is declared for it.
pub const NO_SERVICE: u16 = u16::MAX;
/// `route` of a record when no template matched a canonical target.
pub const NO_ROUTE: u16 = u16::MAX;
/// `route` of a record whose target is not canonical: only user space can classify it.
pub const ROUTE_NOT_CANONICAL: u16 = u16::MAX - 1;
/// `content_length` when the head stated none.
pub const NO_LENGTH: u64 = u64::MAX;

/// Direction of a half: which side sent the bytes.
pub mod direction {
    /// From the client to the service.
    pub const REQUEST: u8 = 0;
    /// From the service to the client.
    pub const RESPONSE: u8 = 1;
}

/// Kinds of record ([`RecordHead::kind`]).
pub mod kind {
    /// A request head ([`super::HeadRecord`]), event ring.
    pub const REQUEST: u8 = 1;
    /// A response head that is not 1xx ([`super::HeadRecord`]), event ring.
    pub const RESPONSE: u8 = 2;
    /// The end of a response body whose length was wanted ([`super::EndRecord`]), event ring.
    pub const END: u8 = 3;
    /// Bytes of a teed message body, transfer coding removed ([`super::TeeRecord`]), byte ring.
    pub const TEE: u8 = 4;
    /// The end of a teed message body ([`super::EndRecord`]), byte ring, after its last [`TEE`].
    pub const TEE_END: u8 = 5;
    /// The connection was closed or reset: what is pending on it stays unanswered ([`super::RecordHead`] alone), event ring.
    pub const CLOSE: u8 = 6;
    /// A half is the slow path's from here on ([`super::HandoverRecord`]), byte ring.
    pub const HANDOVER: u8 = 7;
    /// Bytes of a half that the slow path follows ([`super::SegmentRecord`]), byte ring.
    pub const SEGMENT: u8 = 8;
    /// The kernel took a flow back where the slow path left it ([`super::EndRecord`]), byte ring.
    pub const RESUMED: u8 = 9;
    /// Part of a fragmented IP packet ([`super::FragmentRecord`]), byte ring.
    pub const FRAGMENT: u8 = 10;
    /// Bytes that were seen before, of a request that is not answered yet ([`super::SegmentRecord`]), byte ring: the slow
    /// path compares what they say.
    pub const AGAIN: u8 = 11;
    /// Another version of a request head ([`super::HeadRecord`], `txn` of the first): a retransmission said something
    /// else. With [`super::head_flag::MORE`]: a request that only the other version has. Made by the slow path only.
    pub const VERSION: u8 = 12;
    /// Bytes from the server were lost for good while this request waited for its answer, which may have been among them
    /// ([`super::RecordHead`] alone, `txn` of the request). Made by the slow path only.
    pub const ANSWER_LOST: u8 = 13;
}

/// Identifies one connection for the life of the sensor.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Kernel monotonic time at which the flow entry was made, nanoseconds.
    pub created_ns: u64,
    /// Hash of the connection's addresses and ports.
    pub salt: u32,
    /// Always 0.
    pub reserved: u32,
}

/// What every record begins with.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecordHead {
    /// Bytes of the whole record, this head included.
    pub size: u32,
    /// One of [`kind`].
    pub kind: u8,
    /// One of [`direction`]: the half that the record is about.
    pub direction: u8,
    /// Index of the service in the configuration, or [`NO_SERVICE`].
    pub service: u16,
    /// Kernel monotonic time, taken after the ring reserve, nanoseconds.
    pub time_ns: u64,
    /// The connection.
    pub flow: FlowId,
    /// Transaction number within the flow, from 0; a response carries that of its request.
    pub txn: u32,
    /// Hand-over epoch of the half (0 until the slow path takes a flow).
    pub epoch: u32,
    /// Stream offset (bytes since the half began) of the first byte of the message or tee chunk.
    pub offset: u64,
}

/// Versions as on the wire, `major << 4 | minor`; 0 when the line states none that is known.
pub mod version {
    /// HTTP/1.1
    pub const HTTP_11: u8 = 0x11;
    /// HTTP/1.0
    pub const HTTP_10: u8 = 0x10;
    /// HTTP/0.9 (no version on the request line)
    pub const HTTP_09: u8 = 0x09;
}

/// How the body is delimited (RFC 9112 §6.3).
pub mod framing {
    /// No body.
    pub const NONE: u8 = 0;
    /// `Content-Length` bytes.
    pub const LENGTH: u8 = 1;
    /// Chunked transfer coding.
    pub const CHUNKED: u8 = 2;
    /// Until the connection closes.
    pub const CLOSE: u8 = 3;
    /// The connection stops being HTTP (101, or 2xx to CONNECT).
    pub const UPGRADE: u8 = 4;
    /// The stated lengths contradict each other or are no number: the half gives up its place rather than guess.
    pub const UNKNOWN: u8 = 5;
}

/// Indexes into [`HeadRecord::captures`].
pub mod capture {
    /// Request line without its line end (credential query values cut out), or status line.
    pub const LINE: usize = 0;
    /// `Host`
    pub const HOST: usize = 1;
    /// `X-Forwarded-For` (several lines as one list), a long one by its end
    pub const X_FORWARDED_FOR: usize = 2;
    /// `Forwarded` (RFC 7239), likewise
    pub const FORWARDED: usize = 3;
    /// `X-Real-IP`
    pub const X_REAL_IP: usize = 4;
    /// `Content-Type`
    pub const CONTENT_TYPE: usize = 5;
    /// `Location`
    pub const LOCATION: usize = 6;
    /// `Content-Encoding`
    pub const CONTENT_ENCODING: usize = 7;
    /// Number of captures.
    pub const COUNT: usize = 8;
}

/// A slice of a record's capture area.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Offset from the start of the capture area.
    pub at: u16,
    /// Bytes.
    pub len: u16,
}

/// Where a credential stood ([`Credential::place`]).
pub mod place {
    /// `Authorization` request header.
    pub const AUTHORIZATION: u8 = 1;
    /// A named cookie of a request; `index` into the service's cookies.
    pub const COOKIE: u8 = 2;
    /// A named request header; `index` into the service's headers.
    pub const HEADER: u8 = 3;
    /// A named query parameter; `index` into the service's query parameters.
    pub const QUERY: u8 = 4;
    /// `Set-Cookie` of a response; `index` into the service's cookies.
    pub const SET_COOKIE: u8 = 5;
    /// A named response header; `index` into the service's response headers.
    pub const RESPONSE_HEADER: u8 = 6;
    /// A value in a message body, by JSON pointer (found in user space, from teed bytes).
    pub const BODY: u8 = 7;
}

/// Scheme word of an `Authorization` value ([`Credential::scheme`]).
pub mod scheme {
    /// No scheme word: the value is the credential.
    pub const BARE: u8 = 0;
    /// `Bearer` (RFC 6750), any letter case.
    pub const BEARER: u8 = 1;
    /// `Basic` (RFC 7617)
    pub const BASIC: u8 = 2;
    /// `Digest` (RFC 7616): no stable token
    pub const DIGEST: u8 = 3;
    /// `NTLM`: no stable token
    pub const NTLM: u8 = 4;
    /// `Negotiate` (RFC 4559): no stable token
    pub const NEGOTIATE: u8 = 5;
    /// `Token`
    pub const TOKEN: u8 = 6;
    /// `JWT`
    pub const JWT: u8 = 7;
    /// `DPoP` (RFC 9449)
    pub const DPOP: u8 = 8;
    /// Any other word.
    pub const OTHER: u8 = 15;

    /// True for schemes whose value proves a secret anew in every request.
    #[inline(always)]
    pub const fn has_no_stable_token(scheme: u8) -> bool {
        (1u32 << DIGEST | 1 << NTLM | 1 << NEGOTIATE) >> (scheme & 31) & 1 != 0
    }
}

/// Bits of [`Credential::flags`].
pub mod credential_flag {
    /// Exactly three parts separated by dots, all three non-empty: shaped like a signed JWT (RFC 7519).
    pub const THREE_PARTS: u16 = 1;
    /// Header and payload stand in the capture area.
    pub const CLAIMS: u16 = 2;
    /// Header and payload were longer than [`super::CLAIMS_CAPTURE_MAX`] or the capture area was full: cut.
    pub const CLAIMS_CUT: u16 = 4;
    /// The value had whitespace or a folded line inside.
    pub const INNER_SPACE: u16 = 8;
    /// Three parts, of which the third is empty: `alg: none` shape; header and payload stay in the kernel.
    pub const EMPTY_SIGNATURE: u16 = 16;
    /// Percent-decoding changed the value, or failed on a lone `%` (kept as it stands).
    pub const PERCENT: u16 = 32;
    /// Of a `Set-Cookie`: its last `Max-Age` is zero or negative, so that the client forgets the cookie (RFC 6265 §5.2.2).
    pub const DELETED: u16 = 64;
    /// Of a `Set-Cookie`: its last `Max-Age` is positive, which counts more than any `Expires` (RFC 6265 §5.3).
    pub const LASTS: u16 = 128;
    /// Of a `Set-Cookie`: [`super::Credential::claims`] is its last `Expires`, in small letters; there are no claims then.
    pub const EXPIRES: u16 = 256;
}

/// One credential of a head, as its fingerprint.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Credential {
    /// Keyed SipHash-2-4-128 of the credential (see [`crate::siphash`]).
    pub fingerprint: [u8; 16],
    /// Bytes that were fingerprinted.
    pub len: u32,
    /// JWT header and payload in the capture area (`header.payload`), when [`credential_flag::CLAIMS`]; the date when
    /// [`credential_flag::EXPIRES`].
    pub claims: Span,
    /// One of [`place`].
    pub place: u8,
    /// Which of the configured names of that place.
    pub index: u8,
    /// One of [`scheme`].
    pub scheme: u8,
    /// Dots seen in the value, at most 255.
    pub dots: u8,
    /// Where the value was cut out of the request line capture, for [`place::QUERY`]: offset within that capture.
    pub cut_at: u16,
    /// Bits of [`credential_flag`].
    pub flags: u16,
}

impl Credential {
    /// What tells it from others with the same fingerprint: its place, and of the scheme what a verdict asks for.
    #[inline(always)]
    pub const fn tag(&self) -> u32 {
        let class = scheme::has_no_stable_token(self.scheme) as u32 | ((self.scheme == scheme::BASIC) as u32) << 1;
        self.place as u32 | (self.index as u32) << 8 | class << 16
    }
}

/// Bits of [`HeadRecord::anomalies`].
pub mod anomaly {
    /// The request line was longer than [`super::LINE_CAPTURE_MAX`] and is cut in the record.
    pub const LINE_CUT: u32 = 1;
    /// A header line was folded (obs-fold, RFC 9112 §5.2).
    pub const OBS_FOLD: u32 = 1 << 1;
    /// More credentials than [`super::CREDENTIALS_MAX`].
    pub const MORE_CREDENTIALS: u32 = 1 << 3;
    /// `Content-Length` given twice with different values, or not a number.
    pub const BAD_LENGTH: u32 = 1 << 4;
    /// `Content-Length` together with `Transfer-Encoding`.
    pub const LENGTH_AND_CODING: u32 = 1 << 5;
    /// A `Transfer-Encoding` whose last coding is not `chunked`.
    pub const ODD_CODING: u32 = 1 << 6;
    /// The capture area or the slot for a head split over segments was lost: captures and credentials are incomplete.
    pub const CAPTURES_LOST: u32 = 1 << 7;
    /// Picked up mid-stream: the flow began before the sensor saw it, or after a gap.
    pub const PICKED_UP: u32 = 1 << 8;
    /// The response came while the request head was still unfinished.
    pub const EARLY: u32 = 1 << 9;
    /// The response had no request to answer; `txn` is `u32::MAX`.
    pub const UNSOLICITED: u32 = 1 << 10;
    /// The queue of outstanding requests had overflowed: HEAD or CONNECT may have been misjudged.
    pub const QUEUE_OVERFLOW: u32 = 1 << 11;
    /// The status line or request line could not be understood.
    pub const BAD_LINE: u32 = 1 << 12;
    /// More than one `Authorization` header.
    pub const MANY_AUTHORIZATIONS: u32 = 1 << 13;
    /// A captured value was longer than its bound and is cut.
    pub const VALUE_CUT: u32 = 1 << 14;
    /// Two versions of the same bytes were seen: what the server read is one of them.
    pub const CONFLICT: u32 = 1 << 15;
    /// The server's acknowledgement did not cover the request that its response answers: it may never have seen it.
    pub const AMBIGUOUS: u32 = 1 << 16;
    /// A header line that RFC 9112 §5 forbids and servers read differently: no colon, whitespace before it, an empty name.
    pub const ODD_HEADER: u32 = 1 << 17;
    /// A chunk size or its line end that servers read differently (RFC 9112 §7.1).
    pub const ODD_CHUNK: u32 = 1 << 18;
    /// The request line has a form that servers read differently: more than one space, a tab, a control character.
    pub const ODD_LINE: u32 = 1 << 19;
    /// `Host` is missing, empty or repeated (in HTTP/1.1). (Whether it is that of an absolute target user space says.)
    pub const ODD_HOST: u32 = 1 << 20;
    /// The message before, of the same half, had an [`ODD_CHUNK`] or [`BAD_LENGTH`]: where this one begins is one reading
    /// of several.
    pub const AFTER_ODD_BODY: u32 = 1 << 21;
}

/// Bits of [`HeadRecord::flags`].
pub mod head_flag {
    /// The body of this message is teed.
    pub const TEE: u8 = 1;
    /// An [`super::kind::END`] record follows for this message.
    pub const END_FOLLOWS: u8 = 2;
    /// `Upgrade` was asked for or granted.
    pub const UPGRADE: u8 = 4;
    /// The client waits for `100 Continue` before it sends the body (RFC 9110 §10.1.1).
    pub const EXPECT: u8 = 8;
    /// Of a [`super::kind::VERSION`]: the first reading has no request of this number; the other one has more of them.
    pub const MORE: u8 = 128;
}

/// A request or response head. In the ring it is followed by `credentials` entries of [`Credential`], then by
/// `captures_len` bytes of captures.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadRecord {
    /// Common head.
    pub head: RecordHead,
    /// Client address, IPv4 as mapped IPv6 (`::ffff:a.b.c.d`), network order.
    pub client: [u8; 16],
    /// Server address, likewise.
    pub server: [u8; 16],
    /// Client port, host order.
    pub client_port: u16,
    /// Server port, host order.
    pub server_port: u16,
    /// Route by the kernel's automaton, [`NO_ROUTE`] or [`ROUTE_NOT_CANONICAL`]; of a response: that of its request.
    pub route: u16,
    /// Status code of a response, 0 where unknown or a request.
    pub status: u16,
    /// Declared body length, or [`NO_LENGTH`].
    pub content_length: u64,
    /// Hash of `User-Agent`, 0 when there is none.
    pub user_agent: u64,
    /// Bytes of the head, including the empty line.
    pub head_bytes: u32,
    /// Bits of [`anomaly`].
    pub anomalies: u32,
    /// One of [`method`] for a request (and of the request, for a response).
    pub method: u8,
    /// One of [`version`].
    pub version: u8,
    /// One of [`framing`].
    pub framing: u8,
    /// Bits of [`head_flag`].
    pub flags: u8,
    /// Number of credentials that follow.
    pub credentials: u16,
    /// Bytes of captures that follow the credentials.
    pub captures_len: u16,
    /// Where the captures stand in the capture area; a length of 0 means absent.
    pub captures: [Span; capture::COUNT],
    /// Client address that a PROXY protocol header named, as `client`; all 0 for none. Whether it is to be believed
    /// depends on who `client` is.
    pub proxied: [u8; 16],
    /// Port of that client, host order.
    pub proxied_port: u16,
    /// Always 0.
    pub reserved: [u8; 6],
}

/// Methods known to the route automaton.
pub mod method {
    /// Any method not listed here.
    pub const OTHER: u8 = 0;
    /// GET
    pub const GET: u8 = 1;
    /// HEAD
    pub const HEAD: u8 = 2;
    /// POST
    pub const POST: u8 = 3;
    /// PUT
    pub const PUT: u8 = 4;
    /// DELETE
    pub const DELETE: u8 = 5;
    /// PATCH
    pub const PATCH: u8 = 6;
    /// OPTIONS
    pub const OPTIONS: u8 = 7;
    /// CONNECT
    pub const CONNECT: u8 = 8;
    /// Number of values.
    pub const COUNT: usize = 9;
}

/// End of a message body.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EndRecord {
    /// Common head.
    pub head: RecordHead,
    /// Body bytes seen, transfer coding removed.
    pub body_bytes: u64,
    /// 1 when the body ended as its framing says, 0 when the connection closed or a gap cut it short.
    pub complete: u32,
    /// Bits of [`anomaly`] that the body, not the head, showed.
    pub anomalies: u32,
}

/// Bytes of a teed body; `len` bytes follow. `head.offset` counts body bytes (transfer coding removed) from 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TeeRecord {
    /// Common head.
    pub head: RecordHead,
    /// Bytes that follow.
    pub len: u32,
    /// Always 0.
    pub reserved: u32,
}

/// The state of a half at the byte from which the slow path follows it. When `captured` is not 0, a
/// [`crate::work::Captured`] follows: the captures of the head that is open there.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HandoverRecord {
    /// Common head; `offset` counts the half's bytes up to there.
    pub head: RecordHead,
    /// The connection.
    pub key: crate::flow::FlowKey,
    /// The flow as it stands, both halves and the outstanding requests included.
    pub flow: crate::flow::Flow,
    /// 1 when captures follow.
    pub captured: u32,
    /// Always 0.
    pub reserved: u32,
}

/// A piece of a TCP segment, `len` bytes of payload follow. `head.offset` is 0; the place is a sequence number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SegmentRecord {
    /// Common head.
    pub head: RecordHead,
    /// The connection.
    pub key: crate::flow::FlowKey,
    /// Sequence number of the first byte that follows.
    pub sequence: u32,
    /// What the segment acknowledges, of the other half. Of [`kind::AGAIN`] (whose head has as offset how many requests
    /// wait for an answer, up to that message): sequence number of the first byte of the
    /// message that the piece is compared with.
    pub acknowledged: u32,
    /// Bits of [`crate::packet::tcp_flag`], and [`SEGMENT_LAST`]; FIN stands on the last piece only.
    pub flags: u32,
    /// Bytes that follow.
    pub len: u32,
}

/// Bit of [`SegmentRecord::flags`]: the last piece of its segment.
pub const SEGMENT_LAST: u32 = 1 << 16;

/// A piece of an IP fragment, `len` bytes of the datagram's payload follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FragmentRecord {
    /// Common head; flow and service are unknown.
    pub head: RecordHead,
    /// Source address.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
    /// The datagram's identification.
    pub identification: u32,
    /// Offset of the piece in the datagram's payload.
    pub at: u32,
    /// Bytes that follow.
    pub len: u32,
    /// 1 unless the piece ends the datagram.
    pub more: u32,
    /// IP protocol of the datagram's payload.
    pub protocol: u32,
    /// Always 0.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<RecordHead>() == 48);
    assert!(size_of::<Credential>() == 32);
    assert!(size_of::<HeadRecord>() == 48 + 32 + 8 + 16 + 8 + 8 + 32 + 24);
    assert!(size_of::<EndRecord>() == 64);
    assert!(size_of::<TeeRecord>() == 56);
    assert!(size_of::<HandoverRecord>() == 48 + 40 + size_of::<crate::flow::Flow>() + 8);
    assert!(size_of::<SegmentRecord>() == 48 + 40 + 16);
    assert!(size_of::<FragmentRecord>() == 48 + 32 + 24);
};
