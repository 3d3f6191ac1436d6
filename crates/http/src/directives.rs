//! The engine's own directives (nginx: ngx_http_core_module), as data.
//!
//! Readers are here; what a value does is where it is read, see `settings` and `compile`.

use crate::listen::{Listen, read_listen};
use crate::settings::{InFileOnly, Lingering, Tokens};
use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Opens, read};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};

const H: &[Context] = &[HTTP];
const HS: &[Context] = &[HTTP, SERVER];
const HSL: &[Context] = &[HTTP, SERVER, LOCATION];
const HSLI: &[Context] = &[HTTP, SERVER, LOCATION, IF_LOCATION];

type Flag = Directive<bool>;
type Millis = Directive<u64>;
type Bytes = Directive<u64>;

const fn flag(name: &'static str, contexts: &'static [Context]) -> Flag {
    Directive::new(name, contexts, read::flag).takes(Arity::Flag)
}

fn nothing(_: &Args<'_>) -> Result<(), Invalid> {
    Ok(())
}

fn read_limit(args: &Args<'_>) -> Result<config::Template, Invalid> {
    let limit = read::template(args)?;
    match limit.constant() {
        Some(text) if read::parse_size(text).is_none() => {
            Err(read::refuse(args, 0, "invalid value"))
        }
        _ => Ok(limit),
    }
}

pub static HTTP_BLOCK: Directive<()> = Directive::new("http", &[config::MAIN], nothing)
    .takes(Arity::None)
    .opens(Opens::Context(HTTP))
    .syntax("http { ... }")
    .text("Holds everything that concerns HTTP.")
    .example("http { server { listen 127.0.0.1:8080; } }");

pub static SERVER_BLOCK: Directive<()> = Directive::new("server", H, nothing)
    .takes(Arity::None)
    .many()
    .opens(Opens::Context(SERVER))
    .syntax("server { ... }")
    .text(
        "One virtual server. The address that a connection came to and the host that a request \
         names choose among all of them; see `listen` and `server_name`.",
    )
    .example("server { listen 127.0.0.1:8080; server_name example.org; }");

pub static LOCATION_BLOCK: Directive<LocationName> =
    Directive::new("location", &[SERVER, LOCATION], read_location)
        .takes(Arity::Between(1, 2))
        .many()
        .opens(Opens::Context(LOCATION))
        .syntax("location [ = | ~ | ~* | ^~ ] URI { ... }\nlocation @NAME { ... }")
        .text(
            "What holds for some URIs. An exact name (`=`) wins; else the longest prefix is \
             remembered, and unless it is marked `^~` the regular expressions (`~`, and `~*` \
             regardless of case) are tried in the order of the file: the first that matches \
             wins, else the remembered prefix. `@name` is reached by `error_page` and the like.",
        )
        .example("location = /health { return 200 ok; }");

pub static LISTEN: Directive<Listen> = Directive::new("listen", &[SERVER], read_listen)
    .takes(Arity::AtLeast(1))
    .many()
    .default("*:80")
    .syntax(
        "listen ADDRESS[:PORT] [default_server] [proxy_protocol] [backlog=N] [rcvbuf=SIZE] \
         [sndbuf=SIZE] [deferred] [bind] [ipv6only=on|off] [reuseport] [fastopen=N] \
         [so_keepalive=on|off|[IDLE]:[INTERVAL]:[COUNT]];\n\
         listen PORT[-PORT] [...];\nlisten unix:PATH [...];",
    )
    .text(
        "An address that the server answers at. Options of the socket are given once per address. \
         With `proxy_protocol`, given by any server of the address, each connection must begin \
         with a header of the PROXY protocol (version 1 or 2) that tells where the client \
         connected from; `$proxy_protocol_addr` and its like show it.",
    )
    .example("listen 127.0.0.1:8080 default_server backlog=1024;");

pub static SERVER_NAME: Directive<Vec<String>> =
    Directive::new("server_name", &[SERVER], read_words)
        .takes(Arity::AtLeast(1))
        .many()
        .default("\"\"")
        .syntax("server_name NAME ...;")
        .text(
            "Names of the server: exact, with an asterisk at the beginning or the end \
             (`*.example.org`, `www.*`; `.example.org` stands for both the name and all below \
             it), or a regular expression after `~`, whose groups become variables.",
        )
        .example("server_name example.org *.example.org ~^(?<user>.+)\\.example\\.net$;");

