//! The core variables (nginx: ngx_http_core_module, "Embedded Variables").

use crate::exchange::{Exchange, Persistence};
use crate::files;
use crate::headers::Headers;
use crate::proxy_protocol;
use crate::request_body::Stored;
use session::log::Level;
use session::text::Span;
use session::variables::Builtin;
use smallvec::SmallVec;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use system::errno::Errno;
use wire::http1::Known;

type X = Exchange;
type Found = Option<Span>;

/// The table.
pub static BUILTINS: &[Builtin<Exchange>] = &[
    Builtin::family("arg_", arg, "The query's argument of that name."),
    Builtin::volatile("args", args, "The query.").settable(set_args),
    Builtin::volatile(
        "binary_remote_addr",
        binary_remote_addr,
        "The client's address, 4 or 16 bytes.",
    ),
    Builtin::volatile(
        "body_bytes_sent",
        body_bytes_sent,
        "Bytes sent to the client without the head.",
    ),
    Builtin::volatile("bytes_sent", bytes_sent, "Bytes sent to the client."),
    Builtin::volatile("connection", connection, "Serial number of the connection."),
    Builtin::volatile(
        "connection_requests",
        connection_requests,
        "Requests on the connection so far.",
    ),
    Builtin::volatile("connection_time", connection_time, "Age of the connection in seconds."),
    Builtin::volatile("content_length", content_length, "The request's Content-Length."),
    Builtin::volatile("content_type", content_type, "The request's Content-Type."),
    Builtin::family("cookie_", cookie, "The cookie of that name."),
    Builtin::volatile("document_root", document_root, "`root` or `alias` for the request."),
    Builtin::volatile("document_uri", uri, "The same as `$uri`."),
    Builtin::volatile(
        "host",
        host,
        "The request's host, else the server's name; lower case, no port.",
    ),
    Builtin::volatile("hostname", hostname, "Name of the machine."),
    Builtin::family("http_", http, "The request's field of that name."),
    Builtin::volatile(
        "http2",
        http2,
        "`h2` for HTTP/2 over TLS, `h2c` for HTTP/2 without, empty otherwise.",
    ),
    Builtin::volatile("https", https, "`on` for a TLS connection, else empty."),
    Builtin::volatile("is_args", is_args, "`?` when there is a query."),
    Builtin::volatile("is_request_port", is_request_port, "`:` when the request names a port."),
    Builtin::volatile("limit_rate", limit_rate, "Bytes per second of the answer; 0: no limit.")
        .settable(set_limit_rate),
    Builtin::volatile("msec", msec, "Seconds since the epoch with milliseconds."),
    Builtin::volatile("nginx_version", nginx_version, "Version of the program."),
    Builtin::volatile("pid", pid, "Process id of the worker."),
    Builtin::volatile("pipe", pipe, "`p` for a pipelined request, else `.`."),
    Builtin::volatile(
        "proxy_protocol_addr",
        proxy_protocol::addr,
        "The client's address as the PROXY protocol tells it.",
    ),
    Builtin::volatile(
        "proxy_protocol_port",
        proxy_protocol::client_port,
        "The client's port as the PROXY protocol tells it.",
    ),
    Builtin::volatile(
        "proxy_protocol_server_addr",
        proxy_protocol::server_addr,
        "The address that the client connected to, from the PROXY protocol.",
    ),
    Builtin::volatile(
        "proxy_protocol_server_port",
        proxy_protocol::server_port,
        "The port that the client connected to, from the PROXY protocol.",
    ),
    Builtin::family(
        "proxy_protocol_tlv_",
        proxy_protocol::extension,
        "The extension of that name, such as `alpn` or `0xea`, of the PROXY protocol.",
    ),
    Builtin::volatile("query_string", args, "The same as `$args`."),
    Builtin::volatile(
        "realpath_root",
        realpath_root,
        "`$document_root` with symbolic links followed.",
    ),
    Builtin::volatile("remote_addr", remote_addr, "The client's address."),
    Builtin::volatile("remote_port", remote_port, "The client's port."),
    Builtin::volatile("remote_user", remote_user, "The user of Basic authentication."),
    Builtin::volatile("request", request, "The request line."),
    Builtin::volatile(
        "request_body",
        request_body,
        "The request's body, when it was read into memory.",
    ),
    Builtin::volatile(
        "request_body_file",
        request_body_file,
        "The file that holds the request's body.",
    ),
    Builtin::volatile(
        "request_completion",
        request_completion,
        "`OK` when the answer was sent whole.",
    ),
    Builtin::volatile("request_filename", request_filename, "The file that the URI names."),
    Builtin::volatile("request_id", request_id, "A random number of 32 hexadecimal digits."),
    Builtin::volatile(
        "request_length",
        request_length,
        "Bytes of the request: line, fields and body.",
    ),
    Builtin::volatile("request_method", request_method, "The method."),
    Builtin::volatile("request_port", request_port, "The port that the request names."),
    Builtin::volatile(
        "request_time",
        request_time,
        "Seconds since the first byte, with milliseconds.",
    ),
    Builtin::volatile("request_uri", request_uri, "The target as the client sent it."),
    Builtin::volatile("scheme", scheme, "`http` or `https`."),
    Builtin::volatile("sent_http_connection", sent_connection, "The answer's Connection."),
    Builtin::volatile(
        "sent_http_content_length",
        sent_content_length,
        "The answer's Content-Length.",
    ),
    Builtin::volatile("sent_http_content_type", sent_content_type, "The answer's Content-Type."),
    Builtin::volatile("sent_http_keep_alive", sent_keep_alive, "The answer's Keep-Alive."),
    Builtin::volatile("sent_http_last_modified", sent_last_modified, "The answer's Last-Modified."),
    Builtin::volatile("sent_http_location", sent_location, "The answer's Location."),
    Builtin::volatile(
        "sent_http_transfer_encoding",
        sent_transfer_encoding,
        "The answer's Transfer-Encoding.",
    ),
    Builtin::family("sent_http_", sent_http, "The answer's field of that name."),
    Builtin::family("sent_trailer_", sent_trailer, "The answer's trailer field of that name."),
    Builtin::volatile("server_addr", server_addr, "The address that the request came to."),
    Builtin::volatile("server_name", server_name, "First name of the server."),
    Builtin::volatile("server_port", server_port, "The port that the request came to."),
    Builtin::volatile(
        "server_protocol",
        server_protocol,
        "The request's protocol, such as `HTTP/1.1`.",
    ),
    Builtin::volatile("status", status_code, "The answer's status."),
    Builtin::volatile(
        "tcpinfo_rtt",
        tcpinfo_rtt,
        "Round trip time of the connection in microseconds.",
    ),
    Builtin::volatile("tcpinfo_rttvar", tcpinfo_rttvar, "Variance of the round trip time."),
    Builtin::volatile("tcpinfo_snd_cwnd", tcpinfo_snd_cwnd, "Congestion window in segments."),
    Builtin::volatile("tcpinfo_rcv_space", tcpinfo_rcv_space, "Space for receiving in bytes."),
    Builtin::volatile("time_iso8601", time_iso8601, "Local time as in ISO 8601."),
    Builtin::volatile("time_local", time_local, "Local time in the Common Log Format."),
    Builtin::volatile("uri", uri, "The path: decoded, normalised, possibly rewritten."),
];

