//! What is measured.

use std::fs;
use std::hint::black_box;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant as Wall, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use sensor::collect::Keys;
use sensor::config::model::{Config, LedgerStore};
use sensor::ledger::{Archive, Archived, Issuance, Ledger, Presented};
use sensor::observation::{AccountHash, Fingerprint, Instant, Provenance, ServiceId};
use sensor_ebpf::siphash::{Key, hash128};
use sensor_ebpf::wire::place;

use super::Outcome;
use super::group::{anonymous, limit, peak, resident_peak};

const CONFIG: &str = r#"
rules = []
[keys]
fingerprint = "fingerprint.key"
account = "account.key"
[ledger]
store = "./ledger"
[[service]]
name = "shop"
listen = 80
[service.credentials]
cookies = ["sid"]
[[service.route]]
class = "login"
methods = "POST"
path = "/login"
issues = "set-cookie:sid"
[[service.issuer]]
name = "session"
kind = "opaque"
max_lifetime = "12h"
observed = "all"
confirmed = { sight = 1.0, by = "bench", on = 2026-01-31 }
"#;
/// Credentials judged in each measurement.
const LOOKS: u64 = 2_000_000;
/// Those prepared at once, outside of the time that is taken.
const CHUNK: u64 = 100_000;
/// How long issuing and judging go on with the folder open, and how many issuances a second.
const LIVE: Duration = Duration::from_secs(10);
const LIVE_RATE: u64 = 5_000;

fn fingerprint(n: u64) -> Fingerprint {
    Fingerprint(hash128(Key { k0: 1, k1: 2 }, &n.to_le_bytes()))
}

fn now() -> Instant {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let unix_ns = u64::try_from(unix.as_nanos()).unwrap_or(u64::MAX);
    // Long enough after its beginning for every credential to have been watched.
    Instant { monotonic_ns: unix_ns - 1_700_000_000_000_000_000, unix_ns }
}

fn login(n: u64, at: Instant) -> Issuance {
    let account = n.is_multiple_of(2).then(|| AccountHash(fingerprint(n).0));
    let (service, fingerprint) = (ServiceId(0), fingerprint(n));
    let (place, expires, inherits) = (place::SET_COOKIE, None, None);
    Issuance { service, fingerprint, place, index: 0, at, account, expires, inherits, binds: false }
}

fn cookie(fingerprint: Fingerprint) -> Presented<'static> {
    let (service, place) = (ServiceId(0), place::COOKIE);
    Presented { service, place, index: 0, scheme: 0, fingerprint, flags: 0, claims: None, spends: true }
}

fn config(folder: &Path) -> Result<(Config, Keys), Box<dyn std::error::Error>> {
    fs::write(folder.join("authsensor.toml"), CONFIG)?;
    for (name, digit) in [("fingerprint.key", "1"), ("account.key", "2")] {
        fs::write(folder.join(name), digit.repeat(32))?;
        fs::set_permissions(folder.join(name), fs::Permissions::from_mode(0o600))?;
    }
    let config = sensor::config::load(&folder.join("authsensor.toml"))
        .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    Ok((config, Keys { fingerprint: Key::from_bytes(&[0x11; 16]), account: Key::from_bytes(&[0x22; 16]) }))
}

/// Runs one part.
pub fn run(part: &str, folder: &Path, issuances: u64, mib: u64) -> Outcome {
    let (mut config, keys) = config(folder)?;
    config.ledger.max_issuances = usize::try_from(issuances + 1_000_000)?;
    match part {
        "memory" => {
            memory(config, &keys, issuances);
            Ok(())
        }
        "fill" => fill(&config, &keys, issuances),
        "open" => open(&config, &keys, issuances, mib),
        other => Err(format!("no part is called {other}").into()),
    }
}

/// CPU time of this thread: what other programs do to the wall clock is not the ledger's.
struct Clock(Duration);

impl Clock {
    fn now() -> Self {
        Self(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from))
    }

    fn elapsed(&self) -> Duration {
        Self::now().0.saturating_sub(self.0)
    }
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn each(time: Duration, count: u64) -> f64 {
    time.as_nanos() as f64 / count.max(1) as f64
}

fn mib(kib: u64) -> u64 {
    kib.div_ceil(1024)
}

fn memory(mut config: Config, keys: &Keys, issuances: u64) {
    config.ledger.store = LedgerStore::Memory;
    let before = anonymous();
    let at = now();
    let mut ledger = Ledger::new(&config, keys.account, at);
    let mut slowest = Duration::ZERO;
    let mut taken = Duration::ZERO;
    for chunk in 0..issuances.div_ceil(CHUNK) {
        let some: Vec<Issuance> = (chunk * CHUNK..((chunk + 1) * CHUNK).min(issuances)).map(|n| login(n, at)).collect();
        let begun = Clock::now();
        for issuance in &some {
            black_box(ledger.issue(*issuance));
        }
        let took = begun.elapsed();
        slowest = slowest.max(took);
        taken += took;
    }
    println!("in memory");
    println!("  issuances            {}", ledger.stats().issuances);
    println!("  anonymous memory     {} MiB ({} before)", mib(anonymous() - before), mib(before));
    println!(
        "  issue                {:.0} ns on average, {:.0} ns when full",
        each(taken, issuances),
        each(slowest, CHUNK)
    );
    looks(&mut ledger, issuances);
    println!("  peak resident        {} MiB", mib(resident_peak()));
}

