//! Lines that are compressed before they are written.

use std::io;
use zlib_rs::{Deflate, DeflateFlush, Status};

/// zlib's code for a window of 32 KiB and gzip's frame around the data.
const GZIP_WINDOW: u8 = 15 + 16;

/// `lines` as one member of a gzip file (RFC 1952); members can follow one another in a file.
///
/// # Errors
/// What the compressor says, which it never does when it is given room enough.
pub(super) fn gzip(lines: &[u8], level: u8) -> io::Result<Vec<u8>> {
    let mut deflate = Deflate::new(i32::from(level), true, GZIP_WINDOW);
    // What stored blocks would need, and the frame; text takes a fraction of it.
    let mut out = vec![0; lines.len() + lines.len() / 8 + 64];
    let mut taken = 0;
    loop {
        let made = deflate.total_out() as usize;
        let status = deflate
            .compress(&lines[taken..], &mut out[made..], DeflateFlush::Finish)
            .map_err(|error| io::Error::other(error.as_str()))?;
        taken = deflate.total_in() as usize;
        if status == Status::StreamEnd {
            out.truncate(deflate.total_out() as usize);
            return Ok(out);
        }
        out.resize(out.len() * 2, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_follow_one_another() {
        for level in [1, 6, 9] {
            for length in [0, 1, 100_000] {
                let lines: Vec<u8> = (0..length).map(|at: u32| (at % 251) as u8).collect();
                let found = gzip(&lines, level).unwrap();
                assert_eq!(found[..3], [0x1f, 0x8b, 8]);
                // RFC 1952 section 2.3.1: the length of what was compressed stands at the end.
                assert_eq!(found[found.len() - 4..], (lines.len() as u32).to_le_bytes());
            }
        }
    }
}
