//! Where the traffic goes: into the pipeline, or into a trace.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sensor::capture::host;
use sensor::capture::tables::Tables;
use sensor::cli::start;
use sensor::collect::{Answer, Clock, Exchange, Keys, Shown};
use sensor::config::model::Config;
use sensor::detect::{self, RuleSet};
use sensor::finding::sink::NdjsonSink;
use sensor::ledger::{Issuance, Ledger};
use sensor::observation::{Fingerprint, Instant, ServiceId};
use sensor::pipeline::Pipeline;
use sensor::trace::{Credentials, Encoder, Line, Text, write_line};
use sensor_ebpf::wire::{ROUTES_MAX, method, place, route_flag};

use crate::scenario::Scenario;
use crate::token::{self, Held};
use crate::visit::put_credential;
use crate::watch::Watch;
use crate::world::{SECOND, START_NS};

/// What goes wrong while traffic is taken.
pub type Failed = Box<dyn std::error::Error>;

/// Credentials of one head at most.
const HELD_MAX: usize = 4;
/// Exchanges between two applications.
const BATCH: u32 = 64;

/// The service's routes, in the order of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Login,
    Otp,
    SignUp,
    StaffLogin,
    Refresh,
    Logout,
    Profile,
    Addresses,
    Orders,
    Order,
    Dormant,
    Product,
    Password,
    /// Not in the configuration.
    MovedLogin,
}

/// Templates by [`Route`].
#[cfg(test)]
const TEMPLATES: &[&str] = &[
    "/login",
    "/login/otp",
    "/signup",
    "/staff/login",
    "/token/refresh",
    "/logout",
    "/members/{member}",
    "/members/{member}/addresses",
    "/members/{member}/orders",
    "/members/{member}/orders/{order}",
    "/v1/members/{member}/profile",
    "/products/{product}",
    "/login/password",
];

/// One request with its response.
#[derive(Clone, Copy)]
pub struct Act<'a> {
    pub at_ns: u64,
    /// IPv4.
    pub client: u32,
    pub route: Route,
    /// The request line.
    pub line: &'a [u8],
    pub shown: &'a [Held<'a>],
    /// 0: never answered.
    pub status: u16,
    pub bytes: u64,
    pub handed: &'a [Held<'a>],
    /// JSON bodies; empty for none.
    pub request: &'a [u8],
    pub response: &'a [u8],
    /// The attack sent it.
    pub attack: bool,
}

/// Takes traffic, in the order of its times.
pub trait Feed {
    /// One exchange.
    fn act(&mut self, act: &Act<'_>) -> Result<(), Failed>;
    /// A credential that was handed out before the start.
    fn held_before(&mut self, held: &Held<'_>) -> Result<(), Failed>;
    /// The sensor lost so many records between two times, and knows it.
    fn lost(&mut self, from_ns: u64, to_ns: u64, records: u64) -> Result<(), Failed>;
    /// The sensor is killed at `from_ns` and runs again from `to_ns` on.
    fn restart(&mut self, from_ns: u64, to_ns: u64, records: u64) -> Result<(), Failed>;
    /// Everything up to `at_ns` was given.
    fn finish(&mut self, at_ns: u64) -> Result<(), Failed>;
}

/// The lines that findings are written as, until someone takes them.
#[derive(Clone, Default)]
pub struct Findings {
    text: Arc<Mutex<Vec<u8>>>,
    some: Arc<AtomicBool>,
    /// Where they are appended too, at once: what a killed process had said stays said.
    copy: Option<Arc<File>>,
}

impl Write for Findings {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(copy) = &self.copy {
            (&**copy).write_all(bytes)?;
        }
        self.text.lock().map_err(|_| io::Error::other("a writer died"))?.extend_from_slice(bytes);
        self.some.store(true, Ordering::Release);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Findings {
    /// Lines that are appended to the file at `path`, too.
    pub fn copied(path: &Path) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(path)?;
        Ok(Self { copy: Some(Arc::new(file)), ..Self::default() })
    }

    /// What was written since the last call.
    pub fn take(&self) -> Option<Vec<u8>> {
        if !self.some.swap(false, Ordering::Acquire) {
            return None;
        }
        Some(std::mem::take(&mut *self.text.lock().ok()?))
    }
}

/// The sensor's configuration and rules.
pub struct Sensor {
    pub config: Arc<Config>,
    pub rules: RuleSet,
    pub keys: Keys,
}

impl Sensor {
    /// Reads them; `rules` replaces those of the configuration.
    pub fn read(config: &Path, rules: Option<&Path>) -> Result<Self, Failed> {
        let start = start::read(config)?;
        let rules = match rules {
            Some(path) => detect::load(&[path.to_owned()], &start.config)
                .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))?,
            None => start.rules,
        };
        let keys = start::fixed_keys(&start.config);
        Ok(Self { config: start.config, rules, keys })
    }

