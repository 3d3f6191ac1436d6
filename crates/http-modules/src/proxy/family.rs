//! What all ways to pass a request on have in common: their directives, under the name of each.
//!
//! nginx has the same settings once per protocol (`proxy_read_timeout`, `fastcgi_read_timeout`).
//! [`family!`] declares them for one; [`Family`] lets the settings be compiled without knowing
//! whose they are.

use super::directives::{self as d, HSL};
use config::{Directive, read};
use http::directives::TempPath;
use session::tls::{Towards, towards};

use upstream::bind::{self, Bind};

/// Where one family's settings are found.
pub(crate) struct Family {
    /// `proxy`, as names of directives begin.
    pub(crate) name: &'static str,
    /// `http://`, as the error log's URLs begin.
    pub(crate) scheme: &'static str,
    /// What is different over TLS, where that is possible.
    pub(crate) secure: Option<Secure>,
    pub(crate) connect_timeout: &'static Directive<u64>,
    pub(crate) send_timeout: &'static Directive<u64>,
    pub(crate) read_timeout: &'static Directive<u64>,
    pub(crate) next_upstream: &'static Directive<u32>,
    pub(crate) next_upstream_tries: &'static Directive<u64>,
    pub(crate) next_upstream_timeout: &'static Directive<u64>,
    pub(crate) pass_request_headers: &'static Directive<bool>,
    pub(crate) pass_request_body: &'static Directive<bool>,
    pub(crate) request_buffering: &'static Directive<bool>,
    pub(crate) intercept_errors: &'static Directive<bool>,
    pub(crate) ignore_client_abort: &'static Directive<bool>,
    pub(crate) socket_keepalive: &'static Directive<bool>,
    pub(crate) socket_rcvbuf: &'static Directive<u64>,
    pub(crate) socket_sndbuf: &'static Directive<u64>,
    pub(crate) force_ranges: &'static Directive<bool>,
    pub(crate) bind: &'static Directive<Option<Bind>>,
    pub(crate) limit_rate: &'static Directive<config::Template>,
    pub(crate) hide_header: &'static Directive<Vec<u8>>,
    pub(crate) pass_header: &'static Directive<Vec<u8>>,
    pub(crate) ignore_headers: &'static Directive<u32>,
    pub(crate) buffering: &'static Directive<bool>,
    pub(crate) buffer_size: &'static Directive<u64>,
    pub(crate) buffers: &'static Directive<read::Buffers>,
    pub(crate) busy_buffers_size: &'static Directive<u64>,
    pub(crate) max_temp_file_size: &'static Directive<u64>,
    pub(crate) temp_file_write_size: &'static Directive<u64>,
    pub(crate) temp_path: &'static Directive<TempPath>,
    pub(crate) store: &'static Directive<Option<config::Template>>,
    pub(crate) store_access: &'static Directive<u32>,
}

/// A family's way over TLS.
pub(crate) struct Secure {
    /// `https://`
    pub(crate) scheme: &'static str,
    /// How connections are secured.
    pub(crate) towards: &'static Towards,
}

impl Family {
    /// How URLs begin.
    pub(crate) fn scheme(&self, secure: bool) -> &'static str {
        match &self.secure {
            Some(own) if secure => own.scheme,
            _ => self.scheme,
        }
    }

    /// What follows the scheme of an address, and whether that means TLS. Without a scheme all of
    /// it; families that know nothing of TLS have no schemes either.
    pub(crate) fn without_scheme<'a>(&self, address: &'a str) -> (&'a str, bool) {
        let Some(secure) = &self.secure else { return (address, false) };
        let after = |scheme: &str| {
            let (begin, rest) = address.split_at_checked(scheme.len())?;
            begin.eq_ignore_ascii_case(scheme).then_some(rest)
        };
        match (after(self.scheme), after(secure.scheme)) {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => (address, false),
        }
    }

    /// True when answers are buffered; the sizes of gRPC's buffers are nobody's business.
    pub(crate) fn buffers_answers(&self) -> bool {
        self.name != "grpc"
    }

    /// True for `proxy_pass`, whose URLs have a scheme of their own.
    pub(crate) fn is_proxy(&self) -> bool {
        std::ptr::eq(self, &PROXY)
    }
}

