//! The named zones of a configuration: shared memory that survives a reload by name.
//!
//! While compiling, features declare zones and refer to them; nothing is mapped. When the
//! configuration is put to use, [`Zones::open`] takes over the memory of zones that the present
//! configuration has under the same name, and maps the rest. A zone of another size is mapped
//! anew, and its feature may move over what the old one held.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use config::{Args, Invalid, read};
use system::shared::{Zone, ZoneError};

/// Moves what the old memory of a zone holds to the new one.
pub type Migrate = fn(old: &Arc<Zone>, new: &Arc<Zone>);

/// What a zone is for. One static per feature.
pub struct Kind {
    /// The directive that declares such zones: `limit_req_zone`.
    pub directive: &'static str,
    /// What messages about a changed key begin with.
    pub title: &'static str,
    /// Makes fresh memory ready, in the master and before there are workers.
    pub prepare: fn(&Arc<Zone>) -> Result<(), ZoneError>,
    /// Moves what the old memory holds to the new one.
    pub migrate: Option<Migrate>,
}

/// One zone of a configuration.
pub struct NamedZone {
    name: Box<str>,
    kind: &'static Kind,
    /// Bytes; 0 until a directive declares the zone.
    size: Cell<usize>,
    /// What the entries are sorted by, as written.
    key: OnceCell<Box<str>>,
    memory: OnceCell<Arc<Zone>>,
}

impl NamedZone {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the entries are sorted by, as written.
    pub fn key(&self) -> &str {
        self.key.get().map_or("", |key| key)
    }

    /// Its memory, once the configuration was put to use.
    pub fn memory(&self) -> Option<&Arc<Zone>> {
        self.memory.get()
    }

    /// Says what the entries are sorted by.
    ///
    /// # Errors
    /// nginx's words, when that was said before.
    pub fn bind(&self, key: &str) -> Result<(), String> {
        self.key.set(key.into()).map_err(|_| {
            let (directive, name, bound) = (self.kind.directive, self.name(), self.key());
            format!("{directive} \"{name}\" is already bound to key \"{bound}\"")
        })
    }
}

/// All zones of a configuration.
#[derive(Default)]
pub struct Zones {
    list: RefCell<Vec<Rc<NamedZone>>>,
}

impl Zones {
    /// The zone of that name; `size` is 0 where the directive only refers to it.
    ///
    /// # Errors
    /// nginx's words, when the name has another use or another size.
    pub fn declare(
        &self,
        name: &str,
        size: usize,
        kind: &'static Kind,
    ) -> Result<Rc<NamedZone>, String> {
        let mut list = self.list.borrow_mut();
        let Some(zone) = list.iter().find(|zone| zone.name() == name) else {
            let zone = Rc::new(NamedZone {
                name: name.into(),
                kind,
                size: Cell::new(size),
                key: OnceCell::new(),
                memory: OnceCell::new(),
            });
            list.push(zone.clone());
            return Ok(zone);
        };
        if !std::ptr::eq(zone.kind, kind) {
            return Err(format!(
                "the shared memory zone \"{name}\" is already declared for a different use"
            ));
        }
        match (zone.size.get(), size) {
            (0, size) => zone.size.set(size),
            (_, 0) => {}
            (declared, size) if declared != size => {
                return Err(format!(
                    "the size {size} of shared memory zone \"{name}\" conflicts with already \
                     declared size {declared}"
                ));
            }
            _ => {}
        }
        Ok(zone.clone())
    }

    /// Those that a directive declares.
    pub fn declared_by(&self, directive: &str) -> Vec<Rc<NamedZone>> {
        let list = self.list.borrow();
        list.iter().filter(|zone| zone.kind.directive == directive).cloned().collect()
    }

    /// What is wrong now that all was read: zones that nobody declared.
    pub fn faults(&self) -> Vec<String> {
        let list = self.list.borrow();
        let missing = list.iter().filter(|zone| zone.size.get() == 0);
        missing.map(|zone| format!("zero size shared memory zone \"{}\"", zone.name)).collect()
    }

    /// Gives every zone its memory, which is that of `present` where it has the same zone.
    ///
    /// # Errors
    /// What to log: the system has no such memory, or a zone's key changed.
    pub fn open(&self, present: Option<&Zones>) -> Result<(), String> {
        for zone in self.list.borrow().iter().filter(|zone| zone.memory().is_none()) {
            let memory = match present.and_then(|present| present.same(zone)) {
                Some(old) => inherit(zone, &old)?,
                None => map(zone)?,
            };
            // It was empty a moment ago, and nothing here runs twice.
            let _ = zone.memory.set(memory);
        }
        Ok(())
    }

    fn same(&self, zone: &NamedZone) -> Option<Rc<NamedZone>> {
        let list = self.list.borrow();
        let same =
            |old: &&Rc<NamedZone>| old.name() == zone.name() && std::ptr::eq(old.kind, zone.kind);
        list.iter().find(same).cloned()
    }
}

/// The memory of a zone that the present configuration has under this name.
fn inherit(zone: &NamedZone, old: &NamedZone) -> Result<Arc<Zone>, String> {
    let Some(memory) = old.memory() else { return map(zone) };
    let same_key = zone.key() == old.key();
    if zone.size.get() == old.size.get() {
        if !same_key {
            let (title, name, key, previous) =
                (zone.kind.title, zone.name(), zone.key(), old.key());
            return Err(format!(
                "{title} \"{name}\" uses the \"{key}\" key while previously it used the \
                 \"{previous}\" key"
            ));
        }
        return Ok(memory.clone());
    }
    let new = map(zone)?;
    if same_key && let Some(migrate) = zone.kind.migrate {
        migrate(memory, &new);
    }
    Ok(new)
}

