//! Field lines: one resumable scanner for request heads, response heads and trailer sections.
//!
//! ```text
//!            name byte             whitespace          value byte
//!            +-----+               +-----+             +-----+
//!            v     |               v     |             v     |
//!  line --> NAME --+-- ':' ------> GAP --+-----------> VALUE +-- CR LF | LF --> field, next line
//!   |        |                      |
//!   |        +-- CR | LF            +-- CR | LF (an empty value)
//!   |            (no colon: refused, or an empty value from a server)
//!   +-- CR LF | LF --> end of the section
//! ```
//!
//! The stage and the position are kept between calls, so a byte is looked at once however the
//! input is cut; the only byte seen twice is a CR at the very end of the input.

use super::fault::{BadRequestKind, FieldFault, UNIQUE};
use super::scan::{NAME, NameByte, is_ows, line_break, plain_run};
use super::{Field, Known, Slice};

/// What a scanner lets pass.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rules {
    /// Names with an underscore count as valid.
    pub(super) underscores: bool,
    /// Fields with an invalid name are dropped, not delivered.
    pub(super) drop_invalid: bool,
    /// Most fields delivered.
    pub(super) max: u32,
    pub(super) peer: Peer,
}

/// Who sent the section; nginx is laxer with servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    /// Lines without colon and second lines of unique fields are refused.
    Client,
    /// A line without colon is a field with an empty value; a stray status line is skipped.
    Server,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Name,
    Gap,
    Value,
}

/// The scanner's place in a section. Offsets count from the head's first byte.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FieldScanner {
    stage: Stage,
    /// The name so far holds a byte outside the valid set.
    odd: bool,
    /// The line is a stray `HTTP/...` line of a server.
    stray: bool,
    pos: u32,
    line: u32,
    name_end: u32,
    value: u32,
    count: u32,
    dropped: u32,
    first_dropped: Slice,
    seen: u128,
}

/// How far a value or a name reaches, and where the next line starts.
enum LineEnd {
    /// More bytes are needed to tell.
    Open,
    At {
        next: usize,
    },
}

impl FieldScanner {
    pub(super) fn starting_at(pos: usize) -> FieldScanner {
        FieldScanner { pos: pos as u32, line: pos as u32, ..FieldScanner::default() }
    }

    /// Start of the line that is not complete yet.
    pub(super) fn line_start(&self) -> usize {
        self.line as usize
    }

    /// How many fields were dropped for their names, and the first such line.
    pub(super) fn dropped(&self) -> (u32, Slice) {
        (self.dropped, self.first_dropped)
    }

    /// Set of the known names delivered so far.
    pub(super) fn seen(&self) -> u128 {
        self.seen
    }

    /// Reads on; `Some(len)` when the empty line that ends the section was reached, where `len`
    /// is the offset just past it.
    #[inline]
    pub(super) fn scan(
        &mut self,
        buf: &[u8],
        rules: &Rules,
        fields: &mut Vec<Field>,
    ) -> Result<Option<usize>, FieldFault> {
        loop {
            if self.stage == Stage::Name {
                if self.pos == self.line {
                    self.whole_lines(buf, rules, fields)?;
                    match self.section_end(buf)? {
                        Some(LineEnd::At { next }) => return Ok(Some(next)),
                        Some(LineEnd::Open) => return Ok(None),
                        None => {}
                    }
                }
                if !self.scan_name(buf, rules, fields)? {
                    return Ok(None);
                }
                if self.stage == Stage::Name {
                    continue;
                }
            }
            if self.stage == Stage::Gap {
                let mut pos = self.pos as usize;
                while buf.get(pos).is_some_and(|&byte| is_ows(byte)) {
                    pos += 1;
                }
                self.pos = pos as u32;
                if pos == buf.len() {
                    return Ok(None);
                }
                self.value = self.pos;
                self.stage = Stage::Value;
            }
            let end = line_break(buf, self.pos as usize);
            self.pos = end as u32;
            let LineEnd::At { next } = self.line_end(buf, end)? else { return Ok(None) };
            self.deliver(buf, end, next, rules, fields)?;
        }
    }

