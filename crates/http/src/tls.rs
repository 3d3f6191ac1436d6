//! TLS towards clients: the handshake before the first request, which server's certificate it
//! shows, and whether the client's own certificate is good enough for a request.
//!
//! Directives are those of `session::tls`, the protocol is in `net::tls`.

use crate::compile::Compiler;
use crate::connection::Connection;
use crate::exchange::{Exchange, Request};
use crate::headers::Headers;
use crate::request_body::RequestBody;
use crate::site::{self, Site};
use config::Scope;
use net::tls::{Choice, Failure, Hello, Session, Trust};
use session::log::Level;
use session::text::{Arena, Span};
use session::tls::variables::Secured;
use session::tls::{How, LookUp, ServerTls, Unfit, Verify};
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use system::errno::Errno;
use upstream::resolver::Resolvers;
use upstream::{Names, SystemNames};
use wire::http1::{Method, Version};

/// Bytes read to learn what a client speaks: its first message fits mostly.
const FIRST_READ: usize = 4096;

/// Compiles the TLS of a `server`.
pub(crate) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>, alpn: Vec<Vec<u8>>) -> ServerTls {
    let upstream::resolver::LookUp { resolver, timeout_ms } =
        c.state::<Resolvers>().look_up(scope, &SystemNames);
    let look_up = LookUp { resolver, timeout_ms, system: |name| SystemNames.addresses(name) };
    let zones = c.zones;
    let template = &mut |source: &config::Template| c.template(source);
    let mut tls = session::tls::compile(scope, How { zones, alpn, look_up, template });
    tls.staplers.drain(..).for_each(|stapler| c.follow(stapler));
    tls
}

/// The name that the client asked for while there is no session yet.
#[derive(Default)]
struct Asked(Option<Span>);

/// Shakes hands with a client until `deadline`. One that speaks plain text is let through, to be
/// told so. False: the log knows why the connection is to be closed.
pub(crate) async fn handshake(connection: &Rc<Connection>, deadline: u64) -> bool {
    let mut shaking = pin!(shake(connection));
    connection.timer.set(deadline);
    let outcome = poll_fn(|cx| match shaking.as_mut().poll(cx) {
        Poll::Ready(outcome) => Poll::Ready(Some(outcome)),
        Poll::Pending => connection.timer.poll_expired(cx).map(|()| None),
    });
    match outcome.await {
        Some(Ok(())) => {
            ask(connection).await;
            true
        }
        Some(Err(failure)) => {
            tell(connection, format_args!("{failure}"));
            false
        }
        None => {
            log_timeout(connection);
            false
        }
    }
}

/// Asks whether the client's certificate was revoked, if its server wants to know.
async fn ask(connection: &Rc<Connection>) {
    let Some(site) = first_site(connection) else { return };
    let Some(session) = connection.stream.tls() else { return };
    if site.tls.revocation.is_some() {
        let complain = |what: &str| connection.log(Level::Error, format_args!("{what}"));
        Box::pin(site.tls.ask(session, &complain)).await;
    }
}

/// The line for a client that says nothing, or goes on too slowly.
pub(crate) fn log_timeout(connection: &Connection) {
    let errno = Errno::from(rustix::io::Errno::TIMEDOUT);
    tell(connection, format_args!("client timed out ({errno})"));
}

fn tell(connection: &Connection, what: fmt::Arguments<'_>) {
    connection.log(Level::Info, format_args!("{what} while SSL handshaking"));
}

async fn shake(connection: &Rc<Connection>) -> Result<(), Failure> {
    let came = match connection.take_leftover() {
        Some(came) => came,
        None => {
            let read = poll_fn(|cx| connection.poll_lend(cx, FIRST_READ)).await;
            read.map_err(Failure::Broken)?.freeze()
        }
    };
    match came.first() {
        None => return Err(Failure::Closed),
        Some(first) if !net::tls::is_hello(*first) => {
            connection.put_leftover(came);
            return Ok(());
        }
        Some(_) => {}
    }
    connection.send_at_once();
    let mut chosen = None;
    let choose = |hello: &Hello| {
        let (choice, site) = choose(connection, hello);
        chosen = site;
        choice
    };
    net::tls::accept(&connection.stream, Some(came), choose).await?;
    if let (Some(session), Some(site)) = (connection.stream.tls(), chosen) {
        session.attach(site);
    }
    Ok(())
}

