//! The ledger against a naive model, and what must hold whatever the bounds.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use Provenance::{Issued as Was, Preexisting, Unissued, Unverifiable};

#[derive(Clone, Copy, Debug)]
enum Step {
    Login(u8),
    Bind(u8),
    Refresh(u8, Provenance),
    Logout(u8),
    Use(u8),
    Gap(u64),
    Wait(u64),
}

fn steps(names: u8) -> impl Strategy<Value = Vec<Step>> {
    let name = 0..names;
    let parent = prop_oneof![Just(Was), Just(Preexisting), Just(Unverifiable), Just(Unissued)];
    let step = prop_oneof![
        3 => name.clone().prop_map(Step::Login),
        1 => name.clone().prop_map(Step::Bind),
        2 => (name.clone(), parent).prop_map(|(name, parent)| Step::Refresh(name, parent)),
        1 => name.clone().prop_map(Step::Logout),
        6 => name.prop_map(Step::Use),
        1 => (0u64..3).prop_map(Step::Gap),
        2 => (1u64..1500).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..120)
}

/// As the rules are worded, without bounds, expiry or indexes.
#[derive(Default)]
struct Model {
    stored: BTreeMap<u8, Provenance>,
    used: BTreeSet<u8>,
    excused: BTreeSet<u8>,
    /// (end, left)
    gaps: Vec<(u64, u64)>,
}

impl Model {
    fn issue(&mut self, name: u8, inherits: Option<Provenance>, binds: bool) -> Issued {
        let used = self.used.contains(&name) && !binds;
        match (self.stored.get(&name), inherits) {
            (Some(Was), _) | (Some(_), Some(_)) => Issued::Known,
            (_, None) if !used => {
                self.stored.insert(name, Was);
                Issued::Added
            }
            (None, Some(parent)) if !used => {
                self.stored.insert(name, parent);
                Issued::Inherited(parent)
            }
            _ => Issued::Echo,
        }
    }

    fn judge(&mut self, name: u8, now: u64) -> Provenance {
        self.used.insert(name);
        if let Some(provenance) = self.stored.get(&name) {
            return *provenance;
        }
        if now < WARM {
            return Preexisting;
        }
        if self.excused.contains(&name) {
            return Unverifiable;
        }
        match self.gaps.iter_mut().find(|(end, left)| *left > 0 && end + WARM >= now) {
            Some((_, left)) => {
                *left -= 1;
                self.excused.insert(name);
                Unverifiable
            }
            None => Unissued,
        }
    }
}

fn issuance(step: Step, now: u64) -> Option<Issuance> {
    match step {
        Step::Login(name) => Some(login(&name.to_string(), now)),
        Step::Bind(name) => Some(binding(&name.to_string(), now)),
        Step::Refresh(name, parent) => Some(refresh(&name.to_string(), now, parent)),
        _ => None,
    }
}

proptest! {
    #[test]
    fn agrees_with_the_model(steps in steps(8), start in prop_oneof![Just(1u64), Just(WARM)]) {
        let mut ledger = ledger();
        let mut model = Model::default();
        let mut now = start;
        for step in steps {
            now += 1;
            if let Some(issuance) = issuance(step, now) {
                let (Step::Login(name) | Step::Bind(name) | Step::Refresh(name, _)) = step else { unreachable!() };
                let want = model.issue(name, issuance.inherits, issuance.binds);
                prop_assert_eq!(ledger.issue(issuance), want, "{:?}", step);
            }
            match step {
                Step::Use(name) => prop_assert_eq!(ledger.of(&name.to_string(), now), model.judge(name, now)),
                Step::Logout(name) => ledger.revoke(SERVICE, fingerprint(&name.to_string()), at(now)),
                Step::Gap(lost) => {
                    // Far apart, so that they stay separate gaps.
                    now += 2 * LEEWAY;
                    ledger.gap(SERVICE, at(now), at(now), lost);
                    model.gaps.push((now, lost));
                }
                // Nothing is forgotten in this time: lives end after two hours, tombstones two hours later.
                Step::Wait(s) if now < start + LIFETIME => now += s,
                _ => {}
            }
        }
    }

    /// With every bound far too small: what a login handed out is never `unissued`, what no login touched is never
    /// `issued`, and the bounds hold.
    #[test]
    fn sound_whatever_the_bounds(steps in steps(40), issuances in 0usize..6, seen in 1usize..6, cache in 0usize..4) {
        let mut ledger = with(|config| {
            config.ledger.max_issuances = issuances;
            config.ledger.max_seen = seen;
            config.bounds.claims_cache = cache;
        });
        let mut handed_out = BTreeSet::new();
        let mut touched = BTreeSet::new();
        let mut now = WARM;
        for step in steps {
            now += 1;
            if let Some(issuance) = issuance(step, now) {
                let login = matches!(issuance.inherits, None | Some(Was));
                if login { touched.insert(issuance.fingerprint.0); }
                match ledger.issue(issuance) {
                    Issued::Added | Issued::Inherited(Was) => { handed_out.insert(issuance.fingerprint.0); }
                    Issued::Full if login => { handed_out.insert(issuance.fingerprint.0); }
                    _ => {}
                }
            }
            match step {
                Step::Use(name) => {
                    let id = fingerprint(&name.to_string()).0;
                    let provenance = ledger.of(&name.to_string(), now);
                    prop_assert!(!(provenance == Unissued && handed_out.contains(&id)), "false accusation");
                    prop_assert!(provenance != Was || touched.contains(&id), "laundered");
                }
                Step::Logout(name) => ledger.revoke(SERVICE, fingerprint(&name.to_string()), at(now)),
                Step::Wait(s) if now < WARM + LIFETIME => now += s,
                _ => {}
            }
            let stats = ledger.stats();
            prop_assert!(stats.issuances <= issuances && stats.seen <= seen);
        }
    }
}
