//! Where `proxy_pass` points: a group of peers and what replaces the location in the URI.

use super::family::Family;
use super::pass::client_gone;
use crate::upstreams::SharedGroups;
use config::Scope;
use http::Location;
use http::{Compiler, Exchange, Verdict};
use session::log::Level;
use session::text::Span;
use session::variables::Template;
use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::task::Poll;
use system::socket::Address;
use upstream::resolver::{LookUp, Resolvers};
use upstream::{Group, Host, SystemNames};

/// The port of URLs that name none.
fn usual_port(secure: bool) -> u16 {
    if secure { 443 } else { 80 }
}

/// A compiled `proxy_pass`.
pub(super) enum Target {
    /// A fixed URL.
    Fixed(Fixed),
    /// A URL with variables, known per request.
    Variable(Variable),
}

/// A URL with variables.
pub(super) struct Variable {
    url: Template,
    /// Whose address it is, where it is no URL: one without a path, and perhaps with a scheme.
    address_of: Option<&'static Family>,
    groups: SharedGroups,
    look_up: LookUp,
}

/// A URL without variables.
pub(super) struct Fixed {
    pub(super) group: Rc<Group>,
    /// `host[:port]` as written: the default Host, and `$proxy_host`.
    pub(super) host: Box<[u8]>,
    pub(super) port: Box<[u8]>,
    /// The path of the URL, which replaces `location` at the start of the URI; `None` passes the
    /// URI as it is.
    pub(super) path: Option<Box<[u8]>>,
    /// The location's name: what the path replaces.
    pub(super) name: Box<[u8]>,
    /// The whole URL, for `proxy_redirect default`.
    pub(super) url: Box<[u8]>,
    /// Its scheme is `https`.
    pub(super) secure: bool,
}

impl Target {
    /// Whether requests may go over TLS.
    pub(super) fn may_be_secure(&self) -> bool {
        match self {
            Target::Fixed(fixed) => fixed.secure,
            Target::Variable(_) => true,
        }
    }
}

/// Where one request goes.
pub(super) struct Resolved {
    pub(super) group: Rc<Group>,
    pub(super) host: Span,
    pub(super) port: Span,
    /// The request target to send when the URL names one; otherwise the client's is kept.
    pub(super) path: Option<Span>,
    /// Over TLS.
    pub(super) secure: bool,
}

/// Where one request goes, or whose addresses must be looked up first.
pub(super) enum Place {
    Group(Resolved),
    Name(Named),
}

/// A name to look up.
pub(super) struct Named {
    name: String,
    port: u16,
    host: Span,
    port_text: Span,
    path: Option<Span>,
    secure: bool,
}

impl Named {
    /// What the variables tell of it.
    pub(super) fn names(&self) -> (Span, Span) {
        (self.host, self.port_text)
    }
}

/// The parts of `http://host:port/path`.
struct Url<'a> {
    host: &'a str,
    path: &'a str,
    secure: bool,
}

