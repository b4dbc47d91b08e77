//! Who goes when the slow path follows more flows than it may.
//!
//! In this order: a flow that rests between two messages and was offered back (the kernel may take it all the same), a
//! flow that was only found (its state is gone: what it still says is read as far as that goes), then, as long as some
//! client has more than its share, the flow of the client with most, and then any; of several always the one that was
//! quiet for longest. So a flow that went once does not come back at the expense of one whose missing bytes are awaited,
//! and one client's holes do not push out those of all others. A flow is here exactly as long as the slow path follows it.

use std::collections::{BTreeSet, HashMap};

use sensor_ebpf::flow::FlowKey;
use sensor_ebpf::wire::FlowId;

/// One client's share of the flows is this part of them. It is asked for only when there is no room: a proxy from which
/// everything comes has all of it.
const SHARES: usize = 8;

/// A client: its IPv4 address, or the first 64 bits of its IPv6 address, of which it has all the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Client([u64; 2]);

impl Client {
    fn of(key: &FlowKey) -> Self {
        let [network, host] = key.client;
        // Mapped IPv4 addresses have nothing in their first half.
        Self(if network == 0 { [0, host] } else { [network, 0] })
    }
}

/// What is lost with a flow, the least first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Nothing: it rests, and was offered back.
    Resting,
    /// What comes behind a hole or inside a message: its state was lost before.
    Found,
    /// What it waits for.
    #[default]
    Followed,
}

/// Why a flow is the one that goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    Resting,
    Found,
    /// Its client has more than its share.
    Share,
    /// It was quiet for longest.
    Quiet,
}

/// Where a flow stands in the order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seat {
    client: Client,
    rank: Rank,
    /// When something last came, nanoseconds.
    last: u64,
    id: FlowId,
}

impl Seat {
    pub(super) fn new(key: &FlowKey, rank: Rank, last: u64, id: FlowId) -> Self {
        Self { client: Client::of(key), rank, last, id }
    }
}

/// The order of all flows that are followed.
pub(super) struct Room {
    share: usize,
    all: BTreeSet<(Rank, u64, FlowId)>,
    by_client: BTreeSet<(Client, Rank, u64, FlowId)>,
    counts: HashMap<Client, usize>,
    /// Clients by how many flows they have.
    largest: BTreeSet<(usize, Client)>,
}

impl Room {
    /// For at most so many flows.
    pub(super) fn new(flows: usize) -> Self {
        Self {
            share: (flows / SHARES).max(1),
            all: BTreeSet::new(),
            by_client: BTreeSet::new(),
            counts: HashMap::new(),
            largest: BTreeSet::new(),
        }
    }

    pub(super) fn insert(&mut self, seat: &Seat) {
        if self.all.insert((seat.rank, seat.last, seat.id)) {
            self.by_client.insert((seat.client, seat.rank, seat.last, seat.id));
            self.count(seat.client, 1);
        }
    }

    pub(super) fn remove(&mut self, seat: &Seat) {
        if self.all.remove(&(seat.rank, seat.last, seat.id)) {
            self.by_client.remove(&(seat.client, seat.rank, seat.last, seat.id));
            self.count(seat.client, -1);
        }
    }

    fn count(&mut self, client: Client, by: isize) {
        let count = self.counts.entry(client).or_default();
        self.largest.remove(&(*count, client));
        *count = count.saturating_add_signed(by);
        if *count > 0 {
            self.largest.insert((*count, client));
        } else {
            self.counts.remove(&client);
        }
    }

    /// The flow that goes first, and why; none when there are no flows.
    pub(super) fn first_out(&self) -> Option<(FlowId, Why)> {
        let &(rank, _, id) = self.all.first()?;
        match rank {
            Rank::Resting => return Some((id, Why::Resting)),
            Rank::Found => return Some((id, Why::Found)),
            Rank::Followed => {}
        }
        let over = self.largest.last().filter(|(count, _)| *count > self.share);
        let from = |client| (client, Rank::Resting, 0, FlowId::default());
        let of_the_largest = over.and_then(|(_, client)| self.by_client.range(from(*client)..).next());
        Some(of_the_largest.map_or((id, Why::Quiet), |(_, _, _, id)| (*id, Why::Share)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(client: [u64; 2], rank: Rank, last: u64) -> Seat {
        let key = FlowKey { client, ..FlowKey::default() };
        Seat::new(&key, rank, last, FlowId { created_ns: last, salt: 0, reserved: 0 })
    }

    /// Takes out everybody, in order.
    fn order(room: &mut Room, mut seats: Vec<Seat>) -> Vec<(u64, Why)> {
        let mut out = Vec::new();
        while let Some((id, why)) = room.first_out() {
            let at = seats.iter().position(|seat| seat.id == id).unwrap();
            room.remove(&seats.remove(at));
            out.push((id.created_ns, why));
        }
        assert!(seats.is_empty() && room.counts.is_empty() && room.largest.is_empty() && room.by_client.is_empty());
        out
    }

    #[test]
    fn what_loses_least_goes_first_and_the_quiet_before_the_loud() {
        let mut room = Room::new(80);
        let seats: Vec<Seat> = [
            (Rank::Followed, 1),
            (Rank::Found, 2),
            (Rank::Resting, 3),
            (Rank::Followed, 4),
            (Rank::Found, 5),
            (Rank::Resting, 6),
        ]
        .map(|(rank, last)| seat([0, last], rank, last))
        .into();
        for seat in &seats {
            room.insert(seat);
        }
        let expected =
            [(3, Why::Resting), (6, Why::Resting), (2, Why::Found), (5, Why::Found), (1, Why::Quiet), (4, Why::Quiet)];
        assert_eq!(order(&mut room, seats), expected);
    }

    #[test]
    fn who_has_more_than_a_share_goes_first() {
        // Of sixteen flows a share is two. The large client's addresses differ in their last 64 bits.
        let mut room = Room::new(16);
        let small = (1..4).map(|last| seat([0, last], Rank::Followed, last));
        let large = (4..8).map(|last| seat([7, last], Rank::Followed, last));
        let seats: Vec<Seat> = small.chain(large).collect();
        for seat in &seats {
            room.insert(seat);
        }
        let expected = [
            (4, Why::Share),
            (5, Why::Share),
            (1, Why::Quiet),
            (2, Why::Quiet),
            (3, Why::Quiet),
            (6, Why::Quiet),
            (7, Why::Quiet),
        ];
        assert_eq!(order(&mut room, seats), expected);
    }
}
