//! A memcached answer to `get`, rewritten as HTTP/1 (memcached's doc/protocol.txt).
//!
//! ```text
//! VALUE key flags length CR LF data CR LF END CR LF
//! ```

/// What follows the data.
const END: &[u8] = b"\r\nEND\r\n";
/// Longest first line.
const LONGEST: usize = 1024;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The first line is no answer to `get`.
    Line,
    /// What follows the data is not its end.
    Trailer,
}

/// Rewrites an answer that comes in pieces.
#[derive(Clone, Debug)]
pub struct Rewriter {
    key: Vec<u8>,
    /// The bit of an item's flags that tells that it is compressed.
    gzip_flag: u32,
    state: State,
}

#[derive(Clone, Debug)]
enum State {
    Line(Vec<u8>),
    /// So many bytes of data still to come.
    Data(u64),
    /// So many bytes of what follows were seen.
    Trailer(usize),
    Over,
}

impl Rewriter {
    /// For the item `key`, as it was asked for.
    pub fn new(key: Vec<u8>, gzip_flag: u32) -> Rewriter {
        Rewriter { key, gzip_flag, state: State::Line(Vec::new()) }
    }

    /// Appends what `input` says: a head, then the data.
    ///
    /// # Errors
    /// An answer that is none.
    pub fn rewrite(&mut self, mut input: &[u8], out: &mut Vec<u8>) -> Result<(), Bad> {
        while !input.is_empty() {
            match &mut self.state {
                State::Line(line) => {
                    let end = memchr::memchr(b'\n', input);
                    let (part, rest) = input.split_at(end.map_or(input.len(), |end| end + 1));
                    line.extend_from_slice(part);
                    input = rest;
                    if line.len() > LONGEST {
                        return Err(Bad::Line);
                    }
                    if end.is_some() {
                        let line = std::mem::take(line);
                        self.state = self.first_line(&line, out).ok_or(Bad::Line)?;
                    }
                }
                State::Data(left) => {
                    let taken = usize::try_from(*left).unwrap_or(input.len()).min(input.len());
                    out.extend_from_slice(&input[..taken]);
                    input = &input[taken..];
                    *left -= taken as u64;
                    if *left == 0 {
                        self.state = State::Trailer(0);
                    }
                }
                State::Trailer(seen) => {
                    if input[0] != END[*seen] {
                        return Err(Bad::Trailer);
                    }
                    input = &input[1..];
                    *seen += 1;
                    if *seen == END.len() {
                        self.state = State::Over;
                    }
                }
                State::Over => return Err(Bad::Trailer),
            }
        }
        Ok(())
    }

    /// True when nothing more belongs to the answer.
    pub fn is_over(&self) -> bool {
        matches!(self.state, State::Over)
    }

    fn first_line(&self, line: &[u8], out: &mut Vec<u8>) -> Option<State> {
        let line = line.strip_suffix(b"\r\n")?;
        if line == b"END" {
            out.extend_from_slice(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n");
            return Some(State::Over);
        }
        let rest = line.strip_prefix(b"VALUE ")?.strip_prefix(self.key.as_slice())?;
        let rest = std::str::from_utf8(rest.strip_prefix(b" ")?).ok()?;
        let mut words = rest.split(' ');
        let flags: u32 = words.next()?.parse().ok()?;
        let length: u64 = words.next()?.parse().ok()?;
        out.extend_from_slice(b"HTTP/1.0 200 OK\r\n");
        if self.gzip_flag & flags != 0 {
            out.extend_from_slice(b"Content-Encoding: gzip\r\n");
        }
        out.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        Some(if length == 0 { State::Trailer(0) } else { State::Data(length) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_become_http() {
        let check = |text: &str, expected: Result<(&str, bool), Bad>| {
            for size in [1, 3, 100] {
                let mut rewriter = Rewriter::new(b"k".to_vec(), 2);
                let mut out = Vec::new();
                let mut pieces = text.as_bytes().chunks(size);
                let found = pieces.try_for_each(|piece| rewriter.rewrite(piece, &mut out));
                let found = found
                    .map(|()| (String::from_utf8_lossy(&out).into_owned(), rewriter.is_over()));
                let expected = expected.map(|(text, over)| (text.to_owned(), over));
                assert_eq!(found, expected, "{text:?} by {size}");
            }
        };
        let good = "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc";
        check("VALUE k 0 3\r\nabc\r\nEND\r\n", Ok((good, true)));
        check("VALUE k 0 3\r\nabc\r\nEN", Ok((good, false)));
        let packed = "HTTP/1.0 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n";
        check("VALUE k 3 0\r\n\r\nEND\r\n", Ok((packed, true)));
        check("END\r\n", Ok(("HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n", true)));
        check("VALUE l 0 3\r\n", Err(Bad::Line));
        check("VALUE k 0\r\n", Err(Bad::Line));
        check("VALUE k x 1\r\n", Err(Bad::Line));
        check("ERROR\r\n", Err(Bad::Line));
        check("VALUE k 0 1\r\nabc", Err(Bad::Trailer));
        check("END\r\nx", Err(Bad::Trailer));
        check(&"x".repeat(2000), Err(Bad::Line));
    }
}
