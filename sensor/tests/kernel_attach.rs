//! Attaching and detaching, by TCX and by clsact, and what is said when the verifier refuses the object.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, also in what its functions share"
)]

mod support;

use aya::programs::{SchedClassifier, TcAttachType};
use sensor::capture::kernel::{Kernel, KernelError};
use support::net::{Net, SERVER_END, inside};
use support::shop;
use support::sides::config;

fn loaded() -> Kernel {
    Kernel::load(sensor::object::embedded().unwrap(), &config(shop::CONFIG).bounds).unwrap()
}

/// Names of the programs attached by TCX.
fn tcx(direction: TcAttachType) -> Vec<String> {
    let (_, programs) = SchedClassifier::query_tcx(SERVER_END, direction).unwrap();
    programs.iter().map(|program| program.name_as_str().unwrap().to_owned()).collect()
}

#[test]
fn tcx_programs_are_there_while_the_kernel_value_lives() {
    if !support::kernel("tcx_programs_are_there_while_the_kernel_value_lives") {
        return;
    }
    if !support::tcx("tcx_programs_are_there_while_the_kernel_value_lives", "this kernel has no TCX") {
        return;
    }
    let net = Net::new();
    inside(&net.server, || {
        let mut kernel = loaded();
        kernel.attach(SERVER_END).unwrap();
        // The kernel keeps 15 characters of a name.
        assert_eq!(tcx(TcAttachType::Ingress), ["authsensor_ingr"]);
        assert_eq!(tcx(TcAttachType::Egress), ["authsensor_egre"]);
        // A second sensor on the same interface does not push the first out: first in, last out.
        let mut second = loaded();
        second.attach(SERVER_END).unwrap();
        assert_eq!((tcx(TcAttachType::Ingress).len(), tcx(TcAttachType::Egress).len()), (2, 2));
        drop(kernel);
        assert_eq!((tcx(TcAttachType::Ingress).len(), tcx(TcAttachType::Egress).len()), (1, 1));
        drop(second);
        assert!(tcx(TcAttachType::Ingress).is_empty() && tcx(TcAttachType::Egress).is_empty());
    });
    let filters = net.in_server(&["tc", "filter", "show", "dev", SERVER_END, "ingress"]);
    assert_eq!(filters, "");
}

#[test]
fn clsact_filters_replace_those_of_a_killed_run() {
    if !support::kernel("clsact_filters_replace_those_of_a_killed_run") {
        return;
    }
    let net = Net::new();
    let filters = |way: &str| -> Vec<u32> {
        let shown = net.in_server(&["tc", "filter", "show", "dev", SERVER_END, way]);
        let ours = shown.lines().filter(|line| line.contains("authsensor_"));
        ours.map(|line| line.split(" id ").nth(1).unwrap().split(' ').next().unwrap().parse::<u32>().unwrap()).collect()
    };
    inside(&net.server, || {
        let mut killed = loaded();
        killed.attach_clsact(SERVER_END).unwrap();
        let old: Vec<u32> = [filters("ingress"), filters("egress")].concat();
        assert_eq!(old.len(), 2);
        // As when the process is killed: nobody detaches.
        std::mem::forget(killed);

        let mut kernel = loaded();
        kernel.attach_clsact(SERVER_END).unwrap();
        let new: Vec<u32> = [filters("ingress"), filters("egress")].concat();
        assert_eq!(new.len(), 2, "each way has one filter");
        assert!(new.iter().all(|id| !old.contains(id)), "and it is the new one");

        // What it sees is counted.
        let seen = |kernel: &Kernel| kernel.totals().unwrap()[sensor_ebpf::reason::Counter::PacketsSeen as usize];
        let earlier = seen(&kernel);
        let patience = std::time::Duration::from_secs(2) * support::slowness();
        let _ = std::net::TcpStream::connect_timeout(&shop::socket("192.0.2.7:9"), patience);
        assert!(seen(&kernel) >= earlier + 2, "a SYN and its RST at least");
        drop(kernel);
        let left: Vec<u32> = [filters("ingress"), filters("egress")].concat();
        assert!(left.is_empty());
        support::programs::assert_unloaded(&new);
    });
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    if !support::kernel("an_interface_that_is_not_there_is_named") {
        return;
    }
    let error = loaded().attach("no-such-if0").unwrap_err();
    assert!(matches!(&error, KernelError::Attach { interface, .. } if interface == "no-such-if0"), "{error}");
    assert!(error.to_string().contains("`ip link` lists"), "{error}");
}

/// The object with its ingress program's first instruction replaced by a read of register 9, which nothing set.
fn broken() -> Vec<u8> {
    let mut object = sensor::object::embedded().unwrap().to_vec();
    let at = first_instruction(&object, "authsensor_ingress");
    // r0 = r9
    object[at..at + 8].copy_from_slice(&[0xbf, 0x90, 0, 0, 0, 0, 0, 0]);
    object
}

/// Offset in the ELF file of a function's first instruction.
fn first_instruction(elf: &[u8], name: &str) -> usize {
    let wide = |at: usize| usize::try_from(u64::from_le_bytes(elf[at..at + 8].try_into().unwrap())).unwrap();
    let word = |at: usize| usize::try_from(u32::from_le_bytes(elf[at..at + 4].try_into().unwrap())).unwrap();
    let half = |at: usize| usize::from(u16::from_le_bytes(elf[at..at + 2].try_into().unwrap()));
    let section = |index: usize| wide(0x28) + index * half(0x3a);
    for index in 0..half(0x3c) {
        const SYMBOLS: usize = 2;
        if word(section(index) + 4) != SYMBOLS {
            continue;
        }
        let names = wide(section(word(section(index) + 0x28)) + 0x18);
        let (start, size) = (wide(section(index) + 0x18), wide(section(index) + 0x20));
        for symbol in (start..start + size).step_by(24) {
            let text = &elf[names + word(symbol)..];
            if text.starts_with(name.as_bytes()) && text[name.len()] == 0 {
                return wide(section(half(symbol + 6)) + 0x18) + wide(symbol + 8);
            }
        }
    }
    panic!("{name} is not in the object")
}

#[test]
fn the_verifiers_words_are_shown() {
    if !support::kernel("the_verifiers_words_are_shown") {
        return;
    }
    let Err(error) = Kernel::load(&broken(), &config(shop::CONFIG).bounds) else {
        panic!("the verifier takes the read of an unset register")
    };
    let KernelError::Verifier { program, log, .. } = &error else { panic!("{error}") };
    assert_eq!(*program, "authsensor_ingress");
    assert!(log.contains("R9 !read_ok"), "what the verifier objects to: {log}");
    let text = error.to_string();
    assert!(text.starts_with("the kernel's verifier refused authsensor_ingress: "), "{text}");
    assert!(text.contains("R9 !read_ok") && text.contains("processed "), "the end of the log: {text}");
}
