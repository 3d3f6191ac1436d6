//! `proxy_pass`: the session goes on with a backend (nginx: ngx_stream_proxy_module).
//!
//! `target.rs` says which group is meant, `connect.rs` finds a peer of it, and then `tcp.rs` or
//! `udp.rs` moves bytes until it is over.

mod connect;
mod directives;
mod health;
mod settings;
mod target;
mod tcp;
mod udp;

use std::rc::Rc;

use config::Scope;

use crate::compile::Compiler;
use crate::module::{Content, Module, Serving};
use crate::server::ServerBuilder;
use crate::session::Session;

pub(crate) use health::MODULE as HEALTH_CHECK;
use settings::Settings;
use target::Target;

/// The feature.
pub(crate) static MODULE: Module = Module {
    directives: directives::ALL,
    server: Some(attach),
    ..Module::new(
        "stream_proxy",
        "Passes sessions on to other servers, over TCP, UDP or unix sockets.",
    )
};

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    let settings = Settings::compile(c, scope, builder.settings().tcp_nodelay);
    let Some((source, span)) = scope.local_spanned(&directives::PROXY_PASS) else { return };
    match Target::compile(c, scope, &source) {
        Ok(target) => {
            health::attach(c, scope, builder, &target);
            builder.content(Proxy { settings: Rc::new(settings), target });
        }
        Err(reason) => scope.error(span, reason),
    }
}

/// What the logs want to know about the ways to peers of a session that is cut off.
pub(crate) fn close_books(s: &mut Session) {
    tcp::note_traffic(s);
    if let Some(upstream) = &mut s.upstream {
        upstream.end();
    }
}

struct Proxy {
    settings: Rc<Settings>,
    target: Target,
}

impl Content for Proxy {
    fn serve<'a>(&'a self, s: &'a mut Session) -> Serving<'a> {
        Box::pin(async {
            s.upstream = Some(Box::default());
            let status = match self.target.group(s).await {
                Ok(group) if s.is_udp() => udp::serve(s, &self.settings, &group).await,
                Ok(group) => tcp::serve(s, &self.settings, &group).await,
                Err(status) => status,
            };
            if let Some(upstream) = &mut s.upstream {
                upstream.end();
            }
            status
        })
    }

    fn sends_at_once(&self) -> bool {
        true
    }
}
