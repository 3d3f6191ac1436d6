//! Who is in a group: what its zone says, and how that follows the configuration, DNS and the API.
//!
//! A group without a zone has the members of its configuration for as long as a worker lives. In
//! a zone members come and go under the lock of the state; every process that looks sees another
//! generation there, reads the records again, and drops its idle connections to those who left.
//!
//! A zone outlives a reload. The new configuration settles into it: members with the same name
//! and address keep their places, with their loads, failures and statistics; others leave or
//! come. Workers of the old configuration see the same members from then on.

use std::cell::Cell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use balance::{Memory, PeerIndex, PeerOptions, State, Tier};
use session::log::{Level, Log, no_context};
use session::zones::{Kind, NamedZone, Zones};
use system::shared::Zone;
use system::socket::Address;

use crate::group::{Group, Live, Member, Peer, Roster, with_lanes};
use crate::home::{Class, Home, Shared};
use crate::names::{Found, NameLine};
use crate::records::{Origin, Record};
use crate::timeline::What;

/// What a zone of a group is.
static KIND: Kind =
    Kind { directive: "zone", title: "upstream zone", prepare: |_| Ok(()), migrate: None };

/// Where a group's state lies: memory for the balancing, and for who the peers are.
#[derive(Debug)]
pub(crate) struct ZonePlace {
    name: Box<str>,
    class: Class,
    memory: ZoneMemory,
}

enum ZoneMemory {
    /// Kept over reloads by name.
    Named { state: Rc<NamedZone>, book: Rc<NamedZone> },
    /// This group's alone.
    Private { state: Arc<Zone>, book: Arc<Zone> },
}

impl std::fmt::Debug for ZoneMemory {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            ZoneMemory::Named { .. } => "named",
            ZoneMemory::Private { .. } => "private",
        })
    }
}

impl ZonePlace {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

pub(crate) fn options(members: &[Member]) -> Vec<PeerOptions> {
    members.iter().map(|member| member.options).collect()
}

impl Group {
    /// Moves the state to memory of its own, which all processes forked from now on share.
    ///
    /// # Errors
    /// What to tell the user.
    pub fn share(&self, zone: &str) -> Result<(), String> {
        let class = self.class(zone, 0)?;
        let map = |length: usize| {
            let mapped = Zone::new(length);
            mapped.map(Arc::new).map_err(|error| format!("mmap() of {length} bytes: {error}"))
        };
        let memory = ZoneMemory::Private {
            state: map(class.state_bytes())?,
            book: map(class.book_bytes())?,
        };
        // A group is shared once.
        let _ = self.zone.set(ZonePlace { name: zone.into(), class, memory });
        self.open();
        Ok(())
    }

    /// Asks for memory that is kept over reloads for a group of that name; [`Group::open`] moves
    /// the state there. `engine` tells apart groups of the same name.
    ///
    /// # Errors
    /// What to tell the user.
    pub(crate) fn declare(
        &self,
        zones: &Zones,
        engine: &str,
        zone: &str,
        size: u64,
    ) -> Result<(), String> {
        let class = self.class(zone, size)?;
        // No zone that a user names holds a zero.
        let named = |part: &str, bytes| {
            zones.declare(&format!("{zone}\0{engine}\0{}\0{part}", self.name()), bytes, &KIND)
        };
        let state = named("state", class.state_bytes())?;
        let book = named("book", class.book_bytes())?;
        let memory = ZoneMemory::Named { state, book };
        let _ = self.zone.set(ZonePlace { name: zone.into(), class, memory });
        Ok(())
    }

    fn class(&self, zone: &str, size: u64) -> Result<Class, String> {
        let peers = self.wanted.iter().map(|members| members.len()).sum();
        Class::of(peers, size).ok_or_else(|| format!("zone \"{zone}\" is too small"))
    }

    /// Moves the state to its zone, whose memory is there now, and settles into what the zone
    /// holds. For the master, before it forks.
    pub fn open(&self) {
        let Some(ZonePlace { name, class, memory }) = self.zone.get() else { return };
        let (state, book) = match memory {
            ZoneMemory::Private { state, book } => (state, book),
            ZoneMemory::Named { state, book } => match (state.memory(), book.memory()) {
                (Some(state), Some(book)) => (state, book),
                _ => return,
            },
        };
        let is_fresh = Cell::new(false);
        let mut fresh = || {
            is_fresh.set(true);
            self.memory(class.room())
        };
        let Some(shared) = Shared::attach(name, *class, state, book, &mut fresh) else { return };
        match is_fresh.get() {
            true => self.enrol(&shared),
            false => self.settle(&shared),
        }
        self.live().home = Home::Zone(shared);
        self.refresh();
    }