/// The value of argument `name` in a query: the first one, undecoded.
pub fn argument(query: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    for part in query.split(|b| *b == b'&') {
        let sign = part.iter().position(|b| *b == b'=');
        let (key, skip) = sign.map_or((part, part.len()), |sign| (&part[..sign], sign + 1));
        if sign.is_some() && key.eq_ignore_ascii_case(name) {
            return Some((at + skip, at + part.len()));
        }
        at += part.len() + 1;
    }
    None
}

fn arg(x: &mut X, name: &str) -> Found {
    let query = x.request.args;
    let (from, to) = argument(x.text(query), name.as_bytes())?;
    Some(query.part(from, to))
}

fn args(x: &mut X) -> Found {
    Some(x.request.args)
}

fn set_args(x: &mut X, value: Span) {
    x.request.args = value;
    x.request.rewritten = true;
}

fn limit_rate(x: &mut X) -> Found {
    Some(x.arena.number(x.rate.unwrap_or(0)))
}

fn set_limit_rate(x: &mut X, value: Span) {
    let text = x.text(value);
    match config::read::parse_size(text) {
        Some(rate) => x.rate = Some(rate),
        None => {
            let text = session::log::Bytes(text);
            x.log_error(Level::Error, format_args!("invalid $limit_rate \"{text}\""));
        }
    }
}

fn binary_remote_addr(x: &mut X) -> Found {
    match x.client_address().map(|address| address.ip()) {
        Some(IpAddr::V4(ip)) => Some(x.arena.push(&ip.octets())),
        Some(IpAddr::V6(ip)) => Some(x.arena.push(&ip.octets())),
        None => Some(x.arena.push(b"unix:")),
    }
}

fn body_bytes_sent(x: &mut X) -> Found {
    let bytes = x.sent.bytes.saturating_sub(x.sent.head_bytes);
    Some(x.arena.number(bytes))
}

