//! The one list of what this program is made of.
//!
//! Directive tables for the parser and the manual, the engines that are compiled and served, and
//! what `-V` says about nginx's optional modules. Adding a feature is a line here.

use config::{AnyDirective, Registry};

use crate::directives;
use crate::engines::Compile;

/// All directive tables.
pub static DIRECTIVES: &[&[&dyn AnyDirective]] =
    &[directives::CORE, directives::EVENTS_DIRECTIVES, session::log::DIRECTIVES];

/// The engines, in the order in which their listeners open.
pub static ENGINES: &[Compile] = &[];

/// All directives that this program knows.
pub fn registry() -> Registry {
    Registry::new(DIRECTIVES)
}

/// nginx's optional modules that exist here: `-V` says `--with-NAME`.
pub static WITH: &[&str] = &[];

/// nginx's default modules that do not exist here yet: `-V` says `--without-NAME`.
pub static WITHOUT: &[&str] = &["http", "http-cache"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_is_sound() {
        assert_eq!(registry().faults(), Vec::<String>::new());
    }

    #[test]
    fn no_module_is_both_there_and_missing() {
        for name in WITH {
            assert!(!WITHOUT.contains(name), "{name}");
        }
    }
}
