use std::collections::BTreeMap;

use proptest::prelude::*;
use sensor_ebpf::siphash::{Key as SipKey, hash128};

use super::*;

fn key(n: u64) -> Key {
    Key { service: ServiceId(0), fingerprint: Fingerprint(hash128(SipKey { k0: 1, k1: 2 }, &n.to_le_bytes())) }
}

fn at(monotonic_ns: u64) -> Instant {
    Instant { monotonic_ns, unix_ns: monotonic_ns }
}

fn services(names: [&str; 2]) -> Vec<Service> {
    let service = |name: &str| Service {
        name: name.to_owned(),
        listen: Vec::new(),
        proxy_protocol: false,
        credentials: crate::config::model::Credentials::default(),
        routes: Vec::new(),
        issuers: Vec::new(),
        canaries: crate::config::model::Canaries::default(),
    };
    names.map(service).to_vec()
}

fn store(issuances: usize, lifetime: u64, retention: u64) -> Store {
    with_recent(4, issuances, lifetime, retention)
}

fn with_recent(accounts: usize, issuances: usize, lifetime: u64, retention: u64) -> Store {
    let bounds = Bounds { issuances, accounts, lifetime, retention };
    Store::new(bounds, &services(["shop", "api"]), 0)
}

fn add(store: &mut Store, n: u64, expires: u64) -> bool {
    let issue = Issue { provenance: Provenance::Issued, account: None, issuer: None, expires, used: false };
    store.insert(&key(n), &issue, at(0))
}

#[test]
fn a_tombstone_outlives_its_credential_and_use_renews_it() {
    let mut store = store(100, 100_000, 50_000);
    add(&mut store, 1, 100_000);
    add(&mut store, 2, 100_000);
    let mut gone = Vec::new();
    for now in (0..500_000).step_by(50) {
        store.sweep(now, |id, _| gone.push((now, id)));
        if now < 300_000 {
            let Answer::Known(entry) = store.presented(&key(2), false, None, at(now)) else { panic!("at {now}") };
            assert_eq!(entry.used, now > 0);
            // To within a bucket (751 ns).
            if now < 100_000 {
                assert!(!entry.ended);
            } else if now > 101_600 {
                assert!(entry.ended);
            }
        }
    }
    assert_eq!(gone.len(), 2);
    assert!(gone[0].1 == store.id(&key(1)) && (150_000..152_500).contains(&gone[0].0), "{gone:?}");
    assert!(gone[1].1 == store.id(&key(2)) && (350_000..352_500).contains(&gone[1].0), "{gone:?}");
}

#[test]
fn evicts_the_earliest_and_respects_extension() {
    let mut store = store(3, 100_000, 0);
    add(&mut store, 1, 10_000);
    add(&mut store, 2, 20_000);
    add(&mut store, 3, 30_000);
    assert!(!add(&mut store, 4, 40_000), "full");
    store.amend(&key(1), &Amendment { expires: Some(90_000), ..Amendment::default() }, at(0));
    store.amend(&key(3), &Amendment { expires: Some(10), ..Amendment::default() }, at(0));
    let mut evicted = || store.evict(&key(4), 0).map(|(id, _)| id);
    assert_eq!([evicted(), evicted(), evicted(), evicted()].map(|id| id.is_some()), [true, true, true, false]);
}

#[test]
fn eviction_goes_by_time() {
    let mut store = store(3, 100_000, 0);
    for (n, expires) in [(1, 30_000), (2, 10_000), (3, 20_000)] {
        add(&mut store, n, expires);
    }
    for n in [2, 3, 1] {
        let (id, entry) = store.evict(&key(9), 0).unwrap();
        assert_eq!((id, entry.provenance), (store.id(&key(n)), Provenance::Issued));
    }
}

#[test]
fn an_account_is_at_hand_while_it_is_recent() {
    let mut store = store(100, 100_000, 0);
    let account = |n: u8| AccountHash([n; 16]);
    for n in 0..8 {
        let issue = Issue {
            provenance: Provenance::Issued,
            account: Some(account(n)),
            issuer: Some(IssuerId(u16::from(n))),
            expires: 90_000,
            used: false,
        };
        assert!(store.insert(&key(n.into()), &issue, at(0)));
    }
    let of = |store: &mut Store, n: u64| match store.presented(&key(n), false, None, at(1)) {
        Answer::Known(entry) => (entry.account, entry.issuer),
        other => panic!("{other:?}"),
    };
    assert_eq!(of(&mut store, 7), (Some(account(7)), None), "issuers beyond the seventh are not noted");
    assert_eq!(of(&mut store, 6), (Some(account(6)), Some(IssuerId(6))));
    assert_eq!(of(&mut store, 0), (None, Some(IssuerId(0))), "no longer recent");
    store.amend(&key(7), &Amendment { account: Some(account(70)), ..Amendment::default() }, at(0));
    assert_eq!(of(&mut store, 7).0, Some(account(70)));
}

