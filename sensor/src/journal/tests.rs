use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::IpAddr;

use super::*;
use crate::observation::{
    AccountHash, Claims, Estimates, Fingerprint, Interned, IssuerId, Outcome, Provenance, Relation, RouteClass,
    RouteId, ServiceId, Validity,
};

const LIMITS: Limits = Limits { bytes: 1 << 30, age: Duration::from_hours(24) };
const HOUR: u64 = 3_600_000_000_000;

/// Names by kind, numbered in the order of the list.
struct Table(BTreeMap<&'static str, Vec<&'static str>>);

impl Table {
    fn new(kids: &[&'static str]) -> Self {
        Self(BTreeMap::from([
            ("service", vec!["shop", "bank"]),
            ("route", vec!["read", "login"]),
            ("issuer", vec!["sessions", "tokens"]),
            ("kid", kids.to_vec()),
        ]))
    }
}

fn kind(name: Name) -> (&'static str, usize) {
    match name {
        Name::Service(n) => ("service", n.into()),
        Name::Route(_, n) => ("route", n.into()),
        Name::Issuer(_, n) => ("issuer", n.into()),
        Name::Kid(n) => ("kid", n as usize),
        _ => ("none", 0),
    }
}

impl Names for Table {
    fn text(&self, name: Name) -> Option<&str> {
        let (kind, number) = kind(name);
        self.0.get(kind)?.get(number).copied()
    }
}

impl Resolve for Table {
    fn number(&mut self, like: Name, text: &str) -> Option<u32> {
        let (kind, _) = kind(like);
        let at = self.0.get(kind)?.iter().position(|known| *known == text)?;
        u32::try_from(at).ok()
    }
}

fn at(ns: u64) -> Instant {
    Instant { monotonic_ns: ns, unix_ns: ns }
}

fn observation(ns: u64, kid: u32) -> Observation {
    Observation {
        at: at(ns),
        service: ServiceId(1),
        route: Some(RouteId(0)),
        class: RouteClass::AccountRead,
        outcome: Outcome::Read,
        status: Some(200),
        provenance: Provenance::Unissued,
        validity: Validity::Ok,
        fingerprint: Some(Fingerprint([7; 16])),
        issuer: Some(IssuerId(1)),
        kid: Some(Interned(kid)),
        place: 1,
        self_contained: true,
        account: Some(AccountHash([9; 16])),
        client: IpAddr::from([192, 0, 2, 1]),
        anomalies: 5,
        claims: Claims { iat: Some(-3), ..Claims::default() },
        claim_anomalies: 2,
        relation: Relation::Foreign,
        object: None,
        target_id: Some(17),
        canary: true,
        issued: 0,
        estimates: Estimates { walk_client: 3, ..Estimates::default() },
    }
}

fn read(directory: &Path, now: u64, table: &mut Table) -> (Vec<Observation>, JournalCounts) {
    let mut all = Vec::new();
    let journal = Journal::open(directory, LIMITS, at(now), table, |entry, _| match entry {
        Entry::Observation(observation) => all.push(observation),
        other => panic!("{other:?}"),
    });
    (all, journal.unwrap().counts())
}

#[test]
fn what_was_counted_comes_back_under_the_numbers_of_now() {
    let directory = tempfile::tempdir().unwrap();
    let mut before = Table::new(&["old", "new"]);
    let mut journal = Journal::open(directory.path(), LIMITS, at(0), &mut before, |_, _| panic!("empty")).unwrap();
    for n in 0..5 {
        journal.observation(&observation(n, 1), &before);
        journal.flush(at(n)).unwrap();
    }
    // Killed: no end in order.
    drop(journal);
    let mut after = Table::new(&["new", "old"]);
    let (all, counts) = read(directory.path(), 10, &mut after);
    assert_eq!(all.len(), 5);
    assert_eq!(all[3].kid, Some(Interned(0)), "renamed");
    assert_eq!(format!("{:?}", all[4]), format!("{:?}", observation(4, 0)), "all else is as it was");
    assert_eq!((counts.replayed, counts.unknown, counts.torn_bytes), (5, 0, 0));
    // A name without room is the shared overflow.
    let (all, _) = read(directory.path(), 10, &mut Table::new(&[]));
    assert_eq!(all[0].kid, Some(Interned::OVERFLOW));
    // A service that is no more takes its observations with it.
    let mut fewer = Table::new(&["new"]);
    fewer.0.insert("service", vec!["shop"]);
    let (all, counts) = read(directory.path(), 10, &mut fewer);
    assert_eq!((all.len(), counts.unknown), (0, 5));
}

#[test]
fn a_torn_end_costs_what_was_being_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = Table::new(&["k"]);
    let mut journal = Journal::open(directory.path(), LIMITS, at(0), &mut table, |_, _| ()).unwrap();
    journal.observation(&observation(1, 0), &table);
    journal.observation(&observation(2, 0), &table);
    journal.flush(at(2)).unwrap();
    drop(journal);
    let path = directory.path().join("000000000000.journal");
    let whole = fs::read(&path).unwrap();
    for cut in 0..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        let (all, counts) = read(directory.path(), 3, &mut table);
        assert!(all.len() < 2, "{cut}");
        let _ = counts;
        // Each opening leaves a segment of its own.
        for (number, path) in segments(directory.path()).unwrap() {
            if number > 0 {
                fs::remove_file(path).unwrap();
            }
        }
    }
    fs::write(&path, &whole).unwrap();
    let mut noise = OpenOptions::new().append(true).open(&path).unwrap();
    noise.write_all(&[0xff; 9]).unwrap();
    let (all, counts) = read(directory.path(), 3, &mut table);
    assert_eq!((all.len(), counts.torn_bytes), (2, 9));
    fs::write(&path, b"something else").unwrap();
    let error = Journal::open(directory.path(), LIMITS, at(3), &mut table, |_, _| ()).unwrap_err().to_string();
    assert!(error.contains("000000000000.journal is no journal"), "{error}");
}

