//! The directives `log_format` and `access_log`: their words, and what is wrong with them.

use std::path::PathBuf;

use config::{AnyDirective, Args, Arity, Directive, Invalid, Part, read};

use super::{COMBINED, Escape};
use crate::contexts::{HTTP, IF_LOCATION, LIMIT_EXCEPT, LOCATION, SERVER, STREAM, STREAM_SERVER};
use crate::log::{Buffering, SyslogText, TargetText};
use crate::open_files::{Limits, Policy, read_limits};
use system::opening::Purpose;

/// This module's directives.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&LOG_FORMAT, &ACCESS_LOG, &OPEN_LOG_FILE_CACHE];

/// `log_format`, see [`FormatLine`].
pub static LOG_FORMAT: Directive<FormatLine> =
    Directive::new("log_format", &[HTTP, STREAM], format_line)
        .takes(Arity::AtLeast(2))
        .many()
        .syntax("log_format NAME [escape=default|json|none] STRING...;")
        .text(
            "Defines how a line of the access log looks: the STRINGs put together, with the values \
         of their variables. Values are escaped: by default quotes, backslashes and all that is \
         not printable ASCII become \\xXX, and a missing value is `-`; with json, as in JSON \
         strings; with none, not at all. The format `combined` is always there: \
         $remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
         \"$http_referer\" \"$http_user_agent\".",
        )
        .example("log_format short '$remote_addr \"$request\" $status $request_time';");

/// `access_log`, see [`AccessLogLine`].
pub static ACCESS_LOG: Directive<AccessLogLine> = Directive::new(
    "access_log",
    &[HTTP, SERVER, LOCATION, IF_LOCATION, LIMIT_EXCEPT, STREAM, STREAM_SERVER],
    access_log_line,
)
.takes(Arity::AtLeast(1))
.many()
.default("logs/access.log combined")
.syntax(
    "access_log PATH [FORMAT [buffer=SIZE] [gzip[=LEVEL]] [flush=TIME] [if=CONDITION]];\n\
     access_log syslog:server=ADDRESS[,PARAMETER=VALUE...] [FORMAT [if=CONDITION]];\n\
     access_log off;",
)
.text(
    "Where a line about each request is written, and in which FORMAT (log_format; `combined` \
     without one). In stream it is a line about each session, FORMAT must be given, and without \
     this directive nothing is written. Several lines at the same level of the configuration all \
     apply; lines of an inner block replace those of the outer one, and `off` at a level drops \
     all of them. With buffer, lines are collected and written when SIZE is reached, when they \
     are older than the \
     time of flush, when logs are reopened and when a worker exits. With gzip, what is written \
     together is compressed at LEVEL (1 to 9, 1 without one), and the buffer has 64k unless it is \
     given. With if, the request is \
     logged unless CONDITION is empty or 0. A relative PATH starts at the prefix (-p). A PATH \
     with variables is opened for each line, provided that the root directory of the request \
     exists; such logs cannot be buffered. `syslog:` is as in error_log, with a severity (info).",
)
.example("access_log logs/access.log combined buffer=32k flush=5s;");

/// `open_log_file_cache`: how much is kept, and how it is treated.
pub static OPEN_LOG_FILE_CACHE: Directive<Option<(Limits, Policy)>> = Directive::new(
    "open_log_file_cache",
    &[HTTP, SERVER, LOCATION, STREAM, STREAM_SERVER],
    open_log_file_cache,
)
.takes(Arity::Between(1, 4))
.default("off")
.syntax(
    "open_log_file_cache off;\n\
     open_log_file_cache max=N [inactive=TIME] [min_uses=N] [valid=TIME];",
)
.text(
    "Keeps up to N access logs open whose paths have variables. A log that was not used for the \
     time of inactive (10 seconds) is closed; one stays open when it was used min_uses times (1) \
     meanwhile. After the time of valid (60 seconds) it is looked whether the path still leads to \
     the same file.",
)
.example("open_log_file_cache max=1000 inactive=20s min_uses=2 valid=1m;");

