//! A ledger that outlives its process: how it begins, what it writes of itself, how it ends.
//!
//! While it runs it writes down, twice in each interval of durability, up to which moment it is complete. A ledger that
//! was closed in order says so. At the next start the time without sight is a gap: from that moment if the process was
//! killed, from closing if not. A gap's count is bounded by the issuances that the busiest times bring
//! ([`Busiest`]), and is at least one after a kill, which may have lost what was in flight.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rates::Busiest;
use super::sources::Source;
use super::store::{Disk, Folder, Loaded, Saved, SavedGap, SavedService, StoreError, Write};
use super::unknown::Use;
use super::{FolderStats, Ledger, forget, nanos, unix_seconds};
use crate::collect::Keys;
use crate::config::model::{Config, LedgerStore, Service};
use crate::observation::{Instant, ServiceId};

/// Between two times that populations are written, which are 4 KiB each.
const POPULATIONS_NS: u64 = 10_000_000_000;

/// When the ledger next says where it stands.
#[derive(Debug, Default)]
pub struct Marks {
    /// Names of the services, in order, and of their routes.
    names: Vec<String>,
    routes: Vec<Vec<String>>,
    every: u64,
    next: u64,
    /// When populations are next written.
    populations: u64,
    /// What the start found.
    pub loaded: Loaded,
    /// Up to when an earlier run was complete, ns since 1970.
    resumed: Option<u64>,
}

impl Ledger {
    /// How many issuances a start at monotonic time `until` has to find, if none is added and everything was written. Looks
    /// at all of them.
    pub fn lasting(&self, until: u64) -> u64 {
        self.store.lasting(until) as u64
    }

    /// The ledger that `config` names: in its folder, with all that is in there, or empty in memory. It watches from
    /// `started` on. Reading a folder takes about a second for each million issuances.
    ///
    /// # Errors
    ///
    /// [`StoreError`]: the folder is in use, foreign, open to others, of another key or version, or cannot be read.
    pub fn open(config: &Config, keys: &Keys, started: Instant) -> Result<Self, StoreError> {
        let mut ledger = Self::new(config, keys.account, started);
        if let LedgerStore::Folder(path) = &config.ledger.store {
            let disk = Disk::open(Folder::take(path, keys, true)?)?;
            ledger.load(disk, config, started)?;
        }
        Ok(ledger)
    }

    fn load(&mut self, mut disk: Disk, config: &Config, started: Instant) -> Result<(), StoreError> {
        let interval = config.ledger.sync_interval;
        self.marks.names = config.services.iter().map(|service| service.name.clone()).collect();
        let routes = |service: &Service| service.routes.iter().map(|route| route.name.clone()).collect();
        self.marks.routes = config.services.iter().map(routes).collect();
        self.marks.every = nanos(interval) / 2;
        if let Some(saved) = disk.saved()? {
            self.marks.resumed = Some(saved.at_unix_ns);
            self.restore(&saved, config, started);
        }
        for (service, issuer) in self.issuers.iter() {
            let names = self.store.names(service, issuer.id);
            let written = names.map(|names| disk.population(names)).transpose()?.flatten();
            if let (Some(written), Some(population)) = (written, self.populations.get_mut(issuer.row)) {
                population.restore(&written);
            }
        }
        let mut forgotten = Vec::new();
        for used in disk.uses() {
            let used = used?;
            let id = self.store.restored_id(used.bits);
            let (used, given) = Use::restored(used, started);
            if self.seen.peek(&id).is_none() {
                forgotten.extend(self.seen.insert(id, used).map(|id| Write::Forget(id.0)));
            }
            if given {
                self.gaps.restore_given(id);
            }
        }
        // What there is no room for would be read at every start.
        disk.write(&forgotten)?;
        let Self { store, evicted, seen, .. } = self;
        self.marks.loaded = store.load(disk, interval, started, |id, entry| {
            // In the folder it stays what it was.
            let _ = forget(evicted, seen, id, &entry, started);
        })?;
        self.counts.evictions += self.marks.loaded.evicted;
        self.mark(started);
        Ok(())
    }

    /// Goes on from where an earlier run stood.
    fn restore(&mut self, saved: &Saved, config: &Config, started: Instant) {
        let at = |unix_ns: u64| started.back_to(unix_ns);
        for (id, service) in (0u16..).map(ServiceId).zip(&config.services) {
            let Some(stood) = saved.services.iter().find(|stood| stood.name == service.name) else { continue };
            if let Some(before) = self.horizon.before.get_mut(usize::from(id.0)) {
                *before = started.unix_ns.saturating_sub(stood.horizon_unix_ns);
            }
            for gap in &stood.gaps {
                self.gaps.restore(id, at(gap.from_unix_ns), at(gap.to_unix_ns), gap.left);
            }
            if let Some(written) = self.store.service(id) {
                written.rates.carry(stood.busiest, started.monotonic_ns);
            }
            for (name, source) in &stood.sources {
                if let Some(route) = service.routes.iter().position(|route| route.name == *name) {
                    self.sources.restore((id, route), source, at(saved.at_unix_ns), started);
                }
            }
            let issues = service.routes.iter().any(|route| route.issuance.is_some());
            let without_sight = Duration::from_nanos(started.unix_ns.saturating_sub(saved.at_unix_ns));
            let most = stood.busiest.bound(without_sight);
            let lost = if saved.closed || !issues { most } else { most.max(1) };
            self.gap(id, at(saved.at_unix_ns), started, lost);
        }
    }