#[test]
fn the_service_is_part_of_the_key() {
    let mut store = store(100, 100_000, 0);
    add(&mut store, 1, 90_000);
    let elsewhere = Key { service: ServiceId(1), ..key(1) };
    assert_eq!(store.presented(&elsewhere, false, None, at(1)), Answer::Unknown);
    assert!(store.find(&key(1), 1).is_some());
    // By its name, not by its place in the configuration.
    let bounds = Bounds { issuances: 100, accounts: 1, lifetime: 1, retention: 1 };
    let moved = Store::new(bounds, &services(["api", "shop"]), 0);
    assert_eq!(moved.id(&Key { service: ServiceId(1), ..key(1) }), store.id(&key(1)));
}

#[test]
fn a_clock_that_leaps_loses_nothing() {
    let mut store = store(100, 1000, 100);
    add(&mut store, 1, 1000);
    for leap in [50_000, 1_000_000, 50_000_000] {
        let mut gone = 0;
        store.sweep(leap, |_, _| gone += 1);
        assert_eq!(gone, 1);
        add(&mut store, 1, leap + 1000);
        assert!(matches!(store.presented(&key(1), false, None, at(leap + 1099)), Answer::Known(_)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    /// Whatever the jumps of time: nothing is let go before its time, and in the end everything is.
    #[test]
    fn sweep_is_sound(steps in proptest::collection::vec((0u64..50, 0u64..3000, 1u64..100_000), 1..300)) {
        let mut store = store(1000, 100_000, 10_000);
        let mut model = BTreeMap::new();
        let mut now = 0;
        for (n, jump, life) in steps {
            now += if jump > 2900 { jump * 100 } else { jump };
            let lasting = model.values().filter(|keep_until| **keep_until > now).count();
            prop_assert!(store.lasting(now) <= lasting && (lasting == 0 || store.lasting(0) > 0));
            let mut gone = Vec::new();
            store.sweep(now, |id, _| gone.push(id));
            for lost in gone {
                let n = (0..50).find(|n| store.id(&key(*n)) == lost).unwrap();
                let keep_until: u64 = model.remove(&n).unwrap();
                prop_assert!(keep_until <= now);
            }
            if let std::collections::btree_map::Entry::Vacant(vacant) = model.entry(n) {
                vacant.insert(now + life + 10_000);
                prop_assert!(add(&mut store, n, now + life));
            }
            prop_assert_eq!(store.len(), model.len());
        }
        for _ in 0..6000 { now += 100; store.sweep(now, |_, _| ()); }
        prop_assert_eq!(store.len(), 0);
    }

    /// What is at hand of recent credentials says what the table says, whatever became of them in between.
    #[test]
    fn at_hand_or_not_the_answer_is_the_same(steps in proptest::collection::vec((0u8..8, 0u64..12, 0u64..9000), 1..400)) {
        let mut stores = [1, 3, 64].map(|recent| with_recent(recent, 4, 100_000, 10_000));
        let mut now = 0;
        for (step, n, more) in steps {
            now += more / 3;
            let told = stores.each_mut().map(|store| {
                let mut told = Vec::new();
                store.sweep(now, |id, entry| told.push((Some(id), entry)));
                let life = now + more * 11;
                match step {
                    0 if store.find(&key(n), now).is_none() => {
                        let account = (n % 3 > 0).then_some(AccountHash([1; 16]));
                        let issue = Issue { provenance: Provenance::Issued, account, issuer: None, expires: life, used: false };
                        if !store.insert(&key(n), &issue, at(now)) {
                            told.extend(store.evict(&key(n), now).map(|(id, entry)| (Some(id), entry)));
                            store.insert(&key(n), &issue, at(now));
                        }
                    }
                    1 => told.extend(store.end(&key(n), at(now)).map(|entry| (None, entry))),
                    2 => {
                        let account = (n % 2 > 0).then_some(AccountHash([2; 16]));
                        let amendment = Amendment { revived: more % 2 > 0, account, expires: Some(life), issued: true };
                        if store.find(&key(n), now).is_some() {
                            store.amend(&key(n), &amendment, at(now));
                        }
                    }
                    // An answer of the disk, which may come when the credential is gone.
                    3 => store.keep_account(store.id(&key(n)), Some(AccountHash([3; 16])), None),
                    _ => {
                        let end = (step > 5).then_some(life);
                        if let Answer::Known(entry) = store.presented(&key(n), false, end, at(now)) {
                            told.push((None, entry));
                        }
                    }
                }
                // Only whose they are is at hand or not.
                told.iter().map(|(id, entry)| (*id, Entry { account: None, ..*entry })).collect::<Vec<_>>()
            });
            prop_assert_eq!(&told[0], &told[1]);
            prop_assert_eq!(&told[0], &told[2]);
        }
    }
}
