//! Cookies by which browsers are told apart (nginx: ngx_http_userid_filter_module).
//!
//! The directives are in `userid/directives.rs`; this file reads the cookie that a client sends,
//! makes one for a client that sends none, and shows both as variables.

mod directives;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;

use config::Scope;
use http::compile::Compiler;
use http::variables::cookie_value;
use http::{Exchange, Field, Filter, LocationBuilder, Module, credentials};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Builtin;
use system::driver;
use wire::http1::{Known, date};

use directives::{Expires, State};

/// The feature.
pub static MODULE: Module = Module {
    directives: directives::ALL,
    variables: &[
        Builtin::volatile("uid_got", got, "The mark that the client's cookie carries: `uid=`..."),
        Builtin::volatile("uid_set", set, "The mark that this answer gives to the client."),
        Builtin::volatile(
            "uid_reset",
            reset,
            "Set it to another text than an empty one or `0` to give the client a new mark; `log` \
             also writes a line to the error log.",
        )
        .settable(set_reset),
    ],
    location: Some(attach),
    ..Module::new("http_userid", "Gives browsers cookies by which they can be told apart.")
};

/// The bytes of a mark: service, time, worker, number.
type Mark = [u8; 16];
/// Characters of a mark in base64 without its padding.
const ENCODED: usize = 22;

/// What a location says about cookies.
struct Settings {
    state: State,
    name: String,
    domain: Option<String>,
    path: String,
    expires: Expires,
    flags: u32,
    p3p: Option<String>,
    service: Option<u64>,
    mark: Option<u8>,
}

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let settings = Settings::compile(scope);
    if settings.state == State::Off {
        return;
    }
    let settings = Rc::new(settings);
    if settings.state != State::Log {
        builder.filter(SendCookie(settings.clone()));
    }
    builder.keep(settings);
}

impl Settings {
    fn compile(scope: &Scope<'_>) -> Settings {
        use directives as d;
        let text = |directive| Some(scope.get(directive)).filter(|text: &String| text != "none");
        Settings {
            state: scope.get(&d::USERID),
            name: scope.get(&d::USERID_NAME),
            domain: text(&d::USERID_DOMAIN),
            path: scope.get(&d::USERID_PATH),
            expires: scope.get(&d::USERID_EXPIRES),
            flags: scope.get(&d::USERID_FLAGS),
            p3p: text(&d::USERID_P3P),
            service: scope.find(&d::USERID_SERVICE),
            mark: scope.get(&d::USERID_MARK),
        }
    }
}

/// What is known about the client of a request; its subrequests share it.
#[derive(Default)]
struct Client {
    found: RefCell<Option<Found>>,
    /// `$uid_reset`
    reset: RefCell<Vec<u8>>,
}

#[derive(Clone)]
struct Found {
    /// Whose cookie it is.
    settings: Rc<Settings>,
    /// The cookie's text and the mark in it.
    got: Option<(Vec<u8>, Mark)>,
    set: Option<Given>,
}

/// What is given to the client.
#[derive(Clone, Copy)]
enum Given {
    /// A new mark.
    New(Mark),
    /// The mark that it has; the cookie lacks the sign of `userid_mark`.
    Same(Mark),
}

impl Given {
    fn mark(&self) -> &Mark {
        match self {
            Given::New(mark) | Given::Same(mark) => mark,
        }
    }
}

/// What is known about the client, read from the request when it was not asked for yet.
fn found(x: &mut Exchange) -> Option<(Rc<Client>, Found)> {
    let client = x.lasting::<Client>();
    let known = client.found.borrow().clone();
    let here = x.location.kept::<Rc<Settings>>().cloned();
    if let Some(found) = known
        && (!x.is_main() || here.as_ref().is_some_and(|here| Rc::ptr_eq(here, &found.settings)))
    {
        return Some((client, found));
    }
    let settings = here?;
    let got = read_cookie(x, &settings.name);
    let found = Found { settings, got, set: None };
    client.found.replace(Some(found.clone()));
    Some((client, found))
}

