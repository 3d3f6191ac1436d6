//! The list of algorithms.
//!
//! Each algorithm is one file that declares a [`Method`]; this list is the only other place that
//! a new one touches. A group remembers its method by its place in the list, because a function
//! pointer means nothing to another process that shares the state.

use crate::state::{Ask, State};
use crate::{PeerIndex, Tried, least_conn, round_robin};

/// One balancing algorithm, as data.
pub struct Method {
    /// The configuration's word for it.
    pub name: &'static str,
    /// One sentence for the manual.
    pub about: &'static str,
    /// Chooses among the peers of one tier that are neither tried nor unusable.
    pub(crate) pick: fn(&mut State<'_>, usize, &Ask, &Tried) -> Option<PeerIndex>,
    /// Puts one peer where it belongs after its load, health or weight changed.
    pub(crate) settle: fn(&mut State<'_>, PeerIndex),
    /// Builds a tier's indexes afresh: at creation and after a weight changed.
    pub(crate) rebuild: fn(&mut State<'_>, usize),
}

impl std::fmt::Debug for Method {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(self.name)
    }
}

/// All algorithms; a group's state names one by its index here.
pub static METHODS: &[&Method] = &[&round_robin::METHOD, &least_conn::METHOD];

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
