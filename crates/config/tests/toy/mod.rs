//! A small vocabulary with nginx's names, contexts and values, for the tests of this crate.

#![allow(dead_code)] // Each test binary uses its own part.

pub(crate) mod rows;

use config::{
    AnyDirective, Args, Arity, Context, Directive, Invalid, MAIN, MemoryFiles, Opens, Registry,
    read,
};

pub(crate) const EVENTS: Context = Context::new("events", "events");
pub(crate) const HTTP: Context = Context::new("http", "http");
pub(crate) const SERVER: Context = Context::new("http.server", "server");
pub(crate) const LOCATION: Context = Context::new("http.location", "location");
pub(crate) const SERVER_IF: Context = Context::new("http.server.if", "if in server");
pub(crate) const UPSTREAM: Context = Context::new("http.upstream", "upstream");

pub(crate) static WORKER_PROCESSES: Directive<u64> =
    Directive::new("worker_processes", &[MAIN], worker_processes)
        .default("1")
        .syntax("worker_processes NUMBER | auto;")
        .text("How many workers.")
        .example("worker_processes 4;");
fn worker_processes(args: &Args<'_>) -> Result<u64, Invalid> {
    match args.word(0).bytes() {
        b"auto" => Ok(0),
        word => read::parse_number(word).ok_or_else(|| read::refuse(args, 0, "invalid value")),
    }
}

pub(crate) static PID: Directive<String> = Directive::new("pid", &[MAIN], read::text)
    .default("logs/nginx.pid")
    .syntax("pid FILE;")
    .text("Where the process id is kept.")
    .example("pid /run/nginx.pid;");

pub(crate) static EVENTS_BLOCK: Directive<()> = Directive::new("events", &[MAIN], read::nothing)
    .takes(Arity::None)
    .opens(Opens::Context(EVENTS))
    .syntax("events { ... }")
    .text("About connections.")
    .example("events { worker_connections 10; }");

pub(crate) static WORKER_CONNECTIONS: Directive<u64> =
    Directive::new("worker_connections", &[EVENTS], worker_connections)
        .default("512")
        .syntax("worker_connections NUMBER;")
        .text("How many connections a worker holds.")
        .example("worker_connections 10;");
fn worker_connections(args: &Args<'_>) -> Result<u64, Invalid> {
    let word = args.word(0);
    read::parse_number(word.bytes()).ok_or_else(|| {
        let message = format!("invalid number \"{}\"", word.str());
        Invalid::new(message).at(0)
    })
}

pub(crate) static HTTP_BLOCK: Directive<()> = Directive::new("http", &[MAIN], read::nothing)
    .takes(Arity::None)
    .opens(Opens::Context(HTTP))
    .syntax("http { ... }")
    .text("About HTTP.")
    .example("http { server { listen 80; } }");

pub(crate) static SERVER_BLOCK: Directive<()> = Directive::new("server", &[HTTP], read::nothing)
    .takes(Arity::None)
    .many()
    .opens(Opens::Context(SERVER))
    .syntax("server { ... }")
    .text("One site.")
    .example("server { listen 80; }");

pub(crate) static LOCATION_BLOCK: Directive<Vec<String>> =
    Directive::new("location", &[SERVER, LOCATION], read::texts)
        .takes(Arity::Between(1, 2))
        .many()
        .opens(Opens::Context(LOCATION))
        .syntax("location [= | ~ | ~* | ^~] URI { ... }\nlocation @NAME { ... }")
        .text("A part of a site.")
        .example("location / { root /srv; }");

pub(crate) static SERVER_IF_BLOCK: Directive<Vec<String>> =
    Directive::new("if", &[SERVER], read::texts)
        .takes(Arity::Any)
        .many()
        .opens(Opens::Context(SERVER_IF))
        .syntax("if (CONDITION) { ... }")
        .text("What holds for some requests.")
        .example("if ($slow) { root /srv/slow; }");