    /// A state with the configured members, and with room for others.
    fn memory(&self, room: usize) -> Memory {
        let [primaries, backups] = [options(&self.wanted[0]), options(&self.wanted[1])];
        let free = room - primaries.len() - backups.len();
        let room = [primaries.len() + free - free / 4, backups.len() + free / 4];
        let method = self.choice().method;
        let mut memory = Memory::with_room(method, &primaries, &backups, room);
        self.choice().apply(&mut memory.state());
        memory
    }

    /// Writes the records of a state that was just made.
    fn enrol(&self, shared: &Shared) {
        shared.with(|state| {
            let places = (0..state.places()).filter(|place| state.is_taken(*place));
            for (place, member) in places.zip(self.wanted.iter().flatten()) {
                write(shared, place, member, Origin::Configured, 0);
            }
        });
    }

    /// Brings the members of a zone in line with this configuration.
    fn settle(&self, shared: &Shared) {
        shared.with(|state| {
            state.set_method(self.choice().method);
            self.choice().apply(state);
            let mut present = Present::read(shared, state);
            let (mut newcomers, mut leavers) = (Vec::new(), Vec::new());
            for (tier, members) in [Tier::Primary, Tier::Backup].into_iter().zip(&self.wanted) {
                for member in members {
                    match present.take(tier, member) {
                        Some((place, record)) => stay(shared, state, place, record, member),
                        None => newcomers.push((tier, member)),
                    }
                }
            }
            for (place, record) in present.left {
                let line = self.names.get().and_then(|names| names.line(record.line));
                match (record.origin, line) {
                    (Origin::Added, _) => {}
                    (Origin::Resolved, Some(line)) => {
                        let weight = line.weight_of(state.weight(place));
                        state.reconfigure(place, &PeerOptions { weight, ..line.options });
                    }
                    _ => leavers.push(place),
                }
            }
            dismiss(shared, state, &leavers);
            self.admit(shared, state, &newcomers, Origin::Configured, 0);
        });
    }

    /// Takes members in; the places they got.
    pub(crate) fn admit(
        &self,
        shared: &Shared,
        state: &mut State<'_>,
        members: &[(Tier, &Member)],
        origin: Origin,
        line: u64,
    ) -> Vec<PeerIndex> {
        let options = members.iter().map(|(tier, member)| (*tier, member.options));
        let places = state.admit_each(options);
        let mut taken = Vec::new();
        for (place, (_, member)) in places.into_iter().zip(members) {
            let Some(place) = place else {
                let name = self.name();
                let message =
                    format_args!("cannot add new server to upstream \"{name}\", memory exhausted");
                Log::process().write(Level::Error, None, message, &no_context);
                continue;
            };
            shared.book.forget(place);
            shared.book.forget_events(place);
            let source = match origin {
                Origin::Configured => "by the configuration",
                Origin::Resolved => "its name was resolved",
                Origin::Added => "by the API",
            };
            shared.book.note(place, What::Added, source);
            write(shared, place, member, origin, line);
            taken.push(place);
        }
        taken
    }

    /// Lets the members of a line be those that its name has now.
    pub(crate) fn update(&self, line: &NameLine, mut found: Vec<Found>) {
        {
            let live = self.live();
            let Some(shared) = live.home.shared() else { return };
            shared.with(|state| {
                let mut leavers = Vec::new();
                for place in 0..state.places() {
                    let Some(record) = shared.book.read(place) else { continue };
                    if record.origin != Origin::Resolved || record.line != line.hash {
                        continue;
                    }
                    let tier = state.tier(place);
                    let weight = state.weight(place);
                    let same = found.iter().position(|found| {
                        found.tier == tier
                            && found.member.address == record.address
                            && found.member.server == record.server
                            && (record.is_changed || found.member.options.weight == weight)
                    });
                    match same {
                        Some(at) => drop(found.remove(at)),
                        None => leavers.push(place),
                    }
                }
                dismiss(shared, state, &leavers);
                let newcomers: Vec<_> =
                    found.iter().map(|Found { tier, member }| (*tier, member)).collect();
                self.admit(shared, state, &newcomers, Origin::Resolved, line.hash);
            });
        }
        self.refresh();
    }