fn open_log_file_cache(args: &Args<'_>) -> Result<Option<(Limits, Policy)>, Invalid> {
    let mut policy =
        Policy { valid_ms: 60_000, min_uses: 1, errors: false, purpose: Purpose::Append };
    let limits = read_limits(args, "open_log_file_cache", 10, |word| {
        if let Some(digits) = word.strip_prefix(b"min_uses=") {
            return read::parse_number(digits).map(|uses| policy.min_uses = uses).is_some();
        }
        let time = word.strip_prefix(b"valid=").and_then(read::parse_time_s);
        time.map(|time| policy.valid_ms = time.saturating_mul(1000)).is_some()
    })?;
    Ok(limits.map(|limits| (limits, policy)))
}

/// One `log_format` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatLine {
    /// What `access_log` calls it.
    pub name: String,
    /// How values are written.
    pub escape: Escape,
    /// Texts and variables; never a capture.
    pub parts: Vec<Part>,
}

/// One `access_log` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogLine {
    /// No log at this level, whatever else is said there.
    Off,
    /// One more log.
    On {
        /// Where lines go.
        path: PathText,
        /// The path as written, for messages.
        shown: String,
        /// The name of the format.
        format: String,
        /// `buffer=` and `flush=`.
        buffering: Option<Buffering>,
        /// `if=`.
        condition: Option<config::Template>,
    },
}

/// The path of an access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathText {
    /// A constant path; empty for stderr, as in nginx.
    File(PathBuf),
    /// A path with variables.
    Template(config::Template),
    /// A syslog daemon.
    Syslog(SyslogText),
}

fn format_line(args: &Args<'_>) -> Result<FormatLine, Invalid> {
    let mut escape = Escape::Default;
    let mut first = 1;
    if let Some(name) = args.word(1).bytes().strip_prefix(b"escape=") {
        escape = match name {
            b"default" => Escape::Default,
            b"json" => Escape::Json,
            b"none" => Escape::None,
            _ => {
                let name = String::from_utf8_lossy(name);
                let message = format!("unknown log format escaping \"{name}\"");
                return Err(Invalid::new(message).at(1));
            }
        };
        first = 2;
    }
    let mut parts = Vec::new();
    for (at, word) in args.words().iter().enumerate().skip(first) {
        let more = format_parts(word.bytes()).map_err(|why| Invalid::new(why).at(at))?;
        more.into_iter().for_each(|part| push_part(&mut parts, part));
    }
    Ok(FormatLine { name: args.str(0).into_owned(), escape, parts })
}

fn push_part(parts: &mut Vec<Part>, part: Part) {
    match (parts.last_mut(), part) {
        (Some(Part::Text(text)), Part::Text(more)) => text.extend(more),
        (_, part) => parts.push(part),
    }
}

/// Cuts a format. It differs from other templates: `$1` is a variable of that name, which does
/// not exist, and faults are worded in another way.
pub(super) fn format_parts(source: &[u8]) -> Result<Vec<Part>, String> {
    let mut parts = Vec::new();
    let mut rest = source;
    while !rest.is_empty() {
        let dollar = rest.iter().position(|&byte| byte == b'$').unwrap_or(rest.len());
        if dollar > 0 {
            parts.push(Part::Text(rest[..dollar].to_vec()));
            rest = &rest[dollar..];
            continue;
        }
        let invalid = || format!("invalid parameter \"{}\"", String::from_utf8_lossy(rest));
        let body = match rest {
            [_, b'{', body @ ..] => body,
            [_, body @ ..] => body,
            [] => return Err(invalid()),
        };
        let braced = rest.get(1) == Some(&b'{');
        if body.is_empty() {
            return Err(invalid());
        }
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let length = body.iter().position(|byte| !is_name(byte)).unwrap_or(body.len());
        let (name, after) = body.split_at(length);
        let name = String::from_utf8_lossy(name).into_owned();
        let after = match (braced, after) {
            (false, after) => after,
            (true, [b'}', after @ ..]) => after,
            (true, _) => {
                return Err(format!("the closing bracket in \"{name}\" variable is missing"));
            }
        };
        if name.is_empty() {
            return Err(invalid());
        }
        parts.push(Part::Variable(name));
        rest = after;
    }
    Ok(parts)
}

