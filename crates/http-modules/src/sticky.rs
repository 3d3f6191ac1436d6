//! `sticky`: clients stay with the server that they were given (nginx:
//! ngx_http_upstream_sticky_module).
//!
//! Three ways: a cookie that names the server (`sticky/cookie.rs`), a route that the request
//! carries in any variable, and sessions that are learned from answers (`sticky/learn.rs`). Each
//! ends in the name of a server: its `route`, or else the MD5 hash of its address. The balancer is
//! told whom the client is bound to; when none of these can be used it chooses as if for a
//! new client, and the client is bound anew.

mod cookie;
mod learn;

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use config::{Args, Arity, Directive, Invalid, Scope, Template as Source};
use http::{Compiler, Exchange, Module};
use md5::{Digest, Md5};
use session::contexts::UPSTREAM;
use session::text::Span;
use session::variables::Template;
use smallvec::SmallVec;
use upstream::{Attempts, Group, PeerIndex};

use crate::upstreams::SharedGroups;

pub(crate) use cookie::without;
use cookie::{Cookie, CookieLine};
use learn::{Learn, LearnLine};

/// The module. It stands behind that of the groups.
pub static MODULE: Module = Module {
    directives: &[&STICKY],
    http: Some(compile),
    ..Module::new(
        "http_upstream_sticky",
        "Keeps clients with the server that they were given: by a cookie, by a part of the \
         request, or by sessions that are learned from answers.",
    )
};

/// `sticky`.
pub static STICKY: Directive<Line> = Directive::new("sticky", &[UPSTREAM], read)
    .takes(Arity::AtLeast(2))
    .syntax(
        "sticky cookie NAME [expires=TIME|max] [domain=DOMAIN] [path=PATH] [httponly] [secure]\n\
         \x20   [samesite=strict|lax|none|$VARIABLE] [indirect];\n\
         sticky route $VARIABLE ...;\n\
         sticky learn create=$VARIABLE ... lookup=$VARIABLE ... zone=NAME:SIZE [timeout=TIME] \
         [header];",
    )
    .text(
        "Sends a client to the server that it was given before, whatever the balancing method \
         says, as long as that server can be used. A server that is marked `drain` serves only \
         such clients. When the server is down, full or rests, the client gets another one and \
         stays with that.\n\n\
         - `cookie NAME`: answers set a cookie that names the server. The other parameters are \
         the cookie's attributes; a DOMAIN may hold variables. With `indirect` servers never see \
         the cookie, and it is only set when it changes.\n\
         - `route $VARIABLE ...`: the first of the variables that is not empty names the server, \
         see the parameter `route` of `server`.\n\
         - `learn`: the first `create` variable that is not empty after an answer names a \
         session, which belongs to the server that answered; `lookup` variables find the session \
         of a request. Sessions are forgotten after TIME without an answer, 10 minutes unless \
         given, and the least recently used ones when the zone is full; a megabyte holds about \
         15 000. With `header`, a session is known when the head of the answer is there, else when \
         the answer has ended. The zone is shared by all workers and survives a reload.",
    )
    .example(
        "upstream backend {\n    server 127.0.0.1:8081;\n    server 127.0.0.1:8082;\n    \
         sticky cookie srv_id expires=1h domain=.example.com path=/ httponly;\n}",
    );

/// What `sticky` says.
#[derive(Clone, Debug)]
pub enum Line {
    /// A cookie of our own.
    Cookie(CookieLine),
    /// Variables that name a server.
    Route(Vec<Source>),
    /// Sessions of the application.
    Learn(LearnLine),
}

fn read(args: &Args<'_>) -> Result<Line, Invalid> {
    match args.word(0).bytes() {
        b"cookie" => cookie::read(args).map(Line::Cookie),
        b"route" => (1..args.len())
            .map(|i| variable(args, i, args.word(i).bytes()))
            .collect::<Result<_, _>>()
            .map(Line::Route),
        b"learn" => learn::read(args).map(Line::Learn),
        _ => Err(unknown(args, 0)),
    }
}

/// `text` of argument `i` as one variable.
fn variable(args: &Args<'_>, i: usize, text: &[u8]) -> Result<Source, Invalid> {
    let refused = || Invalid::new(format!("invalid variable name \"{}\"", args.str(i))).at(i);
    let found = Source::parse(text).map_err(|_| refused())?;
    match found.parts.as_slice() {
        [config::Part::Variable(_)] => Ok(found),
        _ => Err(refused()),
    }
}

fn unknown(args: &Args<'_>, i: usize) -> Invalid {
    Invalid::new(format!("unknown parameter \"{}\"", args.str(i))).at(i)
}

/// What is wrong with the directive, after its name as nginx has it.
fn wrong(args: &Args<'_>, i: usize, what: &str) -> Invalid {
    Invalid::new(format!("\"{}\" directive {what}", args.name())).at(i)
}

