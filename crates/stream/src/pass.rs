//! `pass`: hands a connection to the listener of another server, of http too, in the same worker
//! (nginx: ngx_stream_pass_module).

use config::{AnyDirective, Args, Directive, Invalid, Scope, read};
use session::contexts::STREAM_SERVER;
use session::handover::{self, Passed};
use session::log::Level;
use session::variables::Template;
use system::socket::Address;
use upstream::{Host, Target};

use crate::client::Client;
use crate::compile::Compiler;
use crate::journey::{INTERNAL_ERROR, OK};
use crate::module::{Content, Module, Serving};
use crate::server::ServerBuilder;
use crate::session::Session;

/// The feature.
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    server: Some(attach),
    ..Module::new("stream_pass", "Hands connections to other listeners of the same program.")
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&PASS];

static PASS: Directive<config::Template> = Directive::new("pass", &[STREAM_SERVER], read_pass)
    .syntax("pass ADDRESS;")
    .text(
        "Hands the connection to the server, of stream or of http, that listens on ADDRESS, which \
         may hold variables. It goes on there as if the client had connected to ADDRESS; no \
         second connection is made. What `ssl_preread` looked at is still there.",
    )
    .example("stream { server { listen 12345; pass 127.0.0.1:8000; } }");

fn read_pass(args: &Args<'_>) -> Result<config::Template, Invalid> {
    let template = read::template(args)?;
    if template.is_constant() {
        let text = args.str(0);
        address(&text).map_err(|fault| {
            Invalid::new(match fault {
                Fault::Form(reason) => {
                    format!("{reason} in \"{text}\" of the \"pass\" directive")
                }
                Fault::NoAddress => "\"pass\" directive has no addresses".to_owned(),
                Fault::NoPort => "\"pass\" directive has no port".to_owned(),
            })
            .at(0)
        })?;
    }
    Ok(template)
}

/// What is wrong with an address.
enum Fault {
    Form(&'static str),
    NoAddress,
    NoPort,
}

fn address(text: &str) -> Result<Address, Fault> {
    if text.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(port) = text.parse::<u16>()
    {
        return Ok(Address::any_v4(port));
    }
    let target = Target::parse(text).map_err(Fault::Form)?;
    match (target.host, target.port) {
        (Host::Unix(path), _) => Ok(Address::Unix(path)),
        (Host::Name(_), _) => Err(Fault::NoAddress),
        (Host::Ip(_), None) => Err(Fault::NoPort),
        (Host::Ip(ip), Some(port)) => Ok(Address::Inet((ip, port).into())),
    }
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut ServerBuilder) {
    if let Some(to) = scope.local(&PASS) {
        builder.content(Pass(c.template(&to)));
    }
}

struct Pass(Template);

impl Content for Pass {
    fn serve<'a>(&'a self, s: &'a mut Session) -> Serving<'a> {
        Box::pin(async {
            s.doing = "passing connection to port";
            match self.pass(s) {
                Ok(()) => OK,
                Err(status) => status,
            }
        })
    }
}

impl Pass {
    fn pass(&self, s: &mut Session) -> Result<(), u16> {
        if s.is_udp() {
            s.log_error(Level::Error, format_args!("cannot pass udp connection"));
            return Err(INTERNAL_ERROR);
        }
        let text = self.0.value(s);
        let text = String::from_utf8_lossy(s.text(text)).into_owned();
        let to = address(&text).map_err(|fault| {
            match fault {
                Fault::Form(reason) => {
                    s.log_error(Level::Error, format_args!("{reason} in pass \"{text}\""));
                }
                Fault::NoAddress => {
                    s.log_error(Level::Error, format_args!("no addresses in pass \"{text}\""));
                }
                Fault::NoPort => {
                    s.log_error(Level::Error, format_args!("no port in pass \"{text}\""));
                }
            }
            INTERNAL_ERROR
        })?;
        let Some(taker) = handover::taker(&to) else {
            s.log_error(Level::Error, format_args!("port not found for \"{to}\""));
            return Err(OK);
        };
        let ahead = s.ahead.take();
        let client = match s.client_address() {
            Some(address) => Address::Inet(address),
            None => s.peer.clone(),
        };
        let Client::Connection(stream) = &mut s.client else { return Err(INTERNAL_ERROR) };
        let Some(stream) = stream.take() else { return Err(INTERNAL_ERROR) };
        taker(Passed { stream, ahead, client, address: to });
        Ok(())
    }
}