fn bytes_sent(x: &mut X) -> Found {
    Some(x.arena.number(x.sent.bytes))
}

fn connection(x: &mut X) -> Found {
    Some(x.arena.number(x.connection.id))
}

fn connection_requests(x: &mut X) -> Found {
    Some(x.arena.number(u64::from(x.connection.requests.get())))
}

/// Seconds with three digits after the point.
pub fn seconds(x: &mut X, ms: u64) -> Span {
    x.arena.format(format_args!("{}.{:03}", ms / 1000, ms % 1000))
}

fn connection_time(x: &mut X) -> Found {
    let ms = net::now().saturating_sub(x.connection.accepted_ms);
    Some(seconds(x, ms))
}

fn content_length(x: &mut X) -> Found {
    if let Some(value) = x.request.headers.value(Known::ContentLength) {
        return Some(value);
    }
    // The length of a chunked body is known once it was taken in.
    let stored = x.body.stored.as_ref().filter(|_| x.body.is_chunked())?.len();
    Some(x.arena.number(stored))
}

fn content_type(x: &mut X) -> Found {
    field_by_variable(x, Which::Request, "content_type")
}

fn cookie(x: &mut X, name: &str) -> Found {
    let find = |field: crate::headers::Field| {
        let value = x.text(field.value);
        let (from, to) = cookie_value(value, name.as_bytes(), b';')?;
        Some(field.value.part(from, to))
    };
    x.request.headers.all(Known::Cookie).find_map(find)
}

/// Where the value of `name` lies in a list of `name=value` pairs.
pub fn cookie_value(list: &[u8], name: &[u8], separator: u8) -> Option<(usize, usize)> {
    let mut at = 0;
    for part in list.split(|b| *b == separator) {
        let skip = part.iter().take_while(|b| **b == b' ').count();
        let pair = &part[skip..];
        if let Some(sign) = pair.iter().position(|b| *b == b'=')
            && without_spaces(&pair[..sign]).eq_ignore_ascii_case(name)
        {
            let value = &pair[sign + 1..];
            let lead = value.iter().take_while(|b| **b == b' ').count();
            return Some((at + skip + sign + 1 + lead, at + part.len()));
        }
        at += part.len() + 1;
    }
    None
}

/// `text` without spaces at its end; other white space belongs to it, as in nginx.
fn without_spaces(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|b| *b != b' ').map_or(0, |at| at + 1);
    &text[..end]
}

fn document_root(x: &mut X) -> Found {
    Some(files::root(x))
}

fn uri(x: &mut X) -> Found {
    Some(x.request.uri)
}

fn host(x: &mut X) -> Found {
    if !x.request.host.is_empty() {
        return Some(x.request.host);
    }
    server_name(x)
}

fn hostname(x: &mut X) -> Found {
    let name = system::host::name();
    Some(x.arena.push(name.as_bytes()))
}

/// All fields of a name in lower case with underscores for hyphens, joined.
pub fn field_by_variable(x: &mut X, which: Which, name: &str) -> Found {
    let headers = which.headers(x)?;
    let arena = &x.arena;
    let same = |field: &crate::headers::Field| {
        let text = field.name(arena);
        text.len() == name.len()
            && text.iter().zip(name.bytes()).all(|(a, b)| match a {
                b'-' => b == b'_',
                _ => a.to_ascii_lowercase() == b,
            })
    };
    let mut found = headers.iter().filter(|field| same(field));
    let first = found.next()?;
    let Some(second) = found.next() else { return Some(first.value) };
    let separator: &[u8] = if first.known == Known::Cookie { b"; " } else { b", " };
    let values: SmallVec<[Span; 4]> =
        [first, second].into_iter().chain(found).map(|field| field.value).collect();
    let mark = x.arena.mark();
    for (i, value) in values.into_iter().enumerate() {
        if i > 0 {
            x.arena.push(separator);
        }
        x.arena.copy(value);
    }
    Some(x.arena.since(mark))
}

/// Which list of fields a variable looks into.
#[derive(Clone, Copy, Debug)]
pub enum Which {
    /// The request's.
    Request,
    /// The answer's.
    Response,
    /// The answer's trailers.
    Trailers,
    /// The last backend's.
    Upstream,
    /// The last backend's trailers.
    UpstreamTrailers,
}

impl Which {
    fn headers(self, x: &X) -> Option<&Headers> {
        let log = || x.upstream.as_deref();
        match self {
            Which::Request => Some(&x.request.headers),
            Which::Response => Some(&x.response.headers),
            Which::Trailers => Some(&x.response.trailers),
            Which::Upstream => log().map(|log| &log.headers),
            Which::UpstreamTrailers => log().map(|log| &log.trailers),
        }
    }
}

