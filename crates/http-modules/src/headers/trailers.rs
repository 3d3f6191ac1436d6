//! `add_trailer`: fields behind a body, computed when the body is over.

use config::Scope;
use http::compile::Compiler;
use http::{Body, Broken, Exchange, Filter, LocationBuilder, Piece, Pull};
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use wire::http1::{Method, Version};

use super::{ADD_TRAILER, ADD_TRAILER_INHERIT, Added, is_good, lines};

pub(super) fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    let fields = Added::compile(c, &lines(scope, &ADD_TRAILER, &ADD_TRAILER_INHERIT));
    if !fields.is_empty() {
        builder.filter(AddTrailers { fields: fields.into() });
    }
}

struct AddTrailers {
    fields: Rc<[Added]>,
}

impl Filter for AddTrailers {
    fn apply(&self, x: &mut Exchange) {
        let status = x.response.status;
        let is_good = is_good(status);
        let is_chunked = x.request.version >= Version::HTTP_11
            && x.location.settings.chunked
            && x.request.method != Method::Head
            && !matches!(status, 100..=199 | 204 | 304);
        if !is_chunked || !self.fields.iter().any(|field| is_good || field.always) {
            return;
        }
        x.response.length = None;
        let body = std::mem::take(&mut x.response.body);
        let fields = Some(self.fields.clone());
        x.response.body = Body::Stream(Box::new(Trailed { body, fields }));
    }
}

/// A body with fields behind it.
struct Trailed {
    body: Body,
    /// Present until the body is over.
    fields: Option<Rc<[Added]>>,
}

impl Pull for Trailed {
    fn poll_pull(
        &mut self,
        cx: &mut Context<'_>,
        x: &mut Exchange,
    ) -> Poll<Result<Option<Piece>, Broken>> {
        let piece = ready!(self.body.poll_pull(cx, x));
        if let Ok(None) = piece
            && let Some(fields) = self.fields.take()
        {
            let is_good = is_good(x.response.status);
            for field in fields.iter().filter(|field| is_good || field.always) {
                let value = field.value(x);
                if !value.is_empty() {
                    let field = field.field(x, value);
                    x.response.trailers.push(field);
                }
            }
        }
        Poll::Ready(piece)
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, x: &mut Exchange) {
        self.body.poll_ahead(cx, x);
    }
}
