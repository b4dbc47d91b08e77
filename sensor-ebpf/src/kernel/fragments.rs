//! IP fragments on their way to the slow path, which puts them together.
//!
//! A fragment that may belong to a service goes out as records of at most `TEE_CHUNK_MAX` bytes, as long as the byte ring
//! is not half full: a flood of fragments pushes no other records out. The first fragment of a TCP segment shows its
//! connection, so its flow is handed over at once: the answer must not overtake a request that the fast path never sees.

use core::ffi::c_void;
use core::mem::{MaybeUninit, size_of};
use core::ptr::from_ref;

use aya_ebpf::bindings::{__sk_buff, BPF_RB_AVAIL_DATA, BPF_RB_NO_WAKEUP, BPF_RB_RING_SIZE, bpf_dynptr};
use aya_ebpf::helpers::generated::{
    bpf_dynptr_write, bpf_ktime_get_ns, bpf_loop, bpf_ringbuf_discard_dynptr, bpf_ringbuf_query,
    bpf_ringbuf_reserve_dynptr, bpf_ringbuf_submit_dynptr, bpf_skb_load_bytes,
};
use sensor_ebpf::layers::{FOUND, carries};
use sensor_ebpf::packet::{Address, PROTOCOL_TCP, tcp_flag};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::wire::{FragmentRecord, ListenKey, TEE_CHUNK_MAX, kind};
use sensor_ebpf::work::{Work, bound};

use super::maps;

const FRAGMENT: u32 = Counter::PacketFragment as u32;
/// Records of the longest fragment.
const PIECES_MAX: u32 = 65_536 / TEE_CHUNK_MAX as u32;

/// What sending a piece needs.
struct Context {
    skb: *mut __sk_buff,
}

/// Sends the fragment in `work.packet`. Gives [`FOUND`] if it begins a TCP segment, which then stands in `work.packet`
/// without its payload, and the packet's disposition otherwise.
#[inline(never)]
pub fn send(skb: *mut __sk_buff) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return FRAGMENT };
    // SAFETY: a live map value that only this CPU uses.
    let work = unsafe { &mut *work };
    if work.packet.payload_len == 0 || !concerns(work) {
        return FRAGMENT;
    }
    // SAFETY: the map is a ring.
    let (used, size) = unsafe {
        (
            bpf_ringbuf_query(ring(), u64::from(BPF_RB_AVAIL_DATA)),
            bpf_ringbuf_query(ring(), u64::from(BPF_RB_RING_SIZE)),
        )
    };
    if used > size / 2 {
        lost();
        return FRAGMENT;
    }
    work.pos = 0;
    let mut context = Context { skb };
    // SAFETY: the context outlives the loop; the callback takes nothing else.
    unsafe { bpf_loop(PIECES_MAX, piece as *mut c_void, (&raw mut context).cast(), 0) };
    first(skb, work)
}

#[inline(always)]
fn ring() -> *mut c_void {
    from_ref(&maps::BYTES).cast_mut().cast()
}

#[inline(always)]
fn lost() {
    if let Some(totals) = maps::TOTALS.get_ptr_mut(0) {
        // SAFETY: a live map value; only this CPU writes it, and the index is a constant.
        unsafe { *(*totals).counts.as_mut_ptr().add(Counter::LostFragment as usize) += 1 };
    }
}

/// True if the fragment may be of a service: from or to an address at which one listens. (Around what is in a tunnel
/// stand the tunnel's addresses, which say nothing.)
#[inline(always)]
fn concerns(work: &Work) -> bool {
    // Of others, `layers` only keeps those of a tunnel when tunnels are followed.
    if carries(work.packet.flags & 0xff) {
        return true;
    }
    let everywhere = listened([0; 2]);
    [work.packet.destination, work.packet.source]
        .into_iter()
        .any(|address| listened(address) || (everywhere && maps::LOCALS.get_ptr(&address).is_some()))
}

