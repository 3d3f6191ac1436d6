//! Answers of other locations before and after a body (nginx: ngx_http_addition_filter_module).

use config::{AnyDirective, Arity, Context, Directive, Scope, read};
use http::compile::Compiler;
use http::{Body, Broken, Exchange, Filter, LocationBuilder, Module, Part, Piece, Pull};
use session::contexts::{HTTP, LOCATION, SERVER};
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};
use wire::http1::Known;

use crate::sub_filter::weaken_etag;
use crate::type_list::{self, TypeList};

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_addition",
        "Puts the answers of other locations before and after a body: a header and a footer.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&ADD_BEFORE_BODY, &ADD_AFTER_BODY, &ADDITION_TYPES];

/// `add_before_body`.
pub static ADD_BEFORE_BODY: Directive<String> =
    Directive::new("add_before_body", PLACES, read::text)
        .syntax("add_before_body URI;")
        .text(
            "Puts the answer to URI, asked for within this server, before the body of answers \
             with the status 200. Such an answer is sent without Content-Length and cannot be \
             asked for in parts. An empty URI takes back what an outer level says.",
        )
        .example("add_before_body /header.html;");

/// `add_after_body`.
pub static ADD_AFTER_BODY: Directive<String> = Directive::new("add_after_body", PLACES, read::text)
    .syntax("add_after_body URI;")
    .text("The same behind the body.")
    .example("add_after_body /footer.html;");

/// `addition_types`.
pub static ADDITION_TYPES: Directive<Vec<String>> =
    Directive::new("addition_types", PLACES, type_list::read)
        .takes(Arity::AtLeast(1))
        .many()
        .default("text/html")
        .syntax("addition_types TYPE ...;")
        .text(
            "Which media types of answers are added to, besides text/html, which always is. `*` \
             stands for any type.",
        )
        .example("addition_types text/plain;");

fn attach(_: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let types = TypeList::compile(scope.all(&ADDITION_TYPES));
    let uri =
        |directive: &Directive<String>| scope.find(directive).unwrap_or_default().into_bytes();
    let (before, after): (Rc<[u8]>, Rc<[u8]>) =
        (uri(&ADD_BEFORE_BODY).into(), uri(&ADD_AFTER_BODY).into());
    if !before.is_empty() || !after.is_empty() {
        builder.filter(Addition { before, after, types });
    }
}

struct Addition {
    before: Rc<[u8]>,
    after: Rc<[u8]>,
    types: TypeList,
}

impl Filter for Addition {
    fn apply(&self, x: &mut Exchange) {
        if x.response.status != 200
            || !x.is_main()
            || matches!(x.response.body, Body::Tunnel(_))
            || !self.types.has(x)
        {
            return;
        }
        let response = &mut x.response;
        response.length = None;
        response.allow_ranges = false;
        response.headers.remove(Known::AcceptRanges);
        weaken_etag(x);
        let body = std::mem::take(&mut x.response.body);
        let step = Step::Before(self.before.clone());
        let after = self.after.clone();
        x.response.body = Body::Stream(Box::new(Added { step, body, after }));
    }
}

/// A body between two others.
struct Added {
    step: Step,
    body: Body,
    after: Rc<[u8]>,
}

/// What comes next: the parts are asked for when it is their turn.
enum Step {
    Before(Rc<[u8]>),
    Part { part: Part, is_last: bool },
    Body,
    After,
    End,
}

impl Added {
    /// Begins a part; an empty URI has none.
    fn begin(&mut self, x: &mut Exchange, uri: &[u8], is_last: bool) -> Result<(), Broken> {
        self.step = match (uri.is_empty(), is_last) {
            (false, _) => Step::Part { part: Part::new(x, uri, b"").ok_or(Broken)?, is_last },
            (true, false) => Step::Body,
            (true, true) => Step::End,
        };
        Ok(())
    }
}

impl Pull for Added {
    fn poll_pull(
        &mut self,
        cx: &mut Task<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            match &mut self.step {
                Step::Before(uri) => {
                    let uri = uri.clone();
                    self.begin(x, &uri, false)?;
                }
                Step::Part { part, is_last } => match ready!(part.poll_pull(cx, x))? {
                    Some(piece) => return Poll::Ready(Ok(Some(piece))),
                    None => self.step = if *is_last { Step::End } else { Step::Body },
                },
                Step::Body => match ready!(self.body.poll_pull(cx, x))? {
                    Some(piece) => return Poll::Ready(Ok(Some(piece))),
                    None => self.step = Step::After,
                },
                Step::After => {
                    let uri = self.after.clone();
                    self.begin(x, &uri, true)?;
                }
                Step::End => return Poll::Ready(Ok(None)),
            }
        }
    }

    fn poll_ahead(&mut self, cx: &mut Task<'_>, x: &mut Exchange) {
        if let Step::Part { part, .. } = &mut self.step {
            part.poll_ahead(cx, x);
        }
        self.body.poll_ahead(cx, x);
    }
}
