//! HPACK (RFC 7541): header lists in few bytes.
//!
//! The decoder takes a block in any pieces, keeps a bounded dynamic table and bounds what one
//! block may expand to. The encoder uses the static table and Huffman's code only: it has no
//! state, so blocks may be made in any order, and a peer cannot make it hold memory.

use super::huffman;
use super::{Field, HeaderList};
use std::collections::VecDeque;

/// Bytes of the dynamic table that a peer may fill: the protocol's default.
pub const TABLE_SIZE: usize = 4096;
/// What an entry counts beside its text (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;
/// Octets of an integer beyond its prefix; more are hostile.
const INTEGER_OCTETS: u32 = 3;

/// The static table (RFC 7541 appendix A); index 1 is the first.
#[rustfmt::skip]
static STATIC: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

/// What is wrong with a block. All but the last two mean that the peers' tables differ from now
/// on, so the connection must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBlock {
    /// An index that leads nowhere.
    Index,
    /// An integer that does not end, or a table size beyond the limit or at the wrong place.
    Integer,
    /// No valid Huffman code.
    Huffman,
    /// It ends within a field.
    Truncated,
    /// A field without a name.
    EmptyName,
    /// One field is longer than may be.
    FieldTooLong,
    /// All together are longer than may be.
    ListTooLong,
}

/// Limits on what one block may say.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a name, and of a value.
    pub field: usize,
    /// Bytes of all names and values.
    pub list: usize,
    /// Fields that are kept; those beyond are decoded, counted and left out.
    pub count: usize,
}

struct Entry {
    text: Box<[u8]>,
    name: u32,
}

/// One direction's decoder.
pub struct Decoder {
    entries: VecDeque<Entry>,
    size: usize,
    limit: usize,
    /// Of the current block: what was received and is not decoded yet.
    pending: Vec<u8>,
    /// How many bytes the next instruction takes at least: it is not begun again for each byte.
    needed: usize,
    /// Of the current block: bytes of names and values.
    listed: usize,
    has_fields: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            entries: VecDeque::new(),
            size: 0,
            limit: TABLE_SIZE,
            pending: Vec::new(),
            needed: 0,
            listed: 0,
            has_fields: false,
        }
    }
}

/// Input that ends within an instruction, or is wrong.
enum Stop {
    /// Bytes of input that it takes at least.
    Partial(usize),
    Bad(BadBlock),
}

/// A name or a value in the list's text.
type Text = (u32, u32);

impl Decoder {
    /// Decodes the next part of a block into `list`; `last`: the block ends with it.
    ///
    /// # Errors
    /// What is wrong; the decoder cannot be used afterwards.
    pub fn decode(
        &mut self,
        part: &[u8],
        last: bool,
        limits: &Limits,
        list: &mut HeaderList,
    ) -> Result<(), BadBlock> {
        let mut pending = std::mem::take(&mut self.pending);
        if pending.is_empty() {
            let used = self.run(part, limits, list)?;
            pending.extend_from_slice(&part[used..]);
        } else {
            pending.extend_from_slice(part);
            if pending.len() >= self.needed {
                let used = self.run(&pending, limits, list)?;
                pending.drain(..used);
            }
        }
        if last {
            let is_whole = pending.is_empty();
            pending.clear();
            (self.listed, self.has_fields) = (0, false);
            if !is_whole {
                return Err(BadBlock::Truncated);
            }
        }
        self.pending = pending;
        Ok(())
    }

    /// Gives back the room that unfinished blocks took.
    pub(super) fn rest(&mut self) {
        if self.pending.is_empty() {
            self.pending = Vec::new();
        }
    }

    /// Decodes whole instructions; how many bytes they took.
    fn run(
        &mut self,
        input: &[u8],
        limits: &Limits,
        list: &mut HeaderList,
    ) -> Result<usize, BadBlock> {
        let mut used = 0;
        while used < input.len() {
            let mut reader = Reader { input, at: used };
            let mark = list.text.len();
            match self.instruction(&mut reader, limits, list) {
                Ok(()) => used = reader.at,
                Err(Stop::Partial(needed)) => {
                    list.text.truncate(mark);
                    self.needed = needed - used;
                    break;
                }
                Err(Stop::Bad(bad)) => return Err(bad),
            }
        }
        Ok(used)
    }

