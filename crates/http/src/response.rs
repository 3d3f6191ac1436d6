//! What is answered: status, fields and body, before it is put on the wire.

use crate::body::Body;
use crate::headers::Headers;
use session::text::Span;

/// An answer in the making. Fields that the engine itself decides about (length, type, date of
/// change, place) stand apart from the list; the sender writes them in nginx's order.
#[derive(Default)]
pub struct Response {
    /// The status code; 0 while there is no answer.
    pub status: u16,
    /// The rest of the status line when a backend chose it: `404 Not here`.
    pub status_line: Option<Span>,
    /// Length of the body in bytes, when known.
    pub length: Option<u64>,
    /// Content-Type, without the charset.
    pub content_type: Option<Span>,
    /// The charset to append to the type.
    pub charset: Option<Span>,
    /// The charset that a backend demands in place of the location's (X-Accel-Charset).
    pub override_charset: Option<Span>,
    /// Last-Modified, in seconds since the epoch, when we know the time itself.
    pub last_modified: Option<u64>,
    /// Location: a path is made absolute by the sender.
    pub location: Option<Span>,
    /// All other fields.
    pub headers: Headers,
    /// Fields that follow the body.
    pub trailers: Headers,
    /// The body.
    pub body: Body,
    /// Where in what `length` speaks of the body begins; ranges must not begin before it.
    pub body_offset: u64,
    /// Whether ranges of this body may be served.
    pub allow_ranges: bool,
    /// The answer came from a backend: statuses may be intercepted.
    pub proxied: bool,
}

impl Response {
    /// Forgets everything but nothing of the allocations behind it.
    pub fn reset(&mut self) {
        let mut headers = std::mem::take(&mut self.headers);
        headers.clear();
        *self = Response { headers, ..Response::default() };
    }
}
