//! A ledger in a folder, across restarts.

use std::path::Path;

use super::*;
use crate::collect::Keys;
use crate::config::model::{IssuanceRule, LedgerStore};
use Provenance::{Issued as Was, Unissued, Unverifiable};

fn keys() -> Keys {
    Keys { fingerprint: SipKey { k0: 7, k1: 11 }, account: SipKey { k0: 1, k1: 2 } }
}

fn open_with(folder: &Path, s: u64, change: impl FnOnce(&mut Config)) -> Ledger {
    let mut config = config();
    config.ledger.store = LedgerStore::Folder(folder.join("ledger"));
    change(&mut config);
    Ledger::open(&config, &keys(), at(s)).unwrap()
}

fn open(folder: &Path, s: u64) -> Ledger {
    open_with(folder, s, |config| config.services[0].routes[0].issuance = Some(IssuanceRule::default()))
}

/// After the machine was started anew: the monotonic clock begins again.
fn rebooted(s: u64) -> Instant {
    Instant { monotonic_ns: 5_000_000_000, ..at(s) }
}

#[test]
fn what_was_closed_in_order_goes_on_as_if_nothing_had_been() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    let account = ledger.hash_account(b"17");
    ledger.issue(Issuance { account: Some(account), ..login("a", 10) });
    ledger.issue(login("out", 10));
    ledger.issue(refresh("child of a forgery", 10, Unissued));
    ledger.revoke(SERVICE, fingerprint("out"), at(20));
    assert_eq!(ledger.of("forged", 30), Provenance::Preexisting);
    ledger.close(at(40));
    drop(ledger);

    let mut ledger = open(folder.path(), 40);
    assert_eq!(ledger.loaded(), Loaded { issuances: 3, ..Loaded::default() });
    assert_eq!(ledger.of("a", WARM), Was);
    assert_eq!(ledger.of("out", WARM), Was);
    assert_eq!(ledger.stats().used_after_end, 1, "the logout was kept");
    assert_eq!(ledger.of("child of a forgery", WARM), Unissued);
    assert_eq!(ledger.of("b", WARM), Unissued, "the horizon is that of the first start");
    assert_eq!(ledger.issue(login("forged", WARM)), Issued::Echo, "and so is what was presented then");
    assert_eq!(ledger.stats().issuers[0].horizon_unix, START);
    assert_eq!(ledger.stats().gaps, 0);
    // The account comes from the disk, for a later use.
    let mut found = None;
    for wait in 0..500 {
        found = found.or(ledger.judge(&cookie("a"), at(WARM + wait)).account);
        std::thread::sleep(Duration::from_millis(if found.is_some() { 0 } else { 10 }));
    }
    assert_eq!(found, Some(account));
}

#[test]
fn a_reboot_turns_the_clock_back_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    ledger.issue(login("a", 10));
    ledger.close(at(HOUR));
    drop(ledger);
    let mut config = config();
    config.ledger.store = LedgerStore::Folder(folder.path().join("ledger"));
    let mut ledger = Ledger::open(&config, &keys(), rebooted(HOUR)).unwrap();
    let later = |s: u64| Instant { monotonic_ns: rebooted(0).monotonic_ns + (s - HOUR) * 1_000_000_000, ..at(s) };
    for s in (HOUR..WARM + HOUR).step_by(60) {
        assert_eq!(ledger.judge(&cookie("a"), later(s)).provenance, Was, "{s}");
        let unknown = ledger.judge(&cookie("b"), later(s)).provenance;
        assert_eq!(unknown, if s < WARM { Provenance::Preexisting } else { Unissued }, "{s}");
    }
}

#[test]
fn a_kill_is_a_gap_of_at_least_one_and_keeps_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    for s in 0..120 {
        ledger.issue(login(&s.to_string(), s));
    }
    ledger.tick(at(WARM));
    drop(ledger);
    let mut ledger = open(folder.path(), WARM + 2);
    for s in 0..120 {
        assert_eq!(ledger.of(&s.to_string(), WARM + 3), Was);
    }
    let stats = ledger.stats();
    assert_eq!(stats.gaps, 1);
    assert_eq!(stats.gap_left, 1, "nobody had logged in for hours: the least that is assumed");
    assert_eq!(ledger.of("lost", WARM + 4), Unverifiable);
    assert_eq!(ledger.of("forged", WARM + 5), Unissued);
    drop(ledger);
    // The budget is spent, and on whom, whatever happens.
    let mut ledger = open(folder.path(), WARM + 6);
    assert_eq!(ledger.of("lost", WARM + 7), Unverifiable);
    assert_eq!(ledger.stats().gap_left, 1, "the new gap's");
    ledger.close(at(WARM + 8));
}

#[test]
fn a_busy_service_has_a_wider_gap_and_one_without_logins_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open_with(folder.path(), 0, |_| ());
    for n in 0..600 {
        ledger.issue(login(&n.to_string(), n / 10));
    }
    ledger.close(at(60));
    drop(ledger);
    let ledger = open_with(folder.path(), 64, |_| ());
    assert_eq!(ledger.stats().gap_left, 40 + 19, "ten a second for four seconds, and three deviations");
    drop(ledger);
    let quiet = tempfile::tempdir().unwrap();
    drop(open_with(quiet.path(), 0, |_| ()));
    assert_eq!(open_with(quiet.path(), 64, |_| ()).stats().gaps, 0, "no route issues anything");
}

