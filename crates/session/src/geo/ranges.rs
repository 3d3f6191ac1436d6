//! Rows of `geo` that are ranges of IPv4 addresses, in the order in which they are read.
//!
//! nginx keeps ranges in pieces of 65 536 addresses, and users see it: what overlaps, what is a
//! duplicate and what can be deleted is decided piece by piece. So it is here.

use super::Text;
use config::Invalid;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Addresses in a piece.
const PIECE: u32 = 1 << 16;

/// The ranges read so far; none overlap.
#[derive(Default)]
pub(super) struct Ranges {
    /// Last address and value, by first address. None reaches over the end of its piece.
    rows: BTreeMap<u32, (u32, Text)>,
}

/// Reads `FIRST-LAST`.
///
/// # Errors
/// `invalid range "x"`.
pub(super) fn parse(text: &[u8]) -> Result<(u32, u32), Invalid> {
    let text = String::from_utf8_lossy(text);
    let ends = || {
        let (first, last) = text.split_once('-')?;
        let first: Ipv4Addr = first.parse().ok()?;
        let last: Ipv4Addr = last.parse().ok()?;
        (first <= last).then(|| (first.into(), last.into()))
    };
    ends().ok_or_else(|| Invalid::new(format!("invalid range \"{text}\"")))
}

/// The parts of a range in each piece.
fn pieces(first: u32, last: u32) -> impl Iterator<Item = (u32, u32)> {
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let from = next?;
        let to = (from | (PIECE - 1)).min(last);
        next = to.checked_add(1).filter(|next| *next <= last);
        Some((from, to))
    })
}

impl Ranges {
    /// Adds a range, and says which values it replaced.
    ///
    /// # Errors
    /// The range that it overlaps in part.
    pub(super) fn add(&mut self, first: u32, last: u32, value: &Text) -> Result<Vec<Text>, String> {
        let mut replaced = Vec::new();
        for (from, to) in pieces(first, last) {
            replaced.extend(self.add_piece(from, to, value)?);
        }
        Ok(replaced)
    }

    fn add_piece(&mut self, from: u32, to: u32, value: &Text) -> Result<Option<Text>, String> {
        let lowest = from & !(PIECE - 1);
        let nearest = self.rows.range(lowest..=to).next_back();
        let Some((&first, (last, old))) = nearest.filter(|(_, (last, _))| from <= *last) else {
            self.rows.insert(from, (to, value.clone()));
            return Ok(None);
        };
        let (last, old) = (*last, old.clone());
        if from < first || to > last {
            let [first, last] = [first, last].map(Ipv4Addr::from);
            return Err(format!("{first}-{last}"));
        }
        // It lies inside of the other one, whose rest goes on on both sides.
        self.rows.remove(&first);
        if first < from {
            self.rows.insert(first, (from - 1, old.clone()));
        }
        if to < last {
            self.rows.insert(to + 1, (last, old.clone()));
        }
        self.rows.insert(from, (to, value.clone()));
        Ok(((from, to) == (first, last)).then_some(old))
    }

    /// Takes a range out; false when it, or a part of it, is not there as such.
    pub(super) fn delete(&mut self, first: u32, last: u32) -> bool {
        let mut all = true;
        for (from, to) in pieces(first, last) {
            match self.rows.get(&from) {
                Some((end, _)) if *end == to => {
                    self.rows.remove(&from);
                }
                _ => all = false,
            }
        }
        all
    }

    /// First address, last address and value, sorted.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (u32, u32, Text)> {
        self.rows.into_iter().map(|(first, (last, value))| (first, last, value))
    }
}
