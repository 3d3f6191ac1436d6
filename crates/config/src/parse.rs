//! Statements to a tree, with includes spliced in where they stand.
//!
//! `include` is the one word the parser knows. It is allowed in every block, also among free
//! rows. Relative paths start at the directory of the main file. The parser never stops at the
//! first error; what it cannot place it leaves out and says so.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::diagnostic::{Diagnostic, Level, in_order};
use crate::files::Files;
use crate::glob;
use crate::lexer::{Ending, Lexer, Statement};
use crate::text::{Block, FileId, Node, SourceFile, Span, Tree, Word};

/// Blocks within blocks, and files within files. nginx has no limit of its own and ends in a
/// stack overflow or without descriptors.
const DEEPEST: usize = 100;

/// Files read in one run, repetitions counted.
const MOST_READINGS: usize = 100_000;

/// Parses the main file and everything that it includes, after the texts of `-g`.
///
/// `main` is relative to `prefix` unless absolute. The findings are in the order in which nginx
/// would meet them, so the first is the one that nginx reports.
pub fn parse(
    files: &dyn Files,
    main: &Path,
    prefix: &Path,
    globals: &[String],
) -> (Tree, Vec<Diagnostic>) {
    let main = prefix.join(main);
    let mut parser = Parser::new(files, prefix, &main);
    let mut root = Block::default();
    for text in globals {
        let id = parser.add(PathBuf::new(), text.clone().into_bytes(), None);
        root.nodes.extend(parser.file(id));
    }
    match parser.open(&main, None) {
        Ok(id) => {
            root.nodes.extend(parser.file(id));
            let length = parser.tree.files[id.0 as usize].bytes.len() as u32;
            root.open = Span { file: id, line: 1, start: 0, end: 0 };
            root.close = Span { file: id, line: parser.last_line, start: length, end: length };
        }
        Err(error) => parser.cannot_open(&main, &error, None),
    }
    parser.tree.root = root;
    let problems = in_order(&parser.tree, parser.problems);
    (parser.tree, problems)
}

/// Reads exactly one directive, for tests and defaults. A missing `;` at the end is added.
pub(crate) fn one(text: &str) -> Option<Node> {
    let trimmed = text.trim_end();
    let closed = trimmed.ends_with([';', '}']);
    let text = if closed { trimmed.to_owned() } else { format!("{trimmed};") };
    let mut nodes = fragment(&text)?;
    if nodes.len() == 1 { nodes.pop() } else { None }
}

/// Reads directives from a text alone; `None` when anything is wrong with it.
pub(crate) fn fragment(text: &str) -> Option<Vec<Node>> {
    let nothing = crate::MemoryFiles::new();
    let mut parser = Parser::new(&nothing, Path::new("/"), Path::new("/example"));
    let id = parser.add(PathBuf::from("/example"), text.as_bytes().to_vec(), None);
    let nodes = parser.file(id);
    parser.problems.is_empty().then_some(nodes)
}

struct Parser<'f> {
    files: &'f dyn Files,
    tree: Tree,
    /// By text: `a/./b` and `a/b` are two files, as in nginx's dump.
    by_path: HashMap<OsString, FileId>,
    /// The files being read, outermost first.
    reading: Vec<FileId>,
    /// Blocks open in all of them.
    depth: usize,
    readings: usize,
    /// The line on which the file read last ended.
    last_line: u32,
    problems: Vec<Diagnostic>,
}

/// A block whose `}` has not been seen yet.
struct Unclosed {
    node: Node,
    block: Block,
    /// It has no name, or stands too deep: its content is read and dropped.
    dropped: bool,
}

impl<'f> Parser<'f> {
    fn new(files: &'f dyn Files, prefix: &Path, main: &Path) -> Self {
        let tree = Tree {
            prefix: prefix.to_owned(),
            conf_prefix: main.parent().unwrap_or(prefix).to_owned(),
            ..Tree::default()
        };
        Parser {
            files,
            tree,
            by_path: HashMap::new(),
            reading: Vec::new(),
            depth: 0,
            readings: 0,
            last_line: 1,
            problems: Vec::new(),
        }
    }

