//! Issuers as configured: which credentials are theirs, how long these live, and how much of the issuing is seen.
//!
//! Made by `config::issuer`, `config::register` and the file of approvals; read by the ledger and by what measures sight.

use std::time::Duration;

use super::Place;

/// Who hands credentials out.
#[derive(Clone, Debug, Default)]
pub struct Issuer {
    /// Name: label in rules, metrics and findings.
    pub name: String,
    /// `iss` claim that its tokens carry; none: tokens without `iss`, or opaque credentials.
    pub iss: Option<String>,
    /// `kid`s registered for it; empty: any.
    pub kids: Vec<Kid>,
    /// Which `kid`, `iss`, `aud` and `scope` go together; empty: any.
    pub combinations: Vec<Combination>,
    /// Its tokens always carry `exp`.
    pub expires: bool,
    /// How long after `exp` its tokens are still accepted.
    pub expiry_grace: Duration,
    /// The claim that names whose a token is; none: its tokens name nobody.
    pub subject: Option<String>,
    /// Places where its credentials stand; empty: any.
    pub places: Vec<Place>,
    /// True for JWTs, false for opaque credentials.
    pub jwt: bool,
    /// How much of its issuing passes the sensor.
    pub observed: Observed,
    /// The operator's confirmation, without which `all` does not take effect.
    pub confirmed: Option<Confirmation>,
    /// Longest lifetime of its credentials.
    pub max_lifetime: Duration,
    /// Most distinct credentials that may be older than the horizon; none: as many as come.
    pub preexisting: Option<u64>,
    /// Cookies (indexes) that any response may rewrite; the child inherits its parent's provenance.
    pub renews: Vec<u8>,
    /// How long a renewed parent stays valid.
    pub renew_grace: Duration,
}

/// A registered signing key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kid {
    /// The `kid` header parameter (RFC 7515 §4.1.4).
    pub kid: String,
    /// Who answers for it: a person or a team.
    pub owner: Option<String>,
    /// When it was made, seconds since 1970.
    pub created_unix: Option<u64>,
    /// Since when it must not be used, seconds since 1970.
    pub retired_unix: Option<u64>,
    /// Since when its owner is gone, seconds since 1970.
    pub owner_left_unix: Option<u64>,
}

/// Claims that were registered together. What is not stated may be anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Combination {
    /// `kid`
    pub kid: Option<String>,
    /// `iss`
    pub iss: Option<String>,
    /// `aud`: all of it, words sorted and joined by a space.
    pub aud: Option<String>,
    /// `scope`, likewise.
    pub scope: Option<String>,
}

/// Declared sight of an issuer's issuances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Observed {
    /// Every issuance passes the sensor.
    All,
    /// Some do (the default).
    #[default]
    Part,
    /// None do.
    None,
}

/// An operator's confirmation of the measured sight.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Confirmation {
    /// Share of newly used credentials whose issuance was seen, 0–1, as measured.
    pub sight: f64,
    /// Who confirmed it.
    pub by: String,
    /// When, `YYYY-MM-DD`.
    pub on: String,
    /// Distinct credentials that may be older than the horizon, as measured.
    pub preexisting: Option<u64>,
    /// It stands in the file of approvals, not in the configuration.
    pub approved: bool,
}

impl Issuer {
    /// True when an unknown credential of this issuer may be called `unissued`.
    pub fn accountable(&self) -> bool {
        self.observed == Observed::All && self.confirmed.is_some()
    }

    /// Most distinct credentials that may be older than the horizon: as stated, else as confirmed.
    pub fn horizon_budget(&self) -> Option<u64> {
        self.preexisting.or(self.confirmed.as_ref().and_then(|confirmed| confirmed.preexisting))
    }
}
