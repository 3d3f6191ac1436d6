//! The access log: one line per request, from a compiled template, into buffers.
//!
//! `access_log/directives.rs` reads `log_format` and `access_log`; this file compiles them
//! ([`Formats`]) and writes lines ([`AccessLogs::write`]). Where the bytes wait until they are
//! written is the business of `log/file.rs` and `log/pending.rs`.
//!
//! Nothing here allocates once the buffers of a worker have grown to their size.

mod directives;
mod escape;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::rc::Rc;

use config::{Part, Scope};
use system::errno::Errno;
use system::file::append;
use system::identity::identity;
use system::opening::{Kind, Purpose, Way, look};

use crate::contexts::HTTP;
use crate::log::{Bytes, Level, LogFile, LogFiles, Syslog, SyslogText};
use crate::open_files::{OpenFiles, Opened, Policy, open_uncached};
use crate::text::Span;
use crate::variables::{Segment, Subject, Template, Variables};

pub use directives::{
    ACCESS_LOG, AccessLogLine, DIRECTIVES, FormatLine, LOG_FORMAT, OPEN_LOG_FILE_CACHE, PathText,
};
pub use escape::Escape;

/// The format that exists without being defined.
const COMBINED: &str = "combined";
const COMBINED_TEXT: &[u8] = b"$remote_addr - $remote_user [$time_local] \"$request\" $status \
    $body_bytes_sent \"$http_referer\" \"$http_user_agent\"";

/// What the access log asks of a conversation besides its variables.
pub trait Logged: Subject {
    /// The directory that must exist before a log whose path has variables is written: the root
    /// of the request, so that made-up host names create no files. `None` when any will do.
    fn log_root(&mut self) -> Option<Span>;

    /// Through which links the file at `path` may be reached.
    fn log_way(&mut self, _path: Span) -> Way {
        Way::default()
    }