pub static ROOT: Directive<config::Template> = Directive::new("root", HSLI, read_path)
    .default("html")
    .syntax("root PATH;")
    .text("The folder in which files are looked for: the URI is appended to it.")
    .example("root /var/www;");

pub static ALIAS: Directive<config::Template> = Directive::new("alias", &[LOCATION], read_path)
    .syntax("alias PATH;")
    .text(
        "Like `root`, but replaces the location's name in the URI instead of being put before it.",
    )
    .example("location /i/ { alias /var/images/; }");

pub static INTERNAL: Directive<()> = Directive::new("internal", &[LOCATION], nothing)
    .takes(Arity::None)
    .syntax("internal;")
    .text("The location answers internal redirects and subrequests only; others get 404.")
    .example("location /errors/ { internal; }");

pub static TYPES: Directive<()> = Directive::new("types", HSL, nothing)
    .takes(Arity::None)
    .opens(Opens::Rows)
    .syntax("types { TYPE EXTENSION ...; }")
    .text("Media types by the extension of the file's name. Replaces the list of outer levels.")
    .default("text/html html; image/gif gif; image/jpeg jpg;")
    .example("types { text/css css; application/wasm wasm; }");

pub static DEFAULT_TYPE: Directive<String> = Directive::new("default_type", HSL, read::text)
    .default("text/plain")
    .syntax("default_type TYPE;")
    .text("The media type of answers whose type is not known otherwise.")
    .example("default_type application/octet-stream;");

pub static ERROR_PAGE: Directive<ErrorPageArgs> =
    Directive::new("error_page", HSLI, read_error_page)
        .takes(Arity::AtLeast(2))
        .many()
        .syntax("error_page CODE ... [=[STATUS]] URI;")
        .text(
            "Answers with URI in place of an error: an internal redirect for a path, a named \
             location for `@name`, a redirect by the client for a full URL. `=STATUS` changes \
             the status, `=` takes that of the new answer.",
        )
        .example("error_page 404 =200 /empty.gif;");

pub static RECURSIVE_ERROR_PAGES: Flag = flag("recursive_error_pages", HSL)
    .default("off")
    .syntax("recursive_error_pages on | off;")
    .text("Whether an answer made by `error_page` may itself be replaced by `error_page`.")
    .example("recursive_error_pages on;");

pub static KEEPALIVE_TIMEOUT: Directive<(u64, Option<u64>)> =
    Directive::new("keepalive_timeout", HSL, read_keepalive_timeout)
        .takes(Arity::Between(1, 2))
        .default("75s")
        .syntax("keepalive_timeout TIMEOUT [HEADER_TIMEOUT];")
        .text(
            "How long an idle connection is kept; 0 closes it after each answer. The second \
             value is sent as `Keep-Alive: timeout=`.",
        )
        .example("keepalive_timeout 30s 30s;");

pub static KEEPALIVE_MIN_TIMEOUT: Millis =
    Directive::new("keepalive_min_timeout", HSL, read::time_ms)
        .default("0")
        .syntax("keepalive_min_timeout TIMEOUT;")
        .text(
            "How long an idle connection is spared when a worker retires or connections must \
             be shed for new ones.",
        )
        .example("keepalive_min_timeout 5s;");

pub static KEEPALIVE_REQUESTS: Directive<u64> =
    Directive::new("keepalive_requests", HSL, read::number)
        .default("1000")
        .syntax("keepalive_requests NUMBER;")
        .text("How many requests a connection serves before it is closed.")
        .example("keepalive_requests 10000;");

pub static KEEPALIVE_TIME: Millis = Directive::new("keepalive_time", HSL, read::time_ms)
    .default("1h")
    .syntax("keepalive_time TIME;")
    .text("The age after which a connection is closed with its next answer.")
    .example("keepalive_time 10m;");

pub static KEEPALIVE_DISABLE: Directive<KeepaliveDisable> =
    Directive::new("keepalive_disable", HSL, read_keepalive_disable)
        .takes(Arity::Between(1, 2))
        .default("msie6")
        .syntax("keepalive_disable none | BROWSER ...;")
        .text(
            "Browsers that get no keep-alive: `msie6` (after a POST), `safari` (and its kin on \
             macOS).",
        )
        .example("keepalive_disable safari;");