fn map(zone: &NamedZone) -> Result<Arc<Zone>, String> {
    let size = zone.size.get();
    let memory = Zone::new(size).map_err(|error| {
        let errno = system::errno::Errno::from(&error);
        format!("mmap(MAP_ANON|MAP_SHARED, {size}) failed ({errno})")
    })?;
    let memory = Arc::new(memory);
    (zone.kind.prepare)(&memory).map_err(|error| format!("zone \"{}\": {error}", zone.name))?;
    Ok(memory)
}

/// A name and a size, as in `zone=one:10m`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneSize {
    /// Not empty.
    pub name: String,
    /// Bytes.
    pub size: usize,
}

/// nginx wants eight pages.
const LEAST: u64 = 8 * 4096;

/// Argument `i` as `zone=NAME:SIZE`; `None` when it does not begin with `zone=`.
///
/// # Errors
/// nginx's words: no size, or too small a one.
pub fn read_zone(args: &Args<'_>, i: usize) -> Result<Option<ZoneSize>, Invalid> {
    let word = args.str(i);
    let Some(rest) = word.strip_prefix("zone=") else { return Ok(None) };
    let invalid = || Invalid::new(format!("invalid zone size \"{word}\"")).at(i);
    let (name, size) = rest.split_once(':').ok_or_else(invalid)?;
    let size = read::parse_size(size.as_bytes()).ok_or_else(invalid)?;
    if size < LEAST {
        return Err(Invalid::new(format!("zone \"{word}\" is too small")).at(i));
    }
    let size = usize::try_from(size).map_err(|_| invalid())?;
    Ok(Some(ZoneSize { name: name.to_owned(), size }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    static FIRST: Kind =
        Kind { directive: "first_zone", title: "first", prepare, migrate: Some(migrate) };
    static SECOND: Kind =
        Kind { directive: "second_zone", title: "second", prepare, migrate: None };

    fn prepare(zone: &Arc<Zone>) -> Result<(), ZoneError> {
        zone.view::<AtomicU64, AtomicU64>().map(drop)
    }

    fn migrate(old: &Arc<Zone>, new: &Arc<Zone>) {
        let value = |zone: &Arc<Zone>| zone.view::<AtomicU64, AtomicU64>().unwrap();
        value(new)
            .header()
            .store(value(old).header().load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    fn zones(list: &[(&str, usize, &'static Kind, &str)]) -> Zones {
        let zones = Zones::default();
        for (name, size, kind, key) in list {
            zones.declare(name, *size, kind).unwrap().bind(key).unwrap();
        }
        zones
    }

    #[test]
    fn names_have_one_use_one_size_and_one_key() {
        let zones = zones(&[("a", 4096, &FIRST, "$k")]);
        let declare = |name, size, kind| zones.declare(name, size, kind).map(|_| ());
        assert_eq!(declare("a", 0, &FIRST), Ok(()));
        assert_eq!(declare("a", 4096, &FIRST), Ok(()));
        assert_eq!(
            declare("a", 8192, &FIRST).unwrap_err(),
            "the size 8192 of shared memory zone \"a\" conflicts with already declared size 4096"
        );
        assert_eq!(
            declare("a", 0, &SECOND).unwrap_err(),
            "the shared memory zone \"a\" is already declared for a different use"
        );
        assert_eq!(
            zones.declare("a", 0, &FIRST).unwrap().bind("$other").unwrap_err(),
            "first_zone \"a\" is already bound to key \"$k\""
        );
        assert_eq!(zones.faults(), Vec::<String>::new());
        assert_eq!(declare("b", 0, &SECOND), Ok(()));
        assert_eq!(zones.faults(), ["zero size shared memory zone \"b\""]);
    }

    #[test]
    fn memory_survives_a_reload_by_name() {
        let first = zones(&[("a", 4096, &FIRST, "$k"), ("b", 4096, &SECOND, "$k")]);
        first.open(None).unwrap();
        let memory =
            |zones: &Zones, name| zones.declare(name, 0, &FIRST).unwrap().memory().unwrap().clone();
        let old = memory(&first, "a");
        old.view::<AtomicU64, AtomicU64>().unwrap().header().store(5, Ordering::Relaxed);
        // The same name with another use is another zone.
        let second = zones(&[("a", 4096, &FIRST, "$k"), ("b", 4096, &FIRST, "$x")]);
        second.open(Some(&first)).unwrap();
        assert!(Arc::ptr_eq(&memory(&second, "a"), &old));
        // Another size is other memory; the feature moves over what was there.
        let third = zones(&[("a", 8192, &FIRST, "$k")]);
        third.open(Some(&second)).unwrap();
        let new = memory(&third, "a");
        assert_eq!(new.length(), 8192);
        assert_eq!(new.view::<AtomicU64, AtomicU64>().unwrap().header().load(Ordering::Relaxed), 6);
        // Nothing is moved under another key.
        let fourth = zones(&[("a", 4096, &FIRST, "$other")]);
        fourth.open(Some(&third)).unwrap();
        let fifth = zones(&[("a", 4096, &FIRST, "$k")]);
        assert_eq!(
            fifth.open(Some(&fourth)).unwrap_err(),
            "first \"a\" uses the \"$k\" key while previously it used the \"$other\" key"
        );
    }
}
