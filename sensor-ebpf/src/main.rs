//! The BPF programs.
//!
//! This object, and only this object, tells the kernel that it is licensed "Dual MIT/GPL": helpers such as
//! `bpf_ktime_get_ns` ask for a GPL-compatible licence. MIT is the part of this workspace's licence that is one.
#![no_std]
#![no_main]

/// Read by the kernel when it loads the object.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
