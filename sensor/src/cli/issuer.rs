//! `authsensor issuer list | approve`: how much of each issuer's issuing the running sensor sees, and the operator's
//! confirmation of it.
//!
//! Figures flow in from the daemon's metrics endpoint; a list flows out, or an entry of the file of approvals
//! ([`crate::config::approvals`]), which the daemon reads when it starts.

mod figures;

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use figures::{Figures, Measured, ask};

use super::start::CliError;
use crate::config::approvals::{Approval, ApproveError, approve as write_approval};
use crate::config::model::{Config, Confirmation, Issuer, Observed};
use crate::config::{self, GOOD_SIGHT};
use crate::suggest;

/// Newly used credentials below which a share says little.
const ENOUGH: u64 = 1000;

/// Why there is no list or no approval.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    /// No such issuer.
    #[error("the configuration has no issuer {issuer:?} of the service {service:?}. {fix}.")]
    Unknown {
        /// As asked for.
        service: String,
        /// As asked for.
        issuer: String,
        /// What to write.
        fix: String,
    },
    /// It is not declared as wholly observed.
    #[error(
        "the issuer {0:?} is not declared as `observed = \"all\"`, so an approval would have no effect. Write that in the \
         configuration once every login passes the sensor."
    )]
    NotAll(String),
    /// The configuration confirms it already.
    #[error("the configuration has a `confirmed` table for {0:?}, which counts more. Remove it to approve here.")]
    Confirmed(String),
    /// The running daemon did not tell.
    #[error(
        "the running sensor cannot be asked at http://{0}/metrics ({1}). Start it, name its address with --metrics, or \
         state the share yourself with --sight."
    )]
    Silent(SocketAddr, io::Error),
    /// Too few to tell.
    #[error(
        "only {0} credentials of this issuer were newly used in the last day (at least {ENOUGH} tell a share). Wait, or \
         state the share yourself with --sight."
    )]
    TooFew(u64),
    /// Too much is not seen.
    #[error(
        "the sensor saw the issuance of {0:.4} of the newly used credentials, below {GOOD_SIGHT}: many that a login did \
         issue would be called unissued. Look for logins that do not pass the sensor (`authsensor routes`), or approve \
         all the same with --sight {0:.4}."
    )]
    Blind(f64),
    /// Not a share.
    #[error("--sight {0} is not a share. Write a number from 0 to 1, such as 0.998.")]
    NotAShare(f64),
    /// Not a name.
    #[error("--by {0:?} is not usable as a name: 1 to 64 bytes without control characters.")]
    NotAName(String),
    /// Not written.
    #[error(transparent)]
    Approve(#[from] ApproveError),
}

/// Prints every issuer of the configuration at `path` with what the running sensor measured.
pub fn list(path: &Path, metrics: Option<SocketAddr>) -> Result<(), CliError> {
    let config = config::load(path).map_err(CliError::Config)?;
    let address = reachable(metrics.unwrap_or(config.metrics_listen));
    let (figures, silent) = match ask(address) {
        Ok(figures) => (figures, None),
        Err(error) => (Figures::new(), Some(IssuerError::Silent(address, error))),
    };
    let written = write_list(&config, &figures, &mut io::stdout().lock());
    if let Some(error) = silent {
        eprintln!("authsensor: {error}");
    }
    written.map_err(|error| CliError::System("print the list", error))
}

/// What to approve.
#[derive(Clone, Debug)]
pub struct Approve {
    /// The configuration.
    pub config: PathBuf,
    /// Name of the service.
    pub service: String,
    /// Name of the issuer.
    pub issuer: String,
    /// Who approves.
    pub by: String,
    /// The share, instead of the measured one.
    pub sight: Option<f64>,
    /// The budget of credentials older than the horizon, instead of the measured one.
    pub preexisting: Option<u64>,
    /// Address of the running sensor's metrics, instead of the configured one.
    pub metrics: Option<SocketAddr>,
    /// `YYYY-MM-DD`.
    pub today: String,
}