/// `proxy_...`
pub(crate) static PROXY: Family = Family {
    name: "proxy",
    scheme: "http://",
    secure: Some(Secure { scheme: "https://", towards: &towards::PROXY }),
    connect_timeout: &d::PROXY_CONNECT_TIMEOUT,
    send_timeout: &d::PROXY_SEND_TIMEOUT,
    read_timeout: &d::PROXY_READ_TIMEOUT,
    next_upstream: &d::PROXY_NEXT_UPSTREAM,
    next_upstream_tries: &d::PROXY_NEXT_UPSTREAM_TRIES,
    next_upstream_timeout: &d::PROXY_NEXT_UPSTREAM_TIMEOUT,
    pass_request_headers: &d::PROXY_PASS_REQUEST_HEADERS,
    pass_request_body: &d::PROXY_PASS_REQUEST_BODY,
    request_buffering: &d::PROXY_REQUEST_BUFFERING,
    intercept_errors: &d::PROXY_INTERCEPT_ERRORS,
    ignore_client_abort: &d::PROXY_IGNORE_CLIENT_ABORT,
    socket_keepalive: &d::PROXY_SOCKET_KEEPALIVE,
    socket_rcvbuf: &d::PROXY_SOCKET_RCVBUF,
    socket_sndbuf: &d::PROXY_SOCKET_SNDBUF,
    force_ranges: &d::PROXY_FORCE_RANGES,
    bind: &bind::PROXY_BIND,
    limit_rate: &d::PROXY_LIMIT_RATE,
    hide_header: &d::PROXY_HIDE_HEADER,
    pass_header: &d::PROXY_PASS_HEADER,
    ignore_headers: &d::PROXY_IGNORE_HEADERS,
    buffering: &d::PROXY_BUFFERING,
    buffer_size: &d::PROXY_BUFFER_SIZE,
    buffers: &d::PROXY_BUFFERS,
    busy_buffers_size: &d::PROXY_BUSY_BUFFERS_SIZE,
    max_temp_file_size: &d::PROXY_MAX_TEMP_FILE_SIZE,
    temp_file_write_size: &d::PROXY_TEMP_FILE_WRITE_SIZE,
    temp_path: &d::PROXY_TEMP_PATH,
    store: &d::PROXY_STORE,
    store_access: &d::PROXY_STORE_ACCESS,
};

/// What of a family's directives [`family!`] reads with.
pub(crate) mod readers {
    pub(crate) use super::super::directives::{ignore, next, read_rate, read_store};
    pub(crate) use super::super::store::read_access;
    pub(crate) use config::{Arity, Directive, read};
    pub(crate) use http::directives::read_temp_path;
}

/// Where these directives may stand.
pub(crate) const PLACES: &[config::Context] = HSL;

