//! The directives of `proxy_pass`, as data.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, read};
use session::contexts::{STREAM, STREAM_SERVER};

pub(super) static ALL: &[&dyn AnyDirective] = &[
    &PROXY_PASS,
    &PROXY_CONNECT_TIMEOUT,
    &PROXY_TIMEOUT,
    &PROXY_BUFFER_SIZE,
    &PROXY_DOWNSTREAM_BUFFER,
    &PROXY_UPSTREAM_BUFFER,
    &PROXY_UPLOAD_RATE,
    &PROXY_DOWNLOAD_RATE,
    &PROXY_REQUESTS,
    &PROXY_RESPONSES,
    &PROXY_NEXT_UPSTREAM,
    &PROXY_NEXT_UPSTREAM_TRIES,
    &PROXY_NEXT_UPSTREAM_TIMEOUT,
    &PROXY_PROTOCOL,
    &PROXY_HALF_CLOSE,
    &PROXY_SOCKET_KEEPALIVE,
    &PROXY_SSL,
    &PROXY_SSL_ALPN,
    &PROXY_SOCKET_RCVBUF,
    &PROXY_SOCKET_SNDBUF,
];

const LEVELS: &[Context] = &[STREAM, STREAM_SERVER];

type Flag = Directive<bool>;
type Number = Directive<u64>;

const fn flag(name: &'static str) -> Flag {
    Directive::new(name, LEVELS, read::flag).takes(Arity::Flag)
}

const fn time(name: &'static str) -> Number {
    Directive::new(name, LEVELS, read::time_ms)
}

pub(super) static PROXY_PASS: Directive<config::Template> =
    Directive::new("proxy_pass", &[STREAM_SERVER], read::template)
        .syntax("proxy_pass ADDRESS;")
        .text(
            "Passes the session to ADDRESS: `HOST:PORT`, `unix:PATH` or the name of an `upstream` \
             block. A host's name stands for all of its addresses. With variables the address is \
             worked out for each session; a name that is no group is then looked up by \
             `resolver`.",
        )
        .example("stream { server { listen 5432; proxy_pass 10.0.0.1:5432; } }");

pub(super) static PROXY_CONNECT_TIMEOUT: Number = time("proxy_connect_timeout")
    .default("60s")
    .syntax("proxy_connect_timeout TIME;")
    .text("How long a backend may take to accept a connection.")
    .example("proxy_connect_timeout 1s;");

pub(super) static PROXY_TIMEOUT: Number = time("proxy_timeout")
    .default("10m")
    .syntax("proxy_timeout TIME;")
    .text(
        "For how long nothing may move in either direction: then a session ends. A UDP session \
         that had its answers ends well, one that did not counts as a failure of the backend.",
    )
    .example("proxy_timeout 30s;");

pub(super) static PROXY_BUFFER_SIZE: Number =
    Directive::new("proxy_buffer_size", LEVELS, read::size)
        .default("16k")
        .syntax("proxy_buffer_size SIZE;")
        .text(
            "Bytes that are read at a time. Large transfers between plain connections do not go \
             through this buffer; the kernel moves them from socket to socket.",
        )
        .example("proxy_buffer_size 32k;");

/// The old names of `proxy_buffer_size`.
const fn old_buffer(name: &'static str, syntax: &'static str, example: &'static str) -> Number {
    Directive::new(name, LEVELS, read_old_buffer)
        .syntax(syntax)
        .text("The old name of `proxy_buffer_size`.")
        .example(example)
}

pub(super) static PROXY_DOWNSTREAM_BUFFER: Number = old_buffer(
    "proxy_downstream_buffer",
    "proxy_downstream_buffer SIZE;",
    "proxy_downstream_buffer 32k;",
);

pub(super) static PROXY_UPSTREAM_BUFFER: Number = old_buffer(
    "proxy_upstream_buffer",
    "proxy_upstream_buffer SIZE;",
    "proxy_upstream_buffer 32k;",
);

fn read_old_buffer(args: &Args<'_>) -> Result<u64, Invalid> {
    let name = args.name();
    args.warn(format!(
        "the \"{name}\" directive is deprecated, use the \"proxy_buffer_size\" directive instead"
    ));
    read::size(args)
}

pub(super) static PROXY_UPLOAD_RATE: Directive<config::Template> =
    Directive::new("proxy_upload_rate", LEVELS, read_rate)
        .default("0")
        .syntax("proxy_upload_rate RATE;")
        .text(
            "Bytes per second that are read from a client, for each session; 0 is no limit. RATE \
             may hold variables.",
        )
        .example("proxy_upload_rate 100k;");

pub(super) static PROXY_DOWNLOAD_RATE: Directive<config::Template> =
    Directive::new("proxy_download_rate", LEVELS, read_rate)
        .default("0")
        .syntax("proxy_download_rate RATE;")
        .text(
            "Bytes per second that are read from a backend, for each session; 0 is no limit. \
             RATE may hold variables.",
        )
        .example("proxy_download_rate 1m;");

fn read_rate(args: &Args<'_>) -> Result<config::Template, Invalid> {
    let rate = read::template(args)?;
    match rate.constant() {
        Some(text) if read::parse_size(text).is_none() => {
            Err(read::refuse(args, 0, "invalid value"))
        }
        _ => Ok(rate),
    }
}