/// The client's cookie and its mark.
fn read_cookie(x: &Exchange, name: &str) -> Option<(Vec<u8>, Mark)> {
    let fields = x.request.headers.all(Known::Cookie);
    let (line, cookie) = fields.into_iter().find_map(|field| {
        let line = x.text(field.value);
        let (from, to) = cookie_value(line, name.as_bytes(), b';')?;
        Some((line, &line[from..to]))
    })?;
    let Some(encoded) = cookie.get(..ENCODED) else {
        let line = Bytes(line);
        x.log_error(Level::Error, format_args!("client sent too short userid cookie \"{line}\""));
        return None;
    };
    let Some(mark) = credentials::decode(encoded).and_then(|mark| Mark::try_from(mark).ok()) else {
        let line = Bytes(line);
        x.log_error(Level::Error, format_args!("client sent invalid userid cookie \"{line}\""));
        return None;
    };
    // A mark whose number is 0 is none.
    (words(&mark)[3] != 0).then(|| (cookie.to_vec(), mark))
}

/// A mark as nginx prints it: four numbers in the order of the machine's bytes.
fn words(mark: &Mark) -> [u32; 4] {
    let word = |at: usize| {
        let bytes = [mark[at], mark[at + 1], mark[at + 2], mark[at + 3]];
        u32::from_ne_bytes(bytes)
    };
    [word(0), word(4), word(8), word(12)]
}

/// What the client is to be given, decided once for a request.
fn give(x: &mut Exchange) -> Option<Found> {
    let (client, mut found) = found(x)?;
    if found.settings.state == State::Log || found.set.is_some() {
        return Some(found);
    }
    let settings = found.settings.clone();
    found.set = match &found.got {
        Some((cookie, mark)) if !is_reset(x, &client, &settings, mark) => {
            let signed = settings.mark.is_none_or(|sign| {
                cookie.get(ENCODED..).is_some_and(|rest| rest.starts_with(&[sign, b'=']))
            });
            (!signed).then_some(Given::Same(*mark))
        }
        _ => Some(Given::New(new_mark(x, &settings))),
    };
    client.found.replace(Some(found.clone()));
    Some(found)
}

fn is_reset(x: &Exchange, client: &Client, settings: &Settings, mark: &Mark) -> bool {
    let wish = client.reset.borrow();
    if matches!(wish.as_slice(), b"" | b"0") {
        return false;
    }
    if wish.as_slice() == b"log" {
        let (name, [a, b, c, d]) = (&settings.name, words(mark));
        let message =
            format_args!("userid cookie \"{name}={a:08X}{b:08X}{c:08X}{d:08X}\" was reset");
        x.log_error(Level::Notice, message);
    }
    true
}

thread_local! {
    /// What tells workers apart: made at a worker's first use.
    static WORKER: u32 = worker();
    /// The next number of a mark of either version.
    static NEXT_V1: Cell<u32> = const { Cell::new(1) };
    static NEXT_V2: Cell<u32> = const { Cell::new(FIRST_V2) };
}

/// Versions of marks are told apart by their numbers' last byte.
const FIRST_V2: u32 = 0x0303_0302;
const STEP: u32 = 0x100;

fn worker() -> u32 {
    let (_, nanoseconds) = driver::wall();
    // The most significant part of the microseconds that fits into 16 bits.
    ((nanoseconds / 1000 / 20) << 16) | std::process::id()
}

/// A mark that nobody has.
fn new_mark(x: &Exchange, settings: &Settings) -> Mark {
    let now = driver::wall().0 as u32;
    let worker = WORKER.with(|worker| *worker);
    let service = settings.service.map(|service| service as u32);
    if settings.state == State::V1 {
        let number = NEXT_V1.get();
        NEXT_V1.set(number.wrapping_add(STEP));
        return joined([service.unwrap_or(0), now, worker, number].map(u32::to_ne_bytes));
    }
    let number = NEXT_V2.get();
    NEXT_V2.set(number.wrapping_add(STEP).max(FIRST_V2));
    let server = match (service, x.connection.local().map(|address| address.ip())) {
        (Some(service), _) => service.to_be_bytes(),
        (None, Some(IpAddr::V4(address))) => address.octets(),
        (None, Some(IpAddr::V6(address))) => {
            let [.., a, b, c, d] = address.octets();
            [a, b, c, d]
        }
        (None, None) => [0; 4],
    };
    joined([server, now.to_be_bytes(), worker.to_be_bytes(), number.to_be_bytes()])
}

