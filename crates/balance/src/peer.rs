//! One peer as plain data, and the rules by which it is usable.
//!
//! The rules are nginx's (`max_fails`, `fail_timeout`, `max_conns`, `down`); every algorithm
//! shares them, none repeats them.

use crate::checks::Health;

/// What a configuration says of a peer.
///
/// `fail_timeout` has the unit of the `now` that the caller passes to the state: nginx counts
/// whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerOptions {
    /// The share of the peer; 0 is taken as 1.
    pub weight: u32,
    /// Failures within `fail_timeout` after which the peer rests; 0 never rests it.
    pub max_fails: u32,
    /// How long failures are counted, and how long a peer then rests.
    pub fail_timeout: u32,
    /// Most requests under way at once; 0 is no limit.
    pub max_conns: u32,
    /// Never used while set.
    pub down: bool,
    /// Used only for clients that are bound to it.
    pub drain: bool,
    /// Milliseconds over which its share grows to the full weight after it was out; 0 is at once.
    pub slow_start_ms: u32,
    /// What is under way at it ends when it is marked down.
    pub ends_when_down: bool,
    /// What is under way at backups ends when it is up again.
    pub ends_backups_when_up: bool,
}

impl Default for PeerOptions {
    /// nginx's defaults for a `server` line.
    fn default() -> PeerOptions {
        PeerOptions {
            weight: 1,
            max_fails: 1,
            fail_timeout: 10,
            max_conns: 0,
            down: false,
            drain: false,
            slow_start_ms: 0,
            ends_when_down: false,
            ends_backups_when_up: false,
        }
    }
}

/// Values of `Peer::down`.
const DOWN: u8 = 1;
const DRAINING: u8 = 2;
const VACANT: u8 = 3;

/// Values of `Peer::health`.
const ILL: u8 = 1;
const AWAITED: u8 = 2;
/// Added to these while the peer is ejected.
const EJECTED: u8 = 1 << 7;
/// What keeps it out. The other bits say what its marks mean to others.
const OUT: u8 = ILL | AWAITED | EJECTED;
const ENDS_WHEN_DOWN: u8 = 1 << 5;
const ENDS_BACKUPS: u8 = 1 << 6;

/// Where a peer stands in the indexes of its tier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(u8)]
pub(crate) enum Place {
    /// In no index: down, or full. An event brings it back.
    #[default]
    Out = 0,
    /// In the heap of its weight.
    Heap = 1,
    /// In the list of those whose effective weight still grows.
    Recovering = 2,
    /// In the list of those that wait for their `fail_timeout` to pass.
    Resting = 3,
    /// Pulled out for the length of one pick because the request tried it already.
    Aside = 4,
    /// In one of the trees of HAProxy's turns.
    Wheel = 5,
}

plain! {
    /// One peer: pointer-free and of fixed size, so that it can lie in shared memory.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct Peer {
        /// The smooth round robin's account. Meaningful unless the peer is in a heap, which then
        /// keeps it relative to the age of the tier.
        pub(crate) current: i64,
        pub(crate) accessed: u64,
        pub(crate) checked: u64,
        pub(crate) weight: u32,
        pub(crate) effective: u32,
        pub(crate) conns: u32,
        pub(crate) max_conns: u32,
        pub(crate) fails: u32,
        pub(crate) max_fails: u32,
        pub(crate) fail_timeout: u32,
        /// Which class of equal weights, as an offset within the tier's classes.
        pub(crate) class: u32,
        pub(crate) slow_start_ms: u32,
        /// 0, or why it takes no part in picks.
        down: u8,
        /// A [`Place`].
        place: u8,
        /// Set for the length of a pick whose request tried this peer already.
        pub(crate) frozen: u8,
        /// What checks and answers say against it, and what its marks do.
        health: u8,
    }
}

// A peer's event touches one cache line.
const _: () = assert!(size_of::<Peer>() <= 64);

/// What a failure did to the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It was counted, or the only peer of its group is never blamed.
    Usable,
    /// The peer rests now; nginx logs "upstream server temporarily disabled".
    Disabled,
}

impl Peer {
    /// A place where there is no peer.
    pub(crate) const VACANT: Peer = Peer {
        current: 0,
        accessed: 0,
        checked: 0,
        weight: 0,
        effective: 0,
        conns: 0,
        max_conns: 0,
        fails: 0,
        max_fails: 0,
        fail_timeout: 0,
        class: 0,
        slow_start_ms: 0,
        down: VACANT,
        place: Place::Out as u8,
        frozen: 0,
        health: 0,
    };

    /// Whether there is no peer at this place. Requests may be under way at the one that left.
    pub fn is_vacant(&self) -> bool {
        self.down == VACANT
    }

