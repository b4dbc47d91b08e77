//! Whose data a request reads: the route's sources, in order.

use sensor_ebpf::wire::place;

use super::pending::Judged;
use super::target::{Path, Target, parameter, percent_decode};
use crate::config::model::AccountSource;
use crate::ledger::{Ledger, Presented};
use crate::observation::AccountHash;

/// The account that the target names (path segment or query parameter), if one of the `sources` finds one there.
pub(super) fn from_target(
    sources: &[AccountSource],
    target: &Target<'_>,
    path: &Path,
    scratch: &mut Vec<u8>,
    ledger: &Ledger,
) -> Option<AccountHash> {
    sources.iter().find_map(|source| one_from_target(source, target, path, scratch, ledger))
}

fn one_from_target(
    source: &AccountSource,
    target: &Target<'_>,
    path: &Path,
    scratch: &mut Vec<u8>,
    ledger: &Ledger,
) -> Option<AccountHash> {
    let (text, form) = match source {
        AccountSource::Path(index) => (path.get(*index)?, false),
        AccountSource::Query(name) => (parameter(target.query?, name)?, true),
        AccountSource::Claim(_) | AccountSource::Issuance | AccountSource::Fingerprint => return None,
    };
    scratch.clear();
    percent_decode(text, form, scratch);
    if scratch.is_empty() { None } else { Some(ledger.hash_account(scratch)) }
}

/// The account of a request: the first of `sources` that yields. `judged` is the credential the observation carries,
/// `presented` the same as the ledger takes it.
pub(super) fn find(
    sources: &[AccountSource],
    target: &Target<'_>,
    path: &Path,
    judged: Option<(&Judged, &Presented<'_>)>,
    scratch: &mut Vec<u8>,
    ledger: &mut Ledger,
) -> Option<AccountHash> {
    sources.iter().find_map(|source| match source {
        AccountSource::Path(_) | AccountSource::Query(_) => one_from_target(source, target, path, scratch, ledger),
        AccountSource::Claim(name) => ledger.claim_account(judged?.1, name),
        AccountSource::Issuance => judged?.0.verdict.account,
        AccountSource::Fingerprint => {
            let credential = &judged?.0.credential;
            let stands = credential.place != place::BODY && judged?.0.verdict.stable;
            stands.then_some(AccountHash(credential.fingerprint))
        }
    })
}
