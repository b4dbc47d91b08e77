//! Applies records in time order: judges requests, pairs responses with them, follows bodies, emits observations.

use std::sync::Arc;

use sensor_ebpf::wire::{EndRecord, NO_ROUTE, NO_SERVICE, RecordHead, anomaly, capture, direction, head_flag};

use super::account::Reading;
use super::bodies::Body;
use super::decode::{Head, Record, decode};
use super::issuance::{self, Applier, Exchange, Success};
use super::outcome::{self, Length};
use super::pending::{Answer, Judged, Key, Pending, Wanted};
use super::routes::Taken;
use super::secret::SecretBuf;
use super::target::{RequestLine, Target};
use super::{Collector, Sink, client, place_of};
use crate::config::model::{Config, IssuanceRule, Route, Service};
use crate::ledger::{Presented, Verdict};
use crate::observation::{Fingerprint, Instant, Outcome, RouteClass, RouteId, ServiceId};

/// Responses kept that came before their request's head was complete. They are rare (a server that refuses a head it
/// has not read to its end), so the list is short and searched in order.
pub(super) const EARLY_MAX: usize = 64;

pub(super) fn key_of(head: &RecordHead) -> Key {
    Key { flow: head.flow, txn: head.txn }
}

pub(super) fn service_of<'a>(config: &'a Config, head: &RecordHead) -> (ServiceId, Option<&'a Service>) {
    let service = if head.service == NO_SERVICE { None } else { config.services.get(usize::from(head.service)) };
    (if service.is_some() { ServiceId(head.service) } else { ServiceId::NONE }, service)
}

pub(super) fn route_of(service: Option<&Service>, route: Option<RouteId>) -> Option<&Route> {
    service?.routes.get(usize::from(route?.0))
}

/// A credential of a request head as the ledger takes it.
pub(super) fn presented<'a>(
    service: ServiceId,
    head: &Head<'a>,
    credential: &sensor_ebpf::wire::Credential,
    spends: bool,
) -> Presented<'a> {
    Presented {
        spends,
        service,
        place: credential.place,
        index: credential.index,
        scheme: credential.scheme,
        fingerprint: Fingerprint(credential.fingerprint),
        flags: credential.flags,
        claims: head.claims(credential),
    }
}

/// The part of the collector that applies exchanges to the ledger; a macro because it borrows single fields.
macro_rules! applier {
    ($collector:expr) => {
        Applier {
            ledger: &mut $collector.ledger,
            counts: &mut $collector.counts.issuances,
            fingerprint_key: $collector.keys.fingerprint,
            scratch: &mut $collector.secret,
            issued: 0,
            handed: 0,
            said: None,
        }
    };
}
pub(super) use applier;

impl Collector {
    /// Gives up what has waited too long at `now_ns`.
    pub(super) fn expire(&mut self, now_ns: u64, out: &mut impl Sink) {
        while let Some((key, deadline_ns)) = self.table.oldest().filter(|(_, deadline_ns)| *deadline_ns <= now_ns) {
            self.give_up(key, deadline_ns, out);
        }
        self.expire_more(now_ns, out);
    }

    /// A record that found no room in the queue: counted, and doubted where it may have issued something.
    pub(super) fn lose(&mut self, record: &Record<'_>) {
        let Record::Response(head) = record else {
            if matches!(record, Record::Request(_)) {
                self.counts.requests_lost += 1;
            } else {
                self.counts.others_lost += 1;
            }
            return;
        };
        self.counts.others_lost += 1;
        let at = self.clock.instant(head.fixed.head.time_ns);
        let (service, _) = service_of(&self.config, &head.fixed.head);
        let issuing = head.flag(head_flag::TEE) || head.credentials().next().is_some();
        if issuing && service != ServiceId::NONE {
            self.counts.issuances.lost += 1;
            self.ledger.gap(service, at, at, 1);
        }
    }

