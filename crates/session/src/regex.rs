//! Regular expressions with nginx's semantics: PCRE2, compiled with its JIT, bounded in effort.
//!
//! A pattern that backtracks without end is stopped by a match limit and counts as an error,
//! so that one request cannot hold a worker (pcre2api(3), "match limit"). Patterns that are alike
//! are compiled once: a thousand servers with the same locations share one program, and its place
//! in the processor's cache.

use crate::text::{Arena, Span};
use pcre2::bytes::CaptureLocations;
use smallvec::SmallVec;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::{Rc, Weak};

/// How many internal calls one match may cost before it is given up.
const MATCH_LIMIT: u32 = 1_000_000;

/// A compiled pattern.
pub struct Regex {
    program: Rc<Program>,
}

/// What those who use the same pattern share.
struct Program {
    pattern: Box<str>,
    code: pcre2::bytes::Regex,
    /// Group number and name of each named group.
    names: Vec<(u8, Box<str>)>,
    /// Where groups are written while matching: made once, used by every match.
    places: RefCell<CaptureLocations>,
}

/// Whether letters match regardless of case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Case {
    /// `~`
    Sensitive,
    /// `~*`
    Ignored,
}

/// Programs by pattern.
type Programs = HashMap<(Case, Box<str>), Weak<Program>>;

thread_local! {
    /// Those that are in use.
    static PROGRAMS: RefCell<Programs> = RefCell::default();
}

/// The groups of the last successful match: spans of the arena that holds the subject.
#[derive(Clone, Debug, Default)]
pub struct Captures {
    groups: SmallVec<[Option<Span>; 4]>,
}

impl Captures {
    /// The `n`th group; 0 is the whole match.
    pub fn group(&self, n: u8) -> Option<Span> {
        self.groups.get(n as usize).copied().flatten()
    }
}

impl Regex {
    /// Compiles `pattern`.
    ///
    /// # Errors
    /// nginx's message: what PCRE2 says, the pattern and the place in it.
    pub fn new(pattern: &str, case: Case) -> Result<Regex, String> {
        let key = (case, Box::from(pattern));
        let known = PROGRAMS.with_borrow(|programs| programs.get(&key).and_then(Weak::upgrade));
        if let Some(program) = known {
            return Ok(Regex { program });
        }
        let program = Rc::new(Program::new(pattern, case)?);
        PROGRAMS.with_borrow_mut(|programs| {
            // Now and then those of configurations that are gone are forgotten.
            if programs.len().is_power_of_two() {
                programs.retain(|_, program| program.strong_count() > 0);
            }
            programs.insert(key, Rc::downgrade(&program));
        });
        Ok(Regex { program })
    }

    /// The pattern as written.
    pub fn pattern(&self) -> &str {
        &self.program.pattern
    }

    /// Number and name of each named group.
    pub fn names(&self) -> &[(u8, Box<str>)] {
        &self.program.names
    }

    /// How many groups there are, the whole match included.
    pub fn groups(&self) -> usize {
        self.program.code.captures_len()
    }

    /// True when the pattern occurs in `subject`.
    ///
    /// # Errors
    /// The match was given up (match limit, bad data); the text is PCRE2's.
    pub fn is_match(&self, subject: &[u8]) -> Result<bool, String> {
        self.program.code.is_match(subject).map_err(|error| error.to_string())
    }

    /// Matches text of `arena` and keeps the groups when it succeeds; of a pattern without groups
    /// nothing is kept.
    ///
    /// # Errors
    /// As [`Regex::is_match`].
    pub fn captures(&self, arena: &Arena, subject: Span) -> Result<Option<Captures>, String> {
        let text = arena.text(subject);
        if self.groups() == 1 {
            return Ok(self.is_match(text)?.then(Captures::default));
        }
        let mut places = self.program.places.borrow_mut();
        let found = self.program.code.captures_read(&mut places, text);
        if found.map_err(|error| error.to_string())?.is_none() {
            return Ok(None);
        }
        let groups = (0..places.len())
            .map(|n| places.get(n).map(|(from, to)| subject.part(from, to)))
            .collect();
        Ok(Some(Captures { groups }))
    }
}