    fn instruction(
        &mut self,
        reader: &mut Reader<'_>,
        limits: &Limits,
        list: &mut HeaderList,
    ) -> Result<(), Stop> {
        let first = reader.peek()?;
        if first & 0xe0 == 0x20 {
            let size = reader.integer(5)?;
            if self.has_fields || size > TABLE_SIZE {
                return Err(Stop::Bad(BadBlock::Integer));
            }
            self.limit = size;
            self.evict(0);
            return Ok(());
        }
        let (name, value, keep) = if first & 0x80 != 0 {
            let index = reader.integer(7)?;
            let (name, value) = self.entry(index).ok_or(Stop::Bad(BadBlock::Index))?;
            (list.add(name), list.add(value), false)
        } else {
            let keep = first & 0x40 != 0;
            let index = reader.integer(if keep { 6 } else { 4 })?;
            let name = match index {
                0 => reader.string(limits.field, list)?,
                _ => list.add(self.entry(index).ok_or(Stop::Bad(BadBlock::Index))?.0),
            };
            (name, reader.string(limits.field, list)?, keep)
        };
        if name.1 == 0 {
            return Err(Stop::Bad(BadBlock::EmptyName));
        }
        self.has_fields = true;
        if keep {
            self.insert(&list.text, name, value);
        }
        self.listed += (name.1 + value.1) as usize;
        if self.listed > limits.list {
            return Err(Stop::Bad(BadBlock::ListTooLong));
        }
        list.total += 1;
        if list.fields.len() < limits.count {
            list.fields.push(Field { name, value });
        } else {
            list.text.truncate(name.0 as usize);
        }
        Ok(())
    }

    /// The entry with this index; static ones come first.
    fn entry(&self, index: usize) -> Option<(&[u8], &[u8])> {
        let index = index.checked_sub(1)?;
        if let Some((name, value)) = STATIC.get(index) {
            return Some((name.as_bytes(), value.as_bytes()));
        }
        let entry = self.entries.get(index - STATIC.len())?;
        Some(entry.text.split_at(entry.name as usize))
    }

    fn insert(&mut self, text: &[u8], name: Text, value: Text) {
        let part = |(at, len): Text| &text[at as usize..(at + len) as usize];
        let size = (name.1 + value.1) as usize + ENTRY_OVERHEAD;
        if size > self.limit {
            self.entries.clear();
            self.size = 0;
            return;
        }
        self.evict(size);
        let both = [part(name), part(value)].concat();
        self.entries.push_front(Entry { text: both.into(), name: name.1 });
        self.size += size;
    }

    /// Makes room for `more` bytes.
    fn evict(&mut self, more: usize) {
        while self.size + more > self.limit
            && let Some(entry) = self.entries.pop_back()
        {
            self.size -= entry.text.len() + ENTRY_OVERHEAD;
        }
    }
}

struct Reader<'a> {
    input: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Result<u8, Stop> {
        self.input.get(self.at).copied().ok_or(Stop::Partial(self.at + 1))
    }

    /// An integer whose first octet has `bits` of it (RFC 7541 section 5.1).
    fn integer(&mut self, bits: u32) -> Result<usize, Stop> {
        let prefix = (1usize << bits) - 1;
        let mut value = self.peek()? as usize & prefix;
        self.at += 1;
        if value < prefix {
            return Ok(value);
        }
        for octet in 0..INTEGER_OCTETS {
            let byte = self.peek()?;
            self.at += 1;
            value += (byte as usize & 0x7f) << (7 * octet);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Bad(BadBlock::Integer))
    }

    /// A string, decoded to the end of the list's text.
    fn string(&mut self, longest: usize, list: &mut HeaderList) -> Result<Text, Stop> {
        let is_coded = self.peek()? & 0x80 != 0;
        let length = self.integer(7)?;
        // A code is at most thirty bits for eight, but at least five: this bounds what is kept
        // of a string that is not here yet, and what it can become.
        if length > longest {
            return Err(Stop::Bad(BadBlock::FieldTooLong));
        }
        let end = self.at + length;
        let bytes = self.input.get(self.at..end).ok_or(Stop::Partial(end))?;
        self.at = end;
        if !is_coded {
            return Ok(list.add(bytes));
        }
        let mark = list.text.len();
        if !huffman::decode(bytes, &mut list.text) {
            return Err(Stop::Bad(BadBlock::Huffman));
        }
        let length = list.text.len() - mark;
        if length > longest {
            return Err(Stop::Bad(BadBlock::FieldTooLong));
        }
        Ok((mark as u32, length as u32))
    }
}

