//! Why a head was refused, which status answers it, and how nginx words it in its error log.

use super::{Field, Known, Slice};

/// A request that cannot be served: what is wrong and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadRequest {
    pub kind: BadRequestKind,
    /// Offset of the offending byte, or of the field value that is at fault.
    pub at: usize,
    /// Offset of the first byte of the line it stands in.
    pub line: usize,
}

/// What is wrong with a request. All but two are answered 400, see [`BadRequest::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadRequestKind {
    /// A byte outside `A-Z`, `_` and `-` in the method.
    InvalidMethod,
    /// Any other fault in the request line.
    InvalidRequestLine,
    /// A version of 2 or above on an HTTP/1 connection: 505.
    UnsupportedVersion,
    /// A request line without version, yet the method is not GET.
    InvalidMethodIn09,
    /// The head is larger than offsets can count (1 GiB); callers have far smaller limits.
    HeadTooLarge,
    /// A field line begins with a colon.
    EmptyName,
    /// A field line begins with a space or a tab (obsolete line folding, RFC 9112 section 5.2).
    FoldedLine,
    /// Whitespace between name and colon (RFC 9112 section 5.1).
    SpaceBeforeColon,
    /// A control character inside a field name.
    InvalidName,
    /// A field line without colon.
    MissingColon,
    /// A NUL inside a field value.
    NulInValue,
    /// A CR that no LF follows (RFC 9112 section 2.2).
    BareCr,
    /// More field lines than `max_headers` allows: 494, shown to the client as 400.
    TooManyFields,
    /// A second line of a field that must be unique.
    DuplicateField,
    DuplicateHost,
    InvalidHost,
    InvalidHostInRequestLine,
    MissingHost,
    InvalidContentLength,
    /// Both `Content-Length` and `Transfer-Encoding` (RFC 9112 section 6.3, rule 3).
    LengthAndTransferEncoding,
    TransferEncodingIn10,
    /// A `Transfer-Encoding` that names `chunked` otherwise than alone and well spelt, or is empty.
    AmbiguousTransferEncoding,
    /// A `Transfer-Encoding` without `chunked`, or one whose other codings are not ours: 501.
    UnknownTransferEncoding,
    ConnectWithBody,
}

impl BadRequestKind {
    /// The first words of nginx's log line, without the part that quotes the request.
    pub fn message(self) -> &'static str {
        use BadRequestKind::*;
        match self {
            InvalidMethod => "client sent invalid method",
            InvalidRequestLine => "client sent invalid request",
            UnsupportedVersion => "client sent invalid version",
            InvalidMethodIn09 => "client sent invalid method in HTTP/0.9 request",
            HeadTooLarge => "client sent too large request",
            EmptyName | FoldedLine | SpaceBeforeColon | InvalidName | MissingColon | NulInValue
            | BareCr => "client sent invalid header line",
            TooManyFields => "client sent too many header lines",
            DuplicateField => "client sent duplicate header line",
            DuplicateHost => "client sent duplicate host header",
            InvalidHost => "client sent invalid host header",
            InvalidHostInRequestLine => "client sent invalid host in request line",
            MissingHost => "client sent HTTP/1.1 request without \"Host\" header",
            InvalidContentLength => "client sent invalid \"Content-Length\" header",
            LengthAndTransferEncoding => {
                "client sent \"Content-Length\" and \"Transfer-Encoding\" headers at the same time"
            }
            TransferEncodingIn10 => {
                "client sent HTTP/1.0 request with \"Transfer-Encoding\" header"
            }
            AmbiguousTransferEncoding => "client sent ambiguous \"Transfer-Encoding\"",
            UnknownTransferEncoding => "client sent unknown \"Transfer-Encoding\"",
            ConnectWithBody => "client sent CONNECT request with body",
        }
    }
}

impl BadRequest {
    /// The status that nginx finalises the request with; 494 is its inner number for a head that
    /// is too large, answered as 400 (or by an `error_page 494`).
    pub fn status(&self) -> u16 {
        match self.kind {
            BadRequestKind::UnsupportedVersion => 505,
            BadRequestKind::UnknownTransferEncoding => 501,
            BadRequestKind::TooManyFields | BadRequestKind::HeadTooLarge => 494,
            _ => 400,
        }
    }

    /// nginx's "while ..." part: what the connection was doing when this was found.
    pub fn action(&self) -> &'static str {
        use BadRequestKind::*;
        match self.kind {
            InvalidMethod
            | InvalidRequestLine
            | UnsupportedVersion
            | InvalidMethodIn09
            | InvalidHostInRequestLine => "reading client request line",
            _ => "reading client request headers",
        }
    }

    /// Appends nginx's whole message, with the quoted line where it quotes one, up to and without
    /// " while reading ...". `head` and `fields` are what the parser was given.
    pub fn describe(&self, head: &[u8], fields: &[Field], out: &mut Vec<u8>) {
        use BadRequestKind::*;
        out.extend_from_slice(self.kind.message().as_bytes());
        match self.kind {
            EmptyName | FoldedLine | SpaceBeforeColon | InvalidName | MissingColon | NulInValue
            | BareCr => quote_broken_line(head, self.line, self.at, out),
            DuplicateField | DuplicateHost => quote_duplicate(head, self.line, fields, out),
            AmbiguousTransferEncoding | UnknownTransferEncoding => {
                let value = fields.iter().find(|field| field.value.at as usize == self.at);
                out.extend_from_slice(b": \"");
                out.extend_from_slice(value.map_or(&[], |field| field.value.of(head)));
                out.push(b'"');
            }
            _ => {}
        }
    }
}

