//! `geo` for http; what it does is in `session::geo`.

use config::Scope;
use http::{Compiler, Exchange, Module};
use session::forwarded::Search;
use session::geo::Clients;
use wire::http1::Known;

/// The feature.
pub static MODULE: Module = Module {
    directives: session::geo::DIRECTIVES,
    http: Some(compile),
    ..Module::new("http_geo", "Variables whose values depend on the client's address.")
};

const CLIENTS: Clients<Exchange> = Clients { address: Exchange::client_address, forwarded };

fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    session::geo::compile(scope, &mut c.variables, CLIENTS);
}

fn forwarded(x: &Exchange, search: &mut Search<'_>) {
    let fields = x.request.headers.iter().rev();
    for field in fields.filter(|field| field.known == Known::XForwardedFor) {
        if !search.look_into(x.text(field.value)) {
            break;
        }
    }
}