    /// The peer leaves. What is under way stays counted.
    pub(crate) fn leave(&mut self) {
        *self = Peer { conns: self.conns, ..Peer::VACANT };
    }

    /// Takes on what a configuration says, and keeps its loads and failures.
    pub(crate) fn reconfigure(&mut self, options: &PeerOptions) {
        let fresh = Peer::new(options);
        self.max_conns = fresh.max_conns;
        self.max_fails = fresh.max_fails;
        self.fail_timeout = fresh.fail_timeout;
        self.slow_start_ms = fresh.slow_start_ms;
        self.down = fresh.down;
        self.health = self.health & OUT | fresh.health;
        if self.weight != fresh.weight {
            self.weight = fresh.weight;
            self.effective = fresh.weight;
        }
    }

    /// Most requests under way at once; 0 is no limit.
    pub fn max_conns(&self) -> u32 {
        self.max_conns
    }

    /// What a configuration would say of it now.
    pub fn options(&self) -> PeerOptions {
        PeerOptions {
            weight: self.weight,
            max_fails: self.max_fails,
            fail_timeout: self.fail_timeout,
            max_conns: self.max_conns,
            down: self.is_down(),
            drain: self.is_draining(),
            slow_start_ms: self.slow_start_ms,
            ends_when_down: self.ends_when_down(),
            ends_backups_when_up: self.ends_backups_when_up(),
        }
    }

    pub(crate) fn new(options: &PeerOptions) -> Peer {
        let weight = options.weight.max(1);
        Peer {
            weight,
            effective: weight,
            max_conns: options.max_conns,
            max_fails: options.max_fails,
            fail_timeout: options.fail_timeout,
            slow_start_ms: options.slow_start_ms,
            down: down(options.down, options.drain),
            health: if options.ends_when_down { ENDS_WHEN_DOWN } else { 0 }
                | if options.ends_backups_when_up { ENDS_BACKUPS } else { 0 },
            ..Peer::default()
        }
    }

    /// Requests under way.
    pub fn conns(&self) -> u32 {
        self.conns
    }

    /// Failures that count at the moment.
    pub fn fails(&self) -> u32 {
        self.fails
    }

    /// The configured share.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether the configuration or an operator took it out.
    pub fn is_down(&self) -> bool {
        self.down == DOWN
    }

    /// Whether it only serves clients that are bound to it.
    pub fn is_draining(&self) -> bool {
        self.down == DRAINING
    }

    /// Whether it takes part in picks as long as it is healthy and has room.
    pub(crate) fn is_in(&self) -> bool {
        self.down == 0 && self.health & OUT == 0
    }

    /// Whether not even clients that are bound to it may be sent to it.
    pub(crate) fn is_barred(&self) -> bool {
        self.is_down() || self.is_vacant() || self.health & OUT != 0
    }

    /// Whether as many of its requests failed as may. It is on trial when its time is over.
    pub fn has_failed(&self) -> bool {
        self.max_fails != 0 && self.fails >= self.max_fails
    }

    /// Whether checks, or what others did better, keep it out.
    pub(crate) fn is_unwell(&self) -> bool {
        self.health & OUT != 0
    }

    /// What active checks say of it.
    pub fn health(&self) -> Health {
        match self.health & (ILL | AWAITED) {
            0 => Health::Well,
            ILL => Health::Ill,
            _ => Health::Awaited,
        }
    }

    pub(crate) fn set_health(&mut self, health: Health) {
        let health = match health {
            Health::Well => 0,
            Health::Ill => ILL,
            Health::Awaited => AWAITED,
        };
        self.health = self.health & !(ILL | AWAITED) | health;
    }

    /// Whether it was marked down: by an operator, by its checks, or for doing worse than others.
    pub(crate) fn is_marked_down(&self) -> bool {
        self.is_down() || self.health() == Health::Ill || self.is_ejected()
    }

    /// What is under way at it ends when it is marked down.
    pub fn ends_when_down(&self) -> bool {
        self.health & ENDS_WHEN_DOWN != 0
    }

    /// What is under way at backups ends when it is up again.
    pub fn ends_backups_when_up(&self) -> bool {
        self.health & ENDS_BACKUPS != 0
    }

    /// Whether it is out because it did worse than others.
    pub(crate) fn is_ejected(&self) -> bool {
        self.health & EJECTED != 0
    }

    pub(crate) fn set_ejected(&mut self, ejected: bool) {
        self.health = self.health & !EJECTED | if ejected { EJECTED } else { 0 };
    }

    pub(crate) fn stand(&mut self, is_down: bool, is_draining: bool) {
        self.down = down(is_down, is_draining);
    }

