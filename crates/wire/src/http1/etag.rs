//! Entity tags and the lists of them in conditional requests (RFC 9110 sections 8.8.3, 13.1).

/// How two tags are compared (RFC 9110 section 8.8.3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `If-Match`, `If-Range`: a weak tag in the list equals only itself, byte for byte.
    Strong,
    /// `If-None-Match`: `W/` is looked past on both sides.
    Weak,
}

/// True when `list` is `*` or names `etag`, which is the response's tag with its quotes.
///
/// As in nginx, `*` matches whether or not the response has a tag, any other list only with one.
pub fn matches(list: &[u8], etag: Option<&[u8]>, comparison: Comparison) -> bool {
    if list == b"*" {
        return true;
    }
    let Some(etag) = etag else { return false };
    let bare = |tag| strip_weak(tag, comparison);
    let etag = bare(etag);
    if etag.is_empty() {
        return false;
    }
    let mut rest = list;
    loop {
        rest = bare(rest);
        if let Some(after) = rest.strip_prefix(etag) {
            let after = super::token::trim(after);
            if matches!(after.first(), None | Some(b',')) {
                return true;
            }
        }
        let Some(comma) = memchr::memchr(b',', rest) else { return false };
        rest = &rest[comma..];
        while let [b' ' | b'\t' | b',', tail @ ..] = rest {
            rest = tail;
        }
        if rest.is_empty() {
            return false;
        }
    }
}

fn strip_weak(tag: &[u8], comparison: Comparison) -> &[u8] {
    match comparison {
        Comparison::Weak if tag.len() > 2 => tag.strip_prefix(b"W/").unwrap_or(tag),
        _ => tag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let check = |list: &str, etag: Option<&str>, comparison, expected| {
            let found = matches(list.as_bytes(), etag.map(str::as_bytes), comparison);
            assert_eq!(found, expected, "{list:?} {etag:?} {comparison:?}");
        };
        use Comparison::*;
        check("*", None, Strong, true);
        check("*", Some("\"a\""), Weak, true);
        check("\"a\"", None, Weak, false);
        check("\"a\"", Some("\"a\""), Strong, true);
        check("\"b\"", Some("\"a\""), Strong, false);
        check("\"b\", \"a\"", Some("\"a\""), Strong, true);
        check("\"b\" ,\t\"a\" , \"c\"", Some("\"a\""), Strong, true);
        check("\"b\",,\"a\"", Some("\"a\""), Strong, true);
        check("\"ab\"", Some("\"a\""), Strong, false);
        check("\"a\"b", Some("\"a\""), Strong, false);
        check("W/\"a\"", Some("\"a\""), Strong, false);
        check("\"a\"", Some("W/\"a\""), Strong, false);
        check("W/\"a\"", Some("\"a\""), Weak, true);
        check("\"a\"", Some("W/\"a\""), Weak, true);
        check("\"b\", W/\"a\"", Some("W/\"a\""), Weak, true);
        check("", Some("\"a\""), Weak, false);
        check("\"a", Some("\"a\""), Weak, false);
        check("\"b\",", Some("\"a\""), Weak, false);
    }
}
