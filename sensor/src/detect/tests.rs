//! Loading: what is accepted, what is refused and where.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::config::model::{self, Bounds, Config};
use crate::finding::model::Level;
use crate::observation::RouteClass;

pub(super) fn bounds() -> Bounds {
    Bounds {
        flows: 0,
        split_heads: 0,
        event_ring_bytes: 0,
        byte_ring_bytes: 0,
        poll_interval: Duration::ZERO,
        pending_requests: 0,
        unanswered_after: Duration::ZERO,
        tee_bytes: 0,
        tee_bodies: 0,
        head_bytes: 65_536,
        slow_path_bytes: 1 << 20,
        slow_half_bytes: 1 << 16,
        slow_flows: 64,
        hole_timeout: Duration::from_secs(5),
        fragments: 16,
        decoded_bytes: 1 << 16,
        kids: 64,
        claims_cache: 0,
        rule_groups: 1_000,
        quiet_groups: 1_000,
        group_values: 4_096,
        journal_bytes: 1 << 20,
        open_findings: 4096,
    }
}

/// Two services, `shop` (issuers `members`, `partners`; route `addresses`) and `admin` (issuer `staff`).
pub(super) fn config() -> Config {
    let service = |name: &str, issuers: &[&str], routes: &[&str]| model::Service {
        name: name.to_owned(),
        routes: routes.iter().map(|name| route(name)).collect(),
        issuers: issuers.iter().map(|name| issuer(name)).collect(),
        ..model::Service::default()
    };
    Config {
        path: PathBuf::new(),
        hash: String::new(),
        interfaces: Vec::new(),
        trusted_proxies: Vec::new(),
        client_header: model::ClientHeader::default(),
        tunnels: false,
        services: vec![service("shop", &["members", "partners"], &["addresses"]), service("admin", &["staff"], &[])],
        keys: model::Keys::default(),
        ledger: model::Ledger {
            store: model::LedgerStore::Memory,
            sync_interval: Duration::from_millis(500),
            max_accounts: 1000,
            max_issuances: 0,
            clock_leeway: Duration::ZERO,
            max_seen: 0,
        },
        approvals: PathBuf::new(),
        rules: Vec::new(),
        findings: model::Findings::Stdout,
        push: None,
        metrics_listen: "127.0.0.1:0".parse().unwrap(),
        estimate: model::Estimate::default(),
        bounds: bounds(),
    }
}

fn route(name: &str) -> model::Route {
    model::Route {
        name: name.to_owned(),
        methods: Vec::new(),
        segments: Vec::new(),
        template: String::new(),
        class: RouteClass::AccountRead,
        authenticates_with: Vec::new(),
        outcomes: Vec::new(),
        account: Vec::new(),
        object: None,
        issuance: None,
    }
}

fn issuer(name: &str) -> model::Issuer {
    model::Issuer { name: name.to_owned(), jwt: true, observed: model::Observed::All, ..model::Issuer::default() }
}

/// A base rule with `selection` (indented by four), and a correlation with `correlation` (indented by two).
pub(super) fn rule_text(selection: &str, correlation: &str) -> String {
    format!(
        "title: Base
id: 00000000-0000-4000-8000-000000000001
name: base
logsource:
  product: authsensor
detection:
  selection:
{selection}
  condition: selection
---
title: Correlation
id: 00000000-0000-4000-8000-000000000002
date: 2026-11-22
level: high
correlation:
  rules: [base]
{correlation}
"
    )
}

pub(super) const COUNT: &str =
    "  type: value_count\n  group-by: [service]\n  timespan: 1h\n  condition:\n    gte: 3\n    field: account";