    /// Writes to the error log, with ` while logging request` and the conversation's context.
    fn log_failure(&mut self, level: Level, errno: Errno, message: fmt::Arguments<'_>);
}

/// What one level of the configuration writes about each request.
pub struct AccessLogs {
    logs: Vec<AccessLog>,
}

struct AccessLog {
    target: Target,
    format: Rc<Format>,
    /// `if=`: the line is written unless this is empty or `0`.
    condition: Option<Template>,
}

enum Target {
    File(Rc<LogFile>),
    /// A path with variables: opened for each line, or taken from a cache.
    Path(Template, Option<(Rc<OpenFiles>, Policy)>),
    Syslog(Syslog),
}

struct Format {
    escape: Escape,
    template: Template,
}

thread_local! {
    /// For lines that go elsewhere than into a file's buffer.
    static LINE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

impl AccessLogs {
    /// Writes what there is to write about `x`. Called once per request, when it is over.
    pub fn write<X: Logged>(&self, x: &mut X) {
        for log in &self.logs {
            if log.condition.as_ref().is_none_or(|condition| holds(condition, x)) {
                log.write(x);
            }
        }
    }

    /// True for `access_log off`: a level without any log.
    pub fn is_off(&self) -> bool {
        self.logs.is_empty()
    }
}

fn holds<X: Subject>(condition: &Template, x: &mut X) -> bool {
    let span = condition.value(x);
    !matches!(x.arena().text(span), b"" | b"0")
}

impl AccessLog {
    fn write<X: Logged>(&self, x: &mut X) {
        match &self.target {
            Target::File(file) => file.add_line(|line| {
                self.format.append(x, line);
                line.push(b'\n');
            }),
            Target::Syslog(syslog) => syslog.send_line(|line| self.format.append(x, line)),
            Target::Path(path, cache) => {
                let mut line = LINE.take();
                line.clear();
                self.format.append(x, &mut line);
                line.push(b'\n');
                write_below_root(path, cache.as_ref(), &line, x);
                LINE.set(line);
            }
        }
    }
}

/// Writes a line to a file whose path has variables.
fn write_below_root<X: Logged>(
    path: &Template,
    cache: Option<&(Rc<OpenFiles>, Policy)>,
    line: &[u8],
    x: &mut X,
) {
    if let Some(root) = x.log_root() {
        let way = x.log_way(root);
        if let Err(error) = test_directory(x.arena().text(root), way) {
            let shown = x.arena().text(root).to_vec();
            let message = format_args!("testing \"{}\" existence failed", Bytes(&shown));
            x.log_failure(Level::Error, error, message);
            return;
        }
    }
    let path = path.value(x);
    let way = x.log_way(path);
    let text = x.arena().text(path);
    let opened = match cache {
        Some((cache, policy)) => cache.open(text, way, *policy),
        None => open_uncached(text, way, Purpose::Append),
    };
    let failed = match opened {
        Ok(Opened { file: Some(file), .. }) => {
            append(&file, line).err().map(|error| ("write() to", Level::Alert, Errno::from(error)))
        }
        Ok(Opened { file: None, .. }) => Some(("open()", Level::Crit, IS_A_DIRECTORY)),
        Err(failure) => Some((failure.call, Level::Crit, Errno::from(failure.code))),
    };
    if let Some((call, level, errno)) = failed {
        let shown = x.arena().text(path).to_vec();
        let message = format_args!("{call} \"{}\" failed", Bytes(&shown));
        x.log_failure(level, errno, message);
    }
}

const NOT_A_DIRECTORY: Errno = Errno(20);
const IS_A_DIRECTORY: Errno = Errno(21);

fn test_directory(path: &[u8], way: Way) -> Result<(), Errno> {
    match look(path, way).map_err(|failure| Errno::from(failure.code))?.kind {
        Kind::Folder => Ok(()),
        _ => Err(NOT_A_DIRECTORY),
    }
}

impl Format {
    fn append<X: Subject>(&self, x: &mut X, line: &mut Vec<u8>) {
        self.template.for_each(x, |x, segment| match segment {
            Segment::Text(text) => line.extend_from_slice(text),
            Segment::Value(None) => self.escape.append_missing(line),
            Segment::Value(Some(span)) => self.escape.append(x.arena().text(span), line),
        });
    }
}

/// The formats of an `http` block, and the access logs compiled with them so far.
pub struct Formats {
    by_name: HashMap<String, FormatLine>,
    /// `combined` exists, and is used where nothing is said.
    is_http: bool,
    state: RefCell<State>,
}

#[derive(Default)]
struct State {
    /// Formats in use, by name.
    formats: HashMap<String, Rc<Format>>,
    /// Levels by the places of their first line and of their cache; defaults have none.
    levels: HashMap<[Option<config::Span>; 2], Rc<AccessLogs>>,
    /// Caches of files whose paths have variables, by the place of their line.
    caches: HashMap<Option<config::Span>, Rc<OpenFiles>>,
}

impl Formats {
    /// Collects the `log_format` lines of a block (`http` or `stream`). All names in all
    /// formats become variables, also when no log uses the format, so that a name which nobody
    /// defines is found as in nginx.
    pub fn new<X: 'static>(scope: &Scope<'_>, variables: &mut Variables<X>) -> Formats {
        let combined = FormatLine {
            name: COMBINED.to_owned(),
            escape: Escape::Default,
            parts: directives::format_parts(COMBINED_TEXT).unwrap_or_default(),
        };
        let is_http = scope.context() == HTTP;
        let combined = is_http.then(|| (COMBINED.to_owned(), combined));
        let mut by_name = HashMap::from_iter(combined);
        for (line, span) in scope.nodes_local(&LOG_FORMAT) {
            if by_name.contains_key(&line.name) {
                let name = &line.name;
                scope.error(span, format!("duplicate \"log_format\" name \"{name}\""));
                continue;
            }
            for part in &line.parts {
                if let Part::Variable(name) = part {
                    variables.reference(name);
                }
            }
            by_name.insert(line.name.clone(), line);
        }
        Formats { by_name, is_http, state: RefCell::default() }
    }

    /// The access logs that hold in a block: those of the nearest level that has any, else, in
    /// http, `logs/access.log` in format `combined`. Blocks to which the same lines apply share
    /// them.
    /// Faults go to the scope; the files are opened later, with all others of `files`.
    pub fn compile<X: Subject>(
        &self,
        scope: &Scope<'_>,
        files: &LogFiles,
        variables: &mut Variables<X>,
    ) -> Rc<AccessLogs> {
        let mut lines: Vec<(AccessLogLine, Option<config::Span>)> = Vec::new();
        lines.extend(scope.nodes(&ACCESS_LOG).into_iter().map(|(line, span)| (line, Some(span))));
        if lines.is_empty() && self.is_http {
            lines.extend(ACCESS_LOG.default_value().map(|line| (line, None)));
        }
        let (cache, cached) = scope.get_spanned(&OPEN_LOG_FILE_CACHE);
        let place = [lines.first().and_then(|(_, span)| *span), cached];
        let cache = cache.map(|(limits, policy)| {
            let caches = &mut self.state.borrow_mut().caches;
            let cache = caches.entry(cached).or_insert_with(|| Rc::new(OpenFiles::new(limits)));
            (cache.clone(), policy)
        });
        if let Some(logs) = self.state.borrow().levels.get(&place) {
            return logs.clone();
        }
        let off = lines.iter().any(|(line, _)| matches!(line, AccessLogLine::Off));
        let logs = lines.iter().filter_map(|(line, span)| {
            self.log(line, cache.as_ref(), files, variables).unwrap_or_else(|why| {
                scope.error(*span, why);
                None
            })
        });
        let mut logs: Vec<AccessLog> = logs.collect();
        if off {
            logs.clear();
        }
        let logs = Rc::new(AccessLogs { logs });
        self.state.borrow_mut().levels.insert(place, logs.clone());
        logs
    }

    fn log<X: Subject>(
        &self,
        line: &AccessLogLine,
        cache: Option<&(Rc<OpenFiles>, Policy)>,
        files: &LogFiles,
        variables: &mut Variables<X>,
    ) -> Result<Option<AccessLog>, String> {
        let AccessLogLine::On { path, shown, format, buffering, condition } = line else {
            return Ok(None);
        };
        let format = self.format(format, variables)?;
        let target = match path {
            PathText::Syslog(about) => Target::Syslog(syslog(about)),
            PathText::Template(path) => {
                Target::Path(absolute(path, files, variables), cache.cloned())
            }
            PathText::File(path) => {
                let file = files.file(path);
                if let Some(buffering) = buffering {
                    file.set_buffering(*buffering).map_err(|_| {
                        format!(
                            "access_log \"{shown}\" already defined with conflicting parameters"
                        )
                    })?;
                }
                Target::File(file)
            }
        };
        let condition = condition.as_ref().map(|source| Template::compile(source, variables));
        Ok(Some(AccessLog { target, format, condition }))
    }

    fn format<X: Subject>(
        &self,
        name: &str,
        variables: &mut Variables<X>,
    ) -> Result<Rc<Format>, String> {
        if let Some(format) = self.state.borrow().formats.get(name) {
            return Ok(format.clone());
        }
        let unknown = || match name {
            COMBINED => "log format is not specified".to_owned(),
            _ => format!("unknown log format \"{name}\""),
        };
        let line = self.by_name.get(name).ok_or_else(unknown)?;
        let source = config::Template { parts: line.parts.clone() };
        let template = Template::compile(&source, variables);
        let format = Rc::new(Format { escape: line.escape, template });
        self.state.borrow_mut().formats.insert(name.to_owned(), format.clone());
        Ok(format)
    }
}

fn syslog(about: &SyslogText) -> Syslog {
    Syslog::new(about.clone(), identity().program)
}

/// A path with variables, below the prefix unless it begins with a slash.
fn absolute<X>(
    path: &config::Template,
    files: &LogFiles,
    variables: &mut Variables<X>,
) -> Template {
    let rooted = matches!(path.parts.first(), Some(Part::Text(text)) if text.starts_with(b"/"));
    if rooted {
        return Template::compile(path, variables);
    }
    // Joining an empty path leaves the prefix with a slash at its end.
    let mut prefix = files.absolute(Path::new("")).into_os_string().as_encoded_bytes().to_vec();
    let mut parts = path.parts.clone();
    match parts.first_mut() {
        Some(Part::Text(text)) => {
            prefix.append(text);
            *text = prefix;
        }
        _ => parts.insert(0, Part::Text(prefix)),
    }
    Template::compile(&config::Template { parts }, variables)
}

#[cfg(test)]
mod tests;
