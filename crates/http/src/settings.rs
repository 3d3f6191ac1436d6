//! Values of the engine's own directives, compiled for one location or one server.

use crate::compile::Compiler;
use crate::directives as d;
use config::Scope;
use session::variables::Template;
use std::rc::Rc;

/// Limits on request heads; they belong to a server because no location is known yet.
#[derive(Clone, Debug)]
pub struct HeadLimits {
    /// Milliseconds for a whole head.
    pub timeout_ms: u64,
    /// Bytes read at first.
    pub buffer_size: usize,
    /// How many larger buffers a head may fill.
    pub large_count: usize,
    /// Size of each; no line may be longer.
    pub large_size: usize,
    /// How the codec treats doubtful lines.
    pub parsing: wire::http1::Options,
    /// Whether "//" in a path becomes "/".
    pub merge_slashes: bool,
}

impl HeadLimits {
    pub(crate) fn compile(scope: &Scope<'_>) -> HeadLimits {
        let large = scope.get(&d::LARGE_CLIENT_HEADER_BUFFERS);
        HeadLimits {
            timeout_ms: scope.get(&d::CLIENT_HEADER_TIMEOUT),
            buffer_size: scope.get(&d::CLIENT_HEADER_BUFFER_SIZE) as usize,
            large_count: large.number as usize,
            large_size: large.size as usize,
            parsing: wire::http1::Options {
                ignore_invalid_headers: scope.get(&d::IGNORE_INVALID_HEADERS),
                underscores_in_headers: scope.get(&d::UNDERSCORES_IN_HEADERS),
                max_headers: scope.get(&d::MAX_HEADERS) as u32,
            },
            merge_slashes: scope.get(&d::MERGE_SLASHES),
        }
    }
}

/// How much of the program's identity answers show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokens {
    /// Name and version.
    On,
    /// The name only.
    Off,
    /// Name, version and build.
    Build,
}

/// Whether a request's body is kept in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InFileOnly {
    /// Only when it does not fit in memory.
    Off,
    /// Always; the file is removed afterwards.
    Clean,
    /// Always; the file stays.
    On,
}

/// When unread data of a client is waited for before its connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lingering {
    /// Never.
    Off,
    /// When the client is likely to be sending still.
    On,
    /// Always.
    Always,
}

/// How long connections are kept.
#[derive(Clone, Debug)]
pub struct Keepalive {
    /// Milliseconds of silence after which an idle connection is closed; 0: close at once.
    pub timeout_ms: u64,
    /// Seconds announced in the Keep-Alive field.
    pub header_s: Option<u64>,
    /// Requests per connection.
    pub requests: u64,
    /// Milliseconds after which a connection is closed with its next answer.
    pub time_ms: u64,
    /// Milliseconds an idle connection is spared when connections must be shed.
    pub min_timeout_ms: u64,
    /// Old Internet Explorers get no keep-alive after a POST.
    pub disable_msie6: bool,
    /// Safari gets no keep-alive.
    pub disable_safari: bool,
}

/// Media types by extension of the file name.
#[derive(Debug, Default)]
pub struct Types {
    /// Lower-case extension to type.
    pub by_extension: std::collections::HashMap<Box<[u8]>, Box<[u8]>>,
}

/// What an `alias` stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alias {
    /// So many bytes at the start of the URI: the name of the location that holds it.
    Prefix(usize),
    /// The whole URI: it stands in a location given by a pattern.
    Whole,
}

/// Values for one location.
pub struct Settings {
    /// Where files are: `root` or `alias`.
    pub root: Template,
    /// Set when `root` is an `alias`: what it stands for in the URI.
    pub alias: Option<Alias>,
    /// Media types.
    pub types: Rc<Types>,
    /// The type when none is known.
    pub default_type: Box<[u8]>,
    /// Connection persistence.
    pub keepalive: Keepalive,
    /// Milliseconds between two writes to a client.
    pub send_timeout_ms: u64,
    /// Bytes per second that an answer may take.
    pub limit_rate: Option<Template>,
    /// Bytes of an answer that are not limited.
    pub limit_rate_after: Option<Template>,
    /// Identity shown.
    pub tokens: Tokens,
    /// Only internal redirects may come here.
    pub internal: bool,
    /// Longest body taken, in bytes; 0: no limit.
    pub body_max: u64,
    /// Bytes of a body kept in memory.
    pub body_buffer: usize,
    /// Milliseconds between two reads of a body.
    pub body_timeout_ms: u64,
    /// Whether a body is always kept in a file.
    pub body_in_file_only: InFileOnly,
    /// Whether a body in memory is one piece.
    pub body_in_single_buffer: bool,
    /// The folder for bodies that do not fit in memory.
    pub body_temp: Rc<crate::temp::TempFolder>,
    /// Lingering at close: when, how long in all, how long between reads, in milliseconds.
    pub lingering: Lingering,
    /// Longest lingering.
    pub lingering_time_ms: u64,
    /// Longest silence while lingering.
    pub lingering_timeout_ms: u64,
    /// Send each piece as soon as it is there.
    pub tcp_nodelay: bool,
    /// Send files from the kernel.
    pub sendfile: bool,
    /// Chunked bodies for HTTP/1.1 clients.
    pub chunked: bool,
    /// Fields that a backend sends ahead are passed on when one of these is neither empty nor 0.
    pub early_hints: Box<[Template]>,
    /// Where a request goes when all is over (`post_action`).
    pub post_action: Option<Box<str>>,
    /// Answer with entity tags for files.
    pub etag: bool,
    /// Redirects name scheme and host.
    pub absolute_redirect: bool,
    /// Redirects name the port.
    pub port_in_redirect: bool,
    /// Redirects name the server's first name instead of the requested host.
    pub server_name_in_redirect: bool,
    /// Pad error pages for old browsers.
    pub msie_padding: bool,
    /// Redirect old browsers by a page.
    pub msie_refresh: bool,
    /// Reset connections that timed out.
    pub reset_timedout: bool,
    /// The longest frame of an answer's body in HTTP/2.
    pub http2_chunk: u64,
    /// Log missing files.
    pub log_not_found: bool,
    /// Log subrequests to the access log.
    pub log_subrequest: bool,
    /// Error pages may themselves have error pages.
    pub recursive_error_pages: bool,
    /// One passing access check is enough.
    pub satisfy_any: bool,
    /// Milliseconds that a request without good credentials waits for its answer.
    pub auth_delay_ms: u64,
}

