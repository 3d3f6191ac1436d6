//! Connections that carry several requests at once (HTTP/2), and those who wait for one.
//!
//! ```text
//!             one with room                      Found
//!   share ──► somebody is making one             Awaited ──► share again
//!             nobody, or all are full            Making  ──► stands, or dropped: it failed
//! ```
//!
//! What travels on a connection is the business of its [`Carrier`]. The group knows which ones it
//! has, lets requests that come together share one that is not there yet, and bounds how many stay
//! without a request (`keepalive`).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use crate::group::{Group, Keepalive};

/// A connection that carries several requests at once.
pub trait Carrier {
    /// Whether it takes another request now.
    fn has_room(&self) -> bool;
    /// It is to take no more requests, and to close when the last one has ended.
    fn retire(&self);
    /// For its protocol, which knows what it is.
    fn as_any(self: Rc<Self>) -> Rc<dyn Any>;
}

/// How a request comes by a connection.
pub enum Shared {
    /// One that has room.
    Found(Rc<dyn Carrier>),
    /// Another request is making one: ask again when it stands.
    Awaited(Awaited),
    /// It has to make one.
    Make(Making),
}

/// Requests that a peer is taken to carry on a connection before it has told.
const USUAL_ROOM: u32 = 100;

/// The carriers of a group, and those that are being made.
#[derive(Default)]
pub(crate) struct Carriers {
    entries: Vec<Entry>,
    pending: Vec<Rc<Pending>>,
    /// What peers, by their lanes, said last of how many requests a connection carries.
    rooms: Vec<(u32, u32)>,
    next: u64,
}

struct Entry {
    id: u64,
    lane: u32,
    owner: usize,
    carrier: Weak<dyn Carrier>,
    /// Since when it has no request.
    idle_since_ms: Option<u64>,
}

/// A connection that is being made.
struct Pending {
    lane: u32,
    owner: usize,
    /// How many may wait for it, and those who do.
    most: u32,
    waiting: RefCell<Vec<(u64, Option<Waker>)>>,
    next: Cell<u64>,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Stands,
    Failed,
}

/// The wait for a connection that another request makes.
pub struct Awaited {
    pending: Rc<Pending>,
    id: u64,
}

/// A connection is being made. Dropping it tells those who wait that it failed.
pub struct Making {
    group: Rc<Group>,
    lane: u32,
    owner: usize,
    pending: Option<Rc<Pending>>,
}

/// A carrier's place in its group, for as long as it lives.
pub struct Listing {
    group: Rc<Group>,
    id: Option<u64>,
}

impl Awaited {
    /// Ready when the connection stands (`true`), or could not be made.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        match self.pending.state.get() {
            State::Stands => Poll::Ready(true),
            State::Failed => Poll::Ready(false),
            State::Open => {
                let mut waiting = self.pending.waiting.borrow_mut();
                if let Some((_, waker)) = waiting.iter_mut().find(|(id, _)| *id == self.id) {
                    *waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.pending.waiting.borrow_mut().retain(|(id, _)| *id != self.id);
    }
}

impl Pending {
    fn enter(self: &Rc<Pending>) -> Option<Awaited> {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() >= self.most as usize {
            return None;
        }
        let id = self.next.get();
        self.next.set(id + 1);
        waiting.push((id, None));
        drop(waiting);
        Some(Awaited { pending: self.clone(), id })
    }

    fn end(&self, state: State) {
        self.state.set(state);
        for (_, waker) in self.waiting.borrow_mut().iter_mut() {
            if let Some(waker) = waker.take() {
                waker.wake();
            }
        }
    }
}

impl Making {
    /// The connection is made, and its carrier belongs to the group from now on.
    pub fn list(&self, carrier: &Weak<dyn Carrier>) -> Listing {
        let group = self.group.clone();
        let keeps = group.shares() && !group.live().retired;
        let id = keeps.then(|| {
            let mut live = group.live();
            let carriers = &mut live.carriers;
            let id = carriers.next;
            carriers.next += 1;
            let (lane, owner, carrier) = (self.lane, self.owner, carrier.clone());
            carriers.entries.push(Entry { id, lane, owner, carrier, idle_since_ms: None });
            id
        });
        Listing { group, id }
    }

    /// The peer has told how many requests a connection carries: those who waited ask again. True
    /// when there are any.
    pub fn stands(mut self, room: u32) -> bool {
        let mut live = self.group.live();
        let rooms = &mut live.carriers.rooms;
        match rooms.iter_mut().find(|(lane, _)| *lane == self.lane) {
            Some((_, known)) => *known = room,
            None => rooms.push((self.lane, room)),
        }
        drop(live);
        let waiting = |pending: &Rc<Pending>| !pending.waiting.borrow().is_empty();
        let any = self.pending.as_ref().is_some_and(waiting);
        self.end(State::Stands);
        any
    }

