//! The hand-over to the data plane: a bounded queue without locks on the receiving side.
//!
//! Room is reserved before anything is put in, so that a request goes in as a whole or not at all. Its memory is
//! allocated once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender};

use super::Pushed;

/// A queue of at most `capacity` issuances.
pub fn queue(capacity: usize) -> (Sender, Receiver) {
    let (to, from) = mpsc::sync_channel(capacity);
    let free = Arc::new(AtomicUsize::new(capacity));
    (Sender { to, free: Arc::clone(&free) }, Receiver { from, free, capacity })
}

/// The end of the endpoint.
#[derive(Clone, Debug)]
pub struct Sender {
    to: SyncSender<Pushed>,
    free: Arc<AtomicUsize>,
}

/// There is no room for all of it, or nobody to take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

impl Sender {
    /// Puts all of `pushed` in, or nothing.
    pub fn send(&self, pushed: &[Pushed]) -> Result<(), Full> {
        let reserve = |free: usize| free.checked_sub(pushed.len());
        self.free.fetch_update(Ordering::AcqRel, Ordering::Acquire, reserve).map_err(|_| Full)?;
        // There is room for what was reserved; only a data plane that has ended takes nothing.
        pushed.iter().try_for_each(|one| self.to.try_send(*one)).map_err(|_| Full)
    }
}

/// The end of the data plane.
#[derive(Debug)]
pub struct Receiver {
    from: mpsc::Receiver<Pushed>,
    free: Arc<AtomicUsize>,
    capacity: usize,
}

impl Receiver {
    /// Takes what is there, at most what the queue holds. Waits for nothing and allocates nothing.
    pub fn drain(&self, mut take: impl FnMut(&Pushed)) {
        for pushed in self.from.try_iter().take(self.capacity) {
            self.free.fetch_add(1, Ordering::AcqRel);
            take(&pushed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Fingerprint, IssuerId, ServiceId};

    fn pushed(n: u8) -> Pushed {
        Pushed {
            source: 0,
            service: ServiceId(0),
            issuer: IssuerId(0),
            fingerprint: Fingerprint([n; 16]),
            issued_ns: 0,
            expires_ns: None,
            account: None,
            parent: None,
        }
    }

    #[test]
    fn all_or_nothing_in_order_and_again_once_drained() {
        let (sender, receiver) = queue(4);
        assert_eq!(sender.send(&[pushed(1), pushed(2), pushed(3)]), Ok(()));
        assert_eq!(sender.send(&[pushed(4), pushed(5)]), Err(Full));
        assert_eq!(sender.send(&[pushed(6)]), Ok(()));
        let mut taken = Vec::new();
        receiver.drain(|one| taken.push(one.fingerprint.0[0]));
        assert_eq!(taken, [1, 2, 3, 6]);
        assert_eq!(sender.send(&[pushed(7); 4]), Ok(()));
        assert_eq!(sender.send(&[pushed(8)]), Err(Full));
        drop(receiver);
        assert_eq!(sender.send(&[]), Ok(()));
    }

    #[test]
    fn many_threads_never_put_in_half() {
        let (sender, receiver) = queue(64);
        let threads: Vec<_> = (0..4u8)
            .map(|n| {
                let sender = sender.clone();
                std::thread::spawn(move || (0..2000).filter(|_| sender.send(&[pushed(n); 7]).is_ok()).count())
            })
            .collect();
        let mut counts = [0usize; 4];
        while !threads.iter().all(std::thread::JoinHandle::is_finished) {
            receiver.drain(|one| counts[usize::from(one.fingerprint.0[0])] += 1);
        }
        receiver.drain(|one| counts[usize::from(one.fingerprint.0[0])] += 1);
        let sent: Vec<usize> = threads.into_iter().map(|thread| thread.join().unwrap() * 7).collect();
        assert_eq!(counts.to_vec(), sent);
        assert!(counts.iter().sum::<usize>() > 0);
    }
}
