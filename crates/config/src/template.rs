//! Texts with variables: `"$scheme://${host}_$1"`.
//!
//! This is the syntax only. Which variables exist, and what they are worth, is decided above.

use crate::directive::Invalid;

/// A text cut into constant parts, variables and captures of the last matched expression.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// No two `Text` parts stand side by side, and none is empty.
    pub parts: Vec<Part>,
}

/// One piece of a [`Template`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Text(Vec<u8>),
    /// A variable's name, without `$` and braces.
    Variable(String),
    /// `$1` to `$9`.
    Capture(u8),
}

impl Template {
    /// Cuts a text. A name is made of letters, digits and `_`; in braces it may touch what
    /// follows. `$1` to `$9` are captures of one digit. A `$` cannot be escaped.
    ///
    /// # Errors
    /// nginx's words: `invalid variable name`, or that a closing bracket is missing.
    pub fn parse(source: &[u8]) -> Result<Template, String> {
        let mut parts = Vec::new();
        let mut rest = source;
        while !rest.is_empty() {
            let dollar = rest.iter().position(|&byte| byte == b'$').unwrap_or(rest.len());
            if dollar > 0 {
                parts.push(Part::Text(rest[..dollar].to_vec()));
                rest = &rest[dollar..];
                continue;
            }
            let (part, after) = variable(&rest[1..])?;
            parts.push(part);
            rest = after;
        }
        Ok(Template { parts })
    }

    /// Whether the text has neither variables nor captures.
    pub fn is_constant(&self) -> bool {
        self.parts.iter().all(|part| matches!(part, Part::Text(_)))
    }

    /// The text, when it is constant.
    pub fn constant(&self) -> Option<&[u8]> {
        match self.parts.as_slice() {
            [] => Some(b""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of the variables, in order, with repetitions.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Variable(name) => Some(name.as_str()),
            _ => None,
        })
    }
}

/// Reads what follows a `$`.
fn variable(source: &[u8]) -> Result<(Part, &[u8]), String> {
    const INVALID: &str = "invalid variable name";
    let (body, braced) = match source {
        [] => return Err(INVALID.to_owned()),
        [digit @ b'1'..=b'9', after @ ..] => return Ok((Part::Capture(digit - b'0'), after)),
        [b'{'] => return Err(INVALID.to_owned()),
        [b'{', body @ ..] => (body, true),
        body => (body, false),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let length = body.iter().position(|byte| !is_name(byte)).unwrap_or(body.len());
    let (name, after) = body.split_at(length);
    let name = String::from_utf8_lossy(name).into_owned();
    let after = match (braced, after.split_first()) {
        (false, _) => after,
        (true, Some((b'}', after))) => after,
        (true, _) => {
            return Err(format!("the closing bracket in \"{name}\" variable is missing"));
        }
    };
    if name.is_empty() {
        return Err(INVALID.to_owned());
    }
    Ok((Part::Variable(name), after))
}

/// Reads argument `i` of a directive as a template.
pub(crate) fn of_word(args: &crate::Args<'_>, i: usize) -> Result<Template, Invalid> {
    Template::parse(args.word(i).bytes()).map_err(|message| Invalid::new(message).at(i))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(template: &Template) -> String {
        let parts: Vec<String> = template
            .parts
            .iter()
            .map(|part| match part {
                Part::Text(text) => format!("'{}'", String::from_utf8_lossy(text)),
                Part::Variable(name) => format!("var {name}"),
                Part::Capture(n) => format!("cap {n}"),
            })
            .collect();
        parts.join(" ")
    }

    #[test]
    fn templates_are_cut_as_nginx_cuts_them() {
        for (source, expected) in [
            ("", ""),
            ("plain", "'plain'"),
            ("$a", "var a"),
            ("$a$b", "var a var b"),
            ("x${a}y", "'x' var a 'y'"),
            ("$a-b", "var a '-b'"),
            ("$10", "cap 1 '0'"),
            ("$0", "var 0"),
            ("${1}", "var 1"),
            ("$scheme://$host:8080$uri?", "var scheme '://' var host ':8080' var uri '?'"),
            ("{$a}", "'{' var a '}'"),
            ("$arg_Ab9", "var arg_Ab9"),
        ] {
            assert_eq!(show(&Template::parse(source.as_bytes()).unwrap()), expected, "{source}");
        }
        for (source, message) in [
            ("$", "invalid variable name"),
            ("a$", "invalid variable name"),
            ("$-", "invalid variable name"),
            ("$$a", "invalid variable name"),
            ("${", "invalid variable name"),
            ("${}", "invalid variable name"),
            ("${a", "the closing bracket in \"a\" variable is missing"),
            ("${a-b}", "the closing bracket in \"a\" variable is missing"),
        ] {
            assert_eq!(Template::parse(source.as_bytes()).unwrap_err(), message, "{source}");
        }
    }

    #[test]
    fn constants_are_known() {
        assert_eq!(Template::parse(b"").unwrap().constant(), Some(&b""[..]));
        assert_eq!(Template::parse(b"a b").unwrap().constant(), Some(&b"a b"[..]));
        assert!(!Template::parse(b"$1").unwrap().is_constant());
    }
}