#[test]
fn services_are_known_by_name_and_new_ones_begin_their_horizon() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    ledger.issue(login("a", 10));
    ledger.close(at(WARM));
    drop(ledger);
    let mut ledger = open_with(folder.path(), WARM, |config| {
        let other = Service { name: "api".to_owned(), ..config.services[0].clone() };
        config.services.insert(0, other);
    });
    let (api, shop) = (ServiceId(0), ServiceId(1));
    let mut of = |service, name| ledger.judge(&Presented { service, ..cookie(name) }, at(WARM + 1)).provenance;
    assert_eq!(of(shop, "a"), Was);
    assert_eq!(of(shop, "b"), Unissued);
    assert_eq!(of(api, "a"), Provenance::Preexisting);
}

#[test]
fn what_finds_no_room_after_a_restart_is_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    for n in 0..500 {
        ledger.issue(login(&n.to_string(), 10));
    }
    ledger.close(at(20));
    drop(ledger);
    let mut ledger = open_with(folder.path(), 20, |config| config.ledger.max_issuances = 100);
    assert_eq!((ledger.loaded().issuances, ledger.loaded().evicted), (100, 400));
    assert!((0..500).all(|n| ledger.of(&n.to_string(), WARM) != Unissued));
    assert_eq!(ledger.stats().evictions, 400);
}

#[test]
fn the_budget_of_the_horizon_is_not_given_anew() {
    let folder = tempfile::tempdir().unwrap();
    let few =
        |config: &mut Config| config.services[0].issuers.iter_mut().for_each(|issuer| issuer.preexisting = Some(5));
    let mut ledger = open_with(folder.path(), 0, few);
    for n in 0..5 {
        assert_eq!(ledger.of(&n.to_string(), 100), Provenance::Preexisting);
    }
    ledger.close(at(200));
    drop(ledger);
    let mut ledger = open_with(folder.path(), 200, few);
    assert_eq!(ledger.of("3", 300), Provenance::Preexisting, "taken for that before");
    assert_eq!(ledger.of("forged", 301), Unverifiable, "one too many");
}

/// What descends from a forgery gains nothing by a start that has less room.
#[test]
fn a_start_without_room_launders_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    let child = |n: u64| format!("child {n}");
    for n in 0..40 {
        ledger.issue(refresh(&child(n), WARM + n, Unissued));
        ledger.of(&child(n), WARM + n + 1);
        ledger.issue(login(&n.to_string(), WARM + n));
    }
    ledger.close(at(WARM + 100));
    drop(ledger);
    let mut ledger = open_with(folder.path(), WARM + 100, |config| config.ledger.max_issuances = 10);
    assert!(ledger.loaded().evicted >= 60, "{:?}", ledger.loaded());
    for n in 0..40 {
        assert_eq!(ledger.of(&child(n), WARM + 101), Unissued, "{n}");
        assert!(matches!(ledger.issue(login(&child(n), WARM + 102)), Issued::Echo), "{n}");
        assert_ne!(ledger.of(&n.to_string(), WARM + 103), Unissued, "{n}");
    }
}

/// Whoever can push for one issuer must not become good for all by a change of its name.
#[test]
fn what_an_issuer_told_is_doubt_once_it_has_another_name() {
    let folder = tempfile::tempdir().unwrap();
    let told = |name: &str| Told {
        service: SERVICE,
        issuer: IssuerId(1),
        fingerprint: fingerprint(name),
        at: at(10),
        expires: None,
        account: None,
        parent: None,
    };
    let mut ledger = open(folder.path(), 0);
    ledger.told(&told("a"), at(10));
    ledger.issue(login("b", 10));
    ledger.close(at(20));
    drop(ledger);
    let rename = |config: &mut Config| config.services[0].issuers[1].name = "sessions".to_owned();
    let mut ledger = open_with(folder.path(), 20, rename);
    assert_eq!((ledger.of("a", WARM), ledger.of("b", WARM)), (Unverifiable, Was));
    ledger.close(at(WARM));
    drop(ledger);
    // The disk still knows.
    assert_eq!(open(folder.path(), WARM + 1).of("a", WARM + 2), Was);
}

#[test]
fn what_was_presented_stays_known_after_its_tombstone_went() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path(), 0);
    ledger.issue(refresh("child", WARM, Unissued));
    assert_eq!(ledger.of("child", WARM + 1), Unissued);
    for half_hour in 0..120 {
        ledger.of("x", WARM + 1800 * half_hour);
    }
    assert_eq!(ledger.stats().issuances, 0, "it was swept");
    ledger.close(at(WARM + 60 * HOUR));
    drop(ledger);
    let mut ledger = open(folder.path(), WARM + 60 * HOUR);
    assert_eq!(ledger.issue(login("child", WARM + 60 * HOUR + 1)), Issued::Echo);
}

#[test]
fn presented_ones_without_room_leave_the_disk() {
    let folder = tempfile::tempdir().unwrap();
    let with_room_for = |seen: usize| open_with(folder.path(), WARM, |config| config.ledger.max_seen = seen);
    let mut ledger = with_room_for(1000);
    for n in 0..50 {
        ledger.of(&n.to_string(), WARM);
    }
    ledger.close(at(WARM));
    drop(ledger);
    let mut ledger = with_room_for(10);
    ledger.close(at(WARM));
    drop(ledger);
    let mut ledger = with_room_for(1000);
    let echoes = (0..50).filter(|n| ledger.issue(login(&n.to_string(), WARM + 1)) == Issued::Echo);
    assert_eq!(echoes.count(), 10);
}
