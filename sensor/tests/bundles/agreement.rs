//! `docs/agreement.md`: the cases in which we differ on purpose.

use std::collections::BTreeSet;

const TABLE: &str = include_str!("../../../docs/agreement.md");

/// Compares what differs with what should.
pub fn check(peer: &str, differences: &[(String, String)]) {
    let listed: BTreeSet<&str> = TABLE
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| ")?.split(" | ");
            (cells.next()? == peer).then(|| cells.next().map(|id| id.trim_matches('`')))?
        })
        .collect();
    let found: BTreeSet<&str> = differences.iter().map(|(id, _)| id.as_str()).collect();
    let new: Vec<_> = differences.iter().filter(|(id, _)| !listed.contains(id.as_str())).collect();
    let gone: Vec<_> = listed.difference(&found).collect();
    assert!(new.is_empty(), "{} differ and are not listed: {new:#?}", new.len());
    assert!(gone.is_empty(), "listed, but they agree: {gone:?}");
}
