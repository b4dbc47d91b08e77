//! Decoy accounts: named in the configuration, or in a file that only its owner can read.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::issuance::each;
use super::model::Canaries;
use super::reader::{Context, Section};
use crate::diagnostic::quoted;

/// Decoys that one service may have.
const CANARIES_MAX: usize = 65_536;
/// Largest file of decoys, bytes.
const FILE_MAX: u64 = 4 << 20;

/// The decoys of a service, from `canaries` and `canaries_file`.
pub(super) fn canaries(service: &mut Section, cx: &mut Context) -> Canaries {
    let example = "an account as routes name it, such as \"1000017\"";
    let mut ids = each(service, "canaries", cx, |item, cx| {
        let text = item.text(cx, example)?;
        if text.value.trim().is_empty() {
            cx.error(text.at, format!("{} names no account", item.name()), format!("Write {example}"));
            return None;
        }
        Some(text.value.to_owned())
    });
    if let Some(text) = service.get(cx, "canaries_file").and_then(|item| item.text(cx, "the path of a file")) {
        let path = cx.folder().join(text.value);
        match read(&path) {
            Ok(more) => ids.extend(more),
            Err((what, fix)) => {
                cx.error(text.at, format!("the file {} {what}", quoted(&path.to_string_lossy())), fix);
            }
        }
    }
    if ids.len() > CANARIES_MAX {
        let message = format!("this service has {} decoy accounts", ids.len());
        let key = if service.has("canaries_file") { "canaries_file" } else { "canaries" };
        cx.error(service.key_at(key), message, format!("Keep at most {CANARIES_MAX}"));
    }
    Canaries(ids)
}

/// One account a line; blank lines and lines that begin with `#` are none.
fn read(path: &Path) -> Result<Vec<String>, (String, &'static str)> {
    const MAKE: &str = "Make it: `umask 077`, then one account a line";
    let unreadable = |error: io::Error| (format!("cannot be read ({error})"), MAKE);
    if !std::fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err(("is not a regular file".to_owned(), MAKE));
    }
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode() & 0o777;
    // Who is a decoy must stay a secret of few.
    if mode & 0o077 != 0 {
        return Err((format!("can be read by others (mode {mode:03o})"), "Run `chmod 600` on it"));
    }
    let mut text = String::new();
    file.take(FILE_MAX + 1).read_to_string(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_MAX {
        return Err((format!("is longer than {FILE_MAX} bytes"), "Keep fewer decoys"));
    }
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    Ok(lines.map(str::to_owned).collect())
}
