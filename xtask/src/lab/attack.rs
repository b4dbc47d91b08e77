//! The attacker of 2025: holds the signing key, forges one token per member number, and reads address pages one
//! after the other from many sources, a few requests each.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::client::{Connection, Cut};
use super::error::{LabError, Result};
use super::interrupt;
use super::store::{self, Page};
use super::tally::Shared;
use super::token::Key;
use super::world::{Namespace, source};

/// First source number of the attacker: none of the members'.
const FIRST_SOURCE: u16 = 62_000;

/// A forged-token read of many accounts.
pub struct Attack<'a> {
    /// Where it comes from.
    pub clients: &'a Namespace,
    /// Counts and credentials.
    pub shared: &'a Shared,
    /// The stolen key.
    pub key: &'a Key,
    /// Member numbers, in the order of the walk; some have left.
    pub targets: Vec<u64>,
    /// Source addresses.
    pub sources: u16,
    /// Time between two requests.
    pub interval: Duration,
}

impl Attack<'_> {
    /// Carries it out. Run it on a thread of its own: it moves into the clients' namespace.
    pub fn carry_out(&self) -> Result<()> {
        self.clients.enter()?;
        let begin = Instant::now();
        for (number, target) in (0_u32..).zip(&self.targets) {
            interrupt::sleep((self.interval * number).saturating_sub(begin.elapsed()))?;
            if self.shared.stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            self.read(number, *target)?;
        }
        Ok(())
    }

    fn read(&self, number: u32, target: u64) -> Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let token = self.key.sign(target, now, &format!("t{:08x}", 0x1000_0000 + number));
        self.shared.wallet().tokens.insert(token.clone());
        let (path, source) = (Page::Addresses.path(target), self.source(number));
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: store.example\r\nUser-Agent: Mozilla/5.0 (lab)\r\nAccept: application/json\r\n\
             Authorization: Bearer {token}\r\n\r\n"
        );
        self.shared.attack_began.get_or_init(Instant::now);
        let mut connection = Connection::open(source)?;
        connection.send(head.as_bytes(), Cut::Whole)?;
        let answer = connection.receive(false)?;
        let status = answer.status().unwrap_or_default();
        let content_type = answer.field("content-type").unwrap_or_default();
        self.shared.count("GET", &path, status, content_type);
        Shared::bump(&self.shared.forged_requests);
        match (status, store::exists(target)) {
            (200, true) if content_type.starts_with("application/json") => {
                Shared::bump(&self.shared.forged_accounts);
                Ok(())
            }
            (404, false) => Ok(()),
            _ => Err(LabError::Http(format!("a forged token was answered {:?}: the hole is not there", answer.line))),
        }
    }

    /// Sources take turns, so that each makes few requests; one in eight comes over IPv6.
    fn source(&self, number: u32) -> IpAddr {
        let turn = u16::try_from(number % u32::from(self.sources.max(1))).unwrap_or_default();
        source(FIRST_SOURCE + turn, turn % 8 == 7)
    }
}
