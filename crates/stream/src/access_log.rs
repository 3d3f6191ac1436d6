//! The access log of sessions: one line for each (nginx: ngx_stream_log_module). How lines look
//! and where they go is the business of `session::access_log`.

use std::rc::Rc;

use config::Scope;
use session::access_log::Formats;

use crate::compile::Compiler;
use crate::module::Module;
use crate::server::ServerBuilder;

/// The feature.
pub(crate) static MODULE: Module = Module {
    stream: Some(collect),
    server: Some(attach),
    ..Module::new(
        "stream_log",
        "Writes a line about each session: `log_format` and `access_log`, which are described for \
         http.",
    )
};

/// The formats of the `stream` block while servers are compiled.
#[derive(Default)]
struct Known(Option<Rc<Formats>>);

fn collect(c: &mut Compiler<'_>, scope: &Scope<'_>) {
    let formats = Rc::new(Formats::new(scope, &mut c.variables));
    // Mistakes of this level are told even when no server is below it.
    formats.compile(scope, c.logs, &mut c.variables);
    c.state::<Known>().0 = Some(formats);
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    let Some(formats) = c.state::<Known>().0.clone() else { return };
    let logs = formats.compile(scope, c.logs, &mut c.variables);
    if !logs.is_off() {
        builder.logger(move |s| logs.write(s));
    }
}
