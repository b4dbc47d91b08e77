//! What the shipped rules cost for each observation: `cargo run --release -p benches --bin bench-detect`.
//!
//! A made mix: 95 % reads of members' own accounts with issued credentials, the rest logins (some refused), misses, reads
//! of customer service, reads with unknown and a few unissued credentials. Members come from a population of millions, a
//! fifth of them behind carriers' addresses; some hundred thousand are there at once, and each reads twenty times in the
//! mean before another comes. Observations are made by the hundred, as the pipeline hands them on, before the clock
//! starts; what counts is time on the processor. Seed and sizes are arguments, so a figure can be had again.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use benches::behind::{self, Names, Random, processor};
use clap::Parser;
use sensor::config;
use sensor::detect::{self, Detectors};
use sensor::observation::{
    AccountHash, Fingerprint, Instant, Interned, Observation, Outcome, Provenance, Relation, RouteClass, RouteId,
};

#[derive(Parser)]
struct Args {
    /// Members, each with a credential of their own
    #[arg(long, default_value_t = 3_000_000)]
    members: u64,
    /// Members that are there at once
    #[arg(long, default_value_t = 200_000)]
    present: usize,
    /// Observations that are measured
    #[arg(long, default_value_t = 4_000_000)]
    observations: u64,
    /// Observations before these, to fill the tables
    #[arg(long, default_value_t = 4_000_000)]
    before: u64,
    /// Observations a second of the time that they carry
    #[arg(long, default_value_t = 10_000)]
    rate: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Rules; a file or a folder
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/detection"))]
    rules: std::path::PathBuf,
}

fn hash(kind: u64, number: u64) -> [u8; 16] {
    let mut random = Random(kind << 56 ^ number);
    (u128::from(random.draw()) << 64 | u128::from(random.draw())).to_be_bytes()
}

const NAMES: Names = Names { service: "shop", issuer: "members", claim: "k1" };

fn client(member: u64, roaming: u64) -> IpAddr {
    let number = if member.is_multiple_of(5) { 0x6440_0000 + member % 2_000 } else { 0x0b00_0000 + member };
    IpAddr::V4(Ipv4Addr::from(u32::try_from(number + roaming * 65_536).unwrap_or(u32::MAX)))
}

fn own_read(at: Instant, member: u64, roaming: u64) -> Observation {
    Observation {
        fingerprint: Some(Fingerprint(hash(1, member))),
        kid: Some(Interned(0)),
        ..behind::own_read(at, RouteId(0), AccountHash(hash(2, member)), client(member, roaming))
    }
}

fn drawn(random: &mut Random, args: &Args, present: &mut [u64], number: u64) -> Observation {
    let ns = number * 1_000_000_000 / args.rate;
    let at = Instant { monotonic_ns: ns, unix_ns: 1_763_000_000_000_000_000 + ns };
    let seat = usize::try_from(random.below(present.len() as u64)).unwrap_or(0);
    let (leaves, comes) = (random.below(20) == 0, random.below(args.members));
    let member = present.get_mut(seat).map_or(comes, |member| {
        if leaves {
            *member = comes;
        }
        *member
    });
    let own = own_read(at, member, u64::from(random.below(50) == 0));
    match random.below(10_000) {
        0..9_500 => own,
        9_500..9_750 => Observation { class: RouteClass::Login, issued: 1, provenance: Provenance::None, ..own },
        9_750..9_770 => Observation { class: RouteClass::Login, outcome: Outcome::Denied, ..own },
        9_770..9_870 => Observation { outcome: Outcome::Miss, ..own },
        9_870..9_900 => {
            let agent = random.below(200);
            let fingerprint = Some(Fingerprint(hash(3, agent)));
            Observation { relation: Relation::Foreign, fingerprint, client: client(agent, 0), ..own }
        }
        9_900..9_999 => Observation { provenance: Provenance::Unverifiable, ..own },
        _ => Observation { provenance: Provenance::Unissued, ..own },
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let config = config::defaults().ok_or("the built-in configuration is not usable")?;
    let rules = detect::load(&[Path::new(&args.rules).to_owned()], &config)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?;
    let mut detectors = Detectors::new(&rules.rules, &config.bounds, [args.seed, 7]);
    let mut random = Random(args.seed);
    let mut findings = Vec::new();
    let (mut spent, mut worst) = (Duration::ZERO, Duration::ZERO);
    let mut number = 0;
    let mut present: Vec<u64> = (0..args.present).map(|_| random.below(args.members)).collect();
    let mut batch = Vec::new();
    while number < args.before + args.observations {
        batch.clear();
        batch.extend((0..100).map(|offset| drawn(&mut random, &args, &mut present, number + offset)));
        let start = processor()?;
        for observation in &batch {
            detectors.observe(observation, &NAMES, &mut findings);
        }
        let took = processor()?.saturating_sub(start);
        if number >= args.before {
            spent += took;
            worst = worst.max(took);
        }
        number += batch.len() as u64;
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let each = spent.as_nanos() as f64 / args.observations as f64;
    println!("rules                {}", rules.rules.len());
    println!("observations         {}", args.observations);
    println!("ns per observation   {each:.0}");
    println!("per second           {:.0}", 1e9 / each);
    println!("worst hundred        {:.2} ms", worst.as_secs_f64() * 1e3);
    println!("findings             {}", findings.len());
    for (rule, stats) in detectors.stats().filter(|(_, stats)| stats.matched > 0) {
        println!(
            "  {:<62} matched {:>8}  groups {:>6} ({} quiet)  evicted {}",
            rule.info.title,
            stats.matched,
            stats.groups,
            stats.quiet,
            stats.evicted + stats.evicted_quiet
        );
    }
    Ok(())
}
