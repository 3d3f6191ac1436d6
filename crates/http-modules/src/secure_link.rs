//! `secure_link`: links that carry a hash of a secret, and perhaps a time when they expire
//! (nginx: ngx_http_secure_link_module).

use config::{AnyDirective, Context, Directive, Scope, read};
use http::credentials::decode;
use http::{Compiler, Exchange, LocationBuilder, Module};
use md5::{Digest, Md5};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::text::Span;
use session::variables::{Builtin, Template};

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    variables: VARIABLES,
    location: Some(attach),
    ..Module::new("http_secure_link", "Tells links that were made with a secret from others.")
};

static VARIABLES: &[Builtin<Exchange>] = &[
    Builtin::kept(
        "secure_link",
        secure_link,
        "With `secure_link`: empty for a wrong link, `0` for one that has expired, else `1`. With \
         `secure_link_secret`: empty for a wrong link, else the path in it.",
    ),
    Builtin::kept(
        "secure_link_expires",
        secure_link_expires,
        "When the link expires, as it says itself; known once `$secure_link` was looked at.",
    ),
];

static DIRECTIVES: &[&dyn AnyDirective] = &[&SECURE_LINK, &SECURE_LINK_MD5, &SECURE_LINK_SECRET];

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// `secure_link`.
pub static SECURE_LINK: Directive<config::Template> =
    Directive::new("secure_link", PLACES, read::template)
        .syntax("secure_link TEXT;")
        .text(
            "Where a link has its hash, and perhaps behind a comma the time when it expires, in \
             seconds since 1970. The hash is the MD5 of what `secure_link_md5` says, written in \
             base64url. `$secure_link` tells whether it is right. One makes it with `echo -n \
             '2147483647/s/link127.0.0.1 secret' | openssl md5 -binary | openssl base64 | tr +/ \
             -_ | tr -d =`.",
        )
        .example("secure_link $arg_md5,$arg_expires;");

/// `secure_link_md5`.
pub static SECURE_LINK_MD5: Directive<config::Template> =
    Directive::new("secure_link_md5", PLACES, read::template)
        .syntax("secure_link_md5 TEXT;")
        .text(
            "What the hash of a link is made of. It should have the part of the link that is \
             protected, the time when it expires, and a secret; and the client's address, if the \
             link is for one client only.",
        )
        .example("secure_link_md5 \"$secure_link_expires$uri$remote_addr secret\";");

/// `secure_link_secret`.
pub static SECURE_LINK_SECRET: Directive<String> =
    Directive::new("secure_link_secret", PLACES, read::text)
        .syntax("secure_link_secret WORD;")
        .text(
            "The older form: links are /PREFIX/HASH/PATH, where HASH is the MD5 of PATH and WORD \
             in hexadecimal digits. `$secure_link` is PATH when it is right. Not to be mixed with \
             the other two directives.",
        )
        .example("secure_link_secret word;");

/// How links are protected in one place.
enum Links {
    /// Link and text to hash.
    Md5(Template, Template),
    Secret(Box<[u8]>),
}

/// What a level says and inherits.
#[derive(Default)]
struct Lines {
    link: Option<config::Template>,
    md5: Option<config::Template>,
    secret: Option<String>,
}

impl Lines {
    fn of(scope: &Scope<'_>) -> Lines {
        let (link, md5) = (scope.local(&SECURE_LINK), scope.local(&SECURE_LINK_MD5));
        let secret = scope.local(&SECURE_LINK_SECRET);
        if secret.is_some() {
            if link.is_some() || md5.is_some() {
                scope.error(
                    None,
                    "\"secure_link_secret\" cannot be mixed with \"secure_link\" and \
                     \"secure_link_md5\"",
                );
            }
            return Lines { link: None, md5: None, secret };
        }
        let outer = scope.parent().map(|outer| Lines::of(&outer)).unwrap_or_default();
        let (link, md5) = (link.or(outer.link), md5.or(outer.md5));
        let secret = outer.secret.filter(|_| link.is_none() && md5.is_none());
        Lines { link, md5, secret }
    }
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    match Lines::of(scope) {
        Lines { secret: Some(secret), .. } => {
            builder.keep(Links::Secret(secret.into_bytes().into()));
        }
        Lines { link: Some(link), md5: Some(md5), .. } => {
            let (link, md5) = (c.template(&link), c.template(&md5));
            builder.keep(Links::Md5(link, md5));
        }
        _ => {}
    }
}

