//! From a header list to a request head as the journey knows it (RFC 9113 sections 8.2 and 8.3).
//!
//! The text is laid out as that of an HTTP/1 head: a request line, which logs and variables show,
//! then the fields. What is wrong is remembered, and told once there is an exchange to tell it
//! with; the first fault counts, and its words are nginx's.

use crate::head;
use crate::headers::{Headers, span};
use crate::settings::HeadLimits;
use crate::trailers::is_token;
use session::log::Bytes;
use session::text::Arena;
use wire::http1::{
    Authority, Field, Form, Framing, Known, Method, RequestLine, Slice, Version, content_length,
    validate_host,
};
use wire::http2::HeaderList;

/// A request that arrived.
pub(crate) struct Arrived {
    /// Its text.
    pub(crate) arena: Arena,
    /// The request line, in HTTP/1's form; `None`: what came does not make one.
    pub(crate) line: Option<RequestLine>,
    pub(crate) headers: Headers,
    /// `:authority`, or `Host`: as written, and taken apart.
    pub(crate) host: Option<(Slice, Authority)>,
    pub(crate) length: Option<u64>,
    /// No body follows.
    pub(crate) ended: bool,
    /// What is wrong: the answer's status, and what the log says.
    pub(crate) fault: Option<(u16, String)>,
    /// Names of fields that are left out because of the bytes in them.
    pub(crate) dropped: Vec<String>,
}

impl Arrived {
    /// How its body ends.
    pub(crate) fn framing(&self) -> Framing {
        match (self.length, self.ended) {
            (Some(length), _) => Framing::Length(length),
            (None, true) => Framing::None,
            (None, false) => Framing::Chunked,
        }
    }
}

/// A faulty request; the status answers it.
type Fault = (u16, String);

fn bad<T>(text: impl Into<String>) -> Result<T, Fault> {
    Err((400, text.into()))
}

/// The fields behind a request's body as lines, with an empty one at the end; `None` when they
/// make the request malformed (RFC 9113 sections 8.1 and 8.2).
pub(super) fn trailers(list: &HeaderList) -> Option<Vec<u8>> {
    let mut lines = Vec::with_capacity(list.text_len() + 4 * list.len() + 2);
    for (name, value) in list.iter() {
        let is_name = !name.is_empty()
            && name.iter().all(|byte| is_token(*byte) && !byte.is_ascii_uppercase());
        let is_value = !value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n'));
        let is_of_connection = matches!(
            Known::of(name),
            Known::Connection
                | Known::KeepAlive
                | Known::ProxyConnection
                | Known::TransferEncoding
                | Known::Upgrade
        );
        if !is_name || !is_value || is_of_connection {
            return None;
        }
        for part in [name, b": ", value, b"\r\n"] {
            lines.extend_from_slice(part);
        }
    }
    lines.extend_from_slice(b"\r\n");
    (!list.is_cut()).then_some(lines)
}

/// The pseudo-header fields.
#[derive(Default)]
struct Pseudo<'a> {
    method: Option<&'a [u8]>,
    scheme: Option<&'a [u8]>,
    path: Option<&'a [u8]>,
    authority: Option<&'a [u8]>,
}

/// Reads a header list.
pub(crate) fn read(list: &HeaderList, limits: &HeadLimits, ended: bool) -> Arrived {
    let mut reader = Reader {
        limits,
        pseudo: Pseudo::default(),
        arena: Arena::new(),
        line: None,
        fields: head::lend_fields(),
        cookies: None,
        count: 0,
        dropped: Vec::new(),
    };
    let outcome = reader.read(list);
    let (host, length, fault) = match outcome {
        Ok((host, length)) => (host, length, None),
        Err(fault) => (None, None, Some(fault)),
    };
    if reader.line.is_none() {
        // For the log of a request that is none.
        reader.begin_fields().ok();
    }
    let headers = Headers::from_codec(&reader.fields, 0);
    head::return_fields(reader.fields);
    Arrived {
        headers,
        arena: reader.arena,
        line: reader.line,
        host,
        length,
        ended,
        fault,
        dropped: reader.dropped,
    }
}

struct Reader<'a> {
    limits: &'a HeadLimits,
    pseudo: Pseudo<'a>,
    arena: Arena,
    line: Option<RequestLine>,
    fields: Vec<Field>,
    cookies: Option<Vec<u8>>,
    count: u32,
    dropped: Vec<String>,
}

