//! The access log of HTTP: one line per request (nginx: ngx_http_log_module).
//!
//! How lines look and where they go is the business of `session::access_log`; this file attaches
//! it to locations.

use config::Scope;
use http::compile::Compiler;
use http::{Exchange, LocationBuilder, Logger, Module};
use session::access_log::{AccessLogs, DIRECTIVES, Formats};
use std::rc::Rc;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    http: Some(collect),
    location: Some(attach),
    ..Module::new("http_log", "Writes a line about each request.")
};

/// The formats of the `http` block while locations are compiled.
#[derive(Default)]
struct Known(Option<Rc<Formats>>);

fn collect(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let formats = Rc::new(Formats::new(scope, &mut c.variables));
    // Mistakes of this level are told even when no server is below it.
    formats.compile(scope, c.logs, &mut c.variables);
    c.state::<Known>().0 = Some(formats);
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let Some(formats) = c.state::<Known>().0.clone() else { return };
    let logs = formats.compile(scope, c.logs, &mut c.variables);
    if !logs.is_off() {
        builder.logger(Written(logs));
    }
}

struct Written(Rc<AccessLogs>);

impl Logger for Written {
    fn log(&self, x: &mut Exchange) {
        self.0.write(x);
    }
}
