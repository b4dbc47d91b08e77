//! `authsensor replay`: the same pipeline over capture files; and `authsensor routes` over them.

use std::io::{self, BufWriter, Read};
use std::path::PathBuf;
use std::sync::Arc;

use sensor_ebpf::reason::Counter;

use super::start::{self, CliError, Start};
use crate::capture::file::{CaptureReader, Link, Packet, network_offset};
use crate::capture::offline::Offline;
use crate::capture::tables::Tables;
use crate::collect::Clock;
use crate::config::model::Findings;
use crate::finding::sink::NdjsonSink;
use crate::observation::Instant;
use crate::pipeline::Pipeline;

/// Packets between two applications of what they brought.
const BATCH: u32 = 64;

/// What to replay and what to print.
#[derive(Debug, Default)]
pub struct Replay {
    /// The configuration; may be absent with `all_tcp`.
    pub config: Option<PathBuf>,
    /// Capture files, in order.
    pub files: Vec<PathBuf>,
    /// Print every transaction on standard output (findings then go to the configured file, or nowhere).
    pub transactions: bool,
    /// Every TCP flow is a candidate.
    pub all_tcp: bool,
}

/// Runs the command.
pub fn run(replay: &Replay) -> Result<(), CliError> {
    let start = open(replay)?;
    let findings = match (&start.config.findings, replay.transactions) {
        (Findings::Stdout, true) => NdjsonSink::to(Box::new(io::sink()) as Box<dyn io::Write + Send>, "nowhere"),
        (target, _) => NdjsonSink::open(target)?,
    };
    let mut player = Player::new(&start, replay.all_tcp, findings)?;
    if replay.transactions {
        player.setup = Some(Box::new(|pipeline| {
            pipeline.print_transactions(Box::new(BufWriter::new(io::stdout())));
        }));
    }
    player.play(&replay.files)
}

/// Reads the configuration that `replay` names, or starts without one.
pub fn open(replay: &Replay) -> Result<Start, CliError> {
    match &replay.config {
        Some(path) => start::read(path),
        None if replay.all_tcp => start::without_file(),
        None => Err(CliError::NothingToReplay),
    }
}

type Setup = Box<dyn FnOnce(&mut Pipeline)>;

/// The pipeline behind capture files. It is made at the first packet, whose time is the ledger's start.
pub struct Player<'a> {
    start: &'a Start,
    engine: Offline,
    findings: Option<NdjsonSink>,
    pipeline: Option<Pipeline>,
    /// Called once with the new pipeline.
    pub setup: Option<Setup>,
    latest_ns: u64,
    since: u32,
}

impl<'a> Player<'a> {
    /// Ready to play.
    pub fn new(start: &'a Start, all_tcp: bool, findings: NdjsonSink) -> Result<Self, CliError> {
        let keys = start::fixed_keys(&start.config);
        let mut tables = Tables::new(&start.config, keys.fingerprint)?;
        // A capture shows what there was: there is no line rate to keep here.
        tables.settings.tunnels = 1;
        let bounds = &start.config.bounds;
        let (flows, slots) = (bounds.flows as usize, bounds.split_heads as usize);
        let engine = Offline::new(tables, all_tcp, flows, slots, bounds.into()).with_fragments(bounds.fragments);
        Ok(Self { start, engine, findings: Some(findings), pipeline: None, setup: None, latest_ns: 0, since: 0 })
    }

    /// Plays the files in order. What came before an error in a file was judged and printed.
    pub fn play(&mut self, files: &[PathBuf]) -> Result<(), CliError> {
        let mut outcome = Ok(());
        for file in files {
            outcome = CaptureReader::open(file).map_err(CliError::from).and_then(|reader| self.play_reader(reader));
            if outcome.is_err() {
                break;
            }
        }
        self.finish()?;
        outcome
    }

    /// The capture is over: what is pending stays unanswered.
    pub fn finish(&mut self) -> Result<(), CliError> {
        if let Some(pipeline) = self.pipeline.as_mut() {
            self.engine.finish(|record| pipeline.record(record));
            pipeline.finish()?;
        }
        Ok(())
    }

    /// The pipeline, once a packet was seen.
    pub fn pipeline(&mut self) -> Option<&mut Pipeline> {
        self.pipeline.as_mut()
    }

    /// Totals of the parser.
    pub fn totals(&self) -> [u64; Counter::COUNT] {
        self.engine.totals()
    }

    /// Plays one capture from any source; [`Player::finish`] ends the last.
    pub fn play_reader<R: Read>(&mut self, mut reader: CaptureReader<R>) -> Result<(), CliError> {
        loop {
            let packet = match reader.next_packet() {
                Ok(Some(packet)) => packet,
                Ok(None) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            parse(&mut self.engine, &packet);
            let at_ns = packet.at_ns;
            self.apply(at_ns)?;
        }
    }

    fn apply(&mut self, at_ns: u64) -> Result<(), CliError> {
        if self.pipeline.is_none() {
            let started = Instant { monotonic_ns: at_ns, unix_ns: at_ns };
            let keys = start::fixed_keys(&self.start.config);
            let Some(findings) = self.findings.take() else { return Ok(()) };
            let config = Arc::clone(&self.start.config);
            let mut made = Pipeline::new(config, &self.start.rules, keys, Clock::default(), started, findings, None);
            if let Some(setup) = self.setup.take() {
                setup(&mut made);
            }
            self.pipeline = Some(made);
        }
        let Some(pipeline) = self.pipeline.as_mut() else { return Ok(()) };
        self.engine.drain(|record| pipeline.record(record));
        self.latest_ns = self.latest_ns.max(at_ns);
        self.since += 1;
        if self.since >= BATCH {
            self.since = 0;
            pipeline.advance(self.latest_ns)?;
        }
        Ok(())
    }
}

/// Gives one packet to the parser.
fn parse(engine: &mut Offline, packet: &Packet<'_>) {
    if packet.link == Link::Ethernet {
        // LLC/SNAP frames have a length where others have a type; the reader knows both.
        if let Some((ethertype, offset)) = network_offset(packet.link, packet.data)
            && offset != 14
        {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            engine.network(packet.at_ns, packet.data, ethertype, offset, packet.wire_len);
            return;
        }
        engine.ethernet(packet.at_ns, packet.data, packet.wire_len);
        return;
    }
    if let Some((ethertype, offset)) = network_offset(packet.link, packet.data) {
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        engine.network(packet.at_ns, packet.data, ethertype, offset, packet.wire_len);
    }
}
