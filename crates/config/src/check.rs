//! Everything that the directive tables alone can say about a tree: unknown names, wrong places,
//! missing `;` and `{`, numbers of arguments, duplicates, and values.
//!
//! For each directive the first of nginx's checks that fails is reported, in nginx's order and
//! words; then the walk goes on.

use std::cell::RefCell;
use std::collections::HashMap;

use crate::diagnostic::{Diagnostic, in_order};
use crate::directive::{AnyDirective, Args, Context, Invalid, MAIN, Opens, Repeat};
use crate::registry::{Registry, inner_context};
use crate::suggest;
use crate::text::{Block, Node, Span, Tree};

/// Nobody reads more; the rest would only cost time and memory.
const MOST_FINDINGS: usize = 1000;

/// Checks a whole tree. The findings are in the order in which nginx would meet them.
pub fn check(tree: &Tree, registry: &Registry) -> Vec<Diagnostic> {
    let mut found = Vec::new();
    check_nodes(&tree.root.nodes, MAIN, registry, &mut found);
    for diagnostic in &mut found {
        name_first_place(tree, diagnostic);
    }
    let found = found.into_iter().map(|finding| finding.diagnostic).collect();
    in_order(tree, found)
}

/// A diagnostic whose help may still want the name of another place.
pub(crate) struct Finding {
    diagnostic: Diagnostic,
    first: Option<Span>,
}

impl std::ops::Deref for Finding {
    type Target = Diagnostic;

    fn deref(&self) -> &Diagnostic {
        &self.diagnostic
    }
}

fn name_first_place(tree: &Tree, finding: &mut Finding) {
    if let Some(first) = finding.first {
        finding.diagnostic.help = Some(format!("it was given before in {}", tree.place(first)));
    }
}

/// Checks the directives of one block, and what they contain.
pub(crate) fn check_nodes(
    nodes: &[Node],
    context: Context,
    registry: &Registry,
    found: &mut Vec<Finding>,
) {
    let mut seen: HashMap<&[u8], Span> = HashMap::new();
    for node in nodes {
        if found.len() >= MOST_FINDINGS {
            return;
        }
        let name = node.name.bytes();
        let Some(directive) = registry.find(context, name) else {
            push(found, misplaced(node, context, registry));
            // A block in the wrong place is still a block whose content can be looked at.
            let inner = registry.named(name).iter().find_map(|&one| inner_context(one));
            if let (Some(inner), Some(block)) = (inner, &node.block) {
                check_nodes(&block.nodes, inner, registry, found);
            }
            continue;
        };
        if let Some(diagnostic) = wrong_shape(node, directive) {
            push(found, diagnostic);
            if directive.spec().opens.is_none() || node.block.is_none() {
                continue;
            }
        } else if directive.spec().repeat == Repeat::Once && seen.contains_key(name) {
            let message = format!("\"{}\" directive is duplicate", node.name.shown());
            let first = seen.get(name).copied();
            found.push(Finding { diagnostic: Diagnostic::emerg(message, node.span), first });
        } else {
            seen.insert(name, node.span);
            check_values(node, directive, found);
        }
        if let Some(block) = &node.block {
            check_block(block, directive, registry, found);
        }
    }
}

fn push(found: &mut Vec<Finding>, diagnostic: Diagnostic) {
    found.push(Finding { diagnostic, first: None });
}

/// A name that is not known in a context: either nowhere, or elsewhere.
fn misplaced(node: &Node, context: Context, registry: &Registry) -> Diagnostic {
    let name = node.name.shown();
    let elsewhere = registry.named(node.name.bytes());
    if elsewhere.is_empty() {
        let help = suggest::name(registry, context, &name);
        return Diagnostic::emerg(format!("unknown directive \"{name}\""), node.name.span)
            .with_help(help);
    }
    let mut places: Vec<&str> = Vec::new();
    for context in elsewhere.iter().flat_map(|directive| directive.spec().contexts) {
        if !places.contains(&context.shown) {
            places.push(context.shown);
        }
    }
    let help = format!("it belongs in: {}", places.join(", "));
    Diagnostic::emerg(format!("\"{name}\" directive is not allowed here"), node.name.span)
        .with_help(help)
}

/// The checks that need no value: `;` or `{`, and the number of arguments.
fn wrong_shape(node: &Node, directive: &dyn AnyDirective) -> Option<Diagnostic> {
    let spec = directive.spec();
    let name = node.name.shown();
    let message = match (&node.block, spec.opens) {
        (Some(_), None) => format!("directive \"{name}\" is not terminated by \";\""),
        (None, Some(_)) => format!("directive \"{name}\" has no opening \"{{\""),
        _ if !spec.arity.accepts(node.args.len()) => Invalid::arity(&name).message,
        _ => return None,
    };
    let help =
        (!spec.syntax.is_empty()).then(|| format!("the syntax is: {}", one_line(spec.syntax)));
    Some(Diagnostic::emerg(message, node.span).with_help(help))
}

fn one_line(syntax: &str) -> String {
    syntax.lines().map(str::trim).collect::<Vec<_>>().join(" or ")
}

/// Runs the reader, for its verdict and its warnings.
fn check_values(node: &Node, directive: &dyn AnyDirective, found: &mut Vec<Finding>) {
    let notes = RefCell::new(Vec::new());
    let verdict = directive.check(&Args::noting(node, &notes));
    let refused = verdict.err();
    for note in notes.into_inner() {
        push(found, from_invalid(node, note, false));
    }
    if let Some(invalid) = refused {
        push(found, from_invalid(node, invalid, true));
    }
}

/// A reader's verdict as a diagnostic that points at the argument in question.
pub(crate) fn from_invalid(node: &Node, invalid: Invalid, fatal: bool) -> Diagnostic {
    let word = invalid.word.and_then(|i| node.args.get(i));
    let span = Span { line: node.span.line, ..word.map_or(node.span, |word| word.span) };
    Diagnostic {
        level: invalid.level,
        message: invalid.message,
        span: Some(span),
        help: invalid.help,
        fatal,
    }
}

/// Checks what a directive's block holds.
fn check_block(
    block: &Block,
    directive: &dyn AnyDirective,
    registry: &Registry,
    found: &mut Vec<Finding>,
) {
    match directive.spec().opens {
        Some(Opens::Context(context)) => check_nodes(&block.nodes, context, registry, found),
        Some(Opens::Rows) => {
            for row in &block.nodes {
                if let Some(inner) = &row.block {
                    push(found, Diagnostic::emerg("unexpected \"{\"", inner.open));
                }
            }
        }
        None => {}
    }
}
