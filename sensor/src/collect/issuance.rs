//! What responses do to credentials: logins issue, refreshes and renewals pass on, logouts revoke.
//!
//! Works on one exchange (judged request and response head, with or without the body) and tells the ledger. What is
//! known to have been issued but cannot be read becomes a gap: doubt, never a false `unissued`.

use sensor_ebpf::siphash;
use sensor_ebpf::wire::{anomaly, credential_flag, place, scheme};

use super::counts::IssuanceCounts;
use super::decode::Head;
use super::outcome;
use super::pending::{Judged, weighed};
use super::place_of;
use super::secret::SecretBuf;
use super::text::{body_text, canonical, json_text, jwt_shape};
use crate::config::model::{IssuanceRule, IssueSource, PresentSource, Route, Service};
use crate::ledger::{Issuance, Issued, Ledger, Presented};
use crate::observation::{AccountHash, Fingerprint, Instant, Provenance, RouteClass, ServiceId, claim_anomaly};

/// One exchange.
#[derive(Clone, Copy)]
pub(super) struct Exchange<'a> {
    pub service: ServiceId,
    pub config: &'a Service,
    pub route: Option<&'a Route>,
    pub class: RouteClass,
    /// The request's credentials, those of its body included.
    pub credentials: &'a [Judged],
    /// Some credential of the request may be missing.
    pub doubtful: bool,
    /// The server may have read another request than the one that was judged.
    pub uncertain: bool,
    pub target_account: Option<AccountHash>,
    /// The response.
    pub head: &'a Head<'a>,
    /// When what is applied happened.
    pub at: Instant,
}

/// Whether an issuing route did what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Success {
    Yes,
    No,
    /// The body decides and is not (yet) readable.
    Unknown,
}

/// True when the response body decides over the success, so that nothing is issued before it. (One that only names the
/// account does not: what the head hands out can be used at once, and its account is added later.)
fn waits_for_body(rule: &IssuanceRule) -> bool {
    rule.success.json.is_some()
}

/// The credential that `text` of a body is.
fn in_body(key: siphash::Key, service: ServiceId, text: &[u8]) -> Presented<'_> {
    let (flags, claims) = jwt_shape(text);
    let fingerprint = Fingerprint(siphash::hash128(key, text));
    Presented { service, place: place::BODY, index: 0, scheme: scheme::BARE, fingerprint, flags, claims, spends: true }
}

/// Applies exchanges to the ledger.
pub(super) struct Applier<'a> {
    pub ledger: &'a mut Ledger,
    pub counts: &'a mut IssuanceCounts,
    pub fingerprint_key: siphash::Key,
    pub scratch: &'a mut SecretBuf,
    /// Credentials that became issued.
    pub issued: u8,
    /// Credentials that a login handed out, or that were given for such.
    pub handed: u64,
    /// The account that a login's response names.
    pub said: Option<AccountHash>,
}

impl Exchange<'_> {
    fn rule(&self) -> Option<&IssuanceRule> {
        self.route?.issuance.as_ref()
    }

    /// A login's issuance of a credential that stands at a place, one of [`place`], and of no named account.
    const fn issuance(&self, place: u8, index: u8, fingerprint: Fingerprint) -> Issuance {
        let (service, at) = (self.service, self.at);
        Issuance { service, fingerprint, place, index, at, account: None, expires: None, inherits: None, binds: false }
    }

    /// Success as far as the head tells; `None` for routes that issue and revoke nothing.
    pub fn head_success(&self) -> Option<Success> {
        if !matches!(self.class, RouteClass::Login | RouteClass::Refresh | RouteClass::Logout) {
            return None;
        }
        let Some(rule) = self.rule() else {
            let plain = outcome::head_succeeds(&crate::config::model::Success::default(), self.head, self.at);
            return (self.class == RouteClass::Logout).then_some(if plain { Success::Yes } else { Success::No });
        };
        Some(if !outcome::head_succeeds(&rule.success, self.head, self.at) {
            Success::No
        } else if rule.success.json.is_some() {
            Success::Unknown
        } else {
            Success::Yes
        })
    }

    /// True when the body is needed to apply this exchange.
    pub fn needs_body(&self) -> bool {
        !matches!(self.head_success(), None | Some(Success::No))
            && self.rule().is_some_and(IssuanceRule::reads_response)
    }

    /// True when all that is doubtful about the exchange are credentials within the budget of a gap or a silent source.
    fn doubt_is_excused(&self) -> bool {
        let doubted = || self.credentials.iter().filter(|one| one.verdict.provenance == Provenance::Unverifiable);
        let excused = |one: &Judged| one.verdict.anomalies & claim_anomaly::EXCUSED != 0;
        !self.doubtful && !self.uncertain && doubted().next().is_some() && doubted().all(excused)
    }

    fn sets(&self, wanted: u8, index: u8) -> impl Iterator<Item = Fingerprint> {
        let found = self.head.handed_out(self.at).filter(move |one| one.place == wanted && one.index == index);
        found.map(|one| Fingerprint(one.fingerprint))
    }
}