pub(super) static PROXY_REQUESTS: Number = Directive::new("proxy_requests", LEVELS, read::number)
    .default("0")
    .syntax("proxy_requests NUMBER;")
    .text(
        "After so many packets of a UDP client its next packet begins a new session, which \
             may go to another backend; 0 is no limit.",
    )
    .example("proxy_requests 1;");

pub(super) static PROXY_RESPONSES: Directive<Option<u64>> =
    Directive::new("proxy_responses", LEVELS, |args| read::number(args).map(Some))
        .syntax("proxy_responses NUMBER;")
        .text(
            "How many packets answer each packet of a UDP client. A session ends when it had so \
             many; a backend that gives fewer within `proxy_timeout` has failed. Without this \
             directive any number is right, and a session ends by `proxy_timeout`.",
        )
        .example("proxy_responses 1;");

pub(super) static PROXY_NEXT_UPSTREAM: Flag = flag("proxy_next_upstream")
    .default("on")
    .syntax("proxy_next_upstream on | off;")
    .text("Whether a session goes to the next backend when one cannot be reached.")
    .example("proxy_next_upstream off;");

pub(super) static PROXY_NEXT_UPSTREAM_TRIES: Number =
    Directive::new("proxy_next_upstream_tries", LEVELS, read::number)
        .default("0")
        .syntax("proxy_next_upstream_tries NUMBER;")
        .text("How many backends are tried for a session at most; 0 is no limit.")
        .example("proxy_next_upstream_tries 2;");

pub(super) static PROXY_NEXT_UPSTREAM_TIMEOUT: Number = time("proxy_next_upstream_timeout")
    .default("0")
    .syntax("proxy_next_upstream_timeout TIME;")
    .text("For how long further backends are tried for a session; 0 is no limit.")
    .example("proxy_next_upstream_timeout 5s;");

/// Which header of the PROXY protocol a backend gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Header {
    None,
    Line,
    Binary,
}

pub(super) static PROXY_PROTOCOL: Directive<Header> =
    Directive::new("proxy_protocol", LEVELS, |args| {
        let values = [("off", Header::None), ("on", Header::Line), ("v2", Header::Binary)];
        read::enumeration(args, &values)
    })
    .default("off")
    .syntax("proxy_protocol on | v2 | off;")
    .text(
        "Tells backends who the client is, by a header of the PROXY protocol before everything \
         else: `on` a line of version 1, `v2` a header of version 2 with a checksum.",
    )
    .example("proxy_protocol on;");

pub(super) static PROXY_HALF_CLOSE: Flag = flag("proxy_half_close")
    .default("off")
    .syntax("proxy_half_close on | off;")
    .text(
        "Whether the directions of a connection end apart: what one side closes is closed to the \
         other one, which may go on sending. Otherwise the end of one is the end of both.",
    )
    .example("proxy_half_close on;");

pub(super) static PROXY_SOCKET_KEEPALIVE: Flag = flag("proxy_socket_keepalive")
    .default("off")
    .syntax("proxy_socket_keepalive on | off;")
    .text("Whether connections to backends are probed by TCP while they are silent.")
    .example("proxy_socket_keepalive on;");

pub(super) static PROXY_SSL: Flag = flag("proxy_ssl")
    .default("off")
    .syntax("proxy_ssl on | off;")
    .text(
        "Whether connections to backends speak TLS. `proxy_ssl_verify` and its kin, which are \
         described for http, say how.",
    )
    .example("proxy_ssl on;");

pub(super) static PROXY_SSL_ALPN: Directive<Vec<config::Template>> =
    Directive::new("proxy_ssl_alpn", LEVELS, read_protocols)
        .takes(Arity::AtLeast(1))
        .syntax("proxy_ssl_alpn PROTOCOL...;")
        .text(
            "The protocols above TLS that backends are offered (ALPN). They may hold variables; \
             what is empty is not offered.",
        )
        .example("proxy_ssl_alpn h2 http/1.1;");

fn read_protocols(args: &Args<'_>) -> Result<Vec<config::Template>, Invalid> {
    let protocol = |i: usize| {
        let template = read::template_at(args, i)?;
        match template.constant() {
            Some(text) if text.len() > 255 => Err(read::refuse(args, i, "protocol too long")),
            _ => Ok(template),
        }
    };
    (0..args.len()).map(protocol).collect()
}

pub(super) static PROXY_SOCKET_RCVBUF: Number =
    Directive::new("proxy_socket_rcvbuf", LEVELS, read::size)
        .default("0")
        .syntax("proxy_socket_rcvbuf SIZE;")
        .text("The receive buffer of connections to backends (`SO_RCVBUF`); 0: the system's own.")
        .example("proxy_socket_rcvbuf 64k;");

pub(super) static PROXY_SOCKET_SNDBUF: Number =
    Directive::new("proxy_socket_sndbuf", LEVELS, read::size)
        .default("0")
        .syntax("proxy_socket_sndbuf SIZE;")
        .text("The send buffer of connections to backends (`SO_SNDBUF`); 0: the system's own.")
        .example("proxy_socket_sndbuf 64k;");
