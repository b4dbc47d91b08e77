//! Rules that change while the daemon runs.
//!
//! The control plane looks at the rule files' times every second, and at once when it is told to (SIGHUP). A set that
//! loads, cases included, goes through a [`Mailbox`] to the data plane, which swaps it in between two turns; a set with
//! mistakes leaves the running one in place, and log and metric say so. The configuration itself is read at start only.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::run::rule_infos;
use crate::config::model::Config;
use crate::detect::{self, Detectable, RuleError, RuleSet};
use crate::metrics::{Metrics, Reload};

/// Hands the newest rules to the data plane; only a flag is looked at when there are none.
#[derive(Default)]
pub struct Mailbox {
    fresh: AtomicBool,
    rules: Mutex<Option<RuleSet>>,
}

impl Mailbox {
    /// Leaves rules there; those that nobody fetched yet are gone.
    pub fn put(&self, rules: RuleSet) {
        *self.rules.lock().unwrap_or_else(PoisonError::into_inner) = Some(rules);
        self.fresh.store(true, Ordering::Release);
    }

    /// Fetches them.
    pub fn take(&self) -> Option<RuleSet> {
        if !self.fresh.load(Ordering::Acquire) {
            return None;
        }
        self.fresh.store(false, Ordering::Release);
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What tells one state of the rule files from another: each with its time and length.
type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

/// Watches the rule files.
pub struct Reloader {
    config: Arc<Config>,
    mailbox: Arc<Mailbox>,
    metrics: Arc<Metrics>,
    stamp: Stamp,
    /// Hashes of the rules in force.
    running: Vec<String>,
    /// The smallest attacks that they are sure to find.
    smallest: Vec<Detectable>,
}

impl Reloader {
    /// Watches the files of `config`, of which `rules` were loaded.
    pub fn new(config: &Arc<Config>, rules: &RuleSet, mailbox: &Arc<Mailbox>, metrics: &Arc<Metrics>) -> Self {
        Self {
            stamp: stamp(&config.rules),
            running: hashes(rules),
            smallest: rules.detectable(config),
            config: Arc::clone(config),
            mailbox: Arc::clone(mailbox),
            metrics: Arc::clone(metrics),
        }
    }

    /// Loads the rules anew if a file changed since they were last looked at.
    pub fn look(&mut self) {
        let now = stamp(&self.config.rules);
        if now != self.stamp {
            self.stamp = now;
            self.load();
        }
    }

    /// Loads the rules anew, whatever the files' times say.
    pub fn load(&mut self) {
        match read(&self.config) {
            Ok(rules) => {
                let fresh = hashes(&rules);
                if fresh == self.running {
                    self.metrics.reloaded(Reload::Unchanged);
                    return;
                }
                self.running = fresh;
                self.metrics.rules(&rule_infos(&rules));
                self.metrics.reloaded(Reload::Loaded);
                tracing::info!("{} rules loaded anew", rules.each().count());
                let smallest = rules.detectable(&self.config);
                self.metrics.detectable(&smallest);
                for now in smallest.iter().filter(|now| !self.smallest.contains(now)) {
                    tracing::warn!("with these rules, {}", now.said(&self.config));
                }
                self.smallest = smallest;
                self.mailbox.put(rules);
            }
            Err(mistakes) => {
                self.metrics.reloaded(Reload::Refused);
                for mistake in &mistakes {
                    tracing::error!("{mistake}");
                }
                tracing::error!("the rules have {} mistakes; those in force stay", mistakes.len());
            }
        }
    }
}

fn read(config: &Config) -> Result<RuleSet, Vec<RuleError>> {
    let rules = detect::load(&config.rules, config)?;
    detect::check_cases(&config.rules, &rules, config)?;
    Ok(rules)
}

fn hashes(rules: &RuleSet) -> Vec<String> {
    rules.rules.iter().map(detect::CompiledRule::version_hash).collect()
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let mut stamp = Vec::new();
    for path in paths {
        note(path, &mut stamp);
        // The cases of a file that was named by itself.
        if let Some((folder, name)) = path.parent().zip(path.file_name()).filter(|_| path.is_file()) {
            note(&folder.join("tests").join(name), &mut stamp);
        }
        for folder in [path.clone(), path.join("tests")] {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            let files = entries.flatten().map(|entry| entry.path());
            files
                .filter(|file| file.extension().is_some_and(|kind| kind == "yml"))
                .for_each(|file| note(&file, &mut stamp));
        }
    }
    stamp.sort();
    stamp
}

fn note(path: &Path, stamp: &mut Stamp) {
    let known = fs::metadata(path).ok();
    let changed = known.as_ref().and_then(|known| known.modified().ok());
    stamp.push((path.to_owned(), changed, known.map_or(0, |known| known.len())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shipped() -> String {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/detection/canary_accounts.yml");
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_changed_set_is_handed_over_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("canary.yml");
        fs::write(&file, shipped()).unwrap();
        let mut config = crate::config::defaults().unwrap();
        config.rules = vec![folder.path().to_owned()];
        let config = Arc::new(config);
        let rules = detect::load(&config.rules, &config).unwrap();
        let metrics = Arc::new(Metrics::new(&config, &rule_infos(&rules)).unwrap());
        let mailbox = Arc::new(Mailbox::default());
        let mut reloader = Reloader::new(&config, &rules, &mailbox, &metrics);
        let told = |result: &str| {
            let line = format!("authsensor_rule_reloads_total{{result=\"{result}\"}} ");
            let text = metrics.render().unwrap();
            text.lines().find_map(|text| text.strip_prefix(&line)).unwrap().to_owned()
        };

        reloader.look();
        assert!(mailbox.take().is_none(), "nothing changed");
        fs::write(&file, shipped().replace("level: high", "level: hihg")).unwrap();
        reloader.look();
        assert!(mailbox.take().is_none(), "a broken set leaves the running one in place");
        assert_eq!((told("loaded"), told("refused")), ("0".to_owned(), "1".to_owned()));
        fs::write(&file, shipped().replace("level: high", "level: critical")).unwrap();
        reloader.look();
        let fresh = mailbox.take().unwrap();
        assert_eq!(fresh.info().next().unwrap().level.label(), "critical");
        assert!(mailbox.take().is_none() && metrics.render().unwrap().contains("level=\"critical\""));
        reloader.load();
        assert!(mailbox.take().is_none(), "the same rules again");
        assert_eq!((told("loaded"), told("unchanged")), ("1".to_owned(), "1".to_owned()));
    }
}
