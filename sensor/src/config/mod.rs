//! Configuration: TOML in, [`model::Config`] out.
//!
//! Owns the schema (`docs/configure.md` is its reader's version) and every check on it. A file flows in; either a
//! [`model::Config`] flows out that nothing behind it validates again, or all mistakes at once, each with file, line,
//! column and what to write instead. What the schema has and this version lacks is refused by name, never ignored.

pub mod approvals;
mod bounds;
mod canaries;
mod estimate;
mod issuance;
mod issuer;
mod keys;
pub mod model;
mod names;
mod outcome;
mod push;
mod reader;
mod register;
mod route;
mod scalar;
mod service;
mod template;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use sensor_ebpf::siphash;

pub use crate::diagnostic::Diagnostic;
use crate::diagnostic::{Lines, quoted};
use crate::suggest;
use approvals::Approvals;
use issuance::each;
pub use issuer::GOOD_SIGHT;
use model::{ClientHeader, Config, Findings};
pub use push::{PushMistake, read_tls as read_push_tls};
use reader::{Context, Item, Section};
pub(crate) use scalar::civil_date;
pub(crate) use service::shown;

/// Largest configuration file, bytes.
const FILE_MAX: u64 = 4 << 20;
/// Interfaces that one sensor can watch.
const INTERFACES_MAX: usize = 64;
/// Networks that can be trusted.
const TRUSTED_MAX: usize = 4096;

/// What was found in a configuration file.
#[derive(Debug, Default)]
pub struct Report {
    /// The configuration; `None` when there are errors.
    pub config: Option<Config>,
    /// All mistakes, in file order.
    pub errors: Vec<Diagnostic>,
    /// What is allowed but should be known, in file order.
    pub warnings: Vec<Diagnostic>,
}

/// Reads and checks the configuration at `path`.
pub fn load(path: &Path) -> Result<Config, Vec<Diagnostic>> {
    let report = examine(path);
    report.config.ok_or(report.errors)
}

/// Reads and checks the configuration at `path`, and tells the warnings too.
pub fn examine(path: &Path) -> Report {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_end(&mut bytes));
    match read {
        Err(error) => {
            let message = format!("the configuration cannot be read ({error})");
            whole_file(path, message, "Name a readable file with --config")
        }
        Ok(_) if bytes.len() as u64 > FILE_MAX => {
            let message = format!("the configuration is larger than {FILE_MAX} bytes");
            whole_file(path, message, "Name a configuration file with --config")
        }
        Ok(_) => check(path, &bytes),
    }
}

/// The configuration that `text` gives, where there is no file: for benches and tests. `None` when it has mistakes.
pub fn from_text(text: &str) -> Option<Config> {
    check(Path::new("authsensor.toml"), text.as_bytes()).config
}

/// What a configuration without any key says: the defaults. For `replay --all-tcp`, which needs no file.
pub fn defaults() -> Option<Config> {
    check(Path::new("authsensor.toml"), b"").config
}

fn whole_file(path: &Path, message: String, fix: &str) -> Report {
    let error = Diagnostic { file: path.to_owned(), line: 1, column: 1, message, fix: fix.to_owned() };
    Report { errors: vec![error], ..Report::default() }
}

/// Checks `bytes` as the content of `path`.
fn check(path: &Path, bytes: &[u8]) -> Report {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return not_utf8(path, bytes, error.valid_up_to()),
    };
    let mut cx = Context::new(path, text);
    let config = read(path, text, &mut cx);
    let Context { mut errors, mut warnings, .. } = cx;
    errors.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    warnings.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    let config = config.filter(|_| errors.is_empty());
    Report { config, errors, warnings }
}

/// Reads `text` into a configuration, which is only worth something when `cx` has no errors.
fn read(path: &Path, text: &str, cx: &mut Context) -> Option<Config> {
    match toml::de::DeTable::parse(text) {
        Ok(tree) => Some(root(Section::root(tree.get_ref()), path, text.as_bytes(), cx)),
        Err(error) => {
            let message = format!("this is not valid TOML: {}", error.message().replace(['\n', '\r'], " "));
            let at = error.span().map_or(0, |span| span.start);
            cx.error(at, message, "Correct the syntax here; all other checks follow once it is readable");
            None
        }
    }
}

