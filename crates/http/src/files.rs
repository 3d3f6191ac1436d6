//! Where the current URI lies in the file system: `root` and `alias`.

use crate::exchange::Exchange;
use crate::location::Matching;
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
    if !location.settings.is_alias {
        let mark = x.arena.mark();
        x.arena.copy(root);
        x.arena.copy(uri);
        return x.arena.since(mark);
    }
    match location.matching {
        // The alias of a pattern is the whole path, made of the pattern's groups.
        Matching::Regex(_) => root,
        _ => {
            let rest = uri.after(location.name.len());
            let mark = x.arena.mark();
            x.arena.copy(root);
            x.arena.copy(rest);
            x.arena.since(mark)
        }
    }
}

/// `root` or `alias` itself (`$document_root`).
pub fn root(x: &mut Exchange) -> Span {
    let location = x.location.clone();
    location.settings.root.value(x)
}
