//! Finding several texts at once in a stream that comes in pieces, regardless of ASCII case.
//!
//! A window as long as the shortest text slides over the stream. Its last byte says how far it may
//! jump, and which texts may begin where it begins (the idea of Boyer, Moore and Horspool). Which
//! of several texts wins is nginx's rule: the leftmost one, and of those that begin at the same
//! byte the one that the configuration names first, be it the shorter one.
//!
//! No I/O here: [`Scanner`] is given the pieces, says what may pass on, and keeps what may be the
//! beginning of a text; that is always less than the longest text.

use std::ops::Range;

/// How many texts may be looked for at once (nginx: 255).
pub(super) const MOST: usize = 255;

/// The texts to look for.
pub(super) struct Patterns {
    /// In lower case, none empty; sorted by the byte at the end of the window, and by their
    /// number among those that are equal in it.
    list: Vec<Pattern>,
    /// Length of the shortest one, which is that of the window.
    shortest: usize,
    longest: usize,
    /// How far the window may move when this is its last byte; 0 when a text may begin.
    shift: [u8; 256],
    /// Where in `list` the texts are that have this byte at the end of the window.
    range: [(u8, u8); 256],
    /// The bytes that a window of one byte stops at, when they are at most three.
    stops: Option<[u8; 3]>,
}

struct Pattern {
    text: Box<[u8]>,
    /// Its place in the list that `Patterns` was made of.
    number: u8,
}

/// A set of the texts by their numbers.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Set {
    bits: [u64; 4],
    count: usize,
}

impl Set {
    /// Adds a text.
    pub(super) fn insert(&mut self, number: usize) {
        let bit = 1 << (number % 64);
        if self.bits[number / 64] & bit == 0 {
            self.bits[number / 64] |= bit;
            self.count += 1;
        }
    }

    fn has(&self, number: usize) -> bool {
        self.bits[number / 64] & (1 << (number % 64)) != 0
    }

    /// How many texts are in it.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

/// What a search ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    /// Text `number`, `length` bytes long, begins at `at`.
    Match { at: usize, number: usize, length: usize },
    /// No text begins before `at`. When that is not the end of the search, a text may begin
    /// there: all bytes up to the end of the input are its beginning.
    Open { at: usize },
}

enum Likeness {
    Same,
    /// All of the input is the beginning of the text.
    Begins,
    Other,
}

impl Patterns {
    /// Prepares to look for `texts`: at least one, at most [`MOST`], none empty.
    pub(super) fn new(texts: &[Vec<u8>]) -> Patterns {
        assert!((1..=MOST).contains(&texts.len()), "between 1 and {MOST} texts");
        assert!(texts.iter().all(|text| !text.is_empty()), "no empty text");
        let shortest = texts.iter().map(Vec::len).min().unwrap_or(1);
        let longest = texts.iter().map(Vec::len).max().unwrap_or(1);
        let mut list: Vec<Pattern> = texts
            .iter()
            .enumerate()
            .map(|(i, text)| Pattern { text: text.to_ascii_lowercase().into(), number: i as u8 })
            .collect();
        // A stable sort: texts that are equal in that byte keep their order.
        list.sort_by_key(|pattern| pattern.text[shortest - 1]);
        let mut patterns = Patterns {
            list,
            shortest,
            longest,
            shift: [shortest.min(255) as u8; 256],
            range: [(0, 0); 256],
            stops: None,
        };
        patterns.fill_tables();
        patterns.stops = patterns.stops();
        patterns
    }

    /// A window of one byte moves by one byte: searching for it is faster.
    fn stops(&self) -> Option<[u8; 3]> {
        let mut stops = (0..=255u8).filter(|byte| self.shift[usize::from(*byte)] == 0);
        let first = stops.next().filter(|_| self.shortest == 1)?;
        let found = [first, stops.next().unwrap_or(first), stops.next().unwrap_or(first)];
        stops.next().is_none().then_some(found)
    }

