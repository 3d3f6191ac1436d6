//! 103 Early Hints: fields that a backend sends ahead of its answer (RFC 8297).

use crate::exchange::Exchange;
use crate::headers::Field;
use crate::http2;
use net::{Block, Chunk};
use std::task::{Context, Poll};
use wire::http1::{Known, Version};

impl Exchange {
    /// Sends `fields` ahead of the answer, where `early_hints` says so and the client knows of such
    /// answers. What the connection does not take at once goes out with the answer.
    pub fn send_early_hints(&mut self, fields: &[Field]) {
        if !self.is_main() || self.sent.head || self.request.version < Version::HTTP_11 {
            return;
        }
        if !self.wants_early_hints() {
            return;
        }
        if let Some(stream) = self.stream.clone() {
            if let Some(block) = http2::hints(self, fields) {
                stream.send_ahead(&block);
            }
            return;
        }
        let mut text = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
        let empty = text.len();
        for field in fields.iter().filter(|field| !is_of_connection(field.known)) {
            text.extend_from_slice(field.name(&self.arena));
            text.extend_from_slice(b": ");
            text.extend_from_slice(self.text(field.value));
            text.extend_from_slice(b"\r\n");
        }
        if text.len() == empty {
            return;
        }
        text.extend_from_slice(b"\r\n");
        let mut rest = match self.unsent.take() {
            Some(before) => Chunk::copy_of(&[&before[..], &text[..]].concat()),
            None => Block::copy_of(&text).freeze(),
        };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        // A broken connection is found to be so by the answer.
        if let Poll::Ready(Ok(written)) = self.connection.stream.poll_write(&mut cx, &rest) {
            self.sent.bytes += written as u64;
            self.sent.head_bytes += written as u64;
            rest.advance(written);
        }
        self.unsent = Some(rest).filter(|rest| !rest.is_empty());
    }

    fn wants_early_hints(&mut self) -> bool {
        let location = self.location.clone();
        location.settings.early_hints.iter().any(|template| {
            let value = template.value(self);
            !matches!(self.text(value), b"" | b"0")
        })
    }
}

/// Fields that concern one connection or a body.
fn is_of_connection(known: Known) -> bool {
    matches!(
        known,
        Known::Connection
            | Known::KeepAlive
            | Known::TransferEncoding
            | Known::ContentLength
            | Known::ProxyConnection
            | Known::Trailer
            | Known::Upgrade
    )
}
