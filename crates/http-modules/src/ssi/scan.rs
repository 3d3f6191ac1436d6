//! Finding SSI commands in a text that comes in pieces (nginx: ngx_http_ssi_parse).
//!
//! ```text
//! text ─ <!--# ─► command ─ space ─► parameter ─ = ─► value ─► ... ─ --> ─► text
//! ```
//!
//! What does not belong to a command is told as ranges of the piece at hand. The beginning of a
//! command is the same four or five bytes each time, so what of it stands at a piece's end need
//! not be kept: it is told as a number of bytes of [`OPENING`] when it turns out to be text.

use std::ops::Range;

/// What a command begins with.
pub(super) const OPENING: &[u8] = b"<!--#";

/// Longest name of a command or of a parameter.
const LONGEST_NAME: usize = 32;
/// Parameters of a command.
pub(super) const MOST_PARAMETERS: usize = 16;

/// A command as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: Vec<u8>,
    /// Names and values; backslashes in values are as written.
    pub(super) parameters: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The next thing in a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A part of the piece that is no command.
    Text(Range<usize>),
    /// So many bytes of [`OPENING`], told late.
    Held(usize),
    /// A command.
    Command(Command),
    /// A command with a mistake; why was told by [`Scanner::take_fault`].
    Bad,
    /// The piece is used up.
    End,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Text,
    /// So many bytes of the opening were seen.
    Opening(usize),
    BeforeCommand,
    Command,
    BeforeParameter,
    Parameter,
    BeforeEqual,
    BeforeValue,
    /// Up to the same quote.
    Value(u8),
    /// Behind a backslash in a value.
    Escaped(u8),
    BehindValue,
    /// Behind the first `-` of the end.
    End0,
    End1,
    /// Behind a mistake: up to the end.
    Error,
    ErrorEnd0,
    ErrorEnd1,
}

/// Where in a text we are.
#[derive(Default)]
pub(super) struct Scanner {
    state: State,
    /// Where the next step begins in the piece.
    at: usize,
    command: Command,
    /// Longest value.
    longest_value: usize,
    fault: Option<String>,
}

impl Scanner {
    pub(super) fn new(longest_value: usize) -> Scanner {
        Scanner { longest_value, ..Scanner::default() }
    }

    /// What was wrong with the last command, in nginx's words.
    pub(super) fn take_fault(&mut self) -> Option<String> {
        self.fault.take()
    }

    /// The next thing in `piece`, which is the same until `End` was told.
    pub(super) fn next(&mut self, piece: &[u8]) -> Found {
        match self.state {
            State::Text => self.text(piece),
            State::Opening(seen) => self.opening(piece, seen),
            _ => self.inside(piece),
        }
    }

    /// At the end of the whole text: bytes of the opening that were text after all.
    pub(super) fn finish(&mut self) -> usize {
        match std::mem::take(&mut self.state) {
            State::Opening(seen) => seen,
            _ => 0,
        }
    }

    fn text(&mut self, piece: &[u8]) -> Found {
        let from = self.at;
        let rest = &piece[from..];
        if rest.is_empty() {
            return self.used_up();
        }
        let (end, next) = match memchr::memmem::find(rest, OPENING) {
            Some(at) => {
                self.state = State::BeforeCommand;
                self.command = Command::default();
                (from + at, from + at + OPENING.len())
            }
            None => {
                let seen = begun(rest);
                if seen > 0 {
                    self.state = State::Opening(seen);
                }
                (piece.len() - seen, piece.len())
            }
        };
        self.at = next;
        match from == end {
            true => self.next(piece),
            false => Found::Text(from..end),
        }
    }

    fn opening(&mut self, piece: &[u8], mut seen: usize) -> Found {
        while let Some(&byte) = piece.get(self.at) {
            if byte != OPENING[seen] {
                self.state = State::Text;
                return Found::Held(seen);
            }
            self.at += 1;
            seen += 1;
            if seen == OPENING.len() {
                self.state = State::BeforeCommand;
                self.command = Command::default();
                return self.inside(piece);
            }
            self.state = State::Opening(seen);
        }
        self.used_up()
    }

    fn inside(&mut self, piece: &[u8]) -> Found {
        while let Some(&byte) = piece.get(self.at) {
            self.at += 1;
            let is_bad = self.state == State::ErrorEnd1;
            if matches!(self.state, State::End1 | State::ErrorEnd1) && byte == b'>' {
                self.state = State::Text;
                return match is_bad {
                    true => Found::Bad,
                    false => Found::Command(std::mem::take(&mut self.command)),
                };
            }
            self.state = self.step(byte);
        }
        self.used_up()
    }

    fn used_up(&mut self) -> Found {
        self.at = 0;
        Found::End
    }