    /// Whether a client that is bound to it may be sent to it at `now`.
    pub(crate) fn is_usable_when_bound(&self, now: u64) -> bool {
        !self.is_barred() && !self.is_full() && !self.is_resting(now)
    }

    /// Which index it is in.
    pub(crate) fn place(&self) -> Place {
        match self.place {
            1 => Place::Heap,
            2 => Place::Recovering,
            3 => Place::Resting,
            4 => Place::Aside,
            5 => Place::Wheel,
            _ => Place::Out,
        }
    }

    pub(crate) fn set_place(&mut self, place: Place) {
        self.place = place as u8;
    }

    /// Forgets what only the indexes of its tier give a meaning to.
    pub(crate) fn reset(&mut self) {
        self.current = 0;
        self.frozen = 0;
        self.set_place(Place::Out);
    }

    /// Whether only an event, not time, can make it usable.
    pub(crate) fn is_shut(&self) -> bool {
        !self.is_in() || self.is_full()
    }

    /// Whether it has as many requests as it may have.
    pub fn is_full(&self) -> bool {
        self.max_conns != 0 && self.conns >= self.max_conns
    }

    /// Whether its failures keep it out at `now`.
    pub(crate) fn is_resting(&self, now: u64) -> bool {
        self.max_fails != 0
            && self.fails >= self.max_fails
            && now.saturating_sub(self.checked) <= u64::from(self.fail_timeout)
    }

    /// Whether its failures keep it out at `now`, for statistics.
    pub fn is_out(&self, now: u64) -> bool {
        self.is_resting(now)
    }

    /// Whether it takes part in a pick at `now`.
    pub fn is_usable(&self, now: u64) -> bool {
        !self.is_shut() && !self.is_resting(now)
    }

    /// The last moment at which [`Peer::is_resting`] holds.
    pub(crate) fn rests_until(&self) -> u64 {
        self.checked.saturating_add(u64::from(self.fail_timeout))
    }

    /// It was chosen: one more request is under way. A peer chosen after its `fail_timeout`
    /// passed is on trial from now on.
    pub(crate) fn picked(&mut self, now: u64) {
        if now.saturating_sub(self.checked) > u64::from(self.fail_timeout) {
            self.checked = now;
        }
        self.conns += 1;
    }

    /// A request ended well, or at least not by the peer's fault. True when the peer passed its
    /// trial.
    pub(crate) fn done(&mut self) -> bool {
        self.conns = self.conns.saturating_sub(1);
        self.proved()
    }

    /// The peer works. Failures are forgotten only when it was put on trial after the last of
    /// them. True when it passed its trial.
    pub(crate) fn proved(&mut self) -> bool {
        let mut passed = false;
        if self.accessed < self.checked {
            passed = self.max_fails != 0 && self.fails >= self.max_fails;
            self.fails = 0;
        }
        passed
    }

    /// A request ended by the peer's fault.
    pub(crate) fn failed(&mut self, now: u64) -> Verdict {
        self.fails = self.fails.saturating_add(1);
        self.accessed = now;
        self.checked = now;
        self.conns = self.conns.saturating_sub(1);
        if self.max_fails == 0 {
            return Verdict::Usable;
        }
        self.effective = self.effective.saturating_sub(self.weight / self.max_fails);
        if self.fails >= self.max_fails { Verdict::Disabled } else { Verdict::Usable }
    }
}

fn down(is_down: bool, is_draining: bool) -> u8 {
    match (is_down, is_draining) {
        (true, _) => DOWN,
        (false, true) => DRAINING,
        (false, false) => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_forgotten_only_after_a_trial() {
        let mut peer = Peer::new(&PeerOptions { max_fails: 2, ..PeerOptions::default() });
        peer.picked(100);
        assert_eq!(peer.failed(100), Verdict::Usable);
        // A success within the same window proves nothing.
        peer.picked(105);
        peer.done();
        assert_eq!(peer.fails(), 1);
        peer.picked(106);
        assert_eq!(peer.failed(106), Verdict::Disabled);
        assert!(!peer.is_usable(116));
        assert!(peer.is_usable(117));
        // The trial: while it is under way the peer rests again.
        peer.picked(117);
        assert!(!peer.is_usable(117));
        peer.done();
        assert_eq!((peer.fails(), peer.conns(), peer.is_usable(117)), (0, 0, true));
    }

    #[test]
    fn limits() {
        let mut peer = Peer::new(&PeerOptions { max_conns: 1, ..PeerOptions::default() });
        assert!(peer.is_usable(0));
        peer.picked(0);
        assert!(!peer.is_usable(0));
        peer.done();
        assert!(peer.is_usable(0));
        peer.stand(true, false);
        assert!(!peer.is_usable(0));
        peer.done();
        assert_eq!(peer.conns(), 0, "an event too many does not wrap");
    }
}
