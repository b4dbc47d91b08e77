//! The engine over made observations.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

pub(super) use super::super::testing::{Names, SECOND, at, read};
use super::super::tests::{COUNT, blocks, bounds, compile, rule_text, shipped};
use super::*;
use crate::finding::ocsf;
use crate::observation::{Interned, IssuerId, Outcome, Provenance, RouteClass};

/// One hour cut into 24.
pub(super) const SLICE: u64 = 150 * SECOND;

pub(super) struct Run {
    pub detectors: Detectors,
    out: Vec<Finding>,
}

impl Run {
    pub fn new(rules: &[CompiledRule], bounds: &Bounds) -> Self {
        Self { detectors: Detectors::new(rules, bounds, [3, 5]), out: Vec::new() }
    }

    /// `provenance: unissued`, and `correlation` in place of "3 accounts in an hour by service".
    pub fn with(correlation: &str) -> Self {
        Self::new(&compile(&rule_text("    provenance: unissued", correlation)).unwrap(), &bounds())
    }

    #[expect(clippy::large_types_passed_by_value, reason = "tests read better with values")]
    pub fn see(&mut self, o: Observation) -> Vec<Finding> {
        self.detectors.observe(&o, &Names, &mut self.out);
        std::mem::take(&mut self.out)
    }

    pub fn event(&mut self, e: &Estimate) -> Vec<Finding> {
        self.detectors.estimate(e, &Names, &mut self.out);
        std::mem::take(&mut self.out)
    }

    pub fn tick(&mut self, ns: u64) -> Vec<Finding> {
        self.detectors.tick(at(ns), &Names, &mut self.out);
        std::mem::take(&mut self.out)
    }

    fn stats(&self) -> RuleStats {
        self.detectors.stats().next().unwrap().1
    }
}

#[test]
fn the_shipped_rule_flags_a_rehearsal_of_20_tokens_from_3_addresses() {
    let mut run = Run::new(&shipped().rules, &bounds());
    let mut findings = Vec::new();
    for number in 0..20u32 {
        let found = run.see(read(u64::from(number) * 60 * SECOND, number, number % 3));
        findings.extend(found.into_iter().map(|finding| (number + 1, finding)));
    }
    let of = |title: &str| findings.iter().filter(|(_, finding)| finding.title.starts_with(title)).collect::<Vec<_>>();
    let [(after, finding), (later, update)] = *of("Bulk account reads") else { panic!("{findings:?}") };
    assert_eq!((*after, finding.activity, finding.level.label()), (10, Activity::Open, "high"));
    assert_eq!((finding.distinct, finding.clients, finding.observations, finding.exact), (10, 3, 10, true));
    let group = [("service", "shop"), ("issuer", "members"), ("kid", "k1"), ("place", "authorization")];
    assert_eq!(finding.group, group.map(|(f, v)| (f.to_owned(), v.to_owned())));
    assert_eq!((finding.first, finding.last, finding.at), (at(0), at(540 * SECOND), at(540 * SECOND)));
    assert_eq!((finding.client_sample.len(), finding.account_sample.len()), (3, 10));
    assert_eq!((*later, update.activity, update.distinct, &update.uid), (20, Activity::Update, 20, &finding.uid));
    let said: Vec<String> = [finding, update].map(message).into();
    assert_eq!(said.join("\n") + "\n", blocks("message")[0], "as docs/rules.md has it");
    // Each of the three addresses at its fifth account, and the network that they share.
    let addresses = of("One address reads");
    assert_eq!(addresses.iter().map(|(after, _)| *after).collect::<Vec<_>>(), [13, 14, 15]);
    assert!(addresses.iter().all(|(_, finding)| finding.account_sample.len() == 5 && finding.accounts == 5));
    assert_eq!(of("One network reads").len(), 1);
    assert_eq!(findings.len(), 6);
}

fn message(finding: &Finding) -> String {
    let mut line = Vec::new();
    ocsf::write_line(finding, &mut line).unwrap();
    let event: serde_json::Value = serde_json::from_slice(&line).unwrap();
    event["message"].as_str().unwrap().to_owned()
}

