//! Issuances that an issuer tells of itself, because they do not pass the sensor.
//!
//! They flow in through [`Ledger::told`]. Who told is known and limited to its own issuers
//! ([`crate::push`]); what is told is still only taken for that issuer's credentials: a use whose own claims name
//! another issuer is judged as if nothing had been told.
//!
//! **Late ones.** A credential may be used before its issuance is told. Uses that were judged stay as they were judged;
//! later ones are issued. This is no echo, unless the first use is older than the stated time of issue by more than
//! the clock leeway: then the source told of something that it saw, not of something that it made. An attacker
//! gains nothing by the leeway. The echo rule stands against a *server's response* that shows what an attacker sent;
//! a source is no response: it speaks with its own key, and it is to speak where it makes credentials. One that speaks
//! wherever it sees them could be shown a forged token before the first use anywhere, which the sensor could not see
//! whatever it made of the order. How far a source may date back is bounded before ([`crate::push`]), so a stolen
//! source key excuses the last minutes of what its own issuer's keys signed, and nothing else.
//!
//! **What the sensor saw itself stands.** A credential that a refresh handed out in front of the sensor keeps what it
//! inherited: else a forged refresh token would be made good by its issuer, which tells of the token it gave for it.

use super::facts::Facts;
use super::issue::kept_until;
use super::issuers::{Issuer, Issuers};
use super::stats::LedgerStats;
use super::store::{Amendment, Answer, Issue, Key};
use super::unknown::Sighted;
use super::{Issued, Ledger, Presented};
use crate::observation::{AccountHash, Fingerprint, Instant, IssuerId, Provenance, ServiceId};

/// An issuance as its issuer tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// The service.
    pub service: ServiceId,
    /// Who handed it out.
    pub issuer: IssuerId,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// When, by what the issuer says.
    pub at: Instant,
    /// End of its life, monotonic ns, if the issuer says so; else, and at most, the issuer's longest lifetime.
    pub expires: Option<u64>,
    /// Whose it is, if the issuer says so.
    pub account: Option<AccountHash>,
    /// The credential that it was exchanged for; none: a login.
    pub parent: Option<Fingerprint>,
}

impl Ledger {
    /// Records an issuance that its issuer tells of, at `now`. Telling it twice changes nothing.
    pub fn told(&mut self, told: &Told, now: Instant) -> Issued {
        self.tidy(now);
        let Some(issuer) = self.issuers.get(told.service, told.issuer) else { return Issued::Full };
        let longest = told.at.monotonic_ns.saturating_add(issuer.lifetime);
        let expires = told.expires.map_or(longest, |expires| expires.min(longest));
        let expires = expires.saturating_add(self.horizon.leeway.monotonic);
        let row = issuer.row;
        let key = Key { service: told.service, fingerprint: told.fingerprint };
        let id = self.store.id(&key);
        if let Some(entry) = self.store.find(&key, now.monotonic_ns) {
            if entry.provenance == Provenance::Issued {
                let expires = (!entry.ended).then_some(expires);
                let account = told.account.filter(|_| entry.account.is_none());
                self.store.amend(&key, &Amendment { account, expires, ..Amendment::default() }, now);
            }
            self.counts.known += 1;
            return Issued::Known;
        }
        let used = self.seen.peek(&id).copied();
        let leeway = self.horizon.leeway.monotonic;
        if used.is_some_and(|used| used.first.saturating_add(leeway) < told.at.monotonic_ns) {
            // As in `issue_new`: the doubt about an evicted issuance lasts as long as its new life.
            self.evicted.prolong(id, kept_until(expires), now.monotonic_ns);
            self.counts.echoes += 1;
            return Issued::Echo;
        }
        let provenance = told.parent.map_or(Provenance::Issued, |parent| self.passes_on(told.service, parent, now));
        let issuer = Some(told.issuer);
        let issue = Issue { provenance, account: told.account, issuer, expires, used: used.is_some() };
        if !self.keep(&key, &issue, now) {
            return Issued::Full;
        }
        let handed_out = provenance == Provenance::Issued;
        if let Some(window) = self.windows.get_mut(row).filter(|_| handed_out) {
            match used.map(|used| used.sighted) {
                Some(Sighted::Not) => window.count(now, |sight| sight.seen += 1),
                Some(Sighted::Unseen) => window.correct(now),
                Some(Sighted::Otherwise) | None => {}
            }
        }
        if told.parent.is_some() {
            self.counts.inherited += 1;
            Issued::Inherited(provenance)
        } else {
            self.counts.added += 1;
            Issued::Added
        }
    }

    /// What an exchanged credential passes on. One that is not in the ledger passes on doubt: it may be forged, or older
    /// than the horizon.
    fn passes_on(&self, service: ServiceId, parent: Fingerprint, now: Instant) -> Provenance {
        let entry = self.store.find(&Key { service, fingerprint: parent }, now.monotonic_ns);
        entry.map_or(Provenance::Unverifiable, |entry| entry.provenance)
    }
}

/// What the store says of a presented credential, unless an issuer told of it whose it cannot be: nothing, then. Where
/// that does not show, doubt.
pub(super) fn of_its_issuer(
    answer: Answer,
    issuers: &Issuers,
    found: Option<&Issuer>,
    presented: &Presented<'_>,
    facts: &Facts,
    counts: &mut LedgerStats,
) -> Answer {
    let Answer::Known(entry) = &answer else { return answer };
    let Some(teller) = entry.issuer.and_then(|id| issuers.get(presented.service, id)) else { return answer };
    match teller.handed_out(presented, facts, found) {
        Some(true) => answer,
        Some(false) => {
            counts.told_by_another += 1;
            Answer::Unknown
        }
        None => {
            counts.told_by_another += 1;
            Answer::NotYetKnown
        }
    }
}
