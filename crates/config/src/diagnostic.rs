//! What is wrong, where, and what may help.
//!
//! The first line is nginx's own wording, so that tools which read it keep working. `render`
//! adds the source line with a caret, and help. Rendering is plain text, stable, and coloured
//! only on request.

use std::collections::HashSet;
use std::fmt::Write as _;

use crate::text::{FileId, Span, Tree};

/// How bad it is, by nginx's names. Smaller is worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    Emerg,
    Alert,
    Crit,
    Error,
    Warn,
    Notice,
    Info,
    Debug,
}

impl Level {
    /// The name between brackets in a log line.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Emerg => "emerg",
            Level::Alert => "alert",
            Level::Crit => "crit",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Notice => "notice",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }

    /// The level of a name as `error_log` takes it.
    pub fn from_name(name: &[u8]) -> Option<Level> {
        Some(match name {
            b"emerg" => Level::Emerg,
            b"alert" => Level::Alert,
            b"crit" => Level::Crit,
            b"error" => Level::Error,
            b"warn" => Level::Warn,
            b"notice" => Level::Notice,
            b"info" => Level::Info,
            b"debug" => Level::Debug,
            _ => return None,
        })
    }
}

/// One finding about a configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Diagnostic {
    pub level: Level,
    /// nginx's words, without the place.
    pub message: String,
    pub span: Option<Span>,
    /// Ours: what to do about it.
    pub help: Option<String>,
    /// Whether the configuration is refused. Usually
    /// what the level says: from `error` upwards it is.
    pub fatal: bool,
}

impl Diagnostic {
    /// A finding of level `emerg`, which refuses the configuration.
    pub fn emerg(message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self::new(Level::Emerg, message, span)
    }

    /// A finding of level `warn`, which refuses nothing.
    pub fn warn(message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        Self::new(Level::Warn, message, span)
    }

    /// A finding of any level; from `error` upwards it refuses the configuration.
    pub fn new(level: Level, message: impl Into<String>, span: impl Into<Option<Span>>) -> Self {
        let fatal = level <= Level::Error;
        Diagnostic { level, message: message.into(), span: span.into(), help: None, fatal }
    }

    /// Adds help, unless there is none to add.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<Option<String>>) -> Self {
        self.help = help.into();
        self
    }

    /// `MESSAGE in FILE:LINE`, as nginx writes it. The message is cut at 1024 bytes, as nginx's.
    pub fn first_line(&self, tree: &Tree) -> String {
        let message = cut(&self.message, 1024);
        match self.span {
            Some(span) => format!("{message} in {}", tree.place(span)),
            None => message.to_owned(),
        }
    }

    /// `PROGRAM: [LEVEL] FIRST LINE`, then the source line with a caret, then help. Lines are
    /// joined by newlines; there is none at the end.
    pub fn render(&self, tree: &Tree, program: &str, colour: bool) -> String {
        let paint = Paint { colour };
        let mut out = format!(
            "{program}: {}{}{} {}",
            paint.level(self.level),
            format_args!("[{}]", self.level.name()),
            paint.reset(),
            self.first_line(tree)
        );
        let mut gutter = 0;
        if let Some(excerpt) = self.span.and_then(|span| Excerpt::of(tree, span)) {
            gutter = excerpt.draw(&mut out, &paint, self.level);
        }
        if let Some(help) = &self.help {
            let _ = write!(
                out,
                "\n{:gutter$} {}={} help: {help}",
                "",
                paint.gutter(),
                paint.reset(),
                gutter = gutter
            );
        }
        out
    }
}

/// Whether any finding refuses the configuration.
pub fn refuses(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(|diagnostic| diagnostic.fatal)
}

/// Puts findings in the order in which nginx would meet them (command line, main file, each
/// included file at its `include`), and drops repetitions.
pub fn in_order(tree: &Tree, diagnostics: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let mut seen = HashSet::new();
    let mut keyed: Vec<(Vec<u32>, Diagnostic)> = diagnostics
        .into_iter()
        .filter(|diagnostic| seen.insert(diagnostic.clone()))
        .map(|diagnostic| (reading_position(tree, diagnostic.span), diagnostic))
        .collect();
    // Stable: findings without a place keep the order of their making. nginx meets them when the
    // text was read.
    keyed.sort_by(|(a, _), (b, _)| a.cmp(b));
    keyed.into_iter().map(|(_, diagnostic)| diagnostic).collect()
}

