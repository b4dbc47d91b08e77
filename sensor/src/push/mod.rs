//! The push endpoint: issuers whose logins do not pass the sensor (single sign-on, other login hosts) tell it what
//! they handed out.
//!
//! `POST /v1/issuances` over TLS 1.3 with client certificates. Request bodies flow in; [`Pushed`] issuances flow out
//! through a bounded queue ([`queue()`]) that the data plane empties at each of its turns, before it judges what was
//! presented up to then: an issuance that was accepted before a use counts for that use. All of it runs in a thread of
//! its own, so that handshakes hold up neither the data plane nor the metrics.
//!
//! Who a client is, its certificate says: the configured CA must have signed it, and one of its subject alternative
//! names must be a source's `subject`. (A name rather than a hash of the key: certificates are renewed, often with new
//! keys, by who runs the CA, and that must not need an edit here. So the CA should be one for this purpose.) What it may
//! tell of, `issuers` and `kids` of that source say (`source`).
//!
//! A request is taken as a whole or not at all. Raw credentials are fingerprinted at once; the buffers of this module
//! that held them are wiped, and no answer, log line or metric repeats any part of a body. What the TLS and HTTP
//! libraries hold while they receive is freed, not wiped: sources that can should send fingerprints.

mod certificates;
mod connection;
mod line;
mod queue;
mod server;
mod source;
#[cfg(test)]
mod tests;

use crate::observation::{AccountHash, Fingerprint, IssuerId, ServiceId};

pub use certificates::Certificates;
pub use queue::{Receiver, Sender, queue};
pub use server::{PushError, Server, bind};

/// An issuance that a source told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Index of the source in the configuration.
    pub source: u16,
    /// The service.
    pub service: ServiceId,
    /// Who handed it out.
    pub issuer: IssuerId,
    /// The credential.
    pub fingerprint: Fingerprint,
    /// When, on the kernel's monotonic clock, nanoseconds.
    pub issued_ns: u64,
    /// End of its life on that clock, if it was stated.
    pub expires_ns: Option<u64>,
    /// Whose it is, if that was stated.
    pub account: Option<AccountHash>,
    /// The credential that it was exchanged for, if it was.
    pub parent: Option<Fingerprint>,
}
