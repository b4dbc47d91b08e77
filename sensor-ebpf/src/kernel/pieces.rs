//! The digest of a segment's payload in the kernel: its bytes by helper, 64 at a time, into SipHash.

use core::ffi::c_void;
use core::ptr::from_mut;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::{bpf_loop, bpf_skb_load_bytes};
use sensor_ebpf::engine::repeats::{self, PIECE_MAX, STEP};
use sensor_ebpf::siphash::{Key, SipState};
use sensor_ebpf::work::{Work, bound};

use super::maps;

/// A digest in progress. It stands on the stack and goes to the callback by its address: what the callback changed behind
/// the back of a `&mut Work` would not be seen.
#[repr(C)]
struct Digest {
    skb: *mut __sk_buff,
    state: SipState,
    /// Where the payload begins in the frame.
    at: u32,
    /// Its bytes.
    len: u32,
}

/// The digest of the payload of the packet in `work`; 0 when it is not there.
#[inline(always)]
pub fn digest(skb: *mut __sk_buff, key: Key, work: &Work) -> u64 {
    let mut digest = Digest { skb, state: SipState::default(), at: work.packet.payload_at, len: work.present };
    digest.state.start(key);
    // SAFETY: the digest outlives the loop; the callback takes nothing else.
    unsafe { bpf_loop(PIECE_MAX / STEP, absorb as *mut c_void, from_mut(&mut digest).cast(), 0) };
    repeats::digest(&digest.state, digest.len)
}

/// One step of it, as `bpf_loop` calls it. A last one that is shorter is filled up with zeros: the length is compared too.
unsafe extern "C" fn absorb(index: u32, context: *mut c_void) -> i64 {
    // SAFETY: the context is the `Digest` on the caller's stack.
    let digest = unsafe { &mut *context.cast::<Digest>() };
    let Some(work) = maps::WORK.get_ptr_mut(0) else { return 1 };
    let from = index * STEP;
    if from >= digest.len {
        return 1;
    }
    let left = digest.len - from;
    let len = bound::<{ STEP - 1 }>(if left < STEP { left - 1 } else { STEP - 1 }) + 1;
    // SAFETY: a live map value that only this CPU uses; the window, of which nobody else thinks anything now, is longer
    // than a step.
    unsafe {
        let words = (&raw mut (*work).window).cast::<u64>();
        for at in 0..STEP as usize / 8 {
            words.add(at).write_unaligned(0);
        }
        if bpf_skb_load_bytes(digest.skb.cast(), digest.at + from, words.cast(), len) != 0 {
            return 1;
        }
        for at in 0..STEP as usize / 8 {
            digest.state.absorb_word(words.add(at).read_unaligned());
        }
    }
    0
}
