//! Admitting packets: which service one belongs to, and its flow, found or made.
//!
//! A segment comes in as `work.packet`; what goes on to its half has the flow current, and key and direction in `work`.
//! Whatever ends here (no service, no flow, a handshake, a bare acknowledgement) leaves with its disposition. Flows are
//! made here and nowhere else.

use super::Tables;
use crate::flow::{Flow, FlowKey, flow_flag, half_flag, phase};
use crate::packet::{Packet, tcp_flag};
use crate::reason::Counter;
use crate::wire::direction;
use crate::words;
use crate::work::Work;

#[inline(always)]
const fn key_of(packet: &Packet, way: u8) -> FlowKey {
    if way == direction::REQUEST {
        FlowKey {
            client: packet.source,
            server: packet.destination,
            client_port: packet.source_port,
            server_port: packet.destination_port,
            reserved: 0,
        }
    } else {
        FlowKey {
            client: packet.destination,
            server: packet.source,
            client_port: packet.destination_port,
            server_port: packet.source_port,
            reserved: 0,
        }
    }
}

/// Instead of a disposition: the segment goes on to the current flow's half.
pub(super) const GOES_ON: u32 = u32::MAX;

/// Finds or makes the flow: [`GOES_ON`], or the disposition of a packet that ends here.
#[inline(always)]
pub(super) fn admit<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    let (to, from) = tables.watched_pair(work.packet.destination_port, work.packet.source_port);
    if !to && !from {
        return Counter::PacketNoService as u32;
    }
    if work.packet.flags & tcp_flag::SYN != 0 {
        return opening(tables, work, to, to && from);
    }
    set_key(work, if to { direction::REQUEST } else { direction::RESPONSE });
    if !tables.find(&work.key) {
        let made = unknown(tables, work, to && from);
        if made != GOES_ON {
            return made;
        }
    }
    if work.present == 0 && work.packet.flags & (tcp_flag::FIN | tcp_flag::RST | tcp_flag::PIECES) == 0 {
        acknowledged(tables, work);
        return Counter::PacketEmpty as u32;
    }
    GOES_ON
}

/// A SYN or SYN-ACK, to (`to`) a watched port or from one; `both` where both ends are watched. As [`admit`].
///
/// Once a connection; like [`unknown`] and [`begin`] a function of its own in the kernel: what its many ways leave in
/// registers and on the stack is gone behind it, and does not multiply what follows.
#[cfg_attr(target_arch = "bpf", inline(never))]
fn opening<T: Tables>(tables: &mut T, work: &mut Work, to: bool, both: bool) -> u32 {
    if work.packet.flags & tcp_flag::ACK == 0 {
        return opened(tables, work);
    }
    set_key(work, if to { direction::REQUEST } else { direction::RESPONSE });
    let found = tables.find(&work.key) || (both && find_response(tables, work));
    answered(tables, work, found) as u32
}

/// A segment of a flow that is not in the table in the direction that its ports say. As [`admit`].
#[cfg_attr(target_arch = "bpf", inline(never))]
fn unknown<T: Tables>(tables: &mut T, work: &mut Work, both: bool) -> u32 {
    if both && find_response(tables, work) {
        return GOES_ON;
    }
    if work.present == 0 {
        return Counter::PacketNoFlow as u32;
    }
    let Some((way, service)) = tables.place(&work.packet, work.present) else {
        return Counter::PacketNoService as u32;
    };
    if work.packet.flags & tcp_flag::FIN != 0 && way == direction::REQUEST {
        // The last bytes of a connection that is over, sent again because nobody acknowledged them.
        return Counter::PacketNoFlow as u32;
    }
    set_key(work, way);
    if !create(tables, work, service, flow_flag::PICKED_UP) || !tables.find(&work.key) {
        return Counter::PacketFlowTableFull as u32;
    }
    tables.count(Counter::FlowsPickedUp, 1);
    GOES_ON
}

/// Both ports are watched, and it is no request: looks for the flow that it answers.
#[inline(always)]
fn find_response<T: Tables>(tables: &mut T, work: &mut Work) -> bool {
    set_key(work, direction::RESPONSE);
    tables.find(&work.key)
}

/// A segment that only acknowledges. Behind both ends it is the last of its connection: what came before it, sent again,
/// still found its flow.
#[inline(always)]
fn acknowledged<T: Tables>(tables: &mut T, work: &mut Work) {
    let flow = tables.flow();
    // SAFETY: the flow is valid; a number is written whole.
    let flags = unsafe {
        if work.direction == u32::from(direction::RESPONSE) {
            (&raw mut (*flow).request.acknowledged).write_volatile(work.packet.acknowledgement);
        }
        (&raw const (*flow).flags).read_volatile()
    };
    if flags & flow_flag::FIN_BOTH == flow_flag::FIN_BOTH {
        tables.delete(&work.key);
        tables.count(Counter::FlowsDeleted, 1);
    }
}

