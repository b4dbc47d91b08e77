//! Observations as metrics: counted on the data plane by array arithmetic into counters resolved beforehand.

use prometheus::core::AtomicU64 as U64;
use prometheus::{IntCounter, IntGauge, Registry};

use super::catalogue;
use super::distinct::Distinct;
use crate::anomaly;
use crate::config::model::Config;
use crate::observation::{Observation, Outcome, Provenance, RouteClass, ServiceId};

/// `service` of observations that belong to no declared service (`--all-tcp`). Parentheses keep it apart from names.
pub(super) const NO_SERVICE: &str = "(none)";

const CLASSES: usize = RouteClass::ALL.len();
const PROVENANCES: usize = Provenance::ALL.len();
const OUTCOMES: usize = Outcome::ALL.len();

/// Values of the `login` label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Login {
    /// A login issued the credential.
    Seen,
    /// No login ever issued it.
    None,
    /// Cannot be said: older than the horizon, unverifiable, or a read without any credential that the sensor knows.
    Unknown,
}

impl Login {
    pub(super) const ALL: [Self; 3] = [Self::Seen, Self::None, Self::Unknown];

    pub(super) const fn label(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }

    const fn of(provenance: Provenance) -> Self {
        match provenance {
            Provenance::Issued => Self::Seen,
            Provenance::Unissued => Self::None,
            Provenance::None | Provenance::Preexisting | Provenance::Unverifiable => Self::Unknown,
        }
    }
}

/// What is counted per service.
struct Service {
    /// By class, provenance, outcome.
    observations: Vec<IntCounter>,
    /// By [`Login`].
    account_reads: Vec<IntCounter>,
    accounts: Distinct,
    accounts_estimate: IntGauge,
}

pub(super) struct Observations {
    /// In configuration order; the last one is for no declared service.
    services: Vec<Service>,
    /// By bit; bits without a name have none.
    anomalies: Vec<Option<IntCounter>>,
}

/// The counters of anomalies, by bit.
fn by_bit(registry: &Registry) -> Result<Vec<Option<IntCounter>>, prometheus::Error> {
    let family = catalogue::ANOMALIES.counters::<U64>(registry)?;
    let mut counters = vec![None; u32::BITS as usize];
    for (name, bit) in anomaly::NAMES {
        if let Some(place) = counters.get_mut(bit.trailing_zeros() as usize) {
            *place = Some(family.get_metric_with_label_values(&[name])?);
        }
    }
    Ok(counters)
}

impl Observations {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let observations = catalogue::OBSERVATIONS.counters::<U64>(registry)?;
        let reads = catalogue::ACCOUNT_READS.counters::<U64>(registry)?;
        let accounts = catalogue::ACCOUNTS_WITHOUT_LOGIN.gauges(registry)?;
        let names = config.services.iter().map(|service| service.name.as_str()).chain([NO_SERVICE]);
        let service = |name: &str| -> Result<Service, prometheus::Error> {
            let mut by_verdict = Vec::with_capacity(CLASSES * PROVENANCES * OUTCOMES);
            for class in RouteClass::ALL {
                for provenance in Provenance::ALL {
                    for outcome in Outcome::ALL {
                        let labels = [name, class.label(), provenance.label(), outcome.label()];
                        by_verdict.push(observations.get_metric_with_label_values(&labels)?);
                    }
                }
            }
            let by_login = Login::ALL.iter().map(|login| reads.get_metric_with_label_values(&[name, login.label()]));
            Ok(Service {
                observations: by_verdict,
                account_reads: by_login.collect::<Result<_, _>>()?,
                accounts: Distinct::new(),
                accounts_estimate: accounts.get_metric_with_label_values(&[name])?,
            })
        };
        Ok(Self { services: names.map(service).collect::<Result<_, _>>()?, anomalies: by_bit(registry)? })
    }

    pub(super) fn observe(&self, observation: &Observation) {
        let ServiceId(index) = observation.service;
        let Some(service) = self.services.get(usize::from(index)).or(self.services.last()) else { return };
        let Observation { class, provenance, outcome, .. } = *observation;
        let verdict = (class as usize * PROVENANCES + provenance as usize) * OUTCOMES + outcome as usize;
        if let Some(counter) = service.observations.get(verdict) {
            counter.inc();
        }
        let mut anomalies = observation.anomalies;
        while anomalies != 0 {
            if let Some(Some(counter)) = self.anomalies.get(anomalies.trailing_zeros() as usize) {
                counter.inc();
            }
            anomalies &= anomalies - 1;
        }
        if class == RouteClass::AccountRead && outcome == Outcome::Read {
            let login = Login::of(provenance);
            if let Some(counter) = service.account_reads.get(login as usize) {
                counter.inc();
            }
            if let (Login::None, Some(account)) = (login, observation.account) {
                // The hash is keyed: any of its bits are as good as another.
                service.accounts.insert(account.0.first_chunk().copied().map_or(0, u64::from_le_bytes));
            }
        }
    }

    /// Computes the distinct counts anew.
    pub(super) fn refresh(&self) {
        for service in &self.services {
            #[allow(clippy::cast_possible_truncation, reason = "a count, rounded; `as` saturates")]
            service.accounts_estimate.set(service.accounts.estimate().round() as i64);
        }
    }
}
