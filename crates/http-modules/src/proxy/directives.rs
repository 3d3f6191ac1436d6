//! The directives of `proxy_pass` and all that shapes it, as data.

use super::cookies::{PROXY_COOKIE_DOMAIN, PROXY_COOKIE_FLAGS, PROXY_COOKIE_PATH};
use super::store;
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, read};
use http::directives::{TempPath, read_temp_path};
use session::contexts::{HTTP, IF_LOCATION, LIMIT_EXCEPT, LOCATION, SERVER};

pub(super) const HSL: &[Context] = &[HTTP, SERVER, LOCATION];

type Flag = Directive<bool>;
type Millis = Directive<u64>;
type Bytes = Directive<u64>;

const fn flag(name: &'static str) -> Flag {
    Directive::new(name, HSL, read::flag).takes(Arity::Flag)
}

const fn millis(name: &'static str) -> Millis {
    Directive::new(name, HSL, read::time_ms)
}

pub(super) static PROXY_PASS: Directive<config::Template> =
    Directive::new("proxy_pass", &[LOCATION, IF_LOCATION, LIMIT_EXCEPT], read::template)
        .syntax("proxy_pass URL;")
        .text(
            "Passes requests to the server or group that the URL names: `http://NAME[:PORT]` or \
             `http://unix:PATH:`. A path in the URL replaces the location's name at the start of \
             the URI; without one the URI is passed as the client sent it. Variables may stand \
             anywhere; a path given with them is passed as it is.",
        )
        .example("location /app/ { proxy_pass http://127.0.0.1:8000/; }");

pub(super) static PROXY_METHOD: Directive<config::Template> =
    Directive::new("proxy_method", HSL, read::template)
        .syntax("proxy_method METHOD;")
        .text("The method of the backend's request in place of the client's.")
        .example("proxy_method POST;");

pub(super) static PROXY_HTTP_VERSION: Directive<HttpVersion> =
    Directive::new("proxy_http_version", HSL, |args| {
        read::enumeration(
            args,
            &[
                ("1.0", HttpVersion::Http10),
                ("1.1", HttpVersion::Http11),
                ("2", HttpVersion::Http2),
            ],
        )
    })
    .default("1.1")
    .syntax("proxy_http_version 1.0 | 1.1 | 2;")
    .text(
        "The protocol version spoken with backends. Connections are kept with 1.1 and 2. With 2 \
         backends must speak HTTP/2 without being asked, or by ALPN over TLS; a connection carries \
         many requests at once, as many as the server allows and 128 at most.",
    )
    .example("proxy_http_version 1.0;");

pub(super) static PROXY_SET_HEADER: Directive<(Vec<u8>, config::Template)> =
    Directive::new("proxy_set_header", HSL, read_set_header)
        .takes(Arity::Exactly(2))
        .many()
        .syntax("proxy_set_header FIELD VALUE;")
        .text(
            "Sets a field of the backend's request, in place of the client's. An empty value \
             leaves the field out. Fields set on a level replace all that are set outside of it. \
             Without this directive `Host` is `$proxy_host` and `Connection` is left out.",
        )
        .example("proxy_set_header Host $host;");

pub(super) static PROXY_PASS_REQUEST_HEADERS: Flag = flag("proxy_pass_request_headers")
    .default("on")
    .syntax("proxy_pass_request_headers on | off;")
    .text("Whether the client's fields are passed on.")
    .example("proxy_pass_request_headers off;");

pub(super) static PROXY_PASS_REQUEST_BODY: Flag = flag("proxy_pass_request_body")
    .default("on")
    .syntax("proxy_pass_request_body on | off;")
    .text("Whether the client's body is passed on.")
    .example("proxy_pass_request_body off;");

pub(super) static PROXY_SET_BODY: Directive<config::Template> =
    Directive::new("proxy_set_body", HSL, read::template)
        .syntax("proxy_set_body VALUE;")
        .text("The body of the backend's request in place of the client's.")
        .example("proxy_set_body \"user=$arg_user\";");

