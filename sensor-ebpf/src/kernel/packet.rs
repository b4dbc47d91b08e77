//! Direct packet access for headers, with a copy by helper for those outside the linear part.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
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