/// Appends an integer (RFC 7541 section 5.1) whose first octet begins with `pattern`.
fn put_integer(out: &mut Vec<u8>, pattern: u8, bits: u32, value: usize) {
    let prefix = (1usize << bits) - 1;
    if value < prefix {
        out.push(pattern | value as u8);
        return;
    }
    out.push(pattern | prefix as u8);
    let mut rest = value - prefix;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    if text.len() > SHORT {
        let coded = huffman::encoded_len(text);
        if coded < text.len() {
            put_integer(out, 0x80, 7, coded);
            huffman::encode(text, out);
        } else {
            put_integer(out, 0, 7, text.len());
            out.extend_from_slice(text);
        }
        return;
    }
    // Its length takes a byte however it is written, so it need not be known before.
    let at = out.len();
    out.push(text.len() as u8);
    huffman::encode(text, out);
    let coded = out.len() - at - 1;
    if coded < text.len() {
        out[at] = 0x80 | coded as u8;
    } else {
        out.truncate(at + 1);
        out.extend_from_slice(text);
    }
}

/// Bytes of text up to which the length of its code, or of itself when that is not shorter, is
/// written as one byte.
const SHORT: usize = 126;

/// Appends a name in lower case, as HTTP/2 wants it (RFC 9113 section 8.2.1).
fn put_name(out: &mut Vec<u8>, name: &[u8]) {
    let mut short = [0u8; 64];
    match short.get_mut(..name.len()) {
        Some(lower) => {
            lower.copy_from_slice(name);
            lower.make_ascii_lowercase();
            put_string(out, lower);
        }
        None => put_string(out, &name.to_ascii_lowercase()),
    }
}

/// Says that the dynamic table is empty from now on: the answer to a peer that changed its size.
pub fn put_empty_table(out: &mut Vec<u8>) {
    out.push(0x20);
}

/// Appends a field; its name may be in any case.
pub fn encode(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    let mut by_name = None;
    let mut row = place(name).map_or(0, |place| FIRST[place]) as usize;
    while row != 0 {
        let (known, usual) = STATIC[row - 1];
        if known.len() == name.len() && name.eq_ignore_ascii_case(known.as_bytes()) {
            if usual.as_bytes() == value && !value.is_empty() {
                put_integer(out, 0x80, 7, row);
                return;
            }
            by_name = by_name.or(Some(row));
        }
        row = NEXT[row] as usize;
    }
    match by_name {
        Some(index) => put_integer(out, 0, 4, index),
        None => {
            out.push(0);
            put_name(out, name);
        }
    }
    put_string(out, value);
}

/// Chains of the static table: rows are found by a number made of their names.
const CHAINS: usize = 128;

/// The chain in which the rows of a name stand; its case does not matter.
const fn place(name: &[u8]) -> Option<usize> {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return None };
    let (first, last) = ((*first | 0x20) as usize, (*last | 0x20) as usize);
    Some((name.len() * 8 + first + last * 3) % CHAINS)
}

/// The first row of each chain, and the one that follows each row; 0 at the end.
static FIRST: [u8; CHAINS] = chains().0;
static NEXT: [u8; STATIC.len() + 1] = chains().1;

const fn chains() -> ([u8; CHAINS], [u8; STATIC.len() + 1]) {
    let mut first = [0; CHAINS];
    let mut next = [0; STATIC.len() + 1];
    // From the end, so that chains are in the table's order.
    let mut row = STATIC.len();
    while row > 0 {
        if let Some(place) = place(STATIC[row - 1].0.as_bytes()) {
            next[row] = first[place];
            first[place] = row as u8;
        }
        row -= 1;
    }
    (first, next)
}

/// Fields that a [`Memo`] remembers.
const REMEMBERED: usize = 64;
/// Bytes of name and value up to which a field is remembered.
const REMEMBERED_LEN: usize = 120;

