//! Rules and the engine that runs them.
//!
//! Rule files (Sigma 2, a documented subset, `docs/rules.md`) flow in through [`load`] and come out as
//! [`CompiledRule`]s: names resolved against the configuration, predicates typed. [`Detectors`] takes one
//! [`Observation`](crate::observation::Observation) after another, keeps bounded sliding windows per rule and group, and
//! gives [`Finding`](crate::finding::model::Finding)s. Same observations in the same order give the same findings.

mod cases;
mod compile;
mod condition;
mod correlation;
mod distinct;
mod engine;
mod error;
mod exception;
mod field;
mod group;
mod groups;
mod header;
mod modifier;
mod names;
mod predicate;
mod quiet;
mod report;
mod rule;
mod sample;
mod shade;
mod stand_in;
mod sure;
#[cfg(test)]
mod testing;
mod touched;
mod window;
mod yaml;

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use cases::check as check_cases;
pub use engine::{Detectors, RuleStats};
pub use error::RuleError;
pub use exception::Exception;
pub use rule::{CompiledRule, RuleInfo};
pub use sure::{Detectable, WINDOWS};

use crate::config::model::Config;
use crate::observation::{ClaimName, Interned, IssuerId, RouteId, ServiceId};

/// Largest rule file, bytes.
const FILE_MAX: u64 = 1 << 20;

/// The names behind the ids of an observation, for findings.
pub trait Labels {
    /// Name of a service.
    fn service(&self, service: ServiceId) -> &str;
    /// Name of a route of `service`.
    fn route(&self, service: ServiceId, route: RouteId) -> &str;
    /// Name of an issuer of `service`.
    fn issuer(&self, service: ServiceId, issuer: IssuerId) -> &str;
    /// An interned name of the table `of`. One number must always give the same text: rules remember the answer.
    fn name(&self, of: ClaimName, id: Interned) -> &str;
}

/// All rules of a run.
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    /// In file order (directories: by file name), then in document order. The ceilings of exceptions stand as rules of
    /// their own behind the rule that they are exceptions to.
    pub rules: Vec<CompiledRule>,
    /// The exceptions, expired ones among them.
    pub exceptions: Vec<Arc<Exception>>,
}

impl RuleSet {
    /// Id, title, level and hash of each rule.
    pub fn info(&self) -> impl Iterator<Item = &RuleInfo> {
        self.each().map(|rule| &rule.info)
    }

    /// Each rule once, without the ceilings of exceptions.
    pub fn each(&self) -> impl Iterator<Item = &CompiledRule> {
        self.rules.iter().filter(|rule| rule.exception.is_none())
    }

    /// The exceptions that no longer apply at a time, nanoseconds since 1970.
    pub fn expired(&self, unix_ns: u64) -> impl Iterator<Item = &Exception> {
        self.exceptions.iter().filter(move |exception| exception.until_unix_ns <= unix_ns).map(|exception| &**exception)
    }
}

/// Reads the rule files at `paths`; of a directory all `*.yml` in it, by name, without its subdirectories.
///
/// All mistakes of all files come back at once, in the order of files and lines.
pub fn load(paths: &[PathBuf], config: &Config) -> Result<RuleSet, Vec<RuleError>> {
    let mut errors = Vec::new();
    let mut rules = Vec::new();
    let mut exceptions = Vec::new();
    let mut ids = rule::Ids::new();
    for path in paths {
        let files = match files(path) {
            Ok(files) => files,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        for file in files {
            match read(&file) {
                Ok(text) => {
                    let mut mistakes = yaml::Mistakes::new(&file);
                    let compiled = rule::compile(&file, &text, config, &mut ids, &mut mistakes);
                    rules.extend(compiled.rules);
                    exceptions.extend(compiled.exceptions);
                    let mut found = mistakes.list;
                    found.sort_by_key(|error| (error.line, error.column));
                    errors.append(&mut found);
                }
                Err(error) => errors.push(error),
            }
        }
    }
    if errors.is_empty() {
        rules = exception::apply(rules, &exceptions, &mut errors);
    }
    if errors.is_empty() { Ok(RuleSet { rules, exceptions: exception::infos(&exceptions) }) } else { Err(errors) }
}

fn files(path: &Path) -> Result<Vec<PathBuf>, RuleError> {
    let unreadable = |error: std::io::Error| {
        whole_file(path, format!("cannot be read: {error}"), "Correct the path or its permissions")
    };
    if !fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file.extension().is_some_and(|extension| extension == "yml") {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(whole_file(
            path,
            "the directory holds no *.yml file".to_owned(),
            "Put rules there, or name another",
        ));
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<String, RuleError> {
    let unreadable = |error: std::io::Error| {
        whole_file(path, format!("cannot be read: {error}"), "Correct the path or its permissions")
    };
    let mut bytes = Vec::new();
    fs::File::open(path).map_err(unreadable)?.take(FILE_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(whole_file(path, format!("is longer than {FILE_MAX} bytes"), "Split the file"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..valid).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        let column =
            before.rsplit(|byte| *byte == b'\n').next().map_or(0, |rest| String::from_utf8_lossy(rest).chars().count());
        RuleError {
            file: path.to_owned(),
            line,
            column: column + 1,
            message: "not UTF-8".to_owned(),
            fix: "Save the file as UTF-8".to_owned(),
        }
    })
}

fn whole_file(path: &Path, message: String, fix: &str) -> RuleError {
    RuleError { file: path.to_owned(), line: 0, column: 0, message, fix: fix.to_owned() }
}

#[cfg(test)]
mod tests;
