//! A finding: what a rule says when it fires. Made by [`crate::detect`], written by [`crate::finding::ocsf`].

use std::net::IpAddr;

use super::confidence::Confidence;
use crate::observation::{AccountHash, Fingerprint, Instant};

/// Severity, as Sigma names levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// For the record.
    Informational,
    /// Look at it some time.
    Low,
    /// Look at it today.
    Medium,
    /// Look at it now.
    High,
    /// Wake someone.
    Critical,
}

impl Level {
    /// All levels, lowest first.
    pub const ALL: &'static [Self] = &[Self::Informational, Self::Low, Self::Medium, Self::High, Self::Critical];

    /// The word in rules and metrics (Sigma's `level`).
    pub const fn label(self) -> &'static str {
        match self {
            Self::Informational => "informational",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }

    /// The level that `label` names.
    pub fn from_label(label: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|level| level.label() == label)
    }
}

/// What happened to a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// First report.
    Open,
    /// Its scope grew.
    Update,
    /// Nothing more was seen for the rule's window.
    Close,
}

/// Most of each list of a [`Scope`].
pub const SCOPE_MAX: usize = 64;

/// What a finding touches beside its group. Lists are bounded by [`SCOPE_MAX`]; credentials are those with the lowest
/// fingerprints, an unbiased sample.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `kid`s, in the order in which they were seen.
    pub kids: Vec<String>,
    /// Names of routes, in the order in which they were seen.
    pub routes: Vec<String>,
    /// Fingerprints, for revocation.
    pub credentials: Vec<Fingerprint>,
    /// Requests that the server may have read otherwise (`conflict`, `ambiguous`).
    pub doubtful: u64,
}

/// Why a report is worth an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertReason {
    /// It is new and belongs to no other.
    Opened,
    /// It is graver than what was told of the same thing.
    Graver,
    /// Ten times the size that was told.
    Tenfold,
    /// A `kid` that was not told.
    NewKid,
    /// A route that was not told.
    NewRoute,
}

impl AlertReason {
    /// In words.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Opened => "new finding",
            Self::Graver => "graver than what was known of the same thing",
            Self::Tenfold => "ten times the scope that was told",
            Self::NewKid => "a new signing key",
            Self::NewRoute => "a new route",
        }
    }
}

/// How a finding stands to others; filled by [`super::parents`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The finding that opened first about the same thing.
    pub parent: Option<String>,
    /// Why this report is worth an alert, if it is.
    pub alert: Option<AlertReason>,
}

/// One report of a finding.
#[derive(Clone, Debug)]
pub struct Finding {
    /// Stable id of the finding (the same in its updates), derived from rule, group and first observation.
    pub uid: String,
    /// What this report is.
    pub activity: Activity,
    /// Rule id (UUID) as in the rule file.
    pub rule_id: String,
    /// Rule title.
    pub title: String,
    /// Rule version (`modified` or `date` of the rule file, or a hash of it).
    pub rule_version: String,
    /// Rule description: the plain-language *why*.
    pub description: String,
    /// Sigma tags (`attack.t1606`, `owasp.api2`, `ismsp.2.11.3`).
    pub tags: Vec<String>,
    /// Severity.
    pub level: Level,
    /// The exception whose ceiling was reached: its title, owner and last day.
    pub exception: Option<String>,
    /// When this report was decided.
    pub at: Instant,
    /// First and last observation that count.
    pub first: Instant,
    /// Last one.
    pub last: Instant,
    /// The group: field name and value, in the rule's order (`service`, `issuer`, `kid`).
    pub group: Vec<(String, String)>,
    /// The counted field (`account`) and its distinct values.
    pub counted_field: String,
    /// Distinct values of it.
    pub distinct: u64,
    /// Distinct accounts that are known of.
    pub accounts: u64,
    /// True when `distinct`, `clients` and `accounts` are exact.
    pub exact: bool,
    /// Observations that count.
    pub observations: u64,
    /// Distinct client addresses (exact up to the bound).
    pub clients: u64,
    /// A sample of clients.
    pub client_sample: Vec<IpAddr>,
    /// The hashed accounts with the lowest hashes: an unbiased sample.
    pub account_sample: Vec<AccountHash>,
    /// Window of the rule, seconds.
    pub window_s: u64,
    /// Threshold that was reached.
    pub threshold: u64,
    /// What it touches.
    pub scope: Scope,
    /// How it stands to others.
    pub standing: Standing,
    /// How sure it is.
    pub confidence: Confidence,
}
