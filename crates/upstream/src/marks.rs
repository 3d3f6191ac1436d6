//! Connections that end with the marks of their peers (HAProxy: `on-marked-down`,
//! `on-marked-up`).
//!
//! A peer is marked in the group's state, by whichever process: the keeper, a worker that answers
//! the API, one that ejects it. Whoever holds connections looks for marks ten times a second for
//! as long as it has any, so that it needs no word from others: all workers end theirs within a
//! tenth of a second, those of an old configuration too. A group without these directives watches
//! nothing.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use balance::{Mark, Marks, PeerIndex, PeerOptions};
use config::{Args, Directive, Invalid, Scope};
use net::Handle;
use session::contexts::{STREAM_UPSTREAM, UPSTREAM};
use session::log::{Level, Log, no_context};

use crate::group::Group;

/// Between two looks at the marks.
const LOOK_MS: u64 = 100;

pub(crate) const DOWN_WORD: &[u8] = b"shutdown_sessions";
pub(crate) const UP_WORD: &[u8] = b"shutdown_backup_sessions";

/// `on_marked_down`.
pub static ON_MARKED_DOWN: Directive<()> =
    Directive::new("on_marked_down", &[UPSTREAM, STREAM_UPSTREAM], |args| word(args, DOWN_WORD))
        .syntax("on_marked_down shutdown_sessions;")
        .text(
            "Ends the connections to a server of the group when it is marked down: by its active \
             checks, through the API, by `outlier_detection`, or because it left the group. \
             Sessions of a `stream` block end on both sides, so that clients come back and find \
             another server. In an `http` block connections to the server are closed, those that \
             were upgraded too; a request that had no answer yet may go to the next server, as \
             `proxy_next_upstream` says. Unless this is said, what is under way goes on. A server \
             that rests after failures is not marked down, nor is one that drains. All workers \
             see marks that are in the group's `zone`. What was closed is logged with the reason. \
             (HAProxy: on-marked-down shutdown-sessions.)",
        )
        .example(
            "upstream db { zone db 64k; server 10.0.0.1:5432; on_marked_down shutdown_sessions; }",
        );

/// `on_marked_up`.
pub static ON_MARKED_UP: Directive<()> =
    Directive::new("on_marked_up", &[UPSTREAM, STREAM_UPSTREAM], |args| word(args, UP_WORD))
        .syntax("on_marked_up shutdown_backup_sessions;")
        .text(
            "Ends the connections to all backup servers of the group when one of the others is up \
             again, so that clients come back to that. (HAProxy: on-marked-up \
             shutdown-backup-sessions.)",
        )
        .example(
            "upstream db {\n    zone db 64k;\n    server 10.0.0.1:5432;\n    \
             server 10.0.0.2:5432 backup;\n    on_marked_up shutdown_backup_sessions;\n}",
        );

fn word(args: &Args<'_>, expected: &[u8]) -> Result<(), Invalid> {
    match args.word(0).bytes() == expected {
        true => Ok(()),
        false => Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(0))).at(0)),
    }
}

/// What marks mean in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Endings {
    /// For every server: see `on_marked_down`.
    down: bool,
    /// For every server: see `on_marked_up`.
    up: bool,
    /// For one of them at least.
    some: bool,
}

impl Endings {
    /// Nothing.
    pub(crate) const NONE: Endings = Endings { down: false, up: false, some: false };

    pub(crate) fn compile(scope: &Scope<'_>) -> Endings {
        let down = scope.has_local(&ON_MARKED_DOWN);
        let up = scope.has_local(&ON_MARKED_UP);
        Endings { down, up, some: down || up }
    }

    /// A server's own options, with what holds for all.
    pub(crate) fn on(&self, options: PeerOptions) -> PeerOptions {
        PeerOptions {
            ends_when_down: options.ends_when_down || self.down,
            ends_backups_when_up: options.ends_backups_when_up || self.up,
            ..options
        }
    }

    /// With what the servers say themselves.
    pub(crate) fn with<'a>(self, mut servers: impl Iterator<Item = &'a PeerOptions>) -> Endings {
        let some = servers.any(|server| server.ends_when_down || server.ends_backups_when_up);
        Endings { some: self.some || some, ..self }
    }

    /// Whether marks end anything.
    pub(crate) fn matter(&self) -> bool {
        self.some
    }
}

/// The connections of a worker to the peers of a group.
#[derive(Default)]
pub(crate) struct Watched {
    entries: RefCell<Vec<Option<Entry>>>,
    free: RefCell<Vec<u32>>,
    /// What the state counted at the last look.
    seen: Cell<u32>,
    is_looking: Cell<bool>,
}

