//! `sticky learn`: sessions of the application, learned from its answers, in a zone.
//!
//! A session is known by the MD5 hash of its name, so that each takes one cell of the zone. With
//! it stand the hash of the route of its server, and when it was last answered. The least
//! recently used sessions go first: when their time is over, or when the zone is full.

use std::cell::OnceCell;
use std::rc::Rc;

use config::{Args, Invalid, Template as Source, read};
use http::Compiler;
use md5::{Digest, Md5};
use session::log::{Level, Log, no_context};
use session::table::{Entries, Table};
use session::variables::Template;
use session::zones::{Kind, NamedZone};

use super::{unknown, variable, wrong};

/// What `sticky learn` says.
#[derive(Clone, Debug, Default)]
pub struct LearnLine {
    pub(super) lookup: Vec<Source>,
    create: Vec<Source>,
    zone: Option<(String, usize)>,
    timeout_ms: Option<u64>,
    header: bool,
}

/// How long a session is remembered unless the configuration says so.
const TIMEOUT_MS: u64 = 600_000;

/// nginx wants eight pages.
const LEAST: u64 = 8 * 4096;

/// So many sessions whose time is over are removed with each new one.
const EXPIRED_AT_ONCE: usize = 4;

/// Values of an entry.
const ROUTE: usize = 0;
const LAST_MS: usize = 1;

static KIND: Kind =
    Kind { directive: "sticky", title: "sticky zone", prepare: Table::prepare, migrate: None };

/// Reads the words behind `learn`.
pub(super) fn read(args: &Args<'_>) -> Result<LearnLine, Invalid> {
    let mut line = LearnLine::default();
    for i in 1..args.len() {
        let word = args.word(i).bytes();
        let one = |from: usize, name: &str| {
            if word.get(from) != Some(&b'$') {
                let what = format!("missing variable in the \"{name}\" parameter");
                return Err(wrong(args, i, &what));
            }
            variable(args, i, &word[from..])
        };
        if word.starts_with(b"zone=") {
            if line.zone.is_some() {
                return Err(wrong(args, i, "duplicate zone"));
            }
            line.zone = Some(read_zone(args, i)?);
        } else if let Some(value) = word.strip_prefix(b"timeout=") {
            if line.timeout_ms.is_some() {
                return Err(wrong(args, i, "duplicate timeout"));
            }
            let time = read::parse_time_ms(value).filter(|time| *time > 0);
            line.timeout_ms = Some(time.ok_or_else(|| wrong(args, i, "invalid timeout"))?);
        } else if word.starts_with(b"create=") {
            line.create.push(one(7, "create")?);
        } else if word.starts_with(b"lookup=") {
            line.lookup.push(one(7, "lookup")?);
        } else if word == b"header" {
            line.header = true;
        } else {
            return Err(unknown(args, i));
        }
    }
    let missing = [
        (line.lookup.is_empty(), "lookup"),
        (line.create.is_empty(), "create"),
        (line.zone.is_none(), "zone"),
    ];
    match missing.iter().find(|(missing, _)| *missing) {
        Some((_, name)) => Err(wrong(args, 0, &format!("\"{name}\" parameter is not specified"))),
        None => Ok(line),
    }
}

fn read_zone(args: &Args<'_>, i: usize) -> Result<(String, usize), Invalid> {
    let word = args.str(i);
    let value = word.strip_prefix("zone=").unwrap_or_default();
    let (name, size) =
        value.split_once(':').ok_or_else(|| wrong(args, i, "zone size is not specified"))?;
    if name.is_empty() {
        return Err(wrong(args, i, "zone name is not specified"));
    }
    let size = read::parse_size(size.as_bytes()).and_then(|size| usize::try_from(size).ok());
    match size {
        None => Err(wrong(args, i, "invalid zone size")),
        Some(size) if (size as u64) < LEAST => Err(wrong(args, i, "zone is too small")),
        Some(size) => Ok((name.to_owned(), size)),
    }
}

/// The sessions of one group.
pub(super) struct Learn {
    pub(super) create: Vec<Template>,
    pub(super) header: bool,
    zone: Rc<NamedZone>,
    table: OnceCell<Table>,
    timeout_ms: u64,
}

/// What a session is known by.
pub(super) type Session = [u8; 16];

/// The session of that name.
pub(super) fn session(name: &[u8]) -> Session {
    Md5::digest(name).into()
}

