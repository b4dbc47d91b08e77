//! The sensor under test: its configuration, its process on the gateway's interface, and its findings as they appear.

use std::fs;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::canary::{self, Hits, Image, Search};
use super::error::{Doing, LabError, Result, tail};
use super::interrupt;
use super::metrics::Metrics;
use super::process::{Running, start};
use super::tally::Shared;
use super::token::{ISSUER, KID, Key};
use super::world::{GATEWAY_INTERFACE, World};

/// The service's name in metrics and findings.
pub const SERVICE: &str = "storefront";
const UP_TIME: Duration = Duration::from_secs(20);
/// `iat` has whole seconds and the configured leeway is one: a token issued later than this after the start proves
/// that it is younger than the ledger's horizon.
const HORIZON_TIME: Duration = Duration::from_millis(2_500);
/// How often the findings file is looked at; an upper bound of what the lab adds to the time until a finding is seen.
const LOOK: Duration = Duration::from_millis(2);

/// The running daemon.
pub struct Sensor {
    process: Running,
    findings: PathBuf,
    control: String,
}

impl Sensor {
    /// Starts `binary` on the gateway's interface and waits until its ledger's horizon has passed.
    pub fn start(binary: &Path, rules: &Path, world: &World, folder: &Path) -> Result<Self> {
        let (configuration, findings) = (folder.join("authsensor.toml"), folder.join("findings.ndjson"));
        fs::write(&configuration, configuration_text(rules, &findings)).doing("writing the sensor's configuration")?;
        let control = Key::random().doing("reading random bytes")?.secret("control", 0);
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&configuration).args(["--interface", GATEWAY_INTERFACE]);
        command.env("AUTHSENSOR_LAB_CONTROL", &control);
        let process = start("authsensor", command, &world.gateway, &folder.join("authsensor.log"))?;
        let mut sensor = Self { process, findings, control };
        sensor.wait_until_up(world)?;
        interrupt::sleep(HORIZON_TIME)?;
        sensor.check()?;
        Ok(sensor)
    }

    fn wait_until_up(&mut self, world: &World) -> Result<()> {
        let end = Instant::now() + UP_TIME;
        while Metrics::fetch(&world.gateway).is_err() {
            self.check()?;
            if Instant::now() > end {
                let detail = tail(self.process.log());
                return Err(LabError::NotUp { what: "the sensor's metrics", seconds: UP_TIME.as_secs(), detail });
            }
            interrupt::sleep(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// An error when it has ended.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Where its findings appear.
    pub fn findings(&self) -> &Path {
        &self.findings
    }

    /// Searches its memory (while it stands still) for credentials and for the control. Returns what was searched and
    /// whether the control was found.
    pub fn search_memory(&self, search: &Search, hits: &mut Hits) -> Result<(Image, bool)> {
        let mut control = Search::new();
        control.add("control", self.control.as_bytes());
        let mut controls = Hits::new();
        self.process.signal(Signal::SIGSTOP)?;
        let image = canary::search_process(self.process.pid(), search, hits)
            .and_then(|image| canary::search_process(self.process.pid(), &control, &mut controls).map(|_| image));
        self.process.signal(Signal::SIGCONT)?;
        Ok((image?, !controls.is_empty()))
    }

    /// Asks it to stop, then searches the files it has written.
    pub fn stop_and_search_files(&mut self, search: &Search, hits: &mut Hits) -> Result<ExitStatus> {
        let status = self.process.stop(Signal::SIGINT)?;
        for (name, path) in [("log", self.process.log()), ("findings", self.findings.as_path())] {
            search_file(name, path, search, hits)?;
        }
        Ok(status)
    }
}

/// A file without findings need not exist.
fn search_file(name: &str, path: &Path, search: &Search, hits: &mut Hits) -> Result<()> {
    match fs::read(path) {
        Ok(bytes) => search.search(name, &bytes, hits),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).doing(format!("reading {}", path.display())),
    }
    Ok(())
}

/// The rule of bulk account reads with unissued tokens (`rules/detection/bulk_account_reads_unissued.yml`).
const BULK_RULE: &str = "8f4d0a2c-58a5-4a0e-9b0b-0d3c5e6a7f21";

/// A finding as the lab saw it appear.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// When it was read from the file.
    pub at: Instant,
    /// Accounts that had been read with forged tokens by then.
    pub accounts: u64,
    /// True when no forged request had been sent yet.
    pub before_attack: bool,
    /// The OCSF event.
    pub event: Value,
}

impl Sighting {
    /// A figure of the first evidence (`distinct`, `clients`, `observations`).
    pub fn figure(&self, name: &str) -> u64 {
        self.event.pointer(&format!("/evidences/0/data/{name}")).and_then(Value::as_u64).unwrap_or_default()
    }

    /// True when it counts accounts whose data was returned to tokens that no login issued, not those that were asked for.
    pub fn counts_reads(&self) -> bool {
        let rule = self.event.pointer("/metadata/event_code").and_then(Value::as_str);
        rule == Some(BULK_RULE)
    }

