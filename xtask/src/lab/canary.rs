//! The canary test: no raw credential of the lab may stand in what the sensor writes or holds.
//!
//! Every credential that passed the sensor is a pattern; the haystacks are the daemon's log, findings, metrics and its
//! memory, read through `/proc/PID/mem` as a core image would hold it. Left out are the mappings of BPF rings alone
//! (DESIGN, invariant 2: a consumed ring cannot be wiped from user space and is excluded from core images). A secret
//! that the daemon does hold, in its environment, has to be found, or the search itself is broken.
//!
//! A JWT counts by its signature: header and payload reach the sensor by design, and a complete token contains the
//! signature. A piece of 16 bytes of any pattern is a hit, so a credential that was wiped only in part is found too.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::error::{Doing, Result};
use super::tally::Wallet;

/// Shortest piece of a credential that counts as found.
const PIECE: usize = 16;
const WORD: usize = 8;
const FILTER_BITS: usize = 1 << 22;
/// Read at once; the overlap carries a pattern over the border between two reads.
const CHUNK: usize = 1 << 20;
const OVERLAP: usize = 256;

/// Where hits were made: kind of credential by haystack.
pub type Hits = BTreeMap<(String, &'static str), BTreeSet<usize>>;

/// A set of patterns, made ready.
///
/// A run of 15 or more bytes contains an aligned 8-byte word, wherever it stands; so only aligned words are looked up,
/// in an index of all words of all patterns, and a word that is known is extended to both sides.
pub struct Search {
    patterns: Vec<(&'static str, Vec<u8>)>,
    index: HashMap<u64, Vec<(usize, usize)>>,
    filter: Vec<u64>,
}

impl Search {
    /// An empty set.
    pub fn new() -> Self {
        Self { patterns: Vec::new(), index: HashMap::new(), filter: vec![0; FILTER_BITS / 64] }
    }

    /// The credentials of a run.
    pub fn for_wallet(wallet: &Wallet) -> Self {
        let mut search = Self::new();
        for token in &wallet.tokens {
            let signature = token.rsplit('.').next().unwrap_or_default();
            search.add("token signature", signature.as_bytes());
            if let Ok(bytes) = URL_SAFE_NO_PAD.decode(signature) {
                search.add("token signature, decoded", &bytes);
            }
        }
        let kinds = [
            ("session cookie", &wallet.sessions),
            ("refresh token", &wallet.refresh_tokens),
            ("password", &wallet.passwords),
        ];
        for (kind, values) in kinds {
            for value in values {
                search.add(kind, value.as_bytes());
            }
        }
        search
    }

    /// Adds a pattern of at least 16 bytes; shorter ones would be found by chance.
    pub fn add(&mut self, kind: &'static str, pattern: &[u8]) {
        debug_assert!(pattern.len() >= PIECE);
        for (at, window) in pattern.windows(WORD).enumerate() {
            let word = word(window);
            self.index.entry(word).or_default().push((self.patterns.len(), at));
            let bit = filter_bit(word);
            if let Some(cell) = self.filter.get_mut(bit / 64) {
                *cell |= 1 << (bit % 64);
            }
        }
        self.patterns.push((kind, pattern.to_vec()));
    }

    /// Number of patterns.
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// Searches one haystack; `name` says which in the hits.
    pub fn search(&self, name: &str, haystack: &[u8], hits: &mut Hits) {
        for (number, window) in haystack.chunks_exact(WORD).enumerate() {
            let word = word(window);
            let bit = filter_bit(word);
            if word == 0 || self.filter.get(bit / 64).is_none_or(|cell| cell & (1 << (bit % 64)) == 0) {
                continue;
            }
            for (pattern, at) in self.index.get(&word).into_iter().flatten() {
                let Some((kind, bytes)) = self.patterns.get(*pattern) else { continue };
                if run_around(haystack, number * WORD, bytes, *at) >= PIECE {
                    hits.entry((name.to_owned(), kind)).or_default().insert(*pattern);
                }
            }
        }
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_ne_bytes)
}

fn filter_bit(word: u64) -> usize {
    usize::try_from(word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 42).unwrap_or_default()
}

/// Length of the common run of haystack and pattern around a word that both have.
fn run_around(haystack: &[u8], position: usize, pattern: &[u8], at: usize) -> usize {
    let (before, after) = haystack.split_at(position);
    let (pattern_before, pattern_after) = pattern.split_at(at);
    let left = before.iter().rev().zip(pattern_before.iter().rev()).take_while(|(a, b)| a == b).count();
    let right = after.iter().zip(pattern_after).take_while(|(a, b)| a == b).count();
    left + right
}

/// How much of a process's memory was searched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Image {
    /// Bytes searched.
    pub searched: u64,
    /// Bytes of BPF ring and map mappings, left out.
    pub rings: u64,
    /// Bytes of readable mappings that could not be read.
    pub unread: u64,
}

/// Searches the memory of a stopped process.
pub fn search_process(pid: u32, search: &Search, hits: &mut Hits) -> Result<Image> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).doing("reading the daemon's memory map")?;
    let memory = File::open(format!("/proc/{pid}/mem")).doing("opening the daemon's memory")?;
    let mut image = Image::default();
    let mut buffer = vec![0; CHUNK + OVERLAP];
    for mapping in maps.lines().filter_map(Mapping::parse) {
        if mapping.name.contains("bpf-map") {
            image.rings += mapping.end - mapping.start;
        } else if mapping.searchable() {
            let read = search_mapping(&memory, &mapping, search, &mut buffer, hits);
            image.searched += read;
            image.unread += (mapping.end - mapping.start).saturating_sub(read);
        }
    }
    Ok(image)
}

