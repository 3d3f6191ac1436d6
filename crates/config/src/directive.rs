//! Directives as data: one static says a directive's name, contexts, arity, default,
//! documentation and reader. Parser checks, `-t`, "did you mean" and the manual come from it.
//!
//! See the crate's documentation for how to declare one.

use std::borrow::Cow;
use std::cell::RefCell;

use crate::diagnostic::Level;
use crate::text::{Node, Word};

/// A kind of block in which directives may stand. Two contexts are equal when their ids are.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Unique, dotted: `http.server`.
    pub id: &'static str,
    /// What the manual calls it: `server`.
    pub shown: &'static str,
}

impl Context {
    pub const fn new(id: &'static str, shown: &'static str) -> Context {
        Context { id, shown }
    }
}

impl PartialEq for Context {
    fn eq(&self, other: &Context) -> bool {
        self.id == other.id
    }
}

impl Eq for Context {}

impl std::hash::Hash for Context {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// The outermost context: what stands in no block.
pub const MAIN: Context = Context::new("main", "main");

/// How many arguments a directive takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    None,
    Exactly(u8),
    AtLeast(u8),
    /// Both ends included.
    Between(u8, u8),
    /// Any of the counts listed.
    OneOf(&'static [u8]),
    /// One argument: on or off.
    Flag,
    Any,
}

impl Arity {
    /// Whether so many arguments are right.
    pub fn accepts(self, count: usize) -> bool {
        match self {
            Arity::None => count == 0,
            Arity::Exactly(n) => count == usize::from(n),
            Arity::AtLeast(n) => count >= usize::from(n),
            Arity::Between(low, high) => (usize::from(low)..=usize::from(high)).contains(&count),
            Arity::OneOf(counts) => counts.iter().any(|&n| usize::from(n) == count),
            Arity::Flag => count == 1,
            Arity::Any => true,
        }
    }
}

/// What a second appearance in the same block means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// An error: `"x" directive is duplicate`.
    Once,
    /// One more entry of a list. A list in an inner block replaces the outer one.
    Many,
    /// The last one counts, silently.
    Last,
}

/// What the block of a directive holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opens {
    /// Directives of this context.
    Context(Context),
    /// Free rows, whose first words are data: `types`, `map`, `geo`.
    Rows,
}

/// Everything about a directive except its type.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    pub name: &'static str,
    pub contexts: &'static [Context],
    pub arity: Arity,
    pub repeat: Repeat,
    /// Set for directives that open a block.
    pub opens: Option<Opens>,
    /// The arguments that hold when it is absent, as one would write them; they pass its own
    /// reader. Documentation only for directives that open a block.
    pub default: Option<&'static str>,
    pub syntax: &'static str,
    pub text: &'static str,
    pub example: &'static str,
    /// Why it changes nothing observable here, when it does not.
    pub moot: Option<&'static str>,
}

impl Spec {
    /// Whether the directive may stand in a context.
    pub fn allowed_in(&self, context: Context) -> bool {
        self.contexts.contains(&context)
    }

    /// Names are unique within a context, so these two words identify a directive.
    pub(crate) fn key(&self) -> Key {
        (self.name, self.contexts.first().map_or("", |context| context.id))
    }
}

pub(crate) type Key = (&'static str, &'static str);

/// A directive and the function that makes a `T` from its arguments.
pub struct Directive<T: 'static> {
    pub spec: Spec,
    pub read: fn(&Args<'_>) -> Result<T, Invalid>,
}