    fn problem(&mut self, message: impl Into<String>, span: impl Into<Option<Span>>) {
        self.problems.push(Diagnostic::emerg(message, span));
    }

    /// Adds a file; an empty path stands for the command line.
    fn add(&mut self, path: PathBuf, bytes: Vec<u8>, included_from: Option<Span>) -> FileId {
        let id = FileId(self.tree.files.len() as u32);
        let command_line = path.as_os_str().is_empty();
        if !command_line {
            self.by_path.insert(path.clone().into_os_string(), id);
        }
        self.tree.files.push(SourceFile { path, bytes, command_line, included_from });
        id
    }

    /// Reads a file unless it was read before.
    fn open(&mut self, path: &Path, from: Option<Span>) -> io::Result<FileId> {
        if let Some(&id) = self.by_path.get(path.as_os_str()) {
            return Ok(id);
        }
        let bytes = self.files.read(path)?;
        if u32::try_from(bytes.len()).is_err() {
            const EFBIG: i32 = 27;
            return Err(io::Error::from_raw_os_error(EFBIG));
        }
        Ok(self.add(path.to_owned(), bytes, from))
    }

    fn cannot_open(&mut self, path: &Path, error: &io::Error, span: Option<Span>) {
        const EISDIR: i32 = 21;
        let path = path.display();
        let reason = system_error(error);
        self.problems.push(if error.raw_os_error() == Some(EISDIR) {
            // nginx opens a directory without complaint and fails when it reads.
            Diagnostic {
                fatal: true,
                ..Diagnostic::new(Level::Crit, format!("pread() \"{path}\" failed {reason}"), None)
            }
        } else {
            Diagnostic::emerg(format!("open() \"{path}\" failed {reason}"), span)
        });
    }

    /// The directives of one file.
    fn file(&mut self, id: FileId) -> Vec<Node> {
        let source = &mut self.tree.files[id.0 as usize];
        let command_line = source.command_line;
        // Taken out while it is being read, so that includes may add files meanwhile.
        let bytes = std::mem::take(&mut source.bytes);
        let mut lexer = Lexer::new(&bytes, id, command_line);
        self.reading.push(id);
        let nodes = self.statements(&mut lexer);
        self.reading.pop();
        self.last_line = lexer.line();
        self.problems.append(&mut lexer.problems);
        self.tree.files[id.0 as usize].bytes = bytes;
        nodes
    }

    fn statements(&mut self, lexer: &mut Lexer<'_>) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut open: Vec<Unclosed> = Vec::new();
        loop {
            let statement = lexer.statement();
            let at = statement.at;
            match statement.ending {
                Ending::Open => {
                    let unclosed = self.opened(statement, lexer);
                    open.push(unclosed);
                    self.depth += 1;
                }
                Ending::Semicolon => {
                    let into = open.last_mut().map_or(&mut nodes, |one| &mut one.block.nodes);
                    if let Some(node) = node(statement.words) {
                        self.directive(node, into);
                    }
                }
                Ending::Close => match open.pop() {
                    Some(unclosed) => self.closed(unclosed, at, &mut open, &mut nodes),
                    None => lexer.problems.push(Diagnostic::emerg("unexpected \"}\"", at)),
                },
                Ending::File => {
                    if let Some(last) = open.last()
                        && !lexer.cut_short
                    {
                        let message = "unexpected end of file, expecting \"}\"";
                        let help = unclosed_help(&last.node);
                        lexer.problems.push(Diagnostic::emerg(message, at).with_help(help));
                    }
                    while let Some(unclosed) = open.pop() {
                        self.closed(unclosed, at, &mut open, &mut nodes);
                    }
                    return nodes;
                }
            }
        }
    }

