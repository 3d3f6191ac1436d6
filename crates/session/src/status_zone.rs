//! `status_zone`: what the requests of a server or a location come to (NGINX Plus:
//! ngx_http_api_module, ngx_stream_api_module).
//!
//! A zone is a row of counts for each worker, in memory that all share; who asks adds them up. It
//! outlives reloads by its name. Servers of one name share a zone.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::atomic::{AtomicU64, Ordering};

use config::{Directive, Scope, read};
use system::shared::View;

use crate::contexts::{LOCATION, SERVER, STREAM_SERVER};
use crate::counters;
use crate::lifecycle::Lifecycle;
use crate::zones::{Kind, NamedZone, Zones};

/// `status_zone`.
pub static STATUS_ZONE: Directive<String> =
    Directive::new("status_zone", &[SERVER, LOCATION, STREAM_SERVER], read::text)
        .syntax("status_zone NAME;")
        .text(
            "Counts what comes to a server, or to a location, under NAME, over all workers: how \
             many requests or sessions, how many of them under way, by the class of their status, \
             and the bytes that were received and sent. Servers with the same NAME are counted \
             together. The `api` has the counts as `http/server_zones`, `http/location_zones` and \
             `stream/server_zones`, `prometheus` has them too. A nested location counts for the \
             zone of the one around it unless it has its own.",
        )
        .example("server {\n    listen 127.0.0.1:80;\n    status_zone site;\n}");

/// What a zone is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Servers of http.
    Server,
    /// Locations.
    Location,
    /// Servers of stream.
    StreamServer,
}

/// Workers that are counted apart; further ones share the last row.
const ROWS: usize = 129;

system::plain! {
    struct Head {
        unused: AtomicU64,
    }

    /// What one worker counted: two lines of the processor's cache.
    struct Row {
        /// Under way.
        processing: AtomicU64,
        /// Requests or connections.
        begun: AtomicU64,
        /// Ended, by the class of the status from 1xx on.
        ended: [AtomicU64; 5],
        /// Ended without an answer, or before a session was made.
        discarded: AtomicU64,
        received: AtomicU64,
        sent: AtomicU64,
        unused: [u64; 6],
    }
}

static KIND: Kind =
    Kind { directive: "status_zone", title: "status_zone", prepare: |_| Ok(()), migrate: None };

/// The counts of a zone, over all workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sums {
    /// Under way.
    pub processing: u64,
    /// Requests or connections.
    pub begun: u64,
    /// Ended, by the class of the status from 1xx on.
    pub ended: [u64; 5],
    /// Ended without an answer, or before a session was made.
    pub discarded: u64,
    /// Bytes.
    pub received: u64,
    /// Bytes.
    pub sent: u64,
}

/// How a request or a session ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Its status; `None` when there was no answer.
    pub status: Option<u16>,
    /// Bytes.
    pub received: u64,
    /// Bytes.
    pub sent: u64,
}

/// One zone.
pub struct StatusZone {
    name: Box<str>,
    memory: Rc<NamedZone>,
    view: OnceCell<Option<View<Head, Row>>>,
    /// This process's row, once it counted.
    row: Cell<Option<usize>>,
}

impl StatusZone {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn rows(&self) -> &[Row] {
        let open = || self.memory.memory()?.view::<Head, Row>().ok();
        self.view.get_or_init(open).as_ref().map_or(&[], |view| view.cells())
    }

    fn own(&self) -> Option<&Row> {
        let rows = self.rows();
        let at = self.row.get().unwrap_or_else(|| {
            let at = counters::row().unwrap_or(ROWS).min(ROWS - 1);
            // What the one who had the row before had under way is over.
            if let Some(row) = rows.get(at).filter(|_| at < ROWS - 1) {
                row.processing.store(0, Ordering::Relaxed);
            }
            self.row.set(Some(at));
            at
        });
        rows.get(at)
    }

    /// Something begins that is under way until the result is dropped.
    pub fn begin(self: &Rc<StatusZone>) -> UnderWay {
        if let Some(row) = self.own() {
            row.processing.fetch_add(1, Ordering::Relaxed);
        }
        UnderWay(self.clone())
    }

