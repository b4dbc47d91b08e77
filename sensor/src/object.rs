//! The BPF object that the build embedded into this program.

/// Aligned as ELF readers want it; empty when the build was told to stub it (`AUTHSENSOR_BPF_OBJECT=stub`).
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/authsensor.bpf.o"));

/// This program was built without the BPF object: it can replay captures and check files, not watch a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this authsensor was built without its BPF object (AUTHSENSOR_BPF_OBJECT=stub) and cannot watch an interface; \
     build it with `cargo xtask build`"
)]
pub struct Stubbed;

/// The object to load into the kernel, or the reason why there is none; `run` says the latter at start.
pub fn embedded() -> Result<&'static [u8], Stubbed> {
    if OBJECT.is_empty() { Err(Stubbed) } else { Ok(OBJECT) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_embedded_object_is_an_elf_file_for_bpf() {
        let Ok(object) = embedded() else { return };
        assert_eq!(object.get(..6), Some(b"\x7fELF\x02\x01".as_slice()), "ELF, 64 bits, little endian");
        assert_eq!(object.get(18..20), Some([247, 0].as_slice()), "e_machine is EM_BPF");
        assert_eq!(object.as_ptr() as usize % 8, 0);
    }
}
