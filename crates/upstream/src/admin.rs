//! Groups as an operator sees and changes them while the program runs.
//!
//! [`announce`] lists the groups of this process by engine, for whoever tells about them. What is
//! changed here is changed in the group's zone, so that all workers see it at once.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use balance::{Checks, Health, PeerIndex, PeerOptions, State, Tier};
use system::socket::Address;

use crate::book::Statistics;
use crate::group::{Group, Member, Peer};
use crate::home::{Home, Shared};
use crate::records::{Origin, Record};
use crate::timeline::{Event, What};

/// So many members are read under one lock.
const STRETCH: usize = 256;

thread_local! {
    static GROUPS: RefCell<Vec<(&'static str, Weak<Group>)>> = const { RefCell::new(Vec::new()) };
}

/// Lists a group of `engine` (`http`, `stream`) until it is gone.
pub fn announce(engine: &'static str, group: &Rc<Group>) {
    GROUPS.with_borrow_mut(|groups| {
        groups.retain(|(_, group)| group.strong_count() > 0);
        groups.push((engine, Rc::downgrade(group)));
    });
}

/// The groups of `engine`, by name; of several with one name, the newest.
pub fn groups(engine: &str) -> Vec<Rc<Group>> {
    let mut found: Vec<Rc<Group>> = Vec::new();
    GROUPS.with_borrow(|groups| {
        let of_engine = groups.iter().rev().filter(|(of, _)| *of == engine);
        for group in of_engine.filter_map(|(_, group)| group.upgrade()) {
            if !found.iter().any(|other| other.name() == group.name()) {
                found.push(group);
            }
        }
    });
    found.sort_by(|one, other| one.name().cmp(other.name()));
    found
}

/// One member of a group.
#[derive(Clone, Debug)]
pub struct Status {
    /// Its number, for as long as the group lives.
    pub id: u64,
    /// Where it comes from.
    pub origin: Origin,
    /// As the configuration, or whoever added it, wrote it.
    pub server: Box<str>,
    /// The name by which clients are bound to it.
    pub route: Option<Box<str>>,
    /// Where it is.
    pub address: Address,
    /// Whether it is a backup.
    pub is_backup: bool,
    /// Its options now.
    pub options: PeerOptions,
    /// Requests under way.
    pub active: u32,
    /// Failures that count at the moment.
    pub is_resting: bool,
    /// What active checks say.
    pub health: Health,
    /// What active checks came to.
    pub checks: Checks,
    /// What requests did there.
    pub statistics: Statistics,
    /// Milliseconds for which it was ill, ejected or out for its failures, and when the present
    /// one of these times began: milliseconds since 1970.
    pub downtime_ms: u64,
    /// See `downtime_ms`.
    pub down_since_ms: Option<u64>,
    /// The service of the name that it comes from.
    pub service: Option<Box<str>>,
}

/// What an operator changes; nothing stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Its share.
    pub weight: Option<u32>,
    /// See `max_conns`.
    pub max_conns: Option<u32>,
    /// See `max_fails`.
    pub max_fails: Option<u32>,
    /// Seconds.
    pub fail_timeout: Option<u32>,
    /// Milliseconds.
    pub slow_start_ms: Option<u32>,
    /// Out of the rotation.
    pub down: Option<bool>,
    /// Only for clients that are bound to it.
    pub drain: Option<bool>,
    /// See `route`.
    pub route: Option<Box<str>>,
}

/// Why a change is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The group has no zone.
    Static,
    /// There is no member of that number.
    Unknown,
    /// The member follows a name.
    Immutable,
    /// There is no room.
    Full,
    /// The algorithm has no backups.
    NoBackups,
}

impl Group {
    /// The members in their order, primaries first. `now_s`: seconds of the loop's clock.
    pub fn status(&self, now_s: u64) -> Vec<Status> {
        self.refresh();
        let peers = self.peers();
        let mut list = Vec::new();
        // A lock for each stretch: workers that pick need not wait for all of a large group.
        for (nth, stretch) in peers.chunks(STRETCH).enumerate() {
            self.read_status(now_s, (nth * STRETCH) as PeerIndex, stretch, &mut list);
        }
        list
    }

    /// The member of a number.
    pub fn status_of(&self, id: u64, now_s: u64) -> Option<Status> {
        self.refresh();
        let peers = self.peers();
        let place = peers.iter().position(|peer| peer.id == id && !peer.is_gone)?;
        let mut list = Vec::new();
        self.read_status(now_s, place as PeerIndex, &peers[place..=place], &mut list);
        list.pop()
    }

    /// Whether a member has this address.
    pub fn has_address(&self, address: &Address) -> bool {
        self.peers().iter().any(|peer| !peer.is_gone && peer.address == *address)
    }

