//! Requests in other protocols than HTTP: to programs (FastCGI, SCGI, uwsgi) and to memcached.

use super::request::{BodyFraming, Head};
use super::translate::Translator;
use http::{Exchange, Field};
use session::log::Level;
use session::text::Span;
use session::variables::{Template, VariableId, value};
use std::rc::Rc;
use wire::gateway::{fastcgi, scgi, uwsgi};
use wire::http1::Known;
use wire::http1::escape::{Escape, escape_uri};

/// A protocol, and what a request in it says.
pub(crate) struct Gateway {
    pub(crate) protocol: Protocol,
    pub(crate) parameters: Parameters,
}

/// Which protocol.
pub(crate) enum Protocol {
    FastCgi {
        /// `fastcgi_keep_conn`
        keep: bool,
        /// `fastcgi_catch_stderr`
        catch: Rc<[Box<[u8]>]>,
    },
    Scgi,
    Uwsgi {
        modifiers: (u8, u8),
        /// `uwsgi_string`
        text: Box<[u8]>,
    },
    Memcached {
        /// `$memcached_key`
        key: VariableId,
        gzip_flag: u32,
    },
}

/// What a program is told about a request.
#[derive(Default)]
pub(crate) struct Parameters {
    /// In order.
    pub(crate) list: Vec<Parameter>,
    /// Whether the client's fields are told.
    pub(crate) pass_fields: bool,
}

/// One `fastcgi_param` and its kin.
pub(crate) struct Parameter {
    pub(crate) name: Box<[u8]>,
    pub(crate) value: Template,
    pub(crate) if_not_empty: bool,
}

/// Writes one name and value of a protocol.
type Push = fn(&[u8], &[u8], &mut Vec<u8>);

impl Gateway {
    /// How the request begins; `None`, with a line in the error log, when it cannot be sent.
    pub(super) fn head(&self, x: &mut Exchange, framing: BodyFraming) -> Option<Head> {
        let mut out = Vec::new();
        match &self.protocol {
            Protocol::FastCgi { keep, .. } => {
                let list = self.parameters.write(x, fastcgi::push_parameter);
                fastcgi::begin(*keep, &mut out);
                fastcgi::parameters(&list, &mut out);
            }
            Protocol::Scgi => {
                let list = self.parameters.write(x, scgi::push_parameter);
                let length = match framing {
                    BodyFraming::Length(length) => length,
                    _ => 0,
                };
                scgi::head(length, &list, &mut out);
            }
            Protocol::Uwsgi { modifiers, text } => {
                let mut list = self.parameters.write(x, uwsgi::push_parameter);
                list.extend_from_slice(text);
                let Some(()) = uwsgi::head(*modifiers, &list, &mut out) else {
                    let length = list.len();
                    let what = "uwsgi request is too big:";
                    x.log_error(Level::Alert, format_args!("{what} {length}"));
                    return None;
                };
            }
            Protocol::Memcached { key, .. } => {
                out.extend_from_slice(b"get ");
                out.extend_from_slice(&memcached_key(x, *key)?);
                out.extend_from_slice(b"\r\n");
            }
        }
        let is_head = x.request.method == wire::http1::Method::Head;
        Some(Head {
            bytes: out.into(),
            target: Span::EMPTY,
            is_head,
            upgrade: false,
            keeps_host: false,
        })
    }

    /// What makes HTTP of the answer.
    pub(super) fn translator(&self, x: &mut Exchange, longest: usize) -> Translator {
        match &self.protocol {
            Protocol::FastCgi { keep, catch } => Translator::fastcgi(*keep, catch.clone(), longest),
            Protocol::Scgi | Protocol::Uwsgi { .. } => Translator::cgi(longest),
            Protocol::Memcached { key, gzip_flag } => {
                let key = memcached_key(x, *key).unwrap_or_default();
                Translator::memcached(key, *gzip_flag, longest)
            }
        }
    }

    /// True for FastCGI, whose bodies are cut into records.
    pub(super) fn has_records(&self) -> bool {
        matches!(self.protocol, Protocol::FastCgi { .. })
    }
}

/// The key as memcached is asked for it: without spaces and controls.
fn memcached_key(x: &mut Exchange, id: VariableId) -> Option<Vec<u8>> {
    let Some(key) = value(x, id).filter(|key| !key.is_empty()) else {
        let message = "the \"$memcached_key\" variable is not set";
        x.log_error(Level::Error, format_args!("{message}"));
        return None;
    };
    let mut escaped = Vec::new();
    escape_uri(x.text(key), Escape::Memcached, &mut escaped);
    Some(escaped)
}

impl Parameters {
    fn write(&self, x: &mut Exchange, push: Push) -> Vec<u8> {
        let mut list = Vec::with_capacity(1024);
        for parameter in &self.list {
            let value = parameter.value.value(x);
            let is_left_out = parameter.if_not_empty && value.is_empty();
            if !is_left_out && !parameter.is_only_hiding() {
                push(&parameter.name, x.text(value), &mut list);
            }
        }
        if self.pass_fields {
            self.fields(x, push, &mut list);
        }
        list
    }

    /// The client's fields: `X-A` becomes `HTTP_X_A`, and those of one name are joined.
    fn fields(&self, x: &Exchange, push: Push, list: &mut Vec<u8>) {
        let fields: Vec<&Field> = x.request.headers.iter().collect();
        let mut names: Vec<Vec<u8>> = Vec::with_capacity(fields.len());
        for (at, field) in fields.iter().enumerate() {
            let name = variable_name(field.name(&x.arena));
            if names.contains(&name) || self.hides(&name) {
                names.push(name);
                continue;
            }
            let mut joined = x.text(field.value).to_vec();
            let separator: &[u8] = if field.known == Known::Cookie { b"; " } else { b", " };
            for other in &fields[at + 1..] {
                if variable_name(other.name(&x.arena)) == name {
                    joined.extend_from_slice(separator);
                    joined.extend_from_slice(x.text(other.value));
                }
            }
            push(&name, &joined, list);
            names.push(name);
        }
    }

    /// True for a field that a parameter stands for, and for `Proxy`, which programs would take
    /// for their own setting `HTTP_PROXY`.
    fn hides(&self, name: &[u8]) -> bool {
        name == b"HTTP_PROXY" || self.list.iter().any(|parameter| *parameter.name == *name)
    }
}

impl Parameter {
    /// `fastcgi_param HTTP_X "";` hides the field and says nothing in its place.
    fn is_only_hiding(&self) -> bool {
        self.name.starts_with(b"HTTP_") && self.value.as_constant() == Some(b"")
    }
}

fn variable_name(field: &[u8]) -> Vec<u8> {
    let upper = field.iter().map(|byte| match byte {
        b'-' => b'_',
        byte => byte.to_ascii_uppercase(),
    });
    b"HTTP_".iter().copied().chain(upper).collect()
}
