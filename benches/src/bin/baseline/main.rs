//! What the detectors that people use today would have said of a trace, one line of JSON a detector:
//! `cargo run --release -p benches --bin baseline -- --config FILE --attack-accounts FILE TRACE`.
//!
//! The trace's lines go through the sensor's own collector, so that route, account, session and outcome of a request are
//! the same for every detector and for ours. Which requests are the attack's is said in files beside the trace.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "the lines are what this program is for")]

mod labels;

use std::error::Error;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use benches::baseline::judge::Judge;
use benches::baseline::{KEPT, Request, SECOND, all};
use clap::Parser;
use sensor::capture::host;
use sensor::cli::start;
use sensor::collect::transaction::Transaction;
use sensor::collect::{Clock, Collector, Keys, Sink};
use sensor::config::model::Config;
use sensor::config::{self, Diagnostic};
use sensor::ledger::Ledger;
use sensor::observation::Observation;
use sensor::trace::{Converter, Encoder, Misfit, TraceReader};

use labels::Labels;

/// How far a line may lie before a later one, nanoseconds: what comes in between is put in order.
const WINDOW_NS: u64 = 5 * SECOND;
/// Lines between two applications of what they brought.
const BATCH: u32 = 256;

/// Shows a trace to the detectors that people use today
#[derive(Parser)]
#[command(name = "baseline")]
struct Args {
    /// The traces in order, one transaction a line; `-` is standard input
    #[arg(required = true)]
    traces: Vec<PathBuf>,
    /// The sensor's configuration: services, routes, and where the account stands
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/config/storefront.toml"))]
    config: PathBuf,
    /// The attack's accounts, one a line, as paths and claims name them
    #[arg(long, value_name = "FILE")]
    attack_accounts: Option<PathBuf>,
    /// The attack's clients, one a line: an address, a network (203.0.113.0/24), a beginning of an address (203.0.113.)
    #[arg(long, value_name = "FILE")]
    attack_clients: Option<PathBuf>,
    /// Before this time nothing is the attack's, seconds since 1970
    #[arg(long, value_name = "SECONDS")]
    began: Option<f64>,
    /// The traffic's name in the output. Without it: the first trace's
    #[arg(long)]
    scenario: Option<String>,
    /// Addresses or sessions that each detector keeps at once
    #[arg(long, default_value_t = KEPT)]
    kept: usize,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("baseline: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &Args) -> Result<(), Box<dyn Error>> {
    let config = Arc::new(config::load(&args.config).map_err(|mistakes| listed(&mistakes))?);
    let keys = start::fixed_keys(&config);
    let labels =
        Labels::read(args.attack_accounts.as_deref(), args.attack_clients.as_deref(), args.began, keys.account)?;
    let mut player = Player::new(&config, keys, Shown { judge: Judge::new(all(args.kept)), labels })?;
    for trace in &args.traces {
        player.play(trace)?;
    }
    let judge = player.finish();
    let file = args.traces.first().and_then(|trace| trace.file_stem()).unwrap_or_default().to_string_lossy();
    for row in judge.rows(args.scenario.as_deref().unwrap_or(&file)) {
        println!("{}", serde_json::to_string(&row)?);
    }
    Ok(())
}

fn listed(mistakes: &[Diagnostic]) -> String {
    mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Takes observations to the detectors.
struct Shown {
    judge: Judge,
    labels: Labels,
}

impl Sink for Shown {
    fn observation(&mut self, observation: &Observation, _: &Transaction<'_>) {
        let request = Request::of(observation);
        self.judge.see(&request, self.labels.attack(&request));
    }
}

/// The collector behind traces. It is made at the first line, whose time is the ledger's start.
struct Player<'c> {
    config: &'c Arc<Config>,
    keys: Keys,
    converter: Converter,
    encoder: Encoder,
    collector: Option<Collector>,
    shown: Shown,
    latest_ns: u64,
    watermark_ns: u64,
    since: u32,
}

impl<'c> Player<'c> {
    fn new(config: &'c Arc<Config>, keys: Keys, shown: Shown) -> Result<Self, Box<dyn Error>> {
        Ok(Self {
            config,
            keys,
            converter: Converter::new(Arc::clone(config), keys.fingerprint)?,
            encoder: Encoder::default(),
            collector: None,
            shown,
            latest_ns: 0,
            watermark_ns: 0,
            since: 0,
        })
    }

    fn play(&mut self, trace: &Path) -> Result<(), Box<dyn Error>> {
        self.play_reader(TraceReader::open(trace)?)
    }

    fn play_reader<R: Read>(&mut self, mut reader: TraceReader<R>) -> Result<(), Box<dyn Error>> {
        loop {
            let Some(line) = reader.next_line()? else { return Ok(()) };
            let Self { config, keys, encoder, collector, .. } = self;
            let converted = self.converter.convert(&line, |exchange| {
                let collector = collector.get_or_insert_with(|| {
                    let clock = Clock::default();
                    let ledger = Ledger::new(config, keys.account, clock.instant(exchange.at_ns));
                    Collector::new(Arc::clone(config), *keys, clock, ledger)
                });
                host::each(encoder.encode(exchange), |record| collector.record(record));
                exchange.at_ns
            });
            let at_ns = match converted {
                Ok(at_ns) => at_ns,
                Err(Misfit { message, fix }) => {
                    drop(line);
                    return Err(reader.mistake(1, message, &fix).into());
                }
            };
            self.latest_ns = self.latest_ns.max(at_ns);
            self.since += 1;
            if self.since >= BATCH {
                self.since = 0;
                self.advance();
            }
        }
    }