/// The offsets of the includes that lead to a place, outermost first, then its own; behind all
/// others for none.
fn reading_position(tree: &Tree, span: Option<Span>) -> Vec<u32> {
    if span.is_none() {
        return vec![u32::MAX];
    }
    let mut position = Vec::new();
    let mut next = span;
    // The chain of first includes has no circle; the bound only guards against hand-made trees.
    while let Some(at) = next.filter(|_| position.len() <= tree.files.len()) {
        position.push(at.start);
        let file = tree.file(at.file);
        next = file.and_then(|file| file.included_from);
        if next.is_none() {
            position.push(u32::from(!file.is_some_and(|file| file.command_line)));
        }
    }
    position.reverse();
    position
}

/// At most `limit` bytes of a text, ending at a character boundary.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// One source line with the part to underline, in columns.
struct Excerpt {
    line: u32,
    text: String,
    from: usize,
    width: usize,
}

impl Excerpt {
    /// The widest source line that is shown; more is cut on both sides of the caret.
    const COLUMNS: usize = 120;

    fn of(tree: &Tree, span: Span) -> Option<Excerpt> {
        let file = tree.file(FileId(span.file.0))?;
        let bytes = &file.bytes;
        let start = (span.start as usize).min(bytes.len());
        let head = bytes[..start].iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        let tail = bytes[start..].iter().position(|&byte| byte == b'\n');
        let tail = tail.map_or(bytes.len(), |at| start + at);
        let end = (span.end as usize).clamp(start, tail);
        // Counting newlines gives the line of the caret, which may differ from nginx's line.
        let line = 1 + bytes[..head].iter().filter(|&&byte| byte == b'\n').count() as u32;
        let before = shown(&bytes[head..start]);
        let marked = shown(&bytes[start..end]);
        let after = shown(bytes[end..tail].strip_suffix(b"\r").unwrap_or(&bytes[end..tail]));
        Some(Self::cut_to_width(line, &before, &marked, &after))
    }

    fn cut_to_width(line: u32, before: &str, marked: &str, after: &str) -> Excerpt {
        let lead = before.chars().count();
        let skip = lead.saturating_sub(Self::COLUMNS / 2);
        let room = Self::COLUMNS - (lead - skip);
        let mut text: String = before.chars().skip(skip).collect();
        let from = text.chars().count();
        let marked: String = marked.chars().take(room).collect();
        let width = marked.chars().count().max(1);
        text.push_str(&marked);
        text.extend(after.chars().take(room.saturating_sub(width)));
        text.truncate(text.trim_end().len());
        Excerpt { line, text, from, width }
    }

    /// Appends the three lines; returns the width of the gutter.
    fn draw(&self, out: &mut String, paint: &Paint, level: Level) -> usize {
        let number = self.line.to_string();
        let (gutter, bar, reset) = (number.len(), paint.gutter(), paint.reset());
        let _ = write!(out, "\n{:gutter$} {bar}|{reset}", "");
        let space = if self.text.is_empty() { "" } else { " " };
        let _ = write!(out, "\n{bar}{number} |{reset}{space}{}", self.text);
        let (space, carets) = (" ".repeat(self.from), "^".repeat(self.width));
        let mark = paint.level(level);
        let _ = write!(out, "\n{:gutter$} {bar}|{reset} {space}{mark}{carets}{reset}", "");
        gutter
    }
}

/// Bytes as they may go to a terminal: tabs widened, control characters replaced.
fn shown(bytes: &[u8]) -> String {
    let mut out = String::new();
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '\t' => out.push_str("    "),
            control if control.is_control() => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Terminal colours, or nothing.
struct Paint {
    colour: bool,
}

impl Paint {
    fn level(&self, level: Level) -> &'static str {
        match (self.colour, level <= Level::Error) {
            (false, _) => "",
            (true, true) => "\x1b[1;31m",
            (true, false) => "\x1b[1;33m",
        }
    }

    fn gutter(&self) -> &'static str {
        if self.colour { "\x1b[1;34m" } else { "" }
    }

    fn reset(&self) -> &'static str {
        if self.colour { "\x1b[0m" } else { "" }
    }
}