#[test]
fn age_and_size_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = Table::new(&["k"]);
    let limits = Limits { bytes: 1 << 20, age: Duration::from_hours(24) };
    let mut journal = Journal::open(directory.path(), limits, at(0), &mut table, |_, _| ()).unwrap();
    let per_hour = 500;
    for hour in 0..60u64 {
        for n in 0..per_hour {
            journal.observation(&observation(hour * HOUR + n, 0), &table);
        }
        journal.flush(at(hour * HOUR + per_hour)).unwrap();
        assert!(journal.counts().bytes <= (1 << 20) + (1 << 18), "{hour}");
    }
    let evicted = journal.counts().evicted;
    drop(journal);
    let (all, _) = read(directory.path(), 60 * HOUR, &mut table);
    assert!(all.first().unwrap().at.unix_ns >= 36 * HOUR, "older than a day");
    assert!(evicted > 0, "500 an hour for a day is more than fits");
    let (all, _) = read(directory.path(), 600 * HOUR, &mut table);
    assert!(all.is_empty());
}

#[test]
fn the_recorder_writes_from_a_thread_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let mut table = Table::new(&["k"]);
    let journal = Journal::open(directory.path(), LIMITS, at(0), &mut table, |_, _| ()).unwrap();
    let mut recorder = Recorder::start(journal).unwrap();
    for n in 0..1000 {
        recorder.observation(&observation(n, 0), &table);
        recorder.flush(at(n));
    }
    assert_eq!(recorder.counts().lost, 0);
    drop(recorder);
    let (all, counts) = read(directory.path(), 1000, &mut table);
    assert_eq!((all.len(), counts.unknown, counts.torn_bytes), (1000, 0, 0));
    assert!(all.iter().all(|one| one.kid == Some(Interned(0))));
}
