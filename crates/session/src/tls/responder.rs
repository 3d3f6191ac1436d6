//! Asking an OCSP responder over HTTP (RFC 6960 appendix A.1), as nginx asks: the question in the
//! URL, which lets answers be kept on their way.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::rc::Rc;

use net::resolver::Resolver;
use net::tls::base64;
use net::tls::ocsp::Question;
use net::{Address, ConnectOptions, Stream};
use wire::http1::{Field, response_framing};

use crate::answer::{Fault, read_body, read_head, send};
use crate::log::{Level, Log, no_context};

/// How long a responder may take to be reached, and to answer: nginx's measure.
const PATIENCE_MS: u64 = 60_000;
/// The longest answer that is taken.
pub(super) const LONGEST: usize = 32 << 10;
const PORT: u16 = 80;
/// Questions in base64 from this length on go into a body (RFC 6960 appendix A.1).
const LONGEST_IN_URL: usize = 255;

/// How the names of responders become addresses.
#[derive(Clone)]
pub struct LookUp {
    /// The `resolver` that is in force.
    pub resolver: Option<Rc<Resolver>>,
    /// `resolver_timeout`.
    pub timeout_ms: u64,
    /// The system's own, which blocks: for the start only, and where there is no resolver.
    pub system: fn(&str) -> Vec<IpAddr>,
}

/// Where to ask.
#[derive(Clone)]
pub(super) struct Responder {
    /// As written, with the brackets of an IPv6 address.
    host: Box<str>,
    port: u16,
    /// Begins with a slash.
    path: Box<str>,
    /// What the host is known to mean without a resolver.
    addresses: Vec<SocketAddr>,
}

/// Why a URL is not that of a responder, in nginx's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BadUrl {
    /// It does not begin with `http://`.
    Prefix,
    /// What is behind that is wrong.
    Rest(&'static str),
}

impl BadUrl {
    /// nginx's words, to be followed by where the URL stands.
    pub(super) fn text(self, url: &str) -> String {
        let rest = url.get(7..).unwrap_or_default();
        match self {
            BadUrl::Prefix => format!("invalid URL prefix in OCSP responder \"{url}\""),
            BadUrl::Rest(why) => format!("{why} in OCSP responder \"{rest}\""),
        }
    }
}

/// What a responder is asked for, as logs name it.
pub(super) struct Asking<'a> {
    pub(super) question: &'a Question,
    /// The certificate's file, where it is ours.
    pub(super) name: Option<&'a str>,
    pub(super) log: &'a Log,
}

impl Responder {
    /// Reads `http://HOST[:PORT][/PATH]`. Without a resolver the name is looked up now.
    pub(super) fn new(url: &str, look_up: &LookUp) -> Result<Responder, BadUrl> {
        let mut responder = Responder::parse(url)?;
        if responder.addresses.is_empty() && look_up.resolver.is_none() {
            let found = (look_up.system)(&responder.host);
            let port = responder.port;
            responder.addresses = found.into_iter().map(|ip| (ip, port).into()).collect();
            if responder.addresses.is_empty() {
                return Err(BadUrl::Rest("host not found"));
            }
        }
        Ok(responder)
    }

