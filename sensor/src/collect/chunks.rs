//! Credentials that servers cut into several cookies (`SESSION.0`, `SESSION.1`, ...), joined.
//!
//! The kernel fingerprints each cookie by itself. Before a head is looked at, the pieces of a declared cookie become one
//! credential, whose fingerprint is a keyed hash over theirs in the declared order: the same whether the server hands
//! them out or the client presents them, as long as both cut alike, which a client that repeats cookies does. The whole
//! value never comes together, so such a credential has no claims and is taken for opaque.

use std::mem::{offset_of, size_of};

use sensor_ebpf::siphash::{self, hash128};
use sensor_ebpf::wire::{CREDENTIALS_MAX, Credential, HeadRecord, RecordHead, kind, place};

use super::Clock;
use super::decode::{Head, Record, decode};
use super::secret::SecretBuf;
use crate::config::model::{Config, Pieces};

const CREDENTIAL: usize = size_of::<Credential>();
/// Keeps hashes over fingerprints apart from those over credentials.
const DOMAIN: &[u8] = b"pieces\0";

/// The declared cookies that come in pieces, by service.
#[derive(Debug)]
pub(super) struct Chunks {
    services: Vec<Vec<Pieces>>,
    any: bool,
}

/// A piece that stands in a record.
#[derive(Clone, Copy, Default)]
struct Piece {
    /// Its place among the record's credentials.
    at: usize,
    /// Its place among the cookie's pieces.
    order: usize,
    credential: Credential,
}

impl Chunks {
    pub fn new(config: &Config) -> Self {
        let services: Vec<_> = config.services.iter().map(|service| service.credentials.pieces.clone()).collect();
        Self { any: services.iter().any(|pieces| !pieces.is_empty()), services }
    }

    /// True when some cookie comes in pieces.
    pub fn any(&self) -> bool {
        self.any
    }

    /// Joins what `record` holds in pieces.
    pub fn join(&self, record: &mut SecretBuf, clock: Clock, key: siphash::Key) {
        if !self.any {
            return;
        }
        let Some(service) = self.service_of(record.as_slice()) else { return };
        for pieces in service {
            let joined = match decode(record.as_slice()) {
                Ok(Record::Request(head) | Record::Version(head)) => joined(&head, pieces, place::COOKIE, clock, key),
                Ok(Record::Response(head)) => joined(&head, pieces, place::SET_COOKIE, clock, key),
                _ => return,
            };
            if let Some((credential, found)) = joined {
                replace(record, &credential, found.as_slice());
            }
        }
    }

    fn service_of(&self, record: &[u8]) -> Option<&[Pieces]> {
        let kind = *record.get(offset_of!(RecordHead, kind))?;
        if !matches!(kind, kind::REQUEST | kind::VERSION | kind::RESPONSE) {
            return None;
        }
        let at = offset_of!(RecordHead, service);
        let service = u16::from_le_bytes(record.get(at..at + 2)?.try_into().ok()?);
        self.services.get(usize::from(service)).map(Vec::as_slice).filter(|pieces| !pieces.is_empty())
    }
}

/// The pieces of one cookie in one record.
#[derive(Default)]
struct Found {
    pieces: [Piece; CREDENTIALS_MAX],
    len: usize,
}

impl Found {
    fn push(&mut self, piece: Piece) {
        if let Some(free) = self.pieces.get_mut(self.len) {
            *free = piece;
            self.len += 1;
        }
    }

    fn as_slice(&self) -> &[Piece] {
        self.pieces.get(..self.len).unwrap_or_default()
    }

    /// A keyed hash over their fingerprints in the declared order.
    fn fingerprint(&self, key: siphash::Key) -> [u8; 16] {
        const EACH: usize = 17;
        let mut text = [0; DOMAIN.len() + CREDENTIALS_MAX * EACH];
        let (domain, rest) = text.split_at_mut(DOMAIN.len());
        domain.copy_from_slice(DOMAIN);
        let mut in_order = self.pieces;
        let in_order = in_order.get_mut(..self.len).unwrap_or_default();
        // Stable: of two with one name, the one that stands first.
        in_order.sort_by_key(|piece| piece.order);
        for (to, piece) in rest.chunks_exact_mut(EACH).zip(in_order.iter()) {
            if let Some((order, fingerprint)) = to.split_first_mut() {
                *order = u8::try_from(piece.order).unwrap_or(u8::MAX);
                fingerprint.copy_from_slice(&piece.credential.fingerprint);
            }
        }
        hash128(key, text.get(..DOMAIN.len() + in_order.len() * EACH).unwrap_or_default())
    }
}

