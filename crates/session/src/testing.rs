//! A conversation of nothing but variables, for the tests of this crate.

use crate::contexts::{HTTP, LOCATION, SERVER};
use crate::log::Level;
use crate::regex::Captures;
use crate::text::{Arena, Span};
use crate::variables::{Builtin, Cells, Subject, Variables, value};
use config::{AnyDirective, Arity, Context, Directive, MAIN, Opens, Scope};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;

/// The variables `$x`, `$y` and so on are what the test says; more of them are made by tests.
pub(crate) struct Talk {
    arena: Arena,
    variables: Rc<Variables<Talk>>,
    cells: Cells,
    captures: Captures,
    given: BTreeMap<&'static str, String>,
    /// What was reported.
    pub(crate) complaints: Vec<String>,
}

static BUILTINS: &[Builtin<Talk>] = &[
    Builtin::volatile("x", |talk| talk.given("x"), "Given by the test."),
    Builtin::volatile("z", |talk| talk.given("z"), "Given by the test."),
];

impl Talk {
    /// A conversation with values for `$x` and `$z`.
    pub(crate) fn new(variables: &Rc<Variables<Talk>>, given: &[(&'static str, &str)]) -> Talk {
        Talk {
            arena: Arena::new(),
            variables: variables.clone(),
            cells: Cells::new(variables.len()),
            captures: Captures::default(),
            given: given.iter().map(|(name, text)| (*name, (*text).to_owned())).collect(),
            complaints: Vec::new(),
        }
    }

    /// Changes what is given.
    pub(crate) fn set(&mut self, name: &'static str, text: &str) {
        self.given.insert(name, text.to_owned());
    }

    /// What is given for a variable; empty when nothing is.
    pub(crate) fn text_of(&self, name: &str) -> &str {
        self.given.get(name).map_or("", String::as_str)
    }

    fn given(&mut self, name: &str) -> Option<Span> {
        let text = self.given.get(name)?;
        Some(self.arena.push(text.as_bytes()))
    }

    /// The value of a variable that the configuration uses; empty when it has none.
    pub(crate) fn value(&mut self, name: &str) -> String {
        let ids = 0..self.variables.len() as u32;
        let mut ids = ids.map(crate::variables::VariableId);
        let Some(id) = ids.find(|id| self.variables.name(*id) == name) else {
            panic!("no variable {name}")
        };
        let span = value(self, id).unwrap_or_default();
        String::from_utf8_lossy(self.arena.text(span)).into_owned()
    }
}

impl Subject for Talk {
    fn arena(&self) -> &Arena {
        &self.arena
    }
    fn arena_mut(&mut self) -> &mut Arena {
        &mut self.arena
    }
    fn variables(&self) -> Rc<Variables<Talk>> {
        self.variables.clone()
    }
    fn cells(&mut self) -> &mut Cells {
        &mut self.cells
    }
    fn capture(&mut self, n: u8) -> Option<Span> {
        self.captures.group(n)
    }
    fn set_captures(&mut self, captures: Captures) {
        self.captures = captures;
    }
    fn complain(&mut self, _: Level, message: fmt::Arguments<'_>) {
        self.complaints.push(message.to_string());
    }
}

static BLOCKS: &[&dyn AnyDirective] = &[&HTTP_BLOCK, &SERVER_BLOCK, &LOCATION_BLOCK];
static HTTP_BLOCK: Directive<()> = block("http", &[MAIN], HTTP);
static SERVER_BLOCK: Directive<()> = block("server", &[HTTP], SERVER);
static LOCATION_BLOCK: Directive<()> = block("location", &[SERVER], LOCATION);

const fn block(name: &'static str, contexts: &'static [Context], inner: Context) -> Directive<()> {
    Directive::new(name, contexts, |_| Ok(())).takes(Arity::Any).opens(Opens::Context(inner))
}

/// Compiles the inside of an `http` block with `compile`: the variables and the faults found.
pub(crate) fn compiled(
    inside: &str,
    directives: &'static [&'static dyn AnyDirective],
    compile: impl Fn(&Scope<'_>, &mut Variables<Talk>),
) -> (Rc<Variables<Talk>>, Vec<String>) {
    compiled_with_files(config::MemoryFiles::new(), inside, directives, compile)
}

/// As [`compiled`], with files that the configuration may include.
pub(crate) fn compiled_with_files(
    files: config::MemoryFiles,
    inside: &str,
    directives: &'static [&'static dyn AnyDirective],
    compile: impl Fn(&Scope<'_>, &mut Variables<Talk>),
) -> (Rc<Variables<Talk>>, Vec<String>) {
    let registry = config::Registry::new(&[BLOCKS, directives]);
    let files = files.with("/c/x.conf", format!("http {{ {inside} }}"));
    let path = "/c/x.conf".as_ref();
    let (tree, mut found) = config::load(&files, path, "/c".as_ref(), &[], &registry);
    let sink = config::Sink::new();
    let mut variables = Variables::new(&[BUILTINS]);
    // As an engine does: built-in variables are there whether the configuration uses them or not.
    variables.reference("x");
    let root = Scope::root(&tree, &registry, &sink);
    for ((), http) in root.blocks(&HTTP_BLOCK) {
        compile(&http, &mut variables);
    }
    found.extend(sink.take());
    let found = config::in_order(&tree, found);
    let mut faults: Vec<String> = found.into_iter().map(|fault| fault.message).collect();
    let unknown = variables.unknown().into_iter();
    faults.extend(unknown.map(|name| format!("unknown \"{name}\" variable")));
    (Rc::new(variables), faults)
}