pub(super) static PROXY_REQUEST_BUFFERING: Flag = flag("proxy_request_buffering")
    .default("on")
    .syntax("proxy_request_buffering on | off;")
    .text(
        "Whether a request's body is taken in whole before a backend is asked. Without it a slow \
         upload occupies a backend, and cannot go to another one when the first fails.",
    )
    .example("proxy_request_buffering off;");

pub(super) static PROXY_HIDE_HEADER: Directive<Vec<u8>> =
    Directive::new("proxy_hide_header", HSL, read::bytes)
        .many()
        .syntax("proxy_hide_header FIELD;")
        .text("A field of the backend's answer that the client does not get.")
        .example("proxy_hide_header X-Powered-By;");

pub(super) static PROXY_PASS_HEADER: Directive<Vec<u8>> =
    Directive::new("proxy_pass_header", HSL, read::bytes)
        .many()
        .syntax("proxy_pass_header FIELD;")
        .text(
            "A field of the backend's answer that the client gets although it is hidden by \
             default: `Date`, `Server`, `X-Pad`, `X-Accel-...`.",
        )
        .example("proxy_pass_header Server;");

pub(super) static PROXY_REDIRECT: Directive<Redirect> =
    Directive::new("proxy_redirect", HSL, read_redirect)
        .takes(Arity::Between(1, 2))
        .many()
        .default("default")
        .syntax(
            "proxy_redirect default;\nproxy_redirect off;\nproxy_redirect REDIRECT REPLACEMENT;",
        )
        .text(
            "Rewrites `Location` and `Refresh` of the backend's answer: what begins with REDIRECT \
             (or matches it, after `~` or `~*`) gets REPLACEMENT in its place. `default` turns \
             the URL of `proxy_pass` back into the location's name.",
        )
        .example("proxy_redirect http://backend:8000/ /;");

pub(super) static PROXY_BUFFERING: Flag = flag("proxy_buffering")
    .default("on")
    .syntax("proxy_buffering on | off;")
    .text(
        "Whether an answer is taken from the backend as fast as it gives it, into memory and then \
         into a file. Without it each piece is passed to the client as it comes, and a slow \
         client occupies the backend.",
    )
    .example("proxy_buffering off;");

pub(super) static PROXY_BUFFER_SIZE: Bytes = Directive::new("proxy_buffer_size", HSL, read::size)
    .default("4k")
    .syntax("proxy_buffer_size SIZE;")
    .text("The longest head of an answer; a longer one is an error of the backend.")
    .example("proxy_buffer_size 16k;");

pub(super) static PROXY_BUFFERS: Directive<config::read::Buffers> =
    Directive::new("proxy_buffers", HSL, read::buffers)
        .takes(Arity::Exactly(2))
        .default("8 4k")
        .syntax("proxy_buffers NUMBER SIZE;")
        .text(
            "How much of an answer is kept in memory for a client that is slower than the backend.",
        )
        .example("proxy_buffers 16 8k;");

pub(super) static PROXY_BUSY_BUFFERS_SIZE: Bytes =
    Directive::new("proxy_busy_buffers_size", HSL, read::size)
        .syntax("proxy_busy_buffers_size SIZE;")
        .text(
            "How much of `proxy_buffers` may be waiting for the client while more is read; \
             twice the larger buffer size unless set.",
        )
        .example("proxy_busy_buffers_size 16k;");

pub(super) static PROXY_MAX_TEMP_FILE_SIZE: Bytes =
    Directive::new("proxy_max_temp_file_size", HSL, read::offset)
        .default("1024m")
        .syntax("proxy_max_temp_file_size SIZE;")
        .text("How much of an answer that does not fit in memory may go to a file; 0: nothing.")
        .example("proxy_max_temp_file_size 64m;");

pub(super) static PROXY_TEMP_FILE_WRITE_SIZE: Bytes =
    Directive::new("proxy_temp_file_write_size", HSL, read::size)
        .syntax("proxy_temp_file_write_size SIZE;")
        .text("How much is written to a temporary file at a time.")
        .moot("what was read in one call is written in one call; there is nothing to collect")
        .example("proxy_temp_file_write_size 64k;");

