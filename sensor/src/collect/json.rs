//! Finds one value in a JSON text (RFC 8259) by JSON pointer (RFC 6901) without building a tree.
//!
//! A tree would copy every string of a login response onto the heap, where nobody wipes it. This walker yields a span
//! of the text itself; what has to be unescaped goes into the caller's wiped buffer. It does not validate what it
//! skips: a text that is not JSON finds nothing or something, but never panics and never recurses.

use std::borrow::Cow;
use std::fmt;

use super::secret::SecretBuf;

/// A value found in a text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    /// What stands between the quotes, escapes untouched.
    String(&'a [u8]),
    /// A number, `true`, `false` or `null`, as it stands.
    Scalar(&'a [u8]),
    /// An object or array.
    Container,
}

/// It may be a token: what it holds stays out of whatever prints it.
impl fmt::Debug for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::String(raw) => write!(f, "String({} bytes)", raw.len()),
            Self::Scalar(raw) => write!(f, "Scalar({} bytes)", raw.len()),
            Self::Container => f.write_str("Container"),
        }
    }
}

/// The value that `pointer` names. Of members with the same name the last counts, as it does for JavaScript and most
/// other readers; serializers write none twice. A byte order mark in front is ignored (RFC 8259 §8.1), and of several
/// texts in one body (newline-delimited JSON) the first is read.
pub(crate) fn lookup<'a>(text: &'a [u8], pointer: &str) -> Option<Value<'a>> {
    let mut at = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    if !pointer.is_empty() {
        for token in pointer.strip_prefix('/')?.split('/') {
            at = descend(skip_space(at), token)?;
        }
    }
    let at = skip_space(at);
    match at.first()? {
        b'"' => string(at).map(|(raw, _)| Value::String(raw)),
        b'{' | b'[' => Some(Value::Container),
        _ => {
            let len = scalar_len(at);
            if len == 0 { None } else { at.get(..len).map(Value::Scalar) }
        }
    }
}

/// Appends `raw` (of [`Value::String`]) to `out` with its escapes resolved; false if an escape is not one. The buffer
/// grows at most once: the result is never longer than `raw`.
pub(crate) fn unescape(raw: &[u8], out: &mut SecretBuf) -> bool {
    let mut rest = raw;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\\') {
        let (plain, escape) = rest.split_at(at);
        out.push(plain);
        let Some((character, after)) = escaped(escape) else { return false };
        out.push(character.encode_utf8(&mut [0; 4]).as_bytes());
        rest = after;
    }
    out.push(rest);
    true
}

/// The character of the escape that `text` begins with, and what follows it.
fn escaped(text: &[u8]) -> Option<(char, &[u8])> {
    let (letter, rest) = text.get(1..)?.split_first()?;
    let character = match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => return unicode(rest),
        _ => return None,
    };
    Some((character, rest))
}

fn unicode(text: &[u8]) -> Option<(char, &[u8])> {
    let (high, rest) = hex4(text)?;
    if !(0xd800..0xdc00).contains(&high) {
        return Some((char::from_u32(high)?, rest));
    }
    let (low, rest) = hex4(rest.strip_prefix(b"\\u")?)?;
    let low = low.checked_sub(0xdc00).filter(|low| *low < 0x400)?;
    Some((char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + low)?, rest))
}

fn hex4(text: &[u8]) -> Option<(u32, &[u8])> {
    let (digits, rest) = text.split_at_checked(4)?;
    let value = digits.iter().try_fold(0, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
    Some((value, rest))
}

/// The text from the value of member or element `token` on.
fn descend<'a>(container: &'a [u8], token: &str) -> Option<&'a [u8]> {
    match container.split_first()? {
        (b'{', rest) => member(rest, &decode_token(token)),
        (b'[', rest) => element(rest, token),
        _ => None,
    }
}

fn member<'a>(mut text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let mut found = None;
    loop {
        text = skip_space(text);
        if text.first() != Some(&b'"') {
            return found;
        }
        let Some((key, after)) = string(text) else { return found };
        let Some(value) = skip_space(after).strip_prefix(b":") else { return found };
        if same_text(key, name) {
            found = Some(value);
        }
        match skip_space(skip_value(value)).strip_prefix(b",") {
            Some(next) => text = next,
            None => return found,
        }
    }
}

fn element<'a>(mut text: &'a [u8], token: &str) -> Option<&'a [u8]> {
    if token.len() > 1 && token.starts_with('0') {
        return None;
    }
    let index: usize = token.parse().ok()?;
    if skip_space(text).first() == Some(&b']') {
        return None;
    }
    for _ in 0..index {
        text = skip_space(skip_value(text)).strip_prefix(b",")?;
    }
    Some(text)
}

