//! `return`: an answer from the configuration itself.

use config::{Args, Arity, Directive, Invalid, read};
use http::compile::Compiler;
use http::{Body, Exchange, Verdict};
use net::{Block, Chunk, Data};
use session::contexts::{IF_LOCATION, IF_SERVER, LOCATION, SERVER};
use session::log::{Bytes, Level};
use session::text::Span;
use session::variables::Template;

use crate::media_type;

/// `return`, see [`ReturnLine`].
pub(super) static RETURN: Directive<ReturnLine> =
    Directive::new("return", &[SERVER, LOCATION, IF_SERVER, IF_LOCATION], read_return)
        .takes(Arity::Between(1, 2))
        .many()
        .syntax("return CODE [TEXT];\nreturn CODE URL;\nreturn URL;")
        .text(
            "Ends the request with the status CODE. With 301, 302, 303, 307 and 308 the client \
             is sent to URL, which may be a path of the same server; URL alone means 302. With \
             any other status TEXT is the body of the answer. An error without TEXT gets its \
             page from `error_page`, else the built-in one. The status 444 closes the \
             connection without an answer. In a `server` it holds for every request, before a \
             location is looked for.",
        )
        .example("location /old/ { return 301 https://$host/new/; }");

/// What `return` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ReturnLine {
    /// 0 to 999.
    pub status: u16,
    /// The body or the place to go to.
    pub text: Option<config::Template>,
}

fn read_return(args: &Args<'_>) -> Result<ReturnLine, Invalid> {
    let invalid = || Invalid::new(format!("invalid return code \"{}\"", args.str(0))).at(0);
    let word = args.word(0).bytes();
    let Some(number) = read::parse_number(word) else {
        let is_place = ["http://", "https://", "$scheme"]
            .iter()
            .any(|beginning| word.starts_with(beginning.as_bytes()));
        return match args.len() == 1 && is_place {
            true => Ok(ReturnLine { status: 302, text: Some(read::template_at(args, 0)?) }),
            false => Err(invalid()),
        };
    };
    let status = u16::try_from(number).ok().filter(|status| *status <= 999).ok_or_else(invalid)?;
    let text = match args.len() {
        1 => None,
        _ => Some(read::template_at(args, 1)?),
    };
    // An empty text is none.
    Ok(ReturnLine { status, text: text.filter(|text| !text.parts.is_empty()) })
}

/// A compiled `return`.
pub(super) struct Return {
    status: u16,
    text: Text,
}

enum Text {
    Nothing,
    /// Shared by all answers: the bytes are never copied.
    Constant(Chunk),
    Template(Template),
}

impl Return {
    pub(super) fn compile(c: &mut Compiler<'_>, line: &ReturnLine) -> Return {
        let text = line.text.as_ref().map(|source| c.template(source));
        let text = match text {
            None => Text::Nothing,
            Some(template) => match template.as_constant() {
                Some(text) => Text::Constant(Chunk::copy_of(text)),
                None => Text::Template(template),
            },
        };
        Return { status: line.status, text }
    }

    /// The answer, or the status that leads to one.
    pub(super) fn verdict(&self, x: &mut Exchange) -> Verdict {
        if matches!(self.text, Text::Nothing) && self.status >= 400 {
            return if self.status == 444 { Verdict::Close } else { Verdict::Status(self.status) };
        }
        match self.status {
            301 | 302 | 303 | 307 | 308 => self.redirect(x),
            _ => {
                self.answer(x);
                Verdict::Answer
            }
        }
    }

    fn redirect(&self, x: &mut Exchange) -> Verdict {
        let place = match &self.text {
            Text::Nothing => Span::EMPTY,
            Text::Constant(text) => x.arena.push(text),
            Text::Template(template) => template.value(x),
        };
        send_to(x, place, self.status)
    }

    fn answer(&self, x: &mut Exchange) {
        let body = match &self.text {
            Text::Nothing => Body::Empty,
            Text::Constant(text) => Body::Whole(Data::Memory(text.clone())),
            Text::Template(template) => {
                let text = template.value(x);
                Body::Whole(Data::from(Block::copy_of(x.text(text))))
            }
        };
        x.response.length = Some(match &body {
            Body::Whole(data) => data.len(),
            _ => 0,
        });
        x.response.status = self.status;
        if self.status < 100 {
            // A status line has three digits.
            x.response.status_line = Some(x.arena.format(format_args!("{:03} ", self.status)));
        }
        x.response.content_type = media_type::of(x);
        x.response.body = body;
    }
}

/// Sends the client to `place` with `status`.
pub(super) fn send_to(x: &mut Exchange, place: Span, status: u16) -> Verdict {
    // A decoded path may hold a line break, and would end the field.
    if memchr::memchr2(b'\r', b'\n', x.text(place)).is_some() {
        let shown = Bytes(x.text(place));
        x.log_error(Level::Error, format_args!("line break in \"Location\": \"{shown}\""));
        return Verdict::Status(400);
    }
    x.response.location = Some(place);
    Verdict::Status(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let check = |arguments: &str, expected: Result<(u16, Option<&str>), &str>| {
            let found = RETURN.read_text(arguments).map(|line| (line.status, line.text));
            let expected = expected
                .map(|(status, text)| {
                    (status, text.map(|text| config::Template::parse(text.as_bytes()).unwrap()))
                })
                .map_err(str::to_owned);
            assert_eq!(found.map_err(|invalid| invalid.message), expected, "{arguments}");
        };
        check("200", Ok((200, None)));
        check("200 \"\"", Ok((200, None)));
        check("200 a$uri", Ok((200, Some("a$uri"))));
        check("0", Ok((0, None)));
        check("999 x", Ok((999, Some("x"))));
        check("http://a/", Ok((302, Some("http://a/"))));
        check("https://a/$uri", Ok((302, Some("https://a/$uri"))));
        check("$scheme://a/", Ok((302, Some("$scheme://a/"))));
        check("1000", Err("invalid return code \"1000\""));
        check("-1", Err("invalid return code \"-1\""));
        check("\"\"", Err("invalid return code \"\""));
        check("/path", Err("invalid return code \"/path\""));
        check("http://a/ b", Err("invalid return code \"http://a/\""));
        check("200 $-", Err("invalid variable name"));
        check("", Err("invalid number of arguments in \"return\" directive"));
    }
}
