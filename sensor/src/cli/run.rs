//! `authsensor run`: the daemon.
//!
//! Everything that can be refused is tried before anything is attached: configuration, rules, metrics port, findings
//! file, interface, BPF object. Then one thread is the data plane, and a small runtime serves metrics and signals.

use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::interface;
use super::live::{DataPlane, monotonic, started};
use super::reload::{Mailbox, Reloader};
use super::start::{self, CliError, Start};
use crate::capture::kernel::Kernel;
use crate::capture::tables::Tables;
use crate::config::model::{Findings, LedgerStore};
use crate::detect::RuleSet;
use crate::finding::sink::NdjsonSink;
use crate::ledger::Ledger;
use crate::metrics::{self, Metrics, RuleInfoLite};
use crate::object;
use crate::pipeline::Pipeline;
use crate::push;
use crate::slow::SlowPath;

/// Bytes of printed transactions that are written at once; what is left is written with each update of the metrics.
const TRANSACTIONS_BUFFER: usize = 256 << 10;
/// Between two looks at the times of files that may change: rules, certificates.
const LOOKED_AT: Duration = Duration::from_secs(1);

/// Runs the daemon on the configuration at `path`, watching `interfaces` (none: those of the configuration, or that of
/// the default route). Every transaction is appended to the file `transactions`, if there is one.
pub fn run(path: &Path, interfaces: &[String], transactions: Option<&Path>) -> Result<(), CliError> {
    let start = start::read(path)?;
    let config = Arc::clone(&start.config);
    let object = object::embedded()?;
    let interfaces = chosen(&start, interfaces)?;
    let metrics = Arc::new(Metrics::new(&config, &rule_infos(&start.rules))?);
    metrics.detectable(&start.rules.detectable(&config));
    let listener = metrics::bind(config.metrics_listen)?;
    let push_listener = config.push.as_ref().map(push::bind).transpose()?;
    let findings = NdjsonSink::open(&config.findings)?;
    let transactions = transactions.map(open_transactions).transpose()?;
    let keys = start::drawn_keys(&config)?;
    let tables = Tables::new(&config, keys.fingerprint)?;

    let mut kernel = Kernel::load(object, &config.bounds)?;
    kernel.configure(&tables)?;
    kernel.set_local_addresses(&interface::local_addresses()?)?;
    let (events, bytes) = kernel.rings(&config.bounds)?;
    metrics.object(&object_hash(object));
    // Reading what an earlier run left may take a while; what was captured meanwhile would be lost.
    let (opened, clock) = started();
    let ledger = Ledger::open(&config, &keys, opened)?;
    let told = Some(Arc::clone(&metrics));
    let mut pipeline = Pipeline::with_ledger(Arc::clone(&config), &start.rules, keys, clock, ledger, findings, told);
    if let LedgerStore::Folder(folder) = &config.ledger.store {
        pipeline.keep_state(folder, opened)?;
    }
    let at = clock.instant(monotonic());
    for name in &interfaces {
        kernel.attach(name)?;
    }
    pipeline.ledger().watch_from(at);
    let found = found(pipeline.ledger());
    if let Some(file) = transactions {
        pipeline.print_transactions(Box::new(BufWriter::with_capacity(TRANSACTIONS_BUFFER, file)));
    }
    let (pushed, endpoint) = match config.push.as_ref().zip(push_listener) {
        Some((push, listener)) => {
            let (sender, receiver) = push::queue(push.queue);
            let server = push::Server::start(listener, &config, push, keys, sender, Arc::clone(&metrics))?;
            (Some(receiver), Some(server))
        }
        None => (None, None),
    };
    let resume = kernel.resumer()?;
    let mailbox = Arc::new(Mailbox::default());
    let plane = DataPlane {
        slow: SlowPath::new(&tables, (&config.bounds).into()),
        resume,
        kernel,
        events,
        bytes,
        pipeline,
        metrics: Some(Arc::clone(&metrics)),
        pushed,
        poll_interval: config.bounds.poll_interval,
        lost: 0,
        looked: monotonic(),
        rules: Arc::clone(&mailbox),
    };
    let reloader = Reloader::new(&config, &start.rules, &mailbox, &metrics);
    serve(plane, listener, metrics, endpoint, reloader, || announce(&start, &interfaces, found.as_deref()))
}

/// What an earlier run left in the folder, and what may have been missed since.
fn found(ledger: &mut Ledger) -> Option<String> {
    ledger.resumed_from()?;
    let (found, missed) = (ledger.loaded().issuances, ledger.stats().gap_lost);
    Some(format!("ledger    goes on with {found} issuances; {missed} may have been missed while nobody watched"))
}

/// Opens the file that transactions are appended to. A new one is readable by its owner only: targets and addresses are
/// personal data.
fn open_transactions(path: &Path) -> Result<File, CliError> {
    let opened = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    opened.map_err(|source| CliError::Transactions { path: path.to_owned(), source })
}

fn chosen(start: &Start, given: &[String]) -> Result<Vec<String>, CliError> {
    let mut names = if given.is_empty() { start.config.interfaces.clone() } else { given.to_vec() };
    if names.is_empty() {
        names.push(interface::default_route()?);
    }
    names.sort();
    names.dedup();
    for name in &names {
        interface::check(name)?;
    }
    Ok(names)
}