/// The text after the value that `text` begins with. Iterative: nesting costs a counter, not stack.
fn skip_value(text: &[u8]) -> &[u8] {
    let mut rest = skip_space(text);
    let mut depth = 0usize;
    loop {
        rest = match rest.split_first() {
            None => return rest,
            Some((b'"', _)) => match string(rest) {
                Some((_, after)) => after,
                None => return &[],
            },
            Some((b'{' | b'[', after)) => {
                depth += 1;
                after
            }
            Some((b'}' | b']', after)) if depth > 0 => {
                depth -= 1;
                after
            }
            Some((b'}' | b']' | b',' | b':', after)) => {
                if depth == 0 {
                    return rest;
                }
                after
            }
            Some((byte, after)) if byte.is_ascii_whitespace() => after,
            Some((_, after)) => rest.get(scalar_len(rest).max(1)..).unwrap_or(after),
        };
        if depth == 0 {
            return rest;
        }
    }
}

/// What stands between the quotes that `text` begins with, and what follows them.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let body = text.strip_prefix(b"\"")?;
    let mut bytes = body.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'"' => return Some((body.get(..at)?, body.get(at + 1..)?)),
            _ => {}
        }
    }
    None
}

fn scalar_len(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')).count()
}

fn skip_space(text: &[u8]) -> &[u8] {
    let space = text.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n')).count();
    text.get(space..).unwrap_or_default()
}

/// True when the raw string `raw` means `text`.
pub(crate) fn same_text(raw: &[u8], text: &str) -> bool {
    if !raw.contains(&b'\\') {
        return raw == text.as_bytes();
    }
    let mut plain = SecretBuf::default();
    unescape(raw, &mut plain) && plain.as_slice() == text.as_bytes()
}

/// RFC 6901 §4: `~1` is `/`, `~0` is `~`.
fn decode_token(token: &str) -> Cow<'_, str> {
    if token.contains('~') { token.replace("~1", "/").replace("~0", "~").into() } else { token.into() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn finds_values() {
        let text = br#" {"a":{"b/c":[1,{"t":"x\u00e9\"y"},"last"]},"n":-1.5e3,"z":null, "a2":"}", "n":2}"#;
        assert_eq!(lookup(text, "/a/b~1c/1/t"), Some(Value::String(br#"x\u00e9\"y"#)));
        assert_eq!(lookup(text, "/a/b~1c/2"), Some(Value::String(b"last")));
        assert_eq!(lookup(text, "/n"), Some(Value::Scalar(b"2")));
        assert_eq!(lookup(text, "/z"), Some(Value::Scalar(b"null")));
        assert_eq!(lookup(text, "/a2"), Some(Value::String(b"}")));
        assert_eq!(lookup(text, "/a"), Some(Value::Container));
        assert_eq!(lookup(text, "/a/b~1c/3"), None);
        assert_eq!(lookup(text, "/missing"), None);
        assert_eq!(lookup(b"[]", "/0"), None);
        assert_eq!(lookup(b"\"whole\"", ""), Some(Value::String(b"whole")));
    }

    #[test]
    fn unescapes() {
        let mut out = SecretBuf::default();
        assert!(unescape(br"a\/b\n\u00e9\ud83d\ude00", &mut out));
        assert_eq!(out.as_slice(), "a/b\né😀".as_bytes());
        assert!(!unescape(br"\ud83d", &mut SecretBuf::default()));
        assert!(!unescape(br"\q", &mut SecretBuf::default()));
    }

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<String>().prop_map(serde_json::Value::from),
            Just(serde_json::Value::Null),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
                proptest::collection::btree_map("[a-d/~\"\\\\]{0,2}", inner, 0..4)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Every pointer into `value` with the value it names.
    fn pointers(value: &serde_json::Value, prefix: &str, into: &mut Vec<(String, serde_json::Value)>) {
        into.push((prefix.to_owned(), value.clone()));
        match value {
            serde_json::Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    pointers(item, &format!("{prefix}/{index}"), into);
                }
            }
            serde_json::Value::Object(members) => {
                for (name, member) in members {
                    let token = name.replace('~', "~0").replace('/', "~1");
                    pointers(member, &format!("{prefix}/{token}"), into);
                }
            }
            _ => {}
        }
    }

    proptest! {
        #[test]
        fn agrees_with_serde_json(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) }.unwrap();
            let mut all = Vec::new();
            pointers(&value, "", &mut all);
            for (pointer, want) in all {
                match (lookup(&text, &pointer), want) {
                    (Some(Value::String(raw)), serde_json::Value::String(want)) => prop_assert!(same_text(raw, &want)),
                    (Some(Value::Scalar(raw)), want) =>
                        prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(raw).unwrap(), want),
                    (Some(Value::Container), want) => prop_assert!(want.is_array() || want.is_object()),
                    (got, want) => prop_assert!(false, "{pointer}: {got:?} for {want:?}"),
                }
            }
        }

        #[test]
        fn never_panics(text in proptest::collection::vec(prop_oneof![
            Just(b'"'), Just(b'{'), Just(b'}'), Just(b'['), Just(b']'), Just(b','), Just(b':'), Just(b'\\'), any::<u8>(),
        ], 0..64), pointer in "(/[a0-9~]{0,2}){0,3}") {
            let _ = lookup(&text, &pointer);
        }
    }
}
