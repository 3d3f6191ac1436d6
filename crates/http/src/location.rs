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
    /// Sorted by name; `parent` is the longest other prefix that begins this one.
    prefixes: Vec<Prefix>,
    patterns: Vec<Rc<Location>>,
    named: HashMap<Box<str>, Rc<Location>>,
}

struct Prefix {
    name: Box<[u8]>,
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
            Matching::Exact => self.exact.insert(location.name.clone(), location).is_none(),
            Matching::Prefix | Matching::PrefixFinal => {
                let name = location.name.clone();
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
                if self.prefixes[at].name.starts_with(&self.prefixes[top as usize].name) {
                    break;
                }
                open.pop();
            }
            self.prefixes[at].parent = open.last().copied();
            open.push(at as u32);
        }
    }

    fn longest_prefix(&self, uri: &[u8]) -> Option<&Rc<Location>> {
        let after = self.prefixes.partition_point(|prefix| *prefix.name <= *uri);
        let mut at = after.checked_sub(1)? as u32;
        loop {
            let prefix = &self.prefixes[at as usize];
            if uri.starts_with(&prefix.name) {
                return Some(&prefix.location);
            }
            at = prefix.parent?;
        }
    }

    /// The location whose name is `uri` and a final slash, when it asks for redirects.
    fn redirect(&self, uri: &[u8]) -> Option<&Rc<Location>> {
        // Compares a name with the URI and a slash, which are not put together for that.
        let compare = |name: &[u8]| match name.split_at_checked(uri.len()) {
            Some((begin, rest)) => begin.cmp(uri).then_with(|| rest.cmp(b"/")),
            None => name.cmp(uri),
        };
        let at = self.prefixes.binary_search_by(|prefix| compare(&prefix.name)).ok()?;
        Some(&self.prefixes[at].location).filter(|location| location.auto_redirect)
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
    let any_exact = !locations.exact.is_empty();
    if let Some(location) =
        locations.redirect(uri).or_else(|| if any_exact { exact_redirect() } else { None })
    {
        return Found::Redirect(location.clone());
    }
    let mut best = locations.longest_prefix(uri).cloned();
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