fn compile(c: &mut Compiler<'_>, http: &Scope<'_>) {
    let groups = c.state::<SharedGroups>().clone();
    for (name, block) in http.blocks(&upstream::directives::BLOCK) {
        let Some((line, span)) = block.local_spanned(&STICKY) else { continue };
        let Some(group) = groups.0.borrow().named(&name).cloned() else { continue };
        let mut templates = |sources: &[Source]| -> Vec<Template> {
            sources.iter().map(|source| c.template(source)).collect()
        };
        let (lookup, kind) = match line {
            Line::Route(sources) => (templates(&sources), Kind::Route),
            Line::Cookie(line) => {
                let lookup = templates(&[line.variable()]);
                (lookup, Kind::Cookie(Cookie::compile(c, line)))
            }
            Line::Learn(line) => {
                let lookup = templates(&line.lookup);
                match Learn::compile(c, line, &name) {
                    Ok(learn) => (lookup, Kind::Learn(learn)),
                    Err(reason) => {
                        block.error(span, reason);
                        continue;
                    }
                }
            }
        };
        group.set_extra(Box::new(Sticky { lookup, kind, routes: RefCell::default() }));
    }
}

/// How the clients of a group are bound.
pub(crate) struct Sticky {
    /// The first of these that has a value says what the request is bound by.
    lookup: Vec<Template>,
    kind: Kind,
    /// Made by each worker for itself, at its first request.
    /// Of the group's members, and for which of its generations they hold.
    routes: RefCell<(Option<u32>, Rc<Routes>)>,
}

enum Kind {
    Cookie(Cookie),
    Route,
    Learn(Rc<Learn>),
}

/// The names of a group's servers.
#[derive(Default)]
struct Routes {
    of: Box<[Box<str>]>,
    /// By name, or by the name's hash in a zone of sessions.
    by_name: HashMap<Box<[u8]>, SmallVec<[PeerIndex; 2]>>,
    by_hash: HashMap<u64, SmallVec<[PeerIndex; 2]>>,
}

/// The binding of a group's clients, if there is one.
pub(crate) fn of(group: &Group) -> Option<&Sticky> {
    group.extra()
}

impl Sticky {
    /// Tells the balancer whom the request's client is bound to.
    pub(crate) fn bind(&self, x: &mut Exchange, attempts: &mut Attempts) {
        let Some(id) = first_value(&self.lookup, x) else { return };
        let group = attempts.group().clone();
        group.refresh();
        let routes = self.routes(&group);
        let peers = match &self.kind {
            Kind::Cookie(_) | Kind::Route => routes.by_name.get(x.text(id)),
            Kind::Learn(learn) => learn.find(x.text(id)).and_then(|hash| routes.by_hash.get(&hash)),
        };
        if let Some(peers) = peers {
            attempts.bind(peers);
        }
    }

    /// A peer was chosen: an answer will tell the client.
    pub(crate) fn chosen(&self, x: &mut Exchange, group: &Group, peer: PeerIndex) {
        if let Kind::Cookie(cookie) = &self.kind {
            let asked = first_value(&self.lookup, x);
            let routes = self.routes(group);
            let Some(route) = routes.of.get(peer as usize) else { return };
            cookie.set(x, asked, route);
        }
    }

    /// The head of the peer's answer is there, and known to the variables.
    pub(crate) fn answered(&self, x: &mut Exchange, attempts: &mut Attempts, peer: PeerIndex) {
        let Kind::Learn(learn) = &self.kind else { return };
        let created = first_value(&learn.create, x);
        let Some(session) = created.or_else(|| first_value(&self.lookup, x)) else { return };
        let session = learn::session(x.text(session));
        let routes = self.routes(attempts.group());
        let Some(route) = routes.of.get(peer as usize).cloned() else { return };
        let create = created.is_some();
        if learn.header {
            learn.remember(session, &route, create);
        } else {
            let learn = learn.clone();
            attempts.when_answered(Box::new(move || learn.remember(session, &route, create)));
        }
    }

    /// The cookie that servers must not see.
    pub(crate) fn hidden_cookie(&self) -> Option<&[u8]> {
        match &self.kind {
            Kind::Cookie(cookie) => cookie.hidden(),
            _ => None,
        }
    }

    fn routes(&self, group: &Group) -> Rc<Routes> {
        let mut routes = self.routes.borrow_mut();
        let generation = Some(group.generation());
        if routes.0 != generation {
            let hash = |route: &str| match &self.kind {
                Kind::Learn(learn) => learn.hash_of(route),
                _ => None,
            };
            *routes = (generation, Rc::new(Routes::new(group, hash)));
        }
        routes.1.clone()
    }
}

impl Routes {
    fn new(group: &Group, hash: impl Fn(&str) -> Option<u64>) -> Routes {
        let of: Box<[Box<str>]> = group.peers().iter().map(|peer| route_of(peer)).collect();
        let mut by_name = HashMap::<Box<[u8]>, SmallVec<[PeerIndex; 2]>>::new();
        let mut by_hash = HashMap::<u64, SmallVec<[PeerIndex; 2]>>::new();
        for ((peer, route), at) in (0..).zip(&of).zip(&group.peers()) {
            if at.is_gone {
                continue;
            }
            by_name.entry(route.as_bytes().into()).or_default().push(peer);
            if let Some(hash) = hash(route) {
                by_hash.entry(hash).or_default().push(peer);
            }
        }
        Routes { of, by_name, by_hash }
    }
}

/// The route of a server: that of its line, or the MD5 hash of its address as it is printed.
fn route_of(peer: &upstream::Peer) -> Box<str> {
    match &peer.route {
        Some(route) => route.clone(),
        None => {
            let hash: [u8; 16] = Md5::digest(peer.name.as_bytes()).into();
            hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
        }
    }
}

fn first_value(templates: &[Template], x: &mut Exchange) -> Option<Span> {
    templates.iter().map(|template| template.value(x)).find(|value| !value.is_empty())
}
