//! What a conversation was understood as, made comparable.

use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{credential_flag, place};

use super::packets::Segment;
use super::rig::{self, Output, Seen};

/// Totals that say how the conversation was understood, and so must not depend on how it came.
pub const SAME: &[Counter] = &[
    Counter::HeadsCompleted,
    Counter::HeadsRequest,
    Counter::RecordsEmitted,
    Counter::FlowsCreated,
    Counter::FlowsPickedUp,
    Counter::FlowsUpgraded,
    Counter::Desynchronised,
    Counter::Unsolicited,
    Counter::PairingOverflow,
    Counter::BytesNew,
];

/// Makes outputs of the same conversation equal, whatever the network did to it.
pub fn put_in_order(output: &mut Output) {
    // Requests and answers of pipelines pass each other.
    output.heads.sort_by_key(|head| (head.txn, !head.request));
    output.ends.sort_unstable();
    // Header and payload of a JWT in a query are only taken when it stands in one segment as a whole.
    let heads = output.heads.iter_mut().chain(&mut output.versions);
    for found in heads.flat_map(|head| &mut head.credentials) {
        if found.place == place::QUERY {
            found.claims = None;
            found.flags &= !(credential_flag::CLAIMS | credential_flag::CLAIMS_CUT);
        }
    }
}

/// What was sent again says what was said first, as far as it can be told (else it has no head).
pub fn check_versions(whole: &Output, versions: &[Seen]) {
    for version in versions.iter().filter(|version| version.head_bytes > 0) {
        let first = whole.heads.iter().find(|head| head.request && head.txn == version.txn).expect("a request");
        assert_eq!((&version.captures, &version.credentials), (&first.captures, &first.credentials));
    }
}

/// What only one of the two has.
pub fn difference(cut: &Output, whole: &Output) -> String {
    let lines = |output: &Output| {
        let heads = output.heads.iter().map(|head| format!("{head:?}"));
        let rest =
            [format!("ends {:?}", output.ends), format!("teed {:?}", output.teed), format!("closes {}", output.closes)];
        heads.chain(rest).collect::<Vec<String>>()
    };
    let (cut, whole) = (lines(cut), lines(whole));
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<String>>().join("\n")
    };
    format!("as it came, it gives\n{}\nand not\n{}", only(&cut, &whole), only(&whole, &cut))
}

/// A segment as a line.
pub fn show(segment: &Segment) -> String {
    let side = if segment.to.port() == rig::PORT { "client" } else { "server" };
    format!("{side} {} flags {} {}", segment.sequence, segment.flags, segment.payload.escape_ascii())
}
