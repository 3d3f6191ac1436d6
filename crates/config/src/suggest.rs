//! "Did you mean": the known names nearest to a misspelt one.

use crate::directive::Context;
use crate::registry::Registry;

/// Help for an unknown directive: near names of the same context first, then of any other.
pub(crate) fn name(registry: &Registry, context: Context, written: &str) -> Option<String> {
    if let Some(rest) = written.strip_prefix('\u{feff}') {
        return Some(format!(
            "the file begins with a byte order mark before \"{rest}\": remove it"
        ));
    }
    let here = nearest(registry.names_in(context).into_iter(), written);
    let found = if here.is_empty() { nearest(registry.names(), written) } else { here };
    one_of(&found)
}

/// Help for a word that should have been one of a few.
pub fn word(known: &[&str], written: &str) -> Option<String> {
    one_of(&nearest(known.iter().copied(), written))
}

fn one_of(names: &[&str]) -> Option<String> {
    match names {
        [] => None,
        [one] => Some(format!("did you mean \"{one}\"?")),
        [one, other, ..] => Some(format!("did you mean \"{one}\" or \"{other}\"?")),
    }
}

/// The names at the smallest distance, if that is small for the word's length.
fn nearest<'n>(names: impl Iterator<Item = &'n str>, written: &str) -> Vec<&'n str> {
    // Longer than any directive: not worth the table below.
    if written.len() > 64 {
        return Vec::new();
    }
    let limit = (written.chars().count() / 4).clamp(1, 3);
    let mut best = limit + 1;
    let mut found = Vec::new();
    for name in names {
        let far = distance(name, written);
        if far < best {
            best = far;
            found.clear();
        }
        if far == best && far <= limit {
            found.push(name);
        }
    }
    found
}

/// How many characters to insert, remove, change or swap with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let width = b.len() + 1;
    let mut table: Vec<usize> = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            let at = i * width + j;
            if i == 0 || j == 0 {
                table[at] = i + j;
                continue;
            }
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut least = table[at - width - 1] + changed;
            least = least.min(table[at - width] + 1).min(table[at - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(table[at - 2 * width - 2] + 1);
            }
            table[at] = least;
        }
    }
    table[a.len() * width + b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_count_edits() {
        for (a, b, expected) in [
            ("", "", 0),
            ("listen", "listen", 0),
            ("listen", "lisen", 1),
            ("listen", "listne", 1),
            ("listen", "Listen", 1),
            ("a", "", 1),
            ("root", "alias", 5),
        ] {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn only_near_words_are_offered() {
        let known = ["listen", "location", "root", "server_name"];
        for (written, expected) in [
            ("lisen", Some("did you mean \"listen\"?")),
            ("servername", Some("did you mean \"server_name\"?")),
            ("proxy_pass", None),
            ("x", None),
        ] {
            assert_eq!(word(&known, written).as_deref(), expected, "{written}");
        }
    }
}
