//! All directives that a program knows, found by context and name.

use std::collections::BTreeMap;

use foldhash::{HashMap, HashMapExt};

use crate::check::check_nodes;
use crate::directive::{AnyDirective, Args, Context, Opens};
use crate::parse;
use crate::text::Node;

/// Directive tables, indexed.
pub struct Registry {
    by_context: HashMap<&'static str, HashMap<&'static [u8], &'static dyn AnyDirective>>,
    by_name: BTreeMap<&'static str, Vec<&'static dyn AnyDirective>>,
    all: Vec<&'static dyn AnyDirective>,
}

impl Registry {
    /// Indexes tables.
    ///
    /// # Panics
    /// When a name stands twice in one context: an error in the tables, found at the first start.
    pub fn new(groups: &[&'static [&'static dyn AnyDirective]]) -> Registry {
        let all: Vec<&'static dyn AnyDirective> =
            groups.iter().flat_map(|group| group.iter().copied()).collect();
        let mut by_context: HashMap<&'static str, HashMap<&'static [u8], _>> = HashMap::new();
        let mut by_name: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for &directive in &all {
            let spec = directive.spec();
            for context in spec.contexts {
                let names = by_context.entry(context.id).or_default();
                let twice = names.insert(spec.name.as_bytes(), directive).is_some();
                assert!(!twice, "\"{}\" is declared twice in \"{}\"", spec.name, context.id);
            }
            by_name.entry(spec.name).or_default().push(directive);
        }
        Registry { by_context, by_name, all }
    }

    /// The directive that a name means in a context.
    pub fn find(&self, context: Context, name: &[u8]) -> Option<&'static dyn AnyDirective> {
        self.by_context.get(context.id)?.get(name).copied()
    }

    /// All directives of a name, whatever their contexts.
    pub fn named(&self, name: &[u8]) -> &[&'static dyn AnyDirective] {
        let name = std::str::from_utf8(name).ok();
        name.and_then(|name| self.by_name.get(name)).map_or(&[], Vec::as_slice)
    }

    /// Every directive, in the order of the tables.
    pub fn all(&self) -> impl Iterator<Item = &'static dyn AnyDirective> + '_ {
        self.all.iter().copied()
    }

    /// The names that are known in a context, sorted.
    pub(crate) fn names_in(&self, context: Context) -> Vec<&'static str> {
        let mut names: Vec<_> = match self.by_context.get(context.id) {
            Some(names) => names.values().map(|directive| directive.spec().name).collect(),
            None => Vec::new(),
        };
        names.sort_unstable();
        names
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.by_name.keys().copied()
    }

    /// What is wrong with the tables themselves, for a test: a default that its own reader
    /// refuses, missing documentation, an example that fails the checks.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for directive in self.all() {
            let spec = directive.spec();
            let mut fault = |what: String| faults.push(format!("{}: {what}", spec.name));
            if spec.contexts.is_empty() {
                fault("no context".to_owned());
            }
            for (field, text) in
                [("syntax", spec.syntax), ("text", spec.text), ("example", spec.example)]
            {
                if text.trim().is_empty() {
                    fault(format!("no {field}"));
                }
            }
            if let Some(problem) = self.default_fault(directive) {
                fault(problem);
            }
            if !spec.example.trim().is_empty()
                && let Some(problem) = self.example_fault(directive)
            {
                fault(problem);
            }
        }
        faults
    }

    fn default_fault(&self, directive: &'static dyn AnyDirective) -> Option<String> {
        let spec = directive.spec();
        let default = spec.default.filter(|_| spec.opens.is_none())?;
        let Some(node) = Node::parse(&format!("{} {default}", spec.name)) else {
            return Some(format!("the default {default:?} is not a list of words"));
        };
        let verdict = directive.check(&Args::new(&node));
        verdict.err().map(|invalid| format!("the default {default:?}: {}", invalid.message))
    }

    /// An example is right when it mentions the directive and passes the checks in some context;
    /// the complaint is about the directive's own first context.
    fn example_fault(&self, directive: &'static dyn AnyDirective) -> Option<String> {
        let spec = directive.spec();
        let Some(nodes) = parse::fragment(spec.example) else {
            return Some("the example does not parse".to_owned());
        };
        if !mentions(&nodes, spec.name.as_bytes()) {
            return Some("the example does not show it".to_owned());
        }
        let contexts = spec.contexts.iter().chain(self.all().flat_map(|one| one.spec().contexts));
        let mut first = None;
        for context in contexts {
            let mut found = Vec::new();
            check_nodes(&nodes, *context, self, &mut found);
            // A name that is deprecated warns in its own example, too.
            match found.into_iter().find(|problem| problem.level != crate::Level::Warn) {
                None => return None,
                Some(problem) => first = first.or(Some(problem)),
            }
        }
        first.map(|problem| format!("the example: {}", problem.message))
    }
}

fn mentions(nodes: &[Node], name: &[u8]) -> bool {
    nodes.iter().any(|node| {
        node.name.bytes() == name
            || node.block.as_ref().is_some_and(|block| mentions(&block.nodes, name))
    })
}

/// The context that a directive's block has, if it holds directives.
pub(crate) fn inner_context(directive: &dyn AnyDirective) -> Option<Context> {
    match directive.spec().opens {
        Some(Opens::Context(context)) => Some(context),
        _ => None,
    }
}
