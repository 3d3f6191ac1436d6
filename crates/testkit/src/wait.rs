//! Waiting for conditions: bounded polling and gates.
//!
//! No test waits for time to pass; it waits for something to become true, for at most
//! [`patience`]. The one pause between two looks at a condition lives here, and the one that a
//! scripted peer makes because it plays a slow one.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a test waits for anything before it fails: 30 seconds, or `HENG_TEST_PATIENCE`
/// in seconds, which runs that expect failures set low.
pub fn patience() -> Duration {
    let seconds = std::env::var("HENG_TEST_PATIENCE").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(30))
}

/// Looks at `condition` until it holds; false when [`patience`] ran out first.
#[must_use]
pub fn until(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + patience();
    let mut pause = Duration::from_micros(200);
    loop {
        if condition() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// Looks at `value` until it has been the same for `quiet`, and returns it: what has come to a
/// halt. The last value when [`patience`] ran out first.
pub fn steady<T: PartialEq>(quiet: Duration, mut value: impl FnMut() -> T) -> T {
    let mut last = (value(), Instant::now());
    let _ = until(|| {
        let now = value();
        if now != last.0 {
            last = (now, Instant::now());
        }
        last.1.elapsed() >= quiet
    });
    last.0
}

/// Looks at `count` until it is `wanted` at least; false once it stood still for [`patience`]. A
/// slow machine may take its time as long as it gets on.
#[must_use]
pub fn reaches(wanted: usize, mut count: impl FnMut() -> usize) -> bool {
    loop {
        let seen = count();
        if seen >= wanted {
            return true;
        }
        if !until(|| count() != seen) {
            return false;
        }
    }
}

/// Makes a scripted peer slow: returns after `time`.
pub fn linger(time: Duration) {
    std::thread::sleep(time);
}

/// Tells something slow from something quick, however fast the machine is. `attempt` is given the
/// time that the slow one is to take; it returns the longest time that the quick one took, and
/// what was found. The finding counts if that is less than a third, which leaves room for
/// whatever else takes time; or else the slow one gets twice the time in another attempt.
#[track_caller]
pub fn clearly_slower<T>(mut attempt: impl FnMut(Duration) -> (Duration, T)) -> T {
    let mut slow = Duration::from_millis(150);
    loop {
        let (quick, found) = attempt(slow);
        if quick * 3 < slow {
            return found;
        }
        slow *= 2;
        assert!(slow < patience() / 4, "what is to be quick took {quick:?}");
    }
}

/// A door between a test and its scripted peers: who waits at it goes on when the test opens it.
///
/// Clones are the same gate. It starts shut.
#[derive(Clone, Default)]
pub struct Gate {
    inner: Arc<(Mutex<GateState>, Condvar)>,
}

#[derive(Default)]
struct GateState {
    open: bool,
    arrived: usize,
}

impl Gate {
    /// A shut gate.
    pub fn new() -> Gate {
        Gate::default()
    }

    fn state(&self) -> MutexGuard<'_, GateState> {
        self.inner.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets everybody through, now and later.
    pub fn open(&self) {
        self.state().open = true;
        self.inner.1.notify_all();
    }

    /// True once it was opened and not shut again.
    pub fn is_open(&self) -> bool {
        self.state().open
    }

    /// Shuts the gate for those who come from now on.
    pub fn shut(&self) {
        self.state().open = false;
    }

    /// Waits until the gate is open, six times [`patience`] at most; false when time ran out,
    /// which happens when the test that holds it is over.
    pub fn pass(&self) -> bool {
        let mut state = self.state();
        state.arrived += 1;
        self.inner.1.notify_all();
        let (state, _) = self
            .inner
            .1
            .wait_timeout_while(state, patience() * 6, |state| !state.open)
            .unwrap_or_else(PoisonError::into_inner);
        state.open
    }

    /// Waits until `count` visitors have come to the gate since it was made.
    #[track_caller]
    pub fn wait_arrived(&self, count: usize) {
        let (state, _) = self
            .inner
            .1
            .wait_timeout_while(self.state(), patience(), |state| state.arrived < count)
            .unwrap_or_else(PoisonError::into_inner);
        let arrived = state.arrived;
        assert!(arrived >= count, "{arrived} of {count} visitors came to the gate in time");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_holds_until_opened() {
        let gate = Gate::new();
        let visitor = std::thread::spawn({
            let gate = gate.clone();
            move || gate.pass()
        });
        gate.wait_arrived(1);
        assert!(!visitor.is_finished());
        gate.open();
        assert!(visitor.join().unwrap());
        assert!(gate.pass());
    }

    #[test]
    fn who_gets_on_is_waited_for() {
        let mut count = 0;
        assert!(reaches(50, || {
            count += 1;
            count
        }));
    }

    #[test]
    fn the_slow_one_is_made_slower_until_it_is_clearly_slower() {
        // A third of 150 ms is not enough, and of 300 ms it is.
        let found = clearly_slower(|slow| (Duration::from_millis(60), slow));
        assert_eq!(found, Duration::from_millis(300));
    }

    #[test]
    fn until_sees_a_condition_come_true() {
        let mut looks = 0;
        assert!(until(|| {
            looks += 1;
            looks == 3
        }));
    }
}
