//! A location: which URIs it answers for, and its compiled pipeline.
//!
//! The choice follows nginx (ngx_http_core_module, "location"): an exact name wins; else the
//! longest prefix is kept, its nested locations are searched, and unless it was marked `^~` the
//! regular expressions of the level are tried in order; the first that matches wins.

use crate::error_page::ErrorPage;
use crate::exchange::Exchange;
use crate::limit_except::LimitExcept;
use crate::module::{Content, Filter, Guard, Logger, Stage};
use crate::settings::Settings;
use foldhash::HashMap;
use session::log::Log;
use session::pattern::GivenUp;
pub use session::pattern::Pattern;
use std::any::Any;
use std::cmp::Ordering;
use std::rc::Rc;

/// How a location's name is compared with the URI.
pub enum Matching {
    /// The server's own level, or an `if`: not chosen by name.
    Unnamed,
    /// `location /a`
    Prefix,
    /// `location ^~ /a`
    PrefixFinal,
    /// `location = /a`
    Exact,
    /// `location ~ a` and `location ~* a`
    Regex(Box<Pattern>),
    /// `location @a`
    Named,
}

/// One location and its pipeline.
pub struct Location {
    /// The name as written; empty for the server's own level.
    pub name: Box<[u8]>,
    /// How the name is compared.
    pub matching: Matching,
    /// Values of the engine's own directives.
    pub settings: Settings,
    /// A request for the name without its final slash is sent to the name with it.
    pub auto_redirect: bool,
    /// Asked in order of their stages.
    pub guards: Vec<Box<dyn Guard>>,
    /// Asked in order until one answers.
    pub contents: Vec<Box<dyn Content>>,
    /// Applied in order to each answer.
    pub filters: Vec<Box<dyn Filter>>,
    /// Told of each finished request.
    pub loggers: Vec<Box<dyn Logger>>,
    /// What replaces an answer with an error status.
    pub error_pages: Rc<[ErrorPage]>,
    /// Where errors are logged.
    pub error_log: Log,
    /// Nested locations.
    pub inner: Locations,
    /// What holds for other methods than some.
    pub(crate) limit_except: Option<LimitExcept>,
    kept: Vec<Box<dyn Any>>,
}

/// A location while its modules attach to it.
pub struct LocationBuilder {
    /// The location as far as it is.
    pub location: Location,
    /// True when a module made the location's content exclusively its own (proxy_pass).
    pub has_handler: bool,
}

impl LocationBuilder {
    /// Adds a guard; guards of one stage keep the order in which they were added.
    pub fn guard(&mut self, guard: impl Guard + 'static) {
        self.location.guards.push(Box::new(guard));
    }

    /// Adds a content that may decline.
    pub fn content(&mut self, content: impl Content + 'static) {
        self.location.contents.push(Box::new(content));
    }

    /// Makes `content` the only one (nginx: the location's handler).
    pub fn handler(&mut self, content: impl Content + 'static) {
        self.location.contents.insert(0, Box::new(content));
        self.has_handler = true;
    }

    /// Adds a filter.
    pub fn filter(&mut self, filter: impl Filter + 'static) {
        self.location.filters.push(Box::new(filter));
    }

    /// Keeps `value` for [`Location::kept`].
    pub fn keep<T: 'static>(&mut self, value: T) {
        self.location.kept.push(Box::new(value));
    }

    /// Adds a logger.
    pub fn logger(&mut self, logger: impl Logger + 'static) {
        self.location.loggers.push(Box::new(logger));
    }

    /// The pipeline in its final order.
    pub(crate) fn finish(mut self) -> Location {
        self.location.guards.sort_by_key(|guard| guard.stage());
        if self.has_handler {
            self.location.contents.truncate(1);
        }
        self.location
    }
}

impl Location {
    /// A location without a pipeline.
    pub(crate) fn new(
        name: Box<[u8]>,
        matching: Matching,
        settings: Settings,
        error_pages: Rc<[ErrorPage]>,
        error_log: Log,
    ) -> Location {
        Location {
            name,
            matching,
            settings,
            auto_redirect: false,
            guards: Vec::new(),
            contents: Vec::new(),
            filters: Vec::new(),
            loggers: Vec::new(),
            error_pages,
            error_log,
            inner: Locations::default(),
            limit_except: None,
            kept: Vec::new(),
        }
    }

