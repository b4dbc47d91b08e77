//! What the network makes of a conversation, as seen at the server: segments cut anywhere, repeated, overlapping, out of
//! order. Cause and effect stay in order: an answer is seen after the whole of what it answers.

use std::net::SocketAddr;

use super::conversation::{Conversation, Stream};
use super::packets::{ACK, FIN, SYN, Segment};
use super::tape::Tape;

/// How segments are disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disturbance {
    /// Not at all: as few segments as there can be.
    None,
    /// Cut, repeated and overlapping; new bytes come in order.
    InOrder,
    /// In any order within a window, too.
    AnyOrder,
}

/// Bytes of one segment, and whether the stream ends behind them.
#[derive(Clone, Debug)]
struct Part {
    from: usize,
    to: usize,
    fin: bool,
}

/// One direction on its way.
struct Way<'a> {
    stream: &'a Stream,
    parts: Vec<Part>,
    /// Which bytes were seen.
    seen: Vec<bool>,
    prefix: usize,
    /// Its end comes last: in a tunnel nobody waits for what is missing.
    ends_last: bool,
    /// Its end was seen.
    ended: bool,
    sequence: u32,
    ends: (SocketAddr, SocketAddr),
}

impl<'a> Way<'a> {
    fn new(streams: [&'a Stream; 2], tunnel: bool, tape: &mut Tape<'_>, how: Disturbance, sequence: u32) -> Self {
        let [stream, other] = streams;
        let parts = cut(stream, other, tunnel, tape, how);
        let parts = if how == Disturbance::None { parts } else { disturb(stream, other, tape, how, parts) };
        let place: SocketAddr = ([0, 0, 0, 0], 0).into();
        Self {
            stream,
            parts,
            seen: vec![false; stream.bytes.len()],
            prefix: 0,
            ends_last: tunnel,
            ended: false,
            sequence,
            ends: (place, place),
        }
    }

    fn needed(&self, part: &Part) -> usize {
        let by_bytes = self.stream.needed(part.to.saturating_sub(1));
        by_bytes.max(if part.fin { self.stream.end.unwrap_or(0) } else { 0 })
    }

    /// The first part that can be sent after what was seen of the other direction.
    fn ready(&self, other: &Self, how: Disturbance) -> Option<usize> {
        let window = if how == Disturbance::AnyOrder { self.parts.len() } else { 1 };
        // An end may overtake its bytes, but not the second of both ends: behind that there is no connection.
        let last = other.ended || self.ends_last;
        let in_turn =
            |part: &Part| !(part.fin && last) || (self.prefix >= part.from && other.prefix == other.seen.len());
        self.parts.iter().take(window).position(|part| self.needed(part) <= other.prefix && in_turn(part))
    }

    fn send(&mut self, index: usize, acknowledged: u32) -> Segment {
        let part = self.parts.remove(index);
        self.seen[part.from..part.to].fill(true);
        self.ended |= part.fin;
        self.prefix += self.seen[self.prefix..].iter().take_while(|seen| **seen).count();
        let sequence = self.sequence.wrapping_add(u32::try_from(part.from).unwrap());
        let flags = ACK | if part.fin { FIN } else { 0 };
        let bytes = &self.stream.bytes[part.from..part.to];
        let mut segment = Segment::new(self.ends.0, self.ends.1, sequence, flags, bytes);
        segment.acknowledged = acknowledged;
        segment
    }

    fn over(&self) -> bool {
        self.ended && self.prefix == self.seen.len()
    }

    fn next(&self) -> u32 {
        self.sequence.wrapping_add(u32::try_from(self.prefix).unwrap())
    }
}

/// The farthest place to which a segment that begins at `from` can reach: it needs one thing only, and nothing that
/// needs its first bytes is needed by its last ones.
fn reach(stream: &Stream, other: &Stream, from: usize) -> usize {
    let own = stream.needs.iter().map(|(at, _)| *at);
    let others = other.needs.iter().map(|(_, needed)| *needed);
    own.chain(others).filter(|at| *at > from).min().unwrap_or(usize::MAX).min(stream.bytes.len()).min(from + 60_000)
}

fn cut(stream: &Stream, other: &Stream, tunnel: bool, tape: &mut Tape<'_>, how: Disturbance) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut from = 0;
    let small = how != Disturbance::None && tape.one_in(12);
    while from < stream.bytes.len() {
        let most = reach(stream, other, from) - from;
        let len = match if how == Disturbance::None { 0 } else { tape.below(5) } {
            _ if small => 1,
            1 => 1 + tape.below(8),
            2 => 1 + tape.below(100),
            3 => 1 + tape.below(1400),
            _ => most,
        };
        parts.push(Part { from, to: from + len.min(most), fin: false });
        from += len.min(most);
    }
    if let Some(needed) = stream.end {
        match parts.last_mut() {
            Some(last) if !tunnel && tape.one_in(2) && stream.needed(last.from) >= needed => last.fin = true,
            _ => parts.push(Part { from, to: from, fin: true }),
        }
    }
    parts
}

fn disturb(stream: &Stream, other: &Stream, tape: &mut Tape<'_>, how: Disturbance, parts: Vec<Part>) -> Vec<Part> {
    let mut sent: Vec<(usize, Part)> = Vec::new();
    for (index, mut part) in parts.into_iter().enumerate() {
        let whole = part.clone();
        if tape.one_in(8) {
            part.from -= tape.below(60).min(part.from);
        }
        if tape.one_in(8) && !part.fin && part.to > part.from {
            part.to = (part.to + tape.below(200)).min(reach(stream, other, whole.from));
        }
        let delay = match how {
            Disturbance::AnyOrder if tape.one_in(5) => 1 + tape.below(4),
            Disturbance::AnyOrder if tape.one_in(25) => 20,
            _ => 0,
        };
        sent.push((index + delay, part));
        if tape.one_in(10) {
            // Sent again, now or later; of the two copies of an end the first counts.
            sent.push((index + delay + tape.below(12), whole));
        }
    }
    sent.sort_by_key(|(place, _)| *place);
    sent.into_iter().map(|(_, part)| part).collect()
}

/// The conversation as segments, from the handshake on.
pub fn segments(conversation: &Conversation, tape: &mut Tape<'_>, how: Disturbance) -> Vec<Segment> {
    let v6 = tape.one_in(4);
    let (client, server) =
        if v6 { ("[2001:db8::7]:40000", "[2001:db8::10]:8080") } else { ("10.0.0.1:40000", "10.0.0.2:8080") };
    let (client, server): (SocketAddr, SocketAddr) = (client.parse().unwrap(), server.parse().unwrap());
    // Near the wrap, or somewhere.
    let start = |word: usize, plain: u32| if word == 0 { plain } else { u32::try_from(word).unwrap() << 16 };
    let starts = (start(tape.below(5), 0xffff_ff00), start(tape.below(5), 0x7fff_ff00));
    let (client_side, server_side) = (&conversation.client, &conversation.server);
    let mut ways = [
        Way::new([client_side, server_side], conversation.tunnel, tape, how, starts.0.wrapping_add(1)),
        Way::new([server_side, client_side], conversation.tunnel, tape, how, starts.1.wrapping_add(1)),
    ];
    ways[0].ends = (client, server);
    ways[1].ends = (server, client);
    let mut out = vec![
        Segment::new(client, server, starts.0, SYN, b""),
        Segment::new(server, client, starts.1, SYN | ACK, b""),
        Segment::new(client, server, starts.0.wrapping_add(1), ACK, b""),
    ];
    // What comes behind both ends belongs to no connection any more.
    while ways.iter().any(|way| !way.parts.is_empty()) && !ways.iter().all(Way::over) {
        // The client's turn first, as long as it can, unless the network says otherwise.
        let first = usize::from(how != Disturbance::None && tape.one_in(3));
        let [now, other] = [first, 1 - first];
        let (side, index) = match ways[now].ready(&ways[other], how) {
            Some(index) => (now, index),
            None => (other, ways[other].ready(&ways[now], how).expect("one of the two can always go on")),
        };
        let acknowledged = ways[1 - side].next();
        let segment = ways[side].send(index, acknowledged);
        out.push(segment);
        if how != Disturbance::None && tape.one_in(15) {
            let way = &ways[1 - side];
            let mut ack = Segment::new(way.ends.0, way.ends.1, way.next(), ACK, b"");
            ack.acknowledged = ways[side].next();
            out.push(ack);
        }
    }
    let tagged = tape.one_in(6);
    if tagged {
        for segment in &mut out {
            segment.tags.push((0x8100, 7));
        }
    }
    out
}