fn not_utf8(path: &Path, bytes: &[u8], at: usize) -> Report {
    let valid = bytes.get(..at).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default();
    let (line, column) = Lines::new(valid).position(at);
    let message = "the file is not UTF-8 text".to_owned();
    let fix = "Save it as UTF-8".to_owned();
    Report { errors: vec![Diagnostic { file: path.to_owned(), line, column, message, fix }], ..Report::default() }
}

fn root(mut root: Section, path: &Path, bytes: &[u8], cx: &mut Context) -> Config {
    let mut approvals = Approvals::read(&mut root, cx);
    let services = service::services(&mut root, &mut approvals, cx);
    let keys = keys::keys(&mut root, cx);
    let config = Config {
        path: path.to_owned(),
        hash: stable_hash(bytes),
        interfaces: interfaces(&mut root, cx),
        trusted_proxies: trusted_proxies(&mut root, cx),
        client_header: client_header(&mut root, cx),
        tunnels: tunnels(&mut root, cx),
        ledger: bounds::ledger(&mut root, &keys, cx),
        push: push::push(&mut root, &services, &keys, cx),
        services,
        keys,
        approvals: approvals.file().to_owned(),
        rules: rules(&mut root, cx),
        findings: findings(&mut root, cx),
        metrics_listen: metrics(&mut root, cx),
        bounds: bounds::bounds(&mut root, cx),
        estimate: estimate::estimate(&mut root, cx),
    };
    approvals.finish(cx);
    shards(&mut root, cx);
    sinks(&mut root, cx);
    root.refuse(cx, "evidence", "the tamper-evident evidence log");
    root.finish(cx);
    config
}

/// Seconds since 1970 of `text`: a whole number of them, or a date or time with offset as TOML writes it.
pub(crate) fn unix_seconds(text: &str) -> Option<u64> {
    let when = || text.parse().ok().as_ref().and_then(scalar::unix_seconds_of);
    text.parse().ok().or_else(when)
}

/// Hex SipHash-2-4-128 of the file under a fixed key: it names a version of the file and protects nothing.
fn stable_hash(bytes: &[u8]) -> String {
    let hash = siphash::hash128(siphash::Key::from_bytes(b"authsensor.toml\0"), bytes);
    hash.iter().fold(String::with_capacity(32), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(half), 16));
        }
        text
    })
}

fn interfaces(root: &mut Section, cx: &mut Context) -> Vec<String> {
    let example = "an interface name of at most 15 bytes, such as \"eth0\"";
    let names = each(root, "interfaces", cx, |item, cx| {
        let text = item.text(cx, example)?;
        let odd = |c: char| c.is_whitespace() || c.is_control() || c == '/' || c == ':';
        // The kernel's IFNAMSIZ is 16 with the closing zero.
        if text.value.is_empty() || text.value.len() > 15 || text.value.contains(odd) {
            let message = format!("{} is not an interface name", quoted(text.value));
            cx.error(text.at, message, format!("Write {example}"));
            return None;
        }
        Some(text.value.to_owned())
    });
    at_most(root, "interfaces", names.len(), INTERFACES_MAX, cx);
    names
}

fn at_most(section: &Section, key: &str, count: usize, max: usize, cx: &mut Context) {
    if count > max {
        cx.error(section.key_at(key), format!("`{key}` has {count} entries"), format!("Keep at most {max}"));
    }
}

/// Traffic inside tunnels is looked into only where that is asked for: each layer costs every packet.
fn tunnels(root: &mut Section, cx: &mut Context) -> bool {
    root.get(cx, "tunnels").and_then(|item| item.boolean(cx)).unwrap_or(false)
}

fn trusted_proxies(root: &mut Section, cx: &mut Context) -> Vec<IpNet> {
    let networks = each(root, "trusted_proxies", cx, network);
    at_most(root, "trusted_proxies", networks.len(), TRUSTED_MAX, cx);
    networks
}

/// The one forwarding header that is believed.
fn client_header(root: &mut Section, cx: &mut Context) -> ClientHeader {
    const WORDS: [&str; 3] = ["x-forwarded-for", "forwarded", "x-real-ip"];
    let Some(item) = root.get(cx, "client_header") else { return ClientHeader::default() };
    let example = "\"x-forwarded-for\", \"forwarded\" or \"x-real-ip\"";
    let Some(text) = item.text(cx, example) else { return ClientHeader::default() };
    match text.value.to_ascii_lowercase().as_str() {
        "x-forwarded-for" => ClientHeader::XForwardedFor,
        "forwarded" => ClientHeader::Forwarded,
        "x-real-ip" => ClientHeader::XRealIp,
        other => {
            let message = format!("{} is not a header that names clients", quoted(text.value));
            cx.error(text.at, message, suggest::advice(other, &WORDS));
            ClientHeader::default()
        }
    }
}

