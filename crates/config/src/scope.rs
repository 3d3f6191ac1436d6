//! Blocks as a compiler sees them: a value is looked for here, then in each block around.
//!
//! That one walk outward is all there is to merging: an inner value hides an outer one, and an
//! inner list replaces the outer list. Values that their reader refuses were reported by
//! `check`; here they count as absent, and nothing is said twice. Every look is recorded in the
//! [`Sink`], so that a test can tell which directives no compile step ever reads.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use foldhash::{HashMap, HashMapExt, HashSet};

use crate::check::from_invalid;
use crate::diagnostic::Diagnostic;
use crate::directive::{AnyDirective, Context, Directive, Invalid, Key, MAIN, Opens, Repeat, Spec};
use crate::registry::{Registry, inner_context};
use crate::text::{Block, Node, Span, Tree};

/// What compiling says and reads. One for a whole compilation.
#[derive(Default)]
pub struct Sink {
    diagnostics: RefCell<Vec<Diagnostic>>,
    present: RefCell<BTreeMap<Key, &'static str>>,
    /// What was asked for, told apart by addresses: no text has to be hashed.
    read: RefCell<HashSet<Place>>,
    /// Defaults that were parsed already.
    defaults: RefCell<HashMap<Place, Rc<Node>>>,
}

impl Sink {
    pub fn new() -> Sink {
        Sink::default()
    }

    pub fn push(&self, diagnostic: Diagnostic) {
        self.diagnostics.borrow_mut().push(diagnostic);
    }

    /// Adds an error that refuses the configuration.
    pub fn error(&self, span: impl Into<Option<Span>>, message: impl Into<String>) {
        self.push(Diagnostic::emerg(message, span));
    }

    /// Adds a warning.
    pub fn warn(&self, span: impl Into<Option<Span>>, message: impl Into<String>) {
        self.push(Diagnostic::warn(message, span));
    }

    /// Whether anything so far refuses the configuration.
    pub fn has_errors(&self) -> bool {
        crate::diagnostic::refuses(&self.diagnostics.borrow())
    }

    /// Takes what was said, in the order of saying.
    pub fn take(&self) -> Vec<Diagnostic> {
        self.diagnostics.take()
    }

    /// The directives that stand in the trees given to [`Scope::root`] and are in the tables, but
    /// that nothing has asked for. Sorted. For the test that every accepted directive is used.
    pub fn unread(&self, registry: &Registry) -> Vec<&'static str> {
        let (present, read) = (self.present.borrow(), self.read.borrow());
        let specs = registry.all().map(|directive| directive.spec());
        let unread: HashSet<Key> =
            specs.filter(|spec| !read.contains(&place(spec))).map(Spec::key).collect();
        present.keys().filter(|key| unread.contains(*key)).map(|(name, _)| *name).collect()
    }

    /// The directives of the tables that stand in no tree given to [`Scope::root`]. Sorted. For
    /// the same test: its configuration must show every directive.
    pub fn absent(&self, registry: &Registry) -> Vec<&'static str> {
        let present = self.present.borrow();
        let keys = registry.all().map(|directive| directive.spec().key());
        let mut absent: Vec<_> = keys.filter(|key| !present.contains_key(key)).collect();
        absent.sort_unstable();
        absent.into_iter().map(|(name, _)| name).collect()
    }

    fn note_read(&self, spec: &Spec) {
        self.read.borrow_mut().insert(place(spec));
    }

    /// A directive's default, parsed once for all the blocks that do not say otherwise.
    fn default_of<T>(&self, directive: &Directive<T>) -> Option<T> {
        let default = directive.spec.default?;
        let place = (directive.spec.name.as_ptr(), default.as_ptr());
        let parsed = self.defaults.borrow().get(&place).cloned();
        let node = parsed.unwrap_or_else(|| {
            let node = Rc::new(directive.default_node(default));
            self.defaults.borrow_mut().insert(place, node.clone());
            node
        });
        Some(directive.default_from(&node))
    }

    fn note_present(&self, nodes: &[Node], context: Context, registry: &Registry) {
        for node in nodes {
            let Some(directive) = registry.find(context, node.name.bytes()) else { continue };
            let key = directive.spec().key();
            self.present.borrow_mut().insert(key, key.0);
            if let (Some(inner), Some(block)) = (inner_context(directive), &node.block) {
                self.note_present(&block.nodes, inner, registry);
            }
        }
    }
}

