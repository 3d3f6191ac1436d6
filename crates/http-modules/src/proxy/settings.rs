//! The values of one location's directives, compiled.

use super::cookies::Cookies;
use super::directives::{self as d, HttpVersion, ignore, next};
use super::redirect::Redirects;
use super::request::Plan;
use super::store::Store;
use super::target::Target;
use config::Scope;
use http::temp::TempFolder;
use http::{Compiler, Exchange};
use session::variables::Template;
use std::rc::Rc;
use system::socket::Keepalive;
use upstream::{Connecting, bind};
use wire::http1::Known;

/// One location's way of passing requests on.
pub(super) struct Settings {
    pub(super) plan: Plan,
    pub(super) method: Option<Template>,
    pub(super) body: Option<Template>,
    pub(super) pass_body: bool,
    pub(super) request_buffering: bool,
    pub(super) connecting: Connecting,
    /// `proxy_bind` with variables: the address is known per request.
    pub(super) bind: Option<Template>,
    pub(super) rate: Template,
    pub(super) send_timeout_ms: u64,
    pub(super) read_timeout_ms: u64,
    pub(super) next: u32,
    pub(super) next_tries: u32,
    pub(super) next_timeout_ms: u64,
    pub(super) intercept_errors: bool,
    pub(super) ignore_client_abort: bool,
    pub(super) hide: Hide,
    pub(super) pass_trailers: bool,
    pub(super) store: Option<Store>,
    pub(super) redirects: Redirects,
    pub(super) cookies: Cookies,
    pub(super) buffers: Buffers,
    pub(super) obey_redirect: bool,
    pub(super) obey_buffering: bool,
    pub(super) obey_limit_rate: bool,
    pub(super) obey_charset: bool,
    pub(super) target: Target,
}

/// How answers are buffered.
#[derive(Clone)]
pub(super) struct Buffers {
    /// Take the answer as fast as it comes.
    pub(super) on: bool,
    /// Longest head.
    pub(super) head: usize,
    /// Bytes kept in memory.
    pub(super) memory: usize,
    /// Bytes read at a time.
    pub(super) step: usize,
    /// Bytes that may go to a file.
    pub(super) file_max: u64,
    /// Where that file is.
    pub(super) folder: Rc<TempFolder>,
}

/// The fields of an answer that clients do not get.
pub(super) struct Hide {
    known: u128,
    others: Vec<Box<[u8]>>,
}

impl Hide {
    /// True when the field is hidden.
    pub(super) fn hides(&self, known: Known, name: &[u8]) -> bool {
        match known {
            Known::Other => self.others.iter().any(|other| name.eq_ignore_ascii_case(other)),
            known => self.known & known.bit() != 0,
        }
    }

    fn compile(scope: &Scope<'_>) -> Hide {
        const DEFAULT: [&[u8]; 8] = [
            b"Date",
            b"Server",
            b"X-Pad",
            b"X-Accel-Expires",
            b"X-Accel-Redirect",
            b"X-Accel-Limit-Rate",
            b"X-Accel-Buffering",
            b"X-Accel-Charset",
        ];
        let passed = scope.all(&d::PROXY_PASS_HEADER);
        let is_passed = |name: &[u8]| passed.iter().any(|p| p.eq_ignore_ascii_case(name));
        let mut hide = Hide { known: 0, others: Vec::new() };
        let own = scope.all(&d::PROXY_HIDE_HEADER);
        let own_names = own.iter().map(Vec::as_slice);
        for name in DEFAULT.into_iter().filter(|name| !is_passed(name)).chain(own_names) {
            match Known::of(name) {
                Known::Other => hide.others.push(name.into()),
                known => hide.known |= known.bit(),
            }
        }
        hide
    }
}

