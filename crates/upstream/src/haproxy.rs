//! `balance` and `hash_type`: HAProxy's algorithms under HAProxy's names.
//!
//! The algorithms are in crate `balance`, module `haproxy`. Here is what is read from the
//! configuration, and which part of a request makes the key.

use balance::haproxy::hashes::{Function, Hashing};
use balance::haproxy::{fixed, load, ring, turns};
use balance::{Key, Method, first, random};
use config::{Args, Arity, Directive, Invalid, Repeat, Scope, Template, read};
use session::contexts::{STREAM_UPSTREAM, UPSTREAM};

use crate::methods::{Choice, KeySource};

/// `balance` of an http group.
pub static BALANCE: Directive<Choice> = Directive::new("balance", &[UPSTREAM], balance_http)
    .takes(Arity::Any)
    .repeats(Repeat::Last)
    .syntax(
        "balance roundrobin | static-rr | leastconn | first | random[(DRAWS)];\n\
         balance source | uri [path-only] [whole] [len N] [depth N] | url_param NAME\n\
         \x20   | hdr(NAME) [use_domain_only] | hash TEXT;",
    )
    .text(
        "HAProxy's algorithms, which send each request to the server that HAProxy would choose \
         with the same weights, as long as the same servers are up:\n\n\
         - `roundrobin`, `static-rr`: servers take turns by their weights; interleaved as HAProxy \
         does it, not as nginx does.\n\
         - `leastconn`: the fewest requests under way for the weight; of equals the one whose load \
         changed the longest ago.\n\
         - `first`: the first server that has fewer than its `max_conns` requests under way.\n\
         - `random`: of DRAWS servers drawn, 2 unless given, at most 2, the one with less to do.\n\
         - `source`: the client's address decides.\n\
         - `uri`: the address up to the question mark, or all of it (`whole`), or its first `len` \
         bytes, or its first `depth` directories, without scheme and host if `path-only`.\n\
         - `url_param`: a parameter of the query. `hdr`: a field of the request, or of a host only \
         the part before its top-level domain (`use_domain_only`). `hash`: a text with \
         variables. Requests that have none take turns.\n\n\
         `hash_type` says how keys are hashed. The place of a server in the block is its `id`. A \
         server that rests after failures, is full, or was tried by the request before is passed \
         by: HAProxy lets requests with a key wait for theirs. `weight` should be at most 256.",
    )
    .example("upstream backend { balance uri depth 2; server 127.0.0.1:8081; }");

/// `balance` of a stream group.
pub static STREAM_BALANCE: Directive<Choice> =
    Directive::new("balance", &[STREAM_UPSTREAM], balance_stream)
        .takes(Arity::Any)
        .repeats(Repeat::Last)
        .syntax(
            "balance roundrobin | static-rr | leastconn | first | random[(DRAWS)];\n\
             balance source | rdp-cookie[(NAME)] | hash TEXT;",
        )
        .text(
            "HAProxy's algorithms: see the directive of the same name in an `upstream` block of \
             `http`. `rdp-cookie` goes by the cookie of a Remote Desktop client, which \
             `rdp_preread on` must have read: that of NAME, `mstshash` or `msts`, or any. Sessions \
             that have none take turns.",
        )
        .example("upstream backend { balance leastconn; server 127.0.0.1:8081; }");

/// `hash_type`.
pub static HASH_TYPE: Directive<HashType> =
    Directive::new("hash_type", &[UPSTREAM, STREAM_UPSTREAM], hash_type)
        .takes(Arity::Between(1, 3))
        .default("map-based")
        .syntax("hash_type map-based | consistent [sdbm | djb2 | wt6 | crc32 | none] [avalanche];")
        .text(
            "How `balance` hashes keys. With `map-based` a key goes to the server at its \
             remainder: shares are exact, and nearly all keys move when a server goes or comes. \
             With `consistent` it goes to the nearest point on a ring, and few keys move. `sdbm` \
             is the function for texts unless another one is named; `none` takes them as numbers. \
             `avalanche` mixes the result once more, which `consistent` does when nothing else is \
             said.",
        )
        .example("upstream backend { balance source; hash_type consistent; server 127.0.0.1; }");

/// What `hash_type` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashType {
    is_consistent: bool,
    hashing: Hashing,
}

/// How `balance` makes a key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recipe {
    hashing: Hashing,
    part: Part,
}

