//! The typed facts of a credential, and how they are kept.
//!
//! What the decoder reads flows in; the cache keeps it packed ([`Decoded`]), because each presented credential needs it and
//! at scale it is never at hand: what it costs is the lines of memory that it takes.

use crate::observation::{self, AccountHash, Interned};

/// How much of a credential could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Not shaped like a JWT.
    Opaque,
    /// Three parts, but no JWT header: an opaque credential with dots, or a broken JWT.
    NoHeader,
    /// A JWT whose payload was not captured whole, or (`broken`) does not decode.
    Header {
        /// The payload was there and does not decode.
        broken: bool,
    },
    /// A JWT, of which nothing was captured.
    Unread,
    /// A JWT, read.
    Read,
}

/// The typed facts of one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How much could be read.
    pub form: Form,
    /// `alg` is `none`, in any letter case, or the signature is empty.
    pub alg_none: bool,
    /// `kid`
    pub kid: Option<Interned>,
    /// The other claims; nothing that depends on the time of use.
    pub claims: observation::Claims,
}

impl Facts {
    /// Of a credential of which nothing else is known.
    pub const fn only(form: Form) -> Self {
        Self { form, alg_none: false, kid: None, claims: observation::Claims::NONE }
    }
}

/// Facts without what depends on the time of use, packed.
#[derive(Clone, Copy, Debug)]
struct Packed {
    form: Form,
    alg_none: bool,
    /// Which of the values below are there: bits in their order.
    there: u16,
    /// `kid`, `iss`, `alg`, `aud`, `scope`
    names: [u32; 5],
    /// `iat`, `exp`, `nbf`
    dates: [i64; 3],
    /// `sub`, `jti`
    hashes: [[u8; 16]; 2],
}

/// What is kept of a credential that was read.
#[derive(Debug)]
pub struct Decoded {
    packed: Packed,
    accounts: Box<[Option<AccountHash>]>,
}

impl Decoded {
    /// Of facts, and of accounts in the order of the claims that the configuration names.
    pub fn new(facts: &Facts, accounts: Box<[Option<AccountHash>]>) -> Self {
        let observation::Claims { iss, alg, aud, scope, sub, jti, iat, exp, nbf, .. } = facts.claims;
        let (names, dates, hashes) = ([facts.kid, iss, alg, aud, scope], [iat, exp, nbf], [sub, jti]);
        let held = names.iter().map(Option::is_some);
        let held = held.chain(dates.iter().map(Option::is_some)).chain(hashes.iter().map(Option::is_some));
        let packed = Packed {
            form: facts.form,
            alg_none: facts.alg_none,
            there: (0..).zip(held).fold(0, |there, (at, holds)| there | u16::from(holds) << at),
            names: names.map(|name| name.map_or(0, |name| name.0)),
            dates: dates.map(Option::unwrap_or_default),
            hashes: hashes.map(|hash| hash.map_or([0; 16], |hash| hash.0)),
        };
        Self { packed, accounts }
    }

    /// The facts.
    #[inline]
    pub fn facts(&self) -> Facts {
        let Packed {
            form,
            alg_none,
            there,
            names: [kid, iss, alg, aud, scope],
            dates: [iat, exp, nbf],
            hashes: [sub, jti],
        } = self.packed;
        let holds = |at: u32| there >> at & 1 == 1;
        let interned = |at: u32, number: u32| holds(at).then_some(Interned(number));
        let claims = observation::Claims {
            iss: interned(1, iss),
            alg: interned(2, alg),
            aud: interned(3, aud),
            scope: interned(4, scope),
            iat: holds(5).then_some(iat),
            exp: holds(6).then_some(exp),
            nbf: holds(7).then_some(nbf),
            sub: holds(8).then_some(AccountHash(sub)),
            jti: holds(9).then_some(AccountHash(jti)),
            ..observation::Claims::NONE
        };
        Facts { form, alg_none, kid: interned(0, kid), claims }
    }

    /// Accounts in the order of the claims that the configuration names.
    pub fn accounts(&self) -> &[Option<AccountHash>] {
        &self.accounts
    }
}

#[cfg(test)]
mod tests {
    use proptest::option::of;
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn claims()(
            names in any::<[Option<u32>; 4]>(),
            hashes in any::<[Option<[u8; 16]>; 2]>(),
            dates in any::<[Option<i64>; 3]>(),
        ) -> observation::Claims {
            let ([iss, alg, aud, scope], [sub, jti], [iat, exp, nbf]) =
                (names.map(|name| name.map(Interned)), hashes.map(|hash| hash.map(AccountHash)), dates);
            observation::Claims { iss, alg, aud, scope, sub, jti, iat, exp, nbf, ..observation::Claims::NONE }
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_what_was_read(claims in claims(), kid in of(any::<u32>()), none: bool, which in 0usize..5) {
            let form =
                [Form::NoHeader, Form::Header { broken: false }, Form::Header { broken: true }, Form::Unread, Form::Read];
            let facts = Facts { form: form[which], alg_none: none, kid: kid.map(Interned), claims };
            prop_assert_eq!(Decoded::new(&facts, Box::default()).facts(), facts);
        }
    }

    #[test]
    fn takes_two_lines_of_memory_with_its_key() {
        assert!(size_of::<Decoded>() <= 96, "{}", size_of::<Decoded>());
    }
}
