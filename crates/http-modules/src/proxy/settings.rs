//! The values of one location's directives, compiled.

use super::cookies::Cookies;
use super::directives::{self as d, HttpVersion, ignore, next};
use super::family::{Family, PROXY};
use super::gateway::{Gateway, Protocol};
use super::redirect::Redirects;
use super::request::Plan;
use super::store::Store;
use super::target::Target;
use config::Scope;
use http::temp::TempFolder;
use http::{Compiler, Exchange};
use session::tls::Outgoing;
use session::variables::Template;
use std::rc::Rc;
use system::socket::Keepalive;
use upstream::{Connecting, bind};
use wire::http1::Known;

/// One location's way of passing requests on.
pub(super) struct Settings {
    /// Whose settings these are.
    pub(super) family: &'static Family,
    pub(super) speech: Speech,
    pub(super) method: Option<Template>,
    pub(super) body: Option<Template>,
    pub(super) pass_body: bool,
    pub(super) request_buffering: bool,
    pub(super) connecting: Connecting,
    /// How connections for `https://` are secured.
    pub(super) secure: Option<Outgoing>,
    /// `proxy_bind` with variables: the address is known per request.
    pub(super) bind: Option<Template>,
    pub(super) rate: Template,
    pub(super) send_timeout_ms: u64,
    pub(super) read_timeout_ms: u64,
    pub(super) next: u32,
    pub(super) next_tries: u32,
    pub(super) next_timeout_ms: u64,
    pub(super) intercept_errors: bool,
    /// Only GET and HEAD are passed, and what is not found is an error of ours.
    pub(super) is_memcached: bool,
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
    /// Parts of answers are served whatever the backend offers.
    pub(super) force_ranges: bool,
    pub(super) target: Target,
}

/// What is spoken with backends.
pub(super) enum Speech {
    Http(Plan),
    Other(Gateway),
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

    fn compile(scope: &Scope<'_>, family: &Family) -> Hide {
        const OF_HTTP: [&[u8]; 3] = [b"Date", b"Server", b"X-Pad"];
        const DEFAULT: [&[u8]; 5] = [
            b"X-Accel-Expires",
            b"X-Accel-Redirect",
            b"X-Accel-Limit-Rate",
            b"X-Accel-Buffering",
            b"X-Accel-Charset",
        ];
        let passed = scope.all(family.pass_header);
        let is_passed = |name: &[u8]| passed.iter().any(|p| p.eq_ignore_ascii_case(name));
        let mut hide = Hide { known: 0, others: Vec::new() };
        let own = scope.all(family.hide_header);
        let own_names = own.iter().map(Vec::as_slice);
        let of_http = OF_HTTP.into_iter().filter(|_| family.is_proxy());
        let usual = DEFAULT.into_iter().chain(of_http).filter(|name| !is_passed(name));
        for name in usual.chain(own_names) {
            match Known::of(name) {
                Known::Other => hide.others.push(name.into()),
                known => hide.known |= known.bit(),
            }
        }
        hide
    }
}

impl Settings {
    /// The settings of a `proxy_pass`.
    pub(super) fn of_http(c: &mut Compiler<'_>, scope: &Scope<'_>, target: Target) -> Settings {
        let version = scope.get(&d::PROXY_HTTP_VERSION);
        scope.get(&d::PROXY_SEND_LOWAT);
        scope.find(&d::PROXY_HEADERS_HASH_MAX_SIZE);
        scope.find(&d::PROXY_HEADERS_HASH_BUCKET_SIZE);
        let method = scope.find(&d::PROXY_METHOD).map(|source| c.template(&source));
        let body = scope.find(&d::PROXY_SET_BODY).map(|source| c.template(&source));
        let redirects = Redirects::compile(c, scope, &target);
        let speech = Speech::Http(Plan::compile(c, scope, version));
        Settings {
            method,
            body,
            redirects,
            cookies: Cookies::compile(c, scope),
            pass_trailers: scope.get(&d::PROXY_PASS_TRAILERS),
            ..Settings::compile(c, scope, &PROXY, target, speech)
        }
    }

