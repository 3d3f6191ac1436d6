//! `rewrite`, `if`, `set`, `break` and `return`: a small program per level that runs before the
//! content is made (nginx: ngx_http_rewrite_module).
//!
//! The directives of a level, and of the `if` blocks in it, become one list of operations in the
//! order of the file (`script`). The server's own list runs before a location is chosen, a
//! location's after. `condition` reads and decides conditions, `answer` is `return`.
//!
//! An `if` of a location is a location of its own with a whole pipeline; a true condition makes
//! it the request's location and goes on with the list, so that the last one that is true wins.

mod answer;
mod condition;
mod replacement;
mod script;

use condition::Condition;
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Opens, Scope, read};
use http::compile::Compiler;
use http::{Exchange, LocationBuilder, Module};
use replacement::{Rewrite, RewriteLine};
use script::{Operation, Script};
use session::contexts::{HTTP, IF_LOCATION, IF_SERVER, LOCATION, SERVER};
use session::log::Level;
use session::text::Span;
use session::variables::{Source, VariableId};
use std::rc::Rc;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_rewrite",
        "Changes the path of requests, sets variables, and answers or redirects, depending on \
         conditions. The directives of a block run in the order of the file: those of a `server` \
         first, then those of the location that the path leads to. When these changed the path, \
         a location is chosen anew, at most ten times.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &REWRITE,
    &answer::RETURN,
    &SET,
    &BREAK,
    &IF_IN_SERVER,
    &IF_IN_LOCATION,
    &REWRITE_LOG,
    &UNINITIALIZED_VARIABLE_WARN,
];

const ANYWHERE: &[Context] = &[SERVER, LOCATION, IF_SERVER, IF_LOCATION];
const LEVELS: &[Context] = &[HTTP, SERVER, LOCATION, IF_SERVER, IF_LOCATION];

static REWRITE: Directive<RewriteLine> =
    Directive::new("rewrite", ANYWHERE, replacement::read_rewrite)
        .takes(Arity::Between(2, 3))
        .many()
        .syntax("rewrite REGEX REPLACEMENT [last | break | redirect | permanent];")
        .text(
            "Replaces the path when REGEX matches it. `$1` to `$9` in REPLACEMENT are the groups \
             of the match. What follows a `?` in REPLACEMENT becomes the query, and the query of \
             the request is appended unless REPLACEMENT ends in `?`. Without a flag the next \
             directive follows. `last` ends the list and chooses a location for the new path; \
             `break` ends it and stays in the location. `redirect` sends the client to \
             REPLACEMENT with the status 302, `permanent` with 301; a REPLACEMENT that begins \
             with `http://`, `https://` or `$scheme` does so by itself.",
        )
        .example("rewrite ^/user/([0-9]+)$ /users?id=$1 last;");

static SET: Directive<SetLine> = Directive::new("set", ANYWHERE, read_set)
    .takes(Arity::Exactly(2))
    .many()
    .syntax("set $VARIABLE VALUE;")
    .text(
        "Gives a variable a value, which may hold text, variables and the groups of the last \
         match. Assigning to `$args` changes the query of the request.",
    )
    .example("set $language en;");

static BREAK: Directive<()> = Directive::new("break", ANYWHERE, read::nothing)
    .takes(Arity::None)
    .many()
    .syntax("break;")
    .text(
        "Ends the list of rewrite directives of this level. The request stays in its location \
         even when its path was changed.",
    )
    .example("if ($slow) { break; }");

const IF_TEXT: &str = "Runs the directives of its block when the condition is true: a variable \
     that is neither empty nor `0`; a comparison of a variable with a text by `=` or `!=`; a match \
     of a variable against a regular expression by `~`, or `~*` regardless of case, or the \
     opposite `!~` and `!~*`; a test for a file by `-f`, a folder by `-d`, either by `-e`, an \
     executable file by `-x`, and their opposites `!-f`, `!-d`, `!-e` and `!-x`. Groups of a match \
     are `$1` to `$9` afterwards.";

const IF_LOCATION_TEXT: &str = "In a location the block may also hold other directives. It is \
     then like a location inside the location: the request is answered by what the last true `if` \
     says, with everything that it does not say taken from the location.";

static IF_IN_SERVER: Directive<Condition> =
    Directive::new("if", &[SERVER], condition::read_condition)
        .takes(Arity::AtLeast(1))
        .many()
        .opens(Opens::Context(IF_SERVER))
        .syntax("if (CONDITION) { ... }")
        .text(IF_TEXT)
        .example("if ($host = old.example) { return 301 https://new.example$request_uri; }");

