//! How many connections each worker holds, known to all of them.
//!
//! The kernel wakes whichever worker is first in a listener's queue and awake soonest, which is
//! even only in the long run. A worker that holds clearly more than the one with the fewest rests
//! for a moment instead: see [`Listener`](crate::Listener). Each worker writes its own cache line
//! only; the others read it once in a while.

use std::fmt;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use system::shared::{View, Zone};

system::plain! {
    /// One worker's line: twice the connections it holds, plus one while it takes new ones.
    struct Line {
        state: AtomicU64,
        rest_of_the_cache_line: [u64; 7],
    }
}

/// Connections ahead of the others at which a worker may rest, besides an eighth of theirs.
const LEAD: u64 = 8;

/// The seats of a generation of workers. The master makes them before it forks.
#[derive(Clone)]
pub struct Seats {
    view: View<u64, Line>,
    workers: usize,
}

impl Seats {
    /// Shared memory for so many workers.
    ///
    /// # Errors
    /// As `mmap(2)`.
    pub fn new(workers: usize) -> io::Result<Seats> {
        let workers = workers.max(1);
        // The zone's header, ours (which says nothing), and a line for each.
        let zone = Arc::new(Zone::new((workers + 2) * size_of::<Line>())?);
        let view = zone.view().map_err(io::Error::other)?;
        Ok(Seats { view, workers })
    }

    /// The seat of one worker, counted from 0, empty. A worker takes its own after the fork; the
    /// successor of one that died takes over its seat.
    ///
    /// # Errors
    /// `InvalidInput` for a number that has no seat.
    pub fn take(&self, worker: usize) -> io::Result<Rc<Seat>> {
        let line = self.lines().get(worker).ok_or(io::ErrorKind::InvalidInput)?;
        line.state.store(1, Ordering::Relaxed);
        Ok(Rc::new(Seat { seats: self.clone(), worker }))
    }

    /// Empties the seat of a worker that died and has no successor: nobody waits for it.
    pub fn vacate(&self, worker: usize) {
        if let Some(line) = self.lines().get(worker) {
            line.state.store(0, Ordering::Relaxed);
        }
    }

    /// Connections that each worker holds.
    pub fn held(&self) -> Vec<u64> {
        self.lines().iter().map(|line| line.state.load(Ordering::Relaxed) >> 1).collect()
    }

    fn lines(&self) -> &[Line] {
        &self.view.cells()[..self.workers]
    }
}

impl fmt::Debug for Seats {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Seats({:?})", self.held())
    }
}

/// A worker's own seat. Dropping it, or [`Seat::retire`], tells the others not to wait for it.
#[derive(Debug)]
pub struct Seat {
    seats: Seats,
    worker: usize,
}

impl Seat {
    /// Counts a connection for as long as the answer lives.
    #[inline]
    pub fn hold(self: &Rc<Seat>) -> Held {
        self.enter();
        Held { seat: self.clone() }
    }

    /// Counts a connection, for who will say when it [leaves](Seat::leave).
    #[inline]
    pub fn enter(&self) {
        self.state().fetch_add(2, Ordering::Relaxed);
    }

    /// Counts a connection no longer that [entered](Seat::enter).
    #[inline]
    pub fn leave(&self) {
        self.state().fetch_sub(2, Ordering::Relaxed);
    }

    /// Connections that this worker holds.
    #[inline]
    pub fn held(&self) -> u64 {
        self.state().load(Ordering::Relaxed) >> 1
    }

    /// This worker takes no more connections.
    pub fn retire(&self) {
        self.state().fetch_and(!1, Ordering::Relaxed);
    }

    /// The fewest connections of a worker that takes them, if this one holds clearly more.
    pub(crate) fn ahead_of(&self) -> Option<u64> {
        let states = self.seats.lines().iter().map(|line| line.state.load(Ordering::Relaxed));
        let fewest = states.filter(|state| state & 1 != 0).map(|state| state >> 1).min()?;
        (self.held() > fewest + fewest / 8 + LEAD).then_some(fewest)
    }

    #[inline]
    fn state(&self) -> &AtomicU64 {
        // `take` found the line of this number.
        &self.seats.lines()[self.worker].state
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.retire();
    }
}

/// One connection, counted while it lives.
#[derive(Debug)]
pub struct Held {
    seat: Rc<Seat>,
}

const _: () = assert!(size_of::<Held>() == 8);

impl Drop for Held {
    #[inline]
    fn drop(&mut self) {
        self.seat.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_ahead_of_the_emptiest_that_takes_connections() {
        fn check(own: usize, others: &[(usize, bool)], ahead: Option<u64>) {
            let seats = Seats::new(others.len() + 1).unwrap();
            let mine = seats.take(0).unwrap();
            let held: Vec<Held> = (0..own).map(|_| mine.hold()).collect();
            let mut kept = Vec::new();
            for (i, (count, taking)) in others.iter().enumerate() {
                let other = seats.take(i + 1).unwrap();
                let holds: Vec<Held> = (0..*count).map(|_| other.hold()).collect();
                if !taking {
                    other.retire();
                }
                kept.push((other, holds));
            }
            assert_eq!(mine.ahead_of(), ahead, "{own} {others:?}");
            assert_eq!(seats.held()[0], own as u64);
            drop(held);
            assert_eq!(mine.held(), 0);
        }
        // Others: connections held, and whether they take more.
        check(0, &[], None);
        check(500, &[], None);
        check(8, &[(0, true)], None);
        check(9, &[(0, true)], Some(0));
        check(9, &[(0, false)], None);
        check(120, &[(100, true)], None);
        check(121, &[(100, true), (400, true)], Some(100));
    }

    #[test]
    fn a_successor_starts_with_an_empty_seat() {
        let seats = Seats::new(2).unwrap();
        let first = seats.take(1).unwrap();
        std::mem::forget(first.hold());
        std::mem::forget(first);
        assert_eq!(seats.held(), [0, 1]);
        assert_eq!(seats.take(1).unwrap().held(), 0);
        assert!(seats.take(2).is_err());
        seats.vacate(1);
        assert_eq!(seats.held(), [0, 0]);
    }
}
