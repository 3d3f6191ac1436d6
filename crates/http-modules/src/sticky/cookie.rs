//! `sticky cookie`: the server's name travels in a cookie of our own.

use config::{Args, Invalid, Part, Template as Source, read};
use http::{Compiler, Exchange, Field};
use session::text::Span;
use session::variables::Template;
use wire::http1::Known;

use super::{unknown, wrong};

/// What `sticky cookie` says.
#[derive(Clone, Debug, Default)]
pub struct CookieLine {
    name: Vec<u8>,
    expires: Option<Expires>,
    domain: Option<Source>,
    path: Option<Vec<u8>>,
    httponly: bool,
    secure: bool,
    samesite: Option<Source>,
    indirect: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expires {
    Max,
    Seconds(u64),
}

/// What `expires=max` comes to.
const MAX: &[u8] = b"; expires=Thu, 31-Dec-37 23:55:55 GMT; max-age=315360000";

/// Reads the words behind `cookie`.
pub(super) fn read(args: &Args<'_>) -> Result<CookieLine, Invalid> {
    let name = args.word(1).bytes().to_vec();
    if name.is_empty() {
        return Err(wrong(args, 1, "empty cookie name"));
    }
    let mut line = CookieLine { name, ..CookieLine::default() };
    for i in 2..args.len() {
        let word = args.word(i).bytes();
        let (key, value) = match word.iter().position(|byte| *byte == b'=') {
            Some(at) => (&word[..at + 1], &word[at + 1..]),
            None => (word, &b""[..]),
        };
        line.read_word(args, i, key, value)?;
    }
    Ok(line)
}

impl CookieLine {
    fn read_word(
        &mut self,
        args: &Args<'_>,
        i: usize,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), Invalid> {
        let parsed = || Source::parse(value).map_err(|reason| Invalid::new(reason).at(i));
        let some = |name: &str| match value.is_empty() {
            true => Err(wrong(args, i, &format!("no value for \"{name}\""))),
            false => Ok(()),
        };
        let duplicate = match key {
            b"domain=" => {
                some("domain")?;
                self.domain.replace(parsed()?).is_some()
            }
            b"path=" => {
                some("path")?;
                self.path.replace(value.to_vec()).is_some()
            }
            b"expires=" => {
                let expires = match value {
                    b"max" => Some(Expires::Max),
                    value => read::parse_time_s(value).map(Expires::Seconds),
                };
                let invalid = || wrong(args, i, "invalid \"expires\" parameter value");
                self.expires.replace(expires.ok_or_else(invalid)?).is_some()
            }
            b"samesite=" => {
                let source = parsed()?;
                if source.constant().is_some_and(|value| !is_samesite(value)) {
                    return Err(wrong(args, i, "invalid \"samesite\" parameter value"));
                }
                self.samesite.replace(source).is_some()
            }
            b"httponly" => std::mem::replace(&mut self.httponly, true),
            b"secure" => std::mem::replace(&mut self.secure, true),
            b"indirect" => std::mem::replace(&mut self.indirect, true),
            _ => return Err(unknown(args, i)),
        };
        if duplicate {
            let name = String::from_utf8_lossy(key.strip_suffix(b"=").unwrap_or(key));
            return Err(wrong(args, i, &format!("parameter \"{name}\" is duplicate")));
        }
        Ok(())
    }

    /// The variable that holds the client's cookie.
    pub(super) fn variable(&self) -> Source {
        let name = format!("cookie_{}", String::from_utf8_lossy(&self.name));
        Source { parts: vec![Part::Variable(name)] }
    }
}

fn is_samesite(value: &[u8]) -> bool {
    [&b"strict"[..], b"lax", b"none"].iter().any(|known| value.eq_ignore_ascii_case(known))
}

/// The cookie of one group.
pub(super) struct Cookie {
    line: CookieLine,
    domain: Option<Template>,
    samesite: Option<Template>,
}

/// The value of the cookie that the answer has so far.
#[derive(Default)]
struct Pushed(Option<Span>);

impl Cookie {
    pub(super) fn compile(c: &mut Compiler<'_>, line: CookieLine) -> Cookie {
        let domain = line.domain.as_ref().map(|source| c.template(source));
        let samesite = line.samesite.as_ref().map(|source| c.template(source));
        Cookie { line, domain, samesite }
    }

    /// The cookie that servers must not see.
    pub(super) fn hidden(&self) -> Option<&[u8]> {
        self.line.indirect.then_some(&*self.line.name)
    }

