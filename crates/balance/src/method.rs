//! The list of algorithms.
//!
//! Each algorithm is one file that declares a [`Method`]; this list is the only other place that
//! a new one touches. A group remembers its method by its place in the list, because a function
//! pointer means nothing to another process that shares the state.

use crate::ask::Turn;
use crate::index::{Roll, Table};
use crate::state::State;
use crate::times::Timing;
use crate::{PeerIndex, Tried};
use crate::{
    fair, first, haproxy, hash, ip_hash, least_conn, least_time, maglev, random, rendezvous,
    round_robin, sed, sh, wlc,
};

/// One balancing algorithm, as data.
pub struct Method {
    /// The configuration's words for it.
    pub name: &'static str,
    /// One sentence for the manual.
    pub about: &'static str,
    /// Whether a group may have backups.
    pub backup: bool,
    /// Whether peers may start slowly: their share must be what the algorithm goes by.
    pub slow_start: bool,
    /// Whether picks draw from [`crate::Ask::random`].
    pub draws: bool,
    /// Whether its index is of those that are in only, and made anew when one goes or comes back.
    pub(crate) of_those_in: bool,
    /// What a caller must measure, if anything.
    pub timing: Option<Timing>,
    /// Chooses among the peers of one tier that are neither tried nor unusable.
    pub(crate) pick: fn(&mut State<'_>, &Turn<'_>, &mut Tried) -> Option<PeerIndex>,
    /// Books a request that goes to a peer because its client is bound to it.
    pub(crate) bind: fn(&mut State<'_>, &Turn<'_>, &Tried, PeerIndex),
    /// Puts one peer where it belongs after its load, health or weight changed.
    pub(crate) settle: fn(&mut State<'_>, PeerIndex),
    /// Builds a tier's indexes afresh: at creation and after a weight changed.
    pub(crate) rebuild: fn(&mut State<'_>, usize),
    /// What follows from the membership alone.
    pub(crate) table: fn(&Roll<'_>) -> Table,
}

/// What most algorithms do not need.
pub(crate) const USUAL: Method = Method {
    name: "",
    about: "",
    backup: true,
    slow_start: false,
    draws: false,
    of_those_in: false,
    timing: None,
    pick: |_, _, _| None,
    bind: |_, _, _, _| {},
    settle: |_, _| {},
    rebuild: |_, _| {},
    table: |_| Table::None,
};

impl Method {
    /// Whether picks go by an [`crate::Index`].
    pub fn has_index(&self) -> bool {
        let nobody = Roll { first: 0, weights: &[], is_in: &[], name: &|_| "" };
        !matches!((self.table)(&nobody), Table::None)
    }
}

impl std::fmt::Debug for Method {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

/// All algorithms; a group's state names one by its index here.
pub static METHODS: &[&Method] = &[
    &round_robin::METHOD,
    &least_conn::METHOD,
    &ip_hash::METHOD,
    &hash::METHOD,
    &hash::CONSISTENT,
    &maglev::METHOD,
    &rendezvous::METHOD,
    &random::METHOD,
    &random::TWO,
    &random::TWO_BY_HEADER,
    &random::TWO_BY_LAST_BYTE,
    &least_time::HEADER,
    &least_time::LAST_BYTE,
    &least_time::HEADER_INFLIGHT,
    &least_time::LAST_BYTE_INFLIGHT,
    &fair::METHOD,
    &wlc::LC,
    &wlc::METHOD,
    &sed::METHOD,
    &sed::NQ,
    &first::METHOD,
    &sh::METHOD,
    &sh::DESTINATION,
    &haproxy::turns::METHOD,
    &haproxy::fixed::METHOD,
    &haproxy::load::METHOD,
    &haproxy::fixed::HASH,
    &haproxy::ring::METHOD,
];

/// The algorithm that the configuration calls `name`.
pub fn method(name: &str) -> Option<&'static Method> {
    METHODS.iter().copied().find(|method| method.name == name)
}

/// The place of `wanted` in [`METHODS`]; round robin's when it is in no list.
pub(crate) fn place(wanted: &Method) -> usize {
    METHODS.iter().position(|method| method.name == wanted.name).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        for (index, listed) in METHODS.iter().enumerate() {
            assert_eq!(place(listed), index, "{}", listed.name);
            assert_eq!(method(listed.name).map(|m| m.about), Some(listed.about));
        }
        assert!(method("no such thing").is_none());
    }
}
