//! The programs that `cargo xtask bench kernel` times; never shipped.
//!
//! Beside the shipped entries stand an empty program, the bare minimum of any sensor (headers and one flow lookup), and
//! an entry that makes `BPF_PROG_TEST_RUN`'s repetitions of one packet into a stream: the same bytes again would be a
//! retransmit, and requests without answers would overflow the queue. User space says how in [`STREAM`].
#![no_std]
#![no_main]
#![allow(internal_features, reason = "the lock word needs the atomic intrinsics on this target")]
#![allow(missing_docs, reason = "the attribute of a program drops its documentation")]

mod kernel;

use core::mem::MaybeUninit;

use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::Array;
use aya_ebpf::programs::TcContext;
use sensor_ebpf::flow::FlowKey;
use sensor_ebpf::http::Env as _;
use sensor_ebpf::packet::Packet;
use sensor_ebpf::wire::{BenchStream, bench_mode};

use kernel::{maps, observe};

/// Read by the kernel when it loads the object.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Leaves the packet to the next program.
const NEXT: i32 = -1;

/// How repetitions differ. One entry, set by user space before each call; only one call runs at a time.
#[map]
static STREAM: Array<BenchStream> = Array::with_max_entries(1, 0);

/// As shipped.
#[classifier]
pub fn authsensor_ingress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, |_| {}, |_, _| {});
    NEXT
}

/// As shipped.
#[classifier]
pub fn authsensor_egress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, |_| {}, |_, _| {});
    NEXT
}

/// Nothing: what calling a program costs.
#[classifier]
pub fn bench_empty(_ctx: TcContext) -> i32 {
    NEXT
}

/// Headers by direct packet access and one lookup in the flow table: what no sensor that keeps flows can go below.
#[classifier]
pub fn bench_bare(ctx: TcContext) -> i32 {
    // Not `Packet::default()`, which would be a call of `memset`, a loop over bytes.
    let mut packet = MaybeUninit::<Packet>::uninit();
    // SAFETY: `parse` writes every field before it says `Ok`, and reads none that it did not write: the verifier refuses
    // to load a program that reads undefined stack.
    let packet = unsafe { &mut *packet.as_mut_ptr() };
    if kernel::packet::parse(ctx.skb.skb, packet).is_err() {
        return NEXT;
    }
    let key = FlowKey {
        client: packet.source,
        server: packet.destination,
        client_port: packet.source_port,
        server_port: packet.destination_port,
        reserved: 0,
    };
    // The result must matter, or the lookup is not compiled. Both values leave the packet alone in a test run.
    if maps::FLOWS.get_ptr(&key).is_some() { NEXT } else { 0 }
}

/// The shipped program over a stream made of one packet.
#[classifier]
pub fn bench_stream(ctx: TcContext) -> i32 {
    let Some(stream) = STREAM.get_ptr_mut(0) else { return NEXT };
    // SAFETY: a live map value; one call runs at a time.
    let stream = unsafe { &mut *stream };
    observe(
        ctx.skb.skb,
        |work| {
            let packet = &mut work.packet;
            if stream.cut != 0 && packet.payload_len > stream.cut {
                // Every second run is the first part, every other the rest.
                if stream.runs & 1 == 0 {
                    packet.payload_len = stream.cut;
                } else {
                    packet.payload_at += stream.cut;
                    packet.payload_len -= stream.cut;
                }
            }
            packet.sequence = packet.sequence.wrapping_add(stream.advance);
            stream.advance = stream.advance.wrapping_add(packet.payload_len);
            if stream.mode == bench_mode::FRESH {
                packet.source_port = stream.runs as u16;
                packet.source[1] ^= u64::from(stream.runs >> 16) << 48;
            }
            stream.runs += 1;
        },
        |kernel, _| {
            let flow = kernel.flow();
            if flow.is_null() {
                return;
            }
            // SAFETY: a live map value; nothing else uses the bench's flow.
            unsafe {
                match stream.mode {
                    bench_mode::ANSWERED => (*flow).answered = (*flow).requested,
                    bench_mode::ASKED => (*flow).answered = (*flow).requested.wrapping_sub(1),
                    _ => {}
                }
            }
        },
    );
    NEXT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