static IF_IN_LOCATION: Directive<Condition> =
    Directive::new("if", &[LOCATION], condition::read_condition)
        .takes(Arity::AtLeast(1))
        .many()
        .opens(Opens::Context(IF_LOCATION))
        .syntax("if (CONDITION) { ... }")
        .text(IF_LOCATION_TEXT)
        .example("location / { if ($request_method = POST) { return 405; } }");

static REWRITE_LOG: Directive<bool> = Directive::new("rewrite_log", LEVELS, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("rewrite_log on | off;")
    .text("Whether matches and results of `rewrite` are logged, with the level `notice`.")
    .example("rewrite_log on;");

static UNINITIALIZED_VARIABLE_WARN: Directive<bool> =
    Directive::new("uninitialized_variable_warn", LEVELS, read::flag)
        .takes(Arity::Flag)
        .default("on")
        .syntax("uninitialized_variable_warn on | off;")
        .text("Whether the use of a variable that no `set` has reached yet is logged.")
        .example("uninitialized_variable_warn off;");

/// What `set` says.
#[derive(Debug)]
struct SetLine {
    /// Without the `$`.
    name: String,
    value: config::Template,
}

fn read_set(args: &Args<'_>) -> Result<SetLine, Invalid> {
    let word = args.str(0);
    match word.strip_prefix('$').filter(|name| !name.is_empty()) {
        Some(name) => Ok(SetLine { name: name.to_owned(), value: read::template_at(args, 1)? }),
        None => Err(Invalid::new(format!("invalid variable name \"{word}\"")).at(0)),
    }
}

/// Kept by locations where `uninitialized_variable_warn` is off.
struct Quiet;

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if !scope.get(&UNINITIALIZED_VARIABLE_WARN) {
        builder.keep(Quiet);
    }
    let is_logged = scope.get(&REWRITE_LOG);
    if scope.context() == IF_LOCATION {
        // Its rewrite directives belong to the list of the location around it.
        return;
    }
    let mut operations = Vec::new();
    compile(c, scope, builder, &mut operations);
    if !operations.is_empty() {
        builder.guard(Script { operations, is_logged });
    }
}

/// Appends the operations of one block.
fn compile(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    builder: &LocationBuilder,
    out: &mut Vec<Operation>,
) {
    for child in scope.children() {
        let refuse = |reason: String| scope.refuse(child.node, reason);
        if let Some(line) = child.read(&REWRITE) {
            match Rewrite::compile(c, &line) {
                Ok(rewrite) => out.push(Operation::Rewrite(rewrite)),
                Err(reason) => refuse(reason),
            }
        } else if let Some(line) = child.read(&SET) {
            let value = c.template(&line.value);
            match assignable(c, &line.name) {
                Ok(variable) => out.push(Operation::Set { variable, value }),
                Err(reason) => refuse(reason),
            }
        } else if let Some(line) = child.read(&answer::RETURN) {
            out.push(Operation::Return(answer::Return::compile(c, &line)));
        } else if child.read(&BREAK).is_some() {
            out.push(Operation::Break);
        } else if let Some(condition) =
            child.read(&IF_IN_LOCATION).or_else(|| child.read(&IF_IN_SERVER))
            && let Some(inner) = &child.scope
        {
            let test = match condition.compile(c) {
                Ok(test) => test,
                Err(reason) => {
                    refuse(reason);
                    continue;
                }
            };
            let at = out.len();
            let location = (inner.context() == IF_LOCATION)
                .then(|| Rc::new(c.anonymous_location(inner, &builder.location)));
            out.push(Operation::If { test, location, after: 0 });
            compile(c, inner, builder, out);
            let end = out.len();
            if let Operation::If { after, .. } = &mut out[at] {
                *after = end;
            }
        }
    }
}

/// A variable that `set` may change. Until it does, its value is empty, with a warning.
fn assignable(c: &mut Compiler<'_>, name: &str) -> Result<VariableId, String> {
    c.variables.assignable_or(name, |id| {
        Source::Computed(Rc::new(move |x: &mut Exchange| {
            if x.location.kept::<Quiet>().is_none() {
                let variables = x.http.variables.clone();
                let name = variables.name(id);
                x.log_error(Level::Warn, format_args!("using uninitialized \"{name}\" variable"));
            }
            Some(Span::EMPTY)
        }))
    })
}