    /// Appends the members at the places from `first` on, which are known as `peers`.
    fn read_status(
        &self,
        now_s: u64,
        first: PeerIndex,
        peers: &[Rc<Peer>],
        list: &mut Vec<Status>,
    ) {
        let now_ms = net::now();
        let (seconds, ms) = net::wall();
        let wall_ms = seconds * 1000 + u64::from(ms);
        let ago = |since_ms: u64| wall_ms.saturating_sub(now_ms.saturating_sub(since_ms));
        let service_of = |line: u64| self.names.get()?.line(line)?.service.as_deref();
        let live = &mut *self.live();
        let mut read = |state: &mut State<'_>, shared: Option<&Shared>| {
            for (place, peer) in (first..).zip(peers) {
                if peer.is_gone || !state.is_taken(place) {
                    continue;
                }
                let Some(now) = state.peers().get(place as usize) else { continue };
                let origin = shared.and_then(|shared| shared.book.origin(place));
                let (downtime_ms, since_ms) = state.downtime_ms(place, now_ms);
                let line = origin.filter(|(origin, _)| *origin == Origin::Resolved);
                list.push(Status {
                    id: peer.id,
                    downtime_ms,
                    down_since_ms: since_ms.map(ago),
                    service: line.and_then(|(_, line)| service_of(line)).map(Into::into),
                    origin: origin.map_or(Origin::Configured, |(origin, _)| origin),
                    server: peer.server.clone(),
                    route: peer.route.clone(),
                    address: peer.address.clone(),
                    is_backup: state.tier(place) == Tier::Backup,
                    options: now.options(),
                    active: now.conns(),
                    is_resting: now.is_out(now_s),
                    health: now.health(),
                    checks: state.checks().get(place as usize).copied().unwrap_or_default(),
                    statistics: shared.map(|s| s.book.statistics(place)).unwrap_or_default(),
                });
            }
        };
        match &mut live.home {
            Home::Own(memory) => read(&mut memory.state(), None),
            Home::Zone(shared) => shared.with(|state| read(state, Some(shared))),
        }
    }

    /// The name of its zone.
    pub fn zone_name(&self) -> &str {
        self.zone.get().map_or("", |zone| zone.name())
    }

    /// Takes a new member in.
    ///
    /// # Errors
    /// Why not.
    pub fn add(&self, member: &Member, is_backup: bool) -> Result<u64, Refusal> {
        if is_backup && !self.choice().method.backup {
            return Err(Refusal::NoBackups);
        }
        let tier = if is_backup { Tier::Backup } else { Tier::Primary };
        let member = &Member { options: self.choice().marks.on(member.options), ..member.clone() };
        let added = self.shared_work(|shared, state| {
            let origin = match self.state.get() {
                Some(_) => Origin::Configured,
                None => Origin::Added,
            };
            let place = self.admit(shared, state, &[(tier, member)], origin, 0).pop();
            let place = place.ok_or(Refusal::Full)?;
            shared.book.read(place).map(|record| record.id).ok_or(Refusal::Full)
        });
        self.refresh();
        added?
    }

    /// Lets a member go.
    ///
    /// # Errors
    /// Why not.
    pub fn remove(&self, id: u64) -> Result<(), Refusal> {
        let removed = self.shared_work(|shared, state| {
            let (place, record) = find(shared, state, id).ok_or(Refusal::Unknown)?;
            if record.origin == Origin::Resolved {
                return Err(Refusal::Immutable);
            }
            crate::membership::dismiss(shared, state, &[place]);
            Ok(())
        });
        self.refresh();
        removed?
    }

    /// Changes a member. What the configuration says of it does not hold any more, until it is
    /// removed.
    ///
    /// # Errors
    /// Why not.
    pub fn change(&self, id: u64, change: &Change) -> Result<(), Refusal> {
        let changed = self.shared_work(|shared, state| {
            let (place, record) = find(shared, state, id).ok_or(Refusal::Unknown)?;
            let options = state.peers()[place as usize].options();
            let down = change.down.unwrap_or(options.down);
            let drain = change.drain.unwrap_or(options.drain);
            let options = PeerOptions {
                weight: change.weight.unwrap_or(options.weight).max(1),
                max_conns: change.max_conns.unwrap_or(options.max_conns),
                max_fails: change.max_fails.unwrap_or(options.max_fails),
                fail_timeout: change.fail_timeout.unwrap_or(options.fail_timeout),
                slow_start_ms: change.slow_start_ms.unwrap_or(options.slow_start_ms),
                down,
                drain: drain && !(down && change.down.is_some()),
                ..options
            };
            let before = state.peers()[place as usize].options();
            state.tell_time(net::now());
            state.reconfigure(place, &options);
            let what = match (options.down, options.drain) {
                (true, _) => What::Down,
                (false, true) => What::Draining,
                (false, false) => What::Up,
            };
            if (before.down, before.drain) != (options.down, options.drain) {
                shared.book.note(place, what, "by the API");
            }
            let route = change.route.clone().or(record.route.clone());
            // What a file keeps is read from there by the next configuration.
            let is_changed = self.state.get().is_none();
            let is_elsewhere = route != record.route;
            shared.book.write(place, Record { is_changed, route, ..record });
            if is_elsewhere {
                // Workers know it by its record.
                state.touch();
            }
            Ok(())
        });
        self.refresh();
        changed?
    }

    /// What happened to a member lately, the oldest first.
    ///
    /// # Errors
    /// The group has no zone, or no such member.
    pub fn timeline(&self, id: u64) -> Result<Vec<Event>, Refusal> {
        self.shared_work(|shared, state| {
            let place = place_of(shared, state, id).ok_or(Refusal::Unknown)?;
            Ok(shared.book.events(place))
        })?
    }

    /// Forgets what was counted.
    ///
    /// # Errors
    /// The group has no zone.
    pub fn reset_statistics(&self) -> Result<(), Refusal> {
        self.shared_work(|shared, state| {
            (0..state.places()).for_each(|place| shared.book.forget(place));
        })
    }

    fn shared_work<R>(
        &self,
        work: impl FnOnce(&Shared, &mut State<'_>) -> R,
    ) -> Result<R, Refusal> {
        let live = self.live();
        let shared = live.home.shared().ok_or(Refusal::Static)?;
        Ok(shared.with(|state| work(shared, state)))
    }
}

fn find(shared: &Shared, state: &State<'_>, id: u64) -> Option<(PeerIndex, Record)> {
    let place = place_of(shared, state, id)?;
    Some((place, shared.book.read(place)?))
}

fn place_of(shared: &Shared, state: &State<'_>, id: u64) -> Option<PeerIndex> {
    (0..state.places()).find(|place| shared.book.id(*place) == Some(id))
}
