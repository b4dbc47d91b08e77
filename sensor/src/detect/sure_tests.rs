//! The figure against the engine: what it says is found is found, and one account less need not be.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;

use super::super::testing::{Names, read};
use super::super::tests::{blocks, compile, config, rule_text, shipped};
use super::super::{Detectors, load};
use super::*;
use crate::config::model::Confirmation;
use crate::observation::{Interned, Observation};

/// `members` of `shop` is approved, with a budget; its tokens stand in one place.
fn approved() -> Config {
    let mut config = config();
    config.services[0].credentials.authorization = true;
    let confirmed = Confirmation { sight: 0.999, preexisting: Some(1000), approved: true, ..Confirmation::default() };
    config.services[0].issuers[0].confirmed = Some(confirmed);
    config
}

/// Of `members`, with `rules`: passed, then open.
fn figures(rules: Vec<CompiledRule>, config: &Config) -> ([Option<u64>; 3], [Option<u64>; 3]) {
    let all = RuleSet { rules, exceptions: Vec::new() }.detectable(config);
    let own = all.iter().find(|one| (one.service, one.issuer) == (ServiceId(0), IssuerId(0))).unwrap();
    (own.passed, own.open)
}

/// A correlation over `field` in `10m`.
fn counts(groups: &str, threshold: u64) -> String {
    format!(
        "  type: value_count\n  group-by: [{groups}]\n  timespan: 10m\n  condition:\n    gte: {threshold}\n    field: account"
    )
}

fn passed(lines: &str, correlation: &str) -> [Option<u64>; 3] {
    figures(compile(&rule_text(lines, correlation)).unwrap(), &approved()).0
}

/// How often a rule of level high or worse opens a finding.
fn fired(detectors: &mut Detectors, reads: &[Observation]) -> usize {
    let mut out = Vec::new();
    for one in reads {
        detectors.observe(one, &Names, &mut out);
    }
    out.iter().filter(|finding| finding.level >= Level::High).count()
}

/// A forged read; `salt` chooses what the attacker may choose.
fn forged(s: f64, account: u32, salt: u32) -> Observation {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds of a test")]
    let ns = (s * 1e9) as u64;
    let client = IpAddr::V4(Ipv4Addr::from(salt << 8));
    Observation { kid: Some(Interned(salt)), client, ..read(ns, account, 0) }
}

/// With another key and network for each account, 19 in ten minutes stay below every shipped rule.
#[test]
fn the_shipped_rules_have_a_figure_and_it_is_tight() {
    let (passed, open) = figures(shipped().rules, &approved());
    assert_eq!((passed[0], open), (Some(20), [None; 3]));
    for (figure, (_, seconds)) in passed.into_iter().zip(WINDOWS) {
        assert!(figure.unwrap() <= 19 * seconds / 600 + 1, "{figure:?} in {seconds} s");
    }
    let said = shipped().detectable(&approved())[0].said(&approved());
    assert_eq!(format!("detects   {said}\n"), blocks("detects")[0], "as docs/rules.md has it");
    let bounds = config().bounds;
    let reads: Vec<Observation> = (0..20).map(|n| forged(f64::from(n) * 30.0, n, n)).collect();
    assert_eq!(fired(&mut Detectors::new(&shipped().rules, &bounds, [1, 2]), &reads[..19]), 0);
    assert!(fired(&mut Detectors::new(&shipped().rules, &bounds, [1, 2]), &reads) > 0);
}

#[test]
fn only_what_counts_every_forged_read_is_sure() {
    let all = "    provenance: unissued\n    class: account_read\n    outcome: read";
    let service = counts("service", 5);
    assert_eq!(passed(all, &service), [Some(5), Some(25), Some(577)]);
    assert_eq!(passed(all, &counts("service, issuer, place, route", 5)), [Some(5), Some(25), Some(577)]);
    for own in
        ["service: shop", "issuer: [members]", "self_contained: true", "canary|neq: true\n    account|exists: true"]
    {
        let sure = passed(&format!("{all}\n    {own}"), &service)[0];
        assert_eq!(sure, if own.starts_with("canary") { None } else { Some(5) }, "{own}");
    }
    for choice in
        ["service: admin", "issuer: partners", "kid: k1", "client|cidr: 10.0.0.0/8", "validity: ok", "anomaly: ~"]
    {
        assert_eq!(passed(&format!("{all}\n    {choice}"), &service), [None; 3], "{choice}");
    }
    for groups in ["service, kid", "client", "network", "fingerprint"] {
        assert_eq!(passed(all, &counts(groups, 5)), [None; 3], "{groups}");
    }
    // Three words of `relation` are three groups.
    assert_eq!(passed(all, &counts("service, relation", 5))[0], Some(13));
    let medium = rule_text(all, &service).replace("level: high", "level: medium");
    assert_eq!(figures(compile(&medium).unwrap(), &approved()).0, [None; 3]);
    assert_eq!(passed("    provenance: preexisting", &service), [None; 3]);
    let events = "  type: event_count\n  timespan: 1h\n  condition:\n    gt: 5";
    assert_eq!(passed(all, events), [Some(6), Some(6), Some(121)]);
}

