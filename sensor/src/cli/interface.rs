//! The machine's interfaces: which one has the default route, which exist, what addresses the host has.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

/// Hardware types (`ARPHRD_*`) whose frames begin with an Ethernet header.
const ETHERNET_LIKE: [u16; 2] = [1, 772];

/// Why no interface can be watched.
#[derive(Debug, thiserror::Error)]
pub enum InterfaceError {
    /// There is no default route to go by.
    #[error(
        "this machine has no default route to choose an interface by; name one with --interface (`ip link` lists them)"
    )]
    NoDefaultRoute,
    /// No such interface.
    #[error("there is no interface {0} here; `ip link` lists the interfaces of this machine{known}", known = known())]
    Unknown(String),
    /// Not Ethernet.
    #[error(
        "the interface {0} does not carry Ethernet frames (hardware type {1}); watch the Ethernet interface beneath it"
    )]
    NotEthernet(String, u16),
    /// The addresses of this host could not be read.
    #[error("cannot read the addresses of this host: {0}")]
    Addresses(io::Error),
}

fn known() -> String {
    let names: BTreeSet<String> = getifaddrs().into_iter().flatten().map(|entry| entry.interface_name).collect();
    if names.is_empty() {
        return String::new();
    }
    format!(": {}", names.into_iter().collect::<Vec<_>>().join(", "))
}

/// The interface of the default route, IPv4 before IPv6.
pub fn default_route() -> Result<String, InterfaceError> {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    from_v4(&v4).or_else(|| from_v6(&v6)).map(str::to_owned).ok_or(InterfaceError::NoDefaultRoute)
}

/// `/proc/net/route`: interface, destination, gateway, flags, …, metric, mask in hexadecimal.
fn from_v4(table: &str) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.get(1) == Some(&"00000000") && fields.get(7) == Some(&"00000000")).then(|| fields.first().copied())?
    })
}

/// `/proc/net/ipv6_route`: destination and its prefix length first, the interface last.
fn from_v6(table: &str) -> Option<&str> {
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let default =
            fields.first().is_some_and(|to| to.bytes().all(|byte| byte == b'0')) && fields.get(1) == Some(&"00");
        fields.last().copied().filter(|name| default && *name != "lo")
    })
}

/// Checks that `name` exists and carries Ethernet frames.
pub fn check(name: &str) -> Result<(), InterfaceError> {
    if_nametoindex(name).map_err(|_| InterfaceError::Unknown(name.to_owned()))?;
    let hardware = getifaddrs().into_iter().flatten().find_map(|entry| {
        if entry.interface_name != name {
            return None;
        }
        entry.address.and_then(|address| address.as_link_addr().map(nix::sys::socket::LinkAddr::hatype))
    });
    match hardware {
        Some(kind) if !ETHERNET_LIKE.contains(&kind) => Err(InterfaceError::NotEthernet(name.to_owned(), kind)),
        _ => Ok(()),
    }
}

/// The addresses of this host.
pub fn local_addresses() -> Result<Vec<IpAddr>, InterfaceError> {
    let entries = getifaddrs().map_err(|error| InterfaceError::Addresses(error.into()))?;
    let mut addresses: BTreeSet<IpAddr> = entries
        .filter_map(|entry| {
            let address = entry.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
        })
        .collect();
    addresses.insert(IpAddr::V4(Ipv4Addr::LOCALHOST));
    addresses.insert(IpAddr::V6(Ipv6Addr::LOCALHOST));
    Ok(addresses.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_is_found_in_the_kernels_tables() {
        let v4 = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n\
                  eth1\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
                  eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n";
        assert_eq!(from_v4(v4), Some("eth0"));
        assert_eq!(from_v4("Iface\tDestination\n"), None);
        let zero = "0".repeat(32);
        let v6 = format!(
            "{zero} 00 {zero} 00 {zero} ffffffff 00000001 00000000 00200200       lo\n{zero} 00 {zero} 00 fe80 00000400 0 0 00000003     eth2\n"
        );
        assert_eq!(from_v6(&v6), Some("eth2"));
    }

    #[test]
    fn an_unknown_interface_is_named_with_the_known_ones() {
        let error = check("no-such-if0").unwrap_err().to_string();
        assert!(error.contains("no-such-if0") && error.contains("ip link"), "{error}");
    }
}