impl<T: 'static> Directive<T> {
    /// Starts a declaration: one argument, at most once per block, no default.
    pub const fn new(
        name: &'static str,
        contexts: &'static [Context],
        read: fn(&Args<'_>) -> Result<T, Invalid>,
    ) -> Self {
        let spec = Spec {
            name,
            contexts,
            arity: Arity::Exactly(1),
            repeat: Repeat::Once,
            opens: None,
            default: None,
            syntax: "",
            text: "",
            example: "",
            moot: None,
        };
        Directive { spec, read }
    }

    /// How many arguments it takes.
    #[must_use]
    pub const fn takes(mut self, arity: Arity) -> Self {
        self.spec.arity = arity;
        self
    }

    /// What a second appearance in the same block means.
    #[must_use]
    pub const fn repeats(mut self, repeat: Repeat) -> Self {
        self.spec.repeat = repeat;
        self
    }

    /// It may appear many times: short for `repeats(Repeat::Many)`.
    #[must_use]
    pub const fn many(self) -> Self {
        self.repeats(Repeat::Many)
    }

    /// It opens a block.
    #[must_use]
    pub const fn opens(mut self, opens: Opens) -> Self {
        self.spec.opens = Some(opens);
        self
    }

    /// The arguments that hold when it is absent.
    #[must_use]
    pub const fn default(mut self, default: &'static str) -> Self {
        self.spec.default = Some(default);
        self
    }

    /// For the manual: `client_header_timeout TIME;`. Several forms are separated by newlines.
    #[must_use]
    pub const fn syntax(mut self, syntax: &'static str) -> Self {
        self.spec.syntax = syntax;
        self
    }

    /// For the manual: what it does, in sentences.
    #[must_use]
    pub const fn text(mut self, text: &'static str) -> Self {
        self.spec.text = text;
        self
    }

    /// For the manual: a piece of configuration that passes the checks in one of its contexts.
    #[must_use]
    pub const fn example(mut self, example: &'static str) -> Self {
        self.spec.example = example;
        self
    }

    /// It is accepted, and changes nothing observable on Linux or on this event loop: why.
    #[must_use]
    pub const fn moot(mut self, why: &'static str) -> Self {
        self.spec.moot = Some(why);
        self
    }

    /// Reads a directive of the tree. The arity is checked first, so that readers may rely on it.
    ///
    /// # Errors
    /// What the reader says, or nginx's words about the number of arguments.
    pub fn read_node(&self, node: &Node) -> Result<T, Invalid> {
        read_checked(&self.spec, self.read, &Args::new(node))
    }

    /// Reads arguments given as text, for example `75s 60s`. For tests and defaults.
    ///
    /// # Errors
    /// As [`Directive::read_node`], or that the text is not a list of words.
    pub fn read_text(&self, arguments: &str) -> Result<T, Invalid> {
        match Node::parse(&format!("{} {arguments}", self.spec.name)) {
            Some(node) => self.read_node(&node),
            None => Err(Invalid::new(format!("\"{arguments}\" is not a list of words"))),
        }
    }

    /// The value that holds when the directive is absent; `None` when it has no default.
    ///
    /// # Panics
    /// When the default does not pass the directive's own reader: an error in the table, which
    /// [`crate::Registry::faults`] finds in a test.
    pub fn default_value(&self) -> Option<T> {
        let default = self.spec.default?;
        Some(self.default_from(&self.default_node(default)))
    }

    /// The default as the directive that would say the same.
    ///
    /// # Panics
    /// As [`Directive::default_value`].
    pub(crate) fn default_node(&self, default: &str) -> Node {
        let node = Node::parse(&format!("{} {default}", self.spec.name));
        node.unwrap_or_else(|| {
            panic!("the default {default:?} of \"{}\" is not a list of words", self.spec.name)
        })
    }

    /// The value of the default.
    ///
    /// # Panics
    /// As [`Directive::default_value`].
    pub(crate) fn default_from(&self, node: &Node) -> T {
        self.read_node(node).unwrap_or_else(|invalid| {
            panic!(
                "the default of \"{}\" does not pass its own reader: {}",
                self.spec.name, invalid.message
            )
        })
    }
}

