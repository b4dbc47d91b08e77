//! The endpoint's certificate, key and CA, read again while it runs.
//!
//! Certificates are renewed every few weeks or days, and the sensor must not be restarted for that: what it saw meanwhile
//! would be a gap. The control plane looks at the files' times now and then, and at once when it is told to (SIGHUP).
//! Files that make a TLS configuration flow in, and out to the listener: connections from then on are shown the new
//! certificate and held to the new CA; those that are there end when they would have. Files with mistakes leave the
//! running ones in place, and log and metric say so.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config;
use crate::config::model::{PushFiles, PushTls};
use crate::metrics::{Metrics, PushReload};

/// What tells one state of a file from another: device, inode, time of change, length. `None`: it cannot be asked.
type Stamp = Option<(u64, u64, (i64, i64), u64)>;

/// Watches the files of a running endpoint.
pub struct Certificates {
    files: PushFiles,
    stamps: [Stamp; 3],
    shown: Arc<watch::Sender<PushTls>>,
    metrics: Arc<Metrics>,
}

impl Certificates {
    /// Watches `files`, which are as they were read; what comes of them goes to `shown`.
    pub(super) fn new(files: PushFiles, shown: Arc<watch::Sender<PushTls>>, metrics: Arc<Metrics>) -> Self {
        Self { stamps: stamps(&files), files, shown, metrics }
    }

    /// Reads them again if one has changed since they were last looked at.
    pub fn look(&mut self) {
        let now = stamps(&self.files);
        if now != self.stamps {
            self.load();
        }
    }

    /// Reads them again, whatever their times say.
    pub fn load(&mut self) {
        // Before they are read: what changes meanwhile is read the next time.
        self.stamps = stamps(&self.files);
        match config::read_push_tls(&self.files) {
            Ok(tls) => {
                self.shown.send_replace(tls);
                self.metrics.push_reloaded(PushReload::Loaded);
                tracing::info!("the push endpoint's certificate, key and CA were read anew");
            }
            Err(mistakes) => {
                self.metrics.push_reloaded(PushReload::Refused);
                for mistake in &mistakes {
                    tracing::error!("{mistake}");
                }
                tracing::error!("the push endpoint goes on with the certificate, key and CA that it has");
            }
        }
    }
}

fn stamps(files: &PushFiles) -> [Stamp; 3] {
    [&files.certificate, &files.key, &files.client_ca].map(|file| stamp(file))
}

fn stamp(file: &Path) -> Stamp {
    let known = fs::metadata(file).ok()?;
    Some((known.dev(), known.ino(), (known.mtime(), known.mtime_nsec()), known.len()))
}