    /// The hot path: lines that are complete, with a plain name. Stops in front of the first one
    /// that is not, whatever the reason, and leaves it to the stages; so each line is tried here
    /// once at most per call, and only before a byte of it was looked at.
    #[inline]
    fn whole_lines(
        &mut self,
        buf: &[u8],
        rules: &Rules,
        fields: &mut Vec<Field>,
    ) -> Result<(), FieldFault> {
        loop {
            let line = self.line as usize;
            let colon = plain_run(buf, line);
            if colon == line || buf.get(colon) != Some(&b':') {
                return Ok(());
            }
            let mut value = colon + 1;
            // Nearly always one space.
            value += usize::from(buf.get(value) == Some(&b' '));
            while buf.get(value).is_some_and(|&byte| is_ows(byte)) {
                value += 1;
            }
            let end = line_break(buf, value);
            let next = match (buf.get(end), buf.get(end + 1)) {
                (Some(b'\r'), Some(b'\n')) => end + 2,
                (Some(b'\n'), _) => end + 1,
                _ => return Ok(()),
            };
            let known = Known::of_plain(buf, line, colon);
            let name = Slice::between(line, colon);
            self.push(name, known, trimmed(buf, value, end), rules, fields)?;
            self.line = next as u32;
            self.pos = next as u32;
        }
    }

    /// Tells whether the line that begins here is the empty one that ends the section.
    #[inline]
    fn section_end(&self, buf: &[u8]) -> Result<Option<LineEnd>, FieldFault> {
        let at = self.pos as usize;
        match buf.get(at) {
            None => Ok(Some(LineEnd::Open)),
            Some(b'\r' | b'\n') => self.line_end(buf, at).map(Some),
            Some(_) => Ok(None),
        }
    }

    /// Reads a name up to its colon; false when the input ends first.
    #[inline]
    fn scan_name(
        &mut self,
        buf: &[u8],
        rules: &Rules,
        fields: &mut Vec<Field>,
    ) -> Result<bool, FieldFault> {
        let mut pos = self.pos as usize;
        loop {
            let Some(&byte) = buf.get(pos) else {
                self.pos = pos as u32;
                return Ok(false);
            };
            match NAME[byte as usize] {
                NameByte::Plain => {}
                NameByte::Underscore => self.odd |= !rules.underscores,
                NameByte::Colon => {
                    if pos == self.line as usize {
                        return Err(self.fault(BadRequestKind::EmptyName, pos));
                    }
                    self.name_end = pos as u32;
                    self.pos = pos as u32 + 1;
                    self.stage = Stage::Gap;
                    return Ok(true);
                }
                NameByte::Odd => {
                    if byte == b'/' && self.begins_stray_line(buf, pos, rules) {
                        self.stray = true;
                        self.name_end = pos as u32;
                        self.pos = pos as u32 + 1;
                        self.stage = Stage::Gap;
                        return Ok(true);
                    }
                    self.odd = true;
                }
                NameByte::Bad => return self.name_broken(buf, pos, rules, fields),
            }
            pos += 1;
        }
    }

    /// IIS is known to send a second `HTTP/1.1 ...` line among its fields; nginx skips it.
    #[cold]
    fn begins_stray_line(&self, buf: &[u8], pos: usize, rules: &Rules) -> bool {
        rules.peer == Peer::Server && buf.get(self.line as usize..pos) == Some(b"HTTP")
    }

