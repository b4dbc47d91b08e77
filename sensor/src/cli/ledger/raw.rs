//! Raw credentials, a line each: fingerprinted where they were read, and wiped.
//!
//! They are read into one buffer that never grows, so that no copy of them stays behind; no message repeats one.

use std::fs::File;
use std::io::{self, Read as _};

use sensor_ebpf::siphash::hash128;
use zeroize::{Zeroize as _, Zeroizing};

use super::Raw;
use super::lines::{Reading, until};
use crate::collect::canonical;
use crate::diagnostic::Diagnostic;
use crate::ledger::Archived;
use crate::observation::{Fingerprint, Provenance};

/// The buffer, and so the longest line, bytes.
const BUFFER: usize = 256 << 10;

impl Reading<'_> {
    /// All issuances of `input`, or all mistakes.
    pub(super) fn raw(mut self, mut input: File, raw: &Raw) -> io::Result<Result<Vec<Archived>, Vec<Diagnostic>>> {
        let expires = until(crate::config::unix_seconds(&raw.expires), &raw.expires);
        let said = self.names(&raw.service, raw.issuer.as_deref()).and_then(|names| Ok((names, expires?)));
        let ((service, issuer), expires_unix) = match said {
            Ok(said) => said,
            Err(mistake) => {
                self.mistake(0, 0, mistake);
                return Ok(self.done(Vec::new()));
            }
        };
        let mut issuances = Vec::new();
        let mut buffer = Zeroizing::new(vec![0; BUFFER]);
        let (mut held, mut number) = (0, 0);
        loop {
            let read = input.read(buffer.get_mut(held..).unwrap_or_default())?;
            held += read;
            let mut from = 0;
            while let Some(line) = next_line(buffer.get(from..held).unwrap_or_default(), read == 0) {
                number += 1;
                let (credential, account) = parted(line);
                from += line.len() + 1;
                match canonical(credential) {
                    [] if account.is_none() => {}
                    [] => self.mistake(number, 1, ("there is no credential before the tab".into(), FIX.into())),
                    text => issuances.push(Archived {
                        service,
                        fingerprint: Fingerprint(hash128(self.fingerprint, text)),
                        issuer,
                        account: account.map(|account| self.account(account)),
                        expires_unix,
                        provenance: Provenance::Issued,
                        used: false,
                        ended: false,
                    }),
                }
            }
            if read == 0 || self.is_enough() {
                return Ok(self.done(issuances));
            }
            let from = from.min(held);
            buffer.copy_within(from..held, 0);
            held -= from;
            if held == BUFFER {
                self.mistake(number + 1, 1, (format!("the line is longer than {BUFFER} bytes"), FIX.into()));
                return Ok(self.done(issuances));
            }
            // What moved forward stands there twice.
            if let Some(moved) = buffer.get_mut(held..) {
                moved.zeroize();
            }
        }
    }
}

const FIX: &str = "Write one credential a line, and the account after a tab if it is known";

/// The first line of `bytes`, without its end; the rest of them if that is the last one.
fn next_line(bytes: &[u8], last: bool) -> Option<&[u8]> {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => bytes.get(..end),
        None if last && !bytes.is_empty() => Some(bytes),
        None => None,
    }
}

fn parted(line: &[u8]) -> (&[u8], Option<&[u8]>) {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.iter().position(|byte| *byte == b'\t') {
        Some(tab) => {
            let account = line.get(tab + 1..).unwrap_or_default().trim_ascii();
            (line.get(..tab).unwrap_or_default(), Some(account).filter(|account| !account.is_empty()))
        }
        None => (line, None),
    }
}