pub(crate) static LISTEN: Directive<Vec<String>> = Directive::new("listen", &[SERVER], read::texts)
    .takes(Arity::AtLeast(1))
    .many()
    .syntax("listen ADDRESS[:PORT] [default_server];")
    .text("Where a site listens.")
    .example("listen 127.0.0.1:8080 default_server;");

pub(crate) static SERVER_NAME: Directive<Vec<String>> =
    Directive::new("server_name", &[SERVER], read::texts)
        .takes(Arity::AtLeast(1))
        .many()
        .default("\"\"")
        .syntax("server_name NAME ...;")
        .text("What a site is called.")
        .example("server_name example.org *.example.org;");

pub(crate) static TYPES: Directive<()> =
    Directive::new("types", &[HTTP, SERVER, LOCATION], read::nothing)
        .takes(Arity::None)
        .many()
        .opens(Opens::Rows)
        .syntax("types { ... }")
        .text("Which suffixes mean which type.")
        .example("types { text/html html htm; }");

const EVERYWHERE: &[Context] = &[HTTP, SERVER, LOCATION];

pub(crate) static CLIENT_HEADER_TIMEOUT: Directive<u64> =
    Directive::new("client_header_timeout", &[HTTP, SERVER], read::time_ms)
        .default("60s")
        .syntax("client_header_timeout TIME;")
        .text("How long a head may take.")
        .example("client_header_timeout 10s;");

pub(crate) static KEEPALIVE_REQUESTS: Directive<u64> =
    Directive::new("keepalive_requests", EVERYWHERE, read::number)
        .default("1000")
        .syntax("keepalive_requests NUMBER;")
        .text("How many requests a connection serves.")
        .example("keepalive_requests 10;");

pub(crate) static PROXY_BUFFERS: Directive<read::Buffers> =
    Directive::new("proxy_buffers", EVERYWHERE, read::buffers)
        .takes(Arity::Exactly(2))
        .default("8 4k")
        .syntax("proxy_buffers NUMBER SIZE;")
        .text("Buffers for a response.")
        .example("proxy_buffers 16 8k;");

pub(crate) static TCP_NODELAY: Directive<bool> =
    Directive::new("tcp_nodelay", EVERYWHERE, read::flag)
        .takes(Arity::Flag)
        .default("on")
        .syntax("tcp_nodelay on | off;")
        .text("Whether small segments are sent at once.")
        .example("tcp_nodelay off;");

pub(crate) static CLIENT_MAX_BODY_SIZE: Directive<u64> =
    Directive::new("client_max_body_size", EVERYWHERE, read::offset)
        .default("1m")
        .syntax("client_max_body_size SIZE;")
        .text("How large a body may be.")
        .example("client_max_body_size 8m;");

pub(crate) static CLIENT_BODY_BUFFER_SIZE: Directive<u64> =
    Directive::new("client_body_buffer_size", EVERYWHERE, read::size)
        .default("16k")
        .syntax("client_body_buffer_size SIZE;")
        .text("How much of a body is held in memory.")
        .example("client_body_buffer_size 8k;");

pub(crate) static PROXY_NEXT_UPSTREAM: Directive<u32> =
    Directive::new("proxy_next_upstream", EVERYWHERE, next_upstream)
        .takes(Arity::AtLeast(1))
        .default("error timeout")
        .syntax("proxy_next_upstream error | timeout | invalid_header | off ...;")
        .text("When the next peer is asked.")
        .example("proxy_next_upstream error;");
fn next_upstream(args: &Args<'_>) -> Result<u32, Invalid> {
    const VALUES: &[(&str, u32)] =
        &[("error", 1), ("timeout", 2), ("invalid_header", 4), ("off", 8)];
    read::bitmask(args, VALUES)
}

pub(crate) static IF_MODIFIED_SINCE: Directive<u8> =
    Directive::new("if_modified_since", EVERYWHERE, if_modified_since)
        .default("exact")
        .syntax("if_modified_since off | exact | before;")
        .text("How dates are compared.")
        .example("if_modified_since before;");
