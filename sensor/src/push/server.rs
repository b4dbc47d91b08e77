//! The listener and its thread.

use std::future::Future;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, pin};

use tokio::sync::{Semaphore, oneshot, watch};
use tokio_rustls::TlsAcceptor;

use super::Sender;
use super::certificates::Certificates;
use super::connection::{self, Endpoint};
use super::source::Sources;
use crate::collect::Keys;
use crate::config::model::{Config, Push, PushFiles, PushTls};
use crate::metrics::Metrics;

/// Handshakes at once: a client that is not known yet holds up nobody who is connected.
const HANDSHAKES: usize = 32;
/// Pause after the system refused a connection (no descriptors left).
const REFUSED_PAUSE: Duration = Duration::from_millis(100);

/// Why the push endpoint does not start.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// Its address cannot be listened on.
    #[error("cannot take pushed issuances on {address}: {source}. Write another address as `listen` under `[push]`")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Its thread cannot be started.
    #[error("cannot start the push endpoint: {0}")]
    Start(io::Error),
}

/// Listens on the configured address, before anything else is set up.
pub fn bind(push: &Push) -> Result<TcpListener, PushError> {
    let listen = || {
        let listener = TcpListener::bind(push.listen)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    listen().map_err(|source| PushError::Bind { address: push.listen, source })
}

/// A running endpoint; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    files: PushFiles,
    tls: Arc<watch::Sender<PushTls>>,
}

impl Server {
    /// Serves on a listener from [`bind`] in a thread of its own. `push` is that of `config`.
    pub fn start(
        listener: TcpListener,
        config: &Config,
        push: &Push,
        keys: Keys,
        sender: Sender,
        metrics: Arc<Metrics>,
    ) -> Result<Self, PushError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PushError::Start)?;
        let endpoint = Arc::new(Endpoint {
            sources: Sources::new(config, &push.sources),
            keys,
            sender,
            metrics,
            max_body: push.max_body,
            max_delay: push.max_delay,
            leeway: config.ledger.clock_leeway,
        });
        let (shown, tls) = watch::channel(push.tls.clone());
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("push".into()).spawn(move || {
            let stopped = async {
                // Whoever would stop it is gone: the same.
                let _ = stopped.await;
            };
            if let Err(error) = runtime.block_on(serve(listener, tls, endpoint, stopped)) {
                tracing::error!(%error, "the push endpoint cannot listen");
            }
        });
        let (files, tls) = (push.files.clone(), Arc::new(shown));
        Ok(Self { stop: Some(stop), thread: Some(thread.map_err(PushError::Start)?), files, tls })
    }

    /// Reads its certificate, key and CA again when they change.
    pub fn certificates(&self, metrics: &Arc<Metrics>) -> Certificates {
        Certificates::new(self.files.clone(), Arc::clone(&self.tls), Arc::clone(metrics))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            // It has ended by itself: nothing to stop.
            let _ = stop.send(());
        }
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("the push endpoint stopped unexpectedly");
        }
    }
}

async fn serve(
    listener: TcpListener,
    tls: watch::Receiver<PushTls>,
    endpoint: Arc<Endpoint>,
    stopped: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let mut stopped = pin::pin!(stopped);
    loop {
        let accepted = async {
            let slot = Arc::clone(&handshakes).acquire_owned().await.map_err(io::Error::other)?;
            let (stream, _) = listener.accept().await?;
            Ok::<_, io::Error>((stream, slot))
        };
        tokio::select! {
            () = &mut stopped => return Ok(()),
            accepted = accepted => match accepted {
                Ok((stream, slot)) => {
                    let tls = TlsAcceptor::from(Arc::clone(&tls.borrow().0));
                    drop(tokio::spawn(connection::serve(stream, slot, tls, Arc::clone(&endpoint))));
                }
                Err(error) => {
                    tracing::warn!(%error, "the push endpoint cannot accept connections");
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            },
        }
    }
}
