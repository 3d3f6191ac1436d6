//! A site: one `server` block, and how a request's host chooses among those of an address.
//!
//! Order as in nginx (ngx_http_core_module, "server_name"): the exact name, the longest wildcard
//! that begins with an asterisk, the longest that ends with one, the first regular expression in
//! the order of the file, else the default server of the address.

use crate::exchange::Exchange;
use crate::http2;
use crate::location::{Location, Pattern};
use crate::settings::HeadLimits;
use foldhash::HashMap;
use session::pattern::GivenUp;
use session::text::Span;
use session::tls::ServerTls;
use std::rc::Rc;

/// One `server` block.
pub struct Site {
    /// Its first name: `$server_name`, and what error lines show.
    pub name: Box<[u8]>,
    /// Limits on request heads.
    pub head: HeadLimits,
    /// The server's own level; its inner locations are the site's.
    pub root: Rc<Location>,
    /// Limits of HTTP/2.
    pub http2: http2::Settings,
    /// Certificates, and what is asked of clients.
    pub tls: ServerTls,
}

/// The sites of one address.
#[derive(Default)]
pub struct Sites {
    default: Option<Rc<Site>>,
    exact: HashMap<Box<[u8]>, Rc<Site>>,
    /// ".example.com" for `*.example.com`; the key has its leading dot.
    heads: HashMap<Box<[u8]>, Rc<Site>>,
    /// "www." for `www.*`; the key has its final dot.
    tails: HashMap<Box<[u8]>, Rc<Site>>,
    patterns: Vec<(Rc<Pattern>, Rc<Site>)>,
    /// Some name leads to another server than the default one, or has groups.
    is_several: bool,
}

/// One parsed `server_name`.
pub enum Name {
    /// `example.com`
    Exact(Box<[u8]>),
    /// `*.example.com`, kept as `.example.com`
    Head(Box<[u8]>),
    /// `.example.com`: the name itself and all below it
    Dotted(Box<[u8]>),
    /// `www.*`, kept as `www.`
    Tail(Box<[u8]>),
    /// `~^www\.`
    Regex(Rc<Pattern>),
}

impl Sites {
    /// The server for requests that no name claims. Compiling gives each address one.
    pub fn default_site(&self) -> Option<&Rc<Site>> {
        self.default.as_ref()
    }

    pub(crate) fn set_default(&mut self, site: Rc<Site>) {
        let named = [&self.exact, &self.heads, &self.tails].into_iter().flat_map(HashMap::values);
        self.is_several =
            !self.patterns.is_empty() || named.into_iter().any(|other| !Rc::ptr_eq(other, &site));
        self.default = Some(site);
    }

    /// Adds a name; false when another server of the address has it (nginx: ignored, warned).
    pub(crate) fn add(&mut self, name: Name, site: &Rc<Site>) -> bool {
        fn put(map: &mut HashMap<Box<[u8]>, Rc<Site>>, name: Box<[u8]>, site: &Rc<Site>) -> bool {
            if map.contains_key(&name) {
                return false;
            }
            map.insert(name, site.clone());
            true
        }
        let is_default = self.default.as_ref().is_some_and(|default| Rc::ptr_eq(default, site));
        self.is_several |= !is_default || matches!(name, Name::Regex(_));
        match name {
            Name::Exact(name) => put(&mut self.exact, name, site),
            Name::Head(name) => put(&mut self.heads, name, site),
            Name::Dotted(name) => {
                let below = put(&mut self.heads, name.clone(), site);
                put(&mut self.exact, name[1..].into(), site) && below
            }
            Name::Tail(name) => put(&mut self.tails, name, site),
            Name::Regex(pattern) => {
                self.patterns.push((pattern, site.clone()));
                true
            }
        }
    }

    /// True when every host leads to the default server.
    pub fn is_single(&self) -> bool {
        !self.is_several
    }

    /// The site that names `host` without a regular expression. `host` is in lower case.
    fn by_name(&self, host: &[u8]) -> Option<&Rc<Site>> {
        if let Some(site) = self.exact.get(host) {
            return Some(site);
        }
        let dots = || host.iter().enumerate().filter(|(_, b)| **b == b'.').map(|(at, _)| at);
        if !self.heads.is_empty()
            && let Some(site) =
                dots().filter(|at| *at > 0).find_map(|at| self.heads.get(&host[at..]))
        {
            return Some(site);
        }
        if self.tails.is_empty() {
            return None;
        }
        // The longest name is the one that ends at the last dot.
        dots().rev().find_map(|at| self.tails.get(&host[..=at]))
    }
}

/// The site for `host` among those of the connection's address. `None`: no name claims it.
/// Groups of a matching pattern are kept in the exchange.
pub(crate) fn choose(
    x: &mut Exchange,
    sites: &Sites,
    host: Span,
) -> Result<Option<Rc<Site>>, GivenUp> {
    if host.is_empty() {
        // `server_name ""` claims requests without a host.
        return Ok(sites.exact.get(&b""[..]).cloned());
    }
    if let Some(site) = sites.by_name(x.text(host)) {
        return Ok(Some(site.clone()));
    }
    for (pattern, site) in &sites.patterns {
        if pattern.matches(x, host)? {
            return Ok(Some(site.clone()));
        }
    }
    Ok(None)
}