fn if_modified_since(args: &Args<'_>) -> Result<u8, Invalid> {
    read::enumeration(args, &[("off", 0), ("exact", 1), ("before", 2)])
}

pub(crate) static GZIP_COMP_LEVEL: Directive<u64> =
    Directive::new("gzip_comp_level", EVERYWHERE, gzip_comp_level)
        .default("1")
        .syntax("gzip_comp_level LEVEL;")
        .text("How hard to compress.")
        .example("gzip_comp_level 6;");
fn gzip_comp_level(args: &Args<'_>) -> Result<u64, Invalid> {
    read::number_between(args, 1, 9)
}

pub(crate) static ROOT: Directive<config::Template> =
    Directive::new("root", &[HTTP, SERVER, LOCATION, SERVER_IF], read::template)
        .default("html")
        .syntax("root PATH;")
        .text("Where files are.")
        .example("root /srv/$host;");

pub(crate) static ADD_HEADER: Directive<Vec<String>> =
    Directive::new("add_header", EVERYWHERE, add_header)
        .takes(Arity::Between(2, 3))
        .many()
        .syntax("add_header NAME VALUE [always];")
        .text("Adds a header to a response.")
        .example("add_header X-Frame-Options DENY always;");

fn add_header(args: &Args<'_>) -> Result<Vec<String>, Invalid> {
    read::template_at(args, 1)?;
    read::texts(args)
}

pub(crate) static UPSTREAM_BLOCK: Directive<String> =
    Directive::new("upstream", &[HTTP], read::text)
        .many()
        .opens(Opens::Context(UPSTREAM))
        .syntax("upstream NAME { ... }")
        .text("A group of peers.")
        .example("upstream backend { server 127.0.0.1:9000; }");

pub(crate) static UPSTREAM_SERVER: Directive<Vec<String>> =
    Directive::new("server", &[UPSTREAM], read::texts)
        .takes(Arity::AtLeast(1))
        .many()
        .syntax("server ADDRESS [weight=N];")
        .text("One peer.")
        .example("server 127.0.0.1:9000 weight=2;");

pub(crate) static DIRECTIVES: &[&dyn AnyDirective] = &[
    &WORKER_PROCESSES,
    &PID,
    &EVENTS_BLOCK,
    &WORKER_CONNECTIONS,
    &HTTP_BLOCK,
    &SERVER_BLOCK,
    &LOCATION_BLOCK,
    &SERVER_IF_BLOCK,
    &LISTEN,
    &SERVER_NAME,
    &TYPES,
    &CLIENT_HEADER_TIMEOUT,
    &KEEPALIVE_REQUESTS,
    &PROXY_BUFFERS,
    &TCP_NODELAY,
    &CLIENT_MAX_BODY_SIZE,
    &CLIENT_BODY_BUFFER_SIZE,
    &PROXY_NEXT_UPSTREAM,
    &IF_MODIFIED_SINCE,
    &GZIP_COMP_LEVEL,
    &ROOT,
    &ADD_HEADER,
    &UPSTREAM_BLOCK,
    &UPSTREAM_SERVER,
];

pub(crate) fn registry() -> Registry {
    Registry::new(&[DIRECTIVES])
}

/// `[level] first line` of every finding about `/etc/x/nginx.conf` and the files beside it.
pub(crate) fn lines(text: &[u8], beside: &[(&str, &str)], globals: &[&str]) -> Vec<String> {
    let mut files = MemoryFiles::new().with("/etc/x/nginx.conf", text);
    for (name, text) in beside {
        files.insert(format!("/etc/x/{name}"), *text);
    }
    let globals: Vec<String> = globals.iter().map(|text| (*text).to_owned()).collect();
    let (tree, found) =
        config::load(&files, "nginx.conf".as_ref(), "/etc/x/".as_ref(), &globals, &registry());
    let line =
        |one: &config::Diagnostic| format!("[{}] {}", one.level.name(), one.first_line(&tree));
    found.iter().map(line).collect()
}