/// The credential that the pieces make, and the pieces, in the order of the record. `None` where the cookie came whole, or
/// not at all. Pieces that a response deletes are none.
fn joined(
    head: &Head<'_>,
    pieces: &Pieces,
    wanted: u8,
    clock: Clock,
    key: siphash::Key,
) -> Option<(Credential, Found)> {
    let at = clock.instant(head.fixed.head.time_ns);
    let mut found = Found::default();
    for (at_record, credential) in head.credentials().enumerate() {
        let order = pieces.cookies.iter().position(|index| *index == credential.index);
        if let Some(order) = order.filter(|_| credential.place == wanted && !head.forgotten(&credential, at)) {
            found.push(Piece { at: at_record, order, credential });
        }
    }
    let all = found.as_slice();
    let first = *all.first()?;
    if all.iter().all(|piece| piece.order == 0) {
        return None;
    }
    let credential = Credential {
        fingerprint: found.fingerprint(key),
        len: all.iter().fold(0, |len, piece| piece.credential.len.saturating_add(len)),
        place: wanted,
        index: *pieces.cookies.first()?,
        ..Credential { cut_at: first.credential.cut_at, ..Credential::default() }
    };
    Some((credential, found))
}

/// Writes `credential` over the first of `found` and takes the others out of the record.
fn replace(record: &mut SecretBuf, credential: &Credential, found: &[Piece]) {
    let place_of = |piece: &Piece| size_of::<HeadRecord>() + piece.at * CREDENTIAL;
    let Some((first, others)) = found.split_first() else { return };
    write(record, place_of(first), credential);
    for piece in others.iter().rev() {
        let from = place_of(piece);
        let len = record.len();
        if from + CREDENTIAL > len {
            return;
        }
        record.as_mut_slice().copy_within(from + CREDENTIAL.., from);
        record.resize(len - CREDENTIAL);
    }
    let removed = u16::try_from(others.len()).unwrap_or(0);
    let size = u32::try_from(record.len()).unwrap_or(0);
    let bytes = record.as_mut_slice();
    let at = offset_of!(HeadRecord, credentials);
    if let Some(count) = bytes.get_mut(at..at + 2).and_then(|bytes| <&mut [u8; 2]>::try_from(bytes).ok()) {
        *count = u16::from_le_bytes(*count).saturating_sub(removed).to_le_bytes();
    }
    let at = offset_of!(RecordHead, size);
    if let Some(field) = bytes.get_mut(at..at + 4) {
        field.copy_from_slice(&size.to_le_bytes());
    }
}

