//! Request lines and request targets: split, and brought into the form in which servers see them.
//!
//! What a server makes of `/%75sers//1/./addresses;x` is its own affair, so both the raw and the normalised form are
//! matched. [`Path`] holds one form, split into segments, in memory that is reused.

/// A request line taken apart (RFC 9112 §3), tolerantly: first white space, last white space before a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The method, as on the wire.
    pub method: &'a [u8],
    /// The target, as on the wire.
    pub target: &'a [u8],
    /// Offset of the target within the line.
    pub target_at: usize,
}

/// What the parser takes for SP on a request line (RFC 9112 §3): SP, HTAB, VT and FF.
const fn separates(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c)
}

/// `HTTP/…`, in any letter case.
fn is_version(word: &[u8]) -> bool {
    word.get(..5).is_some_and(|start| start.eq_ignore_ascii_case(b"HTTP/"))
}

/// Without white space at its end.
fn trim_end(line: &[u8]) -> &[u8] {
    let len = line.iter().rposition(|byte| !separates(*byte) && *byte != b'\r').map_or(0, |last| last + 1);
    line.get(..len).unwrap_or_default()
}

impl<'a> RequestLine<'a> {
    /// Takes `line` apart. With `cut` the line's end is missing, so that nothing is a version.
    pub fn new(line: &'a [u8], cut: bool) -> Self {
        let line = if cut { line } else { trim_end(line) };
        let lead = line.iter().take_while(|byte| separates(**byte)).count();
        let method_end = line.iter().skip(lead).position(|byte| separates(*byte)).map_or(line.len(), |at| lead + at);
        let method = line.get(lead..method_end).unwrap_or_default();
        let rest = line.get(method_end..).unwrap_or_default();
        let padding = rest.iter().take_while(|byte| separates(**byte)).count();
        let rest = rest.get(padding..).unwrap_or_default();
        let version =
            rest.iter().rposition(|byte| separates(*byte)).filter(|_| !cut).and_then(|at| rest.split_at_checked(at));
        let target = match version {
            Some((target, version)) if version.get(1..).is_some_and(is_version) => trim_end(target),
            // A version alone leaves nothing for the target.
            _ if !cut && (matches!(rest, b"HTTP/1.1" | b"HTTP/1.0") || (is_version(rest) && padding > 1)) => &[],
            _ => rest,
        };
        Self { method, target, target_at: method_end + padding }
    }

    /// Path, query and authority of the target.
    pub fn split(&self) -> Target<'a> {
        Target::new(self.target)
    }
}

/// A request target taken apart (RFC 9112 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// The path, raw. Empty for `*` and authority-form.
    pub path: &'a [u8],
    /// The query without its `?`.
    pub query: Option<&'a [u8]>,
    /// The authority of an absolute-form target.
    pub authority: Option<&'a [u8]>,
}

impl<'a> Target<'a> {
    /// True if `Host` names another host or port than an absolute-form target does (RFC 9112 §3.2.2: the target's is the
    /// one that counts, but servers differ). The default port is one that is not there.
    pub fn contradicts(&self, host: &[u8]) -> bool {
        self.authority.is_some_and(|authority| {
            let authority = authority.rsplit(|byte| *byte == b'@').next().unwrap_or_default();
            !without_port(authority).eq_ignore_ascii_case(without_port(host.trim_ascii()))
        })
    }

    /// Takes `target` apart.
    pub fn new(target: &'a [u8]) -> Self {
        let (authority, rest) = match absolute(target) {
            Some(after) => {
                let len = after.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(after.len());
                let (authority, rest) = after.split_at(len);
                (
                    Some(authority),
                    if rest.starts_with(b"/") {
                        rest
                    } else if rest.is_empty() {
                        b"/"
                    } else {
                        rest
                    },
                )
            }
            None => (None, target),
        };
        let mut halves = rest.splitn(2, |byte| *byte == b'?');
        let path = halves.next().unwrap_or_default();
        let query = halves.next();
        let path = match path.first() {
            Some(b'/' | b'\\' | b'%' | b';') => path,
            None if authority.is_some() => b"/",
            _ => &[],
        };
        Self { path, query, authority }
    }
}

/// An authority without the default ports of HTTP.
fn without_port(authority: &[u8]) -> &[u8] {
    [&b":80"[..], b":443", b":"].iter().find_map(|port| authority.strip_suffix(*port)).unwrap_or(authority)
}

/// What follows `scheme://`.
fn absolute(target: &[u8]) -> Option<&[u8]> {
    let colon = target.iter().position(|byte| !byte.is_ascii_alphanumeric() && !matches!(byte, b'+' | b'-' | b'.'))?;
    if colon == 0 { None } else { target.get(colon..)?.strip_prefix(b"://") }
}

