//! `limit_except`: a part of a location for requests with other methods than those listed.
//!
//! It is a location of its own with a whole pipeline, as in nginx: it inherits what a nested
//! location would, and `proxy_pass` too; the rewrite directives of the location around it are not
//! for its requests.

use crate::compile::{Compiler, compile_location};
use crate::exchange::Exchange;
use crate::location::{Location, Matching};
use config::{Args, Arity, Directive, Invalid, Opens, Scope};
use session::contexts::{LIMIT_EXCEPT, LOCATION};
use std::rc::Rc;
use wire::http1::Method;

/// `limit_except`.
pub(crate) static LIMIT_EXCEPT_BLOCK: Directive<Methods> =
    Directive::new("limit_except", &[LOCATION], read_methods)
        .takes(Arity::AtLeast(1))
        .opens(Opens::Context(LIMIT_EXCEPT))
        .syntax("limit_except METHOD ... { ... }")
        .text(
            "What holds in a location for requests whose method is none of those listed; GET \
             stands for HEAD too. The block may hold `allow`, `deny`, `auth_basic` and its file, \
             `proxy_pass` and `access_log`. The rewrite directives and `try_files` of the location \
             do not apply to such requests.",
        )
        .example("location / { limit_except GET { allow 10.0.0.0/8; deny all; } }");

/// A set of methods, one bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Methods(u32);

impl Methods {
    fn has(self, method: Method) -> bool {
        self.0 & bit(method) != 0
    }
}

fn bit(method: Method) -> u32 {
    1 << method as u8
}

fn read_methods(args: &Args<'_>) -> Result<Methods, Invalid> {
    let mut methods = 0;
    for (i, word) in args.words().iter().enumerate() {
        let method = Method::of(&word.bytes().to_ascii_uppercase());
        if matches!(method, Method::Other | Method::Trace | Method::Connect) {
            return Err(Invalid::new(format!("invalid method \"{}\"", word.str())).at(i));
        }
        methods |= bit(method);
        if method == Method::Get {
            methods |= bit(Method::Head);
        }
    }
    Ok(Methods(methods))
}

/// The part of a location for other methods.
pub(crate) struct LimitExcept {
    except: Methods,
    location: Rc<Location>,
}

impl LimitExcept {
    pub(crate) fn compile(
        c: &mut Compiler<'_>,
        scope: &Scope<'_>,
        outer: &Location,
    ) -> Option<LimitExcept> {
        let (except, inner) = scope.blocks(&LIMIT_EXCEPT_BLOCK).into_iter().next()?;
        let location = compile_location(c, &inner, outer.name.clone(), Matching::Unnamed);
        Some(LimitExcept { except, location: Rc::new(location) })
    }
}

/// The location that is for the method of the request: the chosen one, or its part.
pub(crate) fn enter(x: &mut Exchange, chosen: Rc<Location>) -> Rc<Location> {
    let location = match &chosen.limit_except {
        Some(limit) if !limit.except.has(x.request.method) => limit.location.clone(),
        _ => chosen,
    };
    x.location = location.clone();
    location
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods() {
        let check = |arguments: &str, expected: Result<&[Method], &str>| {
            let found = LIMIT_EXCEPT_BLOCK.read_text(arguments).map(|methods| methods.0);
            let expected = expected.map(|list| list.iter().map(|method| bit(*method)).sum());
            let expected = expected.map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        use Method::*;
        check("GET", Ok(&[Get, Head]));
        check("get post", Ok(&[Get, Head, Post]));
        check("HEAD", Ok(&[Head]));
        check("PROPFIND patch", Ok(&[Propfind, Patch]));
        check("PURGE", Err("invalid method \"PURGE\""));
        check("GET CONNECT", Err("invalid method \"CONNECT\""));
    }
}