pub(super) fn compile(text: &str) -> Result<Vec<CompiledRule>, Vec<String>> {
    let file = Path::new("r.yml");
    let mut mistakes = yaml::Mistakes::new(file);
    let compiled = rule::compile(file, text, &config(), &mut rule::Ids::new(), &mut mistakes);
    let mut list = mistakes.list;
    let rules = exception::apply(compiled.rules, &compiled.exceptions, &mut list);
    let errors: Vec<String> = list.iter().map(ToString::to_string).collect();
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

fn refused(text: &str) -> String {
    compile(text).expect_err("must be refused").join("\n")
}

#[track_caller]
fn expect(text: &str, wanted: &[&str]) {
    let errors = refused(text);
    for wanted in wanted {
        assert!(errors.contains(wanted), "wanted: {wanted}\ngot:\n{errors}");
    }
    assert_eq!(errors.lines().count(), wanted.len(), "{errors}");
}

pub(super) fn shipped() -> RuleSet {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../rules/detection");
    load(&[directory], &config()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

#[test]
fn the_shipped_rules_load() {
    let set = shipped();
    let info: Vec<&RuleInfo> = set.info().collect();
    assert!(info.len() >= 40, "{}", info.len());
    let bulk = set.rules.iter().find(|rule| rule.info.title.starts_with("Bulk account reads with tokens")).unwrap();
    assert_eq!((bulk.info.hash.len(), bulk.info.level), (32, Level::High));
    assert!(bulk.tags.contains(&"attack.t1606".to_owned()));
    assert!(bulk.description.starts_with("Personal data was returned") && !bulk.description.contains('\n'));
    assert_eq!(bulk.version, "2026-11-22");
    for rule in &set.rules {
        let has = |space: &str| rule.tags.iter().any(|tag| tag.starts_with(space));
        assert!(has("ismsp.") && (has("attack.") || rule.info.level < Level::Medium), "{}", rule.info.title);
        assert!(!rule.description.is_empty(), "{}", rule.info.title);
    }
}

#[test]
fn a_minimal_rule_is_accepted() {
    let rules = compile(&rule_text("    provenance: [unissued, unverifiable]\n    kid: [~, k1]", COUNT)).unwrap();
    assert_eq!((rules.len(), rules[0].threshold, rules[0].timespan_ns), (1, 3, 3_600_000_000_000));
    let gt = COUNT.replace("gte: 3", "gt: 3");
    assert_eq!(compile(&rule_text("    class: login", &gt)).unwrap()[0].threshold, 4);
    let events = "  type: event_count\n  timespan: 90s\n  condition:\n    gte: 1";
    assert_eq!(compile(&rule_text("    class: login", events)).unwrap()[0].count, rule::Count::Events);
}

#[test]
fn mistakes_in_values_point_at_the_value() {
    expect(
        &rule_text("    provenance: unisued", COUNT),
        &[
            "r.yml:8:17: `unisued` is no value of `provenance`. Did you mean `unissued`? Known are `none`, `issued`, `preexisting`, `unverifiable`, `unissued`.",
        ],
    );
    expect(
        &rule_text("    provinance: unissued", COUNT),
        &["r.yml:8:5: observations have no field `provinance`. Did you mean `provenance`?"],
    );
    expect(
        &rule_text("    service: [shop, shoop]", COUNT),
        &[
            "r.yml:8:21: the configuration has no service called `shoop`. Did you mean `shop`? Known are `admin`, `shop`.",
        ],
    );
    expect(
        &rule_text("    issuer: nobody", COUNT),
        &["r.yml:8:13: the configuration has no issuer called `nobody`. Write one of `members`, `partners`, `staff`."],
    );
    expect(
        &rule_text("    route: x\n    status: 99\n    client: 10.0.0.0/8", COUNT),
        &[
            "r.yml:8:12: the configuration has no route called `x`",
            "r.yml:9:13: `99` is not a status code, 100 to 599",
            "r.yml:10:13: `10.0.0.0/8` is not an IPv4 or IPv6 address",
        ],
    );
    expect(&rule_text("    kid|base64: x", COUNT), &["r.yml:8:5: the modifier `base64` is not implemented yet"]);
    expect(&rule_text("    kid: k*", COUNT), &["r.yml:8:10: `k*`: wildcards are not implemented yet"]);
    expect(&rule_text("    account: '123'", COUNT), &["r.yml:8:14: accounts are kept as keyed hashes"]);
    expect(&rule_text("    class: ~", COUNT), &["`class` is never absent"]);
    expect(&rule_text("    - word", COUNT), &["r.yml:8:7: `selection`: keyword search is not implemented yet"]);
}

#[test]
fn mistakes_in_the_frame_are_all_reported() {
    expect(
        "title: T\ncorrelation:\n  type: value_sum\n  rules: [a]\n  timespan: 5x\n  condition:\n    lt: 3\n",
        &[
            "r.yml:1:1: `id` is missing",
            "r.yml:1:1: `level` is missing",
            "r.yml:3:9: the correlation type `value_sum` is not implemented yet",
            "r.yml:7:5: `lt` is not implemented yet",
            "r.yml:7:5: the condition needs exactly one of `gte` and `gt`",
            "r.yml:5:13: `5x` is no timespan",
            "r.yml:4:11: this file has no base rule called `a`",
        ],
    );
    let text = rule_text("    class: login", COUNT);
    expect(
        &text.replace("[base]", "[bose]"),
        &[
            "r.yml:16:11: this file has no base rule called `bose`. Did you mean `base`?",
            "r.yml:1:1: no correlation of this file uses this rule",
        ],
    );
    expect(&text.replace("level: high", "level: hihg"), &["r.yml:14:8: `hihg` is no level. Did you mean `high`?"]);
    expect(
        &text.replace("level: high", "levle: high"),
        &["r.yml:14:1: unknown key `levle`. Did you mean `level`?", "`level` is missing"],
    );
    expect(&text.replace("date: 2026-11-22", "tags: [T1606]"), &["r.yml:13:8: `T1606` is not a tag"]);
    expect(
        &text.replace("-000000000002", "-000000000001"),
        &["r.yml:12:5: the id `00000000-0000-4000-8000-000000000001` is taken by r.yml:2"],
    );
    expect(
        &text.replace("-000000000002", "-00000000000"),
        &["r.yml:12:5: `00000000-0000-4000-8000-00000000000` is not a UUID"],
    );
    expect(
        &text.replace("authsensor", "nginx"),
        &["r.yml:5:12: `nginx` is a log source that this program does not have"],
    );
    expect(
        &text.replace("condition: selection", "condition: selection or other"),
        &["r.yml:9:27: no selection is called `other`"],
    );
    expect(
        &text.replace("field: account", "field: acount"),
        &["observations have no field `acount`. Did you mean `account`?"],
    );
    expect(&text.replace("gte: 3", "gte: 0"), &["`0` is no count to reach"]);
    expect(&text.replace("[service]", "[service, service]"), &["r.yml:18:23: `service` stands here twice"]);
    expect(&text.replace("1h", "91d"), &["`91d` is out of range"]);
    expect(&text.replace("  type:", "  aliases: {}\n  type:"), &["`aliases` is not implemented yet"]);
    expect("", &["r.yml:1:1: the file holds no rule"]);
    expect("- a\n", &["r.yml:1:1: a rule document is a list here"]);
}

#[test]
fn files_and_directories() {
    let directory = tempfile::tempdir().unwrap();
    let config = config();
    let texts = |errors: Vec<RuleError>| errors.iter().map(ToString::to_string).collect::<Vec<_>>();
    let none = texts(load(&[directory.path().to_owned(), "/nowhere.yml".into()], &config).unwrap_err());
    assert!(
        none[0].contains("the directory holds no *.yml file") && none[1].starts_with("/nowhere.yml: cannot be read"),
        "{none:?}"
    );
    let write = |name: &str, text: &str| fs::write(directory.path().join(name), text).unwrap();
    write("b.yml", &rule_text("    class: login", COUNT));
    write(
        "a.yml",
        &rule_text("    class: login", COUNT).replace("-00000000000", "-10000000000").replace("Correlation", "First"),
    );
    write("notes.txt", "not a rule");
    let titles: Vec<String> =
        load(&[directory.path().to_owned()], &config).unwrap().info().map(|info| info.title.clone()).collect();
    assert_eq!(titles, ["First", "Correlation"], "by file name");
    write("c.yml", &rule_text("    class: login", COUNT));
    let twice = texts(load(&[directory.path().to_owned()], &config).unwrap_err());
    assert!(twice.len() == 2 && twice[0].contains("c.yml:2:5: the id") && twice[0].contains("b.yml:2"), "{twice:?}");
    fs::write(directory.path().join("c.yml"), b"title: x\nid: \xff").unwrap();
    let bytes = texts(load(&[directory.path().join("c.yml")], &config).unwrap_err());
    assert!(bytes[0].contains("c.yml:2:5: not UTF-8"), "{bytes:?}");
    write("c.yml", &" ".repeat(1 << 21));
    assert!(texts(load(&[directory.path().join("c.yml")], &config).unwrap_err())[0].contains("is longer than"));
}

proptest! {
    /// Shipped text with pieces cut, doubled or replaced: never a panic, and rules only without mistakes.
    #[test]
    fn mangled_rules_never_panic(at in 0usize..4_000, cut in 0usize..60, put in "[ -~\n]{0,12}|[\\x00-\\xff]{0,4}") {
        let text = include_str!("../../../rules/detection/bulk_account_reads_unissued.yml");
        let at = text.floor_char_boundary(at.min(text.len()));
        let end = text.floor_char_boundary((at + cut).min(text.len()));
        if let Ok(rules) = compile(&format!("{}{put}{}", &text[..at], &text[end..])) {
            prop_assert!(!rules.is_empty());
        }
    }
}

const DOCUMENTATION: &str = include_str!("../../../docs/rules.md");

#[test]
fn the_documented_rules_are_the_shipped_ones() {
    for rule in shipped().each() {
        let row = format!("| {} | {} | {} ", rule.info.title, rule.info.level.label(), rule.threshold);
        assert!(DOCUMENTATION.contains(&row), "{row}");
    }
}

#[test]
fn the_documented_cases_and_exception_are_accepted() {
    let config = config();
    let rule = blocks("yaml")[0];
    let text = format!("{rule}---\n{}", blocks("exception")[0]);
    let rules = compile(&text).unwrap_or_else(|errors| panic!("{errors:#?}"));
    assert_eq!(rules.iter().map(|rule| rule.threshold).collect::<Vec<_>>(), [50, 5_000]);
    let set = RuleSet { rules, exceptions: Vec::new() };
    let mut mistakes = yaml::Mistakes::new(Path::new("c.yml"));
    assert_eq!(cases::play(blocks("cases")[0], &set, &config, &mut mistakes), 2);
    assert!(mistakes.list.is_empty(), "{:?}", mistakes.list);
}

/// The fenced blocks of `language`.
pub(super) fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("```{language}\n");
    DOCUMENTATION.split(fence.as_str()).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn the_documented_examples_load_and_the_documented_messages_are_said() {
    let examples = blocks("yaml");
    assert_eq!(examples.len(), 2);
    for example in examples {
        assert_eq!(compile(example).unwrap_or_else(|errors| panic!("{errors:#?}")).len(), 1);
    }
    let text = rule_text("    class: login", COUNT);
    let said = [
        refused(&rule_text("    provenance: unisued", COUNT)),
        refused(&text.replace("condition: selection", "condition: selection or other")),
        refused(&text.replace("[base]", "[bose]")),
        refused(&rule_text("    client|gt: 10.0.0.0/8", COUNT)),
    ]
    .join("\n");
    for line in blocks("text")[0].lines() {
        let line = line.replace("FILE", "r.yml");
        assert!(said.lines().any(|said| said == line), "documented: {line}\nsaid:\n{said}");
    }
}

#[test]
fn the_documentation_names_every_field() {
    for field in field::Field::ALL {
        let label = field.label();
        assert!(DOCUMENTATION.contains(&format!("| `{label}` |")), "{label}");
    }
}
