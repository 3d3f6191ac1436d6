//! The directives of active checks, as data: `health_check`, and `match` with what it holds.

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Opens, read};
use session::contexts::{HTTP, LOCATION, STREAM, STREAM_SERVER};
use session::regex::{Case, Regex};
use std::rc::Rc;
use wire::checks::Protocol;

use super::rules::{Expect, HeaderRule, Requirement, StatusRule, Statuses, Test};

/// Inside `match { }`.
pub const MATCH: Context = Context::new("match", "match");

/// All of them.
pub static DIRECTIVES: &[&dyn AnyDirective] =
    &[&HEALTH_CHECK, &MATCH_BLOCK, &STATUS, &HEADER, &REQUIRE, &BODY, &SEND, &EXPECT];

/// What is asked of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// What the surroundings speak: a request in http, a connection in stream.
    Native,
    /// That it takes a connection; and what `match` sends and expects.
    Tcp,
    /// A dialogue in its own protocol.
    Protocol(Protocol),
    /// A call of gRPC's health service.
    Grpc,
}

/// One `health_check` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Between two checks of a server.
    pub interval_ms: u64,
    /// At most so much is added to each interval, at random.
    pub jitter_ms: u64,
    /// Failed checks in a row after which a server is taken out.
    pub fails: u32,
    /// Passed checks in a row after which it is taken in again.
    pub passes: u32,
    /// What is asked for over HTTP.
    pub uri: Box<str>,
    /// In place of the server's own port.
    pub port: Option<u16>,
    /// What is asked.
    pub kind: Kind,
    /// No requests before the first passed check.
    pub mandatory: bool,
    /// A server that was in before a reload is in after it.
    pub persistent: bool,
    /// How long a connection is used for checks; 0 opens one for each.
    pub keepalive_ms: u64,
    /// The `match` block.
    pub matching: Option<Box<str>>,
    /// Over UDP.
    pub udp: bool,
    /// The account of protocols that have accounts.
    pub user: Option<Box<str>>,
    /// Whom a call over gRPC asks about; the server as a whole otherwise.
    pub grpc_service: Option<Box<str>>,
    /// The `grpc-status` of a good answer, when it is not 0.
    pub grpc_status: Option<u32>,
}

/// `health_check`.
pub static HEALTH_CHECK: Directive<Line> =
    Directive::new("health_check", &[LOCATION, STREAM_SERVER], line)
        .takes(Arity::Any)
        .syntax(
            "health_check [interval=TIME] [jitter=TIME] [fails=N] [passes=N] [uri=URI] [port=N] \
             [type=tcp|grpc|mysql|pgsql|redis|smtp|ssl_hello] [grpc_service=NAME] \
             [grpc_status=N] [user=NAME] [match=NAME] [mandatory [persistent]] \
             [keepalive_time=TIME] [udp];",
        )
        .text(
            "Asks every server of the group that the place passes to, again and again, whether it \
             is well. One that is not gets no requests until it is well again. The group must have \
             a `zone`: one process asks, all workers know.\n\n\
             - `interval=TIME`: between two checks of a server; 5 seconds unless given.\n\
             - `jitter=TIME`: at most so much is added at random to each interval.\n\
             - `fails=N`, `passes=N`: so many checks in a row must fail, or pass, for a change; 1 \
             unless given.\n\
             - `uri=URI`: what is asked for over HTTP; `/` unless given.\n\
             - `port=N`: asks at this port instead of the server's own.\n\
             - `match=NAME`: what a good answer is; without it a status of 200 to 399, and in \
             stream an open connection.\n\
             - `type=tcp`: an open connection is enough. `mysql`, `pgsql`, `redis`, `smtp` and \
             `ssl_hello` hold a short dialogue in the protocol of the server, which one that \
             merely greets does not pass.\n\
             - `type=grpc`: with `grpc_pass`, calls `grpc.health.v1.Health/Check`, which must say \
             SERVING, of the service that `grpc_service=NAME` names or of the server as a whole. \
             `grpc_status=N` is the status of a good answer in place of 0: 12 for servers without \
             that service.\n\
             - `user=NAME`: the account, without a password, for `mysql` and `pgsql`. With it the \
             login must succeed and a ping, or a query, must be answered.\n\
             - `mandatory`: a server gets no requests before its first passed check; with \
             `persistent` one that was in before a reload need not wait.\n\
             - `keepalive_time=TIME`: checks over HTTP use one connection for that long.\n\
             - `udp`: in stream, sends and expects packets; the `match` must say what. Without an \
             answer to expect, silence is good and a refusal is not.\n\n\
             Requests of checks have the fields that `proxy_set_header` (`grpc_set_header`) sets \
             without variables; the time limits are those of the place, in stream \
             `health_check_timeout`.",
        )
        .example(
            "location / {\n    proxy_pass http://backend;\n    health_check interval=2s fails=3 \
             passes=2 uri=/health match=well;\n}",
        );

