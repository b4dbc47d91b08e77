//! Fields, modifiers, correlations over time, estimates, exceptions and swapped rules, by what the engine makes of them.

use super::super::tests::{COUNT, bounds, compile, rule_text};
use super::tests::{Names, Run, SECOND, SLICE, at, read};
use super::*;
use crate::observation::{
    AccountHash, Claims, EstimateKind, Estimates, Fingerprint, Interned, Measure, Provenance, Relation, RouteClass,
    ServiceId,
};

/// Fires at the first match.
const ONCE: &str = "  type: event_count\n  timespan: 1h\n  condition:\n    gte: 1";

fn fires(lines: &str, o: &Observation) -> bool {
    !Run::new(&compile(&rule_text(lines, ONCE)).unwrap_or_else(|errors| panic!("{errors:#?}")), &bounds())
        .see(*o)
        .is_empty()
}

fn refused(lines: &str) -> String {
    compile(&rule_text(lines, ONCE)).expect_err("must be refused").join("\n")
}

#[test]
fn modifiers_compare_as_they_say() {
    let o = Observation {
        claims: Claims {
            aud: Some(Interned(1)),
            age_s: Some(13 * 3_600),
            lifetime_s: Some(3_600),
            key_retired_s: None,
            ..Claims::default()
        },
        claim_anomalies: 0b101,
        relation: Relation::Foreign,
        client: "198.51.100.77".parse().unwrap(),
        estimates: Estimates { walk_client: 30, miss_kid: -40, ..Estimates::default() },
        fingerprint: Some(Fingerprint([7; 16])),
        ..read(0, 1, 1)
    };
    for (lines, holds) in [
        ("age|gt: 12h", true),
        ("age|gt: 13h", false),
        ("age|gte: 46800", true),
        ("lifetime|lte: 1h", true),
        ("lifetime|lt: 1h", false),
        ("lifetime: [1h, 2h]", true),
        ("key_retired|gte: 0", false),
        ("key_retired: ~", true),
        ("key_retired|exists: false", true),
        ("age|exists: true", true),
        ("walk_client|gte: 30", true),
        ("walk_client|gt: 30", false),
        ("miss_kid|lt: 0", true),
        ("miss_kid|gte: -39", false),
        ("aud|contains: api", true),
        ("aud|startswith: [shop, partner]", true),
        ("aud|endswith: partner", false),
        ("aud|contains|all: [partner, api]", true),
        ("aud|contains|all: [partner, shop]", false),
        ("aud|re: '^partner [a-z]+$'", true),
        ("aud|neq: shop", true),
        ("aud: shop", false),
        ("aud|cased: partner api", true),
        ("iss: ~", true),
        ("kid|re: '^k[0-9]$'", true),
        ("issuer|startswith: mem", true),
        ("issuer|neq: members", false),
        ("client|cidr: [10.0.0.0/8, 198.51.100.64/26]", true),
        ("client|cidr: 198.51.100.0/26", false),
        ("client|cidr: '2001:db8::/32'", false),
        ("network: 198.51.100.0/24", true),
        ("network|neq: 198.51.100.0/24", false),
        ("claim_anomaly: [overlong, combination]", true),
        ("claim_anomaly|all: [iat_future, overlong]", true),
        ("claim_anomaly|all: [iat_future, combination]", false),
        ("claim_anomaly|exists: true", true),
        ("relation: foreign", true),
        ("canary: true", false),
        ("fingerprint|exists: true", true),
        ("sub: ~", true),
        ("status|gte: 200", true),
        ("status|lt: 200", false),
        ("issued: 0", true),
    ] {
        assert_eq!(fires(&format!("    {lines}"), &o), holds, "{lines}");
    }
}

