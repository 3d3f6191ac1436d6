//! Where the current URI lies in the file system: `root` and `alias`.

use crate::exchange::Exchange;
use crate::settings::Alias;
use session::log::{Bytes, Level};
use session::text::Span;

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