/// `match`; its value is the name.
pub static MATCH_BLOCK: Directive<String> = Directive::new("match", &[HTTP, STREAM], read::text)
    .many()
    .opens(Opens::Context(MATCH))
    .syntax("match NAME { ... }")
    .text(
        "Names what a good answer to a `health_check` is. All that the block says must hold. In \
         http it is about the answer (`status`, `header`, `require`, `body`), elsewhere about \
         bytes (`send`, `expect`).",
    )
    .example("match well { status 200-299; header Content-Type ~ json; body ~ '\"ok\"'; }");

/// `status`.
pub static STATUS: Directive<StatusRule> = Directive::new("status", &[MATCH], status)
    .takes(Arity::AtLeast(1))
    .syntax("status [!] CODE | FROM-TO ...;")
    .text("The statuses of a good answer; after `!` those that it must not have.")
    .example("match well { status 200 204 301-399; }");

/// `header`.
pub static HEADER: Directive<HeaderRule> = Directive::new("header", &[MATCH], header)
    .takes(Arity::Between(1, 3))
    .many()
    .syntax("header [!] NAME;\nheader NAME = | != | ~ | !~ VALUE;")
    .text(
        "A field that a good answer has (or, after `!`, has not), or its value: equal, unequal, \
         matched or not matched by a regular expression.",
    )
    .example("match well { header X-Role = primary; header ! X-Maintenance; }");

/// `require`.
pub static REQUIRE: Directive<Vec<Requirement>> = Directive::new("require", &[MATCH], require)
    .takes(Arity::AtLeast(1))
    .many()
    .syntax("require $VARIABLE ...;")
    .text(
        "Variables that must be neither empty nor `0`. Nobody makes a request when a server is \
         checked, so only those are allowed that tell of its answer: `$upstream_status`, \
         `$upstream_http_NAME` for a field, `$upstream_cookie_NAME` for a cookie.",
    )
    .example("match well { status 200; require $upstream_http_x_ready; }");

/// `body`.
pub static BODY: Directive<Test> = Directive::new("body", &[MATCH], body)
    .takes(Arity::Exactly(2))
    .syntax("body ~ | !~ PATTERN;")
    .text("A regular expression for the first 256 KiB of a good answer's body.")
    .example("match well { body ~ \"all systems go\"; }");

/// `send`.
pub static SEND: Directive<Vec<u8>> = Directive::new("send", &[MATCH], |args| unescape(args, 0))
    .syntax("send TEXT;")
    .text("What is sent to the server. `\\xHH` stands for a byte, `\\r`, `\\n`, `\\t` as usual.")
    .example("match well { send \"PING\\r\\n\"; expect ~ PONG; }");

/// `expect`.
pub static EXPECT: Directive<Expect> = Directive::new("expect", &[MATCH], expect)
    .takes(Arity::Between(1, 2))
    .syntax("expect TEXT | ~ PATTERN | ~* PATTERN;")
    .text("What the server must say: these bytes first, or something that the pattern matches.")
    .example("match well { send \"PING\\r\\n\"; expect ~ PONG; }");

