//! The directive `error_log`, and how its lines become a [`Log`].

use std::path::{Path, PathBuf};

use config::{AnyDirective, Args, Arity, Context, Directive, Invalid, Level, MAIN, Scope, Word};

use super::{Log, LogFiles, Sink, Syslog, SyslogText, Target};
use crate::contexts::{HTTP, LOCATION, SERVER, STREAM, STREAM_SERVER};
use system::identity::identity;

const PLACES: &[Context] = &[MAIN, HTTP, SERVER, LOCATION, STREAM, STREAM_SERVER];

/// This module's directives.
pub static DIRECTIVES: &[&dyn AnyDirective] = &[&ERROR_LOG];

/// `error_log`, see [`ErrorLog`].
pub static ERROR_LOG: Directive<ErrorLog> = Directive::new("error_log", PLACES, read)
    .takes(Arity::AtLeast(1))
    .many()
    .default("logs/error.log error")
    .syntax(
        "error_log FILE [LEVEL];\n\
             error_log stderr [LEVEL];\n\
             error_log syslog:server=ADDRESS[,PARAMETER=VALUE...] [LEVEL];",
    )
    .text(
        "Where errors are written, and how much: messages of LEVEL and worse, one of debug, \
             info, notice, warn, error, crit, alert, emerg; without one, error. Several lines at \
             the same level of the configuration all apply; lines of an inner block replace \
             those of the outer one. A relative FILE starts at the prefix (-p). `syslog:` sends \
             to a daemon; its parameters are server (an address with an optional port, 514 \
             without one, or unix:PATH), facility (local7), tag (the program's name) and \
             nohostname.",
    )
    .example("error_log logs/error.log warn;");

/// One `error_log` line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorLog {
    /// Where lines go.
    pub target: TargetText,
    /// The most talkative level that is written.
    pub level: Level,
}

/// A target as written in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetText {
    /// A path, not yet made absolute.
    File(PathBuf),
    /// Descriptor 2.
    Stderr,
    /// A syslog daemon.
    Syslog(SyslogText),
}

fn read(args: &Args<'_>) -> Result<ErrorLog, Invalid> {
    let target = match TargetText::read(args.word(0)).map_err(|why| Invalid::new(why).at(0))? {
        TargetText::File(path) if path == Path::new("stderr") => TargetText::Stderr,
        target => target,
    };
    let mut level = None;
    for (at, word) in args.words().iter().enumerate().skip(1) {
        let invalid = |what| Invalid::new(format!("{what} log level \"{}\"", word.str())).at(at);
        let named = Level::from_name(word.bytes()).ok_or_else(|| {
            invalid("invalid").help("levels are debug info notice warn error crit alert emerg")
        })?;
        if level.replace(named).is_some() {
            return Err(invalid("duplicate"));
        }
    }
    Ok(ErrorLog { target, level: level.unwrap_or(Level::Error) })
}

impl TargetText {
    /// Reads the first argument of `error_log` or `access_log`: `syslog:...` or a path, which is
    /// stderr when it is empty.
    pub(crate) fn read(word: &Word) -> Result<TargetText, String> {
        use std::os::unix::ffi::OsStrExt as _;
        let bytes = word.bytes();
        if let Some(rest) = bytes.strip_prefix(b"syslog:") {
            return SyslogText::parse(&String::from_utf8_lossy(rest)).map(TargetText::Syslog);
        }
        if bytes.starts_with(b"memory:") {
            return Err(format!("{} was built without debug support", identity().program));
        }
        match bytes {
            [] => Ok(TargetText::Stderr),
            path => Ok(TargetText::File(std::ffi::OsStr::from_bytes(path).into())),
        }
    }
}

/// The log that holds in a block: from the `error_log` lines of the nearest level that has any,
/// else the main one. Blocks to which the same lines apply share a log. The files are opened
/// later, with all others of `files`; [`compile_main`] comes first.
pub fn compile(scope: &Scope<'_>, files: &LogFiles) -> Log {
    let lines = scope.nodes(&ERROR_LOG);
    let Some((_, first)) = lines.first() else {
        return files.main_log();
    };
    files.log_of(*first, || {
        Log::of_targets(lines.iter().map(|(line, _)| target(line, files)).collect())
    })
}

/// The log of the main level. As in nginx it always has a file: without one among the lines,
/// `fallback` (the file of `-e`, stderr when empty or `stderr`) is added at level error.
pub fn compile_main(scope: &Scope<'_>, files: &LogFiles, fallback: &Path) -> Log {
    let lines = scope.nodes_local(&ERROR_LOG);
    let mut targets: Vec<Target> = lines.iter().map(|(line, _)| target(line, files)).collect();
    if !targets.iter().any(|target| matches!(target.sink, Sink::File(_))) {
        let file = match fallback == Path::new("stderr") {
            true => files.stderr(),
            false => files.file(fallback),
        };
        targets.push(Target { level: Level::Error, sink: Sink::File(file) });
    }
    let log = Log::of_targets(targets);
    files.set_main_log(log.clone());
    match lines.first() {
        Some((_, first)) => files.log_of(*first, || log),
        None => log,
    }
}

