//! One line of a trace, borrowed from its text.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;
use zeroize::Zeroize as _;

use crate::diagnostic::quoted;
use crate::suggest;

/// The keys of a line. One that begins with `_` is a remark of whoever wrote the trace, and ignored.
const KEYS: &[&str] = &[
    "t",
    "client",
    "service",
    "method",
    "path",
    "host",
    "status",
    "bytes",
    "credentials",
    "request_json",
    "request_form",
    "set_cookies",
    "response_headers",
    "response_json",
    "content_type",
    "location",
];

const CREDENTIAL_KEYS: &[&str] = &["bearer", "authorization", "cookies", "headers"];

/// Text of a line, which may be a credential: what was copied to resolve escapes is wiped, and nothing prints it.
#[derive(Clone, Default)]
pub struct Text<'a>(pub Cow<'a, str>);

impl Drop for Text<'_> {
    fn drop(&mut self) {
        if let Cow::Owned(text) = &mut self.0 {
            text.zeroize();
        }
    }
}

impl Text<'_> {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({} bytes)", self.0.len())
    }
}

/// An object of names and texts, in their order; a name may stand twice. `null` as a cookie's value deletes it.
pub type Pairs<'a> = Vec<(Text<'a>, Option<Text<'a>>)>;

/// A JSON body, as it stands in the trace.
pub type Body<'a> = &'a RawValue;

/// One transaction.
#[derive(Clone, Debug, Default)]
pub struct Line<'a> {
    /// When the request came, seconds since 1970 UTC.
    pub t: Option<f64>,
    /// Who sent it; without it: 192.0.2.1.
    pub client: Option<Text<'a>>,
    /// The service by its name in the configuration; without it: the only one.
    pub service: Option<Text<'a>>,
    /// Method; without it: GET, or POST with a body.
    pub method: Option<Text<'a>>,
    /// Target: path, and query if there is one.
    pub path: Option<Text<'a>>,
    /// `Host`
    pub host: Option<Text<'a>>,
    /// Status of the response; without it: there was none.
    pub status: Option<u16>,
    /// Bytes of the response's body; without it: those of `response_json`, or unknown.
    pub bytes: Option<u64>,
    /// What the request carries.
    pub credentials: Credentials<'a>,
    /// The request's body.
    pub request_json: Option<Body<'a>>,
    /// The request's body, as a form.
    pub request_form: Option<Text<'a>>,
    /// Cookies that the response sets.
    pub set_cookies: Pairs<'a>,
    /// Headers of the response that hand out credentials.
    pub response_headers: Pairs<'a>,
    /// The response's body.
    pub response_json: Option<Body<'a>>,
    /// `Content-Type` of the response; without it, what the route's outcome asks for.
    pub content_type: Option<Text<'a>>,
    /// `Location` of the response.
    pub location: Option<Text<'a>>,
}

/// What a request carries. Credentials in query parameters stand in the path.
#[derive(Clone, Debug, Default)]
pub struct Credentials<'a> {
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<Text<'a>>,
    /// A whole `Authorization` value.
    pub authorization: Option<Text<'a>>,
    /// Cookies; those that the service does not name as credentials say nothing.
    pub cookies: Pairs<'a>,
    /// Headers, likewise.
    pub headers: Pairs<'a>,
}

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Line<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Line<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("one transaction as an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line<'de>, A::Error> {
                let mut line = Line::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    member(&mut line, &key, &mut map)?;
                }
                Ok(line)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

fn member<'de, A: MapAccess<'de>>(line: &mut Line<'de>, key: &Text<'_>, map: &mut A) -> Result<(), A::Error> {
    match &*key.0 {
        "t" => line.t = map.next_value()?,
        "client" => line.client = map.next_value()?,
        "service" => line.service = map.next_value()?,
        "method" => line.method = map.next_value()?,
        "path" => line.path = map.next_value()?,
        "host" => line.host = map.next_value()?,
        "status" => line.status = map.next_value()?,
        "bytes" => line.bytes = map.next_value()?,
        "credentials" => line.credentials = map.next_value::<Option<_>>()?.unwrap_or_default(),
        "request_json" => line.request_json = given(map.next_value()?),
        "request_form" => line.request_form = map.next_value()?,
        "set_cookies" => line.set_cookies = pairs(map)?,
        "response_headers" => line.response_headers = pairs(map)?,
        "response_json" => line.response_json = given(map.next_value()?),
        "content_type" => line.content_type = map.next_value()?,
        "location" => line.location = map.next_value()?,
        other => return unknown(other, KEYS, map),
    }
    Ok(())
}

/// A body that is `null` is none.
fn given(body: Body<'_>) -> Option<Body<'_>> {
    Some(body).filter(|body| body.get() != "null")
}

fn unknown<'de, A: MapAccess<'de>>(key: &str, keys: &[&str], map: &mut A) -> Result<(), A::Error> {
    if key.starts_with('_') {
        return map.next_value::<IgnoredAny>().map(|_| ());
    }
    Err(A::Error::custom(format!("unknown key {}. {}", quoted(key), suggest::advice(key, keys))))
}

impl<'de: 'a, 'a> Deserialize<'de> for Credentials<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Credentials<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("credentials as an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Credentials<'de>, A::Error> {
                let mut found = Credentials::default();
                while let Some(key) = map.next_key::<Text<'de>>()? {
                    match &*key.0 {
                        "bearer" => found.bearer = map.next_value()?,
                        "authorization" => found.authorization = map.next_value()?,
                        "cookies" => found.cookies = pairs(&mut map)?,
                        "headers" => found.headers = pairs(&mut map)?,
                        other => unknown(other, CREDENTIAL_KEYS, &mut map)?,
                    }
                }
                Ok(found)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// Names and texts in the order in which they stand, so no map.
struct List<'a>(Pairs<'a>);

fn pairs<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Pairs<'de>, A::Error> {
    Ok(map.next_value::<Option<List<'de>>>()?.map(|list| list.0).unwrap_or_default())
}

impl<'de: 'a, 'a> Deserialize<'de> for List<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = List<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of names and texts")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<List<'de>, A::Error> {
                let mut list = Vec::new();
                while let Some(member) = map.next_entry()? {
                    list.push(member);
                }
                Ok(List(list))
            }
        }
        deserializer.deserialize_map(Members)
    }
}
