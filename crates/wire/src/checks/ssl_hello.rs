//! TLS: a ClientHello of 1.2 and 1.3, answered by a ServerHello (RFC 8446 section 4.1, RFC 5246
//! section 7.4.1). Nothing is decrypted: a server that says hello has read ours, has a certificate
//! and chose what to speak.

use super::{Dialogue, Turn};

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const SERVER_HELLO: u8 = 2;

/// AES-GCM and ChaCha20 of 1.3, then ECDHE of 1.2 and, for old servers, plain RSA.
const CIPHERS: [u16; 13] = [
    0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014, 0x009c,
    0x002f,
];

pub(super) fn client_hello(random: &[u8; 64]) -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend_from_slice(&random[..32]);
    hello.push(0);
    with_length(&mut hello, |out| CIPHERS.iter().for_each(|c| out.extend(c.to_be_bytes())));
    hello.extend_from_slice(&[1, 0]);
    with_length(&mut hello, |out| {
        // supported_groups: x25519, secp256r1, secp384r1.
        extension(out, 10, |out| {
            with_length(out, |out| out.extend_from_slice(&[0, 29, 0, 23, 0, 24]));
        });
        // ec_point_formats: uncompressed.
        extension(out, 11, |out| out.extend_from_slice(&[1, 0]));
        // signature_algorithms.
        extension(out, 13, |out| {
            with_length(out, |out| {
                for scheme in [0x0403_u16, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0807, 0x0806] {
                    out.extend(scheme.to_be_bytes());
                }
            });
        });
        // supported_versions: 1.3, 1.2.
        extension(out, 43, |out| out.extend_from_slice(&[4, 3, 4, 3, 3]));
        // key_share: any 32 bytes are a point of x25519 (RFC 7748 section 5).
        extension(out, 51, |out| {
            with_length(out, |out| {
                out.extend_from_slice(&[0, 29]);
                with_length(out, |out| out.extend_from_slice(&random[32..]));
            });
        });
    });
    let mut record = vec![HANDSHAKE, 3, 1];
    with_length(&mut record, |out| {
        // The type and a length of three bytes.
        out.extend_from_slice(&[1, 0]);
        with_length(out, |out| out.extend_from_slice(&hello));
    });
    record
}

/// What `write` appends, after its length in two bytes.
fn with_length(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    let length = (out.len() - at - 2) as u16;
    out[at..at + 2].copy_from_slice(&length.to_be_bytes());
}

fn extension(out: &mut Vec<u8>, kind: u16, write: impl FnOnce(&mut Vec<u8>)) {
    out.extend(kind.to_be_bytes());
    with_length(out, write);
}

pub(super) fn turn(dialogue: &mut Dialogue) -> Turn {
    match dialogue.input[..] {
        [HANDSHAKE, 3, _, _, _, SERVER_HELLO, ..] => Turn::passed(b""),
        [HANDSHAKE, 3, _, _, _, ..] if dialogue.input.len() == 5 => Turn::MORE,
        [ALERT, 3, _, _, _, _, number, ..] => {
            Turn::failed(format!("the server sent TLS alert {number}"))
        }
        [HANDSHAKE | ALERT, 3, ..] | [HANDSHAKE | ALERT] if dialogue.input.len() < 7 => Turn::MORE,
        _ => Turn::failed("the server does not speak TLS"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{Progress, Protocol};

    #[test]
    fn the_lengths_of_the_hello_add_up() {
        let hello = client_hello(&[9; 64]);
        let length = |at: usize| usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
        assert_eq!(length(3), hello.len() - 5);
        assert_eq!((hello[5], length(7)), (1, hello.len() - 9));
    }

    #[test]
    fn answers() {
        for (said, passes) in [
            (&[22, 3, 3, 0, 90, 2, 0, 0][..], true),
            (&[21, 3, 3, 0, 2, 2, 40][..], false),
            (b"HTTP/1.1 400 Bad Request\r\n", false),
            (&[22, 3, 3, 0, 90, 1, 0, 0][..], false),
        ] {
            let mut dialogue = Dialogue::new(Protocol::SslHello, None);
            let verdict = dialogue.receive(said);
            assert_eq!(matches!(verdict, Progress::Passed(_)), passes, "{verdict:?}");
        }
        let mut slow = Dialogue::new(Protocol::SslHello, None);
        for byte in [22, 3, 3, 0, 90] {
            assert_eq!(slow.receive(&[byte]), Progress::More);
        }
        assert_eq!(slow.receive(&[2]), Progress::Passed(Vec::new()));
    }
}
