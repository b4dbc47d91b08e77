use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;
use crate::finding::ocsf::tests::finding;

fn account(n: u8) -> AccountHash {
    AccountHash([n; 16])
}

fn open(uid: &str, level: Level, accounts: std::ops::Range<u8>) -> Finding {
    Finding {
        uid: uid.to_owned(),
        level,
        distinct: accounts.len() as u64,
        account_sample: accounts.map(account).collect(),
        ..finding()
    }
}

fn placed(parents: &mut Parents, mut finding: Finding) -> Standing {
    parents.place(&mut finding);
    finding.standing
}

#[test]
fn overlapping_findings_have_one_parent_and_one_alert() {
    let mut parents = Parents::new(30);
    let first = placed(&mut parents, open("a", Level::Medium, 0..20));
    assert_eq!((first.parent, first.alert), (None, Some(AlertReason::Opened)));
    let same = placed(&mut parents, open("b", Level::Medium, 5..25));
    assert_eq!((same.parent.as_deref(), same.alert), (Some("a"), None));
    let graver = placed(&mut parents, open("c", Level::High, 8..24));
    assert_eq!((graver.parent.as_deref(), graver.alert), (Some("a"), Some(AlertReason::Graver)));
    let again = placed(&mut parents, open("d", Level::High, 8..24));
    assert_eq!(again.alert, None, "as grave as what was told");
    let other = placed(&mut parents, open("e", Level::High, 100..120));
    assert_eq!((other.parent, other.alert), (None, Some(AlertReason::Opened)));
    let mut elsewhere = open("f", Level::High, 0..20);
    elsewhere.group[0].1 = "bank".to_owned();
    assert_eq!(placed(&mut parents, elsewhere).parent, None, "another service");
}

#[test]
fn without_accounts_the_same_key_or_client_tells() {
    let mut parents = Parents::new(30);
    placed(&mut parents, open("a", Level::High, 0..20));
    assert_eq!(placed(&mut parents, open("b", Level::Medium, 0..0)).parent.as_deref(), Some("a"), "the same kid");
    let mut other = open("c", Level::Medium, 0..0);
    other.group[2].1 = "k2".to_owned();
    assert_eq!(placed(&mut parents, other).parent, None);
}

#[test]
fn a_changed_scope_alerts_again() {
    let mut parents = Parents::new(30);
    let mut one = open("a", Level::High, 0..10);
    one.scope.kids = vec!["k1".to_owned()];
    placed(&mut parents, one.clone());
    one.activity = Activity::Update;
    one.distinct = 99;
    assert_eq!(placed(&mut parents, one.clone()).alert, None);
    one.distinct = 100;
    assert_eq!(placed(&mut parents, one.clone()).alert, Some(AlertReason::Tenfold));
    one.distinct = 200;
    assert_eq!(placed(&mut parents, one.clone()).alert, None);
    one.scope.kids.push("k2".to_owned());
    assert_eq!(placed(&mut parents, one.clone()).alert, Some(AlertReason::NewKid));
    one.scope.routes.push("/orders".to_owned());
    assert_eq!(placed(&mut parents, one.clone()).alert, Some(AlertReason::NewRoute));
    one.activity = Activity::Close;
    assert_eq!(placed(&mut parents, one.clone()).alert, None);
    assert!(parents.is_empty());
}

#[test]
fn a_flood_of_findings_is_bounded_and_counted() {
    let mut parents = Parents::new(30);
    for n in 0..40 {
        let mut one = open(&format!("{n:08}"), Level::Low, 0..0);
        one.group = vec![("client".to_owned(), n.to_string())];
        placed(&mut parents, one);
    }
    assert_eq!((parents.len(), parents.dropped), (30, 10));
}

/// The open findings of a comparison with every one of them.
struct Plain {
    open: BTreeMap<String, Member>,
    most: usize,
    opened: u64,
    dropped: u64,
}