    /// Something ended.
    pub fn end(&self, ended: Ended) {
        let Some(row) = self.own() else { return };
        let add = |cell: &AtomicU64, by: u64| {
            cell.fetch_add(by, Ordering::Relaxed);
        };
        add(&row.begun, 1);
        match ended.status {
            Some(status) => add(&row.ended[usize::from(status / 100).clamp(1, 5) - 1], 1),
            None => add(&row.discarded, 1),
        }
        add(&row.received, ended.received);
        add(&row.sent, ended.sent);
    }

    /// The sums at this moment.
    pub fn sums(&self) -> Sums {
        let dead = counters::dead_rows().unwrap_or_default();
        let mut sums = Sums::default();
        for (at, row) in self.rows().iter().enumerate().take(ROWS) {
            let read = |cell: &AtomicU64| cell.load(Ordering::Relaxed);
            if !dead.contains(&at) {
                sums.processing += read(&row.processing);
            }
            sums.begun += read(&row.begun);
            sums.ended.iter_mut().zip(&row.ended).for_each(|(sum, cell)| *sum += read(cell));
            sums.discarded += read(&row.discarded);
            sums.received += read(&row.received);
            sums.sent += read(&row.sent);
        }
        // What is under way has begun, though it is counted when it ends.
        sums.begun += sums.processing;
        sums
    }

    /// Forgets what was counted.
    pub fn forget(&self) {
        for row in self.rows() {
            let counts = [&row.begun, &row.discarded, &row.received, &row.sent];
            let counts = counts.into_iter().chain(&row.ended);
            counts.for_each(|cell| cell.store(0, Ordering::Relaxed));
        }
    }
}

/// Something that is under way.
pub struct UnderWay(Rc<StatusZone>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        if let Some(row) = self.0.own() {
            let less = |now: u64| now.checked_sub(1);
            let _ = row.processing.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
        }
    }
}

/// The zones of one engine of a configuration, while it is compiled and as long as it serves.
#[derive(Clone, Default)]
pub struct StatusZones(Rc<RefCell<List>>);

type List = Vec<(Subject, Rc<StatusZone>)>;

impl StatusZones {
    /// The zone that `scope` names, of a server or a location; faults go to its sink.
    pub fn compile(
        &self,
        subject: Subject,
        scope: &Scope<'_>,
        zones: &Zones,
    ) -> Option<Rc<StatusZone>> {
        let (name, span) = scope.local_spanned(&STATUS_ZONE)?;
        let mut list = self.0.borrow_mut();
        let known = list.iter().find(|(of, zone)| *of == subject && *zone.name == *name);
        if let Some((_, zone)) = known {
            return Some(zone.clone());
        }
        // No zone that a user names holds a zero.
        let key = format!("status_zone\0{subject:?}\0{name}");
        let bytes = ROWS * size_of::<Row>() + size_of::<Head>() + 256;
        let memory = match zones.declare(&key, bytes, &KIND) {
            Ok(memory) => memory,
            Err(reason) => {
                scope.error(span, reason);
                return None;
            }
        };
        let (view, row) = (OnceCell::new(), Cell::new(None));
        let zone = Rc::new(StatusZone { name: name.into(), memory, view, row });
        list.push((subject, zone.clone()));
        Some(zone)
    }
}

impl Lifecycle for StatusZones {
    fn worker_began(&self, _: usize) {
        let list = self.0.borrow();
        KNOWN.with_borrow_mut(|known| {
            known.extend(list.iter().map(|(subject, zone)| (*subject, Rc::downgrade(zone))));
        });
    }

    fn worker_ends(&self) {}

    fn worker_died(&self, _: usize) {}
}

thread_local! {
    /// The zones of this worker.
    static KNOWN: RefCell<Vec<(Subject, Weak<StatusZone>)>> = const { RefCell::new(Vec::new()) };
}

/// The zones of this worker about such subjects, by name.
pub fn zones(subject: Subject) -> Vec<Rc<StatusZone>> {
    let mut found: Vec<Rc<StatusZone>> = KNOWN.with_borrow(|known| {
        let such = known.iter().filter(|(of, _)| *of == subject);
        such.filter_map(|(_, zone)| zone.upgrade()).collect()
    });
    found.sort_by(|one, other| one.name.cmp(&other.name));
    found
}