/// What the fields say about host and length.
type Said = (Option<(Slice, Authority)>, Option<u64>);

impl<'a> Reader<'a> {
    fn read(&mut self, list: &'a HeaderList) -> Result<Said, Fault> {
        for (name, value) in list.iter() {
            let is_usual = self.validate(name, value)?;
            if let Some(name) = name.strip_prefix(b":") {
                self.pseudo_header(name, value)?;
                continue;
            }
            if self.line.is_none() {
                self.begin_fields()?;
            }
            if !is_usual && self.limits.parsing.ignore_invalid_headers {
                self.dropped.push(String::from_utf8_lossy(name).into_owned());
            } else {
                self.field(name, value)?;
            }
        }
        if self.line.is_none() {
            self.begin_fields()?;
        }
        if let Some(cookies) = self.cookies.take() {
            self.push(b"cookie", &cookies);
        }
        self.check_connection()?;
        let host = self.host()?;
        Ok((Some(host), self.length()?))
    }

    /// Whether a name holds usual bytes only.
    fn validate(&self, name: &[u8], value: &[u8]) -> Result<bool, Fault> {
        let mut is_usual = true;
        for &byte in name.strip_prefix(b":").unwrap_or(name) {
            match byte {
                b'a'..=b'z' | b'-' | b'0'..=b'9' => {}
                b'_' if self.limits.parsing.underscores_in_headers => {}
                ..=0x20 | 0x7f | b':' | b'A'..=b'Z' => {
                    return bad(format!("client sent invalid header name: \"{}\"", Bytes(name)));
                }
                _ => is_usual = false,
            }
        }
        if memchr::memchr3(0, b'\r', b'\n', value).is_some() {
            return bad(format!(
                "client sent header \"{}\" with invalid value: \"{}\"",
                Bytes(name),
                Bytes(value)
            ));
        }
        Ok(is_usual)
    }

    fn pseudo_header(&mut self, name: &[u8], value: &'a [u8]) -> Result<(), Fault> {
        if self.line.is_some() {
            return bad("client sent out of order pseudo-headers");
        }
        let shown = String::from_utf8_lossy(name);
        let place = match name {
            b"method" => &mut self.pseudo.method,
            b"scheme" => &mut self.pseudo.scheme,
            b"path" => &mut self.pseudo.path,
            b"authority" => &mut self.pseudo.authority,
            _ => return bad(format!("client sent unknown pseudo-header \":{shown}\"")),
        };
        if place.is_some() {
            return bad(match name {
                b"authority" => "client sent duplicate \":authority\" header".to_owned(),
                _ => format!("client sent duplicate :{shown} header"),
            });
        }
        *place = Some(value);
        let is_valid = match name {
            b"method" => value.iter().all(|b| matches!(b, b'A'..=b'Z' | b'_' | b'-')),
            b"scheme" => is_scheme(value),
            b"path" => value.starts_with(b"/") && !value.contains(&b' ') && !has_control(value),
            _ => validate_host(value).is_some(),
        };
        match name {
            b"authority" if !is_valid => bad("client sent invalid \":authority\" header"),
            b"authority" => Ok(()),
            _ if value.is_empty() => bad(format!("client sent empty :{shown} header")),
            b"method" if !is_valid => {
                bad(format!("client sent invalid method: \"{}\"", Bytes(value)))
            }
            _ if !is_valid => {
                bad(format!("client sent invalid :{shown} header: \"{}\"", Bytes(value)))
            }
            _ => Ok(()),
        }
    }