#[test]
fn modifiers_that_make_no_sense_are_refused_with_the_fix() {
    for (lines, wanted) in [
        ("age|gtt: 1h", "r.yml:8:5: there is no modifier `gtt`. Did you mean `gt`?"),
        ("age|contains: 1h", "r.yml:8:5: the modifier `contains` does not apply to `age`"),
        ("age|gt: soon", "r.yml:8:13: `soon` is not a duration such as `90s`"),
        ("age|gt|lt: 1h", "r.yml:8:5: the modifiers `gt` and `lt` exclude each other"),
        ("age|gt: ~", "r.yml:8:13: nothing cannot be compared"),
        ("kid|re: '('", "r.yml:8:13: `(` is no regular expression"),
        ("client|cidr: 10.0.0.1", "r.yml:8:18: `10.0.0.1` is not a network such as"),
        ("network: 10.0.0.0/16", "r.yml:8:14: `10.0.0.0/16` is not a network such as"),
        ("issuer|startswith: x", "r.yml:8:24: the configuration has no issuer with a name like `x`"),
        ("sub: bob", "r.yml:8:10: `sub` is kept as a keyed hash"),
        ("class|exists: true", "`class` is never absent"),
        ("kid|exists: maybe", "`exists` wants a yes or a no"),
        ("class|all: [login]", "the modifier `all` does not apply to `class`"),
        ("score|gt: 3", "r.yml:8:5: observations have no field `score`"),
    ] {
        let errors = refused(&format!("    {lines}"));
        assert!(errors.contains(wanted), "{lines}: {errors}");
    }
    let many: Vec<String> = (0..64).map(|number| format!("k{number}")).collect();
    assert!(refused(&format!("    kid: [{}]", many.join(", "))).contains("more than 63 values of `kid` in one file"));
}