    pub(super) fn apply(&mut self, mut record: SecretBuf, out: &mut impl Sink) {
        self.chunks.join(&mut record, self.clock, self.keys.fingerprint);
        match decode(record.as_slice()) {
            Ok(Record::Request(_)) => self.request(record, out),
            Ok(Record::Response(_)) => self.response(record, out),
            Ok(Record::Version(_)) => self.version(record, out),
            Ok(Record::Tee(head, bytes)) => {
                self.tee(&head, bytes);
                self.queue.recycle(record);
            }
            Ok(Record::End(end)) => {
                self.queue.recycle(record);
                self.end(&end, false, out);
            }
            Ok(Record::TeeEnd(end)) => {
                self.queue.recycle(record);
                self.end(&end, true, out);
            }
            Ok(Record::Close(head)) => {
                self.queue.recycle(record);
                self.drop_early(|key| key.flow == head.flow, EARLY_MAX, out);
                while let Some(key) = self.table.first_of(head.flow) {
                    self.give_up(key, head.time_ns, out);
                }
                self.close_more(head.flow, out);
            }
            Ok(Record::AnswerLost(head)) => {
                self.queue.recycle(record);
                self.answer_lost(key_of(&head), head.time_ns);
            }
            // Records are decoded before they are queued.
            Err(_) => self.queue.recycle(record),
        }
    }

    fn request(&mut self, record: SecretBuf, out: &mut impl Sink) {
        self.queued_requests = self.queued_requests.saturating_sub(1);
        let config = Arc::clone(&self.config);
        let Ok(Record::Request(head)) = decode(record.as_slice()) else { return };
        let now_ns = head.fixed.head.time_ns;
        let mut pending = self.judge_request(&config, &head);
        pending.request = record;
        if self.table.get_mut(pending.key).is_some() {
            self.counts.duplicate_requests += 1;
            self.give_up(pending.key, now_ns, out);
        }
        while self.table.is_full() {
            let Some((oldest, _)) = self.table.oldest() else { break };
            self.counts.evicted += 1;
            self.give_up(oldest, now_ns, out);
        }
        let key = pending.key;
        self.table.insert(pending, self.deadline(now_ns));
        if let Some(at) = self.early.iter().position(|(early, _)| *early == key)
            && let Some((_, response)) = self.early.remove(at)
        {
            self.response(response, out);
        }
    }

    /// A response that came before its request's head was complete waits for the request.
    fn keep_early(&mut self, key: Key, response: SecretBuf, out: &mut impl Sink) {
        if self.early.len() >= EARLY_MAX {
            self.drop_early(|_| true, 1, out);
        }
        self.early.push_back((key, response));
    }

    /// Gives up on at most `most` early responses that `which` picks, oldest first.
    pub(super) fn drop_early(&mut self, which: impl Fn(Key) -> bool, most: usize, out: &mut impl Sink) {
        let config = Arc::clone(&self.config);
        for _ in 0..most {
            let Some(at) = self.early.iter().position(|(key, _)| which(*key)) else { return };
            let Some((_, record)) = self.early.remove(at) else { return };
            if let Ok(Record::Response(head)) = decode(record.as_slice()) {
                self.unmatched(&config, &head, false, out);
            }
            self.queue.recycle(record);
        }
    }

    pub(super) fn deadline(&self, now_ns: u64) -> u64 {
        let wait = u64::try_from(self.config.bounds.unanswered_after.as_nanos()).unwrap_or(u64::MAX);
        now_ns.saturating_add(wait)
    }

