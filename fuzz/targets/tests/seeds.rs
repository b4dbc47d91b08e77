//! Every target over its checked-in seeds, so that neither can rot; and every target has a program and seeds.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use fuzz_targets::TARGETS;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a directory, in a fixed order.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn seeds() {
    for (name, target) in TARGETS {
        let seeds = files(&fuzz().join("seeds").join(name));
        assert!(!seeds.is_empty(), "{name} has no seeds");
        for seed in seeds {
            // The test's output, shown when it fails, ends with the culprit.
            println!("{name}: {}", seed.display());
            target(&fs::read(&seed).unwrap());
        }
    }
}

/// Pieces of a seed are inputs, too: what a fuzzer tries first.
#[test]
fn beginnings_of_seeds() {
    for (name, target) in TARGETS {
        for seed in files(&fuzz().join("seeds").join(name)) {
            let bytes = fs::read(&seed).unwrap();
            let step = bytes.len() / 16 + 1;
            for end in (0..bytes.len()).step_by(step) {
                println!("{name}: {} to {end}", seed.display());
                target(&bytes[..end]);
            }
        }
    }
}

#[test]
fn every_target_has_a_program() {
    let programs: Vec<_> = files(&fuzz().join("fuzz_targets"))
        .iter()
        .map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    let targets: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(programs, targets);
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
    }
}