#[test]
fn the_shipped_rules_tell_opaque_from_self_contained_and_leave_the_rest_alone() {
    let mut run = Run::new(&shipped().rules, &bounds());
    let opaque = |number| Observation { self_contained: false, kid: None, ..read(0, number, number) };
    let found: Vec<Finding> = (0..10).flat_map(|number| run.see(opaque(number))).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((found[0].level.label(), found[0].group[2].1.as_str()), ("medium", "none"));
    let harmless: [fn(Observation) -> Observation; 6] = [
        |o| Observation { provenance: Provenance::Issued, ..o },
        |o| Observation { provenance: Provenance::Unverifiable, ..o },
        |o| Observation { provenance: Provenance::Preexisting, ..o },
        |o| Observation { outcome: Outcome::Denied, ..o },
        |o| Observation { outcome: Outcome::Other, ..o },
        |o| Observation { class: RouteClass::Other, ..o },
    ];
    for change in harmless {
        for number in 0..1_000 {
            assert!(run.see(change(read(SECOND, number, 1))).is_empty());
        }
    }
}

#[test]
fn the_same_account_a_hundred_times_is_one() {
    let mut run = Run::with(COUNT);
    for number in 0..100u32 {
        assert!(run.see(read(u64::from(number), number % 2, number)).is_empty());
    }
    let finding = &run.see(read(100, 2, 0))[0];
    assert_eq!((finding.distinct, finding.observations, finding.clients), (3, 101, 100));
    assert_eq!(finding.client_sample.len(), 10, "a sample");
}

#[test]
fn the_window_slides_at_slice_boundaries() {
    // The first account is seen in slice 0; with the third exactly at the end of slice 24 it still counts.
    for (third, fires) in [(3_600 * SECOND, true), (25 * SLICE - 1, true), (25 * SLICE, false)] {
        let mut run = Run::with(COUNT);
        run.see(read(0, 0, 0));
        run.see(read(24 * SLICE, 1, 0));
        assert_eq!(!run.see(read(third, 2, 0)).is_empty(), fires, "{third}");
    }
}

#[test]
fn a_finding_closes_when_its_window_is_empty_and_a_new_one_has_a_new_id() {
    let mut run = Run::with(COUNT);
    let opened = (0..3).flat_map(|number| run.see(read(SLICE, number, number))).collect::<Vec<_>>();
    assert_eq!(run.stats().open, 1);
    assert!(run.see(read(10 * SLICE, 9, 0)).is_empty(), "4 of 3: not yet doubled");
    assert!(run.tick(35 * SLICE - 1).is_empty(), "24 slices after the last read");
    let closed = run.tick(36 * SLICE);
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].activity, closed[0].distinct, closed[0].observations), (Activity::Close, 4, 4));
    assert_eq!((&closed[0].uid, closed[0].last, closed[0].at), (&opened[0].uid, at(10 * SLICE), at(35 * SLICE)));
    assert_eq!((run.stats().open, run.stats().groups), (0, 0));
    assert!(run.tick(90 * SLICE).is_empty());
    let again = (0..3).flat_map(|number| run.see(read(100 * SLICE, number, 0))).collect::<Vec<_>>();
    assert_eq!((again.len(), again[0].activity), (1, Activity::Open));
    assert_ne!(again[0].uid, opened[0].uid);
}

#[test]
fn an_observation_closes_what_is_over_before_it_counts() {
    let mut run = Run::with(COUNT);
    for number in 0..3 {
        run.see(read(0, number, 0));
    }
    let found = run.see(read(1_000 * SLICE, 0, 0));
    assert_eq!(found.iter().map(|finding| finding.activity).collect::<Vec<_>>(), [Activity::Close]);
    assert_eq!(run.stats().groups, 1);
}

