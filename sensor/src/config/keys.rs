//! Key files: the keys under which fingerprints and account hashes are made.
//!
//! A key file holds 32 hexadecimal digits and can be read by its owner only. Neither its content nor any part of it
//! appears in a message.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::model::Keys;
use super::reader::{Context, Section};
use crate::diagnostic::quoted;

/// More than a key and some blank space: not a key file.
const FILE_MAX: usize = 256;

/// The `[keys]` table.
pub(super) fn keys(root: &mut Section, cx: &mut Context) -> Keys {
    let mut table = root.table(cx, "keys", "a [keys] table");
    let keys = Keys { fingerprint: key(&mut table, "fingerprint", cx), account: key(&mut table, "account", cx) };
    if keys.fingerprint.is_some() && keys.fingerprint == keys.account {
        let message = "`keys.fingerprint` and `keys.account` hold the same key";
        cx.error(table.key_at("account"), message, "Give each its own: `openssl rand -hex 16 > FILE`");
    }
    table.finish(cx);
    keys
}

fn key(table: &mut Section, name: &'static str, cx: &mut Context) -> Option<[u8; 16]> {
    let item = table.get(cx, name)?;
    let text = item.text(cx, "the path of a key file")?;
    let path = cx.folder().join(text.value);
    match read(&path) {
        Ok(key) => Some(key),
        Err(mistake) => {
            let (what, fix) = mistake.words(MAKE);
            cx.error(text.at, format!("the key file {} {what}", quoted(&path.to_string_lossy())), fix);
            None
        }
    }
}

const MAKE: &str = "Make one: `umask 077; openssl rand -hex 16 > FILE`";

/// What is wrong with a file of secrets.
pub(super) enum Mistake {
    Unreadable(io::Error),
    NotAFile,
    Open(u32),
    NotAKey,
}

impl Mistake {
    /// What is wrong, and what to do about it; `make` says how to make such a file.
    pub(super) fn words(&self, make: &'static str) -> (String, &'static str) {
        match self {
            Self::Unreadable(error) => (format!("cannot be read ({error})"), make),
            Self::NotAFile => ("is not a regular file".into(), make),
            Self::Open(mode) => (format!("can be read by others (mode {mode:03o})"), "Run `chmod 600` on it"),
            Self::NotAKey => ("does not hold exactly 32 hexadecimal digits".into(), make),
        }
    }
}

fn read(path: &Path) -> Result<[u8; 16], Mistake> {
    parse(&private_file(path, FILE_MAX)?).ok_or(Mistake::NotAKey)
}

/// The first `most` bytes of a regular file that only its owner can read.
pub(super) fn private_file(path: &Path, most: usize) -> Result<Zeroizing<Vec<u8>>, Mistake> {
    // Asked before opening too: opening a named pipe would wait for a writer.
    if !std::fs::metadata(path).map_err(Mistake::Unreadable)?.is_file() {
        return Err(Mistake::NotAFile);
    }
    let file = File::open(path).map_err(Mistake::Unreadable)?;
    let metadata = file.metadata().map_err(Mistake::Unreadable)?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(Mistake::Open(mode));
    }
    // Room for all that is read, so that no copy is left behind by growing.
    let most = usize::try_from(metadata.len()).unwrap_or(most).min(most);
    let mut bytes = Zeroizing::new(Vec::with_capacity(most + 1));
    file.take(most as u64).read_to_end(&mut bytes).map_err(Mistake::Unreadable)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Option<[u8; 16]> {
    let digits = bytes.trim_ascii();
    if digits.len() != 32 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut key = [0u8; 16];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}
