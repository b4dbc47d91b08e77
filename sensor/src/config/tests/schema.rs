//! The documentation and the shipped file name the keys that the reader asks for, no more and no fewer.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use super::config;
use super::values::{FULL, SHIPPED};
use crate::config::read;
use crate::config::reader::Context;

const GUIDE: &str = include_str!("../../../../docs/configure.md");

/// The keys that the reader asks for on a file that reaches every section, and those of them that it can refuse.
fn asked() -> (BTreeSet<String>, BTreeSet<String>) {
    let mut cx = Context::new(Path::new("f.toml"), FULL);
    read(Path::new("f.toml"), FULL, &mut cx).unwrap();
    (cx.known, cx.refused)
}

/// One row of the guide's tables.
struct Row {
    path: String,
    default: String,
    not_yet: bool,
}

fn rows() -> Vec<Row> {
    let mut prefix = String::new();
    let mut rows = Vec::new();
    for line in GUIDE.lines() {
        if let Some(heading) = line.strip_prefix("## ").or(line.strip_prefix("### ")) {
            let section = heading.trim_matches(|c| "`[]".contains(c));
            prefix = if heading.starts_with('`') { format!("{section}.") } else { String::new() };
        } else if let Some(row) = line.strip_prefix("| `") {
            let (key, rest) = row.split_once('`').unwrap();
            let default = rest.split('|').nth(2).unwrap().trim().trim_matches('`').to_owned();
            rows.push(Row { path: format!("{prefix}{key}"), default, not_yet: line.contains("*not yet*") });
        }
    }
    rows
}

#[test]
fn the_guide_names_every_key() {
    let (asked, _) = asked();
    let documented: BTreeSet<String> = rows().into_iter().map(|row| row.path).collect();
    assert_eq!(documented, asked);
}

#[test]
fn the_guide_marks_what_is_not_implemented() {
    // Of these one value is refused, not the key.
    let by_value = ["shards", "ledger.store"].map(str::to_owned);
    let marked: BTreeSet<String> = rows().into_iter().filter(|row| row.not_yet).map(|row| row.path).collect();
    let refused: BTreeSet<String> = asked().1.into_iter().chain(by_value).collect();
    assert_eq!(marked, refused);
}

#[test]
fn the_guide_states_the_defaults_of_every_bound() {
    let mut text = String::new();
    for section in ["ledger", "bounds", "metrics", "estimate", "estimate.doubt"] {
        writeln!(text, "[{section}]").unwrap();
        let prefix = format!("{section}.");
        for row in rows().iter().filter(|row| {
            row.path.starts_with(&prefix) && !row.default.is_empty() && !row.path[prefix.len()..].contains('.')
        }) {
            writeln!(text, "{} = {}", &row.path[prefix.len()..], row.default).unwrap();
        }
    }
    assert!(text.lines().count() >= 20, "{text}");
    let (stated, default) = (config(&text), config(""));
    assert_eq!(format!("{:?}", stated.bounds), format!("{:?}", default.bounds));
    assert_eq!(format!("{:?}", stated.ledger), format!("{:?}", default.ledger));
    assert_eq!(stated.estimate, default.estimate);
    assert_eq!(stated.metrics_listen, default.metrics_listen);
}

#[test]
fn the_shipped_file_has_every_implemented_key() {
    let (asked, refused) = asked();
    // A key beside a table of its own, or inside an inline table, counts wherever its name is assigned.
    let has = |key: &str| SHIPPED.contains(&format!("{key} = ")) || SHIPPED.contains(&format!("{key}]"));
    for path in asked.difference(&refused) {
        let key = path.rsplit('.').next().unwrap();
        // The table of sinks holds nothing but what is refused.
        assert!(path == "sinks" || has(key), "{path} is missing");
    }
}