fn http(x: &mut X, name: &str) -> Found {
    field_by_variable(x, Which::Request, name)
}

fn https(x: &mut X) -> Found {
    match x.tls() {
        Some(_) => Some(x.arena.push(b"on")),
        None => Some(Span::EMPTY),
    }
}

fn is_args(x: &mut X) -> Found {
    match x.request.args.is_empty() {
        true => Some(Span::EMPTY),
        false => Some(x.arena.push(b"?")),
    }
}

fn is_request_port(x: &mut X) -> Found {
    match port_of_host(x) {
        Some(_) => Some(x.arena.push(b":")),
        None => Some(Span::EMPTY),
    }
}

fn port_of_host(x: &X) -> Found {
    let field = x.request.host_field;
    let text = x.text(field);
    let colon = text.iter().rposition(|b| *b == b':')?;
    let digits = &text[colon + 1..];
    (!digits.is_empty() && digits.iter().all(u8::is_ascii_digit)).then(|| field.after(colon + 1))
}

fn request_port(x: &mut X) -> Found {
    port_of_host(x)
}

fn msec(x: &mut X) -> Found {
    Some(x.arena.push(&session::clock::msec()))
}

fn nginx_version(x: &mut X) -> Found {
    Some(x.arena.push(system::identity::identity().version.as_bytes()))
}

fn http2(x: &mut X) -> Found {
    x.stream.as_ref()?;
    let is_tls = x.connection.stream.tls().is_some();
    Some(x.arena.push(if is_tls { b"h2" } else { b"h2c" }))
}

fn pid(x: &mut X) -> Found {
    Some(x.arena.number(u64::from(std::process::id())))
}

fn pipe(x: &mut X) -> Found {
    let pipelined = x.connection.has_leftover() && !x.body.is_pending();
    Some(x.arena.push(if pipelined { b"p" } else { b"." }))
}

fn realpath_root(x: &mut X) -> Found {
    let root = files::root(x);
    let path = std::path::Path::new(std::ffi::OsStr::from_bytes(x.text(root)));
    match std::fs::canonicalize(path) {
        Ok(real) => Some(x.arena.push(real.as_os_str().as_bytes())),
        Err(error) => {
            let text = Errno::from(&error);
            let shown = path.display().to_string();
            x.log_error(Level::Error, format_args!("realpath() \"{shown}\" failed ({text})"));
            None
        }
    }
}

/// Text of an address without its port; `unix:` when there is none.
pub fn address_text(x: &mut X, address: Option<SocketAddr>) -> Span {
    match address {
        Some(address) => x.arena.address(address.ip()),
        None => x.arena.push(b"unix:"),
    }
}

fn remote_addr(x: &mut X) -> Found {
    Some(x.client_text())
}

fn remote_port(x: &mut X) -> Found {
    // An address that came without its port has the port 0.
    match x.client_address().map(|address| address.port()) {
        Some(port @ 1..) => Some(x.arena.number(u64::from(port))),
        _ => Some(Span::EMPTY),
    }
}

fn remote_user(x: &mut X) -> Found {
    let (user, _) = crate::credentials::basic(x)?;
    Some(user)
}

fn request(x: &mut X) -> Found {
    Some(x.request.line)
}

fn request_body(x: &mut X) -> Found {
    let Some(Stored::Memory(chunk)) = &x.body.stored else { return None };
    if chunk.is_empty() {
        return None;
    }
    let chunk = chunk.clone();
    Some(x.arena.push(&chunk))
}

fn request_body_file(x: &mut X) -> Found {
    let Some(Stored::File(stored)) = &x.body.stored else { return None };
    let stored = stored.clone();
    Some(x.arena.push(stored.path.as_os_str().as_bytes()))
}

fn request_completion(x: &mut X) -> Found {
    match x.sent.complete {
        true => Some(x.arena.push(b"OK")),
        false => Some(Span::EMPTY),
    }
}

fn request_filename(x: &mut X) -> Found {
    Some(files::path(x))
}

fn request_id(x: &mut X) -> Found {
    if let Some(id) = x.request_id {
        return Some(id);
    }
    let bits = session::random::u128();
    let id = x.arena.format(format_args!("{bits:032x}"));
    x.request_id = Some(id);
    Some(id)
}

fn request_length(x: &mut X) -> Found {
    let bytes = u64::from(x.request.head_bytes) + x.body.received;
    Some(x.arena.number(bytes))
}

