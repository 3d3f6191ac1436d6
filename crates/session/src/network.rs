//! Networks (`10.0.0.0/8`, `2001:db8::/32`, one address, `unix:`) and lists of them, for everything
//! that tells clients apart by their address.
//!
//! An IPv4 address that comes mapped into IPv6 counts as what it is, as in nginx.

use std::net::IpAddr;

/// A network of one family: all addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The first address, its bits beyond the prefix cleared; IPv4 in the low 32 bits.
    bits: u128,
    prefix: u8,
    is_v4: bool,
}

/// A network as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The network.
    pub network: Network,
    /// The text had bits set beyond the prefix: nginx warns of them.
    pub has_low_bits: bool,
}

impl Network {
    /// The network of just one address.
    pub fn of(address: IpAddr) -> Network {
        let (bits, width) = bits_of(address);
        Network { bits, prefix: width, is_v4: width == 32 }
    }

    /// Reads `ADDRESS` or `ADDRESS/PREFIX`; `None` when it is neither.
    pub fn parse(text: &str) -> Option<Parsed> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        // A mapped address is written out here, with a prefix that counts all 128 bits.
        let (bits, width) = match address {
            IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32u8),
            IpAddr::V6(ip) => (u128::from(ip), 128),
        };
        let prefix = match prefix {
            None => width,
            Some(digits) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse::<u8>().ok().filter(|prefix| *prefix <= width)?
            }
            Some(_) => return None,
        };
        let kept = bits & mask(prefix, width);
        let network = Network { bits: kept, prefix, is_v4: width == 32 };
        Some(Parsed { network, has_low_bits: kept != bits })
    }

    /// Its first and its last address.
    pub fn range(&self) -> (IpAddr, IpAddr) {
        let width = if self.is_v4 { 32 } else { 128 };
        let last = self.bits | !mask(self.prefix, width);
        match self.is_v4 {
            true => (v4(self.bits as u32), v4(last as u32)),
            false => (IpAddr::V6(self.bits.into()), IpAddr::V6(last.into())),
        }
    }

    /// True when `address` is one of its addresses.
    pub fn has(&self, address: IpAddr) -> bool {
        let (bits, width) = bits_of(address);
        (width == 32) == self.is_v4 && bits & mask(self.prefix, width) == self.bits
    }
}

fn v4(bits: u32) -> IpAddr {
    IpAddr::V4(bits.into())
}

/// The bits of an address and how many they are.
fn bits_of(address: IpAddr) -> (u128, u8) {
    match address.to_canonical() {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

fn mask(prefix: u8, width: u8) -> u128 {
    let all = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let free = u32::from(width.saturating_sub(prefix));
    all & u128::MAX.checked_shl(free).unwrap_or(0)
}

/// Several networks, and perhaps the clients of unix sockets.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    list: Vec<Network>,
    unix: bool,
}

impl Networks {
    /// Adds a network.
    pub fn add(&mut self, network: Network) {
        self.list.push(network);
    }

    /// Adds the clients of unix sockets.
    pub fn add_unix(&mut self) {
        self.unix = true;
    }

    /// True when nobody is in it.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty() && !self.unix
    }

    /// True when the address is in one of the networks; `None` is a client of a unix socket.
    pub fn has(&self, address: Option<IpAddr>) -> bool {
        match address {
            Some(address) => self.list.iter().any(|network| network.has(address)),
            None => self.unix,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn membership() {
        let check = |network: &str, address: &str, expected: bool| {
            let parsed = Network::parse(network).unwrap_or_else(|| panic!("{network}"));
            let found = parsed.network.has(address.parse().unwrap());
            assert_eq!(found, expected, "{address} in {network}");
        };
        check("10.0.0.0/8", "10.255.0.1", true);
        check("10.0.0.0/8", "11.0.0.1", false);
        check("10.1.2.3", "10.1.2.3", true);
        check("10.1.2.3", "10.1.2.4", false);
        check("10.1.2.3/31", "10.1.2.2", true);
        check("0.0.0.0/0", "255.1.2.3", true);
        check("0.0.0.0/0", "::1", false);
        check("0.0.0.0/0", "::ffff:1.2.3.4", true);
        check("10.0.0.0/8", "::ffff:10.0.0.1", true);
        check("::/0", "10.0.0.1", false);
        check("::/0", "2001:db8::1", true);
        check("2001:db8::/32", "2001:db8:ffff::", true);
        check("2001:db8::/32", "2001:db9::", false);
        check("2001:db8::1", "2001:db8::1", true);
        check("2001:db8::1/127", "2001:db8::", true);
    }

    #[test]
    fn ranges() {
        let check = |network: &str, first: &str, last: &str| {
            let (a, b) = Network::parse(network).unwrap().network.range();
            assert_eq!((a.to_string().as_str(), b.to_string().as_str()), (first, last));
        };
        check("10.0.0.0/8", "10.0.0.0", "10.255.255.255");
        check("10.1.2.3", "10.1.2.3", "10.1.2.3");
        check("0.0.0.0/0", "0.0.0.0", "255.255.255.255");
        check("2001:db8::/127", "2001:db8::", "2001:db8::1");
        check("::/0", "::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
    }

    #[test]
    fn texts() {
        let check = |text: &str, expected: Option<bool>| {
            let found = Network::parse(text).map(|parsed| parsed.has_low_bits);
            assert_eq!(found, expected, "{text}");
        };
        check("10.0.0.0/8", Some(false));
        check("10.0.0.1/8", Some(true));
        check("10.0.0.1/32", Some(false));
        check("2001:db8::1/64", Some(true));
        check("10.0.0.0/33", None);
        check("::/129", None);
        check("::/300", None);
        check("10.0.0.0/", None);
        check("10.0.0.0/+8", None);
        check("10.0.0.0/8/8", None);
        check("10.0.0", None);
        check("/8", None);
        check("", None);
        check("name", None);
        check("[::1]", None);
    }

    #[test]
    fn lists() {
        let mut networks = Networks::default();
        assert!(networks.is_empty() && !networks.has(None));
        networks.add(Network::of("::ffff:192.0.2.1".parse().unwrap()));
        let ip = |text: &str| Some(text.parse().unwrap());
        assert!(networks.has(ip("192.0.2.1")) && !networks.has(ip("192.0.2.2")));
        assert!(!networks.has(None));
        networks.add_unix();
        assert!(networks.has(None) && !networks.is_empty());
    }
}
