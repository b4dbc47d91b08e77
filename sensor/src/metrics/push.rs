//! The push endpoint: what sources told, and what became of it.

use prometheus::core::AtomicU64 as U64;
use prometheus::{IntCounter, Registry};

use super::catalogue;
use super::kernel::Total;
use crate::config::model::Config;
use crate::ledger::Issued;

/// The `source` label where a certificate is of no source.
pub(super) const NO_SOURCE: &str = "none";
/// Values of the `result` label of pushed issuances.
pub(super) const PUSHED_RESULTS: [&str; 5] = ["added", "inherited", "known", "echo", "full"];

macro_rules! labels {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)* }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Label value.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label,)* }
            }
        }
    };
}

labels! {
    /// What became of a push request.
    PushRequest {
        /// All of its issuances were taken.
        Accepted = "accepted",
        /// A line does not say what it has to.
        Invalid = "invalid",
        /// A line is of an issuer that is not the source's.
        Forbidden = "forbidden",
        /// Larger than the bound.
        TooLarge = "too_large",
        /// Beyond the source's rate.
        Rate = "rate",
        /// The data plane does not keep up.
        QueueFull = "queue_full",
        /// It did not come as a whole.
        Torn = "torn",
        /// Another path, method or coding.
        Other = "other",
    }
}

labels! {
    /// What became of a connection to the push endpoint.
    PushConnection {
        /// A source's.
        Served = "served",
        /// No TLS 1.3, no certificate, or none of the configured CA.
        Refused = "refused",
        /// The handshake took too long.
        TimedOut = "timed_out",
        /// The source has as many as it may.
        Crowded = "crowded",
        /// Its certificate is of no source.
        NoSource = "no_source",
    }
}

labels! {
    /// What came of reading the endpoint's certificate, key and CA again.
    PushReload {
        /// New connections are shown them.
        Loaded = "loaded",
        /// They have mistakes; those before stay.
        Refused = "refused",
    }
}

/// Its metrics.
pub(super) struct Push {
    /// By source; the last row is that of none.
    issuances: Vec<Vec<IntCounter>>,
    requests: Vec<Vec<IntCounter>>,
    connections: Vec<IntCounter>,
    reloads: Vec<IntCounter>,
    told_by_another: Total,
}

impl Push {
    pub(super) fn new(registry: &Registry, config: &Config) -> Result<Self, prometheus::Error> {
        let sources = config.push.iter().flat_map(|push| &push.sources).map(|source| source.name.as_str());
        let sources: Vec<&str> = sources.chain([NO_SOURCE]).collect();
        let issuances = catalogue::PUSHED.counters::<U64>(registry)?;
        let requests = catalogue::PUSH_REQUESTS.counters::<U64>(registry)?;
        let connections = catalogue::PUSH_CONNECTIONS.counters::<U64>(registry)?;
        let reloads = catalogue::PUSH_RELOADS.counters::<U64>(registry)?;
        let requested = PushRequest::ALL.iter().map(|result| result.label());
        let connected = PushConnection::ALL.iter().map(|result| result.label());
        let row = |family: &prometheus::IntCounterVec, source: &str, results: Vec<&str>| {
            let cells = results.into_iter().map(|result| family.get_metric_with_label_values(&[source, result]));
            cells.collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            issuances: sources
                .iter()
                .map(|source| row(&issuances, source, PUSHED_RESULTS.to_vec()))
                .collect::<Result<_, _>>()?,
            requests: sources
                .iter()
                .map(|source| row(&requests, source, requested.clone().collect()))
                .collect::<Result<_, _>>()?,
            connections: connected
                .map(|result| connections.get_metric_with_label_values(&[result]))
                .collect::<Result<_, _>>()?,
            reloads: (PushReload::ALL.iter())
                .map(|result| reloads.get_metric_with_label_values(&[result.label()]))
                .collect::<Result<_, _>>()?,
            told_by_another: Total::new(catalogue::TOLD_BY_ANOTHER.counter(registry)?),
        })
    }

    pub(super) fn issued(&self, source: u16, issued: Issued) {
        let result = match issued {
            Issued::Added => 0,
            Issued::Inherited(_) => 1,
            Issued::Known => 2,
            Issued::Echo => 3,
            Issued::Full => 4,
        };
        count(&self.issuances, Some(source), result);
    }

    pub(super) fn request(&self, source: Option<u16>, result: PushRequest) {
        count(&self.requests, source, result as usize);
    }

    pub(super) fn connection(&self, result: PushConnection) {
        if let Some(counter) = self.connections.get(result as usize) {
            counter.inc();
        }
    }

    pub(super) fn reloaded(&self, result: PushReload) {
        if let Some(counter) = self.reloads.get(result as usize) {
            counter.inc();
        }
    }

    pub(super) fn told_by_another(&self, total: u64) {
        self.told_by_another.set(total);
    }
}

fn count(table: &[Vec<IntCounter>], source: Option<u16>, result: usize) {
    let none = table.len().saturating_sub(1);
    let row = source.map_or(none, |source| usize::from(source).min(none));
    if let Some(counter) = table.get(row).and_then(|row| row.get(result)) {
        counter.inc();
    }
}