/// Judges credentials that are in the ledger, and such as are not.
fn looks(ledger: &mut Ledger, issuances: u64) {
    let at = now();
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    for (what, known) in [("known", true), ("unknown, first use", false)] {
        let (mut taken, mut issued) = (Duration::ZERO, 0);
        for _ in 0..LOOKS / CHUNK {
            let some: Vec<Fingerprint> = (0..CHUNK)
                .map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    fingerprint(if known { (random >> 20) % issuances } else { random | 1 << 63 })
                })
                .collect();
            let begun = Clock::now();
            for fingerprint in &some {
                let verdict = ledger.judge(&cookie(*fingerprint), at);
                issued += u64::from(verdict.provenance == Provenance::Issued);
            }
            taken += begun.elapsed();
        }
        println!("  judge, {what:<18}  {:.0} ns; {issued} of {LOOKS} issued", each(taken, LOOKS));
    }
}

fn fill(config: &Config, keys: &Keys, issuances: u64) -> Outcome {
    let LedgerStore::Folder(folder) = &config.ledger.store else { return Err("the ledger has no folder".into()) };
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let begun = Wall::now();
    let mut archive = Archive::open(folder, config, keys, true)?;
    let expires = u32::try_from(now().unix_ns / 1_000_000_000 + 12 * 3600)?;
    archive.fill((0..issuances).map(|n| {
        let Issuance { service, fingerprint, account, .. } = login(n, now());
        Archived {
            service,
            fingerprint,
            issuer: None,
            account,
            expires_unix: expires,
            provenance: Provenance::Issued,
            used: false,
            ended: false,
        }
    }))?;
    println!("folder of {issuances} issuances");
    println!("  written in           {:.1} s, {} MiB on disk", begun.elapsed().as_secs_f64(), archive.bytes() >> 20);
    Ok(())
}

fn open(config: &Config, keys: &Keys, issuances: u64, most: u64) -> Outcome {
    println!("opened");
    println!("  memory limit         {}", limit(most));
    let (begun, worked) = (Wall::now(), Clock::now());
    let mut ledger = Ledger::open(config, keys, now())?;
    let (wall, cpu) = (begun.elapsed().as_secs_f64(), worked.elapsed().as_secs_f64());
    println!("  start                {wall:.1} s ({cpu:.1} s of CPU) for {} issuances", ledger.loaded().issuances);
    println!("  anonymous memory     {} MiB", mib(anonymous()));
    looks(&mut ledger, issuances);
    println!("  anonymous memory     {} MiB", mib(anonymous()));
    // What that much at once left in the queue.
    std::thread::sleep(Duration::from_secs(5));
    live(&mut ledger, issuances);
    println!("  anonymous memory     {} MiB, peak resident {} MiB", mib(anonymous()), mib(resident_peak()));
    if let Some(peak) = peak() {
        println!("  group's peak         {peak} MiB");
    }
    let begun = Wall::now();
    ledger.close(now());
    println!("  closed in            {:.1} s", begun.elapsed().as_secs_f64());
    Ok(())
}

/// Logins at a steady rate, each followed by a use of it and of an older credential.
fn live(ledger: &mut Ledger, issuances: u64) {
    let before = ledger.stats().folder.unwrap_or_default();
    let begun = Wall::now();
    let (mut issued, mut longest) = (0u64, Duration::ZERO);
    while begun.elapsed() < LIVE {
        let due = LIVE_RATE * u64::try_from(begun.elapsed().as_millis()).unwrap_or(0) / 1000;
        while issued < due {
            let at = now();
            let started = Clock::now();
            ledger.issue(login(issuances + issued, at));
            ledger.judge(&cookie(fingerprint(issuances + issued)), at);
            ledger.judge(&cookie(fingerprint(issued * 977 % issuances)), at);
            longest = longest.max(started.elapsed());
            issued += 1;
        }
        ledger.tick(now());
        std::thread::sleep(Duration::from_millis(5));
    }
    let folder = ledger.stats().folder.unwrap_or_default();
    println!(
        "  live                 {LIVE_RATE} logins a second for {} s: {} writes lost, {} refused, {} accounts asked, {} not asked, longest {:.0} µs",
        LIVE.as_secs(),
        folder.writes_lost - before.writes_lost,
        folder.writes_failed,
        folder.asked - before.asked,
        folder.asks_lost - before.asks_lost,
        longest.as_secs_f64() * 1e6,
    );
}
