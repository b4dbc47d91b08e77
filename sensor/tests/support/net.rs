//! Two network namespaces and a veth pair between them, gone when the value is dropped (also by a panic).
//!
//! `client` and `server` are namespaces; their ends of the pair are [`CLIENT_END`] and [`SERVER_END`].

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns};
use nix::unistd::Pid;

pub const CLIENT_END: &str = "as-client";
pub const SERVER_END: &str = "as-server";

/// The namespaces.
pub struct Net {
    pub client: String,
    pub server: String,
}

/// Runs a command that must succeed; what it said.
pub fn run(words: &[&str]) -> String {
    let output = attempt(words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}: {said}", words.join(" "));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Makes a veth pair of two interfaces, each in its namespace. The command runs in the first of these: Linux 6.1 refuses a
/// name that the namespace of whoever asks has already, wherever the interface is to be, and a test's own may have it.
pub fn link((namespace, end): (&str, &str), (other, other_end): (&str, &str)) {
    let peer = ["type", "veth", "peer", "name", other_end, "netns", other];
    run(&[&["ip", "-n", namespace, "link", "add", end][..], &peer].concat());
}

fn attempt(words: &[&str]) -> Output {
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", words.join(" ")))
}

impl Net {
    /// `192.0.2.7` and `2001:db8::7` on the client's side, `192.0.2.10` and `2001:db8::10` on the server's.
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = |side: &str| format!("authsensor-test-{}-{number}-{side}", std::process::id());
        let net = Self { client: name("client"), server: name("server") };
        run(&["ip", "netns", "add", &net.client]);
        run(&["ip", "netns", "add", &net.server]);
        link((&net.client, CLIENT_END), (&net.server, SERVER_END));
        for (namespace, end, host) in [(&net.client, CLIENT_END, "7"), (&net.server, SERVER_END, "10")] {
            run(&["ip", "-n", namespace, "link", "set", "lo", "up"]);
            run(&["ip", "-n", namespace, "addr", "add", &format!("192.0.2.{host}/24"), "dev", end]);
            run(&["ip", "-n", namespace, "addr", "add", &format!("2001:db8::{host}/64"), "dev", end, "nodad"]);
            run(&["ip", "-n", namespace, "link", "set", end, "mtu", "9000", "up"]);
        }
        net
    }

    /// `ip`'s, `tc`'s or `ethtool`'s words, run in the server's namespace.
    pub fn in_server(&self, words: &[&str]) -> String {
        run(&[&["ip", "netns", "exec", &self.server][..], words].concat())
    }

    pub fn in_client(&self, words: &[&str]) -> String {
        run(&[&["ip", "netns", "exec", &self.client][..], words].concat())
    }

    /// Largest packet of both ends, bytes.
    pub fn set_mtu(&self, mtu: u32) {
        for (namespace, end) in [(&self.client, CLIENT_END), (&self.server, SERVER_END)] {
            run(&["ip", "-n", namespace, "link", "set", end, "mtu", &mtu.to_string()]);
        }
    }

    /// Segmentation and receive offloads of both ends.
    pub fn set_offloads(&self, on: bool) {
        let word = if on { "on" } else { "off" };
        let what = ["tso", word, "gso", word, "gro", word];
        self.in_client(&[&["ethtool", "-K", CLIENT_END][..], &what].concat());
        self.in_server(&[&["ethtool", "-K", SERVER_END][..], &what].concat());
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for namespace in [&self.client, &self.server] {
            // Its veth end goes with it. A failure here would hide the test's own.
            let _ = Command::new("ip").args(["netns", "del", namespace]).output();
        }
    }
}