    fn end(&mut self, state: State) {
        if let Some(pending) = self.pending.take() {
            self.group.live().carriers.pending.retain(|other| !Rc::ptr_eq(other, &pending));
            pending.end(state);
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.end(State::Failed);
    }
}

impl Listing {
    /// What holds for connections of the group.
    pub fn keepalive(&self) -> Keepalive {
        *self.group.keepalive()
    }

    /// The carrier has no request. False when it is to close.
    pub fn rests(&self) -> bool {
        let Some(id) = self.id else { return false };
        self.group.carrier_rests(id, net::now())
    }

    /// The carrier has a request again.
    pub fn rises(&self) {
        let mut live = self.group.live();
        if let Some(entry) =
            live.carriers.entries.iter_mut().find(|entry| Some(entry.id) == self.id)
        {
            entry.idle_since_ms = None;
        }
    }
}

impl Drop for Listing {
    fn drop(&mut self) {
        self.group.live().carriers.entries.retain(|entry| Some(entry.id) != self.id);
    }
}

impl Carriers {
    /// One with room.
    fn find(&self, lane: u32, fits: impl Fn(usize) -> bool) -> Option<Rc<dyn Carrier>> {
        let mut of_lane = self.entries.iter().filter(|entry| entry.lane == lane);
        of_lane.find_map(|entry| {
            let carrier = entry.carrier.upgrade().filter(|_| fits(entry.owner))?;
            carrier.has_room().then_some(carrier)
        })
    }

    /// The one that is without a request for the longest time, and how many there are.
    fn idle(&self) -> (usize, Option<&Entry>) {
        let idle = || self.entries.iter().filter(|entry| entry.idle_since_ms.is_some());
        (idle().count(), idle().min_by_key(|entry| entry.idle_since_ms))
    }

    /// Those that are to retire now.
    pub(crate) fn all(&self) -> Vec<Rc<dyn Carrier>> {
        self.entries.iter().filter_map(|entry| entry.carrier.upgrade()).collect()
    }
}

impl Group {
    /// How a request of `owner` comes by a connection to the peers of `lane`. `fresh`: not by one
    /// that stands already.
    pub(crate) fn share_connection(
        self: &Rc<Group>,
        lane: u32,
        owner: usize,
        fresh: bool,
    ) -> Shared {
        let mut live = self.live();
        let mut pending = None;
        if self.shares() && !live.retired {
            let fits = |other: usize| self.may_use(other, owner);
            let carriers = &mut live.carriers;
            if let Some(carrier) = carriers.find(lane, fits).filter(|_| !fresh) {
                return Shared::Found(carrier);
            }
            let mut usable =
                carriers.pending.iter().filter(|other| other.lane == lane && fits(other.owner));
            if let Some(awaited) = usable.find_map(Pending::enter) {
                return Shared::Awaited(awaited);
            }
            let known = carriers.rooms.iter().find(|(known, _)| *known == lane);
            let room = known.map_or(USUAL_ROOM, |(_, room)| *room);
            let made = Rc::new(Pending {
                lane,
                owner,
                most: room.saturating_sub(1),
                waiting: RefCell::default(),
                next: Cell::new(0),
                state: Cell::new(State::Open),
            });
            carriers.pending.push(made.clone());
            pending = Some(made);
        }
        Shared::Make(Making { group: self.clone(), lane, owner, pending })
    }

    /// A connection for which nobody waits.
    pub(crate) fn make_carrier(self: &Rc<Group>, lane: u32, owner: usize) -> Making {
        Making { group: self.clone(), lane, owner, pending: None }
    }

    /// A carrier has no request: whether it may stay. The one that has been idle for the longest
    /// time leaves when there are too many.
    fn carrier_rests(&self, id: u64, now_ms: u64) -> bool {
        let most = self.keepalive().connections as usize;
        let mut live = self.live();
        if live.retired || most == 0 {
            return false;
        }
        let Some(entry) = live.carriers.entries.iter_mut().find(|entry| entry.id == id) else {
            return false;
        };
        entry.idle_since_ms = Some(now_ms);
        let (idle, longest) = live.carriers.idle();
        if idle + live.pool.len() <= most {
            return true;
        }
        let longest = longest.filter(|longest| longest.id != id);
        let leaves = longest.and_then(|longest| longest.carrier.upgrade());
        // Without any plain ones, the carrier itself is what is too many.
        let stays = leaves.is_some() || live.pool.take_oldest().is_some();
        drop(live);
        if let Some(carrier) = leaves {
            carrier.retire();
        }
        stays
    }
}
