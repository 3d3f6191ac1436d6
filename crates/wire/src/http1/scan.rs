//! Byte classes and the search for the end of a field value: the inner loops of both parsers.

use wide::u8x16;

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

/// Sixteen bytes, all looked at by the same instructions.
type Lanes = u8x16;

fn all(byte: u8) -> Lanes {
    Lanes::splat(byte)
}

/// Bytes from `first` on, so many.
#[inline(always)]
fn within(lanes: Lanes, first: u8, count: u8) -> Lanes {
    let distance = lanes - all(first);
    distance.min(all(count - 1)).simd_eq(distance)
}

/// Letters, digits and hyphens: plain in a name.
#[inline(always)]
fn plain(lanes: Lanes) -> Lanes {
    let letters = within(lanes | all(0x20), b'a', 26);
    letters | within(lanes, b'0', 10) | lanes.simd_eq(all(b'-'))
}

/// NUL, CR and LF.
#[inline(always)]
fn breaks(lanes: Lanes) -> Lanes {
    lanes.simd_eq(all(b'\r')) | lanes.simd_eq(all(b'\n')) | lanes.simd_eq(all(0))
}

/// Controls, spaces and DEL.
#[inline(always)]
fn outside_target(lanes: Lanes) -> Lanes {
    lanes.min(all(b' ')).simd_eq(lanes) | lanes.simd_eq(all(0x7f))
}

/// Index of the first byte at or after `from` that `stops` is for, or `buf.len()`.
#[inline(always)]
fn run(buf: &[u8], from: usize, stops: impl Fn(Lanes) -> Lanes) -> usize {
    let (chunks, left) = buf.get(from..).unwrap_or(&[]).as_chunks::<16>();
    let mut at = from;
    for chunk in chunks {
        let found = stops(Lanes::new(*chunk)).to_bitmask();
        if found != 0 {
            return at + found.trailing_zeros() as usize;
        }
        at += 16;
    }
    rest(buf, left.len(), stops)
}

/// The same for the last bytes, fewer than sixteen: those before them are looked at once more.
#[inline(never)]
fn rest(buf: &[u8], left: usize, stops: impl Fn(Lanes) -> Lanes) -> usize {
    let at = buf.len() - left;
    let found = match buf.last_chunk::<16>() {
        Some(chunk) => u64::from(stops(Lanes::new(*chunk)).to_bitmask()) >> (16 - left),
        None => {
            let mut chunk = [0; 16];
            chunk[..left].copy_from_slice(&buf[at..]);
            u64::from(stops(Lanes::new(chunk)).to_bitmask())
        }
    };
    at + (found.trailing_zeros() as usize).min(left)
}

/// Index of the first byte at or after `from` that is not plain in a name, or `buf.len()`.
#[inline]
pub(super) fn plain_run(buf: &[u8], from: usize) -> usize {
    run(buf, from, |lanes| !plain(lanes))
}

/// Index of the first byte at or after `from` that cannot stand inside a request target (a control,
/// a space or DEL), or `buf.len()`.
#[inline]
pub(super) fn target_run(buf: &[u8], from: usize) -> usize {
    run(buf, from, outside_target)
}

/// Index of the first NUL, CR or LF at or after `from`, or `buf.len()`.
#[inline]
pub(super) fn line_break(buf: &[u8], from: usize) -> usize {
    run(buf, from, breaks)
}

/// Whether sixteen bytes, of which `len` count and are plain in a name, are those of `folded`
/// in either case.
#[inline]
pub(super) fn is_same_name(chunk: &[u8; 16], folded: &[u8; 16], len: usize) -> bool {
    let same = (Lanes::new(*chunk) | all(0x20)).simd_eq(Lanes::new(*folded));
    !same.to_bitmask() & ((1u32 << len.min(16)) - 1) == 0
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
        // Every position of every byte in lengths around one and two steps.
        for len in [0usize, 1, 7, 15, 16, 17, 31, 32, 33, 47, 130] {
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
    fn a_stop_hides_no_other() {
        let buf = [b'\t', b'\r', 0x8d, 0x0e, b'\n', 0, b'a', b'b'];
        assert_eq!(line_break(&buf, 0), 1);
        assert_eq!(line_break(&buf, 2), 4);
        assert_eq!(line_break(&buf, 5), 5);
    }

    #[test]
    fn what_lies_before_the_start_stops_nothing() {
        for len in 0..40usize {
            for from in 0..=len {
                let mut buf = vec![b'\n'; from];
                buf.resize(len, b'a');
                assert_eq!(line_break(&buf, from), len, "{len} {from}");
                assert_eq!(plain_run(&buf, from), len, "{len} {from}");
                assert_eq!(target_run(&buf, from), len, "{len} {from}");
            }
        }
    }
}
