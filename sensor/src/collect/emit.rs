//! What leaves the collector: observations with their transactions, and responses that answer nothing known.

use std::sync::Arc;

use sensor_ebpf::wire::{NO_ROUTE, anomaly, capture, place};

use super::account::{relation, subjects_differ};
use super::decode::Head;
use super::exchange::{applier, route_of, service_of};
use super::issuance::{Applier, Exchange};
use super::pending::{Answer, Judged, Key, Pending};
use super::target::RequestLine;
use super::{Collector, Sink, Transaction, client};
use crate::config::model::{Config, Service};
use crate::observation::{
    Claims, Estimates, Fingerprint, Observation, Outcome, Provenance, RouteClass, ServiceId, Validity,
};

impl Collector {
    pub(super) fn emit(
        &mut self,
        config: &Config,
        pending: &Pending,
        head: &Head<'_>,
        response: Option<&Head<'_>>,
        outcome: Outcome,
        out: &mut impl Sink,
    ) {
        let line = head.capture(capture::LINE).unwrap_or_default();
        let line = RequestLine::new(line, head.anomaly(anomaly::LINE_CUT));
        let status = response.map(|response| response.fixed.status).filter(|status| *status != 0);
        let worst = pending.worst();
        let reading = &pending.reading;
        let account = match pending.class {
            RouteClass::Login => pending.tried.or(pending.said).or(reading.account),
            _ => reading.account,
        };
        let observation = Observation {
            at: self.clock.instant(pending.time_ns),
            service: pending.service,
            route: pending.route,
            class: pending.class,
            outcome,
            status,
            provenance: pending.provenance(worst),
            validity: worst.map_or(Validity::Ok, |worst| worst.verdict.validity),
            fingerprint: worst
                .filter(|worst| worst.verdict.stable)
                .map(|worst| Fingerprint(worst.credential.fingerprint)),
            issuer: worst.and_then(|worst| worst.verdict.issuer),
            kid: worst.and_then(|worst| worst.verdict.kid),
            place: worst.map_or(0, |worst| worst.credential.place),
            self_contained: worst.is_some_and(|worst| worst.verdict.self_contained),
            account,
            client: pending.client,
            anomalies: pending.anomalies,
            claims: worst.map_or(Claims::NONE, |worst| worst.verdict.claims),
            claim_anomalies: worst.map_or(0, |worst| worst.verdict.anomalies) | subjects_differ(pending),
            relation: relation(reading, worst),
            object: reading.object,
            target_id: reading.target_id,
            canary: reading.canary || self.canaries.has(pending.service, pending.tried.or(pending.said)),
            issued: pending.issued,
            estimates: Estimates::default(),
        };
        let transaction = Transaction {
            service: config.services.get(usize::from(pending.service.0)),
            method: some(line.method),
            host: head.capture(capture::HOST).or_else(|| line.split().authority),
            target: some(line.target),
            target_at: line.target_at,
            version: head.fixed.version,
            credentials: &pending.credentials,
            ..blank(&observation, head)
        };
        out.observation(&observation, &transaction);
    }

    /// A response without a request: printed, and where it issues something, entered or doubted.
    pub(super) fn unmatched(&mut self, config: &Config, head: &Head<'_>, duplicate: bool, out: &mut impl Sink) {
        self.counts.unmatched_responses += u64::from(!duplicate);
        let (service_id, service) = service_of(config, &head.fixed.head);
        let at = self.clock.instant(head.fixed.head.time_ns);
        // A second response to one request is no evidence of anything.
        if let Some(service) = service.filter(|_| !duplicate) {
            self.issue_unmatched(service_id, service, head);
        }
        let client = client::address(head.fixed.client);
        let transaction = Transaction {
            at,
            source: (client, head.fixed.client_port),
            destination: (client::address(head.fixed.server), head.fixed.server_port),
            service_id,
            service,
            method: None,
            host: None,
            target: None,
            target_at: 0,
            version: head.fixed.version,
            status: Some(head.fixed.status).filter(|status| *status != 0),
            credentials: &[],
            provenance: Provenance::None,
            route: None,
            class: RouteClass::Other,
            outcome: None,
            account: None,
            client,
            anomalies: head.fixed.anomalies,
        };
        out.unmatched(&transaction);
    }