fn joined(parts: [[u8; 4]; 4]) -> Mark {
    let mut mark = [0; 16];
    for (to, from) in mark.iter_mut().zip(parts.as_flattened()) {
        *to = *from;
    }
    mark
}

/// The filter that adds the cookie to answers.
struct SendCookie(Rc<Settings>);

impl Filter for SendCookie {
    fn apply(&self, x: &mut Exchange) {
        if !x.is_main() {
            return;
        }
        let Some(Found { got, set: Some(given), .. }) = give(x) else { return };
        let settings = &*self.0;
        let mut cookie = settings.name.clone().into_bytes();
        cookie.push(b'=');
        let encoded = cookie.len();
        match (given, got) {
            (Given::Same(_), Some((sent, _))) => cookie.extend_from_slice(&sent[..ENCODED]),
            (given, _) => encode(given.mark(), &mut cookie),
        }
        debug_assert_eq!(cookie.len(), encoded + ENCODED);
        cookie.extend_from_slice(&[settings.mark.unwrap_or(b'='), b'=']);
        settings.push_attributes(&mut cookie);
        let value = x.arena.push(&cookie);
        x.response.headers.push_known(Known::SetCookie, value);
        if let Some(p3p) = &settings.p3p {
            let name = x.arena.push(b"P3P");
            let value = x.arena.push(p3p.as_bytes());
            x.response.headers.push(Field { name, value, known: Known::of(b"P3P") });
        }
    }
}

impl Settings {
    fn push_attributes(&self, cookie: &mut Vec<u8>) {
        match self.expires {
            Expires::Session => {}
            Expires::Max => cookie.extend_from_slice(b"; expires=Thu, 31-Dec-37 23:55:55 GMT"),
            Expires::After(seconds) => {
                cookie.extend_from_slice(b"; expires=");
                let until = driver::wall().0.saturating_add(seconds);
                date::format_cookie(i64::try_from(until).unwrap_or(i64::MAX), cookie);
            }
        }
        if let Some(domain) = &self.domain {
            cookie.extend_from_slice(b"; domain=");
            cookie.extend_from_slice(domain.as_bytes());
        }
        cookie.extend_from_slice(b"; path=");
        cookie.extend_from_slice(self.path.as_bytes());
        for (name, flag) in directives::FLAGS {
            if *flag != 0 && self.flags & flag != 0 {
                cookie.extend_from_slice(b"; ");
                cookie.extend_from_slice(name.as_bytes());
            }
        }
    }
}

/// Appends a mark in base64 (RFC 4648 section 4) without padding.
fn encode(mark: &Mark, out: &mut Vec<u8>) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in mark.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for at in 0..=group.len() {
            out.push(ALPHABET[(bits >> (18 - 6 * at)) as usize & 63]);
        }
    }
}

/// `$uid_got`
fn got(x: &mut Exchange) -> Option<Span> {
    let (_, found) = found(x)?;
    let (_, mark) = found.got.as_ref()?;
    Some(shown(x, &found.settings.name, mark))
}

/// `$uid_set`
fn set(x: &mut Exchange) -> Option<Span> {
    let found = give(x)?;
    let given = found.set?;
    Some(shown(x, &found.settings.name, given.mark()))
}

fn shown(x: &mut Exchange, name: &str, mark: &Mark) -> Span {
    let [a, b, c, d] = words(mark);
    x.arena.format(format_args!("{name}={a:08X}{b:08X}{c:08X}{d:08X}"))
}

/// `$uid_reset`
fn reset(x: &mut Exchange) -> Option<Span> {
    let client = x.peek_lasting::<Client>();
    Some(client.map_or(Span::EMPTY, |client| x.arena.push(&client.reset.borrow())))
}

fn set_reset(x: &mut Exchange, value: Span) {
    let client = x.lasting::<Client>();
    client.reset.replace(x.text(value).to_vec());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_in_base64_and_back() {
        for mark in [[0; 16], [255; 16], *b"0123456789abcdef"] {
            let mut text = Vec::new();
            encode(&mark, &mut text);
            assert_eq!(text.len(), ENCODED);
            assert_eq!(credentials::decode(&text).as_deref(), Some(&mark[..]));
        }
        let mut text = Vec::new();
        encode(b"0123456789abcdef", &mut text);
        assert_eq!(text, b"MDEyMzQ1Njc4OWFiY2RlZg");
    }
}
