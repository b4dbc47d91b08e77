//! What is simulated: the keys of a scenario file, each with its default. A key that is not known is refused.

use std::fmt;
use std::path::Path;

use sensor::diagnostic::Diagnostic;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::world::DECOYS;

/// When something happens, in days from the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum When {
    /// Not at all.
    #[default]
    Never,
    /// So many times, spread over the days.
    Times(u32),
    /// On these days (with fractions).
    Days(Vec<f64>),
}

impl When {
    /// The moments, seconds from the start, of a simulation of `days`.
    pub fn seconds(&self, days: f64) -> Vec<f64> {
        match self {
            Self::Never => Vec::new(),
            Self::Times(count) => {
                (0..*count).map(|index| (f64::from(index) + 0.5) / f64::from(*count) * days * 86_400.0).collect()
            }
            Self::Days(days) => days.iter().map(|day| day * 86_400.0).collect(),
        }
    }
}

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($variant:ident = $word:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($variant,)* }
        impl $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant),)*];
        }
    };
}

words! {
    /// What the attack does.
    Kind {
        None = "none",
        ForgedTokens = "forged_tokens",
        BolaIssued = "bola_issued",
        NoCredential = "no_credential",
        StolenSession = "stolen_session",
        NonexistentMembers = "nonexistent_members",
        CredentialStuffing = "credential_stuffing",
    }
}
words! { AddressKind { Own = "own", SharedNat = "shared_nat", } }
words! { Order { Sequential = "sequential", Random = "random", } }
words! {
    /// What forged tokens say of when they were issued.
    ForgedIat { Now = "now", BeforeHorizon = "before_horizon", Copied = "copied", InGap = "in_gap", }
}
words! { Kid { Current = "current", Retired = "retired", Unknown = "unknown", OtherAudience = "other_audience", } }
words! {
    /// How a forged token is brought in.
    Via {
        Direct = "direct",
        Refresh = "refresh",
        Echo = "echo",
        DecoyCookie = "decoy_cookie",
        LogoutSpam = "logout_spam",
        LoginFlood = "login_flood",
    }
}
words! { Actor { None = "none", Member = "member", Partner = "partner", Staff = "staff", } }
words! { RouteChoice { Normal = "normal", Dormant = "dormant", } }