/// Returns the bytes that were read.
fn search_mapping(memory: &File, mapping: &Mapping, search: &Search, buffer: &mut [u8], hits: &mut Hits) -> u64 {
    let name = format!("memory {}", if mapping.name.is_empty() { "(anonymous)" } else { mapping.name });
    let mut at = mapping.start;
    let mut carried = 0;
    while at < mapping.end {
        let wanted = usize::try_from(mapping.end - at).unwrap_or(CHUNK).min(CHUNK);
        let Some(room) = buffer.get_mut(carried..carried + wanted) else { break };
        let got = match memory.read_at(room, at) {
            Ok(got) if got > 0 => got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            _ => break,
        };
        let filled = carried + got;
        search.search(&name, buffer.get(..filled).unwrap_or_default(), hits);
        // The tail goes in front of the next read; a multiple of a word, so that words stay aligned.
        carried = filled.min(OVERLAP);
        buffer.copy_within(filled - carried..filled, 0);
        at += u64::try_from(got).unwrap_or(u64::MAX);
    }
    at - mapping.start
}

struct Mapping<'a> {
    start: u64,
    end: u64,
    readable: bool,
    name: &'a str,
}

impl<'a> Mapping<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut rest = line.splitn(6, ' ');
        let (start, end) = rest.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let readable = rest.next()?.starts_with('r');
        let name = rest.nth(3).unwrap_or_default().trim();
        Some(Self { start: hex(start)?, end: hex(end)?, readable, name })
    }

    /// Everything a core image could hold; the kernel's own pages are not the daemon's.
    fn searchable(&self) -> bool {
        self.readable && !["[vvar]", "[vvar_vclock]", "[vsyscall]"].contains(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search() -> Search {
        let mut search = Search::new();
        search.add("secret", b"0f1e2d3c4b5a69788796a5b4c3d2e1f0deadbeef");
        search.add("other", b"abcdefghijklmnopqrstuvwxyz");
        search
    }

    fn found(haystack: &[u8]) -> Vec<&'static str> {
        let mut hits = Hits::new();
        search().search("x", haystack, &mut hits);
        hits.into_keys().map(|(_, kind)| kind).collect()
    }

    #[test]
    fn finds_patterns_and_pieces_at_every_alignment() {
        for offset in 0..40 {
            let mut haystack = vec![b'.'; 200];
            haystack[offset..offset + 16].copy_from_slice(b"5a69788796a5b4c3");
            assert_eq!(found(&haystack), ["secret"], "piece at {offset}");
            haystack[offset] = b'!';
            assert_eq!(found(&haystack), [] as [&str; 0], "15 bytes at {offset}");
            haystack[offset + 30..offset + 56].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz");
            assert_eq!(found(&haystack), ["other"]);
        }
    }

    #[test]
    fn finds_what_this_process_holds_and_only_that() {
        let held = format!("{:032x}", u128::from_ne_bytes(std::array::from_fn(|n| u8::try_from(n * 13).unwrap())));
        let mut search = Search::new();
        search.add("held", held.as_bytes());
        let mut hits = Hits::new();
        let image = search_process(std::process::id(), &search, &mut hits).unwrap();
        assert!(image.searched > 100_000, "{image:?}");
        assert!(hits.keys().any(|(_, kind)| *kind == "held"));
    }

    #[test]
    fn a_pattern_over_the_border_of_two_reads_is_found() {
        let file = std::env::temp_dir().join(format!("canary-border-{}", std::process::id()));
        let mut bytes = vec![b'.'; CHUNK * 2];
        bytes[CHUNK - 9..CHUNK + 17].copy_from_slice(b"abcdefghijklmnopqrstuvwxyz");
        fs::write(&file, &bytes).unwrap();
        let mapping = Mapping { start: 0, end: bytes.len() as u64, readable: true, name: "" };
        let mut hits = Hits::new();
        let mut buffer = vec![0; CHUNK + OVERLAP];
        let read = search_mapping(&File::open(&file).unwrap(), &mapping, &search(), &mut buffer, &mut hits);
        fs::remove_file(&file).unwrap();
        assert_eq!(read, bytes.len() as u64);
        assert_eq!(hits.len(), 1);
    }

    #[test]
    fn mappings_are_understood() {
        let mapping = Mapping::parse("7f00-8f00 r--s 00000000 00:0f 1061    anon_inode:bpf-map").unwrap();
        assert_eq!((mapping.start, mapping.end, mapping.name), (0x7f00, 0x8f00, "anon_inode:bpf-map"));
        assert!(!Mapping::parse("7f00-8f00 ---p 00000000 00:00 0").unwrap().searchable());
        assert!(Mapping::parse("7f00-8f00 rw-p 00000000 00:00 0").unwrap().searchable());
    }
}