    /// Looks whether the members changed, and takes note.
    pub fn refresh(&self) {
        let live = &mut *self.live();
        if let Some(shared) = live.home.shared() {
            shared.with(|_| {});
            self.refresh_after(live);
        }
    }

    /// Takes note of a change of the members that the last look at the state saw.
    #[inline]
    pub(crate) fn refresh_after(&self, live: &mut Live) {
        if let Some(seen) = live.home.seen()
            && self.roster.borrow().generation != seen
        {
            self.read_members(live);
        }
    }

    fn read_members(&self, live: &mut Live) {
        let Some(shared) = live.home.shared() else { return };
        let old = std::mem::take(&mut *self.roster.borrow_mut());
        let (generation, peers) = shared.with(|state| {
            let last = (0..state.places()).rev().find(|place| state.is_taken(*place));
            let count = last.map_or(0, |last| last + 1).max(old.peers.len() as PeerIndex);
            let peer = |place| {
                let known = old.peers.get(place as usize);
                let version = shared.book.version(place).filter(|_| state.is_taken(place));
                match known {
                    Some(known) if version == Some(known.version) && !known.is_gone => {
                        known.clone()
                    }
                    _ => known_as(version.and_then(|_| shared.book.read(place)), known, place),
                }
            };
            (state.generation(), (0..count).map(peer).collect::<Vec<_>>())
        });
        let peers = with_lanes(peers);
        for (lane, peer) in (0..).zip(&old.peers) {
            let same = &peers[lane as usize];
            if same.is_gone || same.lane != lane || same.address != peer.address {
                while live.pool.take(lane, |_| true).is_some() {}
            }
        }
        live.pool.widen(peers.len());
        *self.roster.borrow_mut() = Roster { generation, peers };
    }
}

/// The peer of a place that is not as it was known.
fn known_as(record: Option<Record>, old: Option<&Rc<Peer>>, place: PeerIndex) -> Rc<Peer> {
    match (record, old) {
        (Some(record), _) => Rc::new(Peer {
            name: record.address.to_string().into(),
            server: record.server,
            route: record.route,
            address: record.address,
            id: record.id,
            is_gone: false,
            lane: place,
            version: record.version,
        }),
        (None, Some(old)) if old.is_gone => old.clone(),
        (None, Some(old)) => Rc::new(Peer { is_gone: true, ..(**old).clone() }),
        (None, None) => Rc::new(Peer::nobody()),
    }
}

/// The members that a zone holds, while a configuration settles into it.
struct Present {
    /// Configured ones by what makes them the same.
    configured: HashMap<(bool, Address, Box<str>), Vec<PeerIndex>>,
    left: HashMap<PeerIndex, Record>,
}

impl Present {
    fn read(shared: &Shared, state: &State<'_>) -> Present {
        let mut present = Present { configured: HashMap::new(), left: HashMap::new() };
        for place in (0..state.places()).rev() {
            let Some(record) = shared.book.read(place) else { continue };
            if record.origin == Origin::Configured {
                let is_backup = state.tier(place) == Tier::Backup;
                let key = (is_backup, record.address.clone(), record.server.clone());
                present.configured.entry(key).or_default().push(place);
            }
            present.left.insert(place, record);
        }
        present
    }

    fn take(&mut self, tier: Tier, member: &Member) -> Option<(PeerIndex, Record)> {
        let key = (tier == Tier::Backup, member.address.clone(), member.server.clone());
        let place = self.configured.get_mut(&key)?.pop()?;
        self.left.remove(&place).map(|record| (place, record))
    }
}

/// A member stays; what the API said of it holds on.
fn stay(shared: &Shared, state: &mut State<'_>, place: PeerIndex, record: Record, member: &Member) {
    if !record.is_changed {
        state.reconfigure(place, &member.options);
    }
    if record.route != member.route {
        shared.book.write(place, Record { route: member.route.clone(), ..record });
        state.touch();
    }
}

pub(crate) fn dismiss(shared: &Shared, state: &mut State<'_>, places: &[PeerIndex]) {
    state.dismiss_each(places.iter().copied());
    places.iter().for_each(|place| shared.book.clear(*place));
}

fn write(shared: &Shared, place: PeerIndex, member: &Member, origin: Origin, line: u64) {
    let record = Record {
        origin,
        id: shared.book.next_id(),
        version: 0,
        is_changed: false,
        line,
        address: member.address.clone(),
        server: member.server.clone(),
        route: member.route.clone(),
    };
    shared.book.write(place, record);
}