/// Writes an approval, and says so.
pub fn approve(asked: &Approve) -> Result<(), CliError> {
    let config = config::load(&asked.config).map_err(CliError::Config)?;
    let approval = decide(&config, asked, ask)?;
    write_approval(&config.approvals, &approval).map_err(IssuerError::from)?;
    let Confirmation { sight, by, on, preexisting, .. } = &approval.confirmed;
    println!("approved {}/{}: sight {sight}, by {by}, {on}", approval.service, approval.issuer);
    match preexisting {
        Some(budget) => println!("at most {budget} distinct credentials may be older than the ledger's horizon"),
        None => println!("without a budget for credentials that are older than the ledger's horizon (--preexisting)"),
    }
    println!("written to {}; it takes effect when the sensor starts", config.approvals.display());
    Ok(())
}

/// What to write, or why not.
fn decide(
    config: &Config,
    asked: &Approve,
    ask: impl FnOnce(SocketAddr) -> io::Result<Figures>,
) -> Result<Approval, IssuerError> {
    let issuer = find(config, &asked.service, &asked.issuer)?;
    if issuer.observed != Observed::All {
        return Err(IssuerError::NotAll(asked.issuer.clone()));
    }
    // An approval of before may be replaced; what the configuration states cannot.
    if issuer.confirmed.as_ref().is_some_and(|confirmed| !confirmed.approved) {
        return Err(IssuerError::Confirmed(asked.issuer.clone()));
    }
    if asked.by.trim().is_empty() || asked.by.len() > 64 || asked.by.chars().any(char::is_control) {
        return Err(IssuerError::NotAName(asked.by.clone()));
    }
    let address = reachable(asked.metrics.unwrap_or(config.metrics_listen));
    let measured = ask(address)
        .map(|figures| figures.get(&(asked.service.clone(), asked.issuer.clone())).copied().unwrap_or_default());
    let preexisting = asked.preexisting.or(measured.as_ref().ok().map(Measured::horizon_budget));
    let sight = match (asked.sight, measured) {
        (Some(sight), _) if !(0.0..=1.0).contains(&sight) => return Err(IssuerError::NotAShare(sight)),
        (Some(sight), _) => sight,
        (None, Err(error)) => return Err(IssuerError::Silent(address, error)),
        (None, Ok(measured)) => match measured.share().filter(|_| measured.used() >= ENOUGH) {
            None => return Err(IssuerError::TooFew(measured.used())),
            Some(share) if share < GOOD_SIGHT => return Err(IssuerError::Blind(share)),
            // As many digits as that many credentials can tell.
            Some(share) => (share * 1e4).floor() / 1e4,
        },
    };
    let (by, on) = (asked.by.clone(), asked.today.clone());
    let confirmed = Confirmation { sight, by, on, preexisting, approved: true };
    Ok(Approval { service: asked.service.clone(), issuer: asked.issuer.clone(), confirmed })
}

fn find<'a>(config: &'a Config, service: &str, issuer: &str) -> Result<&'a Issuer, IssuerError> {
    let declared = config.services.iter().find(|known| known.name == service);
    let found = declared.and_then(|known| known.issuers.iter().find(|known| known.name == issuer));
    found.ok_or_else(|| {
        let fix = match declared {
            Some(known) => {
                suggest::advice(issuer, &known.issuers.iter().map(|one| one.name.as_str()).collect::<Vec<_>>())
            }
            None => suggest::advice(service, &config.services.iter().map(|one| one.name.as_str()).collect::<Vec<_>>()),
        };
        IssuerError::Unknown { service: service.to_owned(), issuer: issuer.to_owned(), fix }
    })
}

fn write_list(config: &Config, figures: &Figures, out: &mut impl Write) -> io::Result<()> {
    let heads = ["service", "issuer", "declared", "sight", "seen", "unseen", "preexisting", "confirmed"];
    let mut rows: Vec<Vec<String>> = vec![heads.map(str::to_owned).to_vec()];
    for service in &config.services {
        for issuer in &service.issuers {
            let measured = figures.get(&(service.name.clone(), issuer.name.clone()));
            let count = |count: fn(&Measured) -> u64| measured.map_or("-".to_owned(), |one| count(one).to_string());
            let share = measured.and_then(Measured::share).map_or("-".to_owned(), |share| format!("{share:.4}"));
            let budget = issuer.horizon_budget().map_or(String::new(), |budget| format!(" of {budget}"));
            let beyond = measured.filter(|one| one.exceeded > 0);
            let beyond = beyond.map_or(String::new(), |one| format!(" ({} beyond)", one.exceeded));
            rows.push(vec![
                service.name.clone(),
                issuer.name.clone(),
                declared(issuer.observed).to_owned(),
                share,
                count(|one| one.seen),
                count(|one| one.unseen),
                format!("{}{budget}{beyond}", count(|one| one.population)),
                confirmed(issuer),
            ]);
        }
    }
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

fn declared(observed: Observed) -> &'static str {
    match observed {
        Observed::All => "all",
        Observed::Part => "part",
        Observed::None => "none",
    }
}