    fn fill_tables(&mut self) {
        for (i, pattern) in self.list.iter().enumerate() {
            let window = &pattern.text[..self.shortest];
            for (back, byte) in window.iter().rev().enumerate().take(255) {
                for byte in [byte.to_ascii_uppercase(), *byte] {
                    let shift = &mut self.shift[usize::from(byte)];
                    *shift = (*shift).min(back as u8);
                }
            }
            let last = window[self.shortest - 1];
            for byte in [last.to_ascii_uppercase(), last] {
                let range = &mut self.range[usize::from(byte)];
                if range.0 == range.1 {
                    range.0 = i as u8;
                }
                range.1 = i as u8 + 1;
            }
        }
    }

    /// Looks in `text` for the first match that begins at `from` or later, and before `end`.
    /// Texts in `done` are passed over.
    fn find(&self, text: &[u8], from: usize, end: usize, done: &Set) -> Found {
        if done.len() == self.list.len() {
            return Found::Open { at: end };
        }
        let mut at = from;
        while at < end {
            if let Some([a, b, c]) = self.stops {
                match memchr::memchr3(a, b, c, &text[at..end]) {
                    Some(skip) => at += skip,
                    None => break,
                }
            }
            let Some(last) = text.get(at + self.shortest - 1) else { break };
            let shift = self.shift[usize::from(*last)];
            if shift > 0 {
                at += usize::from(shift);
                continue;
            }
            let (first, after) = self.range[usize::from(*last)];
            for pattern in &self.list[usize::from(first)..usize::from(after)] {
                if done.has(usize::from(pattern.number)) {
                    continue;
                }
                match pattern.likeness(&text[at..]) {
                    Likeness::Same => {
                        let (number, length) = (usize::from(pattern.number), pattern.text.len());
                        return Found::Match { at, number, length };
                    }
                    Likeness::Begins => return Found::Open { at },
                    Likeness::Other => {}
                }
            }
            at += 1;
        }
        if self.stops.is_some() {
            return Found::Open { at: end };
        }
        // What is left is shorter than the window.
        while at < end {
            let rest = &text[at..];
            let open = |p: &Pattern| {
                !done.has(usize::from(p.number)) && matches!(p.likeness(rest), Likeness::Begins)
            };
            if self.list.iter().any(open) {
                return Found::Open { at };
            }
            at += 1;
        }
        Found::Open { at: end }
    }
}

impl Pattern {
    fn likeness(&self, text: &[u8]) -> Likeness {
        let length = self.text.len().min(text.len());
        if !text[..length].eq_ignore_ascii_case(&self.text[..length]) {
            return Likeness::Other;
        }
        if length == self.text.len() { Likeness::Same } else { Likeness::Begins }
    }
}

/// What comes next in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// [`Scanner::released`]: bytes of earlier pieces that turned out to be nothing.
    Released,
    /// These bytes of the piece, free of matches.
    Text(Range<usize>),
    /// The text of that number.
    Match(usize),
    /// The piece is used up.
    End,
}

/// Where a stream stands.
#[derive(Default)]
pub(super) struct Scanner {
    /// The end of the earlier pieces that may be the beginning of a match.
    held: Vec<u8>,
    released: Vec<u8>,
    /// What was held and the beginning of the piece, side by side.
    seam: Vec<u8>,
    /// Where in the piece the search goes on; 0 while bytes are held.
    at: usize,
    /// A match that follows the part that was given out last.
    found: Option<usize>,
    /// The part that was given out last was the last one of the piece.
    is_over: bool,
}

impl Scanner {
    /// The next part of `piece`. It has to be the same piece until [`Part::End`] comes.
    pub(super) fn next(&mut self, patterns: &Patterns, done: &Set, piece: &[u8]) -> Part {
        if let Some(number) = self.found.take() {
            return Part::Match(number);
        }
        if std::mem::take(&mut self.is_over) {
            self.at = 0;
            return Part::End;
        }
        if !self.held.is_empty() {
            return self.next_at_seam(patterns, done, piece);
        }
        let from = self.at;
        match patterns.find(piece, from, piece.len(), done) {
            Found::Match { at, number, length } => {
                self.at = at + length;
                self.before_match(Part::Text(from..at), from == at, number)
            }
            Found::Open { at } => {
                self.held.extend_from_slice(&piece[at..]);
                self.before_end(Part::Text(from..at), from == at)
            }
        }
    }

