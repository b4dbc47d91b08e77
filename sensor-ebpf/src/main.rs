//! The BPF programs: TC classifiers for ingress and egress.
//!
//! Thin on purpose: parsing, flows and HTTP are `sensor_ebpf`'s, shared with the host. Every path returns -1
//! (`TC_ACT_UNSPEC`, with TCX "next"): observing never changes traffic.
//!
//! This object, and only this object, tells the kernel that it is licensed "Dual MIT/GPL": helpers such as
//! `bpf_ktime_get_ns` ask for a GPL-compatible licence. MIT is the part of this workspace's licence that is one.
#![no_std]
#![no_main]
#![allow(missing_docs, reason = "the classifier macro makes undocumented functions of documented ones")]
#![allow(internal_features, reason = "the lock word needs the atomic intrinsics on this target")]

mod kernel;

use aya_ebpf::macros::classifier;
use aya_ebpf::programs::TcContext;

use kernel::observe;

/// Read by the kernel when it loads the object.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

/// Leaves the packet to the next program.
const NEXT: i32 = -1;

/// Packets that arrive.
#[classifier]
pub fn authsensor_ingress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, |_| {}, |_, _| {});
    NEXT
}

/// Packets that leave.
#[classifier]
pub fn authsensor_egress(ctx: TcContext) -> i32 {
    observe(ctx.skb.skb, |_| {}, |_, _| {});
    NEXT
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
