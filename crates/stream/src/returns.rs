//! `return`: a text for the client, and the end (nginx: ngx_stream_return_module).

use std::future::poll_fn;

use config::{AnyDirective, Directive, Scope, read};
use net::OutQueue;
use session::contexts::STREAM_SERVER;
use session::log::Level;
use session::variables::Template;
use system::errno::Errno;

use crate::client::Client;
use crate::compile::Compiler;
use crate::journey::{INTERNAL_ERROR, OK};
use crate::module::{Content, Module, Serving};
use crate::server::ServerBuilder;
use crate::session::Session;

/// How long the client may take nothing.
const TIMEOUT_MS: u64 = 5_000;

/// The feature.
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    server: Some(attach),
    ..Module::new("stream_return", "Answers with a text.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&RETURN];

static RETURN: Directive<config::Template> =
    Directive::new("return", &[STREAM_SERVER], read::template)
        .syntax("return TEXT;")
        .text("Sends TEXT, which may hold variables, and closes the session.")
        .example("stream { server { listen 13; return $time_iso8601; } }");

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    if let Some(text) = scope.local(&RETURN) {
        builder.content(Return(c.template(&text)));
    }
}

struct Return(Template);

impl Content for Return {
    fn serve<'a>(&'a self, s: &'a mut Session) -> Serving<'a> {
        Box::pin(async {
            let text = self.0.value(s);
            let text = s.text(text).to_vec();
            if text.is_empty() {
                return OK;
            }
            let length = text.len() as u64;
            let status = send(s, text).await;
            if status == OK {
                s.counts.to_first.set(length);
            }
            status
        })
    }
}

async fn send(s: &Session, text: Vec<u8>) -> u16 {
    let stream = match &s.client {
        Client::Packets(packets) => {
            return match packets.send(&text) {
                Ok(_) => OK,
                Err(error) => {
                    s.log_errno(Level::Info, (&error).into(), format_args!("sendmsg() failed"));
                    INTERNAL_ERROR
                }
            };
        }
        Client::Connection(Some(stream)) => stream,
        Client::Connection(None) => return INTERNAL_ERROR,
    };
    let mut queue = OutQueue::new();
    queue.push(text);
    let flush = poll_fn(|cx| queue.poll_flush(cx, stream));
    match net::timeout(TIMEOUT_MS, flush).await {
        Some(Ok(())) => OK,
        Some(Err(error)) => {
            s.log_errno(Level::Info, (&error).into(), format_args!("send() failed"));
            INTERNAL_ERROR
        }
        None => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            s.log_errno(Level::Info, errno, format_args!("connection timed out"));
            OK
        }
    }
}