    /// As the operator of such a service configures it: no issuer's longest lifetime is shorter than its tokens live.
    pub fn operated_for(mut self, members: &Scenario) -> Self {
        let config = Arc::make_mut(&mut self.config);
        for issuer in config.services.iter_mut().flat_map(|service| &mut service.issuers) {
            let lives_s = match issuer.iss.as_deref() {
                Some(iss) if iss == token::REFRESH.iss => members.refresh_lifetime_s,
                Some(iss) if [token::ACCESS.iss, token::SISTER.iss, token::INTERNAL.iss].contains(&iss) => {
                    members.token_lifetime_s
                }
                _ => continue,
            };
            let lives = Duration::try_from_secs_f64(lives_s).unwrap_or_default();
            issuer.max_lifetime = issuer.max_lifetime.max(lives);
        }
        self
    }

    /// How long before the start the ledger must have watched to be complete.
    pub fn before(&self) -> Duration {
        let issuers = self.config.services.iter().flat_map(|service| &service.issuers);
        let longest = issuers.map(|issuer| issuer.max_lifetime).max().unwrap_or_default();
        longest + self.config.ledger.clock_leeway * 2
    }
}

/// The pipeline.
pub struct PipelineFeed {
    pipeline: Pipeline,
    encoder: Encoder,
    flags: Vec<u8>,
    since: u32,
    /// Whoever else is shown the exchanges.
    pub watch: Option<Watch>,
}

impl PipelineFeed {
    /// A pipeline whose ledger is complete since before the start; findings go to `findings`.
    pub fn new(sensor: &Sensor, findings: &Findings) -> Result<Self, Failed> {
        let started = Clock::default().instant(START_NS.saturating_sub(u64::try_from(sensor.before().as_nanos())?));
        let ledger = Ledger::new(&sensor.config, sensor.keys.account, started);
        Self::behind(sensor, ledger, findings)
    }

    /// A pipeline with `ledger`.
    pub fn behind(sensor: &Sensor, ledger: Ledger, findings: &Findings) -> Result<Self, Failed> {
        let sink = NdjsonSink::to(Box::new(findings.clone()) as Box<dyn Write + Send>, "the simulator");
        let config = Arc::clone(&sensor.config);
        let clock = Clock::default();
        let pipeline = Pipeline::with_ledger(config, &sensor.rules, sensor.keys, clock, ledger, sink, None);
        let tables = Tables::new(&sensor.config, sensor.keys.fingerprint)?;
        let flags = |route: usize| tables.routes.get(&u32::try_from(route).ok()?).map(|route| route.flags);
        let flags = (0..ROUTES_MAX).map(|route| flags(route).unwrap_or(0)).collect();
        Ok(Self { pipeline, encoder: Encoder::default(), flags, since: 0, watch: None })
    }

    /// The pipeline.
    pub fn pipeline(&mut self) -> &mut Pipeline {
        &mut self.pipeline
    }
}

fn mapped(client: u32) -> [u8; 16] {
    let [a, b, c, d] = client.to_be_bytes();
    [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d]
}

