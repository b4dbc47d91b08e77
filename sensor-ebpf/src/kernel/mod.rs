//! What the programs need of the kernel, and the way of a packet through them.

pub mod env;
pub mod fragments;
pub mod maps;
pub mod packet;
pub mod pieces;

use aya_ebpf::bindings::__sk_buff;
use sensor_ebpf::engine;
use sensor_ebpf::layers::{self, FOUND};
use sensor_ebpf::packet::tcp_flag;
use sensor_ebpf::reason::Counter;
use sensor_ebpf::work::Work;

use env::Kernel;

/// Parses one packet and counts it. `before` and `after` stand around the engine and see a packet that has TCP: the
/// shipped programs give empty ones, which leave no trace in the object; those that are timed prepare their packet there.
#[inline(always)]
pub fn observe(skb: *mut __sk_buff, before: impl FnOnce(&mut Work), after: impl FnOnce(&mut Kernel, &mut Work)) {
    let Some(mut kernel) = Kernel::new(skb) else { return };
    kernel.add(Counter::PacketsSeen, 1);
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return };
    // SAFETY: a live map value that only this CPU uses.
    let work = unsafe { &mut *work };
    let mut disposition = match packet::parse(skb, &mut work.packet) {
        Ok(()) => FOUND,
        // ARP and the like: the cheapest of all, on every machine.
        Err(Counter::PacketNotIp) if !layers::leads_on(Counter::PacketNotIp as u32, &work.packet) => {
            kernel.add(Counter::PacketNotIp, 1);
            return;
        }
        Err(counter) => counter as u32,
    };
    if disposition != FOUND {
        if layers::leads_on(disposition, &work.packet) {
            disposition = packet::follow(skb, disposition);
        }
        if disposition == Counter::PacketFragment as u32 {
            disposition = fragments::send(skb);
        }
    }
    if disposition == FOUND {
        before(work);
        let present = work.packet.payload_len;
        disposition = engine::packet(&mut kernel, work, present);
        after(&mut kernel, work);
        if work.packet.flags & tcp_flag::PIECES != 0 {
            disposition = Counter::PacketFragment as u32;
        }
    }
    kernel.add_variable(disposition);
}