macro_rules! keys {
    ($(#[$meta:meta])* $name:ident, $list:ident { $($(#[$doc:meta])* $field:ident: $kind:ty = $default:expr,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Debug)]
        pub struct $name { $($(#[$doc])* pub $field: $kind,)* }
        impl Default for $name {
            fn default() -> Self { Self { $($field: $default,)* } }
        }
        /// The keys.
        const $list: &[&str] = &[$(stringify!($field),)*];
        impl $name {
            fn take(&mut self, key: &str, value: &DeValue<'_>) -> Option<Result<(), String>> {
                $(if key == stringify!($field) {
                    return Some(Take::take(value).map(|value| self.$field = value));
                })*
                None
            }
        }
    };
}

keys! {
    /// The service and its members.
    Scenario, MEMBER_KEYS {
        /// Every draw follows from it.
        seed: u64 = 1,
        /// Days simulated.
        days: f64 = 2.0,
        /// Members that exist.
        members: u64 = 1_000_000,
        /// Share of the members who come on a day.
        daily_active_share: f64 = 0.25,
        /// Visits of such a member on that day; each begins with a login, or, in the app, with a refresh.
        logins_per_active_day: f64 = 2.0,
        /// Account pages read in a visit, on average.
        reads_per_session: f64 = 20.0,
        /// Life of an access token, seconds.
        token_lifetime_s: f64 = 3600.0,
        /// Life of a refresh token, seconds.
        refresh_lifetime_s: f64 = 2_592_000.0,
        /// Share of members with the app, which stays logged in by a refresh token (true: four in ten).
        refresh: AppShare = AppShare(0.4),
        /// Share of members with an opaque session cookie.
        opaque_share: f64 = 0.2,
        /// Share of members with a cookie that answers renew.
        rolling_cookie_share: f64 = 0.05,
        /// Share of members who log in at a sister company, out of the sensor's sight.
        offhost_issuer_share: f64 = 0.02,
        /// Share of visits that are own services' calls, with tokens that they mint for each other.
        internal_minted_share: f64 = 0.01,
        /// The service answers 200 with an error page where others answer 404.
        soft_200: bool = false,
        /// Share of logins with a second step (true: a half).
        multi_step_login: HalfShare = HalfShare(0.0),
        /// Sign-ups a day; new members have the next free numbers.
        signups_per_day: f64 = 1000.0,
        /// Share of member numbers that are given up.
        withdrawn_share: f64 = 0.1,
        /// Share of members behind carriers' addresses, five thousand to each.
        nat_share: f64 = 0.3,
        /// Customer-service staff, who read members' pages in office hours.
        staff: u32 = 50,
        /// Partner services, each with one key.
        partners: u32 = 3,
        /// Crawlers of product pages.
        crawlers: u32 = 4,
        /// Decoys: numbers that are nobody's, at most 200, whose pages answer like any member's.
        canaries: Canaries = Canaries(0),
        /// Push messages: one in twenty active members opens the app within minutes.
        push_bursts: When = When::Never,
        /// Deploys: for a minute answers fail.
        deploys: When = When::Never,
        /// New signing keys.
        key_rotations: When = When::Never,
        /// Logins move to a path that the configuration does not know.
        login_path_change: When = When::Never,
        /// Everybody logs in again.
        login_storm: When = When::Never,
        /// The sensor is killed and starts again.
        sensor_restarts: When = When::Never,
        /// Seconds of traffic that the sensor loses, and knows that it does: half a day before the attack, or half a day
        /// after the start.
        gap_seconds: f64 = 0.0,
        /// Outages of the login service, twenty minutes each.
        issuer_outages: When = When::Never,
        /// Share of issuances that the sensor misses for no known reason.
        unexplained_miss_rate: f64 = 1e-6,
        /// How far the issuer's clock is ahead, or, below nought, behind, milliseconds.
        clock_skew_ms: i64 = 0,
    }
}

keys! {
    /// The attack.
    Attack, ATTACK_KEYS {
        kind: Kind = Kind::None,
        /// When it begins, days from the start.
        start_day: f64 = 1.0,
        /// How long it takes, seconds.
        span_s: f64 = 86_400.0,
        /// Accounts that it goes for.
        accounts: u64 = 10_000,
        /// Pages that it reads of each.
        views_per_account: f64 = 1.0,
        /// Addresses from which it comes.
        addresses: u64 = 100,
        /// Whose addresses these are.
        address_kind: AddressKind = AddressKind::Own,
        /// Requests a second for accounts that exist (0: as many as the span asks for).
        requests_per_second: f64 = 0.0,
        /// Requests a second for accounts that do not.
        nonexistent_per_second: f64 = 0.0,
        order: Order = Order::Sequential,
        forged_iat: ForgedIat = ForgedIat::Now,
        kid: Kid = Kid::Current,
        via: Via = Via::Direct,
        actor: Actor = Actor::None,
        route: RouteChoice = RouteChoice::Normal,
        /// Each address logs in with an account of its own first.
        own_login_first: bool = false,
    }
}

/// A share that may be written as true or false.
#[derive(Clone, Copy, Debug)]
pub struct AppShare(pub f64);
/// A share that may be written as true or false.
#[derive(Clone, Copy, Debug)]
pub struct HalfShare(pub f64);

/// How many decoys there are.
#[derive(Clone, Copy, Debug)]
pub struct Canaries(pub u32);

/// A value of a scenario file.
trait Take: Sized {
    fn take(value: &DeValue<'_>) -> Result<Self, String>;
}

fn number(value: &DeValue<'_>) -> Option<f64> {
    signed(value).filter(|number| *number >= 0.0)
}

fn signed(value: &DeValue<'_>) -> Option<f64> {
    match value {
        DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|n| n as f64),
        DeValue::Float(float) => float.as_str().parse().ok(),
        _ => None,
    }
    .filter(|number: &f64| number.is_finite())
}

impl Take for f64 {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        number(value).ok_or_else(|| "a number that is not negative".to_owned())
    }
}

impl Take for u64 {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        number(value)
            .filter(|n| n.fract() == 0.0 && *n < 1e15)
            .map(|n| n as Self)
            .ok_or_else(|| "a whole number".to_owned())
    }
}

impl Take for u32 {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        let whole = u64::take(value)?;
        Self::try_from(whole).map_err(|_| "a whole number below 4294967296".to_owned())
    }
}

impl Take for Canaries {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        let count = u32::take(value).ok().filter(|count| u64::from(*count) <= DECOYS);
        count.map(Self).ok_or_else(|| format!("a whole number of at most {DECOYS}"))
    }
}

impl Take for i64 {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        let number = signed(value).filter(|number| number.abs() <= 1e12);
        number.map(|number| number as Self).ok_or_else(|| "a number, at most a million million".to_owned())
    }
}

impl Take for bool {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| "true or false".to_owned())
    }
}

fn share(value: &DeValue<'_>, yes: f64) -> Result<f64, String> {
    let given = value.as_bool().map(|flag| if flag { yes } else { 0.0 }).or_else(|| number(value));
    given.filter(|share| *share <= 1.0).ok_or_else(|| "true, false, or a share of at most 1".to_owned())
}

impl Take for AppShare {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        share(value, 0.4).map(Self)
    }
}

impl Take for HalfShare {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        share(value, 0.5).map(Self)
    }
}

