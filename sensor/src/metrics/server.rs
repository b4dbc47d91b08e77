//! The metrics endpoint: HTTP/1.1, GET only, everything bounded.
//!
//! `GET /metrics` gives the text format, `GET /healthz` says that the process answers, `GET /` says where the metrics
//! are. A connection serves one request and lives for at most [`CONNECTION_TIME`]; at most [`CONNECTIONS`] are open at
//! once, further ones wait in the listen queue. Request bodies are never read.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use std::{io, pin};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Metrics;

/// Connections that are served at once.
const CONNECTIONS: usize = 32;
/// Longest life of a connection: Prometheus gives a scrape 10 s.
const CONNECTION_TIME: Duration = Duration::from_secs(10);
/// Longest time for a request head.
const HEAD_TIME: Duration = Duration::from_secs(5);
/// Largest request head, bytes.
const HEAD_BYTES: usize = 16 * 1024;
/// Pause after the system refused a connection (no descriptors left).
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// The metrics address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}: {source}. {}", fix(source))]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// What to do about it.
fn fix(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "Another process has the port (`ss -ltnp` shows it): stop it, or write another port as `listen` under \
             `[metrics]`"
        }
        io::ErrorKind::AddrNotAvailable => {
            "No interface of this host has the address: write one that it has, such as \"127.0.0.1:9464\", as `listen` \
             under `[metrics]`"
        }
        io::ErrorKind::PermissionDenied => {
            "Ports below 1024 need CAP_NET_BIND_SERVICE: write a higher one as `listen` under `[metrics]`"
        }
        _ => "Write another address as `listen` under `[metrics]`",
    }
}

/// Listens on `address`, before anything else is set up, so that a taken port leaves nothing half-started.
pub fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    let listen = || {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| BindError { address, source })
}

/// Serves `metrics` on a listener from [`bind`] until `shutdown` is ready. Must run in a tokio runtime with I/O and
/// time enabled.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let routes = router(metrics);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let mut shutdown = pin::pin!(shutdown);
    loop {
        let accepted = async {
            let slot = Arc::clone(&slots).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, slot))
        };
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = accepted => match accepted {
                Ok((stream, slot)) => drop(tokio::spawn(connection(stream, slot, routes.clone()))),
                Err(error) => {
                    tracing::warn!(%error, "the metrics endpoint cannot accept connections");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            },
        }
    }
}

/// Serves one request.
async fn connection(stream: TcpStream, slot: OwnedSemaphorePermit, routes: Router) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIME).max_buf_size(HEAD_BYTES).keep_alive(false);
    let served = http.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes));
    if tokio::time::timeout(CONNECTION_TIME, served).await.is_err() {
        tracing::debug!("a client of the metrics endpoint took longer than {CONNECTION_TIME:?}");
    }
    drop(slot);
}

fn router(metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/", get(|| async { "authsensor: metrics are at /metrics\n" }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(exposition))
        .with_state(metrics)
}

async fn exposition(State(metrics): State<Arc<Metrics>>) -> Response {
    match metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}
