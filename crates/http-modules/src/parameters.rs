//! `fastcgi_param` and its kin: what programs are told about a request.

use config::{Args, Directive, Invalid, Scope, Span, read};
use http::Compiler;
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT};

use crate::proxy::family::Family;
use crate::proxy::gateway::{Parameter, Parameters};

/// One line as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The parameter's name.
    pub name: String,
    /// What it says.
    pub value: config::Template,
    /// It is left out when its value is empty.
    pub if_not_empty: bool,
}

/// Reads a line.
///
/// # Errors
/// A third word that is not `if_not_empty`.
pub(crate) fn read_line(args: &Args<'_>) -> Result<Line, Invalid> {
    let if_not_empty = match args.len() {
        3 if args.word(2).bytes() != b"if_not_empty" => {
            return Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(2))).at(2));
        }
        count => count == 3,
    };
    Ok(Line { name: args.str(0).into_owned(), value: read::template_at(args, 1)?, if_not_empty })
}

/// The parameters of a level.
pub(crate) fn compile(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    lines: &Directive<Line>,
    family: &Family,
) -> Parameters {
    let list = scope.all(lines).into_iter().map(|line| Parameter {
        name: line.name.into_bytes().into(),
        value: c.template(&line.value),
        if_not_empty: line.if_not_empty,
    });
    Parameters { list: list.collect(), pass_fields: scope.get(family.pass_request_headers) }
}

/// The `fastcgi_pass` (or its kin) of a level. An `if` without one of its own takes that of its
/// location.
pub(crate) fn pass(
    scope: &Scope<'_>,
    directive: &Directive<config::Template>,
) -> Option<(config::Template, Span)> {
    let own = scope.local_spanned(directive);
    if own.is_some() || ![IF_LOCATION, LIMIT_EXCEPT].contains(&scope.context()) {
        return own;
    }
    scope.parent().and_then(|outer| outer.local_spanned(directive))
}