fn line(args: &Args<'_>) -> Result<Line, Invalid> {
    let mut line = Line {
        interval_ms: 5_000,
        jitter_ms: 0,
        fails: 1,
        passes: 1,
        uri: "/".into(),
        port: None,
        kind: Kind::Native,
        mandatory: false,
        persistent: false,
        keepalive_ms: 0,
        matching: None,
        udp: false,
        user: None,
        grpc_service: None,
        grpc_status: None,
    };
    for (i, word) in args.words().iter().enumerate() {
        parameter(&mut line, &word.str())
            .ok_or_else(|| Invalid::new(format!("invalid parameter \"{}\"", word.str())).at(i))?;
    }
    if line.persistent && !line.mandatory {
        return Err(Invalid::new("\"persistent\" requires \"mandatory\""));
    }
    if line.udp && line.kind != Kind::Native {
        return Err(Invalid::new("\"udp\" has no \"type\""));
    }
    let has_accounts = matches!(line.kind, Kind::Protocol(Protocol::Mysql | Protocol::Pgsql));
    if line.user.is_some() && !has_accounts {
        return Err(Invalid::new("\"user\" requires \"type=mysql\" or \"type=pgsql\""));
    }
    let is_grpc = line.kind == Kind::Grpc;
    if !is_grpc && (line.grpc_service.is_some() || line.grpc_status.is_some()) {
        return Err(Invalid::new("\"grpc_service\" and \"grpc_status\" require \"type=grpc\""));
    }
    if is_grpc && &*line.uri != "/" {
        return Err(Invalid::new("\"uri\" has no meaning for \"type=grpc\""));
    }
    Ok(line)
}

/// Takes one parameter in; `None` when it is no good.
fn parameter(line: &mut Line, word: &str) -> Option<()> {
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let time = || read::parse_time_ms(value.as_bytes());
    let count = || value.parse::<u32>().ok().filter(|n| *n > 0);
    let text = || (!value.is_empty()).then(|| Box::<str>::from(value));
    match key {
        "interval" => line.interval_ms = time().filter(|ms| *ms > 0)?,
        "jitter" => line.jitter_ms = time()?,
        "fails" => line.fails = count()?,
        "passes" => line.passes = count()?,
        "uri" => line.uri = text().filter(|uri| uri.starts_with('/'))?,
        "port" => line.port = Some(value.parse().ok().filter(|port| *port > 0)?),
        "match" => line.matching = Some(text()?),
        "user" => line.user = Some(text()?),
        "grpc_service" => line.grpc_service = Some(text().filter(|name| name.len() < 4096)?),
        "grpc_status" => line.grpc_status = Some(value.parse().ok()?),
        "keepalive_time" => line.keepalive_ms = time()?,
        "udp" if value.is_empty() => line.udp = true,
        "mandatory" if value.is_empty() => line.mandatory = true,
        "persistent" if value.is_empty() => line.persistent = true,
        "type" => {
            line.kind = match value {
                "tcp" => Kind::Tcp,
                "grpc" => Kind::Grpc,
                "mysql" => Kind::Protocol(Protocol::Mysql),
                "pgsql" => Kind::Protocol(Protocol::Pgsql),
                "redis" => Kind::Protocol(Protocol::Redis),
                "smtp" => Kind::Protocol(Protocol::Smtp),
                "ssl_hello" => Kind::Protocol(Protocol::SslHello),
                _ => return None,
            }
        }
        _ => return None,
    }
    Some(())
}

fn status(args: &Args<'_>) -> Result<StatusRule, Invalid> {
    let negated = args.word(0).bytes() == b"!";
    let first = usize::from(negated);
    let mut ranges = Vec::new();
    for (i, word) in args.words().iter().enumerate().skip(first) {
        let text = word.str();
        let (from, to) = text.split_once('-').unwrap_or((&text, &text));
        let code = |text: &str| text.parse::<u16>().ok().filter(|c| (100..1000).contains(c));
        match (code(from), code(to)) {
            (Some(from), Some(to)) if from <= to => ranges.push((from, to)),
            _ => return Err(Invalid::new(format!("invalid status \"{text}\"")).at(i)),
        }
    }
    if ranges.is_empty() {
        return Err(Invalid::new("no status is given"));
    }
    Ok(StatusRule { negated, statuses: Statuses(ranges.into()) })
}