pub(super) static PROXY_TEMP_PATH: Directive<TempPath> =
    Directive::new("proxy_temp_path", HSL, read_temp_path)
        .takes(Arity::Between(1, 4))
        .default("proxy_temp")
        .syntax("proxy_temp_path PATH [LEVEL1 [LEVEL2 [LEVEL3]]];")
        .text("The folder for answers that do not fit in memory.")
        .example("proxy_temp_path /var/lib/heng/proxy 1 2;");

pub(super) static PROXY_CONNECT_TIMEOUT: Millis = millis("proxy_connect_timeout")
    .default("60s")
    .syntax("proxy_connect_timeout TIME;")
    .text("How long a backend may take to accept a connection.")
    .example("proxy_connect_timeout 2s;");

pub(super) static PROXY_SEND_TIMEOUT: Millis = millis("proxy_send_timeout")
    .default("60s")
    .syntax("proxy_send_timeout TIME;")
    .text("How long a backend may take nothing of a request.")
    .example("proxy_send_timeout 10s;");

pub(super) static PROXY_READ_TIMEOUT: Millis = millis("proxy_read_timeout")
    .default("60s")
    .syntax("proxy_read_timeout TIME;")
    .text("How long a backend may send nothing of its answer.")
    .example("proxy_read_timeout 10s;");

pub(super) static PROXY_NEXT_UPSTREAM: Directive<u32> =
    Directive::new("proxy_next_upstream", HSL, |args| read::bitmask(args, next::NAMES))
        .takes(Arity::AtLeast(1))
        .default("error timeout")
        .syntax(
            "proxy_next_upstream error | timeout | invalid_header | http_500 | http_502 | \
             http_503 | http_504 | http_403 | http_404 | http_429 | non_idempotent | off ...;",
        )
        .text(
            "What makes a request go to the next peer. Requests with POST, LOCK or PATCH that \
             were sent already are repeated with `non_idempotent` only.",
        )
        .example("proxy_next_upstream error timeout http_503;");

pub(super) static PROXY_NEXT_UPSTREAM_TRIES: Directive<u64> =
    Directive::new("proxy_next_upstream_tries", HSL, read::number)
        .default("0")
        .syntax("proxy_next_upstream_tries NUMBER;")
        .text("How many peers are asked at most; 0: all.")
        .example("proxy_next_upstream_tries 2;");

pub(super) static PROXY_NEXT_UPSTREAM_TIMEOUT: Millis = millis("proxy_next_upstream_timeout")
    .default("0")
    .syntax("proxy_next_upstream_timeout TIME;")
    .text("For how long further peers are asked; 0: without limit.")
    .example("proxy_next_upstream_timeout 5s;");

pub(super) static PROXY_INTERCEPT_ERRORS: Flag = flag("proxy_intercept_errors")
    .default("off")
    .syntax("proxy_intercept_errors on | off;")
    .text("Whether answers with statuses that `error_page` names are replaced by its pages.")
    .example("proxy_intercept_errors on;");

pub(super) static PROXY_IGNORE_CLIENT_ABORT: Flag = flag("proxy_ignore_client_abort")
    .default("off")
    .syntax("proxy_ignore_client_abort on | off;")
    .text("Whether a request goes on when the client closes its connection.")
    .example("proxy_ignore_client_abort on;");

pub(super) static PROXY_SOCKET_RCVBUF: Bytes =
    Directive::new("proxy_socket_rcvbuf", HSL, read::size)
        .syntax("proxy_socket_rcvbuf SIZE;")
        .text("The kernel's buffer for what comes from a backend (`SO_RCVBUF`).")
        .example("proxy_socket_rcvbuf 64k;");

pub(super) static PROXY_SOCKET_SNDBUF: Bytes =
    Directive::new("proxy_socket_sndbuf", HSL, read::size)
        .syntax("proxy_socket_sndbuf SIZE;")
        .text("The kernel's buffer for what goes to a backend (`SO_SNDBUF`).")
        .example("proxy_socket_sndbuf 64k;");