pub static CLIENT_HEADER_TIMEOUT: Millis =
    Directive::new("client_header_timeout", HS, read::time_ms)
        .default("60s")
        .syntax("client_header_timeout TIME;")
        .text("How long a client may take to send the whole head of a request.")
        .example("client_header_timeout 10s;");

pub static CLIENT_HEADER_BUFFER_SIZE: Bytes =
    Directive::new("client_header_buffer_size", HS, read::size)
        .default("1k")
        .syntax("client_header_buffer_size SIZE;")
        .text("How much of a head is read before larger buffers are taken.")
        .example("client_header_buffer_size 4k;");

pub static LARGE_CLIENT_HEADER_BUFFERS: Directive<config::read::Buffers> =
    Directive::new("large_client_header_buffers", HS, read::buffers)
        .takes(Arity::Exactly(2))
        .default("4 8k")
        .syntax("large_client_header_buffers NUMBER SIZE;")
        .text(
            "Number and size of the buffers for long heads. A request line longer than one of \
             them is answered with 414, a field longer than one, or more than all, with 400.",
        )
        .example("large_client_header_buffers 4 64k;");

pub static IGNORE_INVALID_HEADERS: Flag = flag("ignore_invalid_headers", HS)
    .default("on")
    .syntax("ignore_invalid_headers on | off;")
    .text("Whether fields with unusual characters in their names are left out of the request.")
    .example("ignore_invalid_headers off;");

pub static UNDERSCORES_IN_HEADERS: Flag = flag("underscores_in_headers", HS)
    .default("off")
    .syntax("underscores_in_headers on | off;")
    .text("Whether underscores in field names are usual characters.")
    .example("underscores_in_headers on;");

pub static MAX_HEADERS: Directive<u64> = Directive::new("max_headers", HS, read::number)
    .default("1000")
    .syntax("max_headers NUMBER;")
    .text("How many fields a request may have; one with more is answered with 400.")
    .example("max_headers 100;");

pub static MERGE_SLASHES: Flag = flag("merge_slashes", HS)
    .default("on")
    .syntax("merge_slashes on | off;")
    .text("Whether two or more slashes in a path count as one.")
    .example("merge_slashes off;");

pub static CLIENT_MAX_BODY_SIZE: Bytes = Directive::new("client_max_body_size", HSL, read::offset)
    .default("1m")
    .syntax("client_max_body_size SIZE;")
    .text("The longest body taken; a longer one is answered with 413. 0: no limit.")
    .example("client_max_body_size 100m;");

pub static CLIENT_BODY_BUFFER_SIZE: Bytes =
    Directive::new("client_body_buffer_size", HSL, read::size)
        .default("16k")
        .syntax("client_body_buffer_size SIZE;")
        .text("How much of a body is kept in memory; what is longer goes to a file.")
        .example("client_body_buffer_size 64k;");

pub static CLIENT_BODY_TIMEOUT: Millis = Directive::new("client_body_timeout", HSL, read::time_ms)
    .default("60s")
    .syntax("client_body_timeout TIME;")
    .text("How long a client may pause while it sends a body; then 408 is answered.")
    .example("client_body_timeout 10s;");

pub static CLIENT_BODY_IN_FILE_ONLY: Directive<InFileOnly> =
    Directive::new("client_body_in_file_only", HSL, |args| {
        read::enumeration(
            args,
            &[("on", InFileOnly::On), ("clean", InFileOnly::Clean), ("off", InFileOnly::Off)],
        )
    })
    .default("off")
    .syntax("client_body_in_file_only on | clean | off;")
    .text("Keeps every body in a file: `clean` removes it after the request, `on` does not.")
    .example("client_body_in_file_only clean;");

pub static CLIENT_BODY_IN_SINGLE_BUFFER: Flag = flag("client_body_in_single_buffer", HSL)
    .default("off")
    .syntax("client_body_in_single_buffer on | off;")
    .text("Keeps a body in memory in one piece, so that `$request_body` needs no copying.")
    .moot("a body in memory is one piece here always")
    .example("client_body_in_single_buffer on;");

