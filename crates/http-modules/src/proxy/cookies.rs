//! `proxy_cookie_domain`, `proxy_cookie_path` and `proxy_cookie_flags`: cookies of backends that
//! browsers give back to us (nginx: ngx_http_proxy_module; the field: RFC 6265 section 4.1).

use config::{Args, Arity, Context, Directive, Invalid, Part, Scope, read};
use http::location::Pattern;
use http::{Compiler, Exchange};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::regex::Case;
use session::text::Span;
use session::variables::Template;

const HSL: &[Context] = &[HTTP, SERVER, LOCATION];

pub(super) static PROXY_COOKIE_DOMAIN: Directive<Rewrite> =
    Directive::new("proxy_cookie_domain", HSL, read_domain)
        .takes(Arity::Between(1, 2))
        .many()
        .syntax("proxy_cookie_domain off;\nproxy_cookie_domain DOMAIN REPLACEMENT;")
        .text(
            "Changes the `Domain` of cookies that the backend sets: DOMAIN, regardless of case \
             and of a dot before it, becomes REPLACEMENT. After `~` DOMAIN is a regular \
             expression, whose groups REPLACEMENT may use. The first directive that applies is \
             the one that counts; `off` undoes what an outer level says.",
        )
        .example("proxy_cookie_domain internal.example www.example.com;");

pub(super) static PROXY_COOKIE_PATH: Directive<Rewrite> =
    Directive::new("proxy_cookie_path", HSL, read_path)
        .takes(Arity::Between(1, 2))
        .many()
        .syntax("proxy_cookie_path off;\nproxy_cookie_path PATH REPLACEMENT;")
        .text(
            "Changes the `Path` of cookies that the backend sets: PATH at its beginning becomes \
             REPLACEMENT. After `~`, or `~*` regardless of case, PATH is a regular expression and \
             the whole is replaced. The first directive that applies is the one that counts; \
             `off` undoes what an outer level says.",
        )
        .example("proxy_cookie_path /app/ /;");

pub(super) static PROXY_COOKIE_FLAGS: Directive<FlagsOf> =
    Directive::new("proxy_cookie_flags", HSL, read_flags)
        .takes(Arity::Between(1, 4))
        .many()
        .syntax("proxy_cookie_flags off;\nproxy_cookie_flags COOKIE [FLAG ...];")
        .text(
            "Adds flags to cookies that the backend sets, or takes them away: `secure`, \
             `httponly`, `samesite=strict`, `samesite=lax`, `samesite=none`, and `nosecure`, \
             `nohttponly`, `nosamesite`. COOKIE is the cookie's name, or after `~` a regular \
             expression for it, both regardless of case. The first directive that names a cookie \
             is the one that counts for it; `off` undoes what an outer level says.",
        )
        .example("proxy_cookie_flags session secure httponly samesite=lax;");

/// One `proxy_cookie_domain` or `proxy_cookie_path`.
#[derive(Clone, Debug)]
pub(super) enum Rewrite {
    Off,
    /// A domain, and what replaces it.
    Domain(config::Template, config::Template),
    /// The beginning of a path, and what replaces it.
    Path(config::Template, config::Template),
    /// A pattern, and what replaces the whole; true: letters match regardless of case.
    Pattern(String, bool, config::Template),
}

/// One `proxy_cookie_flags`.
#[derive(Clone, Debug)]
pub(super) enum FlagsOf {
    Off,
    /// A cookie's name and its flags.
    Name(config::Template, Vec<config::Template>),
    /// A pattern of names and their flags.
    Pattern(String, Vec<config::Template>),
}

fn is_off(args: &Args<'_>) -> Result<bool, Invalid> {
    match args.len() {
        1 if args.word(0).bytes() == b"off" => Ok(true),
        1 => Err(Invalid::new(format!("invalid parameter \"{}\"", args.str(0))).at(0)),
        _ => Ok(false),
    }
}

fn read_domain(args: &Args<'_>) -> Result<Rewrite, Invalid> {
    if is_off(args)? {
        return Ok(Rewrite::Off);
    }
    let replacement = read::template_at(args, 1)?;
    if let Some(pattern) = args.str(0).strip_prefix('~') {
        return Ok(Rewrite::Pattern(pattern.to_owned(), true, replacement));
    }
    let domain = read::template_at(args, 0)?;
    Ok(Rewrite::Domain(without_dot(domain), without_dot(replacement)))
}