pub(super) static PROXY_FORCE_RANGES: Flag = flag("proxy_force_ranges")
    .default("off")
    .syntax("proxy_force_ranges on | off;")
    .text(
        "Whether clients get parts of a backend's answers on demand although the backend does not \
         offer that: what they did not ask for is read and dropped. One part per request.",
    )
    .example("proxy_force_ranges on;");

pub(super) static PROXY_SEND_LOWAT: Bytes = Directive::new("proxy_send_lowat", HSL, read::size)
    .default("0")
    .syntax("proxy_send_lowat SIZE;")
    .text("How much room the kernel should have before it tells that a backend can be sent more.")
    .moot("Linux has no such setting for sockets; nginx ignores it there too")
    .example("proxy_send_lowat 12000;");

pub(super) static PROXY_SOCKET_KEEPALIVE: Flag = flag("proxy_socket_keepalive")
    .default("off")
    .syntax("proxy_socket_keepalive on | off;")
    .text("Whether connections to backends are probed by TCP while they are silent.")
    .example("proxy_socket_keepalive on;");

pub(super) static PROXY_LIMIT_RATE: Directive<config::Template> =
    Directive::new("proxy_limit_rate", HSL, read_rate)
        .default("0")
        .syntax("proxy_limit_rate RATE;")
        .text(
            "How many bytes per second are read of an answer while it is buffered; 0: without \
             limit. Each request counts for itself.",
        )
        .example("proxy_limit_rate 100k;");

pub(super) static PROXY_IGNORE_HEADERS: Directive<u32> =
    Directive::new("proxy_ignore_headers", HSL, |args| read::bitmask(args, ignore::NAMES))
        .takes(Arity::AtLeast(1))
        .syntax("proxy_ignore_headers FIELD ...;")
        .text(
            "Fields of the backend's answer that are not obeyed: `X-Accel-Redirect`, \
             `X-Accel-Buffering`, `X-Accel-Limit-Rate`, `X-Accel-Charset`. `X-Accel-Expires`, \
             `Expires`, `Cache-Control`, `Set-Cookie` and `Vary` may be named too; they concern \
             caching only.",
        )
        .example("proxy_ignore_headers X-Accel-Redirect;");

pub(super) static PROXY_PASS_TRAILERS: Flag = flag("proxy_pass_trailers")
    .default("off")
    .syntax("proxy_pass_trailers on | off;")
    .text(
        "Whether fields that a backend sends behind a body in chunks go to the client, when it \
         gets the body in chunks too. Backends send such fields to those who ask for them: \
         `proxy_set_header Connection te; proxy_set_header TE trailers`. Fields behind a \
         client's body go to backends of HTTP/1.1 likewise, and always to those of HTTP/2: not \
         those that mean something in a head, nor those that `proxy_set_header` sets.",
    )
    .example("proxy_pass_trailers on;");

pub(super) static PROXY_STORE: Directive<Option<config::Template>> =
    Directive::new("proxy_store", HSL, read_store)
        .default("off")
        .syntax("proxy_store on | off | PATH;")
        .text(
            "Keeps whole answers with the status 200 as files, for the next requests to find: `on` \
             where `root` or `alias` say that the file is, or at PATH, which may hold variables. \
             Folders are made. The file appears when it is complete, and has the time of \
             Last-Modified. An answer that the client does not take to its end is not kept.",
        )
        .example(
            "location /images/ {\n    root /data/www;\n    error_page 404 = @fetch;\n}\n\
             location @fetch {\n    root /data/www;\n    proxy_pass http://backend;\n    \
             proxy_store on;\n}",
        );

pub(super) static PROXY_STORE_ACCESS: Directive<u32> =
    Directive::new("proxy_store_access", HSL, store::read_access)
        .takes(Arity::Between(1, 3))
        .default("user:rw")
        .syntax("proxy_store_access USERS:PERMISSIONS ...;")
        .text(
            "Who may read and write the files that `proxy_store` makes: `user`, `group` and `all` \
             with `r`, `w` or `rw`. Where the group or all may do anything, the user may read and \
             write.",
        )
        .example("proxy_store_access user:rw group:rw all:r;");

