//! A cache of open files (nginx: ngx_open_file_cache): descriptors, what is known about files and
//! folders, and errors, by path. `open_file_cache` and `open_log_file_cache` are made of it.
//!
//! An entry is believed for a time; then the path is looked at again, and the descriptor stays
//! when it leads to the same file. Each worker has a cache of its own.

use std::cell::RefCell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use config::{Args, Invalid, read};
use system::driver;
use system::opening::{About, Failure, Kind, Purpose, Way, look, open_file};

/// How much a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Entries.
    pub max: usize,
    /// Milliseconds without use after which an entry is dropped.
    pub inactive_ms: u64,
}

/// How entries are treated by those who ask for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Milliseconds for which an entry is believed.
    pub valid_ms: u64,
    /// Uses after which a file stays open when nobody uses it.
    pub min_uses: u64,
    /// Whether failures are kept too.
    pub errors: bool,
    /// What files are opened for.
    pub purpose: Purpose,
}

/// An open file, or a folder.
#[derive(Clone, Debug)]
pub struct Opened {
    /// None for a folder.
    pub file: Option<Rc<OwnedFd>>,
    /// What it is.
    pub about: About,
}

/// The cache.
pub struct OpenFiles {
    limits: Limits,
    entries: RefCell<Entries>,
}

#[derive(Default)]
struct Entries {
    by_path: HashMap<Rc<[u8]>, usize>,
    /// Places of entries that are gone are used again.
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// The entry that was used last, and the one that was not used for longest.
    newest: Option<usize>,
    oldest: Option<usize>,
}

struct Slot {
    path: Rc<[u8]>,
    way: Way,
    found: Found,
    uses: u64,
    checked_ms: u64,
    used_ms: u64,
    newer: Option<usize>,
    older: Option<usize>,
}

/// What a path led to.
enum Found {
    Folder(About),
    File {
        about: About,
        file: Held,
    },
    Failure(Failure),
    /// The place is free.
    Nothing,
}

/// A descriptor: kept, or only known while somebody uses it.
enum Held {
    Kept(Rc<OwnedFd>),
    Known(Weak<OwnedFd>),
}

impl Held {
    fn new(file: &Rc<OwnedFd>, uses: u64, policy: Policy) -> Held {
        match uses >= policy.min_uses {
            true => Held::Kept(file.clone()),
            false => Held::Known(Rc::downgrade(file)),
        }
    }

    fn get(&self) -> Option<Rc<OwnedFd>> {
        match self {
            Held::Kept(file) => Some(file.clone()),
            Held::Known(file) => file.upgrade(),
        }
    }
}

/// Reads `max=N [inactive=TIME]` or `off`, and leaves other words to `other`: it says whether a
/// word was its own.
///
/// # Errors
/// In nginx's words.
pub fn read_limits(
    args: &Args<'_>,
    name: &str,
    inactive_s: u64,
    mut other: impl FnMut(&[u8]) -> bool,
) -> Result<Option<Limits>, Invalid> {
    let (mut max, mut inactive_s, mut off) = (0, inactive_s, false);
    for (i, word) in args.words().iter().enumerate() {
        let word = word.bytes();
        let accepted = if let Some(digits) = word.strip_prefix(b"max=") {
            max = read::parse_number(digits).unwrap_or(0);
            max > 0
        } else if let Some(time) = word.strip_prefix(b"inactive=") {
            read::parse_time_s(time).map(|time| inactive_s = time).is_some()
        } else if word == b"off" {
            off = true;
            true
        } else {
            other(word)
        };
        if !accepted {
            let word = args.str(i);
            return Err(Invalid::new(format!("invalid \"{name}\" parameter \"{word}\"")).at(i));
        }
    }
    if off {
        return Ok(None);
    }
    if max == 0 {
        return Err(Invalid::new(format!("\"{name}\" must have the \"max\" parameter")));
    }
    let max = usize::try_from(max).unwrap_or(usize::MAX);
    Ok(Some(Limits { max, inactive_ms: inactive_s.saturating_mul(1000) }))
}