/// Refusals, then a read by the same client: two base rules and a correlation of `kind`.
fn two_steps(kind: &str) -> Vec<CompiledRule> {
    let base = |number: u32, name: &str, outcome: &str| {
        format!(
            "title: {name}\nid: 00000000-0000-4000-8000-00000000010{number}\nname: {name}\nlogsource:\n  product: authsensor\n\
             detection:\n  selection:\n    outcome: {outcome}\n  condition: selection\n---\n"
        )
    };
    let text = format!(
        "{}{}title: Steps\nid: 00000000-0000-4000-8000-000000000109\nlevel: low\ncorrelation:\n  type: {kind}\n  \
         rules: [refused, returned]\n  group-by: [client]\n  timespan: 1h\n",
        base(1, "refused", "denied"),
        base(2, "returned", "read")
    );
    compile(&text).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn refusal(ns: u64, client: u32) -> Observation {
    Observation { outcome: crate::observation::Outcome::Denied, ..read(ns, 1, client) }
}

#[test]
fn temporal_wants_all_rules_in_any_order_and_ordered_in_order() {
    for (kind, backwards) in [("temporal", true), ("temporal_ordered", false)] {
        let mut run = Run::new(&two_steps(kind), &bounds());
        assert!(run.see(refusal(0, 1)).is_empty() && run.see(refusal(1, 1)).is_empty(), "{kind}: one rule twice");
        assert!(run.see(read(2, 1, 2)).is_empty(), "{kind}: another client");
        let found = run.see(read(SECOND, 1, 1));
        assert_eq!((found.len(), found[0].activity, found[0].observations), (1, Activity::Open, 3), "{kind}");
        assert_eq!(!run.see(refusal(2 * SECOND, 2)).is_empty(), backwards, "{kind}");
        let mut run = Run::new(&two_steps(kind), &bounds());
        run.see(refusal(0, 1));
        assert!(run.see(read(26 * SLICE, 1, 1)).is_empty(), "{kind}: too late");
    }
    let mut run = Run::new(&two_steps("temporal_ordered"), &bounds());
    run.see(refusal(0, 1));
    assert!(run.see(read(3_600 * SECOND + 1, 1, 1)).is_empty(), "to the nanosecond");
    run.see(refusal(3_700 * SECOND, 1));
    assert_eq!(run.see(read(7_300 * SECOND, 1, 1)).len(), 1);
    let text = rule_text("    class: login", "  type: temporal\n  timespan: 1h\n  condition:\n    gte: 2");
    let errors = compile(&text).unwrap_err().join("\n");
    assert!(errors.contains("1 rules cannot be brought into relation") && errors.contains("take no condition"));
}

fn estimate(measure: Measure, score: u64) -> Estimate {
    Estimate {
        at: at(SECOND),
        since: at(0),
        kind: EstimateKind::Doubt,
        measure,
        service: ServiceId(0),
        route: None,
        class: None,
        issuer: None,
        kid: Some(Interned(2)),
        client: None,
        observed: 120,
        expected: 100,
        score,
        requests: 340,
        accounts: vec![AccountHash([1; 16]), AccountHash([2; 16])],
        clients: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
    }
}

#[test]
fn rules_over_estimates_take_their_figures_from_the_event() {
    let once = "  type: event_count\n  group-by: [service, measure, client]\n  timespan: 1h\n  condition:\n    gte: 1";
    let of = |lines: &str| {
        let text = rule_text(lines, once).replace("authsensor\n", "authsensor\n  category: estimate\n");
        compile(&text).unwrap_or_else(|errors| panic!("{errors:#?}"))
    };
    let rules = of(
        "    kind: doubt\n    measure: [unverifiable, preexisting]\n    score|gte: 100\n    class: ~\n    client|exists: false",
    );
    let mut run = Run::new(&rules, &bounds());
    assert!(run.event(&estimate(Measure::Unverifiable, 99)).is_empty());
    assert!(run.event(&estimate(Measure::Ambiguous, 300)).is_empty());
    assert!(run.see(read(0, 1, 1)).is_empty(), "an observation is no estimate");
    let finding = &run.event(&estimate(Measure::Unverifiable, 100))[0];
    assert_eq!((finding.observations, finding.clients, finding.accounts), (340, 2, 2));
    assert_eq!((finding.account_sample.len(), finding.client_sample.len()), (2, 2));
    let group: Vec<&str> = finding.group.iter().map(|(_, value)| value.as_str()).collect();
    assert_eq!(group, ["shop", "unverifiable", "none"]);
    let wrong = rule_text("    provenance: issued", once).replace("authsensor\n", "authsensor\n  category: estimate\n");
    let errors = compile(&wrong).unwrap_err().join("\n");
    assert!(errors.contains("r.yml:9:5: estimates have no field `provenance`"), "{errors}");
    let unknown = rule_text("    class: login", once).replace("authsensor\n", "authsensor\n  category: estimates\n");
    assert!(compile(&unknown).unwrap_err().join("\n").contains("Did you mean `estimate`?"));
}

fn with_exception(expires: &str) -> String {
    let exception = format!(
        "---\ntitle: Partner\nid: 00000000-0000-4000-8000-000000000201\nexception:\n  \
         rules: [00000000-0000-4000-8000-000000000002]\n  match:\n    client|cidr: 192.0.2.64/26\n    kid|startswith: k\n  \
         condition:\n    gte: 6\n  owner: Partner desk\n  reason: Nightly export\n  expires: {expires}\n"
    );
    rule_text("    provenance: unissued", COUNT) + &exception
}

#[test]
fn an_exception_has_its_own_ceiling_and_ends() {
    // The clock of these tests starts on 2025-11-13.
    let rules = compile(&with_exception("2025-11-13")).unwrap();
    assert_eq!((rules.len(), rules[0].exception.is_none(), rules[1].exception.is_some()), (2, true, true));
    let mut run = Run::new(&rules, &bounds());
    for number in 0..5 {
        assert!(run.see(read(0, number, 64)).is_empty(), "the partner, below the ceiling");
    }
    assert!(run.see(read(0, 100, 1)).is_empty() && run.see(read(0, 101, 1)).is_empty(), "counted apart");
    let own = run.see(read(0, 102, 1));
    assert_eq!((own.len(), own[0].exception.clone(), own[0].distinct), (1, None, 3));
    let beyond = run.see(read(0, 5, 64));
    assert_eq!((beyond.len(), beyond[0].threshold, &beyond[0].rule_id), (1, 6, &own[0].rule_id));
    assert_eq!(beyond[0].exception.as_deref(), Some("Partner (owner: Partner desk, until 2025-11-13)"));
    assert_ne!(beyond[0].uid, own[0].uid);

    let mut run = Run::new(&compile(&with_exception("2025-11-12")).unwrap(), &bounds());
    let found: Vec<Finding> = (0..6).flat_map(|number| run.see(read(0, number, 64))).collect();
    assert!(found.iter().any(|finding| finding.threshold == 3 && finding.exception.is_none()), "it has expired");
    assert!(found.iter().all(|finding| finding.exception.is_none()));
}

#[test]
fn mistakes_in_exceptions_are_told() {
    for (from, to, wanted) in [
        ("-000000000002]\n  match", "-000000000003]\n  match", "no rule that is loaded has the id"),
        ("2025-11-13", "soon", "`soon` is not a date"),
        ("  owner: Partner desk\n", "", "`owner` is missing"),
        ("    client|cidr: 192.0.2.64/26\n", "    clint: x\n", "Did you mean `client`?"),
        ("  condition:\n    gte: 6\n", "", "an exception has a ceiling of its own"),
    ] {
        let text = with_exception("2025-11-13").replace(from, to);
        let errors = compile(&text).expect_err(wanted).join("\n");
        assert!(errors.contains(wanted), "{wanted}: {errors}");
    }
}

#[test]
fn swapped_rules_go_on_where_they_are_the_same() {
    let first = rule_text("    provenance: unissued", COUNT);
    let other = first.replace("-00000000000", "-30000000000").replace("Correlation", "Other");
    let both = |left: &str, right: &str| {
        let mut rules = compile(left).unwrap();
        rules.extend(compile(right).unwrap());
        rules
    };
    let mut run = Run::new(&both(&first, &other), &bounds());
    assert!(run.see(read(0, 1, 1)).is_empty() && run.see(read(1, 2, 1)).is_empty());
    // The other one changes, and stands first now.
    run.detectors.replace(&both(&other.replace("level: high", "level: low"), &first));
    let found = run.see(read(2, 3, 1));
    assert_eq!(found.iter().map(|finding| finding.title.as_str()).collect::<Vec<_>>(), ["Correlation"]);
    run.detectors.replace(&compile(&first).unwrap());
    assert_eq!(run.tick(26 * SLICE)[0].uid, found[0].uid, "its finding closes in order");
}

#[test]
fn an_accounts_sample_is_the_lowest_hashes_of_all() {
    let mut run = Run::with(COUNT);
    let accounts: Vec<u32> = (0..500).map(|number: u32| number.wrapping_mul(2_654_435_761)).collect();
    let mut last = Vec::new();
    for (number, account) in (0..).zip(&accounts) {
        last.extend(run.see(read(number, *account, 1)));
    }
    let mut lowest = accounts.clone();
    lowest.sort_unstable();
    let want: Vec<AccountHash> = lowest[..64].iter().map(|n| AccountHash(u128::from(*n).to_be_bytes())).collect();
    let closed = run.tick(26 * SLICE);
    assert_eq!((closed[0].account_sample.clone(), closed[0].accounts), (want, 500));
    assert_eq!(last[0].account_sample.len(), 3);
}

#[test]
fn shades_leave_out_no_rule_that_matches() {
    // Every shipped rule, with and without the table of shades.
    let rules = super::super::tests::shipped().rules;
    let mut run = Run::new(&rules, &bounds());
    let mut state: Vec<RuleState> = rules.iter().map(|rule| RuleState::new(rule.clone(), &bounds(), [3, 5])).collect();
    let mut random = 1u64;
    let mut draw = |bound: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % bound
    };
    let mut matched = vec![0u64; rules.len()];
    for number in 0..20_000u32 {
        let word = |all: usize, drawn: u64| usize::try_from(drawn).unwrap() % all;
        let o = Observation {
            class: RouteClass::ALL[word(5, draw(5))],
            outcome: crate::observation::Outcome::ALL[word(5, draw(5))],
            provenance: Provenance::ALL[word(5, draw(5))],
            relation: Relation::ALL[word(3, draw(3))],
            validity: crate::observation::Validity::ALL[word(6, draw(12).min(5))],
            self_contained: draw(2) == 0,
            canary: draw(9) == 0,
            claim_anomalies: if draw(3) == 0 { 1 << draw(9) } else { 0 },
            anomalies: if draw(4) == 0 { 1 << draw(12) } else { 0 },
            fingerprint: Some(Fingerprint(u128::from(draw(50)).to_be_bytes())),
            estimates: Estimates {
                walk_client: u32::try_from(draw(60)).unwrap(),
                miss_kid: i32::try_from(draw(1_500)).unwrap() - 200,
                ..Estimates::default()
            },
            ..read(u64::from(number), number % 997, number % 31)
        };
        run.see(o);
        let subject = Subject { o: &o, e: None };
        for (count, state) in matched.iter_mut().zip(&mut state) {
            let own = state.rule.source == Source::Observation && state.matched(subject, &Names) != 0;
            let counts = match state.rule.count {
                Count::Distinct(field) => field.key(subject).is_some(),
                _ => true,
            };
            *count += u64::from(own && counts);
        }
    }
    let counted: Vec<u64> = run.detectors.stats().map(|(_, stats)| stats.matched).collect();
    assert_eq!(counted, matched);
    assert!(counted.iter().filter(|count| **count > 0).count() > 20);
}
