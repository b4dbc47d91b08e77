//! The first three things to do about a finding, in the order in which they stop harm.
//!
//! Chosen by what the finding names (a key, an issuer, a client, a route, a credential) and by its tags; the text names it.

use super::model::Finding;

/// Fields of a group that name where to begin, most specific first.
const KEY: &str = "kid";
const ISSUER: &str = "issuer";
const CLIENT: &str = "client";
const NETWORK: &str = "network";
const CREDENTIAL: &str = "fingerprint";

/// The first three actions for whoever is on call.
pub fn first(finding: &Finding) -> [String; 3] {
    let named = |field: &str| {
        let value = finding.group.iter().find(|(name, value)| name == field && value != "none");
        value.map(|(_, value)| super::ocsf::shown(value))
    };
    let tagged = |tag: &str| finding.tags.iter().any(|one| one == tag);
    let service = named("service").unwrap_or_else(|| "the service".to_owned());
    let revoke =
        "Revoke the credentials whose fingerprints the finding lists (evidences: `credentials`), and end their \
                  sessions; an issuance list (`authsensor ledger export`) tells which were real"
            .to_owned();
    let keep =
        "Stop log rotation on the gateways concerned and keep their access logs; the time of awareness starts legal \
                deadlines (KISA 24 h, PIPC and members 72 h)"
            .to_owned();
    if tagged("owasp.api1") || tagged("owasp.api3") {
        let who = named(CREDENTIAL).or_else(|| named(CLIENT)).unwrap_or_else(|| "the credential".to_owned());
        let route = finding.scope.routes.first().cloned().unwrap_or_else(|| "the route".to_owned());
        return [
            format!("Suspend {who} at {service}: it reads accounts that are not its own"),
            format!("Check that {route} compares the account asked for with the credential's subject"),
            keep,
        ];
    }
    if let Some(key) = named(KEY) {
        let issuer = named(ISSUER).unwrap_or_else(|| "its issuer".to_owned());
        return [
            format!(
                "Find out who could sign with key {key} of {issuer}; take it out of use unless all of them are cleared"
            ),
            revoke,
            keep,
        ];
    }
    if tagged("owasp.api2") && named(ISSUER).is_none() {
        let route = finding.scope.routes.first().cloned().unwrap_or_else(|| "the routes concerned".to_owned());
        return [
            format!("Make {service} refuse such requests on {route}: the check of the credential is missing or broken"),
            "Compare with the last deployment of the service; roll it back if the check went missing with it"
                .to_owned(),
            keep,
        ];
    }
    if let Some(issuer) = named(ISSUER) {
        return [
            format!("Check that every way of logging in to {issuer} passes the sensor (`authsensor issuer list`)"),
            revoke,
            keep,
        ];
    }
    if let Some(client) = named(CLIENT).or_else(|| named(NETWORK)) {
        return [
            format!("Limit {client} at the gateway of {service} while you look"),
            "See whether it is a partner, an office or a carrier's NAT; if it is known, give it an exception with an owner \
             and an expiry date"
                .to_owned(),
            keep,
        ];
    }
    [
        format!("Look at {service} now: compare the time of the finding with deployments, outages and campaigns"),
        "See which clients and routes the growth comes from (evidences of this finding)".to_owned(),
        keep,
    ]
}

#[cfg(test)]
mod tests {
    use crate::finding::ocsf::tests::finding;

    #[test]
    fn the_first_action_names_what_to_touch() {
        let mut one = finding();
        assert!(super::first(&one)[0].contains("key k1 of members"), "{:?}", super::first(&one));
        one.group.retain(|(field, _)| field != "kid");
        assert!(super::first(&one)[0].contains("logging in to members"));
        one.group = vec![("client".to_owned(), "192.0.2.1".to_owned())];
        one.tags = vec!["owasp.api1".to_owned()];
        assert!(super::first(&one)[0].contains("Suspend 192.0.2.1"));
        one.tags.clear();
        assert!(super::first(&one)[0].contains("Limit 192.0.2.1"));
    }
}