    /// Reads a URL that a client's certificate brought: its name is not looked up yet.
    pub(super) fn parse(url: &str) -> Result<Responder, BadUrl> {
        let rest = match url.split_at_checked(7) {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
            _ => return Err(BadUrl::Prefix),
        };
        let is_plain = |byte: u8| byte.is_ascii_graphic();
        if !rest.bytes().all(is_plain) {
            return Err(BadUrl::Rest("invalid host"));
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.into() } else { format!("/{path}") };
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let digits = port.bytes().all(|byte| byte.is_ascii_digit());
                let port = port.parse().ok().filter(|port| digits && *port != 0);
                (host, port.ok_or(BadUrl::Rest("invalid port"))?)
            }
            _ => (authority, PORT),
        };
        if host.is_empty() {
            return Err(BadUrl::Rest("no host"));
        }
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let ip: Option<IpAddr> = match inner {
            Some(ip) => {
                let ip: Option<Ipv6Addr> = ip.parse().ok();
                Some(ip.ok_or(BadUrl::Rest("invalid IPv6 address"))?.into())
            }
            None if host.contains(['[', ']', ':', '@']) => {
                return Err(BadUrl::Rest("invalid host"));
            }
            None => host.parse().ok(),
        };
        let addresses = ip.map(|ip| (ip, port).into()).into_iter().collect();
        Ok(Responder { host: host.into(), port, path: path.into(), addresses })
    }

    /// Asks, address by address until one answers. What goes wrong is logged.
    pub(super) async fn ask(&self, asking: &Asking<'_>, look_up: &LookUp) -> Option<Vec<u8>> {
        let addresses = match self.find(look_up).await {
            Ok(addresses) => addresses,
            Err(reason) => {
                self.complain(asking, None, format_args!("{reason}"));
                return None;
            }
        };
        let request = self.request(&asking.question.request());
        for address in addresses {
            let address = Address::Inet(address);
            match net::timeout(PATIENCE_MS, exchange(&address, &request)).await {
                Some(Ok(answer)) => return Some(answer),
                Some(Err(reason)) => {
                    self.complain(asking, Some(&address), format_args!("{reason}"));
                }
                None => {
                    let reason = format_args!("OCSP responder timed out");
                    self.complain(asking, Some(&address), reason);
                }
            }
        }
        None
    }

    async fn find(&self, look_up: &LookUp) -> Result<Vec<SocketAddr>, String> {
        if !self.addresses.is_empty() {
            return Ok(self.addresses.clone());
        }
        let host = &self.host;
        let Some(resolver) = &look_up.resolver else {
            return Err(format!("no resolver defined to resolve {host}"));
        };
        match resolver.host(host, look_up.timeout_ms).await {
            Ok(found) => Ok(found.addresses.into_iter().map(|ip| (ip, self.port).into()).collect()),
            Err(failure) => Err(format!("{host} could not be resolved ({failure})")),
        }
    }

    fn request(&self, question: &[u8]) -> Vec<u8> {
        let Responder { host, path, .. } = self;
        let port = if self.port == PORT { String::new() } else { format!(":{}", self.port) };
        let mut text = String::new();
        for letter in base64(question).chars() {
            match letter {
                '+' => text.push_str("%2B"),
                '/' => text.push_str("%2F"),
                '=' => text.push_str("%3D"),
                letter => text.push(letter),
            }
        }
        if text.len() < LONGEST_IN_URL {
            let slash = if path.ends_with('/') { "" } else { "/" };
            return format!(
                "GET {path}{slash}{text} HTTP/1.0\r\nHost: {host}{port}\r\nConnection: \
                 close\r\n\r\n"
            )
            .into_bytes();
        }
        let mut request = format!(
            "POST {path} HTTP/1.0\r\nHost: {host}{port}\r\nConnection: close\r\nContent-Type: \
             application/ocsp-request\r\nContent-Length: {}\r\n\r\n",
            question.len()
        )
        .into_bytes();
        request.extend_from_slice(question);
        request
    }

    /// Logs what went wrong, with what nginx adds to it.
    pub(super) fn complain(
        &self,
        asking: &Asking<'_>,
        peer: Option<&Address>,
        reason: fmt::Arguments<'_>,
    ) {
        let peer = peer.map(|peer| format!(", peer: {peer}")).unwrap_or_default();
        let name = asking.name.map(|name| format!(", certificate: \"{name}\""));
        let message = format_args!(
            "{reason} while requesting certificate status, responder: {}{peer}{}",
            self.host,
            name.unwrap_or_default()
        );
        asking.log.write(Level::Error, None, message, &no_context);
    }
}

/// One question and its answer, over a connection of its own.
async fn exchange(address: &Address, request: &[u8]) -> Result<Vec<u8>, String> {
    let stream = net::connect(address, &ConnectOptions::default()).await;
    let stream = stream.map_err(|error| error.to_string())?;
    talk(&stream, request).await.map_err(|fault| match fault {
        Fault { doing: "sending", reason } => {
            format!("send() failed {}", reason.unwrap_or_default())
        }
        Fault { doing: "receiving", reason } => {
            format!("recv() failed {}", reason.unwrap_or_default())
        }
        Fault { reason: Some(reason), .. } if reason == "closed prematurely" => {
            "OCSP responder prematurely closed connection".to_owned()
        }
        Fault { doing: REFUSED, reason } => reason.unwrap_or_default(),
        _ => "OCSP responder sent invalid response".to_owned(),
    })
}

