//! Names of headers, cookies, parameters and the places that credentials stand in.
//!
//! Text such as `cookie:SESSION` flows in; indexes into the service's declared [`Credentials`] flow out, so that
//! nothing behind the configuration looks up a name again.

use sensor_ebpf::wire::{NAME_MAX, RESPONSE_HEADERS_MAX};

use super::model::{Credentials, IssueSource, Place, PresentSource};
use super::reader::{At, Context, Item};
use crate::diagnostic::quoted;
use crate::suggest;

/// Request and response headers that the sensor reads for its own purposes.
const OWN_HEADERS: [&str; 12] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "content-type",
    "content-encoding",
    "location",
    "forwarded",
    "x-forwarded-for",
    "x-real-ip",
    "user-agent",
];

const PLACE_EXAMPLE: &str = "\"authorization\", \"cookie:NAME\", \"header:NAME\" or \"query:NAME\"";
const ISSUE_EXAMPLE: &str = "\"set-cookie:NAME\", \"json:/pointer\" or \"header:NAME\"";

/// A label: what metrics, rules and findings call the thing. At most 64 bytes, visible.
pub(super) fn label(item: &Item, cx: &mut Context) -> Option<At<String>> {
    const EXAMPLE: &str = "a name of 1 to 64 bytes without control characters, in double quotes";
    let text = item.text(cx, EXAMPLE)?;
    if text.value.trim().is_empty() || text.value.len() > 64 || text.value.chars().any(char::is_control) {
        cx.error(text.at, format!("{} is not usable as a name", item.name()), format!("Write {EXAMPLE}"));
        return None;
    }
    Some(At { value: text.value.to_owned(), at: text.at })
}

fn check_length(text: At<&str>, what: &str, cx: &mut Context) -> Option<()> {
    if text.value.is_empty() {
        cx.error(text.at, format!("the name of the {what} is empty"), format!("Write the {what}'s name"));
        return None;
    }
    if text.value.len() > NAME_MAX {
        let message = format!("the {what} name {} is longer than {NAME_MAX} bytes", quoted(text.value));
        cx.error(text.at, message, format!("Use a {what} with a name of at most {NAME_MAX} bytes"));
        return None;
    }
    Some(())
}

fn check_bytes(text: At<&str>, what: &str, allowed: impl Fn(u8) -> bool, cx: &mut Context) -> Option<()> {
    check_length(text, what, cx)?;
    if !text.value.bytes().all(allowed) {
        let message = format!("{} is not a {what} name", quoted(text.value));
        cx.error(text.at, message, format!("Write the {what}'s bare name, as it stands on the wire"));
        return None;
    }
    Some(())
}

/// A cookie name. Wider than RFC 6265's token, as browsers and servers are.
pub(super) fn cookie(text: At<&str>, cx: &mut Context) -> Option<String> {
    check_bytes(text, "cookie", |byte| byte.is_ascii_graphic() && !b"=;,\"".contains(&byte), cx)?;
    Some(text.value.to_owned())
}

/// A query parameter name.
pub(super) fn query(text: At<&str>, cx: &mut Context) -> Option<String> {
    check_bytes(text, "query parameter", |byte| byte.is_ascii_graphic() && !b"&=#%+;?".contains(&byte), cx)?;
    Some(text.value.to_owned())
}

/// A header name (RFC 9110 §5.1), lower-cased.
pub(super) fn header(text: At<&str>, cx: &mut Context) -> Option<String> {
    check_bytes(text, "header", is_token_byte, cx)?;
    let name = text.value.to_ascii_lowercase();
    let fix = match name.as_str() {
        "authorization" => "Write `authorization = true`, or the place \"authorization\"",
        "cookie" => "List the cookie's name in `cookies`",
        "set-cookie" => "Write \"set-cookie:NAME\" with the cookie's name",
        other if OWN_HEADERS.contains(&other) => "Name a header that carries nothing but a credential",
        _ => return Some(name),
    };
    cx.error(text.at, format!("the header {} cannot be named as a credential's place", quoted(text.value)), fix);
    None
}

/// `tchar` of RFC 9110 §5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A JSON pointer (RFC 6901) that names a value inside a document.
pub(super) fn pointer(text: At<&str>, cx: &mut Context) -> Option<String> {
    let escapes_hold = text.value.split('~').skip(1).all(|after| after.starts_with(['0', '1']));
    if !text.value.starts_with('/') || !escapes_hold {
        let message = format!("{} is not a JSON pointer", quoted(text.value));
        cx.error(text.at, message, "Write the path of the value, such as \"/data/access_token\" (RFC 6901)");
        return None;
    }
    Some(text.value.to_owned())
}

/// Index of a declared name, or a diagnostic that says where to declare it.
fn declared(name: At<&str>, names: &[String], what: &str, key: &str, cx: &mut Context) -> Option<u8> {
    let index = names.iter().position(|known| known == name.value);
    if index.is_none() {
        let message = format!("the {what} {} is not declared", quoted(name.value));
        let fix = match suggest::nearest(name.value, names.iter().map(String::as_str)) {
            Some(near) => format!("Did you mean `{near}`; else add it to `{key}` in `service.credentials`"),
            None => format!("Add it to `{key}` in `service.credentials`"),
        };
        cx.error(name.at, message, fix);
    }
    index.and_then(|index| u8::try_from(index).ok())
}

