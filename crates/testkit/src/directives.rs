//! A small reader of configuration texts: which directives stand where, and the text without one.
//!
//! `cargo xtask directives` asks whether a test notices when a directive is deleted; this module
//! answers which directives a test's configurations hold and takes one out. It reads nginx's
//! grammar loosely on purpose, since tests hand it broken texts too, and it shares no code with
//! the parser under test.

use std::ops::Range;

/// Blocks whose rows begin with data, not with the name of a directive.
const FREE_ROWS: &[&str] = &["types", "map", "geo", "split_clients", "charset_map", "match"];

/// A directive in a text: its words up to `;` or `{`, and the bytes from its first letter to its
/// `;` or, for a block, its closing `}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The name and the arguments, quotes taken off.
    pub words: Vec<String>,
    /// Where it stands in the text.
    pub span: Range<usize>,
    /// 0 at the top level, 1 inside one block, and so on.
    pub depth: usize,
    /// True for the rows of `types`, `map` and the like: data, not directives.
    pub row: bool,
    /// Where the inside of a block starts.
    pub inside: Option<usize>,
}

impl Statement {
    /// The directive's name.
    pub fn name(&self) -> &str {
        &self.words[0]
    }
}

/// Every statement of `text`, in the order in which they begin.
pub fn statements(text: &str) -> Vec<Statement> {
    let mut found: Vec<Statement> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut words: Vec<String> = Vec::new();
    let mut start = 0;
    let mut at = 0;
    while let Some(token) = next_token(text, &mut at) {
        match token {
            Token::Word(word, from) => {
                if words.is_empty() {
                    start = from;
                }
                words.push(word);
            }
            Token::End | Token::Open if words.is_empty() => {
                if matches!(token, Token::Open) {
                    // A block without a name is broken; its inside is read all the same.
                    words.push(String::new());
                    start = at - 1;
                    open.push(found.len());
                    found.push(statement(&mut words, start..at, &open[..open.len() - 1], &found));
                }
            }
            Token::End => {
                found.push(statement(&mut words, start..at, &open, &found));
            }
            Token::Open => {
                let mut block = statement(&mut words, start..at, &open, &found);
                block.inside = Some(at);
                open.push(found.len());
                found.push(block);
            }
            Token::Close => {
                words.clear();
                if let Some(block) = open.pop() {
                    found[block].span.end = at;
                }
            }
        }
    }
    // Blocks that are never closed reach to the end.
    for block in open {
        found[block].span.end = text.len();
    }
    found
}

fn statement(
    words: &mut Vec<String>,
    span: Range<usize>,
    open: &[usize],
    found: &[Statement],
) -> Statement {
    let row = open.iter().any(|block| FREE_ROWS.contains(&found[*block].name()));
    Statement { words: std::mem::take(words), span, depth: open.len(), row, inside: None }
}

/// `text` with every directive of that name blanked out, blocks with all they hold; line breaks
/// stay, so other lines keep their numbers. None when there is no such directive.
pub fn delete(text: &str, name: &str) -> Option<String> {
    let mut bytes = text.as_bytes().to_vec();
    let mut any = false;
    for statement in statements(text).iter().filter(|found| !found.row && found.name() == name) {
        any = true;
        for byte in &mut bytes[statement.span.clone()] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    // Blanking whole statements, whose ends are ASCII, leaves whole characters.
    any.then(|| String::from_utf8(bytes).expect("statements begin and end at characters"))
}

enum Token {
    Word(String, usize),
    End,
    Open,
    Close,
}

fn next_token(text: &str, at: &mut usize) -> Option<Token> {
    let bytes = text.as_bytes();
    loop {
        let byte = *bytes.get(*at)?;
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => *at += 1,
            b'#' => *at += text[*at..].find('\n').unwrap_or(text.len() - *at),
            b';' | b'{' | b'}' => {
                *at += 1;
                return Some(match byte {
                    b';' => Token::End,
                    b'{' => Token::Open,
                    _ => Token::Close,
                });
            }
            b'"' | b'\'' => return Some(quoted(text, at, byte)),
            _ => return Some(bare(text, at)),
        }
    }
}

fn quoted(text: &str, at: &mut usize, quote: u8) -> Token {
    let start = *at;
    let bytes = text.as_bytes();
    *at += 1;
    while let Some(byte) = bytes.get(*at) {
        *at += 1;
        match byte {
            b'\\' => *at = (*at + 1).min(bytes.len()),
            byte if *byte == quote => {
                return Token::Word(text[start + 1..*at - 1].to_string(), start);
            }
            _ => {}
        }
    }
    Token::Word(text.get(start + 1..).unwrap_or_default().to_string(), start)
}

fn bare(text: &str, at: &mut usize) -> Token {
    let start = *at;
    let bytes = text.as_bytes();
    while let Some(byte) = bytes.get(*at) {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' | b';' => break,
            b'{' if bytes[*at - 1] != b'$' => break,
            b'\\' => *at = (*at + 2).min(bytes.len()),
            _ => *at += 1,
        }
    }
    // A backslash before a character of several bytes may have led into its middle.
    while !text.is_char_boundary(*at) {
        *at += 1;
    }
    Token::Word(text[start..*at].to_string(), start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_found_with_their_depth() {
        let check = |text: &str, expected: &[(&str, usize)]| {
            let found = statements(text);
            let found: Vec<(String, usize)> = found
                .iter()
                .filter(|statement| !statement.row)
                .map(|statement| (statement.words.join(" "), statement.depth))
                .collect();
            let expected: Vec<(String, usize)> =
                expected.iter().map(|(words, depth)| (words.to_string(), *depth)).collect();
            assert_eq!(found, expected, "{text:?}");
        };
        check("a 1; b;", &[("a 1", 0), ("b", 0)]);
        check("a{b c;d{}}e;", &[("a", 0), ("b c", 1), ("d", 1), ("e", 0)]);
        check("a 'x;{' \"y\\\"}\"; # b;\nc;", &[("a x;{ y\\\"}", 0), ("c", 0)]);
        check("set $a ${b}c; d;", &[("set $a ${b}c", 0), ("d", 0)]);
        check("types { text/html html; } x;", &[("types", 0), ("x", 0)]);
        check("map $a $b { default 1; } x;", &[("map $a $b", 0), ("x", 0)]);
        check(
            "location ~ \\.p\\{2\\}$ { return 204; }",
            &[("location ~ \\.p\\{2\\}$", 0), ("return 204", 1)],
        );
        // Broken texts yield what they hold.
        check("a; } b;", &[("a", 0), ("b", 0)]);
        check("a { b; c", &[("a", 0), ("b", 1)]);
        check("a \"never closed", &[]);
        check("{ b; }", &[("", 0), ("b", 1)]);
    }

    #[test]
    fn deleting_keeps_the_other_lines_in_place() {
        let check = |text: &str, name: &str, expected: Option<&str>| {
            assert_eq!(delete(text, name).as_deref(), expected, "{name} in {text:?}");
        };
        check("a 1;\nb;\na 2;", "a", Some("    \nb;\n    "));
        check("s { a;\n}\nb;", "s", Some("      \n \nb;"));
        check("s { a; }", "a", Some("s {    }"));
        check("s { a; }", "b", None);
        check("types { a b; }", "a", None);
        check("s { a ü; }", "a", Some("s {       }"));
    }
}