    /// Judges a request; its record is put into the result by the caller.
    pub(super) fn judge_request(&mut self, config: &Config, head: &Head<'_>) -> Pending {
        let fixed = &head.fixed;
        let (service_id, service) = service_of(config, &fixed.head);
        let cut = head.anomaly(anomaly::LINE_CUT);
        let target = RequestLine::new(head.capture(capture::LINE).unwrap_or_default(), cut).split();
        let taken = self.classify(config, service_id, head, &target);
        let route = route_of(service, taken.map(|taken| taken.route));

        let attributed = client::attribute(head, &config.trusted_proxies, config.client_header);
        self.counts.proxies_refused += u64::from(attributed.refused);
        let at = self.clock.instant(fixed.head.time_ns);
        let mut credentials = self.spare_list();
        let class = taken.map_or(RouteClass::Other, |taken| taken.class);
        let matters = matches!(class, RouteClass::AccountRead | RouteClass::Refresh);
        let rule = route.and_then(|route| route.issuance.as_ref());
        for credential in head.credentials() {
            let place = place_of(&credential);
            let allowed = route.is_none_or(|route| {
                let places = &route.authenticates_with;
                places.is_empty() || place.is_some_and(|place| places.contains(&place))
            });
            let exchanged = rule.zip(place).is_some_and(|(rule, place)| rule.presents_at(place));
            let verdict = if service.is_some() {
                let spends = (allowed || exchanged) && matters;
                self.ledger.judge(&presented(service_id, head, &credential, spends), at)
            } else {
                Verdict::UNKNOWN
            };
            credentials.push(Judged { credential, verdict, counts: allowed });
        }

        let mut pending = Pending {
            key: key_of(&fixed.head),
            service: service_id,
            time_ns: fixed.head.time_ns,
            request: SecretBuf::default(),
            response: None,
            route: taken.map(|taken| taken.route),
            class,
            credentials,
            doubtful: issuance::incomplete(head),
            anomalies: fixed.anomalies,
            reading: Reading::default(),
            tried: None,
            said: None,
            issued: 0,
            client: attributed.client,
            request_body: if rule.is_some_and(IssuanceRule::reads_request) { Wanted::Awaited } else { Wanted::No },
            wants_response_body: rule.is_some_and(IssuanceRule::reads_response),
            body_bytes: None,
            tee_ended: false,
            answer: Answer::Awaited,
        };
        if let (Some(route), Some(taken)) = (route, taken) {
            self.find_account(&mut pending, route, taken, head, &target);
        }
        pending
    }

    /// The route by the captured line; by the kernel's word where the line does not hold the whole path.
    fn classify(&mut self, config: &Config, service: ServiceId, head: &Head<'_>, target: &Target<'_>) -> Option<Taken> {
        let line = head.capture(capture::LINE);
        let cut = head.anomaly(anomaly::LINE_CUT);
        let whole_path = line.is_some() && (!cut || target.query.is_some());
        if whole_path {
            let method = RequestLine::new(line.unwrap_or_default(), cut).method;
            return self.router.take(service, method, target, &mut self.readings);
        }
        self.readings.clear();
        let declared = config.services.get(usize::from(service.0))?;
        let route = declared.routes.get(usize::from(head.fixed.route));
        self.counts.unclassified += u64::from(route.is_none() && head.fixed.route != NO_ROUTE);
        route.map(|route| Taken { route: RouteId(head.fixed.route), class: route.class, raw: false })
    }

    fn response(&mut self, record: SecretBuf, out: &mut impl Sink) {
        let config = Arc::clone(&self.config);
        let Ok(Record::Response(head)) = decode(record.as_slice()) else { return };
        let now_ns = head.fixed.head.time_ns;
        let key = key_of(&head.fixed.head);
        let answered = match self.table.get_mut(key) {
            _ if head.anomaly(anomaly::UNSOLICITED) => None,
            Some(pending) => Some(pending.response.is_some()),
            None => None,
        };
        if answered.is_none() && head.anomaly(anomaly::EARLY) && !head.anomaly(anomaly::UNSOLICITED) {
            self.keep_early(key, record, out);
            return;
        }
        if answered != Some(false) {
            self.counts.duplicate_responses += u64::from(answered == Some(true));
            self.unmatched(&config, &head, answered == Some(true), out);
            self.queue.recycle(record);
            return;
        }
        let Some(mut pending) = self.table.remove(key) else { return };
        pending.anomalies |= head.fixed.anomalies;
        let waits = self.response_head(&config, &mut pending, &head);
        pending.response = Some(record);
        if waits {
            self.table.insert(pending, self.deadline(now_ns));
        } else {
            self.complete(pending, now_ns, out);
        }
    }

