//! Finding a hash among many that are sorted.
//!
//! A binary search over the million points of a large ring waits for memory a dozen times, each
//! time somewhere else. Hashes are spread evenly, so their first bits tell nearly where one lies: a
//! small table has for each beginning where its hashes start, and what is left to search is a line
//! or two of the cache.

/// So many hashes share a beginning, on the average.
const TOGETHER: usize = 16;

/// Where the hashes of each beginning start.
#[derive(Clone, Debug)]
pub(crate) struct Places {
    /// By what this many bits to the right leave of a hash, and one more: the number of hashes.
    shift: u32,
    starts: Box<[u32]>,
}

impl Places {
    /// Of hashes in ascending order, of which there are fewer than 2^32.
    pub(crate) fn of(hashes: impl ExactSizeIterator<Item = u32>) -> Places {
        let count = hashes.len();
        let bits = (count / TOGETHER).max(1).ilog2();
        let shift = u32::BITS - bits;
        let mut starts = Vec::with_capacity((1 << bits) + 1);
        for (place, hash) in (0u32..).zip(hashes) {
            let beginning = (u64::from(hash) >> shift) as usize;
            while starts.len() <= beginning {
                starts.push(place);
            }
        }
        starts.resize((1 << bits) + 1, count as u32);
        Places { shift, starts: starts.into() }
    }

    /// The place of the first of `points` whose hash is not below `hash`; their number when there
    /// is none. The points are those that this was made of.
    pub(crate) fn find<T>(&self, points: &[T], hash: u32, of: impl Fn(&T) -> u32) -> usize {
        let beginning = (u64::from(hash) >> self.shift) as usize;
        let [from, to] = [0, 1].map(|next| self.starts[beginning + next] as usize);
        from + points[from..to].partition_point(|point| of(point) < hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_finds_what_a_binary_search_finds(
            mut hashes in prop::collection::vec(any::<u32>(), 0..300),
            near in prop::collection::vec(0u32..200, 0..300),
            wanted in prop::collection::vec(any::<u32>(), 20),
        ) {
            // Some of them close together, and the ends.
            hashes.extend(near);
            hashes.sort_unstable();
            let places = Places::of(hashes.iter().copied());
            let next = |hash: &u32| [hash.wrapping_sub(1), hash.wrapping_add(1)];
            let around = hashes.iter().flat_map(next);
            let wanted = wanted.iter().copied().chain([0, u32::MAX]).chain(around);
            for hash in wanted.chain(hashes.iter().copied()) {
                let expected = hashes.partition_point(|other| *other < hash);
                prop_assert_eq!(places.find(&hashes, hash, |other| *other), expected);
            }
        }
    }
}
