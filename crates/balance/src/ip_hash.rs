//! The client's address decides, as in nginx's `ip_hash`.
//!
//! The hash begins with 89; each octet takes it to `(hash * 113 + octet) % 6271`. The first three
//! octets of an IPv4 address count, all sixteen of an IPv6 address. What is left over of the hash
//! by the sum of the weights is a point on the line of peers. When that peer cannot be used the
//! octets are mixed in once more; after twenty of those the request takes its turn like any other.
//!
//! nginx walks the line from its beginning; here the sums of the weights are searched.

use crate::ask::Turn;
use crate::index::{Sums, Table};
use crate::method::{Method, USUAL};
use crate::round_robin;
use crate::state::{PeerIndex, State};
use crate::tried::Tried;

/// By the client's address.
pub static METHOD: Method = Method {
    name: "ip_hash",
    about: "A client's address decides which peer it is sent to.",
    backup: false,
    settle: round_robin::settle,
    rebuild: round_robin::rebuild,
    pick,
    table: Sums::table,
    ..USUAL
};

/// So often the hash is asked before the request takes a turn instead.
pub(crate) const TRIES: u32 = 20;

const BEGIN: u32 = 89;

fn pick(state: &mut State<'_>, turn: &Turn<'_>, tried: &mut Tried) -> Option<PeerIndex> {
    let Some(Table::Sums(sums)) = turn.table.filter(|_| state.head.tiers[turn.tier].count > 1)
    else {
        return round_robin::pick(state, turn, tried);
    };
    while tried.walk.tries <= TRIES && sums.total() > 0 {
        let before = if tried.walk.begun { tried.walk.hash } else { u64::from(BEGIN) };
        let hash = turn.key.mixed_into(before as u32);
        tried.walk.begin(hash.into());
        let peer = sums.at(u64::from(hash) % sums.total());
        if state.admits(peer, turn, tried) {
            return Some(peer);
        }
        tried.walk.tries += 1;
    }
    round_robin::pick(state, turn, tried)
}