/// How fields were encoded lately: the answers of a server have most of their fields in common.
/// It saves work and no bytes, and one serves all connections.
#[derive(Default)]
pub struct Memo {
    rows: Vec<Row>,
}

#[derive(Clone, Default)]
struct Row {
    /// Bytes of the name, and of name and value.
    lengths: (usize, usize),
    /// Name, value, and what they are encoded as.
    text: Vec<u8>,
}

impl Memo {
    /// As [`encode`].
    pub fn encode(&mut self, out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
        let length = name.len() + value.len();
        if length > REMEMBERED_LEN {
            return encode(out, name, value);
        }
        if self.rows.is_empty() {
            self.rows.resize(REMEMBERED, Row::default());
        }
        let row = &mut self.rows[memo_place(name, value)];
        if row.lengths == (name.len(), length)
            && let Some((known, coded)) = row.text.split_at_checked(length)
            && known.strip_prefix(name) == Some(value)
        {
            return out.extend_from_slice(coded);
        }
        row.lengths = (name.len(), length);
        row.text.clear();
        row.text.extend_from_slice(name);
        row.text.extend_from_slice(value);
        encode(&mut row.text, name, value);
        out.extend_from_slice(&row.text[length..]);
    }
}

/// Where a field is remembered: in a place for its kind, and for the ends of its value.
fn memo_place(name: &[u8], value: &[u8]) -> usize {
    let ends = match (value.first_chunk(), value.last_chunk()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last),
        _ => value.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    };
    let kind = (name.len() * 31 + name.first().map_or(0, |first| usize::from(*first))) as u64;
    let mixed = (ends ^ kind << 56 ^ value.len() as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 32) as usize % REMEMBERED
}