/// The part of a text that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Part {
    /// All of it, if there is any.
    #[default]
    Whole,
    /// An address of a request.
    Uri(Uri),
    /// The value of a parameter in an address.
    Parameter(Box<[u8]>),
    /// The first value of a field.
    Field { domain_only: bool },
}

/// What `balance uri` looks at; 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Uri {
    path_only: bool,
    whole: bool,
    len: usize,
    depth: usize,
}

impl Recipe {
    /// The key in a text.
    pub(crate) fn of_text(&self, text: &[u8]) -> Key {
        let found = match &self.part {
            Part::Whole => Some(text).filter(|text| !text.is_empty()),
            Part::Uri(uri) => Some(uri.cut(text)),
            Part::Parameter(name) => parameter(text, name),
            Part::Field { domain_only } => first_value(text, *domain_only),
        };
        found.map_or(Key::default(), |part| self.hashing.text(part))
    }

    /// The key of an address whose words were folded together.
    pub(crate) fn of_address(&self, folded: Key) -> Key {
        self.hashing.address(folded)
    }
}

impl Uri {
    fn cut(self, mut text: &[u8]) -> &[u8] {
        if self.path_only && !text.starts_with(b"/") {
            let authority =
                text.windows(3).position(|three| three == b"://").map_or(0, |at| at + 3);
            let path = text[authority..].iter().position(|byte| *byte == b'/');
            text = path.map_or(&[], |path| &text[authority + path..]);
        }
        if self.len > 0 {
            text = &text[..text.len().min(self.len)];
        }
        let mut slashes = 0;
        let end = text.iter().position(|byte| match byte {
            b'/' => {
                slashes += 1;
                self.depth > 0 && slashes > self.depth
            }
            b'?' => !self.whole,
            _ => false,
        });
        &text[..end.unwrap_or(text.len())]
    }
}

/// The value of the first parameter of that name.
fn parameter<'a>(uri: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let mark = uri.iter().position(|byte| *byte == b'?')?;
    let mut parameters = uri[mark + 1..].split(|byte| *byte == b'&');
    parameters.find_map(|text| text.strip_prefix(name)?.strip_prefix(b"="))
}

/// The first of the values that commas separate.
fn first_value(field: &[u8], domain_only: bool) -> Option<&[u8]> {
    let value = field.split(|byte| *byte == b',').next()?.trim_ascii();
    if value.is_empty() || !domain_only {
        return Some(value).filter(|value| !value.is_empty());
    }
    // What stands before the last dot, back to the dot before.
    let Some(end) = value.iter().rposition(|byte| *byte == b'.').filter(|end| *end > 0) else {
        return Some(value);
    };
    let start = value[..end - 1].iter().rposition(|byte| *byte == b'.').map_or(0, |at| at + 1);
    Some(&value[start..end])
}

/// Settles how the keys of a choice are hashed.
pub(crate) fn compile(block: &Scope<'_>, choice: &mut Choice) {
    let is_keyed = choice.recipe.is_some();
    let Some((kind, span)) = block.local_spanned(&HASH_TYPE) else { return };
    if !is_keyed {
        block.error(span, "\"hash_type\" works with a \"balance\" that goes by a key only");
        return;
    }
    choice.method = if kind.is_consistent { &ring::METHOD } else { &fixed::HASH };
    if let Some(recipe) = &mut choice.recipe {
        recipe.hashing = kind.hashing;
    }
}

fn hash_type(args: &Args<'_>) -> Result<HashType, Invalid> {
    let is_consistent = match args.word(0).bytes() {
        b"map-based" => false,
        b"consistent" => true,
        _ => return Err(invalid_parameter(args, 0)),
    };
    let usual = Hashing { avalanche: is_consistent, ..Hashing::default() };
    if args.len() == 1 {
        return Ok(HashType { is_consistent, hashing: usual });
    }
    let function = match args.word(1).bytes() {
        b"sdbm" => Function::Sdbm,
        b"djb2" => Function::Djb2,
        b"wt6" => Function::Wt6,
        b"crc32" => Function::Crc32,
        b"none" => Function::None,
        _ => return Err(invalid_parameter(args, 1)),
    };
    if args.len() == 3 && args.word(2).bytes() != b"avalanche" {
        return Err(invalid_parameter(args, 2));
    }
    Ok(HashType { is_consistent, hashing: Hashing { function, avalanche: args.len() == 3 } })
}

