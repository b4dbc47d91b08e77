//! One connection: what stands in the flow table.
//!
//! A [`Flow`] has the queue of outstanding requests and two [`Half`]s, one a direction, each with its own lock word and
//! its own resumable [`Parser`]. No captures stand here; a head that crosses segments keeps them in a slot of their own.

use crate::siphash::SipState;
use crate::wire::{FlowId, NAME_MAX};

/// Key of the flow table: always client to server, whatever the direction of the packet.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FlowKey {
    /// Client address.
    pub client: [u64; 2],
    /// Server address.
    pub server: [u64; 2],
    /// Client port.
    pub client_port: u16,
    /// Server port.
    pub server_port: u16,
    /// Always 0.
    pub reserved: u32,
}

impl FlowKey {
    /// A hash of the connection, for [`FlowId::salt`] and the choice of a ring.
    #[inline(always)]
    pub const fn salt(&self) -> u32 {
        let mut hash =
            self.client[0] ^ self.client[1].rotate_left(17) ^ self.server[0].rotate_left(31) ^ self.server[1];
        hash ^= (self.client_port as u64) << 16 | self.server_port as u64;
        hash = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as u32
    }
}

/// Outstanding requests that the queue holds.
pub const QUEUE: u32 = 32;

/// What a response needs to know of its request.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outstanding {
    /// Route of the request.
    pub route: u16,
    /// Its method ([`crate::wire::method`]).
    pub method: u8,
    /// Bits of [`outstanding_flag`].
    pub flags: u8,
}

/// Bits of [`Outstanding::flags`].
pub mod outstanding_flag {
    /// Tee the response body.
    pub const TEE: u8 = 1;
    /// The end of the response body is wanted.
    pub const WANT_END: u8 = 2;
    /// The request had version HTTP/0.9: the response has no head.
    pub const HTTP_09: u8 = 4;
}

/// Bits of [`Flow::flags`].
pub mod flow_flag {
    /// The connection stopped being HTTP/1 (upgrade, CONNECT, TLS, HTTP/2, other).
    pub const PASSED: u32 = 1;
    /// Picked up mid-stream.
    pub const PICKED_UP: u32 = 2;
    /// Seen from its SYN on.
    pub const OPENED: u32 = 16;
    /// FIN from the client.
    pub const FIN_REQUEST: u32 = 4;
    /// FIN from the server.
    pub const FIN_RESPONSE: u32 = 8;
    /// The slow path follows the flow.
    pub const SLOW: u32 = 32;
    /// It was said that the connection is over.
    pub const CLOSED: u32 = 64;
    /// Both ends were seen.
    pub const FIN_BOTH: u32 = FIN_REQUEST | FIN_RESPONSE;
}