/// The same without a dot at its beginning: the cookie's own dot is what stays.
fn without_dot(mut template: config::Template) -> config::Template {
    if let Some(Part::Text(text)) = template.parts.first_mut()
        && text.first() == Some(&b'.')
    {
        text.remove(0);
    }
    template
}

fn read_path(args: &Args<'_>) -> Result<Rewrite, Invalid> {
    if is_off(args)? {
        return Ok(Rewrite::Off);
    }
    let replacement = read::template_at(args, 1)?;
    let text = args.str(0);
    if let Some(pattern) = text.strip_prefix("~*") {
        return Ok(Rewrite::Pattern(pattern.to_owned(), true, replacement));
    }
    if let Some(pattern) = text.strip_prefix('~') {
        return Ok(Rewrite::Pattern(pattern.to_owned(), false, replacement));
    }
    Ok(Rewrite::Path(read::template_at(args, 0)?, replacement))
}

fn read_flags(args: &Args<'_>) -> Result<FlagsOf, Invalid> {
    if is_off(args)? {
        return Ok(FlagsOf::Off);
    }
    let flags = (1..args.len()).map(|i| read::template_at(args, i)).collect::<Result<_, _>>()?;
    if let Some(pattern) = args.str(0).strip_prefix('~') {
        return Ok(FlagsOf::Pattern(pattern.to_owned(), flags));
    }
    Ok(FlagsOf::Name(read::template_at(args, 0)?, flags))
}

/// Bits of the flags.
mod flag {
    pub(super) const SECURE: u8 = 1;
    pub(super) const NO_SECURE: u8 = 1 << 1;
    pub(super) const HTTP_ONLY: u8 = 1 << 2;
    pub(super) const NO_HTTP_ONLY: u8 = 1 << 3;
    pub(super) const STRICT: u8 = 1 << 4;
    pub(super) const LAX: u8 = 1 << 5;
    pub(super) const NONE: u8 = 1 << 6;
    pub(super) const NO_SAME_SITE: u8 = 1 << 7;

    const NAMES: [(&[u8], u8); 8] = [
        (b"secure", SECURE),
        (b"nosecure", NO_SECURE),
        (b"httponly", HTTP_ONLY),
        (b"nohttponly", NO_HTTP_ONLY),
        (b"samesite=strict", STRICT),
        (b"samesite=lax", LAX),
        (b"samesite=none", NONE),
        (b"nosamesite", NO_SAME_SITE),
    ];

    /// The bit of a name; none for a name that is no flag.
    pub(super) fn named(name: &[u8]) -> Option<u8> {
        NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, bit)| *bit)
    }

    /// The values of `SameSite`; when several are asked for the first here wins.
    pub(super) const SAME_SITE: [(u8, &[u8]); 3] =
        [(STRICT, b"Strict"), (LAX, b"Lax"), (NONE, b"None")];
}

/// What one location does to cookies.
#[derive(Default)]
pub(super) struct Cookies {
    domains: Vec<Rule>,
    paths: Vec<Rule>,
    flags: Vec<FlagRule>,
}

enum Rule {
    Domain(Template, Template),
    Path(Template, Template),
    Pattern(Pattern, Template),
}

struct FlagRule {
    cookie: Cookie,
    flags: Vec<Template>,
}

enum Cookie {
    Name(Template),
    Pattern(Pattern),
}

/// One part of a cookie between semicolons: `a=b`, or `a` alone. The first is the cookie itself.
#[derive(Clone, Copy, Debug)]
struct Attribute {
    name: Span,
    value: Option<Span>,
}