fn target(line: &ErrorLog, files: &LogFiles) -> Target {
    let sink = match &line.target {
        TargetText::File(path) => Sink::File(files.file(path)),
        TargetText::Stderr => Sink::File(files.stderr()),
        TargetText::Syslog(about) => {
            Sink::Syslog(Syslog::new(about.clone(), identity().program).into())
        }
    };
    Target { level: line.level, sink }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(outcome: Result<ErrorLog, Invalid>) -> String {
        match outcome {
            Err(invalid) => invalid.message,
            Ok(line) => {
                let target = match line.target {
                    TargetText::File(path) => path.display().to_string(),
                    TargetText::Stderr => "stderr".to_owned(),
                    TargetText::Syslog(about) => format!(
                        "{:?} {} {} {:?} {}",
                        about.address, about.facility, about.severity, about.tag, about.with_host
                    ),
                };
                format!("{target} [{}]", line.level.name())
            }
        }
    }

    #[test]
    fn lines_mean_what_they_mean_to_nginx() {
        for (text, expected) in [
            ("logs/e.log", "logs/e.log [error]"),
            ("/e.log debug", "/e.log [debug]"),
            ("stderr info", "stderr [info]"),
            ("'' crit", "stderr [crit]"),
            ("e.log foo", "invalid log level \"foo\""),
            ("e.log stderr", "invalid log level \"stderr\""),
            ("e.log Error", "invalid log level \"Error\""),
            ("e.log error warn", "duplicate log level \"warn\""),
            ("e.log info info", "duplicate log level \"info\""),
            ("memory:1m", "heng was built without debug support"),
            ("", "invalid number of arguments in \"error_log\" directive"),
            ("syslog:server=unix:/a", "Unix(\"/a\") 23 6 None true [error]"),
            ("syslog:server=UNIX:/a", "Unix(\"/a\") 23 6 None true [error]"),
            (
                "syslog:server=127.0.0.1,facility=cron,severity=warn,tag=A_1,nohostname info",
                "Udp(127.0.0.1:514) 15 4 Some(\"A_1\") false [info]",
            ),
            ("syslog:server=127.0.0.1:99", "Udp(127.0.0.1:99) 23 6 None true [error]"),
            ("syslog:server=[::1]:99", "Udp([::1]:99) 23 6 None true [error]"),
            ("syslog:server=[::1]", "Udp([::1]:514) 23 6 None true [error]"),
            ("syslog:server=unix:/a,tag=", "Unix(\"/a\") 23 6 Some(\"\") true [error]"),
            ("syslog:", "unknown syslog parameter \"\""),
            ("syslog:server=", "no host in syslog server \"\""),
            ("syslog:server=:99", "no host in syslog server \":99\""),
            ("syslog:server=127.0.0.1:x", "invalid port in syslog server \"127.0.0.1:x\""),
            ("syslog:server=127.0.0.1:0", "invalid port in syslog server \"127.0.0.1:0\""),
            ("syslog:server=127.0.0.1:+9", "invalid port in syslog server \"127.0.0.1:+9\""),
            ("syslog:server=127.0.0.1/x", "invalid host in syslog server \"127.0.0.1/x\""),
            ("syslog:server=[::1", "invalid host in syslog server \"[::1\""),
            ("syslog:server=unix:", "no path in the unix domain socket in syslog server \"unix:\""),
            ("syslog:facility=local0", "no syslog server specified"),
            ("syslog:server=unix:/a,facility=x", "unknown syslog facility \"x\""),
            ("syslog:server=unix:/a,severity=x", "unknown syslog severity \"x\""),
            ("syslog:server=unix:/a,foo=bar", "unknown syslog parameter \"foo=bar\""),
            ("syslog:server=unix:/a, debug", "unknown syslog parameter \"\""),
            ("syslog:server=unix:/a,server=unix:/b", "duplicate syslog \"server\""),
            ("syslog:server=unix:/a,tag=a,tag=b", "duplicate syslog \"tag\""),
            ("syslog:server=unix:/a,facility=user,facility=user", "duplicate syslog \"facility\""),
            ("syslog:server=unix:/a,severity=info,severity=info", "duplicate syslog \"severity\""),
            (
                "syslog:server=unix:/a,tag=a-b",
                "syslog \"tag\" only allows alphanumeric characters and underscore",
            ),
            (
                "syslog:server=unix:/a,tag=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
                "syslog tag length exceeds 32",
            ),
        ] {
            assert_eq!(shown(ERROR_LOG.read_text(text)), expected, "{text}");
        }
        assert_eq!(shown(Ok(ERROR_LOG.default_value().unwrap())), "logs/error.log [error]");
    }
}