/// What a half does with bytes that are next in order. Stored in [`Parser::phase`].
pub mod phase {
    /// Between messages.
    pub const START: u8 = 0;
    /// Method of a request line.
    pub const METHOD: u8 = 1;
    /// First byte of the target.
    pub const TARGET: u8 = 2;
    /// Path of the target.
    pub const PATH: u8 = 3;
    /// Name of a query parameter.
    pub const QUERY_NAME: u8 = 4;
    /// A percent escape in the name of a query parameter.
    pub const QUERY_ESCAPE: u8 = 5;
    /// Value of a query parameter that is no credential.
    pub const QUERY_SKIP: u8 = 6;
    /// Fragment of a target, which is not captured.
    pub const FRAGMENT: u8 = 7;
    /// Rest of the request line, looking for its last word.
    pub const LINE_SKIP: u8 = 8;
    /// A word of the request line behind the target (the version, if it is the last).
    pub const LINE_WORD: u8 = 9;
    /// Status line.
    pub const STATUS: u8 = 10;
    /// First byte of a header line.
    pub const LINE_START: u8 = 11;
    /// Name of a header.
    pub const NAME: u8 = 12;
    /// Whitespace inside, or behind, the name of a header.
    pub const NAME_SPACE: u8 = 13;
    /// Whitespace in front of a value.
    pub const VALUE_SPACE: u8 = 14;
    /// Rest of a line that is of no interest.
    pub const SKIP: u8 = 15;
    /// Value that is captured.
    pub const CAPTURE: u8 = 16;
    /// Short value, gathered to be compared (lengths, codings).
    pub const GATHER: u8 = 17;
    /// `User-Agent`
    pub const AGENT: u8 = 18;
    /// First word of an `Authorization` value: scheme, or start of a bare credential.
    pub const AUTH_WORD: u8 = 19;
    /// A credential.
    pub const TOKEN: u8 = 20;
    /// Whitespace behind (or inside) a credential.
    pub const TOKEN_SPACE: u8 = 21;
    /// A percent escape inside a credential.
    pub const PERCENT: u8 = 22;
    /// Name of a cookie.
    pub const COOKIE_NAME: u8 = 23;
    /// Value of a cookie that is no credential.
    pub const COOKIE_SKIP: u8 = 24;
    /// Value of an attribute that ends a cookie's life.
    pub const ATTRIBUTE: u8 = 25;
    /// The LF of the empty line.
    pub const HEAD_END: u8 = 26;
    /// Body of known length, or chunk data.
    pub const BODY: u8 = 27;
    /// Chunk size line.
    pub const CHUNK_SIZE: u8 = 28;
    /// Rest of a chunk size line (extensions).
    pub const CHUNK_EXT: u8 = 29;
    /// Line end behind chunk data.
    pub const CHUNK_END: u8 = 30;
    /// First byte of a trailer line.
    pub const TRAILER_START: u8 = 31;
    /// Rest of a trailer line.
    pub const TRAILER_SKIP: u8 = 32;
    /// The LF of the empty line behind trailers.
    pub const TRAILER_END: u8 = 33;
    /// Behind a head whose lengths contradict each other.
    pub const UNKNOWN_BODY: u8 = 34;
    /// Body until the connection closes.
    pub const UNTIL_CLOSE: u8 = 35;
    /// Lost its place: waits for a start line at the start of a segment.
    pub const LOST: u8 = 36;
    /// Header of the PROXY protocol, version 1, behind its first word.
    pub const PROXY_LINE: u8 = 40;
    /// Header of the PROXY protocol, version 2, behind what a parser of HTTP takes for empty lines.
    pub const PROXY_BINARY: u8 = 41;
    /// First of the phases that consume nothing: something at the position is to be completed. Each stands in one place
    /// of the code, so that what it does is compiled, and verified, once.
    pub const COMPLETIONS: u8 = 64;
    /// The request line is complete.
    pub const LINE_DONE: u8 = 64;
    /// A captured value is complete.
    pub const CAPTURE_DONE: u8 = 65;
    /// A JWT's header and payload are complete.
    pub const CLAIMS_DONE: u8 = 66;
    /// A credential is complete.
    pub const TOKEN_DONE: u8 = 67;
    /// The head is complete.
    pub const HEAD_DONE: u8 = 68;
    /// The message is complete.
    pub const MESSAGE_DONE: u8 = 69;
    /// The place in the stream is lost.
    pub const GIVE_UP: u8 = 70;
    /// A gathered value is complete: its line is not folded.
    pub const GATHER_DONE: u8 = 71;
    /// A list of lengths, a byte a step.
    pub const LENGTH_LIST: u8 = 72;
    /// A fragment begins: what stands before it is captured.
    pub const FRAGMENT_START: u8 = 73;
    /// A chunk is odd: counted once for its message.
    pub const ODD_CHUNK: u8 = 74;
    /// The value of an attribute is complete.
    pub const ATTRIBUTE_DONE: u8 = 75;
    /// A list of addresses begins that may go on from an earlier line.
    pub const LIST_JOIN: u8 = 82;
    /// A list of addresses goes on, of which much was captured.
    pub const LIST_SHRINK: u8 = 83;
    /// The segment ends in a list of addresses.
    pub const LIST_FLUSH: u8 = 84;
    /// A header of the PROXY protocol is complete.
    pub const PROXY_DONE: u8 = 80;
    /// What began as a header of the PROXY protocol is none.
    pub const PROXY_BAD: u8 = 81;
    /// The half's state goes to the slow path, and then the segment.
    pub const HANDOVER: u8 = 90;
    /// The segment goes to the slow path, piece by piece.
    pub const HANDED: u8 = 91;
    /// The kernel took the flow back: says so, and begins between messages.
    pub const RESUMED: u8 = 92;
}

