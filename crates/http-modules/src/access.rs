//! `allow` and `deny` for http; the rules are in `session::access`.

use config::Scope;
use http::directives::{SATISFY, Satisfy};
use http::{Compiler, Exchange, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::access::{DIRECTIVES, Opinion, Rules};
use session::log::Level;

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new("http_access", "Lets clients pass, or refuses them, by their address.")
};

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    if let Some(rules) = Rules::compile(scope) {
        let last_word = scope.get(&SATISFY) == Satisfy::All;
        builder.guard(Access { rules, last_word });
    }
}

struct Access {
    rules: Rules,
    /// No other check can let a request pass that is denied here.
    last_word: bool,
}

impl Guard for Access {
    fn stage(&self) -> Stage {
        Stage::Access
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        let client = x.client_address().map(|address| address.ip());
        Step::Now(match self.rules.ask(client) {
            Opinion::Allowed => Verdict::Next,
            Opinion::Silent => Verdict::Abstain,
            Opinion::Denied => {
                if self.last_word {
                    x.log_error(Level::Error, format_args!("access forbidden by rule"));
                }
                Verdict::Status(403)
            }
        })
    }
}
