//! Where `proxy_pass` points: a group of peers and what replaces the location in the URI.

use crate::upstreams::SharedGroups;
use http::Location;
use http::{Compiler, Exchange};
use session::log::Level;
use session::text::Span;
use session::variables::Template;
use std::rc::Rc;
use upstream::{Group, Host, SystemNames};

/// The port of `http://` URLs.
const PORT: u16 = 80;

/// A compiled `proxy_pass`.
pub(super) enum Target {
    /// A fixed URL.
    Fixed(Fixed),
    /// A URL with variables, known per request.
    Variable { url: Template, groups: SharedGroups },
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
}

/// Where one request goes.
pub(super) struct Resolved {
    pub(super) group: Rc<Group>,
    pub(super) host: Span,
    pub(super) port: Span,
    /// The request target to send when the URL names one; otherwise the client's is kept.
    pub(super) path: Option<Span>,
}

/// The parts of `http://host:port/path`.
struct Url<'a> {
    host: &'a str,
    path: &'a str,
}

fn split(url: &str) -> Result<Url<'_>, String> {
    let scheme = url.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case("http://"));
    if scheme.is_none() {
        let tls = url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"));
        return Err(match tls {
            true => "https protocol requires SSL support".to_owned(),
            false => "invalid URL prefix".to_owned(),
        });
    }
    let rest = &url[7..];
    if let Some(socket) = rest.strip_prefix("unix:") {
        // The path of the socket ends at a colon, where the URI begins.
        let (path, uri) = socket.split_once(':').unwrap_or((socket, ""));
        return Ok(Url { host: &rest[..5 + path.len()], path: uri });
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    Ok(Url { host: &rest[..end], path: &rest[end..] })
}

/// Compiles the URL of a `proxy_pass` that stands in `location`. `may_have_path`: the location
/// has a name that a path can replace.
///
/// # Errors
/// nginx's words, without the place.
pub(super) fn compile(
    c: &mut Compiler<'_>,
    source: &config::Template,
    location: &Location,
    may_have_path: bool,
) -> Result<Target, String> {
    let groups = c.state::<SharedGroups>().clone();
    let Some(url) = source.constant() else {
        return Ok(Target::Variable { url: c.template(source), groups });
    };
    let text = String::from_utf8_lossy(url).into_owned();
    let url = split(&text)?;
    let parsed = upstream::Target::parse(url.host)
        .map_err(|reason| format!("{reason} in upstream \"{}\"", url.host))?;
    let group = groups.0.borrow_mut().locate(&parsed, PORT, &SystemNames)?;
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
        port: parsed
            .port
            .map_or_else(|| "80".to_owned(), |port| port.to_string())
            .into_bytes()
            .into(),
        path,
        name: location.name.clone(),
        url: text.as_bytes().into(),
    }))
}

/// Where the request goes. A fault is logged; the status answers it.
pub(super) fn resolve(x: &mut Exchange, target: &Target) -> Result<Resolved, u16> {
    match target {
        Target::Fixed(fixed) => {
            // A path that was rewritten within the location is passed whole.
            let path = fixed.path.as_ref().filter(|_| !x.request.detached);
            let path = path.map(|path| replaced(x, path, fixed.name.len()));
            Ok(Resolved {
                group: fixed.group.clone(),
                host: x.arena.push(&fixed.host),
                port: x.arena.push(&fixed.port),
                path,
            })
        }
        Target::Variable { url, groups } => {
            let url = url.value(x);
            let text = String::from_utf8_lossy(x.text(url)).into_owned();
            match variable(x, &text, groups) {
                Ok(resolved) => Ok(resolved),
                Err((reason, status)) => {
                    x.log_error(Level::Error, format_args!("{reason}"));
                    Err(status)
                }
            }
        }
    }
}

fn variable(
    x: &mut Exchange,
    text: &str,
    groups: &SharedGroups,
) -> Result<Resolved, (String, u16)> {
    let url = split(text).map_err(|reason| (format!("{reason} in \"{text}\""), 500))?;
    let parsed = upstream::Target::parse(url.host)
        .map_err(|reason| (format!("{reason} in upstream \"{}\"", url.host), 500))?;
    let known = groups.0.borrow().known(&parsed, PORT).is_some();
    if let (Host::Name(name), false) = (&parsed.host, known) {
        return Err((format!("no resolver defined to resolve {name}"), 502));
    }
    let located = groups.0.borrow_mut().locate(&parsed, PORT, &SystemNames);
    let group = located.map_err(|reason| (reason, 500))?;
    let port = parsed.port.unwrap_or(PORT);
    let path = match url.path {
        "" => None,
        path if path.starts_with('?') => Some(x.arena.format(format_args!("/{path}"))),
        path => Some(x.arena.push(path.as_bytes())),
    };
    Ok(Resolved {
        group,
        host: match parsed.host {
            Host::Unix(_) => x.arena.push(b"localhost"),
            _ => x.arena.push(url.host.as_bytes()),
        },
        port: x.arena.number(u64::from(port)),
        path,
    })
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