    /// As `next`, while bytes of earlier pieces are held: only matches that begin in these count.
    fn next_at_seam(&mut self, patterns: &Patterns, done: &Set, piece: &[u8]) -> Part {
        let held = self.held.len();
        let ahead = piece.len().min(patterns.longest - 1);
        self.seam.clear();
        self.seam.extend_from_slice(&self.held);
        self.seam.extend_from_slice(&piece[..ahead]);
        match patterns.find(&self.seam, 0, held, done) {
            Found::Match { at, number, length } => {
                self.release(at);
                let end = at + length;
                self.at = end.saturating_sub(held);
                self.held.drain(..end.min(held) - at);
                self.before_match(Part::Released, at == 0, number)
            }
            // The input ended inside of what may be a match. From a byte that is held, `seam`
            // reaches as far as any text does, so it ends where the piece ends.
            Found::Open { at } if at < held => {
                self.release(at);
                self.held.extend_from_slice(&piece[..ahead]);
                self.before_end(Part::Released, at == 0)
            }
            Found::Open { .. } => {
                self.release(held);
                Part::Released
            }
        }
    }

    /// Moves the first `count` bytes of what is held to where [`Scanner::released`] shows them.
    fn release(&mut self, count: usize) {
        self.released.clear();
        self.released.extend(self.held.drain(..count));
    }

    fn before_match(&mut self, part: Part, is_empty: bool, number: usize) -> Part {
        if is_empty {
            return Part::Match(number);
        }
        self.found = Some(number);
        part
    }

    fn before_end(&mut self, part: Part, is_empty: bool) -> Part {
        if is_empty {
            self.at = 0;
            return Part::End;
        }
        self.is_over = true;
        part
    }

    /// The bytes of the [`Part::Released`] that came last.
    pub(super) fn released(&self) -> &[u8] {
        &self.released
    }

    /// True when no byte is held back.
    pub(super) fn is_clear(&self) -> bool {
        self.held.is_empty()
    }

    /// What is held at the end of the stream. It passes as it is: as in nginx, a text that may
    /// have begun is not given up in favour of a shorter one when the stream ends inside of it.
    pub(super) fn finish(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Replaces in a stream that comes in `pieces`: match `n` becomes `<n>`.
    fn replace(texts: &[&[u8]], once: bool, pieces: &[&[u8]]) -> Vec<u8> {
        let texts: Vec<Vec<u8>> = texts.iter().map(|text| text.to_vec()).collect();
        let patterns = Patterns::new(&texts);
        let mut done = Set::default();
        let mut scanner = Scanner::default();
        let mut out = Vec::new();
        for piece in pieces {
            loop {
                match scanner.next(&patterns, &done, piece) {
                    Part::Released => out.extend_from_slice(scanner.released()),
                    Part::Text(range) => out.extend_from_slice(&piece[range]),
                    Part::Match(number) => {
                        out.extend_from_slice(format!("<{number}>").as_bytes());
                        if once {
                            done.insert(number);
                        }
                    }
                    Part::End => break,
                }
            }
            assert!(scanner.held.len() < patterns.longest);
        }
        out.extend(scanner.finish());
        out
    }

    /// The same on the whole text, byte by byte.
    fn model(texts: &[&[u8]], once: bool, text: &[u8]) -> Vec<u8> {
        let shortest = texts.iter().map(|text| text.len()).min().unwrap();
        let mut used = vec![false; texts.len()];
        let mut out = Vec::new();
        let mut at = 0;
        'bytes: while at + shortest <= text.len() {
            for (number, pattern) in texts.iter().enumerate() {
                if once && used[number] {
                    continue;
                }
                let length = pattern.len().min(text.len() - at);
                if !text[at..at + length].eq_ignore_ascii_case(&pattern[..length]) {
                    continue;
                }
                if length < pattern.len() {
                    break 'bytes;
                }
                out.extend_from_slice(format!("<{number}>").as_bytes());
                used[number] = true;
                at += length;
                continue 'bytes;
            }
            out.push(text[at]);
            at += 1;
        }
        out.extend_from_slice(&text[at..]);
        out
    }