    /// The finding in one sentence.
    pub fn message(&self) -> &str {
        let text = |pointer| self.event.pointer(pointer).and_then(Value::as_str);
        text("/message").or_else(|| text("/finding_info/title")).unwrap_or("a finding without title")
    }
}

/// Reads findings as they are appended, until `done`; each is given to `tell` at once.
pub fn follow(path: &Path, shared: &Shared, done: &AtomicBool, tell: impl Fn(&Sighting)) -> Result<Vec<Sighting>> {
    let (mut sightings, mut offset) = (Vec::new(), 0);
    loop {
        let last = done.load(Ordering::SeqCst);
        for event in appended(path, &mut offset)? {
            let accounts = shared.forged_accounts.load(Ordering::SeqCst);
            let before_attack = shared.attack_began.get().is_none();
            let sighting = Sighting { at: Instant::now(), accounts, before_attack, event };
            tell(&sighting);
            sightings.push(sighting);
        }
        if last {
            return Ok(sightings);
        }
        thread::sleep(LOOK);
    }
}

/// Complete lines behind `offset`, which moves on.
fn appended(path: &Path, offset: &mut u64) -> Result<Vec<Value>> {
    let mut file = match fs::File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.doing("opening the findings")?,
    };
    let mut text = Vec::new();
    file.seek(SeekFrom::Start(*offset)).doing("reading the findings")?;
    file.read_to_end(&mut text).doing("reading the findings")?;
    let complete = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    *offset += u64::try_from(complete).unwrap_or_default();
    let lines = text.get(..complete).unwrap_or_default().split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line).map_err(|error| LabError::Http(format!("a finding is not JSON: {error}")))
        })
        .collect()
}

fn configuration_text(rules: &Path, findings: &Path) -> String {
    let confirmed = r#"{ sight = 1.0, by = "lab", on = 2026-01-31 }"#;
    // 404 is a miss and 401 and 403 are denials unless a route says otherwise.
    let read = |minimum: u32| {
        format!(
            r#"outcomes = [{{ outcome = "read", status = 200, content_type = "application/json", min_length = {minimum} }}]"#
        )
    };
    format!(
        r#"# Written by the lab: the storefront behind nginx.
interfaces = ["{GATEWAY_INTERFACE}"]
rules = ["{rules}"]
[findings]
output = "{findings}"
[metrics]
listen = "{metrics}"
[ledger]
clock_leeway = "1s"

[[service]]
name = "{SERVICE}"
listen = [80]
[service.credentials]
authorization = true
cookies = ["SESSION"]

[[service.route]]
class = "login"
methods = ["POST"]
path = "/login"
issues = ["set-cookie:SESSION", "json:/access_token", "json:/refresh_token"]
account_pointer = "/member"
success = {{ status = 200 }}

[[service.route]]
class = "login"
methods = ["POST"]
path = "/login/form"
issues = ["set-cookie:SESSION"]
success = {{ status = 302, location_not = "/login" }}

[[service.route]]
class = "refresh"
methods = ["POST"]
path = "/token/refresh"
issues = ["json:/access_token", "json:/refresh_token"]
presents = ["json:/refresh_token"]
success = {{ status = 200 }}

[[service.route]]
class = "logout"
methods = ["POST"]
path = "/logout"

[[service.route]]
class = "account_read"
methods = ["GET"]
path = "/members/{{member}}"
{profile}

[[service.route]]
class = "account_read"
methods = ["GET"]
path = "/members/{{member}}/addresses"
{addresses}

[[service.route]]
class = "account_read"
methods = ["GET"]
path = "/members/{{member}}/orders"
{profile}

[[service.issuer]]
name = "store-token"
kind = "jwt"
iss = "{ISSUER}"
kids = ["{KID}"]
places = ["authorization"]
max_lifetime = "1h"
observed = "all"
confirmed = {confirmed}

[[service.issuer]]
name = "store-session"
kind = "opaque"
places = ["cookie:SESSION"]
max_lifetime = "1h"
observed = "all"
confirmed = {confirmed}

[[service.issuer]]
name = "store-refresh"
kind = "opaque"
max_lifetime = "12h"
observed = "all"
confirmed = {confirmed}
"#,
        rules = rules.display(),
        findings = findings.display(),
        metrics = super::metrics::ADDRESS,
        profile = read(2),
        addresses = read(1024),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_read_line_by_line_and_halves_wait() {
        let path = std::env::temp_dir().join(format!("lab-findings-{}", std::process::id()));
        let mut offset = 0;
        assert!(appended(&path, &mut offset).unwrap().is_empty());
        fs::write(&path, "{\"message\":\"a\"}\n{\"mess").unwrap();
        assert_eq!(appended(&path, &mut offset).unwrap().len(), 1);
        fs::write(&path, "{\"message\":\"a\"}\n{\"message\":\"b\"}\n").unwrap();
        let rest = appended(&path, &mut offset).unwrap();
        fs::write(&path, "nonsense, which is longer than what stood there before\n").unwrap();
        let broken = appended(&path, &mut 0);
        fs::remove_file(&path).unwrap();
        assert_eq!(rest, [serde_json::json!({"message": "b"})]);
        assert!(broken.is_err());
    }
}
