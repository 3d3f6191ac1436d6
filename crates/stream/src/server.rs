//! A `server` block as its compiled pipeline, and how a name chooses among those of an address.

use std::rc::Rc;

use session::log::Log;
use session::names::{Names, Reading, Refused};
use session::pattern::{GivenUp, Pattern};
use session::text::Span;

use crate::module::{Check, Content, Preread};
use crate::session::Session;
use crate::ssl;

/// A step that runs when the session is over.
pub(crate) type Logger = Box<dyn Fn(&mut Session)>;

/// One `server` block.
pub struct Server {
    /// Its first name: `$server_name`.
    pub name: Box<[u8]>,
    /// Settings of the engine itself.
    pub settings: Settings,
    /// Its error log.
    pub error_log: Log,
    /// Its side of TLS.
    pub(crate) ssl: ssl::Settings,
    /// By stage, then in the order of the modules.
    pub(crate) checks: Vec<Box<dyn Check>>,
    pub(crate) prereads: Vec<Box<dyn Preread>>,
    pub(crate) content: Option<Box<dyn Content>>,
    pub(crate) loggers: Vec<Logger>,
}

/// What the engine's own directives say of a server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes that may be looked at.
    pub preread_buffer: usize,
    /// How long that may take, in milliseconds.
    pub preread_timeout_ms: u64,
    /// How long the header of the PROXY protocol may take, in milliseconds.
    pub proxy_protocol_timeout_ms: u64,
    /// What was written goes out at once.
    pub tcp_nodelay: bool,
}

/// A server while modules attach their parts to it.
pub struct ServerBuilder {
    pub(crate) server: Server,
}

impl ServerBuilder {
    /// Settings of the engine itself.
    pub fn settings(&self) -> Settings {
        self.server.settings
    }

    /// Adds a check.
    pub fn check(&mut self, check: impl Check + 'static) {
        self.server.checks.push(Box::new(check));
    }

    /// Adds one who looks at the first bytes.
    pub fn preread(&mut self, preread: impl Preread + 'static) {
        self.server.prereads.push(Box::new(preread));
    }

    /// Sets what the server is for. As in nginx the last one counts.
    pub fn content(&mut self, content: impl Content + 'static) {
        self.server.content = Some(Box::new(content));
    }

    /// Adds one who looks at sessions that are over.
    pub fn logger(&mut self, logger: impl Fn(&mut Session) + 'static) {
        self.server.loggers.push(Box::new(logger));
    }

    pub(crate) fn finish(mut self) -> Rc<Server> {
        // Stable: within a stage the order of the modules stays.
        self.server.checks.sort_by_key(|check| check.stage());
        Rc::new(self.server)
    }
}

/// The servers of one address.
pub struct Servers {
    default: Rc<Server>,
    names: Names<Rc<Server>>,
    patterns: Vec<(Rc<Pattern>, Rc<Server>)>,
}

/// A name of a server.
#[derive(Clone)]
pub(crate) enum Name {
    Text(Box<[u8]>),
    Regex(Rc<Pattern>),
}

impl Servers {
    pub(crate) fn new(default: Rc<Server>) -> Servers {
        Servers { default, names: Names::default(), patterns: Vec::new() }
    }

    pub(crate) fn set_default(&mut self, server: Rc<Server>) {
        self.default = server;
    }

    /// The server for sessions that no name claims.
    pub fn default_server(&self) -> Rc<Server> {
        self.default.clone()
    }

    /// Adds a name.
    ///
    /// # Errors
    /// It is none, or another server of the address has it.
    pub(crate) fn add(&mut self, name: Name, server: &Rc<Server>) -> Result<(), Refused> {
        match name {
            Name::Text(text) => self.names.add(&text, server.clone(), Reading::Wildcards),
            Name::Regex(pattern) => {
                self.patterns.push((pattern, server.clone()));
                Ok(())
            }
        }
    }

    /// The server that claims a name in lower case. Groups of a matching pattern are kept in the
    /// session.
    pub(crate) fn find(&self, s: &mut Session, name: Span) -> Result<Option<Rc<Server>>, GivenUp> {
        if let Some(server) = self.names.find(s.text(name)) {
            return Ok(Some(server.clone()));
        }
        for (pattern, server) in &self.patterns {
            if pattern.matches(s, name)? {
                return Ok(Some(server.clone()));
            }
        }
        Ok(None)
    }
}
