//! Server Side Includes: commands in texts that put other texts in their place
//! (nginx: ngx_http_ssi_filter_module).
//!
//! `scan` finds commands in a body, `command` obeys them, `text` computes what their values say,
//! `memory` holds what pages of one client request share, `body` puts it all in order while the
//! body passes. Conditions may be nested, which nginx's may not.

mod body;
mod command;
mod memory;
mod scan;
mod text;

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Exchange, Filter, LocationBuilder, Module};
use session::contexts::{HTTP, IF_LOCATION, LOCATION, SERVER};
use session::text::Span;
use session::variables::Builtin;
use std::ffi::CString;
use std::rc::Rc;
use system::clock::{Zone, formatted};
use wire::http1::Known;

use crate::output;
use crate::sub_filter::weaken_etag;
use crate::type_list::{self, TypeList};
use body::Included;
use memory::Memory;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];
const PLACES_AND_IF: &[Context] = &[HTTP, SERVER, LOCATION, IF_LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new(
        "http_ssi",
        "Obeys commands in pages: `<!--#include virtual=\"/footer.html\" -->` puts the answer to \
         another request in its place. Commands are `block`, `config`, `echo`, `if`, `elif`, \
         `else`, `endif`, `include` and `set`. Includes of one page are asked for at the same \
         time, unless they say `wait=\"yes\"`, and sent in their order. Conditions may be nested.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[
    &SSI,
    &SSI_TYPES,
    &SSI_SILENT_ERRORS,
    &SSI_VALUE_LENGTH,
    &SSI_LAST_MODIFIED,
    &SSI_MIN_FILE_CHUNK,
    &SUBREQUEST_OUTPUT_BUFFER_SIZE,
];

/// `ssi`.
pub static SSI: Directive<bool> = Directive::new("ssi", PLACES_AND_IF, read::flag)
    .takes(Arity::Flag)
    .default("off")
    .syntax("ssi on | off;")
    .text(
        "Whether commands in answers are obeyed. Such an answer is sent without Content-Length \
         and cannot be asked for in parts.",
    )
    .example("ssi on;");

/// `ssi_types`.
pub static SSI_TYPES: Directive<Vec<String>> = Directive::new("ssi_types", PLACES, type_list::read)
    .takes(Arity::AtLeast(1))
    .many()
    .default("text/html")
    .syntax("ssi_types TYPE ...;")
    .text(
        "Answers of which media types are looked into, besides text/html, which always is. \
             `*` stands for any type.",
    )
    .example("ssi_types text/css;");

/// `ssi_silent_errors`.
pub static SSI_SILENT_ERRORS: Directive<bool> =
    Directive::new("ssi_silent_errors", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("ssi_silent_errors on | off;")
        .text(
            "Whether a mistake in a command leaves nothing in its place rather than a text that \
             says so (`config errmsg=`). The error log has the mistake in any case.",
        )
        .example("ssi_silent_errors on;");

/// `ssi_value_length`.
pub static SSI_VALUE_LENGTH: Directive<u64> =
    Directive::new("ssi_value_length", PLACES, read::size)
        .default("256")
        .syntax("ssi_value_length SIZE;")
        .text("The longest value of a parameter of a command.")
        .example("ssi_value_length 1k;");

/// `ssi_last_modified`.
pub static SSI_LAST_MODIFIED: Directive<bool> =
    Directive::new("ssi_last_modified", PLACES, read::flag)
        .takes(Arity::Flag)
        .default("off")
        .syntax("ssi_last_modified on | off;")
        .text(
            "Whether answers that are looked into keep Last-Modified, and ETag in its weak form. \
             Leave it off where what is included changes on its own.",
        )
        .example("ssi_last_modified on;");

/// `ssi_min_file_chunk`.
pub static SSI_MIN_FILE_CHUNK: Directive<u64> =
    Directive::new("ssi_min_file_chunk", PLACES, read::size)
        .default("1k")
        .syntax("ssi_min_file_chunk SIZE;")
        .text("The shortest part of a file between commands that the kernel sends by itself.")
        .moot("files are read to look for commands, and what was read is sent from memory")
        .example("ssi_min_file_chunk 4k;");

/// `subrequest_output_buffer_size`.
pub static SUBREQUEST_OUTPUT_BUFFER_SIZE: Directive<u64> =
    Directive::new("subrequest_output_buffer_size", PLACES, read::size)
        .default("4k")
        .syntax("subrequest_output_buffer_size SIZE;")
        .text(
            "The longest answer that `include ... set=` may put into a variable. A longer one ends \
             the connection. nginx's default is the size of a memory page: 4k or 8k.",
        )
        .example("subrequest_output_buffer_size 16k;");

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::volatile(
        "date_local",
        date_local,
        "The time in the local zone, as `config timefmt=` of a page says.",
    ),
    Builtin::volatile("date_gmt", date_gmt, "The same in GMT."),
];

/// The form of dates until a page says otherwise.
const DATE: &std::ffi::CStr = c"%A, %d-%b-%Y %H:%M:%S %Z";

/// `config timefmt=` of a page.
#[derive(Default)]
struct DateForm(Option<CString>);

fn date_local(x: &mut Exchange) -> Option<Span> {
    date(x, Zone::Local)
}

fn date_gmt(x: &mut Exchange) -> Option<Span> {
    date(x, Zone::Universal)
}

fn date(x: &mut Exchange, zone: Zone) -> Option<Span> {
    let now = system::driver::wall().0 as i64;
    let form = x.peek_state::<DateForm>().and_then(|form| form.0.as_deref()).unwrap_or(DATE);
    if form == c"%s" {
        return Some(x.arena.number(now as u64));
    }
    let text = formatted(form, now, zone);
    Some(x.arena.push(&text))
}

/// What a level of the configuration says.
struct Settings {
    types: TypeList,
    silent: bool,
    longest_value: usize,
    keeps_age: bool,
    /// Longest answer that becomes a variable.
    longest_answer: usize,
    /// Bytes of a file that are read at a time.
    read: usize,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let size = |size: u64| usize::try_from(size).unwrap_or(usize::MAX);
    scope.get(&SSI_MIN_FILE_CHUNK);
    let settings = Settings {
        types: TypeList::compile(scope.all(&SSI_TYPES)),
        silent: scope.get(&SSI_SILENT_ERRORS),
        longest_value: size(scope.get(&SSI_VALUE_LENGTH)),
        keeps_age: scope.get(&SSI_LAST_MODIFIED),
        longest_answer: size(scope.get(&SUBREQUEST_OUTPUT_BUFFER_SIZE)),
        read: output::block_size(scope),
    };
    if scope.get(&SSI) {
        let settings = Rc::new(settings);
        builder.keep(settings.clone());
        builder.filter(Ssi { settings });
    }
}

struct Ssi {
    settings: Rc<Settings>,
}

impl Filter for Ssi {
    fn apply(&self, x: &mut Exchange) {
        if matches!(x.response.body, Body::Tunnel(_))
            || x.response.length == Some(0)
            || !self.settings.types.has(x)
        {
            return;
        }
        if x.is_main() {
            let response = &mut x.response;
            response.length = None;
            response.allow_ranges = false;
            response.headers.remove(Known::AcceptRanges);
            if self.settings.keeps_age {
                weaken_etag(x);
            } else {
                response.last_modified = None;
                response.headers.remove(Known::LastModified);
                response.headers.remove(Known::Etag);
            }
        }
        // Made here, so that all pages of the request find the same.
        x.lasting::<Memory>();
        if let body @ (Body::Whole(_) | Body::Stream(_)) = std::mem::take(&mut x.response.body) {
            x.response.body = included(body, &self.settings);
        }
    }
}

/// `body` with its commands obeyed.
fn included(body: Body, settings: &Rc<Settings>) -> Body {
    let body = Body::Stream(Box::new(output::Reader::new(body, settings.read)));
    Body::Stream(Box::new(Included::new(body, settings.clone())))
}
