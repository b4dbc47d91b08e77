//! Teed message bodies while they come in. Raw bodies hold raw credentials: they are wiped as soon as they were read,
//! and also when they are evicted or dropped.

use std::collections::VecDeque;
use std::fmt;

use ahash::AHashMap;

use super::pending::{Key, fixed_state};
use super::secret::SecretBuf;

/// Free buffers kept for reuse.
const POOL_MAX: usize = 64;

/// One body.
#[derive(Debug, Default)]
pub(super) struct Body {
    bytes: SecretBuf,
    /// Something is missing: a hole, or more than is kept.
    damaged: bool,
    /// `TEE_END` said that the body is complete and this long.
    whole: Option<u64>,
    birth: u64,
}

impl Body {
    /// The body, if all of it is there.
    pub fn whole(&self) -> Option<&[u8]> {
        let complete = !self.damaged && self.whole == u64::try_from(self.bytes.len()).ok();
        complete.then_some(self.bytes.as_slice())
    }
}

/// Bodies by transaction and direction.
pub(super) struct Bodies {
    held: AHashMap<(Key, u8), Body>,
    /// In the order in which they began; entries whose birth differs are gone.
    ages: VecDeque<((Key, u8), u64)>,
    pool: Vec<SecretBuf>,
    births: u64,
    most: usize,
    max_bytes: usize,
    /// Bodies longer than is kept.
    pub truncated: u64,
    /// Bodies dropped for want of room.
    pub evicted: u64,
}

/// What it holds stays out of whatever prints it.
impl fmt::Debug for Bodies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bodies({} of at most {}, of {} bytes each)", self.held.len(), self.most, self.max_bytes)
    }
}

impl Bodies {
    /// Keeps at most `max_bodies` bodies of at most `max_bytes` each.
    pub fn new(max_bodies: usize, max_bytes: usize) -> Self {
        Self {
            held: AHashMap::with_hasher(fixed_state()),
            ages: VecDeque::new(),
            pool: Vec::new(),
            births: 0,
            most: max_bodies.max(1),
            max_bytes,
            truncated: 0,
            evicted: 0,
        }
    }

    /// Appends `bytes`, which stand at `offset` of the body.
    pub fn chunk(&mut self, key: Key, direction: u8, offset: u64, bytes: &[u8]) {
        let max_bytes = self.max_bytes;
        let body = self.body(key, direction);
        if body.damaged {
            return;
        }
        let have = body.bytes.len() as u64;
        if offset > have {
            body.damaged = true;
            return;
        }
        // Bytes that came before are skipped, should a chunk overlap.
        let known = usize::try_from(have - offset).unwrap_or(usize::MAX);
        let new = bytes.get(known..).unwrap_or_default();
        if body.bytes.len() + new.len() > max_bytes {
            body.damaged = true;
            body.bytes.wipe();
            self.truncated += 1;
            return;
        }
        body.bytes.push(new);
    }

    /// Notes the end of a body.
    pub fn end(&mut self, key: Key, direction: u8, body_bytes: u64, complete: bool) {
        let body = self.body(key, direction);
        body.damaged |= !complete;
        body.whole = Some(body_bytes);
    }

    /// Takes a body out. Give it back with [`Bodies::recycle`].
    pub fn take(&mut self, key: Key, direction: u8) -> Option<Body> {
        self.held.remove(&(key, direction))
    }

    /// Wipes a body and keeps its memory.
    pub fn recycle(&mut self, body: Body) {
        let mut bytes = body.bytes;
        bytes.wipe();
        if self.pool.len() < POOL_MAX {
            self.pool.push(bytes);
        }
    }

    /// Every buffer, in use or kept for reuse.
    #[cfg(test)]
    pub fn buffers(&self) -> impl Iterator<Item = &SecretBuf> {
        self.held.values().map(|body| &body.bytes).chain(&self.pool)
    }

    fn body(&mut self, key: Key, direction: u8) -> &mut Body {
        if !self.held.contains_key(&(key, direction)) {
            self.make_room();
            self.births += 1;
            self.ages.push_back(((key, direction), self.births));
        }
        let birth = self.births;
        let pool = &mut self.pool;
        self.held.entry((key, direction)).or_insert_with(|| Body {
            bytes: pool.pop().unwrap_or_default(),
            birth,
            ..Body::default()
        })
    }

    fn make_room(&mut self) {
        if self.ages.len() >= self.most.saturating_mul(4) {
            let held = &self.held;
            self.ages.retain(|(key, birth)| held.get(key).is_some_and(|body| body.birth == *birth));
        }
        while self.held.len() >= self.most {
            let Some((key, birth)) = self.ages.pop_front() else { return };
            if self.held.get(&key).is_some_and(|body| body.birth == birth)
                && let Some(body) = self.held.remove(&key)
            {
                self.recycle(body);
                self.evicted += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use sensor_ebpf::wire::FlowId;

    use super::*;

    fn key(txn: u32) -> Key {
        Key { flow: FlowId::default(), txn }
    }

    #[test]
    fn assembles_in_order_only() {
        let mut bodies = Bodies::new(4, 16);
        bodies.chunk(key(1), 1, 0, b"abc");
        bodies.chunk(key(1), 1, 2, b"cde");
        bodies.end(key(1), 1, 5, true);
        assert_eq!(bodies.take(key(1), 1).unwrap().whole(), Some(&b"abcde"[..]));

        bodies.chunk(key(2), 1, 0, b"abc");
        bodies.chunk(key(2), 1, 4, b"e");
        bodies.end(key(2), 1, 5, true);
        assert_eq!(bodies.take(key(2), 1).unwrap().whole(), None, "a hole");

        bodies.chunk(key(3), 1, 0, b"abc");
        bodies.end(key(3), 1, 5, true);
        assert_eq!(bodies.take(key(3), 1).unwrap().whole(), None, "the last chunk is lost");

        bodies.chunk(key(4), 1, 0, &[b'x'; 17]);
        bodies.end(key(4), 1, 17, true);
        assert_eq!(bodies.take(key(4), 1).unwrap().whole(), None, "longer than is kept");
        assert_eq!(bodies.truncated, 1);
    }

    #[test]
    fn bounded_and_wiped() {
        let mut bodies = Bodies::new(2, 64);
        for txn in 0..100 {
            bodies.chunk(key(txn), 1, 0, b"canary");
            if txn % 3 == 0
                && let Some(body) = bodies.take(key(txn), 1)
            {
                bodies.recycle(body);
            }
        }
        assert_eq!(bodies.held.len(), 1);
        assert!(bodies.ages.len() <= 8);
        assert_eq!(bodies.evicted, 65, "100 came, 34 were taken, one is left");
        assert!(bodies.pool.iter().all(|buffer| buffer.len() == 0));
    }
}
