//! One connection: handshake, requests, answers; everything bounded in size, number and time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::time::{ClockId, clock_gettime};
use serde::de::{Deserializer as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::line::{Now, Reader, Refusal};
use super::source::{BURST_SECONDS, Grants, Sources};
use super::{Pushed, Sender};
use crate::collect::Keys;
use crate::collect::secret::SecretBuf;
use crate::metrics::{Metrics, PushConnection, PushRequest};

/// Longest TLS handshake.
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// Longest time for a request head, and between two requests.
const HEAD_TIME: Duration = Duration::from_secs(30);
/// Longest time for a request body.
const BODY_TIME: Duration = Duration::from_secs(10);
/// Longest life of a connection: a certificate that is no longer valid is noticed then.
const CONNECTION_TIME: Duration = Duration::from_mins(10);
/// Largest request head, bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Issuances in one request.
const LINES_MAX: usize = 10_000;

/// What all connections share.
pub(super) struct Endpoint {
    pub sources: Sources,
    pub keys: Keys,
    pub sender: Sender,
    pub metrics: Arc<Metrics>,
    pub max_body: usize,
    pub max_delay: Duration,
    pub leeway: Duration,
}

/// Serves one connection; `slot` is given back after the handshake.
pub(super) async fn serve(stream: TcpStream, slot: OwnedSemaphorePermit, tls: TlsAcceptor, endpoint: Arc<Endpoint>) {
    let connection = |result| endpoint.metrics.push_connection(result);
    let stream = match tokio::time::timeout(HANDSHAKE_TIME, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "the push endpoint refused a connection");
            return connection(PushConnection::Refused);
        }
        Err(_) => return connection(PushConnection::TimedOut),
    };
    drop(slot);
    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(grants) = certificate.and_then(|certificate| endpoint.sources.grants(certificate)) else {
        return connection(PushConnection::NoSource);
    };
    let Some(_held) = endpoint.sources.connections(&grants).and_then(|slots| slots.try_acquire_owned().ok()) else {
        return connection(PushConnection::Crowded);
    };
    connection(PushConnection::Served);
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES);
    let service = service_fn(|request| {
        let (endpoint, grants) = (Arc::clone(&endpoint), grants.clone());
        async move { Ok::<_, Infallible>(endpoint.answer(request, &grants).await) }
    });
    let mut served = pin!(http.serve_connection(TokioIo::new(stream), service));
    // What goes wrong here is the client's: its requests were counted.
    tokio::select! {
        _ = &mut served => {}
        () = tokio::time::sleep(CONNECTION_TIME) => {
            served.as_mut().graceful_shutdown();
            let _ = tokio::time::timeout(BODY_TIME, served).await;
        }
    }
}

/// Why a request is not taken.
#[derive(Debug)]
pub(super) struct Refused {
    status: StatusCode,
    counted: PushRequest,
    why: &'static str,
    /// Which entry, from 1.
    line: Option<usize>,
    /// Seconds after which it may come again.
    retry: Option<u64>,
}

impl Refused {
    fn new(status: StatusCode, counted: PushRequest, why: &'static str) -> Self {
        Self { status, counted, why, line: None, retry: None }
    }

    fn at(line: usize, refusal: Refusal) -> Self {
        let refused = match refusal {
            Refusal::Invalid(why) => Self::new(StatusCode::UNPROCESSABLE_ENTITY, PushRequest::Invalid, why),
            Refusal::Forbidden(why) => Self::new(StatusCode::FORBIDDEN, PushRequest::Forbidden, why),
        };
        Self { line: Some(line), ..refused }
    }

    fn beyond_rate(retry: Option<u64>) -> Self {
        let why = "beyond this source's rate";
        Self { retry, ..Self::new(StatusCode::TOO_MANY_REQUESTS, PushRequest::Rate, why) }
    }

    fn too_large(why: &'static str) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, PushRequest::TooLarge, why)
    }
}