pub(super) static PROXY_HEADERS_HASH_MAX_SIZE: Directive<u64> =
    Directive::new("proxy_headers_hash_max_size", HSL, read::number)
        .default("512")
        .syntax("proxy_headers_hash_max_size NUMBER;")
        .text("Accepted for compatibility. Tables take the room that they need.")
        .moot("tables grow with their rows")
        .example("proxy_headers_hash_max_size 1024;");

pub(super) static PROXY_HEADERS_HASH_BUCKET_SIZE: Directive<u64> =
    Directive::new("proxy_headers_hash_bucket_size", HSL, read::number)
        .default("64")
        .syntax("proxy_headers_hash_bucket_size NUMBER;")
        .text("Accepted for compatibility. Names of fields may be as long as they like.")
        .moot("tables grow with their rows")
        .example("proxy_headers_hash_bucket_size 128;");

pub(crate) fn read_store(args: &Args<'_>) -> Result<Option<config::Template>, Invalid> {
    match args.word(0).bytes() {
        b"off" => Ok(None),
        b"" => Err(Invalid::new("empty path").at(0)),
        _ => read::template(args).map(Some),
    }
}

/// Everything above.
pub(super) static ALL: &[&dyn AnyDirective] = &[
    &PROXY_PASS,
    &PROXY_PASS_TRAILERS,
    &PROXY_STORE,
    &PROXY_STORE_ACCESS,
    &PROXY_HEADERS_HASH_MAX_SIZE,
    &PROXY_HEADERS_HASH_BUCKET_SIZE,
    &PROXY_METHOD,
    &PROXY_HTTP_VERSION,
    &PROXY_SET_HEADER,
    &PROXY_PASS_REQUEST_HEADERS,
    &PROXY_PASS_REQUEST_BODY,
    &PROXY_SET_BODY,
    &PROXY_REQUEST_BUFFERING,
    &PROXY_HIDE_HEADER,
    &PROXY_PASS_HEADER,
    &PROXY_REDIRECT,
    &PROXY_COOKIE_DOMAIN,
    &PROXY_COOKIE_PATH,
    &PROXY_COOKIE_FLAGS,
    &PROXY_BUFFERING,
    &PROXY_BUFFER_SIZE,
    &PROXY_BUFFERS,
    &PROXY_BUSY_BUFFERS_SIZE,
    &PROXY_MAX_TEMP_FILE_SIZE,
    &PROXY_TEMP_FILE_WRITE_SIZE,
    &PROXY_TEMP_PATH,
    &PROXY_CONNECT_TIMEOUT,
    &PROXY_SEND_TIMEOUT,
    &PROXY_READ_TIMEOUT,
    &PROXY_NEXT_UPSTREAM,
    &PROXY_NEXT_UPSTREAM_TRIES,
    &PROXY_NEXT_UPSTREAM_TIMEOUT,
    &PROXY_INTERCEPT_ERRORS,
    &PROXY_IGNORE_CLIENT_ABORT,
    &PROXY_FORCE_RANGES,
    &PROXY_SEND_LOWAT,
    &PROXY_SOCKET_RCVBUF,
    &PROXY_SOCKET_SNDBUF,
    &PROXY_SOCKET_KEEPALIVE,
    &upstream::bind::PROXY_BIND,
    &PROXY_LIMIT_RATE,
    &PROXY_IGNORE_HEADERS,
];

/// The version spoken with backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

