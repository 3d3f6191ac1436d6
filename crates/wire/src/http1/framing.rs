//! How long a message's body is (RFC 9112 section 6), and whom a request is for (section 3.2).
//!
//! Every shape on which two readers of the same bytes could disagree is refused, whichever
//! reading would be right: that disagreement is request smuggling (RFC 9112 section 11.2).

use super::fault::{BadRequest, BadRequestKind, BadResponse, BadResponseKind, in_field};
use super::host::{Authority, validate_host};
use super::{Field, Form, Known, Method, RequestLine, Version};

/// The body of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    /// So many bytes follow; may be 0.
    Length(u64),
    Chunked,
}

/// The body of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseFraming {
    /// No body whatever the fields say: 1xx, 204, 304, an answer to HEAD or a CONNECT's 2xx.
    None,
    Length(u64),
    Chunked,
    /// Everything until the server closes the connection.
    UntilClose,
}

/// The first field of each of the two framing names, and whether one came twice.
#[derive(Default)]
struct FramingFields<'a> {
    length: Option<&'a Field>,
    encoding: Option<&'a Field>,
    duplicate: Option<&'a Field>,
}

impl<'a> FramingFields<'a> {
    #[inline]
    fn of(fields: &'a [Field]) -> FramingFields<'a> {
        let mut found = FramingFields::default();
        for field in fields {
            let place = match field.known {
                Known::ContentLength => &mut found.length,
                Known::TransferEncoding => &mut found.encoding,
                _ => continue,
            };
            if place.is_some() {
                found.duplicate = found.duplicate.or(Some(field));
            } else {
                *place = Some(field);
            }
        }
        found
    }
}

/// Reads a `Content-Length`: digits only, at most `i64::MAX`; no sign, list, space or base.
pub fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut length = 0i64;
    for &digit in value {
        if !digit.is_ascii_digit() {
            return None;
        }
        length = length.checked_mul(10)?.checked_add(i64::from(digit - b'0'))?;
    }
    u64::try_from(length).ok()
}

/// Decides how a request's body is framed.
///
/// # Errors
/// 400 for a doubled, malformed or contradictory `Content-Length` or `Transfer-Encoding`, for a
/// `Transfer-Encoding` with HTTP/1.0 and for a body with CONNECT; 501 for transfer codings other
/// than `chunked`. The connection must be closed: where the next request starts is unknown.
pub fn request_framing(
    line: &RequestLine,
    head: &[u8],
    fields: &[Field],
) -> Result<Framing, BadRequest> {
    let found = FramingFields::of(fields);
    let refuse = |kind, field: &Field| {
        let (at, line) = in_field(field);
        Err(BadRequest { kind, at, line })
    };
    if let Some(second) = found.duplicate {
        return refuse(BadRequestKind::DuplicateField, second);
    }
    let framing = match (found.length, found.encoding) {
        (None, None) => return Ok(Framing::None),
        (Some(_), Some(encoding)) => {
            return refuse(BadRequestKind::LengthAndTransferEncoding, encoding);
        }
        (Some(length), None) => match content_length(length.value.of(head)) {
            Some(bytes) => Framing::Length(bytes),
            None => return refuse(BadRequestKind::InvalidContentLength, length),
        },
        (None, Some(encoding)) => {
            if line.version < Version::HTTP_11 {
                return refuse(BadRequestKind::TransferEncodingIn10, encoding);
            }
            match codings(encoding.value.of(head)) {
                Codings::Chunked => Framing::Chunked,
                Codings::Ambiguous => {
                    return refuse(BadRequestKind::AmbiguousTransferEncoding, encoding);
                }
                Codings::Unknown => {
                    return refuse(BadRequestKind::UnknownTransferEncoding, encoding);
                }
            }
        }
    };
    match (framing, found.length.or(found.encoding)) {
        (Framing::Chunked | Framing::Length(1..), Some(field))
            if line.method == Method::Connect =>
        {
            refuse(BadRequestKind::ConnectWithBody, field)
        }
        _ => Ok(framing),
    }
}

/// What a `Transfer-Encoding` says.
#[derive(Debug, PartialEq, Eq)]
enum Codings {
    /// Exactly `chunked`.
    Chunked,
    /// Nothing, or something in which one reader may find `chunked` and another may not.
    Ambiguous,
    /// Codings that we do not have, in a list that every reader reads alike.
    Unknown,
}

fn codings(value: &[u8]) -> Codings {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Codings::Chunked;
    }
    if value.is_empty() {
        return Codings::Ambiguous;
    }
    let is_token = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    let mut members = value.split(|&byte| byte == b',').map(super::token::trim).rev();
    let last = members.next().unwrap_or(&[]);
    let chunked_last = last.eq_ignore_ascii_case(b"chunked");
    let mentions = |member: &[u8]| {
        member.windows(b"chunked".len()).any(|part| part.eq_ignore_ascii_case(b"chunked"))
    };
    let mut rest = members.chain((!chunked_last).then_some(last));
    let sound =
        rest.all(|member| !member.is_empty() && member.iter().all(is_token) && !mentions(member));
    if sound { Codings::Unknown } else { Codings::Ambiguous }
}

