//! Tables between two charsets (nginx: `charset_map`), and recoding by them.
//!
//! One charset of a table has a byte for each character. The other one has too, or is UTF-8. What
//! a table does not name becomes `?`, and on the way from UTF-8 a reference such as `&#8364;`.

use config::{Invalid, Node};

/// The longest character of UTF-8.
const LONGEST: usize = 4;

/// How bytes of one charset become those of another.
pub(super) enum Table {
    Bytes(Box<[u8; 256]>),
    /// Each byte as UTF-8.
    ToUtf8(Box<[Character; 256]>),
    /// Pages of 256 characters; 0 for one that has no byte.
    FromUtf8(Box<[Option<Box<[u8; 256]>>; 256]>),
}

/// A character in UTF-8: how many bytes, and these.
#[derive(Clone, Copy)]
pub(super) struct Character {
    length: u8,
    bytes: [u8; LONGEST],
}

impl Character {
    const UNKNOWN: Character = Character::ascii(b'?');

    const fn ascii(byte: u8) -> Character {
        Character { length: 1, bytes: [byte, 0, 0, 0] }
    }

    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

/// The rows of a block while they are read: both directions at once.
pub(super) enum Rows {
    Bytes { there: Box<[u8; 256]>, back: Box<[u8; 256]> },
    Utf8 { there: Box<[Character; 256]>, back: Box<[Option<Box<[u8; 256]>>; 256]> },
}

impl Rows {
    /// Tables in which ASCII is ASCII, and all else is not known.
    pub(super) fn new(to_utf8: bool) -> Rows {
        let ascii = |unknown: u8| {
            let mut table = [unknown; 256];
            (0..128).for_each(|byte| table[usize::from(byte)] = byte);
            Box::new(table)
        };
        if !to_utf8 {
            return Rows::Bytes { there: ascii(b'?'), back: ascii(b'?') };
        }
        let mut there = Box::new([Character::UNKNOWN; 256]);
        (0..128).for_each(|byte| there[usize::from(byte)] = Character::ascii(byte));
        let mut back = Box::new([const { None }; 256]);
        back[0] = Some(ascii(0));
        Rows::Utf8 { there, back }
    }

    /// Reads one row, such as `80 E282AC;`.
    ///
    /// # Errors
    /// What is wrong, in nginx's words.
    pub(super) fn row(&mut self, row: &Node) -> Result<(), Invalid> {
        let [value] = row.args.as_slice() else {
            return Err(Invalid::new("invalid parameters number"));
        };
        let invalid = |text: &[u8]| {
            Invalid::new(format!("invalid value \"{}\"", String::from_utf8_lossy(text)))
        };
        let (name, value) = (row.name.bytes(), value.bytes());
        let byte = hexadecimal(name).ok_or_else(|| invalid(name))?;
        match self {
            Rows::Bytes { there, back } => {
                let other = hexadecimal(value).ok_or_else(|| invalid(value))?;
                there[usize::from(byte)] = other;
                back[usize::from(other)] = byte;
            }
            Rows::Utf8 { there, back } => {
                let character = character(value).ok_or_else(|| invalid(value))?;
                let Decoded::Character(code @ 0..=0xffff, _) = decode(character.as_bytes()) else {
                    return Err(invalid(value));
                };
                there[usize::from(byte)] = character;
                let page = back[(code >> 8) as usize].get_or_insert_with(|| Box::new([0; 256]));
                page[(code & 0xff) as usize] = byte;
            }
        }
        Ok(())
    }

    /// The tables, there and back.
    pub(super) fn tables(self) -> (Table, Table) {
        match self {
            Rows::Bytes { there, back } => (Table::Bytes(there), Table::Bytes(back)),
            Rows::Utf8 { there, back } => (Table::ToUtf8(there), Table::FromUtf8(back)),
        }
    }
}

/// One or two hexadecimal digits, or more with zeros before them.
fn hexadecimal(text: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?;
    u8::from_str_radix(text, 16).ok()
}

/// A character given by the hexadecimal digits of its bytes.
fn character(digits: &[u8]) -> Option<Character> {
    let length = digits.len() / 2;
    if !digits.len().is_multiple_of(2) || !(1..LONGEST).contains(&length) {
        return None;
    }
    let mut found = Character { length: length as u8, bytes: [0; LONGEST] };
    for (byte, digits) in found.bytes.iter_mut().zip(digits.chunks(2)) {
        *byte = hexadecimal(digits)?;
    }
    Some(found)
}

impl Table {
    /// True when recoded text is as long as it was.
    pub(super) fn keeps_length(&self) -> bool {
        matches!(self, Table::Bytes(_))
    }
}

/// Recodes a text that comes in pieces.
#[derive(Default)]
pub(super) struct Recoder {
    /// The beginning of a character whose end is in the next piece.
    begun: Vec<u8>,
}

impl Recoder {
    /// Appends `text` as the other charset has it.
    pub(super) fn recode(&mut self, table: &Table, text: &[u8], out: &mut Vec<u8>) {
        match table {
            Table::Bytes(table) => out.extend(text.iter().map(|byte| table[usize::from(*byte)])),
            Table::ToUtf8(table) => {
                for byte in text {
                    out.extend_from_slice(table[usize::from(*byte)].as_bytes());
                }
            }
            Table::FromUtf8(pages) => self.pick(pages, text, out),
        }
    }

