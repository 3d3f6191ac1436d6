//! Asking another location whether a request may pass (nginx: ngx_http_auth_request_module).

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Scope, read};
use http::compile::Compiler;
use http::journey::{log_subrequest, subrequest};
use http::{Exchange, Field, Guard, LocationBuilder, Module, Stage, Step, Verdict};
use session::contexts::{HTTP, LOCATION, SERVER};
use session::log::Level;
use session::text::Span;
use session::variables::{Template, VariableId, assign};
use wire::http1::Known;

use crate::unread::Unread;

const PLACES: &[Context] = &[HTTP, SERVER, LOCATION];

/// The feature.
pub static MODULE: Module = Module {
    directives: DIRECTIVES,
    location: Some(attach),
    ..Module::new(
        "http_auth_request",
        "Lets a request pass or not as the answer to another one says, which is usually proxied \
         to a service that knows the users.",
    )
};

static DIRECTIVES: &[&dyn AnyDirective] = &[&AUTH_REQUEST, &AUTH_REQUEST_SET];

/// `auth_request`; `None` for `off`.
pub static AUTH_REQUEST: Directive<Option<String>> =
    Directive::new("auth_request", PLACES, read_uri)
        .syntax("auth_request URI | off;")
        .text(
            "Before a request is served, URI is asked for within this server, with the client's \
             fields and without its body. A status from 200 to 299 lets the request pass; 401 and \
             403 are the answer for the client, 401 with the challenge (WWW-Authenticate) of the \
             location asked; anything else is an error, 500. It is one of the access checks that \
             `satisfy` combines. An internal redirect of the request leads to a check of its own.",
        )
        .example("auth_request /auth;");

/// `auth_request_set`, see [`Line`].
pub static AUTH_REQUEST_SET: Directive<Line> =
    Directive::new("auth_request_set", PLACES, read_line)
        .takes(Arity::Exactly(2))
        .many()
        .syntax("auth_request_set $VARIABLE VALUE;")
        .text(
            "Sets a variable when the answer to the `auth_request` is there, whatever it is. \
             Variables in VALUE are those of the request that was made, so `$upstream_http_NAME` \
             is a field of the answer. A level with lines of its own does not inherit others.",
        )
        .example("auth_request_set $user $upstream_http_x_user;");

/// `auth_request_set` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The variable's name without `$`.
    pub name: String,
    /// What it is set to.
    pub value: config::Template,
}

fn read_uri(args: &Args<'_>) -> Result<Option<String>, Invalid> {
    let uri = read::text(args)?;
    Ok(Some(uri).filter(|uri| uri != "off" && !uri.is_empty()))
}

fn read_line(args: &Args<'_>) -> Result<Line, Invalid> {
    let word = args.str(0);
    let invalid = || Invalid::new(format!("invalid variable name \"{word}\"")).at(0);
    let name = word.strip_prefix('$').filter(|name| !name.is_empty()).ok_or_else(invalid)?;
    Ok(Line { name: name.to_string(), value: read::template_at(args, 1)? })
}

fn attach(c: &mut Compiler<'_>, scope: &Scope<'_>, builder: &mut LocationBuilder) {
    // Variables are defined even where nobody is asked: other places may use them.
    let mut variables = Vec::new();
    for (line, place) in scope.nodes(&AUTH_REQUEST_SET) {
        match c.variables.assignable(&line.name) {
            Ok(id) => variables.push((id, c.template(&line.value))),
            Err(reason) => scope.error(place, reason),
        }
    }
    if let Some(uri) = scope.find(&AUTH_REQUEST).flatten() {
        builder.guard(AuthRequest { uri: uri.into_bytes().into(), variables });
    }
}

struct AuthRequest {
    uri: Box<[u8]>,
    variables: Vec<(VariableId, Template)>,
}

impl Guard for AuthRequest {
    fn stage(&self) -> Stage {
        Stage::Access
    }

    fn check<'a>(&'a self, x: &'a mut Exchange) -> Step<'a> {
        Step::Later(Box::pin(self.ask(x)))
    }
}

impl AuthRequest {
    async fn ask(&self, x: &mut Exchange) -> Verdict {
        let child = x.subrequest(&self.uri, b"");
        let mut child = subrequest(child).await;
        let mut rest = Unread::of(&mut child);
        let is_read = rest.drop_ready(&mut child).await;
        let mut values: Vec<(VariableId, Span)> = Vec::with_capacity(self.variables.len());
        for (id, value) in &self.variables {
            let value = value.value(&mut child);
            // The next value may be made of this one.
            assign(&mut child, *id, value);
            values.push((*id, value));
        }
        let challenges = challenges(&child);
        let (status, closed) = (child.response.status, child.sent.logged_status);
        if is_read {
            log_subrequest(&mut child);
        }
        x.adopt(&mut child);
        if !is_read {
            // Its log lines need the text that was given away.
            child.arena = x.arena.duplicate();
            child.background = true;
            net::spawn(async move {
                rest.drop_rest(&mut child).await;
                log_subrequest(&mut child);
            });
        }
        for (id, value) in values {
            assign(x, id, value);
        }
        if closed.is_some() {
            // The location that was asked wants the connection closed, or the client is gone.
            x.sent.logged_status = closed;
            return Verdict::Close;
        }
        verdict(x, status, challenges)
    }
}

/// The WWW-Authenticate fields of the answer; a backend's count though they may be hidden.
fn challenges(child: &Exchange) -> Vec<Field> {
    if child.response.status != 401 {
        return Vec::new();
    }
    let own: Vec<Field> = child.response.headers.all(Known::WwwAuthenticate).collect();
    match child.upstream.as_deref() {
        Some(log) if own.is_empty() => log.headers.all(Known::WwwAuthenticate).collect(),
        _ => own,
    }
}

fn verdict(x: &mut Exchange, status: u16, challenges: Vec<Field>) -> Verdict {
    match status {
        200..=299 => Verdict::Next,
        401 => {
            x.response.headers.remove(Known::WwwAuthenticate);
            for field in challenges {
                x.response.headers.push(field);
            }
            Verdict::Status(401)
        }
        403 => Verdict::Status(403),
        other => {
            x.log_error(
                Level::Error,
                format_args!("auth request unexpected status: {other} while sending to client"),
            );
            Verdict::Status(500)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |arguments: &str, expected: Result<(&str, &str), &str>| {
            let found = AUTH_REQUEST_SET.read_text(arguments);
            let expected = expected
                .map(|(name, value)| Line {
                    name: name.to_string(),
                    value: config::Template::parse(value.as_bytes()).unwrap(),
                })
                .map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("$a b", Ok(("a", "b")));
        check("$a $b-$c", Ok(("a", "$b-$c")));
        check("$a \"\"", Ok(("a", "")));
        check("a b", Err("invalid variable name \"a\""));
        check("$ b", Err("invalid variable name \"$\""));
        check("$a $-", Err("invalid variable name"));
        check("$a", Err("invalid number of arguments in \"auth_request_set\" directive"));
    }

    #[test]
    fn uris() {
        assert_eq!(AUTH_REQUEST.read_text("/a?b"), Ok(Some("/a?b".to_string())));
        assert_eq!(AUTH_REQUEST.read_text("off"), Ok(None));
        assert_eq!(AUTH_REQUEST.read_text("\"\""), Ok(None));
    }
}