fn access_log_line(args: &Args<'_>) -> Result<AccessLogLine, Invalid> {
    let invalid =
        |at: usize| Invalid::new(format!("invalid parameter \"{}\"", args.str(at))).at(at);
    if args.word(0).bytes() == b"off" {
        return if args.len() == 1 { Ok(AccessLogLine::Off) } else { Err(invalid(1)) };
    }
    let path = path(args)?;
    let format = if args.len() > 1 { args.str(1).into_owned() } else { COMBINED.to_owned() };
    let (mut size, mut flush_ms, mut condition) = (None, None, None);
    let mut gzip = None;
    for at in 2..args.len() {
        let word = args.word(at).bytes();
        let wrong = |what: &str, value: &[u8]| {
            let value = String::from_utf8_lossy(value);
            Invalid::new(format!("invalid {what} \"{value}\"")).at(at)
        };
        if let Some(value) = word.strip_prefix(b"buffer=") {
            let bytes = read::parse_size(value).filter(|&bytes| bytes > 0);
            size = Some(bytes.ok_or_else(|| wrong("buffer size", value))?);
        } else if let Some(value) = word.strip_prefix(b"flush=") {
            let wait = read::parse_time_ms(value).filter(|&wait| wait > 0);
            flush_ms = Some(wait.ok_or_else(|| wrong("flush time", value))?);
        } else if let Some(value) = word.strip_prefix(b"if=") {
            let template = config::Template::parse(value);
            condition = Some(template.map_err(|why| Invalid::new(why).at(at))?);
        } else if word == b"gzip" || word.starts_with(b"gzip=") {
            let level = match word.strip_prefix(b"gzip=") {
                None => 1,
                Some(value) => read::parse_number(value)
                    .filter(|level| (1..=9).contains(level))
                    .ok_or_else(|| wrong("compression level", value))?,
            };
            size = size.or(Some(GZIP_BUFFER));
            gzip = Some(level as u8);
        } else {
            return Err(invalid(at));
        }
    }
    let shown = args.str(0).into_owned();
    let buffering = buffering(&path, &shown, size, flush_ms)?;
    let buffering = buffering.map(|buffering| Buffering { gzip, ..buffering });
    Ok(AccessLogLine::On { path, shown, format, buffering, condition })
}

/// The buffer of a compressed log that names none.
const GZIP_BUFFER: u64 = 64 << 10;

fn path(args: &Args<'_>) -> Result<PathText, Invalid> {
    let at_path = |why: String| Invalid::new(why).at(0);
    match TargetText::read(args.word(0)).map_err(at_path)? {
        TargetText::Syslog(about) => Ok(PathText::Syslog(about)),
        TargetText::Stderr => Ok(PathText::File(PathBuf::new())),
        TargetText::File(path) => {
            let template = config::Template::parse(args.word(0).bytes()).map_err(at_path)?;
            if template.is_constant() {
                Ok(PathText::File(path))
            } else {
                Ok(PathText::Template(template))
            }
        }
    }
}