/// What is done with a client by the server that it asks for, and that server.
fn choose(connection: &Rc<Connection>, hello: &Hello) -> (Choice, Option<Rc<Site>>) {
    let Some(default) = connection.served.sites.default_site() else { return (Choice::Fail, None) };
    let mut x = blank(connection, default);
    let mut named = None;
    if let Some(name) = &hello.server_name {
        let name = x.arena.push(name.as_bytes());
        x.state_or_default::<Asked>().0 = Some(name);
        let served = connection.served.clone();
        match site::choose(&mut x, &served.sites, name) {
            Ok(found) => named = found,
            Err(_) => return (Choice::Fail, None),
        }
    }
    let site = named.clone().unwrap_or_else(|| default.clone());
    if site.tls.rejects {
        return (Choice::Reject, None);
    }
    // nginx keeps the default server's certificate for names of servers without one.
    let tls = if site.tls.config.is_some() { &site.tls } else { &default.tls };
    let Some(config) = &tls.config else { return (Choice::Fail, None) };
    let Some(dynamic) = &tls.dynamic else { return (Choice::Serve(config.clone()), named) };
    x.location = site.root.clone();
    x.site = site.clone();
    match dynamic.load(&mut x) {
        Ok(certificates) if certificates.is_empty() => (Choice::Fail, None),
        Ok(certificates) => {
            let config = net::tls::with_certificates(config, certificates);
            (Choice::Serve(config), named)
        }
        Err(reason) => {
            let message = format_args!("{reason} while SSL handshaking");
            connection.log(Level::Error, message);
            (Choice::Fail, None)
        }
    }
}

/// An exchange without a request, of which variables are asked.
fn blank(connection: &Rc<Connection>, site: &Rc<Site>) -> Exchange {
    let request = Request {
        method: Method::Get,
        method_text: Span::EMPTY,
        line: Span::EMPTY,
        target: Span::EMPTY,
        uri: Span::EMPTY,
        args: Span::EMPTY,
        plain_uri: false,
        rewritten: false,
        detached: false,
        version: Version::HTTP_10,
        headers: Headers::default(),
        host: Span::EMPTY,
        host_field: Span::EMPTY,
        head_bytes: 0,
    };
    let http = connection.worker.http.clone();
    let body = RequestBody::absent();
    Exchange::new(connection.clone(), http, site.clone(), Arena::default(), request, body)
}

/// The server whose rules hold until a request names one: that of the client's handshake, else
/// the default of the address.
pub(crate) fn first_site(connection: &Connection) -> Option<Rc<Site>> {
    let named = connection.stream.tls().and_then(Session::attached);
    named.or_else(|| connection.served.sites.default_site().cloned())
}

/// The server of a request whose host no server has, when the handshake named one: the default of
/// the address, as if it had named none.
pub(crate) fn site_of_strangers(x: &Exchange) -> Option<Rc<Site>> {
    let connection = &x.connection;
    connection.stream.tls()?.attached::<Site>()?;
    let has_host = !x.request.host.is_empty();
    connection.served.sites.default_site().filter(|_| has_host).cloned()
}

/// Whether a request may pass, which `x.site` was chosen for.
///
/// # Errors
/// The status that answers it: 497 for plain text, 495 and 496 for a client whose certificate is
/// bad or missing, 421 for a server that the handshake was not for.
pub(crate) fn admit(x: &mut Exchange) -> Result<(), u16> {
    if !x.connection.served.tls {
        return Ok(());
    }
    let connection = x.connection.clone();
    let Some(session) = connection.stream.tls() else {
        let message = "client sent plain HTTP request to HTTPS port";
        x.log_error(Level::Info, format_args!("{message}"));
        return Err(497);
    };
    let site = x.site.clone();
    if site.tls.verify == Verify::Off {
        return Ok(());
    }
    if let Some(named) = session.attached::<Site>()
        && !Rc::ptr_eq(&named, &site)
    {
        let message = "client attempted to request the server name different from the one that \
                       was negotiated";
        x.log_error(Level::Info, format_args!("{message}"));
        return Err(421);
    }
    site.tls.judge(session).map_err(|unfit| {
        x.log_error(Level::Info, format_args!("{unfit}"));
        match unfit {
            Unfit::Bad(_) => 495,
            Unfit::Missing => 496,
            Unfit::Elsewhere => 421,
        }
    })
}

impl Exchange {
    /// The connection's TLS, if it has any.
    pub fn tls(&self) -> Option<&Session> {
        self.connection.stream.tls()
    }
}

impl Secured for Exchange {
    fn tls(&self) -> Option<&Session> {
        Exchange::tls(self)
    }

    fn asked_name(&mut self) -> Option<Span> {
        self.peek_state::<Asked>()?.0
    }

    fn trust(&self) -> Rc<Trust> {
        self.site.tls.trust.clone()
    }
}
