//! `fastcgi_pass`: hands a request to a program by FastCGI (nginx: ngx_http_fastcgi_module).

use config::{AnyDirective, Context, Scope};
use http::compile::Compiler;
use http::{Exchange, LocationBuilder, Module};
use session::contexts::{IF_LOCATION, LIMIT_EXCEPT, LOCATION};
use session::regex::{Case, Regex};
use session::text::Span;
use session::variables::Builtin;

use crate::parameters::{self, Line};
use crate::proxy::family::family;
use crate::proxy::gateway::{Gateway, Protocol};
use crate::proxy::pass_by_gateway;

family!(
    "fastcgi",
    "a program",
    secure: None,
    next: "error | timeout | invalid_header | http_500 | http_503 | http_403 | http_404 | \
           http_429 | non_idempotent | off ...",
    next::NAMES
);

const PASS_PLACES: &[Context] = &[LOCATION, IF_LOCATION, LIMIT_EXCEPT];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new(
        "http_fastcgi",
        "Passes requests to programs by FastCGI, such as PHP. What the settings do is what those \
         of `proxy_pass` do that are called alike.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &FASTCGI_PASS,
    &FASTCGI_PARAM,
    &FASTCGI_INDEX,
    &FASTCGI_SPLIT_PATH_INFO,
    &FASTCGI_KEEP_CONN,
    &FASTCGI_CATCH_STDERR,
    &FASTCGI_SEND_LOWAT,
    &CONNECT_TIMEOUT,
    &SEND_TIMEOUT,
    &READ_TIMEOUT,
    &NEXT_UPSTREAM,
    &NEXT_UPSTREAM_TRIES,
    &NEXT_UPSTREAM_TIMEOUT,
    &SOCKET_KEEPALIVE,
    &SOCKET_RCVBUF,
    &SOCKET_SNDBUF,
    &FORCE_RANGES,
    &BIND,
    &BUFFER_SIZE,
    &PASS_REQUEST_HEADERS,
    &PASS_REQUEST_BODY,
    &REQUEST_BUFFERING,
    &INTERCEPT_ERRORS,
    &IGNORE_CLIENT_ABORT,
    &LIMIT_RATE,
    &HIDE_HEADER,
    &PASS_HEADER,
    &IGNORE_HEADERS,
    &BUFFERING,
    &BUFFERS,
    &BUSY_BUFFERS_SIZE,
    &MAX_TEMP_FILE_SIZE,
    &TEMP_FILE_WRITE_SIZE,
    &TEMP_PATH,
    &STORE,
    &STORE_ACCESS,
];

/// `fastcgi_pass`.
pub static FASTCGI_PASS: Directive<config::Template> =
    Directive::new("fastcgi_pass", PASS_PLACES, read::template)
        .syntax("fastcgi_pass ADDRESS;")
        .text(
            "Passes requests to the program at ADDRESS: a host with a port, `unix:PATH`, or the \
             name of a group. It may hold variables.",
        )
        .example(
            "location ~ \\.php$ {\n    \
             fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n    \
             fastcgi_pass unix:/run/php.sock;\n}",
        );

/// `fastcgi_param`.
pub static FASTCGI_PARAM: Directive<Line> =
    Directive::new("fastcgi_param", PLACES, parameters::read_line)
        .takes(Arity::Between(2, 3))
        .many()
        .syntax("fastcgi_param NAME VALUE [if_not_empty];")
        .text(
            "What the program is told about the request; with `if_not_empty` only what is not \
             empty. The client's fields are told as `HTTP_NAME` unless a parameter has that name. \
             A level with lines of its own does not inherit others.",
        )
        .example("fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;");

/// `fastcgi_index`.
pub static FASTCGI_INDEX: Directive<config::Template> =
    Directive::new("fastcgi_index", PLACES, read::template)
        .syntax("fastcgi_index NAME;")
        .text("What `$fastcgi_script_name` gets at its end where it ends in a slash.")
        .example("fastcgi_index index.php;");

/// `fastcgi_split_path_info`.
pub static FASTCGI_SPLIT_PATH_INFO: Directive<String> =
    Directive::new("fastcgi_split_path_info", PLACES, read::text)
        .syntax("fastcgi_split_path_info PATTERN;")
        .text(
            "A regular expression with two groups that takes paths apart: the first one becomes \
             `$fastcgi_script_name`, the second one `$fastcgi_path_info`.",
        )
        .example("fastcgi_split_path_info ^(.+\\.php)(/.+)$;");

