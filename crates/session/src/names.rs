//! Values by host name: exact names, `*.example.com`, `.example.com` and `www.example.*`.
//!
//! The most specific one wins: an exact name, then the longest wildcard at the beginning, then
//! the longest at the end (nginx: ngx_hash.c, "combined"). Names are compared without regard to
//! the case of ASCII letters. Used by `map` and `valid_referers`; regular expressions are theirs.

use std::collections::HashMap;

/// Values by host name.
pub struct Names<T> {
    values: Vec<T>,
    exact: Index,
    /// ".example.com" for `*.example.com`; the key has its leading dot.
    heads: Index,
    /// "www." for `www.*`; the key has its final dot.
    tails: Index,
}

type Index = HashMap<Box<[u8]>, u32>;

/// Why a name was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is no name and no wildcard.
    Invalid,
    /// The same one is there already.
    Conflict,
}

/// How a name is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Each byte stands for itself.
    Plain,
    /// Asterisks and a leading dot are wildcards.
    Wildcards,
}

impl<T> Default for Names<T> {
    fn default() -> Names<T> {
        Names {
            values: Vec::new(),
            exact: Index::default(),
            heads: Index::default(),
            tails: Index::default(),
        }
    }
}

impl<T> Names<T> {
    /// True when there is no name.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Adds a name.
    ///
    /// # Errors
    /// It cannot be a name, or it is there already.
    pub fn add(&mut self, name: &[u8], value: T, reading: Reading) -> Result<(), Refused> {
        let name = name.to_ascii_lowercase();
        let at = self.values.len() as u32;
        let wildcards = reading == Reading::Wildcards;
        if wildcards && !is_well_formed(&name) {
            return Err(Refused::Invalid);
        }
        match name.as_slice() {
            [b'.', _, ..] if wildcards => {
                if self.exact.contains_key(&name[1..]) || self.heads.contains_key(&*name) {
                    return Err(Refused::Conflict);
                }
                self.exact.insert(name[1..].into(), at);
                self.heads.insert(name.into(), at);
            }
            [b'*', b'.', _, ..] if wildcards => put(&mut self.heads, &name[1..], at)?,
            [_, .., b'.', b'*'] if wildcards => {
                put(&mut self.tails, &name[..name.len() - 1], at)?;
            }
            name if wildcards && name.contains(&b'*') => return Err(Refused::Invalid),
            name => put(&mut self.exact, name, at)?,
        }
        self.values.push(value);
        Ok(())
    }

    /// The value of the most specific name that stands for `name`, which is in lower case.
    pub fn find(&self, name: &[u8]) -> Option<&T> {
        self.position(name).and_then(|at| self.values.get(at as usize))
    }

    fn position(&self, name: &[u8]) -> Option<u32> {
        if let Some(at) = self.exact.get(name) {
            return Some(*at);
        }
        if self.heads.is_empty() && self.tails.is_empty() {
            return None;
        }
        let dots = || memchr::memchr_iter(b'.', name);
        if !self.heads.is_empty()
            && let Some(at) = dots().find_map(|dot| self.heads.get(&name[dot..]))
        {
            return Some(*at);
        }
        if self.tails.is_empty() {
            return None;
        }
        dots().rev().find_map(|dot| self.tails.get(&name[..=dot])).copied()
    }
}

fn put(index: &mut Index, name: &[u8], at: u32) -> Result<(), Refused> {
    if index.contains_key(name) {
        return Err(Refused::Conflict);
    }
    index.insert(name.into(), at);
    Ok(())
}

/// At most one asterisk, no empty label and no NUL byte.
fn is_well_formed(name: &[u8]) -> bool {
    name.iter().filter(|byte| **byte == b'*').count() <= 1
        && !name.contains(&0)
        && !name.windows(2).any(|two| two == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&'static str]) -> Names<&'static str> {
        let mut names = Names::default();
        for name in list {
            assert_eq!(names.add(name.as_bytes(), *name, Reading::Wildcards), Ok(()), "{name}");
        }
        names
    }

    #[test]
    fn the_most_specific_name_wins() {
        let names = names(&[
            "example.com",
            "*.example.com",
            "*.b.example.com",
            ".dot.example.com",
            "www.example.*",
            "www.*",
            "Upper.ORG",
        ]);
        for (name, expected) in [
            ("example.com", Some("example.com")),
            ("a.example.com", Some("*.example.com")),
            ("a.b.example.com", Some("*.b.example.com")),
            ("b.example.com", Some("*.example.com")),
            ("dot.example.com", Some(".dot.example.com")),
            ("a.dot.example.com", Some(".dot.example.com")),
            ("www.example.com", Some("*.example.com")),
            ("www.example.org", Some("www.example.*")),
            ("www.example.co.uk", Some("www.example.*")),
            ("www.other", Some("www.*")),
            ("www", None),
            ("upper.org", Some("Upper.ORG")),
            ("", None),
            ("com", None),
        ] {
            assert_eq!(names.find(name.as_bytes()).copied(), expected, "{name}");
        }
    }

    #[test]
    fn bad_and_repeated_names_are_refused() {
        for (name, expected) in [
            ("a..b", Refused::Invalid),
            ("*.a.*", Refused::Invalid),
            ("a*b", Refused::Invalid),
            ("*a.b", Refused::Invalid),
            ("*", Refused::Invalid),
            ("*.", Refused::Invalid),
            ("a\0", Refused::Invalid),
            ("A.example", Refused::Conflict),
            (".a.example", Refused::Conflict),
            ("*.w.example", Refused::Conflict),
            (".w.example", Refused::Conflict),
            ("*.d.example", Refused::Conflict),
            ("d.example", Refused::Conflict),
            ("t.*", Refused::Conflict),
        ] {
            let mut names = names(&["a.example", "*.w.example", ".d.example", "t.*"]);
            assert_eq!(names.add(name.as_bytes(), "", Reading::Wildcards), Err(expected), "{name}");
        }
        let mut names = names(&["a"]);
        assert_eq!(names.add(b"*", "star", Reading::Plain), Ok(()));
        assert_eq!(names.add(b".a", "dot", Reading::Plain), Ok(()));
        assert_eq!(names.add(b"A", "again", Reading::Plain), Err(Refused::Conflict));
        assert_eq!((names.find(b"*"), names.find(b"x.a")), (Some(&"star"), None));
    }
}