/// Finds whom a request is for. The authority of the target rules over `Host` (RFC 9112 section
/// 3.2.2), which must be valid all the same. Offsets in the answer count from the head's start;
/// `None` is an HTTP/0.9 or 1.0 request that names no host.
///
/// # Errors
/// 400 for two `Host` lines, an invalid one, or none with HTTP/1.1.
pub fn request_host(
    line: &RequestLine,
    head: &[u8],
    fields: &[Field],
) -> Result<Option<Authority>, BadRequest> {
    let in_head = |mut authority: Authority, at: u32| {
        authority.host.at += at;
        authority
    };
    let mut wanted = None;
    if line.form != Form::Origin {
        let at = line.authority.at as usize;
        let Some(authority) = validate_host(line.authority.of(head)) else {
            let line = line.text.at as usize;
            return Err(BadRequest { kind: BadRequestKind::InvalidHostInRequestLine, at, line });
        };
        wanted = Some(in_head(authority, line.authority.at));
    }
    let mut hosts = fields.iter().filter(|field| field.known == Known::Host);
    let Some(host) = hosts.next() else {
        if line.version > Version::HTTP_10 {
            let at = line.text.end();
            return Err(BadRequest { kind: BadRequestKind::MissingHost, at, line: at });
        }
        return Ok(wanted);
    };
    let refuse = |kind, field: &Field| {
        let (at, line) = in_field(field);
        Err(BadRequest { kind, at, line })
    };
    if let Some(second) = hosts.next() {
        return refuse(BadRequestKind::DuplicateHost, second);
    }
    let Some(authority) = validate_host(host.value.of(head)) else {
        return refuse(BadRequestKind::InvalidHost, host);
    };
    Ok(wanted.or(Some(in_head(authority, host.value.at))))
}

/// Decides how a response's body is framed.
///
/// `request_is_head` and `connect` describe the request that is answered. The fields are judged
/// even where the response cannot have a body, as nginx does.
///
/// # Errors
/// A doubled, malformed or contradictory `Content-Length` or `Transfer-Encoding`: 502, and the
/// connection must not be used again.
pub fn response_framing(
    status: u16,
    request_is_head: bool,
    connect: bool,
    head: &[u8],
    fields: &[Field],
) -> Result<ResponseFraming, BadResponse> {
    let found = FramingFields::of(fields);
    let refuse = |kind, field: &Field| {
        let (at, line) = in_field(field);
        Err(BadResponse { kind, at, line })
    };
    if let Some(second) = found.duplicate {
        return refuse(BadResponseKind::DuplicateField, second);
    }
    let framing = match (found.length, found.encoding) {
        (None, None) => ResponseFraming::UntilClose,
        (Some(_), Some(encoding)) => {
            return refuse(BadResponseKind::LengthAndTransferEncoding, encoding);
        }
        (Some(length), None) => match content_length(length.value.of(head)) {
            Some(bytes) => ResponseFraming::Length(bytes),
            None => return refuse(BadResponseKind::InvalidContentLength, length),
        },
        (None, Some(encoding)) => match codings(encoding.value.of(head)) {
            Codings::Chunked => ResponseFraming::Chunked,
            _ => return refuse(BadResponseKind::UnknownTransferEncoding, encoding),
        },
    };
    let bodiless = request_is_head
        || matches!(status, 100..=199 | 204 | 304)
        || connect && matches!(status, 200..=299);
    Ok(if bodiless { ResponseFraming::None } else { framing })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_lengths() {
        let check = |value: &str, expected| {
            assert_eq!(content_length(value.as_bytes()), expected, "{value:?}");
        };
        check("0", Some(0));
        check("00042", Some(42));
        check("9223372036854775807", Some(i64::MAX as u64));
        check("9223372036854775808", None);
        check("18446744073709551616", None);
        for bad in ["", "+1", "-1", "0x10", "1,1", "1, 1", "1 1", "1.0", "1e3", "\u{0660}", "1\t"] {
            check(bad, None);
        }
    }

    #[test]
    fn transfer_codings() {
        let check = |value: &str, expected| {
            assert_eq!(codings(value.as_bytes()), expected, "{value:?}");
        };
        check("chunked", Codings::Chunked);
        check("CHUNKED", Codings::Chunked);
        check("gzip", Codings::Unknown);
        check("identity", Codings::Unknown);
        check("gzip, chunked", Codings::Unknown);
        for bad in [
            "",
            "chunked, identity",
            "chunked, chunked",
            "identity, chunked, gzip",
            "xchunked",
            "chunked\u{b}",
            "\u{b}chunked",
            "chunked;q=1",
            "\"chunked\"",
            "chunked,",
            ",chunked",
            "gzip,,chunked",
            "chun\u{1}ked",
        ] {
            check(bad, Codings::Ambiguous);
        }
    }

    #[test]
    fn responses_without_body() {
        let check = |status, head, connect, expected| {
            assert_eq!(response_framing(status, head, connect, b"", &[]), Ok(expected));
        };
        check(200, false, false, ResponseFraming::UntilClose);
        check(200, true, false, ResponseFraming::None);
        check(204, false, false, ResponseFraming::None);
        check(304, false, false, ResponseFraming::None);
        check(101, false, false, ResponseFraming::None);
        check(200, false, true, ResponseFraming::None);
        check(407, false, true, ResponseFraming::UntilClose);
    }
}
