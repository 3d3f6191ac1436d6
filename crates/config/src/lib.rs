//! The configuration language: words, blocks, directive tables, scopes, templates, diagnostics
//! and the manual. It knows no directive of its own.
//!
//! ```text
//! text --parse--> Tree --check--> diagnostics        from the directive tables alone
//!                  |
//!                  +--Scope--> values                what compiling asks for, level by level
//! ```
//!
//! # Declaring a directive
//! A directive is one static. Its type is what the reader returns.
//!
//! ```
//! use config::{Arity, Context, Directive, MAIN, Opens, read};
//!
//! pub const HTTP: Context = Context::new("http", "http");
//! pub const SERVER: Context = Context::new("http.server", "server");
//!
//! pub static CLIENT_HEADER_TIMEOUT: Directive<u64> =
//!     Directive::new("client_header_timeout", &[HTTP, SERVER], read::time_ms)
//!         .default("60s")
//!         .syntax("client_header_timeout TIME;")
//!         .text("How long a client may take to send the head of a request.")
//!         .example("client_header_timeout 10s;");
//!
//! pub static HTTP_BLOCK: Directive<()> = Directive::new("http", &[MAIN], read::nothing)
//!     .takes(Arity::None)
//!     .opens(Opens::Context(HTTP))
//!     .syntax("http { ... }")
//!     .text("Holds what concerns HTTP.")
//!     .example("http { client_header_timeout 10s; }");
//!
//! pub static DIRECTIVES: &[&dyn config::AnyDirective] = &[&HTTP_BLOCK, &CLIENT_HEADER_TIMEOUT];
//!
//! let files = config::MemoryFiles::new().with("/etc/x.conf", "http { }");
//! let registry = config::Registry::new(&[DIRECTIVES]);
//! let path = std::path::Path::new("/etc/x.conf");
//! let (tree, problems) = config::load(&files, path, "/".as_ref(), &[], &registry);
//! assert!(problems.is_empty());
//! let sink = config::Sink::new();
//! let root = config::Scope::root(&tree, &registry, &sink);
//! for ((), http) in root.blocks(&HTTP_BLOCK) {
//!     assert_eq!(http.get(&CLIENT_HEADER_TIMEOUT), 60_000);
//! }
//! ```
//!
//! Without `takes` a directive has one argument; without `repeats` it may stand once in a block.
//! A reader of its own is a function `fn(&Args) -> Result<T, Invalid>`; it may rely on the number
//! of arguments. Where a name means different things in different contexts (`if` in `server` and
//! in `location`, `server` in `http` and in `upstream`), declare it once for each.

#![forbid(unsafe_code)]

mod check;
mod diagnostic;
mod directive;
mod files;
mod glob;
mod lexer;
pub mod manual;
mod parse;
pub mod read;
mod registry;
mod scope;
mod suggest;
mod template;
mod text;

use std::path::Path;

pub use check::check;
pub use diagnostic::{Diagnostic, Level, in_order, refuses};
pub use directive::{
    AnyDirective, Args, Arity, Context, Directive, Invalid, MAIN, Opens, Repeat, Spec,
};
pub use files::{DiskFiles, Files, MemoryFiles};
pub use parse::parse;
pub use registry::Registry;
pub use scope::{Child, Scope, Sink};
pub use suggest::word as suggestion;
pub use template::{Part, Template};
pub use text::{Block, FileId, Node, SourceFile, Span, Tree, Word, dump};

/// Parses and checks. The findings of both are in the order in which nginx would meet them.
pub fn load(
    files: &dyn Files,
    main: &Path,
    prefix: &Path,
    globals: &[String],
    registry: &Registry,
) -> (Tree, Vec<Diagnostic>) {
    let (tree, mut found) = parse(files, main, prefix, globals);
    found.extend(check(&tree, registry));
    let found = in_order(&tree, found);
    (tree, found)
}
