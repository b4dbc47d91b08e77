//! The embedded BPF object, loaded into this machine's kernel.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

#[test]
fn every_map_and_program_of_the_object_can_be_parsed_and_created() {
    if !support::kernel("every_map_and_program_of_the_object_can_be_parsed_and_created") {
        return;
    }
    let object = sensor::object::embedded().unwrap();
    let loaded = aya::Ebpf::load(object);
    assert!(loaded.is_ok(), "the kernel takes the object's maps and BTF: {:?}", loaded.err());
}
