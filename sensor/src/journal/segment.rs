//! One file of the journal: a header, then frames of length, checksum and entry (postcard).
//!
//! A frame that is not whole, or whose checksum is wrong, ends the file: it is what was being written when the machine
//! died, and what stands behind it, if anything, cannot be told from noise.

use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use sensor_ebpf::siphash::{self, hash128};

use super::JournalError;
use super::entry::{Entry, EntryRef};
use super::rename::{Name, Names};
use crate::observation::{Estimate, Observation};

/// First bytes of a file; the last is the version of the format.
const MAGIC: &[u8; 8] = b"AUTHSJ\0\x01";
/// Length and checksum.
const FRAME_HEAD: usize = 8;
/// Longest entry, bytes.
const ENTRY_MAX: u32 = 1 << 16;

fn checksum(bytes: &[u8]) -> [u8; 4] {
    // Against torn writes, not against people: whoever can write here can do anything.
    let [a, b, c, d, ..] = hash128(siphash::Key::default(), bytes);
    [a, b, c, d]
}

/// Appends to one file.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    /// Frames not yet handed to the system.
    frames: Vec<u8>,
    written: u64,
    told: HashSet<Name>,
    dirty: bool,
}

impl Writer {
    /// Starts a new file, readable by its owner only.
    pub fn create(path: &Path) -> Result<Self, JournalError> {
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(JournalError::io(path))?;
        file.write_all(MAGIC).map_err(JournalError::io(path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            frames: Vec::new(),
            written: MAGIC.len() as u64,
            told: HashSet::new(),
            dirty: true,
        })
    }

    /// Tells what `name` stands for, once a file.
    pub fn name(&mut self, name: Name, names: &dyn Names) {
        if self.told.insert(name)
            && let Some(text) = names.text(name)
        {
            self.frame(&EntryRef::Name(name, text));
        }
    }

    /// Appends an observation.
    pub fn observation(&mut self, observation: &Observation) {
        self.frame(&EntryRef::Observation(observation));
    }

    /// Appends an estimator's event.
    pub fn estimate(&mut self, estimate: &Estimate) {
        self.frame(&EntryRef::Estimate(estimate));
    }

    fn frame(&mut self, entry: &EntryRef<'_>) {
        let start = self.frames.len();
        self.frames.extend_from_slice(&[0; FRAME_HEAD]);
        // `Vec` grows, so nothing here can fail; should it ever, the frame is taken back.
        let frames = std::mem::take(&mut self.frames);
        let Ok(mut frames) = postcard::to_extend(entry, frames) else { return };
        let body = frames.get(start + FRAME_HEAD..).unwrap_or_default();
        let (length, sum) = (u32::try_from(body.len()).unwrap_or(u32::MAX), checksum(body));
        if length > ENTRY_MAX {
            frames.truncate(start);
        } else if let Some(head) = frames.get_mut(start..start + FRAME_HEAD) {
            let (first, second) = head.split_at_mut(4);
            first.copy_from_slice(&length.to_le_bytes());
            second.copy_from_slice(&sum);
        }
        self.frames = frames;
    }

    /// Hands what was appended to the system.
    pub fn flush(&mut self) -> Result<(), JournalError> {
        if self.frames.is_empty() {
            return Ok(());
        }
        self.file.write_all(&self.frames).map_err(JournalError::io(&self.path))?;
        self.written += self.frames.len() as u64;
        self.frames.clear();
        self.dirty = true;
        Ok(())
    }

    /// Hands what was written to the disk.
    pub fn sync(&mut self) -> Result<(), JournalError> {
        if std::mem::take(&mut self.dirty) {
            self.file.sync_data().map_err(JournalError::io(&self.path))?;
        }
        Ok(())
    }

    /// Bytes written.
    pub fn bytes(&self) -> u64 {
        self.written
    }

    /// Ends the file; its path and length.
    pub fn close(mut self) -> Result<(PathBuf, u64), JournalError> {
        self.flush()?;
        self.sync()?;
        Ok((self.path, self.written))
    }
}

/// Reads one file to its end, or to where it is torn.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    body: Vec<u8>,
    /// Bytes up to the last whole frame, and the file's length.
    whole: u64,
    length: u64,
}

impl Reader {
    /// Opens a file and checks its header. An empty one (its writer died at once) holds nothing.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let file = File::open(path).map_err(JournalError::io(path))?;
        let length = file.metadata().map_err(JournalError::io(path))?.len();
        let mut file = BufReader::new(file);
        let mut magic = [0; MAGIC.len()];
        let whole = match file.read_exact(&mut magic) {
            Ok(()) if magic == *MAGIC => MAGIC.len() as u64,
            Ok(()) => return Err(JournalError::Format { path: path.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            Err(error) => return Err(JournalError::io(path)(error)),
        };
        Ok(Self { path: path.to_owned(), file, body: Vec::new(), whole, length })
    }

    /// The next entry; `None` at the end.
    pub fn next(&mut self) -> Result<Option<Entry>, JournalError> {
        let mut head = [0; FRAME_HEAD];
        if !self.fill(&mut head)? {
            return Ok(None);
        }
        let [a, b, c, d, sum @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]);
        if length > ENTRY_MAX {
            return Ok(None);
        }
        let mut body = std::mem::take(&mut self.body);
        body.resize(length as usize, 0);
        let filled = self.fill(&mut body)?;
        let entry = if filled && checksum(&body) == sum { postcard::from_bytes(&body).ok() } else { None };
        self.body = body;
        if entry.is_some() {
            self.whole += FRAME_HEAD as u64 + u64::from(length);
        }
        Ok(entry)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<bool, JournalError> {
        match self.file.read_exact(bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(JournalError::io(&self.path)(error)),
        }
    }

    /// Bytes that were read as whole frames, and those of a torn end.
    pub fn ends(&self) -> (u64, u64) {
        (self.whole, self.length.saturating_sub(self.whole))
    }
}