/// What metrics say of each rule.
pub(super) fn rule_infos(rules: &RuleSet) -> Vec<RuleInfoLite> {
    rules
        .each()
        .map(|rule| RuleInfoLite {
            id: rule.info.id.clone(),
            title: rule.info.title.clone(),
            level: rule.info.level,
            version: rule.version.clone(),
        })
        .collect()
}

/// A short hash that tells one BPF object from another.
fn object_hash(object: &[u8]) -> String {
    let hash = sensor_ebpf::siphash::hash128(sensor_ebpf::siphash::Key::default(), object);
    crate::observation::Fingerprint(hash).to_string()
}

/// Runs the data plane in a thread of its own, and metrics and signals here.
/// `announce` comes once a signal ends the daemon in order.
fn serve(
    mut plane: DataPlane,
    listener: std::net::TcpListener,
    metrics: Arc<Metrics>,
    endpoint: Option<push::Server>,
    reloader: Reloader,
    announce: impl FnOnce(),
) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::System("start the control plane", error))?;
    let stop = Arc::new(AtomicBool::new(false));
    let (ended, over) = tokio::sync::oneshot::channel::<()>();
    let told = Arc::clone(&stop);
    let thread = std::thread::Builder::new()
        .name("data-plane".into())
        .spawn(move || {
            let outcome = plane.run(&told);
            // The receiver is gone when the daemon is stopping anyway.
            let _ = ended.send(());
            outcome
        })
        .map_err(|error| CliError::System("start the data plane", error))?;
    let certificates = endpoint.as_ref().map(|server| server.certificates(&metrics));
    let served = runtime.block_on(async {
        let signalled = signalled();
        announce();
        let shutdown = async {
            tokio::select! {
                () = signalled => {}
                _ = over => {}
            }
        };
        tokio::select! {
            served = metrics::serve(listener, metrics, shutdown) => served,
            never = reloads(reloader, certificates) => match never {},
        }
    });
    // First, so that the data plane's last turn has everything that was accepted.
    drop(endpoint);
    stop.store(true, Ordering::Release);
    let outcome = thread.join().unwrap_or_else(|_| {
        Err(CliError::System("go on", std::io::Error::other("the data plane stopped unexpectedly")))
    });
    served.map_err(|error| CliError::System("serve metrics", error))?;
    outcome?;
    eprintln!("authsensor: stopped; nothing is left attached");
    Ok(())
}

/// Looks for changed rules and certificates every second, and at once on SIGHUP.
async fn reloads(mut reloader: Reloader, mut certificates: Option<push::Certificates>) -> std::convert::Infallible {
    use tokio::signal::unix::{SignalKind, signal};
    let mut hangup = signal(SignalKind::hangup()).ok();
    loop {
        let told = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = told => {
                reloader.load();
                if let Some(certificates) = &mut certificates {
                    certificates.load();
                }
            }
            () = tokio::time::sleep(LOOKED_AT) => {
                reloader.look();
                if let Some(certificates) = &mut certificates {
                    certificates.look();
                }
            }
        }
    }
}

/// Takes the signals that end the daemon over; the future is over when one came.
fn signalled() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    async {
        let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
            // Without handlers the default action ends the process, and the kernel detaches.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }
}

/// A few lines for whoever started it. Standard error may be closed; the daemon runs all the same.
fn announce(start: &Start, interfaces: &[String], found: Option<&str>) {
    let _ = std::io::stderr().write_all(announcement(start, interfaces, found).as_bytes());
}

fn announcement(start: &Start, interfaces: &[String], found: Option<&str>) -> String {
    let config = &start.config;
    let mut lines: Vec<String> = start.warnings.iter().map(|warning| format!("note: {warning}")).collect();
    lines.push(format!("authsensor watches {}:", interfaces.join(", ")));
    for service in &config.services {
        let listens: Vec<String> = service.listen.iter().copied().map(crate::config::shown).collect();
        lines.push(format!("  {} on {}, {} routes", service.name, listens.join(", "), service.routes.len()));
        for issuer in service.issuers.iter().filter(|issuer| !issuer.accountable()) {
            lines.push(format!("  issuer {}: not confirmed, so its unknown credentials are unverifiable", issuer.name));
        }
    }
    let to = match &config.findings {
        Findings::Stdout => "standard output".to_owned(),
        Findings::File(path) => path.display().to_string(),
    };
    lines.push(format!("findings  {to} ({} rules)", start.rules.each().count()));
    lines.push(format!("metrics   http://{}/metrics", config.metrics_listen));
    lines.extend(found.map(str::to_owned));
    if let Some(push) = &config.push {
        lines.push(format!("push      https://{}/v1/issuances ({} sources)", push.listen, push.sources.len()));
    }
    lines.push(format!(
        "next      describe your services in {}, then `authsensor check --config {0}`; Ctrl-C stops and detaches",
        config.path.display()
    ));
    lines.push(String::new());
    lines.join("\n")
}
