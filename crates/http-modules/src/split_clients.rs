//! `split_clients` for http; what it does is in `session::split_clients`.

use config::Scope;
use http::{Compiler, Module};

/// The feature.
pub static MODULE: Module = Module {
    directives: session::split_clients::DIRECTIVES,
    http: Some(compile),
    ..Module::new("http_split_clients", "Variables that split clients into groups by chance.")
};

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    session::split_clients::compile(scope, &mut c.variables);
}
