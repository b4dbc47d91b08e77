//! `docs/metrics.md` says what is exported, no more and no less.

use std::fmt::Write;
use std::path::Path;

use super::*;
use crate::metrics::observations::Login;

/// The tables of the documentation, from the catalogue and the list of counters with its comments.
fn tables() -> String {
    let mut text = String::from("| metric | type | labels | unit | meaning |\n|---|---|---|---|---|\n");
    for Family { name, kind, labels, unit, help } in ALL {
        let kind = format!("{kind:?}").to_lowercase();
        let labels = labels.iter().map(|label| format!("`{label}`")).collect::<Vec<_>>().join(", ");
        writeln!(text, "| `{name}` | {kind} | {labels} | {unit} | {help} |").unwrap();
    }
    text.push_str("\n### Kernel counters\n\n| counter | metric | meaning |\n|---|---|---|\n");
    let source = include_str!("../../../../sensor-ebpf/src/reason.rs");
    for &counter in Counter::ALL {
        let line = format!("    {counter:?} = \"{}\",", counter.label());
        let (before, _) = source.split_once(&line).unwrap();
        let comments = before.lines().rev().map_while(|line| line.trim().strip_prefix("/// "));
        let meaning = comments.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" ");
        assert!(!meaning.is_empty(), "{counter:?}");
        writeln!(text, "| `{}` | `{}` | {meaning} |", counter.label(), kernel::home(counter).name).unwrap();
    }
    text
}

#[test]
fn the_documentation_is_in_step() {
    const BEGIN: &str = "<!-- begin: checked by a test -->\n\n";
    const END: &str = "\n<!-- end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    let tables = tables();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{tables}{END}{after}")).unwrap();
    } else {
        assert!(written == tables, "docs/metrics.md is out of step: run this test with UPDATE_DOCS=1");
    }
    let words = RouteClass::ALL.iter().map(|value| value.label());
    let words = words.chain(Provenance::ALL.iter().map(|value| value.label()));
    let words = words.chain(Outcome::ALL.iter().map(|value| value.label()));
    let words = words.chain(Login::ALL.iter().map(|value| value.label()));
    let words = words.chain(Bound::ALL.iter().map(|value| value.label()));
    let words = words.chain(control::ISSUANCE_RESULTS).chain(control::DECODING_RESULTS).chain(control::FOLDER_EVENTS);
    let words = words.chain(control::LIVES).chain(journal::JOURNAL_EVENTS).chain(detectable::HORIZONS);
    let words = words.chain(crate::detect::WINDOWS.map(|(window, _)| window));
    let words = words.chain(push::PUSHED_RESULTS).chain([push::NO_SOURCE]);
    let words = words.chain(PushRequest::ALL.iter().map(|value| value.label()));
    let words = words.chain(PushReload::ALL.iter().map(|value| value.label()));
    let words = words.chain(PushConnection::ALL.iter().map(|value| value.label()));
    for word in words.chain([NO_SERVICE]).chain(PROGRAMS.iter().copied()) {
        assert!(
            before.contains(&format!("`{word}`")) || after.contains(&format!("`{word}`")),
            "{word} is not explained"
        );
    }
}