impl Plain {
    /// The parent of `finding`, which is open from now on.
    fn opened(&mut self, finding: &Finding) -> Option<String> {
        let mut member = Member::of(finding, self.opened);
        self.opened += 1;
        let kin = self.open.iter().filter(|(_, other)| other.is_kin(&member)).min_by_key(|(_, other)| other.order);
        member.parent = kin.map(|(uid, other)| other.parent.clone().unwrap_or_else(|| uid.clone()));
        while self.open.len() >= self.most {
            let parents: HashSet<&String> = self.open.values().filter_map(|member| member.parent.as_ref()).collect();
            let childless = self.open.iter().filter(|(uid, _)| !parents.contains(uid));
            let oldest = childless.min_by_key(|(_, member)| member.order).map(|(uid, _)| uid.clone());
            let Some(uid) = oldest.or_else(|| self.open.keys().next().cloned()) else { break };
            self.open.remove(&uid);
            self.dropped += 1;
        }
        let parent = member.parent.clone();
        self.open.insert(finding.uid.clone(), member);
        parent
    }

    fn place(&mut self, finding: &Finding) -> Option<String> {
        match (finding.activity, self.open.get_mut(&finding.uid)) {
            (Activity::Update, Some(member)) => {
                member.accounts = sorted(&finding.account_sample);
                member.parent.clone()
            }
            (Activity::Open | Activity::Update, _) => self.opened(finding),
            (Activity::Close, _) => self.open.remove(&finding.uid).and_then(|member| member.parent),
        }
    }
}

/// A report about one of a few findings, accounts, services, clients and keys, so that they meet often.
fn report() -> impl Strategy<Value = Finding> {
    let activity = prop_oneof![
        5 => Just(Activity::Open),
        2 => Just(Activity::Update),
        2 => Just(Activity::Close),
    ];
    let accounts = prop_oneof![
        2 => prop::collection::vec(0u8..30, 0..12),
        1 => (0u8..60, 0u8..20).prop_map(|(first, count)| (first..first + count).collect()),
    ];
    let named = |field: &'static str, values: &'static [&'static str]| {
        let value = prop::option::of(prop::sample::select(values));
        value.prop_map(move |value| value.map(|value| (field.to_owned(), value.to_owned())))
    };
    let marks = (
        named("service", &["shop", "bank"]),
        named("kid", &["k1", "k2", "none"]),
        named("client", &["192.0.2.1", "192.0.2.2", "192.0.2.3", "k1"]),
    );
    (0u8..40, activity, accounts, marks).prop_map(|(uid, activity, accounts, (service, kid, client))| Finding {
        uid: format!("{uid:02}"),
        activity,
        // The last bytes of some are alike.
        account_sample: accounts
            .iter()
            .map(|n| AccountHash([*n, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, *n % 25]))
            .collect(),
        group: [service, kid, client].into_iter().flatten().collect(),
        ..finding()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever is open, the indexes choose the parent that a comparison with every open finding chooses.
    #[test]
    fn the_indexes_choose_as_a_comparison_with_all(most in 1usize..40, reports in prop::collection::vec(report(), 1..200)) {
        let mut parents = Parents::new(most);
        let mut plain = Plain { open: BTreeMap::new(), most, opened: 0, dropped: 0 };
        for report in reports {
            let chosen = plain.place(&report);
            prop_assert_eq!(placed(&mut parents, report).parent, chosen);
            prop_assert_eq!((parents.len(), parents.dropped), (plain.open.len(), plain.dropped));
            let (kept, others) = (parents.open.uids(), plain.open.keys().collect::<Vec<_>>());
            prop_assert_eq!(kept, others);
            let of = |member: &Member| member.accounts.len() + 2 * member.marks.len() + 1;
            let most: usize = plain.open.values().map(of).sum();
            prop_assert!(parents.open.listed() <= most, "the indexes hold no more than the members do");
        }
    }
}

#[test]
fn what_closes_is_listed_no_more() {
    let mut parents = Parents::new(100);
    for turn in 0..3 {
        for n in 0..100 {
            placed(&mut parents, Finding { uid: n.to_string(), ..open("", Level::Low, n..n + turn * 10) });
        }
        for n in 0..100 {
            placed(&mut parents, Finding { uid: n.to_string(), activity: Activity::Close, ..finding() });
        }
        assert_eq!((parents.len(), parents.open.listed()), (0, 0));
    }
}
