//! TLS towards clients (`listen ... ssl`; nginx: ngx_stream_ssl_module): the handshake before
//! anything is read, which server's certificate it shows, and what the client's own is worth.
//!
//! Directives and variables are those of `session::tls`, the protocol is in `net::tls`.

use std::rc::Rc;

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use net::Stream;
use net::tls::{Choice, Failure, Hello, Session as Tls, Trust};
use session::contexts::{STREAM, STREAM_SERVER};
use session::log::Level;
use session::text::Span;
use session::tls::variables::{Rows, Secured};
use session::tls::{How, LookUp, ServerTls};
use session::variables::Builtin;
use system::errno::Errno;
use upstream::resolver::Resolvers;
use upstream::{Names, SystemNames};

use crate::client::Client;
use crate::compile::Compiler;
use crate::journey::INTERNAL_ERROR;
use crate::module::Module;
use crate::server::Server;
use crate::session::Session;

/// The feature; the handshake itself is a step of the journey.
pub(crate) static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    ..Module::new(
        "stream_ssl",
        "Speaks TLS with clients, on addresses whose `listen` says `ssl`: `ssl_certificate` and \
         its kin, which are described for http.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&SSL_ALPN, &SSL_HANDSHAKE_TIMEOUT];

const PLACES: &[Context] = &[STREAM, STREAM_SERVER];

static VARIABLES: &[Builtin<Session>] = Rows::<Session>::TABLE;

static SSL_ALPN: Directive<Vec<String>> = Directive::new("ssl_alpn", PLACES, read::texts)
    .takes(Arity::AtLeast(1))
    .syntax("ssl_alpn PROTOCOL...;")
    .text(
        "The protocols above TLS that are spoken, the preferred ones first (ALPN). A client that \
         offers others only is refused.",
    )
    .example("ssl_alpn postgresql;");

static SSL_HANDSHAKE_TIMEOUT: Directive<u64> =
    Directive::new("ssl_handshake_timeout", PLACES, read::time_ms)
        .default("60s")
        .syntax("ssl_handshake_timeout TIME;")
        .text("How long a client's handshake may take.")
        .example("ssl_handshake_timeout 10s;");

/// The TLS of one server.
pub(crate) struct Settings {
    pub(crate) tls: ServerTls,
    timeout_ms: u64,
}

impl Settings {
    pub(crate) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Settings {
        let alpn = scope.find(&SSL_ALPN).unwrap_or_default();
        let alpn = alpn.into_iter().map(String::into_bytes).collect();
        let upstream::resolver::LookUp { resolver, timeout_ms } =
            c.state::<Resolvers>().look_up(scope, &SystemNames);
        let look_up = LookUp { resolver, timeout_ms, system: |name| SystemNames.addresses(name) };
        let zones = c.zones;
        let template = &mut |source: &config::Template| c.template(source);
        let mut tls = session::tls::compile(scope, How { zones, alpn, look_up, template });
        tls.staplers.drain(..).for_each(|stapler| c.follow(stapler));
        Settings { tls, timeout_ms: scope.get(&SSL_HANDSHAKE_TIMEOUT) }
    }
}

/// The server that was chosen by the name that the client asks for, and that name.
#[derive(Default)]
struct Asked(Option<Span>);

/// Shakes hands with the client of a session, and looks at its certificate.
///
/// # Errors
/// The status with which the session ends; the log knows why.
pub(crate) async fn handshake(s: &mut Session) -> Result<(), u16> {
    s.doing = "SSL handshaking";
    let Client::Connection(client) = &mut s.client else { return Ok(()) };
    let Some(stream) = client.take() else { return Err(INTERNAL_ERROR) };
    if !s.peer.is_unix() {
        // A connection that is broken already is found to be so by its next use.
        let _ = stream.set_nodelay(true);
    }
    let timeout_ms = s.server.ssl.timeout_ms;
    let shaken = net::timeout(timeout_ms, shake(s, &stream)).await;
    s.client = Client::Connection(Some(stream));
    match shaken {
        Some(Ok(())) => {
            if s.server.ssl.tls.revocation.is_some() {
                Box::pin(ask(s)).await;
            }
            admit(s)
        }
        Some(Err(failure)) => {
            s.log_error(Level::Info, format_args!("{failure}"));
            Err(INTERNAL_ERROR)
        }
        None => {
            let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
            s.log_errno(Level::Info, errno, format_args!("SSL handshake timed out"));
            Err(INTERNAL_ERROR)
        }
    }
}

async fn shake(s: &mut Session, stream: &Stream) -> Result<(), Failure> {
    let came = s.ahead.take().map(net::Block::freeze);
    net::tls::accept(stream, came, |hello| choose(s, hello)).await
}

/// What is done with a client by the server that it asks for, which the session goes on in.
fn choose(s: &mut Session, hello: &Hello) -> Choice {
    let default = s.server.clone();
    if let Some(name) = &hello.server_name {
        let asked = s.arena.push(name.as_bytes());
        s.keep(Asked(Some(asked)));
        if s.choose_server(name.as_bytes()).is_err() {
            return Choice::Fail;
        }
    }
    let server = s.server.clone();
    if server.ssl.tls.rejects {
        return Choice::Reject;
    }
    // nginx keeps the default server's certificate for names of servers without one.
    let tls = |server: &Rc<Server>| server.ssl.tls.config.is_some();
    let shown = if tls(&server) { &server } else { &default };
    let Some(config) = &shown.ssl.tls.config else { return Choice::Fail };
    let Some(dynamic) = &shown.ssl.tls.dynamic else { return Choice::Serve(config.clone()) };
    match dynamic.load(s) {
        Ok(certificates) if certificates.is_empty() => Choice::Fail,
        Ok(certificates) => Choice::Serve(net::tls::with_certificates(config, certificates)),
        Err(reason) => {
            s.log_error(Level::Error, format_args!("{reason}"));
            Choice::Fail
        }
    }
}

/// Asks whether the client's certificate was revoked.
async fn ask(s: &Session) {
    let Some(tls) = s.tls() else { return };
    let complain = |what: &str| s.log_error(Level::Error, format_args!("{what}"));
    s.server.ssl.tls.ask(tls, &complain).await;
}

/// Whether the client's certificate is good enough for the server.
fn admit(s: &Session) -> Result<(), u16> {
    let ssl = &s.server.ssl.tls;
    let Some(tls) = s.tls() else { return Ok(()) };
    ssl.judge(tls).map_err(|unfit| {
        s.log_error(Level::Info, format_args!("{unfit}"));
        INTERNAL_ERROR
    })
}

impl Secured for Session {
    fn tls(&self) -> Option<&Tls> {
        self.client.connection()?.tls()
    }

    fn asked_name(&mut self) -> Option<Span> {
        self.state::<Asked>()?.0
    }

    fn trust(&self) -> Rc<Trust> {
        self.server.ssl.tls.trust.clone()
    }
}
