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

/// A fact that is there: one of [`Packed::there`].
mod there {
    pub const SUB: u8 = 1;
    pub const JTI: u8 = 2;
    pub const IAT: u8 = 4;
    pub const EXP: u8 = 8;
    pub const NBF: u8 = 16;
    pub const KID: u8 = 32;
    pub const ALG_NONE: u8 = 64;
}

/// Facts without what depends on the time of use, packed.
#[derive(Clone, Copy, Debug)]
struct Packed {
    form: Form,
    /// Which of the values below hold: bits of [`there`].
    there: u8,
    /// Which of `names` hold: bits in their order.
    held: u8,
    kid: u32,
    /// `iss`, `alg`, `aud`, `scope`
    names: [u32; 4],
    /// `iat`, `exp`, `nbf`
    dates: [i64; 3],
    sub: [u8; 16],
    jti: [u8; 16],
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
        let bit = |holds: bool, bit: u8| if holds { bit } else { 0 };
        let names = [iss, alg, aud, scope];
        let there = bit(sub.is_some(), there::SUB)
            | bit(jti.is_some(), there::JTI)
            | bit(iat.is_some(), there::IAT)
            | bit(exp.is_some(), there::EXP)
            | bit(nbf.is_some(), there::NBF)
            | bit(facts.kid.is_some(), there::KID)
            | bit(facts.alg_none, there::ALG_NONE);
        let held = (0..).zip(names).fold(0, |all, (at, name)| all | bit(name.is_some(), 1 << at));
        let number = |name: Option<Interned>| name.map_or(0, |name| name.0);
        let hash = |hash: Option<AccountHash>| hash.map_or([0; 16], |hash| hash.0);
        let packed = Packed {
            form: facts.form,
            there,
            held,
            kid: number(facts.kid),
            names: names.map(number),
            dates: [iat, exp, nbf].map(Option::unwrap_or_default),
            sub: hash(sub),
            jti: hash(jti),
        };
        Self { packed, accounts }
    }

    /// The facts.
    #[inline]
    pub fn facts(&self) -> Facts {
        let Packed { form, there, held, kid, names: [iss, alg, aud, scope], dates: [iat, exp, nbf], sub, jti } =
            self.packed;
        let holds = |bit: u8| there & bit != 0;
        let interned = |at: u8, number: u32| (held & 1 << at != 0).then_some(Interned(number));
        let claims = observation::Claims {
            iss: interned(0, iss),
            alg: interned(1, alg),
            aud: interned(2, aud),
            scope: interned(3, scope),
            sub: holds(there::SUB).then_some(AccountHash(sub)),
            jti: holds(there::JTI).then_some(AccountHash(jti)),
            iat: holds(there::IAT).then_some(iat),
            exp: holds(there::EXP).then_some(exp),
            nbf: holds(there::NBF).then_some(nbf),
            ..observation::Claims::NONE
        };
        let kid = holds(there::KID).then_some(Interned(kid));
        Facts { form, alg_none: holds(there::ALG_NONE), kid, claims }
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