/// Where two texts that last for ever are.
type Place = (*const u8, *const u8);

/// Tells specs apart: each of a table's has its own name and contexts.
fn place(spec: &Spec) -> Place {
    (spec.name.as_ptr(), spec.contexts.as_ptr().cast())
}

/// Blocks of so few nodes are looked through; larger ones have an index.
const FEW: usize = 8;

/// A block, its context, and the blocks around it. Cheap to clone.
#[derive(Clone)]
pub struct Scope<'t> {
    level: Rc<LevelOf<'t>>,
    tree: &'t Tree,
    registry: &'t Registry,
    sink: &'t Sink,
}

struct LevelOf<'t> {
    block: &'t Block,
    context: Context,
    span: Span,
    node: Option<&'t Node>,
    parent: Option<Scope<'t>>,
    /// Positions in `block.nodes` by name, made at the first look into a block of many nodes.
    index: OnceCell<HashMap<&'t [u8], Vec<usize>>>,
}

/// A directive of a block, for modules to which order matters.
pub struct Child<'t> {
    pub directive: &'static dyn AnyDirective,
    pub node: &'t Node,
    /// Set when it opens a block of directives.
    pub scope: Option<Scope<'t>>,
    sink: &'t Sink,
}

impl<'t> Child<'t> {
    /// Its value, when it is an appearance of `directive`.
    pub fn read<T>(&self, directive: &Directive<T>) -> Option<T> {
        if !self.is(directive) {
            return None;
        }
        self.sink.note_read(&directive.spec);
        directive.read_node(self.node).ok()
    }

    /// Whether it is an appearance of `directive`.
    pub fn is<T>(&self, directive: &Directive<T>) -> bool {
        self.directive.spec().key() == directive.spec.key()
    }

    pub fn span(&self) -> Span {
        self.node.span
    }
}

