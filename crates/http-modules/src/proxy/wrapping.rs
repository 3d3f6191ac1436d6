//! What stands around the pieces of a request's body on its way to a backend.

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

/// Queues pieces as one chunk (RFC 9112 section 7.1).
pub(super) fn push_chunk(out: &mut OutQueue, pieces: impl IntoIterator<Item = Chunk> + Clone) {
    let size: usize = pieces.clone().into_iter().map(|piece| piece.len()).sum();
    out.push(Data::from(format!("{size:x}\r\n").into_bytes()));
    pieces.into_iter().for_each(|piece| out.push(piece));
    out.push(Data::from(&b"\r\n"[..]));
}