fn header(args: &Args<'_>) -> Result<HeaderRule, Invalid> {
    let name = |i: usize| args.word(i).bytes().to_ascii_lowercase().into();
    if args.words().len() == 1 {
        return Ok(HeaderRule::Present(name(0)));
    }
    if args.words().len() == 2 {
        return match args.word(0).bytes() == b"!" {
            true => Ok(HeaderRule::Absent(name(1))),
            false => Err(Invalid::new(format!("invalid value \"{}\"", args.str(1))).at(1)),
        };
    }
    let value = || args.word(2).bytes().to_vec().into();
    let test = match args.word(1).bytes() {
        b"=" => Test::Equal(value()),
        b"!=" => Test::Unequal(value()),
        b"~" => Test::Matched(pattern(args, 2, Case::Sensitive)?),
        b"!~" => Test::Unmatched(pattern(args, 2, Case::Sensitive)?),
        _ => return Err(Invalid::new(format!("invalid operator \"{}\"", args.str(1))).at(1)),
    };
    Ok(HeaderRule::Value(name(0), test))
}

fn require(args: &Args<'_>) -> Result<Vec<Requirement>, Invalid> {
    let of = |i: usize| {
        let word = args.str(i);
        let name = word.strip_prefix('$').map(|name| name.trim_matches(['{', '}']).to_owned());
        let name = name.filter(|name| !name.is_empty());
        let name =
            name.ok_or_else(|| Invalid::new(format!("invalid variable \"{word}\"")).at(i))?;
        Requirement::of(&name).ok_or_else(|| {
            let reason = format!("\"{word}\" says nothing of the answer to a check");
            Invalid::new(reason).at(i)
        })
    };
    (0..args.len()).map(of).collect()
}

fn body(args: &Args<'_>) -> Result<Test, Invalid> {
    match args.word(0).bytes() {
        b"~" => Ok(Test::Matched(pattern(args, 1, Case::Sensitive)?)),
        b"!~" => Ok(Test::Unmatched(pattern(args, 1, Case::Sensitive)?)),
        _ => Err(Invalid::new(format!("invalid operator \"{}\"", args.str(0))).at(0)),
    }
}

fn expect(args: &Args<'_>) -> Result<Expect, Invalid> {
    if args.words().len() == 1 {
        return Ok(Expect::Begins(unescape(args, 0)?.into()));
    }
    match args.word(0).bytes() {
        b"~" => Ok(Expect::Matched(pattern(args, 1, Case::Sensitive)?)),
        b"~*" => Ok(Expect::Matched(pattern(args, 1, Case::Ignored)?)),
        _ => Err(Invalid::new(format!("invalid operator \"{}\"", args.str(0))).at(0)),
    }
}

fn pattern(args: &Args<'_>, i: usize, case: Case) -> Result<Rc<Regex>, Invalid> {
    Regex::new(&args.str(i), case).map(Rc::new).map_err(|reason| Invalid::new(reason).at(i))
}

/// A text with `\xHH`, `\r`, `\n` and `\t`; the language itself has taken away other backslashes.
fn unescape(args: &Args<'_>, i: usize) -> Result<Vec<u8>, Invalid> {
    let text = args.word(i).bytes();
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        at += 1;
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let escaped = text.get(at).copied();
        at += 1;
        match escaped {
            Some(b'x') => {
                let digits = text.get(at..at + 2).and_then(|hex| std::str::from_utf8(hex).ok());
                let byte = digits.and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.push(byte.ok_or_else(|| Invalid::new("invalid \"\\x\" in text").at(i))?);
                at += 2;
            }
            Some(b'r') => out.push(b'\r'),
            Some(b'n') => out.push(b'\n'),
            Some(b't') => out.push(b'\t'),
            Some(other) => out.push(other),
            None => out.push(b'\\'),
        }
    }
    Ok(out)
}