    /// Sight begins at `at`, later than the ledger was opened: what lies between is a gap, too. (A new ledger has no
    /// horizon behind it that this would matter to.)
    pub fn watch_from(&mut self, at: Instant) {
        let started = self.horizon.started;
        let blind = Duration::from_nanos(at.monotonic_ns.saturating_sub(started.monotonic_ns));
        for id in (0..self.marks.names.len()).filter_map(|id| u16::try_from(id).ok()).map(ServiceId) {
            let busiest = self.store.service(id).map(|written| written.rates.busiest(at.monotonic_ns));
            self.gap(id, started, at, busiest.unwrap_or_default().bound(blind));
        }
    }

    /// Time moved on to `at`: lets go of what is over, and says where the ledger stands. For times without traffic.
    pub fn tick(&mut self, at: Instant) {
        self.tidy(at);
        self.store.settle();
    }

    /// Says where the ledger stands, if it is time to.
    pub(super) fn mark_when_due(&mut self, at: Instant) {
        if self.store.journal().is_some() && at.monotonic_ns >= self.marks.next {
            self.mark(at);
        }
    }

    fn mark(&mut self, at: Instant) {
        self.marks.next = at.monotonic_ns.saturating_add(self.marks.every);
        if at.monotonic_ns >= self.marks.populations {
            self.marks.populations = at.monotonic_ns.saturating_add(POPULATIONS_NS);
            self.write_populations();
        }
        let saved = self.saved(at, false);
        self.store.mark(saved);
    }

    /// Says where the ledger stands at `at`, and waits until everything up to there is durable. For whoever drives the
    /// clock faster than a disk follows; a daemon never waits.
    pub fn settle(&mut self, at: Instant) {
        if self.store.journal().is_some() {
            self.mark(at);
            self.store.sync();
        }
    }

    /// Writes what is left and closes the folder in order. Afterwards the ledger goes on in memory only.
    pub fn close(&mut self, at: Instant) {
        if self.store.journal().is_some() {
            self.write_populations();
            let saved = self.saved(at, true);
            self.store.close(saved);
        }
    }

    fn write_populations(&mut self) {
        for (service, issuer) in self.issuers.iter() {
            let Some(names) = self.store.names(service, issuer.id) else { continue };
            if let Some(registers) = self.populations.get_mut(issuer.row).and_then(|population| population.changes()) {
                self.store.write_population(names, registers);
            }
        }
    }

    fn saved(&mut self, at: Instant, closed: bool) -> Saved {
        let mut services = Vec::with_capacity(self.marks.names.len());
        for (id, name) in (0u16..).map(ServiceId).zip(&self.marks.names) {
            let gaps = self.gaps.of(id);
            let mut gaps: Vec<SavedGap> =
                gaps.map(|(from_unix_ns, to_unix_ns, left)| SavedGap { from_unix_ns, to_unix_ns, left }).collect();
            let mut busiest = Busiest::default();
            if let Some(written) = self.store.service(id) {
                busiest = written.rates.busiest(at.monotonic_ns);
                gaps.extend(written.unwritten.clone());
            }
            let horizon_unix_ns = self.horizon.since_unix_ns(id);
            let routes = self.marks.routes.get(usize::from(id.0));
            let named = |(route, source): (usize, &Source)| Some((routes?.get(route)?.clone(), source.clone()));
            let sources = self.sources.of(id).filter_map(named).collect();
            services.push(SavedService { name: name.clone(), horizon_unix_ns, busiest, gaps, sources });
        }
        Saved { at_unix_ns: at.unix_ns, closed, services }
    }

    /// The folder, if there is one.
    pub(super) fn folder_stats(&self) -> Option<FolderStats> {
        let journal = self.store.journal()?;
        Some(FolderStats {
            bytes: journal.disk.bytes.load(Ordering::Relaxed),
            durable_unix: unix_seconds(journal.disk.durable_unix_ns.load(Ordering::Relaxed)),
            writes_lost: journal.lost,
            writes_failed: journal.disk.failed.load(Ordering::Relaxed),
            asked: journal.asks,
            asks_lost: journal.asks_lost,
        })
    }

    /// Up to when the earlier run that left the folder was complete, ns since 1970: what came between there and the start
    /// is the gap of that restart. `None` for a new folder, or none.
    pub fn resumed_from(&self) -> Option<u64> {
        self.marks.resumed
    }

    /// What the start found on disk.
    pub fn loaded(&self) -> Loaded {
        self.marks.loaded
    }
}
