//! The way from the peer of a connection back to the client, along addresses that proxies wrote
//! down (`X-Forwarded-For`): a word counts as far as the one who wrote it is trusted.

use crate::network::Networks;
use std::net::{IpAddr, SocketAddr};

/// A search for the client.
pub struct Search<'a> {
    trusted: &'a Networks,
    /// Go on beyond the first address, as long as addresses are trusted.
    recursive: bool,
    /// Whose word is looked at next; `None` is the peer of a unix socket.
    current: Option<SocketAddr>,
    found: Option<SocketAddr>,
}

impl<'a> Search<'a> {
    /// Begins at `peer`, whose word counts if it is trusted.
    pub fn new(trusted: &'a Networks, recursive: bool, peer: Option<SocketAddr>) -> Search<'a> {
        Search { trusted, recursive, current: peer, found: None }
    }

    /// The last address that somebody trusted wrote down; its port is 0 when there was none.
    pub fn found(&self) -> Option<SocketAddr> {
        self.found
    }

    /// Follows a list of addresses from its end; false when the search is over. Lists that were
    /// written later are looked into first.
    pub fn look_into(&mut self, list: &[u8]) -> bool {
        let is_separator = |byte: &u8| matches!(byte, b' ' | b',');
        let mut rest = list;
        loop {
            if !self.trusted.has(self.current.map(|address| address.ip())) {
                return false;
            }
            let end = rest.iter().rposition(|byte| !is_separator(byte)).map_or(0, |at| at + 1);
            let start = rest[..end].iter().rposition(is_separator).map_or(0, |at| at + 1);
            let Some(address) = parse_address(&rest[start..end]) else { return false };
            self.current = Some(address);
            self.found = Some(address);
            if !self.recursive {
                return false;
            }
            if start == 0 {
                return true;
            }
            rest = &rest[..start - 1];
        }
    }
}

/// An address with or without a port; the port is 0 when there is none.
pub fn parse_address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(address, 0));
    }
    text.parse::<SocketAddr>().ok().filter(|address| address.port() != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;

    #[test]
    fn addresses() {
        let check = |text: &str, expected: Option<&str>| {
            let found = parse_address(text.as_bytes()).map(|address| address.to_string());
            assert_eq!(found.as_deref(), expected, "{text}");
        };
        check("192.0.2.1", Some("192.0.2.1:0"));
        check("192.0.2.1:80", Some("192.0.2.1:80"));
        check("2001:db8::1", Some("[2001:db8::1]:0"));
        check("[2001:db8::1]:80", Some("[2001:db8::1]:80"));
        check("192.0.2.1:0", None);
        check("192.0.2.1:", None);
        check("192.0.2.1:65536", None);
        check("[2001:db8::1]", None);
        check("unknown", None);
        check("", None);
        check("192.0.2.1\u{e4}", None);
    }

    #[test]
    fn the_way_back() {
        let check = |recursive: bool, list: &str, expected: Option<&str>| {
            let mut trusted = Networks::default();
            for text in ["127.0.0.1", "10.0.0.0/8"] {
                trusted.add(Network::parse(text).unwrap().network);
            }
            let peer = Some("127.0.0.1:1".parse().unwrap());
            let mut search = Search::new(&trusted, recursive, peer);
            search.look_into(list.as_bytes());
            let found = search.found().map(|address| address.ip().to_string());
            assert_eq!(found.as_deref(), expected, "{list} recursive: {recursive}");
        };
        for recursive in [false, true] {
            check(recursive, "192.0.2.1", Some("192.0.2.1"));
            check(recursive, "192.0.2.2, 192.0.2.1", Some("192.0.2.1"));
            check(recursive, "192.0.2.1 , ", Some("192.0.2.1"));
            check(recursive, "nobody", None);
            check(recursive, "192.0.2.1, nobody", None);
            check(recursive, "", None);
            check(recursive, ",", None);
            check(recursive, "  ", None);
        }
        check(false, "192.0.2.1, 10.1.1.1", Some("10.1.1.1"));
        check(true, "192.0.2.1, 10.1.1.1", Some("192.0.2.1"));
        check(true, "192.0.2.1,10.1.1.1,, 10.1.1.2 ", Some("192.0.2.1"));
        check(true, "10.1.1.1, 10.1.1.2", Some("10.1.1.1"));
        check(true, "nobody, 10.1.1.2", Some("10.1.1.2"));
        check(true, "192.0.2.2, 192.0.2.1, 10.1.1.2", Some("192.0.2.1"));
    }
}