pub static CLIENT_BODY_TEMP_PATH: Directive<TempPath> =
    Directive::new("client_body_temp_path", HSL, read_temp_path)
        .takes(Arity::Between(1, 4))
        .default("client_body_temp")
        .syntax("client_body_temp_path PATH [LEVEL1 [LEVEL2 [LEVEL3]]];")
        .text(
            "The folder for bodies that do not fit in memory, with up to three levels of folders.",
        )
        .example("client_body_temp_path /var/lib/heng/body 1 2;");

pub static SEND_TIMEOUT: Millis = Directive::new("send_timeout", HSL, read::time_ms)
    .default("60s")
    .syntax("send_timeout TIME;")
    .text("How long a client may take nothing of an answer before its connection is closed.")
    .example("send_timeout 10s;");

pub static LIMIT_RATE: Directive<config::Template> = Directive::new("limit_rate", HSLI, read_limit)
    .default("0")
    .syntax("limit_rate RATE;")
    .text(
        "How many bytes per second of an answer are sent to the client; 0: without limit. Each \
             request counts for itself: a client with two connections gets twice the rate. RATE \
             may hold variables, and `set $limit_rate` or a backend's `X-Accel-Limit-Rate` go \
             before it.",
    )
    .example("limit_rate 100k;");

pub static LIMIT_RATE_AFTER: Directive<config::Template> =
    Directive::new("limit_rate_after", HSLI, read_limit)
        .default("0")
        .syntax("limit_rate_after SIZE;")
        .text("How much of an answer is sent at full speed before `limit_rate` holds.")
        .example("limit_rate_after 500k;");

pub static LINGERING_CLOSE: Directive<Lingering> = Directive::new("lingering_close", HSL, |args| {
    read::enumeration(
        args,
        &[("off", Lingering::Off), ("on", Lingering::On), ("always", Lingering::Always)],
    )
})
.default("on")
.syntax("lingering_close off | on | always;")
.text(
    "Whether what a client still sends is read and dropped before its connection is closed, \
         so that it sees the answer.",
)
.example("lingering_close always;");

pub static LINGERING_TIME: Millis = Directive::new("lingering_time", HSL, read::time_ms)
    .default("30s")
    .syntax("lingering_time TIME;")
    .text("How long, in all, a client's data is dropped before its connection is closed.")
    .example("lingering_time 10s;");

pub static LINGERING_TIMEOUT: Millis = Directive::new("lingering_timeout", HSL, read::time_ms)
    .default("5s")
    .syntax("lingering_timeout TIME;")
    .text("How long is waited for more of the client's data before its connection is closed.")
    .example("lingering_timeout 2s;");

pub static RESET_TIMEDOUT_CONNECTION: Flag = flag("reset_timedout_connection", HSL)
    .default("off")
    .syntax("reset_timedout_connection on | off;")
    .text("Resets connections that timed out, which frees what the kernel holds for them.")
    .example("reset_timedout_connection on;");

pub static TCP_NODELAY: Flag = flag("tcp_nodelay", HSL)
    .default("on")
    .syntax("tcp_nodelay on | off;")
    .text("Sends small packets at once (TCP_NODELAY).")
    .example("tcp_nodelay off;");

pub static TCP_NOPUSH: Flag = flag("tcp_nopush", HSL)
    .default("off")
    .syntax("tcp_nopush on | off;")
    .text("With `sendfile`: head and beginning of a file leave in one packet.")
    .moot("they do so always: heads are sent with the kernel told that more follows")
    .example("tcp_nopush on;");

pub static SENDFILE: Flag = flag("sendfile", HSLI)
    .default("off")
    .syntax("sendfile on | off;")
    .text("Sends files from the kernel's cache without copying them.")
    .example("sendfile on;");

pub static SENDFILE_MAX_CHUNK: Bytes = Directive::new("sendfile_max_chunk", HSL, read::size)
    .default("2m")
    .syntax("sendfile_max_chunk SIZE;")
    .text("The most of a file that is sent in one turn, so that other connections get theirs.")
    .moot("turns end after 2 MiB whatever is sent, and a client cannot see turns")
    .example("sendfile_max_chunk 512k;");

pub static CHUNKED_TRANSFER_ENCODING: Flag = flag("chunked_transfer_encoding", HSL)
    .default("on")
    .syntax("chunked_transfer_encoding on | off;")
    .text("Whether HTTP/1.1 clients get bodies of unknown length in chunks.")
    .example("chunked_transfer_encoding off;");