/// Bits of `proxy_next_upstream`.
pub(crate) mod next {
    pub(crate) const ERROR: u32 = 1;
    pub(crate) const TIMEOUT: u32 = 1 << 1;
    pub(crate) const INVALID_HEADER: u32 = 1 << 2;
    pub(crate) const NON_IDEMPOTENT: u32 = 1 << 3;
    pub(crate) const HTTP_500: u32 = 1 << 4;
    pub(crate) const HTTP_502: u32 = 1 << 5;
    pub(crate) const HTTP_503: u32 = 1 << 6;
    pub(crate) const HTTP_504: u32 = 1 << 7;
    pub(crate) const HTTP_403: u32 = 1 << 8;
    pub(crate) const HTTP_404: u32 = 1 << 9;
    pub(crate) const HTTP_429: u32 = 1 << 10;
    pub(crate) const OFF: u32 = 1 << 31;

    pub(crate) const NAMES: &[(&str, u32)] = &[
        ("error", ERROR),
        ("timeout", TIMEOUT),
        ("invalid_header", INVALID_HEADER),
        ("non_idempotent", NON_IDEMPOTENT),
        ("http_500", HTTP_500),
        ("http_502", HTTP_502),
        ("http_503", HTTP_503),
        ("http_504", HTTP_504),
        ("http_403", HTTP_403),
        ("http_404", HTTP_404),
        ("http_429", HTTP_429),
        ("off", OFF),
    ];

    /// The bit of an answer's status, when it has one.
    pub(crate) fn of_status(status: u16) -> u32 {
        match status {
            500 => HTTP_500,
            502 => HTTP_502,
            503 => HTTP_503,
            504 => HTTP_504,
            403 => HTTP_403,
            404 => HTTP_404,
            429 => HTTP_429,
            _ => 0,
        }
    }
}

/// Bits of `proxy_ignore_headers`.
pub(crate) mod ignore {
    pub(crate) const REDIRECT: u32 = 1;
    pub(crate) const BUFFERING: u32 = 1 << 1;
    pub(crate) const LIMIT_RATE: u32 = 1 << 2;

    pub(crate) const CHARSET: u32 = 1 << 3;
    /// Fields that only a cache obeys.
    const CACHING: u32 = 1 << 4;

    pub(crate) const NAMES: &[(&str, u32)] = &[
        ("X-Accel-Redirect", REDIRECT),
        ("X-Accel-Buffering", BUFFERING),
        ("X-Accel-Limit-Rate", LIMIT_RATE),
        ("X-Accel-Charset", CHARSET),
        ("X-Accel-Expires", CACHING),
        ("Expires", CACHING << 1),
        ("Cache-Control", CACHING << 2),
        ("Set-Cookie", CACHING << 3),
        ("Vary", CACHING << 4),
    ];
}

pub(crate) fn read_set_header(args: &Args<'_>) -> Result<(Vec<u8>, config::Template), Invalid> {
    Ok((args.word(0).bytes().to_vec(), read::template_at(args, 1)?))
}

pub(crate) fn read_rate(args: &Args<'_>) -> Result<config::Template, Invalid> {
    let rate = read::template(args)?;
    match rate.constant() {
        Some(text) if read::parse_size(text).is_none() => {
            Err(read::refuse(args, 0, "invalid value"))
        }
        _ => Ok(rate),
    }
}

/// One `proxy_redirect`.
#[derive(Clone, Debug)]
pub(super) enum Redirect {
    Default,
    Off,
    /// What to replace, with what.
    Text(config::Template, config::Template),
    /// The same for a pattern; true: letters match regardless of case.
    Pattern(String, bool, config::Template),
}

fn read_redirect(args: &Args<'_>) -> Result<Redirect, Invalid> {
    if args.len() == 1 {
        return match args.word(0).bytes() {
            b"off" | b"false" => Ok(Redirect::Off),
            b"default" => Ok(Redirect::Default),
            _ => Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(0))).at(0)),
        };
    }
    let replacement = read::template_at(args, 1)?;
    let text = args.str(0);
    if let Some(pattern) = text.strip_prefix("~*") {
        return Ok(Redirect::Pattern(pattern.to_owned(), true, replacement));
    }
    if let Some(pattern) = text.strip_prefix('~') {
        return Ok(Redirect::Pattern(pattern.to_owned(), false, replacement));
    }
    Ok(Redirect::Text(read::template_at(args, 0)?, replacement))
}