fn confirmed(issuer: &Issuer) -> String {
    match (&issuer.confirmed, issuer.accountable()) {
        (Some(Confirmation { sight, by, on, .. }), true) => format!("{sight} by {by} on {on}"),
        (Some(_), false) => "no effect: not declared as `all`".to_owned(),
        (None, _) => "no: unknown credentials are unverifiable".to_owned(),
    }
}

/// An address that can be connected to: of one that stands for all addresses, the loopback.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let loopback = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(loopback, listen.port())
}

/// Today, `YYYY-MM-DD`, in UTC.
pub fn today() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    config::civil_date(since.map_or(0, |since| since.as_secs()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const CONFIG: &str = "\
[[service]]
name = \"shop\"
listen = 80
[service.credentials]
cookies = [\"SID\"]
[[service.route]]
class = \"login\"
methods = \"POST\"
path = \"/login\"
issues = \"set-cookie:SID\"
[[service.issuer]]
name = \"tokens\"
kind = \"jwt\"
max_lifetime = \"1h\"
observed = \"all\"
[[service.issuer]]
name = \"sessions\"
kind = \"opaque\"
max_lifetime = \"1h\"
observed = \"part\"
";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("authsensor.toml");
        fs::write(&path, CONFIG).unwrap();
        (folder, path)
    }

    fn asked(path: &Path) -> Approve {
        Approve {
            config: path.to_owned(),
            service: "shop".to_owned(),
            issuer: "tokens".to_owned(),
            by: "kim \"the\" reviewer".to_owned(),
            sight: None,
            preexisting: None,
            metrics: None,
            today: "2026-01-31".to_owned(),
        }
    }

    fn measured(seen: u64, unseen: u64) -> impl FnOnce(SocketAddr) -> io::Result<Figures> {
        let figures = Measured { seen, unseen, population: 200, ..Measured::default() };
        move |_| Ok(Figures::from([(("shop".to_owned(), "tokens".to_owned()), figures)]))
    }

    fn silent(_: SocketAddr) -> io::Result<Figures> {
        Err(io::ErrorKind::ConnectionRefused.into())
    }

    #[test]
    fn an_approval_takes_effect_and_can_be_replaced() {
        let (_folder, path) = folder();
        let config = config::load(&path).unwrap();
        assert!(!config.services[0].issuers[0].accountable());
        let approval = decide(&config, &asked(&path), measured(4995, 5)).unwrap();
        assert!((approval.confirmed.sight - 0.999).abs() < 1e-9);
        assert_eq!(approval.confirmed.preexisting, Some(400), "half again, and a hundred");
        write_approval(&config.approvals, &approval).unwrap();

        let report = config::examine(&path);
        assert!(report.warnings.iter().all(|note| !note.message.contains("has no effect")), "{:?}", report.warnings);
        let config = report.config.unwrap();
        let issuer = &config.services[0].issuers[0];
        assert!(issuer.accountable());
        assert_eq!(issuer.confirmed.as_ref(), Some(&approval.confirmed));
        assert_eq!(issuer.horizon_budget(), Some(400));
        assert!(!config.services[0].issuers[1].accountable());

        let again = Approve { sight: Some(0.97), preexisting: Some(7), ..asked(&path) };
        let approval = decide(&config, &again, silent).unwrap();
        write_approval(&config.approvals, &approval).unwrap();
        let text = fs::read_to_string(&config.approvals).unwrap();
        assert_eq!(text.matches("[[approval]]").count(), 1, "{text}");
        let config = config::load(&path).unwrap();
        assert_eq!(config.services[0].issuers[0].horizon_budget(), Some(7));
    }

    #[test]
    fn what_is_not_approved() {
        let (_folder, path) = folder();
        let config = config::load(&path).unwrap();
        let refused = |asked: Approve, ask: Box<dyn FnOnce(SocketAddr) -> io::Result<Figures>>| {
            decide(&config, &asked, ask).unwrap_err().to_string()
        };
        let plain = || asked(&path);
        assert!(refused(plain(), Box::new(silent)).contains("cannot be asked at http://127.0.0.1:9464/metrics"));
        assert!(refused(plain(), Box::new(measured(900, 0))).starts_with("only 900 credentials"));
        assert!(refused(plain(), Box::new(measured(980, 20))).contains("the issuance of 0.9800 of"));
        let wrong = Approve { issuer: "token".to_owned(), ..plain() };
        assert!(refused(wrong, Box::new(silent)).ends_with("Did you mean `tokens`."));
        let wrong = Approve { service: "shpo".to_owned(), ..plain() };
        assert!(refused(wrong, Box::new(silent)).ends_with("Did you mean `shop`."));
        let part = Approve { issuer: "sessions".to_owned(), ..plain() };
        assert!(refused(part, Box::new(silent)).contains("not declared as `observed = \"all\"`"));
        let share = Approve { sight: Some(99.8), ..plain() };
        assert!(refused(share, Box::new(silent)).contains("is not a share"));
        let nobody = Approve { by: "\n".to_owned(), sight: Some(1.0), ..plain() };
        assert!(refused(nobody, Box::new(silent)).contains("is not usable as a name"));
        fs::write(
            &path,
            CONFIG.replace(
                "observed = \"all\"",
                "observed = \"all\"\nconfirmed = { sight = 1.0, by = \"k\", on = 2026-01-31 }",
            ),
        )
        .unwrap();
        let config = config::load(&path).unwrap();
        let error = decide(&config, &asked(&path), measured(5000, 0)).unwrap_err().to_string();
        assert!(error.contains("has a `confirmed` table"), "{error}");
    }

    #[test]
    fn mistakes_in_approvals_are_told_with_their_line() {
        let (folder, path) = folder();
        let approvals = folder.path().join("approvals.toml");
        let errors = |text: &str| {
            fs::write(&approvals, text).unwrap();
            let report = config::examine(&path);
            report.errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let found =
            errors("[[approval]]\nservice = \"shop\"\nissuer = \"tokens\"\nsight = 2\nby = \"k\"\non = 2026-01-31\n");
        assert!(
            found.len() == 1 && found[0].contains("approvals.toml:4:9: `approval.sight` is not a share."),
            "{found:?}"
        );
        let found = errors("[[aproval]]\n");
        assert!(found.len() == 1 && found[0].contains("approvals.toml:1:3: unknown key `aproval`"), "{found:?}");
        assert!(errors("= 1")[0].contains("approvals.toml:1:1: this is not valid TOML"));
        let entry = "[[approval]]\nservice = \"shop\"\nissuer = \"old\"\nsight = 1.0\nby = \"k\"\non = 2026-01-31\n";
        assert_eq!(errors(entry), [""; 0]);
        let notes = config::examine(&path).warnings;
        assert!(notes.iter().any(|note| note.message.contains("approves the issuer `old` of `shop`")), "{notes:?}");
        // A broken file is not overwritten.
        fs::write(&approvals, "= 1").unwrap();
        let confirmed = Confirmation { sight: 1.0, by: "k".into(), on: "2026-01-31".into(), ..Confirmation::default() };
        let approval = Approval { service: "shop".into(), issuer: "tokens".into(), confirmed };
        assert!(write_approval(&approvals, &approval).is_err());
        assert_eq!(fs::read_to_string(&approvals).unwrap(), "= 1");
    }

    #[test]
    fn the_list_shows_what_is_measured_and_confirmed() {
        let (_folder, path) = folder();
        let config = config::load(&path).unwrap();
        let mut out = Vec::new();
        write_list(&config, &measured(999, 1)(config.metrics_listen).unwrap(), &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("service  issuer    declared  sight   seen  unseen  preexisting  confirmed"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("shop     tokens    all       0.9990  999   1       200          no: unknown"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("shop     sessions  part      -       -     -       -            no: unknown"),
            "{text}"
        );
    }

    #[test]
    fn an_address_that_stands_for_all_is_asked_at_the_loopback() {
        assert_eq!(reachable("0.0.0.0:5".parse().unwrap()), "127.0.0.1:5".parse().unwrap());
        assert_eq!(reachable("[::]:5".parse().unwrap()), "[::1]:5".parse().unwrap());
    }
}