pub static EARLY_HINTS: Directive<Vec<config::Template>> =
    Directive::new("early_hints", HSL, |args| {
        (0..args.len()).map(|i| read::template_at(args, i)).collect()
    })
    .takes(Arity::AtLeast(1))
    .syntax("early_hints TEXT ...;")
    .text(
        "Whether 103 answers of backends, which come ahead of the answer itself, are passed to \
         HTTP/1.1 clients: when at least one TEXT, with its variables replaced, is neither empty \
         nor `0`. Without it they are dropped.",
    )
    .example("early_hints $http_sec_fetch_mode;");

pub static POST_ACTION: Directive<String> = Directive::new("post_action", HSLI, |args| {
    let to = read::text(args)?;
    match to.as_bytes() {
        [b'/' | b'@', _, ..] => Ok(to),
        _ => Err(read::refuse(args, 0, "invalid value")),
    }
})
.syntax("post_action URI | @NAME;")
.text(
    "Where a request goes once more when its answer was sent, or given up: the location's \
             answer is dropped. Variables there, such as `$status` and `$body_bytes_sent`, tell of \
             the answer that the client got. The next request on the connection waits for it.",
)
.example("location /files/ { post_action @count; }");

pub static ETAG: Flag = flag("etag", HSL)
    .default("on")
    .syntax("etag on | off;")
    .text("Whether files are answered with an entity tag.")
    .example("etag off;");

pub static SERVER_TOKENS: Directive<Tokens> = Directive::new("server_tokens", HSL, |args| {
    read::enumeration(args, &[("on", Tokens::On), ("off", Tokens::Off), ("build", Tokens::Build)])
})
.default("on")
.syntax("server_tokens on | off | build;")
.text("Whether the version is shown in the Server field and on error pages.")
.example("server_tokens off;");

pub static ABSOLUTE_REDIRECT: Flag = flag("absolute_redirect", HSL)
    .default("on")
    .syntax("absolute_redirect on | off;")
    .text("Whether redirects name scheme and host.")
    .example("absolute_redirect off;");

pub static PORT_IN_REDIRECT: Flag = flag("port_in_redirect", HSL)
    .default("on")
    .syntax("port_in_redirect on | off;")
    .text("Whether redirects name the port.")
    .example("port_in_redirect off;");

pub static SERVER_NAME_IN_REDIRECT: Flag = flag("server_name_in_redirect", HSL)
    .default("off")
    .syntax("server_name_in_redirect on | off;")
    .text("Whether redirects name the server's first name instead of the requested host.")
    .example("server_name_in_redirect on;");

pub static MSIE_PADDING: Flag = flag("msie_padding", HSL)
    .default("on")
    .syntax("msie_padding on | off;")
    .text("Pads error pages to 512 bytes for MSIE and Chrome, which hide shorter ones.")
    .example("msie_padding off;");

pub static MSIE_REFRESH: Flag = flag("msie_refresh", HSL)
    .default("off")
    .syntax("msie_refresh on | off;")
    .text("Whether MSIE gets a page that sends it on in place of a redirect.")
    .example("msie_refresh on;");

pub static LOG_NOT_FOUND: Flag = flag("log_not_found", HSL)
    .default("on")
    .syntax("log_not_found on | off;")
    .text("Whether files that are not there are logged as errors.")
    .example("log_not_found off;");

pub static LOG_SUBREQUEST: Flag = flag("log_subrequest", HSL)
    .default("off")
    .syntax("log_subrequest on | off;")
    .text("Whether subrequests are written to the access log.")
    .example("log_subrequest on;");

/// How several access checks combine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Satisfy {
    /// Every check must pass.
    All,
    /// One passing check is enough.
    Any,
}

pub static SATISFY: Directive<Satisfy> = Directive::new("satisfy", HSL, |args| {
    read::enumeration(args, &[("all", Satisfy::All), ("any", Satisfy::Any)])
})
.default("all")
.syntax("satisfy all | any;")
.text("Whether all access checks must let a request pass, or any one of them.")
.example("satisfy any;");

pub static AUTH_DELAY: Directive<u64> = Directive::new("auth_delay", HSL, read::time_ms)
    .default("0s")
    .syntax("auth_delay TIME;")
    .text(
        "How long a request whose credentials are missing or wrong waits for its answer (401), \
         which makes guessing passwords slow. 0 is no delay.",
    )
    .example("auth_delay 2s;");