impl Applier<'_> {
    /// Applies what the response head decides alone.
    pub fn at_head(&mut self, exchange: &Exchange<'_>) {
        let (all, kept) = (exchange.head.credentials().count(), exchange.head.handed_out(exchange.at).count());
        self.counts.deleted += all.saturating_sub(kept) as u64;
        let success = exchange.head_success();
        if success == Some(Success::Unknown) {
            return;
        }
        self.renew(exchange, success);
        if success == Some(Success::No) {
            self.doubt_unread_head(exchange);
        }
        if success != Some(Success::Yes) {
            return;
        }
        if exchange.class == RouteClass::Logout {
            self.revoke(exchange);
        } else if let Some(rule) = exchange.rule().filter(|rule| !waits_for_body(rule)) {
            self.issue_from_head(exchange, rule, None);
            self.spoke(exchange);
        }
    }

    /// Applies what needed the body; only when [`Exchange::needs_body`]. `None`: it is lost. Gives the final success.
    pub fn at_body(&mut self, exchange: &Exchange<'_>, body: Option<&[u8]>) -> Success {
        let Some(rule) = exchange.rule() else { return Success::No };
        let head = exchange.head_success().unwrap_or(Success::No);
        let success = match (&rule.success.json, body) {
            (None, _) => head,
            (Some(_), None) => Success::Unknown,
            (Some((pointer, want)), Some(body)) if outcome::json_is(body, pointer, want) => Success::Yes,
            (Some(_), Some(_)) => Success::No,
        };
        if head == Success::Unknown {
            self.renew(exchange, Some(success));
        }
        match success {
            Success::No => return success,
            Success::Unknown => {
                self.lose(exchange, rule.issues.len().max(1));
                return success;
            }
            Success::Yes => {}
        }
        if exchange.class == RouteClass::Logout {
            if head == Success::Unknown {
                self.revoke(exchange);
            }
            return success;
        }
        let account =
            rule.account_pointer.as_ref().zip(body).and_then(|(pointer, body)| self.account_in(body, pointer));
        self.said = account;
        if waits_for_body(rule) || account.is_some() {
            self.issue_from_head(exchange, rule, account);
        }
        self.issue_from_body(exchange, rule, body, account);
        let by_head = rule.issues.iter().any(|source| !matches!(source, IssueSource::Json(_)));
        if waits_for_body(rule) || !by_head {
            self.spoke(exchange);
        }
        success
    }

    /// Tells the ledger, once an exchange, that a source of issuances is not silent.
    fn spoke(&mut self, exchange: &Exchange<'_>) {
        let number =
            exchange.route.and_then(|route| exchange.config.routes.iter().position(|one| std::ptr::eq(one, route)));
        if let Some(number) = number.filter(|_| self.handed > 0) {
            self.ledger.spoke(exchange.service, number, self.handed, exchange.at);
        }
    }

    /// Fingerprints, judges and returns the credentials that a request body presents.
    pub fn judge_request_body(
        &mut self,
        service: ServiceId,
        rule: &IssuanceRule,
        body: &[u8],
        at: Instant,
        mut found: impl FnMut(Judged),
    ) {
        for source in &rule.presents {
            self.scratch.wipe();
            let read = body_text(source, body, self.scratch);
            let text = canonical(self.scratch.as_slice());
            if !read || text.is_empty() {
                continue;
            }
            let presented = in_body(self.fingerprint_key, service, text);
            let verdict = self.ledger.judge(&presented, at);
            let credential = sensor_ebpf::wire::Credential {
                fingerprint: presented.fingerprint.0,
                len: u32::try_from(text.len()).unwrap_or(u32::MAX),
                place: presented.place,
                flags: presented.flags & !credential_flag::CLAIMS,
                ..Default::default()
            };
            found(Judged { credential, verdict, counts: true });
        }
        self.scratch.wipe();
    }

    /// The account that a request body names at the first of `sources` that yields.
    pub fn account_of(&mut self, sources: &[PresentSource], body: &[u8]) -> Option<AccountHash> {
        let account = sources.iter().find_map(|source| {
            self.scratch.wipe();
            let read = body_text(source, body, self.scratch);
            let text = self.scratch.as_slice().trim_ascii();
            (read && !text.is_empty()).then(|| self.ledger.hash_account(text))
        });
        self.scratch.wipe();
        account
    }

    fn issue_from_head(&mut self, exchange: &Exchange<'_>, rule: &IssuanceRule, account: Option<AccountHash>) {
        let (inherits, account) = Self::lineage(exchange, rule, account);
        let mut missing = 0;
        for source in &rule.issues {
            let (wanted, index) = match source {
                IssueSource::SetCookie(index) => (place::SET_COOKIE, *index),
                IssueSource::Header(index) => (place::RESPONSE_HEADER, *index),
                IssueSource::Json(_) => continue,
            };
            let mut any = false;
            for fingerprint in exchange.sets(wanted, index) {
                any = true;
                self.issue(exchange, Issuance { account, inherits, ..exchange.issuance(wanted, index, fingerprint) });
            }
            missing += usize::from(!any);
        }
        if missing > 0 {
            self.counts.missing += missing as u64;
            if incomplete(exchange.head) {
                self.lose(exchange, missing);
            }
        }
        if exchange.class == RouteClass::Login {
            self.bind(exchange, rule, (inherits, account));
        }
    }

    /// Presented credentials that a login makes good. Not one that carries its own claims: no server can change what such
    /// a credential says, and whoever forges one would only have to show it at his own login. Nor one that the answer
    /// replaces.
    fn bind(
        &mut self,
        exchange: &Exchange<'_>,
        rule: &IssuanceRule,
        (inherits, account): (Option<Provenance>, Option<AccountHash>),
    ) {
        for judged in exchange.credentials.iter().filter(|one| !one.verdict.self_contained) {
            let credential = &judged.credential;
            let (place, index) = (credential.place, credential.index);
            let fingerprint = Fingerprint(credential.fingerprint);
            let bound = place_of(credential).is_some_and(|place| rule.binds.contains(&place));
            let replaced =
                place == place::COOKIE && exchange.sets(place::SET_COOKIE, index).any(|set| set != fingerprint);
            if bound && !replaced {
                let issuance = exchange.issuance(place, index, fingerprint);
                self.issue(exchange, Issuance { account, inherits, binds: true, ..issuance });
            }
        }
    }

    fn issue_from_body(
        &mut self,
        exchange: &Exchange<'_>,
        rule: &IssuanceRule,
        body: Option<&[u8]>,
        account: Option<AccountHash>,
    ) {
        let (inherits, account) = Self::lineage(exchange, rule, account);
        let mut lost = 0;
        for source in &rule.issues {
            let IssueSource::Json(pointer) = source else { continue };
            let Some(body) = body else {
                lost += 1;
                continue;
            };
            self.scratch.wipe();
            let read = json_text(body, pointer, self.scratch);
            let text = canonical(self.scratch.as_slice());
            if read && !text.is_empty() {
                let handed = in_body(self.fingerprint_key, exchange.service, text);
                let expires = self.ledger.end_of(&handed, exchange.at);
                let issuance = exchange.issuance(handed.place, handed.index, handed.fingerprint);
                self.issue(exchange, Issuance { account, expires, inherits, ..issuance });
            } else {
                self.counts.missing += 1;
            }
        }
        self.scratch.wipe();
        if lost > 0 {
            self.lose(exchange, lost);
        }
    }

    /// What a child inherits (`None`: nothing, it is a login) and whose it is.
    fn lineage(
        exchange: &Exchange<'_>,
        rule: &IssuanceRule,
        account: Option<AccountHash>,
    ) -> (Option<Provenance>, Option<AccountHash>) {
        if exchange.class == RouteClass::Login {
            // An answer to another request is no login.
            let inherits = exchange.uncertain.then_some(Provenance::Unverifiable);
            return (inherits, account.or(exchange.target_account));
        }
        let presents = |judged: &&Judged| {
            if rule.presents.is_empty() {
                return judged.counts;
            }
            match place_of(&judged.credential) {
                Some(place) => rule.presents_at(place),
                None => judged.credential.place == place::BODY && rule.presents_in_body(),
            }
        };
        let presented = weighed(exchange.credentials.iter().filter(presents));
        let parent = presented.max_by_key(|one| one.verdict.provenance);
        // Without a parent in sight, or with one that may be missing, nothing good is passed on.
        let seen = parent.map_or(Provenance::Unverifiable, |parent| parent.verdict.provenance);
        let inherits = if exchange.doubtful { seen.max(Provenance::Unverifiable) } else { seen };
        let owner = account.or(parent.and_then(|parent| parent.verdict.account)).or(exchange.target_account);
        (Some(inherits), owner)
    }

    /// Cookies that any response may rewrite: the child inherits what the presented one had.
    fn renew(&mut self, exchange: &Exchange<'_>, success: Option<Success>) {
        if exchange.class == RouteClass::Logout {
            return;
        }
        for set in exchange.head.handed_out(exchange.at).filter(|one| one.place == place::SET_COOKIE) {
            let renews = exchange.config.issuers.iter().any(|issuer| issuer.renews.contains(&set.index));
            let issued = success == Some(Success::Yes)
                && exchange.rule().is_some_and(|rule| rule.issues.contains(&IssueSource::SetCookie(set.index)));
            if !renews || issued {
                continue;
            }
            let presented = || {
                let same = |one: &&Judged| one.credential.place == place::COOKIE && one.credential.index == set.index;
                exchange.credentials.iter().filter(same)
            };
            if presented().any(|one| one.credential.fingerprint == set.fingerprint) {
                continue;
            }
            match presented().max_by_key(|one| one.verdict.provenance) {
                Some(parent) => {
                    let doubt = if exchange.doubtful { Provenance::Unverifiable } else { Provenance::None };
                    let passed_on = self.charge(exchange, parent);
                    let inherits = Some(passed_on.max(doubt));
                    let issuance = exchange.issuance(set.place, set.index, Fingerprint(set.fingerprint));
                    self.issue(exchange, Issuance { account: parent.verdict.account, inherits, ..issuance });
                }
                None if exchange.doubtful => self.lose(exchange, 1),
                None => {}
            }
        }
    }

    /// What a renewed credential passes on. Doubt that excused it has to be paid for now, on whatever route it is renewed:
    /// what it is renewed to is in the ledger and pays no more. (An opaque one cannot be forged.)
    fn charge(&mut self, exchange: &Exchange<'_>, parent: &Judged) -> Provenance {
        let Judged { credential, verdict, .. } = parent;
        if !verdict.self_contained {
            return verdict.provenance;
        }
        self.ledger.charge(exchange.service, Fingerprint(credential.fingerprint), verdict, exchange.at)
    }

    /// A login whose response head is incomplete may have succeeded by what is missing.
    fn doubt_unread_head(&mut self, exchange: &Exchange<'_>) {
        let issues = exchange.rule().map_or(0, |rule| rule.issues.len());
        let status = exchange.head.fixed.status;
        if issues > 0 && incomplete(exchange.head) && (200..400).contains(&status) {
            self.lose(exchange, issues);
        }
    }

    fn revoke(&mut self, exchange: &Exchange<'_>) {
        // A logout that the server may never have read would turn a good credential bad.
        if exchange.uncertain {
            return;
        }
        for judged in exchange.credentials.iter().filter(|one| one.counts) {
            self.ledger.revoke(exchange.service, Fingerprint(judged.credential.fingerprint), exchange.at);
            self.counts.revoked += 1;
        }
    }

    fn issue(&mut self, exchange: &Exchange<'_>, issuance: Issuance) {
        let issued = self.ledger.issue(issuance);
        let counter = match issued {
            Issued::Added => {
                self.issued = self.issued.saturating_add(1);
                &mut self.counts.added
            }
            Issued::Echo => &mut self.counts.echo,
            Issued::Inherited(_) => &mut self.counts.inherited,
            Issued::Known => &mut self.counts.known,
            Issued::Full => &mut self.counts.full,
        };
        *counter += 1;
        if issued == Issued::Inherited(Provenance::Unverifiable) && exchange.doubt_is_excused() {
            self.ledger.pass_excuse(issuance.service, issuance.fingerprint);
        }
        if matches!(issued, Issued::Added | Issued::Known | Issued::Inherited(Provenance::Issued)) {
            self.handed = self.handed.saturating_add(1);
        }
    }

    /// Tells the ledger of `count` issuances that may have happened and could not be read. A logout hands nothing out, and
    /// what a forged credential was exchanged for is as bad as that: neither makes doubt for others to hide in.
    pub fn lose(&mut self, exchange: &Exchange<'_>, count: usize) {
        let forged = || exchange.rule().map(|rule| Self::lineage(exchange, rule, None).0);
        if exchange.class == RouteClass::Logout || forged() == Some(Some(Provenance::Unissued)) {
            return;
        }
        let count = count as u64;
        self.counts.lost += count;
        self.ledger.gap(exchange.service, exchange.at, exchange.at, count);
    }

    fn account_in(&mut self, body: &[u8], pointer: &str) -> Option<AccountHash> {
        self.scratch.wipe();
        let read = json_text(body, pointer, self.scratch) && self.scratch.len() > 0;
        let account = read.then(|| self.ledger.hash_account(self.scratch.as_slice()));
        self.scratch.wipe();
        account
    }
}

/// True when credentials of `head` may be missing from its record.
pub(super) fn incomplete(head: &Head<'_>) -> bool {
    head.anomaly(anomaly::CAPTURES_LOST) || head.anomaly(anomaly::MORE_CREDENTIALS)
}