    /// The settings of any way to pass requests on.
    pub(super) fn compile(
        c: &mut Compiler<'_>,
        scope: &Scope<'_>,
        family: &'static Family,
        target: Target,
        speech: Speech,
    ) -> Settings {
        let ignored = scope.find(family.ignore_headers).unwrap_or(0);
        let mut connecting = connecting(scope, family, &target, &speech);
        let secure = family.secure.as_ref().filter(|_| target.may_be_secure()).and_then(|secure| {
            let template = &mut |source: &_| c.template(source);
            Outgoing::compile(scope, secure.towards, alpn(&speech), template)
        });
        let bind = scope.find(family.bind).flatten().and_then(|bind| {
            connecting.options.transparent = bind.transparent;
            if let Some(text) = bind.address.constant() {
                connecting.options.local = bind::local_address(&String::from_utf8_lossy(text));
                return None;
            }
            Some(c.template(&bind.address))
        });
        let rate = scope.get(family.limit_rate);
        let rate = c.template(&rate);
        let next = scope.get(family.next_upstream);
        let is_memcached =
            matches!(&speech, Speech::Other(Gateway { protocol: Protocol::Memcached { .. }, .. }));
        Settings {
            family,
            speech,
            method: None,
            body: None,
            pass_body: scope.get(family.pass_request_body) && !is_memcached,
            request_buffering: scope.get(family.request_buffering),
            connecting,
            secure,
            bind,
            rate,
            send_timeout_ms: scope.get(family.send_timeout),
            read_timeout_ms: scope.get(family.read_timeout),
            next: if next & next::OFF != 0 { 0 } else { next },
            next_tries: scope.get(family.next_upstream_tries).min(u64::from(u32::MAX)) as u32,
            next_timeout_ms: scope.get(family.next_upstream_timeout),
            is_memcached,
            intercept_errors: scope.get(family.intercept_errors),
            ignore_client_abort: scope.get(family.ignore_client_abort),
            hide: Hide::compile(scope, family),
            pass_trailers: false,
            store: Store::compile(c, scope, family),
            redirects: Redirects::default(),
            cookies: Cookies::default(),
            buffers: Buffers::compile(c, scope, family),
            obey_redirect: ignored & ignore::REDIRECT == 0,
            obey_buffering: ignored & ignore::BUFFERING == 0,
            obey_limit_rate: ignored & ignore::LIMIT_RATE == 0,
            obey_charset: ignored & ignore::CHARSET == 0,
            force_ranges: scope.get(family.force_ranges),
            target,
        }
    }

    /// The same, with nothing kept back: requests and answers flow at the same time.
    pub(super) fn flowing(mut self) -> Settings {
        self.request_buffering = false;
        self.buffers.on = false;
        self.buffers.step = self.buffers.head.max(4096);
        self.pass_trailers = true;
        self.store = None;
        self
    }

    /// How to connect for this request, when that is not as for all.
    pub(super) fn own_connecting(&self, x: &mut Exchange, secure: bool) -> Option<Box<Connecting>> {
        let outgoing = self.secure.as_ref().filter(|outgoing| {
            secure && (outgoing.varies() || matches!(self.target, Target::Variable(_)))
        });
        if self.bind.is_none() && outgoing.is_none() {
            return None;
        }
        let mut connecting = self.connecting.clone();
        if let Some(template) = &self.bind {
            let value = template.value(x);
            let text = String::from_utf8_lossy(x.text(value));
            connecting.options.local = bind::local_address(&text);
            // A kept connection comes from where it was made: another address, another owner.
            connecting.owner ^= fnv(text.as_bytes()) << 16;
        }
        if let Some(outgoing) = outgoing {
            connecting.owner ^= kind(outgoing.identity(x).as_bytes());
        }
        Some(Box::new(connecting))
    }