#[test]
fn groups_are_counted_apart() {
    let by_kid = COUNT.replace("[service]", "[service, issuer, kid]");
    let mut run = Run::with(&by_kid);
    let variants: [fn(Observation) -> Observation; 6] = [
        |o| o,
        |o| Observation { kid: None, ..o },
        |o| Observation { kid: Some(Interned(2)), ..o },
        |o| Observation { issuer: Some(IssuerId(1)), ..o },
        |o| Observation { issuer: None, ..o },
        |o| Observation { kid: Some(Interned::OVERFLOW), ..o },
    ];
    for number in 0..2 {
        for change in variants {
            assert!(run.see(change(read(0, number, 0))).is_empty());
        }
    }
    let groups: Vec<String> = variants
        .iter()
        .map(|change| {
            let found = run.see(change(read(0, 2, 0)));
            assert_eq!(found.len(), 1);
            found[0].group.iter().map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(" ")
        })
        .collect();
    assert_eq!(
        groups,
        [
            "shop members k1",
            "shop members none",
            "shop members k2",
            "shop partners k1",
            "shop none k1",
            "shop members overflow"
        ]
    );
}

#[test]
fn rules_may_name_kids_and_other_values() {
    let rules = compile(&rule_text("    kid: [k2, ~]\n    client: [192.0.2.0, 192.0.2.1]\n    issuer: members", COUNT))
        .unwrap();
    let mut run = Run::new(&rules, &bounds());
    let with = |kid, account, client| Observation { kid, ..read(0, account, client) };
    for other in [Some(Interned(1)), Some(Interned(3)), Some(Interned(9_999)), Some(Interned::OVERFLOW)] {
        for number in 0..3 {
            assert!(run.see(with(other, number, 0)).is_empty());
        }
    }
    run.see(with(Some(Interned(2)), 0, 0));
    run.see(with(None, 1, 1));
    assert!(run.see(with(None, 2, 2)).is_empty(), "another client");
    let mapped = Observation { client: "::ffff:192.0.2.1".parse().unwrap(), ..with(None, 2, 0) };
    assert_eq!(run.see(mapped)[0].clients, 2, "an IPv4-mapped address is the IPv4 address");
}

#[test]
fn event_count_counts_observations_and_conditions_combine() {
    let text = rule_text("    provenance: unissued", "  type: event_count\n  timespan: 1h\n  condition:\n    gt: 2")
        .replace(
            "  condition: selection\n",
            "  miss:\n    outcome: [miss, denied]\n  condition: selection and not miss\n",
        );
    let mut run = Run::new(&compile(&text).unwrap(), &bounds());
    for number in 0..5 {
        assert!(run.see(Observation { outcome: Outcome::Miss, ..read(0, number, 0) }).is_empty());
    }
    let found: Vec<Finding> = (0..3).flat_map(|_| run.see(Observation { account: None, ..read(0, 0, 0) })).collect();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].distinct, found[0].counted_field.as_str(), found[0].group.len()), (3, "observation", 0));
}

#[test]
fn what_cannot_count_is_counted() {
    let mut run = Run::with(COUNT);
    run.see(Observation { account: None, ..read(100 * SLICE, 0, 0) });
    run.see(read(100 * SLICE, 0, 0));
    run.see(read(76 * SLICE, 1, 0));
    run.see(read(76 * SLICE - 1, 2, 0));
    assert_eq!(run.stats(), RuleStats { groups: 1, matched: 2, without_value: 1, late: 1, ..RuleStats::default() });
}

/// One group per client.
const BY_CLIENT: &str =
    "  type: value_count\n  group-by: [client]\n  timespan: 1h\n  condition:\n    gte: 10\n    field: account";

fn small(rule_groups: usize) -> Bounds {
    Bounds { rule_groups, ..bounds() }
}

