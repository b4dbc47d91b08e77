//! What the collector counts. Nothing is dropped without one of these moving.

/// Totals since the collector was made. Requests taken in = `observations` + `pending`; requests received =
/// `requests` + `requests_lost` (DESIGN invariant 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CollectorCounts {
    /// Records handed in, of any kind, malformed ones included.
    pub records: u64,
    /// Request records taken in.
    pub requests: u64,
    /// Response records taken in.
    pub responses: u64,
    /// Request records that were received but found no room in the queue.
    pub requests_lost: u64,
    /// Other records that found no room in the queue.
    pub others_lost: u64,
    /// Records that contradict their own layout.
    pub malformed: u64,
    /// Records that came after the watermark had passed their time: applied at once, out of order.
    pub late: u64,
    /// Observations made.
    pub observations: u64,
    /// Requests queued or waiting for their response, now.
    pub pending: u64,
    /// Observations without a response: timed out, closed or evicted.
    pub unanswered: u64,
    /// Requests given up early because the table was full.
    pub evicted: u64,
    /// Requests given up because another came with the same transaction number.
    pub duplicate_requests: u64,
    /// Other versions of a request (a retransmission said something else).
    pub versions: u64,
    /// Of these, those whose request was not there any more: not judged.
    pub versions_late: u64,
    /// Of these, requests that the first reading does not have: each an observation of its own, which is not among
    /// `observations`.
    pub versions_more: u64,
    /// Of these, that said the same as the first.
    pub versions_same: u64,
    /// Connections of which another reading was seen, forgotten because there were too many: what they seem to issue is not
    /// doubted any more.
    pub shaken_forgotten: u64,
    /// Requests whose PROXY protocol header named a client that was not believed, because its sender is not trusted.
    pub proxies_refused: u64,
    /// Responses without a known request.
    pub unmatched_responses: u64,
    /// Second responses to one request.
    pub duplicate_responses: u64,
    /// Requests that only the sensor's kernel side could classify, and did not: the path is cut.
    pub unclassified: u64,
    /// Teed bodies longer than is kept.
    pub tee_truncated: u64,
    /// Teed bodies dropped for want of room.
    pub tee_evicted: u64,
    /// Tee records of bodies that nothing is read from.
    pub tee_unwanted: u64,
    /// Compressed bodies by what became of them.
    pub decoding: DecodingCounts,
    /// Issuances by kind.
    pub issuances: IssuanceCounts,
}

/// What became of whole bodies of issuing routes that had a content coding. All but the first leave a gap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DecodingCounts {
    /// Decoded.
    pub decoded: u64,
    /// Of a coding that is not known, or of more than three.
    pub unknown_coding: u64,
    /// Ended before their coding did.
    pub truncated: u64,
    /// Not what their coding says.
    pub corrupt: u64,
    /// Longer than `decoded_bytes`.
    pub too_long: u64,
    /// In need of a larger window than is granted.
    pub window: u64,
}

/// What became of issuances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IssuanceCounts {
    /// Entered by a login.
    pub added: u64,
    /// Entered by a refresh or renewal, with the parent's provenance.
    pub inherited: u64,
    /// Not entered: the credential was in a request before.
    pub echo: u64,
    /// Known before.
    pub known: u64,
    /// Not entered: the ledger was full.
    pub full: u64,
    /// A successful response lacked a credential that its route declares.
    pub missing: u64,
    /// Not entered: `Set-Cookie` that makes the client forget a cookie.
    pub deleted: u64,
    /// Known to have happened, but not readable (reported to the ledger as a gap).
    pub lost: u64,
    /// Credentials ended by a logout.
    pub revoked: u64,
}
