//! Routes as configured: what they match, what a response means, where accounts stand, and what a login does with
//! credentials.
//!
//! Made by `config::route`, `config::outcome` and `config::issuance`; read by whatever judges a request by its route.

use sensor_ebpf::wire::method;

use super::Place;
use crate::observation::{Outcome, RouteClass};

/// A method and path template with its meaning.
#[derive(Clone, Debug)]
pub struct Route {
    /// Name: label in findings (`METHOD TEMPLATE` unless named).
    pub name: String,
    /// One of `sensor_ebpf::wire::method`, and its text.
    pub methods: Vec<Method>,
    /// The path template, split.
    pub segments: Vec<Segment>,
    /// The template as written.
    pub template: String,
    /// Class.
    pub class: RouteClass,
    /// Credential places that this route may authenticate with; empty: all of the service.
    pub authenticates_with: Vec<Place>,
    /// First predicate that fits gives the outcome; none fits: `Outcome::Other`.
    pub outcomes: Vec<OutcomeRule>,
    /// Where the account stands, first that yields wins.
    pub account: Vec<AccountSource>,
    /// Where the object stands that the target names beside the account: [`AccountSource::Path`] or `Query`.
    pub object: Option<AccountSource>,
    /// What a login, refresh or logout does.
    pub issuance: Option<IssuanceRule>,
}

/// A request method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// One of `sensor_ebpf::wire::method`.
    pub id: u8,
    /// As on the wire.
    pub text: String,
}

impl Method {
    /// The method that `text` names (case-sensitive, RFC 9110 §9.1).
    pub fn new(text: &str) -> Self {
        let id = match text {
            "GET" => method::GET,
            "HEAD" => method::HEAD,
            "POST" => method::POST,
            "PUT" => method::PUT,
            "DELETE" => method::DELETE,
            "PATCH" => method::PATCH,
            "OPTIONS" => method::OPTIONS,
            "CONNECT" => method::CONNECT,
            _ => method::OTHER,
        };
        Self { id, text: text.to_owned() }
    }
}

/// One segment of a path template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Must be equal.
    Literal(String),
    /// `{name}`: any one non-empty segment.
    Parameter(String),
}

/// One outcome predicate; all given parts must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeRule {
    /// The outcome it gives.
    pub outcome: Outcome,
    /// Status codes; empty: any.
    pub status: Vec<std::ops::RangeInclusive<u16>>,
    /// Least body length, bytes.
    pub min_length: Option<u64>,
    /// Prefix of the media type, lower case (`application/json`).
    pub content_type: Option<String>,
    /// Prefix of `Location`.
    pub location: Option<String>,
}

/// Where an account stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountSource {
    /// `path:NAME`: the segment that the template names; index of the segment.
    Path(usize),
    /// `query:NAME`
    Query(String),
    /// `claim:NAME`: a claim of the judged credential (`sub`).
    Claim(String),
    /// `issuance`: what the login said.
    Issuance,
    /// `fingerprint`: the credential itself.
    Fingerprint,
}

/// What a login, refresh or logout route does with credentials.
#[derive(Clone, Debug, Default)]
pub struct IssuanceRule {
    /// Success: every given part must hold.
    pub success: Success,
    /// What a successful response hands out.
    pub issues: Vec<IssueSource>,
    /// Places whose presented credential becomes issued without a new one.
    pub binds: Vec<Place>,
    /// For refresh: where the presented credential stands; empty: the worst among those the route authenticates with.
    pub presents: Vec<PresentSource>,
    /// Where the account stands in the response body (JSON pointer), for accounts that only a login names.
    pub account_pointer: Option<String>,
    /// Where a login's request body names the account that is tried; the first that yields wins. Never `Place`.
    pub tries: Vec<PresentSource>,
}

impl IssuanceRule {
    /// True when a credential at this place of the request is one that is presented.
    pub fn presents_at(&self, place: Place) -> bool {
        self.presents.contains(&PresentSource::Place(place))
    }

    /// True when the request body tells which credential is presented.
    pub fn presents_in_body(&self) -> bool {
        self.presents.iter().any(|source| !matches!(source, PresentSource::Place(_)))
    }

    /// True when something is read from the request body.
    pub fn reads_request(&self) -> bool {
        self.presents_in_body() || !self.tries.is_empty()
    }

    /// True when something is read from the response body.
    pub fn reads_response(&self) -> bool {
        let body = self.success.json.is_some() || self.account_pointer.is_some();
        body || self.issues.iter().any(|source| matches!(source, IssueSource::Json(_)))
    }
}

/// What makes a login successful.
#[derive(Clone, Debug, Default)]
pub struct Success {
    /// Status codes; empty: 200–299 and 302, 303.
    pub status: Vec<std::ops::RangeInclusive<u16>>,
    /// Prefix that `Location` must have.
    pub location: Option<String>,
    /// Prefix that `Location` must not have (a failed login that redirects back).
    pub location_not: Option<String>,
    /// Cookie that the response must set, index into [`cookies`](super::Credentials::cookies).
    pub sets_cookie: Option<u8>,
    /// JSON pointer and the value it must have.
    pub json: Option<(String, serde_json::Value)>,
}

/// Where an issued credential stands in a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IssueSource {
    /// `set-cookie:NAME`, index into [`cookies`](super::Credentials::cookies).
    SetCookie(u8),
    /// `json:/pointer`
    Json(String),
    /// `header:NAME`, index into [`response_headers`](super::Credentials::response_headers).
    Header(u8),
}

/// Where a refresh request presents the credential to be exchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentSource {
    /// A credential place.
    Place(Place),
    /// `json:/pointer` in the request body.
    Json(String),
    /// `form:NAME` in an `application/x-www-form-urlencoded` body.
    Form(String),
}