/// Everything above.
pub static ALL: &[&dyn AnyDirective] = &[
    &HTTP_BLOCK,
    &SERVER_BLOCK,
    &LOCATION_BLOCK,
    &LISTEN,
    &SERVER_NAME,
    &ROOT,
    &ALIAS,
    &INTERNAL,
    &crate::limit_except::LIMIT_EXCEPT_BLOCK,
    &TYPES,
    &DEFAULT_TYPE,
    &ERROR_PAGE,
    &RECURSIVE_ERROR_PAGES,
    &KEEPALIVE_TIMEOUT,
    &KEEPALIVE_MIN_TIMEOUT,
    &KEEPALIVE_REQUESTS,
    &KEEPALIVE_TIME,
    &KEEPALIVE_DISABLE,
    &CLIENT_HEADER_TIMEOUT,
    &CLIENT_HEADER_BUFFER_SIZE,
    &LARGE_CLIENT_HEADER_BUFFERS,
    &IGNORE_INVALID_HEADERS,
    &UNDERSCORES_IN_HEADERS,
    &MAX_HEADERS,
    &MERGE_SLASHES,
    &CLIENT_MAX_BODY_SIZE,
    &CLIENT_BODY_BUFFER_SIZE,
    &CLIENT_BODY_TIMEOUT,
    &CLIENT_BODY_IN_FILE_ONLY,
    &CLIENT_BODY_IN_SINGLE_BUFFER,
    &CLIENT_BODY_TEMP_PATH,
    &SEND_TIMEOUT,
    &LIMIT_RATE,
    &LIMIT_RATE_AFTER,
    &LINGERING_CLOSE,
    &LINGERING_TIME,
    &LINGERING_TIMEOUT,
    &RESET_TIMEDOUT_CONNECTION,
    &TCP_NODELAY,
    &TCP_NOPUSH,
    &SENDFILE,
    &SENDFILE_MAX_CHUNK,
    &CHUNKED_TRANSFER_ENCODING,
    &EARLY_HINTS,
    &POST_ACTION,
    &ETAG,
    &SERVER_TOKENS,
    &ABSOLUTE_REDIRECT,
    &PORT_IN_REDIRECT,
    &SERVER_NAME_IN_REDIRECT,
    &MSIE_PADDING,
    &MSIE_REFRESH,
    &LOG_NOT_FOUND,
    &LOG_SUBREQUEST,
    &SATISFY,
    &AUTH_DELAY,
];

/// What stands between `location` and its block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationName {
    /// `/a`
    Prefix(String),
    /// `^~ /a`
    PrefixFinal(String),
    /// `= /a`
    Exact(String),
    /// `~ a` (false) or `~* a` (true: letters match regardless of case)
    Regex(String, bool),
    /// `@a`
    Named(String),
}

fn read_location(args: &Args<'_>) -> Result<LocationName, Invalid> {
    use LocationName as L;
    let text = |i: usize| args.str(i).into_owned();
    if args.len() == 2 {
        return match &*args.str(0) {
            "=" => Ok(L::Exact(text(1))),
            "^~" => Ok(L::PrefixFinal(text(1))),
            "~" => Ok(L::Regex(text(1), false)),
            "~*" => Ok(L::Regex(text(1), true)),
            other => Err(Invalid::new(format!("invalid location modifier \"{other}\"")).at(0)),
        };
    }
    let name = text(0);
    // Sign and name may be written without a space between them.
    if let Some(rest) = name.strip_prefix('=') {
        return Ok(L::Exact(rest.into()));
    }
    if let Some(rest) = name.strip_prefix("^~") {
        return Ok(L::PrefixFinal(rest.into()));
    }
    if let Some(rest) = name.strip_prefix("~*") {
        return Ok(L::Regex(rest.into(), true));
    }
    if let Some(rest) = name.strip_prefix('~') {
        return Ok(L::Regex(rest.into(), false));
    }
    if let Some(rest) = name.strip_prefix('@') {
        return Ok(L::Named(rest.into()));
    }
    Ok(L::Prefix(name))
}

fn read_words(args: &Args<'_>) -> Result<Vec<String>, Invalid> {
    Ok(args.words().iter().map(|word| word.str().into_owned()).collect())
}