fn split(url: &str) -> Result<Url<'_>, String> {
    let begins = |scheme: &str| {
        url.get(..scheme.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    };
    let (rest, secure) = match (begins("http://"), begins("https://")) {
        (true, _) => (&url[7..], false),
        (_, true) => (&url[8..], true),
        _ => return Err("invalid URL prefix".to_owned()),
    };
    if let Some(socket) = rest.strip_prefix("unix:") {
        // The path of the socket ends at a colon, where the URI begins.
        let (path, uri) = socket.split_once(':').unwrap_or((socket, ""));
        return Ok(Url { host: &rest[..5 + path.len()], path: uri, secure });
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Ok(Url { host: &rest[..end], path: &rest[end..], secure })
}

/// Compiles the URL of a `proxy_pass` that stands in `location`. `may_have_path`: the location
/// has a name that a path can replace.
///
/// # Errors
/// nginx's words, without the place.
pub(super) fn compile(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    source: &config::Template,
    location: &Location,
    may_have_path: bool,
) -> Result<Target, String> {
    let groups = c.state::<SharedGroups>().clone();
    let look_up = c.state::<Resolvers>().look_up(scope, &SystemNames);
    let Some(url) = source.constant() else {
        return Ok(Target::Variable(Variable {
            url: c.template(source),
            address_of: None,
            groups,
            look_up,
        }));
    };
    let text = String::from_utf8_lossy(url).into_owned();
    let url = split(&text)?;
    let parsed = upstream::Target::parse(url.host)
        .map_err(|reason| format!("{reason} in upstream \"{}\"", url.host))?;
    let usual = usual_port(url.secure);
    let group = groups.0.borrow_mut().locate(&parsed, usual, &SystemNames)?;
    if !url.path.is_empty() && !may_have_path {
        let reason = "\"proxy_pass\" cannot have URI part in location given by regular expression, \
                      or inside named location, or inside \"if\" statement, \
                      or inside \"limit_except\" block";
        return Err(reason.to_owned());
    }
    let path = match url.path {
        "" => None,
        path if path.starts_with('?') => Some(format!("/{path}").into_bytes().into()),
        path => Some(path.as_bytes().into()),
    };
    let is_unix = matches!(parsed.host, Host::Unix(_));
    Ok(Target::Fixed(Fixed {
        group,
        host: if is_unix { b"localhost".as_slice().into() } else { url.host.as_bytes().into() },
        port: parsed.port.unwrap_or(usual).to_string().into_bytes().into(),
        path,
        name: location.name.clone(),
        url: text.as_bytes().into(),
        secure: url.secure,
    }))
}

/// Compiles the address of a `fastcgi_pass` and its kin.
///
/// # Errors
/// nginx's words, without the place.
pub(crate) fn compile_address(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    family: &'static Family,
    source: &config::Template,
) -> Result<Target, String> {
    let groups = c.state::<SharedGroups>().clone();
    let look_up = c.state::<Resolvers>().look_up(scope, &SystemNames);
    let Some(address) = source.constant() else {
        let url = c.template(source);
        return Ok(Target::Variable(Variable { url, address_of: Some(family), groups, look_up }));
    };
    let text = String::from_utf8_lossy(address).into_owned();
    let (text, secure) = family.without_scheme(&text);
    let parsed = upstream::Target::parse(text)
        .map_err(|reason| format!("{reason} in upstream \"{text}\""))?;
    let is_group = groups.0.borrow().named(&parsed.text).is_some();
    let is_unix = matches!(parsed.host, Host::Unix(_));
    if parsed.port.is_none() && !is_group && !is_unix {
        return Err(format!("no port in upstream \"{text}\""));
    }
    let group = groups.0.borrow_mut().locate(&parsed, usual_port(secure), &SystemNames)?;
    let port = parsed.port.map_or_else(String::new, |port| port.to_string());
    Ok(Target::Fixed(Fixed {
        group,
        host: if is_unix { b"localhost".as_slice().into() } else { text.as_bytes().into() },
        port: port.into_bytes().into(),
        path: None,
        secure,
        name: Box::default(),
        url: text.as_bytes().into(),
    }))
}

/// Where the request goes. A fault is logged; the status answers it.
pub(super) fn resolve(x: &mut Exchange, target: &Target) -> Result<Place, u16> {
    match target {
        Target::Fixed(fixed) => {
            // A path that was rewritten within the location is passed whole.
            let path = fixed.path.as_ref().filter(|_| !x.request.detached);
            let path = path.map(|path| replaced(x, path, fixed.name.len()));
            Ok(Place::Group(Resolved {
                group: fixed.group.clone(),
                host: x.arena.push(&fixed.host),
                port: x.arena.push(&fixed.port),
                path,
                secure: fixed.secure,
            }))
        }
        Target::Variable(variable) => {
            let url = variable.url.value(x);
            let text = String::from_utf8_lossy(x.text(url)).into_owned();
            resolve_variable(x, &text, variable).map_err(|reason| {
                x.log_error(Level::Error, format_args!("{reason}"));
                500
            })
        }
    }
}

fn resolve_variable(x: &mut Exchange, text: &str, variable: &Variable) -> Result<Place, String> {
    let Variable { address_of, groups, .. } = variable;
    let url = match address_of {
        Some(family) => {
            let (host, secure) = family.without_scheme(text);
            Url { host, path: "", secure }
        }
        None => split(text).map_err(|reason| format!("{reason} in \"{text}\""))?,
    };
    let parsed = upstream::Target::parse(url.host)
        .map_err(|reason| format!("{reason} in upstream \"{}\"", url.host))?;
    let is_group = groups.0.borrow().named(&parsed.text).is_some();
    let needs_port = address_of.is_some() && !is_group;
    if needs_port && parsed.port.is_none() && !matches!(parsed.host, Host::Unix(_)) {
        return Err(format!("no port in upstream \"{}\"", url.host));
    }
    let secure = url.secure;
    let port = parsed.port.unwrap_or(usual_port(secure));
    let path = match url.path {
        "" => None,
        path if path.starts_with('?') => Some(x.arena.format(format_args!("/{path}"))),
        path => Some(x.arena.push(path.as_bytes())),
    };
    let host = match parsed.host {
        Host::Unix(_) => x.arena.push(b"localhost"),
        _ => x.arena.push(url.host.as_bytes()),
    };
    let port_text = x.arena.number(u64::from(port));
    let known = groups.0.borrow().known(&parsed, usual_port(secure)).cloned();
    let group = match (known, parsed.host) {
        (Some(group), _) => group,
        (None, Host::Name(name)) => {
            return Ok(Place::Name(Named { name, port, host, port_text, path, secure }));
        }
        (None, Host::Ip(ip)) => {
            let address = Address::Inet((ip, port).into());
            upstream::implied(&parsed.text, vec![address])
        }
        (None, Host::Unix(path)) => upstream::implied(&parsed.text, vec![Address::Unix(path)]),
    };
    Ok(Place::Group(Resolved { group, host, port: port_text, path, secure }))
}

/// Looks a name up, unless the client leaves meanwhile. A fault is logged.
pub(super) async fn look_up(
    x: &mut Exchange,
    target: &Target,
    watched: bool,
    named: Named,
) -> Result<Resolved, Verdict> {
    let Target::Variable(variable) = target else { return Err(Verdict::Status(500)) };
    let Named { name, port, host, port_text, path, secure } = named;
    let side = x.side();
    let found = {
        let mut finding = std::pin::pin!(variable.look_up.group(&name, port));
        poll_fn(|cx| {
            if let Poll::Ready(found) = finding.as_mut().poll(cx) {
                return Poll::Ready(Some(found));
            }
            match watched && side.poll_gone(cx).is_ready() {
                true => Poll::Ready(None),
                false => Poll::Pending,
            }
        })
        .await
    };
    match found {
        Some(Ok(group)) => Ok(Resolved { group, host, port: port_text, path, secure }),
        Some(Err(reason)) => {
            x.log_error(Level::Error, format_args!("{reason}"));
            Err(Verdict::Status(502))
        }
        None => {
            let message = "client prematurely closed connection";
            x.log_error(Level::Info, format_args!("{message}"));
            Err(client_gone(x))
        }
    }
}

/// The URI with `path` in place of its first `location` bytes, and its query.
fn replaced(x: &mut Exchange, path: &[u8], location: usize) -> Span {
    let rest = x.request.uri.after(location.min(x.request.uri.len as usize));
    let mark = x.arena.mark();
    x.arena.push(path);
    push_escaped(x, rest);
    push_query(x);
    x.arena.since(mark)
}

/// The client's own target: as it was sent, or rebuilt when it was rewritten.
pub(super) fn kept(x: &mut Exchange) -> Span {
    if !x.request.rewritten {
        return x.request.target;
    }
    let mark = x.arena.mark();
    push_escaped(x, x.request.uri);
    push_query(x);
    x.arena.since(mark)
}

fn push_escaped(x: &mut Exchange, text: Span) {
    if x.request.plain_uri {
        x.arena.copy(text);
        return;
    }
    let mut escaped = Vec::new();
    let escape = wire::http1::target::Escape::Uri;
    wire::http1::target::escape_uri(x.text(text), escape, &mut escaped);
    x.arena.push(&escaped);
}

fn push_query(x: &mut Exchange) {
    if !x.request.args.is_empty() {
        x.arena.push(b"?");
        x.arena.copy(x.request.args);
    }
}
