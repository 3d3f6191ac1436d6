//! Positions, words, nodes and blocks: what a configuration is after parsing.
//!
//! Nothing here knows a directive. The parser (`parse`) builds these, `check` and `scope` read
//! them. Every item keeps the place it came from, so that any later step can point at it.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

/// Index of a file in [`Tree::files`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileId(pub u32);

/// A place in a configuration file.
///
/// `start..end` are byte offsets in the file and say where the caret goes. `line` (from 1) is the
/// line that nginx names in its diagnostics: for a directive and each of its words that is the
/// line of its closing `;` or `{`, which is not always the line of `start`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Span {
    pub file: FileId,
    pub line: u32,
    pub start: u32,
    pub end: u32,
}

/// One word, with quotes removed and escapes resolved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Word {
    /// The bytes that a directive sees.
    pub text: Vec<u8>,
    /// Whether the word stood in quotes.
    pub quoted: bool,
    /// Where the word stands, quotes included.
    pub span: Span,
}

impl Word {
    /// The word as text; bytes that are not UTF-8 become U+FFFD.
    pub fn str(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.text)
    }

    /// The word as nginx shows it in a message: up to a NUL byte.
    pub fn shown(&self) -> Cow<'_, str> {
        let end = self.text.iter().position(|&byte| byte == 0).unwrap_or(self.text.len());
        String::from_utf8_lossy(&self.text[..end])
    }

    /// The word's bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.text
    }
}

/// A directive: a name, its arguments, and a block when one was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    pub name: Word,
    pub args: Vec<Word>,
    pub block: Option<Block>,
    /// From the name to the last argument.
    pub span: Span,
}

impl Node {
    /// Reads one directive from a text such as `listen 80;` (the `;` may be left out).
    /// `None` when the text is not exactly one directive. For tests and for default values.
    pub fn parse(text: &str) -> Option<Node> {
        crate::parse::one(text)
    }
}

/// What stands between `{` and `}`, or the whole configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub nodes: Vec<Node>,
    /// The `{`.
    pub open: Span,
    /// The `}`.
    pub close: Span,
}

/// A file that was read, or the text of `-g`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceFile {
    /// Absolute, as nginx would print it (no `..` resolved). Empty for the command line.
    pub path: PathBuf,
    pub bytes: Vec<u8>,
    /// True for the text of `-g`, which diagnostics call `command line`.
    pub command_line: bool,
    /// The `include` that first asked for this file.
    pub included_from: Option<Span>,
}

/// A parsed configuration, includes spliced in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    pub root: Block,
    pub files: Vec<SourceFile>,
    /// The program's prefix, as given to [`crate::parse()`].
    pub prefix: PathBuf,
    /// The directory of the main file: where relative includes and certificates are looked for.
    pub conf_prefix: PathBuf,
}

impl Tree {
    /// The file of an id.
    pub fn file(&self, id: FileId) -> Option<&SourceFile> {
        self.files.get(id.0 as usize)
    }

    /// The path of the file that a span points into; empty for the command line.
    pub fn path(&self, span: Span) -> &Path {
        self.file(span.file).map_or(Path::new(""), |file| &file.path)
    }

    /// `FILE:LINE`, or `command line`: how diagnostics and logs name a place.
    pub fn place(&self, span: Span) -> String {
        match self.file(span.file) {
            Some(file) if !file.command_line => format!("{}:{}", file.path.display(), span.line),
            _ => "command line".to_owned(),
        }
    }
}

/// What `-T` prints: every file once, in the order of reading, each under a line that names it
/// and followed by a newline.
pub fn dump(tree: &Tree) -> Vec<u8> {
    let mut out = Vec::new();
    for file in tree.files.iter().filter(|file| !file.command_line) {
        out.extend_from_slice(b"# configuration file ");
        out.extend_from_slice(file.path.as_os_str().as_encoded_bytes());
        out.extend_from_slice(b":\n");
        out.extend_from_slice(&file.bytes);
        out.push(b'\n');
    }
    out
}