#[test]
fn without_approval_or_room_nothing_is_sure() {
    let rules = || compile(&rule_text("    class: account_read", &counts("service", 5))).unwrap();
    assert_eq!(figures(rules(), &config()), ([None; 3], [None; 3]), "not approved");
    let mut config = approved();
    config.bounds.rule_groups = 2;
    assert_eq!(figures(rules(), &config).0, [None; 3], "other groups may push it out");
    config.bounds.rule_groups = 3;
    assert_eq!(figures(rules(), &config).0[0], Some(5));
    config.bounds.group_values = 4;
    assert_eq!(figures(rules(), &config).0[0], Some(5), "a twentieth of so few is none");
    config.services[0].routes.clear();
    assert_eq!(figures(rules(), &config).0, [None; 3], "nothing can be read");
}

#[test]
fn what_budgets_excuse_adds_until_the_horizon_has_passed() {
    let judged = rule_text("    provenance: unissued", &counts("service", 5));
    let ids = |text: &str| text.replace("-00000000000", "-00000000010").replace("name: base", "name: other");
    let other =
        |lines: &str, threshold| ids(&rule_text(lines, &counts("service", threshold))).replace("[base]", "[other]");
    let beyond = other("    claim_anomaly: horizon_budget_spent", 8);
    let of = |text: &str, config: &Config| figures(compile(text).unwrap(), config);
    assert_eq!(of(&judged, &approved()).1, [None; 3], "nothing counts what is beyond the budget");
    let both = format!("{judged}---\n{beyond}");
    // 1,020 within the budget of a thousand, 7 beyond it, 4 that are called unissued, and one.
    assert_eq!(of(&both, &approved()).1[0], Some(1020 + 7 + 4 + 1));
    assert_eq!(of(&both, &approved()).0[0], Some(5), "the same as before");
    let mut stated = approved();
    stated.services[0].issuers[0].preexisting = Some(0);
    assert_eq!(of(&both, &stated).1[0], Some(12), "the configuration counts more");
    let mut without = approved();
    without.services[0].issuers[0].confirmed.as_mut().unwrap().preexisting = None;
    assert_eq!(of(&both, &without).1, [None; 3]);
    let believed = format!("{judged}---\n{}", other("    provenance: preexisting", 9));
    assert_eq!(of(&believed, &without).1[0], Some(8 + 4 + 1), "who is believed is counted");
}

#[test]
fn an_exception_adds_its_ceiling() {
    let folder = tempfile::tempdir().unwrap();
    let exception = |matching: &str| {
        format!(
            "{}---\ntitle: Partner\nid: 00000000-0000-4000-8000-000000000201\nexception:\n  \
             rules: [00000000-0000-4000-8000-000000000002]\n  match:\n    {matching}\n  condition:\n    gte: 100\n  \
             owner: Desk\n  reason: Contract\n  expires: 2027-03-31\n",
            rule_text("    provenance: unissued", &counts("service", 5))
        )
    };
    let mut told = BTreeMap::new();
    for matching in ["client|cidr: 192.0.2.0/24", "provenance: issued", "provenance: unissued"] {
        let file = folder.path().join("rule.yml");
        std::fs::write(&file, exception(matching)).unwrap();
        let rules = load(&[file], &approved()).unwrap_or_else(|errors| panic!("{errors:#?}"));
        told.insert(matching, rules.detectable(&approved())[0].passed[0]);
    }
    assert_eq!(told["client|cidr: 192.0.2.0/24"], Some(4 + 99 + 1), "he may be behind a partner's address");
    assert_eq!(told["provenance: issued"], Some(5), "forged tokens are none of its business");
    assert_eq!(told["provenance: unissued"], Some(4 + 99 + 1), "and once it has expired");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever keys, networks and moments are chosen: as many accounts as the figure says are found by the shipped rules.
    #[test]
    fn as_many_as_it_says_are_found(
        window in 0..2usize,
        moments in prop::collection::vec((0.0..1.0f64, proptest::num::u16::ANY), 200),
        spread in prop::sample::select(vec![1u32, 3, 20, 5000]),
    ) {
        let figure = figures(shipped().rules, &approved()).0[window].unwrap();
        let seconds = f64::from(u32::try_from(WINDOWS[window].1).unwrap());
        let mut moments = moments[..usize::try_from(figure).unwrap()].to_vec();
        moments.sort_by(|a, b| a.0.total_cmp(&b.0));
        let reads: Vec<Observation> = (0u32..)
            .zip(&moments)
            .map(|(n, (at, salt))| forged(at * seconds, n, u32::from(*salt) % spread))
            .collect();
        prop_assert!(fired(&mut Detectors::new(&shipped().rules, &config().bounds, [1, 2]), &reads) > 0);
    }
}