impl Program {
    fn new(pattern: &str, case: Case) -> Result<Program, String> {
        let limited = format!("(*LIMIT_MATCH={MATCH_LIMIT}){pattern}");
        let code = pcre2::bytes::RegexBuilder::new()
            .caseless(case == Case::Ignored)
            .jit_if_available(true)
            .build(&limited)
            .map_err(|error| explain(pattern, limited.len() - pattern.len(), &error))?;
        let names = code
            .capture_names()
            .iter()
            .enumerate()
            .filter_map(|(n, name)| Some((u8::try_from(n).ok()?, name.as_deref()?.into())))
            .collect();
        let places = RefCell::new(code.capture_locations());
        Ok(Program { pattern: pattern.into(), code, names, places })
    }
}

fn explain(pattern: &str, prefix: usize, error: &pcre2::Error) -> String {
    let at = error.offset().unwrap_or(0).saturating_sub(prefix).min(pattern.len());
    // PCRE2's own sentence follows the last ": " of the crate's rendering.
    let text = error.to_string();
    let reason = text.rsplit(": ").next().unwrap_or(&text);
    match pattern.get(at..).filter(|rest| !rest.is_empty()) {
        None => format!("pcre2_compile() failed: {reason} in \"{pattern}\""),
        Some(rest) => format!("pcre2_compile() failed: {reason} in \"{pattern}\" at \"{rest}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_and_captures() {
        let mut arena = Arena::new();
        let uri = arena.push(b"/Images/cat.PNG");
        let regex = Regex::new(r"^/images/(?<name>.+)\.(png|jpg)$", Case::Ignored).unwrap();
        let captures = regex.captures(&arena, uri).unwrap().unwrap();
        assert_eq!(captures.group(1).map(|s| arena.text(s)), Some(&b"cat"[..]));
        assert_eq!(captures.group(2).map(|s| arena.text(s)), Some(&b"PNG"[..]));
        assert_eq!(captures.group(3), None);
        assert_eq!(regex.names(), &[(1, "name".into())]);
        assert!(!Regex::new("^/a", Case::Sensitive).unwrap().is_match(b"/b").unwrap());
    }

    #[test]
    fn patterns_that_are_alike_share_a_program() {
        let is_shared = |a: &Regex, b: &Regex| Rc::ptr_eq(&a.program, &b.program);
        let first = Regex::new("a.*b", Case::Sensitive).unwrap();
        assert!(is_shared(&first, &Regex::new("a.*b", Case::Sensitive).unwrap()));
        let other = Regex::new("a.*b", Case::Ignored).unwrap();
        assert!(!is_shared(&first, &other));
        assert!(other.is_match(b"AB").unwrap() && !first.is_match(b"AB").unwrap());
        // What nobody uses is forgotten.
        (0..100).for_each(|n| drop(Regex::new(&format!("x{n}"), Case::Sensitive)));
        assert!(PROGRAMS.with_borrow(HashMap::len) < 70);
        assert!(is_shared(&first, &Regex::new("a.*b", Case::Sensitive).unwrap()));
    }

    #[test]
    fn a_bad_pattern_says_where() {
        let message = Regex::new("(abc", Case::Sensitive).err().unwrap();
        assert!(message.contains("missing closing parenthesis"), "{message}");
        assert!(message.contains("in \"(abc\""), "{message}");
    }

    #[test]
    fn an_explosive_pattern_is_given_up() {
        let regex = Regex::new(r"^(a+)+$", Case::Sensitive).unwrap();
        let subject = [b'a'; 64].iter().copied().chain(*b"!").collect::<Vec<u8>>();
        assert!(regex.is_match(&subject).is_err());
    }
}
