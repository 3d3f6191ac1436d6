//! Rust source as the laws see it: code without comments and literals, and its functions.
//!
//! A scanner, not a parser: it knows comments, strings and characters, and finds functions by
//! their keyword and braces. That is enough for laws that count and forbid.

/// A Rust file in two forms of equal length and equal line numbers.
pub(crate) struct Source<'a> {
    /// The text as it is.
    pub(crate) text: &'a str,
    /// The text with comments and the inside of literals blanked out.
    pub(crate) code: String,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Function {
    pub(crate) name: String,
    /// The line of `fn`, from 1.
    pub(crate) line: usize,
    /// Lines from `fn` to the closing brace, both counted.
    pub(crate) length: usize,
}

impl<'a> Source<'a> {
    /// Scans `text`.
    pub(crate) fn new(text: &'a str) -> Source<'a> {
        Source { text, code: blank(text) }
    }

    /// The part of `code` before the module of unit tests, which stands last in a file.
    pub(crate) fn code_without_tests(&self) -> &str {
        &self.code[..self.tests_at()]
    }

    /// Where the module of unit tests starts, or the end.
    pub(crate) fn tests_at(&self) -> usize {
        self.code.find("\n#[cfg(test)]\nmod tests").map_or(self.code.len(), |at| at + 1)
    }

    /// All functions with bodies, nested ones as well.
    pub(crate) fn functions(&self) -> Vec<Function> {
        let code = self.code.as_bytes();
        let mut found = Vec::new();
        for at in words(&self.code, "fn") {
            let rest = self.code[at + 2..].trim_start();
            let name: String =
                rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            // `fn(` is the type of a function pointer.
            if name.is_empty() {
                continue;
            }
            if let Some(end) = body_end(code, at) {
                let line = line_of(&self.code, at);
                let length = line_of(&self.code, end) - line + 1;
                found.push(Function { name, line, length });
            }
        }
        found
    }
}

/// Where `word` stands as a whole word in `code`.
pub(crate) fn words<'c>(code: &'c str, word: &'c str) -> impl Iterator<Item = usize> + 'c {
    let joins = |byte: Option<&u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_');
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let before = at.checked_sub(1).and_then(|before| code.as_bytes().get(before));
        !joins(before) && !joins(code.as_bytes().get(at + word.len()))
    })
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1
}

/// The closing brace of the function whose `fn` stands at `start`; None for a declaration.
fn body_end(code: &[u8], start: usize) -> Option<usize> {
    let mut round: usize = 0;
    let mut braces: usize = 0;
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'(' | b'[' => round += 1,
            b')' | b']' => round = round.saturating_sub(1),
            b'{' => braces += 1,
            b'}' => {
                braces = braces.checked_sub(1)?;
                if braces == 0 && round == 0 {
                    return Some(at);
                }
            }
            b';' if braces == 0 && round == 0 => return None,
            _ => {}
        }
    }
    None
}

/// Copies `text` with every byte of comments and literals replaced by a space, line breaks kept.
fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                at += 1;
                continue;
            }
        };
        for byte in &mut code[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Literals and comments begin and end at characters, so whole characters were replaced.
    String::from_utf8(code).unwrap_or_default()
}

/// The end of the comment or literal that begins at `at`, if one does.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let inside_word = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        let length = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        return Some(at + length);
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment(rest));
    }
    if rest[0] == b'\'' {
        return character(rest).map(|length| at + length);
    }
    if rest[0] == b'"' {
        return Some(at + string(rest));
    }
    // Prefixes: r, b, br, c, cr before a quote or before hashes and a quote.
    let prefix = rest.iter().take(2).take_while(|byte| b"rbc".contains(byte)).count();
    if prefix == 0 || inside_word {
        return None;
    }
    let raw = rest[prefix - 1] == b'r';
    let hashes = rest[prefix..].iter().take_while(|byte| **byte == b'#').count();
    match rest.get(prefix + hashes) {
        Some(b'"') if raw => Some(at + prefix + raw_string(&rest[prefix..], hashes)),
        Some(b'"') if hashes == 0 => Some(at + prefix + string(&rest[prefix..])),
        Some(b'\'') if rest[0] == b'b' && prefix == 1 && hashes == 0 => {
            character(&rest[1..]).map(|length| at + 1 + length)
        }
        _ => None,
    }
}

fn block_comment(rest: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn raw_string(rest: &[u8], hashes: usize) -> usize {
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let body = &rest[hashes + 1..];
    let found = body.windows(end.len()).position(|window| window == end);
    found.map_or(rest.len(), |at| hashes + 1 + at + end.len())
}

/// The length of a character literal; None for a lifetime.
fn character(rest: &[u8]) -> Option<usize> {
    match rest.get(1)? {
        b'\\' => {
            let close = rest.iter().skip(3).position(|byte| *byte == b'\'')?;
            Some(close + 4)
        }
        first => {
            // One character of one to four bytes and a quote; else it is a lifetime.
            let length = match first {
                0x00..0x80 => 1,
                0x80..0xe0 => 2,
                0xe0..0xf0 => 3,
                _ => 4,
            };
            (rest.get(1 + length) == Some(&b'\'')).then_some(length + 2)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let check = |text: &str, expected: &str| {
            assert_eq!(Source::new(text).code, expected, "{text:?}");
        };
        check("a // b\nc", "a     \nc");
        check("a /* b /* c */ d */ e", "a                   e");
        check(r#"f("x\"y") + 1"#, "f(      ) + 1");
        check("f(r\"a\\\") + 1", "f(     ) + 1");
        check("f(br#\"a\"b\"#) + 1", "f(         ) + 1");
        check("f('a', '\\'', '\\u{1}', b'{')", "f(   ,     ,        ,     )");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("number\"x\"", "number   ");
        check("'ü' x", "     x");
    }

    #[test]
    fn functions_are_measured() {
        let text = "fn a() {\n    x(\"}\");\n}\ntrait T { fn d(&self); }\n\
                    fn b(f: fn(u8)) -> [u8; 2] { [1, 2] }\n";
        let found = Source::new(text).functions();
        let found: Vec<_> = found.iter().map(|f| (f.name.as_str(), f.line, f.length)).collect();
        assert_eq!(found, [("a", 1, 3), ("b", 5, 1)]);
    }

    #[test]
    fn tests_stand_last() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {}\n";
        assert_eq!(Source::new(text).code_without_tests(), "fn a() {}\n");
    }
}