/// `fastcgi_keep_conn`.
pub static FASTCGI_KEEP_CONN: Directive<bool> =
    Directive::new("fastcgi_keep_conn", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("fastcgi_keep_conn on | off;")
        .text("Whether programs are asked to leave connections open for further requests.")
        .example("fastcgi_keep_conn on;");

/// `fastcgi_catch_stderr`.
pub static FASTCGI_CATCH_STDERR: Directive<Vec<u8>> =
    Directive::new("fastcgi_catch_stderr", PLACES, read::bytes)
        .many()
        .syntax("fastcgi_catch_stderr TEXT;")
        .text(
            "An answer is invalid when the program complains with TEXT ahead of it, so that \
             `fastcgi_next_upstream invalid_header` asks another one.",
        )
        .example("fastcgi_catch_stderr \"PHP Fatal error\";");

/// `fastcgi_send_lowat`.
pub static FASTCGI_SEND_LOWAT: Directive<u64> = size("fastcgi_send_lowat")
    .default("0")
    .syntax("fastcgi_send_lowat SIZE;")
    .text("How much room the kernel should have before it tells that a peer can be sent more.")
    .moot("Linux has no such setting for sockets; nginx ignores it there too")
    .example("fastcgi_send_lowat 12000;");

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::volatile(
        "fastcgi_script_name",
        script_name,
        "The path, or its part that `fastcgi_split_path_info` finds, with `fastcgi_index` behind \
         a final slash.",
    ),
    Builtin::volatile(
        "fastcgi_path_info",
        path_info,
        "The second part of the path that `fastcgi_split_path_info` finds.",
    ),
];

/// What the variables of a level are made with.
struct Paths {
    index: Option<session::variables::Template>,
    split: Option<Regex>,
}

/// The parts of the path.
fn split(x: &Exchange) -> (Span, Span) {
    let uri = x.request.uri;
    let regex = x.location.kept::<Paths>().and_then(|paths| paths.split.as_ref());
    let Some(regex) = regex else { return (uri, Span::EMPTY) };
    match regex.captures(&x.arena, uri) {
        Ok(Some(groups)) => {
            (groups.group(1).unwrap_or_default(), groups.group(2).unwrap_or_default())
        }
        Ok(None) => (uri, Span::EMPTY),
        Err(reason) => {
            let pattern = regex.pattern();
            let message = format_args!("pcre2_match() failed: {reason} using \"{pattern}\"");
            x.log_error(session::log::Level::Alert, message);
            (uri, Span::EMPTY)
        }
    }
}

fn script_name(x: &mut Exchange) -> Option<Span> {
    let (name, _) = split(x);
    if !x.text(name).ends_with(b"/") {
        return Some(name);
    }
    let location = x.location.clone();
    let index = location.kept::<Paths>().and_then(|paths| paths.index.as_ref());
    let Some(index) = index else { return Some(name) };
    let index = index.value(x);
    let mark = x.arena.mark();
    x.arena.copy(name);
    x.arena.copy(index);
    Some(x.arena.since(mark))
}

fn path_info(x: &mut Exchange) -> Option<Span> {
    let (_, info) = split(x);
    Some(info)
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let index = scope.find(&FASTCGI_INDEX).map(|index| c.template(&index));
    let split = scope.find_spanned(&FASTCGI_SPLIT_PATH_INFO).and_then(|(pattern, place)| {
        let reason = match Regex::new(&pattern, Case::Sensitive) {
            Ok(regex) if regex.groups() == 3 => return Some(regex),
            Ok(_) => format!("pattern \"{pattern}\" must have 2 captures"),
            Err(reason) => reason,
        };
        scope.error(place, reason);
        None
    });
    if index.is_some() || split.is_some() {
        builder.keep(Paths { index, split });
    }
    scope.get(&FASTCGI_SEND_LOWAT);
    let Some((address, place)) = parameters::pass(scope, &FASTCGI_PASS) else { return };
    let catch = scope.all(&FASTCGI_CATCH_STDERR).into_iter().map(Vec::into_boxed_slice).collect();
    let protocol = Protocol::FastCgi { keep: scope.get(&FASTCGI_KEEP_CONN), catch };
    let parameters = parameters::compile(c, scope, &FASTCGI_PARAM, &FAMILY);
    let gateway = Gateway { protocol, parameters };
    if let Err(reason) = pass_by_gateway(c, scope, builder, &FAMILY, &address, gateway) {
        scope.error(place, reason);
    }
}
