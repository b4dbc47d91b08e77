//! The built program, run to its end.

use std::path::Path;
use std::process::{Command, Output};

/// What it said and how it ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The program with `words`, in the folder `at`.
pub fn authsensor(at: &Path, words: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_authsensor"));
    command.args(words).current_dir(at);
    ended(&mut command)
}

/// Runs `command` to its end.
pub fn ended(command: &mut Command) -> Ended {
    command.env_remove("RUST_LOG").env_remove("RUST_BACKTRACE");
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ended { code: status.code(), out: text(stdout), err: text(stderr) }
}
