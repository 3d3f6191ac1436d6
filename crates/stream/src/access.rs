//! `allow` and `deny` for sessions; the rules are in `session::access`.

use config::Scope;
use session::access::{Opinion, Rules};
use session::log::Level;

use crate::compile::Compiler;
use crate::module::{Check, Module, Stage, Step, Verdict};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    server: Some(attach),
    ..Module::new(
        "stream_access",
        "Lets clients pass, or closes their sessions, by their address: `allow` and `deny`, which \
         are described for http.",
    )
};

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    if let Some(rules) = Rules::compile(scope) {
        builder.check(Access(rules));
    }
}

struct Access(Rules);

impl Check for Access {
    fn stage(&self) -> Stage {
        Stage::Access
    }

    fn check<'a>(&'a self, s: &'a mut Session) -> Step<'a> {
        let client = s.client_address().map(|address| address.ip());
        Step::Now(match self.0.ask(client) {
            Opinion::Allowed | Opinion::Silent => Verdict::Next,
            Opinion::Denied => {
                s.log_error(Level::Error, format_args!("access forbidden by rule"));
                Verdict::End(403)
            }
        })
    }
}
