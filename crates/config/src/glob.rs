//! Shell patterns as `glob(7)` has them: `*`, `?`, `[a-z]`, `[!a-z]` and `\` before any of them.
//!
//! `/` is never matched by a wildcard, nor is a leading dot. There are no braces. Results are in
//! byte order, as they are for a program that sets no locale.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whether a path in an `include` is a pattern rather than a plain file.
pub(crate) fn is_pattern(path: &[u8]) -> bool {
    path.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['))
}

/// Whether a whole path matches, component by component.
pub(crate) fn path_matches(pattern: &Path, path: &Path) -> bool {
    let mut names = path.components();
    let all = pattern.components().all(|part| {
        names
            .next()
            .is_some_and(|name| name_matches(bytes(part.as_os_str()), bytes(name.as_os_str())))
    });
    all && names.next().is_none()
}

/// The paths on disk that match a pattern, spelt as the pattern spells them.
pub(crate) fn walk(pattern: &Path) -> Vec<PathBuf> {
    let pattern = bytes(pattern.as_os_str());
    let mut found: Vec<Vec<u8>> = vec![Vec::new()];
    for (position, part) in pattern.split(|&byte| byte == b'/').enumerate() {
        if position > 0 {
            found.iter_mut().for_each(|base| base.push(b'/'));
        }
        if is_pattern(part) {
            found = found.iter().flat_map(|base| list(base, part)).collect();
        } else {
            found.iter_mut().for_each(|base| base.extend(unescaped(part)));
        }
    }
    let paths = found.iter().map(|path| PathBuf::from(OsStr::from_bytes(path)));
    // A pattern may end in plain components: they were added without a look at the disk.
    paths.filter(|path| path.symlink_metadata().is_ok()).collect()
}

/// The entries of a directory whose names match, sorted; none when it cannot be read.
#[allow(clippy::disallowed_methods)] // Together with `DiskFiles::read`, the one door to the disk.
fn list(base: &[u8], pattern: &[u8]) -> Vec<Vec<u8>> {
    let directory = if base.is_empty() { OsStr::new(".") } else { OsStr::from_bytes(base) };
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.retain(|name| name_matches(pattern, bytes(name)));
    names.sort();
    names.iter().map(|name| [base, bytes(name)].concat()).collect()
}

fn bytes(name: &OsStr) -> &[u8] {
    name.as_bytes()
}

fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.iter();
    while let Some(&byte) = rest.next() {
        out.push(if byte == b'\\' { rest.next().copied().unwrap_or(byte) } else { byte });
    }
    out
}

/// Matches one name. Backtracks to the last `*` only, so the cost is at most the product of the
/// two lengths.
fn name_matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && pattern.first() != Some(&b'.') {
        return false;
    }
    let (mut p, mut n) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    loop {
        if pattern.get(p) == Some(&b'*') {
            star = Some((p + 1, n));
            p += 1;
            continue;
        }
        if n == name.len() && p == pattern.len() {
            return true;
        }
        let step = if n < name.len() { one_matches(&pattern[p..], name[n]) } else { None };
        if let Some(used) = step {
            p += used;
            n += 1;
            continue;
        }
        match star {
            Some((after, from)) if from < name.len() => {
                star = Some((after, from + 1));
                (p, n) = (after, from + 1);
            }
            _ => return false,
        }
    }
}

/// Whether the first element of a pattern matches a byte, and how long that element is.
fn one_matches(pattern: &[u8], byte: u8) -> Option<usize> {
    match *pattern.first()? {
        b'?' => Some(1),
        b'\\' if pattern.len() > 1 => (pattern[1] == byte).then_some(2),
        b'[' => match set_matches(pattern, byte) {
            Some((true, used)) => Some(used),
            Some((false, _)) => None,
            None => (byte == b'[').then_some(1),
        },
        plain => (plain == byte).then_some(1),
    }
}

/// A bracket expression: whether the byte is in it, and its length. `None` when it never closes,
/// in which case `[` stands for itself.
fn set_matches(pattern: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let first = if negated { 2 } else { 1 };
    let mut at = first;
    let mut inside = false;
    loop {
        let mut low = *pattern.get(at)?;
        if low == b']' && at > first {
            return Some((inside != negated, at + 1));
        }
        if low == b'\\' {
            at += 1;
            low = *pattern.get(at)?;
        }
        let mut high = low;
        if pattern.get(at + 1) == Some(&b'-') && pattern.get(at + 2).is_some_and(|&b| b != b']') {
            high = pattern[at + 2];
            at += 2;
        }
        inside |= (low..=high).contains(&byte);
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_as_in_glob_7() {
        for (pattern, name, expected) in [
            ("*.conf", "a.conf", true),
            ("*.conf", ".conf", false),
            (".*", ".conf", true),
            ("*", "", true),
            ("?", "", false),
            ("a?c", "abc", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-b-b-d", false),
            ("[a-c]x", "bx", true),
            ("[!a-c]x", "bx", false),
            ("[^a-c]x", "dx", true),
            ("[]x]", "]", true),
            ("[a-]", "-", true),
            ("[ab", "[ab", true),
            (r"\*", "*", true),
            (r"\*", "a", false),
            ("**", "anything", true),
        ] {
            assert_eq!(
                name_matches(pattern.as_bytes(), name.as_bytes()),
                expected,
                "{pattern} against {name}"
            );
        }
    }

    #[test]
    fn a_star_does_not_cross_a_slash() {
        assert!(path_matches(Path::new("/a/*.conf"), Path::new("/a/b.conf")));
        assert!(!path_matches(Path::new("/a/*.conf"), Path::new("/a/b/c.conf")));
        assert!(path_matches(Path::new("/a/*/c.conf"), Path::new("/a/b/c.conf")));
    }
}