fn read_checked<T>(
    spec: &Spec,
    read: fn(&Args<'_>) -> Result<T, Invalid>,
    args: &Args<'_>,
) -> Result<T, Invalid> {
    if !spec.arity.accepts(args.len()) {
        return Err(Invalid::arity(spec.name));
    }
    read(args)
}

/// A directive whose type is forgotten, for tables.
pub trait AnyDirective: Sync {
    fn spec(&self) -> &Spec;

    /// Runs the reader for its verdict only.
    ///
    /// # Errors
    /// As [`Directive::read_node`].
    fn check(&self, args: &Args<'_>) -> Result<(), Invalid>;
}

impl<T: 'static> AnyDirective for Directive<T> {
    fn spec(&self) -> &Spec {
        &self.spec
    }

    fn check(&self, args: &Args<'_>) -> Result<(), Invalid> {
        read_checked(&self.spec, self.read, args).map(drop)
    }
}

/// The arguments of one directive, as its reader sees them.
pub struct Args<'a> {
    node: &'a Node,
    notes: Option<&'a RefCell<Vec<Invalid>>>,
}

impl<'a> Args<'a> {
    /// The arguments of a directive in the tree.
    pub fn new(node: &'a Node) -> Args<'a> {
        Args { node, notes: None }
    }

    /// As `new`, with a place for what [`Args::warn`] says.
    pub(crate) fn noting(node: &'a Node, notes: &'a RefCell<Vec<Invalid>>) -> Args<'a> {
        Args { node, notes: Some(notes) }
    }

    /// The arguments, without the directive's name.
    pub fn words(&self) -> &'a [Word] {
        &self.node.args
    }

    pub fn len(&self) -> usize {
        self.node.args.len()
    }

    pub fn is_empty(&self) -> bool {
        self.node.args.is_empty()
    }

    /// Argument `i`, from 0; an empty word when there are fewer.
    pub fn word(&self, i: usize) -> &'a Word {
        static NOTHING: Word = Word {
            text: Vec::new(),
            quoted: false,
            span: crate::Span { file: crate::FileId(0), line: 0, start: 0, end: 0 },
        };
        self.node.args.get(i).unwrap_or(&NOTHING)
    }

    /// Argument `i`, from 0, as text; empty when there are fewer.
    pub fn str(&self, i: usize) -> Cow<'a, str> {
        self.word(i).str()
    }

    pub fn node(&self) -> &'a Node {
        self.node
    }

    /// The directive's name.
    pub fn name(&self) -> Cow<'a, str> {
        self.node.name.str()
    }

    /// Says something that does not refuse the configuration. Reported once, by `check`.
    pub fn warn(&self, note: impl Into<Invalid>) {
        if let Some(notes) = self.notes {
            let note: Invalid = note.into();
            notes.borrow_mut().push(note.level(Level::Warn));
        }
    }
}

/// Why arguments were refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// nginx's words, without the place.
    pub message: String,
    /// The argument to point at, from 0; the whole directive when `None`.
    pub word: Option<usize>,
    pub help: Option<String>,
    /// Nearly always `emerg`.
    pub level: Level,
}

impl Invalid {
    pub fn new(message: impl Into<String>) -> Invalid {
        Invalid { message: message.into(), word: None, help: None, level: Level::Emerg }
    }

    /// Points at argument `word`, from 0.
    #[must_use]
    pub fn at(mut self, word: usize) -> Invalid {
        self.word = Some(word);
        self
    }

    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Invalid {
        self.help = Some(help.into());
        self
    }

    #[must_use]
    pub fn level(mut self, level: Level) -> Invalid {
        self.level = level;
        self
    }

    pub(crate) fn arity(name: &str) -> Invalid {
        Invalid::new(format!("invalid number of arguments in \"{name}\" directive"))
    }
}

impl From<String> for Invalid {
    fn from(message: String) -> Invalid {
        Invalid::new(message)
    }
}

impl From<&str> for Invalid {
    fn from(message: &str) -> Invalid {
        Invalid::new(message)
    }
}
