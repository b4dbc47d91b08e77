//! `authsensor replay --observations`: the same pipeline over traces, one transaction a line ([`crate::trace`]).

use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::start::{self, CliError, Start};
use crate::capture::host;
use crate::collect::{Clock, CollectorCounts};
use crate::config::model::Findings;
use crate::finding::sink::NdjsonSink;
use crate::observation::Instant;
use crate::pipeline::Pipeline;
use crate::trace::{Converter, Encoder, Line, Misfit, TraceError, TraceReader};

/// How far a line may lie before a later one, nanoseconds: what comes in between is put in order.
const WINDOW_NS: u64 = 5_000_000_000;
/// How far a line may lie before the latest, nanoseconds; one that lies farther back is a mistake.
const BACK_MAX_NS: u64 = 60_000_000_000;
/// Lines between two applications of what they brought.
const BATCH: u32 = 256;
/// Added to every time of a ledger that is complete, so that a lifetime before the first line is a time, nanoseconds.
const EPOCH_NS: u64 = 1 << 60;

/// What to replay and how.
#[derive(Debug, Default)]
pub struct Observe {
    /// The configuration.
    pub config: PathBuf,
    /// Traces, in order; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Print every transaction on standard output (findings then go to the configured file, or nowhere).
    pub transactions: bool,
    /// The ledger counts as complete since before the first line: what no line issued was never issued.
    pub warm: bool,
}

/// Runs the command.
pub fn run(observe: &Observe) -> Result<(), CliError> {
    let start = start::read(&observe.config)?;
    for warning in &start.warnings {
        tracing::warn!("{warning}");
    }
    let findings = match (&start.config.findings, observe.transactions) {
        (Findings::Stdout, true) => NdjsonSink::to(Box::new(io::sink()) as Box<dyn io::Write + Send>, "nowhere"),
        (target, _) => NdjsonSink::open(target)?,
    };
    let mut player = TracePlayer::new(&start, observe.warm, findings)?;
    player.transactions = observe.transactions;
    let mut outcome = Ok(());
    for file in &observe.files {
        outcome = player.play(file);
        if outcome.is_err() {
            break;
        }
    }
    // What came before an error in a file was judged and printed.
    player.finish()?;
    eprintln!("{}", player.summary());
    outcome
}

/// The pipeline behind traces. It is made at the first line, whose time is the ledger's start.
pub struct TracePlayer<'a> {
    start: &'a Start,
    /// The ledger counts as complete.
    warm: bool,
    /// Print every transaction on standard output.
    pub transactions: bool,
    converter: Converter,
    encoder: Encoder,
    findings: Option<NdjsonSink>,
    pipeline: Option<Pipeline>,
    lines: u64,
    late: u64,
    latest_ns: u64,
    watermark_ns: u64,
    since: u32,
}

impl<'a> TracePlayer<'a> {
    /// Ready to play.
    pub fn new(start: &'a Start, warm: bool, findings: NdjsonSink) -> Result<Self, CliError> {
        let keys = start::fixed_keys(&start.config);
        Ok(Self {
            start,
            warm,
            transactions: false,
            converter: Converter::new(Arc::clone(&start.config), keys.fingerprint)?,
            encoder: Encoder::default(),
            findings: Some(findings),
            pipeline: None,
            lines: 0,
            late: 0,
            latest_ns: 0,
            watermark_ns: 0,
            since: 0,
        })
    }

    /// Plays one file; [`TracePlayer::finish`] ends the last.
    pub fn play(&mut self, file: &Path) -> Result<(), CliError> {
        self.play_reader(TraceReader::open(file)?)
    }

    /// Plays one trace from any source.
    pub fn play_reader<R: io::Read>(&mut self, mut reader: TraceReader<R>) -> Result<(), CliError> {
        loop {
            let Some(line) = reader.next_line()? else { return Ok(()) };
            if let Err(Misfit { message, fix }) = self.line(&line)? {
                drop(line);
                return Err(TraceError::from(reader.mistake(1, message, &fix)).into());
            }
        }
    }

    /// Everything was played: what is pending stays unanswered.
    pub fn finish(&mut self) -> Result<(), CliError> {
        if let Some(pipeline) = self.pipeline.as_mut() {
            pipeline.finish()?;
        }
        Ok(())
    }

