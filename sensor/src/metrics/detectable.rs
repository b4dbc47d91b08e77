//! The smallest attacks that are sure to be found: set from configuration and rules, never from traffic.

use prometheus::core::AtomicF64 as F64;
use prometheus::{Gauge, Registry};

use super::catalogue;
use crate::config::model::Config;
use crate::detect::{Detectable, WINDOWS};
use crate::observation::{IssuerId, ServiceId};

/// Values of the `horizon` label: the ledger has watched for the issuer's longest lifetime, or not yet.
pub(super) const HORIZONS: [&str; 2] = ["passed", "open"];

struct Row {
    service: ServiceId,
    issuer: IssuerId,
    /// By [`HORIZONS`], by [`WINDOWS`].
    gauges: Vec<Vec<Gauge>>,
}

/// Their metrics, one row for each issuer of signed tokens.
pub(super) struct Smallest {
    rows: Vec<Row>,
}

impl Smallest {
    /// Nothing is sure to be found until rules are loaded.
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let family = catalogue::DETECTABLE.gauges::<F64>(registry)?;
        let mut rows = Vec::new();
        for (service_id, service) in (0u16..).zip(&config.services) {
            for (issuer_id, issuer) in (0u16..).zip(&service.issuers).filter(|(_, issuer)| issuer.jwt) {
                let gauge = |horizon: &str, window: &str| {
                    let gauge = family.get_metric_with_label_values(&[&service.name, &issuer.name, horizon, window])?;
                    gauge.set(f64::INFINITY);
                    Ok(gauge)
                };
                let windows = |horizon| WINDOWS.iter().map(move |(window, _)| gauge(horizon, window)).collect();
                let gauges = HORIZONS.iter().map(|horizon| windows(*horizon));
                let gauges = gauges.collect::<Result<_, prometheus::Error>>()?;
                rows.push(Row { service: ServiceId(service_id), issuer: IssuerId(issuer_id), gauges });
            }
        }
        Ok(Self { rows })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below a double's 53 bits")]
    pub(super) fn set(&self, all: &[Detectable]) {
        for row in &self.rows {
            let found = all.iter().find(|one| one.service == row.service && one.issuer == row.issuer);
            for (gauges, figures) in row.gauges.iter().zip(found.into_iter().flat_map(|one| [one.passed, one.open])) {
                for (gauge, figure) in gauges.iter().zip(figures) {
                    gauge.set(figure.map_or(f64::INFINITY, |accounts| accounts as f64));
                }
            }
        }
    }
}
