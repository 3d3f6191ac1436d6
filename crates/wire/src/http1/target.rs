//! Targets: from the bytes of a request line to path, query and extension; hosts; escaping.
//!
//! Paths are normalised as nginx does before it looks for a location: percent escapes are decoded
//! once, `.` and `..` segments resolved, runs of slashes merged where asked. `%2f` and `%2e` count
//! as slash and dot, so that no escape hides a segment from the rules of a configuration.

pub use super::escape::{Escape, Unescape, count_escapes, escape_html, escape_uri, unescape};
pub use super::host::{Authority, validate_host};

use super::Slice;
use super::escape::hex;

/// The parts of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The path as sent, in the raw target.
    pub raw_path: Slice,
    /// What follows the first `?`, up to a `#`; in the raw target. `Some` of length 0 for a bare
    /// `?`.
    pub args: Option<Slice>,
    /// What follows the last dot of the last segment, in the normalised path.
    pub exten: Option<Slice>,
    /// The path needed no change: nothing was written, and the raw path is the normalised one.
    pub plain: bool,
}

impl Target {
    /// The normalised path: a part of `raw` when plain, else all of `normalised`.
    #[inline]
    pub fn path<'a>(&self, raw: &'a [u8], normalised: &'a [u8]) -> &'a [u8] {
        if self.plain { self.raw_path.of(raw) } else { normalised }
    }

    /// The query, empty where there is none.
    #[inline]
    pub fn args<'a>(&self, raw: &'a [u8]) -> &'a [u8] {
        self.args.map_or(&[], |args| args.of(raw))
    }
}

/// Why a target is refused: nginx's "client sent invalid request", 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadTarget {
    /// It begins neither with `/` nor with `?`.
    NotAPath,
    /// `%` without two hexadecimal digits.
    BrokenEscape,
    /// `%00`.
    Nul,
    /// `..` above the root.
    AboveRoot,
}

/// Bytes that neither end a path nor can change it.
static USUAL: [bool; 256] = {
    let mut table = [true; 256];
    let special = b"/.%?#";
    let mut at = 0;
    while at < special.len() {
        table[special[at] as usize] = false;
        at += 1;
    }
    table
};

/// Splits and normalises the path and query of a request line ([`super::RequestLine::path`]).
///
/// `normalised` is cleared, and written only when the path is not plain; it then holds at most one
/// byte more than `raw`.
///
/// # Errors
/// See [`BadTarget`].
#[inline]
pub fn parse(
    raw: &[u8],
    merge_slashes: bool,
    normalised: &mut Vec<u8>,
) -> Result<Target, BadTarget> {
    normalised.clear();
    if raw.first() == Some(&b'/')
        && let Some(target) = plain(raw)
    {
        return Ok(target);
    }
    normalise(raw, merge_slashes, normalised)
}

/// The hot path: a target without escapes, double slashes and segments that begin with a dot.
#[inline]
fn plain(raw: &[u8]) -> Option<Target> {
    let mut after_slash = true;
    let mut exten = None;
    let mut at = 1;
    let end = loop {
        let Some(&byte) = raw.get(at) else { break raw.len() };
        if USUAL[byte as usize] {
            after_slash = false;
            at += 1;
            continue;
        }
        match byte {
            b'/' if !after_slash => {
                after_slash = true;
                exten = None;
            }
            b'.' if !after_slash => exten = Some(at + 1),
            b'?' => break at,
            _ => return None,
        }
        at += 1;
    };
    Some(Target {
        raw_path: Slice::between(0, end),
        args: args_after(raw, end),
        exten: exten.map(|at| Slice::between(at, end)),
        plain: true,
    })
}