    /// At the end: a character that is not whole.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if !std::mem::take(&mut self.begun).is_empty() {
            out.push(b'?');
        }
    }

    fn pick(&mut self, pages: &[Option<Box<[u8; 256]>>; 256], mut text: &[u8], out: &mut Vec<u8>) {
        while !self.begun.is_empty() {
            let Some((byte, rest)) = text.split_first() else { return };
            self.begun.push(*byte);
            match decode(&self.begun) {
                Decoded::Begun => text = rest,
                Decoded::Character(code, _) => {
                    text = rest;
                    push(pages, code, out);
                    self.begun.clear();
                }
                Decoded::Wrong(length) => {
                    // Where what was read before is wrong, the byte at hand may begin something.
                    if length == self.begun.len() {
                        text = rest;
                    }
                    out.push(b'?');
                    self.begun.clear();
                }
            }
        }
        while let Some(&byte) = text.first() {
            if byte < 0x80 {
                out.push(byte);
                text = &text[1..];
                continue;
            }
            match decode(text) {
                Decoded::Character(code, length) => {
                    push(pages, code, out);
                    text = &text[length..];
                }
                Decoded::Wrong(length) => {
                    out.push(b'?');
                    text = &text[length..];
                }
                Decoded::Begun => {
                    self.begun.extend_from_slice(text);
                    return;
                }
            }
        }
    }
}

fn push(pages: &[Option<Box<[u8; 256]>>; 256], code: u32, out: &mut Vec<u8>) {
    let page = pages.get((code >> 8) as usize).and_then(|page| page.as_deref());
    match page.map_or(0, |page| page[(code & 0xff) as usize]) {
        0 if code > 0x10_ffff => out.push(b'?'),
        0 => out.extend_from_slice(format!("&#{code};").as_bytes()),
        byte => out.push(byte),
    }
}

/// What a text in UTF-8 begins with.
enum Decoded {
    /// A character, and its length in bytes.
    Character(u32, usize),
    /// A character whose end is missing.
    Begun,
    /// So many bytes that are none.
    Wrong(usize),
}

/// Decodes the first character (RFC 3629); `text` is not empty.
fn decode(text: &[u8]) -> Decoded {
    let (length, least, mut code) = match text[0] {
        byte @ 0..=0x7f => return Decoded::Character(u32::from(byte), 1),
        byte @ 0xc2..=0xdf => (2, 0x80, u32::from(byte & 0x1f)),
        byte @ 0xe0..=0xef => (3, 0x800, u32::from(byte & 0x0f)),
        byte @ 0xf0..=0xf7 => (4, 0x1_0000, u32::from(byte & 0x07)),
        _ => return Decoded::Wrong(1),
    };
    for at in 1..length {
        match text.get(at) {
            Some(byte @ 0x80..=0xbf) => code = code << 6 | u32::from(byte & 0x3f),
            Some(_) => return Decoded::Wrong(at),
            None => return Decoded::Begun,
        }
    }
    match code >= least {
        true => Decoded::Character(code, length),
        false => Decoded::Wrong(length),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A table with the euro sign at 80, and all of Latin 1 at its places.
    fn tables() -> (Table, Table) {
        let mut rows = Rows::new(true);
        let Rows::Utf8 { there, back } = &mut rows else { panic!("a table to UTF-8") };
        for (byte, sign) in [(0x80, '€'), (0xe9, 'é')] {
            let mut bytes = [0; LONGEST];
            let length = sign.encode_utf8(&mut bytes).len() as u8;
            there[byte] = Character { length, bytes };
            let code = sign as usize;
            back[code >> 8].get_or_insert_with(|| Box::new([0; 256]))[code & 0xff] = byte as u8;
        }
        rows.tables()
    }

    fn recoded(table: &Table, pieces: &[&[u8]]) -> Vec<u8> {
        let (mut recoder, mut out) = (Recoder::default(), Vec::new());
        pieces.iter().for_each(|piece| recoder.recode(table, piece, &mut out));
        recoder.finish(&mut out);
        out
    }

    #[test]
    fn texts_there_and_back() {
        let (there, back) = tables();
        assert_eq!(recoded(&there, &[b"a\x80\xe9\xff"]), "a€é?".as_bytes());
        let check = |text: &[u8], expected: &[u8]| {
            assert_eq!(recoded(&back, &[text]), expected, "{text:x?}");
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(recoded(&back, &bytes), expected, "{text:x?}, byte by byte");
        };
        check("a€é".as_bytes(), b"a\x80\xe9");
        check("ж😀".as_bytes(), b"&#1078;&#128512;");
        check(b"\xc3", b"?");
        check(b"\xe2\x82a", b"?a");
        check(b"\xc3\xc3\xa9", b"?\xe9");
        check(b"\xff\xc0\xaf\xf7\xbf\xbf\xbf", b"????");
        check(b"\xe0\x80\x80", b"?");
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(
            text in proptest::collection::vec(any::<u8>(), 0..40),
            at in 0usize..40,
        ) {
            let (_, back) = tables();
            let (head, tail) = text.split_at(at.min(text.len()));
            prop_assert_eq!(recoded(&back, &[&text]), recoded(&back, &[head, tail]));
        }
    }
}