/// When a link expires, as it says itself.
#[derive(Default)]
struct Expires(Option<Span>);

fn secure_link_expires(x: &mut Exchange) -> Option<Span> {
    x.peek_state::<Expires>()?.0
}

fn secure_link(x: &mut Exchange) -> Option<Span> {
    let location = x.location.clone();
    match location.kept::<Links>()? {
        Links::Secret(secret) => {
            let target = x.request.target;
            let at = path_in(x.text(target), secret)?;
            Some(target.after(at))
        }
        Links::Md5(link, md5) => {
            let link = link.value(x);
            let comma = memchr::memchr(b',', x.text(link));
            let (mut hash, mut expires) = (link, None);
            if let Some(at) = comma {
                let text = link.after(at + 1);
                expires = Some(config::read::parse_number(x.text(text)).filter(|time| *time > 0)?);
                x.state_or_default::<Expires>().0 = Some(text);
                hash = link.part(0, at);
            }
            let known = decode_url(x.text(hash))?;
            let text = md5.value(x);
            if !same(&Md5::digest(x.text(text)), &known) {
                return None;
            }
            let (now, _) = net::wall();
            let is_over = expires.is_some_and(|time| time < now);
            Some(x.arena.push(if is_over { b"0" } else { b"1" }))
        }
    }
}

/// The bytes of a hash in base64url (RFC 4648 section 5), with or without padding.
fn decode_url(text: &[u8]) -> Option<Vec<u8>> {
    if text.len() > 24 || text.iter().any(|byte| matches!(byte, b'+' | b'/')) {
        return None;
    }
    let ordinary = |byte: &u8| match byte {
        b'-' => b'+',
        b'_' => b'/',
        byte => *byte,
    };
    decode(&text.iter().map(ordinary).collect::<Vec<u8>>())
}

/// Where the path begins in `/PREFIX/HASH/PATH`, if the hash is right.
fn path_in(target: &[u8], secret: &[u8]) -> Option<usize> {
    let behind_slash = |from: usize| Some(from + memchr::memchr(b'/', target.get(from..)?)? + 1);
    let start = behind_slash(1)?;
    let at = behind_slash(start)?;
    let (hash, path) = (&target[start..at - 1], &target[at..]);
    if hash.len() != 32 || path.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut known = [0; 16];
    for (pair, byte) in hash.chunks(2).zip(&mut known) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    let found = Md5::new().chain_update(path).chain_update(secret).finalize();
    same(&found, &known).then_some(at)
}

/// Compares without telling by the time it takes how much is equal.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    a.len() == b.len() && differ == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_in_base64url() {
        let check = |text: &str, expected: Option<usize>| {
            assert_eq!(decode_url(text.as_bytes()).map(|bytes| bytes.len()), expected, "{text}");
        };
        check("Xr4ilOzQ4PCOq3aQ0qbuaQ==", Some(16));
        check("Xr4ilOzQ4PCOq3aQ0qbuaQ", Some(16));
        check("-r4_lOzQ4PCOq3aQ0qbuaQ", Some(16));
        check("+r4_lOzQ4PCOq3aQ0qbuaQ", None);
        check("Xr4ilOzQ4PCOq3aQ0qbu", Some(15));
        check("", Some(0));
        check("Xr4ilOzQ4PCOq3aQ0qbuaQ===", None);
    }

    #[test]
    fn paths_in_links() {
        let check = |target: &str, expected: Option<&str>| {
            let found = path_in(target.as_bytes(), b"secret").map(|at| &target[at..]);
            assert_eq!(found, expected, "{target}");
        };
        // MD5 of "test.htmlsecret" and of "a/b?csecret".
        check("/p/181A8C6DF88B74BB87B14F72DF0A86F9/test.html", Some("test.html"));
        check("/p/d9b94e10e7bbf5d75cd5e1b4d8205253/a/b?c", Some("a/b?c"));
        check("/p/181a8c6df88b74bb87b14f72df0a86f9/test.htm", None);
        check("/p/181a8c6df88b74bb87b14f72df0a86f9/", None);
        check("/p/181a8c6df88b74bb87b14f72df0a86f9", None);
        check("/p/x/test.html", None);
        check("/p", None);
        check("/", None);
        check("", None);
    }
}
