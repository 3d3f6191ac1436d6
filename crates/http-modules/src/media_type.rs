//! The media type of an answer, found by the extension of the request's path.
//!
//! The path is the normalised one, after rewriting, not the name of a file: two URIs that lead to
//! one file may be answered with two types, as in nginx.

use http::Exchange;
use session::text::Span;

/// The type for the current path: that of its extension in `types`, else `default_type`; `None`
/// when that is empty.
pub fn of(x: &mut Exchange) -> Option<Span> {
    let location = x.location.clone();
    let settings = &location.settings;
    let extension = extension(x.text(x.request.uri));
    let types = &settings.types.by_extension;
    let found = match extension.iter().any(u8::is_ascii_uppercase) {
        false => types.get(extension),
        true => types.get(extension.to_ascii_lowercase().as_slice()),
    };
    let name: &[u8] = found.unwrap_or(&settings.default_type);
    if name.is_empty() { None } else { Some(x.arena.push(name)) }
}

/// What follows the last dot of the last segment; empty when that segment begins with its only
/// dot, since such files are hidden rather than of a kind.
fn extension(uri: &[u8]) -> &[u8] {
    match memchr::memrchr2(b'.', b'/', uri) {
        Some(at) if at >= 2 && uri[at] == b'.' && uri[at - 1] != b'/' => &uri[at + 1..],
        _ => b"",
    }
}

#[cfg(test)]
mod tests {
    use super::extension;

    #[test]
    fn extensions() {
        let check = |uri: &str, expected: &str| {
            assert_eq!(extension(uri.as_bytes()), expected.as_bytes(), "{uri}");
        };
        check("/a.html", "html");
        check("/a.tar.gz", "gz");
        check("/a.d/b", "");
        check("/.html", "");
        check("/d/.html", "");
        check("/d/.a.html", "html");
        check("/a.", "");
        check("/", "");
        check("", "");
        check(".x", "");
    }
}
