//! Where the current URI lies in the file system: `root` and `alias`.

use crate::exchange::Exchange;
use crate::settings::Alias;
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;
use system::opening::{Links, Way};

/// Through which links files of a location are reached; locations without have none.
pub struct LinkRules {
    /// What is allowed.
    pub links: Links,
    /// The part of a path whose links are trusted.
    pub from: Option<Template>,
}

/// The way to the file at `path` in the current location.
pub fn way(x: &mut Exchange, path: Span) -> Way {
    if x.location.kept::<LinkRules>().is_none() {
        return Way::default();
    }
    let location = x.location.clone();
    let Some(rules) = location.kept::<LinkRules>() else { return Way::default() };
    let whole = Way { links: rules.links, trusted: 0 };
    let Some(from) = &rules.from else { return whole };
    let from = from.value(x);
    trust(whole, x.text(from), x.text(path))
}

/// Trusts the links in `from` when `path` begins with it, and all of them when it is the path.
fn trust(way: Way, from: &[u8], path: &[u8]) -> Way {
    let Some(rest) = path.strip_prefix(from).filter(|_| !from.is_empty()) else { return way };
    match (rest.first(), from.last()) {
        (None, _) => Way::default(),
        (Some(b'/'), _) => Way { trusted: from.len(), ..way },
        (_, Some(b'/')) => Way { trusted: from.len() - 1, ..way },
        _ => way,
    }
}

/// The path of the file that the URI names (`$request_filename`).
pub fn path(x: &mut Exchange) -> Span {
    let uri = x.request.uri;
    path_of(x, uri)
}

/// The path of the file that `uri` would name in the current location.
pub fn path_of(x: &mut Exchange, uri: Span) -> Span {
    let location = x.location.clone();
    let root = location.settings.root.value(x);
    let rest = match location.settings.alias {
        None => uri,
        Some(Alias::Prefix(length)) => uri.after(length),
        // The alias of a pattern is the whole path, made of the pattern's groups.
        Some(Alias::Whole) if x.file_below_alias => uri,
        Some(Alias::Whole) => return root,
    };
    let mark = x.arena.mark();
    x.arena.copy(root);
    x.arena.copy(rest);
    x.arena.since(mark)
}

/// True, with a line in the error log, when no file can be named: an `alias` replaces the
/// location's name, but the URI was rewritten and does not begin with it any more.
pub fn is_astray(x: &Exchange) -> bool {
    let is_astray = x.request.detached && x.location.settings.alias.is_some();
    if is_astray {
        let name = Bytes(&x.location.name);
        let message =
            format_args!("\"alias\" cannot be used in location \"{name}\" where URI was rewritten");
        x.log_error(Level::Alert, message);
    }
    is_astray
}

/// `root` or `alias` itself (`$document_root`).
pub fn root(x: &mut Exchange) -> Span {
    let location = x.location.clone();
    location.settings.root.value(x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_trusted() {
        let way = Way { links: Links::None, trusted: 0 };
        let check = |from: &str, expected: Way| {
            assert_eq!(trust(way, from.as_bytes(), b"/var/www/a"), expected, "{from}");
        };
        check("", way);
        check("/var", Way { trusted: 4, ..way });
        check("/var/", Way { trusted: 4, ..way });
        check("/va", way);
        check("/var/www/a", Way::default());
        check("/var/www/a/", way);
        check("/", Way { trusted: 0, ..way });
    }
}
