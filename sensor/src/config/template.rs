//! Path templates: `/members/{member}/addresses` in, segments out.

use super::model::Segment;
use super::reader::{At, Context};
use crate::diagnostic::quoted;

/// Segments that one template may have.
pub(super) const SEGMENTS_MAX: usize = 32;

/// The segments of a template, or a diagnostic. `/` has none.
pub(super) fn segments(text: At<&str>, cx: &mut Context) -> Option<Vec<Segment>> {
    match split(text.value) {
        Ok(segments) => {
            warn_of_other_notations(text, &segments, cx);
            Some(segments)
        }
        Err((what, fix)) => {
            cx.error(text.at, format!("the path template {} {what}", quoted(text.value)), fix);
            None
        }
    }
}

type Mistake = (String, &'static str);

fn split(template: &str) -> Result<Vec<Segment>, Mistake> {
    let Some(rest) = template.strip_prefix('/') else {
        return Err(("does not begin with `/`".into(), "Write the path from its first `/`"));
    };
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let mut segments: Vec<Segment> = Vec::new();
    for part in rest.split('/') {
        let segment = segment(part)?;
        if matches!(segment, Segment::Parameter(_)) && segments.contains(&segment) {
            return Err((format!("has the parameter {} twice", quoted(part)), "Give each parameter its own name"));
        }
        segments.push(segment);
    }
    if segments.len() > SEGMENTS_MAX {
        return Err((format!("has more than {SEGMENTS_MAX} segments"), "Shorten it"));
    }
    Ok(segments)
}

fn segment(part: &str) -> Result<Segment, Mistake> {
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || "?#%;\\".contains(c);
    if part.is_empty() {
        return Err(("has an empty segment".into(), "Write single slashes, and none at the end"));
    }
    if part == "." || part == ".." {
        return Err(("has a `.` or `..` segment".into(), "Write the path that remains once these are resolved"));
    }
    if part == "*" || part == "**" {
        return Err((format!("has the segment {}", quoted(part)), "Write `{name}`, which stands for any one segment"));
    }
    if let Some(found) = part.chars().find(|c| forbidden(*c)) {
        let fix = "Write the path alone, decoded, without query or parameters";
        return Err((format!("has the character {}", quoted(&found.to_string())), fix));
    }
    let Some(name) = part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        if part.contains(['{', '}']) {
            return Err(("has a brace inside a segment".into(), "Write `{name}` as a whole segment"));
        }
        return Ok(Segment::Literal(part.to_owned()));
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || !name.bytes().all(is_name) {
        return Err((format!("has the parameter {}", quoted(part)), "Name it with letters, digits, `_` and `-`"));
    }
    Ok(Segment::Parameter(name.to_owned()))
}

/// `:id` and `<id>` are how other programs write `{id}`; here they are literal text.
fn warn_of_other_notations(text: At<&str>, segments: &[Segment], cx: &mut Context) {
    for segment in segments {
        let Segment::Literal(literal) = segment else { continue };
        let inner = literal.strip_prefix(':').or_else(|| literal.strip_prefix('<')?.strip_suffix('>'));
        if inner.is_some_and(|inner| !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        {
            let message = format!("the segment {} is matched as literal text", quoted(literal));
            cx.warn(text.at, message, "If any segment is meant, write `{name}`");
        }
    }
}

/// What two templates share when they match the same paths.
pub(super) fn shape(segments: &[Segment]) -> String {
    let mut shape = String::new();
    for segment in segments {
        shape.push('/');
        shape.push_str(match segment {
            Segment::Literal(literal) => literal,
            Segment::Parameter(_) => "{}",
        });
    }
    shape
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_templates() {
        let literal = |text: &str| Segment::Literal(text.to_owned());
        assert_eq!(split("/").unwrap(), []);
        assert_eq!(split("/login").unwrap(), [literal("login")]);
        let want = [literal("members"), Segment::Parameter("member".to_owned()), literal("주소")];
        assert_eq!(split("/members/{member}/주소").unwrap(), want);
        assert_eq!(shape(&want), "/members/{}/주소");
        let long = "/x".repeat(SEGMENTS_MAX + 1);
        for bad in [
            "", "x", "//", "/a//b", "/a/", "/./a", "/../a", "/a{b}", "/{a}b", "/{}", "/{a}/{a}", "/a?b", "/a%20b",
            "/a;b", "/a b", "/*", "/a/**", "/{a b}", "/{a", "/a\u{1b}", &long,
        ] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }
}