/// A credential that was handed out just before the start.
pub fn issued_before(held: &Held<'_>) -> Issuance {
    Issuance {
        service: ServiceId(0),
        fingerprint: Fingerprint(held.fingerprint),
        place: held.place,
        index: held.index,
        at: Instant { monotonic_ns: START_NS - SECOND, unix_ns: START_NS - SECOND },
        account: None,
        expires: None,
        inherits: None,
        binds: false,
    }
}

impl Feed for PipelineFeed {
    fn act(&mut self, act: &Act<'_>) -> Result<(), Failed> {
        let flags = self.flags.get(act.route as usize).copied().unwrap_or(0);
        let (mut shown, mut handed) = ([Shown::default(); HELD_MAX], [Shown::default(); HELD_MAX]);
        shown.iter_mut().zip(act.shown).for_each(|(to, from)| *to = from.shown());
        handed.iter_mut().zip(act.handed).for_each(|(to, from)| *to = from.shown());
        let answer = (act.status != 0).then(|| Answer {
            at_ns: act.at_ns,
            status: act.status,
            bytes: Some(act.bytes),
            handed: handed.get(..act.handed.len()).unwrap_or(&handed),
            body: (flags & route_flag::TEE_RESPONSE != 0 && act.bytes > 0).then_some(act.response),
            ..Answer::default()
        });
        let exchange = Exchange {
            at_ns: act.at_ns,
            service: 0,
            client: mapped(act.client),
            method: if act.line.starts_with(b"G") { method::GET } else { method::POST },
            line: act.line,
            host: b"shop.example",
            anomalies: 0,
            shown: shown.get(..act.shown.len()).unwrap_or(&shown),
            body: (flags & route_flag::TEE_REQUEST != 0 && !act.request.is_empty()).then_some(act.request),
            answer,
        };
        if let Some(watch) = &mut self.watch {
            watch.see(act);
        }
        if !self.pipeline.whole(&exchange) {
            let pipeline = &mut self.pipeline;
            host::each(self.encoder.encode(&exchange), |record| pipeline.record(record));
        }
        self.since += 1;
        if self.since >= BATCH {
            self.since = 0;
            // All that comes later has a later time, or the same and stands behind it.
            self.pipeline.advance(act.at_ns)?;
        }
        Ok(())
    }

    fn held_before(&mut self, held: &Held<'_>) -> Result<(), Failed> {
        self.pipeline.ledger().issue(issued_before(held));
        Ok(())
    }

    fn lost(&mut self, from_ns: u64, to_ns: u64, records: u64) -> Result<(), Failed> {
        self.pipeline.advance(from_ns)?;
        self.pipeline.lost(from_ns, to_ns, records);
        Ok(())
    }

    fn restart(&mut self, from_ns: u64, to_ns: u64, records: u64) -> Result<(), Failed> {
        // The state outlives the process; what came meanwhile is a gap of known size.
        self.lost(from_ns, to_ns, records)
    }

    fn finish(&mut self, at_ns: u64) -> Result<(), Failed> {
        self.pipeline.advance(at_ns)?;
        Ok(self.pipeline.finish()?)
    }
}

/// A trace.
pub struct TraceFeed {
    out: BufWriter<File>,
    text: String,
    credentials: Vec<String>,
}

impl TraceFeed {
    /// Writes to the file at `path`.
    pub fn new(path: &Path) -> Result<Self, Failed> {
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, File::create(path)?),
            text: String::new(),
            credentials: Vec::new(),
        })
    }
}

const COOKIES: [&str; 3] = ["SESSION", "ROLL", "TOKEN"];

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