    /// Writes the request line, from the pseudo-header fields.
    fn begin_fields(&mut self) -> Result<(), Fault> {
        let Pseudo { method, scheme, path, authority } = &self.pseudo;
        let Some(method_text) = method else { return bad("client sent no :method header") };
        let Some(scheme) = scheme else { return bad("client sent no :scheme header") };
        let Some(path) = path else { return bad("client sent no :path header") };
        let arena = &mut self.arena;
        let slice = |span: session::text::Span| Slice { at: span.at, len: span.len };
        let method = slice(arena.push(method_text));
        arena.push(b" ");
        let path = slice(arena.push(path));
        arena.push(b" ");
        let version_text = slice(arena.push(b"HTTP/2.0"));
        let text = Slice::between(0, version_text.end());
        let scheme = slice(arena.push(scheme));
        let authority = authority.map_or(Slice::default(), |text| slice(arena.push(text)));
        self.line = Some(RequestLine {
            text,
            method: Method::of(method_text),
            method_text: method,
            target: path,
            form: Form::Origin,
            scheme,
            authority,
            path,
            version: VERSION,
            version_text,
        });
        Ok(())
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Fault> {
        if name == b"cookie" {
            // In pieces, so that they compress well (RFC 9113 section 8.2.3).
            match &mut self.cookies {
                None => self.cookies = Some(value.to_vec()),
                Some(cookies) => {
                    cookies.extend_from_slice(b"; ");
                    cookies.extend_from_slice(value);
                }
            }
            return Ok(());
        }
        self.count += 1;
        if self.count > self.limits.parsing.max_headers {
            return Err((494, "client sent too many header lines".to_owned()));
        }
        self.push(name, value);
        Ok(())
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        let known = Known::of(name);
        let name = self.arena.push(name);
        let value = self.arena.push(value);
        let slice = |span: session::text::Span| Slice { at: span.at, len: span.len };
        self.fields.push(Field { name: slice(name), value: slice(value), known });
    }

    fn text(&self, slice: Slice) -> &[u8] {
        self.arena.text(span(slice))
    }

    /// Fields that speak of a connection make a request malformed (RFC 9113 section 8.2.2).
    fn check_connection(&self) -> Result<(), Fault> {
        let mut te = None;
        for field in &self.fields {
            let name = match field.known {
                Known::Connection => "Connection",
                Known::KeepAlive => "Keep-Alive",
                Known::ProxyConnection => "Proxy-Connection",
                Known::TransferEncoding => "Transfer-Encoding",
                Known::Upgrade => "Upgrade",
                Known::Te => {
                    let value = self.text(field.value);
                    if te.is_some() || !value.eq_ignore_ascii_case(b"trailers") {
                        return bad("client sent invalid \"TE\" header");
                    }
                    te = Some(());
                    continue;
                }
                _ => continue,
            };
            return bad(format!("client sent \"{name}\" header"));
        }
        Ok(())
    }

    /// `:authority`, or else `Host`; when both are there they must be the same.
    fn host(&mut self) -> Result<(Slice, Authority), Fault> {
        let authority = self.line.map_or(Slice::default(), |line| line.authority);
        let mut hosts = self.fields.iter().filter(|field| field.known == Known::Host);
        let host = hosts.next().map(|field| field.value);
        if hosts.next().is_some() {
            return bad("client sent duplicate host header");
        }
        let (value, name) = match (self.pseudo.authority, host) {
            (None, None) => {
                return bad("client sent neither \":authority\" nor \"Host\" header");
            }
            (Some(_), None) => {
                // For `$http_host` and backends.
                let text = span(authority);
                let copy = self.arena.copy(text);
                let name = self.arena.push(b"host");
                let slice = |span: session::text::Span| Slice { at: span.at, len: span.len };
                let (name, value) = (slice(name), slice(copy));
                self.fields.push(Field { name, value, known: Known::Host });
                (authority, "\":authority\"")
            }
            (Some(_), Some(host)) => {
                if self.text(host) != self.text(authority) {
                    return bad(
                        "client sent \":authority\" and \"Host\" headers with different values",
                    );
                }
                (authority, "\":authority\"")
            }
            (None, Some(host)) => (host, "host"),
        };
        match validate_host(self.text(value)) {
            Some(parts) => Ok((value, parts)),
            None => bad(format!("client sent invalid {name} header")),
        }
    }

    fn length(&self) -> Result<Option<u64>, Fault> {
        let mut found = None;
        for field in self.fields.iter().filter(|field| field.known == Known::ContentLength) {
            if found.is_some() {
                return bad("client sent duplicate \"Content-Length\" header");
            }
            found = content_length(self.text(field.value));
            if found.is_none() {
                return bad("client sent invalid \"Content-Length\" header");
            }
        }
        Ok(found)
    }
}

const VERSION: Version = Version { major: 2, minor: 0 };

fn is_scheme(value: &[u8]) -> bool {
    value.iter().enumerate().all(|(at, byte)| match byte {
        b'a'..=b'z' | b'A'..=b'Z' => true,
        b'0'..=b'9' | b'+' | b'-' | b'.' => at > 0,
        _ => false,
    })
}

fn has_control(value: &[u8]) -> bool {
    value.iter().any(|byte| *byte < 0x20 || *byte == 0x7f)
}