/// The query behind a path that ends at `end`.
fn args_after(raw: &[u8], end: usize) -> Option<Slice> {
    let rest = match raw.get(end..) {
        Some([b'?', rest @ ..]) => rest,
        _ => return None,
    };
    let len = memchr::memchr(b'#', rest).unwrap_or(rest.len());
    Some(Slice::between(end + 1, end + 1 + len))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Segment {
    /// Inside a segment.
    Usual,
    /// At the start of one.
    Start,
    /// After its `.`
    Dot,
    /// After its `..`
    DotDot,
}

fn normalise(raw: &[u8], merge_slashes: bool, path: &mut Vec<u8>) -> Result<Target, BadTarget> {
    if !matches!(raw.first(), Some(b'/' | b'?')) {
        return Err(BadTarget::NotAPath);
    }
    if raw[0] == b'?' {
        path.push(b'/');
    }
    let mut segment = Segment::Usual;
    let mut exten = None;
    let mut at = 0;
    while let Some(&byte) = raw.get(at) {
        if byte == b'?' || byte == b'#' {
            break;
        }
        at += 1;
        let byte = if byte == b'%' {
            let decoded = escaped(raw, at)?;
            at += 2;
            if matches!(decoded, b'%' | b'#' | b'?') {
                path.push(decoded);
                segment = Segment::Usual;
                continue;
            }
            decoded
        } else {
            byte
        };
        if segment == Segment::Usual && matches!(byte, b'/' | b'.') {
            exten = (byte == b'.').then_some(path.len() + 1);
        }
        segment = step(path, segment, byte, merge_slashes)?;
    }
    resolve(path, segment)?;
    Ok(Target {
        raw_path: Slice::between(0, at),
        args: args_after(raw, at),
        exten: exten.map(|at| Slice::between(at, path.len())),
        plain: false,
    })
}

/// Takes one decoded byte of a path.
#[inline]
fn step(
    path: &mut Vec<u8>,
    segment: Segment,
    byte: u8,
    merge_slashes: bool,
) -> Result<Segment, BadTarget> {
    let next = match (segment, byte) {
        (Segment::Dot | Segment::DotDot, b'/') => {
            resolve(path, segment)?;
            return Ok(Segment::Start);
        }
        (Segment::Start, b'/') if merge_slashes => return Ok(Segment::Start),
        (Segment::Usual | Segment::Start, b'/') => Segment::Start,
        (Segment::Start, b'.') => Segment::Dot,
        (Segment::Dot, b'.') => Segment::DotDot,
        _ => Segment::Usual,
    };
    path.push(byte);
    Ok(next)
}

/// Decodes the two digits at `at`.
fn escaped(raw: &[u8], at: usize) -> Result<u8, BadTarget> {
    let digits = (raw.get(at).copied().and_then(hex), raw.get(at + 1).copied().and_then(hex));
    match digits {
        (Some(0), Some(0)) => Err(BadTarget::Nul),
        (Some(high), Some(low)) => Ok(high << 4 | low),
        _ => Err(BadTarget::BrokenEscape),
    }
}

/// Ends a segment that is `.` or `..`: takes it, and with `..` the one before it, off the path.
fn resolve(path: &mut Vec<u8>, segment: Segment) -> Result<(), BadTarget> {
    match segment {
        Segment::Usual | Segment::Start => Ok(()),
        Segment::Dot => {
            path.pop();
            Ok(())
        }
        Segment::DotDot => {
            // The path ends in "/..": what stands before that slash loses its last segment.
            let parent = path.len().checked_sub(3).ok_or(BadTarget::AboveRoot)?;
            let slash = path[..parent].iter().rposition(|&byte| byte == b'/');
            path.truncate(slash.ok_or(BadTarget::AboveRoot)? + 1);
            Ok(())
        }
    }
}

/// Splits a URI that an upstream or a configuration names for an internal redirect
/// (`X-Accel-Redirect`) and writes its decoded path to `path`; answers its query.
///
/// # Errors
/// `None` when it is unsafe: empty, a query alone, with a NUL, or with a `..` segment, bare or
/// escaped.
pub fn split_internal<'a>(uri: &'a [u8], path: &mut Vec<u8>) -> Option<Option<&'a [u8]>> {
    path.clear();
    let end = memchr::memchr(b'?', uri).unwrap_or(uri.len());
    let (raw, query) = (&uri[..end], uri.get(end + 1..));
    if raw.is_empty() || is_unsafe(raw) {
        return None;
    }
    unescape(raw, Unescape::All, path);
    if is_unsafe(path) { None } else { Some(query) }
}

