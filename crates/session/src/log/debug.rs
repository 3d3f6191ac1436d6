//! Clients whose connections are logged in every detail (`debug_connection`).
//!
//! A worker has one list for all of its engines, empty for nearly all configurations.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;

use crate::access::Clients;

thread_local! {
    /// Whether the list has any: what every request asks.
    static ANY: Cell<bool> = const { Cell::new(false) };
    static DEBUGGED: RefCell<Vec<Clients>> = const { RefCell::new(Vec::new()) };
}

/// Lets the connections of `clients` be logged in every detail by this process, and no others.
pub fn debug_clients(clients: &[Clients]) {
    ANY.set(!clients.is_empty());
    DEBUGGED.with_borrow_mut(|debugged| *debugged = clients.to_vec());
}

/// Whether a client is one of those; `None` is one of a unix socket.
#[inline]
pub fn is_debugged(client: impl FnOnce() -> Option<IpAddr>) -> bool {
    ANY.get() && {
        let client = client();
        DEBUGGED.with_borrow(|debugged| debugged.iter().any(|clients| clients.include(client)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Network;

    #[test]
    fn clients_are_told_apart() {
        let check = |client: Option<&str>, expected: bool| {
            let client = client.map(|client| client.parse().unwrap());
            assert_eq!(is_debugged(|| client), expected, "{client:?}");
        };
        check(Some("127.0.0.1"), false);
        let network = Network::parse("10.0.0.0/8").unwrap().network;
        debug_clients(&[Clients::Network(network), Clients::Unix]);
        check(Some("10.2.3.4"), true);
        check(Some("11.2.3.4"), false);
        check(None, true);
        debug_clients(&[]);
        check(Some("10.2.3.4"), false);
    }
}