/// Appends a status (RFC 9113 section 8.3.2).
pub fn encode_status(out: &mut Vec<u8>, status: u16) {
    let digits = [
        b'0' + (status / 100 % 10) as u8,
        b'0' + (status / 10 % 10) as u8,
        b'0' + (status % 10) as u8,
    ];
    encode(out, b":status", &digits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { field: 8192, list: 32768, count: 1000 };

    fn decode(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, BadBlock> {
        let mut list = HeaderList::default();
        decoder.decode(block, true, &LIMITS, &mut list)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(list.iter().map(|(name, value)| (text(name), text(value))).collect())
    }

    fn hex(digits: &str) -> Vec<u8> {
        let digits: Vec<u8> = digits.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let pairs = digits.chunks(2).map(|two| std::str::from_utf8(two).unwrap());
        pairs.map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
    }

    /// RFC 7541 appendix C.4: three requests on one connection, in Huffman's code.
    #[test]
    fn the_requests_of_the_rfc() {
        let mut decoder = Decoder::default();
        let blocks = [
            "8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff",
            "8286 84be 5886 a8eb 1064 9cbf",
            "8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf",
        ];
        let last = blocks.map(|block| decode(&mut decoder, &hex(block)).unwrap()).pop_last();
        let row = |n: &str, v: &str| (n.to_string(), v.to_string());
        let expected = [
            row(":method", "GET"),
            row(":scheme", "https"),
            row(":path", "/index.html"),
            row(":authority", "www.example.com"),
            row("custom-key", "custom-value"),
        ];
        assert_eq!(last, expected);
        assert_eq!(decoder.size, 164);
    }

    trait Last<T> {
        fn pop_last(self) -> T;
    }

    impl<T, const N: usize> Last<T> for [T; N] {
        fn pop_last(self) -> T {
            self.into_iter().last().unwrap()
        }
    }

    /// RFC 7541 appendix C.6 with a table of 256 bytes: entries are evicted in their order.
    #[test]
    fn the_responses_of_the_rfc() {
        let mut decoder = Decoder { limit: 256, ..Decoder::default() };
        let blocks = [
            "4882 6402 5885 aec3 771a 4b61 96d0 7abe 9410 54d4 44a8 2005 9504 0b81 66e0 82a6 2d1b \
             ff6e 919d 29ad 1718 63c7 8f0b 97c8 e9ae 82ae 43d3",
            "4883 640e ffc1 c0bf",
            "88c1 6196 d07a be94 1054 d444 a820 0595 040b 8166 e084 a62d 1bff c05a 839b d9ab 77ad \
             94e7 821d d7f2 e6c7 b335 dfdf cd5b 3960 d5af 2708 7f36 72c1 ab27 0fb5 291f 9587 3160 \
             65c0 03ed 4ee5 b106 3d50 07",
        ];
        let [_, second, third] = blocks.map(|block| decode(&mut decoder, &hex(block)).unwrap());
        assert_eq!(second[0].1, "307");
        assert_eq!(third[5].1, "foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1");
        assert_eq!(decoder.size, 215);
    }

    #[test]
    fn hostile_blocks_are_refused() {
        let rows: [(&str, BadBlock); 8] = [
            ("80", BadBlock::Index),
            ("be", BadBlock::Index),
            ("ff ff ff ff ff ff", BadBlock::Integer),
            ("82 20", BadBlock::Integer),
            ("3f e2 1f", BadBlock::Integer),
            ("00 82 ff ff 00", BadBlock::Huffman),
            ("00 00 00", BadBlock::EmptyName),
            ("00 05 61", BadBlock::Truncated),
        ];
        for (block, expected) in rows {
            let bad = decode(&mut Decoder::default(), &hex(block));
            assert_eq!(bad, Err(expected), "{block}");
        }
    }

    /// A small block that names a big entry again and again (an HPACK bomb).
    #[test]
    fn a_list_cannot_grow_beyond_its_limit() {
        let mut block = vec![0x40, 1, b'a'];
        put_integer(&mut block, 0, 7, 4000);
        block.extend_from_slice(&[b'x'; 4000]);
        block.extend_from_slice(&[0xbe; 10000]);
        let mut decoder = Decoder::default();
        let mut list = HeaderList::default();
        let outcome = decoder.decode(&block, true, &LIMITS, &mut list);
        assert_eq!(outcome, Err(BadBlock::ListTooLong));
        assert!(list.text.len() < 2 * LIMITS.list && decoder.size <= TABLE_SIZE);
    }

    #[test]
    fn rows_of_the_static_table_are_found_whatever_their_case() {
        for (row, (name, value)) in STATIC.iter().enumerate() {
            let mut out = Vec::new();
            encode(&mut out, name.to_ascii_uppercase().as_bytes(), value.as_bytes());
            let first = STATIC.iter().position(|other| other.0 == *name).unwrap() + 1;
            let expected = match value.is_empty() {
                true if first < 15 => vec![first as u8, 0],
                true => vec![15, first as u8 - 15, 0],
                false => vec![0x80 | (row as u8 + 1)],
            };
            assert_eq!(out, expected, "{name}: {value}");
        }
    }

    proptest! {
        #[test]
        fn what_is_remembered_is_what_was_encoded(
            fields in collection::vec(("[a-cA-C]{1,3}", "[a-c]{0,9}|[a-c]{100,130}"), 0..200),
        ) {
            let mut memo = Memo::default();
            for (name, value) in &fields {
                let (mut known, mut fresh) = (b"x".to_vec(), b"x".to_vec());
                memo.encode(&mut known, name.as_bytes(), value.as_bytes());
                encode(&mut fresh, name.as_bytes(), value.as_bytes());
                prop_assert_eq!(known, fresh);
            }
        }

        #[test]
        fn what_was_encoded_is_decoded(
            fields in collection::vec(("[a-z-]{1,80}", ".{0,40}"), 0..20),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut block = Vec::new();
            for (name, value) in &fields {
                encode(&mut block, name.as_bytes(), value.as_bytes());
            }
            let mut list = HeaderList::default();
            let mut decoder = Decoder::default();
            let at = cut.index(block.len() + 1);
            decoder.decode(&block[..at], false, &LIMITS, &mut list).unwrap();
            decoder.decode(&block[at..], true, &LIMITS, &mut list).unwrap();
            let found: Vec<_> = list.iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
            let sent = fields.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone().into_bytes()));
            prop_assert_eq!(found, sent.collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(
            blocks in collection::vec(collection::vec(any::<u8>(), 0..300), 1..8)
        ) {
            let mut decoder = Decoder::default();
            for block in blocks {
                let mut list = HeaderList::default();
                if decoder.decode(&block, true, &LIMITS, &mut list).is_err() {
                    break;
                }
                prop_assert!(decoder.size <= TABLE_SIZE);
            }
        }
    }
}
