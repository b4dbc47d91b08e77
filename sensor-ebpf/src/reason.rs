//! The one list of things that are counted on the data plane.
//!
//! A [`Counter`] is at once the index into the kernel's per-CPU totals, a label of a metric and an entry of
//! `docs/metrics.md`. Three identities hold over them (see [`Counter::PACKET_DISPOSITIONS`] and its siblings):
//! packets seen = sum over dispositions; heads completed = records emitted + records lost; new stream bytes =
//! parsed + skipped + handed over + gap.

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// What is counted; the discriminant is the index into [`crate::wire::Totals`].
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Counter { $($(#[$doc])* $name,)* }

        impl Counter {
            /// All counters, in index order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];
            /// Number of counters.
            pub const COUNT: usize = Self::ALL.len();

            /// The metric label value and documentation name.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

counters! {
    /// Packets that entered a program.
    PacketsSeen = "seen",
    /// Not IPv4 or IPv6.
    PacketNotIp = "not_ip",
    /// IP, but not TCP.
    PacketNotTcp = "not_tcp",
    /// An IP fragment. In replay, the packet that completes a datagram counts as what the datagram is; live, every
    /// fragment counts here, and the slow path puts them together.
    PacketFragment = "fragment",
    /// Headers cut short or contradicting each other.
    PacketMalformed = "malformed",
    /// TCP, but of no declared service.
    PacketNoService = "no_service",
    /// Of a service, without payload.
    PacketEmpty = "empty",
    /// Of a service, without payload, for a flow that is not known.
    PacketNoFlow = "no_flow",
    /// SYN or SYN-ACK: a flow was made or its server half started.
    PacketSyn = "syn",
    /// New in-order payload that was parsed or skipped.
    PacketData = "data",
    /// Only bytes that were seen before.
    PacketDuplicate = "duplicate",
    /// Payload beyond the next expected byte (a hole): what lies between was not seen yet, or never will be.
    PacketHole = "hole",
    /// The half was busy on another CPU beyond the bounded spin.
    PacketBusy = "busy",
    /// The flow table refused the flow.
    PacketFlowTableFull = "flow_table_full",
    /// Of a flow that the slow path follows.
    PacketSlow = "slow",
    /// Payload of a flow that left HTTP (upgrade, CONNECT, or not HTTP at all).
    PacketPassed = "passed",

    /// New stream bytes of service flows.
    BytesNew = "bytes_new",
    /// Parsed as heads or framing.
    BytesParsed = "bytes_parsed",
    /// Skipped as bodies, or of flows that are not (or no longer) HTTP.
    BytesSkipped = "bytes_skipped",
    /// Handed over to the slow path, which says by itself what became of them.
    BytesHandedOver = "bytes_handed_over",
    /// Never seen: holes.
    BytesGap = "bytes_gap",

    /// Heads completed (1xx responses are not counted).
    HeadsCompleted = "heads_completed",
    /// Request heads completed.
    HeadsRequest = "heads_request",
    /// Records put on a ring for heads.
    RecordsEmitted = "records_emitted",
    /// Head records lost because the event ring was full.
    LostEventRing = "event_ring_full",
    /// `END`, `CLOSE` and `TEE_END` records lost because their ring was full.
    LostEnd = "end_ring_full",
    /// Tee records lost because the byte ring was full.
    LostByteRing = "byte_ring_full",
    /// Bytes in lost tee records.
    LostByteRingBytes = "byte_ring_full_bytes",

    /// Records for the slow path lost because the byte ring was full.
    LostSegment = "segment_ring_full",

    /// Halves of flows handed over to the slow path.
    HalvesHandedOver = "halves_handed_over",
    /// Flows that the slow path gave back.
    FlowsResumed = "flows_resumed",
    /// Segments of bytes that were seen before, of a request without an answer: compared with the first.
    SegmentsCompared = "segments_compared",

    /// Flows created.
    FlowsCreated = "flows_created",
    /// Flows removed on close or reset.
    FlowsDeleted = "flows_deleted",
    /// Flows created by mid-stream pick-up.
    FlowsPickedUp = "flows_picked_up",
    /// Flows that left HTTP by upgrade or CONNECT.
    FlowsUpgraded = "flows_upgraded",
    /// Flows whose first bytes are a TLS record.
    PassedTls = "tls",
    /// Flows whose first bytes are the HTTP/2 preface.
    PassedH2 = "h2",
    /// Halves that lost their place in the stream and wait for the next request line.
    Desynchronised = "desynchronised",
    /// A half found its place again.
    Resynchronised = "resynchronised",
    /// Heads split over segments whose slot was gone when they continued.
    HeadSlotLost = "head_slot_lost",
    /// Heads longer than the bound: abandoned, half desynchronised.
    HeadTooLong = "head_too_long",
    /// Responses whose packet does not acknowledge the request that they answer.
    Ambiguous = "ambiguous",
    /// Responses without a request.
    Unsolicited = "unsolicited",
    /// More than 32 requests outstanding on a flow.
    PairingOverflow = "pairing_overflow",
    /// Flows of a service with PROXY protocol that do not begin with its header: read as HTTP, the client is the peer.
    ProxyMissing = "proxy_missing",
    /// Flows whose PROXY protocol header is malformed: not read.
    ProxyMalformed = "proxy_malformed",
    /// The step budget of one segment ran out.
    StepBudget = "step_budget",

    /// Fragmented IP datagrams that were put together.
    FragmentsReassembled = "fragments_reassembled",
    /// Of those, datagrams of which two versions of some bytes were seen.
    FragmentsConflicting = "fragments_conflicting",
    /// Fragmented IP datagrams that were given up (too old, pushed out, contradicting themselves), and fragments that fit
    /// nowhere.
    FragmentsDropped = "fragments_dropped",
    /// Of datagrams put together on the slow path: segments for which the fast path gave no flow in time (none was known,
    /// or it is not a service's).
    FragmentsUnclaimed = "fragments_unclaimed",
    /// IP fragments that were not sent to the slow path because the byte ring was half full, or a piece of them did not
    /// fit it.
    LostFragment = "fragment_ring_full",
    /// Messages whose request line was longer than what is captured of it.
    AnomalyLineCut = "line_cut",
    /// Messages with a captured header value that was cut.
    AnomalyValueCut = "value_cut",
    /// Messages with a folded header line.
    AnomalyFold = "obs_fold",
    /// Messages with more credentials than a record holds.
    AnomalyMoreCredentials = "more_credentials",
    /// Messages with more than one `Authorization` header.
    AnomalyManyAuthorizations = "many_authorizations",
    /// Messages whose `Content-Length` is no number, or is given twice with different values.
    AnomalyBadLength = "bad_length",
    /// Messages with `Content-Length` and `Transfer-Encoding`.
    AnomalyLengthAndCoding = "length_and_coding",
    /// Messages with a `Transfer-Encoding` that servers read differently.
    AnomalyOddCoding = "odd_coding",
    /// Messages with a header line that servers read differently.
    AnomalyOddHeader = "odd_header",
    /// Messages with a chunk that servers read differently.
    AnomalyOddChunk = "odd_chunk",
    /// Messages with a request line that servers read differently.
    AnomalyOddLine = "odd_line",
    /// Start lines that could not be understood.
    AnomalyBadLine = "bad_line",
    /// Requests of HTTP/1.1 whose `Host` is missing, empty or repeated.
    AnomalyOddHost = "odd_host",
    /// Responses that came while the request head was unfinished.
    AnomalyEarly = "early",
}

impl Counter {
    /// Every packet has exactly one of these; their sum is [`Counter::PacketsSeen`].
    pub const PACKET_DISPOSITIONS: &'static [Self] = &[
        Self::PacketNotIp,
        Self::PacketNotTcp,
        Self::PacketFragment,
        Self::PacketMalformed,
        Self::PacketNoService,
        Self::PacketEmpty,
        Self::PacketNoFlow,
        Self::PacketSyn,
        Self::PacketData,
        Self::PacketDuplicate,
        Self::PacketHole,
        Self::PacketBusy,
        Self::PacketFlowTableFull,
        Self::PacketSlow,
        Self::PacketPassed,
    ];
    /// Their sum is [`Counter::BytesNew`].
    pub const BYTE_DISPOSITIONS: &'static [Self] =
        &[Self::BytesParsed, Self::BytesSkipped, Self::BytesHandedOver, Self::BytesGap];
    /// Their sum is [`Counter::HeadsCompleted`].
    pub const HEAD_DISPOSITIONS: &'static [Self] = &[Self::RecordsEmitted, Self::LostEventRing];
}