impl<'t> Scope<'t> {
    /// The whole configuration.
    pub fn root(tree: &'t Tree, registry: &'t Registry, sink: &'t Sink) -> Scope<'t> {
        sink.note_present(&tree.root.nodes, MAIN, registry);
        let level = LevelOf {
            block: &tree.root,
            context: MAIN,
            span: tree.root.close,
            node: None,
            parent: None,
            index: OnceCell::new(),
        };
        Scope { level: Rc::new(level), tree, registry, sink }
    }

    /// The value at the nearest level that has one, else the default.
    ///
    /// # Panics
    /// When the directive has no default, or one that its own reader refuses: errors in a table.
    pub fn get<T>(&self, directive: &Directive<T>) -> T {
        self.get_spanned(directive).0
    }

    /// As [`Scope::get`], with the place of the value unless it is the default.
    ///
    /// # Panics
    /// As [`Scope::get`].
    pub fn get_spanned<T>(&self, directive: &Directive<T>) -> (T, Option<Span>) {
        if let Some((value, span)) = self.find_spanned(directive) {
            return (value, Some(span));
        }
        match self.sink.default_of(directive) {
            Some(value) => (value, None),
            None => panic!("\"{}\" has no default: use find", directive.spec.name),
        }
    }

    /// The value at the nearest level that has one.
    pub fn find<T>(&self, directive: &Directive<T>) -> Option<T> {
        self.find_spanned(directive).map(|(value, _)| value)
    }

    /// As [`Scope::find`], with its place.
    pub fn find_spanned<T>(&self, directive: &Directive<T>) -> Option<(T, Span)> {
        let level = self.nearest(directive)?;
        level.one(directive)
    }

    /// The value in this very block.
    pub fn local<T>(&self, directive: &Directive<T>) -> Option<T> {
        self.local_spanned(directive).map(|(value, _)| value)
    }

    /// As [`Scope::local`], with its place.
    pub fn local_spanned<T>(&self, directive: &Directive<T>) -> Option<(T, Span)> {
        self.note(directive);
        self.one(directive)
    }

    /// Whether this very block has the directive, valid or not.
    pub fn has_local<T>(&self, directive: &Directive<T>) -> bool {
        self.note(directive);
        self.here(&directive.spec).next().is_some()
    }

    /// All values at the nearest level that has any: lists are replaced, never merged.
    pub fn all<T>(&self, directive: &Directive<T>) -> Vec<T> {
        without_spans(self.nodes(directive))
    }

    /// All values in this very block.
    pub fn all_local<T>(&self, directive: &Directive<T>) -> Vec<T> {
        without_spans(self.nodes_local(directive))
    }

    /// As [`Scope::all`], with places.
    pub fn nodes<T>(&self, directive: &Directive<T>) -> Vec<(T, Span)> {
        self.nearest(directive).map_or(Vec::new(), |level| level.every(directive))
    }

    /// As [`Scope::all_local`], with places.
    pub fn nodes_local<T>(&self, directive: &Directive<T>) -> Vec<(T, Span)> {
        self.note(directive);
        self.every(directive)
    }

    /// The blocks that a directive opens in this very block, in order, each with the value of its
    /// arguments. Those whose arguments are refused are left out.
    pub fn blocks<T>(&self, directive: &Directive<T>) -> Vec<(T, Scope<'t>)> {
        self.note(directive);
        let Some(Opens::Context(context)) = directive.spec.opens else { return Vec::new() };
        self.here(&directive.spec)
            .filter_map(|node| {
                let value = directive.read_node(node).ok()?;
                Some((value, self.inner(node, context)?))
            })
            .collect()
    }

    /// The directives of this very block, in order.
    pub fn children(&self) -> impl Iterator<Item = Child<'t>> + use<'t> {
        let scope = self.clone();
        self.level.block.nodes.iter().filter_map(move |node| {
            let directive = scope.registry.find(scope.level.context, node.name.bytes())?;
            let inner = inner_context(directive).and_then(|context| scope.inner(node, context));
            Some(Child { directive, node, scope: inner, sink: scope.sink })
        })
    }

    /// The rows of a directive with free rows, from the nearest level that has it. Several such
    /// blocks of one level follow one another, as with `types`.
    pub fn rows<T>(&self, directive: &Directive<T>) -> Vec<&'t Node> {
        let Some(level) = self.nearest(directive) else { return Vec::new() };
        let blocks = level.here(&directive.spec).filter_map(|node| node.block.as_ref());
        blocks.flat_map(|block| &block.nodes).collect()
    }

    /// The blocks with free rows that a directive opens in this very block: its value, its rows
    /// and its place. For `map` and `geo`.
    pub fn row_blocks<T>(&self, directive: &Directive<T>) -> Vec<(T, &'t [Node], Span)> {
        self.note(directive);
        self.here(&directive.spec)
            .filter_map(|node| {
                let value = directive.read_node(node).ok()?;
                Some((value, node.block.as_ref()?.nodes.as_slice(), node.span))
            })
            .collect()
    }

