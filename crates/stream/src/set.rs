//! `set`: variables with values of their own (nginx: ngx_stream_set_module). They are assigned
//! in the order of the file, when the session's limits were checked.

use config::{AnyDirective, Args, Arity, Directive, Invalid, Scope, read};
use session::contexts::STREAM_SERVER;
use session::map::variable_name;
use session::variables::{Source, Template, VariableId, assign};

use crate::compile::Compiler;
use crate::module::{Check, Module, Stage, Step, Verdict};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    server: Some(attach),
    ..Module::new("stream_set", "Gives variables values.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&SET];

static SET: Directive<SetLine> = Directive::new("set", &[STREAM_SERVER], read_set)
    .takes(Arity::Exactly(2))
    .many()
    .syntax("set $VARIABLE VALUE;")
    .text("Gives a variable a value, which may hold text and variables.")
    .example("stream { server { listen 1234; set $name value; return $name; } }");

/// What `set` says.
#[derive(Debug)]
struct SetLine {
    /// Without the `$`.
    name: String,
    value: config::Template,
}

fn read_set(args: &Args<'_>) -> Result<SetLine, Invalid> {
    Ok(SetLine { name: variable_name(args, 0)?, value: read::template_at(args, 1)? })
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    let mut list = Vec::new();
    for (line, span) in scope.nodes_local(&SET) {
        let value = c.template(&line.value);
        match c.variables.assignable_or(&line.name, |_| Source::Stored) {
            Ok(variable) => list.push((variable, value)),
            Err(reason) => scope.error(span, reason),
        }
    }
    if !list.is_empty() {
        builder.check(Assignments(list));
    }
}

struct Assignments(Vec<(VariableId, Template)>);

impl Check for Assignments {
    fn stage(&self) -> Stage {
        Stage::Preaccess
    }

    fn check<'a>(&'a self, s: &'a mut Session) -> Step<'a> {
        for (variable, value) in &self.0 {
            let value = value.value(s);
            assign(s, *variable, value);
        }
        Step::Now(Verdict::Next)
    }
}