/// The resumable state of one half: everything that must survive from one segment to the next.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parser {
    /// One of [`phase`].
    pub phase: u8,
    /// Phase behind [`phase::VALUE_SPACE`]; kind of credential place while in a token.
    pub next: u8,
    /// Header whose value is being read (see `http::header`).
    pub header: u8,
    /// Bits of `http::state_flag`.
    pub flags: u8,
    /// Bits of [`crate::wire::anomaly`] of the message so far.
    pub anomalies: u32,
    /// Name, word or short value being gathered; hash state while a path segment is read.
    pub name: [u64; NAME_MAX / 8],
    /// Bytes gathered.
    pub name_len: u32,
    /// State of the route automaton.
    pub route_state: u32,
    /// Fingerprint in progress.
    pub sip: SipState,
    /// In a head: the declared length, or `NO_LENGTH`. In a body: bytes of it, or of the chunk, still to come.
    pub remaining: u64,
    /// Body bytes so far, transfer coding removed.
    pub body_bytes: u64,
    /// Stream offset at which the message began.
    pub message_at: u64,
    /// Offset within the credential of its first dot.
    pub first_dot: u32,
    /// Offset within the credential of its second dot.
    pub second_dot: u32,
    /// Status of a response.
    pub status: u16,
    /// Route of the message (of its request, for a response).
    pub route: u16,
    /// Method of the message (of its request, for a response).
    pub method: u8,
    /// Version of the start line.
    pub version: u8,
    /// How the body is delimited.
    pub framing: u8,
    /// Bits of [`crate::wire::head_flag`].
    pub head_flags: u8,
    /// Dots in the credential so far, at most 255.
    pub dots: u8,
    /// Index of the credential's configured name.
    pub index: u8,
    /// Scheme word.
    pub scheme: u8,
    /// Bits of `http::token_flag`.
    pub token_flags: u8,
    /// Transaction number of the message whose body is being read.
    pub txn: u32,
}

/// One direction of a connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Half {
    /// 0 when free, else taken.
    pub lock: u32,
    /// Sequence number of the next byte in order.
    pub next_sequence: u32,
    /// Bytes of the stream so far, gaps included.
    pub consumed: u64,
    /// Hand-over epoch: how often the slow path took the half.
    pub epoch: u16,
    /// Bits of [`half_flag`].
    pub flags: u16,
    /// What the other side last acknowledged of the half in a segment without payload; 0 until then. Of the request half
    /// only. Written by the other direction, outside the lock.
    pub acknowledged: u32,
    /// Parser state.
    pub parser: Parser,
}

/// Bits of [`Half::flags`].
pub mod half_flag {
    /// `next_sequence` is known.
    pub const STARTED: u16 = 1;
    /// Captures of an unfinished head stand in a slot.
    pub const SLOT: u16 = 2;
    /// The half was handed over to the slow path.
    pub const SLOW: u16 = 4;
}

/// One connection.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Its id.
    pub id: FlowId,
    /// Index of the service, or `NO_SERVICE`.
    pub service: u16,
    /// Port of the client that a PROXY protocol header named, with `proxied`.
    pub proxied_port: u16,
    /// Bits of [`flow_flag`].
    pub flags: u32,
    /// Requests whose heads were completed: the next transaction number. Written by the request half.
    pub requested: u32,
    /// Transaction number that the next response answers. Written by the response half.
    pub answered: u32,
    /// Address of the client that a PROXY protocol header named; all 0 for none.
    pub proxied: [u64; 2],
    /// The outstanding requests, by transaction number modulo [`QUEUE`].
    pub queue: [Outstanding; QUEUE as usize],
    /// From the client.
    pub request: Half,
    /// From the service.
    pub response: Half,
}

/// Key of a slot for a head that crosses segments.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct SlotKey {
    /// The flow.
    pub flow: FlowId,
    /// One of [`crate::wire::direction`].
    pub direction: u64,
}

/// Where a segment of a head that came in several stands in its connection's requests.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct HeadPieceKey {
    /// The flow.
    pub flow: FlowId,
    /// Place of its first byte in the stream of requests, which never wraps.
    pub position: u64,
}

/// What is remembered of such a segment: enough to know it again, and none of its bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadPiece {
    /// Its sequence number.
    pub sequence: u32,
    /// Payload bytes.
    pub len: u32,
    /// Keyed digest of them.
    pub digest: u64,
}

const _: () = {
    assert!(size_of::<FlowKey>() == 40);
    assert!(size_of::<Flow>() <= 512);
};
