//! `split_clients` for sessions; what it does is in `session::split_clients`.

use config::Scope;

use crate::compile::Compiler;
use crate::module::Module;

/// The feature.
pub(crate) static MODULE: Module = Module {
    stream: Some(compile),
    ..Module::new(
        "stream_split_clients",
        "Variables that split clients into groups by chance: `split_clients`, which is described \
         for http.",
    )
};

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    session::split_clients::compile(scope, &mut c.variables);
}
