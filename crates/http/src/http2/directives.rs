//! The directives of HTTP/2 (nginx: ngx_http_v2_module).

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use session::contexts::{HTTP, LOCATION, SERVER};

const H: &[Context] = &[HTTP];
const HS: &[Context] = &[HTTP, SERVER];
const HSL: &[Context] = &[HTTP, SERVER, LOCATION];

type Bytes = Directive<u64>;

/// What is the same for all streams of a connection: values of the address's default server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server speaks HTTP/2 (`http2 on`).
    pub(crate) enabled: bool,
    /// Streams at a time.
    pub(crate) concurrent: u32,
    /// Bytes of a stream's body that may come before anybody reads it.
    pub(crate) preread: u32,
}

impl Settings {
    pub(crate) fn compile(scope: &Scope<'_>) -> Settings {
        let bounded = |value: u64| value.min(i32::MAX as u64) as u32;
        for moot in [&RECV_BUFFER_SIZE, &POOL_SIZE, &STREAMS_INDEX_SIZE] {
            scope.get(moot);
        }
        for (directive, instead) in OBSOLETE {
            for (_, span) in scope.nodes(directive) {
                let name = AnyDirective::spec(*directive).name;
                let text = match instead {
                    Some(instead) => format!(
                        "the \"{name}\" directive is obsolete, use the \"{instead}\" directive \
                         instead"
                    ),
                    None => format!("the \"{name}\" directive is obsolete, ignored"),
                };
                scope.warn(span, text);
            }
        }
        Settings {
            enabled: scope.get(&HTTP2),
            concurrent: bounded(scope.get(&MAX_CONCURRENT_STREAMS)).max(1),
            preread: bounded(scope.get(&BODY_PREREAD_SIZE)),
        }
    }
}

pub(crate) static HTTP2: Directive<bool> = Directive::new("http2", HS, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("http2 on | off;")
    .text(
        "Speaks HTTP/2 with clients that want it: over TLS by agreement (ALPN), without TLS when a \
         connection begins as HTTP/2 does (prior knowledge). Other clients are served HTTP/1 on \
         the same address. An address speaks HTTP/2 when any of its servers says so; requests for \
         the others are then answered with 421.",
    )
    .example("http2 on;");

static MAX_CONCURRENT_STREAMS: Bytes =
    Directive::new("http2_max_concurrent_streams", HS, read::number)
        .default("128")
        .syntax("http2_max_concurrent_streams NUMBER;")
        .text("How many requests may be under way at once on one HTTP/2 connection.")
        .example("http2_max_concurrent_streams 64;");

static BODY_PREREAD_SIZE: Bytes = Directive::new("http2_body_preread_size", HS, read::size)
    .default("64k")
    .syntax("http2_body_preread_size SIZE;")
    .text(
        "How much of a request's body may be received over HTTP/2 before anybody reads it: the \
         first window of each stream.",
    )
    .example("http2_body_preread_size 128k;");

static RECV_BUFFER_SIZE: Bytes = Directive::new("http2_recv_buffer_size", H, read::size)
    .default("256k")
    .syntax("http2_recv_buffer_size SIZE;")
    .text("Accepted for nginx's configurations.")
    .moot("buffers are lent by the worker's pool, as large as what comes")
    .example("http2_recv_buffer_size 64k;");

pub(crate) static CHUNK_SIZE: Bytes = Directive::new("http2_chunk_size", HSL, read_chunk)
    .default("8k")
    .syntax("http2_chunk_size SIZE;")
    .text(
        "The longest piece of an answer that is sent before another request of the connection has \
         its turn; at most 16k is sent at once.",
    )
    .example("http2_chunk_size 16k;");

static POOL_SIZE: Bytes = Directive::new("http2_pool_size", HS, read::size)
    .default("4k")
    .syntax("http2_pool_size SIZE;")
    .text("Accepted for nginx's configurations.")
    .moot("memory comes from pools of the worker")
    .example("http2_pool_size 8k;");

static STREAMS_INDEX_SIZE: Bytes = Directive::new("http2_streams_index_size", HS, read::number)
    .default("32")
    .syntax("http2_streams_index_size NUMBER;")
    .text("Accepted for nginx's configurations.")
    .moot("streams are found without a table of a given size")
    .example("http2_streams_index_size 64;");

fn read_chunk(args: &Args<'_>) -> Result<u64, Invalid> {
    match read::size(args)? {
        0 => Err(Invalid::new("the http2 chunk size cannot be zero").at(0)),
        size => Ok(size),
    }
}

fn anything(_: &Args<'_>) -> Result<(), Invalid> {
    Ok(())
}

macro_rules! obsolete {
    ($($id:ident $name:literal $contexts:ident $value:literal),* $(,)?) => {$(
        static $id: Directive<()> = Directive::new($name, $contexts, anything)
            .many()
            .syntax(concat!($name, " ", $value, ";"))
            .text("Obsolete: accepted with a warning, as nginx does.")
            .moot("nginx has dropped it too")
            .example(concat!($name, " 1;"));
    )*};
}

obsolete! {
    MAX_REQUESTS "http2_max_requests" HS "NUMBER",
    MAX_FIELD_SIZE "http2_max_field_size" HS "SIZE",
    MAX_HEADER_SIZE "http2_max_header_size" HS "SIZE",
    RECV_TIMEOUT "http2_recv_timeout" HS "TIME",
    IDLE_TIMEOUT "http2_idle_timeout" HS "TIME",
    MAX_CONCURRENT_PUSHES "http2_max_concurrent_pushes" HS "NUMBER",
    PUSH "http2_push" HSL "URI | off",
    PUSH_PRELOAD "http2_push_preload" HSL "on | off",
}

/// Obsolete directives, with what to use instead.
static OBSOLETE: &[(&Directive<()>, Option<&str>)] = &[
    (&MAX_REQUESTS, Some("keepalive_requests")),
    (&MAX_FIELD_SIZE, Some("large_client_header_buffers")),
    (&MAX_HEADER_SIZE, Some("large_client_header_buffers")),
    (&RECV_TIMEOUT, Some("client_header_timeout")),
    (&IDLE_TIMEOUT, Some("keepalive_timeout")),
    (&MAX_CONCURRENT_PUSHES, None),
    (&PUSH, None),
    (&PUSH_PRELOAD, None),
];

/// All of them.
pub static ALL: &[&dyn AnyDirective] = &[
    &HTTP2,
    &MAX_CONCURRENT_STREAMS,
    &BODY_PREREAD_SIZE,
    &RECV_BUFFER_SIZE,
    &CHUNK_SIZE,
    &POOL_SIZE,
    &STREAMS_INDEX_SIZE,
    &MAX_REQUESTS,
    &MAX_FIELD_SIZE,
    &MAX_HEADER_SIZE,
    &RECV_TIMEOUT,
    &IDLE_TIMEOUT,
    &MAX_CONCURRENT_PUSHES,
    &PUSH,
    &PUSH_PRELOAD,
];