    /// The answer to a request may have been among bytes that were lost for good: what it may have issued is a gap, once.
    pub(super) fn answer_lost(&mut self, key: Key, now_ns: u64) {
        let config = Arc::clone(&self.config);
        let Some(pending) = self.table.get_mut(key) else { return };
        if pending.response.is_some() || pending.answer == Answer::PerhapsLost {
            return;
        }
        pending.answer = Answer::PerhapsLost;
        let service = config.services.get(usize::from(pending.service.0));
        let rule = route_of(service, pending.route).and_then(|route| route.issuance.as_ref());
        let issues = match (rule, pending.class) {
            (Some(rule), RouteClass::Login | RouteClass::Refresh) => rule.issues.len().max(1),
            _ => 0,
        };
        let renews = |index: u8| {
            service.is_some_and(|service| service.issuers.iter().any(|issuer| issuer.renews.contains(&index)))
        };
        let renewed = |one: &&Judged| one.credential.place == place::COOKIE && renews(one.credential.index);
        let lost = issues.max(pending.credentials.iter().filter(renewed).count()) as u64;
        if lost > 0 {
            let (service, from) = (pending.service, self.clock.instant(pending.time_ns));
            self.counts.issuances.lost += lost;
            self.ledger.gap(service, from, self.clock.instant(now_ns.max(pending.time_ns)), lost);
        }
    }

    /// The record of the request is lost, but the response names its route: a login still issues what its head says.
    fn issue_unmatched(&mut self, service_id: ServiceId, service: &Service, head: &Head<'_>) {
        let route = service.routes.get(usize::from(head.fixed.route));
        let at = self.clock.instant(head.fixed.head.time_ns);
        let class = route.map_or(RouteClass::Other, |route| route.class);
        let exchange = Exchange {
            service: service_id,
            config: service,
            route,
            class,
            credentials: &[],
            doubtful: true,
            uncertain: head.anomaly(anomaly::AMBIGUOUS),
            target_account: None,
            head,
            at,
        };
        let mut applier = applier!(self);
        if route.is_some() {
            applier.at_head(&exchange);
            if exchange.needs_body() {
                applier.at_body(&exchange, None);
            }
        } else {
            // Of a classified request without a route only a renewal can have been missed.
            let classified = head.fixed.route == NO_ROUTE && !head.anomaly(anomaly::UNSOLICITED);
            let renews = |index| service.issuers.iter().any(|issuer| issuer.renews.contains(&index));
            let mut sets = head.handed_out(at).filter(|one| one.place == place::SET_COOKIE);
            if sets.any(|one| !classified || renews(one.index)) {
                applier.lose(&exchange, 1);
            }
        }
    }
}

/// A transaction with what an observation and a head say.
fn blank<'a>(observation: &Observation, head: &Head<'a>) -> Transaction<'a> {
    Transaction {
        at: observation.at,
        source: (client::address(head.fixed.client), head.fixed.client_port),
        destination: (client::address(head.fixed.server), head.fixed.server_port),
        service_id: observation.service,
        service: None,
        method: None,
        host: None,
        target: None,
        target_at: 0,
        version: 0,
        status: observation.status,
        credentials: &[],
        provenance: observation.provenance,
        route: observation.route,
        class: observation.class,
        outcome: Some(observation.outcome),
        account: observation.account,
        client: observation.client,
        anomalies: observation.anomalies,
    }
}

fn some(text: &[u8]) -> Option<&[u8]> {
    if text.is_empty() { None } else { Some(text) }
}