    /// What a module kept here for itself, by its type.
    pub fn kept<T: 'static>(&self) -> Option<&T> {
        self.kept.iter().find_map(|value| value.downcast_ref())
    }

    /// Where the guards of `stage` begin.
    pub(crate) fn first_guard(&self, stage: Stage) -> usize {
        self.guards.partition_point(|guard| guard.stage() < stage)
    }
}

/// What a search found.
pub enum Found {
    /// This location.
    Location(Rc<Location>),
    /// Nothing below the starting level.
    Nothing,
    /// The name of this location is the URI and a slash: redirect there.
    Redirect(Rc<Location>),
    /// A pattern could not be matched within its bounds.
    Failed,
}

/// The locations of one level.
#[derive(Default)]
pub struct Locations {
    exact: HashMap<Box<[u8]>, Rc<Location>>,
    /// Some of those ask for redirects.
    exact_redirects: bool,
    /// Sorted by name; `parent` is the longest other prefix that begins this one.
    prefixes: Vec<Prefix>,
    patterns: Vec<Rc<Location>>,
    named: HashMap<Box<str>, Rc<Location>>,
}

struct Prefix {
    name: Name<Box<[u8]>>,
    parent: Option<u32>,
    location: Rc<Location>,
}

impl Locations {
    /// True when there is none.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.is_empty() && self.patterns.is_empty()
    }

    /// The location named `@name`.
    pub fn named(&self, name: &str) -> Option<&Rc<Location>> {
        self.named.get(name)
    }

    /// Adds a location; false when one of that name and kind is here already.
    pub(crate) fn add(&mut self, location: Location) -> bool {
        let location = Rc::new(location);
        match &location.matching {
            Matching::Exact => {
                self.exact_redirects |= location.auto_redirect;
                self.exact.insert(location.name.clone(), location).is_none()
            }
            Matching::Prefix | Matching::PrefixFinal => {
                let name = Name::of(location.name.clone());
                match self.prefixes.binary_search_by(|p| p.name.cmp(&name)) {
                    Ok(_) => false,
                    Err(at) => {
                        self.prefixes.insert(at, Prefix { name, parent: None, location });
                        true
                    }
                }
            }
            Matching::Regex(_) => {
                self.patterns.push(location);
                true
            }
            Matching::Named => {
                let name = String::from_utf8_lossy(&location.name).into_owned();
                self.named.insert(name.into(), location).is_none()
            }
            Matching::Unnamed => true,
        }
    }

    /// Links each prefix to the one it falls back to. Called when all are added.
    pub(crate) fn link(&mut self) {
        let mut open: Vec<u32> = Vec::new();
        for at in 0..self.prefixes.len() {
            while let Some(&top) = open.last() {
                if self.prefixes[at].name.begins_with(&self.prefixes[top as usize].name) {
                    break;
                }
                open.pop();
            }
            self.prefixes[at].parent = open.last().copied();
            open.push(at as u32);
        }
    }

    /// The number of prefixes that are not greater than `uri`.
    fn up_to(&self, uri: &Name<&[u8]>) -> usize {
        self.prefixes.partition_point(|prefix| prefix.name.cmp(uri).is_le())
    }

    /// The longest of the first `up_to` prefixes that begins `uri`.
    fn longest_prefix(&self, uri: &Name<&[u8]>, up_to: usize) -> Option<&Rc<Location>> {
        let mut at = up_to.checked_sub(1)? as u32;
        loop {
            let prefix = &self.prefixes[at as usize];
            if uri.begins_with(&prefix.name) {
                return Some(&prefix.location);
            }
            at = prefix.parent?;
        }
    }

    /// The location whose name is `uri` and a final slash, when it asks for redirects.
    fn redirect(&self, uri: &Name<&[u8]>, up_to: usize) -> Option<&Rc<Location>> {
        // Names that begin with the URI stand right behind it; mostly there is none.
        let longer = &self.prefixes[up_to..];
        longer.first().filter(|prefix| prefix.name.begins_with(uri))?;
        // Compares a name with the URI and a slash, which are not put together for that.
        let compare = |name: &[u8]| match name.split_at_checked(uri.text.len()) {
            Some((begin, rest)) => begin.cmp(uri.text).then_with(|| rest.cmp(b"/")),
            None => name.cmp(uri.text),
        };
        let named = &longer[longer.binary_search_by(|prefix| compare(&prefix.name.text)).ok()?];
        Some(&named.location).filter(|location| location.auto_redirect)
    }
}

/// So many bytes of a name lie beside it.
const HEAD: usize = size_of::<u64>();