    fn advance(&mut self) {
        let Some(collector) = self.collector.as_mut() else { return };
        // Of a trace that is too dense for the window, less is put in order rather than any of it lost.
        let back = if collector.is_half_full() { 0 } else { WINDOW_NS };
        self.watermark_ns = self.watermark_ns.max(self.latest_ns.saturating_sub(back));
        collector.advance(self.watermark_ns, &mut self.shown);
    }

    /// Everything was played: what is pending stays unanswered.
    fn finish(mut self) -> Judge {
        if let Some(collector) = self.collector.as_mut() {
            collector.finish(&mut self.shown);
        }
        self.shown.judge
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use benches::baseline::judge::Row;
    use std::fmt::Write as _;

    /// Members, each from an address of their own, read their addresses once a second. After ten minutes somebody at
    /// 203.0.113.9 reads two accounts a second, of which every other does not exist, each with a credential of its own.
    fn trace() -> String {
        let mut text = String::new();
        let mut line = |t: f64, client: &str, member: u32, status: u16| {
            let bytes = if status == 200 { 1834 } else { 312 };
            let _ = writeln!(
                text,
                r#"{{"t":{t},"client":"{client}","method":"GET","path":"/members/{member}/addresses","host":"shop.example","status":{status},"bytes":{bytes},"credentials":{{"bearer":"opaque-{member}"}}}}"#
            );
        };
        for second in 0..900_u32 {
            let t = 1_744_588_800.0 + f64::from(second);
            line(t, &format!("198.51.{}.{}", second / 200, second % 200), second, 200);
            if second >= 600 {
                line(t + 0.25, "203.0.113.9", 1_000_000 + second, 200);
                line(t + 0.5, "203.0.113.9", 2_000_000 + second, 404);
            }
        }
        text
    }

    fn rows(labels: Labels, text: &str) -> Vec<Row> {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/config/storefront.toml");
        let config = Arc::new(config::load(Path::new(file)).map_err(|mistakes| listed(&mistakes)).unwrap());
        let shown = Shown { judge: Judge::new(all(1000)), labels };
        let mut player = Player::new(&config, start::fixed_keys(&config), shown).unwrap();
        player.play_reader(TraceReader::new(Path::new("trace"), text.as_bytes())).unwrap();
        player.finish().rows("test")
    }

    #[test]
    fn one_hasty_address_in_a_trace() {
        let file = std::env::temp_dir().join(format!("baseline-{}.clients", std::process::id()));
        std::fs::write(&file, "# of the attack\n203.0.113.0/24\n").unwrap();
        let config = config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/config/storefront.toml")));
        let key = start::fixed_keys(&config.map_err(|mistakes| listed(&mistakes)).unwrap()).account;
        let labels = Labels::read(None, Some(&file), None, key);
        std::fs::remove_file(&file).unwrap();
        let found = rows(labels.unwrap(), &trace());
        let row = |name: &str| found.iter().find(|row| row.baseline.contains(name)).unwrap();
        // All 1,500 were judged, and nothing but the attack was reported.
        assert!(found.iter().all(|row| row.observations == 1500 && row.false_findings == 0), "{found:?}");
        // 31 requests: 15 in whole seconds, and the first of the next.
        let wallarm = row("Wallarm");
        assert_eq!((wallarm.seconds_to_detect, wallarm.attack_requests_at_detection), (Some(15.0), Some(31)));
        assert_eq!(wallarm.accounts_exposed_at_detection, Some(16));
        // 11 misses, less the one that leaks 10 s after the first: the twelfth is too many, 11 s after the first.
        let probing = row("http-probing");
        assert_eq!((probing.seconds_to_detect, probing.accounts_exposed_at_detection), (Some(11.25), Some(12)));
        // 101 on sensitive paths; of 500 in five minutes on any, the 501st.
        assert_eq!(row("AWS WAF 100").seconds_to_detect, Some(50.0));
        assert_eq!(row("AWS WAF 500").seconds_to_detect, Some(250.0));
        // It is one account a credential, the tokens are opaque, and nobody is refused.
        for blind in ["volumetric", "enumeration", "signature", "generic-bf"] {
            assert_eq!(row(blind).findings, 0, "{blind}");
        }
    }

    #[test]
    fn labels_of_accounts_name_them_as_paths_do() {
        let file = std::env::temp_dir().join(format!("baseline-{}.accounts", std::process::id()));
        let accounts: Vec<String> =
            (600..900).flat_map(|n| [1_000_000 + n, 2_000_000 + n]).map(|id| id.to_string()).collect();
        std::fs::write(&file, accounts.join("\n")).unwrap();
        let config = config::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios/config/storefront.toml")));
        let key = start::fixed_keys(&config.map_err(|mistakes| listed(&mistakes)).unwrap()).account;
        let labels = Labels::read(Some(&file), None, Some(1_744_588_800.0), key);
        std::fs::remove_file(&file).unwrap();
        let found = rows(labels.unwrap(), &trace());
        let wallarm = found.iter().find(|row| row.baseline.contains("Wallarm")).unwrap();
        assert_eq!((wallarm.seconds_to_detect, wallarm.accounts_exposed_at_detection), (Some(15.0), Some(16)));
    }
}