    /// The block around this one.
    pub fn parent(&self) -> Option<Scope<'t>> {
        self.level.parent.clone()
    }

    pub fn context(&self) -> Context {
        self.level.context
    }

    /// The directive that opened this block; the end of the file for the root.
    pub fn span(&self) -> Span {
        self.level.span
    }

    /// The closing brace, whose line nginx names when a block as a whole is wrong.
    pub fn close(&self) -> Span {
        self.level.block.close
    }

    /// The directive that opened this block; `None` for the root.
    pub fn node(&self) -> Option<&'t Node> {
        self.level.node
    }

    pub fn tree(&self) -> &'t Tree {
        self.tree
    }

    pub fn registry(&self) -> &'t Registry {
        self.registry
    }

    pub fn sink(&self) -> &'t Sink {
        self.sink
    }

    /// Refuses the configuration, with nginx's words for it.
    pub fn error(&self, span: impl Into<Option<Span>>, message: impl Into<String>) {
        self.sink.error(span, message);
    }

    /// As [`Scope::error`], for what a reader-like function says about the words of a node.
    pub fn refuse(&self, node: &Node, invalid: impl Into<Invalid>) {
        self.sink.push(from_invalid(node, invalid.into(), true));
    }

    /// Warns, and accepts the configuration.
    pub fn warn(&self, span: impl Into<Option<Span>>, message: impl Into<String>) {
        self.sink.warn(span, message);
    }

    /// This level and those around it, innermost first.
    fn outward(&self) -> impl Iterator<Item = &Scope<'t>> {
        std::iter::successors(Some(self), |scope| scope.level.parent.as_ref())
    }

    /// The nearest level where a directive stands.
    fn nearest<T>(&self, directive: &Directive<T>) -> Option<&Scope<'t>> {
        self.note(directive);
        self.outward().find(|scope| scope.here(&directive.spec).next().is_some())
    }

    fn note<T>(&self, directive: &Directive<T>) {
        self.sink.note_read(&directive.spec);
    }

    /// The appearances of a directive in this very block.
    fn here(&self, spec: &Spec) -> impl Iterator<Item = &'t Node> + use<'_, 't> {
        let nodes = self.level.block.nodes.as_slice();
        let name = spec.name.as_bytes();
        let (few, positions) = match spec.allowed_in(self.level.context) {
            false => (&[][..], &[][..]),
            true if nodes.len() <= FEW => (nodes, &[][..]),
            true => (&[][..], self.positions().get(name).map_or(&[][..], Vec::as_slice)),
        };
        let found = few.iter().filter(move |node| node.name.bytes() == name);
        found.chain(positions.iter().filter_map(|&position| nodes.get(position)))
    }

    fn positions(&self) -> &HashMap<&'t [u8], Vec<usize>> {
        self.level.index.get_or_init(|| {
            let mut index: HashMap<&'t [u8], Vec<usize>> = HashMap::new();
            for (position, node) in self.level.block.nodes.iter().enumerate() {
                index.entry(node.name.bytes()).or_default().push(position);
            }
            index
        })
    }

    /// The value that counts in this very block.
    fn one<T>(&self, directive: &Directive<T>) -> Option<(T, Span)> {
        let mut nodes = self.here(&directive.spec);
        let node = match directive.spec.repeat {
            Repeat::Last => nodes.last(),
            Repeat::Once | Repeat::Many => nodes.next(),
        }?;
        Some((directive.read_node(node).ok()?, node.span))
    }

    fn every<T>(&self, directive: &Directive<T>) -> Vec<(T, Span)> {
        let nodes = self.here(&directive.spec);
        nodes.filter_map(|node| Some((directive.read_node(node).ok()?, node.span))).collect()
    }

    /// The block of one of this block's nodes.
    fn inner(&self, node: &'t Node, context: Context) -> Option<Scope<'t>> {
        let level = LevelOf {
            block: node.block.as_ref()?,
            context,
            span: node.span,
            node: Some(node),
            parent: Some(self.clone()),
            index: OnceCell::new(),
        };
        Some(Scope { level: Rc::new(level), ..*self })
    }
}

fn without_spans<T>(values: Vec<(T, Span)>) -> Vec<T> {
    values.into_iter().map(|(value, _)| value).collect()
}