/// A name, and its first bytes beside it: most names differ in these, so that a search among the
/// locations of one of many servers need not look at texts that are in no cache.
struct Name<T> {
    /// The first eight bytes, zeros where there are fewer; the first byte is the highest.
    head: u64,
    text: T,
}

impl<T: AsRef<[u8]>> Name<T> {
    fn of(text: T) -> Name<T> {
        let mut head = [0; HEAD];
        let bytes = text.as_ref();
        let length = bytes.len().min(HEAD);
        head[..length].copy_from_slice(&bytes[..length]);
        Name { head: u64::from_be_bytes(head), text }
    }

    /// The order of the texts.
    fn cmp(&self, other: &Name<impl AsRef<[u8]>>) -> Ordering {
        let texts = || self.text.as_ref().cmp(other.text.as_ref());
        self.head.cmp(&other.head).then_with(texts)
    }

    /// Whether `other` is the beginning of this one.
    fn begins_with(&self, other: &Name<impl AsRef<[u8]>>) -> bool {
        let (text, beginning) = (self.text.as_ref(), other.text.as_ref());
        let differing = self.head ^ other.head;
        match beginning.len() {
            length if length > text.len() => false,
            0 => true,
            length if length <= HEAD => differing >> (8 * (HEAD - length)) == 0,
            _ => differing == 0 && text.starts_with(beginning),
        }
    }
}

/// Chooses the location for `x.request.uri` below `level`, and keeps the groups of the pattern.
pub(crate) fn find(x: &mut Exchange, level: &Rc<Location>) -> Found {
    let locations = &level.inner;
    let uri = x.text(x.request.uri);
    if let Some(location) = locations.exact.get(uri) {
        return Found::Location(location.clone());
    }
    let exact_redirect = || {
        let mut name = uri.to_vec();
        name.push(b'/');
        locations.exact.get(name.as_slice()).filter(|location| location.auto_redirect)
    };
    let by_exact = locations.exact_redirects;
    let name = Name::of(uri);
    let up_to = locations.up_to(&name);
    if let Some(location) =
        locations.redirect(&name, up_to).or_else(|| if by_exact { exact_redirect() } else { None })
    {
        return Found::Redirect(location.clone());
    }
    let mut best = locations.longest_prefix(&name, up_to).cloned();
    let mut is_final = false;
    if let Some(location) = &best {
        is_final = matches!(location.matching, Matching::PrefixFinal);
        if !location.inner.is_empty() {
            match find(x, &location.clone()) {
                Found::Location(nested) => {
                    let settled = matches!(nested.matching, Matching::Exact | Matching::Regex(_));
                    is_final = is_final_prefix(&nested);
                    best = Some(nested);
                    if settled {
                        return best.map_or(Found::Nothing, Found::Location);
                    }
                }
                Found::Nothing => {}
                other => return other,
            }
        }
    }
    if !is_final {
        for location in &locations.patterns {
            match matches(x, location) {
                Ok(false) => {}
                Ok(true) => {
                    return match find(x, location) {
                        Found::Nothing => Found::Location(location.clone()),
                        deeper => deeper,
                    };
                }
                Err(GivenUp) => return Found::Failed,
            }
        }
    }
    best.map_or(Found::Nothing, Found::Location)
}

fn is_final_prefix(location: &Location) -> bool {
    matches!(location.matching, Matching::PrefixFinal)
}

fn matches(x: &mut Exchange, location: &Location) -> Result<bool, GivenUp> {
    let Matching::Regex(pattern) = &location.matching else { return Ok(false) };
    pattern.matches(x, x.request.uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_compare_as_their_texts_do() {
        let mut texts: Vec<Vec<u8>> = vec![Vec::new()];
        for length in 1..11 {
            for last in [0, b'-', b'/', b'0', 0xff] {
                let mut text = b"/images/ab".to_vec();
                text.truncate(length);
                text[length - 1] = last;
                texts.push(text.clone());
                text.push(0);
                texts.push(text);
            }
            texts.push(b"/images/ab"[..length].to_vec());
        }
        for a in &texts {
            for b in &texts {
                let (one, other) = (Name::of(a.clone()), Name::of(b.clone()));
                assert_eq!(one.cmp(&other), a.cmp(b), "{a:?} {b:?}");
                assert_eq!(one.begins_with(&other), a.starts_with(b), "{a:?} {b:?}");
            }
        }
    }
}
