//! The head of an answer as a header list (RFC 9113 section 8.3.2): nginx's own fields first, in
//! nginx's order, then the rest but for those that speak of a connection.

use crate::exchange::Exchange;
use crate::headers::Field;
use crate::send::absolute;
use crate::settings::Tokens;
use session::text::{Span, push_number};
use std::cell::RefCell;
use wire::http1::Known;
use wire::http2::hpack::{self, Memo};

thread_local! {
    static MEMO: RefCell<Memo> = RefCell::default();
}

/// Encodes the head of `x`'s answer.
pub(crate) fn head(x: &mut Exchange) -> Vec<u8> {
    let place = x.response.location.map(|place| absolute(x, place));
    MEMO.with_borrow_mut(|memo| remembering(x, place, memo))
}

fn remembering(x: &Exchange, place: Option<Span>, memo: &mut Memo) -> Vec<u8> {
    let response = &x.response;
    let mut out = Vec::with_capacity(256);
    hpack::encode_status(&mut out, response.status);
    let identity = system::identity::identity();
    if response.headers.find(Known::Server).is_none() {
        let server = match x.location.settings.tokens {
            Tokens::Off => identity.program,
            _ => identity.server,
        };
        memo.encode(&mut out, b"server", server.as_bytes());
    }
    if response.headers.find(Known::Date).is_none() {
        memo.encode(&mut out, b"date", &session::clock::http_date());
    }
    if let Some(kind) = response.content_type {
        match response.charset {
            None => memo.encode(&mut out, b"content-type", x.arena.text(kind)),
            Some(charset) => {
                let parts = [x.arena.text(kind), b"; charset=", x.arena.text(charset)];
                memo.encode(&mut out, b"content-type", &parts.concat());
            }
        }
    }
    if let Some(length) = response.length {
        let mut digits = Vec::with_capacity(20);
        push_number(&mut digits, length);
        hpack::encode(&mut out, b"content-length", &digits);
    }
    if let Some(changed) = response.last_modified {
        let date = wire::http1::date::format(changed as i64);
        memo.encode(&mut out, b"last-modified", &date);
    }
    if let Some(place) = place {
        hpack::encode(&mut out, b"location", x.arena.text(place));
    }
    for field in response.headers.iter().filter(|field| !is_of_connection(field.known)) {
        memo.encode(&mut out, field.name(&x.arena), x.arena.text(field.value));
    }
    out
}

/// Encodes fields that go ahead of the answer (RFC 8297); `None` when there are none.
pub(crate) fn hints(x: &Exchange, fields: &[Field]) -> Option<Vec<u8>> {
    let mut fields = fields.iter().filter(|field| !is_of_connection(field.known)).peekable();
    fields.peek()?;
    let mut out = Vec::with_capacity(64);
    hpack::encode_status(&mut out, 103);
    for field in fields {
        hpack::encode(&mut out, field.name(&x.arena), x.arena.text(field.value));
    }
    Some(out)
}

/// The fields that follow a body, if there are any.
pub(crate) fn trailers(x: &Exchange) -> Option<Vec<u8>> {
    if x.response.trailers.is_empty() {
        return None;
    }
    let mut out = Vec::with_capacity(64);
    for field in x.response.trailers.iter().filter(|field| !is_of_connection(field.known)) {
        hpack::encode(&mut out, field.name(&x.arena), x.arena.text(field.value));
    }
    Some(out)
}

/// Fields that have no place in HTTP/2 (RFC 9113 section 8.2.2).
fn is_of_connection(known: Known) -> bool {
    use Known as K;
    matches!(
        known,
        K::Connection | K::KeepAlive | K::ProxyConnection | K::TransferEncoding | K::Upgrade
    )
}
