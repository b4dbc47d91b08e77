//! A capture file of any bytes, through the whole of `replay --transactions --all-tcp`.
//!
//! What must hold: it ends, with or without an error; what is printed are JSON lines; and the same file gives the same
//! lines. (How much memory that takes, the fuzzer's own limit watches.)

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use sensor::capture::file::{CaptureReader, PACKET_MAX, SNAPLEN_MAX};
use sensor::cli::replay::Player;
use sensor::cli::start::{self, Start};
use sensor::finding::sink::NdjsonSink;

/// Plays `data` with the example configuration.
pub fn target(data: &[u8]) {
    read(data);
    let lines = play(data);
    // Doing it twice halves the speed: a part is enough.
    if data.len().is_multiple_of(4) {
        assert!(lines == play(data), "the same file gave other lines");
    }
}

/// The reader alone.
fn read(data: &[u8]) {
    let Ok(mut reader) = CaptureReader::new("f".to_owned(), data) else { return };
    let mut read = 0;
    while let Ok(Some(packet)) = reader.next_packet() {
        read += packet.data.len();
        assert!(packet.data.len() <= (PACKET_MAX + SNAPLEN_MAX) as usize, "a packet beyond its bound");
        assert!(read <= data.len(), "more bytes in packets than in the file");
    }
    assert!(matches!(reader.next_packet(), Ok(None)), "something behind the end");
}

/// Keeps what is written to it.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Transactions and findings of the file.
fn play(data: &[u8]) -> Vec<u8> {
    static START: OnceLock<Start> = OnceLock::new();
    let config = concat!(env!("CARGO_MANIFEST_DIR"), "/../../authsensor.toml");
    let start = START.get_or_init(|| start::read(Path::new(config)).expect("the example configuration"));
    let lines = Kept::default();
    let findings = NdjsonSink::to(Box::new(lines.clone()) as Box<dyn Write + Send>, "memory");
    let mut player = Player::new(start, true, findings).expect("the example configuration fits");
    let transactions = lines.clone();
    player.setup = Some(Box::new(move |pipeline| pipeline.print_transactions(Box::new(transactions))));
    // An error in the file is an answer like any other.
    let _ = CaptureReader::new("f".to_owned(), data).map(|reader| player.play_reader(reader));
    let _ = player.finish();
    drop(player);
    let lines = std::mem::take(&mut *lines.0.lock().unwrap());
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(line);
        assert!(parsed.is_ok_and(|value| value.is_object()), "no JSON: {}", String::from_utf8_lossy(line));
    }
    lines
}
