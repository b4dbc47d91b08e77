//! Which requests of a trace are the attack's: said in files beside it, one account or one network a line.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use benches::baseline::{Request, SECOND, short};
use sensor_ebpf::siphash::{Key, hash128};

/// What is wrong with a file of labels.
#[derive(Debug, PartialEq, Eq)]
pub struct Mistake {
    file: PathBuf,
    /// 0: the file as a whole.
    line: usize,
    message: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { file, line, message } = self;
        match line {
            0 => write!(f, "{}: {message}", file.display()),
            line => write!(f, "{}:{line}: {message}", file.display()),
        }
    }
}

impl std::error::Error for Mistake {}

/// A network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Network {
    /// First address, IPv4 as mapped IPv6.
    first: u128,
    /// Bits that are fixed.
    bits: u32,
}

/// The attack's accounts, its networks, and since when.
#[derive(Debug, Default)]
pub struct Labels {
    accounts: Option<HashSet<u64>>,
    /// By the number of fixed bits.
    networks: Option<Vec<(u32, HashSet<u128>)>>,
    began_ns: u64,
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// `address` with only its first `bits` bits.
fn masked(address: u128, bits: u32) -> u128 {
    let free = 128_u32.saturating_sub(bits);
    if free >= 128 { 0 } else { address >> free << free }
}

impl FromStr for Network {
    type Err = &'static str;

    /// `203.0.113.7`, `203.0.113.0/24`, `2001:db8::/32`, or a beginning of an IPv4 address such as `203.0.113.`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "this is no address, network (203.0.113.0/24) or beginning of an address (203.0.113.)";
        if let Some(start) = text.strip_suffix('.') {
            let parts = start.split('.').count();
            let rest = 4_usize.checked_sub(parts).filter(|rest| *rest > 0).ok_or(FORM)?;
            let address: IpAddr = format!("{start}{}", ".0".repeat(rest)).parse().map_err(|_| FORM)?;
            let bits = 128 - 8 * u32::try_from(rest).map_err(|_| FORM)?;
            return Ok(Self { first: masked(number(address), bits), bits });
        }
        let (address, bits) = text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
        let address: IpAddr = address.parse().map_err(|_| FORM)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let fixed = bits.map_or(Ok(width), str::parse).map_err(|_| FORM)?;
        if fixed > width {
            return Err(FORM);
        }
        let bits = 128 - width + fixed;
        Ok(Self { first: masked(number(address), bits), bits })
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "saturates; a double holds microseconds of our time"
)]
fn nanoseconds(seconds: f64) -> u64 {
    (seconds * SECOND as f64) as u64
}

/// The lines of `file` that say something, with their numbers.
fn lines(file: &Path) -> Result<Vec<(usize, String)>, Mistake> {
    let text = fs::read_to_string(file).map_err(|error| Mistake {
        file: file.to_owned(),
        line: 0,
        message: format!("cannot be read: {error}"),
    })?;
    let said = |line: &str| !line.is_empty() && !line.starts_with('#');
    let numbered = (1..).zip(text.lines().map(str::trim));
    Ok(numbered.filter(|(_, line)| said(line)).map(|(number, line)| (number, line.to_owned())).collect())
}

impl Labels {
    /// Reads the files that there are. Accounts are written as paths and claims name them, and hashed under `key` as the
    /// sensor hashes them. Before `began_s` (seconds since 1970) nothing is the attack's.
    pub fn read(
        accounts: Option<&Path>,
        networks: Option<&Path>,
        began_s: Option<f64>,
        key: Key,
    ) -> Result<Self, Mistake> {
        let mut labels = Self::default();
        if let Some(file) = accounts {
            let hash = |(_, id): (usize, String)| short(hash128(key, id.as_bytes()));
            labels.accounts = Some(lines(file)?.into_iter().map(hash).collect());
        }
        if let Some(file) = networks {
            let mut known: Vec<(u32, HashSet<u128>)> = Vec::new();
            for (line, text) in lines(file)? {
                let network: Network = text.parse().map_err(|message: &str| Mistake {
                    file: file.to_owned(),
                    line,
                    message: message.to_owned(),
                })?;
                match known.iter_mut().find(|(bits, _)| *bits == network.bits) {
                    Some((_, firsts)) => _ = firsts.insert(network.first),
                    None => known.push((network.bits, HashSet::from([network.first]))),
                }
            }
            labels.networks = Some(known);
        }
        labels.began_ns = nanoseconds(began_s.unwrap_or(0.0));
        Ok(labels)
    }

    /// True when `request` is the attack's: its account and its client are, as far as there are labels of each.
    pub fn attack(&self, request: &Request) -> bool {
        if request.at_ns < self.began_ns || (self.accounts.is_none() && self.networks.is_none()) {
            return false;
        }
        let account =
            self.accounts.as_ref().is_none_or(|known| request.account.is_some_and(|one| known.contains(&one)));
        let client = number(request.client);
        let within = |(bits, firsts): &(u32, HashSet<u128>)| firsts.contains(&masked(client, *bits));
        account && self.networks.as_ref().is_none_or(|known| known.iter().any(within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, address: &str) -> bool {
        let network: Network = network.parse().unwrap();
        masked(number(address.parse().unwrap()), network.bits) == network.first
    }

    #[test]
    fn networks_and_beginnings_of_addresses() {
        assert!(holds("203.0.113.7", "203.0.113.7") && !holds("203.0.113.7", "203.0.113.8"));
        assert!(holds("203.0.113.0/24", "203.0.113.255") && !holds("203.0.113.0/24", "203.0.114.0"));
        assert!(holds("203.0.113.9/24", "203.0.113.1"));
        assert!(holds("203.0.", "203.0.113.1") && !holds("203.0.", "203.1.113.1"));
        assert!(holds("2001:db8::/32", "2001:db8:1::1") && !holds("2001:db8::/32", "2001:db9::1"));
        assert!(holds("0.0.0.0/0", "255.1.2.3") && !holds("0.0.0.0/0", "2001:db8::1"));
        assert!(holds("::/0", "2001:db8::1"));
        for wrong in ["", ".", "203.0.113.7.", "203.0.113.0/33", "2001:db8::/129", "shop.example", "1.2.3.4/x", "300."]
        {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