impl Endpoint {
    async fn answer(&self, request: Request<Incoming>, grants: &Grants) -> Response<Body> {
        let taken = self.take(request, grants).await;
        let counted = taken.as_ref().map_or_else(|refused| refused.counted, |_| PushRequest::Accepted);
        self.metrics.push_request(Some(grants.first()), counted);
        let (status, text, retry) = match taken {
            Ok(count) => (StatusCode::ACCEPTED, format!("{{\"accepted\":{count}}}\n"), None),
            Err(Refused { status, why, line, retry, .. }) => {
                let line = line.map_or_else(String::new, |line| format!(",\"line\":{line}"));
                // The reasons are texts of this program without anything to escape.
                (status, format!("{{\"error\":\"{why}\"{line}}}\n"), retry)
            }
        };
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = retry {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The number of issuances taken: all of the request's.
    async fn take(&self, request: Request<Incoming>, grants: &Grants) -> Result<usize, Refused> {
        let other = |status, why| Err(Refused::new(status, PushRequest::Other, why));
        if request.uri().path() != "/v1/issuances" {
            return other(StatusCode::NOT_FOUND, "issuances are taken at /v1/issuances");
        }
        if request.method() != Method::POST {
            return other(StatusCode::METHOD_NOT_ALLOWED, "issuances are taken by POST");
        }
        if request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return other(StatusCode::UNSUPPORTED_MEDIA_TYPE, "the body must not be compressed");
        }
        let late = |_| Refused::new(StatusCode::REQUEST_TIMEOUT, PushRequest::Torn, "the body took too long");
        let body = tokio::time::timeout(BODY_TIME, self.body(request.into_body())).await.map_err(late)??;
        // A request that is refused costs its source one issuance.
        let pushed = self.read(body.as_slice(), grants).inspect_err(|_| {
            let _ = self.sources.spend(&[(grants.first(), 1)], Instant::now());
        })?;
        drop(body);
        self.spend(&pushed)?;
        if self.sender.send(&pushed).is_err() {
            let why = "the sensor does not keep up";
            let refused = Refused::new(StatusCode::SERVICE_UNAVAILABLE, PushRequest::QueueFull, why);
            return Err(Refused { retry: Some(1), ..refused });
        }
        Ok(pushed.len())
    }

    async fn body(&self, mut body: Incoming) -> Result<SecretBuf, Refused> {
        const LARGE: &str = "the body is larger than `push.max_body`: send less at once";
        let most = self.max_body;
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if announced > most {
            return Err(Refused::too_large(LARGE));
        }
        let mut held = SecretBuf::default();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let torn = |_| Refused::new(StatusCode::BAD_REQUEST, PushRequest::Torn, "the body is not complete");
            let frame = frame.map_err(torn)?;
            let Some(bytes) = frame.data_ref() else { continue };
            if held.len().saturating_add(bytes.len()) > most {
                return Err(Refused::too_large(LARGE));
            }
            held.push(bytes);
        }
        Ok(held)
    }

    pub(super) fn read(&self, body: &[u8], grants: &Grants) -> Result<Vec<Pushed>, Refused> {
        let invalid = |why| Refused::new(StatusCode::UNPROCESSABLE_ENTITY, PushRequest::Invalid, why);
        let text = std::str::from_utf8(body).map_err(|_| invalid("the body is not UTF-8"))?;
        let reader = Reader {
            sources: &self.sources,
            keys: &self.keys,
            now: now(),
            max_delay: self.max_delay.as_secs_f64(),
            leeway: self.leeway.as_secs_f64(),
        };
        let mut pushed = Vec::new();
        let mut take = |line: usize, text: &str| {
            if pushed.len() >= LINES_MAX {
                return Err(Refused::too_large("more than 10000 issuances: send less at once"));
            }
            pushed.push(reader.read(grants, text).map_err(|refusal| Refused::at(line, refusal))?);
            Ok(())
        };
        if text.trim_ascii_start().starts_with('[') {
            let mut refused = None;
            let mut array = serde_json::Deserializer::from_str(text);
            let read = array.deserialize_seq(Entries { take: &mut take, refused: &mut refused });
            if let Some(refused) = refused {
                return Err(refused);
            }
            read.and_then(|()| array.end()).map_err(|_| invalid("the body is not a JSON array"))?;
        } else {
            for (line, text) in (1..).zip(text.lines()) {
                if !text.trim_ascii().is_empty() {
                    take(line, text)?;
                }
            }
        }
        if pushed.is_empty() {
            return Err(invalid("the body has no issuances: write one JSON object a line, or an array"));
        }
        Ok(pushed)
    }

    fn spend(&self, pushed: &[Pushed]) -> Result<(), Refused> {
        let mut counts: Vec<(u16, u32)> = Vec::new();
        for one in pushed {
            match counts.iter_mut().find(|(source, _)| *source == one.source) {
                Some((_, count)) => *count += 1,
                None => counts.push((one.source, 1)),
            }
        }
        let spent = self.sources.spend(&counts, Instant::now());
        spent.map_err(
            |wait| if wait.is_some() { Refused::beyond_rate(wait) } else { Refused::too_large(MORE_THAN_BURST) },
        )
    }
}

const MORE_THAN_BURST: &str = "more than ten seconds' worth of this source's rate: send less at once";
const _: () = assert!(BURST_SECONDS == 10, "the text says so");

/// Hands each element of an array on as it stands.
struct Entries<'a, F> {
    take: &'a mut F,
    refused: &'a mut Option<Refused>,
}

impl<'de, F: FnMut(usize, &str) -> Result<(), Refused>> Visitor<'de> for Entries<'_, F> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let mut entry = 1;
        while let Some(text) = entries.next_element::<&'de RawValue>()? {
            if let Err(refused) = (self.take)(entry, text.get()) {
                *self.refused = Some(refused);
                return Err(serde::de::Error::custom("refused"));
            }
            entry += 1;
        }
        Ok(())
    }
}

fn now() -> Now {
    let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default();
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Now { monotonic_ns: u64::try_from(monotonic.as_nanos()).unwrap_or(u64::MAX), unix: unix.as_secs_f64() }
}