/// nginx quotes the line up to the offending byte and shows that byte in hexadecimal.
fn quote_broken_line(head: &[u8], line: usize, at: usize, out: &mut Vec<u8>) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b": \"");
    out.extend_from_slice(head.get(line..at).unwrap_or(&[]));
    if let Some(&byte) = head.get(at) {
        out.extend_from_slice(b"\\x");
        out.push(HEX[(byte >> 4) as usize]);
        out.push(HEX[(byte & 15) as usize]);
    }
    out.extend_from_slice(b"...\"");
}

/// Quotes the second line and the one before it with the same name.
fn quote_duplicate(head: &[u8], line: usize, fields: &[Field], out: &mut Vec<u8>) {
    let Some(second) = fields.iter().find(|field| field.name.at as usize == line) else { return };
    out.extend_from_slice(b": \"");
    quote_field(head, second, out);
    let first = fields.iter().find(|field| field.known == second.known);
    if let Some(first) = first {
        out.extend_from_slice(b"\", previous value: \"");
        quote_field(head, first, out);
    }
    out.push(b'"');
}

fn quote_field(head: &[u8], field: &Field, out: &mut Vec<u8>) {
    out.extend_from_slice(field.name.of(head));
    out.extend_from_slice(b": ");
    out.extend_from_slice(field.value.of(head));
}

/// A response that cannot be forwarded: what is wrong and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadResponse {
    pub kind: BadResponseKind,
    /// Offset of the offending byte, or of the field value that is at fault.
    pub at: usize,
    /// Offset of the first byte of the line it stands in.
    pub line: usize,
}

/// What is wrong with a response. All are answered 502, but for the two that nginx reads as the
/// body of an HTTP/0.9 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadResponseKind {
    /// The bytes do not begin with `HTTP/`: nginx takes them for an HTTP/0.9 body.
    NotHttp,
    /// They begin with `HTTP/`, but the version or the status is malformed; likewise.
    InvalidStatusLine,
    /// A NUL or a CR without LF in the status line, or a status below 100.
    HostileStatusLine,
    HeadTooLarge,
    /// A field line that is none, a control in a name, a NUL or a bare CR in a value.
    InvalidHeader,
    DuplicateField,
    InvalidContentLength,
    LengthAndTransferEncoding,
    UnknownTransferEncoding,
}

impl BadResponseKind {
    /// nginx's words, without the part that quotes the response.
    pub fn message(self) -> &'static str {
        use BadResponseKind::*;
        match self {
            NotHttp | InvalidStatusLine => "upstream sent no valid HTTP/1.0 header",
            HostileStatusLine => "upstream sent invalid status line",
            HeadTooLarge => "upstream sent too big header",
            InvalidHeader => "upstream sent invalid header",
            DuplicateField => "upstream sent duplicate header line",
            InvalidContentLength => "upstream sent invalid \"Content-Length\" header",
            LengthAndTransferEncoding => {
                "upstream sent \"Content-Length\" and \"Transfer-Encoding\" headers \
                 at the same time"
            }
            UnknownTransferEncoding => "upstream sent unknown \"Transfer-Encoding\"",
        }
    }
}

impl BadResponse {
    /// Appends nginx's whole message, with the quoted line where it quotes one.
    pub fn describe(&self, head: &[u8], fields: &[Field], out: &mut Vec<u8>) {
        use BadResponseKind::*;
        out.extend_from_slice(self.kind.message().as_bytes());
        let culprit = fields.iter().find(|field| field.value.at as usize == self.at);
        match (self.kind, culprit) {
            (InvalidHeader, _) => quote_broken_line(head, self.line, self.at, out),
            (DuplicateField, _) => quote_duplicate(head, self.line, fields, out),
            (InvalidContentLength, Some(field)) => {
                out.extend_from_slice(b": \"");
                quote_field(head, field, out);
                out.push(b'"');
            }
            (UnknownTransferEncoding, Some(field)) => {
                out.extend_from_slice(b": \"");
                out.extend_from_slice(field.value.of(head));
                out.push(b'"');
            }
            _ => {}
        }
    }
}

/// The fault of one field line, before it is known on which side it was found.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldFault {
    pub(super) kind: BadRequestKind,
    pub(super) at: usize,
    pub(super) line: usize,
}

impl From<FieldFault> for BadRequest {
    fn from(fault: FieldFault) -> BadRequest {
        BadRequest { kind: fault.kind, at: fault.at, line: fault.line }
    }
}

impl From<FieldFault> for BadResponse {
    fn from(fault: FieldFault) -> BadResponse {
        let kind = match fault.kind {
            BadRequestKind::HeadTooLarge | BadRequestKind::TooManyFields => {
                BadResponseKind::HeadTooLarge
            }
            _ => BadResponseKind::InvalidHeader,
        };
        BadResponse { kind, at: fault.at, line: fault.line }
    }
}

/// A fault that lies in a whole field: at its value, on its line.
pub(super) fn in_field(field: &Field) -> (usize, usize) {
    (field.value.at as usize, field.name.at as usize)
}

/// Fields of which a client may send one line only, as nginx has it.
pub(super) const UNIQUE: u128 = Known::Host.bit()
    | Known::IfModifiedSince.bit()
    | Known::IfUnmodifiedSince.bit()
    | Known::IfMatch.bit()
    | Known::IfNoneMatch.bit()
    | Known::ContentLength.bit()
    | Known::ContentRange.bit()
    | Known::IfRange.bit()
    | Known::TransferEncoding.bit()
    | Known::Expect.bit()
    | Known::Authorization.bit()
    | Known::ProxyAuthorization.bit();

/// Largest buffer that the parsers look at, so that every offset fits a `u32` with room to spare.
pub(super) const HEAD_LIMIT: usize = 1 << 30;

/// The slice of nothing at the start of a head.
pub(super) const NOWHERE: Slice = Slice { at: 0, len: 0 };