fn buffering(
    path: &PathText,
    shown: &str,
    size: Option<u64>,
    flush_ms: Option<u64>,
) -> Result<Option<Buffering>, Invalid> {
    let Some(size) = size else {
        return match flush_ms {
            Some(_) => {
                Err(Invalid::new(format!("no buffer is defined for access_log \"{shown}\"")).at(0))
            }
            None => Ok(None),
        };
    };
    let refuse = |why: &str| Err(Invalid::new(why).at(0));
    match path {
        PathText::Template(_) => refuse("buffered logs cannot have variables in name"),
        PathText::Syslog(_) => refuse("logs to syslog cannot be buffered"),
        PathText::File(_) => {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            Ok(Some(Buffering { size, flush_ms, gzip: None }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown_parts(parts: &[Part]) -> String {
        let show = |part: &Part| match part {
            Part::Text(text) => String::from_utf8_lossy(text).into_owned(),
            Part::Variable(name) => format!("<{name}>"),
            Part::Capture(n) => format!("<capture {n}>"),
        };
        parts.iter().map(show).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn formats_mean_what_they_mean_to_nginx() {
        let check = |text: &str, expected: &str| {
            let found = match LOG_FORMAT.read_text(text) {
                Ok(line) => {
                    format!("{} {:?} {}", line.name, line.escape, shown_parts(&line.parts))
                }
                Err(invalid) => invalid.message,
            };
            assert_eq!(found, expected, "{text}");
        };
        check("a x", "a Default x");
        check("a 'x ' '$uri' ' y' z", "a Default x |<uri>| yz");
        check("a escape=json '${arg_a}b$1'", "a Json <arg_a>|b|<1>");
        check("a escape=none escape=none", "a None escape=none");
        check("a escape=default", "a Default ");
        check("escape=none x y", "escape=none Default xy");
        check("'' x", " Default x");
        check("a $a-$b", "a Default <a>|-|<b>");
        check("a escape=foo x", "unknown log format escaping \"foo\"");
        check("a 'a$'", "invalid parameter \"$\"");
        check("a '$$'", "invalid parameter \"$$\"");
        check("a '${}'", "invalid parameter \"${}\"");
        check("a '${'", "invalid parameter \"${\"");
        check("a 'x $- y'", "invalid parameter \"$- y\"");
        check("a 'a${b'", "the closing bracket in \"b\" variable is missing");
        check("a", "invalid number of arguments in \"log_format\" directive");
    }

    #[test]
    fn access_logs_mean_what_they_mean_to_nginx() {
        let check = |text: &str, expected: &str| {
            let found = match ACCESS_LOG.read_text(text) {
                Ok(AccessLogLine::Off) => "off".to_owned(),
                Ok(AccessLogLine::On { path, format, buffering, condition, .. }) => {
                    let path = match path {
                        PathText::File(path) => path.display().to_string(),
                        PathText::Template(path) => shown_parts(&path.parts),
                        PathText::Syslog(about) => about.name,
                    };
                    let condition = condition.map(|condition| shown_parts(&condition.parts));
                    let buffering = buffering.map(|found| (found.size, found.flush_ms));
                    format!("{path} {format} {buffering:?} {condition:?}")
                }
                Err(invalid) => invalid.message,
            };
            assert_eq!(found, expected, "{text}");
        };
        check("off", "off");
        check("off x", "invalid parameter \"x\"");
        check("a.log", "a.log combined None None");
        check("'' x", " x None None");
        check("/a.log x buffer=1k", "/a.log x Some((1024, None)) None");
        check("a x flush=1m buffer=2 buffer=3", "a x Some((3, Some(60000))) None");
        check("a x if=$a$b", "a x None Some(\"<a>|<b>\")");
        check("a x if=$a if=", "a x None Some(\"\")");
        check("/x/$host.log x", "/x/|<host>|.log x None None");
        check("syslog:server=unix:/s x if=$a", "unix:/s x None Some(\"<a>\")");
        check("", "invalid number of arguments in \"access_log\" directive");
        check("a combined foo", "invalid parameter \"foo\"");
        check("a combined gzipx", "invalid parameter \"gzipx\"");
        check("a combined gzip=0", "invalid compression level \"0\"");
        check("a combined gzip=10", "invalid compression level \"10\"");
        check("a combined gzip", "a combined Some((65536, None)) None");
        check("a combined gzip=4 flush=1s", "a combined Some((65536, Some(1000))) None");
        check("a combined buffer=2k gzip=4", "a combined Some((2048, None)) None");
        check("$a combined gzip", "buffered logs cannot have variables in name");
        check("a combined buffer=0", "invalid buffer size \"0\"");
        check("a combined buffer=x", "invalid buffer size \"x\"");
        check("a combined buffer=", "invalid buffer size \"\"");
        check("a combined buffer=1k flush=0", "invalid flush time \"0\"");
        check("a combined buffer=1k flush=x", "invalid flush time \"x\"");
        check("a combined flush=1s", "no buffer is defined for access_log \"a\"");
        check("$a combined buffer=1k", "buffered logs cannot have variables in name");
        check("syslog:server=unix:/s x buffer=1k", "logs to syslog cannot be buffered");
        check("syslog:", "unknown syslog parameter \"\"");
        check("a$", "invalid variable name");
        check("a x if=$", "invalid variable name");
    }
}