/// Marks faults that are told as they are.
const REFUSED: &str = "refused";

async fn talk(stream: &Stream, request: &[u8]) -> Result<Vec<u8>, Fault> {
    send(stream, request).await?;
    let (mut input, mut fields) = (Vec::new(), Vec::new());
    let (length, line) = read_head(stream, &mut input, &mut fields).await?;
    let head = &input[..length];
    let framing = response_framing(line.status, false, false, head, &fields);
    let framing = framing.map_err(|_| Fault::of("parsing HTTP answer", "invalid framing"))?;
    if line.status != 200 {
        return Err(Fault::of(REFUSED, format!("OCSP responder sent status {}", line.status)));
    }
    if let Some(kind) = content_type(head, &fields)
        && !kind.eq_ignore_ascii_case(b"application/ocsp-response")
    {
        let kind = String::from_utf8_lossy(kind);
        let reason =
            format!("OCSP responder sent invalid \"Content-Type\" header: \"{}\"", kind.trim());
        return Err(Fault::of(REFUSED, reason));
    }
    let rest = input.split_off(length);
    let (body, _) = read_body(stream, rest, framing).await?;
    if body.len() > LONGEST {
        return Err(Fault::of(REFUSED, "OCSP responder sent too large a response"));
    }
    Ok(body)
}

/// The kind of an answer, without parameters.
fn content_type<'a>(head: &'a [u8], fields: &[Field]) -> Option<&'a [u8]> {
    let named = |field: &&Field| field.name.of(head).eq_ignore_ascii_case(b"content-type");
    let value = fields.iter().find(named)?.value.of(head);
    Some(value.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |url: &str, expected: Result<(&str, u16, &str, bool), BadUrl>| {
            let found = Responder::parse(url);
            let found = found.as_ref().map_err(|bad| *bad).map(|found| {
                let is_known = !found.addresses.is_empty();
                (&*found.host, found.port, &*found.path, is_known)
            });
            assert_eq!(found, expected, "{url}");
        };
        check("http://a.example", Ok(("a.example", 80, "/", false)));
        check("HTTP://a.example:8080/x/y?z#w", Ok(("a.example", 8080, "/x/y?z", false)));
        check("http://127.0.0.1:81/", Ok(("127.0.0.1", 81, "/", true)));
        check("http://[::1]:81?q", Ok(("[::1]", 81, "/?q", true)));
        check("http://[::1]", Ok(("[::1]", 80, "/", true)));
        check("https://a.example", Err(BadUrl::Prefix));
        check("ldap", Err(BadUrl::Prefix));
        check("http://", Err(BadUrl::Rest("no host")));
        check("http://a:0/", Err(BadUrl::Rest("invalid port")));
        check("http://a:+1/", Err(BadUrl::Rest("invalid port")));
        check("http://a b/", Err(BadUrl::Rest("invalid host")));
        check("http://[::g]/", Err(BadUrl::Rest("invalid IPv6 address")));
        check("http://a\r\nX: y/", Err(BadUrl::Rest("invalid host")));
    }

    #[test]
    fn short_questions_go_into_the_url() {
        let responder = Responder::parse("http://a.example:81/ocsp").unwrap();
        let short = String::from_utf8(responder.request(&[0xff, 0xfe, 0xfd, 0xfc])).unwrap();
        assert!(short.starts_with("GET /ocsp/%2F%2F79%2FA%3D%3D HTTP/1.0\r\n"), "{short}");
        assert!(short.contains("\r\nHost: a.example:81\r\n"), "{short}");
        let long = responder.request(&[b'x'; 300]);
        let long = String::from_utf8(long).unwrap();
        assert!(long.starts_with("POST /ocsp HTTP/1.0\r\n"), "{long}");
        assert!(long.contains("\r\nContent-Length: 300\r\n"), "{long}");
        assert!(long.ends_with(&"x".repeat(300)), "{long}");
    }
}
