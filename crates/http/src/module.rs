//! What a feature is: a [`Module`] that declares directives and variables, and attaches its
//! [`Guard`]s, [`Content`]s and [`Filter`]s to the locations whose configuration asks for them.
//!
//! A location is its compiled pipeline. A feature that a location does not use is not in its
//! pipeline and costs nothing per request. The order in which modules stand in the one list of
//! crate `heng` is the order in which their parts run.

use crate::compile::Compiler;
use crate::exchange::Exchange;
use crate::location::LocationBuilder;
use config::{AnyDirective, Scope};
use session::text::Span;
use session::variables::Builtin;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

/// What a step of the journey decided.
#[derive(Debug)]
pub enum Verdict {
    /// Nothing; the next step is asked. From an access check: the request may pass.
    Next,
    /// An access check has nothing to say about the request. Elsewhere the same as `Next`.
    Abstain,
    /// `Exchange::response` holds the answer.
    Answer,
    /// An answer with this status; `error_page` may replace it.
    Status(u16),
    /// An internal redirect: the journey starts again at choosing the location.
    Internal {
        /// The new normalised path.
        uri: Span,
        /// The new query, without `?`.
        args: Span,
    },
    /// The path was rewritten (`Request::uri`): the location is chosen anew. On the server's own
    /// level, where none is chosen yet, the same as `Next`.
    Relocate,
    /// The journey goes on in the named location.
    Named(Rc<str>),
    /// Close the connection without an answer (`return 444`).
    Close,
}

/// A verdict now, or one to wait for. Most steps need no waiting and so no allocation.
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

/// When a guard is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Rewriting of the location: may change the URI, answer or redirect.
    Rewrite,
    /// Before access control: limits.
    Limit,
    /// Access control; `satisfy` decides how several combine.
    Access,
    /// After access control, before the content.
    Prepare,
}

/// Lets a request pass or not.
pub trait Guard {
    /// When it is asked.
    fn stage(&self) -> Stage;
    /// `Next` lets the request pass.
    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a>;
}

/// Makes the answer of a location.
pub trait Content {
    /// `Next` leaves the request to the next content of the location.
    fn answer<'a>(&'a self, x: &'a mut Exchange) -> Step<'a>;
}

/// Changes a response before it is sent: its head now, its body by wrapping it.
pub trait Filter {
    /// Called once, when the head is complete and before anything is sent. One that sets
    /// `Exchange::refused` has the answer replaced by that error, which is filtered in its turn.
    fn apply(&self, x: &mut Exchange);
}

/// Looks at an exchange that is over: access logs, `post_action`.
pub trait Logger {
    /// Called once for each request, after its last byte was sent or given up.
    fn log(&self, x: &mut Exchange);
}

/// One feature of the HTTP engine.
pub struct Module {
    /// The module's name in the manual, as `http_proxy`.
    pub name: &'static str,
    /// What the manual says at the top of the module's page.
    pub text: &'static str,
    /// Its directives.
    pub directives: &'static [&'static dyn AnyDirective],
    /// Its built-in variables.
    pub variables: &'static [Builtin<Exchange>],
    /// Called once for the `http` block, before any server is compiled: `upstream`, `map`.
    pub http: Option<fn(&mut Compiler<'_>, &Scope<'_>)>,
    /// Called for each location (and for each server's own level, which is a location too).
    pub location: Option<fn(&mut Compiler<'_>, &Scope<'_>, &mut LocationBuilder)>,
}

impl Module {
    /// A module without anything; set what it has with struct update syntax.
    pub const fn new(name: &'static str, text: &'static str) -> Module {
        Module { name, text, directives: &[], variables: &[], http: None, location: None }
    }
}
