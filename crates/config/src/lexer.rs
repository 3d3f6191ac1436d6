//! Bytes to statements: words up to a `;`, `{` or `}`.
//!
//! The rules are nginx's, oddities included: quotes, `#` and `\` mean something at the start of
//! a word only (`\` also inside); `$` before `{` keeps the brace in the word; after a closing
//! quote comes a space, `;`, `{` or `)`; no word is longer than nginx's read buffer. Unlike nginx
//! the lexer goes on after an error, at the place where the next statement most likely begins.

use crate::diagnostic::Diagnostic;
use crate::text::{FileId, Span, Word};

/// nginx reads a file in pieces of this size, and a word must fit into one.
const BUFFER: usize = 4096;

/// Enough messages about one file; what follows is most likely not a configuration.
const MOST_PROBLEMS: usize = 100;

/// How a statement ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Semicolon,
    /// `{`
    Open,
    /// `}`; the statement has no words.
    Close,
    /// The file is over; the statement has no words.
    File,
}

/// Words and what ended them.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) words: Vec<Word>,
    pub(crate) ending: Ending,
    /// The place of the ending itself.
    pub(crate) at: Span,
}

/// What followed a quoted word.
enum After {
    Space,
    Paren,
    Other(u8),
    End,
}

pub(crate) struct Lexer<'a> {
    bytes: &'a [u8],
    file: FileId,
    command_line: bool,
    at: usize,
    line: u32,
    /// How often the lexer went back behind an open quote.
    resumed: usize,
    /// Something in this statement was reported that makes its words worthless.
    spoiled: bool,
    /// A word was cut by the end of the file, so that blocks left open need no error of their own.
    pub(crate) cut_short: bool,
    pub(crate) problems: Vec<Diagnostic>,
}

impl<'a> Lexer<'a> {
    pub(crate) fn line(&self) -> u32 {
        self.line
    }

    pub(crate) fn new(bytes: &'a [u8], file: FileId, command_line: bool) -> Self {
        let problems = Vec::new();
        Lexer {
            bytes,
            file,
            command_line,
            at: 0,
            line: 1,
            resumed: 0,
            spoiled: false,
            cut_short: false,
            problems,
        }
    }

    /// The next statement. After the end of the file it is `Ending::File` for ever.
    pub(crate) fn statement(&mut self) -> Statement {
        let mut words: Vec<Word> = Vec::new();
        self.spoiled = false;
        loop {
            if self.problems.len() > MOST_PROBLEMS {
                self.give_up();
            }
            self.skip_space();
            let Some(&byte) = self.bytes.get(self.at) else {
                if let Some(last) = words.last() {
                    self.unfinished(last.span.start);
                }
                return self.ended(Vec::new(), Ending::File);
            };
            match byte {
                b';' | b'{' if words.is_empty() => {
                    self.unexpected(byte, self.at);
                    self.take();
                    if byte == b'{' {
                        return self.ended(words, Ending::Open);
                    }
                }
                b';' => {
                    self.take();
                    if self.spoiled {
                        words.clear();
                    }
                    return self.ended(words, Ending::Semicolon);
                }
                b'{' => {
                    self.take();
                    return self.ended(words, Ending::Open);
                }
                // A missing `;` is the usual cause. nginx does not look at the statement, so it
                // is dropped; the `}` then ends its block.
                b'}' if !words.is_empty() => {
                    self.unexpected(byte, self.at);
                    if let Some(problem) = self.problems.last_mut() {
                        problem.help = Some("a \";\" is missing before it".to_owned());
                    }
                    words.clear();
                }
                b'}' => {
                    self.take();
                    return self.ended(words, Ending::Close);
                }
                b'"' | b'\'' => self.quoted(&mut words),
                _ => self.bare(&mut words),
            }
        }
    }

    /// Closes a statement, gives its words the line that nginx names, and notes its place.
    fn ended(&self, mut words: Vec<Word>, ending: Ending) -> Statement {
        for word in &mut words {
            word.span.line = self.line;
        }
        let start = match ending {
            Ending::File => self.at,
            _ => self.at.saturating_sub(1),
        };
        Statement { words, ending, at: self.span(start, self.at) }
    }