/// Runs `work` on a thread of its own inside the namespace: the caller's thread stays where it is.
pub fn inside<T: Send>(namespace: &str, work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let place = File::open(format!("/run/netns/{namespace}")).unwrap();
            setns(place, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Sets a switch of the namespace's network, named as below `/proc/sys/net`. Written here and not by `sysctl`, which a small
/// machine may not have.
pub fn set(namespace: &str, switch: &str, value: &str) {
    let path = format!("/proc/sys/net/{switch}");
    inside(namespace, || std::fs::write(&path, value).unwrap_or_else(|error| panic!("{path}: {error}")));
}

/// Keeps the calling thread, and those that it starts from now on, on one processor. What a thread sends over veth waits
/// in a queue of the processor it runs on: one that moves in the middle of a burst reorders its own segments.
pub fn stay_on_one_processor() {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let mut one = CpuSet::new();
    one.set((0..CpuSet::count()).find(|number| allowed.is_set(*number).unwrap()).unwrap()).unwrap();
    sched_setaffinity(Pid::from_raw(0), &one).unwrap();
}

/// A packet socket on an interface of the namespace it is made in.
pub struct RawSocket {
    socket: OwnedFd,
    interface: i32,
}

impl RawSocket {
    pub fn new(interface: &str) -> io::Result<Self> {
        let interface = i32::try_from(nix::net::if_::if_nametoindex(interface)?).unwrap();
        // SAFETY: plain call; the result is checked.
        let socket = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if socket < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a fresh descriptor that nobody else has.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        let on: libc::c_int = 1;
        // SAFETY: the option is an int.
        let set = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::SOL_PACKET, libc::PACKET_VNET_HDR, (&raw const on).cast(), 4)
        };
        if set == 0 { Ok(Self { socket, interface }) } else { Err(io::Error::last_os_error()) }
    }

    /// Also takes what arrives: IPv4 frames, waited for at most so long each.
    pub fn receiving(interface: &str, patience: Duration) -> io::Result<Self> {
        let made = Self::new(interface)?;
        // SAFETY: all zero is a valid address structure.
        let mut place: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        place.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        place.sll_ifindex = made.interface;
        place.sll_protocol = u16::try_from(libc::ETH_P_IP).unwrap().to_be();
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        // SAFETY: the address lives and is as long as said.
        let bound = unsafe { libc::bind(made.socket.as_raw_fd(), (&raw const place).cast(), length) };
        if bound != 0 {
            return Err(io::Error::last_os_error());
        }
        let time = libc::timeval { tv_sec: 0, tv_usec: patience.subsec_micros().into() };
        let length = libc::socklen_t::try_from(size_of::<libc::timeval>()).unwrap();
        // SAFETY: the option is a `timeval`.
        let set = unsafe {
            let value = (&raw const time).cast();
            libc::setsockopt(made.socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, value, length)
        };
        if set == 0 { Ok(made) } else { Err(io::Error::last_os_error()) }
    }

    /// The next frame; none if none comes.
    pub fn receive(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; 1 << 17];
        // SAFETY: the buffer lives and is as long as said.
        let got = unsafe { libc::recv(self.socket.as_raw_fd(), bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        bytes.truncate(usize::try_from(got).ok()?);
        // Behind the `virtio_net_hdr`.
        Some(bytes.split_off(10.min(bytes.len())))
    }

    /// Sends a frame of which the first `linear` bytes are linear, if it is longer than a page.
    pub fn send(&self, frame: &[u8], linear: u16) -> io::Result<()> {
        // struct virtio_net_hdr: no checksum, no segmentation.
        let mut bytes = vec![0; 10];
        bytes[2..4].copy_from_slice(&linear.to_le_bytes());
        bytes.extend(frame);
        // SAFETY: all zero is a valid address structure.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        to.sll_ifindex = self.interface;
        to.sll_halen = 6;
        to.sll_addr[..6].copy_from_slice(&frame[..6]);
        to.sll_protocol = u16::from_ne_bytes([frame[12], frame[13]]);
        let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap();
        // SAFETY: both buffers live and are as long as said.
        let sent = unsafe {
            libc::sendto(self.socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0, (&raw const to).cast(), length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}