impl Take for When {
    fn take(value: &DeValue<'_>) -> Result<Self, String> {
        let wanted = || "how many times, true, false, or an array of days".to_owned();
        match value {
            DeValue::Boolean(true) => Ok(Self::Times(1)),
            DeValue::Boolean(false) => Ok(Self::Never),
            DeValue::Array(days) => {
                let days: Option<Vec<f64>> = days.iter().map(|day| number(day.get_ref())).collect();
                days.map(Self::Days).ok_or_else(wanted)
            }
            other => match number(other) {
                Some(0.0) => Ok(Self::Never),
                // A fraction of an event is a day that it may happen on.
                Some(count) if count <= 1e4 => Ok(Self::Times(count.ceil() as u32)),
                _ => Err(wanted()),
            },
        }
    }
}

macro_rules! take_words {
    ($($name:ident)*) => { $(
        impl Take for $name {
            fn take(value: &DeValue<'_>) -> Result<Self, String> {
                let known = || Self::WORDS.iter().map(|(word, _)| format!("\"{word}\"")).collect::<Vec<_>>().join(", ");
                let found = value.as_str().and_then(|text| Self::WORDS.iter().find(|(word, _)| *word == text));
                found.map(|(_, value)| *value).ok_or_else(|| format!("one of {}", known()))
            }
        }
    )* };
}
take_words!(Kind AddressKind Order ForgedIat Kid Via Actor RouteChoice);

/// What stands in a scenario file.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The service and its members.
    pub members: Scenario,
    /// The attack.
    pub attack: Attack,
}

/// Mistakes in a scenario file.
#[derive(Debug)]
pub struct Mistakes(pub Vec<Diagnostic>);

impl std::error::Error for Mistakes {}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl Plan {
    /// Reads `text`, the content of the file at `path`.
    pub fn read(path: &Path, text: &str) -> Result<Self, Mistakes> {
        let mistake = |at: usize, message: String, fix: String| {
            let before = text.get(..at).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
            Diagnostic { file: path.to_owned(), line, column, message, fix }
        };
        let tree = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let message = format!("this is not valid TOML: {}", error.message().replace('\n', " "));
            Mistakes(vec![mistake(at, message, "Correct the syntax here".to_owned())])
        })?;
        let mut plan = Self::default();
        let mut mistakes = Vec::new();
        let mut judge = |key: &Spanned<_>, value: &Spanned<DeValue<'_>>, known: &[&str], taken| match taken {
            Some(Ok(())) => {}
            Some(Err(wanted)) => {
                let message = format!("`{}` is not {wanted}", key.get_ref() as &dyn fmt::Display);
                mistakes.push(mistake(value.span().start, message, format!("Write {wanted}")));
            }
            None => {
                let message = format!("unknown key `{}`", key.get_ref() as &dyn fmt::Display);
                mistakes.push(mistake(key.span().start, message, format!("Keys are {}", known.join(", "))));
            }
        };
        for (key, value) in tree.get_ref() {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("attack", DeValue::Table(table)) => {
                    for (key, value) in table {
                        let taken = plan.attack.take(key.get_ref(), value.get_ref());
                        judge(key, value, ATTACK_KEYS, taken);
                    }
                }
                (name, found) => judge(key, value, MEMBER_KEYS, plan.members.take(name, found)),
            }
        }
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        if mistakes.is_empty() { Ok(plan) } else { Err(Mistakes(mistakes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_default_and_unknown_ones_are_refused() {
        let plan = Plan::read(Path::new("s"), "").unwrap();
        assert_eq!((plan.members.seed, plan.attack.kind), (1, Kind::None));
        let behind = Plan::read(Path::new("s"), "clock_skew_ms = -1500").unwrap();
        assert_eq!(behind.members.clock_skew_ms, -1500);
        assert!(Plan::read(Path::new("s"), "days = -1").is_err());
        let text =
            "seed = 3\nrefresh = true\ndeploys = [0.5, 1]\nmemebrs = 4\n[attack]\nkind = \"forged\"\nviews = 2\n";
        let mistakes = Plan::read(Path::new("s.toml"), text).unwrap_err().to_string();
        let lines: Vec<&str> = mistakes.lines().collect();
        assert_eq!(lines.len(), 3, "{mistakes}");
        assert!(lines[0].starts_with("s.toml:4:1: unknown key `memebrs`"), "{mistakes}");
        assert!(lines[1].starts_with("s.toml:6:8: `kind` is not one of \"none\""), "{mistakes}");
        assert!(lines[2].starts_with("s.toml:7:1: unknown key `views`"), "{mistakes}");
    }

    #[test]
    fn moments() {
        assert_eq!(When::Times(2).seconds(2.0), [43_200.0, 129_600.0]);
        assert_eq!(When::Days(vec![0.5]).seconds(2.0), [43_200.0]);
        assert!(When::Never.seconds(2.0).is_empty());
    }
}