/// One form of a path, split into segments. Memory is reused from one path to the next.
#[derive(Debug, Default)]
pub struct Path {
    bytes: Vec<u8>,
    segments: Vec<(usize, usize)>,
}

impl Path {
    /// Takes the raw path: split at `/`, nothing else.
    pub fn set_raw(&mut self, path: &[u8]) {
        self.clear();
        let Some(rest) = path.strip_prefix(b"/") else { return };
        if rest.is_empty() {
            return;
        }
        for segment in rest.split(|byte| *byte == b'/') {
            let start = self.bytes.len();
            self.bytes.extend_from_slice(segment);
            self.segments.push((start, self.bytes.len()));
        }
    }

    /// Takes the path as servers see it: `/`, `\`, `%2f` and `%5c` separate; `;params` and a fragment are dropped;
    /// percent-encoding is decoded once; empty and `.` segments vanish, `..` takes the one before with it; a trailing
    /// slash means nothing.
    pub fn set_normalised(&mut self, path: &[u8]) {
        self.clear();
        let mut rest = path.split(|byte| *byte == b'#').next().unwrap_or_default();
        while !rest.is_empty() {
            let (piece, after) = next_piece(rest);
            rest = after;
            let piece = piece.split(|byte| *byte == b';').next().unwrap_or_default();
            let start = self.bytes.len();
            percent_decode(piece, false, &mut self.bytes);
            match self.bytes.get(start..).unwrap_or_default() {
                b"" | b"." => self.bytes.truncate(start),
                b".." => {
                    let back = self.segments.pop().map_or(start, |(from, _)| from);
                    self.bytes.truncate(back);
                }
                _ => self.segments.push((start, self.bytes.len())),
            }
        }
    }

    /// The segment at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (from, to) = self.segments.get(index)?;
        self.bytes.get(*from..*to)
    }

    /// Number of segments.
    pub fn len(&self) -> usize {
        self.segments.len()
    }

    /// True for `/` (and for targets without a path).
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// The segments.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        self.segments.iter().filter_map(|(from, to)| self.bytes.get(*from..*to))
    }

    /// True when both have the same segments.
    pub fn same(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.segments.clear();
    }
}

/// Splits at the first separator, plain or percent-encoded.
fn next_piece(path: &[u8]) -> (&[u8], &[u8]) {
    for (at, byte) in path.iter().enumerate() {
        let width = match byte {
            b'/' | b'\\' => 1,
            b'%' if path.get(at + 1..at + 3).is_some_and(|hex| matches!(hex, b"2f" | b"2F" | b"5c" | b"5C")) => 3,
            _ => continue,
        };
        return (path.get(..at).unwrap_or_default(), path.get(at + width..).unwrap_or_default());
    }
    (path, &[])
}

/// Appends `text` to `out` with percent-encoding resolved once; a lone `%` stays. With `form`, `+` is a space.
pub(super) fn percent_decode(text: &[u8], form: bool, out: &mut Vec<u8>) {
    percent_decoded(text, form, |byte| out.push(byte));
}

/// Hands each decoded byte to `put`.
pub(super) fn percent_decoded(text: &[u8], form: bool, mut put: impl FnMut(u8)) {
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match byte {
            b'%' => match hex_pair(after) {
                Some((value, beyond)) => {
                    put(value);
                    rest = beyond;
                }
                None => put(b'%'),
            },
            b'+' if form => put(b' '),
            other => put(*other),
        }
    }
}

fn hex_pair(text: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = text.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16));
    Some((u8::try_from(high? << 4 | low?).ok()?, rest))
}

/// The raw value of the first parameter of `query` (or of a form body) that is named `name`.
pub(super) fn parameter<'a>(query: &'a [u8], name: &str) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let mut halves = pair.splitn(2, |byte| *byte == b'=');
        let key = halves.next()?;
        let value = halves.next().unwrap_or_default();
        decodes_to(key, name.as_bytes()).then_some(value)
    })
}

