//! What the judged credential says of itself, as observation fields: the registered claims of a JWT (RFC 7519 §4.1) and
//! what follows from them. Filled by [`crate::collect`] from what [`crate::ledger`] decoded; read by rules.

use serde::{Deserialize, Serialize};

use super::{AccountHash, Interned};

/// Claims of the judged credential. Everything is `None` for a credential that is no readable JWT.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// `iss`
    pub iss: Option<Interned>,
    /// `alg` of the header
    pub alg: Option<Interned>,
    /// `aud`; several are one name: sorted, joined by a space.
    pub aud: Option<Interned>,
    /// `scope` (RFC 8693 §4.2) or `scp`, a text or an array: its words sorted, joined by a space.
    pub scope: Option<Interned>,
    /// `sub`, as a keyed hash.
    pub sub: Option<AccountHash>,
    /// `jti`, as a keyed hash.
    pub jti: Option<AccountHash>,
    /// `iat`, seconds since 1970.
    pub iat: Option<i64>,
    /// `exp`, seconds since 1970.
    pub exp: Option<i64>,
    /// `nbf`, seconds since 1970.
    pub nbf: Option<i64>,
    /// Time of use minus `iat`, seconds; negative: issued in the future.
    pub age_s: Option<i64>,
    /// `exp` minus `iat`, seconds.
    pub lifetime_s: Option<i64>,
    /// Time of use minus the retirement of its key, seconds; `None`: not retired, or no such key.
    pub key_retired_s: Option<i64>,
}

impl Claims {
    /// Of a credential that is no readable JWT.
    pub const NONE: Self = Self {
        iss: None,
        alg: None,
        aud: None,
        scope: None,
        sub: None,
        jti: None,
        iat: None,
        exp: None,
        nbf: None,
        age_s: None,
        lifetime_s: None,
        key_retired_s: None,
    };
}

/// Which table of interned names an [`Interned`] belongs to: each has numbers of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimName {
    /// `kid` of the header.
    Kid,
    /// `iss`
    Iss,
    /// `alg` of the header.
    Alg,
    /// `aud`
    Aud,
    /// `scope`
    Scope,
}

impl ClaimName {
    /// All of them; the discriminant is the index.
    pub const ALL: [Self; 5] = [Self::Kid, Self::Iss, Self::Alg, Self::Aud, Self::Scope];
}

/// What is odd about the claims of a credential: bits, and their names in rules and findings.
pub mod claim_anomaly {
    /// `iat` lies in the future, beyond the clock leeway.
    pub const IAT_FUTURE: u16 = 1;
    /// `iat` lies before the key was created.
    pub const IAT_BEFORE_KEY: u16 = 1 << 1;
    /// `exp` lies further behind `iat` (or, without that, behind the time of use) than the issuer's longest lifetime, or
    /// there is no `exp` where the issuer always sets one.
    pub const OVERLONG: u16 = 1 << 2;
    /// Used before its `nbf`.
    pub const NBF_FUTURE: u16 = 1 << 3;
    /// The key is not registered, while others are.
    pub const KEY_UNKNOWN: u16 = 1 << 4;
    /// The key is retired.
    pub const KEY_RETIRED: u16 = 1 << 5;
    /// The key's owner has left.
    pub const KEY_OWNER_LEFT: u16 = 1 << 6;
    /// (`kid`, `iss`, `aud`, `scope`) were never registered together: none of the issuer's combinations fits, or the key
    /// is registered for another `iss` and not for this one.
    pub const COMBINATION: u16 = 1 << 7;
    /// Two credentials of one request name different subjects.
    pub const SUBJECTS_DIFFER: u16 = 1 << 8;

    /// It may be older than the horizon, and as many credentials as could be were taken for that before: the budget is
    /// spent.
    pub const HORIZON_SPENT: u16 = 1 << 9;
    /// Its issuance may have been lost in a gap, and as many credentials as were lost there were excused before.
    pub const GAP_SPENT: u16 = 1 << 10;
    /// Its issuance may have been lost in a gap, or while its source was silent, and it is within the budget of that.
    pub const EXCUSED: u16 = 1 << 11;
    /// It ended longer ago than the ledger remembers issuances, so whether it was issued cannot be known.
    pub const FORGOTTEN: u16 = 1 << 12;

    /// Names by bit, lowest first.
    pub const NAMES: &[&str] = &[
        "iat_future",
        "iat_before_key",
        "overlong",
        "nbf_future",
        "key_unknown",
        "key_retired",
        "key_owner_left",
        "combination",
        "subjects_differ",
        "horizon_budget_spent",
        "gap_budget_spent",
        "excused",
        "forgotten",
    ];

    /// The names of the bits set in `bits`.
    pub fn names(bits: u16) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(bit, _)| bits >> bit & 1 == 1).map(|(_, name)| *name)
    }
}