    /// Takes a byte and counts its line.
    fn take(&mut self) -> Option<u8> {
        let byte = *self.bytes.get(self.at)?;
        self.at += 1;
        self.line += u32::from(byte == b'\n');
        Some(byte)
    }

    /// Whether the buffer is full of one word and the file goes on.
    fn too_long(&self, start: usize) -> bool {
        self.at - start == BUFFER && self.at < self.bytes.len() && !self.command_line
    }

    fn span(&self, start: usize, end: usize) -> Span {
        Span { file: self.file, line: self.line, start: start as u32, end: end as u32 }
    }

    fn problem(&mut self, message: String, span: Span) {
        self.problems.push(Diagnostic::emerg(message, span));
    }

    fn unexpected(&mut self, byte: u8, caret: usize) {
        let shown = char_at(&self.bytes[self.at..], byte);
        let span = self.span(caret, self.at + shown.len_utf8());
        self.problem(format!("unexpected \"{shown}\""), span);
    }

    /// Skips white space and comments.
    fn skip_space(&mut self) {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\t' | b'\r' | b'\n') => {
                    self.take();
                }
                Some(b'#') => self.comment(),
                _ => return,
            }
        }
    }

    /// Skips a comment up to its newline, which does not belong to it.
    fn comment(&mut self) {
        let start = self.at;
        let rest = &self.bytes[start..];
        let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        // Even a comment has to fit into nginx's buffer.
        if length >= BUFFER && start + BUFFER < self.bytes.len() && !self.command_line {
            self.at = start + BUFFER;
            self.report_too_long(start, self.line);
        }
        self.at = start + length;
    }

    /// Reads a word without quotes. Its closing space is taken, `;` and `{` are not.
    fn bare(&mut self, words: &mut Vec<Word>) {
        let (start, line) = (self.at, self.line);
        let mut after_dollar = false;
        let mut fits = true;
        while let Some(&byte) = self.bytes.get(self.at) {
            fits = fits && self.still_fits(start, line);
            if byte == b'{' && after_dollar {
                self.take();
                continue;
            }
            if matches!(byte, b';' | b'{') {
                break;
            }
            self.take();
            after_dollar = byte == b'$';
            if byte == b'\\' {
                fits = fits && self.still_fits(start, line);
                self.take();
            }
            if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
                self.still_fits(start, line);
                return self.push(words, start, self.at - 1, false);
            }
        }
        self.push(words, start, self.at, false);
    }

    /// Reports a word that began at `start` when it fills the buffer.
    fn still_fits(&mut self, start: usize, line: u32) -> bool {
        let fits = !self.too_long(start);
        if !fits {
            self.report_too_long(start, line);
        }
        fits
    }

    fn push(&mut self, words: &mut Vec<Word>, start: usize, end: usize, quoted: bool) {
        let text = unescape(&self.bytes[start..end]);
        let wide = usize::from(quoted);
        words.push(Word { text, quoted, span: self.span(start - wide, end + wide) });
    }

    /// Reads a word in quotes and what must follow it.
    fn quoted(&mut self, words: &mut Vec<Word>) {
        let (opening, line) = (self.at, self.line);
        let quote = self.bytes[opening];
        self.take();
        let start = self.at;
        let closing = self.closing_quote(quote);
        let content = closing.unwrap_or(self.bytes.len()) - start;
        // The buffer may be full before the closing quote, at it, or at the space behind it.
        let behind = closing.and_then(|at| self.bytes.get(at + 1));
        let spaced = matches!(behind, Some(b' ' | b'\t' | b'\r' | b'\n'));
        let taken = content + usize::from(closing.is_some()) + usize::from(spaced);
        let full = taken >= BUFFER && start + BUFFER < self.bytes.len() && !self.command_line;
        if full {
            self.at = start + BUFFER;
            if content >= BUFFER {
                self.problem(
                    format!(
                        "too long parameter, probably missing terminating \"{}\" character",
                        char::from(quote)
                    ),
                    Span { line, ..self.span(opening, opening + 1) },
                );
            } else {
                self.report_too_long(start, line);
            }
            self.at = start;
        }
        let Some(closing) = closing else {
            if !full {
                self.advance(self.bytes.len());
                self.unfinished(opening as u32);
            }
            return self.resume_after(opening, line, words);
        };
        self.advance(closing + 1);
        let spans_lines = self.line != line;
        match self.after_quote() {
            After::Other(_) if full => self.resume_after(opening, line, words),
            After::Other(byte) => {
                // The whole statement is underlined up to there: what else is wrong with it, nginx
                // does not come to see.
                let first = words.first().map_or(opening, |word| word.span.start as usize);
                self.unexpected(byte, if spans_lines { opening } else { first });
                if spans_lines {
                    self.explain_quote(line);
                    return self.resume_after(opening, line, words);
                }
                self.spoiled = true;
                self.push(words, start, closing, true);
            }
            After::Space | After::Paren | After::End => self.push(words, start, closing, true),
        }
    }

    /// The offset of the quote that ends a word, if any.
    fn closing_quote(&self, quote: u8) -> Option<usize> {
        let mut at = self.at;
        loop {
            match *self.bytes.get(at)? {
                b'\\' => at += 2,
                byte if byte == quote => return Some(at),
                _ => at += 1,
            }
        }
    }

    /// Looks at what follows a closing quote without taking it.
    fn after_quote(&self) -> After {
        match self.bytes.get(self.at) {
            None => After::End,
            Some(b' ' | b'\t' | b'\r' | b'\n' | b';' | b'{') => After::Space,
            Some(b')') => After::Paren,
            Some(&other) => After::Other(other),
        }
    }

    /// Moves forward, counting lines.
    fn advance(&mut self, to: usize) {
        let passed = &self.bytes[self.at..to];
        self.line += passed.iter().filter(|&&byte| byte == b'\n').count() as u32;
        self.at = to;
    }

    /// Goes back to the end of the line on which a quote was opened, and drops the statement:
    /// a quote that was never closed swallows what follows, and that shall be checked too.
    fn resume_after(&mut self, opening: usize, line: u32, words: &mut Vec<Word>) {
        words.clear();
        self.spoiled = false;
        self.resumed += 1;
        let rest = &self.bytes[opening..];
        let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        self.at = opening + length;
        self.line = line;
        if self.resumed > MOST_PROBLEMS {
            self.give_up();
        }
    }

    /// Treats the file as over: it is not worth more messages.
    fn give_up(&mut self) {
        self.at = self.bytes.len();
        self.cut_short = true;
    }

    fn explain_quote(&mut self, line: u32) {
        if let Some(problem) = self.problems.last_mut() {
            problem.help = Some(format!("the quote opened on line {line} is closed here"));
        }
    }

    /// Reports, once, that the file ended inside a statement.
    fn unfinished(&mut self, caret: u32) {
        if self.cut_short {
            return;
        }
        self.cut_short = true;
        let message = if self.command_line {
            "unexpected end of parameter, expecting \";\""
        } else {
            "unexpected end of file, expecting \";\" or \"}\""
        };
        let caret = caret as usize;
        self.problem(message.to_owned(), self.span(caret, caret + 1));
    }

    fn report_too_long(&mut self, start: usize, line: u32) {
        let head = String::from_utf8_lossy(&self.bytes[start..start + 10]).into_owned();
        let span = Span { line, ..self.span(start, start + 10) };
        self.problem(format!("too long parameter \"{head}...\" started"), span);
    }
}

/// The character that a byte begins, so that messages stay readable.
fn char_at(bytes: &[u8], byte: u8) -> char {
    let head = &bytes[..bytes.len().min(4)];
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or(""),
    };
    text.chars().next().unwrap_or(if byte.is_ascii() { char::from(byte) } else { '\u{fffd}' })
}

/// Resolves `\"`, `\'`, `\\`, `\t`, `\r` and `\n`; before anything else a backslash stays.
fn unescape(raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        let resolved = match raw[at..] {
            [b'\\', byte @ (b'"' | b'\'' | b'\\'), ..] => Some(byte),
            [b'\\', b't', ..] => Some(b'\t'),
            [b'\\', b'r', ..] => Some(b'\r'),
            [b'\\', b'n', ..] => Some(b'\n'),
            _ => None,
        };
        out.push(resolved.unwrap_or(raw[at]));
        at += if resolved.is_some() { 2 } else { 1 };
    }
    out
}
