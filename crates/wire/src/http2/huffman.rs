//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B).
//!
//! The code is canonical, so the lengths of its codes are all there is to know; codes and the
//! decoder's table are computed by the compiler. Decoding takes four bits at a time.

/// Bits of the code of each byte, and of the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

/// Symbols, with the end of the string.
const SYMBOLS: usize = 257;
const EOS: usize = 256;
/// Inner nodes of the code's tree: one fewer than its leaves.
const NODES: usize = SYMBOLS - 1;

/// The codes, right-aligned: in the order of lengths, and of bytes among equal lengths, each is
/// the one before plus one.
const fn codes() -> [u32; SYMBOLS] {
    let mut codes = [0; SYMBOLS];
    let mut code = 0u32;
    let mut length = 1;
    while length <= 30 {
        let mut symbol = 0;
        while symbol < SYMBOLS {
            if LENGTHS[symbol] == length {
                codes[symbol] = code;
                code += 1;
            }
            symbol += 1;
        }
        code <<= 1;
        length += 1;
    }
    codes
}

/// What four bits lead to.
#[derive(Clone, Copy)]
struct Turn {
    /// The inner node to go on from.
    next: u8,
    /// The byte that was completed.
    byte: u8,
    has_byte: bool,
    /// The string may end here: what is left of it is a beginning of the end-of-string symbol,
    /// and no longer than a byte. (It ought to be shorter than one, but nginx takes a whole one,
    /// and clients rely on it.)
    may_end: bool,
    fails: bool,
}

static TURNS: [[Turn; 16]; NODES] = turns();

/// In `children`, values from this one on are leaves.
const LEAF: u16 = 1024;

const fn tree() -> [[u16; 2]; NODES] {
    let codes = codes();
    let mut children = [[0u16; 2]; NODES];
    let mut used = 1;
    let mut symbol = 0;
    while symbol < SYMBOLS {
        let length = LENGTHS[symbol];
        let mut node = 0;
        let mut depth = 0;
        while depth + 1 < length {
            let bit = (codes[symbol] >> (length - 1 - depth) & 1) as usize;
            if children[node][bit] == 0 {
                children[node][bit] = used;
                used += 1;
            }
            node = children[node][bit] as usize;
            depth += 1;
        }
        children[node][(codes[symbol] & 1) as usize] = LEAF + symbol as u16;
        symbol += 1;
    }
    children
}

const fn turns() -> [[Turn; 16]; NODES] {
    let children = tree();
    // Nodes on the way of the end-of-string symbol, whose bits are all ones.
    let mut endings = [false; NODES];
    let mut node = 0;
    let mut depth = 0;
    while depth <= 8 {
        endings[node] = true;
        node = children[node][1] as usize;
        depth += 1;
    }
    let nothing = Turn { next: 0, byte: 0, has_byte: false, may_end: false, fails: false };
    let mut turns = [[nothing; 16]; NODES];
    let mut from = 0;
    while from < NODES {
        let mut bits = 0;
        while bits < 16 {
            let mut turn = nothing;
            let mut node = from;
            let mut at = 4;
            while at > 0 {
                at -= 1;
                let next = children[node][bits >> at & 1];
                if next < LEAF {
                    node = next as usize;
                } else if next == LEAF + EOS as u16 {
                    turn.fails = true;
                    node = 0;
                } else {
                    turn.byte = (next - LEAF) as u8;
                    turn.has_byte = true;
                    node = 0;
                }
            }
            turn.next = node as u8;
            turn.may_end = endings[node];
            turns[from][bits] = turn;
            bits += 1;
        }
        from += 1;
    }
    turns
}

/// Appends the decoded text; false when the input is no valid code. What was appended until then
/// is to be dropped.
pub fn decode(input: &[u8], out: &mut Vec<u8>) -> bool {
    let mut node = 0;
    let mut may_end = true;
    for byte in input {
        for bits in [byte >> 4, byte & 15] {
            let turn = TURNS[node as usize][bits as usize];
            if turn.fails {
                return false;
            }
            if turn.has_byte {
                out.push(turn.byte);
            }
            node = turn.next;
            may_end = turn.may_end;
        }
    }
    may_end
}

/// Bytes that the code of `text` takes.
pub fn encoded_len(text: &[u8]) -> usize {
    let bits: usize = text.iter().map(|byte| LENGTHS[*byte as usize] as usize).sum();
    bits.div_ceil(8)
}

/// Appends the code of `text`.
pub fn encode(text: &[u8], out: &mut Vec<u8>) {
    let mut held = 0u64;
    let mut count = 0u32;
    for &byte in text {
        let (code, length) = WHOLE[byte as usize];
        held = held << length | u64::from(code);
        count += u32::from(length);
        // A code has at most thirty bits, so there is room for another one behind 31.
        if count >= 32 {
            count -= 32;
            out.extend_from_slice(&((held >> count) as u32).to_be_bytes());
        }
    }
    while count >= 8 {
        count -= 8;
        out.push((held >> count) as u8);
    }
    if count > 0 {
        // Filled up with ones, the beginning of the end of the string.
        out.push((held << (8 - count)) as u8 | (0xff >> count));
    }
}

/// Codes and their lengths, side by side.
static WHOLE: [(u32, u8); 256] = {
    let codes = codes();
    let mut whole = [(0, 0); 256];
    let mut byte = 0;
    while byte < 256 {
        whole[byte] = (codes[byte], LENGTHS[byte]);
        byte += 1;
    }
    whole
};

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7541 appendix C.4 and C.6.
    #[test]
    fn the_examples_of_the_rfc() {
        let rows: [(&[u8], &[u8]); 4] = [
            (
                b"www.example.com",
                &[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff],
            ),
            (b"no-cache", &[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf]),
            (b"custom-value", &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf]),
            (b"302", &[0x64, 0x02]),
        ];
        for (text, code) in rows {
            let mut out = Vec::new();
            encode(text, &mut out);
            assert_eq!(out, code);
            assert_eq!(encoded_len(text), code.len());
            out.clear();
            assert!(decode(code, &mut out));
            assert_eq!(out, text);
        }
    }

    #[test]
    fn every_byte_survives() {
        let text: Vec<u8> = (0..=255).chain((0..=255).rev()).collect();
        let mut code = Vec::new();
        encode(&text, &mut code);
        let mut back = Vec::new();
        assert!(decode(&code, &mut back));
        assert_eq!(back, text);
    }

    /// RFC 7541 section 5.2: padding is short and all ones; no end of the string.
    #[test]
    fn wrong_padding_and_the_end_symbol_are_refused() {
        for code in [&[0x1f, 0xff][..], &[0xff, 0xff], &[0xff; 4], &[0x00], &[0xf1, 0xe0]] {
            assert!(!decode(code, &mut Vec::new()), "{code:?}");
        }
        for code in [&[0x1f][..], &[0xff]] {
            assert!(decode(code, &mut Vec::new()));
        }
    }
}
