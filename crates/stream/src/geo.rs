//! `geo` for sessions; what it does is in `session::geo`.

use config::Scope;
use session::geo::Clients;

use crate::compile::Compiler;
use crate::module::Module;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    stream: Some(compile),
    ..Module::new(
        "stream_geo",
        "Variables whose values depend on the client's address: `geo`, which is described for \
         http.",
    )
};

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let clients = Clients { address: Session::client_address, forwarded: |_, _| {} };
    session::geo::compile(scope, &mut c.variables, clients);
}
