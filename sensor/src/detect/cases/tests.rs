//! Cases over made rules, and the shipped ones.

use std::path::{Path, PathBuf};

use super::super::tests::{COUNT, config, rule_text, shipped};
use super::super::{exception, rule};
use super::*;

const ID: &str = "00000000-0000-4000-8000-000000000002";

fn played(cases: &str) -> (usize, Vec<String>) {
    let config = config();
    let text = rule_text("    provenance: unissued", COUNT);
    let mut mistakes = Mistakes::new(Path::new("r.yml"));
    let compiled = rule::compile(Path::new("r.yml"), &text, &config, &mut rule::Ids::new(), &mut mistakes);
    let rules = exception::apply(compiled.rules, &[], &mut mistakes.list);
    let set = RuleSet { rules, exceptions: Vec::new() };
    let mut mistakes = Mistakes::new(Path::new("tests/r.yml"));
    let count = play(&format!("rule: {ID}\ncases:\n{cases}"), &set, &config, &mut mistakes);
    (count, mistakes.list.iter().map(ToString::to_string).collect())
}

#[test]
fn a_case_that_comes_out_otherwise_is_a_mistake_with_its_place() {
    let three = "    observations:\n      - {repeat: 3, every: 1m, provenance: unissued, account: 'm{n}'}\n";
    let (count, wrong) = played(&format!("  - title: Three\n    fires: true\n{three}"));
    assert_eq!((count, wrong), (1, Vec::new()));
    let (_, wrong) = played(&format!("  - title: Three\n    fires: false\n{three}"));
    assert!(wrong[0].starts_with("tests/r.yml:3:5: the case `Three` makes the rule fire: Correlation: 3"), "{wrong:?}");
    let two = three.replace("repeat: 3", "repeat: 2");
    let (_, wrong) = played(&format!("  - title: Two\n    fires: true\n{two}"));
    let wanted = "tests/r.yml:3:5: the case `Two` does not make the rule fire: of 2 observations 2 count";
    assert!(wrong[0].starts_with(wanted), "{wrong:?}");
}

#[test]
fn what_a_case_cannot_say_is_refused() {
    for (line, wanted) in [
        (
            "{provenance: unisued}",
            "tests/r.yml:6:22: `unisued` is no value of `provenance` here. Did you mean `unissued`?",
        ),
        (
            "{provenence: unissued}",
            "tests/r.yml:6:10: observations have no field `provenence`. Did you mean `provenance`?",
        ),
        ("{network: 192.0.2.0/24}", "`network` here. Say who the `client` is"),
        ("{repeat: 0}", "`0` is no number of repetitions"),
        ("{every: 5x}", "`5x` is no duration"),
        ("{status: 70000}", "`70000` is no value of `status` here"),
        ("{account: ~}", "a value is missing here"),
    ] {
        let (_, wrong) = played(&format!("  - title: T\n    fires: true\n    observations:\n      - {line}\n"));
        assert!(wrong.iter().any(|wrong| wrong.contains(wanted)), "{line}: {wrong:?}");
    }
    let (_, wrong) = played("  - title: T\n    fires: maybe\n");
    assert!(wrong[0].contains("`maybe` is no yes or no"), "{wrong:?}");
}

fn shipped_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/detection")
}

#[test]
fn the_shipped_cases_come_out_as_written() {
    let count = check(&[shipped_folder()], &shipped(), &config())
        .unwrap_or_else(|errors| panic!("{}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")));
    assert!(count >= 2 * shipped().info().count(), "{count}");
}

#[test]
fn every_shipped_rule_has_a_case_that_fires_and_a_benign_one() {
    let folder = shipped_folder().join("tests");
    for fires in [true, false] {
        assert_eq!(without(&folder, &shipped(), fires), Vec::<String>::new(), "fires: {fires}");
    }
}
