//! The directives of the engine itself, as data.

use config::{AnyDirective, Arity, Context, Directive, MAIN, Opens, read};
use session::contexts::{STREAM, STREAM_SERVER};

use crate::listen::{Listen, read_listen};

/// All of them.
pub static ALL: &[&dyn AnyDirective] = &[
    &STREAM_BLOCK,
    &SERVER_BLOCK,
    &LISTEN,
    &SERVER_NAME,
    &PREREAD_BUFFER_SIZE,
    &PREREAD_TIMEOUT,
    &PROXY_PROTOCOL_TIMEOUT,
    &TCP_NODELAY,
    &SERVER_NAMES_HASH_MAX_SIZE,
    &SERVER_NAMES_HASH_BUCKET_SIZE,
    &VARIABLES_HASH_MAX_SIZE,
    &VARIABLES_HASH_BUCKET_SIZE,
];

const LEVELS: &[Context] = &[STREAM, STREAM_SERVER];

/// The block of everything about TCP and UDP.
pub static STREAM_BLOCK: Directive<()> = Directive::new("stream", &[MAIN], read::nothing)
    .takes(Arity::None)
    .opens(Opens::Context(STREAM))
    .syntax("stream { ... }")
    .text("What is done with TCP connections and UDP packets.")
    .example("stream { server { listen 5432; proxy_pass 10.0.0.1:5432; } }");

/// One server.
pub static SERVER_BLOCK: Directive<()> = Directive::new("server", &[STREAM], read::nothing)
    .takes(Arity::None)
    .many()
    .opens(Opens::Context(STREAM_SERVER))
    .syntax("server { ... }")
    .text(
        "A server: where it listens, and what it does with the sessions of its clients. A TCP \
         connection is a session. So are the UDP packets of one client, until it was silent for \
         `proxy_timeout` or the server is done with it.",
    )
    .example("stream { server { listen 53 udp; proxy_pass 10.0.0.1:53; } }");

/// Where a server listens.
pub static LISTEN: Directive<Listen> = Directive::new("listen", &[STREAM_SERVER], read_listen)
    .takes(Arity::AtLeast(1))
    .many()
    .syntax(
        "listen ADDRESS:PORT [udp] [ssl] [default_server] [proxy_protocol] [transparent] [bind] \
         [reuseport] [backlog=N] [rcvbuf=SIZE] [sndbuf=SIZE] [fastopen=N] [deferred] \
         [ipv6only=on|off] [so_keepalive=on|off|IDLE:INTERVAL:COUNT];",
    )
    .text(
        "An address on which the server listens: `PORT`, `HOST:PORT`, `*:PORT`, `[V6]:PORT` or \
         `unix:PATH`; `FIRST-LAST` in place of a port is a range of them.\n\n\
         - `udp`: packets instead of connections. Each worker has a socket of its own, and all \
         packets of a client come to the same worker.\n\
         - `ssl`: connections speak TLS; see `ssl_certificate`.\n\
         - `default_server`: of several servers with the same address, the one whose sessions no \
         `server_name` claims; otherwise it is the first one.\n\
         - `proxy_protocol`: connections begin with a header of the PROXY protocol, version 1 or \
         2; see `set_real_ip_from`.\n\
         - `transparent`: connections, or packets, that were meant for other addresses are taken \
         when the machine's rules lead them here; `$server_addr` and `$server_port` are what the \
         client wanted, and answers seem to come from there. `heng net-setup --print` shows such \
         rules. Needs the rights of root.\n\
         - `bind`, and each option of the socket: a socket of its own for this address although \
         another one listens on all addresses.\n\
         - `reuseport`: a socket for each worker.\n\
         - the others are options of the socket, as tcp(7) and ipv6(7) describe them.",
    )
    .example("stream { server { listen 127.0.0.1:12345 so_keepalive=on; return ok; } }");

/// By which names a server is found.
pub static SERVER_NAME: Directive<Vec<String>> =
    Directive::new("server_name", &[STREAM_SERVER], read::texts)
        .takes(Arity::AtLeast(1))
        .many()
        .syntax("server_name NAME...;")
        .text(
            "Names by which TLS clients find one of several servers with the same address, when \
             the name that they ask for is read by `ssl_preread` or in the handshake. An exact \
             name goes first, then the longest `*.NAME`, then the longest `NAME.*`, then the \
             first `~REGEX` that matches. `.NAME` is `NAME` and `*.NAME`.",
        )
        .example(
            "stream {\n    server { listen 443; ssl_preread on; return default; }\n    \
             server { listen 443; server_name a.example; return a; }\n}",
        );

/// How much may be looked at.
pub static PREREAD_BUFFER_SIZE: Directive<u64> =
    Directive::new("preread_buffer_size", LEVELS, read::size)
        .default("16k")
        .syntax("preread_buffer_size SIZE;")
        .text("How many bytes of a connection are looked at before it is served, at most.")
        .example("preread_buffer_size 4k;");

/// How long that may take.
pub static PREREAD_TIMEOUT: Directive<u64> =
    Directive::new("preread_timeout", LEVELS, read::time_ms)
        .default("30s")
        .syntax("preread_timeout TIME;")
        .text("How long the bytes that are looked at before a connection is served may take.")
        .example("preread_timeout 5s;");

/// How long the header may take.
pub static PROXY_PROTOCOL_TIMEOUT: Directive<u64> =
    Directive::new("proxy_protocol_timeout", LEVELS, read::time_ms)
        .default("30s")
        .syntax("proxy_protocol_timeout TIME;")
        .text("How long the header of the PROXY protocol may take.")
        .example("proxy_protocol_timeout 5s;");

/// Small segments.
pub static TCP_NODELAY: Directive<bool> = Directive::new("tcp_nodelay", LEVELS, read::flag)
    .takes(Arity::Flag)
    .default("on")
    .syntax("tcp_nodelay on | off;")
    .text("Whether what was written goes out at once, to clients and to backends.")
    .example("tcp_nodelay off;");

/// Accepted for compatibility.
pub static SERVER_NAMES_HASH_MAX_SIZE: Directive<u64> = moot(
    "server_names_hash_max_size",
    "512",
    "server_names_hash_max_size NUMBER;",
    "server_names_hash_max_size 1024;",
);

/// Accepted for compatibility.
pub static SERVER_NAMES_HASH_BUCKET_SIZE: Directive<u64> = moot(
    "server_names_hash_bucket_size",
    "64",
    "server_names_hash_bucket_size NUMBER;",
    "server_names_hash_bucket_size 128;",
);

/// Accepted for compatibility.
pub static VARIABLES_HASH_MAX_SIZE: Directive<u64> = moot(
    "variables_hash_max_size",
    "1024",
    "variables_hash_max_size NUMBER;",
    "variables_hash_max_size 2048;",
);

/// Accepted for compatibility.
pub static VARIABLES_HASH_BUCKET_SIZE: Directive<u64> = moot(
    "variables_hash_bucket_size",
    "64",
    "variables_hash_bucket_size NUMBER;",
    "variables_hash_bucket_size 128;",
);

const fn moot(
    name: &'static str,
    default: &'static str,
    syntax: &'static str,
    example: &'static str,
) -> Directive<u64> {
    Directive::new(name, &[STREAM], read::number)
        .default(default)
        .syntax(syntax)
        .text("Accepted for compatibility. Tables take the room that they need.")
        .example(example)
        .moot("tables grow with their rows")
}