    #[test]
    fn replaces() {
        fn check(texts: &[&str], text: &str, many: &str, once: &str) {
            let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            let bytes = text.as_bytes();
            let singles: Vec<&[u8]> = bytes.chunks(1).collect();
            for pieces in [&[bytes][..], &singles[..]] {
                for (once, expected) in [(false, many), (true, once)] {
                    let found = String::from_utf8(replace(&texts, once, pieces)).unwrap();
                    assert_eq!(found, expected, "{text} once: {once} pieces: {}", pieces.len());
                }
            }
        }
        check(&["foo"], "foofoo", "<0><0>", "<0>foo");
        check(&["foo"], "FOOfo", "<0>fo", "<0>fo");
        check(&["Foo"], "xfOox", "x<0>x", "x<0>x");
        check(&["foo"], "fo", "fo", "fo");
        check(&["foo"], "", "", "");
        check(&["abac"], "abaabac", "aba<0>", "aba<0>");
        check(&["ababX"], "abababX", "ab<0>", "ab<0>");
        check(&["aab"], "aaaab", "aa<0>", "aa<0>");
        check(&["A"], "CAAC", "C<0><0>C", "C<0>AC");
        // The leftmost wins, then the first one in the configuration.
        check(&["bcd", "ab"], "abcd", "<1>cd", "<1>cd");
        check(&["ab", "abc"], "abcabc", "<0>c<0>c", "<0>c<1>");
        check(&["abc", "ab"], "abcabcabx", "<0><0><1>x", "<0><1>cabx");
    }

    #[test]
    fn ends_inside_of_a_text() {
        let check = |texts: &[&str], text: &str, expected: &str| {
            let texts: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
            let found = replace(&texts, false, &[text.as_bytes()]);
            assert_eq!(String::from_utf8(found).unwrap(), expected, "{text}");
        };
        check(&["abcdef", "ab"], "xab", "xab");
        check(&["ab", "abcdef"], "xab", "x<0>");
        check(&["abcdef", "ab"], "xabx", "x<1>x");
    }

    #[test]
    fn bytes_that_no_text_begins_with_pass_at_once() {
        let patterns = Patterns::new(&[b"abcd".to_vec()]);
        let mut scanner = Scanner::default();
        let done = Set::default();
        assert_eq!(scanner.next(&patterns, &done, b"wxyz"), Part::Text(0..4));
        assert_eq!(scanner.next(&patterns, &done, b"wxyz"), Part::End);
        assert_eq!(scanner.next(&patterns, &done, b"xxab"), Part::Text(0..2));
        assert_eq!(scanner.next(&patterns, &done, b"xxab"), Part::End);
        assert!(!scanner.is_clear());
        assert_eq!(scanner.next(&patterns, &done, b"x"), Part::Released);
        assert_eq!(scanner.released(), b"ab");
        assert!(scanner.is_clear());
        assert_eq!(scanner.next(&patterns, &done, b"x"), Part::Text(0..1));
    }

    #[test]
    fn texts_longer_than_a_shift() {
        let long: Vec<u8> = (0..700u32).map(|i| b'a' + (i * i % 23) as u8).collect();
        let mut text = vec![b'z'; 300];
        text.extend_from_slice(&long[..650]);
        text.extend_from_slice(&long);
        text.extend_from_slice(b"tail");
        for size in [1, 7, 256, 2000] {
            let pieces: Vec<&[u8]> = text.chunks(size).collect();
            let expected = model(&[&long], false, &text);
            assert!(expected.ends_with(b"<0>tail"));
            assert_eq!(replace(&[&long], false, &pieces), expected, "{size}");
        }
    }

    fn letters(range: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(prop::sample::select(&b"aAbBc\xe4"[..]), range)
    }

    proptest! {
        #[test]
        fn agrees_with_the_model(
            texts in proptest::collection::vec(letters(1..6), 1..6),
            text in letters(0..80),
            sizes in proptest::collection::vec(0usize..9, 0..40),
            once: bool,
        ) {
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            let mut pieces: Vec<&[u8]> = Vec::new();
            let mut rest = text.as_slice();
            for size in sizes {
                let (piece, after) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = after;
            }
            pieces.push(rest);
            let expected = model(&texts, once, &text);
            prop_assert_eq!(replace(&texts, once, &pieces), expected);
        }
    }
}
