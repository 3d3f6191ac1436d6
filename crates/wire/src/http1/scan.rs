//! Byte classes and the search for the end of a field value: the inner loops of both parsers.

/// What a byte means inside a field name.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum NameByte {
    /// A letter, a digit or a hyphen: what nginx calls a valid name.
    Plain,
    Underscore,
    /// Printable, yet outside nginx's set: dropped or passed, as `ignore_invalid_headers` says.
    Odd,
    Colon,
    /// A space or a control, CR and LF among them: never part of a name.
    Bad,
}

pub(super) static NAME: [NameByte; 256] = {
    let mut table = [NameByte::Odd; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() || b == b'-' {
            table[byte] = NameByte::Plain;
        } else if b <= 0x20 || b == 0x7f {
            table[byte] = NameByte::Bad;
        }
        byte += 1;
    }
    table[b'_' as usize] = NameByte::Underscore;
    table[b':' as usize] = NameByte::Colon;
    table
};

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// The eight bytes at `at` as a little-endian number; `None` when fewer are left.
#[inline]
pub(super) fn word(buf: &[u8], at: usize) -> Option<u64> {
    buf.get(at..).and_then(|rest| rest.first_chunk::<8>()).map(|bytes| u64::from_le_bytes(*bytes))
}

/// Index of the first byte at or after `from` that is not plain in a name, or `buf.len()`.
#[inline]
pub(super) fn plain_run(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word(buf, at) {
        // With the high bits away, adding up to 0x7f to each byte carries into no other; the sums
        // below have their high bits set exactly where the comparison in their names holds.
        let low = word & !HIGH;
        let folded = low | (LOW * 0x20);
        let from_a = folded + LOW * (0x80 - b'a' as u64);
        let beyond_z = folded + LOW * (0x7f - b'z' as u64);
        let from_0 = low + LOW * (0x80 - b'0' as u64);
        let beyond_9 = low + LOW * (0x7f - b'9' as u64);
        let not_hyphen = (low ^ (LOW * b'-' as u64)) + LOW * 0x7f;
        let plain = (from_a & !beyond_z) | (from_0 & !beyond_9) | !not_hyphen;
        let stops = (!plain | word) & HIGH;
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while buf.get(at).is_some_and(|&byte| NAME[byte as usize] == NameByte::Plain) {
        at += 1;
    }
    at
}

/// Index of the first byte at or after `from` that cannot stand inside a request target (a control,
/// a space or DEL), or `buf.len()`.
#[inline]
pub(super) fn target_run(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(word) = word(buf, at) {
        // Borrows travel upwards only, so the lowest hit is a true one.
        let del = word ^ (LOW * 0x7f);
        let small = word.wrapping_sub(LOW * 0x21) & !word;
        let stops = (small | del.wrapping_sub(LOW) & !del) & HIGH;
        if stops != 0 {
            return at + (stops.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while buf.get(at).is_some_and(|&byte| byte > b' ' && byte != 0x7f) {
        at += 1;
    }
    at
}

/// Index of the first NUL, CR or LF at or after `from`, or `buf.len()`.
///
/// Eight bytes at a time; most values end within 32 bytes, where a call into `memchr` costs more
/// than it saves. Longer ones (cookies) are handed to its vector code.
#[inline]
pub(super) fn line_break(buf: &[u8], from: usize) -> usize {
    let mut at = from;
    let patience = from + 32;
    while at < patience {
        let Some(word) = word(buf, at) else { return tail(buf, at) };
        // A high bit survives for each byte below 14; the lowest one is exact, since a borrow
        // only travels upwards.
        let hits = word.wrapping_sub(LOW * 14) & !word & HIGH;
        if hits == 0 {
            at += 8;
            continue;
        }
        at += (hits.trailing_zeros() / 8) as usize;
        if matches!(buf.get(at), Some(0 | b'\r' | b'\n')) {
            return at;
        }
        at += 1;
    }
    tail(buf, at)
}

fn tail(buf: &[u8], at: usize) -> usize {
    let rest = buf.get(at..).unwrap_or(&[]);
    memchr::memchr3(0, b'\r', b'\n', rest).map_or(buf.len(), |found| at + found)
}

/// True for the whitespace that may surround a field value (RFC 9110 section 5.6.3).
#[inline]
pub(super) fn is_ows(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_break_finds_what_a_plain_search_finds() {
        // Every position of every byte in lengths around the word and patience limits.
        for len in [0usize, 1, 7, 8, 9, 15, 16, 63, 64, 65, 72, 130] {
            for stop in [0u8, b'\r', b'\n', b'\t', 0x0b, 0x0d, 0x0e, 0x7f, 0x80, 0x8d, 0xff] {
                for place in 0..len {
                    let mut buf = vec![b'a'; len];
                    buf[place] = stop;
                    let plain = buf.iter().position(|b| matches!(b, 0 | b'\r' | b'\n'));
                    assert_eq!(line_break(&buf, 0), plain.unwrap_or(len), "{len} {stop} {place}");
                }
            }
        }
        assert_eq!(line_break(b"abc", 3), 3);
    }

    #[test]
    fn plain_run_agrees_with_the_table() {
        for byte in 0..=255u8 {
            for place in 0..17 {
                let mut buf = *b"Content-Length-09";
                buf[place] = byte;
                let stop = buf.iter().position(|&b| NAME[b as usize] != NameByte::Plain);
                assert_eq!(plain_run(&buf, 0), stop.unwrap_or(buf.len()), "{byte} {place}");
            }
        }
    }

    #[test]
    fn target_run_agrees_with_a_plain_search() {
        for byte in 0..=255u8 {
            for next in [b'a', b' ', 0x21, 0x7f, 0x80, 0] {
                for place in 0..16 {
                    let mut buf = *b"/path?query=rest/";
                    buf[place] = byte;
                    buf[place + 1] = next;
                    let stop = buf.iter().position(|&b| b <= b' ' || b == 0x7f);
                    assert_eq!(target_run(&buf, 0), stop.unwrap_or(buf.len()), "{byte} {place}");
                }
            }
        }
    }

    #[test]
    fn a_borrow_never_hides_or_invents_a_hit() {
        let buf = [b'\t', b'\r', 0x8d, 0x0e, b'\n', 0, b'a', b'b'];
        assert_eq!(line_break(&buf, 0), 1);
        assert_eq!(line_break(&buf, 2), 4);
        assert_eq!(line_break(&buf, 5), 5);
    }
}