    /// One byte of a command.
    fn step(&mut self, byte: u8) -> State {
        let is_space = matches!(byte, b' ' | b'\r' | b'\n' | b'\t');
        match self.state {
            State::BeforeCommand if is_space => State::BeforeCommand,
            State::BeforeCommand => {
                self.command.name.push(byte);
                State::Command
            }
            State::Command | State::BeforeParameter | State::BehindValue if is_space => {
                State::BeforeParameter
            }
            State::Command | State::BeforeParameter | State::BehindValue if byte == b'-' => {
                State::End0
            }
            State::Command => self.command_name(byte),
            State::BeforeParameter => {
                self.command.parameters.push((vec![byte], Vec::new()));
                State::Parameter
            }
            State::Parameter | State::BeforeEqual => self.parameter_name(byte, is_space),
            State::BeforeValue => match byte {
                _ if is_space => State::BeforeValue,
                b'"' | b'\'' => State::Value(byte),
                _ => self.unexpected(byte, "before value of", Some(byte)),
            },
            State::Value(quote) if byte == quote => State::BehindValue,
            State::Value(quote) if byte == b'\\' => {
                let kept = self.value_byte(byte, State::Value(quote));
                if kept == State::Error { kept } else { State::Escaped(quote) }
            }
            State::Value(quote) | State::Escaped(quote) => {
                self.value_byte(byte, State::Value(quote))
            }
            State::BehindValue => {
                let (value, name) = (self.last_value(), self.last_name());
                let after = format!("after \"{value}\" value of \"{name}\" parameter");
                self.refuse(format!("unexpected \"{}\" symbol {after}", shown(&[byte])))
            }
            State::End0 if byte == b'-' => State::End1,
            State::End0 | State::End1 => {
                self.refuse(format!("unexpected \"{}\" symbol", shown(&[byte])))
            }
            State::Error | State::ErrorEnd0 | State::ErrorEnd1 => match (self.state, byte) {
                (State::ErrorEnd0, b'-') => State::ErrorEnd1,
                (State::Error, b'-') => State::ErrorEnd0,
                _ => State::Error,
            },
            State::Text | State::Opening(_) => self.state,
        }
    }

    fn command_name(&mut self, byte: u8) -> State {
        if self.command.name.len() == LONGEST_NAME {
            let name = shown(&self.command.name);
            let byte = shown(&[byte]);
            self.fault = Some(format!("the \"{name}{byte}...\" SSI command is too long"));
            return State::Error;
        }
        self.command.name.push(byte);
        State::Command
    }

    fn parameter_name(&mut self, byte: u8, is_space: bool) -> State {
        if is_space {
            return State::BeforeEqual;
        }
        if byte == b'=' {
            return State::BeforeValue;
        }
        if byte == b'-' || self.state == State::BeforeEqual {
            return self.unexpected(byte, "after", Some(byte));
        }
        let Some((name, _)) = self.command.parameters.last_mut() else { return State::Error };
        if name.len() == LONGEST_NAME {
            let (name, byte) = (shown(name), shown(&[byte]));
            return self.refuse(format!("too long \"{name}{byte}...\" parameter"));
        }
        name.push(byte);
        State::Parameter
    }

    fn value_byte(&mut self, byte: u8, next: State) -> State {
        let Some((_, value)) = self.command.parameters.last_mut() else { return State::Error };
        if value.len() == self.longest_value {
            let (value, name, byte) = (self.last_value(), self.last_name(), shown(&[byte]));
            let message = format!("too long \"{value}{byte}...\" value of \"{name}\" parameter");
            return self.refuse(message);
        }
        value.push(byte);
        next
    }

    /// A mistake around the last parameter; a `-` may be the first byte of the end.
    fn unexpected(&mut self, byte: u8, place: &str, may_end: Option<u8>) -> State {
        let name = self.last_name();
        let byte = shown(&[byte]);
        self.refuse(format!("unexpected \"{byte}\" symbol {place} \"{name}\" parameter"));
        if may_end == Some(b'-') { State::ErrorEnd0 } else { State::Error }
    }

    fn refuse(&mut self, message: String) -> State {
        let name = shown(&self.command.name);
        self.fault = Some(format!("{message} in \"{name}\" SSI command"));
        State::Error
    }

    fn last_name(&self) -> String {
        self.command.parameters.last().map_or(String::new(), |(name, _)| shown(name))
    }