    /// Begins a block.
    fn opened(&mut self, statement: Statement, lexer: &mut Lexer<'_>) -> Unclosed {
        let block = Block { nodes: Vec::new(), open: statement.at, close: statement.at };
        let Some(node) = node(statement.words) else {
            return Unclosed { node: Node::default(), block, dropped: true };
        };
        let message = if self.tree.files[node.span.file.0 as usize].command_line {
            Some("block directives are not supported in -g option".to_owned())
        } else if node.name.bytes() == b"include" {
            Some("directive \"include\" is not terminated by \";\"".to_owned())
        } else if self.depth == DEEPEST {
            Some(format!("more than {DEEPEST} blocks within one another"))
        } else {
            None
        };
        let dropped = message.is_some() || self.depth > DEEPEST;
        if let Some(message) = message {
            lexer.problems.push(Diagnostic::emerg(message, node.span));
        }
        Unclosed { node, block, dropped }
    }

    /// Ends a block and puts it where it belongs.
    fn closed(
        &mut self,
        unclosed: Unclosed,
        at: Span,
        open: &mut [Unclosed],
        nodes: &mut Vec<Node>,
    ) {
        self.depth -= 1;
        let Unclosed { mut node, mut block, dropped } = unclosed;
        if dropped {
            return;
        }
        block.close = at;
        node.block = Some(block);
        open.last_mut().map_or(nodes, |outer| &mut outer.block.nodes).push(node);
    }

    /// Keeps a directive, or follows it when it is an `include`.
    fn directive(&mut self, node: Node, into: &mut Vec<Node>) {
        if node.name.bytes() != b"include" {
            return into.push(node);
        }
        let [path] = node.args.as_slice() else {
            let message = "invalid number of arguments in \"include\" directive";
            return self.problem(message, node.span);
        };
        let place = Span { line: node.span.line, ..path.span };
        let full = self.conf_path(path.bytes());
        if !glob::is_pattern(full.as_os_str().as_bytes()) {
            return self.include(&full, place, into);
        }
        match self.files.glob(&full) {
            Ok(paths) => {
                for path in paths {
                    self.include(&path, place, into);
                }
            }
            Err(error) => {
                let reason = system_error(&error);
                self.problem(format!("glob() \"{}\" failed {reason}", full.display()), place);
            }
        }
    }

    /// A path of the configuration, made absolute by text, as nginx does.
    fn conf_path(&self, path: &[u8]) -> PathBuf {
        // Not `Path::join` alone: an empty word would give the directory without its slash, which
        // is also what nginx opens.
        self.tree.conf_prefix.join(OsStr::from_bytes(path))
    }

    fn include(&mut self, path: &Path, place: Span, into: &mut Vec<Node>) {
        let id = match self.open(path, Some(place)) {
            Ok(id) => id,
            Err(error) => return self.cannot_open(path, &error, Some(place)),
        };
        self.readings += 1;
        let message = if self.reading.contains(&id) {
            format!("\"{}\" includes itself", path.display())
        } else if self.reading.len() >= DEEPEST {
            format!("more than {DEEPEST} files include one another")
        } else if self.readings > MOST_READINGS {
            // Said once: nothing is included any more.
            if self.readings > MOST_READINGS + 1 {
                return;
            }
            format!("more than {MOST_READINGS} files are included")
        } else {
            return into.append(&mut self.file(id));
        };
        self.problem(message, place);
    }
}

/// Words to a directive; `None` when there are none.
fn node(mut words: Vec<Word>) -> Option<Node> {
    let last = words.last()?.span;
    let name = words.remove(0);
    let span = Span { end: last.end, ..name.span };
    Some(Node { name, args: words, block: None, span })
}

/// Names the innermost block that was never closed.
fn unclosed_help(node: &Node) -> Option<String> {
    let line = node.span.line;
    (line > 0).then(|| format!("\"{}\" was opened on line {line}", node.name.str()))
}

/// `(2: No such file or directory)`, as nginx writes an error of the operating system.
pub(crate) fn system_error(error: &io::Error) -> String {
    let number = error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => 2,
        io::ErrorKind::PermissionDenied => 13,
        _ => 5,
    });
    let text = io::Error::from_raw_os_error(number).to_string();
    let text = text.rsplit_once(" (os error").map_or(text.as_str(), |(text, _)| text);
    format!("({number}: {text})")
}