    /// Whether the fields behind a request's body go to the backend.
    pub(super) fn passes_request_trailers(&self) -> bool {
        match &self.speech {
            Speech::Http(plan) => match plan.version {
                HttpVersion::Http2 => true,
                HttpVersion::Http11 => self.pass_trailers,
                HttpVersion::Http10 => false,
            },
            Speech::Other(_) => false,
        }
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

    /// True when a body can be sent before its length is known.
    pub(super) fn may_stream(&self) -> bool {
        match &self.speech {
            Speech::Http(plan) => plan.version != HttpVersion::Http10,
            Speech::Other(gateway) => gateway.has_records(),
        }
    }
}

/// How connections are made, but for where they come from.
fn connecting(scope: &Scope<'_>, family: &Family, target: &Target, speech: &Speech) -> Connecting {
    let mut connecting =
        Connecting { timeout_ms: scope.get(family.connect_timeout), ..Connecting::default() };
    // Locations are told apart by the place of their block in the configuration.
    let span = scope.span();
    connecting.owner = (span.file.0 as usize) << 32 | span.start as usize;
    let size = |directive| scope.find(directive).and_then(|size| u32::try_from(size).ok());
    connecting.options.receive_buffer = size(family.socket_rcvbuf).filter(|size| *size > 0);
    connecting.options.send_buffer = size(family.socket_sndbuf).filter(|size| *size > 0);
    if scope.get(family.socket_keepalive) {
        connecting.options.keepalive =
            Keepalive::On { idle_s: None, interval_s: None, count: None };
    }
    if matches!(target, Target::Fixed(fixed) if fixed.secure) {
        connecting.owner ^= kind(&connecting.owner.to_ne_bytes());
    }
    if speech.is_http2() {
        connecting.owner ^= kind(b"h2");
    }
    connecting
}

impl Speech {
    /// True when requests and answers are frames.
    pub(super) fn is_http2(&self) -> bool {
        matches!(self, Speech::Http(plan) if plan.version == HttpVersion::Http2)
    }
}

/// What is offered to backends over TLS.
fn alpn(speech: &Speech) -> Vec<Vec<u8>> {
    match speech.is_http2() {
        true => vec![b"h2".to_vec()],
        false => Vec::new(),
    }
}

/// The kind of connections that are secured by `identity`: the highest bits of an owner.
fn kind(identity: &[u8]) -> usize {
    (fnv(identity) | 1) << upstream::KIND_SHIFT
}

/// Tells texts apart, nothing more (FNV-1a).
fn fnv(text: &[u8]) -> usize {
    text.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    }) as usize
}

impl Buffers {
    fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>, family: &Family) -> Buffers {
        let name = family.name;
        let buffers = scope.get(family.buffers);
        let head = scope.get(family.buffer_size);
        let (busy, busy_span) = match scope.find_spanned(family.busy_buffers_size) {
            Some((busy, span)) => (Some(busy), Some(span)),
            None => (None, None),
        };
        let larger = head.max(buffers.size);
        let all = buffers.number * buffers.size;
        if buffers.number < 2 {
            scope.error(scope.span(), format!("there must be at least 2 \"{name}_buffers\""));
        }
        let busy_size = busy.unwrap_or(2 * larger);
        if busy.is_some() && busy_size < larger {
            let reason = format!(
                "\"{name}_busy_buffers_size\" must be equal to or greater than the maximum of the \
                 value of \"{name}_buffer_size\" and one of the \"{name}_buffers\""
            );
            scope.error(busy_span, reason);
        }
        if busy_size > all.saturating_sub(buffers.size) && family.buffers_answers() {
            let reason = format!(
                "\"{name}_busy_buffers_size\" must be less than the size of all \"{name}_buffers\" \
                 minus one buffer"
            );
            scope.error(busy_span.or(Some(scope.span())), reason);
        }
        scope.find(family.temp_file_write_size);
        let on = scope.get(family.buffering);
        // Many backends answer with less than all buffers hold: then one read takes all of it.
        let step = busy.unwrap_or(all) as usize;
        Buffers {
            on,
            head: head as usize,
            memory: all as usize,
            step: if on { step.clamp(4096, 64 * 1024) } else { head as usize },
            file_max: scope.get(family.max_temp_file_size),
            folder: c.temp_folder(scope.get(family.temp_path)),
        }
    }
}