#[inline(always)]
fn listened(address: Address) -> bool {
    let words = address[0] as u128 | (address[1] as u128) << 64;
    let key = ListenKey { address: words.to_ne_bytes(), port: 0, reserved: [0; 6] };
    // SAFETY: the value is not looked at.
    unsafe { maps::LISTENS.get(&key) }.is_some()
}

/// One record, as `bpf_loop` calls it.
unsafe extern "C" fn piece(_index: u32, context: *mut c_void) -> i64 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return 1 };
    // SAFETY: the context is the one on the caller's stack; a live map value that only this CPU uses.
    let (skb, work) = unsafe { ((*context.cast::<Context>()).skb, &mut *work) };
    let fragment = work.packet.fragment();
    let left = fragment.payload_len - work.pos;
    let len = if left < TEE_CHUNK_MAX as u32 { left } else { TEE_CHUNK_MAX as u32 };
    let len = bound::<{ TEE_CHUNK_MAX as u32 - 1 }>(len.wrapping_sub(1)) + 1;
    let head = size_of::<FragmentRecord>() as u32;
    let mut event = FragmentRecord::default();
    event.head.size = head + len;
    event.head.kind = kind::FRAGMENT;
    event.source = fragment.source;
    event.destination = fragment.destination;
    event.identification = fragment.identification;
    event.at = fragment.at + work.pos;
    event.len = len;
    event.more = u32::from(fragment.more || len < left);
    event.protocol = u32::from(fragment.protocol);
    let mut record = MaybeUninit::<bpf_dynptr>::uninit();
    let record = record.as_mut_ptr();
    // SAFETY: the window has room; the helpers check the reservation, which is submitted or discarded on every path.
    unsafe {
        let to = work.window.as_mut_ptr();
        let copied = bpf_skb_load_bytes(skb.cast(), fragment.payload_at + work.pos, to.cast(), len) == 0;
        if bpf_ringbuf_reserve_dynptr(ring(), head + len, 0, record) != 0 || !copied {
            bpf_ringbuf_discard_dynptr(record, 0);
            lost();
            return 1;
        }
        event.head.time_ns = bpf_ktime_get_ns();
        bpf_dynptr_write(record, 0, (&raw mut event).cast(), head, 0);
        bpf_dynptr_write(record, head, to.cast(), len, 0);
        bpf_ringbuf_submit_dynptr(record, u64::from(BPF_RB_NO_WAKEUP));
    }
    work.pos += len;
    i64::from(work.pos >= fragment.payload_len)
}

/// Of a segment's first fragment, what tells its flow. A SYN tells none: what it opens is picked up later.
#[inline(always)]
fn first(skb: *mut __sk_buff, work: &mut Work) -> u32 {
    /// Ports and sequence number: every first fragment has them (RFC 791).
    const LEAST: u32 = 8;
    let fragment = work.packet.fragment();
    if fragment.protocol != PROTOCOL_TCP || fragment.at != 0 || fragment.payload_len < LEAST {
        return FRAGMENT;
    }
    let mut words = [0u32; 4];
    let to: *mut c_void = words.as_mut_ptr().cast();
    // SAFETY: there is room for 16 bytes.
    let read = unsafe {
        if fragment.payload_len < 16 {
            bpf_skb_load_bytes(skb.cast(), fragment.payload_at, to, LEAST)
        } else {
            bpf_skb_load_bytes(skb.cast(), fragment.payload_at, to, 16)
        }
    };
    let [ports, sequence, _, flags] = words.map(u32::from_be);
    if read != 0 || flags >> 16 & tcp_flag::SYN != 0 {
        return FRAGMENT;
    }
    work.packet.source_port = (ports >> 16) as u16;
    work.packet.destination_port = ports as u16;
    work.packet.sequence = sequence;
    work.packet.acknowledgement = 0;
    work.packet.flags = tcp_flag::PIECES;
    work.packet.payload_len = 0;
    FOUND
}