/// A network in CIDR notation, or a single address.
fn network(item: &Item, cx: &mut Context) -> Option<IpNet> {
    let example = "a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", or one address";
    let text = item.text(cx, example)?;
    let single = || text.value.parse::<std::net::IpAddr>().ok().map(IpNet::from);
    let Some(network) = text.value.parse::<IpNet>().ok().or_else(single) else {
        let message = format!("{} is not a network", quoted(text.value));
        cx.error(text.at, message, format!("Write {example}"));
        return None;
    };
    if network != network.trunc() {
        let message = format!("{} has address bits beyond its prefix", quoted(text.value));
        cx.error(text.at, message, format!("Write \"{}\", or the prefix that is meant", network.trunc()));
        return None;
    }
    if network.prefix_len() == 0 {
        let message = format!("{} trusts every client to name its own address", quoted(text.value));
        cx.warn(text.at, message, "Name the proxies' networks");
    }
    Some(network)
}

fn rules(root: &mut Section, cx: &mut Context) -> Vec<PathBuf> {
    let example = "a file or folder of rules, such as \"rules/detection\"";
    let paths = each(root, "rules", cx, |item, cx| {
        let text = item.text(cx, example)?;
        let path = cx.folder().join(text.value);
        if let Err(error) = std::fs::metadata(&path) {
            let message = format!("the rules {} cannot be read ({error})", quoted(&path.to_string_lossy()));
            cx.error(text.at, message, "Write a path that exists; it starts from the folder of this file");
            return None;
        }
        Some(path)
    });
    if paths.is_empty() && !root.has("rules") {
        cx.warn(0, "no rules are named, so there will be no findings", "Add `rules = [\"rules/detection\"]`");
    }
    paths
}

fn findings(root: &mut Section, cx: &mut Context) -> Findings {
    let mut table = root.table(cx, "findings", "a [findings] table");
    let example = "\"stdout\", or the path of a file";
    let output = table.get(cx, "output").and_then(|item| item.text(cx, example));
    table.finish(cx);
    let Some(output) = output.filter(|output| output.value != "stdout") else { return Findings::Stdout };
    let path = cx.folder().join(output.value);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    if output.value.is_empty() || path.is_dir() {
        cx.error(output.at, "`findings.output` is not a file", format!("Write {example}"));
    } else if folder.is_some_and(|folder| !folder.is_dir()) {
        let message = format!("the folder of {} does not exist", quoted(&path.to_string_lossy()));
        cx.error(output.at, message, "Make the folder, or name another file");
    }
    Findings::File(path)
}

fn metrics(root: &mut Section, cx: &mut Context) -> SocketAddr {
    let mut table = root.table(cx, "metrics", "a [metrics] table");
    let example = "an address with a port, such as \"127.0.0.1:9464\"";
    let listen = table.get(cx, "listen").and_then(|item| item.text(cx, example));
    table.finish(cx);
    let default = SocketAddr::from(([127, 0, 0, 1], 9464));
    let Some(text) = listen else { return default };
    let Ok(address) = text.value.parse::<SocketAddr>() else {
        let message = format!("{} is not an address with a port", quoted(text.value));
        cx.error(text.at, message, format!("Write {example}"));
        return default;
    };
    if !address.ip().is_loopback() {
        let message = format!("metrics are served to everyone who can reach {address}");
        cx.warn(text.at, message, "Let a firewall keep all but the Prometheus server out");
    }
    address
}

fn shards(root: &mut Section, cx: &mut Context) {
    let Some(item) = root.get(cx, "shards") else { return };
    if item.integer(cx, 1..=1024).is_some_and(|shards| shards > 1) {
        let meaning = "more than one pair of rings with its own thread";
        cx.not_implemented(item.at, "`shards` above 1", meaning, "Remove it or write 1");
    }
}

fn sinks(root: &mut Section, cx: &mut Context) {
    let mut table = root.table(cx, "sinks", "a [sinks] table");
    table.refuse(cx, "alertmanager", "alerts to Alertmanager");
    table.refuse(cx, "webhook", "findings to a webhook");
    table.refuse(cx, "syslog", "findings to syslog");
    table.finish(cx);
}