impl Settings {
    pub(super) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>, target: Target) -> Settings {
        let ignored = scope.find(&d::PROXY_IGNORE_HEADERS).unwrap_or(0);
        let version = scope.get(&d::PROXY_HTTP_VERSION);
        let mut connecting = Connecting {
            timeout_ms: scope.get(&d::PROXY_CONNECT_TIMEOUT),
            ..Connecting::default()
        };
        // Locations are told apart by the place of their block in the configuration.
        let span = scope.span();
        connecting.owner = (span.file.0 as usize) << 32 | span.start as usize;
        if scope.get(&d::PROXY_SOCKET_KEEPALIVE) {
            connecting.options.keepalive =
                Keepalive::On { idle_s: None, interval_s: None, count: None };
        }
        let bind = scope.find(&bind::PROXY_BIND).flatten().and_then(|bind| {
            connecting.options.transparent = bind.transparent;
            if let Some(text) = bind.address.constant() {
                connecting.options.local = bind::local_address(&String::from_utf8_lossy(text));
                return None;
            }
            Some(c.template(&bind.address))
        });
        let rate = scope.get(&d::PROXY_LIMIT_RATE);
        let rate = c.template(&rate);
        let method = scope.find(&d::PROXY_METHOD).map(|source| c.template(&source));
        let body = scope.find(&d::PROXY_SET_BODY).map(|source| c.template(&source));
        let next = scope.get(&d::PROXY_NEXT_UPSTREAM);
        let redirects = Redirects::compile(c, scope, &target);
        Settings {
            plan: Plan::compile(c, scope, version),
            method,
            body,
            pass_body: scope.get(&d::PROXY_PASS_REQUEST_BODY),
            request_buffering: scope.get(&d::PROXY_REQUEST_BUFFERING),
            connecting,
            bind,
            rate,
            send_timeout_ms: scope.get(&d::PROXY_SEND_TIMEOUT),
            read_timeout_ms: scope.get(&d::PROXY_READ_TIMEOUT),
            next: if next & next::OFF != 0 { 0 } else { next },
            next_tries: scope.get(&d::PROXY_NEXT_UPSTREAM_TRIES).min(u64::from(u32::MAX)) as u32,
            next_timeout_ms: scope.get(&d::PROXY_NEXT_UPSTREAM_TIMEOUT),
            intercept_errors: scope.get(&d::PROXY_INTERCEPT_ERRORS),
            ignore_client_abort: scope.get(&d::PROXY_IGNORE_CLIENT_ABORT),
            hide: Hide::compile(scope),
            pass_trailers: scope.get(&d::PROXY_PASS_TRAILERS),
            store: Store::compile(c, scope),
            redirects,
            cookies: Cookies::compile(c, scope),
            buffers: Buffers::compile(c, scope),
            obey_redirect: ignored & ignore::REDIRECT == 0,
            obey_buffering: ignored & ignore::BUFFERING == 0,
            obey_limit_rate: ignored & ignore::LIMIT_RATE == 0,
            obey_charset: ignored & ignore::CHARSET == 0,
            target,
        }
    }

    /// How to connect for this request, when that is not as for all.
    pub(super) fn own_connecting(&self, x: &mut Exchange) -> Option<Box<Connecting>> {
        let bind = self.bind.as_ref()?;
        let value = bind.value(x);
        let text = String::from_utf8_lossy(x.text(value));
        let mut connecting = self.connecting.clone();
        connecting.options.local = bind::local_address(&text);
        // A kept connection comes from where it was made: another address, another owner.
        connecting.owner ^= fnv(text.as_bytes()) << 16;
        Some(Box::new(connecting))
    }

    /// Bytes per second to read of an answer; `None`: as many as come.
    pub(super) fn rate(&self, x: &mut Exchange) -> Option<u64> {
        let rate = match self.rate.as_constant() {
            Some(text) => config::read::parse_size(text),
            None => {
                let value = self.rate.value(x);
                config::read::parse_size(x.text(value))
            }
        };
        rate.filter(|rate| *rate > 0)
    }

    /// True when the backend is spoken to in HTTP/1.1.
    pub(super) fn is_http11(&self) -> bool {
        self.plan.version == HttpVersion::Http11
    }
}

/// Tells texts apart, nothing more (FNV-1a).
fn fnv(text: &[u8]) -> usize {
    text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }) as usize
}

impl Buffers {
    fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Buffers {
        let buffers = scope.get(&d::PROXY_BUFFERS);
        let head = scope.get(&d::PROXY_BUFFER_SIZE);
        let (busy, busy_span) = match scope.find_spanned(&d::PROXY_BUSY_BUFFERS_SIZE) {
            Some((busy, span)) => (Some(busy), Some(span)),
            None => (None, None),
        };
        let larger = head.max(buffers.size);
        let all = buffers.number * buffers.size;
        if buffers.number < 2 {
            scope.error(scope.span(), "there must be at least 2 \"proxy_buffers\"");
        }
        let busy_size = busy.unwrap_or(2 * larger);
        if busy.is_some() && busy_size < larger {
            let reason = "\"proxy_busy_buffers_size\" must be equal to or greater than the maximum \
                          of the value of \"proxy_buffer_size\" and one of the \"proxy_buffers\"";
            scope.error(busy_span, reason);
        }
        if busy_size > all.saturating_sub(buffers.size) {
            let reason = "\"proxy_busy_buffers_size\" must be less than the size of all \
                          \"proxy_buffers\" minus one buffer";
            scope.error(busy_span.or(Some(scope.span())), reason);
        }
        scope.find(&d::PROXY_TEMP_FILE_WRITE_SIZE);
        scope.find(&d::PROXY_HEADERS_HASH_MAX_SIZE);
        scope.find(&d::PROXY_HEADERS_HASH_BUCKET_SIZE);
        let on = scope.get(&d::PROXY_BUFFERING);
        // Many backends answer with less than all buffers hold: then one read takes all of it.
        let step = busy.unwrap_or(all) as usize;
        Buffers {
            on,
            head: head as usize,
            memory: all as usize,
            step: if on { step.clamp(4096, 64 * 1024) } else { head as usize },
            file_max: scope.get(&d::PROXY_MAX_TEMP_FILE_SIZE),
            folder: c.temp_folder(scope.get(&d::PROXY_TEMP_PATH)),
        }
    }
}
