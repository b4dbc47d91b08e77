//! What estimators cost for each observation: `cargo run --release -p benches --bin bench-estimate`.
//!
//! Three mixes over a million members and their 200,000 addresses, at 10,000 observations a second of their own time:
//! members as they are; the same while nothing is known of any credential (a sensor that has just started); and tokens
//! that no login issued, in order. Time on the processor, of one thread, the mean of 200
//! runs of 16,384 after 130 to warm up.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::error::Error;
use std::hint::black_box;
use std::net::Ipv4Addr;

use benches::behind::own_read;
use sensor::config;
use sensor::config::model::Config;
use sensor::estimate::Estimators;
use sensor::observation::{AccountHash, Instant, Observation, Outcome, Provenance, Relation, RouteClass, RouteId};

/// Few enough to stand in the last-level cache: reading them is not what is measured.
const OBSERVATIONS: usize = 1 << 14;
const RUNS: usize = 200;
const WARM: usize = 130;
const MEMBERS: u64 = 1_000_000;
const ADDRESSES: u64 = 200_000;
const NS_APART: u64 = 100_000;

const CONFIG: &str = r#"
[[service]]
name = "shop"
listen = 80
credentials = { authorization = true }
[[service.route]]
class = "account_read"
methods = "GET"
path = "/members/{member}/addresses"
account = "path:member"
[[service.route]]
class = "login"
methods = "POST"
path = "/login"
issues = "json:/token"
[[service.issuer]]
name = "members"
kind = "jwt"
max_lifetime = "24h"
"#;

fn main() -> Result<(), Box<dyn Error>> {
    let config = config::from_text(CONFIG).ok_or("the configuration has mistakes")?;
    println!("{:<34} {:>8} {:>8}", "mix", "ns each", "evicted");
    row("members", &config, |_| {});
    row("members, nothing known of any", &config, |o| {
        if o.class == RouteClass::AccountRead && o.provenance == Provenance::Issued {
            o.provenance = Provenance::Preexisting;
        }
    });
    let mut next = 100_000;
    row("forged, in order", &config, |o| {
        next += 1;
        (o.class, o.route) = (RouteClass::AccountRead, Some(RouteId(0)));
        (o.provenance, o.target_id) = (Provenance::Unissued, Some(next));
    });
    Ok(())
}

/// What the scheduler says this thread has run (Linux, `proc_pid_schedstat`).
fn on_processor_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn row(name: &str, config: &Config, change: impl FnMut(&mut Observation)) {
    let observations = observations(change);
    let mut start = 0;
    let mut estimators = Estimators::new(config);
    for run in 0..WARM + RUNS {
        if run == WARM {
            start = on_processor_ns();
        }
        let (offset, mut out) = ((run * OBSERVATIONS) as u64 * NS_APART, Vec::new());
        for (n, o) in observations.iter().enumerate() {
            let mut o = *o;
            // Other identifiers each time: the tables are not as warm as the observations.
            o.target_id = o.target_id.map(|id| id + (run * OBSERVATIONS) as u64);
            o.at.monotonic_ns += offset;
            o.at.unix_ns += offset;
            estimators.annotate(&mut o);
            black_box(&o.estimates);
            // As often as the rings are read.
            if n % 100 == 0 {
                estimators.tick(o.at, &mut out);
            }
        }
    }
    let spent = on_processor_ns().saturating_sub(start);
    let evicted: u64 = estimators.stats().tables().iter().map(|(_, table)| table.evicted + table.refused).sum();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let each = spent as f64 / (RUNS * OBSERVATIONS) as f64;
    println!("{name:<34} {each:>8.1} {evicted:>8}");
}

/// Of a hundred: 85 read their own account, 6 do something else, 4 log in, 2 are refused, 2 are staff who read the
/// accounts of others, one asks for what is not there.
fn observations(mut change: impl FnMut(&mut Observation)) -> Vec<Observation> {
    let mut random = 1u64;
    let mut below = |most: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    let one = |n: u64| {
        let member = below(MEMBERS);
        let mut o = read(n, member, u32::try_from(below(ADDRESSES)).unwrap_or(0));
        match below(100) {
            0..85 => {}
            85..91 => (o.class, o.route) = (RouteClass::Other, None),
            91..95 => {
                (o.class, o.route, o.target_id) = (RouteClass::Login, Some(RouteId(1)), None);
                (o.provenance, o.issued) = (Provenance::None, 1);
            }
            95..97 => o.outcome = Outcome::Denied,
            97..99 => {
                o.relation = Relation::Foreign;
                o.client = Ipv4Addr::new(10, 9, 9, u8::try_from(n % 200).unwrap_or(0)).into();
            }
            _ => o.outcome = Outcome::Miss,
        }
        change(&mut o);
        o
    };
    (0..OBSERVATIONS as u64).map(one).collect()
}

fn read(n: u64, member: u64, client: u32) -> Observation {
    let mut account = [0; 16];
    let (low, _) = account.split_at_mut(8);
    low.copy_from_slice(&member.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    let at = Instant { monotonic_ns: n * NS_APART, unix_ns: 1_744_588_800_000_000_000 + n * NS_APART };
    let client = Ipv4Addr::from_bits(0x0a00_0000 + client).into();
    Observation { target_id: Some(member), ..own_read(at, RouteId(0), AccountHash(account), client) }
}