    /// Applies a response head; true when the exchange has to wait for the end of the body.
    pub(super) fn response_head(&mut self, config: &Config, pending: &mut Pending, head: &Head<'_>) -> bool {
        let service = config.services.get(usize::from(pending.service.0));
        let Some(service_config) = service else { return false };
        let route = route_of(service, pending.route);
        let at = self.clock.instant(head.fixed.head.time_ns);
        let shaken = self.shaken.has(pending.key.flow);
        let exchange = exchange(pending, shaken, service_config, route, head, at);
        let mut applier = applier!(self);
        applier.at_head(&exchange);
        let issued = applier.issued;
        let needs_body = exchange.needs_body() && outcome::length(head) != Length::Known(0);
        let needs_length = route.is_some_and(|route| {
            pending.body_bytes.is_none() && outcome::judge(&route.outcomes, head, outcome::length(head)).is_none()
        });
        pending.issued = pending.issued.saturating_add(issued);
        pending.wants_response_body = needs_body && head.flag(head_flag::TEE);
        (pending.wants_response_body && !pending.tee_ended) || needs_length
    }

    fn tee(&mut self, head: &RecordHead, bytes: &[u8]) {
        let wanted = self.table.get_mut(key_of(head)).is_some_and(|pending| match head.direction {
            direction::REQUEST => pending.request_body == Wanted::Awaited,
            _ => pending.wants_response_body,
        });
        if wanted {
            self.bodies.chunk(key_of(head), head.direction, head.offset, bytes);
        } else {
            self.counts.tee_unwanted += 1;
        }
    }

    fn end(&mut self, end: &EndRecord, teed: bool, out: &mut impl Sink) {
        let key = key_of(&end.head);
        let Some(pending) = self.table.get_mut(key) else { return };
        if end.head.direction == direction::REQUEST {
            if teed && pending.request_body == Wanted::Awaited {
                self.bodies.end(key, direction::REQUEST, end.body_bytes, end.complete != 0);
                self.request_body(key, end.head.time_ns);
            }
            return;
        }
        pending.body_bytes = Some(end.body_bytes);
        pending.tee_ended |= teed;
        if teed && pending.wants_response_body {
            self.bodies.end(key, direction::RESPONSE, end.body_bytes, end.complete != 0);
        }
        let done = pending.response.is_some() && (teed || !pending.wants_response_body);
        if done && let Some(pending) = self.table.remove(key) {
            self.complete(pending, end.head.time_ns, out);
        }
    }

    /// Judges what a complete request body presents.
    fn request_body(&mut self, key: Key, now_ns: u64) {
        let config = Arc::clone(&self.config);
        let body = self.bodies.take(key, direction::REQUEST);
        let at = self.clock.instant(now_ns);
        if let Some(pending) = self.table.get_mut(key) {
            let service = config.services.get(usize::from(pending.service.0));
            let rule = route_of(service, pending.route).and_then(|route| route.issuance.as_ref());
            let head = match decode(pending.request.as_slice()) {
                Ok(Record::Request(head) | Record::Version(head)) => Some(head),
                _ => None,
            };
            let whole = head.as_ref().zip(body.as_ref().and_then(Body::whole));
            let counts = &mut self.counts.decoding;
            let plain = whole.and_then(|(head, body)| self.decompressor.plain(head, body, counts));
            if let (Some(rule), Some(plain)) = (rule, plain) {
                let credentials = &mut pending.credentials;
                let service = pending.service;
                let mut applier = applier!(self);
                applier.judge_request_body(service, rule, plain, at, |judged| credentials.push(judged));
                pending.tried = applier.account_of(&rule.tries, plain);
                pending.request_body = Wanted::Read;
            }
        }
        self.decompressor.wipe();
        if let Some(body) = body {
            self.bodies.recycle(body);
        }
    }

    /// Takes a request out of the table without (the rest of) its response.
    fn give_up(&mut self, key: Key, now_ns: u64, out: &mut impl Sink) {
        let Some(pending) = self.table.remove(key) else { return };
        self.complete(pending, now_ns, out);
    }

    /// Emits the observation of `pending` with what is known of its response.
    fn complete(&mut self, mut pending: Pending, now_ns: u64, out: &mut impl Sink) {
        let config = Arc::clone(&self.config);
        let (record, answer) = (std::mem::take(&mut pending.request), pending.response.take());
        let response = answer.as_ref().and_then(|record| match decode(record.as_slice()) {
            Ok(Record::Response(head)) => Some(head),
            _ => None,
        });
        if let Ok(Record::Request(request) | Record::Version(request)) = decode(record.as_slice()) {
            self.close(&config, &mut pending, &request, response.as_ref(), now_ns, out);
        }
        self.drop_bodies(pending.key);
        (pending.request, pending.response) = (record, answer);
        self.recycle(pending);
    }

