//! Names of the anomaly bits that a head can carry: what rules, metrics and the transaction list call them.
//!
//! The bits are those of [`sensor_ebpf::wire::anomaly`]; a name is its constant's in lower case and never changes. A
//! test holds the two lists together.

use sensor_ebpf::wire::anomaly as bits;

/// Every anomaly by name, in the order of its bit. `docs/rules.md` says what each means.
pub const NAMES: &[(&str, u32)] = &[
    ("line_cut", bits::LINE_CUT),
    ("obs_fold", bits::OBS_FOLD),
    ("more_credentials", bits::MORE_CREDENTIALS),
    ("bad_length", bits::BAD_LENGTH),
    ("length_and_coding", bits::LENGTH_AND_CODING),
    ("odd_coding", bits::ODD_CODING),
    ("captures_lost", bits::CAPTURES_LOST),
    ("picked_up", bits::PICKED_UP),
    ("early", bits::EARLY),
    ("unsolicited", bits::UNSOLICITED),
    ("queue_overflow", bits::QUEUE_OVERFLOW),
    ("bad_line", bits::BAD_LINE),
    ("many_authorizations", bits::MANY_AUTHORIZATIONS),
    ("value_cut", bits::VALUE_CUT),
    ("conflict", bits::CONFLICT),
    ("ambiguous", bits::AMBIGUOUS),
    ("odd_header", bits::ODD_HEADER),
    ("odd_chunk", bits::ODD_CHUNK),
    ("odd_line", bits::ODD_LINE),
    ("odd_host", bits::ODD_HOST),
    ("after_odd_body", bits::AFTER_ODD_BODY),
];

/// The names of the bits that are set in `anomalies`.
pub fn names(anomalies: u32) -> impl Iterator<Item = &'static str> {
    NAMES.iter().filter(move |(_, bit)| anomalies & bit != 0).map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_its_name() {
        let source = include_str!("../../sensor-ebpf/src/wire.rs");
        let module = source.split("pub mod anomaly {").nth(1).unwrap().split("\n}").next().unwrap();
        let constants = module.lines().filter_map(|line| line.trim().strip_prefix("pub const ")?.split(':').next());
        let constants: Vec<_> = constants.map(str::to_lowercase).collect();
        assert_eq!(constants, NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>());
        let all = NAMES.iter().fold(0, |all, (_, bit)| all | bit);
        assert_eq!(all.count_ones() as usize, NAMES.len(), "one bit each");
        assert_eq!(names(all).count(), NAMES.len());
        assert_eq!(names(bits::CONFLICT | 1 << 31).collect::<Vec<_>>(), ["conflict"]);
    }

    #[test]
    fn the_documentation_explains_every_name() {
        let text = include_str!("../../docs/rules.md");
        for (name, _) in NAMES {
            assert!(text.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
