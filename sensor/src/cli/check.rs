//! `authsensor check`: is the configuration usable, and what does it say?
//!
//! A path flows in; every diagnostic flows out on standard error, or a summary on standard output. Starts nothing.

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::config::model::{Config, Findings, Issuer, Observed, Place, Service};
use crate::config::{self, shown};
use crate::detect::{self, Exception, RuleSet};
use crate::observation::RouteClass;

/// Exit code of a configuration or rule that cannot be used.
pub const UNUSABLE: u8 = 2;

/// Checks the configuration at `path`: a summary on standard output and 0, or all diagnostics on standard error and
/// [`UNUSABLE`].
pub fn run(path: &Path) -> ExitCode {
    // A reader that went away (`| head`) changes nothing about the verdict.
    match report(path, &mut io::stdout().lock(), &mut io::stderr().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNUSABLE),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

/// Writes the summary to `out`, or the diagnostics to `err`; true when configuration and rules are usable.
///
/// Rules are read once the configuration is without mistakes: what they name is declared there.
pub fn report(path: &Path, out: &mut impl Write, err: &mut impl Write) -> io::Result<bool> {
    let examined = config::examine(path);
    let Some(config) = examined.config.filter(|_| examined.errors.is_empty()) else {
        return refused(path, &examined.errors, err);
    };
    let rules = match detect::load(&config.rules, &config) {
        Ok(rules) => rules,
        Err(errors) => return refused(path, &errors, err),
    };
    let cases = match detect::check_cases(&config.rules, &rules, &config) {
        Ok(cases) => cases,
        Err(errors) => return refused(path, &errors, err),
    };
    summary(&config, &rules, out)?;
    if cases > 0 {
        writeln!(out, "cases     {cases} beside the rules came out as written")?;
    }
    exceptions(&rules, out)?;
    for warning in &examined.warnings {
        writeln!(out, "note: {warning}")?;
    }
    Ok(true)
}

/// Every mistake, and how many they are.
fn refused(path: &Path, mistakes: &[impl Display], err: &mut impl Write) -> io::Result<bool> {
    for mistake in mistakes {
        writeln!(err, "{mistake}")?;
    }
    let (count, plural) = (mistakes.len(), if mistakes.len() == 1 { "" } else { "s" });
    writeln!(err, "{}: {count} mistake{plural}; nothing was started.", path.display())?;
    Ok(false)
}

fn summary(config: &Config, rules: &RuleSet, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{} is usable (version {})", config.path.display(), config.hash)?;
    for service in &config.services {
        write_service(service, out)?;
    }
    for rule in rules.info() {
        writeln!(out, "rule      {} ({}; {})", rule.title, rule.level.label(), rule.file.display())?;
    }
    if rules.rules.is_empty() {
        writeln!(out, "rules     none: nothing will be found")?;
    }
    for smallest in rules.detectable(config) {
        writeln!(out, "detects   {}", smallest.said(config))?;
    }
    match &config.findings {
        Findings::Stdout => writeln!(out, "findings  to standard output")?,
        Findings::File(path) => writeln!(out, "findings  to {}", path.display())?,
    }
    writeln!(out, "metrics   http://{}/metrics", config.metrics_listen)?;
    if let Some(push) = &config.push {
        writeln!(out, "push      https://{}/v1/issuances", push.listen)?;
        for source in &push.sources {
            let service = config.services.get(usize::from(source.service.0));
            let issuers = source.issuers.iter().filter_map(|id| service?.issuers.get(usize::from(id.0)));
            let issuers: Vec<&str> = issuers.map(|issuer| issuer.name.as_str()).collect();
            let service = service.map_or("no service", |service| &service.name);
            writeln!(out, "  source {}: {} of {service}", source.name, issuers.join(", "))?;
        }
    }
    for (key, what) in [(config.keys.fingerprint, "fingerprint"), (config.keys.account, "account")] {
        let origin = if key.is_some() { "from its file" } else { "drawn at start, gone with the process" };
        writeln!(out, "key       {what}: {origin}")?;
    }
    Ok(())
}

/// Who may do more than the rules allow, and whose time is over.
fn exceptions(rules: &RuleSet, out: &mut impl Write) -> io::Result<()> {
    for exception in &rules.exceptions {
        writeln!(out, "exception {} ({})", exception.named(), exception.file.display())?;
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    for exception in rules.expired(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)) {
        let Exception { file, line, title, expires, .. } = exception;
        let place = format!("{}:{line}:1", file.display());
        writeln!(out, "note: {place}: the exception `{title}` expired on {expires} and no longer applies.")?;
    }
    Ok(())
}

/// Credential places of a service whose credentials no declared issuer can match.
fn uncovered(service: &Service) -> Vec<String> {
    let all = &service.credentials;
    let mut places: Vec<(Place, String)> = Vec::new();
    let numbered = |names: &[String]| -> Vec<(u8, String)> { (0..).zip(names.iter().cloned()).collect() };
    if all.authorization {
        places.push((Place::Authorization, "authorization".to_owned()));
    }
    places.extend(numbered(&all.cookies).into_iter().map(|(i, name)| (Place::Cookie(i), format!("cookie:{name}"))));
    places.extend(numbered(&all.headers).into_iter().map(|(i, name)| (Place::Header(i), format!("header:{name}"))));
    places.extend(numbered(&all.query).into_iter().map(|(i, name)| (Place::Query(i), format!("query:{name}"))));
    let covered =
        |place: &Place| service.issuers.iter().any(|issuer| issuer.places.is_empty() || issuer.places.contains(place));
    places.into_iter().filter(|(place, _)| !covered(place)).map(|(_, name)| name).collect()
}

fn or_none(text: &str) -> &str {
    if text.is_empty() { "none" } else { text }
}

fn write_service(service: &Service, out: &mut impl Write) -> io::Result<()> {
    let listens: Vec<String> = service.listen.iter().copied().map(shown).collect();
    writeln!(out, "service   {} on {}", service.name, listens.join(", "))?;
    writeln!(out, "  credentials  {}", or_none(&places(service).join(", ")))?;
    for class in RouteClass::ALL.iter().copied() {
        let names: Vec<&str> =
            service.routes.iter().filter(|route| route.class == class).map(|route| route.name.as_str()).collect();
        if !names.is_empty() {
            writeln!(out, "  {:<12} {}: {}", class.label(), names.len(), names.join(", "))?;
        }
    }
    for issuer in &service.issuers {
        writeln!(out, "  issuer       {}: {}", issuer.name, standing(issuer))?;
    }
    for place in uncovered(service) {
        writeln!(out, "  {place} matches no declared issuer: its credentials are unverifiable")?;
    }
    writeln!(out, "  all other credentials: unverifiable")
}

fn places(service: &Service) -> Vec<String> {
    let credentials = &service.credentials;
    let mut places = Vec::new();
    if credentials.authorization {
        places.push("authorization".to_owned());
    }
    for (word, names) in
        [("cookie", &credentials.cookies), ("header", &credentials.headers), ("query", &credentials.query)]
    {
        places.extend(names.iter().map(|name| format!("{word}:{name}")));
    }
    places
}

/// Whether the issuer can be held to account, and why not.
fn standing(issuer: &Issuer) -> String {
    match (&issuer.confirmed, issuer.observed) {
        (Some(confirmed), Observed::All) => format!(
            "accountable (sight {}, confirmed by {} on {}): unknown credentials are unissued",
            confirmed.sight, confirmed.by, confirmed.on
        ),
        (None, Observed::All) => {
            "not accountable (observed all, not confirmed): unknown credentials are unverifiable".into()
        }
        (_, Observed::Part) => "not accountable (observed in part): unknown credentials are unverifiable".into(),
        (_, Observed::None) => "not accountable (not observed): its credentials are unverifiable".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authsensor.toml");
        std::fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn outcome(path: &Path) -> (bool, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let usable = report(path, &mut out, &mut err).unwrap();
        (usable, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn prints_every_mistake_and_nothing_else() {
        let (_folder, path) = written("shards = 2\ninterfaecs = []\n[[service]]\nname = \"s\"\n");
        let (usable, out, err) = outcome(&path);
        assert!(!usable);
        assert_eq!(out, "");
        let lines: Vec<&str> = err.lines().collect();
        assert_eq!(lines.len(), 4, "{err}");
        let file = path.display();
        assert!(lines[0].starts_with(&format!("{file}:1:10: ")), "{err}");
        assert_eq!(
            lines[1],
            format!("{file}:2:1: unknown key `interfaecs` at the top level. Did you mean `interfaces`.")
        );
        assert!(lines[2].starts_with(&format!("{file}:3:1: `service.listen` is missing. Write ")), "{err}");
        assert_eq!(lines[3], format!("{file}: 3 mistakes; nothing was started."));
    }

    #[test]
    fn rules_are_checked_with_the_configuration() {
        let (folder, path) = written("rules = [\"rules\"]\n");
        let rules = folder.path().join("rules");
        std::fs::create_dir(&rules).unwrap();
        let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/../rules/detection/bulk_account_reads_unissued.yml");
        let text = std::fs::read_to_string(shipped).unwrap();
        let file = rules.join("bulk.yml");
        std::fs::write(
            &file,
            text.replacen("field: account", "field: acount", 2).replacen("level: high", "level: hihg", 1),
        )
        .unwrap();
        let (usable, out, err) = outcome(&path);
        assert!(!usable);
        assert_eq!(out, "");
        let lines: Vec<&str> = err.lines().collect();
        let (last, mistakes) = lines.split_last().unwrap();
        assert_eq!(mistakes.len(), 3, "{err}");
        let prefix = format!("{}:", file.display());
        assert!(mistakes.iter().all(|line| line.starts_with(&prefix)), "{err}");
        assert!(err.contains("`acount`") && err.contains("Did you mean `account`?"), "{err}");
        assert_eq!(*last, format!("{}: 3 mistakes; nothing was started.", path.display()));

        std::fs::write(&file, text).unwrap();
        let (usable, out, err) = outcome(&path);
        assert!(usable, "{err}");
        let title = "Bulk account reads with tokens that no login issued";
        assert!(out.contains(&format!("rule      {title} (high; {})", file.display())), "{out}");
        assert!(!out.contains("detects "), "no issuer of tokens is declared: {out}");
    }

    #[test]
    fn summarises_a_usable_file() {
        let (_folder, path) = written(
            r#"
            rules = []
            [[service]]
            name = "shop"
            listen = [80, "[2001:db8::7]:8080"]
            [service.credentials]
            cookies = ["SID"]
            [[service.route]]
            class = "login"
            methods = "POST"
            path = "/login"
            issues = "set-cookie:SID"
            [[service.issuer]]
            name = "known"
            kind = "jwt"
            iss = "a"
            max_lifetime = "1h"
            observed = "all"
            confirmed = { sight = 0.995, by = "kim", on = 2026-01-31 }
            [[service.issuer]]
            name = "hoped"
            kind = "opaque"
            max_lifetime = "1h"
            observed = "all"
            "#,
        );
        let (usable, out, err) = outcome(&path);
        assert!(usable, "{err}");
        assert_eq!(err, "");
        for line in [
            "service   shop on *:80, [2001:db8::7]:8080",
            "  credentials  authorization, cookie:SID",
            "  login        1: POST /login",
            "  issuer       known: accountable (sight 0.995, confirmed by kim on 2026-01-31): unknown credentials are unissued",
            "  issuer       hoped: not accountable (observed all, not confirmed): unknown credentials are unverifiable",
            "rules     none: nothing will be found",
            "detects   no number of tokens forged as those of shop/known is sure to be found",
            "metrics   http://127.0.0.1:9464/metrics",
            "key       account: drawn at start, gone with the process",
        ] {
            assert!(out.lines().any(|written| written == line), "{line}\n---\n{out}");
        }
        assert!(out.contains(":24:24: `observed = \"all\"` has no effect without `confirmed`"), "{out}");
    }
}