/// Opens a file without a cache.
///
/// # Errors
/// As [`open_file`].
pub fn open_uncached(path: &[u8], way: Way, purpose: Purpose) -> Result<Opened, Failure> {
    let (file, about) = open_file(path, way, purpose)?;
    let file = (about.kind != Kind::Folder).then(|| Rc::new(file));
    Ok(Opened { file, about })
}

impl OpenFiles {
    /// An empty cache.
    pub fn new(limits: Limits) -> OpenFiles {
        OpenFiles { limits, entries: RefCell::default() }
    }

    /// The file at `path`, from the cache where it is there.
    ///
    /// # Errors
    /// As [`open_file`]; the error may be one of the cache.
    pub fn open(&self, path: &[u8], way: Way, policy: Policy) -> Result<Opened, Failure> {
        let now = driver::now();
        let mut entries = self.entries.borrow_mut();
        let known = entries.by_path.get(path).copied();
        let outcome = match known {
            Some(at) => {
                entries.slots[at].uses += 1;
                match entries.slots[at].answer(way, policy, now) {
                    Some(answer) => answer,
                    None => {
                        let renewed = entries.slots[at].renew(path, way, policy);
                        entries.put(Some(at), path, way, policy, now, renewed)
                    }
                }
            }
            None => {
                if entries.by_path.len() >= self.limits.max
                    && let Some(oldest) = entries.oldest
                {
                    entries.remove(oldest);
                }
                let opened = open_uncached(path, way, policy.purpose);
                entries.put(None, path, way, policy, now, opened)
            }
        };
        if let Some(at) = entries.by_path.get(path).copied() {
            entries.slots[at].used_ms = now;
            entries.unlink(at);
            entries.link(at);
        }
        entries.expire(now.saturating_sub(self.limits.inactive_ms));
        outcome
    }

    /// Forgets everything; what is in use stays open.
    pub fn clear(&self) {
        *self.entries.borrow_mut() = Entries::default();
    }
}

impl Slot {
    /// What the entry says, when it can be believed.
    fn answer(&self, way: Way, policy: Policy, now: u64) -> Option<Result<Opened, Failure>> {
        if self.way != way || now.saturating_sub(self.checked_ms) >= policy.valid_ms {
            return None;
        }
        match &self.found {
            Found::Folder(about) => Some(Ok(Opened { file: None, about: *about })),
            Found::File { about, file } => {
                // One that was not used often enough was closed meanwhile.
                file.get().map(|file| Ok(Opened { file: Some(file), about: *about }))
            }
            Found::Failure(failure) => Some(Err(*failure)),
            Found::Nothing => None,
        }
    }

    /// Looks at the path again, and opens it unless the open file is still the one.
    fn renew(&self, path: &[u8], way: Way, policy: Policy) -> Result<Opened, Failure> {
        match &self.found {
            Found::Folder(_) => {
                let about = look(path, way)?;
                if about.kind == Kind::Folder {
                    return Ok(Opened { file: None, about });
                }
            }
            Found::File { about: old, file } => {
                if let Some(file) = file.get() {
                    match look(path, way) {
                        Ok(about) if about.id == old.id => {
                            return Ok(Opened { file: Some(file), about });
                        }
                        Err(failure) if policy.purpose == Purpose::Read => return Err(failure),
                        // A log that was moved away is created anew.
                        _ => {}
                    }
                }
            }
            Found::Failure(_) | Found::Nothing => {}
        }
        open_uncached(path, way, policy.purpose)
    }
}

impl Entries {
    /// Remembers what came of opening `path`, and gives it back.
    fn put(
        &mut self,
        at: Option<usize>,
        path: &[u8],
        way: Way,
        policy: Policy,
        now: u64,
        outcome: Result<Opened, Failure>,
    ) -> Result<Opened, Failure> {
        let uses = at.map_or(1, |at| self.slots[at].uses);
        let found = match &outcome {
            Ok(Opened { file: Some(file), about }) => {
                Found::File { about: *about, file: Held::new(file, uses, policy) }
            }
            Ok(Opened { file: None, about }) => Found::Folder(*about),
            Err(failure) if policy.errors => Found::Failure(*failure),
            Err(_) => {
                if let Some(at) = at {
                    self.remove(at);
                }
                return outcome;
            }
        };
        match at {
            Some(at) => {
                let slot = &mut self.slots[at];
                (slot.way, slot.found, slot.checked_ms) = (way, found, now);
            }
            None => {
                let path: Rc<[u8]> = path.into();
                let (newer, older) = (None, None);
                let slot = Slot {
                    path: path.clone(),
                    way,
                    found,
                    uses,
                    checked_ms: now,
                    used_ms: now,
                    newer,
                    older,
                };
                let at = match self.free.pop() {
                    Some(at) => {
                        self.slots[at] = slot;
                        at
                    }
                    None => {
                        self.slots.push(slot);
                        self.slots.len() - 1
                    }
                };
                self.by_path.insert(path, at);
                self.link(at);
            }
        }
        outcome
    }