#[test]
fn a_flood_of_new_groups_cannot_push_out_one_near_its_threshold() {
    let rules = compile(&rule_text("    provenance: unissued", BY_CLIENT)).unwrap();
    let mut run = Run::new(&rules, &small(100));
    for number in 0..6 {
        run.see(read(0, number, 0));
    }
    for flood in 1..50_000u32 {
        assert!(run.see(read(1, 1_000 + flood % 7, flood)).is_empty());
    }
    let stats = run.stats();
    assert_eq!((stats.groups - stats.quiet, stats.overflowed), (1, 0));
    assert!(stats.quiet <= 1_024 && stats.evicted_quiet >= 48_000, "{stats:?}");
    let found: Vec<Finding> = (6..10).flat_map(|number| run.see(read(2, number, 0))).collect();
    assert_eq!((found.len(), found[0].distinct), (1, 10));
    // Nor can it push out the open finding, which still closes.
    for flood in 1..1_000u32 {
        run.see(read(3, 1_000, 60_000 + flood));
    }
    let closed = run.tick(26 * SLICE);
    assert_eq!((closed.len(), closed[0].activity, &closed[0].uid), (1, Activity::Close, &found[0].uid));
}

#[test]
fn when_every_group_is_near_its_threshold_the_rest_is_counted_together() {
    let rules = compile(&rule_text("    provenance: unissued", BY_CLIENT)).unwrap();
    let mut run = Run::new(&rules, &small(20));
    for client in 0..20 {
        for number in 0..6 {
            run.see(read(0, number, client));
        }
    }
    // The attacker filled the table; five accounts from each of two further addresses are still seen.
    let found: Vec<Finding> = (0..10).flat_map(|number| run.see(read(1, 100 + number, 100 + number / 5))).collect();
    assert_eq!((found.len(), found[0].distinct, found[0].clients), (1, 10, 2));
    assert_eq!(found[0].group, [("client".to_owned(), "overflow".to_owned())]);
    assert_eq!((run.stats().overflowed, run.stats().evicted, run.stats().groups), (2, 0, 21));
    assert_eq!(run.tick(26 * SLICE).len(), 1, "and closes");
    assert_eq!(run.stats().groups, 0);
}

#[test]
fn beyond_the_bound_a_finding_says_that_it_estimates() {
    let rules = compile(&rule_text("    provenance: unissued", COUNT)).unwrap();
    let mut run = Run::new(&rules, &Bounds { group_values: 100, ..bounds() });
    let mut last = None;
    for number in 0..20_000u32 {
        last = run.see(read(u64::from(number), number, number % 500)).pop().or(last);
    }
    assert_eq!(run.stats().estimated, 1, "once");
    let closed = run.tick(1_000 * SLICE).pop().unwrap();
    assert!(!closed.exact && !last.unwrap().exact);
    assert!((19_000..21_000).contains(&closed.distinct) && (475..525).contains(&closed.clients), "{closed:?}");
    // A threshold beyond the bound is reached by estimate.
    let high = COUNT.replace("gte: 3", "gte: 1000");
    let rules = compile(&rule_text("    provenance: unissued", &high)).unwrap();
    let mut run = Run::new(&rules, &Bounds { group_values: 100, ..bounds() });
    let after = (0..2_000u32).find(|number| !run.see(read(u64::from(*number), *number, 0)).is_empty()).unwrap();
    assert!((930..1_070).contains(&after), "{after}");
}

