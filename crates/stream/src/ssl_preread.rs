//! `ssl_preread`: what a TLS client says first, read without taking part (nginx:
//! ngx_stream_ssl_preread_module). The name that it asks for chooses the server.

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use session::contexts::{STREAM, STREAM_SERVER};
use session::pattern::GivenUp;
use session::text::Span;
use session::variables::Builtin;
use wire::client_hello::{ClientHello, Seen, parse};

use crate::compile::Compiler;
use crate::journey::INTERNAL_ERROR;
use crate::module::{Look, Module, Preread};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: &[
        Builtin::volatile(
            "ssl_preread_alpn_protocols",
            |s| text(s, |hello| &hello.protocols),
            "The protocols that a TLS client speaks, separated by commas.",
        ),
        Builtin::volatile(
            "ssl_preread_protocol",
            |s| text(s, |hello| hello.version_name().as_bytes()),
            "The highest version of TLS that a client speaks, such as `TLSv1.3`.",
        ),
        Builtin::volatile(
            "ssl_preread_server_name",
            |s| text(s, |hello| &hello.server_name),
            "The name of the server that a TLS client asks for.",
        ),
    ],
    server: Some(attach),
    ..Module::new(
        "stream_ssl_preread",
        "Reads what TLS clients say first, and leaves it to others.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&SSL_PREREAD];

const PLACES: &[Context] = &[STREAM, STREAM_SERVER];

static SSL_PREREAD: Directive<bool> = Directive::new("ssl_preread", PLACES, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("ssl_preread on | off;")
    .text(
        "Whether the first message of TLS clients is read, though not answered, before the \
         session is served: for `$ssl_preread_server_name` and its kin, and to choose the \
         server by the name that the client asks for; see `server_name`.",
    )
    .example("ssl_preread on;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    if scope.get(&SSL_PREREAD) {
        builder.preread(SslPreread);
    }
}

struct SslPreread;

impl Preread for SslPreread {
    fn look(&self, s: &mut Session, came: &[u8]) -> Look {
        match parse(came) {
            Seen::Partial => Look::More,
            Seen::Other => Look::Declined,
            Seen::Hello(hello) => {
                let chosen = s.choose_server(&hello.server_name);
                s.keep(hello);
                match chosen {
                    Ok(()) => Look::Done,
                    Err(GivenUp) => Look::End(INTERNAL_ERROR),
                }
            }
        }
    }
}

fn text(s: &mut Session, of: fn(&ClientHello) -> &[u8]) -> Option<Span> {
    let text = of(s.state::<ClientHello>()?).to_vec();
    Some(s.arena.push(&text))
}