/// The index of a declared cookie, given by its bare name.
pub(super) fn declared_cookie(item: &Item, credentials: &Credentials, cx: &mut Context) -> Option<u8> {
    let text = item.text(cx, "the name of a declared cookie")?;
    declared(text, &credentials.cookies, "cookie", "cookies", cx)
}

/// The known place that `text` is written as; `Err` when the word before the colon is none of ours.
fn place_of(text: At<&str>, credentials: &Credentials, cx: &mut Context) -> Result<Option<Place>, ()> {
    if text.value == "authorization" {
        if !credentials.authorization {
            let message = "`authorization` is not among the credential places of this service";
            cx.error(text.at, message, "Write `authorization = true` in `service.credentials`");
            return Ok(None);
        }
        return Ok(Some(Place::Authorization));
    }
    let (word, value) = text.value.split_once(':').ok_or(())?;
    let name = At { value, at: text.at };
    Ok(match word {
        "cookie" => declared(name, &credentials.cookies, "cookie", "cookies", cx).map(Place::Cookie),
        "header" => {
            let lower = value.to_ascii_lowercase();
            let name = At { value: lower.as_str(), at: text.at };
            declared(name, &credentials.headers, "header", "headers", cx).map(Place::Header)
        }
        "query" => declared(name, &credentials.query, "query parameter", "query", cx).map(Place::Query),
        _ => return Err(()),
    })
}

/// A credential place of the service.
pub(super) fn place(item: &Item, credentials: &Credentials, cx: &mut Context) -> Option<Place> {
    let text = item.text(cx, PLACE_EXAMPLE)?;
    place_of(text, credentials, cx).unwrap_or_else(|()| {
        let message = format!("{} is not a credential place", quoted(text.value));
        cx.error(text.at, message, format!("Write {PLACE_EXAMPLE}"));
        None
    })
}

/// Where a refresh request presents the credential that it exchanges.
pub(super) fn present(item: &Item, credentials: &Credentials, cx: &mut Context) -> Option<PresentSource> {
    let example = format!("{PLACE_EXAMPLE}, \"json:/pointer\" or \"form:NAME\"");
    let text = item.text(cx, &example)?;
    if let Ok(source) = in_body(text, cx) {
        return source;
    }
    if let Ok(place) = place_of(text, credentials, cx) {
        return place.map(PresentSource::Place);
    }
    cx.error(text.at, format!("{} is not a place in a request", quoted(text.value)), format!("Write {example}"));
    None
}

/// Where a login's request body names the account that is tried.
pub(super) fn tried(item: &Item, cx: &mut Context) -> Option<PresentSource> {
    let example = "\"json:/pointer\" or \"form:NAME\"";
    let text = item.text(cx, example)?;
    in_body(text, cx).unwrap_or_else(|()| {
        let message = format!("{} is not a place in a request body", quoted(text.value));
        cx.error(text.at, message, format!("Write {example}"));
        None
    })
}

/// A place in a request body; `Err` when `text` names something else.
fn in_body(text: At<&str>, cx: &mut Context) -> Result<Option<PresentSource>, ()> {
    if let Some(value) = text.value.strip_prefix("json:") {
        return Ok(pointer(At { value, at: text.at }, cx).map(PresentSource::Json));
    }
    let name = text.value.strip_prefix("form:").ok_or(())?;
    let usable = check_length(At { value: name, at: text.at }, "form field", cx);
    Ok(usable.map(|()| PresentSource::Form(name.to_owned())))
}

/// Where a response hands a credential out. A header named here joins the service's response headers.
pub(super) fn issue(item: &Item, credentials: &mut Credentials, cx: &mut Context) -> Option<IssueSource> {
    let text = item.text(cx, ISSUE_EXAMPLE)?;
    let Some((word @ ("set-cookie" | "json" | "header"), value)) = text.value.split_once(':') else {
        let message = format!("{} is not a place in a response", quoted(text.value));
        cx.error(text.at, message, format!("Write {ISSUE_EXAMPLE}"));
        return None;
    };
    let value = At { value, at: text.at };
    match word {
        "set-cookie" => declared(value, &credentials.cookies, "cookie", "cookies", cx).map(IssueSource::SetCookie),
        "json" => pointer(value, cx).map(IssueSource::Json),
        _ => response_header(value, credentials, cx).map(IssueSource::Header),
    }
}

fn response_header(name: At<&str>, credentials: &mut Credentials, cx: &mut Context) -> Option<u8> {
    let lower = header(name, cx)?;
    let known = &mut credentials.response_headers;
    let index = known.iter().position(|held| *held == lower).unwrap_or_else(|| {
        known.push(lower);
        known.len() - 1
    });
    if index >= RESPONSE_HEADERS_MAX {
        known.truncate(RESPONSE_HEADERS_MAX);
        let message = format!("more than {RESPONSE_HEADERS_MAX} response headers hand out credentials in this service");
        cx.error(name.at, message, format!("Name at most {RESPONSE_HEADERS_MAX} response headers in all its `issues`"));
        return None;
    }
    u8::try_from(index).ok()
}