/// Declares the directives of a family whose names begin with the first word, as statics and as a
/// [`Family`]; `$peer` is what a peer is called in the manual, `$secure` the way over TLS.
macro_rules! family {
    ($name:literal, $peer:literal, secure: $secure:expr, next: $next:literal, $names:expr) => {
        use crate::proxy::family::readers::*;
        use crate::proxy::family::{Family, PLACES};

        const fn flag(name: &'static str, default: &'static str) -> Directive<bool> {
            Directive::new(name, PLACES, read::flag).takes(Arity::Flag).default(default)
        }

        const fn millis(name: &'static str, default: &'static str) -> Directive<u64> {
            Directive::new(name, PLACES, read::time_ms).default(default)
        }

        const fn size(name: &'static str) -> Directive<u64> {
            Directive::new(name, PLACES, read::size)
        }

        pub(super) static CONNECT_TIMEOUT: Directive<u64> =
            millis(concat!($name, "_connect_timeout"), "60s")
                .syntax(concat!($name, "_connect_timeout TIME;"))
                .text(concat!("How long ", $peer, " may take to accept a connection."))
                .example(concat!($name, "_connect_timeout 2s;"));

        pub(super) static SEND_TIMEOUT: Directive<u64> =
            millis(concat!($name, "_send_timeout"), "60s")
                .syntax(concat!($name, "_send_timeout TIME;"))
                .text(concat!("How long ", $peer, " may take nothing of a request."))
                .example(concat!($name, "_send_timeout 10s;"));

        pub(super) static READ_TIMEOUT: Directive<u64> =
            millis(concat!($name, "_read_timeout"), "60s")
                .syntax(concat!($name, "_read_timeout TIME;"))
                .text(concat!("How long ", $peer, " may send nothing of its answer."))
                .example(concat!($name, "_read_timeout 10s;"));

        pub(super) static NEXT_UPSTREAM: Directive<u32> =
            Directive::new(concat!($name, "_next_upstream"), PLACES, |args| {
                read::bitmask(args, $names)
            })
            .takes(Arity::AtLeast(1))
            .default("error timeout")
            .syntax(concat!($name, "_next_upstream ", $next, ";"))
            .text("What makes a request go to the next peer; as with `proxy_next_upstream`.")
            .example(concat!($name, "_next_upstream error timeout;"));

        pub(super) static NEXT_UPSTREAM_TRIES: Directive<u64> =
            Directive::new(concat!($name, "_next_upstream_tries"), PLACES, read::number)
                .default("0")
                .syntax(concat!($name, "_next_upstream_tries NUMBER;"))
                .text("How many peers are asked at most; 0: all.")
                .example(concat!($name, "_next_upstream_tries 2;"));

        pub(super) static NEXT_UPSTREAM_TIMEOUT: Directive<u64> =
            millis(concat!($name, "_next_upstream_timeout"), "0")
                .syntax(concat!($name, "_next_upstream_timeout TIME;"))
                .text("For how long further peers are asked; 0: without limit.")
                .example(concat!($name, "_next_upstream_timeout 5s;"));

        pub(super) static PASS_REQUEST_HEADERS: Directive<bool> =
            flag(concat!($name, "_pass_request_headers"), "on")
                .syntax(concat!($name, "_pass_request_headers on | off;"))
                .text("Whether the client's fields are passed on, as parameters `HTTP_NAME`.")
                .example(concat!($name, "_pass_request_headers off;"));

        pub(super) static PASS_REQUEST_BODY: Directive<bool> =
            flag(concat!($name, "_pass_request_body"), "on")
                .syntax(concat!($name, "_pass_request_body on | off;"))
                .text("Whether the client's body is passed on.")
                .example(concat!($name, "_pass_request_body off;"));

        pub(super) static REQUEST_BUFFERING: Directive<bool> =
            flag(concat!($name, "_request_buffering"), "on")
                .syntax(concat!($name, "_request_buffering on | off;"))
                .text(concat!(
                    "Whether a request's body is taken in whole before ",
                    $peer,
                    " is asked."
                ))
                .example(concat!($name, "_request_buffering off;"));

        pub(super) static INTERCEPT_ERRORS: Directive<bool> =
            flag(concat!($name, "_intercept_errors"), "off")
                .syntax(concat!($name, "_intercept_errors on | off;"))
                .text("Whether answers with statuses that `error_page` names get its pages.")
                .example(concat!($name, "_intercept_errors on;"));

        pub(super) static IGNORE_CLIENT_ABORT: Directive<bool> =
            flag(concat!($name, "_ignore_client_abort"), "off")
                .syntax(concat!($name, "_ignore_client_abort on | off;"))
                .text("Whether a request goes on when the client closes its connection.")
                .example(concat!($name, "_ignore_client_abort on;"));

        pub(super) static SOCKET_KEEPALIVE: Directive<bool> =
            flag(concat!($name, "_socket_keepalive"), "off")
                .syntax(concat!($name, "_socket_keepalive on | off;"))
                .text(concat!("Whether TCP probes connections to ", $peer, " that are silent."))
                .example(concat!($name, "_socket_keepalive on;"));

        pub(super) static SOCKET_RCVBUF: Directive<u64> = size(concat!($name, "_socket_rcvbuf"))
            .syntax(concat!($name, "_socket_rcvbuf SIZE;"))
            .text("The kernel's buffer for what comes from a peer (`SO_RCVBUF`).")
            .example(concat!($name, "_socket_rcvbuf 64k;"));

        pub(super) static SOCKET_SNDBUF: Directive<u64> = size(concat!($name, "_socket_sndbuf"))
            .syntax(concat!($name, "_socket_sndbuf SIZE;"))
            .text("The kernel's buffer for what goes to a peer (`SO_SNDBUF`).")
            .example(concat!($name, "_socket_sndbuf 64k;"));

        pub(super) static FORCE_RANGES: Directive<bool> =
            flag(concat!($name, "_force_ranges"), "off")
                .syntax(concat!($name, "_force_ranges on | off;"))
                .text("Whether clients get parts of answers that do not offer them.")
                .example(concat!($name, "_force_ranges on;"));

        pub(super) static BIND: Directive<Option<upstream::bind::Bind>> =
            Directive::new(concat!($name, "_bind"), PLACES, upstream::bind::read_bind)
                .takes(Arity::Between(1, 2))
                .syntax(concat!($name, "_bind ADDRESS [transparent] | off;"))
                .text("The local address that connections come from; as with `proxy_bind`.")
                .example(concat!($name, "_bind 127.0.0.1;"));

        pub(super) static LIMIT_RATE: Directive<config::Template> =
            Directive::new(concat!($name, "_limit_rate"), PLACES, read_rate)
                .default("0")
                .syntax(concat!($name, "_limit_rate RATE;"))
                .text("How many bytes per second are read of an answer that is buffered; 0: all.")
                .example(concat!($name, "_limit_rate 100k;"));

        pub(super) static HIDE_HEADER: Directive<Vec<u8>> =
            Directive::new(concat!($name, "_hide_header"), PLACES, read::bytes)
                .many()
                .syntax(concat!($name, "_hide_header FIELD;"))
                .text("A field of the answer that the client does not get.")
                .example(concat!($name, "_hide_header X-Powered-By;"));

        pub(super) static PASS_HEADER: Directive<Vec<u8>> =
            Directive::new(concat!($name, "_pass_header"), PLACES, read::bytes)
                .many()
                .syntax(concat!($name, "_pass_header FIELD;"))
                .text("A field of the answer that the client gets though it is usually hidden.")
                .example(concat!($name, "_pass_header X-Accel-Charset;"));

        pub(super) static IGNORE_HEADERS: Directive<u32> =
            Directive::new(concat!($name, "_ignore_headers"), PLACES, |args| {
                read::bitmask(args, ignore::NAMES)
            })
            .takes(Arity::AtLeast(1))
            .syntax(concat!($name, "_ignore_headers FIELD ...;"))
            .text("Fields of the answer that are not obeyed; as with `proxy_ignore_headers`.")
            .example(concat!($name, "_ignore_headers X-Accel-Redirect;"));

        pub(super) static BUFFERING: Directive<bool> = flag(concat!($name, "_buffering"), "on")
            .syntax(concat!($name, "_buffering on | off;"))
            .text("Whether an answer is taken as fast as it comes; as with `proxy_buffering`.")
            .example(concat!($name, "_buffering off;"));

        pub(super) static BUFFER_SIZE: Directive<u64> = size(concat!($name, "_buffer_size"))
            .default("4k")
            .syntax(concat!($name, "_buffer_size SIZE;"))
            .text("The longest head of an answer.")
            .example(concat!($name, "_buffer_size 16k;"));

        pub(super) static BUFFERS: Directive<read::Buffers> =
            Directive::new(concat!($name, "_buffers"), PLACES, read::buffers)
                .takes(Arity::Exactly(2))
                .default("8 4k")
                .syntax(concat!($name, "_buffers NUMBER SIZE;"))
                .text("How much of an answer is kept in memory for a client that is slow.")
                .example(concat!($name, "_buffers 16 8k;"));

        pub(super) static BUSY_BUFFERS_SIZE: Directive<u64> =
            size(concat!($name, "_busy_buffers_size"))
                .syntax(concat!($name, "_busy_buffers_size SIZE;"))
                .text("How much of the buffers may wait for the client while more is read.")
                .example(concat!($name, "_busy_buffers_size 16k;"));

        pub(super) static MAX_TEMP_FILE_SIZE: Directive<u64> =
            Directive::new(concat!($name, "_max_temp_file_size"), PLACES, read::offset)
                .default("1024m")
                .syntax(concat!($name, "_max_temp_file_size SIZE;"))
                .text("How much of an answer that does not fit in memory may go to a file.")
                .example(concat!($name, "_max_temp_file_size 64m;"));

        pub(super) static TEMP_FILE_WRITE_SIZE: Directive<u64> =
            size(concat!($name, "_temp_file_write_size"))
                .syntax(concat!($name, "_temp_file_write_size SIZE;"))
                .text("How much is written to a temporary file at a time.")
                .moot("what was read in one call is written in one call")
                .example(concat!($name, "_temp_file_write_size 64k;"));

        pub(super) static TEMP_PATH: Directive<http::directives::TempPath> =
            Directive::new(concat!($name, "_temp_path"), PLACES, read_temp_path)
                .takes(Arity::Between(1, 4))
                .default(concat!($name, "_temp"))
                .syntax(concat!($name, "_temp_path PATH [LEVEL1 [LEVEL2 [LEVEL3]]];"))
                .text("The folder for answers that do not fit in memory.")
                .example(concat!($name, "_temp_path /var/lib/heng/temp 1 2;"));

        pub(super) static STORE: Directive<Option<config::Template>> =
            Directive::new(concat!($name, "_store"), PLACES, read_store)
                .default("off")
                .syntax(concat!($name, "_store on | off | PATH;"))
                .text("Keeps whole answers with the status 200 as files; as with `proxy_store`.")
                .example(concat!($name, "_store on;"));

        pub(super) static STORE_ACCESS: Directive<u32> =
            Directive::new(concat!($name, "_store_access"), PLACES, read_access)
                .takes(Arity::Between(1, 3))
                .default("user:rw")
                .syntax(concat!($name, "_store_access USERS:PERMISSIONS ...;"))
                .text("Who may read and write stored files; as with `proxy_store_access`.")
                .example(concat!($name, "_store_access user:rw all:r;"));

        pub(super) static FAMILY: Family = Family {
            name: $name,
            scheme: concat!($name, "://"),
            secure: $secure,
            connect_timeout: &CONNECT_TIMEOUT,
            send_timeout: &SEND_TIMEOUT,
            read_timeout: &READ_TIMEOUT,
            next_upstream: &NEXT_UPSTREAM,
            next_upstream_tries: &NEXT_UPSTREAM_TRIES,
            next_upstream_timeout: &NEXT_UPSTREAM_TIMEOUT,
            pass_request_headers: &PASS_REQUEST_HEADERS,
            pass_request_body: &PASS_REQUEST_BODY,
            request_buffering: &REQUEST_BUFFERING,
            intercept_errors: &INTERCEPT_ERRORS,
            ignore_client_abort: &IGNORE_CLIENT_ABORT,
            socket_keepalive: &SOCKET_KEEPALIVE,
            socket_rcvbuf: &SOCKET_RCVBUF,
            socket_sndbuf: &SOCKET_SNDBUF,
            force_ranges: &FORCE_RANGES,
            bind: &BIND,
            limit_rate: &LIMIT_RATE,
            hide_header: &HIDE_HEADER,
            pass_header: &PASS_HEADER,
            ignore_headers: &IGNORE_HEADERS,
            buffering: &BUFFERING,
            buffer_size: &BUFFER_SIZE,
            buffers: &BUFFERS,
            busy_buffers_size: &BUSY_BUFFERS_SIZE,
            max_temp_file_size: &MAX_TEMP_FILE_SIZE,
            temp_file_write_size: &TEMP_FILE_WRITE_SIZE,
            temp_path: &TEMP_PATH,
            store: &STORE,
            store_access: &STORE_ACCESS,
        };
    };
}
pub(crate) use family;
