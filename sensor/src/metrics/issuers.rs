//! Metrics of each issuer: since when the ledger is complete for it, how much of its issuing is seen, and its budget of
//! credentials that may be older.

use prometheus::core::{AtomicF64 as F64, AtomicU64 as U64};
use prometheus::{Gauge, Registry};

use super::catalogue;
use super::control::IssuerView;
use super::kernel::Total;
use crate::config::model::Config;

/// Values of the `class` label of an issuer's newly used credentials.
pub(super) const CLASSES: [&str; 3] = ["seen", "unseen", "preexisting"];

struct Row {
    horizon: Gauge,
    sight: Gauge,
    used: Vec<Gauge>,
    preexisting: Gauge,
    budget: Gauge,
    exceeded: Total,
}

/// By service, by issuer.
pub(super) struct Issuers {
    rows: Vec<Vec<Row>>,
}

impl Issuers {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let horizons = catalogue::LEDGER_HORIZON.gauges::<F64>(registry)?;
        let sights = catalogue::ISSUER_SIGHT.gauges::<F64>(registry)?;
        let credentials = catalogue::ISSUER_CREDENTIALS.gauges::<F64>(registry)?;
        let preexisting = catalogue::ISSUER_PREEXISTING.gauges::<F64>(registry)?;
        let budgets = catalogue::ISSUER_PREEXISTING_BUDGET.gauges::<F64>(registry)?;
        let exceeded = catalogue::ISSUER_PREEXISTING_EXCEEDED.counters::<U64>(registry)?;
        let row = |service: &str, issuer: &str| {
            let labels = [service, issuer];
            let used = CLASSES.map(|class| credentials.get_metric_with_label_values(&[service, issuer, class]));
            let row = Row {
                horizon: horizons.get_metric_with_label_values(&labels)?,
                sight: sights.get_metric_with_label_values(&labels)?,
                used: used.into_iter().collect::<Result<_, _>>()?,
                preexisting: preexisting.get_metric_with_label_values(&labels)?,
                budget: budgets.get_metric_with_label_values(&labels)?,
                exceeded: Total::new(exceeded.get_metric_with_label_values(&labels)?),
            };
            row.sight.set(f64::NAN);
            row.budget.set(f64::NAN);
            Ok(row)
        };
        let services = config.services.iter();
        let rows = services.map(|service| service.issuers.iter().map(|one| row(&service.name, &one.name)).collect());
        Ok(Self { rows: rows.collect::<Result<_, prometheus::Error>>()? })
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below a double's 53 bits")]
    pub(super) fn set(&self, view: &IssuerView) {
        let of_service = self.rows.get(usize::from(view.service));
        let Some(row) = of_service.and_then(|rows| rows.get(usize::from(view.issuer))) else { return };
        row.horizon.set(view.horizon_unix_s);
        row.sight.set(view.sight.unwrap_or(f64::NAN));
        for (gauge, count) in row.used.iter().zip([view.used.seen, view.used.unseen, view.used.preexisting]) {
            gauge.set(count as f64);
        }
        row.preexisting.set(view.preexisting as f64);
        row.budget.set(view.preexisting_budget.map_or(f64::NAN, |budget| budget as f64));
        row.exceeded.set(view.preexisting_exceeded);
    }
}
