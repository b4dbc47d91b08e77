//! What the ledger tells metrics and people about itself.

use std::collections::BTreeMap;

use super::Presented;
use super::claims::Claims;
use super::facts::Facts;
use super::sight::{Compared, Sight};
use crate::observation::{Interned, IssuerId, ServiceId};

/// Kinds of unmatched credentials told apart.
const UNMATCHED_MAX: usize = 256;

/// Counts and sizes of the ledger. Counts run since the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerStats {
    /// Issuances kept, tombstones included.
    pub issuances: usize,
    /// Most issuances kept.
    pub capacity: usize,
    /// Credentials that became issued by a login.
    pub added: u64,
    /// Credentials that inherited from the one presented.
    pub inherited: u64,
    /// Issuances of credentials that the ledger knew.
    pub known: u64,
    /// Handed-out credentials that had been presented before, and so were not taken for issued.
    pub echoes: u64,
    /// Logouts of credentials that the ledger knows.
    pub revoked: u64,
    /// Logouts of credentials that the ledger does not know.
    pub revoked_unknown: u64,
    /// Issuances that had to go for want of room.
    pub evictions: u64,
    /// Those of tombstones: logged out, or past their end.
    pub tombstone_evictions: u64,
    /// Probability that a never-issued credential passes for an evicted one.
    pub eviction_false_positives: f64,
    /// Judgements of `unverifiable` because the credential may have been evicted.
    pub eviction_excused: u64,
    /// Presented credentials remembered that are not in the store.
    pub seen: usize,
    /// Those forgotten for want of room: their echo would be taken for an issuance.
    pub seen_evictions: u64,
    /// Uses of a credential of which another issuer than its own told.
    pub told_by_another: u64,
    /// Judgements on credentials after their logout or longest lifetime.
    pub used_after_end: u64,
    /// Judgements of `preexisting`.
    pub preexisting: u64,
    /// Gaps kept.
    pub gaps: usize,
    /// Issuances reported lost.
    pub gap_lost: u64,
    /// Credentials that the gaps can still excuse.
    pub gap_left: u64,
    /// Distinct credentials that gaps excused.
    pub gap_excused: u64,
    /// Judgements of `unverifiable` because of that.
    pub gap_excuses: u64,
    /// Judgements of `unissued` on credentials that a gap covers whose budget is spent.
    pub gap_refused: u64,
    /// Judgements on credentials of no declared issuer.
    pub unmatched: u64,
    /// Those beyond the bounded list.
    pub unmatched_overflow: u64,
    /// Judgements on credentials of schemes without a stable token.
    pub no_stable_token: u64,
    /// Claims decoded (misses of the cache).
    pub claims_decoded: u64,
    /// Claims forgotten for want of room.
    pub claims_evictions: u64,
    /// Distinct `kid`s told apart.
    pub kids: usize,
    /// Occurrences of `kid`s beyond that bound.
    pub kids_overflow: u64,
    /// By issuer, in configuration order.
    pub issuers: Vec<IssuerStats>,
    /// The folder, if the ledger has one.
    pub folder: Option<FolderStats>,
}

/// The ledger's folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FolderStats {
    /// Bytes on disk.
    pub bytes: u64,
    /// When everything before was durable, seconds since 1970.
    pub durable_unix: i64,
    /// Writes lost because the disk did not follow.
    pub writes_lost: u64,
    /// Writes that the disk refused.
    pub writes_failed: u64,
    /// Accounts asked for.
    pub asked: u64,
    /// Those for which the queue was full.
    pub asks_lost: u64,
}

/// One issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuerStats {
    /// Its service.
    pub service: ServiceId,
    /// The issuer.
    pub issuer: IssuerId,
    /// Whether an unknown credential of it may be called `unissued`.
    pub accountable: bool,
    /// Since when its issuances have been watched, seconds since 1970.
    pub horizon_unix: i64,
    /// When the longest lifetime has been watched, seconds since 1970: no credential is `preexisting` after it.
    pub complete_unix: i64,
    /// Newly used credentials of the last day.
    pub sight: Sight,
    /// The same against the day before.
    pub compared: Compared,
    /// Distinct credentials so far that may be older than the horizon, within 2 %.
    pub population: u64,
    /// Most of them.
    pub population_budget: Option<u64>,
    /// Those beyond.
    pub population_exceeded: u64,
}

/// A kind of credential that matches no declared issuer. Its texts come from traffic, cut and made printable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmatched<'a> {
    /// The service.
    pub service: ServiceId,
    /// One of `sensor_ebpf::wire::place`.
    pub place: u8,
    /// Which of the configured names of that place (of a cookie: the cookie).
    pub index: u8,
    /// `iss`, if it has one.
    pub iss: Option<&'a str>,
    /// `kid`, if it has one.
    pub kid: Option<&'a str>,
    /// Times judged.
    pub count: u64,
}

type Kind = (ServiceId, u8, u8, Option<Interned>, Option<Interned>);

/// The bounded list of unmatched kinds.
#[derive(Debug, Default)]
pub struct UnmatchedList {
    kinds: BTreeMap<Kind, u64>,
    /// Judgements on unmatched credentials.
    pub total: u64,
    /// Those of kinds beyond the bound.
    pub overflow: u64,
}

impl UnmatchedList {
    /// Counts one.
    pub fn count(&mut self, presented: &Presented<'_>, facts: &Facts) {
        self.total += 1;
        let kind = (presented.service, presented.place, presented.index, facts.claims.iss, facts.kid);
        if let Some(count) = self.kinds.get_mut(&kind) {
            *count += 1;
        } else if self.kinds.len() < UNMATCHED_MAX {
            self.kinds.insert(kind, 1);
        } else {
            self.overflow += 1;
        }
    }

    /// The list, in a stable order.
    pub fn iter<'a>(&'a self, claims: &'a Claims) -> impl Iterator<Item = Unmatched<'a>> {
        self.kinds.iter().map(|(&(service, place, index, iss, kid), &count)| Unmatched {
            service,
            place,
            index,
            iss: iss.map(|iss| claims.seen.iss.show(iss)),
            kid: kid.map(|kid| claims.seen.kids.show(kid)),
            count,
        })
    }
}