impl Settings {
    pub(crate) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Settings {
        let (root, alias) = c.root(scope);
        let (timeout_ms, header_s) = scope.get(&d::KEEPALIVE_TIMEOUT);
        let disable = scope.get(&d::KEEPALIVE_DISABLE);
        scope.find(&d::TCP_NOPUSH);
        scope.find(&d::SENDFILE_MAX_CHUNK);
        Settings {
            root,
            alias,
            types: c.types(scope),
            default_type: scope.get(&d::DEFAULT_TYPE).into_bytes().into(),
            keepalive: Keepalive {
                timeout_ms,
                header_s,
                requests: scope.get(&d::KEEPALIVE_REQUESTS),
                time_ms: scope.get(&d::KEEPALIVE_TIME),
                min_timeout_ms: scope.get(&d::KEEPALIVE_MIN_TIMEOUT),
                disable_msie6: disable.msie6,
                disable_safari: disable.safari,
            },
            send_timeout_ms: scope.get(&d::SEND_TIMEOUT),
            limit_rate: limit(c, scope, &d::LIMIT_RATE),
            limit_rate_after: limit(c, scope, &d::LIMIT_RATE_AFTER),
            tokens: scope.get(&d::SERVER_TOKENS),
            internal: scope.find(&d::INTERNAL).is_some(),
            body_max: scope.get(&d::CLIENT_MAX_BODY_SIZE),
            body_buffer: scope.get(&d::CLIENT_BODY_BUFFER_SIZE) as usize,
            body_timeout_ms: scope.get(&d::CLIENT_BODY_TIMEOUT),
            body_in_file_only: scope.get(&d::CLIENT_BODY_IN_FILE_ONLY),
            body_in_single_buffer: scope.get(&d::CLIENT_BODY_IN_SINGLE_BUFFER),
            body_temp: c.temp_folder(scope.get(&d::CLIENT_BODY_TEMP_PATH)),
            lingering: scope.get(&d::LINGERING_CLOSE),
            lingering_time_ms: scope.get(&d::LINGERING_TIME),
            lingering_timeout_ms: scope.get(&d::LINGERING_TIMEOUT),
            tcp_nodelay: scope.get(&d::TCP_NODELAY),
            sendfile: scope.get(&d::SENDFILE),
            chunked: scope.get(&d::CHUNKED_TRANSFER_ENCODING),
            early_hints: early_hints(c, scope),
            post_action: scope.find(&d::POST_ACTION).map(String::into),
            etag: scope.get(&d::ETAG),
            absolute_redirect: scope.get(&d::ABSOLUTE_REDIRECT),
            port_in_redirect: scope.get(&d::PORT_IN_REDIRECT),
            server_name_in_redirect: scope.get(&d::SERVER_NAME_IN_REDIRECT),
            msie_padding: scope.get(&d::MSIE_PADDING),
            msie_refresh: scope.get(&d::MSIE_REFRESH),
            reset_timedout: scope.get(&d::RESET_TIMEDOUT_CONNECTION),
            http2_chunk: scope.get(&crate::http2::CHUNK_SIZE),
            log_not_found: scope.get(&d::LOG_NOT_FOUND),
            log_subrequest: scope.get(&d::LOG_SUBREQUEST),
            recursive_error_pages: scope.get(&d::RECURSIVE_ERROR_PAGES),
            satisfy_any: scope.get(&d::SATISFY) == d::Satisfy::Any,
            auth_delay_ms: scope.get(&d::AUTH_DELAY),
        }
    }
}

fn early_hints(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Box<[Template]> {
    let sources = scope.find(&d::EARLY_HINTS).unwrap_or_default();
    sources.iter().map(|source| c.template(source)).collect()
}

/// A limit; 0 is none.
fn limit(
    c: &mut Compiler<'_>,
    scope: &Scope<'_>,
    directive: &config::Directive<config::Template>,
) -> Option<Template> {
    let source = scope.get(directive);
    let is_zero = source.constant().and_then(config::read::parse_size) == Some(0);
    (!is_zero).then(|| c.template(&source))
}
