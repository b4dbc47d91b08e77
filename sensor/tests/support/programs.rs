//! Our programs among all that the kernel holds.

use std::thread;
use std::time::Duration;

/// Kernel-wide ids of programs named like ours.
pub fn ids() -> Vec<u32> {
    // A program may go away while the list is read.
    let programs = aya::programs::loaded_programs().filter_map(Result::ok);
    let ours = programs.filter(|program| program.name_as_str().is_some_and(|name| name.starts_with("authsensor")));
    ours.map(|program| program.id()).collect()
}

/// None of `ids` is loaded any more; the kernel frees programs a moment after their last use.
pub fn assert_unloaded(gone: &[u32]) {
    let mut left = Vec::new();
    for _ in 0..100 * super::slowness() {
        left = ids();
        left.retain(|id| gone.contains(id));
        if left.is_empty() {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("programs {left:?} are still loaded");
}

/// No program of ours is loaded that is not among `before`.
pub fn assert_no_more_than(before: &[u32]) {
    let mut new = ids();
    new.retain(|id| !before.contains(id));
    assert_unloaded(&new);
}