fn write(record: &mut SecretBuf, at: usize, credential: &Credential) {
    let Some(bytes) = record.as_mut_slice().get_mut(at..at + CREDENTIAL) else { return };
    bytes.fill(0);
    let fields: [(usize, &[u8]); 5] = [
        (offset_of!(Credential, fingerprint), &credential.fingerprint),
        (offset_of!(Credential, len), &credential.len.to_le_bytes()),
        (offset_of!(Credential, place), &[credential.place]),
        (offset_of!(Credential, index), &[credential.index]),
        (offset_of!(Credential, cut_at), &credential.cut_at.to_le_bytes()),
    ];
    for (at, value) in fields {
        if let Some(field) = bytes.get_mut(at..at + value.len()) {
            field.copy_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests {
    use sensor_ebpf::wire::credential_flag;

    use super::super::testing::{self, CLOCK, KEYS, RecordBuilder as R, fingerprint, run_with};
    use super::*;
    use crate::observation::Provenance;

    /// `sid` also comes as `sid.0` and `sid.1`.
    fn config() -> Config {
        let mut config = testing::config();
        let credentials = &mut config.services[0].credentials;
        credentials.cookies = ["sid", "roll", "sid.0", "sid.1"].map(str::to_owned).to_vec();
        credentials.pieces = vec![Pieces { cookies: vec![0, 2, 3] }];
        config
    }

    fn fingerprints(record: R) -> Vec<(u8, [u8; 16])> {
        let mut bytes = SecretBuf::default();
        bytes.push(&record.build());
        Chunks::new(&config()).join(&mut bytes, CLOCK, KEYS.fingerprint);
        let Ok(Record::Request(head) | Record::Response(head)) = decode(bytes.as_slice()) else { panic!() };
        head.credentials().map(|one| (one.index, one.fingerprint)).collect()
    }

    fn request() -> R {
        R::request(1, 0, 0, "GET /mine HTTP/1.1")
    }

    #[test]
    fn pieces_become_one_in_their_order() {
        let piece = |record: R, index: u8, text: &str| record.credential(place::COOKIE, index, text);
        let whole = fingerprints(piece(piece(request(), 2, "aaa"), 3, "bbb"));
        assert_eq!(whole.len(), 1);
        assert_eq!(whole[0].0, 0);
        assert_eq!(whole, fingerprints(piece(piece(request(), 3, "bbb"), 2, "aaa")), "whatever order they are sent in");
        for other in [
            piece(piece(request(), 2, "bbb"), 3, "aaa"),
            piece(request(), 2, "aaa"),
            piece(piece(piece(request(), 2, "aaa"), 3, "bbb"), 0, "ccc"),
            piece(piece(piece(request(), 2, "aaa"), 3, "bbb"), 3, "ccc"),
        ] {
            let other = fingerprints(other);
            assert_eq!(other.len(), 1);
            assert_ne!(other, whole);
        }
        // Another cookie, and another place of the same number, stay what they are.
        let mixed = request().bearer("t").credential(place::COOKIE, 1, "r").credential(place::HEADER, 2, "h");
        let mixed = fingerprints(piece(piece(mixed, 2, "aaa"), 3, "bbb").credential(place::QUERY, 3, "q"));
        let want =
            [(0, fingerprint("t")), (1, fingerprint("r")), (2, fingerprint("h")), whole[0], (3, fingerprint("q"))];
        assert_eq!(mixed, want);
        assert_eq!(fingerprints(request().cookie("whole")), [(0, fingerprint("whole"))]);
        // Handed out and presented are the same.
        let set =
            R::response(1, 0, 0, 200).credential(place::SET_COOKIE, 2, "aaa").credential(place::SET_COOKIE, 3, "bbb");
        assert_eq!(fingerprints(set), whole);
    }

    #[test]
    fn a_login_that_hands_out_pieces() {
        let login = |response: R| vec![R::request(1, 0, 0, "POST /login HTTP/1.1"), response];
        let read = |pieces: &[(u8, &str)]| {
            let mut request = R::request(2, 0, 1000, "GET /mine HTTP/1.1");
            for (index, text) in pieces {
                request = request.credential(place::COOKIE, *index, text);
            }
            vec![request, R::response(2, 0, 1001, 200)]
        };
        let pieces = |record: R| record.credential(place::SET_COOKIE, 2, "aaa").credential(place::SET_COOKIE, 3, "bbb");
        let provenance = |records: Vec<R>| run_with(config(), records).0.observations.last().unwrap().provenance;
        let issued = login(pieces(R::response(1, 0, 1, 302)));
        assert_eq!(provenance([issued.clone(), read(&[(2, "aaa"), (3, "bbb")])].concat()), Provenance::Issued);
        assert_eq!(provenance([issued.clone(), read(&[(2, "aaa"), (3, "forged")])].concat()), Provenance::Unissued);
        assert_eq!(provenance([issued, read(&[(2, "aaa")])].concat()), Provenance::Unissued);
        // The pieces of a longer one before are deleted where a short one is set whole.
        let short = R::response(1, 0, 1, 302).set_cookie("short").credential(place::SET_COOKIE, 2, "");
        let short = short.credential_flags(credential_flag::DELETED);
        assert_eq!(provenance([login(short), read(&[(0, "short")])].concat()), Provenance::Issued);
    }
}