fn is_unsafe(path: &[u8]) -> bool {
    path.contains(&0) || path.split(|&byte| byte == b'/').any(|segment| segment == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Shows a parsed target as `path|args|exten`, with `-` for what is absent, and `=` in front
    /// of a path that needed no change.
    fn shown(raw: &str, merge_slashes: bool) -> String {
        let mut out = Vec::new();
        match parse(raw.as_bytes(), merge_slashes, &mut out) {
            Err(fault) => format!("{fault:?}"),
            Ok(target) => {
                let path = target.path(raw.as_bytes(), &out);
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                let exten = target.exten.map(|exten| text(exten.of(path)));
                let args = target.args.map(|_| text(target.args(raw.as_bytes())));
                assert!(target.plain || out.len() <= raw.len() + 1);
                format!(
                    "{}{}|{}|{}",
                    if target.plain { "=" } else { "" },
                    text(path),
                    args.unwrap_or("-".into()),
                    exten.unwrap_or("-".into()),
                )
            }
        }
    }

    #[track_caller]
    fn check(raw: &str, expected: &str) {
        assert_eq!(shown(raw, true), expected, "{raw:?}");
    }

    #[test]
    fn plain_targets() {
        check("/", "=/|-|-");
        check("/a/b.html", "=/a/b.html|-|html");
        check("/a.b/c", "=/a.b/c|-|-");
        check("/a.b.c?d.e", "=/a.b.c|d.e|c");
        check("/a?", "=/a||-");
        check("/a?b?c//../%00", "=/a|b?c//../%00|-");
        check("/a?b#c", "=/a|b|-");
        check("/a.", "=/a.|-|");
        check("/a..b/c..", "=/a..b/c..|-|");
        check("/a+b\\c", "=/a+b\\c|-|-");
        check("/\u{fc}", "=/\u{fc}|-|-");
    }

    #[test]
    fn normalised_targets() {
        check("/a%20b", "/a b|-|-");
        check("/a%2Fb%2e%2E/c", "/a/b../c|-|-");
        check("/a/%2e%2e/b", "/b|-|-");
        check("/a/.%2e/b", "/b|-|-");
        check("/a%2f..%2fb", "/b|-|-");
        check("/a//b///c", "/a/b/c|-|-");
        check("//", "/|-|-");
        check("/./a/./b/.", "/a/b/|-|-");
        check("/a/..", "/|-|-");
        check("/a/../", "/|-|-");
        check("/a/b/../../c", "/c|-|-");
        check("/a/..b", "/a/..b|-|-");
        check("/a/...", "/a/...|-|-");
        check("/.a", "/.a|-|-");
        check("/.a.b", "/.a.b|-|b");
        check("/a.b/../c", "/c|-|-");
        check("/a//b.c?d", "/a/b.c|d|c");
        check("/a/.?b", "/a/|b|-");
        check("/a/..?b", "/|b|-");
        check("/a#b", "/a|-|-");
        check("/a/..#b", "/|-|-");
        check("/a#b?c", "/a|-|-");
        check("/a%23b%3fc%25d", "/a#b?c%d|-|-");
        check("/a%2523", "/a%23|-|-");
        check("/a%2ehtml", "/a.html|-|html");
        check("/%2e", "/|-|-");
        check("/a/%3f../b", "/a/?../b|-|-");
        check("?a=b", "/|a=b|-");
        check("?", "/||-");
        check("/a/%2e%2e%2f?%2e", "/|%2e|-");
        check("//a?b#c", "/a|b|-");
    }

    #[test]
    fn slashes_kept() {
        let check = |raw: &str, expected: &str| assert_eq!(shown(raw, false), expected, "{raw:?}");
        check("//", "//|-|-");
        check("/a//b///c", "/a//b///c|-|-");
        check("//..", "/|-|-");
        check("/a//../b", "/a/b|-|-");
        check("/a/.//b", "/a//b|-|-");
    }

    #[test]
    fn refused_targets() {
        check("", "NotAPath");
        check("*", "NotAPath");
        check("a/b", "NotAPath");
        check("#", "NotAPath");
        check("/..", "AboveRoot");
        check("/../", "AboveRoot");
        check("/a/../..", "AboveRoot");
        check("/..?a", "AboveRoot");
        check("/%2e%2e/a", "AboveRoot");
        check("/./../a", "AboveRoot");
        check("//../a", "AboveRoot");
        check("/%00", "Nul");
        check("/a%00.html", "Nul");
        check("/%", "BrokenEscape");
        check("/%2", "BrokenEscape");
        check("/%g0", "BrokenEscape");
        check("/%0g", "BrokenEscape");
        check("/%2?a", "BrokenEscape");
        check("/%?20", "BrokenEscape");
    }

    #[test]
    fn the_hot_path_agrees_with_the_thorough_one() {
        // Every target of up to six bytes over an alphabet of what matters.
        let alphabet = b"/.a?#";
        for number in 0..5usize.pow(6) {
            let digits = (0..6).map(|place| alphabet[number / 5usize.pow(place) % 5]);
            let raw: Vec<u8> = b"/".iter().copied().chain(digits).collect();
            let Some(quick) = plain(&raw) else { continue };
            let mut out = Vec::new();
            let thorough = normalise(&raw, true, &mut out).map(|found| (found.args, found.exten));
            assert_eq!(thorough, Ok((quick.args, quick.exten)), "{}", raw.escape_ascii());
            assert_eq!(quick.raw_path.of(&raw), out, "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn what_came_out_has_no_dot_segments() {
        let alphabet = b"/.a%2eF";
        for number in 0..7usize.pow(6) {
            let digits = (0..6).map(|place| alphabet[number / 7usize.pow(place) % 7]);
            let raw: Vec<u8> = b"/".iter().copied().chain(digits).collect();
            let mut out = Vec::new();
            let Ok(target) = parse(&raw, true, &mut out) else { continue };
            let path = target.path(&raw, &out);
            assert_eq!(path.first(), Some(&b'/'));
            assert!(!path.windows(2).any(|pair| pair == b"//"), "{}", raw.escape_ascii());
            let mut segments = path.split(|&byte| byte == b'/');
            assert!(!segments.any(|part| part == b"." || part == b".."), "{}", raw.escape_ascii());
        }
    }

    #[test]
    fn internal_uris() {
        let check = |uri: &str, expected: Option<(&str, Option<&str>)>| {
            let mut path = Vec::new();
            let query = split_internal(uri.as_bytes(), &mut path);
            let found = query.map(|query| {
                (
                    String::from_utf8_lossy(&path).into_owned(),
                    query.map(|query| String::from_utf8_lossy(query).into_owned()),
                )
            });
            let expected =
                expected.map(|(path, query)| (path.to_owned(), query.map(str::to_owned)));
            assert_eq!(found, expected, "{uri:?}");
        };
        check("/a/b", Some(("/a/b", None)));
        check("/a%20b?c=%20", Some(("/a b", Some("c=%20"))));
        check("a", Some(("a", None)));
        check("/a..b/..c", Some(("/a..b/..c", None)));
        check("", None);
        check("?a", None);
        check("..", None);
        check("../a", None);
        check("/a/../b", None);
        check("/a/..", None);
        check("/a/..?b", None);
        check("/a/%2e%2e/b", None);
        check("/a%2f..", None);
        check("/a%00", None);
        check("/a\0", None);
    }
}
