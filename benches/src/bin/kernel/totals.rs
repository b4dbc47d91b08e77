//! Totals of an object whose number of counters is not this program's: a map's value has a length that aya wants to know
//! when this program is compiled.

use std::error::Error;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::Ebpf;
use aya::maps::Map;
use nix::libc;

/// `BPF_MAP_LOOKUP_ELEM`
const LOOKUP: libc::c_int = 1;

/// What the kernel reads of `union bpf_attr` for a lookup.
#[repr(C)]
struct Lookup {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// The one entry of `TOTALS`, summed over all CPUs.
pub fn read(ebpf: &Ebpf) -> Result<Vec<u64>, Box<dyn Error>> {
    let Some(Map::PerCpuArray(data)) = ebpf.map("TOTALS") else { return Err("no TOTALS".into()) };
    let counters = data.info()?.value_size() as usize / size_of::<u64>();
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| format!("{path}: {error}"))?;
    let (key, mut values) = (0u32, vec![0u64; counters * cpus]);
    let map = u64::from(u32::try_from(data.fd().as_fd().as_raw_fd())?);
    let request =
        Lookup { map, key: (&raw const key).addr() as u64, value: values.as_mut_ptr().addr() as u64, flags: 0 };
    // SAFETY: the kernel reads `size_of::<Lookup>()` bytes of a live structure and four bytes of a live key, and writes, for
    // each possible CPU, the map's value size rounded up to 8 bytes: exactly the bytes of `values`.
    let outcome = unsafe { libc::syscall(libc::SYS_bpf, LOOKUP, &raw const request, size_of::<Lookup>()) };
    if outcome != 0 {
        return Err(format!("TOTALS: {}", io::Error::last_os_error()).into());
    }
    let mut sum = vec![0u64; counters];
    for of_cpu in values.chunks_exact(counters.max(1)) {
        sum.iter_mut().zip(of_cpu).for_each(|(total, count)| *total += count);
    }
    Ok(sum)
}