fn lines(observations: &[Observation], bounds: &Bounds) -> Vec<u8> {
    let rules = [BY_CLIENT, COUNT]
        .map(|correlation| compile(&rule_text("    provenance: unissued", correlation)).unwrap().remove(0));
    let mut run = Run::new(&rules, bounds);
    let mut bytes = Vec::new();
    for o in observations {
        for finding in run.see(*o) {
            ocsf::write_line(&finding, &mut bytes).unwrap();
        }
    }
    for finding in run.tick(u64::MAX / 2) {
        ocsf::write_line(&finding, &mut bytes).unwrap();
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Hash tables are seeded anew in each engine; nothing of that may show, with evictions and sketches in play.
    #[test]
    fn the_same_input_gives_the_same_bytes(steps in proptest::collection::vec((0u64..SLICE, 0u32..60, 0u32..12), 50..400)) {
        let mut now = 0;
        let observations: Vec<Observation> = steps.iter().map(|(step, account, client)| {
            now += step;
            read(now, *account, *client)
        }).collect();
        let bounds = Bounds { group_values: 12, ..small(5) };
        let first = lines(&observations, &bounds);
        prop_assert_eq!(&first, &lines(&observations, &bounds));
    }

    /// Against the definition by brute force, and against the exact window within the documented error.
    #[test]
    fn agrees_with_a_naive_model(steps in proptest::collection::vec((0u64..3 * SLICE, 0u64..30 * SLICE, 0u32..8, 0u32..3), 1..300)) {
        let threshold = 4;
        let correlation = BY_CLIENT.replace("gte: 10", "gte: 4");
        let mut run = Run::with(&correlation);
        let mut now = 100 * SLICE;
        // Per client: sightings (time, account) since the last time its window was empty.
        let mut model: BTreeMap<u32, (Vec<(u64, u32)>, bool)> = BTreeMap::new();
        for (step, age, account, client) in steps {
            now += step;
            // Most come in time order, some late.
            let time = if age % 4 == 0 { now - age } else { now };
            // Time never goes back: first the engine is told of `now`, as ticks do.
            let closed = run.tick(now);
            let mut want_closed = 0;
            model.retain(|_, (seen, open)| {
                let over = seen.iter().all(|(at, _)| at / SLICE + 24 < now / SLICE);
                want_closed += usize::from(over && *open);
                !over
            });
            prop_assert_eq!(closed.len(), want_closed);
            prop_assert!(closed.iter().all(|finding| finding.activity == Activity::Close));
            let found = run.see(read(time, account, client));
            if time / SLICE + 24 < now / SLICE {
                prop_assert!(found.is_empty());
                continue;
            }
            let (seen, open) = model.entry(client).or_default();
            seen.push((time, account));
            let distinct = |from: &dyn Fn(u64) -> bool| {
                seen.iter().filter(|(at, _)| from(*at)).map(|(_, account)| *account).collect::<BTreeSet<_>>().len()
            };
            let counted = distinct(&|at| at / SLICE + 24 >= now / SLICE);
            let least = distinct(&|at| at + 24 * SLICE > now);
            let most = distinct(&|at| at + 25 * SLICE > now);
            prop_assert!(least <= counted && counted <= most, "never less than the window, never more than a 24th longer");
            let opens = !*open && counted >= threshold;
            prop_assert_eq!(found.iter().any(|finding| finding.activity == Activity::Open), opens);
            if opens {
                prop_assert_eq!(found[0].distinct, counted as u64);
                *open = true;
            }
        }
    }
}

#[test]
fn anomalies_match_by_name_and_group_by_what_applies() {
    use sensor_ebpf::wire::anomaly::{AMBIGUOUS, CONFLICT, LENGTH_AND_CODING, OBS_FOLD};
    let matched = |lines: &str, anomalies: u32| {
        let once = COUNT.replace("gte: 3", "gte: 1").replace("[service]", "[anomaly]");
        let mut run = Run::new(&compile(&rule_text(lines, &once)).unwrap(), &bounds());
        run.see(Observation { anomalies, ..read(0, 1, 1) }).first().map(|finding| finding.group[0].1.clone())
    };
    let smuggled = "    anomaly: [length_and_coding, odd_coding]";
    assert_eq!(matched(smuggled, LENGTH_AND_CODING).as_deref(), Some("length_and_coding"));
    assert_eq!(matched(smuggled, LENGTH_AND_CODING | OBS_FOLD).as_deref(), Some("obs_fold,length_and_coding"));
    assert_eq!((matched(smuggled, OBS_FOLD), matched(smuggled, 0)), (None, None));
    assert_eq!(matched("    anomaly: null", 0).as_deref(), Some("none"));
    assert_eq!(matched("    anomaly: null", OBS_FOLD), None);
    for (field, bit) in [("conflict", CONFLICT), ("ambiguous", AMBIGUOUS)] {
        for (word, anomalies, holds) in [("true", bit, true), ("true", OBS_FOLD, false), ("false", bit, false)] {
            assert_eq!(matched(&format!("    {field}: {word}"), anomalies).is_some(), holds, "{field}: {word}");
        }
    }
    let errors = compile(&rule_text("    anomaly: conflicts", COUNT)).unwrap_err();
    assert!(errors.iter().any(|error| error.contains("Did you mean `conflict`?")), "{errors:?}");
}