    /// Sets the cookie for the server `route`, in place of that of an earlier attempt. `asked` is
    /// what the client sent.
    pub(super) fn set(&self, x: &mut Exchange, asked: Option<Span>, route: &str) {
        if let Some(before) = x.state_or_default::<Pushed>().0.take() {
            x.response.headers.retain(|field| field.value != before);
        }
        let known = asked.is_some_and(|asked| x.text(asked) == route.as_bytes());
        if known && self.line.indirect {
            return;
        }
        let value = self.value(x, route);
        let field = Field { name: Span::EMPTY, value, known: Known::SetCookie };
        x.response.headers.push(field);
        x.state_or_default::<Pushed>().0 = Some(value);
    }

    fn value(&self, x: &mut Exchange, route: &str) -> Span {
        let domain = self.domain.as_ref().map(|template| template.value(x));
        let samesite = self.samesite.as_ref().map(|template| template.value(x));
        let mark = x.arena.mark();
        x.arena.push(&self.line.name);
        x.arena.push(b"=");
        x.arena.push(route.as_bytes());
        match self.line.expires {
            Some(Expires::Max) => {
                x.arena.push(MAX);
            }
            Some(Expires::Seconds(seconds)) => {
                let mut date = Vec::with_capacity(32);
                let until = net::wall().0.saturating_add(seconds);
                wire::http1::date::format_cookie(until as i64, &mut date);
                x.arena.push(b"; expires=");
                x.arena.push(&date);
                x.arena.push(b"; max-age=");
                x.arena.number(seconds);
            }
            None => {}
        }
        if let Some(domain) = domain.filter(|domain| !domain.is_empty()) {
            x.arena.push(b"; domain=");
            x.arena.copy(domain);
        }
        if self.line.httponly {
            x.arena.push(b"; httponly");
        }
        if self.line.secure {
            x.arena.push(b"; secure");
        }
        if let Some(samesite) = samesite.filter(|samesite| !samesite.is_empty()) {
            x.arena.push(b"; samesite=");
            match is_samesite(x.text(samesite)) {
                true => x.arena.copy(samesite),
                false => x.arena.push(b"strict"),
            };
        }
        if let Some(path) = &self.line.path {
            x.arena.push(b"; path=");
            x.arena.push(path);
        }
        x.arena.since(mark)
    }
}

/// Appends a Cookie field's value without the cookie `name` to `out`; false when nothing is left.
pub(crate) fn without(value: &[u8], name: &[u8], out: &mut Vec<u8>) -> bool {
    let start = out.len();
    for pair in value.split(|byte| *byte == b';') {
        let pair = pair.trim_ascii();
        let own = pair.split(|byte| *byte == b'=').next().unwrap_or(pair).trim_ascii();
        if pair.is_empty() || own.eq_ignore_ascii_case(name) {
            continue;
        }
        if out.len() > start {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(pair);
    }
    out.len() > start
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_cookie() {
        let check = |arguments: &str, expected: &str| {
            let found = super::super::STICKY.read_text(&format!("cookie {arguments}"));
            let found = found.map(|_| ()).map_err(|invalid| invalid.message);
            assert_eq!(found, Err(expected.to_owned()), "{arguments}");
        };
        check("''", "\"sticky\" directive empty cookie name");
        check("a path=/ path=/", "\"sticky\" directive parameter \"path\" is duplicate");
        check("a secure secure", "\"sticky\" directive parameter \"secure\" is duplicate");
        check("a domain=", "\"sticky\" directive no value for \"domain\"");
        check("a expires=x", "\"sticky\" directive invalid \"expires\" parameter value");
        check("a samesite=x", "\"sticky\" directive invalid \"samesite\" parameter value");
        check("a secure=1", "unknown parameter \"secure=1\"");
    }

    #[test]
    fn one_cookie_of_many_is_hidden() {
        let check = |value: &str, expected: &str| {
            let mut out = Vec::new();
            let left = without(value.as_bytes(), b"srv", &mut out);
            assert_eq!(String::from_utf8_lossy(&out), expected, "{value}");
            assert_eq!(left, !expected.is_empty());
        };
        check("srv=1", "");
        check("a=1; srv=2; b=3", "a=1; b=3");
        check("SRV=1;a=1", "a=1");
        check("srvx=1; x=srv", "srvx=1; x=srv");
        check("", "");
    }
}
