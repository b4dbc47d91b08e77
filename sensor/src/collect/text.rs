//! Credentials and accounts in bodies: the text at a place, and the credential within it.
//!
//! Bytes that an attacker may have chosen flow in; text flows out into a [`SecretBuf`], which its owner wipes.

use sensor_ebpf::wire::credential_flag;

use super::json::{self, Value};
use super::secret::SecretBuf;
use super::target::{parameter, percent_decoded};
use crate::config::model::PresentSource;

/// Appends the text at a place of a request body to `out`; false if there is none.
pub(super) fn body_text(source: &PresentSource, body: &[u8], out: &mut SecretBuf) -> bool {
    match source {
        PresentSource::Place(_) => false,
        PresentSource::Json(pointer) => json_text(body, pointer, out),
        PresentSource::Form(name) => form_value(body, name, out),
    }
}

/// Appends the text of the string or number at `pointer` to `out`; false if there is none.
pub(super) fn json_text(body: &[u8], pointer: &str, out: &mut SecretBuf) -> bool {
    match json::lookup(body, pointer) {
        Some(Value::String(raw)) => json::unescape(raw, out),
        Some(Value::Scalar(raw)) if raw.first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-') => {
            out.push(raw);
            true
        }
        _ => false,
    }
}

/// Appends the decoded value of form field `name` to `out`; false if there is none.
fn form_value(body: &[u8], name: &str, out: &mut SecretBuf) -> bool {
    let Some(value) = parameter(body, name) else { return false };
    percent_decoded(value, true, |byte| out.push(&[byte]));
    true
}

/// The credential within a value: without outer whitespace and quotes, and without a scheme word.
pub(crate) fn canonical(value: &[u8]) -> &[u8] {
    let value = strip_outer(value);
    for word in [&b"Bearer"[..], b"Token", b"JWT", b"DPoP", b"Basic"] {
        if let Some((start, rest)) = value.split_at_checked(word.len())
            && start.eq_ignore_ascii_case(word)
            && rest.first().is_some_and(u8::is_ascii_whitespace)
        {
            return strip_outer(rest);
        }
    }
    value
}

fn strip_outer(mut value: &[u8]) -> &[u8] {
    loop {
        value = value.trim_ascii();
        match value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) {
            Some(inner) => value = inner,
            None => return value,
        }
    }
}

/// Flags of a credential by its dots, and header and payload of a signed JWT.
pub(crate) fn jwt_shape(text: &[u8]) -> (u16, Option<&[u8]>) {
    let mut parts = text.split(|byte| *byte == b'.');
    let (header, payload, signature, more) = (parts.next(), parts.next(), parts.next(), parts.next());
    let full = |part: Option<&[u8]>| part.is_some_and(|part| !part.is_empty());
    match signature {
        Some(signature) if more.is_none() && full(header) && full(payload) => {
            if signature.is_empty() {
                return (credential_flag::EMPTY_SIGNATURE, None);
            }
            let claims = text.get(..text.len() - signature.len() - 1);
            (credential_flag::THREE_PARTS | credential_flag::CLAIMS, claims)
        }
        _ => (0, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_credentials() {
        for value in ["tok", " tok ", "\"tok\"", "Bearer tok", "bEARER  \"tok\"", " \" Bearer tok\" "] {
            assert_eq!(canonical(value.as_bytes()), b"tok", "{value}");
        }
        assert_eq!(canonical(b"Bearer"), b"Bearer");
        assert_eq!(canonical(b"bearertok"), b"bearertok");
        assert_eq!(canonical(b"\""), b"\"");
    }

    #[test]
    fn jwt_shapes() {
        assert_eq!(
            jwt_shape(b"aa.bb.cc"),
            (credential_flag::THREE_PARTS | credential_flag::CLAIMS, Some(&b"aa.bb"[..]))
        );
        assert_eq!(jwt_shape(b"aa.bb."), (credential_flag::EMPTY_SIGNATURE, None));
        assert_eq!(jwt_shape(b"aa.bb"), (0, None));
        assert_eq!(jwt_shape(b"a.b.c.d.e"), (0, None));
    }
}