    /// Drops at most two entries that were last used before `before`, as nginx does with each
    /// use, so that no request pays for all of them.
    fn expire(&mut self, before: u64) {
        for _ in 0..2 {
            match self.oldest {
                Some(oldest) if self.slots[oldest].used_ms < before => self.remove(oldest),
                _ => return,
            }
        }
    }

    fn remove(&mut self, at: usize) {
        self.unlink(at);
        let path: Rc<[u8]> = Rc::from(&b""[..]);
        let path = std::mem::replace(&mut self.slots[at].path, path);
        self.slots[at].found = Found::Nothing;
        self.by_path.remove(&path);
        self.free.push(at);
    }

    /// Makes the entry the one that was used last.
    fn link(&mut self, at: usize) {
        self.slots[at].newer = None;
        self.slots[at].older = self.newest;
        match self.newest {
            Some(newest) => self.slots[newest].newer = Some(at),
            None => self.oldest = Some(at),
        }
        self.newest = Some(at);
    }

    fn unlink(&mut self, at: usize) {
        let (newer, older) = (self.slots[at].newer.take(), self.slots[at].older.take());
        match newer {
            Some(newer) => self.slots[newer].older = older,
            None => self.newest = older,
        }
        match older {
            Some(older) => self.slots[older].newer = newer,
            None => self.oldest = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::{Path, PathBuf};

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let path =
                std::env::temp_dir().join(format!("open-files-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn path(&self, name: &str) -> Vec<u8> {
            self.0.join(name).as_os_str().as_encoded_bytes().to_vec()
        }

        fn replace(&self, name: &str, text: &str) {
            let fresh: &Path = &self.0.join("fresh");
            fs::write(fresh, text).unwrap();
            fs::rename(fresh, self.0.join(name)).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn policy(valid_ms: u64, min_uses: u64, errors: bool) -> Policy {
        Policy { valid_ms, min_uses, errors, purpose: Purpose::Read }
    }

    const LONG: u64 = 60_000;

    fn cache(max: usize) -> OpenFiles {
        OpenFiles::new(Limits { max, inactive_ms: LONG })
    }

    fn size(opened: Result<Opened, Failure>) -> Option<u64> {
        opened.ok().map(|opened| opened.about.size)
    }

    #[test]
    fn what_is_valid_is_believed() {
        let folder = Folder::new("valid");
        let (cache, way) = (cache(8), Way::default());
        folder.replace("a", "12345");
        let path = folder.path("a");
        assert_eq!(size(cache.open(&path, way, policy(LONG, 1, false))), Some(5));
        folder.replace("a", "123");
        assert_eq!(size(cache.open(&path, way, policy(LONG, 1, false))), Some(5));
        assert_eq!(size(cache.open(&path, way, policy(0, 1, false))), Some(3));
        fs::remove_file(folder.0.join("a")).unwrap();
        assert_eq!(size(cache.open(&path, way, policy(LONG, 1, false))), Some(3));
        assert_eq!(size(cache.open(&path, way, policy(0, 1, false))), None);
        // The error was not kept.
        folder.replace("a", "1");
        assert_eq!(size(cache.open(&path, way, policy(LONG, 1, true))), Some(1));
    }

    #[test]
    fn errors_are_kept_on_demand() {
        let folder = Folder::new("errors");
        let (cache, way) = (cache(8), Way::default());
        let path = folder.path("a");
        assert_eq!(size(cache.open(&path, way, policy(LONG, 1, true))), None);
        folder.replace("a", "1");
        assert_eq!(size(cache.open(&path, way, policy(LONG, 1, true))), None);
        assert_eq!(size(cache.open(&path, way, policy(0, 1, true))), Some(1));
    }

    #[test]
    fn a_file_stays_open_after_enough_uses() {
        let folder = Folder::new("uses");
        let (cache, way) = (cache(8), Way::default());
        folder.replace("a", "12345");
        let path = folder.path("a");
        for (expected, text) in [(5, "1"), (1, "22"), (2, "333"), (2, "4444")] {
            // The third use makes it stay; until then each use opens what is there.
            assert_eq!(size(cache.open(&path, way, policy(LONG, 3, false))), Some(expected));
            folder.replace("a", text);
        }
    }

    #[test]
    fn other_ways_are_not_mixed() {
        let folder = Folder::new("ways");
        let cache = cache(8);
        folder.replace("a", "12345");
        std::os::unix::fs::symlink("a", folder.0.join("link")).unwrap();
        let path = folder.path("link");
        let none = Way { links: system::opening::Links::None, trusted: 0 };
        for _ in 0..2 {
            assert_eq!(size(cache.open(&path, Way::default(), policy(LONG, 1, true))), Some(5));
            assert_eq!(size(cache.open(&path, none, policy(LONG, 1, true))), None);
        }
    }

    #[test]
    fn the_one_that_was_not_used_for_longest_makes_room() {
        let folder = Folder::new("room");
        let (cache, way) = (cache(2), Way::default());
        let open = |name: &str| size(cache.open(&folder.path(name), way, policy(LONG, 1, false)));
        for name in ["a", "b", "c"] {
            folder.replace(name, "1");
        }
        assert_eq!(
            (open("a"), open("b"), open("a"), open("c")),
            (Some(1), Some(1), Some(1), Some(1))
        );
        for name in ["a", "b", "c"] {
            folder.replace(name, "22");
        }
        assert_eq!((open("a"), open("c"), open("b")), (Some(1), Some(1), Some(2)));
        assert_eq!(cache.entries.borrow().by_path.len(), 2);
        assert_eq!(cache.entries.borrow().slots.len(), 2);
    }

    #[test]
    fn what_is_not_used_goes() {
        let folder = Folder::new("inactive");
        let cache = OpenFiles::new(Limits { max: 8, inactive_ms: 0 });
        let open = |name: &str| {
            size(cache.open(&folder.path(name), Way::default(), policy(LONG, 1, true)))
        };
        for name in ["a", "b"] {
            folder.replace(name, "1");
            assert_eq!(open(name), Some(1));
            let used = driver::now();
            while driver::now() <= used {
                std::hint::spin_loop();
            }
        }
        // A third use finds that both were silent for longer than nothing.
        assert_eq!(open("c"), None);
        assert_eq!(cache.entries.borrow().by_path.len(), 1);
        folder.replace("a", "22");
        assert_eq!(open("a"), Some(2));
    }

    #[test]
    fn limits_are_read() {
        use config::Directive;
        static LINE: Directive<Option<Limits>> =
            Directive::new("x", &[config::MAIN], |args: &Args<'_>| {
                read_limits(args, "x", 60, |_| false)
            })
            .takes(config::Arity::AtLeast(1));
        let check = |text: &str, expected: Result<Option<(usize, u64)>, &str>| {
            let found = LINE
                .read_text(text)
                .map(|limits| limits.map(|limits| (limits.max, limits.inactive_ms)));
            assert_eq!(
                found.map_err(|invalid| invalid.message),
                expected.map_err(str::to_owned),
                "{text}"
            );
        };
        check("off", Ok(None));
        check("max=5", Ok(Some((5, 60_000))));
        check("inactive=2m max=5", Ok(Some((5, 120_000))));
        check("max=0", Err("invalid \"x\" parameter \"max=0\""));
        check("inactive=x max=5", Err("invalid \"x\" parameter \"inactive=x\""));
        check("inactive=5s", Err("\"x\" must have the \"max\" parameter"));
        check("on", Err("invalid \"x\" parameter \"on\""));
    }
}