/// Makes the key for a packet of this direction.
#[inline(always)]
fn set_key(work: &mut Work, way: u8) {
    work.key = key_of(&work.packet, way);
    work.direction = u32::from(way);
}

/// A SYN: a fresh flow, whatever was there before, unless it is the very SYN that the flow there began with, sent or seen
/// again. (Looking a flow up marks it as used; a flood of SYNs finds none, and pushes no live one out.)
#[inline(always)]
fn opened<T: Tables>(tables: &mut T, work: &mut Work) -> u32 {
    let Some((way, service)) = tables.place(&work.packet, 0) else {
        return Counter::PacketNoService as u32;
    };
    if way != direction::REQUEST {
        // A service that connects out from its own port: not a request to it.
        return Counter::PacketNoService as u32;
    }
    set_key(work, direction::REQUEST);
    let mut found = tables.find(&work.key);
    if !(found && began_with(tables.flow(), work.sequence)) {
        if !create(tables, work, service, flow_flag::OPENED) {
            return Counter::PacketFlowTableFull as u32;
        }
        found = work.present > 0 && tables.find(&work.key);
    }
    // Data in the SYN (TCP Fast Open, RFC 7413).
    if work.present > 0 && found {
        work.sequence = work.sequence.wrapping_add(1);
        return GOES_ON;
    }
    Counter::PacketSyn as u32
}

/// True when the flow's request half began behind a SYN with this sequence number.
#[inline(always)]
fn began_with(flow: *mut Flow, sequence: u32) -> bool {
    // SAFETY: the environment's flow pointer is valid while its packet is handled; the fields may be written meanwhile,
    // each is read whole.
    unsafe {
        let opened = (&raw const (*flow).flags).read_volatile() & flow_flag::OPENED != 0;
        let next = (&raw const (*flow).request.next_sequence).read_volatile();
        let consumed = (&raw const (*flow).request.consumed).read_volatile();
        opened && next.wrapping_sub(consumed as u32) == sequence.wrapping_add(1)
    }
}

/// A SYN-ACK: the response half begins.
#[inline(always)]
fn answered<T: Tables>(tables: &mut T, work: &mut Work, found: bool) -> Counter {
    if !found {
        let Some((way, service)) = tables.place(&work.packet, 0) else { return Counter::PacketNoService };
        if way != direction::RESPONSE {
            return Counter::PacketNoService;
        }
        set_key(work, direction::RESPONSE);
        if !create(tables, work, service, 0) || !tables.find(&work.key) {
            return Counter::PacketFlowTableFull;
        }
    }
    if work.direction == u32::from(direction::RESPONSE) {
        let flow = tables.flow();
        // SAFETY: the environment's flow pointer is valid while its packet is handled.
        unsafe {
            if (*flow).response.flags & half_flag::STARTED == 0 {
                (*flow).response.next_sequence = work.sequence.wrapping_add(1);
                (*flow).response.flags |= half_flag::STARTED;
                // The handshake says where the client's stream begins.
                (&raw mut (*flow).request.acknowledged).write_volatile(work.packet.acknowledgement);
            }
        }
    }
    Counter::PacketSyn
}

/// Makes a flow; it is not looked up.
#[inline(always)]
fn create<T: Tables>(tables: &mut T, work: &mut Work, service: u16, flags: u32) -> bool {
    let blank = tables.blank();
    if blank.is_null() {
        return false;
    }
    let now = tables.now();
    // SAFETY: the environment gives a valid flow that nobody else uses.
    let inserted = unsafe {
        words::clear(blank);
        (*blank).id.created_ns = now;
        (*blank).id.salt = work.key.salt();
        (*blank).service = service;
        (*blank).flags = flags;
        if flags & flow_flag::PICKED_UP != 0 {
            (*blank).request.parser.phase = phase::LOST;
            (*blank).response.parser.phase = phase::LOST;
        }
        if flags & flow_flag::OPENED != 0 {
            (*blank).request.next_sequence = work.sequence.wrapping_add(1);
            (*blank).request.flags = half_flag::STARTED;
        }
        tables.insert(&work.key, &*blank)
    };
    if inserted {
        tables.count(Counter::FlowsCreated, 1);
    }
    inserted
}
