//! `heng manual`: the reference manual, written from the directive tables.
//!
//! - `heng manual` prints all pages;
//! - `heng manual --dir DIRECTORY` writes one Markdown file per module, and a list of them;
//! - `heng manual --names` lists the directives, one a line, those that change nothing here with
//!   a tab and the reason.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::Path;

use config::manual;

use crate::modules::{self, Page};
use crate::report::say_as_program;

/// Runs the subcommand. The result is the exit code.
pub fn run(arguments: &[OsString]) -> i32 {
    let words: Vec<_> = arguments.iter().map(|word| word.to_str()).collect();
    let outcome = match words.as_slice() {
        [] => print(&all_pages()),
        [Some("--names")] => print(&names()),
        [Some("--dir"), _] => write(Path::new(&arguments[1])),
        _ => {
            say_as_program("usage: manual [--names | --dir DIRECTORY]");
            return 1;
        }
    };
    match outcome {
        Ok(()) => 0,
        Err(error) => {
            say_as_program(&format!("cannot write the manual: {error}"));
            1
        }
    }
}

fn print(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()
}

fn write(directory: &Path) -> io::Result<()> {
    let pages = modules::manual();
    for page in &pages {
        std::fs::write(directory.join(format!("{}.md", page.name)), text_of(page))?;
    }
    std::fs::write(directory.join("README.md"), contents(&pages))
}

fn all_pages() -> String {
    modules::manual().iter().map(text_of).collect::<Vec<_>>().join("\n")
}

fn text_of(page: &Page) -> String {
    let variables: Vec<_> = page.variables.iter().map(|(name, text)| (&**name, *text)).collect();
    manual::render(&page.title, page.intro, page.directives, &variables)
}

/// The first page: what there is.
fn contents(pages: &[Page]) -> String {
    let mut text = String::from(
        "# Reference manual\n\nWritten by `cargo xtask docs` from the directive tables.\n\n",
    );
    for page in pages {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "- [{}]({}.md)", page.title, page.name);
    }
    text
}

fn names() -> String {
    let registry = modules::registry();
    let mut lines: Vec<String> = registry
        .all()
        .map(|directive| match directive.spec().moot {
            Some(reason) => format!("{}\t{reason}\n", directive.spec().name),
            None => format!("{}\n", directive.spec().name),
        })
        .collect();
    lines.sort_unstable();
    lines.dedup();
    lines.concat()
}