impl Feed for TraceFeed {
    fn act(&mut self, act: &Act<'_>) -> Result<(), Failed> {
        self.credentials.clear();
        for held in act.shown.iter().chain(act.handed) {
            let mut raw = Vec::new();
            held.write(&mut raw);
            self.credentials.push(String::from_utf8(raw)?);
        }
        let value = |index: usize| self.credentials.get(index).map(|text| Text::from(text.as_str()));
        let mut credentials = Credentials::default();
        for (index, held) in act.shown.iter().enumerate() {
            match held.place {
                place::AUTHORIZATION => credentials.bearer = value(index),
                place::COOKIE => {
                    let name = COOKIES.get(usize::from(held.index)).copied().unwrap_or_default();
                    credentials.cookies.push((Text::from(name), value(index)));
                }
                _ => credentials.headers.push((Text::from("X-Api-Key"), value(index))),
            }
        }
        let handed = act.handed.iter().enumerate().map(|(index, held)| {
            let name = COOKIES.get(usize::from(held.index)).copied().unwrap_or_default();
            (Text::from(name), value(act.shown.len() + index))
        });
        let mut words = text(act.line).split(' ');
        let client = std::net::Ipv4Addr::from(act.client).to_string();
        let line = Line {
            t: Some((act.at_ns / 1000) as f64 / 1e6),
            client: Some(Text::from(client.as_str())),
            service: Some(Text::from("storefront")),
            method: words.next().map(Text::from),
            path: words.next().map(Text::from),
            host: Some(Text::from("shop.example")),
            status: (act.status != 0).then_some(act.status),
            bytes: (act.status != 0).then_some(act.bytes),
            credentials,
            set_cookies: handed.collect(),
            ..Line::default()
        };
        let (request_json, response_json) = (bodies(act.request)?, bodies(act.response)?);
        let line = Line { request_json: request_json.as_deref(), response_json: response_json.as_deref(), ..line };
        self.text.clear();
        write_line(&line, &mut self.text);
        Ok(self.out.write_all(self.text.as_bytes())?)
    }

    /// A trace says it by a login of the day before.
    fn held_before(&mut self, held: &Held<'_>) -> Result<(), Failed> {
        let mut response = b"{\"result\":\"ok\"".to_vec();
        put_credential(&mut response, "refresh_token", &held.secret);
        response.push(b'}');
        let line = b"POST /login HTTP/1.1";
        let (at_ns, client, route) = (START_NS - SECOND, 0xc000_02ff, Route::Login);
        let bytes = response.len() as u64;
        let (shown, handed, request) = (&[][..], &[][..], &b"{\"login\":0}"[..]);
        let attack = false;
        self.act(&Act {
            at_ns,
            client,
            route,
            line,
            shown,
            status: 200,
            bytes,
            handed,
            request,
            response: &response,
            attack,
        })
    }

    fn lost(&mut self, _: u64, _: u64, _: u64) -> Result<(), Failed> {
        Ok(())
    }

    fn restart(&mut self, _: u64, _: u64, _: u64) -> Result<(), Failed> {
        Ok(())
    }

    fn finish(&mut self, _: u64) -> Result<(), Failed> {
        Ok(self.out.flush()?)
    }
}

fn bodies(body: &[u8]) -> Result<Option<Box<serde_json::value::RawValue>>, Failed> {
    if body.is_empty() {
        return Ok(None);
    }
    Ok(Some(serde_json::from_slice(body)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_are_those_of_the_configuration() {
        let sensor = Sensor::read(&crate::shipped(), None).unwrap_or_else(|error| panic!("{error}"));
        let templates: Vec<&str> =
            sensor.config.services[0].routes.iter().map(|route| route.template.as_str()).collect();
        assert_eq!(templates, TEMPLATES);
        assert_eq!(Route::MovedLogin as usize, TEMPLATES.len());
    }

    #[test]
    fn issuers_are_configured_for_tokens_that_live_as_long_as_the_scenario_says() {
        let of = |members: &Scenario| {
            let sensor = Sensor::read(&crate::shipped(), None).unwrap_or_else(|error| panic!("{error}"));
            let config = sensor.operated_for(members).config;
            let hours = |name: &str| {
                let issuer = config.services[0].issuers.iter().find(|issuer| issuer.name == name).unwrap();
                issuer.max_lifetime.as_secs() / 3600
            };
            ["access-token", "refresh-token", "sister", "internal", "session"].map(hours)
        };
        assert_eq!(of(&Scenario::default()), [12, 720, 12, 12, 12], "as the file says");
        let long = Scenario { token_lifetime_s: 86_400.0, refresh_lifetime_s: 7_776_000.0, ..Scenario::default() };
        assert_eq!(of(&long), [24, 2160, 24, 24, 12]);
    }
}
