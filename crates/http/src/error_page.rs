//! What is answered in place of an error: the pages of `error_page`, and the built-in ones.

use crate::compile::Compiler;
use crate::directives::{self as d, ErrorPageArgs};
use crate::exchange::{Exchange, MAX_REDIRECTS};
use crate::headers::Field;
use crate::module::Verdict;
use crate::settings::Tokens;
use config::Scope;
use net::Data;
use session::text::Span;
use session::variables::Template;
use std::rc::Rc;
use wire::http1::{Known, escape, status};

/// One `error_page`.
pub struct ErrorPage {
    codes: Vec<u16>,
    /// `=STATUS`: the answer's status; `=`: that of the page.
    overwrite: Option<Option<u16>>,
    target: Target,
}

enum Target {
    /// `/path?query`: an internal redirect.
    Path(Template),
    /// `@name`
    Named(Rc<str>),
    /// `http://...`: the client is redirected.
    Url(Template),
}

impl ErrorPage {
    pub(crate) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Rc<[ErrorPage]> {
        scope.all(&d::ERROR_PAGE).into_iter().map(|args| ErrorPage::one(c, args)).collect()
    }

    /// True when the page is for answers with `code`.
    pub fn handles(&self, code: u16) -> bool {
        self.codes.contains(&code)
    }

    fn one(c: &mut Compiler<'_>, args: ErrorPageArgs) -> ErrorPage {
        let target = match args.text.as_bytes() {
            [b'@', ..] => Target::Named(args.text[1..].into()),
            [b'/', ..] => Target::Path(c.template(&args.uri)),
            _ => Target::Url(c.template(&args.uri)),
        };
        ErrorPage { codes: args.codes, overwrite: args.overwrite, target }
    }
}

/// What `error_page` says about an answer with `code`: where the journey goes on, or `None` when
/// the built-in page is to be sent.
pub(crate) fn redirect(x: &mut Exchange, code: u16) -> Option<Verdict> {
    if x.error_page_used {
        return None;
    }
    // Pages that lead to errors again come to an end here.
    if x.redirects > MAX_REDIRECTS {
        return None;
    }
    let location = x.location.clone();
    let page = location.error_pages.iter().find(|page| page.codes.contains(&code))?;
    x.error_page_used = !location.settings.recursive_error_pages;
    x.status_override = match page.overwrite {
        None => Some(code),
        Some(status) => status,
    };
    // Another page does not spare the client the challenge.
    let challenges: Vec<Field> = match code {
        401 => x.response.headers.all(Known::WwwAuthenticate).collect(),
        _ => Vec::new(),
    };
    x.response.reset();
    x.carry(challenges);
    Some(match &page.target {
        Target::Named(name) => Verdict::Named(name.clone()),
        Target::Path(template) => {
            let value = template.value(x);
            let text = x.text(value);
            let at = text.iter().position(|b| *b == b'?');
            let (uri, args) = match at {
                Some(at) => (value.part(0, at), value.after(at + 1)),
                None => (value, Span::EMPTY),
            };
            x.become_get();
            Verdict::Internal { uri, args }
        }
        Target::Url(template) => {
            let place = template.value(x);
            let is_redirect = |status: &u16| matches!(status, 301 | 302 | 303 | 307 | 308);
            let code = x.status_override.take().filter(is_redirect).unwrap_or(302);
            x.response.location = Some(place);
            for field in std::mem::take(&mut x.carried) {
                x.response.headers.push(field);
            }
            match x.location.settings.msie_refresh && is_msie(x) {
                true => refresh(x),
                false => built_in(x, code),
            }
            Verdict::Answer
        }
    })
}

/// True for the statuses after which nginx does not trust the connection's framing any more.
pub(crate) fn ends_connection(code: u16) -> bool {
    matches!(code, 400 | 413 | 414 | 494 | 495 | 496 | 497 | 500 | 501)
}

/// Makes the built-in page for `code`; fields that are set already stay.
pub fn built_in(x: &mut Exchange, code: u16) {
    if matches!(code, 301 | 302) && x.location.settings.msie_refresh && is_msie(x) {
        return refresh(x);
    }
    let page = status::error_page(code);
    let shown = page.map_or(code, |page| page.status);
    x.response.status = x.status_override.take().unwrap_or(shown);
    x.response.allow_ranges = false;
    let Some(page) = page else {
        x.response.length = Some(0);
        x.response.content_type = None;
        x.response.body = crate::body::Body::Empty;
        return;
    };
    let identity = system::identity::identity();
    let server = match x.location.settings.tokens {
        Tokens::Off => identity.program,
        _ => identity.server,
    };
    let detail = page.detail.map_or(String::new(), |d| format!("<center>{d}</center>\r\n"));
    let (title, heading) = (page.title, page.heading);
    let mut text = format!(
        "<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n\
         <center><h1>{heading}</h1></center>\r\n{detail}\
         <hr><center>{server}</center>\r\n</body>\r\n</html>\r\n"
    );
    if code >= 400 && x.location.settings.msie_padding && wants_padding(x) {
        text.extend([PADDING; 6]);
    }
    x.response.length = Some(text.len() as u64);
    x.response.content_type = Some(x.arena.push(b"text/html"));
    x.response.body = crate::body::Body::Whole(Data::from(text.into_bytes()));
}

/// A page that sends the browser on, in place of a redirect.
fn refresh(x: &mut Exchange) {
    let place = x.response.location.take().unwrap_or_default();
    let mut text = b"<html><head><meta http-equiv=\"Refresh\" content=\"0; URL=".to_vec();
    escape::escape_uri(x.text(place), escape::Escape::Refresh, &mut text);
    text.extend_from_slice(b"\"></head><body></body></html>\r\n");
    x.status_override = None;
    x.response.status = 200;
    x.response.allow_ranges = false;
    x.response.last_modified = None;
    x.response.headers.remove(Known::Etag);
    x.response.length = Some(text.len() as u64);
    x.response.content_type = Some(x.arena.push(b"text/html"));
    x.response.body = crate::body::Body::Whole(Data::from(text));
}

const PADDING: &str = "<!-- a padding to disable MSIE and Chrome friendly error page -->\r\n";

/// MSIE and Chrome show pages of their own in place of short ones.
fn wants_padding(x: &Exchange) -> bool {
    is_msie(x) || agent_has(x, b"Chrome/")
}

fn is_msie(x: &Exchange) -> bool {
    agent_has(x, b"MSIE ") && !agent_has(x, b"Opera")
}

fn agent_has(x: &Exchange, word: &[u8]) -> bool {
    let agent = x.request.headers.value(Known::UserAgent).map_or(&b""[..], |agent| x.text(agent));
    agent.windows(word.len()).any(|part| part == word)
}