    /// One line of what was played, for people.
    pub fn summary(&self) -> String {
        let none = CollectorCounts::default();
        let counts = self.pipeline.as_ref().map_or(&none, Pipeline::counts);
        format!(
            "authsensor: {} lines, {} observations, {} issuances, {} findings opened; {} lines came late, {} records \
             were lost",
            self.lines,
            counts.observations,
            counts.issuances.added + counts.issuances.inherited,
            self.pipeline.as_ref().map_or(0, Pipeline::opened),
            self.late,
            counts.requests_lost + counts.others_lost,
        )
    }

    /// The pipeline, once a line was read.
    pub fn pipeline(&mut self) -> Option<&mut Pipeline> {
        self.pipeline.as_mut()
    }

    fn line(&mut self, line: &Line<'_>) -> Result<Result<(), Misfit>, CliError> {
        let Self { converter, encoder, pipeline, .. } = self;
        let shift = if self.warm { EPOCH_NS } else { 0 };
        let (latest_ns, start, warm, findings) = (self.latest_ns, self.start, self.warm, &mut self.findings);
        let transactions = self.transactions;
        let converted = converter.convert(line, |exchange| {
            let mut exchange = *exchange;
            exchange.at_ns += shift;
            if let Some(answer) = &mut exchange.answer {
                answer.at_ns += shift;
            }
            if exchange.at_ns + BACK_MAX_NS < latest_ns {
                return Err((latest_ns - exchange.at_ns) / 1_000_000_000);
            }
            if let Some(findings) = findings.take_if(|_| pipeline.is_none()) {
                *pipeline = Some(make(start, warm, transactions, exchange.at_ns, findings));
            }
            if let Some(pipeline) = pipeline.as_mut() {
                host::each(encoder.encode(&exchange), |record| pipeline.record(record));
            }
            Ok(exchange.at_ns)
        });
        let at_ns = match converted {
            Ok(Ok(at_ns)) => at_ns,
            Ok(Err(seconds)) => {
                let message = format!("`t` lies {seconds} s before that of an earlier line");
                let fix =
                    format!("Sort the trace by `t`; a line may come at most {} s late", BACK_MAX_NS / 1_000_000_000);
                return Ok(Err(Misfit { message, fix }));
            }
            Err(misfit) => return Ok(Err(misfit)),
        };
        self.lines += 1;
        self.late += u64::from(at_ns < self.watermark_ns);
        self.latest_ns = self.latest_ns.max(at_ns);
        self.since += 1;
        if self.since >= BATCH {
            self.since = 0;
            self.advance()?;
        }
        Ok(Ok(()))
    }

    fn advance(&mut self) -> Result<(), CliError> {
        let Some(pipeline) = self.pipeline.as_mut() else { return Ok(()) };
        // Of a trace that is too dense for the window, less is put in order rather than any of it lost.
        let back = if pipeline.is_half_full() { 0 } else { WINDOW_NS };
        self.watermark_ns = self.watermark_ns.max(self.latest_ns.saturating_sub(back));
        pipeline.advance(self.watermark_ns)?;
        Ok(())
    }
}

fn make(start: &Start, warm: bool, transactions: bool, at_ns: u64, findings: NdjsonSink) -> Pipeline {
    let config = &start.config;
    let keys = start::fixed_keys(config);
    let (clock, before) = if warm {
        let issuers = config.services.iter().flat_map(|service| &service.issuers);
        let longest = issuers.map(|issuer| issuer.max_lifetime).max().unwrap_or_default();
        let before = longest + config.ledger.clock_leeway * 2;
        let clock = Clock { unix_offset_ns: -i64::try_from(EPOCH_NS).unwrap_or(i64::MAX) };
        (clock, u64::try_from(before.as_nanos()).unwrap_or(u64::MAX))
    } else {
        (Clock::default(), 0)
    };
    let started: Instant = clock.instant(at_ns.saturating_sub(before));
    let mut made = Pipeline::new(Arc::clone(config), &start.rules, keys, clock, started, findings, None);
    if transactions {
        made.print_transactions(Box::new(BufWriter::new(io::stdout())));
    }
    made
}
