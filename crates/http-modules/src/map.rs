//! `map` for http; what it does is in `session::map`.

use config::Scope;
use http::{Compiler, Module};

/// The feature.
pub static MODULE: Module = Module {
    directives: session::map::DIRECTIVES,
    http: Some(compile),
    ..Module::new("http_map", "Variables whose values are looked up in tables.")
};

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    session::map::compile(scope, &mut c.variables);
}
