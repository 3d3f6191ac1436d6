//! `map` for sessions; what it does is in `session::map`.

use config::Scope;

use crate::compile::Compiler;
use crate::module::Module;

/// The feature.
pub(crate) static MODULE: Module = Module {
    stream: Some(compile),
    ..Module::new(
        "stream_map",
        "Variables whose values are looked up in tables: `map`, which is described for http.",
    )
};

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    session::map::compile(scope, &mut c.variables);
}
