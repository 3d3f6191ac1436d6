//! Lists of media types that say which answers a filter looks at: `sub_filter_types` and its kin.

use config::{Args, Invalid};
use http::Exchange;

/// The type that every such list holds.
const ALWAYS: &str = "text/html";

/// The media types of the answers that a filter is for.
pub enum TypeList {
    /// `*`: all answers, those without a type too.
    Any,
    /// These, in lower case.
    Listed(Box<[Box<[u8]>]>),
}

/// Reads one line of a list: the types in lower case.
///
/// # Errors
/// None; a type that is named twice draws a warning.
pub fn read(args: &Args<'_>) -> Result<Vec<String>, Invalid> {
    let mut types: Vec<String> = Vec::new();
    for (i, word) in args.words().iter().enumerate() {
        let name = word.str().to_ascii_lowercase();
        if name == "*" {
            return Ok(vec![name]);
        }
        if name == ALWAYS && args.len() == 1 && types.is_empty() {
            return Ok(vec![name]);
        }
        if name == ALWAYS || types.contains(&name) {
            let shown = word.str();
            args.warn(Invalid::new(format!("duplicate MIME type \"{shown}\"")).at(i));
            continue;
        }
        types.push(name);
    }
    Ok(types)
}

impl TypeList {
    /// The list that all its lines make; `text/html` is always on it.
    pub fn compile(lines: Vec<Vec<String>>) -> TypeList {
        let types: Vec<String> = lines.into_iter().flatten().collect();
        if types.iter().any(|name| name == "*") {
            return TypeList::Any;
        }
        let mut list: Vec<Box<[u8]>> = vec![ALWAYS.as_bytes().into()];
        list.extend(types.into_iter().map(|name| name.into_bytes().into()));
        TypeList::Listed(list.into())
    }

    /// True when the answer at hand is of one of the types.
    pub fn has(&self, x: &Exchange) -> bool {
        match self {
            TypeList::Any => true,
            TypeList::Listed(list) => x.response.content_type.is_some_and(|kind| {
                let kind = without_charset(x.text(kind));
                list.iter().any(|listed| kind.eq_ignore_ascii_case(listed))
            }),
        }
    }
}

/// A backend's Content-Type without its charset. Other parameters belong to the type, as in nginx.
fn without_charset(kind: &[u8]) -> &[u8] {
    const NAME: &[u8] = b"charset=";
    for at in memchr::memchr_iter(b';', kind) {
        let parameter = kind[at + 1..].trim_ascii_start();
        if parameter.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)) {
            return kind[..at].trim_ascii_end();
        }
    }
    kind
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn charsets_are_no_part_of_the_type() {
        let check = |kind: &str, expected: &str| {
            assert_eq!(without_charset(kind.as_bytes()), expected.as_bytes(), "{kind}");
        };
        check("text/html", "text/html");
        check("text/html; charset=utf-8", "text/html");
        check("text/html ;CharSet=\"utf-8\"", "text/html");
        check("text/html; level=1", "text/html; level=1");
        check("text/html; level=1; charset=a", "text/html; level=1");
        check("text/html;", "text/html;");
        check("", "");
    }

    #[test]
    fn lists() {
        let check = |lines: &[&[&str]], expected: Option<&[&str]>| {
            let lines = lines.iter().map(|line| line.iter().map(|t| t.to_string()).collect());
            let found = match TypeList::compile(lines.collect()) {
                TypeList::Any => None,
                TypeList::Listed(list) => Some(
                    list.iter()
                        .map(|name| String::from_utf8_lossy(name).into_owned())
                        .collect::<Vec<_>>(),
                ),
            };
            assert_eq!(
                found.as_deref(),
                expected.map(|l| l.iter().map(|t| t.to_string()).collect::<Vec<_>>()).as_deref()
            );
        };
        check(&[], Some(&["text/html"]));
        check(&[&["a/b"], &["c/d", "e/f"]], Some(&["text/html", "a/b", "c/d", "e/f"]));
        check(&[&["a/b"], &["*"]], None);
    }
}