    /// Concludes and emits what `request` and `response` came to.
    pub(super) fn close(
        &mut self,
        config: &Config,
        pending: &mut Pending,
        request: &Head<'_>,
        response: Option<&Head<'_>>,
        now_ns: u64,
        out: &mut impl Sink,
    ) {
        self.counts.observations += 1;
        self.counts.unanswered += u64::from(response.is_none());
        let outcome = response.map_or(Outcome::Unanswered, |head| self.conclude(config, pending, head, now_ns));
        self.emit(config, pending, request, response, outcome, out);
    }

    /// Applies what needed the body, and judges the outcome.
    fn conclude(&mut self, config: &Config, pending: &mut Pending, head: &Head<'_>, now_ns: u64) -> Outcome {
        let service = config.services.get(usize::from(pending.service.0));
        let route = route_of(service, pending.route);
        let (Some(service), Some(route)) = (service, route) else { return outcome::judge_bare(head.fixed.status) };
        let shaken = self.shaken.has(pending.key.flow);
        let exchange = exchange(pending, shaken, service, Some(route), head, self.clock.instant(now_ns));
        let mut success = exchange.head_success();
        let (mut issued, mut said) = (0, None);
        if exchange.needs_body() {
            let body = self.bodies.take(pending.key, direction::RESPONSE);
            let empty = outcome::length(head) == Length::Known(0);
            let whole = if empty { Some(&b""[..]) } else { body.as_ref().and_then(Body::whole) };
            let counts = &mut self.counts.decoding;
            let plain = whole.and_then(|body| self.decompressor.plain(head, body, counts));
            let mut applier = applier!(self);
            success = Some(applier.at_body(&exchange, plain));
            (issued, said) = (applier.issued, applier.said);
            self.decompressor.wipe();
            if let Some(body) = body {
                self.bodies.recycle(body);
            }
        }
        pending.issued = pending.issued.saturating_add(issued);
        pending.said = said;
        let length = match (outcome::length(head), pending.body_bytes) {
            (Length::Known(bytes), _) | (_, Some(bytes)) => Length::Known(bytes),
            _ => Length::Unknown,
        };
        let by_rules = outcome::judge(&route.outcomes, head, length).unwrap_or(Outcome::Other);
        match success {
            Some(Success::Yes) => Outcome::Read,
            // A 200 that says "wrong password" is no success, whatever the status predicates make of it.
            Some(Success::No) if by_rules == Outcome::Read => Outcome::Denied,
            Some(Success::Unknown) => Outcome::Other,
            Some(Success::No) | None => by_rules,
        }
    }

    fn drop_bodies(&mut self, key: Key) {
        for half in [direction::REQUEST, direction::RESPONSE] {
            if let Some(body) = self.bodies.take(key, half) {
                self.bodies.recycle(body);
            }
        }
    }

    pub(super) fn recycle(&mut self, pending: Pending) {
        self.queue.recycle(pending.request);
        if let Some(record) = pending.response {
            self.queue.recycle(record);
        }
        self.give_list_back(pending.credentials);
    }
}

fn exchange<'a>(
    pending: &'a Pending,
    shaken: bool,
    config: &'a Service,
    route: Option<&'a Route>,
    head: &'a Head<'a>,
    at: Instant,
) -> Exchange<'a> {
    let uncertain = shaken || pending.uncertain();
    let rule = route.and_then(|route| route.issuance.as_ref());
    let unread = pending.request_body == Wanted::Awaited && rule.is_some_and(IssuanceRule::presents_in_body);
    Exchange {
        service: pending.service,
        config,
        route,
        class: pending.class,
        credentials: &pending.credentials,
        doubtful: pending.doubtful || uncertain || unread,
        uncertain,
        target_account: pending.reading.target_account,
        head,
        at,
    }
}
