//! What stands around the pieces of a request's body on its way to a backend.

use super::request;
use super::settings::Settings;
use http::Exchange;
use net::{Chunk, Data, OutQueue};
use wire::gateway::fastcgi;

/// What stands around the pieces of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrapping {
    None,
    /// Chunks of HTTP.
    Chunks,
    /// Records of FastCGI.
    Records,
}

/// Queues a piece as records of FastCGI.
pub(super) fn push_records(out: &mut OutQueue, mut data: Data) {
    while !data.is_empty() {
        let length = data.len().min(fastcgi::MOST as u64);
        let piece = data.split_to(length);
        out.push(Data::from(fastcgi::body_header(length as u16).to_vec()));
        out.push(piece);
    }
}

/// Queues the end of a body in chunks: trailers and an empty line.
pub(super) fn push_end(out: &mut OutQueue, settings: &Settings, x: &Exchange) {
    let trailers = match x.body.trailers.is_empty() {
        true => Vec::new(),
        false => request::trailers(settings, x),
    };
    if trailers.is_empty() {
        out.push(Data::from(&b"0\r\n\r\n"[..]));
        return;
    }
    let mut end = b"0\r\n".to_vec();
    for field in trailers {
        for part in [field.name(&x.arena), b": ", x.text(field.value), b"\r\n"] {
            end.extend_from_slice(part);
        }
    }
    end.extend_from_slice(b"\r\n");
    out.push(Data::from(end));
}

/// Queues a whole body as one chunk, and its end.
pub(super) fn push_whole(out: &mut OutQueue, data: Data, settings: &Settings, x: &Exchange) {
    if !data.is_empty() {
        out.push(Data::from(format!("{:x}\r\n", data.len()).into_bytes()));
        out.push(data);
        out.push(Data::from(&b"\r\n"[..]));
    }
    push_end(out, settings, x);
}

/// Queues pieces as one chunk (RFC 9112 section 7.1).
pub(super) fn push_chunk(out: &mut OutQueue, pieces: impl IntoIterator<Item = Chunk> + Clone) {
    let size: usize = pieces.clone().into_iter().map(|piece| piece.len()).sum();
    out.push(Data::from(format!("{size:x}\r\n").into_bytes()));
    pieces.into_iter().for_each(|piece| out.push(piece));
    out.push(Data::from(&b"\r\n"[..]));
}
