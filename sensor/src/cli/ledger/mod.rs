//! `authsensor ledger import`, `export` and `stats`: the ledger's folder, while no daemon has it open.
//!
//! Lines flow in (fingerprints, or raw credentials that leave this module only as fingerprints), lines flow out. Nothing
//! is written before every line was found good.

mod lines;
mod raw;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use self::lines::{Names, Reading};
use super::start::{self, CliError};
use crate::collect::Keys;
use crate::config::model::{Config, LedgerStore};
use crate::ledger::{Archive, Archived, Standing};
use crate::observation::{Provenance, ServiceId};

/// What is said of raw credentials once for all of them.
#[derive(Debug)]
pub struct Raw {
    /// The service's name.
    pub service: String,
    /// The issuer's name.
    pub issuer: Option<String>,
    /// When they end.
    pub expires: String,
}

/// The configuration at `path`, its keys, and its ledger's folder.
fn opened(path: &Path) -> Result<(Config, Keys, PathBuf), CliError> {
    let config = crate::config::load(path).map_err(CliError::Config)?;
    let LedgerStore::Folder(folder) = &config.ledger.store else { return Err(CliError::NoFolder(path.to_owned())) };
    let folder = folder.clone();
    let keys = start::drawn_keys(&config)?;
    Ok((config, keys, folder))
}

/// Adds the issuances of `file` (`-`: standard input) to the ledger of the configuration at `path`. With `raw` its lines
/// are credentials.
pub fn import(path: &Path, file: &Path, raw: Option<&Raw>) -> Result<(), CliError> {
    let (config, keys, folder) = opened(path)?;
    let failed = |error| CliError::Issuances(file.to_owned(), error);
    let input = if file == Path::new("-") {
        io::stdin().as_fd().try_clone_to_owned().map(File::from)
    } else {
        File::open(file)
    };
    let input = input.map_err(failed)?;
    let name = if file == Path::new("-") { PathBuf::from("standard input") } else { file.to_owned() };
    let reading = Reading::new(&config, &keys, name);
    let issuances = match raw {
        None => reading.lines(input).map_err(failed)?,
        Some(raw) => reading.raw(input, raw).map_err(failed)?,
    };
    let issuances = issuances.map_err(CliError::Import)?;
    let mut archive = Archive::open(&folder, &config, &keys, true)?;
    let imported = archive.import(&issuances)?;
    println!("{} issuances are new, {} were known", imported.added, imported.known);
    Ok(())
}

/// Prints every issuance of the ledger of the configuration at `path`. Those of services that the configuration no longer
/// has are left out.
pub fn export(path: &Path) -> Result<(), CliError> {
    let (config, keys, folder) = opened(path)?;
    let archive = Archive::open(&folder, &config, &keys, false)?;
    let names = Names::new(&config);
    let mut out = BufWriter::new(io::stdout().lock());
    for archived in archive.export() {
        let archived = archived?;
        if archived.service == ServiceId::NONE {
            continue;
        }
        if let Err(error) = names.write(&archived, &mut out) {
            // A reader that went away (`| head`) is no mistake.
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(written(error)) };
        }
    }
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(written(error)),
        _ => Ok(()),
    }
}

fn written(error: io::Error) -> CliError {
    CliError::System("write to standard output", error)
}

/// Issuances of one service.
#[derive(Debug, Default)]
struct Counts {
    all: u64,
    accounts: u64,
    used: u64,
    ended: u64,
    provenance: BTreeMap<Provenance, u64>,
}

impl Counts {
    fn add(&mut self, archived: &Archived) {
        self.all += 1;
        self.accounts += u64::from(archived.account.is_some());
        self.used += u64::from(archived.used);
        self.ended += u64::from(archived.ended);
        *self.provenance.entry(archived.provenance).or_default() += 1;
    }
}

/// Prints what is in the ledger of the configuration at `path`.
pub fn stats(path: &Path) -> Result<(), CliError> {
    let (config, keys, folder) = opened(path)?;
    let archive = Archive::open(&folder, &config, &keys, false)?;
    let mut counts: BTreeMap<ServiceId, Counts> = BTreeMap::new();
    for archived in archive.export() {
        let archived = archived?;
        counts.entry(archived.service).or_default().add(&archived);
    }
    let standing = archive.standing()?;
    let text = table(&config, &folder, archive.bytes(), &counts, standing.as_ref());
    // A reader that went away (`| head`) is no mistake.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn table(
    config: &Config,
    folder: &Path,
    bytes: u64,
    counts: &BTreeMap<ServiceId, Counts>,
    standing: Option<&Standing>,
) -> String {
    let all: u64 = counts.values().map(|counts| counts.all).sum();
    let mut lines = vec![format!("ledger    {}", folder.display())];
    let memory = all.saturating_mul(7).div_ceil(1 << 20);
    lines.push(format!("size      {all} issuances, {} MiB on disk, {memory} MiB in memory", bytes.div_ceil(1 << 20)));
    lines.push(match standing {
        None => "written   by import only: no sensor has watched with it".to_owned(),
        Some(Standing { at_unix, closed: true, .. }) => format!("written   up to {at_unix}, closed in order"),
        Some(Standing { at_unix, .. }) => {
            format!("written   up to {at_unix}, then the sensor was killed: the next start records a gap")
        }
    });
    for (id, service) in (0u16..).map(ServiceId).zip(&config.services) {
        let none = Counts::default();
        let of = counts.get(&id).unwrap_or(&none);
        let provenance: Vec<String> = of.provenance.iter().map(|(word, count)| format!("{word} {count}")).collect();
        let provenance = if provenance.is_empty() { String::new() } else { format!(" ({})", provenance.join(", ")) };
        lines.push(format!("service   {}: {} issuances{provenance}", service.name, of.all));
        lines.push(format!("  with an account {}, presented {}, ended {}", of.accounts, of.used, of.ended));
        let stood = standing.and_then(|standing| standing.services.iter().find(|stood| stood.0 == service.name));
        lines.push(match stood {
            None => "  not watched yet".to_owned(),
            Some((_, horizon, gaps, left, busiest)) => format!(
                "  horizon {horizon}, gaps {gaps} that can excuse {left} credentials, at most {busiest} issuances a second of late"
            ),
        });
    }
    if let Some(foreign) = counts.get(&ServiceId::NONE) {
        lines.push(format!("others    {} issuances of services that the configuration does not have", foreign.all));
    }
    lines.push(String::new());
    lines.join("\n")
}