fn request_method(x: &mut X) -> Found {
    Some(x.main_method.unwrap_or(x.request.method_text)).filter(|text| !text.is_empty())
}

fn request_time(x: &mut X) -> Found {
    let ms = net::now().saturating_sub(x.started_ms);
    Some(seconds(x, ms))
}

fn request_uri(x: &mut X) -> Found {
    Some(x.request.target)
}

fn scheme(x: &mut X) -> Found {
    let name: &[u8] = if x.tls().is_some() { b"https" } else { b"http" };
    Some(x.arena.push(name))
}

fn sent_connection(x: &mut X) -> Found {
    let text: &[u8] = match x.persistence {
        _ if x.response.status == 101 => b"upgrade",
        Persistence::Keep => b"keep-alive",
        Persistence::Close => b"close",
    };
    Some(x.arena.push(text))
}

fn sent_content_length(x: &mut X) -> Found {
    let length = x.response.length?;
    Some(x.arena.number(length))
}

fn sent_content_type(x: &mut X) -> Found {
    let kind = x.response.content_type?;
    let Some(charset) = x.response.charset else { return Some(kind) };
    let mark = x.arena.mark();
    x.arena.copy(kind);
    x.arena.push(b"; charset=");
    x.arena.copy(charset);
    Some(x.arena.since(mark))
}

fn sent_keep_alive(x: &mut X) -> Found {
    if x.persistence != Persistence::Keep {
        return None;
    }
    let seconds = x.location.settings.keepalive.header_s?;
    Some(x.arena.format(format_args!("timeout={seconds}")))
}

fn sent_last_modified(x: &mut X) -> Found {
    match x.response.last_modified {
        Some(time) => Some(x.arena.push(&wire::http1::date::format(time as i64))),
        None => sent_http(x, "last_modified"),
    }
}

fn sent_location(x: &mut X) -> Found {
    x.response.location.or_else(|| x.response.headers.value(Known::Location))
}

fn sent_transfer_encoding(x: &mut X) -> Found {
    match x.sent.chunked {
        true => Some(x.arena.push(b"chunked")),
        false => None,
    }
}

fn sent_http(x: &mut X, name: &str) -> Found {
    field_by_variable(x, Which::Response, name)
}

fn sent_trailer(x: &mut X, name: &str) -> Found {
    field_by_variable(x, Which::Trailers, name)
}

fn server_addr(x: &mut X) -> Found {
    let address = x.connection.local();
    Some(address_text(x, address))
}

fn server_name(x: &mut X) -> Found {
    let site = x.site.clone();
    Some(x.arena.push(&site.name))
}

fn server_port(x: &mut X) -> Found {
    match x.connection.local().map(|address| address.port()) {
        Some(port) => Some(x.arena.number(u64::from(port))),
        None => Some(Span::EMPTY),
    }
}

fn server_protocol(x: &mut X) -> Found {
    let line = x.text(x.request.line);
    match line.iter().rposition(|b| *b == b' ') {
        Some(at) if line[at + 1..].starts_with(b"HTTP/") => Some(x.request.line.after(at + 1)),
        _ => Some(x.arena.push(b"HTTP/0.9")),
    }
}

fn status_code(x: &mut X) -> Found {
    let code = match x.sent.logged_status {
        // We cut it off ourselves: nginx logs 000.
        Some(499) if x.connection.worker.is_aborted() => 0,
        Some(status) => status,
        // An HTTP/0.9 answer has no status line; nginx logs 009.
        None if x.request.version.major == 0 => 9,
        None => x.response.status,
    };
    Some(x.arena.format(format_args!("{code:03}")))
}

fn tcp_info(x: &mut X, pick: fn(&system::socket::TcpInfo) -> u32) -> Found {
    let info = system::socket::tcp_info(x.connection.stream.as_fd()).ok()?;
    Some(x.arena.number(u64::from(pick(&info))))
}

fn tcpinfo_rtt(x: &mut X) -> Found {
    tcp_info(x, |info| info.round_trip_us)
}

fn tcpinfo_rttvar(x: &mut X) -> Found {
    tcp_info(x, |info| info.round_trip_variance_us)
}

fn tcpinfo_snd_cwnd(x: &mut X) -> Found {
    tcp_info(x, |info| info.send_window_segments)
}

fn tcpinfo_rcv_space(x: &mut X) -> Found {
    tcp_info(x, |info| info.receive_space_bytes)
}

fn time_iso8601(x: &mut X) -> Found {
    Some(x.arena.push(&session::clock::time_iso8601()))
}

fn time_local(x: &mut X) -> Found {
    Some(x.arena.push(&session::clock::time_local()))
}
