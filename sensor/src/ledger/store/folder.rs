//! The ledger's folder: who may open it, and whether it fits.
//!
//! Holds a lock, a note of the format and of the keys, and the store itself in `store/`. Only its owner can enter it.
//! Neither key is in it: a fixed text hashed under each tells a wrong key from the right one and says nothing else.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use sensor_ebpf::siphash::{self, hash128};

use crate::collect::Keys;
use crate::observation::Fingerprint;

/// What this version reads and writes.
const FORMAT: &str = "authsensor ledger 1";

/// Why a ledger cannot be opened; the text says what to change.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it.
    #[error(
        "the ledger {0} is in use by another authsensor. Stop that one first, or name another folder in `ledger.store`"
    )]
    Locked(PathBuf),
    /// Others can enter its folder.
    #[error("the ledger's folder {0} can be entered by others (mode {1:03o}). Run `chmod 700` on it")]
    Open(PathBuf, u32),
    /// There is something else in it.
    #[error("{0} is not a ledger: it is not empty and has no file FORMAT. Name an empty folder in `ledger.store`")]
    Foreign(PathBuf),
    /// It was written by another version.
    #[error("the ledger {0} has the format {1}, and this version reads \"{FORMAT}\". Use the version that wrote it")]
    Format(PathBuf, String),
    /// It was written under another key.
    #[error(
        "the ledger {0} was written under another {1} key: with this one nothing in it would be found again. Put that key back, or name an empty folder in `ledger.store` and begin anew"
    )]
    Key(PathBuf, &'static str),
    /// The folder cannot be read or written.
    #[error("cannot use the ledger {0}: {1}. Correct its permissions, or name another folder in `ledger.store`")]
    Io(PathBuf, #[source] io::Error),
    /// The store in it cannot be read or written.
    #[error("cannot read or write the ledger {0}: {1}. If its disk is sound, move it away and begin anew")]
    Store(PathBuf, #[source] fjall::Error),
    /// It does not exist, and is only to be read.
    #[error("there is no ledger at {0}. Let `authsensor run` or `authsensor ledger import` make it")]
    Missing(PathBuf),
    /// What it wrote of itself cannot be read.
    #[error("the ledger {0} does not say where it stands ({1}). Move it away and begin anew")]
    State(PathBuf, #[source] serde_json::Error),
}

/// A folder that this process holds.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Locked until it is closed.
    _lock: File,
}

impl Folder {
    /// Takes the folder at `path`; makes it if `make` says so.
    pub fn take(path: &Path, keys: &Keys, make: bool) -> Result<Self, StoreError> {
        let failed = |error| StoreError::Io(path.to_owned(), error);
        if !path.exists() {
            if !make {
                return Err(StoreError::Missing(path.to_owned()));
            }
            DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        }
        let metadata = fs::metadata(path).map_err(failed)?;
        let mode = metadata.permissions().mode() & 0o777;
        // Nothing of it is a secret that others should have; of a foreign owner nothing can be trusted.
        if mode & 0o077 != 0 || metadata.uid() != nix::unistd::geteuid().as_raw() {
            return Err(StoreError::Open(path.to_owned(), mode));
        }
        let lock = private(&path.join("LOCK")).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(path.to_owned())),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        check(path, keys)?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the store in it is.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }
}

fn private(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// A text hashed under `key`: the same for the same key only.
fn proof(key: siphash::Key) -> String {
    Fingerprint(hash128(key, b"the key of an authsensor ledger")).to_string()
}

/// Compares what the folder says of itself, or writes it into an empty one.
fn check(path: &Path, keys: &Keys) -> Result<(), StoreError> {
    let failed = |error| StoreError::Io(path.to_owned(), error);
    let file = path.join("FORMAT");
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let own = ["LOCK", "LOCK.new"];
            let mut names = fs::read_dir(path).map_err(failed)?.flatten().map(|entry| entry.file_name());
            let others = names.any(|name| !own.iter().any(|own| name == *own));
            if others {
                return Err(StoreError::Foreign(path.to_owned()));
            }
            let text =
                format!("{FORMAT}\nfingerprint-key {}\naccount-key {}\n", proof(keys.fingerprint), proof(keys.account));
            let new = path.join("LOCK.new");
            private(&new)
                .and_then(|mut file| {
                    file.write_all(text.as_bytes())?;
                    file.sync_all()
                })
                .and_then(|()| fs::rename(&new, &file))
                .map_err(failed)?;
            text
        }
        Err(error) => return Err(failed(error)),
    };
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != FORMAT {
        let shown = format.chars().take(40).collect::<String>().escape_debug().to_string();
        return Err(StoreError::Format(path.to_owned(), shown));
    }
    for (name, key) in [("fingerprint", keys.fingerprint), ("account", keys.account)] {
        let wanted = format!("{name}-key {}", proof(key));
        if lines.next() != Some(&wanted) {
            return Err(StoreError::Key(path.to_owned(), name));
        }
    }
    Ok(())
}