    fn last_value(&self) -> String {
        self.command.parameters.last().map_or(String::new(), |(_, value)| shown(value))
    }
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// How many bytes at the end of `text` may begin a command.
fn begun(text: &[u8]) -> usize {
    (1..OPENING.len()).rev().find(|length| text.ends_with(&OPENING[..*length])).unwrap_or(0)
}

impl Command {
    /// The command as it can be written again.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(OPENING);
        out.extend_from_slice(&self.name);
        for (name, value) in &self.parameters {
            let quote = if has_bare(value, b'"') { b'\'' } else { b'"' };
            out.push(b' ');
            out.extend_from_slice(name);
            out.extend_from_slice(&[b'=', quote]);
            out.extend_from_slice(value);
            out.push(quote);
        }
        out.extend_from_slice(b" -->");
    }
}

/// Whether `quote` stands in a value without a backslash before it.
fn has_bare(value: &[u8], quote: u8) -> bool {
    let mut is_escaped = false;
    value.iter().any(|byte| {
        let bare = !is_escaped && *byte == quote;
        is_escaped = !is_escaped && *byte == b'\\';
        bare
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What is found in a text that comes in the given pieces: texts as they are, commands in
    /// brackets, mistakes in braces.
    fn found(pieces: &[&[u8]]) -> String {
        let mut scanner = Scanner::new(8);
        let mut out = Vec::new();
        for piece in pieces {
            loop {
                match scanner.next(piece) {
                    Found::Text(range) => out.extend_from_slice(&piece[range]),
                    Found::Held(length) => out.extend_from_slice(&OPENING[..length]),
                    Found::Command(command) => {
                        out.push(b'[');
                        out.extend_from_slice(&command.name);
                        for (name, value) in &command.parameters {
                            out.push(b' ');
                            out.extend_from_slice(name);
                            out.push(b'=');
                            out.extend_from_slice(value);
                        }
                        out.push(b']');
                    }
                    Found::Bad => {
                        let fault = scanner.take_fault().unwrap_or_default();
                        out.extend_from_slice(format!("{{{fault}}}").as_bytes());
                    }
                    Found::End => break,
                }
            }
        }
        let held = scanner.finish();
        out.extend_from_slice(&OPENING[..held]);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn commands_and_mistakes() {
        let check = |text: &str, expected: &str| {
            assert_eq!(found(&[text.as_bytes()]), expected, "{text}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(found(&bytes), expected, "{text}, byte by byte");
        };
        check("", "");
        check("a < b <!-- c --> <!--", "a < b <!-- c --> <!--");
        check("a<!--#echo var=\"b\" -->c", "a[echo var=b]c");
        check("<!--# \n echo  var = 'b'--><!--#endif-->", "[echo var=b][endif]");
        check("<<!--#x--><!-<!--#x -->", "<[x]<!-[x]");
        check("<!--#a b=\"x\\\"y\" c='\"' -->", "[a b=x\\\"y c=\"]");
        check("<!--#a b=\"x\"", "");
        let check = |text: &str, fault: &str| check(text, &format!("{{{fault}}}"));
        check("<!--#a b-->", "unexpected \"-\" symbol after \"b\" parameter in \"a\" SSI command");
        check(
            "<!--#a b c -->",
            "unexpected \"c\" symbol after \"b\" parameter in \"a\" SSI command",
        );
        check(
            "<!--#a b=c-->",
            "unexpected \"c\" symbol before value of \"b\" parameter in \"a\" SSI command",
        );
        check(
            "<!--#a b=\"c\"d-->",
            "unexpected \"d\" symbol after \"c\" value of \"b\" parameter in \"a\" SSI command",
        );
        check("<!--#a -x -->", "unexpected \"x\" symbol in \"a\" SSI command");
        check(
            "<!--#a b=\"123456789\" -->",
            "too long \"123456789...\" value of \"b\" parameter in \"a\" SSI command",
        );
        let long = "x".repeat(33);
        check(&format!("<!--#{long} -->"), &format!("the \"{long}...\" SSI command is too long"));
        check(
            &format!("<!--#a {long}=\"\" -->"),
            &format!("too long \"{long}...\" parameter in \"a\" SSI command"),
        );
    }

    #[test]
    fn commands_are_written_again() {
        let text = b"<!--#echo var=\"a\\\"b'c\" default='\"' -->";
        let mut scanner = Scanner::new(256);
        let Found::Command(command) = scanner.next(text) else { panic!("no command") };
        let mut again = Vec::new();
        command.write(&mut again);
        let mut scanner = Scanner::new(256);
        assert_eq!(scanner.next(&again), Found::Command(command));
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in "[<!#ae=\"' >-]{0,60}",
            sizes in proptest::collection::vec(1usize..9, 1..20),
        ) {
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_bytes();
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, tail) = rest.split_at((*size).min(rest.len()));
                pieces.push(piece);
                rest = tail;
            }
            prop_assert_eq!(found(&[text.as_bytes()]), found(&pieces));
        }
    }
}
