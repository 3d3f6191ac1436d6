//! What a feature of `stream` is: a [`Module`] that declares directives and variables, and
//! attaches its [`Check`]s, [`Preread`]s, [`Content`] and loggers to the servers that ask for
//! them. A feature that a server does not use is not in its lists and costs nothing per session.

use std::future::Future;
use std::pin::Pin;

use config::{AnyDirective, Scope};
use session::variables::Builtin;

use crate::compile::Compiler;
use crate::server::ServerBuilder;
use crate::session::Session;

/// What a check decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing; the next one is asked.
    Next,
    /// The session ends with this status, which only logs show.
    End(u16),
}

/// A verdict now, or one to wait for.
pub enum Step<'a> {
    /// Known at once.
    Now(Verdict),
    /// Known when the future resolves.
    Later(Pin<Box<dyn Future<Output = Verdict> + 'a>>),
}

impl Step<'_> {
    /// The verdict, waited for where needed.
    pub async fn verdict(self) -> Verdict {
        match self {
            Step::Now(verdict) => verdict,
            Step::Later(future) => future.await,
        }
    }
}

/// When a check is made; the names of nginx's phases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Right after the connection was accepted: whose it really is.
    PostAccept,
    /// Limits.
    Preaccess,
    /// Who may use the server.
    Access,
}

/// Lets a session pass or not.
pub trait Check {
    /// When it is asked.
    fn stage(&self) -> Stage;
    /// Decides about the session.
    fn check<'a>(&'a self, s: &'a mut Session) -> Step<'a>;
}

/// What somebody who looks at a connection's first bytes makes of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// More bytes are needed.
    More,
    /// It is for others; the next one looks.
    Declined,
    /// It is clear.
    Done,
    /// The session ends with this status.
    End(u16),
}

/// Looks at the first bytes of a connection without taking them.
pub trait Preread {
    /// Looks at all that has come so far; nothing at first. May choose another server
    /// ([`Session::choose_server`]).
    fn look(&self, s: &mut Session, came: &[u8]) -> Look;
}

/// A session being served; its status.
pub type Serving<'a> = Pin<Box<dyn Future<Output = u16> + 'a>>;

/// Does with a session what its server is for.
pub trait Content {
    /// Serves the session to its end and says how it went, as a status.
    fn serve<'a>(&'a self, s: &'a mut Session) -> Serving<'a>;

    /// Whether it sees to `tcp_nodelay` on its own.
    fn sends_at_once(&self) -> bool {
        false
    }
}

/// One feature of the stream engine.
pub struct Module {
    /// The module's name in the manual, as `stream_proxy`.
    pub name: &'static str,
    /// What the manual says at the top of the module's page.
    pub text: &'static str,
    /// Its directives; those that http has too stand on http's pages.
    pub directives: &'static [&'static dyn AnyDirective],
    /// Its built-in variables.
    pub variables: &'static [Builtin<Session>],
    /// Called once for the `stream` block, before any server is compiled.
    pub stream: Option<fn(&mut Compiler<'_>, &Scope<'_>)>,
    /// Called for each server.
    pub server: Option<fn(&mut Compiler<'_>, &Scope<'_>, &mut ServerBuilder)>,
}

impl Module {
    /// A module without anything; set what it has with struct update syntax.
    pub const fn new(name: &'static str, text: &'static str) -> Module {
        Module { name, text, directives: &[], variables: &[], stream: None, server: None }
    }
}
