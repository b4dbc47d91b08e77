//! Names of the MITRE ATT&CK techniques that rules tag (`attack.t1606`, `attack.t1550.001`).
//!
//! Source: attack.mitre.org, Enterprise matrix. A technique that is not listed is reported by its id alone.

/// Technique ids and names.
const NAMES: &[(&str, &str)] = &[
    ("T1078", "Valid Accounts"),
    ("T1078.004", "Cloud Accounts"),
    ("T1087", "Account Discovery"),
    ("T1090", "Proxy"),
    ("T1090.003", "Multi-hop Proxy"),
    ("T1110", "Brute Force"),
    ("T1110.004", "Credential Stuffing"),
    ("T1119", "Automated Collection"),
    ("T1213", "Data from Information Repositories"),
    ("T1530", "Data from Cloud Storage"),
    ("T1539", "Steal Web Session Cookie"),
    ("T1550", "Use Alternate Authentication Material"),
    ("T1550.001", "Application Access Token"),
    ("T1550.004", "Web Session Cookie"),
    ("T1552", "Unsecured Credentials"),
    ("T1552.004", "Private Keys"),
    ("T1606", "Forge Web Credentials"),
    ("T1606.001", "Web Cookies"),
    ("T1606.002", "SAML Tokens"),
];

/// The name of a technique or sub-technique.
fn name(uid: &str) -> Option<&'static str> {
    NAMES.iter().find(|(known, _)| *known == uid).map(|(_, name)| *name)
}

/// A technique, and the sub-technique if the tag names one: ids with names.
pub(super) struct Technique {
    pub uid: String,
    pub name: Option<&'static str>,
    pub sub: Option<(String, Option<&'static str>)>,
}

/// The technique that a Sigma tag names; none for a tactic (`attack.persistence`) or another namespace.
pub(super) fn technique(tag: &str) -> Option<Technique> {
    let id = tag.strip_prefix("attack.")?.to_ascii_uppercase();
    let parent = id.split('.').next().unwrap_or_default().to_owned();
    let digits = parent.strip_prefix('T')?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let sub = (id != parent).then(|| (id.clone(), name(&id)));
    Some(Technique { name: name(&parent), uid: parent, sub })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_become_techniques() {
        let forged = technique("attack.t1606").unwrap();
        assert_eq!(
            (forged.uid.as_str(), forged.name, forged.sub.is_none()),
            ("T1606", Some("Forge Web Credentials"), true)
        );
        let token = technique("attack.t1550.001").unwrap();
        assert_eq!(token.sub, Some(("T1550.001".to_owned(), Some("Application Access Token"))));
        assert_eq!(token.name, Some("Use Alternate Authentication Material"));
        assert_eq!(technique("attack.t9999").unwrap().name, None);
        for other in ["attack.persistence", "attack.t", "owasp.api2", "ismsp.2.11.3", "t1606"] {
            assert!(technique(other).is_none(), "{other}");
        }
    }
}
