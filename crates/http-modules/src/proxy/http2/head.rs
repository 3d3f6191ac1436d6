//! Heads between HTTP/1 and HTTP/2: the rest of the module writes and reads them as lines.

use super::super::request::Head;
use session::log::Bytes;
use wire::http1::Known;
use wire::http2::HeaderList;
use wire::http2::hpack;

/// What an answer's header list says of what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Follows {
    /// The head of the answer: this was an interim one.
    Head,
    /// A body of this length.
    Length(u64),
    /// A body that ends where the stream ends.
    Body,
    /// Nothing, whatever the fields say.
    Nothing,
}

/// A head of HTTP/1 that we wrote ourselves, as a header list (RFC 9113 section 8.3.1).
pub(super) fn encode(head: &Head, secure: bool) -> Vec<u8> {
    let Head { bytes, keeps_host, .. } = head;
    let head: &[u8] = bytes;
    let mut lines = head.split(|byte| *byte == b'\n').map(|line| line.trim_ascii_end());
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let target = line
        .get(method.len() + 1..)
        .and_then(|rest| rest.strip_suffix(b" HTTP/1.1"))
        .unwrap_or(b"/");
    let mut out = Vec::with_capacity(head.len());
    hpack::encode(&mut out, b":method", method);
    hpack::encode(&mut out, b":scheme", if secure { b"https" } else { b"http" });
    hpack::encode(&mut out, b":path", target);
    let fields = lines.filter_map(field);
    let host = fields.clone().find(|(name, _)| Known::of(name) == Known::Host);
    if let Some((_, host)) = host.filter(|_| !keeps_host) {
        hpack::encode(&mut out, b":authority", host);
    }
    for (name, value) in fields {
        match Known::of(name) {
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => {}
            Known::Host if !keeps_host => {}
            Known::Te if !value.eq_ignore_ascii_case(b"trailers") => {}
            _ => hpack::encode(&mut out, name, value),
        }
    }
    out
}

/// A line of a head as name and value.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..at], line[at + 1..].trim_ascii_start()))
}

/// Appends an answer's header list as a head of HTTP/1; `end`: no body follows.
///
/// # Errors
/// Why it is none, in nginx's words.
pub(super) fn decode(
    list: &HeaderList,
    is_head: bool,
    end: bool,
    out: &mut Vec<u8>,
) -> Result<Follows, String> {
    let status = status(list)?;
    let code: Option<u16> = match status {
        [b'1'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
            std::str::from_utf8(status).ok().and_then(|text| text.parse().ok())
        }
        _ => None,
    };
    let Some(code) = code else {
        return Err(format!("upstream sent invalid :status \"{}\"", Bytes(status)));
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    match wire::http1::status::status_text(code) {
        Some(text) => out.extend_from_slice(text.as_bytes()),
        None => out.extend_from_slice(format!("{code} ").as_bytes()),
    }
    out.extend_from_slice(b"\r\n");
    fields(list, out)?;
    if code / 100 == 1 {
        out.extend_from_slice(b"\r\n");
        return match end || code == 101 {
            true => Err("upstream sent no answer".to_owned()),
            false => Ok(Follows::Head),
        };
    }
    let length = list.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"content-length"));
    let length = length.and_then(|(_, value)| wire::http1::content_length(value));
    let follows = match length {
        _ if is_head || code == 204 || code == 304 => Follows::Nothing,
        Some(length) => Follows::Length(length),
        None if end => {
            out.extend_from_slice(b"Content-Length: 0\r\n");
            Follows::Length(0)
        }
        None => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Follows::Body
        }
    };
    out.extend_from_slice(b"\r\n");
    Ok(follows)
}

/// The one pseudo-header field of an answer, which comes first (RFC 9113 sections 8.3 and 8.3.2).
fn status(list: &HeaderList) -> Result<&[u8], String> {
    let mut status = None;
    let mut had_field = false;
    for (name, value) in list.iter() {
        match name {
            b":status" if status.is_some() => {
                return Err("upstream sent duplicate :status header".to_owned());
            }
            b":status" if !had_field => status = Some(value),
            [b':', ..] => return Err(unexpected(name, value)),
            _ => had_field = true,
        }
    }
    status.ok_or_else(|| "upstream sent no :status header".to_owned())
}

fn unexpected(name: &[u8], value: &[u8]) -> String {
    format!("upstream sent invalid header: \"{}: {}\"", Bytes(name), Bytes(value))
}

/// Appends the fields behind a body as lines.
///
/// # Errors
/// A field that is none, in nginx's words.
pub(super) fn trailers(list: &HeaderList) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    if let Some((name, value)) = list.iter().find(|(name, _)| name.starts_with(b":")) {
        return Err(unexpected(name, value));
    }
    fields(list, &mut out)?;
    out.extend_from_slice(b"\r\n");
    Ok(out)
}

/// Appends fields as lines, without those that HTTP/2 has no use for.
///
/// # Errors
/// A field that is none, in nginx's words.
fn fields(list: &HeaderList, out: &mut Vec<u8>) -> Result<(), String> {
    for (name, value) in list.iter() {
        if name.starts_with(b":") {
            continue;
        }
        let usual = |b: &u8| {
            matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9')
                || matches!(b, b'^' | b'_' | b'`' | b'a'..=b'z' | b'|' | b'~')
        };
        let broken = |b: &u8| matches!(b, 0 | b'\r' | b'\n');
        if !name.iter().all(usual) || value.iter().any(broken) {
            return Err(unexpected(name, value));
        }
        match Known::of(name) {
            // They speak of connections, of which HTTP/2 knows nothing.
            Known::Connection
            | Known::KeepAlive
            | Known::ProxyConnection
            | Known::TransferEncoding
            | Known::Upgrade => {}
            _ => {
                out.extend_from_slice(name);
                out.extend_from_slice(b": ");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
            }
        }
    }
    Ok(())
}