    /// A space or a control ended the name. From a server, a whole line without colon is a field
    /// with an empty value; everything else is refused.
    #[cold]
    fn name_broken(
        &mut self,
        buf: &[u8],
        pos: usize,
        rules: &Rules,
        fields: &mut Vec<Field>,
    ) -> Result<bool, FieldFault> {
        let kind = match buf.get(pos) {
            Some(b'\r' | b'\n') if rules.peer == Peer::Server => {
                self.pos = pos as u32;
                let LineEnd::At { next } = self.line_end(buf, pos)? else { return Ok(false) };
                self.name_end = pos as u32;
                self.value = pos as u32;
                self.deliver(buf, pos, next, rules, fields)?;
                return Ok(true);
            }
            Some(b'\r' | b'\n') => BadRequestKind::MissingColon,
            Some(b' ' | b'\t') if pos == self.line as usize => BadRequestKind::FoldedLine,
            Some(b' ' | b'\t') => BadRequestKind::SpaceBeforeColon,
            _ => BadRequestKind::InvalidName,
        };
        Err(self.fault(kind, pos))
    }

    /// Judges the byte at which a value (or the section) stops.
    #[inline]
    fn line_end(&self, buf: &[u8], at: usize) -> Result<LineEnd, FieldFault> {
        match buf.get(at) {
            None => Ok(LineEnd::Open),
            Some(b'\n') => Ok(LineEnd::At { next: at + 1 }),
            Some(b'\r') => match buf.get(at + 1) {
                None => Ok(LineEnd::Open),
                Some(b'\n') => Ok(LineEnd::At { next: at + 2 }),
                Some(_) => Err(self.fault(BadRequestKind::BareCr, at)),
            },
            Some(_) => Err(self.fault(BadRequestKind::NulInValue, at)),
        }
    }

    /// Ends a line whose value reaches up to `end`: delivers or drops its field.
    #[inline]
    fn deliver(
        &mut self,
        buf: &[u8],
        end: usize,
        next: usize,
        rules: &Rules,
        fields: &mut Vec<Field>,
    ) -> Result<(), FieldFault> {
        if self.odd && rules.drop_invalid || self.stray {
            self.drop_line(end);
        } else {
            let name = Slice { at: self.line, len: self.name_end - self.line };
            let value = trimmed(buf, self.value as usize, end);
            self.push(name, Known::of(name.of(buf)), value, rules, fields)?;
            self.odd = false;
        }
        self.line = next as u32;
        self.pos = next as u32;
        self.stage = Stage::Name;
        Ok(())
    }

    /// Delivers a field, unless it is one too many.
    #[inline]
    fn push(
        &mut self,
        name: Slice,
        known: Known,
        value: Slice,
        rules: &Rules,
        fields: &mut Vec<Field>,
    ) -> Result<(), FieldFault> {
        if self.count >= rules.max {
            return Err(self.fault(BadRequestKind::TooManyFields, name.at as usize));
        }
        fields.push(Field { name, value, known });
        self.count += 1;
        let bit = known.bit();
        if self.seen & bit != 0 {
            return self.second(known, value, rules);
        }
        self.seen |= bit;
        Ok(())
    }

    /// Judges a field whose name was there before, or is none that is known.
    #[inline(never)]
    fn second(&self, known: Known, value: Slice, rules: &Rules) -> Result<(), FieldFault> {
        if known.bit() & UNIQUE == 0 || rules.peer != Peer::Client {
            return Ok(());
        }
        let kind = match known {
            Known::Host => BadRequestKind::DuplicateHost,
            _ => BadRequestKind::DuplicateField,
        };
        Err(self.fault(kind, value.at as usize))
    }

    #[cold]
    fn drop_line(&mut self, end: usize) {
        if self.odd && !self.stray {
            if self.dropped == 0 {
                self.first_dropped = Slice::between(self.line as usize, end);
            }
            self.dropped += 1;
        }
        self.odd = false;
        self.stray = false;
    }

    #[cold]
    fn fault(&self, kind: BadRequestKind, at: usize) -> FieldFault {
        FieldFault { kind, at, line: self.line as usize }
    }
}

/// The value `buf[at..end]` without the whitespace at its end.
#[inline]
fn trimmed(buf: &[u8], at: usize, end: usize) -> Slice {
    let mut end = end;
    while end > at && buf.get(end - 1).is_some_and(|&byte| is_ows(byte)) {
        end -= 1;
    }
    Slice::between(at, end)
}
