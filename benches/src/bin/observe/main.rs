//! What an observation costs behind capture, at the size of the incident of 2025:
//! `cargo run --release -p benches --bin bench-observe`.
//!
//! A ledger of sixty million issuances, the configuration and rules of the simulated service, and as many members at once
//! as it has: each comes with a token that a login just handed out, reads pages of the own account some thirty times, and
//! another member, drawn at random, takes the place. What is measured is time of this thread on the processor, stage by
//! stage in turns of 64 as the daemon takes them: the ledger with its claims, the estimators, the rules. Then the same
//! traffic goes through the whole pipeline, which also classifies, hashes accounts and judges outcomes.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod traffic;

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use benches::behind::{Names, processor};
use clap::Parser;
use sensor::cli::start;
use sensor::collect::Clock;
use sensor::detect::Detectors;
use sensor::estimate::Estimators;
use sensor::finding::sink::NdjsonSink;
use sensor::ledger::{Issued, Ledger};
use sensor::pipeline::Pipeline;
use traffic::{START_NS, Traffic};

/// Observations of a turn.
const TURN: usize = 64;
/// Measures what an observation costs.
#[derive(Parser)]
pub struct Args {
    /// Issuances in the ledger before the start
    #[arg(long, default_value_t = 59_000_000)]
    issuances: u64,
    /// Members that there are
    #[arg(long, default_value_t = 33_670_000)]
    members: u64,
    /// Members that are there at once
    #[arg(long, default_value_t = 85_000)]
    present: usize,
    /// Requests of a visit, on average
    #[arg(long, default_value_t = 30)]
    reads: u64,
    /// Observations that are measured, by stage and then in one piece
    #[arg(long, default_value_t = 4_000_000)]
    observations: u64,
    /// Observations before these, to fill the tables
    #[arg(long, default_value_t = 6_000_000)]
    before: u64,
    /// Observations a second of the time that they carry
    #[arg(long, default_value_t = 10_700)]
    rate: u64,
    /// Exchanges whose memory is fetched at once; the collector takes 32
    #[arg(long, default_value_t = 32)]
    window: usize,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The configuration
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/config/storefront.toml"))]
    config: std::path::PathBuf,
}

/// Time spent on something, without what looking at the clock takes.
#[derive(Default)]
struct Stage {
    spent: Duration,
    clock: Duration,
}

impl Stage {
    fn time<T>(&mut self, work: impl FnOnce() -> T) -> nix::Result<T> {
        let start = processor()?;
        let made = work();
        self.spent += processor()?.saturating_sub(start).saturating_sub(self.clock);
        Ok(made)
    }

    #[expect(clippy::cast_precision_loss, reason = "for people")]
    fn each(&self, count: u64) -> f64 {
        self.spent.as_nanos() as f64 / count.max(1) as f64
    }
}

const NAMES: Names = Names { service: "storefront", issuer: "access-token", claim: "2025-04" };

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let start = start::read(Path::new(&args.config))?;
    let keys = start::fixed_keys(&start.config);
    let clock = Clock::default();
    // It has watched for longer than any credential lives.
    let started = clock.instant(START_NS - 400 * 86_400_000_000_000);
    let mut ledger = Ledger::new(&start.config, keys.account, started);
    let mut traffic = Traffic::new(&args, keys);
    let mut empty = Stage::default();
    for _ in 0..10_000 {
        empty.time(|| ())?;
    }
    let stage = || Stage { clock: empty.spent / 10_000, ..Stage::default() };

    let mut filling = stage();
    for turn in 0..args.issuances.div_ceil(4096) {
        let some = traffic.earlier(turn * 4096..((turn + 1) * 4096).min(args.issuances));
        filling.time(|| some.into_iter().filter(|one| ledger.issue(*one) == Issued::Added).count())?;
    }
    println!("ledger               {} issuances, {:.0} ns each", args.issuances, filling.each(args.issuances));

    let mut estimators = Estimators::new(&start.config);
    let mut detectors = Detectors::new(&start.rules.rules, &start.config.bounds, [args.seed, 7]);
    let (mut judging, mut estimating, mut ruling) = (stage(), stage(), stage());
    let (mut findings, mut estimates) = (Vec::new(), Vec::new());
    let mut done = 0;
    while done < args.before + args.observations {
        if done == args.before.next_multiple_of(TURN as u64) {
            (judging, estimating, ruling) = (stage(), stage(), stage());
        }
        let turn = traffic.turn(TURN);
        let verdicts = judging.time(|| turn.judge(&mut ledger, args.window))?;
        let mut observations = turn.observations(&verdicts);
        estimating.time(|| estimators.annotate_all(&mut observations))?;
        ruling.time(|| detectors.observe_all(&observations, &NAMES, &mut findings, |_| ()))?;
        let now = turn.now();
        ledger.tick(now);
        estimators.tick(now, &mut estimates);
        detectors.tick(now, &NAMES, &mut findings);
        done += TURN as u64;
    }
    let measured = done - args.before.next_multiple_of(TURN as u64);
    let (judge, estimate, rules) = (judging.each(measured), estimating.each(measured), ruling.each(measured));
    println!("observations         {measured}, {} members at once", args.present);
    println!("ledger and claims    {judge:.0} ns");
    println!("estimators           {estimate:.0} ns");
    println!("{:<3}rules             {rules:.0} ns; {} findings", start.rules.rules.len(), findings.len());
    let all = judge + estimate + rules;
    println!("together             {all:.0} ns, {:.2} million a second on one core", 1e3 / all);

    let config = Arc::clone(&start.config);
    let sink = NdjsonSink::to(Box::new(io::sink()) as Box<dyn io::Write + Send>, "the bench");
    let mut pipeline = Pipeline::with_ledger(config, &start.rules, keys, clock, ledger, sink, None);
    let mut whole = stage();
    let mut done = 0;
    while done < args.before + args.observations {
        if done == args.before.next_multiple_of(TURN as u64) {
            whole = stage();
        }
        let turn = traffic.turn(TURN);
        for issuance in turn.issued() {
            pipeline.ledger().issue(issuance);
        }
        let exchanges = turn.exchanges();
        let now = turn.now();
        let refused = whole.time(|| {
            let refused = exchanges.iter().filter(|one| !pipeline.whole(&one.exchange())).count();
            pipeline.advance(now.monotonic_ns).map(|()| refused)
        })??;
        if refused > 0 {
            return Err("the pipeline takes these exchanges as records only".into());
        }
        done += TURN as u64;
    }
    let each = whole.each(measured);
    println!("the whole pipeline   {each:.0} ns, {:.2} million a second on one core", 1e3 / each);
    Ok(())
}
