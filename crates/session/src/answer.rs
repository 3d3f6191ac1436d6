//! The answers of servers that the program itself asks something over HTTP/1: checks of health,
//! questions about certificates. What clients are passed is read elsewhere.

use std::future::poll_fn;

use net::Stream;
use wire::http1::{
    ChunkDecoder, ChunkEvent, Field, ParsedResponse, ResponseFraming, ResponseParser, StatusLine,
    Trailers,
};

/// The longest head of an answer.
const HEAD_MAX: usize = 64 * 1024;
/// How much of a body, or of a dialogue, is looked at.
pub const BODY_MAX: usize = 256 * 1024;
const BLOCK: usize = 16 * 1024;

/// Why there is no good answer: what was being done, and perhaps what went wrong.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub doing: &'static str,
    pub reason: Option<String>,
}

impl Fault {
    /// With a reason.
    pub fn of(doing: &'static str, reason: impl Into<String>) -> Fault {
        Fault { doing, reason: Some(reason.into()) }
    }
}

/// Sends all of `bytes`.
///
/// # Errors
/// The connection broke.
pub async fn send(stream: &Stream, bytes: &[u8]) -> Result<(), Fault> {
    let sent = stream.write_all(bytes).await;
    sent.map_err(|error| Fault::of("sending", crate::log::os_text(&error)))
}

/// Appends what comes to `input`; false at the end of the stream.
///
/// # Errors
/// The connection broke.
pub async fn receive(stream: &Stream, input: &mut Vec<u8>) -> Result<bool, Fault> {
    match poll_fn(|cx| stream.poll_lend(cx, BLOCK)).await {
        Ok(block) => {
            input.extend_from_slice(block.filled());
            Ok(!block.is_empty())
        }
        Err(error) => Err(Fault::of("receiving", crate::log::os_text(&error))),
    }
}

/// Reads until a final head is complete: its length and status line.
///
/// # Errors
/// It is none, or too long, or the connection ended.
pub async fn read_head(
    stream: &Stream,
    input: &mut Vec<u8>,
    fields: &mut Vec<Field>,
) -> Result<(usize, StatusLine), Fault> {
    let mut parser = ResponseParser::new(1000);
    loop {
        let open = receive(stream, input).await?;
        loop {
            let parsed = parser.parse(input, fields);
            match parsed.map_err(|_| Fault::of("parsing HTTP answer", "invalid head"))? {
                ParsedResponse::Complete { len, line } if line.status < 200 => {
                    // 100 (Continue) and its like; the real head follows.
                    input.drain(..len);
                    parser = ResponseParser::new(1000);
                }
                ParsedResponse::Complete { len, line } => return Ok((len, line)),
                ParsedResponse::Partial => break,
            }
        }
        if !open {
            return Err(Fault::of("parsing HTTP answer", "closed prematurely"));
        }
        if input.len() > HEAD_MAX {
            return Err(Fault::of("parsing HTTP answer", "too large a head"));
        }
    }
}

/// The first part of the body (at most about [`BODY_MAX`] bytes), and whether that is all of it and
/// nothing came behind it. `input` holds what followed the head.
///
/// # Errors
/// It is not framed well, or the connection ended.
pub async fn read_body(
    stream: &Stream,
    mut input: Vec<u8>,
    framing: ResponseFraming,
) -> Result<(Vec<u8>, bool), Fault> {
    let mut decoder = ChunkDecoder::for_response(Trailers::Skip);
    let mut body = Vec::new();
    loop {
        let over = match framing {
            ResponseFraming::None => true,
            ResponseFraming::Length(length) => {
                let left = usize::try_from(length).unwrap_or(usize::MAX).saturating_sub(body.len());
                body.extend(input.drain(..left.min(input.len())));
                body.len() as u64 >= length
            }
            ResponseFraming::UntilClose => {
                body.append(&mut input);
                false
            }
            ResponseFraming::Chunked => decode(&mut decoder, &mut input, &mut body)?,
        };
        if over {
            return Ok((body, input.is_empty()));
        }
        if body.len() >= BODY_MAX {
            body.truncate(BODY_MAX);
            return Ok((body, false));
        }
        if !receive(stream, &mut input).await? {
            return match framing {
                ResponseFraming::UntilClose => Ok((body, false)),
                _ => Err(Fault::of("reading HTTP body", "closed prematurely")),
            };
        }
    }
}

/// Moves decoded bytes to `body`; true at the end.
fn decode(
    decoder: &mut ChunkDecoder,
    input: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> Result<bool, Fault> {
    let mut at = 0;
    loop {
        let event = decoder.decode(&input[at..]);
        match event.map_err(|_| Fault::of("reading HTTP body", "invalid chunks"))? {
            ChunkEvent::Data { skip, take } => {
                body.extend_from_slice(&input[at + skip..at + skip + take]);
                at += skip + take;
            }
            ChunkEvent::NeedMore { consumed } => {
                input.drain(..at + consumed);
                return Ok(false);
            }
            ChunkEvent::Done { consumed } => {
                input.drain(..at + consumed);
                return Ok(true);
            }
        }
    }
}
