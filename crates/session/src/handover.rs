//! Connections that one engine passes to a listener of another, in the same worker.
//!
//! An engine offers what it does with connections of an address; whoever has one that is meant
//! for that address, such as `pass` of stream, hands it over.

use std::cell::RefCell;
use std::rc::Rc;

use net::{Block, Stream};
use system::socket::Address;

/// A connection that changes hands.
pub struct Passed {
    /// The connection.
    pub stream: Stream,
    /// What was received already.
    pub ahead: Option<Block>,
    /// Who speaks at its other end.
    pub client: Address,
    /// Whom it is meant for.
    pub address: Address,
}

/// Takes a connection.
pub type Taker = Rc<dyn Fn(Passed)>;

thread_local! {
    static OFFERS: RefCell<Vec<(Address, Taker)>> = const { RefCell::new(Vec::new()) };
}

/// Offers to take connections that are meant for `address`, which may be a wildcard.
pub fn offer(address: Address, taker: Taker) {
    OFFERS.with_borrow_mut(|offers| offers.push((address, taker)));
}

/// Forgets all offers: the worker takes no more connections.
pub fn forget() {
    drop(OFFERS.take());
}

/// Who takes connections that are meant for `address`, if anybody does.
pub fn taker(address: &Address) -> Option<Taker> {
    OFFERS.with_borrow(|offers| {
        let fits = |offered: &Address| match (offered, address) {
            (Address::Inet(offered), Address::Inet(wanted)) if offered.ip().is_unspecified() => {
                offered.port() == wanted.port() && offered.is_ipv4() == wanted.is_ipv4()
            }
            (offered, wanted) => offered == wanted,
        };
        offers.iter().find(|(offered, _)| fits(offered)).map(|(_, taker)| taker.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_find_their_listeners() {
        let offers = ["127.0.0.1:80", "0.0.0.0:81", "[::]:82", "unix:/run/x"];
        for text in offers {
            offer(Address::parse(text).unwrap(), Rc::new(|_| {}));
        }
        let check = |text: &str, expected: bool| {
            assert_eq!(taker(&Address::parse(text).unwrap()).is_some(), expected, "{text}");
        };
        check("127.0.0.1:80", true);
        check("127.0.0.2:80", false);
        check("127.0.0.2:81", true);
        check("[::1]:81", false);
        check("[::1]:82", true);
        check("unix:/run/x", true);
        check("unix:/run/y", false);
        forget();
        check("127.0.0.1:80", false);
    }
}
