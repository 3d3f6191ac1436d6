//! Regular expressions of a configuration: a match fills `$1` to `$9` and the variables that the
//! named groups of the pattern stand for.

use crate::log::{Bytes, Level};
use crate::regex::{Case, Regex};
use crate::text::Span;
use crate::variables::{Subject, VariableId, Variables};

/// A match that was given up; the reason is in the error log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GivenUp;

/// A regular expression with the variables that its named groups fill.
pub struct Pattern {
    /// The compiled pattern.
    pub regex: Regex,
    /// Group number and variable of each named group.
    pub variables: Vec<(u8, VariableId)>,
}

impl Pattern {
    /// Compiles `pattern`; its named groups become variables of `table`.
    ///
    /// # Errors
    /// What PCRE2 says, or that a group's name is taken.
    pub fn compile<X>(
        pattern: &str,
        case: Case,
        table: &mut Variables<X>,
    ) -> Result<Pattern, String> {
        let regex = Regex::new(pattern, case)?;
        let mut variables = Vec::new();
        for (group, name) in regex.names() {
            variables.push((*group, table.assignable(name)?));
        }
        Ok(Pattern { regex, variables })
    }

    /// Matches `subject`; a success fills `$1` and the named groups' variables. A group that took
    /// no part in the match is empty, and so is `$1` after a pattern without groups.
    ///
    /// # Errors
    /// The match was given up; the reason is in the error log.
    pub fn matches<X: Subject>(&self, x: &mut X, subject: Span) -> Result<bool, GivenUp> {
        match self.regex.captures(x.arena(), subject) {
            Ok(None) => Ok(false),
            Ok(Some(captures)) => {
                for (group, variable) in &self.variables {
                    let value = captures.group(*group).unwrap_or_default();
                    x.cells().assign(*variable, Some(value));
                }
                x.set_captures(captures);
                Ok(true)
            }
            Err(reason) => {
                let text = x.arena().text(subject).to_vec();
                let (text, pattern) = (Bytes(&text), self.regex.pattern());
                x.complain(
                    Level::Alert,
                    format_args!(
                        "pcre2_match() failed: {reason} on \"{text}\" using \"{pattern}\""
                    ),
                );
                Err(GivenUp)
            }
        }
    }
}