impl Learn {
    /// Declares the zone for `group`.
    pub(super) fn compile(
        c: &mut Compiler<'_>,
        line: LearnLine,
        group: &str,
    ) -> Result<Rc<Learn>, String> {
        let (name, size) = line.zone.unwrap_or_default();
        let zone = c.zones.declare(&name, size, &KIND)?;
        if !zone.key().is_empty() {
            let other = zone.key();
            return Err(format!("sticky zone \"{name}\" is already used in upstream \"{other}\""));
        }
        zone.bind(group)?;
        Ok(Rc::new(Learn {
            create: line.create.iter().map(|source| c.template(source)).collect(),
            header: line.header,
            zone,
            table: OnceCell::new(),
            timeout_ms: line.timeout_ms.unwrap_or(TIMEOUT_MS),
        }))
    }

    /// The hash by which a route stands in the zone.
    pub(super) fn hash_of(&self, route: &str) -> Option<u64> {
        Some(self.table()?.hash(route.as_bytes()))
    }

    /// The hash of the route of a session's server.
    pub(super) fn find(&self, name: &[u8]) -> Option<u64> {
        let session = session(name);
        let table = self.table()?;
        let hash = table.hash(&session);
        let mut entries = table.lock(hash, self.zone.name());
        let at = entries.find(hash, &session)?;
        if self.is_over(&entries, at, wall_ms()) {
            entries.remove(at);
            return None;
        }
        Some(entries.value(at, ROUTE))
    }

    /// A server has answered in a session. One that is not known is made when `create` says so.
    pub(super) fn remember(&self, session: Session, route: &str, create: bool) {
        let Some(table) = self.table() else { return };
        let hash = table.hash(&session);
        let route = table.hash(route.as_bytes());
        let now_ms = wall_ms();
        let mut entries = table.lock(hash, self.zone.name());
        let at = match entries.find(hash, &session) {
            Some(at) => {
                entries.touch(at);
                at
            }
            None if create => {
                self.expire(&mut entries, now_ms);
                let Some(at) = self.insert(&mut entries, hash, &session) else { return };
                at
            }
            None => return,
        };
        entries.set_value(at, ROUTE, route);
        entries.set_value(at, LAST_MS, now_ms);
    }

    fn insert(&self, entries: &mut Entries<'_>, hash: u64, session: &Session) -> Option<u32> {
        if let Some(at) = entries.insert(hash, session) {
            return Some(at);
        }
        let zone = self.zone.name();
        let message = format_args!(
            "could not allocate node in sticky session zone \"{zone}\", expiring least recently \
             used session"
        );
        Log::process().write(Level::Warn, None, message, &no_context);
        if let Some(oldest) = entries.oldest() {
            entries.remove(oldest);
        }
        let at = entries.insert(hash, session);
        if at.is_none() {
            let message = format_args!("could not allocate node in sticky session zone \"{zone}\"");
            Log::process().write(Level::Alert, None, message, &no_context);
        }
        at
    }

    fn expire(&self, entries: &mut Entries<'_>, now_ms: u64) {
        for _ in 0..EXPIRED_AT_ONCE {
            match entries.oldest() {
                Some(oldest) if self.is_over(entries, oldest, now_ms) => entries.remove(oldest),
                _ => return,
            }
        }
    }

    fn is_over(&self, entries: &Entries<'_>, at: u32, now_ms: u64) -> bool {
        now_ms.saturating_sub(entries.value(at, LAST_MS)) >= self.timeout_ms
    }

    fn table(&self) -> Option<&Table> {
        if self.table.get().is_none() {
            let table = Table::new(self.zone.memory()?).ok()?;
            let _ = self.table.set(table);
        }
        self.table.get()
    }
}

fn wall_ms() -> u64 {
    let (seconds, ms) = net::wall();
    seconds * 1000 + u64::from(ms)
}

#[cfg(test)]
mod tests {
    #[test]
    fn words_of_learning() {
        let check = |arguments: &str, expected: &str| {
            let found = super::super::STICKY.read_text(&format!("learn {arguments}"));
            let found = found.map(|_| ()).map_err(|invalid| invalid.message);
            assert_eq!(found, Err(expected.to_owned()), "{arguments}");
        };
        let directive = |what: &str| format!("\"sticky\" directive {what}");
        check("lookup=$a create=$a", &directive("\"zone\" parameter is not specified"));
        check("lookup=$a zone=z:1m", &directive("\"create\" parameter is not specified"));
        check("create=$a zone=z:1m", &directive("\"lookup\" parameter is not specified"));
        check("create=a", &directive("missing variable in the \"create\" parameter"));
        check("zone=z", &directive("zone size is not specified"));
        check("zone=:1m", &directive("zone name is not specified"));
        check("zone=z:x", &directive("invalid zone size"));
        check("zone=z:4k", &directive("zone is too small"));
        check("zone=z:1m zone=z:1m", &directive("duplicate zone"));
        check("timeout=0", &directive("invalid timeout"));
        check("timeout=1s timeout=1s", &directive("duplicate timeout"));
        check("sync", "unknown parameter \"sync\"");
    }
}