/// True when the percent-decoded `text` is `want`.
fn decodes_to(text: &[u8], want: &[u8]) -> bool {
    let mut want = want.iter();
    let mut equal = true;
    percent_decoded(text, true, |byte| equal &= want.next() == Some(&byte));
    equal && want.next().is_none()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn normal(path: &str) -> String {
        let mut form = Path::default();
        form.set_normalised(path.as_bytes());
        form.iter().fold(String::new(), |text, segment| text + "/" + &String::from_utf8_lossy(segment))
    }

    #[test]
    fn splits_request_lines() {
        let parts = |line: &'static str| {
            let line = RequestLine::new(line.as_bytes(), false);
            (
                String::from_utf8_lossy(line.method).into_owned(),
                String::from_utf8_lossy(line.target).into_owned(),
                line.target_at,
            )
        };
        assert_eq!(parts("GET /a HTTP/1.1"), ("GET".into(), "/a".into(), 4));
        assert_eq!(parts("GET /a b HTTP/1.0"), ("GET".into(), "/a b".into(), 4));
        assert_eq!(parts("GET  /a  HTTP/1.1 "), ("GET".into(), "/a".into(), 5));
        assert_eq!(parts("GET /old"), ("GET".into(), "/old".into(), 4));
        assert_eq!(parts("GET  HTTP/1.1"), ("GET".into(), String::new(), 5));
        assert_eq!(parts("GET HTTP/1.1"), ("GET".into(), String::new(), 4));
        assert_eq!(parts("GET"), ("GET".into(), String::new(), 3));
        assert_eq!(parts("GET\t/a\x0bhttp/1.1"), ("GET".into(), "/a".into(), 4));
        assert_eq!(parts("\t GET /a HTTP/1.1 \x0b"), ("GET".into(), "/a".into(), 6));
        assert_eq!(parts("GET  http/1.1"), ("GET".into(), String::new(), 5));
        assert_eq!(RequestLine::new(b"GET /a HTTP/1.1", true).target, b"/a HTTP/1.1");
    }

    #[test]
    fn splits_targets() {
        let split = |target: &'static str| {
            let target = Target::new(target.as_bytes());
            (target.path, target.query, target.authority)
        };
        assert_eq!(split("/a?b=c?d"), (&b"/a"[..], Some(&b"b=c?d"[..]), None));
        assert_eq!(split("http://h:1/a/b?q"), (&b"/a/b"[..], Some(&b"q"[..]), Some(&b"h:1"[..])));
        assert_eq!(split("http://h"), (&b"/"[..], None, Some(&b"h"[..])));
        assert_eq!(split("http://h?q"), (&b"/"[..], Some(&b"q"[..]), Some(&b"h"[..])));
        assert_eq!(split("*"), (&b""[..], None, None));
        assert_eq!(split("example.org:443"), (&b""[..], None, None));
    }

    #[test]
    fn compares_hosts() {
        for (target, host, contradicts) in [
            ("http://a.example/x", "a.example", false),
            ("http://A.example:80/x", "a.example ", false),
            ("http://user:word@a.example/x", "a.example:", false),
            ("http://a.example:8001/x", "a.example:8002", true),
            ("http://a.example/x", "b.example", true),
            ("http://a.example@b.example/x", "a.example", true),
            ("/x", "b.example", false),
            ("*", "", false),
        ] {
            assert_eq!(Target::new(target.as_bytes()).contradicts(host.as_bytes()), contradicts, "{target} {host}");
        }
    }

    #[test]
    fn normalises() {
        for (raw, want) in [
            ("/%75sers/1/addresses", "/users/1/addresses"),
            ("//users///1/addresses/", "/users/1/addresses"),
            ("/./users/./1/x/../addresses", "/users/1/addresses"),
            ("/users;v=1/1;x/addresses;jsessionid=2", "/users/1/addresses"),
            ("/users%2f1%2Faddresses", "/users/1/addresses"),
            ("/a/..;/users/1/%2e/addresses", "/users/1/addresses"),
            ("/a%5c..%5cusers\\1/addresses", "/users/1/addresses"),
            ("/../../users", "/users"),
            ("/%2575sers", "/%75sers"),
            ("/100%/%zz", "/100%/%zz"),
            ("/", ""),
        ] {
            assert_eq!(normal(raw), want, "{raw}");
        }
    }

    #[test]
    fn finds_parameters() {
        assert_eq!(parameter(b"a=1&us%65r=7%38&user=9", "user"), Some(&b"7%38"[..]));
        assert_eq!(parameter(b"a&b", "b"), Some(&b""[..]));
        assert_eq!(parameter(b"userx=1", "user"), None);
    }

    proptest! {
        #[test]
        fn normal_form_has_no_dots_left(path in "[/\\\\.;%2eEfFa#]{0,40}") {
            let mut form = Path::default();
            form.set_normalised(path.as_bytes());
            for segment in form.iter() {
                prop_assert!(!segment.is_empty() && segment != b"." && segment != b"..");
            }
        }

        #[test]
        fn lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..64), cut: bool) {
            let parts = RequestLine::new(&line, cut);
            prop_assert!(parts.target_at + parts.target.len() <= line.len());
            let target = parts.split();
            Path::default().set_normalised(target.path);
        }
    }
}
