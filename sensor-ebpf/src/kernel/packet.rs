//! Direct packet access for headers, with a copy by helper for those outside the linear part.

use core::ffi::c_void;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use sensor_ebpf::layers;
use sensor_ebpf::packet::{Headers, Packet, ethernet};
use sensor_ebpf::reason::Counter;
use sensor_ebpf::work::bound;

use super::maps;

/// The linear part of a packet.
struct Linear {
    start: usize,
    end: usize,
}

impl Linear {
    #[inline(always)]
    fn at<T: Copy>(&self, at: u32) -> Option<T> {
        let place = self.start + at as usize;
        if place + size_of::<T>() > self.end {
            return None;
        }
        // SAFETY: checked against the end of the linear part just above; the verifier checks it again.
        Some(unsafe { (place as *const T).read_unaligned() })
    }
}

impl Headers for Linear {
    #[inline(always)]
    fn raw2(&self, at: u32) -> Option<u16> {
        self.at(at)
    }
    #[inline(always)]
    fn raw4(&self, at: u32) -> Option<u32> {
        self.at(at)
    }
    #[inline(always)]
    fn raw8(&self, at: u32) -> Option<u64> {
        self.at(at)
    }
}

/// Headers copied to scratch.
struct Copied {
    bytes: *const u8,
    len: u32,
}

impl Copied {
    #[inline(always)]
    fn at<T: Copy>(&self, at: u32) -> Option<T> {
        if at + size_of::<T>() as u32 > self.len {
            return None;
        }
        let at = bound::<255>(at) as usize;
        // SAFETY: the scratch has eight bytes behind its first 256.
        Some(unsafe { self.bytes.add(at).cast::<T>().read_unaligned() })
    }
}

impl Headers for Copied {
    #[inline(always)]
    fn raw2(&self, at: u32) -> Option<u16> {
        self.at(at)
    }
    #[inline(always)]
    fn raw4(&self, at: u32) -> Option<u32> {
        self.at(at)
    }
    #[inline(always)]
    fn raw8(&self, at: u32) -> Option<u64> {
        self.at(at)
    }
}

/// Parses layers 2 to 4 of `skb`.
#[inline(always)]
pub fn parse(skb: *mut __sk_buff, out: &mut Packet) -> Result<(), Counter> {
    // SAFETY: the context of the program.
    let (start, end, len) = unsafe { ((*skb).data as usize, (*skb).data_end as usize, (*skb).len) };
    let direct = ethernet(&Linear { start, end }, len, out);
    if direct == Err(Counter::PacketMalformed) && end - start < len as usize {
        return copied(skb, len, out);
    }
    direct
}

/// As [`parse`], for headers beyond the linear part.
#[inline(never)]
fn copied(skb: *mut __sk_buff, frame_len: u32, out: &mut Packet) -> Result<(), Counter> {
    let bytes = maps::HEADERS.get_ptr_mut(0).ok_or(Counter::PacketMalformed)?.cast::<u8>();
    let len = if frame_len < 256 { frame_len } else { 256 };
    let len = bound::<255>(len.wrapping_sub(1)) + 1;
    // SAFETY: the scratch has 256 bytes.
    if unsafe { bpf_skb_load_bytes(skb.cast(), 0, bytes.cast(), len) } != 0 {
        return Err(Counter::PacketMalformed);
    }
    ethernet(&Copied { bytes, len }, frame_len, out)
}

/// What a step of the long way gets.
struct Context {
    skb: *mut __sk_buff,
}

/// Follows a packet that is not plain TCP, of which [`parse`] said `outcome`; gives [`layers::FOUND`], or the counter.
#[inline(never)]
pub fn follow(skb: *mut __sk_buff, outcome: u32) -> u32 {
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return outcome };
    // SAFETY: a live map value that only this CPU uses; the context of the program.
    let (work, len, linear) = unsafe { (&mut *work, (*skb).len, (*skb).data_end - (*skb).data) };
    let worth = match outcome {
        NOT_IP => layers::begin(&mut work.walk, &work.packet, Counter::PacketNotIp, len, tunnels),
        NOT_TCP => layers::begin(&mut work.walk, &work.packet, Counter::PacketNotTcp, len, tunnels),
        // The headers may go on beyond what the short way can look at of a packet that is not linear.
        MALFORMED if linear < len => {
            layers::begin_frame(&mut work.walk, len, tunnels());
            true
        }
        _ => false,
    };
    if !worth {
        return outcome;
    }
    let mut context = Context { skb };
    // SAFETY: the context outlives the loop; the callback takes nothing else.
    unsafe { bpf_loop(layers::STEPS_MAX, layer as *mut c_void, (&raw mut context).cast(), 0) };
    work.walk.outcome
}

const NOT_IP: u32 = Counter::PacketNotIp as u32;
const NOT_TCP: u32 = Counter::PacketNotTcp as u32;
const MALFORMED: u32 = Counter::PacketMalformed as u32;

/// True if the configuration asks for what is inside tunnels.
#[inline(always)]
fn tunnels() -> bool {
    maps::SETTINGS.get(0).is_some_and(|settings| settings.tunnels != 0)
}

/// One layer, as `bpf_loop` calls it.
unsafe extern "C" fn layer(_index: u32, context: *mut c_void) -> i64 {
    // SAFETY: the context is the one on the caller's stack.
    let skb = unsafe { (*context.cast::<Context>()).skb };
    let (Some(work), Some(bytes)) = (maps::WORK.get_ptr_mut(0), maps::HEADERS.get_ptr_mut(0)) else { return 1 };
    let bytes = bytes.cast::<u8>();
    // SAFETY: a live map value that only this CPU uses.
    let work = unsafe { &mut *work };
    let len = bound::<{ layers::LOOK - 1 }>(work.walk.look().wrapping_sub(1)) + 1;
    // SAFETY: the scratch has more than `LOOK` bytes.
    if unsafe { bpf_skb_load_bytes(skb.cast(), work.walk.at, bytes.cast(), len) } != 0 {
        return 1;
    }
    i64::from(layers::step(&Copied { bytes, len }, &mut work.walk, &mut work.packet))
}