struct Entry {
    peer: PeerIndex,
    /// The counts when it began.
    then: Marks,
    handle: Option<Handle>,
    mark: Option<Mark>,
    waker: Option<Waker>,
}

/// One connection, or what has none but belongs to a peer, under watch until this is dropped.
pub struct Watch {
    watched: Rc<Watched>,
    index: u32,
}

impl Watch {
    /// Ready when it has to end, with the reason.
    pub fn poll_marked(&self, cx: &mut Context<'_>) -> Poll<Mark> {
        let mut entries = self.watched.entries.borrow_mut();
        // The entry is there as long as the watch is.
        let Some(Some(entry)) = entries.get_mut(self.index as usize) else { return Poll::Pending };
        if let Some(mark) = entry.mark {
            return Poll::Ready(mark);
        }
        match &mut entry.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(entry) = self.watched.entries.borrow_mut().get_mut(self.index as usize) {
            *entry = None;
            self.watched.free.borrow_mut().push(self.index);
        }
    }
}

impl Watched {
    fn add(self: &Rc<Watched>, entry: Entry) -> Watch {
        let mut entries = self.entries.borrow_mut();
        let index = match self.free.borrow_mut().pop() {
            Some(index) => index,
            None => {
                entries.push(None);
                (entries.len() - 1) as u32
            }
        };
        entries[index as usize] = Some(entry);
        Watch { watched: self.clone(), index }
    }

    fn is_empty(&self) -> bool {
        self.entries.borrow().len() == self.free.borrow().len()
    }
}

impl Group {
    /// Watches the marks of a peer for a connection that begins. Nothing in a group that does not
    /// ask for it.
    pub(crate) fn watch(
        self: &Rc<Group>,
        peer: PeerIndex,
        handle: Option<Handle>,
    ) -> Option<Watch> {
        let watched = self.watched.as_ref()?;
        let then = self.live().home.marks_of(peer);
        let watch = watched.add(Entry { peer, then, handle, mark: None, waker: None });
        if !watched.is_looking.replace(true) {
            // It may be marked already.
            watched.seen.set(self.live().home.marks(net::now()).wrapping_sub(1));
            let group = Rc::downgrade(self);
            net::spawn(async move {
                loop {
                    net::sleep(LOOK_MS).await;
                    let Some(group) = group.upgrade() else { return };
                    if !group.end_marked() {
                        return;
                    }
                }
            });
        } else if self.live().home.is_marked_since(peer, then) {
            watched.seen.set(watched.seen.get().wrapping_sub(1));
        }
        Some(watch)
    }

    /// Ends the connections that marks concern. False when there are no more connections.
    fn end_marked(&self) -> bool {
        let Some(watched) = &self.watched else { return false };
        if watched.is_empty() {
            watched.is_looking.set(false);
            return false;
        }
        let marks = self.live().home.marks(net::now());
        if watched.seen.replace(marks) == marks {
            return true;
        }
        let mut ended: BTreeMap<PeerIndex, (Mark, usize)> = BTreeMap::new();
        let mut wakers = Vec::new();
        self.live().home.look(|state| {
            for entry in watched.entries.borrow_mut().iter_mut().flatten() {
                let mark = state.mark_since(entry.peer, entry.then);
                let (Some(mark), None) = (mark, entry.mark) else { continue };
                entry.mark = Some(mark);
                ended.entry(entry.peer).or_insert((mark, 0)).1 += 1;
                wakers.extend(entry.waker.take());
                if let Some(handle) = entry.handle {
                    handle.shut_down();
                }
            }
        });
        wakers.into_iter().for_each(Waker::wake);
        for (peer, (mark, count)) in ended {
            self.tell_ended(peer, mark, count);
        }
        true
    }

    fn tell_ended(&self, peer: PeerIndex, mark: Mark, count: usize) {
        let (peer, group, reason) = (self.peer(peer), self.name(), reason(mark));
        let message = format_args!(
            "upstream server {} of \"{group}\" {reason}: {count} connections to it are closed",
            peer.name
        );
        Log::process().write(Level::Warn, None, message, &no_context);
    }
}

/// What the log says of a mark, after the server.
pub fn reason(mark: Mark) -> &'static str {
    match mark {
        Mark::Stopped => "was taken down",
        Mark::Left => "left the group",
        Mark::Ill => "failed its checks",
        Mark::Ejected => "is ejected",
        Mark::Passed => "was down",
        Mark::PrimaryUp => "is a backup, and another server is up again",
    }
}