fn balance_http(args: &Args<'_>) -> Result<Choice, Invalid> {
    if args.is_empty() {
        return Err(Invalid::new("missing method"));
    }
    let (name, inside) = parentheses(args.word(0).bytes());
    match (name, inside) {
        (b"uri", None) => Ok(keyed(variable("request_uri")?, Part::Uri(uri(args)?))),
        (b"url_param", None) if args.len() == 2 => {
            let name = args.word(1).bytes().into();
            Ok(keyed(variable("request_uri")?, Part::Parameter(name)))
        }
        (b"hdr", Some(name)) if !name.is_empty() && args.len() <= 2 => {
            let domain_only = args.len() == 2;
            if domain_only && args.word(1).bytes() != b"use_domain_only" {
                return Err(invalid_parameter(args, 1));
            }
            let name = String::from_utf8_lossy(name).to_ascii_lowercase().replace('-', "_");
            Ok(keyed(variable(&format!("http_{name}"))?, Part::Field { domain_only }))
        }
        _ => balance_any(args),
    }
}

fn balance_stream(args: &Args<'_>) -> Result<Choice, Invalid> {
    if args.is_empty() {
        return Err(Invalid::new("missing method"));
    }
    match parentheses(args.word(0).bytes()) {
        (b"rdp-cookie", None) if args.len() == 1 => Ok(keyed(variable("rdp_cookie")?, Part::Whole)),
        (b"rdp-cookie", Some(name)) if args.len() == 1 => {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            Ok(keyed(variable(&format!("rdp_cookie_{name}"))?, Part::Whole))
        }
        _ => balance_any(args),
    }
}

/// What both engines know.
fn balance_any(args: &Args<'_>) -> Result<Choice, Invalid> {
    let (name, inside) = parentheses(args.word(0).bytes());
    let plain = |method: &'static Method| Ok(Choice::plain(method));
    match (name, inside, args.len()) {
        (b"roundrobin", None, 1) => plain(&turns::METHOD),
        (b"static-rr", None, 1) => plain(&fixed::METHOD),
        (b"leastconn", None, 1) => plain(&load::METHOD),
        (b"first", None, 1) => plain(&first::METHOD),
        (b"random", None | Some(b"" | b"2"), 1) => plain(&random::TWO),
        (b"random", Some(b"1"), 1) => plain(&random::METHOD),
        (b"source", None, 1) => {
            let recipe = Some(Recipe::default());
            let key = KeySource::Source { port: false };
            Ok(Choice { key, recipe, ..Choice::plain(&fixed::HASH) })
        }
        (b"hash", None, 2) => {
            let key = KeySource::Text(read::template_at(args, 1)?);
            Ok(Choice { key, recipe: Some(Recipe::default()), ..Choice::plain(&fixed::HASH) })
        }
        _ => Err(Invalid::new(format!("invalid method \"{}\"", args.str(0))).at(0)),
    }
}

fn keyed(template: Template, part: Part) -> Choice {
    let recipe = Some(Recipe { part, ..Recipe::default() });
    Choice { key: KeySource::Text(template), recipe, ..Choice::plain(&fixed::HASH) }
}

fn variable(name: &str) -> Result<Template, Invalid> {
    Template::parse(format!("${{{name}}}").as_bytes()).map_err(Invalid::new)
}

/// `name(inside)`.
fn parentheses(word: &[u8]) -> (&[u8], Option<&[u8]>) {
    let open = word.iter().position(|byte| *byte == b'(');
    match (open, word.strip_suffix(b")")) {
        (Some(open), Some(before)) => (&word[..open], Some(&before[open + 1..])),
        _ => (word, None),
    }
}

fn uri(args: &Args<'_>) -> Result<Uri, Invalid> {
    let mut uri = Uri::default();
    let mut i = 1;
    while i < args.len() {
        let number = || {
            let number = read::number_at(args, i + 1)?;
            let number = usize::try_from(number).ok().filter(|number| *number > 0);
            number.ok_or_else(|| invalid_parameter(args, i + 1))
        };
        match args.word(i).bytes() {
            b"path-only" => uri.path_only = true,
            b"whole" => uri.whole = true,
            word @ (b"len" | b"depth") if i + 1 < args.len() => {
                let place = if word == b"len" { &mut uri.len } else { &mut uri.depth };
                *place = number()?;
                i += 1;
            }
            _ => return Err(invalid_parameter(args, i)),
        }
        i += 1;
    }
    Ok(uri)
}