fn read_path(args: &Args<'_>) -> Result<config::Template, Invalid> {
    config::Template::parse(args.word(0).bytes()).map_err(Invalid::from)
}

fn read_keepalive_timeout(args: &Args<'_>) -> Result<(u64, Option<u64>), Invalid> {
    let invalid = |_| Invalid::new("\"keepalive_timeout\" directive invalid value");
    let timeout = read::parse_time_ms(args.word(0).bytes()).ok_or(()).map_err(invalid)?;
    if args.len() == 1 {
        return Ok((timeout, None));
    }
    let header = read::parse_time_s(args.word(1).bytes()).ok_or(()).map_err(invalid)?;
    Ok((timeout, Some(header)))
}

/// Browsers that get no keep-alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepaliveDisable {
    /// Old Internet Explorers after a POST.
    pub msie6: bool,
    /// Safari.
    pub safari: bool,
}

fn read_keepalive_disable(args: &Args<'_>) -> Result<KeepaliveDisable, Invalid> {
    let mut disable = KeepaliveDisable::default();
    for (i, word) in args.words().iter().enumerate() {
        match word.bytes() {
            b"none" => {}
            b"msie6" => disable.msie6 = true,
            b"safari" => disable.safari = true,
            _ => return Err(Invalid::new(format!("invalid value \"{}\"", word.str())).at(i)),
        }
    }
    Ok(disable)
}

/// A folder for temporary files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TempPath {
    /// As written; relative to the prefix.
    pub path: String,
    /// Digits of the file's number that name each level of folders.
    pub levels: Vec<u8>,
}

/// Reads `PATH [LEVEL1 [LEVEL2 [LEVEL3]]]`; for all directives of that shape.
///
/// # Errors
/// A level that is not 1, 2 or 3.
pub fn read_temp_path(args: &Args<'_>) -> Result<TempPath, Invalid> {
    let mut levels = Vec::new();
    for (i, word) in args.words().iter().enumerate().skip(1) {
        match word.bytes() {
            [digit @ b'1'..=b'3'] => levels.push(digit - b'0'),
            b"0" => {}
            _ => return Err(Invalid::new(format!("invalid value \"{}\"", word.str())).at(i)),
        }
    }
    Ok(TempPath { path: args.str(0).into_owned(), levels })
}

/// What `error_page` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPageArgs {
    /// The statuses it is for.
    pub codes: Vec<u16>,
    /// `=STATUS`: Some(Some), `=`: Some(None), nothing: None.
    pub overwrite: Option<Option<u16>>,
    /// Where to.
    pub uri: config::Template,
    /// The same as written.
    pub text: String,
}

fn read_error_page(args: &Args<'_>) -> Result<ErrorPageArgs, Invalid> {
    let last = args.len() - 1;
    let mut codes_end = last;
    let mut overwrite = None;
    let sign = args.word(last.saturating_sub(1)).bytes();
    if last >= 1
        && let Some(digits) = sign.strip_prefix(b"=")
    {
        if last < 2 {
            return Err(Invalid::new("invalid number of arguments in \"error_page\" directive"));
        }
        codes_end = last - 1;
        overwrite = Some(match digits {
            b"" => None,
            _ => Some(parse_status(digits).ok_or_else(|| {
                Invalid::new(format!("invalid value \"{}\"", args.str(last - 1))).at(last - 1)
            })?),
        });
    }
    let mut codes = Vec::new();
    for i in 0..codes_end {
        let word = args.str(i);
        let code = parse_status(word.as_bytes())
            .ok_or_else(|| Invalid::new(format!("invalid value \"{word}\"")).at(i))?;
        if code == 499 || !(300..=599).contains(&code) {
            let reason = format!("value \"{word}\" must be between 300 and 599");
            return Err(Invalid::new(reason).at(i));
        }
        codes.push(code);
    }
    let text = args.str(last).into_owned();
    let uri = config::Template::parse(args.word(last).bytes()).map_err(Invalid::from)?;
    Ok(ErrorPageArgs { codes, overwrite, uri, text })
}

/// A status as in `return` and `error_page`: up to three digits.
pub fn parse_status(digits: &[u8]) -> Option<u16> {
    if digits.is_empty() || digits.len() > 3 {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Contexts of the engine for modules' tables.
pub mod contexts {
    pub use session::contexts::*;
}
