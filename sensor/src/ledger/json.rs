//! The members of a base64url JSON object, without a tree: what header and payload of a JWT are read with.
//!
//! Depth costs no stack beyond serde's own skipping, a value of the wrong type is [`Scalar::Other`], and the scratch
//! buffer that held the decoded text is wiped.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use zeroize::Zeroize as _;

use super::names::joined;

/// Texts of one array that are kept; what lies beyond is dropped.
const LIST_MAX: usize = 32;

/// base64url, with or without padding, as lenient as the libraries that services use.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// Reads a base64url JSON object, handing each member to `member`; false if it is none.
pub fn object(scratch: &mut Vec<u8>, text: &[u8], member: impl FnMut(&str, Scalar<'_>)) -> bool {
    scratch.resize(base64::decoded_len_estimate(text.len()), 0);
    let read = match BASE64.decode_slice(text, scratch) {
        Ok(len) => {
            let mut json = serde_json::Deserializer::from_slice(scratch.get(..len).unwrap_or_default());
            json.deserialize_map(Members(member)).is_ok() && json.end().is_ok()
        }
        Err(_) => false,
    };
    scratch.zeroize();
    read
}

struct Members<F>(F);

impl<'de, F: FnMut(&str, Scalar<'_>)> Visitor<'de> for Members<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while let Some((name, value)) = map.next_entry::<Scalar<'de>, Scalar<'de>>()? {
            if let Scalar::Text(name) = name {
                (self.0)(&name, value);
            }
        }
        Ok(())
    }
}

/// One JSON value, as far as claims go.
#[derive(Debug)]
pub enum Scalar<'a> {
    Text(Cow<'a, str>),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    /// An array's texts.
    List(Vec<String>),
    /// null, a boolean or an object.
    Other,
}

impl Scalar<'_> {
    /// A claim that is one text, or a list of words in either of its notations (RFC 7519 §4.1.3, RFC 8693 §4.2).
    pub fn words(&self) -> Option<String> {
        let words = match self {
            Self::Text(text) => joined(text.split_ascii_whitespace()),
            Self::List(texts) => joined(texts.iter().map(String::as_str)),
            _ => return None,
        };
        (!words.is_empty()).then_some(words)
    }

    /// A `NumericDate` (RFC 7519 §2) in whole seconds; out of range: the nearest.
    pub fn date(&self) -> Option<i64> {
        match self {
            Self::Unsigned(number) => Some(i64::try_from(*number).unwrap_or(i64::MAX)),
            Self::Signed(number) => Some(*number),
            #[expect(clippy::cast_possible_truncation, reason = "the cast saturates, which is what is wanted")]
            Self::Float(number) => Some(number.floor() as i64),
            Self::Text(_) | Self::List(_) | Self::Other => None,
        }
    }
}

impl<'de> Deserialize<'de> for Scalar<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any { lists: true })
    }
}

/// Reads one value; of an array within an array nothing, so that depth costs no stack.
struct Any {
    lists: bool,
}

impl<'de> DeserializeSeed<'de> for Any {
    type Value = Scalar<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Scalar<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Scalar<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Unsigned(number))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Signed(number))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Float(number))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_unit<E>(self) -> Result<Scalar<'de>, E> {
        Ok(Scalar::Other)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Scalar<'de>, A::Error> {
        let mut texts = Vec::new();
        if !self.lists {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(Scalar::Other);
        }
        while let Some(element) = seq.next_element_seed(Any { lists: false })? {
            if let Scalar::Text(text) = element
                && texts.len() < LIST_MAX
            {
                texts.push(text.into_owned());
            }
        }
        Ok(Scalar::List(texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Other)
    }
}