fn invalid_parameter(args: &Args<'_>, i: usize) -> Invalid {
    Invalid::new(format!("invalid parameter \"{}\"", args.str(i))).at(i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_the_directives() {
        let method = |directive: &Directive<Choice>, words: &str| {
            let choice = directive.read_text(words);
            choice.map(|choice| choice.method.name).map_err(|invalid| invalid.message)
        };
        for (words, expected) in [
            ("roundrobin", "balance roundrobin"),
            ("static-rr", "balance static-rr"),
            ("leastconn", "balance leastconn"),
            ("first", "first"),
            ("random", "random two"),
            ("random(1)", "random"),
            ("source", "hash_type map-based"),
            ("hash $x", "hash_type map-based"),
        ] {
            assert_eq!(method(&BALANCE, words), Ok(expected), "{words}");
            assert_eq!(method(&STREAM_BALANCE, words), Ok(expected), "{words}");
        }
        for words in
            ["uri whole len 5 depth 2 path-only", "url_param a", "hdr(Host) use_domain_only"]
        {
            assert_eq!(method(&BALANCE, words), Ok("hash_type map-based"), "{words}");
        }
        assert_eq!(method(&STREAM_BALANCE, "rdp-cookie(mstshash)"), Ok("hash_type map-based"));
        for (words, message) in [
            ("", "missing method"),
            ("nothing", "invalid method \"nothing\""),
            ("roundrobin x", "invalid method \"roundrobin\""),
            ("random(3)", "invalid method \"random(3)\""),
            ("hdr()", "invalid method \"hdr()\""),
            ("hdr(a) b", "invalid parameter \"b\""),
            ("uri len", "invalid parameter \"len\""),
            ("uri len 0", "invalid parameter \"0\""),
            ("uri deep", "invalid parameter \"deep\""),
        ] {
            assert_eq!(method(&BALANCE, words), Err(message.to_owned()), "{words}");
        }
        assert!(method(&STREAM_BALANCE, "uri").is_err());
        let kind = |words: &str| HASH_TYPE.read_text(words).map_err(|invalid| invalid.message);
        assert_eq!(kind("consistent").map(|kind| kind.hashing.avalanche), Ok(true));
        assert_eq!(kind("consistent sdbm").map(|kind| kind.hashing.avalanche), Ok(false));
        assert_eq!(kind("map-based wt6 avalanche").map(|kind| kind.is_consistent), Ok(false));
        assert!(kind("map").is_err() && kind("consistent md5").is_err());
        assert!(kind("consistent sdbm twice").is_err());
    }

    #[test]
    fn parts_of_addresses_and_fields() {
        let cut = |words: &str, text: &str| {
            let choice = BALANCE.read_text(&format!("uri {words}")).expect("good words");
            let Some(Recipe { part: Part::Uri(uri), .. }) = choice.recipe else {
                panic!("{words}")
            };
            String::from_utf8_lossy(uri.cut(text.as_bytes())).into_owned()
        };
        assert_eq!(cut("", "/a/b/c?d/e"), "/a/b/c");
        assert_eq!(cut("whole", "/a/b/c?d/e"), "/a/b/c?d/e");
        assert_eq!(cut("len 3", "/a/b/c?d/e"), "/a/");
        assert_eq!(cut("depth 1", "/a/b/c?d/e"), "/a");
        assert_eq!(cut("depth 2 whole", "/a?x/b/c"), "/a?x/b");
        assert_eq!(cut("path-only", "http://host/a?b"), "/a");
        assert_eq!(cut("path-only", "*"), "");
        assert_eq!(parameter(b"/a?bk=1&k=2&k=3", b"k"), Some(&b"2"[..]));
        assert_eq!(parameter(b"/a?k", b"k"), None);
        assert_eq!(parameter(b"/k=1", b"k"), None);
        assert_eq!(parameter(b"/?k=", b"k"), Some(&b""[..]));
        let domain = |text: &'static str| first_value(text.as_bytes(), true);
        assert_eq!(domain("www.example.com"), Some(&b"example"[..]));
        assert_eq!(domain("example.com"), Some(&b"example"[..]));
        assert_eq!(domain("localhost"), Some(&b"localhost"[..]));
        assert_eq!(domain(""), None);
        assert_eq!(first_value(b"a, b", false), Some(&b"a"[..]));
    }
}
