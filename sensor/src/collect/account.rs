//! Whose data a request reads, what else its target names, and whether that is the credential's own.

use ahash::AHashSet;
use sensor_ebpf::wire::{anomaly, place};

use super::Collector;
use super::decode::Head;
use super::exchange::presented;
use super::pending::{Judged, Pending};
use super::routes::Taken;
use super::target::{Path, Target, parameter, percent_decode};
use crate::config::model::{AccountSource, Config, Route};
use crate::ledger::Ledger;
use crate::observation::{AccountHash, Relation, ServiceId, claim_anomaly};

/// Longest text in front of a number that is still the fixed beginning of an identifier, such as `M` in `M000123`, bytes.
const PREFIX_MAX: usize = 16;

/// What a request's target and judged credential name.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reading {
    /// Whose data is read: by the first of the route's sources that yields.
    pub account: Option<AccountHash>,
    /// The account by path or query alone.
    pub target_account: Option<AccountHash>,
    /// `account` is what the judged credential, or its login, says.
    own: bool,
    /// What the target names beside the account.
    pub object: Option<AccountHash>,
    /// Its number, or else the account's.
    pub target_id: Option<u64>,
    /// The account is a decoy.
    pub canary: bool,
}

/// The decoy accounts of every service.
#[derive(Debug)]
pub(super) struct Canaries {
    services: Vec<AHashSet<AccountHash>>,
}

impl Canaries {
    pub fn new(config: &Config, ledger: &Ledger) -> Self {
        let hashed = |ids: &[String]| ids.iter().map(|id| ledger.hash_account(id.as_bytes())).collect();
        Self { services: config.services.iter().map(|service| hashed(&service.canaries.0)).collect() }
    }

    /// True when `account` is a decoy of `service`.
    pub fn has(&self, service: ServiceId, account: Option<AccountHash>) -> bool {
        let of_service = self.services.get(usize::from(service.0)).filter(|decoys| !decoys.is_empty());
        of_service.zip(account).is_some_and(|(decoys, account)| decoys.contains(&account))
    }
}

impl Collector {
    /// Fills in what `pending` reads, once its credentials are judged.
    pub(super) fn find_account(
        &mut self,
        pending: &mut Pending,
        route: &Route,
        taken: Taken,
        head: &Head<'_>,
        target: &Target<'_>,
    ) {
        let path = self.readings.path(taken);
        let mut reading = Reading::default();
        let mut number = None;
        let worst = pending.worst().copied();
        for source in &route.account {
            if matches!(source, AccountSource::Path(_) | AccountSource::Query(_)) {
                if reading.target_account.is_none()
                    && let Some(text) = named(source, target, path, &mut self.scratch)
                {
                    reading.target_account = Some(self.ledger.hash_account(text));
                    number = decimal(text);
                    reading.account = reading.account.or(reading.target_account);
                }
            } else if reading.account.is_none()
                && let Some(worst) = &worst
            {
                reading.account = match source {
                    AccountSource::Claim(name) if name == "sub" => worst.verdict.claims.sub,
                    AccountSource::Claim(name) => {
                        self.ledger.claim_account(&presented(pending.service, head, &worst.credential, false), name)
                    }
                    AccountSource::Issuance => worst.verdict.account,
                    _ => fingerprint(worst),
                };
                reading.own = reading.account.is_some() && !matches!(source, AccountSource::Fingerprint);
            }
        }
        if let Some(source) = &route.object
            && let Some(text) = named(source, target, path, &mut self.scratch)
        {
            reading.object = Some(self.ledger.hash_account(text));
            number = decimal(text).or(number);
        }
        reading.target_id = number;
        reading.canary = self.canaries.has(pending.service, reading.target_account)
            || self.canaries.has(pending.service, reading.account);
        pending.reading = reading;
    }
}

/// The text, percent-decoded, of a path segment or query parameter; never empty.
fn named<'s>(source: &AccountSource, target: &Target<'_>, path: &Path, scratch: &'s mut Vec<u8>) -> Option<&'s [u8]> {
    let (text, form) = match source {
        AccountSource::Path(index) => (path.get(*index)?, false),
        AccountSource::Query(name) => (parameter(target.query?, name)?, true),
        AccountSource::Claim(_) | AccountSource::Issuance | AccountSource::Fingerprint => return None,
    };
    scratch.clear();
    percent_decode(text, form, scratch);
    if scratch.is_empty() { None } else { Some(scratch) }
}

/// The number that an identifier is or ends with: digits alone, or behind a beginning without digits.
fn decimal(text: &[u8]) -> Option<u64> {
    let prefix = text.iter().take(PREFIX_MAX + 1).take_while(|byte| !byte.is_ascii_digit()).count();
    let digits = text.get(prefix..).filter(|digits| !digits.is_empty() && prefix <= PREFIX_MAX)?;
    digits.iter().try_fold(0u64, |number, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// The credential itself as an account.
fn fingerprint(judged: &Judged) -> Option<AccountHash> {
    let stands = judged.credential.place != place::BODY && judged.verdict.stable;
    stands.then_some(AccountHash(judged.credential.fingerprint))
}

/// Whose a credential is, by all that is known: what it says, what its login said.
fn subjects(judged: &Judged) -> [Option<AccountHash>; 2] {
    [judged.verdict.subject, judged.verdict.account]
}

/// Whether what is read is the judged credential's own.
pub(super) fn relation(reading: &Reading, judged: Option<&Judged>) -> Relation {
    let Some(account) = reading.target_account else {
        return if reading.own { Relation::Own } else { Relation::Unknown };
    };
    let known = judged.map(subjects).unwrap_or_default();
    if known.contains(&Some(account)) {
        Relation::Own
    } else if known.iter().any(Option::is_some) {
        Relation::Foreign
    } else {
        Relation::Unknown
    }
}

/// [`claim_anomaly::SUBJECTS_DIFFER`] if two credentials that the route may authenticate with name different subjects.
/// Credentials of two versions of a request were not sent together.
pub(super) fn subjects_differ(pending: &Pending) -> u16 {
    let known = |judged: &&Judged| judged.counts && subjects(judged).iter().any(Option::is_some);
    let mut credentials = pending.credentials.iter().filter(known).map(subjects);
    let Some(first) = credentials.next().filter(|_| pending.anomalies & anomaly::CONFLICT == 0) else { return 0 };
    let same = |other: [Option<AccountHash>; 2]| other.iter().flatten().any(|one| first.contains(&Some(*one)));
    if credentials.all(same) { 0 } else { claim_anomaly::SUBJECTS_DIFFER }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_identifiers() {
        for (text, number) in [
            ("17", Some(17)),
            ("M000123", Some(123)),
            ("user-17", Some(17)),
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("99999999999999999999999", None),
            ("", None),
            ("me", None),
            ("17a", None),
            ("a1b2", None),
            ("3f2504e0-4f89-11d3-9a0c-0305e82c3301", None),
            ("abcdefghijklmnop1", Some(1)),
            ("abcdefghijklmnopq1", None),
            ("-5", Some(5)),
            ("1.5", None),
        ] {
            assert_eq!(decimal(text.as_bytes()), number, "{text}");
        }
    }
}