impl Cookies {
    pub(super) fn compile(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Cookies {
        Cookies {
            domains: rules(c, scope, &PROXY_COOKIE_DOMAIN),
            paths: rules(c, scope, &PROXY_COOKIE_PATH),
            flags: flag_rules(c, scope),
        }
    }

    /// What the client is told in place of a `Set-Cookie` of `value`; `None`: the same.
    pub(super) fn apply(&self, x: &mut Exchange, value: Span) -> Option<Span> {
        if self.domains.is_empty() && self.paths.is_empty() && self.flags.is_empty() {
            return None;
        }
        let mut parts = split(x, value);
        // A cookie without a value is none.
        parts.first()?.value?;
        let mut changed = false;
        for part in parts.iter_mut().skip(1) {
            let name = x.text(part.name);
            let rules = match name {
                _ if name.eq_ignore_ascii_case(b"domain") => &self.domains,
                _ if name.eq_ignore_ascii_case(b"path") => &self.paths,
                _ => continue,
            };
            let Some(value) = part.value else { continue };
            if let Some(new) = rules.iter().find_map(|rule| rule.apply(x, value)) {
                part.value = Some(new);
                changed = true;
            }
        }
        let flags = self.flags_of(x, parts[0].name);
        if flags != 0 {
            edit(x, &mut parts, flags);
            changed = true;
        }
        changed.then(|| joined(x, &parts))
    }

    /// The bits of the first rule that names the cookie.
    fn flags_of(&self, x: &mut Exchange, name: Span) -> u8 {
        for rule in &self.flags {
            let named = match &rule.cookie {
                Cookie::Name(template) => {
                    let wanted = template.value(x);
                    x.text(wanted).eq_ignore_ascii_case(x.text(name))
                }
                Cookie::Pattern(pattern) => pattern.matches(x, name) == Ok(true),
            };
            if named {
                return rule.flags.iter().fold(0, |bits, flag| {
                    let value = flag.value(x);
                    bits | flag::named(x.text(value)).unwrap_or(0)
                });
            }
        }
        0
    }
}

impl Rule {
    /// The value in place of `value`, when the rule applies.
    fn apply(&self, x: &mut Exchange, value: Span) -> Option<Span> {
        match self {
            Rule::Pattern(pattern, to) => {
                (pattern.matches(x, value) == Ok(true)).then(|| to.value(x))
            }
            Rule::Path(from, to) => {
                let from = from.value(x);
                if !x.text(value).starts_with(x.text(from)) {
                    return None;
                }
                let to = to.value(x);
                let mark = x.arena.mark();
                x.arena.copy(to);
                x.arena.copy(value.after(from.len as usize));
                Some(x.arena.since(mark))
            }
            Rule::Domain(from, to) => {
                let from = from.value(x);
                let dot = usize::from(x.text(value).first() == Some(&b'.'));
                if !x.text(value.after(dot)).eq_ignore_ascii_case(x.text(from)) {
                    return None;
                }
                let to = to.value(x);
                let mark = x.arena.mark();
                x.arena.copy(value.part(0, dot));
                x.arena.copy(to);
                Some(x.arena.since(mark))
            }
        }
    }
}

fn duplicate(scope: &Scope<'_>, span: config::Span, name: &str) {
    scope.error(span, format!("\"{name}\" directive is duplicate"));
}

fn rules(c: &mut Compiler<'_>, scope: &Scope<'_>, directive: &Directive<Rewrite>) -> Vec<Rule> {
    let nodes = scope.nodes(directive);
    let alone = nodes.len() == 1;
    let mut rules = Vec::with_capacity(nodes.len());
    for (rewrite, span) in nodes {
        let rule = match rewrite {
            Rewrite::Off if alone => return Vec::new(),
            Rewrite::Off => {
                duplicate(scope, span, directive.spec.name);
                continue;
            }
            Rewrite::Domain(from, to) => Rule::Domain(c.template(&from), c.template(&to)),
            Rewrite::Path(from, to) => Rule::Path(c.template(&from), c.template(&to)),
            Rewrite::Pattern(pattern, ignored, to) => {
                let case = if ignored { Case::Ignored } else { Case::Sensitive };
                match c.pattern(&pattern, case) {
                    Ok(pattern) => Rule::Pattern(pattern, c.template(&to)),
                    Err(reason) => {
                        scope.error(span, reason);
                        continue;
                    }
                }
            }
        };
        rules.push(rule);
    }
    rules
}

fn flag_rules(c: &mut Compiler<'_>, scope: &Scope<'_>) -> Vec<FlagRule> {
    let nodes = scope.nodes(&PROXY_COOKIE_FLAGS);
    let alone = nodes.len() == 1;
    let mut rules = Vec::with_capacity(nodes.len());
    for (flags_of, span) in nodes {
        let (cookie, flags) = match flags_of {
            FlagsOf::Off if alone => return Vec::new(),
            FlagsOf::Off => {
                duplicate(scope, span, PROXY_COOKIE_FLAGS.spec.name);
                continue;
            }
            FlagsOf::Name(name, flags) => (Cookie::Name(c.template(&name)), flags),
            FlagsOf::Pattern(pattern, flags) => match c.pattern(&pattern, Case::Ignored) {
                Ok(pattern) => (Cookie::Pattern(pattern), flags),
                Err(reason) => {
                    scope.error(span, reason);
                    continue;
                }
            },
        };
        for name in flags.iter().filter_map(config::Template::constant) {
            if flag::named(name).is_none() {
                let name = String::from_utf8_lossy(name);
                scope.warn(span, format!("\"{name}\" is no flag of cookies and changes nothing"));
            }
        }
        let flags = flags.iter().map(|flag| c.template(flag)).collect();
        rules.push(FlagRule { cookie, flags });
    }
    rules
}

/// The parts between semicolons, without the spaces around names and values.
fn split(x: &Exchange, value: Span) -> Vec<Attribute> {
    let trimmed = |from: usize, to: usize| {
        let text = &x.text(value)[from..to];
        let start = text.iter().take_while(|byte| **byte == b' ').count();
        let end = text[start..].iter().rev().take_while(|byte| **byte == b' ').count();
        value.part(from + start, to - end)
    };
    let mut parts = Vec::with_capacity(8);
    let mut from = 0;
    for text in x.text(value).split(|byte| *byte == b';') {
        let to = from + text.len();
        let part = match text.iter().position(|byte| *byte == b'=') {
            Some(at) => Attribute {
                name: trimmed(from, from + at),
                value: Some(trimmed(from + at + 1, to)),
            },
            None => Attribute { name: trimmed(from, to), value: None },
        };
        parts.push(part);
        from = to + 1;
    }
    parts
}

/// Adds and removes flags; those that are there already stay where they are.
fn edit(x: &mut Exchange, parts: &mut Vec<Attribute>, flags: u8) {
    let same_site = flag::SAME_SITE.into_iter().find(|(bit, _)| flags & bit != 0);
    let (mut secure, mut http_only) = (flags & flag::SECURE != 0, flags & flag::HTTP_ONLY != 0);
    let mut missing = same_site;
    let mut kept = Vec::with_capacity(parts.len() + 3);
    for (i, part) in parts.iter().enumerate() {
        let mut part = *part;
        let name = x.text(part.name);
        if i > 0 && name.eq_ignore_ascii_case(b"secure") {
            if flags & (flag::SECURE | flag::NO_SECURE) == flag::NO_SECURE {
                continue;
            }
            secure = false;
        } else if i > 0 && name.eq_ignore_ascii_case(b"httponly") {
            if flags & (flag::HTTP_ONLY | flag::NO_HTTP_ONLY) == flag::NO_HTTP_ONLY {
                continue;
            }
            http_only = false;
        } else if i > 0 && name.eq_ignore_ascii_case(b"samesite") {
            match same_site {
                None if flags & flag::NO_SAME_SITE != 0 => continue,
                None => {}
                Some((_, wanted)) => {
                    missing = None;
                    let is = part.value.map_or(&b""[..], |value| x.text(value));
                    if !is.eq_ignore_ascii_case(wanted) {
                        part.name = x.arena.push(b"SameSite");
                        part.value = Some(x.arena.push(wanted));
                    }
                }
            }
        }
        kept.push(part);
    }
    if secure {
        kept.push(Attribute { name: x.arena.push(b"Secure"), value: None });
    }
    if http_only {
        kept.push(Attribute { name: x.arena.push(b"HttpOnly"), value: None });
    }
    if let Some((_, value)) = missing {
        let name = x.arena.push(b"SameSite");
        kept.push(Attribute { name, value: Some(x.arena.push(value)) });
    }
    *parts = kept;
}

fn joined(x: &mut Exchange, parts: &[Attribute]) -> Span {
    let mark = x.arena.mark();
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            x.arena.push(b"; ");
        }
        x.arena.copy(part.name);
        if let Some(value) = part.value {
            x.arena.push(b"=");
            x.arena.copy(value);
        }
    }
    x.arena.since(mark)
}
